//! The tasks that serve streams, one stream after the other.
//!
//! The future of a request is large. In a task that stays in place, that future is created in place: a stream costs no
//! allocation and no copies to move it. A panic ends one stream only, with its task.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::task::spawn_local;

use super::stream::AcceptedStream;

/// Idle tasks that a worker keeps for the streams to come, whatever connection those are on.
const MAX_IDLE: usize = 128;

/// The tasks of one worker.
#[derive(Default)]
pub(in crate::gate) struct StreamTasks {
    /// The one that was busy last is at the end, and the next to be used: its memory is still in the processor's caches.
    idle: RefCell<Vec<Rc<StreamTask>>>,
}

/// Where a task gets its next stream from.
#[derive(Default)]
struct StreamTask {
    next: Cell<Option<AcceptedStream>>,
    waker: OnceCell<Waker>,
}

impl StreamTasks {
    /// Serves a stream in an idle task, or in a new one.
    pub(super) fn serve(self: &Rc<Self>, stream: AcceptedStream) {
        let idle = self.idle.borrow_mut().pop();
        let task = idle.unwrap_or_else(|| {
            let task = Rc::new(StreamTask::default());
            drop(spawn_local(run(Rc::clone(self), Rc::clone(&task))));
            task
        });
        task.give(stream);
    }

    /// Whether there is room for another idle task.
    fn keep(&self, task: &Rc<StreamTask>) -> bool {
        let mut idle = self.idle.borrow_mut();
        let has_room = idle.len() < MAX_IDLE;
        if has_room {
            idle.push(Rc::clone(task));
        }
        has_room
    }
}

impl StreamTask {
    fn give(&self, stream: AcceptedStream) {
        self.next.set(Some(stream));
        // A new task is polled in any case.
        if let Some(waker) = self.waker.get() {
            waker.wake_by_ref();
        }
    }

    fn poll_next(&self, cx: &Context<'_>) -> Poll<AcceptedStream> {
        if let Some(stream) = self.next.take() {
            return Poll::Ready(stream);
        }
        // That of a task is always the same.
        self.waker.get_or_init(|| cx.waker().clone());
        Poll::Pending
    }
}

async fn run(tasks: Rc<StreamTasks>, task: Rc<StreamTask>) {
    loop {
        let stream = poll_fn(|cx| task.poll_next(cx)).await;
        pin!(stream.serve()).await;
        if !tasks.keep(&task) {
            return;
        }
    }
}
