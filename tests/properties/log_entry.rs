//! An entry of the shared log that can be read reads the same once it is written again.
//!
//! The input is a sequence, the one before it, and the entry's text, on three lines.

use redis::Value;

use crate::state::redis::entry::{LogEntry, encode, id};

/// What must hold.
pub(super) fn check(input: &[u8]) {
    let mut parts = input.splitn(3, |byte| *byte == b'\n');
    let mut part = || parts.next().unwrap_or_default().to_vec();
    let (place, previous, text) = (part(), part(), part());
    let Some(entry) = LogEntry::read(&element(place, previous, text)) else { return };
    let written = element(
        id(entry.sequence).into_bytes(),
        entry.previous.to_string().into_bytes(),
        encode(&entry).into_bytes(),
    );
    // What is written names what it takes back with its signal.
    assert_eq!(LogEntry::read(&written), Some(LogEntry { names_origin: true, ..entry }));
}

fn element(place: Vec<u8>, previous: Vec<u8>, text: Vec<u8>) -> Value {
    let fields = [b"p".to_vec(), previous, b"e".to_vec(), text].map(Value::BulkString).to_vec();
    Value::Array(vec![Value::BulkString(place), Value::Array(fields)])
}
