//! The function of each check. Each first gets what it needs from the case, and at the end adds what it
//! found.

use serde_json::Value;

use super::Stop;
use super::case::{Case, Subject};
use super::known::UNREADABLE;
use crate::enforce::bearer;
use crate::enforce::claims;
use crate::enforce::decide::{Ask, Claimed};
use crate::enforce::denial::Reason;
use crate::enforce::policy::EncodedSlashes;
use crate::enforce::target::{BadTarget, RequestTarget, Target};
use crate::enforce::verify;
use crate::jose::jws::Jws;
use crate::sessions::Idleness;
use crate::state::redis::SharedUse;

use std::sync::Arc;

use bytes::Bytes;

pub(super) fn target<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let parse = || match case.subject {
        Subject::Request(request) => Target::parse(request.method, request.target),
        Subject::Question(question, _) => {
            let sent = RequestTarget::from_bytes(Bytes::copy_from_slice(question.path.as_bytes()))?;
            Target::parse(question.method, &sent)
        }
        Subject::Alone(_) | Subject::Lasting(_) => Err(BadTarget),
    };
    let target = parse().map_err(|BadTarget| Reason::BadTarget)?;
    // Where no route keeps encoded slashes, an upstream may decode them as separators, so the path is
    // ambiguous.
    if target.has_encoded_slash() {
        let (method, host, headers) = case.asks_for()?;
        let found = case.enforcer.router.find(host, method, &target, headers);
        if found.is_none_or(|found| found.route.settings().encoded_slashes == EncodedSlashes::Reject) {
            return Err(Reason::BadTarget.into());
        }
    }
    case.target = Some(target);
    Ok(())
}

pub(super) fn route<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (method, host, headers) = case.asks_for()?;
    let target = case.target.as_ref().ok_or_else(Stop::not_checked("no route matches"))?;
    let found = case.enforcer.router.find(host, method, target, headers);
    let reason = || match case.subject {
        Subject::Request(request) if !bearer::is_presented(request.headers, case.enforcer.bearer()) => {
            Reason::NoRouteNoToken
        }
        Subject::Request(_) | Subject::Question(..) | Subject::Alone(_) | Subject::Lasting(_) => {
            Reason::NoRoute
        }
    };
    let found = found.ok_or_else(reason)?;
    case.route = Some(found.route);
    case.mcp = found.mcp;
    Ok(())
}

/// Whether the page that sent the request, as browsers report it, is allowed.
pub(super) fn origin<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let headers = case.headers().ok_or_else(Stop::not_checked("the header section is unreadable"))?;
    Ok(case.route()?.judge_origin(headers)?)
}

/// Whether an MCP request has valid fields for choosing its route.
pub(super) fn mcp<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    case.route()?;
    Ok(case.mcp.map_err(|_fault| Reason::BadMcp)?)
}

/// The credentials and their form.
pub(super) fn form<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let Some(bearer) = case.bearer()? else {
        let is_anonymous = case.route.is_some_and(|route| route.settings().anonymous);
        return Err(if is_anonymous { Stop::Anonymous } else { Reason::Missing.into() });
    };
    case.scheme = bearer.scheme();
    match case.subject {
        Subject::Question(..) => case.look_up_first_seen(bearer),
        Subject::Request(_) | Subject::Alone(_) | Subject::Lasting(_) => case.recall(bearer),
    }
    if case.fault.is_some() {
        return case.judge_fault(UNREADABLE);
    }
    if !case.is_proved() {
        bearer.check_form()?;
        case.jws = Some(Jws::parse(bearer.as_bytes()).map_err(Reason::from)?);
    }
    Ok(())
}

/// The issuer that the token claims.
pub(super) fn issuer<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let jws = case.jws()?;
    let (index, issuer) = case.enforcer.verifier.claimed_issuer(jws)?;
    let client = issuer.rules.claims.client.find(&jws.payload).and_then(Value::as_str);
    let (kid, client) = (jws.kid().map(verify::loggable), client.map(verify::loggable));
    case.trail.claimed = Some(Claimed { issuer: index, kid, client });
    case.issuer = Some((index, issuer));
    Ok(())
}

