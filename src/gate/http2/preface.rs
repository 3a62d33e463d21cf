//! The response to a client that does not speak HTTP/2.

use std::io;

use h2::Reason;
use tokio::io::AsyncWriteExt as _;
use tokio::time::timeout;

use crate::gate::patience::LINGER_SILENCE;
use crate::gate::serve::Returned;

/// Sends the GOAWAY for input that is not HTTP/2, which h2 does not send (RFC 9113 §3.4), and lingers.
pub(super) async fn refuse(mut returned: Returned) {
    let farewell = async {
        returned.stream.write_all(&goaway(Reason::PROTOCOL_ERROR)).await?;
        returned.stream.shutdown().await
    };
    let told: Result<io::Result<()>, _> = timeout(LINGER_SILENCE, farewell).await;
    if matches!(told, Ok(Ok(()))) {
        returned.stream.linger().await;
    }
}

/// A GOAWAY frame that names no stream (RFC 9113 §6.8).
fn goaway(reason: Reason) -> [u8; 17] {
    let [a, b, c, d] = u32::from(reason).to_be_bytes();
    [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}
