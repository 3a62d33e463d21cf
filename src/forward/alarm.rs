//! Deadlines that are cheap to move: a timer is touched only when it goes off too early, which on a busy connection is
//! once per limit and not once per request.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use crate::time::Tick;

/// Goes off when something has taken too long, give or take a tick of the kernel.
#[derive(Debug)]
pub(crate) struct Alarm {
    limit: Duration,
    deadline: Option<Tick>,
    timer: Option<AlarmTimer>,
}

/// The timer, and when it goes off.
#[derive(Debug)]
struct AlarmTimer {
    sleep: Pin<Box<Sleep>>,
    at: Tick,
}

impl AlarmTimer {
    fn new(now: Tick, deadline: Tick) -> Self {
        Self { sleep: Box::pin(tokio::time::sleep(deadline.since(now))), at: deadline }
    }

    fn move_to(&mut self, now: Tick, deadline: Tick) {
        self.sleep.set(tokio::time::sleep(deadline.since(now)));
        self.at = deadline;
    }
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
        self.deadline = Some(Tick::read().plus(self.limit));
    }

    /// Ready when the deadline has passed.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| AlarmTimer::new(Tick::read(), deadline));
        if timer.at > deadline {
            timer.move_to(Tick::read(), deadline);
        }
        loop {
            ready!(timer.sleep.as_mut().poll(cx));
            let now = Tick::read();
            if now >= deadline {
                return Poll::Ready(());
            }
            timer.move_to(now, deadline);
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
    /// `None`: it may last for ever.
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

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    async fn goes_off(alarm: &mut Alarm) {
        let rung = poll_fn(|cx| alarm.poll(cx));
        tokio::time::timeout(Duration::from_secs(60), rung).await.expect("the alarm goes off");
    }

    async fn is_pending(alarm: &mut Alarm) -> bool {
        poll_fn(|cx| Poll::Ready(alarm.poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn an_alarm_goes_off_after_the_limit_that_was_set_last() {
        let mut alarm = Alarm::new();
        assert!(is_pending(&mut alarm).await, "none was set");
        for limit in [LONG, Duration::MAX] {
            alarm.set(limit);
            assert!(is_pending(&mut alarm).await, "{limit:?}");
        }
        alarm.set(Duration::from_millis(20));
        goes_off(&mut alarm).await;
        alarm.set(LONG);
        assert!(is_pending(&mut alarm).await, "a new limit begins");
    }

    #[tokio::test]
    async fn a_timer_that_is_too_early_is_moved_to_the_deadline() {
        let (early, late) = (Duration::from_millis(20), Duration::from_millis(100));
        let mut alarm = Alarm::new();
        alarm.set(early);
        assert!(is_pending(&mut alarm).await, "the timer runs");
        let set = Tick::read();
        alarm.set(late);
        goes_off(&mut alarm).await;
        assert!(Tick::read().since(set) >= late);
    }

    #[tokio::test]
    async fn silence_is_counted_from_when_it_began() {
        let mut silence = Silence::new(Some(LONG));
        assert!(poll_fn(|cx| Poll::Ready(silence.poll(cx).is_pending())).await);
        silence.end();
        silence.limit = Some(Duration::from_millis(20));
        let rung = poll_fn(|cx| silence.poll(cx));
        tokio::time::timeout(Duration::from_secs(60), rung).await.expect("it goes off");
    }
}
