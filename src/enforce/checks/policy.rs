//! Checks that a token meets the requirements of a route, with what was found when the token was verified.

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

/// What the issuer's tokens must meet on every route.
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

/// The sets of which one must be met whole.
pub(super) fn alternatives<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_alternatives(token)?)
}

/// The only one that time changes: a request that lasts may become too old.
pub(super) fn authentication<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let token = case.token()?;
    Ok(case.route()?.judge_authentication(token, case.now.wall)?)
}
