//! Decides whether a request that failed may be sent again: one table, no I/O.

use super::body::RequestBody;
use super::error::ForwardError;

/// How far a request had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureStage {
    /// None of it was sent.
    NotSent,
    /// The upstream reported that it did not process it (RFC 9113 §8.7).
    Unprocessed,
    /// The connection ended without a byte of a response.
    Unanswered,
    /// A response had begun or time ran out, so the upstream was processing it.
    Answered,
}

/// Why there was no response, and what is needed to send the request again.
pub(crate) struct Failed {
    pub(crate) error: ForwardError,
    pub(crate) stage: FailureStage,
    /// The body, if the client was not asked for it yet.
    pub(crate) body: Option<RequestBody>,
}

impl Failed {
    /// A failure that must not be retried.
    pub(crate) const fn without_retry(error: ForwardError) -> Self {
        Self { error, stage: FailureStage::Answered, body: None }
    }
}

/// The facts that decide besides the stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendAttempt {
    /// Whether the method is idempotent (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
    /// Whether the connection had served a request before, so that its end may have nothing to do with this
    /// one.
    pub(crate) reused: bool,
    /// Whether the request was already sent again once.
    pub(crate) repeated: bool,
}

impl SendAttempt {
    /// Whether sending the request again, with its untouched body, is harmless and may help.
    pub(crate) const fn may_be_repeated(self, stage: FailureStage) -> bool {
        match (stage, self) {
            (_, Self { repeated: true, .. }) | (FailureStage::Answered, _) => false,
            (FailureStage::NotSent | FailureStage::Unprocessed, _) => true,
            (FailureStage::Unanswered, Self { idempotent, reused, .. }) => idempotent && reused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_repeated_only_where_that_does_no_harm() {
        use FailureStage::{Answered, NotSent, Unanswered, Unprocessed};
        for (idempotent, reused, repeated, stages) in [
            (true, true, false, &[NotSent, Unprocessed, Unanswered][..]),
            (true, false, false, &[NotSent, Unprocessed]),
            (false, true, false, &[NotSent, Unprocessed]),
            (false, false, false, &[NotSent, Unprocessed]),
            (true, true, true, &[]),
            (false, false, true, &[]),
        ] {
            let attempt = SendAttempt { idempotent, reused, repeated };
            for stage in [NotSent, Unprocessed, Unanswered, Answered] {
                assert_eq!(attempt.may_be_repeated(stage), stages.contains(&stage), "{attempt:?} {stage:?}");
            }
        }
    }
}
