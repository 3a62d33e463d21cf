//! Known faults of tokens that came before: what may be remembered, and how such a token is judged again.
//!
//! Only faults that stay the same under the same key set and configuration are remembered:
//!
//! | remembered | not remembered |
//! |---|---|
//! | it cannot be read (`malformed`, `bad_claim`) | no token or more than one was presented: there is no single string to remember |
//! | `unknown_issuer`, `wrong_type`, `bad_algorithm` of the issuer, `too_long_lived`, `wrong_audience`, `missing_claim`, `bad_claim` | `expired`, `not_yet_valid`, `issued_in_future`: they depend on the time |
//! | `bad_signature` | `unknown_key`, `bad_algorithm` of a key, `keys_unavailable`: a new set may arrive |
//! | | everything judged for a token whose proof is cached: certificate, proof of possession, route, revocations, idle time |
//!
//! These are the checks that a cached proof makes unnecessary ([`Again::Nothing`]), and the parsing of the
//! token. A token without `iat` counts as issued when it was first seen, so its dates change, and no fault
//! after the check of its dates is remembered.
//!
//! When the token comes again, the checks run with what was read from it the first time: dates and the age of
//! the keys are judged, so a bad token that has expired since is rejected as expired, and the issuer is asked
//! for another key when the cooldown allows it.

use super::case::Case;
use super::{Again, Check, Stop};
use crate::enforce::claims;
use crate::enforce::denial::Reason;
use crate::enforce::faults::LastingFault;
use crate::enforce::verify::Unproved;

/// The check that an unreadable token fails.
pub(super) const UNREADABLE: &str = "token";

impl<'r> Case<'r> {
    /// Uses the known fault of the token, if any.
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

    /// Whether the token passed this check when its fault was found; otherwise the fault is returned again.
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

    /// Remembers why a check did not pass, if the reason is permanent.
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
