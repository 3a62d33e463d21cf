//! A collector that accepts traces by OTLP over HTTP. It decodes them by the field numbers in the protocol's
//! own files, so that it does not depend on the product's encoder.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::eventually;
use crate::pki::Identity;
use crate::raw_upstream::{Exchange, Next, RawUpstream, Seen};

/// What the collector does with an export.
#[derive(Clone, Copy)]
pub enum Takes {
    /// It accepts everything.
    All,
    /// It accepts all but one span.
    AllButOne,
    /// It responds with this status and accepts nothing.
    Nothing(&'static str),
    /// It answers with this status, takes nothing, and wants to be asked again after so many seconds.
    Later(&'static str, u32),
    /// It takes everything, and answers only once it is to do something else.
    AllButHesitates,
    /// It closes the connection before it has read all.
    HangsUpWhileReading,
    /// It closes the connection in the middle of its answer.
    HangsUpWhileAnswering,
    /// It closes the connection at once.
    HangsUp,
    /// It reads, and stays silent until the gate closes the connection.
    Silence,
}

/// A running collector.
pub struct Collector {
    upstream: RawUpstream,
    takes: Arc<Mutex<Takes>>,
    taken: Arc<Mutex<Vec<Span>>>,
}

/// An exported span.
#[derive(Clone, Debug)]
pub struct Span {
    /// In hexadecimal digits.
    pub trace_id: String,
    /// In hexadecimal digits.
    pub span_id: String,
    /// In hexadecimal digits; empty for a span without a parent.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// 2 for a server, 3 for a client.
    pub kind: u64,
    /// In nanoseconds since the epoch.
    pub start: u64,
    /// In nanoseconds since the epoch.
    pub end: u64,
    /// Its attributes; numbers as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub is_error: bool,
    /// The flags of the trace context, and whether its parent is remote.
    pub flags: u64,
    /// The attributes of its resource.
    pub resource: BTreeMap<String, String>,
    /// Name and version of its instrumentation scope.
    pub scope: (String, String),
}

impl Collector {
    /// Starts a collector that accepts everything.
    pub fn start() -> Self {
        let (takes, taken) = (Arc::new(Mutex::new(Takes::All)), Arc::default());
        let upstream = RawUpstream::scripted(serve(&takes, &taken));
        Self { upstream, takes, taken }
    }

    /// Like [`Self::start`], over TLS.
    pub fn with_tls(identity: &Identity) -> Self {
        let (takes, taken) = (Arc::new(Mutex::new(Takes::All)), Arc::default());
        let upstream = RawUpstream::with_tls(identity.server_config(&[], None), serve(&takes, &taken));
        Self { upstream, takes, taken }
    }

    /// Its URL for the gate's configuration.
    pub fn url(&self) -> String {
        self.upstream.url()
    }

    /// Changes what it does with exports.
    pub fn set(&self, takes: Takes) {
        *self.takes.lock().unwrap() = takes;
    }

    /// The exports that it received, whatever it did with them.
    pub fn exports(&self) -> Vec<Seen> {
        self.upstream.seen()
    }

    /// The spans that it accepted.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.lock().unwrap().clone()
    }

    /// Waits for a span that it accepted.
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> Span {
        eventually(what, || self.spans().into_iter().find(&wanted))
    }

    /// Waits for both spans of a request: the gate's, and that of its call to the upstream.
    pub fn wait_for_call(&self, what: &str, wanted: impl Fn(&Span) -> bool) -> (Span, Span) {
        let server = self.wait_for(what, |span| span.kind == 2 && wanted(span));
        let client = self.wait_for(what, |span| span.kind == 3 && span.parent == server.span_id);
        (server, client)
    }
}

impl Span {
    /// An attribute; empty if it is missing.
    pub fn text(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

fn serve(
    takes: &Arc<Mutex<Takes>>,
    taken: &Arc<Mutex<Vec<Span>>>,
) -> impl Fn(&mut Exchange<'_>) -> Next + Send + Sync + 'static {
    let (takes, taken) = (Arc::clone(takes), Arc::clone(taken));
    move |exchange| {
        let now = *takes.lock().unwrap();
        if matches!(now, Takes::HangsUp) {
            return Next::Close;
        }
        if matches!(now, Takes::HangsUpWhileReading) {
            return Next::Reset;
        }
        let Ok(body) = exchange.read_body() else { return Next::Close };
        assert_eq!(exchange.request.line(), "POST /v1/traces HTTP/1.1");
        assert_eq!(exchange.request.field("content-type").as_deref(), Some("application/x-protobuf"));
        match now {
            Takes::Silence => return exchange.wait_for_close(),
            Takes::Nothing(status) => return exchange.answer(status, "", ""),
            Takes::Later(status, seconds) => {
                return exchange.answer(status, &format!("retry-after: {seconds}\r\n"), "");
            }
            Takes::HangsUpWhileAnswering => {
                exchange.send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\n");
                return Next::Close;
            }
            Takes::AllButHesitates => eventually("the collector is to do something else", || {
                (!matches!(*takes.lock().unwrap(), Takes::AllButHesitates)).then_some(())
            }),
            Takes::All | Takes::AllButOne | Takes::HangsUp | Takes::HangsUpWhileReading => {}
        }
        taken.lock().unwrap().extend(spans(&body));
        // `partial_success { rejected_spans: 1 }`.
        let answer = if matches!(now, Takes::AllButOne) { "\n\u{2}\u{8}\u{1}" } else { "" };
        exchange.answer("200 OK", "content-type: application/x-protobuf\r\n", answer)
    }
}

/// Decodes the spans of an `ExportTraceServiceRequest`.
pub fn spans(request: &[u8]) -> Vec<Span> {
    let mut found = Vec::new();
    for resource_spans in messages(request, 1) {
        let resource: BTreeMap<_, _> =
            messages(resource_spans, 1).flat_map(|resource| attributes(resource, 1)).collect();
        for scope_spans in messages(resource_spans, 2) {
            let scope = messages(scope_spans, 1).next().unwrap_or_default();
            let scope = (text(scope, 1), text(scope, 2));
            for span in messages(scope_spans, 2) {
                found.push(Span { resource: resource.clone(), scope: scope.clone(), ..one(span) });
            }
        }
    }
    found
}

fn one(span: &[u8]) -> Span {
    Span {
        trace_id: hex(span, 1),
        span_id: hex(span, 2),
        parent: hex(span, 4),
        name: text(span, 5),
        kind: number(span, 6),
        start: number(span, 7),
        end: number(span, 8),
        attributes: attributes(span, 9).collect(),
        is_error: messages(span, 15).any(|status| number(status, 3) == 2),
        flags: number(span, 16),
        resource: BTreeMap::new(),
        scope: Default::default(),
    }
}

/// `KeyValue`s with a string or an integer.
fn attributes(message: &[u8], field: u64) -> impl Iterator<Item = (String, String)> {
    messages(message, field).map(|pair| {
        let value = messages(pair, 2).next().unwrap_or_default();
        let shown = match messages(value, 1).next() {
            Some(text) => String::from_utf8(text.to_vec()).unwrap(),
            None => number(value, 3).to_string(),
        };
        (text(pair, 1), shown)
    })
}

/// A field of a protobuf message: bytes, or a number in any encoding.
enum Field<'b> {
    Bytes(&'b [u8]),
    Number(u64),
}

fn fields(mut rest: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let tag = varint(&mut rest);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut rest)),
            1 => Field::Number(u64::from_le_bytes(take(&mut rest, 8).try_into().unwrap())),
            2 => {
                let length = varint(&mut rest) as usize;
                Field::Bytes(take(&mut rest, length))
            }
            5 => Field::Number(u64::from(u32::from_le_bytes(take(&mut rest, 4).try_into().unwrap()))),
            other => panic!("no such wire type: {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn varint(rest: &mut &[u8]) -> u64 {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)[0];
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return number;
        }
    }
    panic!("a number of more than 64 bits");
}

fn take<'b>(rest: &mut &'b [u8], count: usize) -> &'b [u8] {
    let (taken, left) = rest.split_at(count);
    *rest = left;
    taken
}

fn messages(message: &[u8], wanted: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).into_iter().filter_map(move |(field, value)| match value {
        Field::Bytes(bytes) if field == wanted => Some(bytes),
        _ => None,
    })
}

fn number(message: &[u8], wanted: u64) -> u64 {
    let found = fields(message).into_iter().find_map(|(field, value)| match value {
        Field::Number(number) if field == wanted => Some(number),
        _ => None,
    });
    found.unwrap_or(0)
}

fn text(message: &[u8], wanted: u64) -> String {
    let bytes = messages(message, wanted).next().unwrap_or_default();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn hex(message: &[u8], wanted: u64) -> String {
    let bytes = messages(message, wanted).next().unwrap_or_default();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