pub(super) fn kind<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(issuer.rules.check_type(case.jws()?)?)
}

pub(super) fn algorithm<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    case.algorithm = Some(issuer.rules.check_algorithm(case.jws()?)?);
    Ok(())
}

pub(super) fn dates<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    let jws = case.jws()?;
    let may_be_undated = issuer.rules.trust_domain.is_some() && !claims::is_dated(&jws.payload);
    let first_seen = may_be_undated.then(|| {
        let seen =
            issuer.rules.token_key(jws).and_then(|token| case.enforcer.verifier.first_seen().get(token));
        seen.unwrap_or(case.now.wall)
    });
    case.validity = Some(claims::validity(&jws.payload, first_seen)?);
    Ok(())
}

pub(super) fn expiry<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(case.validity()?.judge_expiry(issuer.rules.leeway, case.now.wall)?)
}

pub(super) fn not_before<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(case.validity()?.judge_not_before(issuer.rules.leeway, case.now.wall)?)
}

pub(super) fn issued_at<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(case.validity()?.judge_issued_at(issuer.rules.leeway, case.now.wall)?)
}

pub(super) fn lifetime<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(issuer.rules.check_lifetime(case.validity()?)?)
}

pub(super) fn audience<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(issuer.rules.check_audience(&case.jws()?.payload)?)
}

pub(super) fn required_claims<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(issuer.rules.check_required(&case.jws()?.payload)?)
}

/// The part of [`key`] that can change with the same key set: keys that were not confirmed for too long
/// verify nothing.
pub(super) fn keys<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (_, issuer) = case.issuer()?;
    Ok(issuer.check_keys(case.now)?)
}

/// Whether there is a key that may have made the signature.
pub(super) fn key<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    keys(case)?;
    let (index, issuer) = case.issuer()?;
    let set = issuer.keys.current();
    let found = issuer.check_key(&set, case.algorithm()?, case.jws()?);
    found.map_err(|unproved| issuer.refuse(index, unproved, case.asked, case.now.monotonic))?;
    case.keys = Some(set);
    Ok(())
}

pub(super) fn signature<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let made = verify::check_signature(case.keys()?, case.algorithm()?, case.jws()?);
    let (index, issuer) = case.issuer()?;
    Ok(made.map_err(|unproved| issuer.refuse(index, unproved, case.asked, case.now.monotonic))?)
}

/// The other claims. If checks continue after a failure, the signature may be invalid; the question is then
/// what else is wrong with the token.
pub(super) fn claims<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let ((index, issuer), validity) = (case.issuer()?, case.validity()?);
    let identity = case.enforcer.verifier.identity();
    match issuer.rules.read(index, case.jws()?, validity, identity, case.enforcer.verifier.conditions()) {
        Ok(mut token) => {
            token.seen_at(case.now, &case.enforcer.in_force.revocations);
            if let Some(seen) = &case.seen {
                token.seen_as(seen);
            }
            case.token = Some(Arc::new(token));
        }
        Err(unusable) => {
            case.unusable = Some(unusable.0);
            return Err(Reason::BadClaim.into());
        }
    }
    Ok(())
}

/// Whether a token bound to a client certificate comes with that certificate.
pub(super) fn certificate<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let presented = match case.subject {
        Subject::Request(request) => request.certificate,
        Subject::Lasting(certificate) => certificate,
        Subject::Question(..) | Subject::Alone(_) => None,
    };
    let token = case.token()?;
    if case.issuer()?.1.rules.sender_constraint.needs_certificate() && token.bound_to.certificate.is_none() {
        return Err(Reason::CertificateMismatch.into());
    }
    match (token.judge_certificate(presented), case.subject) {
        (Err(_bound), Subject::Question(..)) => Err(Stop::NotChecked(
            "the token is bound to a client certificate, which can be checked only on a connection",
        )),
        (judged, _) => Ok(judged?),
    }
}

