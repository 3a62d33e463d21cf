//! Verifies the signature of a token with the keys of its sender.

use jsonwebtoken::Algorithm;

use super::ssf::KeysAsked;
use crate::jose::jws::Jws;
use crate::keys::set::KeySet;
use crate::keys::store::{Availability, KeyStore, WantedKey};
use crate::time::{Monotonic, Now, Timestamp};

/// The most keys that are tried for one token.
const MAX_CANDIDATES: usize = 8;

/// Why a signature could not be verified.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unproven {
    /// Newer keys may verify it; the caller awaits [`KeyStore::ask`] and tries again with [`KeysAsked::Keys`].
    Ask(WantedKey),
    /// The sender's keys were never loaded, or have not been confirmed for too long.
    NoKeys,
    /// The sender has no key with this `kid`.
    UnknownKey,
    /// The sender has no key for this algorithm.
    NoKeyForAlgorithm,
    /// No key of the sender made the signature.
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
        // A signal may arrive before the first fetch of the keys has finished.
        Availability::NeverLoaded | Availability::TooOld => {
            Err((WantedKey::OtherThan(keys.current().generation()), Unproven::NoKeys))
        }
    };
    proven.map_err(|(wanted, why)| {
        // Newer keys may verify it: the sender may have a new key, even with the same `kid`.
        let ask = asked == KeysAsked::Nothing && keys.worth_asking(&wanted, Monotonic::now());
        if ask { Unproven::Ask(wanted) } else { why }
    })
}

/// Verifies the signature with this key set; on failure, returns which key to look for, and why it failed.
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
