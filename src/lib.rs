//! Portcullis stands in front of an existing HTTP API and lets a request through only with a bearer token
//! that is still in force.
//!
//! # The life of a request
//!
//! ```text
//! gate::accept ── tls ── gate::http ── enforce::decide ───────────────── forward ── body, watched by gate::streams
//!                                        │ Target → Router
//!                                        │ bearer::extract
//!                                        │ TokenVerifier: proof cache → signature, claims   keys
//!                                        │ what events have ended                        revocations
//!                                        │ the idle clock                                sessions
//!                                        └ scopes and roles                              policy
//! ```
//!
//! Paths of the embedded authority are served by `authority` instead. If a decision needs something that is not in memory (an
//! unknown key; in a fleet, the last use of a token that seems idle here, or its first use), it returns a question, and `gate`
//! looks up the answer.
//!
//! One operating-system thread per worker, each with its own runtime, its own `SO_REUSEPORT` listener and its own
//! upstream connections. The control plane (configuration, keys, events, admin and telemetry listeners) has a thread of
//! its own and writes only snapshots, which the workers read without waiting.
//!
//! # The map
//!
//! A module imports only from those listed below it; `tests/house` checks that.

#[cfg(any(test, fuzzing))]
#[path = "../tests/properties/mod.rs"]
pub mod properties;

#[cfg(any(test, feature = "parts"))]
#[path = "../benches/parts/mod.rs"]
#[allow(missing_docs, clippy::unwrap_used, reason = "a bench")]
pub mod parts;

pub mod cli;

pub mod app;

pub mod config;

pub mod console;

pub mod admin;

pub mod gate;

pub mod forward;

pub mod signals;

pub mod authority;

pub mod enforce;

pub mod events;

pub mod usage;

pub mod sessions;

pub mod replays;

pub mod revocations;

pub mod state;

pub mod keys;

pub mod traces;

pub mod client;

pub mod log;

pub mod metrics;

pub mod tls;

pub mod shutdown;

pub mod identity;

mod http1;

mod hex;

pub mod jose;

pub mod time;
