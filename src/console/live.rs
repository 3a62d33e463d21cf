//! The live page: shows what the gate is doing now and did in the last ten minutes.
//!
//! One task samples the metrics and renders the page once for all viewers. A stream sends it to each of them,
//! and ends when its visitor is no longer allowed to see it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use bytes::Bytes;
use maud::Markup;
use tokio::sync::{Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::page_error::PageError;
use super::visitor::Visitor;
use super::{Console, Shared};
use crate::admin::{Health, Permission};
use crate::gate::ConnectionCounts;
use crate::shutdown::{Phase, Shutdown};
use crate::time::Now;

mod charts;
mod history;
mod pages;
mod state;
mod stream;

use history::History;
use state::LiveState;

/// How often metrics are sampled and the page is rendered.
const TICK: Duration = Duration::from_secs(2);
/// The most concurrent streams, which leaves room for pages and the admin API.
const MOST_STREAMS: usize = 100;

/// What the live page shows besides the metrics.
pub struct Watched {
    /// Readiness and key sets.
    pub health: Arc<Health>,
    /// The connections on the public listener.
    pub connections: Arc<ConnectionCounts>,
    /// Updates values that are not counted as they change.
    pub gauges: Box<dyn Fn() + Send + Sync>,
    /// The phase of the shutdown.
    pub shutdown: Shutdown,
}

/// What is kept between two samples.
pub(super) struct LivePage {
    watched: Watched,
    history: Mutex<History>,
    /// The latest event for all streams; empty before the first one.
    newest: watch::Sender<Bytes>,
    places: Arc<Semaphore>,
}

impl LivePage {
    pub(super) fn new(watched: Watched) -> Self {
        let places = Arc::new(Semaphore::new(MOST_STREAMS));
        Self { watched, history: Mutex::default(), newest: watch::Sender::new(Bytes::new()), places }
    }
}

impl Shared {
    /// Renders the current content of the page.
    fn rendered(&self, now: Now) -> Markup {
        let snapshot = {
            let history = self.live.history.lock().unwrap_or_else(PoisonError::into_inner);
            LiveState::take(&self.api, &self.live.watched, &history, now)
        };
        pages::fragment(&snapshot)
    }

    /// Samples the metrics and renders the page for its viewers.
    fn tick(&self, now: Now) {
        let live = &self.live;
        if !self.is_enabled() || !self.can_anybody_sign_in() {
            // Nobody may see the page now, which its viewers must notice.
            live.history.lock().unwrap_or_else(PoisonError::into_inner).clear();
            live.newest.send_replace(Bytes::new());
            return;
        }
        let traffic = self.api.metrics().traffic();
        live.history.lock().unwrap_or_else(PoisonError::into_inner).add(now.monotonic, traffic);
        if live.newest.receiver_count() > 0 {
            live.newest.send_replace(stream::state(&self.rendered(now).into_string()));
        }
    }
}

/// Samples until the gate has drained.
pub(super) async fn sample(console: Console) {
    let mut shutdown = console.live.watched.shutdown.clone();
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => console.tick(Now::read()),
            () = shutdown.reached(Phase::HandedOver) => break,
        }
    }
}

pub(super) fn routes() -> Router<Console> {
    Router::new().route(pages::HOME, get(show)).route(pages::STREAM, get(stream::watch))
}

async fn show(State(console): State<Console>, visitor: Visitor) -> Result<Markup, PageError> {
    visitor.require(Permission::Config)?;
    Ok(pages::page(&visitor, &console.rendered(Now::read())))
}
