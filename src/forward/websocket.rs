//! Tracks frame boundaries in one direction of a WebSocket (RFC 6455 §5.2), so that a Close frame can be
//! inserted between two frames.
//!
//! Parses only lengths; the content of frames is forwarded unread.

/// The token is no longer in force (RFC 6455 §7.4.1).
pub(crate) const POLICY_VIOLATION: u16 = 1008;
/// The gate is shutting down (RFC 6455 §7.4.1).
pub(crate) const GOING_AWAY: u16 = 1001;

/// The Close frame with this status, as a server sends it.
pub(crate) const fn close(status: u16) -> [u8; 4] {
    let [high, low] = status.to_be_bytes();
    [0x88, 2, high, low]
}

/// The position within a frame.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    /// The bytes of an incomplete header.
    header: Vec<u8>,
    /// Remaining bytes of the payload.
    payload: u64,
    closed: bool,
}

impl Frames {
    /// Records bytes that were sent.
    pub(crate) fn advance(&mut self, mut bytes: &[u8]) {
        while let Some((&first, rest)) = bytes.split_first() {
            if self.payload > 0 {
                let skipped = bytes.len().min(usize::try_from(self.payload).unwrap_or(usize::MAX));
                self.payload -= skipped as u64;
                bytes = bytes.get(skipped..).unwrap_or_default();
                continue;
            }
            self.header.push(first);
            bytes = rest;
            if let Some(payload) = payload_length(&self.header) {
                self.closed |= self.header.first().is_some_and(|first| first & 0x0F == 0x8);
                self.payload = payload;
                self.header.clear();
            }
        }
    }

    /// Whether a Close frame may be sent now: between two frames, and none was sent before.
    pub(crate) fn is_between(&self) -> bool {
        self.payload == 0 && self.header.is_empty() && !self.closed
    }
}

/// The length of what follows a complete header; `None` while the header is incomplete.
fn payload_length(header: &[u8]) -> Option<u64> {
    let &second = header.get(1)?;
    let mask = if second & 0x80 == 0 { 0 } else { 4 };
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        short => return (header.len() == 2 + mask).then_some(u64::from(short)),
    };
    let length = header.get(2..2 + extended)?;
    let length = length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    (header.len() == 2 + extended + mask).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_are_found_however_the_bytes_arrive() {
        let mut stream = vec![0x81, 3, 1, 2, 3];
        stream.extend([0x82, 126, 1, 0]);
        stream.extend([0; 256]);
        stream.extend([0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        stream.extend(vec![0; 65_536]);
        stream.extend([0x89, 0x80, 1, 2, 3, 4]);
        let ends = [5, 5 + 4 + 256, 5 + 4 + 256 + 10 + 65_536, stream.len()];
        for step in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut frames, mut sent) = (Frames::default(), 0);
            for chunk in stream.chunks(step) {
                frames.advance(chunk);
                sent += chunk.len();
                assert_eq!(
                    frames.is_between(),
                    ends.contains(&sent),
                    "after {sent} bytes in steps of {step}"
                );
            }
        }
    }

    #[test]
    fn nothing_follows_a_close_frame() {
        let mut frames = Frames::default();
        assert!(frames.is_between());
        frames.advance(&close(POLICY_VIOLATION));
        assert!(!frames.is_between());
    }
}
