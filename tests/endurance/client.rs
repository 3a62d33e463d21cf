//! An HTTP/1.1 client for many connections in one thread, in clear text or over TLS.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What carries a connection's bytes.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Carrier for T {}

/// A connection.
pub struct Client {
    pub stream: Box<dyn Carrier>,
    buffer: Vec<u8>,
}

/// An answer, read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub status: u16,
    pub request_id: String,
    pub has_retry_after: bool,
    pub length: usize,
    pub closes: bool,
}

impl Client {
    /// Connects in clear text.
    pub async fn plain(address: SocketAddr) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self { stream: Box::new(socket), buffer: Vec::new() })
    }

    /// Connects over TLS.
    pub async fn tls(address: SocketAddr, connector: &TlsConnector) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
        let stream = connector.connect(name, socket).await?;
        Ok(Self { stream: Box::new(stream), buffer: Vec::new() })
    }

    /// Sends a request and reads the answer to its end.
    pub async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
        self.stream.write_all(request).await?;
        self.stream.flush().await?;
        let mut reply = self.head().await?;
        if reply.status == 101 {
            return Ok(reply.0);
        }
        match reply.1 {
            Some(length) => {
                while self.buffer.len() < length {
                    self.fill().await?;
                }
                self.buffer.drain(..length);
                reply.0.length = length;
            }
            None => loop {
                let line = self.until(b"\r\n").await?;
                let size = usize::from_str_radix(&line, 16).map_err(io::Error::other)?;
                while self.buffer.len() < size + 2 {
                    self.fill().await?;
                }
                self.buffer.drain(..size + 2);
                reply.0.length += size;
                if size == 0 {
                    break;
                }
            },
        }
        Ok(reply.0)
    }

    /// Sends bytes and reads as many back, as through a tunnel that returns them.
    pub async fn echo(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        while self.buffer.len() < bytes.len() {
            self.fill().await?;
        }
        let back: Vec<u8> = self.buffer.drain(..bytes.len()).collect();
        if back == bytes { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
    }

    /// The head of the answer, and the length of its body unless it is chunked.
    async fn head(&mut self) -> io::Result<Head> {
        let text = self.until(b"\r\n\r\n").await?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.get(9..12)).and_then(|code| code.parse().ok());
        let (mut reply, mut length) = (
            Reply {
                status: status.ok_or(ErrorKind::InvalidData)?,
                request_id: String::new(),
                has_retry_after: false,
                length: 0,
                closes: false,
            },
            Some(0),
        );
        for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok(),
                "transfer-encoding" => length = None,
                "x-request-id" => value.clone_into(&mut reply.request_id),
                "retry-after" => reply.has_retry_after = true,
                "connection" => reply.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(Head(reply, length))
    }

    async fn until(&mut self, end: &[u8]) -> io::Result<String> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                let text = String::from_utf8_lossy(&self.buffer[..at]).into_owned();
                self.buffer.drain(..at + end.len());
                return Ok(text);
            }
            self.fill().await?;
        }
    }

    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

struct Head(Reply, Option<usize>);

impl std::ops::Deref for Head {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.0
    }
}

/// A connector that trusts the authority of `settings`, and resumes sessions.
pub fn connector(settings: &testkit::settings::Settings) -> TlsConnector {
    TlsConnector::from(Arc::new(settings.authority().client_config(&["http/1.1"], None)))
}

/// The bytes of a request.
pub fn request(method: &str, target: &str, token: &str, body: &[u8]) -> Vec<u8> {
    let length = if method == "POST" { format!("Content-Length: {}\r\n", body.len()) } else { String::new() };
    let head = format!(
        "{method} {target} HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer {token}\r\n{length}\r\n"
    );
    [head.into_bytes(), body.to_vec()].concat()
}
