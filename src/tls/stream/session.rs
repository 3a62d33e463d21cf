//! A rustls session without I/O: decrypts received records and encrypts outgoing ones.

use std::cell::Cell;
use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{CommonState, ServerConfig};
use tokio::io::{AsyncWrite, ReadBuf};

/// Most plaintext in a record (RFC 8446 §5.1).
pub(super) const MAX_PLAINTEXT: usize = 16 * 1024;

thread_local! {
    /// The buffer in which small pieces of plaintext are joined into one record.
    static GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A rustls session and the data that must be kept between two calls.
pub(super) struct TlsSession {
    tls: UnbufferedServerConnection,
    /// The received part of an incomplete record, or of the records of an incomplete handshake message.
    incomplete: Vec<u8>,
    /// Plaintext that did not fit into the reader's buffer.
    plaintext: Plaintext,
    /// The peer has sent `close_notify`.
    peer_closed: bool,
    /// This side has sent `close_notify`.
    closed: bool,
    /// The error that ended the session. rustls must not be called after it: it would expect the bytes in `incomplete`.
    failed: Option<Box<rustls::Error>>,
}

/// Plaintext that waits for the reader.
#[derive(Debug, Default)]
struct Plaintext {
    bytes: Vec<u8>,
    taken: usize,
}

/// Outgoing records; those in `bytes[sent..end]` are not sent yet.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    bytes: Vec<u8>,
    sent: usize,
    end: usize,
}

/// What to encrypt once all received records are processed.
#[derive(Debug, Clone, Copy)]
enum Sealing<'a> {
    /// Nothing.
    Nothing,
    /// Application data.
    Data(&'a [u8]),
    /// The `close_notify` alert.
    Close,
}

impl TlsSession {
    pub(super) fn new(config: Arc<ServerConfig>) -> io::Result<Self> {
        Ok(Self {
            tls: UnbufferedServerConnection::new(config).map_err(invalid)?,
            incomplete: Vec::new(),
            plaintext: Plaintext::default(),
            peer_closed: false,
            closed: false,
            failed: None,
        })
    }

    /// What the handshake negotiated.
    pub(super) fn state(&self) -> &CommonState {
        &self.tls
    }

    /// Whether the peer has sent `close_notify`.
    pub(super) const fn is_ended(&self) -> bool {
        self.peer_closed
    }

    /// The received part of what is incomplete.
    pub(super) fn incomplete(&self) -> &[u8] {
        &self.incomplete
    }

    /// Moves plaintext that was kept from an earlier read into `buf`.
    pub(super) fn take_into(&mut self, buf: &mut ReadBuf<'_>) {
        self.plaintext.take_into(buf);
    }

    /// Encrypts the `close_notify` alert, once.
    pub(super) fn close(&mut self, out: &mut Sealed) -> io::Result<()> {
        // After an error, its alert is the last message.
        if std::mem::replace(&mut self.closed, true) || self.failed.is_some() {
            return Ok(());
        }
        self.seal(out, Sealing::Close)
    }

