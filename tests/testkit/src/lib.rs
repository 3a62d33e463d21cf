//! What the tests are made of: the real binary and everything around it, on loopback.
//!
//! Nothing here links the product: a gate is driven through its configuration, its sockets and its signals. A failed
//! expectation of a helper fails the test that called it.

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

/// How long a test waits for anything before it fails. Generous: the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until `probe` answers; fails the test when it does not within [`PATIENCE`].
pub fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, probe)
}

/// Polls until `probe` answers; fails the test when it does not within `limit`.
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

/// The same for a test that has a runtime: other tasks go on meanwhile. On a paused clock the polling takes no time, and
/// the deadline is that of the real clock.
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

/// Lets time pass where its passing is the point and nothing announces its end: a cooldown, the pause of a slow peer.
/// Longer than asked for must do no harm; where a condition tells, wait with [`eventually`] instead.
pub fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// The same for a test that has a runtime: other tasks go on meanwhile, and a paused clock is moved on.
pub async fn let_pass_async(time: Duration) {
    tokio::time::sleep(time).await;
}

/// Runs a test's async part on this thread, with a deadline.
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

/// Milliseconds since the Unix epoch, on the clock that the gate reads too.
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
