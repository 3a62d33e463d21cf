//! Checks a token against the requirements of a route, using what was found when the token was verified.

use super::Stop;
use super::case::Case;

pub(super) fn issuers<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_issuer(token)?)
}

pub(super) fn audiences<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_audience(token)?)
}

/// The conditions that the issuer's tokens must meet on every route.
pub(super) fn issuer_conditions<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    Ok(case.enforcer.verifier.judge_conditions(case.token()?)?)
}

pub(super) fn scopes<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_scopes(token)?)
}

pub(super) fn roles<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_roles(token)?)
}

pub(super) fn claims<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_claims(token)?)
}

/// The alternative sets of requirements, one of which must be met completely.
pub(super) fn alternatives<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_alternatives(token)?)
}

/// How recently the user authenticated: the only requirement that time changes, so that a lasting request may
/// come to fail it.
pub(super) fn authentication<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_authentication(token, case.now.wall)?)
}