    /// The capacity of its buffers, in bytes.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn held(&self) -> usize {
        self.incomplete.capacity() + self.plaintext.bytes.capacity()
    }

    /// Decrypts the records in `arrived`, which starts with the incomplete part from before.
    pub(super) fn open(
        &mut self,
        arrived: &mut [u8],
        buf: &mut ReadBuf<'_>,
        out: &mut Sealed,
    ) -> io::Result<()> {
        let used = self.advance(arrived, buf, out, Sealing::Nothing)?;
        let rest = arrived.get(used..).unwrap_or_default();
        if rest.is_empty() || self.peer_closed {
            self.incomplete = Vec::new();
        } else {
            self.incomplete.clear();
            self.incomplete.extend_from_slice(rest);
        }
        Ok(())
    }

    /// Encrypts up to `room` bytes of `slices` and returns how many. Small pieces share a record.
    ///
    /// # Errors
    /// After [`close`](Self::close): nothing may follow `close_notify` (RFC 8446 §6.1).
    pub(super) fn seal_slices(
        &mut self,
        slices: &[IoSlice<'_>],
        room: usize,
        out: &mut Sealed,
    ) -> io::Result<usize> {
        if self.closed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let pieces = slices.iter().filter(|slice| !slice.is_empty());
        if pieces.clone().count() > 1 && total <= room.min(MAX_PLAINTEXT) {
            let mut gathered = GATHERED.take();
            gathered.clear();
            pieces.for_each(|piece| gathered.extend_from_slice(piece));
            let sealed = self.seal(out, Sealing::Data(&gathered));
            GATHERED.set(gathered);
            return sealed.map(|()| total);
        }
        let mut left = room;
        for piece in pieces {
            let piece = piece.get(..left.min(piece.len())).unwrap_or_default();
            if piece.is_empty() {
                break;
            }
            self.seal(out, Sealing::Data(piece))?;
            left -= piece.len();
        }
        Ok(room - left)
    }

    /// Encrypts something. Passes the incomplete part along because rustls may refer to it.
    fn seal(&mut self, out: &mut Sealed, sealing: Sealing<'_>) -> io::Result<()> {
        let mut incomplete = std::mem::take(&mut self.incomplete);
        let used = self.advance(&mut incomplete, &mut ReadBuf::new(&mut []), out, sealing)?;
        incomplete.drain(..used);
        self.incomplete = incomplete;
        Ok(())
    }

    /// Processes `arrived` until no complete message is left, then encrypts what `sealing` says. Returns the number of
    /// processed bytes. Everything that TLS itself sends goes to `out`, including the alert for an error.
    fn advance(
        &mut self,
        arrived: &mut [u8],
        buf: &mut ReadBuf<'_>,
        out: &mut Sealed,
        sealing: Sealing<'_>,
    ) -> io::Result<usize> {
        self.usable()?;
        self.try_advance(arrived, buf, out, sealing).map_err(|error| {
            self.failed = Some(Box::new(error.clone()));
            invalid(error)
        })
    }

    pub(super) fn usable(&self) -> io::Result<()> {
        self.failed.as_deref().map_or(Ok(()), |error| Err(invalid(error.clone())))
    }

    fn try_advance(
        &mut self,
        arrived: &mut [u8],
        buf: &mut ReadBuf<'_>,
        out: &mut Sealed,
        sealing: Sealing<'_>,
    ) -> Result<usize, rustls::Error> {
        let (mut used, mut failed) = (0, None);
        // After an error, continue only to collect the alert: rustls must not process the faulty bytes again.
        while failed.is_none() || self.tls.wants_write() {
            let rest = arrived.get_mut(used..).unwrap_or_default();
            let UnbufferedStatus { mut discard, state, .. } = self.tls.process_tls_records(rest);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    out.put(|room| data.encode(room).map_err(NoRoom::from))?;
                }
                _ if failed.is_some() => break,
                Err(error) => failed = Some(error),
                Ok(ConnectionState::ReadTraffic(mut records)) => {
                    while let Some(record) = records.next_record() {
                        let record = record?;
                        discard += record.discard;
                        self.plaintext.put(record.payload, buf);
                    }
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => self.peer_closed = true,
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    out.put(|room| match sealing {
                        Sealing::Nothing => Ok(0),
                        Sealing::Data(data) => traffic.encrypt(data, room).map_err(NoRoom::from),
                        Sealing::Close => traffic.queue_close_notify(room).map_err(NoRoom::from),
                    })?;
                    used += discard;
                    break;
                }
                // The handshake needs more data, or both sides have closed.
                Ok(_) if matches!(sealing, Sealing::Data(_)) => {
                    return Err(rustls::Error::General("the connection is closed".to_owned()));
                }
                Ok(_) => {
                    used += discard;
                    break;
                }
            }
            used += discard;
        }
        failed.map_or(Ok(used), Err)
    }
}

