//! An HTTP/1.1 upstream on raw sockets: it records the exact bytes that it receives and responds from a script.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::eventually;
use crate::wire::{Duplex, Wire};

/// What a script does with the connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Keep it for another request.
    Keep,
    /// Close it.
    Close,
    /// Reset it.
    Reset,
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The number of the connection it arrived on.
    pub connection: usize,
    /// The head with its final empty line.
    pub head: Vec<u8>,
    /// The body as it was framed on the wire, as far as the script read it.
    pub wire_body: Vec<u8>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The trailer section of a chunked body.
    pub trailers: String,
}

impl Seen {
    /// The head as text; bytes outside UTF-8 are replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    /// The request line.
    pub fn line(&self) -> String {
        self.text().lines().next().unwrap_or_default().to_owned()
    }

    /// The request target.
    pub fn target(&self) -> String {
        self.line().split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// The method.
    pub fn method(&self) -> String {
        self.line().split(' ').next().unwrap_or_default().to_owned()
    }

    /// Names and values of the fields, names in lower case.
    pub fn fields(&self) -> Vec<(String, String)> {
        self.text()
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect()
    }

    /// The values of one field.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.fields().into_iter().filter(|(n, _)| n == name).map(|(_, value)| value).collect()
    }

    /// The value of a field that may appear once.
    pub fn field(&self, name: &str) -> Option<String> {
        let mut values = self.all(name);
        assert!(values.len() < 2, "{name} repeated: {values:?}");
        values.pop()
    }
}

