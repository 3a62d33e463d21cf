//! A TLS connection delivers the bytes of both sides in order, however the network splits them; it fails at the first
//! changed byte; and it keeps no buffers once everything is delivered.
//!
//! The input is a list of steps: a letter and a number of bytes. `2` at the beginning selects TLS 1.2. An input that begins
//! with `!` is sent to the server as it is, instead of a handshake.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, IoSlice, Read as _, Write as _};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, ServerConfig, SignatureScheme, version,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};

use crate::tls::ServerStream;

/// The longest piece.
const MOST: usize = 40_000;
/// The most key updates in a row: rustls rejects a client that requests more of them without sending data.
const MOST_UPDATES: usize = 32;

/// An in-memory network: the server's socket, whose deliveries the test controls.
#[derive(Debug, Clone, Default)]
struct Network(Rc<RefCell<Wire>>);

#[derive(Debug, Default)]
struct Wire {
    to_server: VecDeque<u8>,
    to_client: Vec<u8>,
    /// How many bytes the server may send.
    window: usize,
    ended: bool,
}

impl AsyncRead for Network {
    fn poll_read(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        let count = wire.to_server.len().min(buf.remaining());
        if count == 0 && !wire.ended {
            return Poll::Pending;
        }
        wire.to_server.drain(..count).for_each(|byte| buf.put_slice(&[byte]));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Network {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        let count = bytes.len().min(wire.window);
        if count == 0 {
            return Poll::Pending;
        }
        wire.window -= count;
        wire.to_client.extend_from_slice(&bytes[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Trusts every certificate: the server's identity does not matter here.
#[derive(Debug)]
struct TrustsAll;

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _leaf: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _leaf: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

static SERVER: LazyLock<Arc<ServerConfig>> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("an identity");
    Arc::new(config)
});

static CLIENTS: LazyLock<[Arc<ClientConfig>; 2]> = LazyLock::new(|| {
    [&version::TLS13, &version::TLS12].map(|version| {
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustsAll))
            .with_no_client_auth();
        Arc::new(config)
    })
});

/// What must hold.
pub(super) fn check(input: &[u8]) {
    if let Some(raw) = input.strip_prefix(b"!") {
        return reject(raw);
    }
    let (client, steps) = match input.strip_prefix(b"2") {
        Some(steps) => (&CLIENTS[1], steps),
        None => (&CLIENTS[0], input),
    };
    let mut pair = Pair::shake_hands(client);
    for step in steps.split(u8::is_ascii_whitespace) {
        let Some((letter, count)) = step.split_first() else { continue };
        let count = str::from_utf8(count).ok().and_then(|count| count.parse::<usize>().ok());
        pair.step(*letter, count.unwrap_or(1).clamp(1, MOST));
    }
    pair.finish();
}

/// Input that is not TLS ends in an error and never in a connection, however it is split.
fn reject(raw: &[u8]) {
    for pieces in super::splits(raw) {
        let network = Network::default();
        network.0.borrow_mut().window = usize::MAX;
        let mut handshake = pin!(ServerStream::accept(Arc::clone(&SERVER), network.clone()));
        let mut outcome = poll(handshake.as_mut());
        for piece in pieces {
            network.0.borrow_mut().to_server.extend(piece);
            if outcome.is_pending() {
                outcome = poll(handshake.as_mut());
            }
        }
        network.0.borrow_mut().ended = true;
        if outcome.is_pending() {
            outcome = poll(handshake.as_mut());
        }
        assert!(matches!(outcome, Poll::Ready(Err(_))), "a connection of {outcome:?}");
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Both ends of a connection, and the bytes that each wrote and read.
struct Pair {
    server: ServerStream<Network>,
    client: ClientConnection,
    network: Network,
    /// Bytes that the client has sent and the network has not delivered.
    held: VecDeque<u8>,
    from_client: Vec<u8>,
    at_server: Vec<u8>,
    from_server: Vec<u8>,
    at_client: Vec<u8>,
    /// How often the client has updated its keys since it last wrote.
    updates: usize,
    /// A byte to the server was changed.
    tampered: bool,
}

impl Pair {
    /// Performs a handshake in pieces of 100 bytes.
    fn shake_hands(config: &Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        let network = Network::default();
        network.0.borrow_mut().window = usize::MAX;
        let mut handshake = Box::pin(ServerStream::accept(Arc::clone(&SERVER), network.clone()));
        let mut held = VecDeque::new();
        let server = (0..1000).find_map(|_turn| {
            let polled = poll(handshake.as_mut());
            assert!(receive(&mut client, &network).is_empty(), "nobody has written");
            send(&mut client, &mut held);
            let piece = held.drain(..held.len().min(100));
            network.0.borrow_mut().to_server.extend(piece);
            match polled {
                Poll::Ready(server) => Some(server.expect("a handshake")),
                Poll::Pending => None,
            }
        });
        let server = server.expect("a handshake with an end");
        network.0.borrow_mut().window = 0;
        let (from_client, at_server, from_server, at_client) = <(_, _, _, _)>::default();
        let (updates, tampered) = (0, false);
        Self {
            server,
            client,
            network,
            held,
            from_client,
            at_server,
            from_server,
            at_client,
            updates,
            tampered,
        }
    }

    fn step(&mut self, letter: u8, count: usize) {
        let piece: Vec<u8> = (0..count).map(|at| (at % 251) as u8).collect();
        match letter {
            // The client writes, or updates its keys.
            b'c' => {
                self.updates = 0;
                self.client.writer().write_all(&piece).expect("room");
                self.from_client.extend_from_slice(&piece);
                send(&mut self.client, &mut self.held);
            }
            b'k' if self.updates < MOST_UPDATES => {
                self.updates += 1;
                drop(self.client.refresh_traffic_keys());
                send(&mut self.client, &mut self.held);
            }
            // The network delivers, accepts more from the server, or changes a byte.
            b'd' => {
                let piece = self.held.drain(..self.held.len().min(count));
                self.network.0.borrow_mut().to_server.extend(piece);
            }
            b't' => self.network.0.borrow_mut().window += count,
            b'x' => {
                if let Some(byte) = self.held.get_mut(count - 1) {
                    *byte ^= 0x40;
                    self.tampered = true;
                }
            }
            // The server reads, writes one piece or several, or flushes.
            b'r' => drop(self.read(count)),
            b's' => self.write(&[&piece]),
            b'v' => {
                let (one, others) = piece.split_at(count / 3);
                let (two, three) = others.split_at(others.len() / 2);
                self.write(&[one, &[], two, three]);
            }
            b'f' => drop(poll(pin!(self.server.flush()))),
            _ => {}
        }
        // The alert about a changed byte ends the client's side.
        if !self.tampered {
            self.receive();
        }
        assert!(self.server.held() <= 3 * MOST, "{} bytes are held", self.server.held());
    }

    /// Reads at the server. Returns whether there was something to read.
    fn read(&mut self, count: usize) -> bool {
        let mut room = vec![0; count];
        match poll(pin!(self.server.read(&mut room))) {
            Poll::Ready(Ok(read)) => {
                self.at_server.extend_from_slice(&room[..read]);
                read > 0
            }
            Poll::Ready(Err(error)) => {
                assert!(self.tampered, "{error}");
                false
            }
            Poll::Pending => false,
        }
    }

    fn write(&mut self, pieces: &[&[u8]]) {
        let slices: Vec<IoSlice<'_>> = pieces.iter().map(|piece| IoSlice::new(piece)).collect();
        match poll(pin!(self.server.write_vectored(&slices))) {
            Poll::Ready(Ok(count)) => self.from_server.extend_from_slice(&pieces.concat()[..count]),
            Poll::Ready(Err(error)) => assert!(self.tampered, "{error}"),
            Poll::Pending => {}
        }
    }

    fn receive(&mut self) {
        let plaintext = receive(&mut self.client, &self.network);
        self.at_client.extend(plaintext);
        // The client responds to a key update.
        send(&mut self.client, &mut self.held);
    }

    /// Delivers everything, compares, and closes.
    fn finish(mut self) {
        let piece = self.held.drain(..);
        self.network.0.borrow_mut().to_server.extend(piece);
        self.network.0.borrow_mut().window = usize::MAX;
        while self.read(1000) {}
        if self.tampered {
            assert!(self.from_client.starts_with(&self.at_server), "bytes that nobody wrote");
            return;
        }
        assert_eq!(self.at_server, self.from_client);
        assert!(matches!(poll(pin!(self.server.flush())), Poll::Ready(Ok(()))));
        self.receive();
        assert_eq!(self.at_client, self.from_server);
        assert_eq!(self.server.held(), 0, "bytes are kept for nothing");

        self.client.send_close_notify();
        send(&mut self.client, &mut self.held);
        let piece = self.held.drain(..);
        self.network.0.borrow_mut().to_server.extend(piece);
        let end = poll(pin!(self.server.read(&mut [0; 1])));
        assert!(matches!(end, Poll::Ready(Ok(0))), "the client has ended: {end:?}");
        self.write(&[b"after the end of the client"]);
        assert!(matches!(poll(pin!(self.server.shutdown())), Poll::Ready(Ok(()))));
        self.receive();
        assert_eq!(self.at_client, self.from_server);
        let late = poll(pin!(self.server.write(b"after the end of the server")));
        assert!(matches!(late, Poll::Ready(Err(_))), "nothing may follow close_notify: {late:?}");
        let seen = self.client.process_new_packets().expect("a server that keeps to TLS");
        assert!(seen.peer_has_closed(), "the server has ended");
    }
}

/// Delivers to the client what the server has sent. Returns the plaintext.
fn receive(client: &mut ClientConnection, network: &Network) -> Vec<u8> {
    let bytes = std::mem::take(&mut network.0.borrow_mut().to_client);
    let (mut left, mut plaintext, mut room) = (&bytes[..], Vec::new(), [0; 4096]);
    while !left.is_empty() {
        client.read_tls(&mut left).expect("room");
        client.process_new_packets().expect("a server that keeps to TLS");
        while let Ok(count @ 1..) = client.reader().read(&mut room) {
            plaintext.extend_from_slice(&room[..count]);
        }
    }
    plaintext
}

/// Moves what the client has to send to the network.
fn send(client: &mut ClientConnection, held: &mut VecDeque<u8>) {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes).expect("room");
    }
    held.extend(bytes);
}
