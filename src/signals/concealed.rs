//! A configured secret that is sent to others or compared with what they send.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// A text that never appears in log lines or debug output.
#[derive(Clone)]
pub struct Concealed(String);

impl Concealed {
    /// Conceals the text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text, to be sent.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Compares the text with these bytes, in time that depends only on their number.
    #[must_use]
    pub fn matches(&self, bytes: &[u8]) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), bytes).is_ok()
    }
}

impl PartialEq for Concealed {
    fn eq(&self, other: &Self) -> bool {
        self.matches(other.0.as_bytes())
    }
}

impl Eq for Concealed {}

impl fmt::Debug for Concealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_concealed_text_matches_only_itself_and_is_never_shown() {
        let text = Concealed::new("Bearer abc".to_owned());
        for (bytes, same) in [("Bearer abc", true), ("bearer abc", false), ("Bearer ab", false), ("", false)]
        {
            assert_eq!(text.matches(bytes.as_bytes()), same, "{bytes}");
            assert_eq!(text == Concealed::new(bytes.to_owned()), same, "{bytes}");
        }
        assert_eq!((text.reveal(), format!("{text:?}").as_str()), ("Bearer abc", "[redacted]"));
    }
}
