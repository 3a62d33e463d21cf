//! Explains the verdict on a token, with everything that was compared.
//!
//! Runs the decision's table of checks to the end; the first check that fails is the reason of the decision.
//! Has no side effects: it caches no proof and touches no idle clock.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method};
use serde::Serialize;

use super::bearer;
use super::checks::{self, Case, Stop, Subject};
use super::decide::{Ask, Asked, Enforcer, TrustedIssuer};
use super::denial::Reason;
use crate::jose::jws::Jws;
use crate::time::Now;

pub(super) mod conditions;
pub(super) mod details;
mod words;

pub(crate) use words::span;

/// A token, and the request to judge it with.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The token alone, without a scheme.
    pub token: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path, possibly with a query.
    pub path: &'a str,
    /// The requested host.
    pub host: Option<&'a str>,
    /// The other fields of the request.
    pub headers: &'a HeaderMap,
    /// The time of judgement.
    pub now: Now,
    /// Why revocations and last uses are unknown; `None` if they are known.
    pub stateless: Option<&'a str>,
    /// What was already asked, as for [`Enforcer::decide`].
    pub asked: Asked,
}

/// The result of an explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether no check failed, as far as checks could run. On a route in shadow mode the request is
    /// forwarded in any case.
    pub allowed: bool,
    /// The reason of the decision: that of the first check that failed.
    pub reason: Option<Reason>,
    /// Every check, in the decision's order.
    pub checks: Vec<Finding>,
    /// The question that the decision would ask before it is final.
    #[serde(skip)]
    pub ask: Option<Ask>,
}

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The check's name, one of [`CHECKS`].
    pub check: &'static str,
    /// Whether it passed; `None` if it could not be checked.
    pub ok: Option<bool>,
    /// What was compared, in plain words. Shows claims, never the signature.
    pub detail: String,
}

/// The names of all checks, in the decision's order.
pub const CHECKS: [&str; checks::CHECKS.len()] = {
    let mut names = [""; checks::CHECKS.len()];
    let mut index = 0;
    while index < names.len() {
        #[expect(clippy::indexing_slicing, reason = "both have this length; evaluated by the compiler")]
        {
            names[index] = checks::CHECKS[index].name;
        }
        index += 1;
    }
    names
};

impl std::fmt::Debug for Question<'_> {
    /// Never prints the token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Question")
            .field("method", self.method)
            .field("now", &self.now)
            .finish_non_exhaustive()
    }
}

impl Enforcer {
    /// Runs every check of [`Self::decide`] and describes what was compared. Knows no client certificate. Has
    /// no side effects.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let headers = presented(question.token, question.headers);
        let subject = Subject::Question(question, headers.as_ref());
        let mut case = Case::new(self, subject, question.asked, question.now);
        let (mut reason, mut ask) = (None, None);
        let findings = checks::CHECKS.iter().map(|check| {
            let judged = (check.judge)(&mut case);
            let (ok, detail) = match &judged {
                Ok(()) => (Some(true), (check.detail)(&case, None)),
                Err(Stop::Refused(refusal)) => (Some(false), (check.detail)(&case, Some(refusal.reason()))),
                Err(Stop::NotChecked(why)) => (None, format!("not checked: {why}")),
                Err(Stop::Anonymous) => (None, "not checked: there is no token".to_owned()),
            };
            if let (Err(Stop::Refused(refusal)), None) = (judged, reason) {
                reason = Some(refusal.reason());
                ask = refusal.ask();
            }
            Finding { check: check.name, ok, detail }
        });
        let checks = findings.collect();
        Explanation { allowed: reason.is_none(), reason, checks, ask }
    }

    /// The configured issuer that a token names, if any; unverified.
    #[must_use]
    pub fn named_issuer(&self, token: &str) -> Option<&TrustedIssuer> {
        let headers = presented(token, &HeaderMap::new())?;
        let bearer = bearer::extract(&headers, None, self.bearer()).ok()??;
        let jws = Jws::parse(bearer.as_bytes()).ok()?;
        self.verifier.claimed_issuer(&jws).ok().map(|(_, issuer)| issuer)
    }
}

/// The header section in which a request would carry the token; `None` if no request can.
fn presented(token: &str, others: &HeaderMap) -> Option<HeaderMap> {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    let mut headers = others.clone();
    headers.append(AUTHORIZATION, value);
    Some(headers)
}

#[cfg(test)]
mod tests;
