//! Fetches the keys of one issuer: at startup until it succeeds, at each interval, when a request asks for an
//! unknown `kid`, and when their file changes. The only writer of a [`KeyStore`].

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::select;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::warn;

use super::KeySource;
use super::source;
use super::store::KeyStore;
use crate::client::Client;
use crate::shutdown::{Phase, Shutdown};
use crate::time::{Monotonic, Now};

/// The first wait after a failure before any set was loaded; doubles up to [`MAX_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
const MAX_BACKOFF: Duration = Duration::from_secs(5);
/// How often the age is exported and a file checked for changes.
const TICK: Duration = Duration::from_secs(1);

/// Spawns the task that keeps `store` up to date until shutdown is complete. The task ends at once for a
/// [`KeySource::Secret`] and a [`KeySource::Authority`].
pub fn spawn_refresher(store: Arc<KeyStore>, client: Client, mut shutdown: Shutdown) -> JoinHandle<()> {
    tokio::spawn(async move {
        if matches!(store.settings().source, KeySource::Secret(_) | KeySource::Authority) {
            return;
        }
        let refresher = Refresher::new(&store, &client);
        // Requests that are draining may still need a new key, so the refresher runs to the end.
        select! {
            () = shutdown.reached(Phase::Stopped) => {}
            () = refresher.run() => {}
        }
    })
}

struct Refresher<'a> {
    store: &'a KeyStore,
    client: &'a Client,
    due: Instant,
    /// The wait after the next failure while no set was ever loaded.
    backoff: Duration,
    /// Whether the last fetch failed.
    failing: bool,
    /// The file's stamp before it was last read.
    seen: Option<FileStamp>,
}

/// Modification time and length, by which a change of the file is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileStamp(SystemTime, u64);

enum Wake {
    Due,
    Asked,
    Tick,
}

impl<'a> Refresher<'a> {
    fn new(store: &'a KeyStore, client: &'a Client) -> Self {
        Self { store, client, due: Instant::now(), backoff: FIRST_BACKOFF, failing: false, seen: None }
    }

    async fn run(mut self) {
        let _attached = self.store.asking().attach();
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wake = select! {
                () = sleep_until(self.due) => Wake::Due,
                () = self.store.asking().requested() => Wake::Asked,
                _ = tick.tick() => Wake::Tick,
            };
            self.act(wake).await;
        }
    }

    async fn act(&mut self, wake: Wake) {
        match wake {
            // A retry counts towards the cooldown like a requested fetch; the fetch at the interval and
            // the first load do not.
            Wake::Due => self.refresh(self.failing && self.store.is_loaded()).await,
            Wake::Asked if self.store.is_loaded() && self.store.asking().is_open(Monotonic::now()) => {
                self.refresh(true).await;
            }
            // Requested at the moment in which another fetch ended.
            Wake::Asked => {}
            Wake::Tick => self.tick().await,
        }
    }

    /// Runs every second: checks the file for changes and exports the age.
    async fn tick(&mut self) {
        if let KeySource::File(path) = &self.store.settings().source {
            if stamp(path).await != self.seen {
                self.refresh(false).await;
            } else if self.store.is_loaded() && !self.failing {
                self.store.confirm(Now::read());
            }
        }
        self.store.export(Now::read());
    }

    /// Fetches once and schedules the next fetch.
    async fn refresh(&mut self, counts: bool) {
        let (store, settings) = (self.store, self.store.settings());
        let mut fetch = store.asking().begin(counts, Monotonic::now());
        if let KeySource::File(path) = &settings.source {
            self.seen = stamp(path).await;
        }
        let result = match source::fetch(settings, self.client).await {
            Ok(document) => store.accept(document, Now::read()).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        self.failing = result.is_err();
        store.set_failure(result.as_ref().err().cloned());
        let wait = match result {
            Ok(_changed) => {
                fetch.succeed();
                store.instruments().refreshed.inc();
                store.refresh_interval()
            }
            Err(error) => {
                store.instruments().failed.inc();
                let wait = self.wait_after_failure();
                let (issuer, loaded) = (&settings.issuer, store.is_loaded());
                let retry = format!("{wait:?}");
                warn!(issuer, error, retry_in = retry, last_good_set_in_force = loaded, "no new keys");
                wait
            }
        };
        self.due = Instant::now() + wait.max(FIRST_BACKOFF);
    }

    fn wait_after_failure(&mut self) -> Duration {
        let settings = self.store.settings();
        if self.store.is_loaded() {
            return self.store.refresh_interval().min(settings.refresh_cooldown);
        }
        let wait = self.backoff;
        self.backoff = (wait * 2).min(MAX_BACKOFF);
        wait
    }
}

async fn stamp(path: &Path) -> Option<FileStamp> {
    let metadata = tokio::fs::metadata(path).await.ok()?;
    Some(FileStamp(metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests;
