//! The state machine that makes the transmitter have the stream that the configuration asks for, and verifies
//! it. Pure: time and responses are arguments.
//!
//! ```text
//! discover → authorize → find → (create | update) → kept: verify, read the status, add subjects
//!     ▲          ▲         ▲                          │
//!     └──────────┴─────────┴── 404, 401, 409 ─────────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::description::{KnownStream, StreamStatus};
use super::metadata::StreamMetadata;
use super::steps::{StreamAnswer, StreamNews, StreamStep, StreamTerms, UpdateMethod};
use super::subjects::StreamSubjects;
use crate::time::Monotonic;

/// The first pause after a failure, which doubles with each further one, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause that a transmitter can request.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// How often the status is read without a heartbeat.
const STATUS: Duration = Duration::from_secs(600);
/// How often the status is read while the stream is paused.
const PAUSED: Duration = Duration::from_secs(30);

/// What is known of the stream.
#[derive(Debug)]
enum Standing {
    /// Not known yet.
    Unknown,
    /// The transmitter has no stream for this gate.
    Absent,
    /// The stream differs from the wanted one.
    Differs(KnownStream),
    /// The stream is as wanted.
    Kept(KnownStream),
}

/// The state of one stream's maintenance.
#[derive(Debug)]
pub(super) struct StreamMachine {
    terms: StreamTerms,
    metadata: Option<StreamMetadata>,
    /// When to fetch a new access token; `None` for immediately.
    renew_at: Option<Monotonic>,
    standing: Standing,
    /// Whether the transmitter has reported that the stream already exists.
    must_adopt: bool,
    update: UpdateMethod,
    status: StreamStatus,
    verified_at: Option<Monotonic>,
    verify_at: Monotonic,
    status_at: Monotonic,
    subjects_at: Monotonic,
    pub(super) subjects: StreamSubjects,
    /// No step is due before this moment. The next two fields say how many steps in a row failed, and why.
    not_before: Monotonic,
    failures: u32,
    failure: Option<String>,
    /// Whether an access token was rejected, and the next one has not succeeded yet.
    rejected: bool,
}

impl StreamMachine {
    pub(super) fn new(terms: StreamTerms, now: Monotonic) -> Self {
        Self {
            terms,
            metadata: None,
            renew_at: None,
            standing: Standing::Unknown,
            must_adopt: false,
            update: UpdateMethod::Patch,
            status: StreamStatus::Enabled,
            verified_at: None,
            verify_at: now,
            status_at: now,
            subjects_at: now,
            subjects: StreamSubjects::default(),
            not_before: now,
            failures: 0,
            failure: None,
            rejected: false,
        }
    }

    /// The wanted stream and its settings.
    pub(super) fn terms(&self) -> &StreamTerms {
        &self.terms
    }

    /// The transmitter's endpoints, if known.
    pub(super) fn metadata(&self) -> Option<&StreamMetadata> {
        self.metadata.as_ref()
    }

    /// The stream, if it is as wanted.
    pub(super) fn stream(&self) -> Option<&KnownStream> {
        match &self.standing {
            Standing::Kept(stream) => Some(stream),
            Standing::Unknown | Standing::Absent | Standing::Differs(_) => None,
        }
    }

    /// The last known status of the stream.
    pub(super) fn status(&self) -> StreamStatus {
        self.status
    }

    /// Why the last step failed.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// How often the stream is verified: never more often than its transmitter allows.
    pub(super) fn heartbeat(&self) -> Option<Duration> {
        let least = self.stream().map(|stream| stream.min_verification).unwrap_or_default();
        self.terms.heartbeat.map(|heartbeat| heartbeat.max(least))
    }

    /// Returns the step to perform now.
    pub(super) fn next(&self, now: Monotonic) -> StreamStep {
        if now < self.not_before {
            return StreamStep::Wait(self.not_before);
        }
        let Some(metadata) = &self.metadata else { return StreamStep::Discover };
        if self.terms.fetches_tokens && self.renew_at.is_none_or(|at| now >= at) {
            return StreamStep::Authorize;
        }
        match &self.standing {
            Standing::Unknown => StreamStep::Find,
            Standing::Absent => StreamStep::Create,
            Standing::Differs(stream) => StreamStep::Update(stream.id.clone(), self.update),
            Standing::Kept(stream) => self.keep(stream, metadata, now),
        }
    }

