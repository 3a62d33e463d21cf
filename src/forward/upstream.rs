//! An upstream: where it is, how it is trusted, and one new connection to it.
//!
//! Shared by all workers; knows nothing of requests or pools.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::ForwardError;
use crate::tls;

/// An upstream, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamSettings {
    /// The name routes refer to, and the metric label.
    pub name: String,
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Host name or address literal (without brackets).
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Limit on TCP connect and TLS handshake together.
    pub connect_timeout: Duration,
    /// Limit from the request sent to the response's headers.
    pub response_timeout: Duration,
    /// How long an unused connection stays in the pool.
    pub idle_timeout: Duration,
    /// PEM file with the roots for `https`; the system's when `None`.
    pub ca: Option<PathBuf>,
    /// PEM files of certificate chain and key presented to the upstream.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
}

/// The protocol spoken with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP/1.1 in clear text.
    Http,
    /// TLS; HTTP/2 or HTTP/1.1 by ALPN.
    Https,
    /// HTTP/2 in clear text with prior knowledge (RFC 9113 §3.3).
    H2c,
}

/// The TCP keep-alive of upstream connections: how a tunnel notices that the other side has vanished.
const TCP_KEEPALIVE: Duration = Duration::from_secs(60);

/// A configured upstream with its trust loaded.
pub struct Upstream {
    settings: UpstreamSettings,
    tls: Option<Tls>,
    /// What the certificate files held when they were read.
    fingerprint: Vec<u8>,
}

struct Tls {
    name: ServerName<'static>,
    /// Offers HTTP/2 and HTTP/1.1.
    any: TlsConnector,
    /// Offers HTTP/1.1 only: an upgrade needs it.
    http1: TlsConnector,
}

/// Why an upstream could not be set up.
#[derive(Debug)]
pub enum LoadError {
    /// The host can stand in no certificate.
    Host(String),
    /// A file cannot be read.
    File(PathBuf, io::Error),
    /// CA or client certificate are unusable.
    Tls(tls::TlsError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => write!(f, "`{host}` is neither a DNS name nor an address"),
            Self::File(path, cause) => write!(f, "{}: {cause}", path.display()),
            Self::Tls(cause) => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<tls::TlsError> for LoadError {
    fn from(cause: tls::TlsError) -> Self {
        Self::Tls(cause)
    }
}

impl Upstream {
    /// Reads the CA and the client certificate, for `https`.
    ///
    /// # Errors
    /// When a file cannot be used, or the host is no name that a certificate could be for.
    pub fn load(settings: UpstreamSettings) -> Result<Arc<Self>, LoadError> {
        let (tls, fingerprint) = match settings.scheme {
            Scheme::Https => (Some(Tls::load(&settings)?), fingerprint(&settings)?),
            Scheme::Http | Scheme::H2c => (None, Vec::new()),
        };
        Ok(Arc::new(Self { settings, tls, fingerprint }))
    }

    /// As configured.
    #[must_use]
    pub const fn settings(&self) -> &UpstreamSettings {
        &self.settings
    }

    /// Whether connections to `other` are as good as connections to this one.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.settings == other.settings && self.fingerprint == other.fingerprint
    }

    /// Opens a connection. With `http1_only`, TLS offers nothing else. The caller sets the time limit.
    pub(crate) async fn dial(&self, http1_only: bool) -> Result<Io, ForwardError> {
        let tcp = self.dial_tcp().await.map_err(ForwardError::Connect)?;
        let Some(tls) = &self.tls else {
            return Ok(Io::Plain(tcp));
        };
        let connector = if http1_only { &tls.http1 } else { &tls.any };
        let stream = connector.connect(tls.name.clone(), tcp).await;
        stream.map(|stream| Io::Tls(Box::new(stream))).map_err(ForwardError::Tls)
    }

    /// All addresses of the host in turn, the last error when none answers.
    async fn dial_tcp(&self) -> io::Result<TcpStream> {
        let (host, port) = (self.settings.host.as_str(), self.settings.port);
        if let Ok(address) = host.parse::<IpAddr>() {
            return open(SocketAddr::new(address, port)).await;
        }
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
        for address in tokio::net::lookup_host((host, port)).await? {
            match open(address).await {
                Ok(stream) => return Ok(stream),
                Err(cause) => failure = cause,
            }
        }
        Err(failure)
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl Tls {
    fn load(settings: &UpstreamSettings) -> Result<Self, LoadError> {
        let name = ServerName::try_from(settings.host.clone());
        let config = |alpn: &[&[u8]]| {
            tls::client_config(settings.ca.as_deref(), settings.client_certificate.as_ref(), alpn)
        };
        Ok(Self {
            name: name.map_err(|_invalid| LoadError::Host(settings.host.clone()))?,
            any: config(&[b"h2", b"http/1.1"])?.into(),
            http1: config(&[b"http/1.1"])?.into(),
        })
    }
}

/// A digest over the files, so that a renewed certificate under an old name is noticed.
fn fingerprint(settings: &UpstreamSettings) -> Result<Vec<u8>, LoadError> {
    let certificate = settings.client_certificate.iter().flat_map(|(chain, key)| [chain, key]);
    let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for path in settings.ca.iter().chain(certificate) {
        let content = std::fs::read(path).map_err(|cause| LoadError::File(path.clone(), cause))?;
        digest.update(&(content.len() as u64).to_be_bytes());
        digest.update(&content);
    }
    Ok(digest.finish().as_ref().to_vec())
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE))?;
    Ok(stream)
}

/// The bytes of a connection, in clear text or in TLS.
pub(crate) enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Io {
    /// Whether TLS settled on HTTP/2.
    pub(crate) fn is_http2(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Whether an unused connection is still open, as far as has been noticed: an upstream has nothing to say now, so
    /// bytes or an end mean that the connection cannot be used. Costs no system call unless something has arrived.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let mut byte = [0; 1];
        match self {
            Self::Plain(stream) => {
                matches!(stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Self::Tls(stream) => {
                let mut context = Context::from_waker(Waker::noop());
                Pin::new(stream).poll_read(&mut context, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// As `is_quiet`, but asks the kernel: one system call that sees what the event loop has not.
    pub(crate) fn is_surely_quiet(&mut self) -> bool {
        let tcp = match self {
            Self::Plain(stream) => &*stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        let peeked = SockRef::from(tcp).peek(&mut [MaybeUninit::uninit(); 1]);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
