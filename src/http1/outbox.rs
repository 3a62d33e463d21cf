//! What is to be written to a connection: at most one piece of a body, and the framing around it.

use std::io::IoSlice;

use bytes::{Buf as _, Bytes};

/// What is to be written next: framing, one piece of body, framing.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Heads, chunk sizes and trailers.
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
        self.piece.is_empty() && self.tail.is_empty()
    }

    /// Where a head is written to.
    pub(crate) fn lead(&mut self) -> &mut Vec<u8> {
        &mut self.lead
    }

    /// A piece of the body as it is.
    pub(crate) fn put(&mut self, piece: Bytes) {
        self.piece = piece;
    }

    /// A chunk; with `last`, also the end of the body.
    pub(crate) fn put_chunk(&mut self, piece: Bytes, last: bool) {
        let digits = (u64::BITS - (piece.len() as u64).leading_zeros()).div_ceil(4);
        let nibble = |place: u32| (piece.len() >> (place * 4)) & 0xf;
        self.lead.extend(
            (0..digits).rev().map(|place| b"0123456789abcdef".get(nibble(place)).copied().unwrap_or(b'0')),
        );
        self.lead.extend_from_slice(b"\r\n");
        self.piece = piece;
        self.tail = if last { b"\r\n0\r\n\r\n" } else { b"\r\n" };
    }

    /// The end of a chunked body, with the field lines that `trailers` writes.
    pub(crate) fn put_end(&mut self, trailers: impl FnOnce(&mut Vec<u8>)) {
        self.lead.extend_from_slice(b"0\r\n");
        trailers(&mut self.lead);
        self.lead.extend_from_slice(b"\r\n");
    }

    /// What is to be written, for one `writev`.
    pub(crate) fn slices(&self) -> [IoSlice<'_>; 3] {
        let lead = self.lead.get(self.written..).unwrap_or_default();
        [IoSlice::new(lead), IoSlice::new(&self.piece), IoSlice::new(self.tail)]
    }

    /// `count` bytes were written.
    pub(crate) fn advance(&mut self, count: usize) {
        let lead = count.min(self.lead.len() - self.written);
        self.written += lead;
        if self.written == self.lead.len() {
            self.lead.clear();
            self.written = 0;
        }
        let piece = (count - lead).min(self.piece.len());
        self.piece.advance(piece);
        self.tail = self.tail.get(count - lead - piece..).unwrap_or_default();
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

    #[test]
    fn what_is_left_to_write_is_what_was_not_written_however_little_a_write_takes() {
        let chunk = |last: bool| {
            move |outbox: &mut Outbox| outbox.put_chunk(Bytes::from_static(b"0123456789abcdefg"), last)
        };
        let plain = |outbox: &mut Outbox| outbox.put(Bytes::from_static(b"hello"));
        let end = |outbox: &mut Outbox| outbox.put_end(|lines| lines.extend_from_slice(b"a: b\r\n"));
        let rows: [(Put<'_>, &[u8]); 4] = [
            (&chunk(false), b"head\r\n11\r\n0123456789abcdefg\r\n"),
            (&chunk(true), b"head\r\n11\r\n0123456789abcdefg\r\n0\r\n\r\n"),
            (&plain, b"head\r\nhello"),
            (&end, b"head\r\n0\r\na: b\r\n\r\n"),
        ];
        for (put, whole) in rows {
            for step in 1..=whole.len() {
                let mut outbox = Outbox::default();
                outbox.lead().extend_from_slice(b"head\r\n");
                put(&mut outbox);
                let mut written = 0;
                while written < whole.len() {
                    assert!(!outbox.is_empty());
                    assert_eq!(left(&outbox), &whole[written..], "in steps of {step}");
                    let count = step.min(whole.len() - written);
                    outbox.advance(count);
                    written += count;
                }
                assert!(outbox.is_empty() && left(&outbox).is_empty(), "in steps of {step}");
            }
        }
    }

    #[test]
    fn another_piece_is_taken_once_the_last_one_and_the_framing_behind_it_are_written() {
        let mut outbox = Outbox::default();
        outbox.lead().extend_from_slice(b"head\r\n");
        assert!(outbox.takes_more(), "a head alone waits for its body");
        outbox.put_chunk(Bytes::from_static(b"abc"), false);
        for (count, takes_more) in [(0, false), (9, false), (3, false), (1, false), (1, true)] {
            outbox.advance(count);
            assert_eq!(outbox.takes_more(), takes_more, "{} are left", left(&outbox).len());
        }
    }
}