    fn keep(&self, stream: &KnownStream, metadata: &StreamMetadata, now: Monotonic) -> StreamStep {
        let id = || stream.id.clone();
        let verifies = self.terms.heartbeat.is_some() && metadata.verification.is_some();
        let verifies = verifies && self.status == StreamStatus::Enabled;
        if verifies && now >= self.verify_at {
            return StreamStep::Verify(id());
        }
        let reads_status = metadata.status.is_some();
        if reads_status && now >= self.status_at {
            return StreamStep::ReadStatus(id());
        }
        let subject = self.subjects.next().filter(|_| metadata.add_subject.is_some());
        if let Some(subject) = subject.filter(|_| now >= self.subjects_at) {
            return StreamStep::AddSubject(id(), Arc::clone(subject));
        }
        let moments = [
            verifies.then_some(self.verify_at),
            reads_status.then_some(self.status_at),
            subject.map(|_| self.subjects_at),
            self.renew_at.filter(|_| self.terms.fetches_tokens),
        ];
        let next = moments.into_iter().flatten().min();
        StreamStep::Wait(next.unwrap_or_else(|| now.plus(LONGEST_WAIT)))
    }

    /// Processes the result of a step; returns what changed.
    pub(super) fn answered(
        &mut self,
        step: &StreamStep,
        answer: StreamAnswer,
        now: Monotonic,
    ) -> Option<StreamNews> {
        let news = match (step, answer) {
            (StreamStep::Discover, StreamAnswer::Metadata(metadata)) => {
                return self.discovered(*metadata, now);
            }
            (StreamStep::Authorize, StreamAnswer::Token(lifetime)) => {
                self.renew_at = Some(now.plus(lifetime - lifetime / 5));
                None
            }
            (StreamStep::Find, StreamAnswer::Streams(streams)) => {
                self.rejected = false;
                return self.found(streams, now);
            }
            (StreamStep::Create, StreamAnswer::Stream(stream)) => {
                self.subjects.again();
                Some(self.kept(*stream, StreamNews::Made, now))
            }
            (StreamStep::Update(..), StreamAnswer::Stream(stream)) => {
                Some(self.kept(*stream, StreamNews::Changed, now))
            }
            (StreamStep::Verify(_), StreamAnswer::Done) => {
                self.verified_at = Some(now);
                self.verify_at = now.plus(self.heartbeat().unwrap_or(LONGEST_WAIT));
                None
            }
            (StreamStep::ReadStatus(_), StreamAnswer::Status(status)) => {
                let news = self.updated(status, now);
                self.status_at = now.plus(self.status_interval());
                news
            }
            (StreamStep::AddSubject(_, subject), StreamAnswer::Done) => {
                self.subjects.done(subject);
                None
            }
            (step, StreamAnswer::Later(wait)) => {
                self.later(step, wait, now);
                return None;
            }
            (step, StreamAnswer::Denied(status)) => return self.denied(step, status, now),
            (_, StreamAnswer::Failed(why)) => return self.failed(why, now),
            (step, answer) => {
                return self.failed(format!("{answer:?} is no answer to {step:?}"), now);
            }
        };
        self.rejected &= matches!(step, StreamStep::Authorize);
        (self.failures, self.failure) = (0, None);
        news
    }

    /// Processes a new status of the stream.
    pub(super) fn updated(&mut self, status: StreamStatus, now: Monotonic) -> Option<StreamNews> {
        let before = std::mem::replace(&mut self.status, status);
        if before == status {
            return None;
        }
        // Verify a resumed stream immediately; read the status of a stopped one more often.
        self.verify_at = self.allowed_at(now);
        self.status_at = self.status_at.min(now.plus(self.status_interval()));
        let resumed = status == StreamStatus::Enabled;
        Some(if resumed { StreamNews::Resumed(before) } else { StreamNews::Stopped(status) })
    }

    /// Processes a rejection of the access token by the polling endpoint.
    pub(super) fn unauthorized(&mut self, now: Monotonic) {
        // Handled as if the configuration endpoint had rejected it; there is nothing to report.
        let _no_news = self.denied(&StreamStep::Find, StatusCode::UNAUTHORIZED, now);
    }

    /// Processes the disappearance of the polling endpoint, which means that the stream is gone.
    pub(super) fn gone(&mut self, now: Monotonic) -> Option<StreamNews> {
        self.stream()?;
        self.forgotten(now)
    }

    fn discovered(&mut self, metadata: StreamMetadata, now: Monotonic) -> Option<StreamNews> {
        let method = self.terms.wanted.method();
        if metadata.lacks(method) {
            return self
                .failed(format!("the transmitter does not support the delivery method {method}"), now);
        }
        (self.failures, self.failure) = (0, None);
        self.metadata = Some(metadata);
        None
    }

    fn found(&mut self, streams: Vec<KnownStream>, now: Monotonic) -> Option<StreamNews> {
        let chosen = self.terms.wanted.choose(streams, self.must_adopt);
        match chosen {
            None if self.must_adopt => {
                self.must_adopt = false;
                return self.failed(
                    "the transmitter has a stream for this gate but does not list it".to_owned(),
                    now,
                );
            }
            None => self.standing = Standing::Absent,
            Some(stream) if self.terms.wanted.differs(&stream) => self.standing = Standing::Differs(stream),
            Some(stream) => {
                (self.failures, self.failure) = (0, None);
                return Some(self.kept(stream, StreamNews::Found, now));
            }
        }
        (self.failures, self.failure) = (0, None);
        None
    }

