//! Deadlines that are cheap to move: the timer is reset only when it fires too early, on a busy connection
//! once per limit instead of once per request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// A timeout that can be restarted.
#[derive(Debug)]
pub(crate) struct Alarm {
    limit: Duration,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    pub(crate) const fn new() -> Self {
        Self { limit: Duration::ZERO, deadline: None, timer: None }
    }

    /// Sets the deadline to `limit` from now.
    pub(crate) fn set(&mut self, limit: Duration) {
        self.limit = limit;
        self.restart();
    }

    /// Restarts the full limit from now, because there was progress.
    pub(crate) fn restart(&mut self) {
        // A limit too large to represent is no limit.
        self.deadline = Instant::now().checked_add(self.limit);
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        if timer.deadline() > deadline {
            timer.as_mut().reset(deadline);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= deadline {
                return Poll::Ready(());
            }
            timer.as_mut().reset(deadline);
        }
    }
}

/// A timeout on the silence of a peer. It runs only while the peer is being polled.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Option<Duration>,
    alarm: Alarm,
    listening: bool,
}

impl Silence {
    /// Creates the timeout; `None`: no limit.
    pub(crate) const fn new(limit: Option<Duration>) -> Self {
        Self { limit, alarm: Alarm::new(), listening: false }
    }

    /// Ends the silence: data was received.
    pub(crate) fn end(&mut self) {
        self.listening = false;
    }

    /// Continues the silence: nothing was received. Ready when it has lasted too long.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(limit) = self.limit else {
            return Poll::Pending;
        };
        if !self.listening {
            self.listening = true;
            self.alarm.set(limit);
        }
        self.alarm.poll(cx)
    }
}
