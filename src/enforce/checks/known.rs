//! What is known to be wrong with a token that came before: what may be remembered of it, and how it is judged again.
//!
//! Only what stays so under the same key set and configuration is remembered:
//!
//! | remembered | not remembered |
//! |---|---|
//! | it cannot be read (`malformed`, `bad_claim`) | nothing or more than one token was presented: there is not a string to remember |
//! | `unknown_issuer`, `wrong_type`, `bad_algorithm` of the issuer, `too_long_lived`, `wrong_audience`, `missing_claim`, `bad_claim` | `expired`, `not_yet_valid`, `issued_in_future`: they depend on the time |
//! | `bad_signature` | `unknown_key`, `bad_algorithm` of a key, `keys_unavailable`: another set may be on its way |
//! | | all that is judged of a token whose proof is cached: certificate, proof of possession, route, revocations, idle time |
//!
//! These are the checks that a cached proof makes unnecessary ([`Again::Nothing`]), and the first look at the token. One that
//! does not say when it was issued counts as issued when it was first seen, so its dates change and nothing that comes after
//! them is remembered.
//!
//! When the token comes again, the checks run as they did, with what was read from it then: the dates and the age of the
//! keys are judged, so a bad token that has expired since is rejected as expired, and the issuer is asked for another key
//! when a wait for one is due again.

use super::case::Case;
use super::{Again, Check, Stop};
use crate::enforce::claims;
use crate::enforce::denial::Reason;
use crate::enforce::faults::LastingFault;
use crate::enforce::verify::Unproved;

/// The check that a token fails which cannot be read.
pub(super) const UNREADABLE: &str = "token";

impl<'r> Case<'r> {
    /// Uses what is known to be wrong with the token.
    pub(super) fn recall_fault(&mut self) {
        let verifier = &self.enforcer.verifier;
        let Some(fault) = verifier.fault(self.proof_key, self.now.monotonic) else { return };
        if let Some(claimed) = &fault.claimed {
            self.issuer = verifier.issuer(claimed.issuer).map(|issuer| (claimed.issuer, issuer));
        }
        self.trail.claimed.clone_from(&fault.claimed);
        self.validity = fault.validity;
        self.fault = Some(fault);
    }

    /// Whether the token passed this check when its fault was found; else the fault is the answer again.
    pub(super) fn judge_fault(&self, check: &str) -> Result<(), Stop<'r>> {
        let Some(fault) = self.fault.as_ref().filter(|fault| fault.check == check) else { return Ok(()) };
        match (fault.reason, fault.generation) {
            (Reason::BadSignature, Some(generation)) => {
                let (index, issuer) = self.issuer()?;
                let unproved = Unproved::by(generation, Reason::BadSignature);
                Err(issuer.refuse(index, unproved, self.asked, self.now.monotonic).into())
            }
            (reason, _) => Err(reason.into()),
        }
    }

    /// Remembers why a check did not pass, if that stays so.
    pub(super) fn note_fault(&self, check: &Check, stop: &Stop<'_>) {
        let Some(key) = self.proof_key.filter(|_| !self.is_proved() && self.fault.is_none()) else { return };
        let is_unreadable = self.jws.is_none();
        let is_dated = self.jws.as_ref().is_none_or(|jws| claims::is_dated(&jws.payload));
        let stays = matches!(check.again, Again::Nothing) && (is_dated || self.validity.is_none());
        let Stop::Refused(refusal) = stop else { return };
        if !stays && !is_unreadable {
            return;
        }
        let fault = LastingFault {
            check: check.name,
            reason: refusal.reason(),
            claimed: self.trail.claimed.clone(),
            validity: self.validity,
            generation: self.keys.as_ref().map(|keys| keys.generation()),
        };
        self.enforcer.verifier.note_fault(key, fault, self.now.monotonic);
    }
}
