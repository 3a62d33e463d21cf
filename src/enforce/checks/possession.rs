//! Checks that the sender of a bound token has its key (RFC 9449 §7).

use super::Stop;
use super::case::{Case, Subject};
use crate::enforce::ask::Ask;
use crate::enforce::bearer::TokenScheme;
use crate::enforce::decide::{NoPermit, Request};
use crate::enforce::denial::{Denial, Reason};
use crate::enforce::dpop::proof::{self, ExpectedProof, ProvenKey};
use crate::enforce::dpop::uri::UriOrigin;
use crate::enforce::dpop::{PossessionDenial, ProofFault};
use crate::enforce::target::Target;
use crate::replays::ProofUse;
use crate::replays::nonces::UnknownPeriod;

/// Checks that a token bound to a key comes with a proof made with that key, and that no other token claims
/// to be bound.
pub(super) fn proof<'r>(case: &mut Case<'r>) -> Result<(), Stop<'r>> {
    let (bound_to, constraint) = (case.token()?.bound_to, case.issuer()?.1.rules.sender_constraint);
    if !constraint.is_met(&bound_to) {
        return Err(Reason::UnprovenToken.into());
    }
    let key = constraint.key_to_prove(&bound_to);
    let Subject::Request(request) = case.subject else {
        return match key {
            Some(_) => Err(Stop::NotChecked(
                "the token is bound to a key, and its proof can be checked only on a request",
            )),
            None => Ok(()),
        };
    };
    match (case.scheme, key) {
        (TokenScheme::Dpop, Some(key)) => Ok(prove(case, &request, key)?),
        (TokenScheme::Bearer, Some(_)) => Err(Reason::UnprovenToken.into()),
        // It is not bound to any key (RFC 9449 §7.1), so no proof can be valid.
        (TokenScheme::Dpop, None) if bound_to.key.is_none() => Err(Reason::UnprovenToken.into()),
        (_, None) => Ok(()),
    }
}

/// Judges the proof. Whether it was used before is asked last and once, after everything else was found
/// valid.
fn prove(case: &mut Case<'_>, request: &Request<'_>, key: &[u8; 32]) -> Result<(), NoPermit> {
    case.nonce = case.enforcer.current_nonce(case.now.wall).ok().flatten();
    match case.asked.proof() {
        Some(ProofUse::First) => {
            case.is_proven = true;
            return Ok(());
        }
        Some(ProofUse::Again) => return Err(fault(ProofFault::Replayed)),
        Some(ProofUse::Unknown) => return Err(Reason::StateUnavailable.into()),
        None => {}
    }
    let window = case.enforcer.dpop.max_age
        + case.issuer().map_or_else(|_| Default::default(), |(_, issuer)| issuer.rules.leeway);
    let proven = judge(case, request, key, window).map_err(fault)?;
    check_nonce(case, &proven)?;
    let keep = proven.issued_at.plus(window).since(case.now.wall);
    Err(Ask::Proof { proof: proven.replay, keep, at: case.now.monotonic }.into())
}

fn judge(
    case: &Case<'_>,
    request: &Request<'_>,
    key: &[u8; 32],
    window: std::time::Duration,
) -> Result<ProvenKey, ProofFault> {
    let token = case.bearer().ok().flatten().ok_or(ProofFault::Token)?;
    let by_host = match case.enforcer.dpop.public_url {
        Some(_) => None,
        None => request.host.and_then(UriOrigin::https),
    };
    proof::judge(
        proof::field(request.headers)?,
        &ExpectedProof {
            method: request.method,
            origin: case.enforcer.dpop.public_url.as_ref().or(by_host.as_ref()),
            path: case.target.as_ref().map_or("", Target::path),
            token: Some((token.as_bytes(), key)),
            window,
            now: case.now.wall,
        },
    )
}

/// Checks the nonce of the proof where nonces are required; there must also be a nonce for the response.
fn check_nonce(case: &mut Case<'_>, proven: &ProvenKey) -> Result<(), NoPermit> {
    if !case.enforcer.dpop.nonce {
        return Ok(());
    }
    let (nonces, bucket) = (case.enforcer.in_force.replays.nonces(), case.enforcer.dpop.max_age);
    let asked = case.asked.nonce_period();
    let unknown = |period: UnknownPeriod| match asked {
        Some(asked) if asked == period => Reason::StateUnavailable.into(),
        _ => NoPermit::from(Ask::NonceKey(period)),
    };
    let current = nonces.current(bucket, case.now.wall).map_err(unknown)?;
    let given = proven.nonce.as_deref();
    let is_good = given.map_or(Ok(false), |nonce| nonces.is_good(nonce, bucket, case.now.wall));
    match is_good.map_err(unknown)? {
        true => Ok(()),
        false => {
            let possession = PossessionDenial {
                fault: Some(ProofFault::Nonce),
                nonce: Some(current),
                ..Default::default()
            };
            Err(Denial { possession, ..Reason::NonceRequired.into() }.into())
        }
    }
}

fn fault(fault: ProofFault) -> NoPermit {
    let possession = PossessionDenial { fault: Some(fault), ..Default::default() };
    Denial { possession, ..Reason::BadProof.into() }.into()
}
