//! Tests of the built binary: configuration in, HTTP, metrics, logs and exit codes out. They never use the library.
#![allow(unreachable_pub, reason = "a test crate has no public face")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed expectation fails the test"
)]
#![allow(clippy::too_many_lines, reason = "tables")]

mod access_log;
mod accounts;
mod admin_calls;
mod answers;
mod authority;
mod backups;
mod browsers;
mod clocks;
mod commands;
mod console_live;
mod console_pages;
mod dpop;
mod drain;
mod edges;
mod examples;
mod failing_upstreams;
mod grpc;
mod guides;
mod harness;
mod hostile_h2;
mod hostile_heads;
mod hostile_tokens;
mod http2_edges;
mod identity;
mod idle;
mod in_force;
mod intake;
mod issuers;
mod judged_again;
mod keys;
mod killed;
mod limits;
mod mcp;
mod mcp_clients;
mod names;
mod operating;
mod operators;
mod origins;
mod overload;
mod passwords;
mod pinned;
mod policy;
mod proxy_protocol;
mod proxying;
mod quickstart;
mod reference;
mod reload;
mod resources;
mod restarts;
mod routes;
mod scim;
mod secrecy;
mod signal_recipes;
mod signals;
mod snippets;
mod stop_signals;
mod store_faults;
mod streams;
mod takeover;
mod targets;
mod telemetry;
mod tls;
mod tooling;
mod tracing;
mod tracked;
mod transfer;
mod transfer_directories;
mod transmitters;
mod upgrades;
mod upstreams;
mod usage;
mod websocket_tokens;
mod workloads;
