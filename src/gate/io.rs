//! The socket that hyper reads and writes through: it shows hyper only what `framing` lets pass.
//!
//! Knows bytes and when they may flow; answers nothing itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;

use super::connections::Place;
use super::framing::{Framing, Stop};
use super::link::{Broken, Link, Phase, Returned};

/// A client's connection, with TLS or without.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// The socket below TLS.
    pub(super) fn tcp(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_mut().0,
        }
    }

    /// Reads and forgets what the client still sends, until it has read the answer and closes, within `bytes`. Closing
    /// while its bytes are unread would reset the connection and could take the answer away (RFC 9112 §9.6).
    pub(super) async fn discard(&mut self, bytes: usize) {
        let (tcp, mut scratch, mut left) = (self.tcp(), vec![0; 16 * 1024], bytes);
        while let Ok(read @ 1..) = tcp.read(&mut scratch).await {
            left = left.saturating_sub(read);
            if left == 0 {
                return;
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

/// A connection as hyper sees it. Gives the stream back to the link when it is dropped, however hyper ended.
pub(super) struct Socket {
    stream: Option<Stream>,
    framing: Framing,
    link: Arc<Link>,
    /// Bytes that came behind a request for another protocol and wait for the decision.
    held: Vec<u8>,
    /// Why there is nothing more to read.
    end: Option<End>,
    /// A tunnel counts as a connection as long as it lasts.
    place: Option<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The client closed its side.
    Closed,
    /// A head is at fault: the connection's task answers it once all earlier answers were written.
    Head,
    /// The body of the request being served is at fault.
    Body,
}

impl Socket {
    pub(super) fn new(stream: Stream, framing: Framing, link: Arc<Link>, place: Place) -> Self {
        Self { stream: Some(stream), framing, link, held: Vec::new(), end: None, place: Some(place) }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Stream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Whether nothing may be read now, and what reading yields instead.
    fn poll_end(&self, cx: &Context<'_>) -> Option<Poll<io::Result<()>>> {
        let busy = matches!(self.link.phase(), Phase::Serving | Phase::Answered);
        match self.end? {
            // hyper would drop the answers that are under way.
            End::Head if busy => {
                self.link.park_reader(cx);
                Some(Poll::Pending)
            }
            // A client that has sent all it wants may still read, if it has not gone away altogether.
            End::Closed if busy && !self.framing.is_in_body() => {
                self.link.client_ended();
                self.link.park_reader(cx);
                Some(Poll::Pending)
            }
            End::Head | End::Closed => Some(Poll::Ready(Ok(()))),
            End::Body => Some(Poll::Ready(Err(io::ErrorKind::InvalidData.into()))),
        }
    }

    /// Whether the decision on another protocol is still to come; puts it into force when it has.
    fn waits_for_decision(&mut self, cx: &Context<'_>) -> bool {
        if !self.framing.is_undecided() {
            return false;
        }
        match self.link.phase() {
            Phase::Serving | Phase::Answered => {
                self.link.park_reader(cx);
                return true;
            }
            Phase::Tunnel => self.framing.decided(true),
            Phase::Waiting | Phase::Head => self.framing.decided(false),
        }
        false
    }

    /// How many of these bytes hyper may see.
    fn admit(&mut self, bytes: &[u8]) -> usize {
        let progress = self.framing.feed(bytes);
        match progress.stop {
            None | Some(Stop::Undecided) => {}
            Some(Stop::Head(fault)) => self.broke(End::Head, fault),
            Some(Stop::Body(fault)) => self.broke(End::Body, fault),
        }
        if self.framing.is_in_head() {
            self.link.head_began();
        }
        progress.pass
    }

    fn broke(&mut self, end: End, fault: super::framing::Fault) {
        self.end = Some(end);
        let method = self.framing.method().to_owned();
        self.link.broke(Broken { fault, method, unanswered: end == End::Head });
    }

    fn note_write(&self, written: &Poll<io::Result<usize>>) {
        self.link.wrote(written.is_ready());
        if written.is_ready() {
            self.link.flowed();
        }
    }

    /// Shows what was held back, now that it is decided what it is.
    fn read_held(&mut self, buf: &mut ReadBuf<'_>) {
        let mut held = std::mem::take(&mut self.held);
        let shown = buf.remaining().min(held.len());
        let pass = held.get(..shown).map_or(0, |bytes| self.admit(bytes));
        buf.put_slice(held.get(..pass).unwrap_or_default());
        drop(held.drain(..pass));
        self.held = held;
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.stream()?.poll_read(cx, buf))?;
        let read = buf.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            self.end = Some(End::Closed);
            return self.poll_end(cx).unwrap_or(Poll::Ready(Ok(())));
        }
        let pass = self.admit(read);
        if self.end.is_none() {
            self.held.extend_from_slice(read.get(pass..).unwrap_or_default());
        }
        buf.set_filled(before + pass);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        loop {
            if let Some(end) = this.poll_end(cx) {
                return end;
            }
            if this.waits_for_decision(cx) {
                return Poll::Pending;
            }
            if this.held.is_empty() {
                ready!(this.poll_fill(cx, buf))?;
            } else {
                this.read_held(buf);
            }
            // Nothing shown is the end to hyper: only `poll_end` says so.
            if buf.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write(cx, buf);
        this.note_write(&written);
        written
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = this.stream()?.poll_write_vectored(cx, bufs);
        this.note_write(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper flushes only when it has nothing unwritten itself: the moment for interim answers, and the end of an
    /// answer that was handed over to the end.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream: Some(stream), framing, link, end, .. } = self.get_mut() else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let mut stream = Pin::new(stream);
        let mut flushed = link.poll_interim(|bytes| stream.as_mut().poll_write(cx, bytes));
        if matches!(flushed, Poll::Ready(Ok(()))) {
            flushed = stream.poll_flush(cx);
        }
        link.wrote(flushed.is_ready());
        ready!(flushed)?;
        if link.flushed(framing.is_in_head()) && (end.is_some() || framing.is_undecided()) {
            link.wake_reader();
        }
        Poll::Ready(Ok(()))
    }

    /// Leaves the connection open for the answer that the connection's task still has to write.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.end == Some(End::Head) { Poll::Ready(Ok(())) } else { this.stream()?.poll_shutdown(cx) }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let unread = self.end != Some(End::Closed) && !self.framing.is_between_requests();
        if let (Some(stream), Some(place)) = (self.stream.take(), self.place.take()) {
            self.link.give_back(Returned { stream, unread, _place: place });
        }
    }
}