type Script = dyn Fn(&mut Exchange<'_>) -> Next + Send + Sync;

/// The upstream. It stops, and closes its connections, when dropped.
pub struct RawUpstream {
    /// The address it listens on.
    pub address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

struct State {
    seen: Mutex<Vec<Seen>>,
    stray: Mutex<Vec<Vec<u8>>>,
    sockets: Mutex<HashMap<usize, TcpStream>>,
    accepted: AtomicUsize,
    stopped: AtomicBool,
    tls: Option<Arc<rustls::ServerConfig>>,
}

impl RawUpstream {
    /// Responds to everything with 200 and `ok`.
    pub fn start() -> Self {
        Self::scripted(|exchange| exchange.ok("ok"))
    }

    /// Responds as the script decides.
    pub fn scripted(script: impl Fn(&mut Exchange<'_>) -> Next + Send + Sync + 'static) -> Self {
        Self::build(script, None)
    }

    /// Like [`Self::scripted`], over TLS.
    pub fn with_tls(
        tls: rustls::ServerConfig,
        script: impl Fn(&mut Exchange<'_>) -> Next + Send + Sync + 'static,
    ) -> Self {
        Self::build(script, Some(Arc::new(tls)))
    }

    fn build(
        script: impl Fn(&mut Exchange<'_>) -> Next + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State {
            seen: Mutex::default(),
            stray: Mutex::default(),
            sockets: Mutex::default(),
            accepted: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            tls,
        });
        let (shared, script): (_, Arc<Script>) = (state.clone(), Arc::new(script));
        thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                shared.sockets.lock().unwrap().insert(number, socket.try_clone().unwrap());
                let (shared, script) = (shared.clone(), script.clone());
                thread::spawn(move || {
                    drop(serve(number, socket, &shared, &*script));
                    shared.sockets.lock().unwrap().remove(&number);
                });
            }
        });
        Self { address, scheme, state }
    }

    /// The URL for the configuration.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The URL with `localhost` instead of the address, because a certificate may name it.
    pub fn named_url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    /// How many requests there were.
    pub fn count(&self) -> usize {
        self.state.seen.lock().unwrap().len()
    }

    /// The last request.
    pub fn last(&self) -> Seen {
        self.state.seen.lock().unwrap().last().expect("a request reached the upstream").clone()
    }

    /// Waits until `count` requests have arrived.
    pub fn wait_for(&self, count: usize) -> Vec<Seen> {
        eventually(&format!("{count} requests at the upstream"), || {
            let seen = self.seen();
            (seen.len() >= count).then_some(seen)
        })
    }

    /// How many connections were accepted.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// How many connections are open.
    pub fn open(&self) -> usize {
        self.state.sockets.lock().unwrap().len()
    }

    /// Bytes that were not a complete request head.
    pub fn stray(&self) -> Vec<Vec<u8>> {
        self.state.stray.lock().unwrap().clone()
    }

    /// Closes all open connections.
    pub fn hang_up(&self) {
        for (_, socket) in self.state.sockets.lock().unwrap().drain() {
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for RawUpstream {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.hang_up();
        // Each connection wakes the listener, which closes; until then the kernel accepts connections that nobody serves.
        for _ in 0..1000 {
            if TcpStream::connect(self.address).is_err() {
                return;
            }
            crate::let_pass(Duration::from_millis(1));
        }
    }
}

fn serve(number: usize, socket: TcpStream, state: &State, script: &Script) -> io::Result<()> {
    socket.set_read_timeout(Some(crate::PATIENCE))?;
    socket.set_nodelay(true)?;
    let raw = socket.try_clone()?;
    let stream: Box<dyn Duplex> = match &state.tls {
        Some(config) => {
            let session = rustls::ServerConnection::new(config.clone()).map_err(io::Error::other)?;
            Box::new(rustls::StreamOwned::new(session, socket))
        }
        None => Box::new(socket),
    };
    let mut wire = Wire::over(stream, raw.try_clone()?);
    loop {
        let head = match wire.until_or_closed(b"\r\n\r\n") {
            Ok(Some(head)) => head,
            ended => {
                let left = wire.left();
                if !left.is_empty() {
                    state.stray.lock().unwrap().push(left);
                }
                return ended.map(drop);
            }
        };
        let request = Seen {
            connection: number,
            head,
            wire_body: Vec::new(),
            body: Vec::new(),
            trailers: String::new(),
        };
        let index = {
            let mut seen = state.seen.lock().unwrap();
            seen.push(request.clone());
            seen.len() - 1
        };
        let mut exchange = Exchange { wire: &mut wire, state, index, read: false, request };
        match script(&mut exchange) {
            Next::Keep => {}
            Next::Close => return raw.shutdown(Shutdown::Both),
            Next::Reset => {
                state.sockets.lock().unwrap().remove(&number);
                return socket2::SockRef::from(&raw).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// One request, and the connection to respond on.
pub struct Exchange<'a> {
    wire: &'a mut Wire,
    state: &'a State,
    index: usize,
    /// Whether the body has been read.
    read: bool,
    /// The request.
    pub request: Seen,
}

impl Exchange<'_> {
    /// Reads the request's body to its end, once; an incomplete body is an error.
    pub fn read_body(&mut self) -> io::Result<Vec<u8>> {
        if self.read {
            return Ok(self.request.body.clone());
        }
        let (wire_body, body, trailers) = if self.request.field("transfer-encoding").is_some() {
            self.read_chunks()?
        } else {
            let length = self.request.field("content-length").map_or(0, |text| text.parse().unwrap());
            let body = self.wire.take(length)?;
            (body.clone(), body, String::new())
        };
        let mut seen = self.state.seen.lock().unwrap();
        self.request = Seen { wire_body, body: body.clone(), trailers, ..self.request.clone() };
        seen[self.index] = self.request.clone();
        self.read = true;
        Ok(body)
    }

    fn read_chunks(&mut self) -> io::Result<(Vec<u8>, Vec<u8>, String)> {
        let (mut raw, mut body) = (Vec::new(), Vec::new());
        loop {
            let line = self.wire.until(b"\r\n")?;
            let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim_end(), 16)
                .map_err(io::Error::other)?;
            raw.extend_from_slice(&line);
            if size == 0 {
                break;
            }
            let chunk = self.wire.take(size + 2)?;
            body.extend_from_slice(&chunk[..size]);
            raw.extend_from_slice(&chunk);
        }
        let mut trailers = String::new();
        loop {
            let line = self.wire.until(b"\r\n")?;
            raw.extend_from_slice(&line);
            if line == b"\r\n" {
                return Ok((raw, body, trailers));
            }
            trailers.push_str(&String::from_utf8_lossy(&line));
        }
    }

    /// Writes bytes immediately.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.wire.send(bytes)
    }

    /// Reads the bytes that arrive next; empty at the end.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        self.wire.some()
    }

    /// Reads the body and responds with 200.
    pub fn ok(&mut self, body: &str) -> Next {
        self.answer("200 OK", "", body)
    }

    /// Reads the body and responds, with further field lines (each ended by CRLF).
    pub fn answer(&mut self, status: &str, fields: &str, body: &str) -> Next {
        if self.read_body().is_err() {
            return Next::Close;
        }
        let bodiless = self.request.method() == "HEAD";
        let sent = if bodiless { "" } else { body };
        self.send(format!("HTTP/1.1 {status}\r\n{fields}content-length: {}\r\n\r\n{sent}", body.len()))
    }

    /// Writes bytes; keeps the connection if that succeeded.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Next {
        if self.write(bytes).is_ok() { Next::Keep } else { Next::Close }
    }

    /// Waits until the peer has closed the connection.
    pub fn wait_for_close(&mut self) -> Next {
        while self.wire.some().is_ok_and(|some| !some.is_empty()) {}
        Next::Close
    }
}
