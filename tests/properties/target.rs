//! A target that passes goes upstream byte for byte; its canonical form is its own canonical form, has as many segments, and
//! leads nowhere else, however often it is decoded.

use bytes::Bytes;
use http::{Method, Uri};

use crate::enforce::target::{RequestTarget, Target};

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let read = |text: &[u8]| {
        let sent = RequestTarget::from_bytes(Bytes::copy_from_slice(text)).ok()?;
        Target::parse(&Method::GET, &sent).ok()
    };
    let Some(target) = read(input) else { return };
    let sent = target.as_bytes();
    assert!(sent.starts_with(b"/"), "{}", sent.escape_ascii());
    assert!(
        input.ends_with(sent) || **sent == *b"/",
        "{} became {}",
        input.escape_ascii(),
        sent.escape_ascii()
    );
    let mut parts = sent.splitn(2, |byte| *byte == b'?');
    let path = parts.next().unwrap_or_default();
    assert_eq!(target.query(), parts.next());
    assert!(!sent.iter().any(|byte| *byte <= 0x20 || matches!(byte, 0x7f | b'#')), "{}", sent.escape_ascii());
    let (once, canonical) = (decode(path), target.path().as_bytes());
    for level in [path, &once, &decode(&once)] {
        let mut segments = level.split(|byte| matches!(byte, b'/' | b'\\'));
        assert!(!segments.any(|name| matches!(name, b"." | b"..")), "{} climbs", sent.escape_ascii());
    }
    assert!(!once.iter().any(|byte| byte.is_ascii_control() || *byte == b'\\'), "{}", sent.escape_ascii());
    assert!(!once.windows(2).any(|pair| pair == b"//"), "{}", sent.escape_ascii());
    assert_eq!(decode(canonical), once, "the canonical form of {} is another path", sent.escape_ascii());
    let slashes = |text: &[u8]| text.iter().filter(|byte| **byte == b'/').count();
    assert_eq!(slashes(canonical), slashes(path), "{}", sent.escape_ascii());
    assert_eq!(slashes(&once) > slashes(path), target.has_encoded_slash(), "{}", sent.escape_ascii());
    let again = read(canonical);
    assert_eq!(again.as_ref().map(Target::path), Some(target.path()), "{}", sent.escape_ascii());
    // As HTTP/2 reads it, where it can.
    if let Ok(uri) = Uri::try_from(&**sent) {
        let other = Target::parse(&Method::GET, &RequestTarget::from(&uri)).ok();
        assert_eq!(other.as_ref().map(|other| (other.as_bytes(), other.path())), Some((sent, target.path())));
    }
}

/// Every valid escape once.
fn decode(text: &[u8]) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::new(), text);
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    while let [byte, after @ ..] = rest {
        let escaped = match after {
            [high, low, ..] if *byte == b'%' => digit(*high).zip(digit(*low)),
            _ => None,
        };
        decoded.push(escaped.map_or(*byte, |(high, low)| high * 16 + low));
        rest = if escaped.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    decoded
}
