//! Details of each check, from the facts of the case.

use super::words;
use crate::enforce::checks::{Case, Subject};
use crate::enforce::claims::{self, IssuerRules};
use crate::enforce::denial::Reason;
use crate::enforce::mcp::McpCall;
use crate::jose::jws::Jws;

/// The token and its issuer's rules; present whenever a check of a claim ran.
fn read<'c>(case: &'c Case<'_>) -> Option<(&'c Jws<'c>, &'c IssuerRules)> {
    let (_, issuer) = case.issuer?;
    Some((case.jws.as_ref()?, &issuer.rules))
}

pub(in crate::enforce) fn target(case: &Case<'_>, failed: Option<Reason>) -> String {
    let Subject::Question(question, _) = case.subject else { return String::new() };
    words::target(question.method, question.path, failed.is_none())
}

pub(in crate::enforce) fn route(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Subject::Question(question, _), Some(target)) = (case.subject, &case.target) else {
        return String::new();
    };
    words::route(case.route.map(AsRef::as_ref), question.method, target.path(), question.host)
}

pub(in crate::enforce) fn origin(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(headers)) = (case.route, case.headers()) else { return String::new() };
    words::origin(&route.settings().origins, headers)
}

pub(in crate::enforce) fn mcp(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Subject::Question(question, _) = case.subject else { return String::new() };
    let is_named = case.route.is_some_and(|route| !route.settings().mcp.methods.is_empty());
    words::mcp(is_named, McpCall::read(question.headers).as_ref(), case.mcp)
}

pub(in crate::enforce) fn form(_case: &Case<'_>, failed: Option<Reason>) -> String {
    words::form(failed)
}

pub(in crate::enforce) fn issuer(case: &Case<'_>, failed: Option<Reason>) -> String {
    let Some(payload) = case.jws.as_ref().map(|jws| &jws.payload) else { return String::new() };
    let found = case.issuer.filter(|_| failed.is_none()).map(|(_, issuer)| &issuer.rules);
    if let Some(domain) = found.and_then(|rules| rules.trust_domain.as_deref()) {
        return words::trust_domain(payload.get("sub"), domain);
    }
    let mut known: Vec<&str> = Vec::new();
    for issuer in case.enforcer.verifier.issuers() {
        if !known.contains(&&*issuer.rules.issuer) {
            known.push(&issuer.rules.issuer);
        }
    }
    words::issuer(payload.get("iss"), known.into_iter(), failed.is_none())
}

pub(in crate::enforce) fn kind(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Some((jws, rules)) = read(case) else { return String::new() };
    let accepted = words::list(rules.token_types.iter().map(String::as_str));
    let absent = if jws.parameter("typ").is_none() { ", which counts as \"JWT\"" } else { "" };
    let events = if jws.payload.contains_key("events") { "; it has the claim events" } else { "" };
    let typ = words::value(jws.parameter("typ"));
    format!("typ is {typ}{absent}; accepted: {accepted}, without events{events}")
}

pub(in crate::enforce) fn algorithm(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Some((jws, rules)) = read(case) else { return String::new() };
    let accepted: Vec<String> = rules.algorithms.iter().map(|one| format!("{one:?}")).collect();
    let accepted = words::list(accepted.iter().map(String::as_str));
    let alg = jws.parameter("alg");
    let other_name = if alg.is_some_and(|alg| alg == "Ed25519") { ", an alias of \"EdDSA\"" } else { "" };
    format!("alg is {}{other_name}; accepted: {accepted}", words::value(alg))
}

pub(in crate::enforce) fn dates(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Some(payload) = case.jws.as_ref().map(|jws| &jws.payload) else { return String::new() };
    let undated = case.validity.filter(|_| !claims::is_dated(payload)).map(|times| times.issued_at);
    words::dates(payload, undated)
}

pub(in crate::enforce) fn expiry(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(times), Some((_, rules))) = (&case.validity, read(case)) else { return String::new() };
    words::expiry(times, rules.leeway, case.now.wall)
}

pub(in crate::enforce) fn not_before(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(times), Some((_, rules))) = (&case.validity, read(case)) else { return String::new() };
    words::not_before(times, rules.leeway, case.now.wall)
}

pub(in crate::enforce) fn issued_at(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(times), Some((_, rules))) = (&case.validity, read(case)) else { return String::new() };
    words::issued_at(times, rules.leeway, case.now.wall)
}

