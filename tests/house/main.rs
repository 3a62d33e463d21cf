//! What a compiler does not check: the house rules for the parsed sources, and the promises of the documentation.
//!
//! Each rule is a function over parsed sources, with a self-test: a small source that breaks the rule,
//! and one that follows it.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a broken rule fails the test")]
#![allow(clippy::excessive_nesting, reason = "a visitor is declared inside the rule that it serves")]

mod attacks;
mod benches;
mod documents;
mod editor;
mod files;
mod listed;
mod map;
mod monitoring;
mod names;
mod openapi;
mod promises;
mod secrets;
mod settings;
mod sources;
mod time;
mod words;
