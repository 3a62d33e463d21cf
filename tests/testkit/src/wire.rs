//! An HTTP/1.1 client that sends exactly what it is given and parses responses strictly.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use serde_json::Value;

/// A connection to a gate.
pub struct Wire {
    stream: Box<dyn Duplex>,
    /// `None` for a response that was parsed from bytes.
    socket: Option<TcpStream>,
    buffer: Vec<u8>,
}

/// Both directions of a connection.
pub(crate) trait Duplex: Read + Write + Send {}
impl<T: Read + Write + Send> Duplex for T {}

/// A response.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The interim (1xx) heads before it.
    pub interim: Vec<Head>,
    /// Its head.
    pub head: Head,
    /// Its body without framing.
    pub body: Vec<u8>,
    /// The trailer fields of a chunked body.
    pub trailers: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The value of a field that may appear once.
    pub fn field(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() < 2, "{name} repeated: {values:?}");
        values.first().copied()
    }
}

impl Answer {
    /// Parses everything that arrived on a connection.
    ///
    /// # Errors
    /// When it is not a complete response.
    pub fn parsed(bytes: Vec<u8>, to_head_request: bool) -> io::Result<Self> {
        let stream = Box::new(io::Cursor::new(bytes));
        Wire { stream, socket: None, buffer: Vec::new() }.answer_to(to_head_request)
    }

    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The value of a field that may appear once.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {:?}", self.text()))
    }
}

impl Wire {
    /// Uses an existing connection, and the socket below it.
    pub(crate) fn over(stream: Box<dyn Duplex>, socket: TcpStream) -> Self {
        Self { stream, socket: Some(socket), buffer: Vec::new() }
    }

    /// Connects in plaintext.
    pub fn plain(address: SocketAddr) -> Self {
        Self::try_plain(address).unwrap()
    }

    /// Connects in plaintext where nobody may listen.
    ///
    /// # Errors
    /// When the connection is refused.
    pub fn try_plain(address: SocketAddr) -> io::Result<Self> {
        let socket = try_connect(address)?;
        Ok(Self::over(Box::new(socket.try_clone()?), socket))
    }

