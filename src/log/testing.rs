//! A log whose lines tests can read.

use std::io::{self, Write};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use serde_json::Value;
use tracing::Dispatch;
use tracing::dispatcher::{self, DefaultGuard};
use tracing::subscriber::NoSubscriber;

use super::{Format, Guard, Settings, open};
use crate::metrics::Metrics;

/// A writer that keeps everything written to it.
#[derive(Clone, Default)]
pub(crate) struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Kept {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("the bytes").clone()).expect("UTF-8")
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }
}

/// A subscriber that nothing is sent to. While there is only one, tracing lets the thread that reaches a call site first decide
/// for all threads, and a thread of another test turns it off.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(NoSubscriber::default()));

/// Sends what this thread logs to `events` until the guard is dropped.
pub(super) fn send_to(events: &Dispatch) -> DefaultGuard {
    LazyLock::force(&SECOND);
    dispatcher::set_default(events)
}

/// Collects what this thread logs from `info` upwards, until the lines are taken.
pub(crate) struct KeptLog {
    kept: Kept,
    guard: Guard,
    default: DefaultGuard,
}

impl KeptLog {
    pub(crate) fn start() -> Self {
        let settings =
            Settings { format: Format::Json, level: "info".to_owned(), access_log: false, log_paths: false };
        let (metrics, kept) = (Metrics::new().expect("the page"), Kept::default());
        let (_access, guard, events) = open(&settings, &metrics, kept.clone()).expect("the log");
        Self { kept, guard, default: send_to(&events) }
    }

    /// The lines with this message.
    pub(crate) fn lines(self, message: &str) -> Vec<Value> {
        drop(self.default);
        drop(self.guard);
        self.kept.lines().into_iter().filter(|line| line["message"] == message).collect()
    }
}
