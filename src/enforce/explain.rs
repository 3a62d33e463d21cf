//! The verdict on a token with everything that was compared, for whoever wonders why.
//!
//! Runs the judging functions of the decision in its order, so that the first check that fails is the decision's
//! reason, and goes on after it as far as it can. Leaves no trace: no proof is remembered, no idle clock touched.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Method, Uri};
use jsonwebtoken::Algorithm;
use serde::Serialize;

use super::bearer;
use super::claims::{self, IssuerRules};
use super::decide::{Ask, Asked, Enforcer, Issuer, Refusal};
use super::denial::Reason;
use super::policy::Route;
use super::target::{self, BadTarget, Target};
use super::token::{IssuerIndex, Validity, VerifiedToken};
use super::verify;
use crate::jose::jws::Jws;
use crate::state::redis::Told;
use crate::time::Timestamp;

mod words;

/// A token, and the request it is shown with.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// The token alone, without a scheme.
    pub token: &'a str,
    /// The method.
    pub method: &'a Method,
    /// The path, a query allowed.
    pub path: &'a str,
    /// The host that is asked for.
    pub host: Option<&'a str>,
    /// When.
    pub now: Timestamp,
    /// Why it is not known what was revoked and used; `None` when it is.
    pub stateless: Option<&'a str>,
    /// What was asked for already, as for [`Enforcer::decide`].
    pub asked: Asked,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// Whether nothing speaks against the token, as far as that could be checked. On a route that is only observed
    /// the request would be forwarded in any case.
    pub allowed: bool,
    /// What does: the decision's reason, which is that of the first check that failed.
    pub reason: Option<Reason>,
    /// Every check, in the decision's order.
    pub checks: Vec<Check>,
    /// What the decision would ask for before it is final.
    #[serde(skip)]
    pub ask: Option<Ask>,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, one of [`CHECKS`].
    pub check: &'static str,
    /// Whether it passed; `None` when that could not be found out.
    pub ok: Option<bool>,
    /// What was compared, in plain words. Shows claims, never the signature.
    pub detail: String,
}

/// The names of all checks, in the decision's order.
pub const CHECKS: [&str; 21] = [
    "target",
    "route",
    "token",
    "issuer",
    "type",
    "algorithm",
    "dates",
    "expiry",
    "not_before",
    "issued_at",
    "lifetime",
    "audience",
    "required_claims",
    "key",
    "signature",
    "claims",
    "certificate",
    "revocation",
    "idle",
    "scopes",
    "roles",
];

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
    /// Judges as [`Self::decide`] does, and tells of every check. Knows no client certificate.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>) -> Explanation {
        let mut report = Report::default();
        let target = report.target(question);
        let route = target.as_ref().and_then(|target| report.route(self, question, target));
        let headers = presented(question.token);
        let query = target.as_ref().and_then(Target::query);
        let Some(jws) = report.token(headers.as_ref(), query) else {
            return report.finish("the token cannot be read");
        };
        let Some((index, issuer)) = report.issuer(self, &jws) else {
            return report.finish("there are no rules for this issuer");
        };
        let (rules, now) = (&issuer.rules, question.now);
        report.kind(rules, &jws);
        let algorithm = report.algorithm(rules, &jws);
        let validity = report.times(rules, &jws, now);
        report.audience(rules, &jws);
        report.signature(index, issuer, algorithm, &jws, question);
        let Some(validity) = validity else {
            return report.finish("the dates cannot be read");
        };
        // Whether or not the signature is true: what is asked is what else is wrong with what the token says.
        let read = rules.read(index, &jws, validity, self.verifier.identity());
        let detail = match &read {
            Ok(token) => words::holder(token),
            Err(unusable) => unusable.0.clone(),
        };
        let Some(token) = report.note("claims", read, detail) else {
            return report.finish("the claims cannot be used");
        };
        report.certificate(&token);
        report.in_force(self, rules, &token, question);
        report.policy(route, &token);
        report.finish("there is no route")
    }

    /// The issuer that a token names, when it is a configured one; nobody has vouched for that.
    #[must_use]
    pub fn named_issuer(&self, token: &str) -> Option<&Issuer> {
        let headers = presented(token)?;
        let bearer = bearer::extract(&headers, None).ok()??;
        let jws = Jws::parse(bearer.as_bytes()).ok()?;
        self.verifier.claimed_issuer(&jws).ok().map(|(_, issuer)| issuer)
    }
}

/// The token as a request would carry it; `None` when no request could.
fn presented(token: &str) -> Option<HeaderMap> {
    let value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    Some(HeaderMap::from_iter([(AUTHORIZATION, value)]))
}

/// The checks so far.
#[derive(Default)]
struct Report {
    checks: Vec<Check>,
    reason: Option<Reason>,
    ask: Option<Ask>,
}

