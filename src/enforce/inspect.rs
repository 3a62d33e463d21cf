//! Checks a token without a request: whether it is in force, not what it may do.

use std::sync::Arc;

use super::checks::{self, Case, Stop, Subject};
use super::decide::{Ask, Asked, Enforcer, NoPermit};
use super::denial::Reason;
use super::token::VerifiedToken;
use crate::time::Now;

/// What an inspection found.
#[derive(Debug)]
pub enum Inspection {
    /// The token is in force.
    InForce(Arc<VerifiedToken>),
    /// It is not, or it cannot be judged.
    Refused(Reason),
    /// Answer this question once, then inspect again.
    Ask(Ask),
}

impl Enforcer {
    /// Inspects a token at `now`, regardless of what it may be used for; the inspection does not count as a
    /// use. A certificate that it is bound to is not required.
    #[must_use]
    pub fn inspect(&self, token: &str, asked: Asked, now: Now) -> Inspection {
        let mut case = Case::new(self, Subject::Alone(token), asked, now);
        let outcome = checks::run(&mut case).map_err(Stop::into_refusal);
        match outcome.and_then(|()| case.pass()) {
            Ok(pass) => Inspection::InForce(pass.token),
            Err(NoPermit::Deny(denial)) => Inspection::Refused(denial.reason),
            Err(NoPermit::Ask(ask)) => Inspection::Ask(ask),
        }
    }
}
