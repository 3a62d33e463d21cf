//! The building blocks of the tests: the real binary and everything around it, on loopback.
//!
//! Nothing here links the product: a gate is driven through its configuration, its sockets and its signals. A
//! failed expectation in a helper fails the test that called it.

pub mod app;
pub mod call;
pub mod collector;
pub mod command;
pub mod documents;
pub mod dpop;
pub mod frames;
pub mod gate;
pub mod h2_client;
pub mod issuer;
pub mod log;
pub mod metrics;
pub mod monitoring;
pub mod operator;
pub mod pki;
pub mod ports;
pub mod prometheus;
pub mod raw_upstream;
pub mod redis_server;
pub mod relay;
pub mod settings;
pub mod tokens;
pub mod tools;
pub mod transmitter;
pub mod visitor;
pub mod wire;

use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails. Generous, because the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `probe` returns a value; fails the test if it does not within [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Polls until `probe` returns a value; fails the test if it does not within `limit`.
pub fn within<T>(limit: Duration, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Like [`eventually`], for a test with a runtime: other tasks continue meanwhile. On a paused clock the
/// polling takes no time; the deadline is on the real clock.
pub async fn eventually_async<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Lets time pass where its passing is the point and nothing announces its end: a cooldown, the pause of a slow
/// peer. A longer pause must do no harm; if a condition can be observed, wait with [`eventually`] instead.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// Like [`let_pass`], for a test with a runtime: other tasks continue meanwhile, and a paused clock advances.
pub async fn let_pass_async(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Runs the async part of a test on this thread, with a deadline.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, future).await.expect("the test took longer than a minute")
    })
}

/// Seconds since the Unix epoch.
pub fn now() -> i64 {
    now_ms().div_euclid(1000)
}

/// Milliseconds since the Unix epoch, on the clock that the gate also reads.
#[expect(clippy::disallowed_methods, reason = "tests make tokens for the real clock")]
pub fn now_ms() -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(elapsed.as_millis()).unwrap()
}

/// Base64url without padding.
pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
}
