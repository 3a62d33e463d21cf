//! After a `101 Switching Protocols`: bytes both ways, until both sides have ended.

use std::io;

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt as _;

use super::upstream::Io;

/// Both ends of a switched connection. Dropping it closes them.
pub struct Tunnel {
    upstream: Io,
    /// What the upstream sent right behind its 101.
    early: Bytes,
    client: OnUpgrade,
}

impl Tunnel {
    pub(crate) const fn new(upstream: Io, early: Bytes, client: OnUpgrade) -> Self {
        Self { upstream, early, client }
    }

    /// Waits until the 101 has reached the client, then carries bytes both ways; an end on one side is handed on as an
    /// end of that direction only. Returns the bytes sent to the upstream and to the client.
    ///
    /// # Errors
    /// When the client's connection could not be taken over, or either side fails.
    pub async fn run(mut self) -> io::Result<(u64, u64)> {
        let client = self.client.await.map_err(io::Error::other)?;
        let mut client = TokioIo::new(client);
        client.write_all(&self.early).await?;
        let (sent, received) = tokio::io::copy_bidirectional(&mut client, &mut self.upstream).await?;
        Ok((sent, received + self.early.len() as u64))
    }
}

impl std::fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tunnel").field("early", &self.early.len()).finish_non_exhaustive()
    }
}
