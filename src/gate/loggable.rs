//! Input from clients in a form that is safe to log.

use aws_lc_rs::digest;

/// Maximum length of a client-supplied name in the log.
const MAX_NAMED: usize = 128;

/// Converts a client's text for logs: visible ASCII of limited length.
pub(super) fn visible(text: &str) -> String {
    let shown = |char: char| if char.is_ascii_graphic() { char } else { '?' };
    text.chars().take(MAX_NAMED).map(shown).collect()
}

/// A short hash of a key id that no issuer has, by which requests with it can be recognized.
pub(super) fn unknown_kid(kid: &str) -> String {
    let hash = digest::digest(&digest::SHA256, kid.as_bytes());
    hash.as_ref().iter().take(6).fold("unknown:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_key_is_not_repeated() {
        assert_eq!(unknown_kid("kid"), "unknown:5c77d7fd8f51");
    }
}
