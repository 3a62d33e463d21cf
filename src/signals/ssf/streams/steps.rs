//! The steps of maintaining a stream, their outcomes, and the resulting changes. Pure.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::description::{KnownStream, StreamStatus, WantedStream};
use super::metadata::StreamMetadata;
use crate::time::Monotonic;

/// The settings of a maintained stream.
#[derive(Debug)]
pub(super) struct StreamTerms {
    /// How often it is verified; `None` for never.
    pub(super) heartbeat: Option<Duration>,
    /// Whether access tokens are fetched, and therefore expire.
    pub(super) fetches_tokens: bool,
    /// The stream itself.
    pub(super) wanted: WantedStream,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamStep {
    /// Fetch the transmitter's metadata.
    Discover,
    /// Fetch an access token.
    Authorize,
    /// List the streams.
    Find,
    /// Create the stream.
    Create,
    /// Update the stream with this id, by PATCH or PUT.
    Update(String, UpdateMethod),
    /// Request a verification event on it.
    Verify(String),
    /// Read its status.
    ReadStatus(String),
    /// Add a subject to it.
    AddSubject(String, Arc<str>),
    /// Do nothing before this moment.
    Wait(Monotonic),
}

/// The method for updating a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpdateMethod {
    Patch,
    Put,
}

/// The outcome of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamAnswer {
    /// The metadata.
    Metadata(Box<StreamMetadata>),
    /// An access token with this lifetime.
    Token(Duration),
    /// The existing streams.
    Streams(Vec<KnownStream>),
    /// The stream as it is now.
    Stream(Box<KnownStream>),
    /// Its status.
    Status(StreamStatus),
    /// The step succeeded.
    Done,
    /// 429 or 503: try later, perhaps after this time.
    Later(Option<Duration>),
    /// Another status.
    Denied(StatusCode),
    /// No response, or an unusable one.
    Failed(String),
}

/// A change that operators should know about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StreamNews {
    /// The stream was created.
    Made,
    /// The stream already existed.
    Found,
    /// The stream existed and was updated.
    Changed,
    /// The transmitter no longer has the stream.
    Forgotten,
    /// The transmitter stopped sending its events.
    Stopped(StreamStatus),
    /// The transmitter sends its events again; contains the previous status.
    Resumed(StreamStatus),
}
