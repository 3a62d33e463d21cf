//! A form that is accepted is what a plain reader makes of it, and what is refused has a reason.

use crate::authority::form::{FormError, FormFields};

/// What must hold.
pub(super) fn check(body: &[u8]) {
    let fields: Vec<(Option<String>, Option<String>)> = body
        .split(|byte| *byte == b'&')
        .filter(|field| !field.is_empty())
        .map(|field| {
            let mut parts = field.splitn(2, |byte| *byte == b'=');
            (decode(parts.next().unwrap_or_default()), decode(parts.next().unwrap_or_default()))
        })
        .collect();
    let names = || fields.iter().filter_map(|(name, _)| name.as_deref());
    let is_repeated = |name: &str| names().filter(|other| *other == name).count() > 1;
    let is_broken = || fields.iter().any(|(name, value)| name.is_none() || value.is_none());
    match FormFields::parse(body) {
        Ok(form) => {
            assert!(
                fields.len() <= 50 && !is_broken() && !names().any(is_repeated),
                "{}",
                body.escape_ascii()
            );
            for (name, value) in &fields {
                let value = value.as_deref().filter(|value| !value.is_empty());
                assert_eq!(form.get(name.as_deref().unwrap_or_default()), value, "{}", body.escape_ascii());
            }
        }
        Err(FormError::TooMany) => assert!(fields.len() > 50),
        Err(FormError::Repeated) => assert!(names().any(is_repeated), "{}", body.escape_ascii()),
        Err(FormError::Encoding) => {
            assert!(is_broken() || std::str::from_utf8(body).is_err(), "{}", body.escape_ascii());
        }
    }
}

/// `None` for a broken escape, or what is not UTF-8.
fn decode(text: &[u8]) -> Option<String> {
    let (mut decoded, mut rest) = (Vec::new(), text);
    while let [byte, after @ ..] = rest {
        rest = after;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => {
                let [high, low, after @ ..] = rest else { return None };
                rest = after;
                let digit =
                    |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit(high)? * 16 + digit(low)?
            }
            byte => *byte,
        });
    }
    String::from_utf8(decoded).ok()
}
