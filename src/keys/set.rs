//! A set of keys as an immutable snapshot; the verifier looks up candidate keys in it.

use std::sync::atomic::{AtomicU64, Ordering};

use jsonwebtoken::Algorithm;

use super::key::{ShortSecret, VerificationKey};

/// Maximum number of keys tried for a token without a `kid`, so that it cannot cost a thousand signature
/// verifications.
const WITHOUT_KID: usize = 8;

/// Counts across all sets of the process, so that a generation identifies one set of one issuer.
static GENERATIONS: AtomicU64 = AtomicU64::new(1);

/// The keys of one issuer at one time.
#[derive(Debug)]
pub struct KeySet {
    generation: u64,
    /// Sorted by content, so that keys with the same `kid` are adjacent and sets are easy to compare.
    keys: Vec<VerificationKey>,
    /// Whether the set is one secret, which has no `kid` and matches any.
    secret: bool,
}

impl KeySet {
    /// Creates a set of public keys with a new generation.
    #[must_use]
    pub fn new(mut keys: Vec<VerificationKey>) -> Self {
        keys.sort_by(|a, b| a.content().cmp(&b.content()));
        Self { generation: GENERATIONS.fetch_add(1, Ordering::Relaxed), keys, secret: false }
    }

    /// Creates a set of one symmetric key, used whatever `kid` a token carries.
    ///
    /// # Errors
    /// When the secret is too short for one of `algorithms`.
    pub fn of_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, ShortSecret> {
        let key = VerificationKey::secret(secret, algorithms)?;
        Ok(Self { secret: true, ..Self::new(vec![key]) })
    }

    /// Identifies this set among all sets of the process. A set that is fetched again with the same content
    /// keeps its generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The keys that may have made a signature under `algorithm`: all with this `kid`; for a token without
    /// one, the first eight that fit the algorithm.
    pub fn candidates<'a>(
        &'a self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a VerificationKey> + use<'a> {
        let (keys, most) = match kid {
            Some(kid) if !self.secret => (self.with_kid(kid), usize::MAX),
            _ => (self.keys.as_slice(), WITHOUT_KID),
        };
        keys.iter().filter(move |key| key.fits(algorithm)).take(most)
    }

    /// Whether a key has this `kid`; a secret matches any.
    #[must_use]
    pub fn knows(&self, kid: &str) -> bool {
        self.secret || !self.with_kid(kid).is_empty()
    }

    /// The number of keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether the set has no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The `kid`s of the set.
    pub(super) fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().filter_map(VerificationKey::kid)
    }

    /// Whether both sets verify exactly the same signatures.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.len() == other.len() && self.keys.iter().zip(&other.keys).all(|(a, b)| a.same_as(b))
    }

    fn with_kid(&self, kid: &str) -> &[VerificationKey] {
        let from = self.keys.partition_point(|key| key.kid() < Some(kid));
        let rest = self.keys.get(from..).unwrap_or_default();
        let many = rest.partition_point(|key| key.kid() == Some(kid));
        rest.get(..many).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};

    use super::*;

    const ES256: Algorithm = Algorithm::ES256;

    fn points(count: usize) -> Vec<Vec<u8>> {
        let generate = |_| EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        (0..count).map(generate).map(|pair| pair.public_key().as_ref().to_vec()).collect()
    }

    fn key(kid: Option<&str>, point: &[u8]) -> VerificationKey {
        VerificationKey::public(kid, &[ES256], point).unwrap()
    }

    fn found(set: &KeySet, kid: Option<&str>, algorithm: Algorithm) -> usize {
        set.candidates(kid, algorithm).inspect(|key| assert!(kid.is_none() || key.kid() == kid)).count()
    }

    #[test]
    fn all_keys_of_a_kid_are_candidates() {
        let p = points(4);
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let other = VerificationKey::public(Some("b"), &[Algorithm::EdDSA], ed25519.public_key().as_ref());
        let set = KeySet::new(vec![
            key(Some("b"), &p[0]),
            key(None, &p[1]),
            key(Some("c"), &p[2]),
            key(Some("b"), &p[3]),
            other.unwrap(),
        ]);
        for (kid, algorithm, expected) in [
            (Some("b"), ES256, 2),
            (Some("b"), Algorithm::EdDSA, 1),
            (Some("b"), Algorithm::RS256, 0),
            (Some("c"), ES256, 1),
            (Some("c"), Algorithm::EdDSA, 0),
            (Some("a"), ES256, 0),
            (Some(""), ES256, 0),
            (Some("bb"), ES256, 0),
            (Some("d"), ES256, 0),
            (None, ES256, 4),
            (None, Algorithm::EdDSA, 1),
            (None, Algorithm::HS256, 0),
        ] {
            assert_eq!(found(&set, kid, algorithm), expected, "{kid:?} {algorithm:?}");
        }
        for (kid, known) in [("a", false), ("b", true), ("c", true), ("", false)] {
            assert_eq!(set.knows(kid), known, "{kid}");
        }
    }

    #[test]
    fn a_token_without_kid_is_tried_with_eight_keys_at_most() {
        let set = KeySet::new(points(9).iter().map(|point| key(None, point)).collect());
        assert_eq!(found(&set, None, ES256), 8);
    }

    #[test]
    fn a_secret_stands_for_any_kid() {
        let set = KeySet::of_secret(&[1; 32], &[Algorithm::HS256]).unwrap();
        assert!(set.knows("whatever"));
        assert_eq!(set.candidates(Some("whatever"), Algorithm::HS256).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::HS256).count(), 1);
        assert_eq!(set.candidates(None, Algorithm::HS512).count(), 0);
    }

    #[test]
    fn sets_are_compared_by_content_and_told_apart_by_generation() {
        let p = points(3);
        let set = |kids: &[(&str, usize)]| {
            KeySet::new(kids.iter().map(|(kid, i)| key(Some(kid), &p[*i])).collect())
        };
        let one = set(&[("a", 0), ("a", 1), ("b", 2)]);
        let same = set(&[("b", 2), ("a", 1), ("a", 0)]);
        assert!(one.same_as(&same), "the order does not matter");
        assert!(set(&[]).is_empty() && !one.is_empty());
        assert_ne!(one.generation(), same.generation());
        for other in [
            set(&[("a", 0), ("a", 1)]),
            set(&[("a", 0), ("a", 1), ("c", 2)]),
            set(&[("a", 0), ("a", 2), ("b", 1)]),
            set(&[]),
        ] {
            assert!(!one.same_as(&other), "{other:?}");
        }
        let secret = || KeySet::of_secret(&[1; 32], &[Algorithm::HS256]).unwrap();
        assert!(!secret().same_as(&secret()), "secrets are never taken to be equal");
    }
}
