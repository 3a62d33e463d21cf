//! Verifies the signature of a token with the keys of its sender.

use jsonwebtoken::Algorithm;

use super::ssf::KeysAsked;
use crate::jose::jws::Jws;
use crate::keys::set::KeySet;
use crate::keys::store::{Availability, KeyStore, WantedKey};
use crate::time::{Monotonic, Now, Timestamp};

/// How many keys are tried for one token.
const MAX_CANDIDATES: usize = 8;

/// Why a token is not proven.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// Another key set may prove it; the caller awaits [`KeyStore::ask`] and tries again with [`KeysAsked::Keys`].
    Ask(WantedKey),
    /// The sender's keys were never loaded, or not confirmed for too long.
    NoKeys,
    /// No key of the sender has its `kid`.
    UnknownKey,
    /// No key of the sender is for its algorithm.
    NoKeyForAlgorithm,
    /// None of the sender's keys made the signature.
    WrongSignature,
}

/// Verifies a token's signature with the known keys.
pub(super) fn prove(
    jws: &Jws<'_>,
    algorithm: Algorithm,
    keys: &KeyStore,
    asked: KeysAsked,
    now: Timestamp,
) -> Result<(), Unproven> {
    let proven = match keys.availability(Now { wall: now, monotonic: Monotonic::now() }) {
        Availability::Usable => prove_with(jws, algorithm, &keys.current()),
        // A signal may come before the first fetch of the keys has ended.
        Availability::NeverLoaded | Availability::TooOld => {
            Err((WantedKey::OtherThan(keys.current().generation()), Unproven::NoKeys))
        }
    };
    proven.map_err(|(wanted, why)| {
        // Another set may prove it: the sender may have a new key, also under the same `kid`.
        let ask = asked == KeysAsked::Nothing && keys.worth_asking(&wanted, Monotonic::now());
        if ask { Unproven::Ask(wanted) } else { why }
    })
}

/// Whether a key of this set made the signature; else what the set lacks, and why not.
fn prove_with(jws: &Jws<'_>, algorithm: Algorithm, set: &KeySet) -> Result<(), (WantedKey, Unproven)> {
    if let Some(kid) = jws.kid().filter(|kid| !set.knows(kid)) {
        return Err((WantedKey::key(kid), Unproven::UnknownKey));
    }
    let other = WantedKey::OtherThan(set.generation());
    let mut candidates = set.candidates(jws.kid(), algorithm).take(MAX_CANDIDATES).peekable();
    if candidates.peek().is_none() {
        return Err((other, Unproven::NoKeyForAlgorithm));
    }
    if candidates.any(|key| key.verify(algorithm, jws.signing_input, &jws.signature)) {
        return Ok(());
    }
    Err((other, Unproven::WrongSignature))
}
