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
#[path = "../mutation/src/find.rs"]
mod find;
mod listed;
mod map;
mod monitoring;
#[path = "../mutation/src/mutant.rs"]
#[allow(dead_code, reason = "tests/mutation uses all of it")]
mod mutant;
mod names;
mod openapi;
mod promises;
mod secrets;
mod settings;
mod sources;
mod time;
#[path = "../mutation/src/weave.rs"]
#[allow(dead_code, reason = "tests/mutation uses all of it")]
mod weave;
mod words;
mod woven;
