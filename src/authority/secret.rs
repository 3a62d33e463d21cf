//! Client secrets: random, shown once, stored as a salted hash. Knows nothing about clients.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a client proves itself with. Its memory is overwritten when it is dropped.
pub struct Secret(Zeroizing<String>);

/// What is kept of a secret.
///
/// One SHA-256, not one of the slow hashes that passwords need: those make each guess at a secret that people could
/// remember dear, and nobody can guess at 256 random bits. The salt makes equal secrets unequal, so that a copy of the
/// file tells nothing even of secrets that were brought in from elsewhere.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct SecretHash {
    salt: [u8; 16],
    hash: [u8; 32],
}

const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Characters of a secret: 62^43 is the first power above 2^256.
const SECRET_CHARACTERS: usize = 43;

/// No secret is longer, in bytes: what a longer one costs is bounded before it is known to be wrong.
const LONGEST_SECRET: usize = 256;

/// So many letters and digits, each equally likely.
///
/// # Errors
/// When the random number generator fails.
pub(super) fn random_text(characters: usize) -> Result<Zeroizing<String>, Unspecified> {
    let mut text = Zeroizing::new(String::with_capacity(characters));
    let mut bytes = Zeroizing::new([0; 64]);
    while text.len() < characters {
        rand::fill(&mut *bytes)?;
        // Six bits name 64 places. The two without a character are skipped: that favours none of the others.
        let fair = bytes.iter().filter_map(|&byte| ALPHABET.get(usize::from(byte >> 2)));
        let wanted = characters - text.len();
        text.extend(fair.take(wanted).map(|&byte| char::from(byte)));
    }
    Ok(text)
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the random number generator fails.
    pub(super) fn generate() -> Result<Self, Unspecified> {
        random_text(SECRET_CHARACTERS).map(Self)
    }

    /// The secret itself, to be shown once.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(super) fn hash(&self) -> Result<SecretHash, Unspecified> {
        let mut salt = [0; 16];
        rand::fill(&mut salt)?;
        Ok(SecretHash { salt, hash: digest(&salt, self.0.as_bytes()) })
    }
}

impl fmt::Debug for Secret {
    /// Never prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl SecretHash {
    /// One that no secret has, to be compared with when there is no client: the answer takes as long.
    pub(super) const NOBODY: Self = Self { salt: [0; 16], hash: [0; 32] };

    /// Whether it is this secret's. Takes the same time wherever the two differ, and little for a secret of any length.
    #[must_use]
    pub(super) fn matches(&self, presented: &str) -> bool {
        let presented = presented.as_bytes();
        let hashed = presented.get(..LONGEST_SECRET).unwrap_or(presented);
        let is_whole = hashed.len() == presented.len();
        verify_slices_are_equal(&digest(&self.salt, hashed), &self.hash).is_ok() & is_whole
    }

    /// As it is stored: the salt, then the hash.
    pub(super) fn to_bytes(&self) -> [u8; 48] {
        let mut bytes = [0; 48];
        let (salt, hash) = bytes.split_at_mut(16);
        salt.copy_from_slice(&self.salt);
        hash.copy_from_slice(&self.hash);
        bytes
    }

    /// What [`Self::to_bytes`] gave.
    pub(super) fn from_bytes(bytes: [u8; 48]) -> Self {
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        let (first, rest) = bytes.split_at(16);
        salt.copy_from_slice(first);
        hash.copy_from_slice(rest);
        Self { salt, hash }
    }
}

impl PartialEq for SecretHash {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.to_bytes(), &other.to_bytes()).is_ok()
    }
}

impl Eq for SecretHash {}

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(…)")
    }
}

fn digest(salt: &[u8], secret: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(salt);
    context.update(secret);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_256_bits_of_letters_and_digits_and_is_not_made_twice() {
        let secrets: Vec<Secret> = (0..100).map(|_| Secret::generate().unwrap()).collect();
        for (place, secret) in secrets.iter().enumerate() {
            assert_eq!(secret.reveal().len(), 43);
            assert!(secret.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric()));
            assert!(secrets[..place].iter().all(|other| other.reveal() != secret.reveal()));
        }
        let all: String = secrets.iter().map(Secret::reveal).collect();
        let most = ALPHABET.iter().map(|&c| all.bytes().filter(|&byte| byte == c).count()).max().unwrap();
        assert!(most < 140, "4,300 characters of 62 kinds are 69 each, this one is there {most} times");
        assert!(ALPHABET.iter().all(|&c| all.bytes().any(|byte| byte == c)), "every character occurs");
    }

    #[test]
    fn a_random_text_has_as_many_characters_as_asked_for() {
        for characters in [0, 1, 22, 43, 63, 64, 65, 200, 1_000] {
            assert_eq!(random_text(characters).unwrap().len(), characters);
        }
    }

    #[test]
    fn a_hash_knows_its_secret_and_no_other() {
        let (one, other) = (Secret::generate().unwrap(), Secret::generate().unwrap());
        let hash = one.hash().unwrap();
        assert!(hash.matches(one.reveal()) && !hash.matches(other.reveal()) && !hash.matches(""));
        assert_ne!(hash, one.hash().unwrap(), "salted");
        assert_eq!(SecretHash::from_bytes(hash.to_bytes()), hash);
        let long = Secret(Zeroizing::new("a".repeat(LONGEST_SECRET)));
        let hash_of_long = long.hash().unwrap();
        assert!(hash_of_long.matches(long.reveal()));
        assert!(!hash_of_long.matches(&format!("{}a", long.reveal())), "what is not hashed counts");
        assert!(!SecretHash::NOBODY.matches("") && !SecretHash::NOBODY.matches(one.reveal()));
    }
}
