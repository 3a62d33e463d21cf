//! The output buffer of a connection: at most one large piece of a body, with the framing around it.

use std::io::IoSlice;

use bytes::{Buf as _, Bytes};

/// A piece of a body up to this size is copied behind what is to be written before it: one `send` of so few bytes costs less
/// than a `writev` that gathers them.
const COPIED: usize = 2 * 1024;
/// Room that a connection with one request after the other keeps for its next head, tokens of usual length included.
const KEPT: usize = 4 * 1024;
/// Room for most heads of responses, with a small body behind them.
const FIRST: usize = 1024;

/// What is to be written next: framing with small pieces of body, one large piece, framing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Heads, chunk sizes, trailers, and small pieces of body between them.
    lead: Vec<u8>,
    /// How much of `lead` is written.
    written: usize,
    piece: Bytes,
    tail: &'static [u8],
}

impl Outbox {
    /// Everything is written.
    pub(crate) fn is_empty(&self) -> bool {
        self.lead.is_empty() && self.piece.is_empty() && self.tail.is_empty()
    }

    /// Another piece may be put in.
    pub(crate) fn takes_more(&self) -> bool {
        self.piece.is_empty() && self.tail.is_empty() && self.lead.len() < 2 * COPIED
    }

    /// Where a head is written to.
    pub(crate) fn lead(&mut self) -> &mut Vec<u8> {
        if self.lead.capacity() == 0 {
            self.lead.reserve_exact(FIRST);
        }
        &mut self.lead
    }

