//! A socket and its buffers, for as many exchanges as the connection lasts.

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

use super::Outbox;

/// What a read asks for at first; doubled whenever a read fills it.
const READ_SIZE: usize = 8 * 1024;
/// What a read asks for at most: it waits as a whole for a client that does not read, and TLS takes no more at a time.
const MAX_READ_SIZE: usize = 32 * 1024;
/// Room below this is not worth a read.
const MIN_ROOM: usize = 1024;

/// A socket, what was read from it, and what is to be written.
#[derive(Debug)]
pub(crate) struct Http1Wire<S> {
    io: S,
    /// What was read and not yet taken.
    pub(crate) inbox: BytesMut,
    /// What is to be written.
    pub(crate) outbox: Outbox,
    /// Bytes were written that TLS may still hold.
    unflushed: bool,
    read_size: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Http1Wire<S> {
    pub(crate) fn new(io: S) -> Self {
        Self { io, inbox: BytesMut::new(), outbox: Outbox::default(), unflushed: false, read_size: READ_SIZE }
    }

    /// Whether nothing is left over, neither read nor to be written.
    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.outbox.is_empty()
    }

    /// Whether something is to be written, or may still lie in the buffers of TLS.
    pub(crate) fn is_writing(&self) -> bool {
        self.unflushed || !self.outbox.is_empty()
    }

    /// Gives back what a large body made grow.
    pub(crate) fn shrink(&mut self) {
        self.read_size = READ_SIZE;
        if self.inbox.capacity() > 2 * READ_SIZE {
            self.inbox = BytesMut::new();
        }
    }

    /// The socket itself.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The bare transport, with what was read from it and not taken.
    pub(crate) fn into_parts(self) -> (S, Bytes) {
        (self.io, self.inbox.freeze())
    }

    /// Reads into the inbox; 0 is the end of the connection. While nothing comes, an empty inbox takes no memory.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.make_room();
        let room = self.inbox.capacity() - self.inbox.len();
        let read = pin!(self.io.read_buf(&mut self.inbox));
        let Poll::Ready(count) = std::future::Future::poll(read, cx)? else {
            if self.inbox.is_empty() {
                self.inbox = BytesMut::new();
            }
            return Poll::Pending;
        };
        if count == room {
            self.read_size = (self.read_size * 2).min(MAX_READ_SIZE);
        }
        Poll::Ready(Ok(count))
    }

    /// Makes room for a read. What waits in the inbox to be complete, such as a long head, gets a little more and not twice
    /// as much: a client that never completes it keeps that for as long as it may wait.
    fn make_room(&mut self) {
        let waiting = self.inbox.len();
        if self.inbox.capacity() - waiting >= MIN_ROOM {
            return;
        }
        if waiting < READ_SIZE {
            self.inbox.reserve(self.read_size);
        } else {
            let mut grown = BytesMut::with_capacity(waiting + READ_SIZE);
            grown.extend_from_slice(&self.inbox);
            self.inbox = grown;
        }
    }

    /// Writes the outbox to its end.
    pub(crate) fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outbox.is_empty() {
            let io = Pin::new(&mut self.io);
            let count = ready!(match self.outbox.single() {
                Some(bytes) => io.poll_write(cx, bytes),
                None => io.poll_write_vectored(cx, &self.outbox.slices()),
            })?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.outbox.advance(count);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::io::ReadBuf;

    use super::*;

    /// A socket that has as many bytes as each read is told, and notes how many were asked for.
    #[derive(Debug, Default)]
    struct Socket {
        has: usize,
        is_silent: bool,
        asked: usize,
    }

    impl AsyncRead for Socket {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _cx: &mut Context<'_>,
            buf: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if self.is_silent {
                return Poll::Pending;
            }
            self.asked = buf.remaining();
            buf.put_slice(&vec![b'x'; self.has.min(buf.remaining())]);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Socket {
        fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(buf.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Reads what the socket has, which is `has` bytes. Returns how many were asked for.
    fn fill(wire: &mut Http1Wire<Socket>, has: usize) -> usize {
        wire.io.has = has;
        let read = wire.poll_fill(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(read, Poll::Ready(Ok(count)) if count == has.min(wire.io.asked)));
        wire.io.asked
    }

    #[test]
    fn a_read_asks_for_twice_as_much_after_one_that_was_filled_and_only_then() {
        let mut wire = Http1Wire::new(Socket::default());
        let mut taken = Vec::new();
        for (has, asked) in [
            (8191, 8192),
            (8192, 8192),
            (16_383, 16_384),
            (16_384, 16_384),
            (32_767, 32_768),
            (32_768, 32_768),
            (32_768, 32_768),
            (0, 32_768),
        ] {
            assert_eq!(fill(&mut wire, has), asked, "{has}");
            // Kept, so that its memory is not used again.
            taken.push(wire.inbox.split_off(0));
            wire.inbox = BytesMut::new();
        }
        wire.shrink();
        assert_eq!(fill(&mut wire, 1), 8192, "a body that was large is over");
    }

    #[test]
    fn room_that_is_left_is_read_into_from_one_kibibyte_on() {
        for (held, asked) in [(3072, 1024), (3073, 8192)] {
            let mut wire = Http1Wire::new(Socket::default());
            wire.inbox = BytesMut::with_capacity(4096);
            wire.inbox.extend_from_slice(&vec![b'x'; held]);
            assert_eq!(fill(&mut wire, asked), asked, "{held}");
            assert_eq!(wire.inbox.len(), held + asked);
            assert_eq!(wire.read_size, 16_384, "filled behind what was there already");
        }
    }

    #[test]
    fn memory_that_a_large_body_took_is_given_back() {
        for (capacity, kept) in [(8192, 8192), (16_384, 16_384), (16_385, 0), (65_536, 0)] {
            let mut wire = Http1Wire::new(Socket::default());
            wire.inbox = BytesMut::with_capacity(capacity);
            wire.shrink();
            assert_eq!(wire.inbox.capacity(), kept, "{capacity}");
        }
    }

    #[test]
    fn a_connection_that_waits_keeps_what_was_read_and_no_memory_for_more() {
        for (held, capacity) in [(&b""[..], 0), (b"GET", 8192)] {
            let mut wire = Http1Wire::new(Socket { is_silent: true, ..Socket::default() });
            wire.inbox = BytesMut::with_capacity(8192);
            wire.inbox.extend_from_slice(held);
            assert!(wire.poll_fill(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!((&wire.inbox[..], wire.inbox.capacity()), (held, capacity));
        }
    }

    #[test]
    fn what_waits_to_be_complete_takes_little_more_than_its_bytes() {
        let mut wire = Http1Wire::new(Socket::default());
        for has in [1, 100, 7_000, 9_000].into_iter().chain([16_384; 4]) {
            fill(&mut wire, has);
            let (held, capacity) = (wire.inbox.len(), wire.inbox.capacity());
            assert!(capacity <= held.max(MIN_ROOM) + READ_SIZE, "{capacity} for {held}");
        }
        assert!(wire.inbox.iter().all(|&byte| byte == b'x'));
    }
}
