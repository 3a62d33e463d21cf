//! The control plane's `tracing` events as log lines.

use std::fmt::Debug;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::line::Line;
use super::switches::Switches;
use super::writer::LogQueue;
use crate::time::Timestamp;

/// Writes each event that it receives as one line.
pub(super) struct Events {
    lines: LogQueue,
    switches: Arc<Switches>,
}

impl Events {
    pub(super) const fn new(lines: LogQueue, switches: Arc<Switches>) -> Self {
        Self { lines, switches }
    }
}

impl<S: Subscriber> Layer<S> for Events {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut out = Vec::with_capacity(256);
        let stamp = Timestamp::now().to_string();
        let metadata = event.metadata();
        let format = self.switches.get().format();
        let mut line = Line::begin(&mut out, format, &stamp, *metadata.level(), metadata.target());
        event.record(&mut LineFields(&mut line));
        line.end();
        self.lines.push(&out);
    }
}

/// The name of the field that holds a list, made by [`list`](super::list).
const LIST: &str = "problems";

/// Writes fields as members after the message.
struct LineFields<'a, 'b>(&'a mut Line<'b>);

/// The name of a field's member: fields must not replace the members that every line has.
fn name(field: &Field) -> &str {
    match field.name() {
        "ts" => "ts_",
        "level" => "level_",
        "target" => "target_",
        name => name.strip_prefix("r#").unwrap_or(name),
    }
}

impl Visit for LineFields<'_, '_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.0.message(format_args!("{value:?}")),
            LIST => self.0.list(LIST, format_args!("{value:?}")),
            _ => self.0.display(name(field), format_args!("{value:?}")),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.0.message(value),
            _ => self.0.text(name(field), value),
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.integer(name(field), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.integer(name(field), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.0.integer(name(field), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.0.integer(name(field), value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.float(name(field), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.boolean(name(field), value);
    }
}
