//! Collects what a process prints, line by line, while it runs.

use std::io::{BufRead as _, BufReader, Read};
use std::process::Child;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;

use crate::eventually;

/// What a process has printed so far.
#[derive(Clone, Default)]
pub struct Log {
    lines: Arc<Mutex<Vec<String>>>,
    /// The pipes that are still being read.
    open: Arc<AtomicUsize>,
}

impl Log {
    /// Collects what `child` prints.
    pub fn follow(child: &mut Child) -> Self {
        let log = Self::default();
        log.collect(child.stdout.take().unwrap());
        log.collect(child.stderr.take().unwrap());
        log
    }

    fn collect(&self, pipe: impl Read + Send + 'static) {
        let (lines, open) = (self.lines.clone(), self.open.clone());
        open.fetch_add(1, Ordering::SeqCst);
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(pipe.read_until(b'\n', &mut line), Ok(1..)) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                lines.lock().unwrap().push(text);
                line.clear();
            }
            open.fetch_sub(1, Ordering::SeqCst);
        });
    }

    /// Waits until everything that the process printed has been read; the process has ended.
    pub fn wait_for_end(&self) {
        eventually("the end of the log", || (self.open.load(Ordering::SeqCst) == 0).then_some(()));
    }

    /// Everything that was printed.
    pub fn text(&self) -> String {
        self.lines.lock().unwrap().join("\n")
    }

    /// The lines that are JSON.
    pub fn records(&self) -> Vec<Value> {
        self.lines.lock().unwrap().iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a record.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.records().into_iter().find(&wanted))
    }

    /// Waits for a text.
    pub fn wait_for_text(&self, text: &str) -> String {
        eventually(&format!("the log says {text:?}"), || {
            self.lines.lock().unwrap().iter().find(|line| line.contains(text)).cloned()
        })
    }
}

/// A record's message.
pub fn message(record: &Value) -> Option<&str> {
    field(record, "message")
}

/// A text field of a record, at its top or among its `fields`.
pub fn field<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    record.get(name).or_else(|| record.get("fields")?.get(name))?.as_str()
}
