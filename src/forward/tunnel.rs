//! After a `101 Switching Protocols`: bytes both ways, until both sides have ended or the tunnel is cut.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::upstream::Io;
use super::websocket::{CLOSE_POLICY_VIOLATION, Frames};

/// How long a client whose tunnel is cut may take to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is read at once in one direction.
const CHUNK: usize = 16 * 1024;

/// Both ends of a switched connection. Dropping it closes them.
pub struct Tunnel {
    upstream: Io,
    /// What the upstream sent right behind its 101.
    early: Bytes,
    client: OnUpgrade,
    websocket: bool,
}

/// What the client was sent, so far as it matters for cutting in.
#[derive(Default)]
struct Sent {
    frames: RefCell<Frames>,
    /// A write has begun and not ended, so nobody knows where in a frame the client is.
    writing: Cell<bool>,
}

impl Tunnel {
    pub(crate) const fn new(upstream: Io, early: Bytes, client: OnUpgrade, websocket: bool) -> Self {
        Self { upstream, early, client, websocket }
    }

    /// Waits until the 101 has reached the client, then carries bytes both ways; an end on one side is handed on as an
    /// end of that direction only. Calls `moved` whenever bytes flow. When `cut` completes both sides are closed, a
    /// WebSocket with status 1008 if no frame to the client has begun. Returns the bytes sent to the upstream and to the
    /// client.
    ///
    /// # Errors
    /// When the client's connection could not be taken over, either side fails, or the tunnel was cut
    /// ([`io::ErrorKind::ConnectionAborted`]).
    pub async fn run(self, moved: impl Fn(), cut: impl Future<Output = ()>) -> io::Result<(u64, u64)> {
        let Self { upstream, early, client, websocket } = self;
        let client = TokioIo::new(client.await.map_err(io::Error::other)?);
        let (mut client_reads, mut client_writes) = tokio::io::split(client);
        let (mut upstream_reads, mut upstream_writes) = tokio::io::split(upstream);
        let sent = Sent::default();
        let carried = async {
            client_writes.write_all(&early).await?;
            sent.frames.borrow_mut().advance(&early);
            let up = pump(&mut client_reads, &mut upstream_writes, &moved, None);
            let down = pump(&mut upstream_reads, &mut client_writes, &moved, Some(&sent));
            let (up, down) = tokio::try_join!(up, down)?;
            Ok((up, down + early.len() as u64))
        };
        tokio::select! {
            carried = carried => return carried,
            () = cut => {}
        }
        // Before a client that may not read is told.
        drop((upstream_reads, upstream_writes));
        let farewell = async {
            if websocket && !sent.writing.get() && sent.frames.borrow().is_between() {
                client_writes.write_all(&CLOSE_POLICY_VIOLATION).await?;
            }
            client_writes.shutdown().await
        };
        drop(tokio::time::timeout(FAREWELL, farewell).await);
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// Carries one direction to its end.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    moved: &impl Fn(),
    sent: Option<&Sent>,
) -> io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; CHUNK], 0);
    loop {
        let read = from.read(&mut buffer).await?;
        let chunk = buffer.get(..read).unwrap_or_default();
        if chunk.is_empty() {
            to.shutdown().await?;
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

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("early", &self.early.len()).finish_non_exhaustive()
    }
}
