//! Finds pseudo-header fields in trailers. They make a request malformed (RFC 9113 §8.1), but h2 drops them
//! silently.
//!
//! Parses the frames beside h2, up to the first field of a trailer block: after a regular field, h2 itself
//! rejects a pseudo-header field. Decodes no fields; a name that only the dynamic table contains is not
//! recognized, and h2 drops it.

/// Length of the connection preface (RFC 9113 §3.4).
const PREFACE: usize = 24;
/// Length of a frame header.
const HEAD: usize = 9;
/// Frame types and flags (RFC 9113 §6.2, §6.10).
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const PADDED: u8 = 0x08;
const PRIORITY: u8 = 0x20;
const END_HEADERS: u8 = 0x04;

/// Follows the frames of one client.
#[derive(Debug)]
pub(super) struct TrailerWatch {
    /// Bytes to skip before the next frame header, or before the next byte of a watched block.
    skip: usize,
    /// Bytes of the current frame that belong to a watched block.
    block: usize,
    head: [u8; HEAD],
    filled: usize,
    /// The highest stream that has begun: a header block on it or a lower one contains trailers.
    newest: u32,
    watched: Option<WatchedBlock>,
}

/// A trailer block whose first field was not received yet.
#[derive(Debug, Clone, Copy)]
struct WatchedBlock {
    stream: u32,
    expects: Expects,
}

/// The next expected byte of a block, up to the name of its first field (RFC 7541 §6).
#[derive(Debug, Clone, Copy)]
enum Expects {
    Field,
    /// More of a dynamic table size update.
    SizeUpdate,
    NameLength,
    Name {
        huffman: bool,
    },
}

impl TrailerWatch {
    pub(super) const fn new() -> Self {
        Self { skip: PREFACE, block: 0, head: [0; HEAD], filled: 0, newest: 0, watched: None }
    }

