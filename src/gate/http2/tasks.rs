//! The tasks that serve streams, each one stream after another.
//!
//! The future of a request is large. A task that stays in place creates it in place: a stream costs no
//! allocation, and no copies to move it. A panic ends only its stream and task.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use tokio::task::spawn_local;

use super::stream::AcceptedStream;

/// Maximum number of idle tasks that a worker keeps for new streams of any connection.
const MAX_IDLE: usize = 128;

/// The tasks of one worker.
#[derive(Default)]
pub(in crate::gate) struct StreamTasks {
    /// The most recently used task is last and used next, because its memory is still in the CPU caches.
    idle: RefCell<Vec<Rc<StreamTask>>>,
}

/// The slot from which a task takes its next stream.
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

    /// Keeps a task as idle if there is space; returns whether it did.
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
        // A task's waker never changes.
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
