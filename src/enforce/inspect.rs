//! A token judged by itself, without a request: for whoever asks whether it is in force, and not what it may do.

use std::sync::Arc;

use super::bearer::BearerToken;
use super::decide::{Ask, Asked, Enforcer, Refusal, Trail};
use super::denial::Reason;
use super::token::VerifiedToken;
use crate::time::Timestamp;

/// What an inspection found.
#[derive(Debug)]
pub enum Inspection {
    /// The token is in force.
    InForce(Arc<VerifiedToken>),
    /// It is not, or cannot be judged.
    Refused(Reason),
    /// Answer this once, then inspect again.
    Ask(Ask),
}

impl Enforcer {
    /// What there is to say of a token at `now`, whatever it may be used for; that it was looked at is no use of it. A
    /// certificate it may be bound to is not asked for.
    #[must_use]
    pub fn inspect(&self, token: &str, asked: Asked, now: Timestamp) -> Inspection {
        let inspect = || -> Result<_, Refusal> {
            let bearer = BearerToken::new(token.as_bytes())?;
            let token = self.verifier.prove(bearer, asked, now, &mut Trail::default())?;
            self.judge_in_force(&token, asked, now)?;
            Ok(token)
        };
        match inspect() {
            Ok(token) => Inspection::InForce(token),
            Err(Refusal::Deny(denial)) => Inspection::Refused(denial.reason),
            Err(Refusal::Ask(ask)) => Inspection::Ask(ask),
        }
    }
}
