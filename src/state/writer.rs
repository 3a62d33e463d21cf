//! The one thread that uses the database: work that arrives while a commit is under way shares the next one.
//!
//! Knows nothing of what the work is.

use std::fmt;
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::schema::Database;
use super::{StoreError, rows};

/// Work waiting for the thread, and how much of it shares one commit.
const QUEUE: usize = 512;

/// The thread. Dropping it finishes what was asked for, then closes the database.
pub(super) struct StoreWriter {
    orders: Option<mpsc::Sender<WriteOrder>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread is asked for.
enum WriteOrder {
    Work(Box<dyn Job>),
    /// Close the database, now and not when the last handle is dropped; then answer.
    Close(oneshot::Sender<()>),
}

impl fmt::Debug for StoreWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Writer")
    }
}

impl StoreWriter {
    pub(super) fn start(database: Database) -> std::io::Result<Self> {
        let (orders, queue) = mpsc::channel(QUEUE);
        let thread = std::thread::Builder::new().name("state".into()).spawn(move || run(database, queue))?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Finishes what was asked for before and closes the database. What is asked for later fails.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if let Some(orders) = &self.orders
            && orders.send(WriteOrder::Close(reply)).await.is_ok()
        {
            // An error means that it is closed, too.
            drop(closed.await);
        }
    }

    /// Whether nothing can be asked of it any more.
    pub(super) fn is_closed(&self) -> bool {
        self.orders.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Runs `work` in a transaction; what it answers is told only when its changes are durable.
    ///
    /// Once this was polled the work will be done, whether or not the answer is waited for.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask(work, false).await
    }

    /// Runs `work` that changes nothing. It shares no commit, so what others could not write is no failure of it.
    pub(super) async fn read<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask(work, true).await
    }

    async fn ask<T, F>(&self, work: F, reads: bool) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let orders = self.orders.as_ref().ok_or(StoreError::Closed)?;
        let task = Task { work: Some(work), value: None, reads, reply };
        orders.send(WriteOrder::Work(Box::new(task))).await.map_err(|_closed| StoreError::Closed)?;
        answer.await.map_err(|_closed| StoreError::Closed)?
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was reported by the thread itself.
            drop(thread.join());
        }
    }
}

fn run(mut database: Database, mut queue: mpsc::Receiver<WriteOrder>) {
    let closed = serve(&mut database, &mut queue);
    // Another process may open the file as soon as anybody learns that it is closed.
    drop((database, queue));
    if let Some(closed) = closed {
        // The caller may have gone.
        let _ = closed.send(());
    }
}

/// Works until there are no handles left, or until it is told to close.
fn serve(database: &mut Database, queue: &mut mpsc::Receiver<WriteOrder>) -> Option<oneshot::Sender<()>> {
    // A start that is refused, because the file is damaged, must leave it as it is.
    let mut has_written = false;
    let mut closed = None;
    while closed.is_none()
        && let Some(first) = queue.blocking_recv()
    {
        let (mut group, mut next) = (Vec::new(), Some(first));
        while let Some(order) = next.take() {
            match order {
                WriteOrder::Work(job) => group.push(job),
                WriteOrder::Close(reply) => {
                    closed = Some(reply);
                    break;
                }
            }
            next = if group.len() < QUEUE { queue.try_recv().ok() } else { None };
        }
        let (reads, mut writes): (Vec<_>, Vec<_>) = group.into_iter().partition(|job| job.reads());
        for mut job in reads {
            let outcome = told(job.work(&database.connection), "read");
            job.reply(outcome);
        }
        if !writes.is_empty() {
            let outcome = told(commit(database, &mut writes), "written");
            has_written |= outcome.is_ok();
            database.seen.note(&database.connection);
            writes.into_iter().for_each(|job| job.reply(outcome.clone()));
        }
    }
    if has_written
        && !database.read_only
        && let Err(error) = count_uptime(database)
    {
        tracing::warn!(%error, "the last running time could not be counted; what is kept is kept longer for it");
    }
    closed
}

fn told(outcome: rusqlite::Result<()>, done: &str) -> Result<(), StoreError> {
    outcome.map_err(|error| {
        let error = StoreError::from(&error);
        tracing::error!(%error, "the state store could not be {done}");
        error
    })
}

/// All of the group or nothing: what fails here is the disk, not one of the jobs.
fn commit(database: &Database, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    // A reader must not ask to write, not even for the sake of a transaction.
    let behavior =
        if database.read_only { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = Transaction::new_unchecked(&database.connection, behavior)?;
    database.seen.skip(&transaction)?;
    for job in group {
        job.work(&transaction)?;
    }
    if !database.read_only {
        // It rides along with what is written anyway: running time that is not counted only makes things last longer.
        count_uptime(database)?;
    }
    transaction.commit()
}

fn count_uptime(database: &Database) -> rusqlite::Result<()> {
    rows::count_uptime(&database.connection, database.uptime.at(database.clock.monotonic()))
}

/// Work for the thread, whatever it answers.
trait Job: Send {
    fn reads(&self) -> bool;
    fn work(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn reply(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, F> {
    work: Option<F>,
    value: Option<T>,
    /// It changes nothing.
    reads: bool,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Job for Task<T, F>
where
    T: Send,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send,
{
    fn reads(&self) -> bool {
        self.reads
    }

    fn work(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        if let Some(work) = self.work.take() {
            self.value = Some(work(connection)?);
        }
        Ok(())
    }

    fn reply(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { value, reply, .. } = *self;
        // Nobody may be waiting any more; the work was done all the same.
        drop(reply.send(outcome.and_then(|()| value.ok_or(StoreError::Closed))));
    }
}

impl From<&rusqlite::Error> for StoreError {
    fn from(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Failed(error.to_string()),
        }
    }
}
