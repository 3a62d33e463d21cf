//! The list of mutants, as `cargo mutants --list --json` prints it.

use serde::Deserialize;

/// A position in a file: lines and columns from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub(crate) struct Place {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

/// Where the changed piece of source begins.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(crate) struct Extent {
    pub(crate) start: Place,
}

/// What a mutant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Genre {
    /// The body of a function becomes a value.
    FnValue,
    BinaryOperator,
    /// `!` or `-` is deleted.
    UnaryOperator,
    /// The guard of an arm becomes `true` or `false`.
    MatchArmGuard,
    /// An arm is deleted.
    MatchArm,
    /// A field is deleted, and comes from the base of the expression.
    StructField,
}

/// One change of the sources.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) file: String,
    pub(crate) genre: Genre,
    pub(crate) replacement: String,
    pub(crate) span: Extent,
}

/// Reads what cargo-mutants printed, without what lies outside of `src` (a bench is no part of the suites' build). The number of a mutant is its
/// place in this list.
///
/// # Errors
/// When it is no such list.
pub(crate) fn read(json: &str) -> Result<Vec<Mutant>, serde_json::Error> {
    let mut mutants: Vec<Mutant> = serde_json::from_str(json)?;
    mutants.retain(|mutant| !mutant.file.contains(".."));
    Ok(mutants)
}
