//! Why a stream is ended early.

use super::answer::GateRefusal;
use crate::enforce::denial::Reason;
use crate::enforce::policy::Route;

/// Why a stream must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Its next request would be rejected.
    Denied(Reason),
    /// The gate is shutting down, and the stream would last.
    Leaving,
}

impl Cut {
    /// The refusal for the client, where one can be sent.
    pub(super) fn refusal(self, route: Option<&Route>) -> GateRefusal {
        match self {
            Self::Denied(reason) => GateRefusal::denied(&reason.into(), route),
            Self::Leaving => GateRefusal::LEAVING,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Denied(reason) => reason.as_str(),
            Self::Leaving => "the gate is shutting down",
        }
    }
}
