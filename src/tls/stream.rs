//! The server's side of a TLS connection, with buffers that all connections of a thread share.
//!
//! rustls' own buffers stay with each connection for as long as it lasts, and most connections of a gate are idle. Its
//! unbuffered interface leaves them to the caller. Here a connection has memory of its own only for what cannot be completed
//! yet: a record of which a part has arrived, plaintext that the reader had no room for, and records that the peer is slow
//! to take. All cryptography, every rule about records and each alert are those of rustls.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use self::session::{MAX_PLAINTEXT, Sealed, TlsSession, invalid};

mod session;

/// The longest record on the wire: header, plaintext, and the expansion that TLS 1.2 allows (RFC 5246 §6.2.3, RFC 8446
/// §5.2 allows less).
const MAX_RECORD: usize = 5 + MAX_PLAINTEXT + 2048;
/// What one read takes at most.
const MAX_READ: usize = 32 * 1024;
/// What a record adds to its plaintext at most, the records of AEAD suites: header, explicit nonce, content type and tag.
const OVERHEAD: usize = 64;
/// Incomplete handshake messages above this are rejected: rustls takes none above 64 KiB.
const MAX_INCOMPLETE: usize = 64 * 1024 + 2 * MAX_RECORD;
/// Plaintext of records that wait for a peer that does not read: two of the largest records.
const MAX_UNSENT: usize = 2 * MAX_PLAINTEXT;

thread_local! {
    /// What the socket is read into.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// Where records to be sent are sealed.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The server's side of a TLS connection over the byte stream `S`.
#[derive(Debug)]
pub(crate) struct ServerStream<S> {
    io: S,
    session: TlsSession,
    /// Records that the peer has not taken yet.
    unsent: Sealed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerStream<S> {
    /// Completes a handshake.
    ///
    /// # Errors
    /// When the socket fails or ends, or the client is not acceptable; it is sent the alert that says so.
    pub(crate) async fn accept(config: Arc<ServerConfig>, io: S) -> io::Result<Self> {
        let session = TlsSession::new(config)?;
        let mut stream = Self { io, session, unsent: Sealed::default() };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What the handshake settled.
    pub(crate) fn state(&self) -> &CommonState {
        self.session.state()
    }

    /// The byte stream below TLS.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// How much memory its buffers take.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn held(&self) -> usize {
        self.session.held() + self.unsent.held()
    }

    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.session.state().is_handshaking() {
            ready!(self.poll_send(cx))?;
            if ready!(self.poll_receive(cx, &mut ReadBuf::new(&mut [])))? == 0 {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tls handshake eof")));
            }
        }
        self.poll_send(cx)
    }

    /// Reads once from the socket, and puts the plaintext of every complete record into `buf` and, where that is full,
    /// aside. Returns how many bytes the socket had; 0 is its end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<usize>> {
        let mut incoming = INCOMING.take();
        let received = self.receive_into(&mut incoming, cx, buf);
        INCOMING.set(incoming);
        received
    }

    fn receive_into(
        &mut self,
        incoming: &mut Vec<u8>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<usize>> {
        self.session.usable()?;
        let held = self.session.incomplete().len();
        if held > MAX_INCOMPLETE {
            return Poll::Ready(Err(invalid("a handshake message is too long")));
        }
        // As much as the reader takes, or what completes a record.
        let room = buf.remaining().max(MAX_RECORD.saturating_sub(held)).min(MAX_READ) + 2 * OVERHEAD;
        if incoming.len() < held + room {
            incoming.resize(held + room, 0);
        }
        let (start, free) = incoming.split_at_mut(held);
        let mut read = ReadBuf::new(free.get_mut(..room).unwrap_or_default());
        ready!(Pin::new(&mut self.io).poll_read(cx, &mut read))?;
        let count = read.filled().len();
        if count == 0 {
            return Poll::Ready(Ok(0));
        }
        start.copy_from_slice(self.session.incomplete());
        let arrived = incoming.get_mut(..held + count).unwrap_or_default();
        let opened = self.session.open(arrived, buf, &mut self.unsent);
        // TLS itself answers some messages, and says what is wrong with others. What cannot be sent at once goes ahead of
        // the next write.
        let sent = self.poll_send(cx);
        opened?;
        match sent {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Sends what waits. What was sent takes no memory.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.unsent.poll_send(&mut self.io, cx))?;
        self.unsent = Sealed::default();
        Poll::Ready(Ok(()))
    }

    /// Seals as many of `slices` as there is room for, and begins to send them. Pending: the peer has not taken enough of
    /// what was written before.
    fn poll_write_slices(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        while self.unsent.len() >= MAX_UNSENT {
            ready!(self.poll_send(cx))?;
        }
        let room = MAX_UNSENT - self.unsent.len();
        if !self.unsent.is_empty() {
            self.unsent.compact();
            let written = self.session.seal_slices(slices, room, &mut self.unsent)?;
            return match self.poll_send(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
                _ => Poll::Ready(Ok(written)),
            };
        }
        let mut sealed = Sealed::reusing(OUTGOING.take());
        let written = self.session.seal_slices(slices, room, &mut sealed);
        let sent = sealed.poll_send(&mut self.io, cx);
        self.unsent.push(sealed.left());
        OUTGOING.set(sealed.into_memory());
        let written = written?;
        match sent {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(written)),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ServerStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        this.session.take_into(buf);
        while buf.filled().len() == before && buf.remaining() > 0 && !this.session.is_ended() {
            let received = ready!(this.poll_receive(cx, buf));
            if received.is_err() && buf.filled().len() > before {
                // What came before the error is read before it.
                break;
            }
            if received? == 0 {
                // Without `close_notify`, somebody on the path may have cut the end off (RFC 8446 §6.1).
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "peer closed connection without sending TLS close_notify",
                )));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ServerStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_slices(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.session.close(&mut this.unsent)?;
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
