//! Whether a request that failed may be sent again: one table, no I/O.

use super::body::RequestBody;
use super::error::ForwardError;

/// How far a request had come when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureStage {
    /// Nothing of it was sent.
    NotSent,
    /// The upstream said that it did nothing (RFC 9113 §8.7).
    Unprocessed,
    /// The connection ended without a byte of a response.
    Unanswered,
    /// Something was answered, or time ran out: it was at work.
    Answered,
}

/// Why there was no answer, and what may be done about it.
pub(crate) struct Failed {
    pub(crate) error: ForwardError,
    pub(crate) stage: FailureStage,
    /// The body, when the client was not yet asked for it.
    pub(crate) body: Option<RequestBody>,
}

impl Failed {
    /// Nothing can be done about it.
    pub(crate) const fn finally(error: ForwardError) -> Self {
        Self { error, stage: FailureStage::Answered, body: None }
    }
}

/// What decides beside the stage.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SendAttempt {
    /// The method is idempotent (RFC 9110 §9.2.2).
    pub(crate) idempotent: bool,
    /// The connection had served a request before, so that its end may have nothing to do with this one.
    pub(crate) reused: bool,
    /// The request was sent again once already.
    pub(crate) repeated: bool,
}

impl SendAttempt {
    /// Whether sending the request again, with its untouched body, can do no harm and may help.
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
