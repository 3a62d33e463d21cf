//! The steps of maintaining a stream, their outcomes, and the resulting changes. Pure.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::description::{KnownStream, StreamStatus, WantedStream};
use super::metadata::StreamMetadata;
use crate::time::Monotonic;

/// What the configuration wants of a stream.
#[derive(Debug)]
pub(super) struct StreamTerms {
    /// How often it is verified; `None`: never.
    pub(super) heartbeat: Option<Duration>,
    /// Whether access tokens are fetched, and expire.
    pub(super) fetches_tokens: bool,
    /// The stream itself.
    pub(super) wanted: WantedStream,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamStep {
    /// Fetch the transmitter's metadata.
    Discover,
    /// Fetch an access token.
    Authorize,
    /// Ask which streams there are.
    Find,
    /// Make the stream.
    Create,
    /// Change the stream of this id, by PATCH or else by PUT.
    Update(String, UpdateMethod),
    /// Ask for a verification event on it.
    Verify(String),
    /// Ask what becomes of its events.
    ReadStatus(String),
    /// Add a subject to it.
    AddSubject(String, Arc<str>),
    /// Nothing until then.
    Wait(Monotonic),
}

/// How a stream is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateMethod {
    Patch,
    Put,
}

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamAnswer {
    /// The metadata.
    Metadata(Box<StreamMetadata>),
    /// An access token that is good for so long.
    Token(Duration),
    /// The streams that there are.
    Streams(Vec<KnownStream>),
    /// The stream as it is now.
    Stream(Box<KnownStream>),
    /// What becomes of its events.
    Status(StreamStatus),
    /// It is done.
    Done,
    /// 429 or 503: not now, and perhaps for how long.
    Later(Option<Duration>),
    /// Another status.
    Denied(StatusCode),
    /// No answer, or none that can be used.
    Failed(String),
}

/// What an operator is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamNews {
    /// The stream was made.
    Made,
    /// It was there.
    Found,
    /// It was there, and was changed.
    Changed,
    /// The transmitter no longer knows it.
    Forgotten,
    /// The transmitter stopped sending its events.
    Stopped(StreamStatus),
    /// It sends them again, after this.
    Resumed(StreamStatus),
}
