//! Patterns in which `*` matches any characters within one segment, between `/` and `:`.

/// The characters that end a segment.
pub(super) const SEPARATORS: [char; 2] = ['/', ':'];

/// Whether a text matches a pattern.
pub(super) fn is_match(pattern: &str, text: &str) -> bool {
    let segments = || pattern.split(SEPARATORS).zip(text.split(SEPARATORS));
    same_separators(pattern, text) && segments().all(|(pattern, text)| segment_is_match(pattern, text))
}

/// Whether some text matches both patterns.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let segments = || one.split(SEPARATORS).zip(other.split(SEPARATORS));
    same_separators(one, other) && segments().all(|(one, other)| segments_overlap(one, other))
}

/// `*` matches no separator, so a pattern and a text that matches it have the same separators.
fn same_separators(one: &str, other: &str) -> bool {
    one.matches(SEPARATORS).eq(other.matches(SEPARATORS))
}

/// Matches one segment. Takes at most as many steps as the product of the lengths: only the last `*` is
/// retried.
fn segment_is_match(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut place) = (0, 0);
    let mut retry = None;
    while let Some(byte) = text.get(place) {
        match pattern.get(at) {
            Some(b'*') => {
                retry = Some((at + 1, place));
                at += 1;
            }
            Some(wanted) if wanted == byte => (at, place) = (at + 1, place + 1),
            _ => {
                let Some((after, tried)) = retry else { return false };
                retry = Some((after, tried + 1));
                (at, place) = (after, tried + 1);
            }
        }
    }
    pattern.get(at..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

/// Reads both patterns from the left, and records which pairs of positions can be reached with the same text.
fn segments_overlap(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut reached = vec![vec![false; other.len() + 1]; one.len() + 1];
    let mut reach = vec![(0, 0)];
    while let Some((at, place)) = reach.pop() {
        let Some(seen) = reached.get_mut(at).and_then(|row| row.get_mut(place)) else { continue };
        if std::mem::replace(seen, true) {
            continue;
        }
        match (one.get(at), other.get(place)) {
            (None, None) => return true,
            (Some(b'*'), _) => reach.extend([(at + 1, place), (at, place + 1)]),
            (_, Some(b'*')) => reach.extend([(at, place + 1), (at + 1, place)]),
            (Some(a), Some(b)) if a == b => reach.push((at + 1, place + 1)),
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asterisk_stands_for_characters_of_one_segment() {
        for (pattern, text, matches) in [
            ("read_*", "read_", true),
            ("read_*", "read_deals", true),
            ("read_*", "Read_deals", false),
            ("read_*", "xread_deals", false),
            ("read_*", "read_a/b", false),
            ("read_*", "read_a:b", false),
            ("*", "", true),
            ("*", "a", true),
            ("*", "a/b", false),
            ("*/*", "a/b", true),
            ("*/*", "a:b", false),
            ("*_deal", "read_deal", true),
            ("*_deal", "read_deals", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "ac", false),
            ("a**c", "abc", true),
            ("file:///docs/*", "file:///docs/a.md", true),
            ("file:///docs/*", "file:///docs/", true),
            ("file:///docs/*", "file:///docs/a/b.md", false),
            ("file:///docs/*", "file:///docs", false),
            ("a?c", "abc", false),
            ("[a]", "a", false),
        ] {
            assert_eq!(is_match(pattern, text), matches, "{pattern} {text}");
        }
        let (pattern, text) = ("a*".repeat(500) + "b", "a".repeat(5_000));
        assert!(!is_match(&pattern, &text), "ends in a time that a client cannot choose");
    }

    #[test]
    fn patterns_overlap_when_one_text_is_described_by_both() {
        for (one, other, overlapping) in [
            ("read_*", "read_*", true),
            ("read_*", "*_all", true),
            ("read_*", "read_x*", true),
            ("read_*", "write_*", false),
            ("*a", "*b", false),
            ("a*", "b*", false),
            ("a*b", "a*c", false),
            ("a*b*", "*a*b", true),
            ("*", "", true),
            ("a*", "a", true),
            ("a", "a", true),
            ("a", "ab", false),
            ("a/*", "*/b", true),
            ("a/*", "*", false),
            ("a/*", "a:*", false),
        ] {
            assert_eq!(overlap(one, other), overlapping, "{one} {other}");
            assert_eq!(overlap(other, one), overlapping, "{other} {one}");
        }
    }
}
