//! Server-sent events of the live page, each with the complete updated content.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::{iter, unfold};
use http::{HeaderMap, StatusCode, header};
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::super::Console;
use super::super::page_error::PageError;
use crate::admin::Permission;
use crate::shutdown::{Phase, Shutdown};

/// The start of a stream: browsers reconnect one second after a connection ends.
const BEGIN: Bytes = Bytes::from_static(b"retry: 1000\n\n");
/// The end of a stream: the page reloads and shows why the stream ended.
const END: Bytes = Bytes::from_static(b"event: end\ndata: end\n\n");

/// The event with the whole content of the page.
pub(super) fn state(html: &str) -> Bytes {
    let mut event = "event: state\n".to_owned();
    for line in html.split(['\n', '\r']) {
        event.push_str("data: ");
        event.push_str(line);
        event.push('\n');
    }
    event.push('\n');
    event.into()
}

/// Streams the page to a visitor until the visitor is no longer allowed to see it, or the gate drains.
pub(super) async fn watch(State(console): State<Console>, headers: HeaderMap) -> Response {
    let cookie = console.cookie(&headers).unwrap_or_default();
    if !console.may_see(&cookie, Permission::Config) {
        // An event instead of an error status, because it makes the page show the reason.
        return events(Body::from_stream(iter([Ok::<_, Infallible>(END)])));
    }
    let refused =
        |why: &str| PageError::Gate { status: StatusCode::SERVICE_UNAVAILABLE, why: why.to_owned() };
    let shutdown = console.live.watched.shutdown.clone();
    if shutdown.phase() >= Phase::Draining {
        return refused("The gate is shutting down.").into_response();
    }
    let Ok(place) = Arc::clone(&console.live.places).try_acquire_owned() else {
        return refused("Too many viewers have this page open at the moment.").into_response();
    };
    let newest = console.live.newest.subscribe();
    let watcher = Watcher { console, cookie, newest, shutdown, step: Step::Begin, _place: place };
    events(Body::from_stream(unfold(watcher, Watcher::next)))
}

fn events(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// A visitor who watches the page.
struct Watcher {
    console: Console,
    cookie: String,
    newest: watch::Receiver<Bytes>,
    shutdown: Shutdown,
    step: Step,
    _place: OwnedSemaphorePermit,
}

enum Step {
    Begin,
    Watching,
    Ended,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        let event = match self.step {
            Step::Begin => {
                self.step = Step::Watching;
                BEGIN
            }
            Step::Watching => match self.changed().await {
                Some(event) => event,
                None => {
                    self.step = Step::Ended;
                    END
                }
            },
            Step::Ended => return None,
        };
        Some((Ok(event), self))
    }

    /// The next event; `None` if this visitor is no longer allowed to see it.
    async fn changed(&mut self) -> Option<Bytes> {
        loop {
            tokio::select! {
                changed = self.newest.changed() => changed.ok()?,
                () = self.shutdown.reached(Phase::Draining) => return None,
            }
            // Whatever would reject the visitor's next request ends this one, too.
            if !self.console.may_see(&self.cookie, Permission::Config) {
                return None;
            }
            let event = self.newest.borrow_and_update().clone();
            if !event.is_empty() {
                return Some(event);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_holds_every_line_of_the_page() {
        assert_eq!(state("<p>a\nb</p>"), "event: state\ndata: <p>a\ndata: b</p>\n\n");
        assert_eq!(state("\r\n"), "event: state\ndata: \ndata: \ndata: \n\n");
    }
}