impl Report {
    /// Notes what a judging function found; passes on what it found good.
    fn note<T, E: Into<Reason>>(
        &mut self,
        check: &'static str,
        outcome: Result<T, E>,
        detail: impl Into<String>,
    ) -> Option<T> {
        let outcome = outcome.map_err(Into::into);
        self.checks.push(Check { check, ok: Some(outcome.is_ok()), detail: detail.into() });
        match outcome {
            Ok(good) => Some(good),
            Err(reason) => {
                self.reason.get_or_insert(reason);
                None
            }
        }
    }

    /// Notes that a check could not be made.
    fn unknown(&mut self, check: &'static str, why: &str) {
        self.checks.push(Check { check, ok: None, detail: format!("not checked: {why}") });
    }

    /// Notes of every other check that it was not made.
    fn finish(mut self, why: &str) -> Explanation {
        for check in CHECKS {
            if !self.checks.iter().any(|made| made.check == check) {
                self.unknown(check, why);
            }
        }
        self.checks.sort_by_key(|made| CHECKS.iter().position(|check| *check == made.check));
        let Self { checks, reason, ask } = self;
        Explanation { allowed: reason.is_none(), reason, checks, ask }
    }

    fn target(&mut self, question: &Question<'_>) -> Option<Target> {
        let parse = || {
            target::check_raw(question.path.as_bytes())?;
            let uri: Uri = question.path.parse().map_err(|_invalid| BadTarget)?;
            Target::parse(question.method, &uri)
        };
        let outcome = parse().map_err(|BadTarget| Reason::BadTarget);
        let detail = words::target(question.method, question.path, outcome.is_ok());
        self.note("target", outcome, detail)
    }

