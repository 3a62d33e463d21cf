//! Input from clients in a form that is safe to log.

use aws_lc_rs::digest;

/// The longest name that a client may put into the log.
const MAX_NAMED: usize = 128;

/// What a client has written, as it can stand in a log: visible ASCII of limited length.
pub(super) fn visible(text: &str) -> String {
    let shown = |char: char| if char.is_ascii_graphic() { char } else { '?' };
    text.chars().take(MAX_NAMED).map(shown).collect()
}

/// A key that no issuer has, so that its requests can be told from others'.
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
