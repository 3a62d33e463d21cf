//! After a `101 Switching Protocols`: bytes both ways, until both sides have ended or the tunnel is closed.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::alarm::Silence;
use super::endpoint::InFlight;
use super::io::Io;
use super::patience::{FAREWELL, HALF_OPEN};
use super::websocket::{Frames, GOING_AWAY, POLICY_VIOLATION, close};

/// What is read at once in one direction.
const CHUNK: usize = 16 * 1024;

/// The upstream's end of a switched connection. Dropping it closes it.
pub struct Tunnel {
    upstream: Io,
    /// What the upstream sent right behind its 101.
    early: Bytes,
    websocket: bool,
    _in_flight: Option<InFlight>,
}

/// What the client was sent, so far as it matters for cutting in.
#[derive(Default)]
struct Sent {
    frames: RefCell<Frames>,
    /// A write has begun and not ended, so nobody knows where in a frame the client is.
    writing: Cell<bool>,
}

impl Tunnel {
    pub(crate) const fn new(upstream: Io, early: Bytes, websocket: bool) -> Self {
        Self { upstream, early, websocket, _in_flight: None }
    }

    pub(crate) fn counted(self, in_flight: Option<InFlight>) -> Self {
        Self { _in_flight: in_flight, ..self }
    }

    /// Carries bytes both ways between the upstream and `client`, which has got the 101, and of which `client_early` was
    /// read already. An end on one side becomes an end of that direction only; the other direction may then be silent for
    /// a few seconds. Calls `moved` whenever bytes flow.
    ///
    /// When `cut` completes both sides are closed, a WebSocket with status 1008 if no frame to the client has begun. When
    /// `drained` completes they are closed, too, a WebSocket with status 1001 between two frames. Returns the bytes sent to
    /// the upstream and to the client.
    ///
    /// # Errors
    /// When either side fails, or the tunnel was closed
    /// ([`io::ErrorKind::ConnectionAborted`]).
    pub async fn run(
        self,
        client: impl AsyncRead + AsyncWrite + Unpin,
        client_early: Bytes,
        moved: impl Fn(),
        cut: impl Future<Output = ()>,
        drained: impl Future<Output = ()>,
    ) -> io::Result<(u64, u64)> {
        let Self { upstream, early, websocket, _in_flight } = self;
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut upstream_reads, mut upstream_writes) = tokio::io::split(upstream);
        let (sent, ended) = (Sent::default(), Cell::new(false));
        let close = {
            let carried = async {
                upstream_writes.write_all(&client_early).await?;
                client_writes.write_all(&early).await?;
                client_writes.flush().await?;
                sent.frames.borrow_mut().advance(&early);
                let up = pump(&mut client_reads, &mut upstream_writes, &moved, &ended, None);
                let down = pump(&mut upstream_reads, &mut client_writes, &moved, &ended, Some(&sent));
                let (up, down) = tokio::try_join!(up, down)?;
                Ok((up + client_early.len() as u64, down + early.len() as u64))
            };
            let (mut carried, mut cut) = (pin!(carried), pin!(cut));
            let close = tokio::select! {
                carried = &mut carried => return carried,
                () = &mut cut => close(POLICY_VIOLATION),
                () = drained => close(GOING_AWAY),
            };
            if websocket && close == self::close(GOING_AWAY) {
                // Nothing is wrong with what is on its way: it may arrive.
                tokio::select! {
                    carried = &mut carried => return carried,
                    () = sent.between_frames() => {}
                    () = cut => {}
                    () = tokio::time::sleep(FAREWELL) => {}
                }
            }
            close
        };
        // Before a client that may not read is told.
        drop((upstream_reads, upstream_writes));
        let farewell = async {
            if websocket && sent.is_between_frames() {
                client_writes.write_all(&close).await?;
            }
            client_writes.shutdown().await?;
            // What the client still sends would, unread, destroy what it was told.
            tokio::io::copy(&mut client_reads, &mut tokio::io::sink()).await
        };
        drop(tokio::time::timeout(FAREWELL, farewell).await);
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

impl Sent {
    fn is_between_frames(&self) -> bool {
        !self.writing.get() && self.frames.borrow().is_between()
    }

    /// Polled with every byte that moves, because the tunnel is one task.
    async fn between_frames(&self) {
        poll_fn(|_| if self.is_between_frames() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Carries one direction to its end, or to its silence after the other one has ended.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &impl Fn(),
    ended: &Cell<bool>,
    sent: Option<&Sent>,
) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        let read = read(from, &mut buffer, ended).await?;
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            to.shutdown().await?;
            ended.set(true);
            // The other direction is polled once more, and begins to count its silence.
            tokio::task::yield_now().await;
            return Ok(total);
        }
        moved();
        if let Some(sent) = sent {
            sent.writing.set(true);
        }
        to.write_all(chunk).await?;
        to.flush().await?;
        if let Some(sent) = sent {
            sent.frames.borrow_mut().advance(chunk);
            sent.writing.set(false);
        }
        total += read as u64;
    }
}

/// Reads; 0 is the end, or a silence that is one because the other side has `ended`.
async fn read(
    from: &mut (impl AsyncRead + Unpin),
    buffer: &mut [u8],
    ended: &Cell<bool>,
) -> io::Result<usize> {
    let mut silence = Silence::new(Some(HALF_OPEN));
    let mut reading = pin!(from.read(buffer));
    poll_fn(|cx| match reading.as_mut().poll(cx) {
        Poll::Pending if ended.get() => silence.poll(cx).map(|()| Ok(0)),
        polled => polled,
    })
    .await
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("early", &self.early.len()).finish_non_exhaustive()
    }
}
