//! The last words of a connection, and the time to read them.
//!
//! A socket that is closed while bytes wait in it unread makes TCP reset the connection, and the reset may overtake the
//! GOAWAY that says why (as RFC 9112 §9.6 explains for HTTP/1.1).

use std::io;
use std::time::Duration;

use h2::Reason;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use crate::gate::patience::{GOAWAY_BYTES, GOAWAY_SILENCE, GOAWAY_TOTAL};
use crate::gate::serve::Returned;

/// Reads and drops what the client still sends, until it closes. This side is closed for sending already.
pub(super) async fn linger(mut returned: Returned) {
    // Encrypted or not: nobody looks at it.
    let Some(tcp) = returned.stream.tcp() else { return };
    let (silence, all) = (GOAWAY_SILENCE, GOAWAY_TOTAL);
    // Out of time, the client does not read: it may be reset.
    drop(timeout(all, discard(tcp, silence)).await);
}

async fn discard(tcp: &mut TcpStream, silence: Duration) {
    let (mut scratch, mut left) = (vec![0; 16 * 1024], GOAWAY_BYTES);
    while left > 0 {
        match timeout(silence, tcp.read(&mut scratch)).await {
            Ok(Ok(read @ 1..)) => left = left.saturating_sub(read),
            _ => return,
        }
    }
}

/// Says that what came is no HTTP/2, which h2 leaves out (RFC 9113 §3.4), and lingers.
pub(super) async fn refuse(mut returned: Returned) {
    let farewell = async {
        returned.stream.write_all(&goaway(Reason::PROTOCOL_ERROR)).await?;
        returned.stream.shutdown().await
    };
    let told: Result<io::Result<()>, _> = timeout_at(Instant::now() + GOAWAY_SILENCE, farewell).await;
    if matches!(told, Ok(Ok(()))) {
        linger(returned).await;
    }
}

/// A GOAWAY frame that names no stream (RFC 9113 §6.8).
fn goaway(reason: Reason) -> [u8; 17] {
    let [a, b, c, d] = u32::from(reason).to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}
