//! String patterns: `*` matches any text within one segment.

use crate::enforce::glob;

/// The characters that end a segment of a string, such as the subject of a workload.
pub const SEGMENT_ENDS: [char; 2] = glob::SEPARATORS;

/// A pattern in which `*` matches any text without `/` and `:`, including none. Every other character matches
/// itself, and the whole string must match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Box<str>);

impl Glob {
    /// Parses a pattern.
    ///
    /// # Errors
    /// When the pattern is empty or has two stars in a row.
    pub fn new(pattern: &str) -> Result<Self, &'static str> {
        match pattern {
            "" => Err("must not be empty"),
            _ if pattern.contains("**") => {
                Err("has two stars in a row; one matches any text within one segment")
            }
            _ => Ok(Self(pattern.into())),
        }
    }

    /// The pattern as it was written.
    #[must_use]
    pub fn pattern(&self) -> &str {
        &self.0
    }

    /// Whether a string matches.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        glob::is_match(&self.0, text)
    }
}
