//! The formats of single values: sizes, names, claims.
//!
//! Pure functions from text to value; an error is a phrase that follows the key.

use crate::enforce::policy::ClaimName;
use crate::time::split_unit;

const SIZE_HINT: &str =
    "write an integer number of bytes, or a size such as \"64KiB\" (units: B, KiB, MiB, GiB)";

/// `"64KiB"`: an integer and a unit.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_unit(text);
    let factor: u64 = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("{text:?} is not a size; {SIZE_HINT}")),
    };
    if number.is_empty() {
        return Err(format!("{text:?} is not a size; {SIZE_HINT}"));
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    bytes.filter(|bytes| *bytes <= i64::MAX as u64).ok_or_else(|| format!("{text:?} is too large"))
}

/// A non-empty string without control characters: a name, an identifier.
pub(super) fn name(text: &str) -> Result<String, String> {
    match text {
        "" => Err("must not be empty".to_owned()),
        _ if text.chars().any(char::is_control) => Err(format!("{text:?} contains a control character")),
        _ => Ok(text.to_owned()),
    }
}

/// A scope-token (RFC 6749 §3.3). Other characters can appear neither in a token nor in a challenge.
pub(super) fn scope(text: &str) -> Result<String, String> {
    let fits = |byte: u8| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if !text.is_empty() && text.bytes().all(fits) {
        Ok(text.to_owned())
    } else if text.contains(' ') {
        Err(format!("{text:?} contains a space; write each scope as a separate string"))
    } else {
        Err(format!("{text:?} is not a valid scope (visible ASCII without `\"` and `\\`)"))
    }
}

/// A plain member name, or a JSON pointer (RFC 6901) when it starts with `/`.
pub(super) fn claim(text: &str) -> Result<ClaimName, String> {
    let Some(pointer) = text.strip_prefix('/') else {
        return name(text).map(ClaimName::Member);
    };
    let tokens = pointer.split('/').map(|token| {
        // RFC 6901 §3: `~` may only precede `0` or `1`; §4: `~1` is replaced first, so that `~01` becomes `~1`.
        let escapes_are_whole = token.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        escapes_are_whole.then(|| token.replace("~1", "/").replace("~0", "~"))
    });
    let tokens: Option<Vec<_>> = tokens.collect();
    tokens
        .map(ClaimName::Pointer)
        .ok_or_else(|| format!("{text:?} is not a JSON pointer: only 0 or 1 may follow `~`"))
}

/// `one`, or `one and two`, or `one, two and three`.
pub(super) fn listed(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_a_number_and_a_binary_unit() {
        for (text, bytes) in [("0B", 0), ("1B", 1), ("64KiB", 65_536), ("2MiB", 2 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64K", "64KB", "64kib", "KiB", "-1B", "1.5MiB", "64 KiB", "9999999999GiB"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn claims_are_members_or_pointers() {
        let pointer =
            |tokens: &[&str]| ClaimName::Pointer(tokens.iter().map(|token| (*token).to_owned()).collect());
        for (text, claim_name) in [
            ("scope", ClaimName::Member("scope".to_owned())),
            ("cognito:groups", ClaimName::Member("cognito:groups".to_owned())),
            ("https://example.com/roles", ClaimName::Member("https://example.com/roles".to_owned())),
            ("/realm_access/roles", pointer(&["realm_access", "roles"])),
            ("/a~1b/m~0n/~01", pointer(&["a/b", "m~n", "~1"])),
            ("/", pointer(&[""])),
        ] {
            assert_eq!(claim(text), Ok(claim_name), "{text}");
        }
        for text in ["", "/a~2", "/a~", "a\nb"] {
            assert!(claim(text).is_err(), "{text}");
        }
    }
}
