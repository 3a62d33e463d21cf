//! The words and responses of every denial.

use std::collections::BTreeMap;

use super::*;

#[test]
fn every_word_of_the_closed_set_is_spoken_and_no_other() {
    let mut spoken: Vec<&str> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
    spoken.sort_unstable();
    spoken.dedup();
    let mut expected = vec![
        "missing",
        "malformed",
        "ambiguous",
        "bad_target",
        "no_route",
        "unknown_issuer",
        "wrong_type",
        "bad_algorithm",
        "unknown_key",
        "bad_signature",
        "missing_claim",
        "bad_claim",
        "expired",
        "not_yet_valid",
        "issued_in_future",
        "too_long_lived",
        "wrong_audience",
        "token_revoked",
        "session_revoked",
        "subject_revoked",
        "client_revoked",
        "issuer_revoked",
        "role_changed",
        "idle",
        "insufficient_scope",
        "insufficient_role",
        "bad_origin",
        "claim_condition",
        "insufficient_authentication",
        "keys_unavailable",
        "state_unavailable",
        "signals_stale",
        "certificate_mismatch",
        "before_state",
        "bad_proof",
        "overloaded",
    ];
    expected.sort_unstable();
    assert_eq!(spoken, expected);
}

#[test]
fn answers_are_those_of_rfc_6750() {
    let table = [
        (Reason::Missing, 401, "missing_token", Challenge::Bare),
        (Reason::Malformed, 400, "invalid_request", Challenge::Error),
        (Reason::NotJwt, 401, "invalid_token", Challenge::Error),
        (Reason::Ambiguous, 400, "invalid_request", Challenge::Error),
        (Reason::BadTarget, 400, "invalid_request", Challenge::None),
        (Reason::NoRoute, 403, "access_denied", Challenge::None),
        (Reason::ClaimCondition, 403, "access_denied", Challenge::None),
        (Reason::InsufficientAuthentication, 401, "insufficient_user_authentication", Challenge::Error),
        (Reason::NoRouteNoToken, 401, "missing_token", Challenge::Bare),
        (Reason::BadSignature, 401, "invalid_token", Challenge::Error),
        (Reason::CertificateMismatch, 401, "invalid_token", Challenge::Error),
        (Reason::Idle, 401, "invalid_token", Challenge::Error),
        (Reason::BadProof, 401, "invalid_dpop_proof", Challenge::Error),
        (Reason::NonceRequired, 401, "use_dpop_nonce", Challenge::Error),
        (Reason::UnprovenToken, 401, "invalid_token", Challenge::Error),
        (Reason::InsufficientScope, 403, "insufficient_scope", Challenge::Error),
        (Reason::InsufficientRole, 403, "insufficient_scope", Challenge::Error),
        (Reason::BadOrigin, 403, "access_denied", Challenge::None),
        (Reason::KeysUnavailable, 503, "temporarily_unavailable", Challenge::None),
        (Reason::StateUnavailable, 503, "temporarily_unavailable", Challenge::None),
        (Reason::Overloaded, 503, "temporarily_unavailable", Challenge::None),
    ];
    for (reason, status, error, challenge) in table {
        let wire = reason.wire();
        assert_eq!(
            (wire.status.as_u16(), wire.error, wire.challenge),
            (status, error, challenge),
            "{reason:?}"
        );
    }
}

#[test]
fn descriptions_fit_a_challenge_and_tell_a_forger_nothing() {
    // RFC 6750 §3: %x20-21 / %x23-5B / %x5D-7E.
    let fits = |text: &str| text.bytes().all(|b| (0x20..=0x7e).contains(&b) && b != b'"' && b != b'\\');
    let mut by_description: BTreeMap<&str, Vec<Reason>> = BTreeMap::new();
    for reason in Reason::ALL {
        let wire = reason.wire();
        assert!(fits(wire.description) && fits(wire.error), "{reason:?}");
        if wire.error == "invalid_token" {
            by_description.entry(wire.description).or_default().push(reason);
        }
    }
    let forgeable = by_description.get(Reason::BadSignature.wire().description).map(Vec::len);
    assert_eq!(forgeable, Some(13), "{by_description:?}");
}

#[test]
fn grpc_has_its_own_words() {
    let table = [
        (400, 3),
        (401, 16),
        (403, 7),
        (405, 12),
        (413, 8),
        (431, 8),
        (502, 14),
        (503, 14),
        (504, 4),
        (418, 2),
    ];
    for (status, code) in table {
        assert_eq!(StatusCode::from_u16(status).map(grpc_status).ok(), Some(code), "{status}");
    }
}