pub(in crate::enforce) fn lifetime(case: &Case<'_>, failed: Option<Reason>) -> String {
    let (Some(times), Some((jws, rules))) = (&case.validity, read(case)) else { return String::new() };
    let text = words::lifetime(times, rules.max_lifetime);
    // The API server of Kubernetes adds this to tokens that it extends to a year.
    let warning = jws.payload.get("kubernetes.io").and_then(|names| names.get("warnafter"));
    match (failed, warning) {
        (Some(Reason::TooLongLived), Some(_)) => format!("{text}; {}", words::EXTENDED),
        _ => text,
    }
}

pub(in crate::enforce) fn audience(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Some((jws, rules)) = read(case) else { return String::new() };
    let ours = words::list(rules.audiences.iter().chain(&rules.resources).map(String::as_str));
    let name = &rules.claims.audience;
    format!("{name} is {}; required, one of: {ours}", words::value(name.find(&jws.payload)))
}

pub(in crate::enforce) fn required_claims(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let Some((jws, rules)) = read(case) else { return String::new() };
    let missing: Vec<&str> = rules.missing(&jws.payload).collect();
    words::required(&rules.required_claims, &missing)
}

pub(in crate::enforce) fn key(case: &Case<'_>, failed: Option<Reason>) -> String {
    let (Some((_, issuer)), Some(jws), Some(algorithm)) = (case.issuer, &case.jws, case.algorithm) else {
        return case.issuer.map(|(_, issuer)| no_keys(issuer, case)).unwrap_or_default();
    };
    match failed {
        Some(Reason::KeysUnavailable) => no_keys(issuer, case),
        failed => words::key(jws.kid(), algorithm, issuer.keys.current().len(), failed),
    }
}

fn no_keys(issuer: &crate::enforce::decide::TrustedIssuer, case: &Case<'_>) -> String {
    words::no_keys(issuer.keys.settings(), issuer.keys.availability(case.now))
}

pub(in crate::enforce) fn signature(_case: &Case<'_>, failed: Option<Reason>) -> String {
    words::signature(failed.is_none())
}

pub(in crate::enforce) fn claims(case: &Case<'_>, _failed: Option<Reason>) -> String {
    match (&case.unusable, &case.token) {
        (Some(why), _) => why.clone(),
        (None, Some(token)) => words::holder(token),
        (None, None) => String::new(),
    }
}

pub(in crate::enforce) fn resource(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(token)) = (case.route, &case.token) else { return String::new() };
    words::resource(route.settings().resource.as_deref(), token)
}

pub(in crate::enforce) fn certificate(_case: &Case<'_>, failed: Option<Reason>) -> String {
    words::certificate(failed.is_none())
}

pub(in crate::enforce) fn proof(case: &Case<'_>, failed: Option<Reason>) -> String {
    let Some(token) = &case.token else { return String::new() };
    words::proof(token.bound_to.key.is_some(), failed.is_none())
}

pub(in crate::enforce) fn revocation(case: &Case<'_>, failed: Option<Reason>) -> String {
    let Some(token) = &case.token else { return String::new() };
    if failed == Some(Reason::StateUnavailable) {
        return match case.enforcer.in_force.freshness.is_fresh(case.now.monotonic) {
            true => "the shared store has no record of the first use of the token".to_owned(),
            false => "the shared state was not confirmed for longer than max_staleness".to_owned(),
        };
    }
    if failed == Some(Reason::SignalsStale) {
        let stale = case.enforcer.stale_signals(token.issuer, case.now.monotonic);
        return stale.map(|clock| words::stale_signals(clock, case.now)).unwrap_or_default();
    }
    let snapshot = case.enforcer.in_force.revocations.load();
    let session = token.session(case.enforcer.sessions());
    let facts = token.facts_with(session.map(|session| session.first_used_at()));
    let ended = failed.and_then(|_| snapshot.judge(&facts, case.now));
    words::revocation(ended.map(|ended| (ended, snapshot.grounds(&facts, ended, case.now))), token, &facts)
}

pub(in crate::enforce) fn idle(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(token), Some(look)) = (&case.token, &case.look) else { return String::new() };
    words::idle(look, token.issued_at, case.now.wall)
}

pub(in crate::enforce) fn scopes(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(token), Some(route)) = (&case.token, case.route) else { return String::new() };
    let needed = &route.settings().requirement;
    words::needed(&needed.scopes, &needed.any_scope, &token.scopes)
}

pub(in crate::enforce) fn roles(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(token), Some(route)) = (&case.token, case.route) else { return String::new() };
    let needed = &route.settings().requirement;
    words::needed(&needed.roles, &needed.any_role, &token.roles)
}
