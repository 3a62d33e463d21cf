//! Deadlines that are cheap to move: the timer is reset only when it fires too early, which on a busy connection is once
//! per limit and not once per request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Goes off when something has taken too long.
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

    /// Goes off in `limit` from now.
    pub(crate) fn set(&mut self, limit: Duration) {
        self.limit = limit;
        self.restart();
    }

    /// Goes off a whole limit from now, because there was progress.
    pub(crate) fn restart(&mut self) {
        // A limit beyond the end of time is no limit.
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

/// Goes off when a peer that is being listened to has said nothing for too long. The time in which nobody listens does not
/// count.
#[derive(Debug)]
pub(crate) struct Silence {
    limit: Option<Duration>,
    alarm: Alarm,
    listening: bool,
}

impl Silence {
    /// `None`: it may last indefinitely.
    pub(crate) const fn new(limit: Option<Duration>) -> Self {
        Self { limit, alarm: Alarm::new(), listening: false }
    }

    /// Something was said.
    pub(crate) fn end(&mut self) {
        self.listening = false;
    }

    /// Nothing has been said: ready when that has been so for too long.
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