    /// Frees its memory when everything is written.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            self.lead = Vec::new();
        }
    }

    /// A piece of the body as it is.
    pub(crate) fn put(&mut self, piece: Bytes) {
        self.put_framed(piece, b"");
    }

    /// A chunk; with `last`, also the end of the body.
    pub(crate) fn put_chunk(&mut self, piece: Bytes, last: bool) {
        let digits = (u64::BITS - (piece.len() as u64).leading_zeros()).div_ceil(4);
        let nibble = |place: u32| (piece.len() >> (place * 4)) & 0xf;
        self.lead.extend(
            (0..digits).rev().map(|place| b"0123456789abcdef".get(nibble(place)).copied().unwrap_or(b'0')),
        );
        self.lead.extend_from_slice(b"\r\n");
        self.put_framed(piece, if last { b"\r\n0\r\n\r\n" } else { b"\r\n" });
    }

    /// The end of a chunked body, with the field lines that `trailers` writes.
    pub(crate) fn put_end(&mut self, trailers: impl FnOnce(&mut Vec<u8>)) {
        self.lead.extend_from_slice(b"0\r\n");
        trailers(&mut self.lead);
        self.lead.extend_from_slice(b"\r\n");
    }

    fn put_framed(&mut self, piece: Bytes, tail: &'static [u8]) {
        if piece.len() <= COPIED {
            self.lead.extend_from_slice(&piece);
            self.lead.extend_from_slice(tail);
        } else {
            (self.piece, self.tail) = (piece, tail);
        }
    }

    /// All that is to be written, when it lies in one place.
    pub(crate) fn single(&self) -> Option<&[u8]> {
        (self.piece.is_empty() && self.tail.is_empty()).then(|| self.lead_left())
    }

    /// What is to be written, for one `writev`.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        [IoSlice::new(self.lead_left()), IoSlice::new(&self.piece), IoSlice::new(self.tail)]
    }

    fn lead_left(&self) -> &[u8] {
        self.lead.get(self.written..).unwrap_or_default()
    }

    /// `count` bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        let lead = count.min(self.lead.len() - self.written);
        self.written += lead;
        if self.written == self.lead.len() {
            self.empty_lead();
        }
        let piece = (count - lead).min(self.piece.len());
        if piece == self.piece.len() {
            // Even an empty rest would keep all of its memory.
            self.piece = Bytes::new();
        } else {
            self.piece.advance(piece);
        }
        self.tail = self.tail.get(count - lead - piece..).unwrap_or_default();
    }

    fn empty_lead(&mut self) {
        self.written = 0;
        self.lead.clear();
        if self.lead.capacity() > KEPT {
            self.lead = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Puts something in.
    type Put<'a> = &'a dyn Fn(&mut Outbox);

    fn left(outbox: &Outbox) -> Vec<u8> {
        outbox.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn body(length: usize) -> Bytes {
        (0..length).map(|place| b'a' + u8::try_from(place % 23).unwrap()).collect()
    }

    #[test]
    fn what_is_left_to_write_is_what_was_not_written_however_little_a_write_takes() {
        let large = COPIED + 1;
        let chunk = |last: bool| {
            move |outbox: &mut Outbox| outbox.put_chunk(Bytes::from_static(b"0123456789abcdefg"), last)
        };
        let large_chunk = |last: bool| move |outbox: &mut Outbox| outbox.put_chunk(body(large), last);
        let plain = |outbox: &mut Outbox| outbox.put(Bytes::from_static(b"hello"));
        let large_plain = |outbox: &mut Outbox| outbox.put(body(large));
        let end = |outbox: &mut Outbox| outbox.put_end(|lines| lines.extend_from_slice(b"a: b\r\n"));
        let around = |before: &[u8], after: &[u8]| [before, &body(large), after].concat();
        let rows: [(Put<'_>, &[u8]); 7] = [
            (&chunk(false), b"head\r\n11\r\n0123456789abcdefg\r\n"),
            (&chunk(true), b"head\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"),
            (&large_chunk(false), &around(b"head\r\n801\r\n", b"\r\n")),
            (&large_chunk(true), &around(b"head\r\n801\r\n", b"\r\n0\r\n\r\n")),
            (&plain, b"head\r\nhello"),
            (&large_plain, &around(b"head\r\n", b"")),
            (&end, b"head\r\n0\r\na: b\r\n\r\n"),
        ];
        for (put, whole) in rows {
            let steps = (1..=whole.len().min(40)).chain([whole.len() - 1, whole.len()]);
            for step in steps {
                let mut outbox = Outbox::default();
                outbox.lead().extend_from_slice(b"head\r\n");
                put(&mut outbox);
                let mut written = 0;
                while written < whole.len() {
                    assert!(!outbox.is_empty());
                    let expected = &whole[written..];
                    assert_eq!(left(&outbox), expected, "in steps of {step}");
                    assert_eq!(outbox.single().unwrap_or(expected), expected, "in steps of {step}");
                    let count = step.min(whole.len() - written);
                    outbox.advance(count);
                    written += count;
                }
                assert!(outbox.is_empty() && left(&outbox).is_empty(), "in steps of {step}");
            }
        }
    }

    #[test]
    fn a_small_piece_leaves_in_one_slice_with_its_head_and_a_large_one_is_not_copied() {
        for (length, single) in [(0, true), (1, true), (COPIED, true), (COPIED + 1, false)] {
            for chunked in [false, true] {
                let (mut outbox, piece) = (Outbox::default(), body(length));
                outbox.lead().extend_from_slice(b"head\r\n");
                if chunked {
                    outbox.put_chunk(piece.clone(), true);
                } else {
                    outbox.put(piece.clone());
                }
                assert_eq!(outbox.single().is_some(), single, "{length} bytes, chunked: {chunked}");
                let referred = std::ptr::eq(&raw const outbox.slices()[1][..], &raw const piece[..]);
                assert_eq!(referred && length > 0, !single, "{length} bytes, chunked: {chunked}");
            }
        }
    }

    #[test]
    fn another_piece_is_taken_once_a_large_one_and_the_framing_behind_it_are_written() {
        let mut outbox = Outbox::default();
        outbox.lead().extend_from_slice(b"head\r\n");
        assert!(outbox.takes_more(), "a head alone waits for its body");
        outbox.put_chunk(body(COPIED + 1), false);
        for (count, takes_more) in [(0, false), (11, false), (COPIED + 1, false), (1, false), (1, true)] {
            outbox.advance(count);
            assert_eq!(outbox.takes_more(), takes_more, "{} are left", left(&outbox).len());
        }
    }

    #[test]
    fn small_pieces_gather_until_they_are_two_of_the_largest_together() {
        let mut outbox = Outbox::default();
        outbox.put(body(COPIED));
        outbox.put(body(COPIED - 1));
        assert!(outbox.takes_more());
        outbox.put(body(1));
        assert!(!outbox.takes_more());
        assert_eq!(left(&outbox), [body(COPIED), body(COPIED - 1), body(1)].concat());
    }

    #[test]
    fn a_connection_keeps_room_for_a_head_and_no_more_once_all_is_written() {
        for (length, kept) in [(KEPT, KEPT), (KEPT + 1, 0)] {
            let mut outbox = Outbox::default();
            outbox.lead().reserve_exact(length);
            outbox.lead().extend_from_slice(&body(length));
            outbox.advance(length - 1);
            assert!(outbox.lead.capacity() >= length);
            outbox.advance(1);
            assert_eq!(outbox.lead.capacity(), kept);
        }
    }
    #[test]
    fn what_is_written_takes_no_memory() {
        let (mut outbox, piece) = (Outbox::default(), body(COPIED + 1));
        outbox.lead().extend_from_slice(b"head\r\n");
        outbox.put(piece.clone());
        outbox.advance(6 + COPIED);
        outbox.release();
        assert!(!piece.is_unique(), "a byte is left");
        outbox.advance(1);
        assert!(piece.is_unique());
        outbox.release();
        assert_eq!(outbox.lead.capacity(), 0);
    }
}
