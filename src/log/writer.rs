//! The queue between the threads that log and the one thread that writes: bounded; it drops lines rather than
//! wait.
//!
//! A blocked pipe or a full disk loses lines, which are counted, but never delays a request.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// Maximum number of lines waiting for the writer; about 6 MiB of usual lines.
pub(super) const CAPACITY: usize = 16 * 1024;
/// Lines are collected up to this size for one system call.
const BATCH_BYTES: usize = 64 * 1024;
/// How long the writer sleeps when no lines are waiting: under load, threads that log find it awake and need
/// no system call to wake it.
const PAUSE: Duration = Duration::from_millis(10);
/// How long process exit waits for a writer that may be blocked.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// Minimum interval between reports of lost lines.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

enum Message {
    /// A line, including its line feed.
    Line(Box<[u8]>),
    /// Answered when every earlier line was written.
    Flush(SyncSender<()>),
}

/// The sending side of the queue.
#[derive(Clone)]
pub(super) struct LogQueue {
    queue: SyncSender<Message>,
    dropped: IntCounter,
}

impl LogQueue {
    /// Queues one line, which ends with a line feed. Never waits; if there is no space, the line is dropped
    /// and counted.
    pub(super) fn push(&self, line: &[u8]) {
        if self.queue.try_send(Message::Line(line.into())).is_err() {
            self.dropped.inc();
        }
    }

    /// Waits until everything queued is written, or the deadline passes.
    pub(super) fn flush(&self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (done, written) = sync_channel(1);
        let mut request = Message::Flush(done);
        while let Err(TrySendError::Full(back)) = self.queue.try_send(request) {
            if Instant::now() >= deadline {
                return;
            }
            request = back;
            thread::sleep(PAUSE);
        }
        // Either it is written, or the writer is stuck and nothing can be done.
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

/// Starts the writer's thread.
pub(super) fn start(out: impl Write + Send + 'static, dropped: IntCounter) -> io::Result<LogQueue> {
    let (queue, lines) = sync_channel(CAPACITY);
    let writer = LineWriter {
        out,
        lines,
        batch: Vec::with_capacity(BATCH_BYTES),
        torn: false,
        losses: Losses { dropped: dropped.clone(), reported: dropped.get(), last: None },
    };
    thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
    Ok(LogQueue { queue, dropped })
}

struct LineWriter<W> {
    out: W,
    lines: Receiver<Message>,
    batch: Vec<u8>,
    /// Whether the last write failed in the middle of a line.
    torn: bool,
    losses: Losses,
}

/// Why the writer stopped collecting.
enum Gathered {
    /// No more lines are waiting.
    Empty,
    /// Enough for one system call.
    Full,
    /// A caller waits for what was collected.
    Asked(SyncSender<()>),
}

impl<W: Write> LineWriter<W> {
    /// Runs until the last sender is dropped.
    fn run(mut self) {
        while let Ok(first) = self.lines.recv() {
            let gathered = self.gather(first);
            self.write();
            match gathered {
                Gathered::Empty => thread::sleep(PAUSE),
                Gathered::Full => {}
                // The caller may no longer be waiting.
                Gathered::Asked(done) => drop(done.try_send(())),
            }
        }
    }

    fn gather(&mut self, first: Message) -> Gathered {
        let mut message = first;
        loop {
            match message {
                Message::Line(line) => self.batch.extend_from_slice(&line),
                Message::Flush(done) => return Gathered::Asked(done),
            }
            if self.batch.len() >= BATCH_BYTES {
                return Gathered::Full;
            }
            match self.lines.try_recv() {
                Ok(next) => message = next,
                Err(_) => return Gathered::Empty,
            }
        }
    }

    fn write(&mut self) {
        if self.torn {
            self.batch.insert(0, b'\n');
        }
        let written = write_fully(&mut self.out, &self.batch);
        let (done, rest) = self.batch.split_at(written);
        self.torn = done.last().map_or(self.torn, |last| *last != b'\n');
        if rest.is_empty() {
            self.losses.report();
        } else {
            let lost = memchr::memchr_iter(b'\n', rest).count();
            self.losses.dropped.inc_by(u64::try_from(lost).unwrap_or(u64::MAX));
        }
        self.batch.clear();
    }
}

/// Writes until everything is written or the destination fails; returns the number of bytes written.
fn write_fully(out: &mut impl Write, bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while !rest.is_empty() {
        match out.write(rest) {
            Ok(0) => break,
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // Standard output may be a non-blocking pipe.
            Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
            Err(_) => break,
        }
    }
    if rest.is_empty() && out.flush().is_err() {
        return 0;
    }
    bytes.len() - rest.len()
}

/// Counts lost lines, and those already reported.
struct Losses {
    dropped: IntCounter,
    reported: u64,
    last: Option<Instant>,
}

impl Losses {
    /// Reports in the log that lines are missing, once it can be written again.
    fn report(&mut self) {
        let lines = self.dropped.get().saturating_sub(self.reported);
        if lines > 0 && self.last.is_none_or(|last| last.elapsed() >= REPORT_INTERVAL) {
            self.reported += lines;
            self.last = Some(Instant::now());
            tracing::warn!(target: "portcullis::log", lines, "log lines were dropped");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A destination that accepts `room` bytes, then fails, then works again.
    struct Disk<'a> {
        room: usize,
        taken: &'a mut Vec<u8>,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                self.room = usize::MAX;
                return Err(ErrorKind::StorageFull.into());
            }
            let count = bytes.len().min(self.room);
            self.room -= count;
            self.taken.extend_from_slice(bytes.get(..count).expect("count is within"));
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_whole_lines_and_is_counted() {
        let (queue, lines) = sync_channel(1);
        drop(queue);
        let dropped = IntCounter::new("dropped", "lines").expect("a counter");
        let mut taken = Vec::new();
        let mut writer = LineWriter {
            out: Disk { room: 8, taken: &mut taken },
            lines,
            batch: b"first\nsecond\nthird\n".to_vec(),
            torn: false,
            losses: Losses { dropped: dropped.clone(), reported: 0, last: None },
        };
        writer.write();
        assert_eq!(dropped.get(), 2);
        assert!(writer.torn);
        writer.batch.extend_from_slice(b"fourth\n");
        writer.write();
        assert_eq!(writer.losses.reported, 2);
        assert_eq!(String::from_utf8_lossy(&taken), "first\nse\nfourth\n");
    }
}