    fn kept(&mut self, stream: KnownStream, news: StreamNews, now: Monotonic) -> StreamNews {
        self.must_adopt = false;
        self.status = StreamStatus::Enabled;
        self.standing = Standing::Kept(stream);
        self.verify_at = self.allowed_at(now);
        self.status_at = now;
        news
    }

    /// The earliest time for the next verification request.
    fn allowed_at(&self, now: Monotonic) -> Monotonic {
        let least = self.stream().map(|stream| stream.min_verification).unwrap_or_default();
        self.verified_at.map_or(now, |at| at.plus(least)).max(now)
    }

    fn status_interval(&self) -> Duration {
        let usual = self.heartbeat().unwrap_or(STATUS);
        let active = self.stream().and_then(|stream| stream.inactivity).unwrap_or(STATUS * 2) / 2;
        let interval = usual.min(active);
        if self.status == StreamStatus::Enabled { interval } else { interval.min(PAUSED) }
    }

    fn forgotten(&mut self, now: Monotonic) -> Option<StreamNews> {
        self.standing = Standing::Unknown;
        self.not_before = now;
        Some(StreamNews::Forgotten)
    }

    fn denied(&mut self, step: &StreamStep, status: StatusCode, now: Monotonic) -> Option<StreamNews> {
        match (step, status) {
            (StreamStep::AddSubject(_, subject), status) if status != StatusCode::UNAUTHORIZED => {
                self.subjects.done(subject);
                return None;
            }
            // Some transmitters do not list streams without an id.
            (
                StreamStep::Find,
                StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED,
            ) if !self.must_adopt => {
                self.standing = Standing::Absent;
                return None;
            }
            (StreamStep::Create, StatusCode::CONFLICT) if !self.must_adopt => {
                (self.must_adopt, self.standing) = (true, Standing::Unknown);
                return None;
            }
            (
                StreamStep::Update(_, UpdateMethod::Patch),
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
            ) => {
                self.update = UpdateMethod::Put;
                return None;
            }
            (StreamStep::Update(..), StatusCode::NOT_FOUND) => self.standing = Standing::Unknown,
            (StreamStep::Verify(_) | StreamStep::ReadStatus(_), StatusCode::NOT_FOUND) => {
                return self.forgotten(now);
            }
            // The endpoint itself may have moved.
            (StreamStep::Create, StatusCode::NOT_FOUND) => self.metadata = None,
            (StreamStep::Authorize, _) => {}
            (_, StatusCode::UNAUTHORIZED) => {
                self.renew_at = None;
                // Retry immediately only if the last token had worked.
                if !std::mem::replace(&mut self.rejected, true) && self.terms.fetches_tokens {
                    return None;
                }
            }
            _ => {}
        }
        let what = match step {
            StreamStep::Discover => "the metadata",
            StreamStep::Authorize => "the token endpoint",
            StreamStep::Find | StreamStep::Create | StreamStep::Update(..) => "the configuration endpoint",
            StreamStep::Verify(_) => "the verification endpoint",
            StreamStep::ReadStatus(_) => "the status endpoint",
            StreamStep::AddSubject(..) => "the subject endpoint",
            StreamStep::Wait(_) => "the transmitter",
        };
        self.failed(format!("{what} responded with {status}"), now)
    }

    /// Postpones a step because the transmitter is busy or rate-limits.
    fn later(&mut self, step: &StreamStep, wait: Option<Duration>, now: Monotonic) {
        let least = self.stream().map(|stream| stream.min_verification).unwrap_or_default();
        let usual =
            if matches!(step, StreamStep::Verify(_)) { least.max(LONGEST_PAUSE) } else { LONGEST_PAUSE };
        let then = now.plus(wait.unwrap_or(usual).clamp(FIRST_PAUSE, LONGEST_WAIT));
        // Other steps need not wait, least of all the heartbeat.
        match step {
            StreamStep::Verify(_) => self.verify_at = then,
            StreamStep::ReadStatus(_) => self.status_at = then,
            StreamStep::AddSubject(..) => self.subjects_at = then,
            StreamStep::Discover
            | StreamStep::Authorize
            | StreamStep::Find
            | StreamStep::Create
            | StreamStep::Update(..)
            | StreamStep::Wait(_) => self.not_before = then,
        }
    }

    fn failed(&mut self, why: String, now: Monotonic) -> Option<StreamNews> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10)).min(LONGEST_PAUSE);
        self.not_before = now.plus(pause);
        self.failures = self.failures.saturating_add(1);
        self.failure = Some(why);
        None
    }
}

#[cfg(test)]
mod tests;
