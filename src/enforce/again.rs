//! Checks a lasting request again for what may have changed since its decision, as long as the configuration
//! and the keys are those of the decision. If they are not, the whole request is decided again.

use std::sync::Arc;

use super::decide::{Enforcer, Pass, Permit};
use super::denial::Reason;
use super::policy::Route;
use crate::time::Now;

/// The basis on which a lasting request was allowed.
#[derive(Debug)]
pub struct Grounds {
    enforcer: Arc<Enforcer>,
    route: Arc<Route>,
    /// `None` for a request that was allowed without a token.
    pass: Option<Pass>,
    /// The generation of the key set that verified the token.
    keys: Option<u64>,
}

impl Grounds {
    /// Records the grounds of a permit that this enforcer issued.
    #[must_use]
    pub fn new(enforcer: &Arc<Enforcer>, permit: &Permit) -> Self {
        let pass = permit.pass().cloned();
        let keys = pass.as_ref().and_then(|pass| key_set(enforcer, pass));
        Self { enforcer: Arc::clone(enforcer), route: Arc::clone(permit.route()), pass, keys }
    }

    /// The token in force and its idle clock.
    #[must_use]
    pub fn pass(&self) -> Option<&Pass> {
        self.pass.as_ref()
    }

    /// Whether configuration and keys are those of the decision and no question is open, so that
    /// [`Self::judge`] is enough.
    #[must_use]
    pub fn stand(&self, in_force: &Arc<Enforcer>) -> bool {
        Arc::ptr_eq(&self.enforcer, in_force)
            && self
                .pass
                .as_ref()
                .is_none_or(|pass| key_set(in_force, pass) == self.keys && !in_force.has_question(pass))
    }

    /// Checks whether the next request with the same token and client certificate would be allowed.
    ///
    /// # Errors
    /// Why it would not.
    pub fn judge(&self, certificate: Option<&[u8; 32]>, now: Now) -> Result<(), Reason> {
        let judge = |pass| self.enforcer.judge_again(pass, &self.route, certificate, now);
        self.pass.as_ref().map_or(Ok(()), judge)
    }

    /// Counts bytes on the stream as a use of the token.
    pub fn keep_alive(&self, now: Now) {
        if let Some(pass) = &self.pass {
            self.enforcer.keep_alive(pass, now);
        }
    }
}

fn key_set(enforcer: &Enforcer, pass: &Pass) -> Option<u64> {
    enforcer.issuer(pass.token.issuer).map(|issuer| issuer.keys.generation())
}

#[cfg(test)]
mod tests;
