//! Whole decisions: what is let through, what is refused and why, and what is never confused.

mod answers;
mod hostile;
mod identity;
