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
