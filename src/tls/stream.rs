//! The server side of a TLS connection, with buffers that all connections of a thread share.
//!
//! With its usual interface, rustls keeps its buffers for the lifetime of a connection, and most connections of a gate are
//! idle. Its unbuffered interface leaves buffers to the caller. Here a connection allocates memory only for incomplete work: a
//! partly received record, plaintext that does not fit into the reader's buffer, and records that a slow peer has not
//! accepted yet. Cryptography, record rules and alerts all come from rustls.

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
/// The most that one read from the socket asks for.
const MAX_READ: usize = 32 * 1024;
/// An upper bound on what a record of an AEAD suite adds to its plaintext: header, explicit nonce, content type and tag.
const OVERHEAD: usize = 64;
/// The limit for incomplete handshake messages; rustls itself rejects messages above 64 KiB.
const MAX_INCOMPLETE: usize = 64 * 1024 + 2 * MAX_RECORD;
/// The most data that waits for a peer that does not read: the plaintext of two of the largest records.
const MAX_UNSENT: usize = 2 * MAX_PLAINTEXT;

thread_local! {
    /// The buffer that sockets are read into.
    static INCOMING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// The buffer that outgoing records are encrypted into.
    static OUTGOING: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The server side of a TLS connection over the byte stream `S`.
#[derive(Debug)]
pub(crate) struct ServerStream<S> {
    io: S,
    session: TlsSession,
    /// Records that the socket has not accepted yet.
    unsent: Sealed,
}

impl<S: AsyncRead + AsyncWrite + Unpin> ServerStream<S> {
    /// Performs the handshake.
    ///
    /// # Errors
    /// When the socket fails or ends, or when rustls rejects the client, which then receives the alert.
    pub(crate) async fn accept(config: Arc<ServerConfig>, io: S) -> io::Result<Self> {
        let session = TlsSession::new(config)?;
        let mut stream = Self { io, session, unsent: Sealed::default() };
        std::future::poll_fn(|cx| stream.poll_handshake(cx)).await?;
        Ok(stream)
    }

    /// What the handshake negotiated.
    pub(crate) fn state(&self) -> &CommonState {
        self.session.state()
    }

    /// The byte stream below TLS.
    pub(crate) fn io_mut(&mut self) -> &mut S {
        &mut self.io
    }

    /// The capacity of its buffers, in bytes.
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

    /// Reads once from the socket and decrypts every complete record into `buf`; what does not fit is kept for the next
    /// read. Returns the number of bytes read from the socket, 0 at its end.
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
        // As much as the reader asks for, and at least enough to complete a record.
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
        // TLS responds to some messages itself (key updates, alerts). What cannot be sent now is sent before the next
        // write.
        let sent = self.poll_send(cx);
        opened?;
        match sent {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(count)),
        }
    }

    /// Sends pending records, then frees their memory.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.unsent.poll_send(&mut self.io, cx))?;
        self.unsent = Sealed::default();
        Poll::Ready(Ok(()))
    }

    /// Encrypts as much of `slices` as there is room for, and starts to send it. Pending while the peer has not read enough of
    /// earlier records.
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
                // Plaintext from before the error is delivered first.
                break;
            }
            if received? == 0 {
                // Without `close_notify` the data may have been truncated by an attacker (RFC 8446 §6.1).
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
