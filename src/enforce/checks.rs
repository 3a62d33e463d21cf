//! The checks, by name and in order. One table for all users: the decision runs it up to the first failure;
//! cached proofs and lasting requests run the checks whose result can change; `explain` runs all of it.
//!
//! What a check does and what it needs from earlier checks is in [`judge`]; the facts are in [`Case`].

use std::sync::Arc;

use super::decide::{Ask, NoPermit};
use super::denial::{Denial, Reason};
use super::explain::{conditions, details};
use super::policy::Route;

mod case;
mod judge;
mod known;
mod policy;
mod possession;

pub(super) use case::{Case, Subject};

/// One check.
pub(super) struct Check {
    /// The name that `explain` shows.
    pub(super) name: &'static str,
    /// Whether it concerns the request that carries the token; it is skipped for a token alone (RFC 7662).
    pub(super) of: Of,
    /// Judges the case, and adds what later checks need.
    pub(super) judge: Judge,
    /// How much of it must run again for a cached proof.
    pub(super) again: Again,
    /// Describes in plain words what was compared; takes the reason for a failure.
    pub(super) detail: fn(&Case<'_>, Option<Reason>) -> String,
}

/// A judging function.
pub(super) type Judge = for<'r> fn(&mut Case<'r>) -> Result<(), Stop<'r>>;

/// What a check concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// The request, or what it may do with its token.
    Request,
    /// The token alone.
    Token,
}

/// How much of a check runs again for a token whose signature was already verified under the keys in force,
/// and for a lasting request under the configuration in force.
#[derive(Clone, Copy)]
pub(super) enum Again {
    /// Nothing: its input is signed, or configured together with the keys, so it cannot change.
    Nothing,
    /// All of it, for each request, because it depends on what the request asks for. Nothing for a lasting
    /// request.
    Request,
    /// All of it, always: it depends on the time, the connection, or on events.
    All,
    /// This part of it, always.
    Part(Judge),
}

/// Why a check did not pass.
#[derive(Debug)]
pub(super) enum Stop<'r> {
    /// It failed, or a question must be answered first.
    Refused(NoPermit),
    /// It could not run, because an earlier check failed or information is missing.
    NotChecked(&'r str),
    /// No token was presented, and the route needs none.
    Anonymous,
}

impl<R: Into<NoPermit>> From<R> for Stop<'_> {
    fn from(refusal: R) -> Self {
        Self::Refused(refusal.into())
    }
}

impl<'r> Stop<'r> {
    /// Creates [`Self::NotChecked`] lazily: creating it in advance would cost time in every check of every
    /// request.
    pub(super) fn not_checked(why: &'r str) -> impl FnOnce() -> Self {
        move || Self::NotChecked(why)
    }

    /// Converts this into the refusal of a request. Nothing runs after the first refusal, so a check that
    /// lacks its input is a bug here; it lets nothing pass.
    pub(super) fn into_refusal(self) -> NoPermit {
        match self {
            Self::Refused(refusal) => refusal,
            Self::Anonymous => Reason::Missing.into(),
            Self::NotChecked(_why) => Reason::BadClaim.into(),
        }
    }
}

impl From<Ask> for NoPermit {
    fn from(ask: Ask) -> Self {
        Self::Ask(ask)
    }
}

impl NoPermit {
    /// The question that must be answered first.
    pub(super) fn ask(self) -> Option<Ask> {
        match self {
            Self::Ask(ask) => Some(ask),
            Self::Deny(_) => None,
        }
    }

    /// The reason to report while the question is unanswered.
    pub(super) fn reason(&self) -> Reason {
        match self {
            Self::Deny(Denial { reason, .. }) => *reason,
            Self::Ask(Ask::Keys { otherwise, .. }) => *otherwise,
            Self::Ask(Ask::Session { .. }) => Reason::Idle,
            Self::Ask(Ask::FirstUse { .. } | Ask::Proof { .. } | Ask::NonceKey(_)) => {
                Reason::StateUnavailable
            }
        }
    }
}

