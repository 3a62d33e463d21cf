//! What is put into an outbox is written once and in order, in whatever steps a connection takes it.
//!
//! The input is steps: a letter for what is put in or written, and how many bytes.

use bytes::Bytes;

use crate::http1::Outbox;

/// The longest piece.
const MOST: usize = 10_000;

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let (mut outbox, mut expected) = (Outbox::default(), Vec::new());
    for step in input.split(u8::is_ascii_whitespace) {
        let Some((letter, count)) = step.split_first() else { continue };
        let count = str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
        let count = count.unwrap_or(1).clamp(1, MOST);
        if *letter != b'w' && !outbox.takes_more() {
            write(&mut outbox, &mut expected, usize::MAX);
        }
        let piece: Bytes = (0..count).map(|at| b'a' + (at % 26) as u8).collect();
        match letter {
            b'h' => {
                outbox.lead().extend_from_slice(&piece);
                expected.extend_from_slice(&piece);
            }
            b'p' => {
                expected.extend_from_slice(&piece);
                outbox.put(piece);
            }
            b'c' | b'l' => {
                let last = *letter == b'l';
                expected.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                expected.extend_from_slice(&piece);
                expected.extend_from_slice(if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
                outbox.put_chunk(piece, last);
            }
            b'e' => {
                outbox.put_end(|lines| lines.extend_from_slice(&piece));
                expected.extend_from_slice(&[b"0\r\n", &piece[..], b"\r\n"].concat());
            }
            b'w' => write(&mut outbox, &mut expected, count),
            _ => {}
        }
        assert_eq!(left(&outbox), expected);
        assert_eq!(outbox.is_empty(), expected.is_empty());
    }
    write(&mut outbox, &mut expected, usize::MAX);
    assert!(outbox.is_empty() && outbox.takes_more() && left(&outbox).is_empty());
}

/// The connection takes so many bytes, or all.
fn write(outbox: &mut Outbox, expected: &mut Vec<u8>, count: usize) {
    let count = count.min(expected.len());
    assert_eq!(left(outbox).get(..count), expected.get(..count));
    outbox.advance(count);
    drop(expected.drain(..count));
}

fn left(outbox: &Outbox) -> Vec<u8> {
    outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect()
}