    fn route<'e>(
        &mut self,
        enforcer: &'e Enforcer,
        question: &Question<'_>,
        target: &Target,
    ) -> Option<&'e Route> {
        let found = enforcer.router.find(question.host, question.method, target).map(AsRef::as_ref);
        let detail = words::route(found, question.method, target.path(), question.host);
        self.note("route", found.ok_or(Reason::NoRoute), detail)
    }

    fn token<'t>(&mut self, headers: Option<&'t HeaderMap>, query: Option<&str>) -> Option<Jws<'t>> {
        let parse = || {
            let headers = headers.ok_or(Reason::Malformed)?;
            let bearer = bearer::extract(headers, query)?.ok_or(Reason::Malformed)?;
            Jws::parse(bearer.as_bytes()).map_err(Reason::from)
        };
        let outcome = parse();
        let detail = words::form(outcome.as_ref().err().copied());
        self.note("token", outcome, detail)
    }

    fn issuer<'e>(&mut self, enforcer: &'e Enforcer, jws: &Jws<'_>) -> Option<(IssuerIndex, &'e Issuer)> {
        let outcome = enforcer.verifier.claimed_issuer(jws);
        let known = enforcer.verifier.issuers().iter().map(|issuer| &*issuer.rules.issuer);
        let detail = words::issuer(jws.payload.get("iss"), known, outcome.is_ok());
        self.note("issuer", outcome, detail)
    }

    fn kind(&mut self, rules: &IssuerRules, jws: &Jws<'_>) {
        let accepted = words::list(rules.token_types.iter().map(String::as_str));
        let absent = if jws.parameter("typ").is_none() { ", which counts as \"JWT\"" } else { "" };
        let events = if jws.payload.contains_key("events") { "; it has the claim events" } else { "" };
        let typ = words::value(jws.parameter("typ"));
        let detail = format!("typ is {typ}{absent}; accepted: {accepted}, without events{events}");
        self.note("type", rules.check_type(jws), detail);
    }

    fn algorithm(&mut self, rules: &IssuerRules, jws: &Jws<'_>) -> Option<Algorithm> {
        let accepted: Vec<String> = rules.algorithms.iter().map(|one| format!("{one:?}")).collect();
        let accepted = words::list(accepted.iter().map(String::as_str));
        let detail = format!("alg is {}; accepted: {accepted}", words::value(jws.parameter("alg")));
        self.note("algorithm", rules.check_algorithm(jws), detail)
    }

    fn times(&mut self, rules: &IssuerRules, jws: &Jws<'_>, now: Timestamp) -> Option<Validity> {
        let outcome = claims::validity(&jws.payload);
        let validity = self.note("dates", outcome, words::dates(&jws.payload));
        let leeway = rules.leeway;
        match validity {
            Some(times) => {
                self.note("expiry", times.judge_expiry(leeway, now), words::expiry(&times, leeway, now));
                let detail = words::not_before(&times, leeway, now);
                self.note("not_before", times.judge_not_before(leeway, now), detail);
                let detail = words::issued_at(&times, leeway, now);
                self.note("issued_at", times.judge_issued_at(leeway, now), detail);
                let detail = words::lifetime(&times, rules.max_lifetime);
                self.note("lifetime", rules.check_lifetime(times), detail);
            }
            None => {
                for check in ["expiry", "not_before", "issued_at", "lifetime"] {
                    self.unknown(check, "the dates cannot be read");
                }
            }
        }
        validity
    }

    fn audience(&mut self, rules: &IssuerRules, jws: &Jws<'_>) {
        let ours = words::list(rules.audiences.iter().map(String::as_str));
        let detail =
            format!("aud is {}; one of these is needed: {ours}", words::value(jws.payload.get("aud")));
        self.note("audience", rules.check_audience(&jws.payload), detail);
        let missing: Vec<&str> = rules.missing(&jws.payload).collect();
        let detail = words::required(&rules.required_claims, &missing);
        self.note("required_claims", rules.check_required(&jws.payload), detail);
    }

    fn signature(
        &mut self,
        index: IssuerIndex,
        issuer: &Issuer,
        algorithm: Option<Algorithm>,
        jws: &Jws<'_>,
        question: &Question<'_>,
    ) {
        const NO_KEY: &str = "there is no key to check it with";
        if let Err(reason) = issuer.check_keys(question.now) {
            let detail = words::no_keys(issuer.keys.settings(), issuer.keys.availability(question.now));
            self.note::<(), _>("key", Err(reason), detail);
            return self.unknown("signature", NO_KEY);
        }
        let Some(algorithm) = algorithm else {
            self.unknown("key", "the algorithm is not one that could be used");
            return self.unknown("signature", NO_KEY);
        };
        let keys = issuer.keys.current();
        let found = issuer.candidates(index, &keys, algorithm, jws, question.asked, question.now);
        let outcome = found.map_err(|refusal| match refusal {
            Refusal::Deny(denial) => denial.reason,
            Refusal::Ask(ask) => {
                // Who was refused for another reason by now is not worth a fetch.
                self.ask = Some(ask).filter(|_| self.reason.is_none());
                Reason::UnknownKey
            }
        });
        let detail = words::key(jws.kid(), algorithm, keys.len(), outcome.as_ref().err().copied());
        let Some(candidates) = self.note("key", outcome, detail) else {
            return self.unknown("signature", NO_KEY);
        };
        let outcome = verify::check_signature(candidates, algorithm, jws);
        let detail = words::signature(outcome.is_ok());
        self.note("signature", outcome, detail);
    }

    fn certificate(&mut self, token: &VerifiedToken) {
        match token.judge_certificate(None) {
            Ok(()) => {
                self.note("certificate", Ok::<_, Reason>(()), "the token is not bound to a client certificate");
            }
            Err(_bound) => self.unknown(
                "certificate",
                "the token is bound to a client certificate, and only a connection shows whether it is presented",
            ),
        }
    }

    fn in_force(
        &mut self,
        enforcer: &Enforcer,
        rules: &IssuerRules,
        token: &VerifiedToken,
        question: &Question<'_>,
    ) {
        if let Some(why) = question.stateless {
            self.unknown("revocation", why);
            return self.unknown("idle", why);
        }
        let snapshot = enforcer.in_force.revocations.load();
        let ended = snapshot.judge(&token.facts);
        let detail =
            words::revocation(ended.map(|ended| (ended, snapshot.grounds(&token.facts, ended))), token);
        self.note("revocation", ended.map_or(Ok(()), Err), detail);

        let mut look = enforcer.in_force.sessions.look(&token.introduction(&rules.issuer), question.now);
        if enforcer.in_force.sessions.is_shared() && !look.in_force {
            match question.asked.session() {
                Some(Told::LastUsed(at)) => (look.last_used_at, look.in_force) = (at, true),
                Some(Told::Unknown) => return self.unknown("idle", "the shared store does not answer"),
                Some(Told::Over) => {}
                None => {
                    let (token, last_used_at) = (token.facts.token, look.last_used_at);
                    self.ask = Some(Ask::Session { token, last_used_at }).filter(|_| self.reason.is_none());
                }
            }
        }
        let outcome = if look.in_force { Ok(()) } else { Err(Reason::Idle) };
        self.note("idle", outcome, words::idle(&look, token.issued_at, question.now));
    }

    fn policy(&mut self, route: Option<&Route>, token: &VerifiedToken) {
        let Some(route) = route else { return };
        let needed = &route.settings().requirement;
        let detail = words::needed(&needed.scopes, &needed.any_scope, &token.scopes);
        self.note("scopes", needed.judge_scopes(token), detail);
        let detail = words::needed(&needed.roles, &needed.any_role, &token.roles);
        self.note("roles", needed.judge_roles(token), detail);
    }
}

#[cfg(test)]
mod tests;
