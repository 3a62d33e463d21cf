//! Tests of one room of the library each, in this process: exact bytes, with real peers or none.
//! `tests/blackbox` tests a whole gate as a process.

mod admin_api;
mod config;
mod documents;
mod event_clocks;
mod explain;
mod forward;
mod gate;
mod in_force;
mod intake;
mod issuing;
mod keys;
mod ops;
mod scim;
mod secrecy;
mod sharing;
mod signal_log;
mod ssf;
mod state;
mod transfer;