/// All checks, in the order of the decision: if several fail, the first in this list gives the reason.
pub(super) const CHECKS: [Check; 31] = {
    use Again::{All, Nothing, Part, Request as Each};
    use Of::{Request, Token};
    [
        check("target", Request, judge::target, Each, details::target),
        check("route", Request, judge::route, Each, details::route),
        check("origin", Request, judge::origin, Each, details::origin),
        check("mcp", Request, judge::mcp, Each, details::mcp),
        check("token", Token, judge::form, Each, details::form),
        check("issuer", Token, judge::issuer, Nothing, details::issuer),
        check("type", Token, judge::kind, Nothing, details::kind),
        check("algorithm", Token, judge::algorithm, Nothing, details::algorithm),
        check("dates", Token, judge::dates, Nothing, details::dates),
        check("expiry", Token, judge::expiry, All, details::expiry),
        check("not_before", Token, judge::not_before, All, details::not_before),
        check("issued_at", Token, judge::issued_at, All, details::issued_at),
        check("lifetime", Token, judge::lifetime, Nothing, details::lifetime),
        check("audience", Token, judge::audience, Nothing, details::audience),
        check("required_claims", Token, judge::required_claims, Nothing, details::required_claims),
        check("key", Token, judge::key, Part(judge::keys), details::key),
        check("signature", Token, judge::signature, Nothing, details::signature),
        check("claims", Token, judge::claims, Nothing, details::claims),
        check("certificate", Request, judge::certificate, All, details::certificate),
        check("proof", Request, possession::proof, Each, details::proof),
        check("resource", Request, judge::resource, Each, details::resource),
        check("route_issuers", Request, policy::issuers, Each, conditions::issuers),
        check("route_audiences", Request, policy::audiences, Each, conditions::audiences),
        check("revocation", Token, judge::revocation, All, details::revocation),
        check("idle", Token, judge::idle, All, details::idle),
        check("issuer_conditions", Token, policy::issuer_conditions, Each, conditions::of_issuer),
        check("scopes", Request, policy::scopes, Each, details::scopes),
        check("roles", Request, policy::roles, Each, details::roles),
        check("claim_conditions", Request, policy::claims, Each, conditions::of_route),
        check("allow", Request, policy::alternatives, Each, conditions::alternatives),
        check("authentication", Request, policy::authentication, All, conditions::authentication),
    ]
};

const fn check(
    name: &'static str,
    of: Of,
    judge: Judge,
    again: Again,
    detail: fn(&Case<'_>, Option<Reason>) -> String,
) -> Check {
    Check { name, of, judge, again, detail }
}

/// Runs the checks up to the first that does not pass; for a cached proof or a known fault, only what must
/// run again. Remembers a new proof or fault.
pub(super) fn run<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let outcome = CHECKS.iter().try_for_each(|check| {
        if check.of == Of::Request && matches!(case.subject, Subject::Alone(_)) {
            return Ok(());
        }
        let judged = match check.again {
            Again::Nothing if case.is_proved() => Ok(()),
            Again::Nothing if case.fault.is_some() => case.judge_fault(check.name),
            Again::Part(part) if case.is_proved() || case.fault.is_some() => part(case),
            Again::Nothing | Again::Part(_) | Again::Request | Again::All => (check.judge)(case),
        };
        judged.inspect_err(|stop| case.note_fault(check, stop))
    });
    // There is a token only if the checks passed up to its claims.
    if !case.is_proved() {
        case.remember();
    }
    outcome
}

/// Finds the route of a request with the checks that decide it.
pub(super) fn route<'r>(case: &mut Case<'r>) -> Option<&'r Arc<Route>> {
    judge::target(case).and_then(|()| judge::route(case)).ok()?;
    case.route
}

/// Runs the checks whose result can change while a request lasts, up to the first that does not pass.
pub(super) fn run_again<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    CHECKS.iter().try_for_each(|check| match check.again {
        Again::Nothing | Again::Request => Ok(()),
        Again::Part(part) => part(case),
        Again::All => (check.judge)(case),
    })
}

#[cfg(test)]
mod tests;
