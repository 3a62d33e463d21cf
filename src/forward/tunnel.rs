//! Tunnels after `101 Switching Protocols`: copy bytes in both directions until both sides have ended or the
//! tunnel is closed.

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
use super::request_count::RequestSlot;
use super::websocket::{Frames, GOING_AWAY, POLICY_VIOLATION, close};

/// Maximum bytes per read in one direction.
const CHUNK: usize = 16 * 1024;

/// A direction of a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// From the client to the upstream.
    Up,
    /// From the upstream to the client.
    Down,
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both sides ended their direction, or one was silent for too long after the other had ended.
    Closed,
    /// The client's connection failed.
    ClientFailed,
    /// The upstream's connection failed.
    UpstreamFailed,
    /// The gate closed it.
    Cut,
}

impl Flow {
    /// How a tunnel ends if the source of this direction cannot be read.
    const fn unreadable(self) -> TunnelEnd {
        match self {
            Self::Up => TunnelEnd::ClientFailed,
            Self::Down => TunnelEnd::UpstreamFailed,
        }
    }

    /// How a tunnel ends if the destination of this direction cannot be written to.
    const fn unwritable(self) -> TunnelEnd {
        match self {
            Self::Up => TunnelEnd::UpstreamFailed,
            Self::Down => TunnelEnd::ClientFailed,
        }
    }
}

/// The upstream's end of a switched connection. Closed on drop.
pub struct Tunnel {
    upstream: Io,
    /// What the upstream sent right after its 101.
    early: Bytes,
    websocket: bool,
    _in_flight: Option<InFlight>,
    _slot: RequestSlot,
}

/// What was sent to the client, as far as needed to insert a Close frame.
#[derive(Default)]
struct Sent {
    frames: RefCell<Frames>,
    /// Whether a write is in progress, so that the position within a frame is unknown.
    writing: Cell<bool>,
}

impl Tunnel {
    pub(crate) fn new(upstream: Io, early: Bytes, websocket: bool) -> Self {
        Self { upstream, early, websocket, _in_flight: None, _slot: RequestSlot::default() }
    }

    pub(crate) fn counted(self, in_flight: Option<InFlight>, slot: RequestSlot) -> Self {
        Self { _in_flight: in_flight, _slot: slot, ..self }
    }

    /// Carries bytes in both directions between the upstream and `client`, to which the 101 was sent and of
    /// which `client_early` was already read. The end of one side ends only that direction; the other
    /// direction may then be silent for a few seconds. Calls `moved` with direction and number of bytes
    /// whenever bytes have flowed.
    ///
    /// When `cut` completes, both sides are closed, a WebSocket with status 1008 if no frame to the client
    /// has begun. When `drained` completes, they are closed too, a WebSocket with status 1001 between two
    /// frames.
    pub async fn run(
        self,
        client: impl AsyncRead + AsyncWrite + Unpin,
        client_early: Bytes,
        moved: impl Fn(Flow, u64),
        cut: impl Future<Output = ()>,
        drained: impl Future<Output = ()>,
    ) -> TunnelEnd {
        let Self { upstream, early, websocket, _in_flight, _slot } = self;
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut upstream_reads, mut upstream_writes) = tokio::io::split(upstream);
        let (sent, ended) = (Sent::default(), Cell::new(false));
        let close = {
            let carried = async {
                write(Flow::Up, &client_early, &mut upstream_writes, &moved).await?;
                write(Flow::Down, &early, &mut client_writes, &moved).await?;
                sent.frames.borrow_mut().advance(&early);
                let up = pump(Flow::Up, &mut client_reads, &mut upstream_writes, (&moved, &ended), None);
                let down =
                    pump(Flow::Down, &mut upstream_reads, &mut client_writes, (&moved, &ended), Some(&sent));
                tokio::try_join!(up, down)
            };
            let carried = async { carried.await.map_or_else(|end| end, |_| TunnelEnd::Closed) };
            let (mut carried, mut cut) = (pin!(carried), pin!(cut));
            let close = tokio::select! {
                carried = &mut carried => return carried,
                () = &mut cut => close(POLICY_VIOLATION),
                () = drained => close(GOING_AWAY),
            };
            if websocket && close == self::close(GOING_AWAY) {
                // Data in transit is not at fault and may still arrive.
                tokio::select! {
                    carried = &mut carried => return carried,
                    () = sent.between_frames() => {}
                    () = cut => {}
                    () = tokio::time::sleep(FAREWELL) => {}
                }
            }
            close
        };
        // Closes the upstream first, because the client may not be reading.
        drop((upstream_reads, upstream_writes));
        let farewell = async {
            if websocket && sent.is_between_frames() {
                client_writes.write_all(&close).await?;
            }
            client_writes.shutdown().await?;
            // If the client's remaining data were not read, it would destroy the close it was sent.
            tokio::io::copy(&mut client_reads, &mut tokio::io::sink()).await
        };
        drop(tokio::time::timeout(FAREWELL, farewell).await);
        TunnelEnd::Cut
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

/// Carries one direction until it ends, or is silent for too long after the other one has ended.
async fn pump(
    flow: Flow,
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    (moved, ended): (&impl Fn(Flow, u64), &Cell<bool>),
    sent: Option<&Sent>,
) -> Result<(), TunnelEnd> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = read(from, &mut buffer, ended).await.map_err(|_failed| flow.unreadable())?;
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            to.shutdown().await.map_err(|_failed| flow.unwritable())?;
            ended.set(true);
            // The other direction is polled once more, and starts to count its silence.
            tokio::task::yield_now().await;
            return Ok(());
        }
        if let Some(sent) = sent {
            sent.writing.set(true);
        }
        write(flow, chunk, to, moved).await?;
        if let Some(sent) = sent {
            sent.frames.borrow_mut().advance(chunk);
            sent.writing.set(false);
        }
    }
}

/// Writes a whole chunk and counts it.
async fn write(
    flow: Flow,
    chunk: &[u8],
    to: &mut (impl AsyncWrite + Unpin),
    moved: &impl Fn(Flow, u64),
) -> Result<(), TunnelEnd> {
    let written = async {
        to.write_all(chunk).await?;
        to.flush().await
    };
    written.await.map_err(|_failed: io::Error| flow.unwritable())?;
    if !chunk.is_empty() {
        moved(flow, chunk.len() as u64);
    }
    Ok(())
}

/// Reads; 0 is the end, or a silence that counts as one because the other side has `ended`.
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