impl fmt::Debug for TlsSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { incomplete, plaintext, peer_closed, .. } = self;
        let (incomplete, plaintext) = (incomplete.len(), plaintext.bytes.len());
        f.debug_struct("TlsSession")
            .field("incomplete", &incomplete)
            .field("plaintext", &plaintext)
            .field("peer_closed", peer_closed)
            .finish_non_exhaustive()
    }
}

/// Why nothing was written to the buffer.
enum NoRoom {
    /// It must have this many bytes.
    Needs(usize),
    /// No buffer would be large enough.
    Never,
}

impl From<EncodeError> for NoRoom {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(size) => Self::Needs(size.required_size),
            EncodeError::AlreadyEncoded => Self::Never,
        }
    }
}

impl From<EncryptError> for NoRoom {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(size) => Self::Needs(size.required_size),
            EncryptError::EncryptExhausted => Self::Never,
        }
    }
}

impl Sealed {
    /// Starts empty, in memory that was used before.
    pub(super) const fn reusing(bytes: Vec<u8>) -> Self {
        Self { bytes, sent: 0, end: 0 }
    }

    pub(super) fn into_memory(self) -> Vec<u8> {
        self.bytes
    }

    /// Its capacity, in bytes.
    #[cfg(any(test, fuzzing))]
    pub(super) const fn held(&self) -> usize {
        self.bytes.capacity()
    }

    pub(super) const fn len(&self) -> usize {
        self.end - self.sent
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.end == self.sent
    }

    pub(super) fn left(&self) -> &[u8] {
        self.bytes.get(self.sent..self.end).unwrap_or_default()
    }

    /// Appends the output of `write`, growing the buffer as much as that asks for.
    fn put(
        &mut self,
        mut write: impl FnMut(&mut [u8]) -> Result<usize, NoRoom>,
    ) -> Result<(), rustls::Error> {
        let exhausted =
            || rustls::Error::General("the encryption keys of the connection are exhausted".to_owned());
        loop {
            let room = self.bytes.get_mut(self.end..).unwrap_or_default();
            match write(room) {
                Ok(count) => {
                    self.end += count;
                    return Ok(());
                }
                Err(NoRoom::Needs(size)) if size > self.bytes.len() - self.end => {
                    self.bytes.resize(self.end + size, 0);
                }
                Err(_) => return Err(exhausted()),
            }
        }
    }

    /// Appends a copy of `records`.
    pub(super) fn push(&mut self, records: &[u8]) {
        self.bytes.truncate(self.end);
        self.bytes.extend_from_slice(records);
        self.end = self.bytes.len();
    }

    /// Sends all pending records.
    pub(super) fn poll_send<S: AsyncWrite + Unpin>(
        &mut self,
        io: &mut S,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, self.left()))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        (self.sent, self.end) = (0, 0);
        Poll::Ready(Ok(()))
    }

    /// Removes what was sent from the buffer.
    pub(super) fn compact(&mut self) {
        self.bytes.truncate(self.end);
        self.bytes.drain(..self.sent);
        (self.sent, self.end) = (0, self.bytes.len());
    }
}

impl Plaintext {
    const fn is_empty(&self) -> bool {
        self.taken == self.bytes.len()
    }

    /// Copies `payload` to the reader's buffer; keeps what does not fit, or must wait for earlier plaintext.
    fn put(&mut self, payload: &[u8], buf: &mut ReadBuf<'_>) {
        let direct = if self.is_empty() { payload.len().min(buf.remaining()) } else { 0 };
        let (now, later) = payload.split_at(direct);
        buf.put_slice(now);
        self.bytes.extend_from_slice(later);
    }

    fn take_into(&mut self, buf: &mut ReadBuf<'_>) {
        let left = self.bytes.get(self.taken..).unwrap_or_default();
        let piece = left.get(..left.len().min(buf.remaining())).unwrap_or_default();
        buf.put_slice(piece);
        self.taken += piece.len();
        if self.is_empty() {
            *self = Self::default();
        }
    }
}

pub(super) fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