    /// Reads more bytes, and calls `found` for each stream whose trailers begin with a pseudo-header field.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut found: impl FnMut(u32)) {
        while !bytes.is_empty() {
            let passed = self.skip.min(bytes.len());
            self.skip -= passed;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some((&byte, rest)) = bytes.split_first() else { return };
            if self.block > 0 {
                self.block -= 1;
                if let Some(stream) = self.field_byte(byte) {
                    found(stream);
                }
            } else {
                self.head_byte(byte);
            }
            bytes = rest;
        }
    }

    fn head_byte(&mut self, byte: u8) {
        if let Some(place) = self.head.get_mut(self.filled) {
            *place = byte;
        }
        self.filled += 1;
        if self.filled == HEAD {
            self.filled = 0;
            self.begin_frame();
        }
    }

    fn begin_frame(&mut self) {
        let [a, b, c, kind, flags, id @ ..] = self.head;
        let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let stream = u32::from_be_bytes(id) & 0x7fff_ffff;
        self.skip = length;
        match kind {
            HEADERS if stream > self.newest => {
                self.newest = stream;
                self.watched = None;
            }
            HEADERS => {
                self.watched = Some(WatchedBlock { stream, expects: Expects::Field });
                let padding = if flags & PADDED == 0 { 0 } else { 1 };
                let priority = if flags & PRIORITY == 0 { 0 } else { 5 };
                self.watch(length, padding + priority, flags);
            }
            CONTINUATION if self.watched.is_some() => self.watch(length, 0, flags),
            _ => {}
        }
    }

    /// Watches a frame of `length` bytes after its first `before`. Only an empty block can end without being
    /// seen.
    fn watch(&mut self, length: usize, before: usize, flags: u8) {
        self.skip = before.min(length);
        self.block = length - self.skip;
        if self.block == 0 && flags & END_HEADERS != 0 {
            self.watched = None;
        }
    }

    /// Reads one byte of a watched block; returns its stream if the first field is a pseudo-header field.
    fn field_byte(&mut self, byte: u8) -> Option<u32> {
        let WatchedBlock { stream, expects } = self.watched?;
        let next = match (expects, byte) {
            // The first 14 entries of the static table are the pseudo-header fields; indexed whole or by
            // name.
            (Expects::Field, 0x81..=0x8e | 0x41..=0x4e | 0x01..=0x0e | 0x11..=0x1e) => Ok(true),
            (Expects::Field, 0x3f) | (Expects::SizeUpdate, 0x80..) => Err(Expects::SizeUpdate),
            (Expects::Field, 0x20..0x3f) | (Expects::SizeUpdate, ..0x80) => Err(Expects::Field),
            (Expects::Field, 0x40 | 0x00 | 0x10) => Err(Expects::NameLength),
            // No pseudo-header field has a name of 127 bytes or more, whose length takes several bytes.
            (Expects::NameLength, byte) if !matches!(byte & 0x7f, 0 | 0x7f) => {
                Err(Expects::Name { huffman: byte & 0x80 != 0 })
            }
            (Expects::Name { huffman: false }, byte) => Ok(byte == b':'),
            // `:` has the code 1011100 (RFC 7541 appendix B).
            (Expects::Name { huffman: true }, byte) => Ok(byte >> 1 == 0b101_1100),
            (Expects::Field | Expects::NameLength, _) => Ok(false),
        };
        match next {
            Err(expects) => self.watched = Some(WatchedBlock { stream, expects }),
            Ok(_) => {
                self.watched = None;
                self.skip = std::mem::take(&mut self.block);
            }
        }
        (next.is_ok_and(|pseudo| pseudo)).then_some(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn found(frames: &[Vec<u8>], piece: usize) -> Vec<u32> {
        let mut bytes = vec![0; PREFACE];
        bytes.extend(frames.concat());
        let (mut watch, mut found) = (TrailerWatch::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            watch.feed(piece, |stream| found.push(stream));
        }
        found
    }

    #[test]
    fn a_pseudo_header_is_found_where_it_can_stand_and_nowhere_else() {
        let first = frame(HEADERS, END_HEADERS, 1, &[0x82, 0x87, 0x84, 0x41, 1, b'x']);
        let data = frame(0, 0, 1, &[0x82; 300]);
        let rows: &[(&str, &[u8], bool)] = &[
            ("the static table's :method GET", &[0x82], true),
            ("its last :status", &[0x8e], true),
            ("its first other field", &[0x8f], false),
            ("another field of the dynamic table", &[0xbe], false),
            (":path by name", &[0x44, 1, b'/'], true),
            (":path by name, not indexed", &[0x04, 1, b'/'], true),
            (":path by name, never indexed", &[0x14, 1, b'/'], true),
            ("a field by name", &[0x51, 1, b'x'], false),
            ("a field whose name has a long index", &[0x0f, 1, 1, b'x'], false),
            (":path in letters", &[0x40, 5, b':', b'p', b'a', b't', b'h', 1, b'/'], true),
            (":path in letters, not indexed", &[0x00, 5, b':', b'p', b'a', b't', b'h', 1, b'/'], true),
            (":path in Huffman's", &[0x10, 0x84, 0xb9, 0x58, 0xd3, 0x3f, 1, b'/'], true),
            ("grpc-status", &[0x40, 1, b'g', 1, b'0'], false),
            ("a name without letters", &[0x40, 0, 0], false),
            ("a name whose length takes two bytes", &[0x40, 0x7f, b':', b'x'], false),
            ("behind size updates", &[0x20, 0x3f, 0x81, 0x01, 0x3f, 0x00, 0x82], true),
            ("a field behind a size update", &[0x20, 0x90], false),
            ("nothing", &[], false),
        ];
        for piece in [1, 7, 10_000] {
            for (name, block, pseudo) in rows {
                let expected: &[u32] = if *pseudo { &[1] } else { &[] };
                let padded = [&[0][..], block].concat();
                let prior = [&[0, 0, 0, 0, 0][..], block].concat();
                let both = [&[0, 0, 0, 0, 0, 0][..], block].concat();
                let ways = [
                    vec![frame(HEADERS, END_HEADERS | 1, 1, block)],
                    vec![frame(HEADERS, END_HEADERS | PADDED, 1, &padded)],
                    vec![frame(HEADERS, END_HEADERS | PRIORITY, 1, &prior)],
                    vec![frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 1, &both)],
                    vec![frame(HEADERS, 0, 1, &[]), frame(CONTINUATION, END_HEADERS, 1, block)],
                ];
                for (way, trailers) in ways.iter().enumerate() {
                    let mut frames = vec![first.clone(), data.clone()];
                    frames.extend_from_slice(trailers);
                    frames.push(frame(HEADERS, END_HEADERS, 3, &[0x82]));
                    frames.push(frame(HEADERS, END_HEADERS, 3, &[0x90, 0x82]));
                    assert_eq!(found(&frames, piece), expected, "{name}, way {way}, {piece} bytes at a time");
                }
            }
        }
    }

    #[test]
    fn a_block_in_pieces_is_followed_to_its_first_field() {
        let frames: Vec<_> = [
            frame(HEADERS, END_HEADERS, 5, &[0x82]),
            frame(HEADERS, 0, 3, &[0x40]),
            frame(CONTINUATION, 0, 3, &[5]),
            frame(CONTINUATION, END_HEADERS, 3, b":path\x01/"),
            frame(CONTINUATION, END_HEADERS, 3, &[0x82]),
        ]
        .into();
        for piece in [1, 3, 1000] {
            assert_eq!(found(&frames, piece), [3]);
        }
    }
}
