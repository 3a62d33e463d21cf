//! Parses form bodies strictly: rejects what two parsers could interpret differently.

use std::borrow::Cow;
use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

/// The most fields that a form may have. No request needs a dozen; the limit keeps the search for repeated names, which
/// compares each with all before it, linear in the length of the body.
const MAX_FIELDS: usize = 50;

/// The fields of an `application/x-www-form-urlencoded` body. Empty ones count as left out (RFC 6749 §3.2); the memory
/// of all is overwritten when they are dropped.
pub(crate) struct FormFields(Vec<(String, Zeroizing<String>)>);

/// Why a body is no form that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FormError {
    /// It is not UTF-8, or has an invalid escape.
    Encoding,
    /// A field is repeated (RFC 6749 §3.2).
    Repeated,
    /// It has more fields than [`MAX_FIELDS`].
    TooMany,
}

impl fmt::Debug for FormFields {
    /// Never prints a value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

impl FormFields {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, FormError> {
        let text = std::str::from_utf8(body).map_err(|_not_text| FormError::Encoding)?;
        let mut fields: Vec<(String, Zeroizing<String>)> = Vec::new();
        for field in text.split('&').filter(|field| !field.is_empty()) {
            if fields.len() == MAX_FIELDS {
                return Err(FormError::TooMany);
            }
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            let name = decode(name).ok_or(FormError::Encoding)?.into_owned();
            let value = Zeroizing::new(decode(value).ok_or(FormError::Encoding)?.into_owned());
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(FormError::Repeated);
            }
            fields.push((name, value));
        }
        Ok(Self(fields))
    }

    /// A field that has a value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let field = self.0.iter().find(|(known, _)| known == name);
        field.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }
}

/// One name or value; `None` when it has an invalid escape, or is not UTF-8.
pub(super) fn decode(text: &str) -> Option<Cow<'_, str>> {
    let hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    let bytes = text.as_bytes();
    let escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%');
    if !escapes.into_iter().all(|(at, _)| hex(bytes.get(at + 1)) && hex(bytes.get(at + 2))) {
        return None;
    }
    if !text.contains(['+', '%']) {
        return Some(Cow::Borrowed(text));
    }
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|decoded| Cow::Owned(decoded.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_decoded_and_empty_ones_left_out() {
        let form = FormFields::parse(b"a=1&&b=%C3%A9+%2B&empty=&bare&c=x=y&%61%62=z&").unwrap();
        for (name, value) in [
            ("a", Some("1")),
            ("b", Some("é +")),
            ("c", Some("x=y")),
            ("ab", Some("z")),
            ("empty", None),
            ("bare", None),
            ("d", None),
        ] {
            assert_eq!(form.get(name), value, "{name}");
        }
        assert!(FormFields::parse(b"").unwrap().get("").is_none());
        assert!(!format!("{form:?}").contains("x=y"));
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (body, error) in [
            (&b"a=1&a=2"[..], FormError::Repeated),
            (b"a=&a=2", FormError::Repeated),
            (b"a=1&%61=1", FormError::Repeated),
            (b"a=%", FormError::Encoding),
            (b"a=%4", FormError::Encoding),
            (b"a=%zz", FormError::Encoding),
            (b"a=%ff", FormError::Encoding),
            (b"a=\xff", FormError::Encoding),
        ] {
            assert_eq!(FormFields::parse(body).unwrap_err(), error, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_form_has_at_most_fifty_fields() {
        let fields = |count: usize| (0..count).map(|n| format!("{n:x}=&")).collect::<String>();
        assert!(FormFields::parse(fields(50).as_bytes()).is_ok());
        assert_eq!(
            FormFields::parse(format!("{}a=%", fields(50)).as_bytes()).unwrap_err(),
            FormError::TooMany
        );
        assert_eq!(FormFields::parse(fields(16_000).as_bytes()).unwrap_err(), FormError::TooMany);
        assert!(FormFields::parse("&".repeat(64 * 1024).as_bytes()).is_ok(), "no field at all");
    }
}
