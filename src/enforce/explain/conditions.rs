//! What the checks of policy compared: conditions, alternatives, authentication.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::words;
use crate::enforce::checks::Case;
use crate::enforce::conditions::ClaimCondition;
use crate::enforce::denial::Reason;
use crate::enforce::policy::{Requirement, RouteSettings};
use crate::enforce::token::VerifiedToken;

fn payload<'c>(case: &'c Case<'_>) -> Option<&'c Map<String, Value>> {
    case.jws.as_ref().map(|jws| &jws.payload)
}

fn settings<'c>(case: &'c Case<'_>) -> Option<&'c RouteSettings> {
    case.route.map(|route| route.settings())
}

pub(in crate::enforce) fn issuers(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some((_, issuer))) = (settings(case), case.issuer) else { return String::new() };
    match route.issuers.as_slice() {
        [] => "the route accepts every configured issuer".to_owned(),
        named => format!(
            "iss is {}; the route accepts: {}",
            words::list(std::iter::once(&*issuer.rules.issuer)),
            words::list(named.iter().map(AsRef::as_ref))
        ),
    }
}

pub(in crate::enforce) fn audiences(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some((_, issuer)), Some(payload)) = (settings(case), case.issuer, payload(case)) else {
        return String::new();
    };
    match route.audiences.as_slice() {
        [] => "the route asks for none of its own".to_owned(),
        named => {
            let claim = &issuer.rules.claims.audience;
            let named = words::list(named.iter().map(String::as_str));
            format!("{claim} is {}; one of these is needed here: {named}", words::value(claim.find(payload)))
        }
    }
}

pub(in crate::enforce) fn of_issuer(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some((_, issuer)), Some(payload)) = (case.issuer, payload(case)) else { return String::new() };
    conditions(&issuer.rules.conditions, payload)
}

pub(in crate::enforce) fn of_route(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload)) = (settings(case), payload(case)) else { return String::new() };
    conditions(&route.requirement.claims, payload)
}

pub(in crate::enforce) fn alternatives(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload), Some(token)) = (settings(case), payload(case), &case.token) else {
        return String::new();
    };
    if route.allow.is_empty() {
        return "the route has no alternatives".to_owned();
    }
    let sets = route.allow.iter().enumerate().map(|(index, one)| {
        let lacks = lacking(one, token, payload);
        let verdict = if lacks.is_empty() { "met".to_owned() } else { format!("lacks {}", lacks.join(", ")) };
        format!("set {}: {verdict}", index + 1)
    });
    format!("one set must be met whole; {}", sets.collect::<Vec<_>>().join("; "))
}

/// What a token lacks of one set.
fn lacking(one: &Requirement, token: &VerifiedToken, payload: &Map<String, Value>) -> Vec<String> {
    let mut lacks = Vec::new();
    if one.judge_scopes(token).is_err() {
        lacks.push(format!("scopes ({})", words::needed(&one.scopes, &one.any_scope, &token.scopes)));
    }
    if one.judge_roles(token).is_err() {
        lacks.push(format!("roles ({})", words::needed(&one.roles, &one.any_role, &token.roles)));
    }
    let unmet = one.claims.iter().filter(|condition| !condition.is_met(payload));
    lacks.extend(unmet.map(|condition| shown(condition, payload)));
    lacks
}

pub(in crate::enforce) fn authentication(case: &Case<'_>, _failed: Option<Reason>) -> String {
    let (Some(route), Some(payload), Some(token)) = (settings(case), payload(case), &case.token) else {
        return String::new();
    };
    let needed = &route.authentication;
    let mut text = String::new();
    if !needed.acr_values.is_empty() {
        let values = words::list(needed.acr_values.iter().map(String::as_str));
        text = format!("acr is {}; one of these is needed: {values}", words::value(payload.get("acr")));
    }
    if let Some(most) = needed.max_age {
        let age = token.authenticated_at.map_or("unknown: there is no auth_time".to_owned(), |at| {
            format!("{} ago", words::span(case.now.wall.since(at)))
        });
        let and = if text.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _written = write!(text, "{and}authenticated {age}; max_age {}", words::span(most));
    }
    if text.is_empty() { "the route asks for no special authentication".to_owned() } else { text }
}

/// Each condition, the claim's value, and whether it is met.
fn conditions(all: &[ClaimCondition], payload: &Map<String, Value>) -> String {
    match all {
        [] => "there are none".to_owned(),
        all => all.iter().map(|condition| shown(condition, payload)).collect::<Vec<_>>().join("; "),
    }
}

fn shown(condition: &ClaimCondition, payload: &Map<String, Value>) -> String {
    let verdict = if condition.is_met(payload) { "met" } else { "not met" };
    format!("{condition}: {verdict}, it is {}", words::value(condition.claim.find(payload)))
}
