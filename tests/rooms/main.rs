//! One room of the library each, in this process: exact bytes, against real peers or none. What a whole gate does as a
//! process is in `tests/blackbox`.

mod admin_api;
mod config;
mod documents;
mod event_clocks;
mod explain;
mod forward;
mod gate;
mod in_force;
mod keys;
mod ops;
mod secrecy;
mod ssf;
mod state;