/// Whether the token is for the resource of the route.
pub(super) fn resource<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_resource(token)?)
}

/// Whether an event has ended the token, by a state that is fresh enough.
pub(super) fn revocation<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let in_force = &case.enforcer.in_force;
    let token = case.token()?;
    case.state()?;
    if !in_force.freshness.is_fresh(case.now.monotonic) {
        return Err(Reason::StateUnavailable.into());
    }
    case.enforcer.check_signals(case.issuer()?.0, case.now.monotonic)?;
    let session = token.session(&in_force.sessions);
    let session = session.as_deref().map(AsRef::as_ref);
    let (snapshot, leeway) = (in_force.revocations.load(), case.issuer()?.1.rules.leeway);
    if token.is_known_in_force(&snapshot) {
        return Ok(());
    }
    if in_force.sessions.is_shared() && token.is_first_use_in_question(session, &snapshot, leeway) {
        match (case.asked.first_use(), case.subject) {
            (Some(told), _) if token.standing.learn_first_use(told) => {}
            (Some(_unknown), _) => return Err(Reason::StateUnavailable.into()),
            // The next full decision asks.
            (None, Subject::Lasting(_)) => return Ok(()),
            (None, _) => return Err(Ask::FirstUse { token: token.facts.token }.into()),
        }
    }
    Ok(token.judge_revocations(session, &snapshot, leeway, case.now)?)
}

pub(super) fn idle<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    match case.subject {
        Subject::Question(..) => return look(case),
        Subject::Lasting(_) => return stream(case),
        Subject::Request(_) | Subject::Alone(_) => {}
    }
    let (token, (_, issuer), sessions) = (case.token()?, case.issuer()?, case.enforcer.sessions());
    let session = token.session(sessions);
    let session = session.as_deref().map(AsRef::as_ref);
    Ok(token.judge_idle(session, &issuer.rules.issuer, sessions, case.asked, case.now)?)
}

/// As [`idle`], for a lasting request. In a fleet, a token that seems idle here may be in use elsewhere, so
/// the request may continue until the other replicas have been asked; the session is noted for that.
fn stream<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (token, (_, issuer), sessions) = (case.token()?, case.issuer()?, case.enforcer.sessions());
    let introduction = token.introduction(&issuer.rules.issuer);
    let in_use = match token.session(sessions) {
        Some(session) => sessions.judge_stream(&session, &introduction, case.now),
        // No use is counted on an anonymous route; the other replicas were asked when the request came.
        None => sessions.judge(None, &introduction, None, case.now) != Idleness::Idle,
    };
    if in_use { Ok(()) } else { Err(Reason::Idle.into()) }
}

/// As [`idle`], and records the idle clock.
fn look<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (token, (index, issuer), in_force) = (case.token()?, case.issuer()?, &case.enforcer.in_force);
    case.state()?;
    if !in_force.freshness.is_fresh(case.now.monotonic) {
        return Err(Stop::NotChecked(
            "the shared state has not been confirmed for longer than max_staleness",
        ));
    }
    let (token, mut look) =
        (token.facts.token, in_force.sessions.look(&token.introduction(&issuer.rules.issuer), case.now));
    let mut judged = if look.in_force { Ok(()) } else { Err(Reason::Idle.into()) };
    if in_force.sessions.is_shared() && !look.in_force {
        match case.asked.session() {
            Some(SharedUse::LastUsed(at)) => (look.last_used_at, judged) = (at, Ok(())),
            Some(SharedUse::Unknown) => return Err(Stop::NotChecked("the shared store does not respond")),
            Some(SharedUse::Over) => {}
            None => {
                judged = Err(Ask::Session { token, issuer: index, last_used_at: look.last_used_at }.into())
            }
        }
    }
    case.look = Some(look);
    judged
}
