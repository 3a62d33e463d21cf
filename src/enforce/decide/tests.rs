//! Whole decisions: what is let through, what is rejected and why, and what is never confused.

mod answers;
mod faults;
mod forms;
mod hostile;
mod identity;
mod permits;
mod possession;
mod proofs;
mod tables;
mod workloads;
