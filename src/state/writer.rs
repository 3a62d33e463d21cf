//! The one thread that uses the database: work that arrives during a commit is batched into the next one.
//!
//! It does not know what the work does.

use std::fmt;
use std::thread::JoinHandle;

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::schema::Database;
use super::{StoreError, rows};

/// How many jobs may wait for the thread, and how many of them share one commit.
const QUEUE: usize = 512;

/// A handle to the thread. Dropping it finishes the work requested so far and then closes the database.
pub(super) struct StoreWriter {
    orders: Option<mpsc::Sender<WriteOrder>>,
    thread: Option<JoinHandle<()>>,
}

/// A request to the thread.
enum WriteOrder {
    Work(Box<dyn Job>),
    /// Close the database now, instead of when the last handle is dropped; then reply.
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

    /// Finishes the work requested so far and closes the database. Later requests fail.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if let Some(orders) = &self.orders
            && orders.send(WriteOrder::Close(reply)).await.is_ok()
        {
            // An error means that it is closed, too.
            drop(closed.await);
        }
    }

    /// Whether it no longer accepts work.
    pub(super) fn is_closed(&self) -> bool {
        self.orders.as_ref().is_none_or(mpsc::Sender::is_closed)
    }

    /// Runs `work` in a transaction; returns its result only once its changes are durable.
    ///
    /// Once polled, the work will be done even if the future is dropped.
    pub(super) async fn run<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.ask(work, false).await
    }

    /// Runs `work` that changes nothing. It shares no commit, so a failed write of another job is not its failure.
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
            // A panic there has been reported by the thread itself.
            drop(thread.join());
        }
    }
}

fn run(mut database: Database, mut queue: mpsc::Receiver<WriteOrder>) {
    let closed = serve(&mut database, &mut queue);
    // Close the file first: another process may open it as soon as the reply is sent.
    drop((database, queue));
    if let Some(closed) = closed {
        // The caller may be gone.
        let _ = closed.send(());
    }
}

