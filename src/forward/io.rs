//! The byte stream of one connection to an upstream, over TCP, TLS or a Unix socket, and its share of file descriptors.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::client::TlsStream;

/// An open connection to an upstream.
pub(crate) struct Io {
    transport: UpstreamStream,
    /// Its place among the connections to upstreams, released when it closes.
    _place: OwnedSemaphorePermit,
}

/// The transport of a connection.
pub(crate) enum UpstreamStream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Io {
    pub(crate) fn new(transport: UpstreamStream, place: OwnedSemaphorePermit) -> Self {
        Self { transport, _place: place }
    }

    /// Whether TLS negotiated HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match &self.transport {
            UpstreamStream::Tcp(_) | UpstreamStream::Unix(_) => false,
            UpstreamStream::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Whether an unused connection is still open, as far as the event loop knows: an upstream has nothing to send now, so
    /// bytes or an end mean that the connection cannot be used. Needs no system call unless something has arrived.
    pub(crate) fn poll_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        let read = match &mut self.transport {
            UpstreamStream::Tcp(stream) => stream.try_read(&mut byte),
            UpstreamStream::Unix(stream) => stream.try_read(&mut byte),
            UpstreamStream::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                return Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending();
            }
        };
        would_block(&read)
    }

    /// As `poll_quiet`, but asks the kernel: one system call that sees what the event loop has not.
    pub(crate) fn is_surely_quiet(&self) -> bool {
        let socket = match &self.transport {
            UpstreamStream::Tcp(stream) => SockRef::from(stream),
            UpstreamStream::Tls(stream) => SockRef::from(stream.get_ref().0),
            UpstreamStream::Unix(stream) => SockRef::from(stream),
        };
        would_block(&socket.peek(&mut [MaybeUninit::uninit(); 1]))
    }
}

fn would_block(read: &io::Result<usize>) -> bool {
    matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
            UpstreamStream::Unix(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
            UpstreamStream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().transport {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            UpstreamStream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_flush(cx),
            UpstreamStream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().transport {
            UpstreamStream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamStream::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
            UpstreamStream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
