//! String patterns: `*` matches any text within one segment.

use crate::enforce::glob;

/// What ends a segment of a string, as subjects of workloads are written.
pub const SEGMENT_ENDS: [char; 2] = glob::SEPARATORS;

/// A pattern in which `*` stands for any text, also none, without `/` and `:`. Everything else stands for itself, and the
/// whole string must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// Why it is not a pattern: it is empty, or has two stars in a row.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        match pattern {
            "" => Err("must not be empty"),
            _ if pattern.contains("**") => {
                Err("has two stars in a row; one matches any text within one segment")
            }
            _ => Ok(Self(pattern.into())),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.0
    }

    /// Whether a string has this shape.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        glob::is_match(&self.0, text)
    }
}