    /// Connects over TLS behind a load balancer, whose bytes are sent first.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn tls_behind(
        balancer: &[u8],
        address: SocketAddr,
        name: &str,
        config: rustls::ClientConfig,
    ) -> io::Result<Self> {
        let mut socket = connect(address);
        socket.write_all(balancer)?;
        Self::shake_hands(socket, name, &Arc::new(config)).map(|(wire, _)| wire)
    }

    /// Connects over TLS to the server with this name.
    pub fn tls(address: SocketAddr, name: &str, config: rustls::ClientConfig) -> io::Result<Self> {
        Self::tls_shared(address, name, &Arc::new(config)).map(|(wire, _)| wire)
    }

    /// Connects with a TLS configuration that several connections share (for resumption); also describes the handshake.
    pub fn tls_shared(
        address: SocketAddr,
        name: &str,
        config: &Arc<rustls::ClientConfig>,
    ) -> io::Result<(Self, Handshake)> {
        Self::shake_hands(connect(address), name, config)
    }

    fn shake_hands(
        socket: TcpStream,
        name: &str,
        config: &Arc<rustls::ClientConfig>,
    ) -> io::Result<(Self, Handshake)> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut session = rustls::ClientConnection::new(config.clone(), name).map_err(io::Error::other)?;
        let mut transport = socket.try_clone()?;
        while session.is_handshaking() {
            session.complete_io(&mut transport)?;
        }
        let handshake = Handshake {
            version: session.protocol_version().unwrap(),
            resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            certificate: session.peer_certificates().map(|chain| chain[0].to_vec()).unwrap_or_default(),
        };
        let stream = Box::new(rustls::StreamOwned::new(session, transport));
        Ok((Self::over(stream, socket), handshake))
    }

    fn socket(&self) -> &TcpStream {
        self.socket.as_ref().expect("a connection")
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()
    }

    /// How long a read may take before it fails.
    pub fn set_patience(&self, limit: Duration) {
        self.socket().set_read_timeout(Some(limit)).unwrap();
    }

    /// How long a write may take before it fails.
    pub fn set_write_patience(&self, limit: Duration) {
        self.socket().set_write_timeout(Some(limit)).unwrap();
    }

    /// Shuts down the sending half.
    pub fn finish_sending(&self) {
        drop(self.socket().shutdown(std::net::Shutdown::Write));
    }

    /// Sends a request and reads its response.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> io::Result<Answer> {
        let request = request.as_ref();
        self.send(request)?;
        self.answer_to(request.starts_with(b"HEAD "))
    }

    /// Reads one response.
    pub fn answer(&mut self) -> io::Result<Answer> {
        self.answer_to(false)
    }

    /// Reads one response; a response to HEAD has no body.
    pub fn answer_to(&mut self, head_request: bool) -> io::Result<Answer> {
        let mut interim = Vec::new();
        let mut head = self.head()?;
        while head.status < 200 && head.status != 101 {
            interim.push(head);
            head = self.head()?;
        }
        let mut answer = Answer { interim, head, body: Vec::new(), trailers: Vec::new() };
        if !head_request && !matches!(answer.status(), 101 | 204 | 304) {
            self.body(&mut answer)?;
        }
        Ok(answer)
    }

    /// Reads one head, interim or final.
    pub fn head(&mut self) -> io::Result<Head> {
        let text = self.until(b"\r\n\r\n")?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| invalid(&format!("status line {line:?}")))?;
        Ok(Head { status, fields: fields(lines)? })
    }

    fn body(&mut self, answer: &mut Answer) -> io::Result<()> {
        if let Some(coding) = answer.field("transfer-encoding") {
            if coding != "chunked" || answer.field("content-length").is_some() {
                return Err(invalid("framing"));
            }
            while let Some(chunk) = self.chunk()? {
                answer.body.extend_from_slice(&chunk);
            }
            answer.trailers = self.trailers()?;
        } else if let Some(length) = answer.field("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            answer.body = self.take(length)?;
        } else {
            answer.body = self.rest()?;
        }
        Ok(())
    }

    /// Reads one chunk of a chunked body; `None` for the last.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let line = self.until(b"\r\n")?;
        let size =
            usize::from_str_radix(String::from_utf8_lossy(&line).trim_end(), 16).map_err(io::Error::other)?;
        if size == 0 {
            return Ok(None);
        }
        let mut chunk = self.take(size + 2)?;
        chunk.truncate(size);
        Ok(Some(chunk))
    }

    /// Reads the trailer section after the last chunk.
    pub fn trailers(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut lines = Vec::new();
        loop {
            let line = self.until(b"\r\n")?;
            if line == b"\r\n" {
                return fields(lines.iter().map(String::as_str));
            }
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    }

    /// Reads exactly this many bytes.
    pub fn take(&mut self, n: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < n {
            if self.fill()? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// Reads to the end of the connection. A reset counts as an end.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(0) => return Ok(std::mem::take(&mut self.buffer)),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Ok(std::mem::take(&mut self.buffer));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Whether the other side closes the connection before the read timeout.
    pub fn is_closed(&mut self) -> bool {
        self.rest().is_ok_and(|rest| rest.is_empty())
    }

    /// Reads up to and including `end`.
    pub fn until(&mut self, end: &[u8]) -> io::Result<Vec<u8>> {
        self.until_or_closed(end)?.ok_or_else(|| ErrorKind::UnexpectedEof.into())
    }

    /// Reads up to and including `end`; `None` if the other side closes first.
    pub(crate) fn until_or_closed(&mut self, end: &[u8]) -> io::Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = self.buffer[from..].windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.buffer.drain(..from + at + end.len()).collect()));
            }
            from = self.buffer.len().saturating_sub(end.len() - 1);
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// The bytes that have been read but not consumed.
    pub(crate) fn left(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// Reads the bytes that arrive next; empty at the end.
    pub fn some(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            self.fill()?;
        }
        Ok(self.left())
    }

    fn fill(&mut self) -> io::Result<usize> {
        let mut chunk = [0; 64 * 1024];
        let n = self.stream.read(&mut chunk)?;
        self.buffer.extend_from_slice(&chunk[..n]);
        Ok(n)
    }
}

/// The result of a TLS handshake.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// The version.
    pub version: rustls::ProtocolVersion,
    /// Whether a session was resumed.
    pub resumed: bool,
    /// The application protocol.
    pub alpn: Option<String>,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
}

fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).unwrap()
}

fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(crate::PATIENCE))?;
    socket.set_write_timeout(Some(crate::PATIENCE))?;
    Ok(socket)
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> io::Result<Vec<(String, String)>> {
    lines
        .map(|line| {
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid(&format!("field line {line:?}")))?;
            Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}
