//! The permission to forward a request. Only a decision can create one, here.

use std::sync::Arc;

use super::decide::{NoPermit, Verdict};
use super::denial::Denial;
use super::policy::{Mode, Route};
use super::target::Target;
use super::token::VerifiedToken;
use crate::state::redis::SharedUse;
use crate::time::Monotonic;

/// The permission to forward one request. Only a decision can create one.
#[derive(Debug)]
pub struct Permit {
    route: Arc<Route>,
    target: Target,
    pass: Option<Pass>,
    shadow: Option<Denial>,
    nonce: Option<Box<str>>,
}

/// A token that was found in force.
#[derive(Debug, Clone)]
pub struct Pass {
    /// The token.
    pub token: Arc<VerifiedToken>,
    /// The answer of other replicas, if they were asked about its last use.
    pub(super) told: Option<SharedUse>,
    /// Whether possession of the key that it is bound to was proven when the request came.
    pub(super) is_proven: bool,
}

impl Pass {
    /// Whether possession of the key that the token is bound to was proven when the request came.
    #[must_use]
    pub fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// The last counted use of the token; `None` before the first.
    #[must_use]
    pub fn last_used(&self) -> Option<Monotonic> {
        self.token.standing.last_used()
    }
}

impl Permit {
    /// The route.
    #[must_use]
    pub fn route(&self) -> &Arc<Route> {
        &self.route
    }

    /// The target to send.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The token in force, whose identity headers are sent; `None` for an anonymous request and in shadow
    /// mode.
    #[must_use]
    pub fn token(&self) -> Option<&Arc<VerifiedToken>> {
        self.pass.as_ref().map(|pass| &pass.token)
    }

    /// The token in force; `None` for an anonymous request and in shadow mode.
    #[must_use]
    pub fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// The nonce that the client's next proof must carry, if proofs need one.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }

    /// Why the request would have been denied, if the route were not in shadow mode.
    #[must_use]
    pub fn shadow(&self) -> Option<&Denial> {
        self.shadow.as_ref()
    }
}

/// The verdict for an outcome. On a route in shadow mode a denial is only recorded, and the request is
/// forwarded without identity headers, because it was not allowed.
pub(super) fn verdict(
    outcome: Result<Option<Pass>, NoPermit>,
    route: Arc<Route>,
    target: Target,
    nonce: Option<Box<str>>,
) -> Verdict {
    match outcome {
        Ok(pass) => Verdict::Allow(Permit { route, target, pass, shadow: None, nonce }),
        Err(NoPermit::Ask(ask)) => Verdict::Ask(ask),
        Err(NoPermit::Deny(denial)) => match route.settings().mode {
            Mode::Enforce => Verdict::Deny(denial),
            Mode::Shadow => {
                let nonce = nonce.or_else(|| denial.possession.nonce.clone());
                Verdict::Allow(Permit { route, target, pass: None, shadow: Some(denial), nonce })
            }
        },
    }
}
