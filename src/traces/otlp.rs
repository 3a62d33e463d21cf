//! The OTLP messages that traces need, field by field as in `opentelemetry/proto/trace/v1/trace.proto` and
//! related files. Protobuf field numbers never change; unused fields are omitted.
//!
//! The OpenTelemetry crates also define them, but bring an SDK with its own sampler, batch thread and random
//! numbers: about twenty crates for eight messages.

use prost::{Message, Oneof};

/// `ExportTraceServiceRequest`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<OtlpResourceSpans>,
}

/// `ResourceSpans`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<OtlpResource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<OtlpScopeSpans>,
}

/// `Resource`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpResource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<OtlpAttribute>,
}

/// `ScopeSpans`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<OtlpScope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<OtlpSpan>,
}

/// `InstrumentationScope`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpScope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

/// `Span`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpSpan {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(super) parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(enumeration = "OtlpKind", tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<OtlpAttribute>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<OtlpStatus>,
    /// The flags of the trace context, and whether the parent is in another process.
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

/// `Span.SpanKind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum OtlpKind {
    Unspecified = 0,
    Server = 2,
    Client = 3,
}

/// `Status`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpStatus {
    #[prost(enumeration = "OtlpStatusCode", tag = "3")]
    pub(super) code: i32,
}

/// `Status.StatusCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub(super) enum OtlpStatusCode {
    Unset = 0,
    Error = 2,
}

/// `KeyValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpAttribute {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<OtlpValue>,
}

/// `AnyValue`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpValue {
    #[prost(oneof = "OtlpAny", tags = "1, 3")]
    pub(super) value: Option<OtlpAny>,
}

/// `AnyValue.value`.
#[derive(Clone, PartialEq, Oneof)]
pub(super) enum OtlpAny {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Integer(i64),
}

/// `ExportTraceServiceResponse`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<OtlpPartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
pub(super) struct OtlpPartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

/// A string attribute.
pub(super) fn text(key: &str, value: impl Into<String>) -> OtlpAttribute {
    attribute(key, OtlpAny::Text(value.into()))
}

/// An integer attribute.
pub(super) fn integer(key: &str, value: impl Into<i64>) -> OtlpAttribute {
    attribute(key, OtlpAny::Integer(value.into()))
}

fn attribute(key: &str, value: OtlpAny) -> OtlpAttribute {
    OtlpAttribute { key: key.to_owned(), value: Some(OtlpValue { value: Some(value) }) }
}

/// The request of one export.
pub(super) fn request(resource: OtlpResource, spans: Vec<OtlpSpan>) -> OtlpRequest {
    let scope =
        OtlpScope { name: env!("CARGO_PKG_NAME").to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
    let scope_spans = vec![OtlpScopeSpans { scope: Some(scope), spans }];
    OtlpRequest { resource_spans: vec![OtlpResourceSpans { resource: Some(resource), scope_spans }] }
}