/// Works until no handles are left, or until it is asked to close.
fn serve(database: &mut Database, queue: &mut mpsc::Receiver<WriteOrder>) -> Option<oneshot::Sender<()>> {
    // A refused start, because the file is damaged, must leave the file unchanged.
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
        tracing::warn!(%error, "cannot save the running time; records are kept longer than necessary");
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

/// Commits all jobs of the group or none: an error here comes from the disk, not from one of the jobs.
fn commit(database: &Database, group: &mut [Box<dyn Job>]) -> rusqlite::Result<()> {
    // A reader must not request write access, not even for the transaction.
    let behavior =
        if database.read_only { TransactionBehavior::Deferred } else { TransactionBehavior::Immediate };
    let transaction = Transaction::new_unchecked(&database.connection, behavior)?;
    database.seen.skip(&transaction)?;
    for job in group {
        job.work(&transaction)?;
    }
    if !database.read_only {
        // Saved along with other changes: running time that is not counted only makes data last longer.
        count_uptime(database)?;
    }
    transaction.commit()
}

fn count_uptime(database: &Database) -> rusqlite::Result<()> {
    rows::count_uptime(&database.connection, database.uptime.at(database.clock.monotonic()))
}

/// A job for the thread, whatever its result type.
trait Job: Send {
    fn reads(&self) -> bool;
    fn work(&mut self, connection: &Connection) -> rusqlite::Result<()>;
    fn reply(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Task<T, F> {
    work: Option<F>,
    value: Option<T>,
    /// Whether it only reads.
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
        // The caller may be gone; the work has been done nevertheless.
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

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use super::*;
    use crate::state::{Store, schema};
    use crate::time::{Clock, Now, Timestamp};

    const START: i64 = 1_000;

    /// Opens a store whose running time follows the given clock.
    fn open(path: &Path, clock: &Arc<AtomicI64>) -> Store {
        Store::open_on(path, Now::at_millis(START), Clock::Simulated(Arc::clone(clock))).unwrap()
    }

    /// The running time stored in the file.
    fn counted(path: &Path) -> i64 {
        let file = Connection::open(path).unwrap();
        file.query_row("SELECT uptime FROM origin", [], |row| row.get(0)).unwrap()
    }

    #[tokio::test]
    async fn running_time_is_counted_with_each_commit_and_at_the_end_of_a_store_that_was_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, clock) = (folder.path().join("gate.db"), Arc::new(AtomicI64::new(START)));
        let store = open(&path, &clock);
        clock.store(START + 300, Ordering::SeqCst);
        store.lower_not_before(Timestamp::EPOCH).await.unwrap();
        assert_eq!(counted(&path), 300, "with the commit");
        clock.store(START + 500, Ordering::SeqCst);
        drop(store);
        assert_eq!(counted(&path), 500, "at the end");

        clock.store(START, Ordering::SeqCst);
        let store = open(&path, &clock);
        clock.store(START + 900, Ordering::SeqCst);
        assert_eq!(store.events(0, 9).await, Ok(Vec::new()));
        drop(store);
        assert_eq!(counted(&path), 500, "a store that was only read is left as it is");
    }

    #[tokio::test]
    async fn work_that_waits_shares_the_next_commit_and_its_failure() {
        let writer = StoreWriter::start(schema::in_memory(Now::read()).unwrap()).unwrap();
        let (writer, (open, gate)) = (Arc::new(writer), std::sync::mpsc::sync_channel::<()>(1));
        let (begun, started) = oneshot::channel();
        let work = move |_: &Connection| {
            begun.send(()).unwrap();
            Ok(gate.recv().is_ok())
        };
        let first = Arc::clone(&writer);
        let first = tokio::spawn(async move { first.run(work).await });
        started.await.unwrap();
        let (second, read, failing, ()) = tokio::join!(
            writer.run(|_| Ok(2)),
            writer.read(|_| Ok(3)),
            writer.run(|db| db.execute("no statement", [])),
            async { open.send(()).unwrap() },
        );
        assert_eq!(first.await.unwrap(), Ok(true));
        let why = failing.unwrap_err();
        assert!(matches!(&why, StoreError::Failed(text) if text.contains("syntax error")), "{why:?}");
        assert_eq!(second, Err(why), "one commit for both");
        assert_eq!(read, Ok(3), "what only reads shares none");
        assert_eq!(writer.run(|_| Ok(4)).await, Ok(4), "nor does what comes later");
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_before_a_store_is_closed_or_dropped() {
        for is_closed in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (path, clock) = (folder.path().join("gate.db"), Arc::new(AtomicI64::new(START)));
            let store = open(&path, &clock);
            let lock = std::fs::File::open(schema::companion(&path, ".lock")).unwrap();
            assert!(lock.try_lock().is_err());
            let slow = store.transact(|db| {
                // Slower than a caller that does not wait for it.
                testkit::let_pass(Duration::from_millis(100));
                db.execute("UPDATE origin SET not_before = 7", [])
            });
            if is_closed {
                let (done, ()) = tokio::join!(slow, store.close());
                assert_eq!(done, Ok(1));
                assert!(store.is_closed());
                assert_eq!(store.transact(|_| Ok(())).await, Err(StoreError::Closed));
                assert_eq!(store.events(0, 1).await, Err(StoreError::Closed));
                store.close().await;
            } else {
                assert!(!store.is_closed());
                let mut slow = Box::pin(slow);
                let poll =
                    std::future::poll_fn(|cx| std::task::Poll::Ready(slow.as_mut().poll(cx).is_pending()));
                assert!(poll.await, "it is asked for, and not waited for");
                drop(slow);
                drop(store);
            }
            assert!(lock.try_lock().is_ok(), "closed: {is_closed}");
            lock.unlock().unwrap();
            assert_eq!(open(&path, &clock).not_before(), Timestamp::from_millis(7));
        }
    }
}
