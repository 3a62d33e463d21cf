//! One verification key, parsed once when its set arrives.
//!
//! This module knows algorithms and bytes, but neither JSON nor tokens.

use std::fmt;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, VerificationAlgorithm,
};
use jsonwebtoken::Algorithm;

/// A key, its `kid`, and the algorithms it may be used with.
pub struct VerificationKey {
    kid: Option<Box<str>>,
    verifiers: Vec<(Algorithm, KeyVerifier)>,
}

/// A key prepared for one algorithm: the library binds a parsed key to an algorithm, so a key has one of
/// these for each.
enum KeyVerifier {
    Public(ParsedPublicKey),
    /// Boxed because it is twenty times as large as the other variant.
    Secret(Box<hmac::Key>),
}

/// A symmetric key shorter than the hash of its algorithm (RFC 7518 §3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortSecret {
    /// The algorithm that needs a longer secret.
    pub algorithm: Algorithm,
    /// How many bytes it needs.
    pub needed: usize,
}

impl VerificationKey {
    /// Parses a public key: `encoded` is a `SubjectPublicKeyInfo` in DER for RSA, the uncompressed point for
    /// EC, or the 32 bytes of RFC 8032 for Ed25519. Returns `None` if it is none of these, or if `algorithms`
    /// is empty or contains one of another key type.
    #[must_use]
    pub fn public(kid: Option<&str>, algorithms: &[Algorithm], encoded: &[u8]) -> Option<Self> {
        let parse = |&algorithm: &Algorithm| {
            let parsed = ParsedPublicKey::new(verification(algorithm)?, encoded).ok()?;
            Some((algorithm, KeyVerifier::Public(parsed)))
        };
        let verifiers = algorithms.iter().map(parse).collect::<Option<Vec<_>>>()?;
        (!verifiers.is_empty()).then(|| Self { kid: kid.map(Into::into), verifiers })
    }

    /// A symmetric key for those of `algorithms` that are HS256, HS384 or HS512.
    ///
    /// # Errors
    /// When the secret is shorter than the hash of one of them.
    pub fn secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<Self, ShortSecret> {
        check_secret(secret, algorithms)?;
        let hashes = algorithms.iter().filter_map(|&algorithm| Some((algorithm, hash(algorithm)?)));
        let verifiers = hashes
            .map(|(a, hash)| (a, KeyVerifier::Secret(Box::new(hmac::Key::new(hash, secret)))))
            .collect();
        Ok(Self { kid: None, verifiers })
    }

    /// The `kid` of RFC 7517 §4.5.
    #[must_use]
    pub fn kid(&self) -> Option<&str> {
        self.kid.as_deref()
    }

    /// Whether the key may be used with `algorithm`.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|(own, _)| *own == algorithm)
    }

    /// Whether `signature` is this key's signature of `message` under `algorithm`; false for an algorithm that the
    /// key may not be used with. ECDSA signatures are R||S of fixed length (RFC 7518 §3.4).
    #[must_use]
    pub fn verify(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        self.verifiers.iter().find(|(own, _)| *own == algorithm).is_some_and(|(_, verifier)| match verifier {
            KeyVerifier::Public(key) => key.verify_sig(message, signature).is_ok(),
            KeyVerifier::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        })
    }

    /// The value by which keys are sorted and compared: `kid` and public bytes, nothing of a secret.
    pub(super) fn content(&self) -> (Option<&str>, &[u8]) {
        let bytes = self.verifiers.iter().find_map(|(_, verifier)| match verifier {
            KeyVerifier::Public(key) => Some(key.as_ref()),
            KeyVerifier::Secret(_) => None,
        });
        (self.kid(), bytes.unwrap_or_default())
    }

    /// Whether both keys verify exactly the same signatures; secrets are never considered equal.
    pub(super) fn same_as(&self, other: &Self) -> bool {
        // A secret has no content that a public key could have.
        let is_public = self.verifiers.iter().all(|(_, verifier)| matches!(verifier, KeyVerifier::Public(_)));
        is_public && self.content() == other.content() && self.algorithms().eq(other.algorithms())
    }

    fn algorithms(&self) -> impl Iterator<Item = Algorithm> {
        self.verifiers.iter().map(|(algorithm, _)| *algorithm)
    }
}

impl fmt::Debug for VerificationKey {
    /// Never prints a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let algorithms: Vec<_> = self.algorithms().collect();
        f.debug_struct("VerificationKey").field("kid", &self.kid).field("algorithms", &algorithms).finish()
    }
}

/// Whether `secret` is long enough for every symmetric algorithm in `algorithms`.
///
/// # Errors
/// The first algorithm whose hash is longer than the secret.
pub fn check_secret(secret: &[u8], algorithms: &[Algorithm]) -> Result<(), ShortSecret> {
    for &algorithm in algorithms {
        let needed = hash(algorithm).map_or(0, |hash| hash.digest_algorithm().output_len());
        if secret.len() < needed {
            return Err(ShortSecret { algorithm, needed });
        }
    }
    Ok(())
}

impl fmt::Display for ShortSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} needs a secret of at least {} bytes (RFC 7518 §3.2)", self.algorithm, self.needed)
    }
}

impl std::error::Error for ShortSecret {}

fn hash(algorithm: Algorithm) -> Option<hmac::Algorithm> {
    match algorithm {
        Algorithm::HS256 => Some(hmac::HMAC_SHA256),
        Algorithm::HS384 => Some(hmac::HMAC_SHA384),
        Algorithm::HS512 => Some(hmac::HMAC_SHA512),
        _ => None,
    }
}

fn verification(algorithm: Algorithm) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &RSA_PSS_2048_8192_SHA512,
        Algorithm::ES256 => &ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &ED25519,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::encoding::AsDer;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
    use jsonwebtoken::AlgorithmFamily;

    use super::*;

    const MESSAGE: &[u8] = b"header.payload";
    const SECRET: &[u8] = &[7; 64];

    /// A key with all algorithms it can have, and a signature under each.
    struct Specimen {
        key: VerificationKey,
        made: Vec<(Algorithm, Vec<u8>)>,
    }

    fn specimens() -> [Specimen; 5] {
        let rng = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let rsa_signature = |encoding: &'static dyn signature::RsaEncoding| {
            let mut out = vec![0; rsa.public_modulus_len()];
            rsa.sign(encoding, &rng, MESSAGE, &mut out).unwrap();
            out
        };
        let p256 = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let p384 = EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let ed25519 = Ed25519KeyPair::generate().unwrap();
        let hmac = |hash| hmac::sign(&hmac::Key::new(hash, SECRET), MESSAGE).as_ref().to_vec();
        let public = |algorithms: &[Algorithm], encoded: &[u8]| {
            VerificationKey::public(None, algorithms, encoded).unwrap()
        };
        let rsa_made = vec![
            (Algorithm::RS256, rsa_signature(&signature::RSA_PKCS1_SHA256)),
            (Algorithm::RS384, rsa_signature(&signature::RSA_PKCS1_SHA384)),
            (Algorithm::RS512, rsa_signature(&signature::RSA_PKCS1_SHA512)),
            (Algorithm::PS256, rsa_signature(&signature::RSA_PSS_SHA256)),
            (Algorithm::PS384, rsa_signature(&signature::RSA_PSS_SHA384)),
            (Algorithm::PS512, rsa_signature(&signature::RSA_PSS_SHA512)),
        ];
        let p256_made = vec![(Algorithm::ES256, p256.sign(&rng, MESSAGE).unwrap().as_ref().to_vec())];
        let p384_made = vec![(Algorithm::ES384, p384.sign(&rng, MESSAGE).unwrap().as_ref().to_vec())];
        let ed25519_made = vec![(Algorithm::EdDSA, ed25519.sign(MESSAGE).as_ref().to_vec())];
        let hmac_made = vec![
            (Algorithm::HS256, hmac(hmac::HMAC_SHA256)),
            (Algorithm::HS384, hmac(hmac::HMAC_SHA384)),
            (Algorithm::HS512, hmac(hmac::HMAC_SHA512)),
        ];
        let rsa_der = rsa.public_key().as_der().unwrap();
        let secret = VerificationKey::secret(SECRET, AlgorithmFamily::Hmac.algorithms()).unwrap();
        [
            Specimen { key: public(AlgorithmFamily::Rsa.algorithms(), rsa_der.as_ref()), made: rsa_made },
            Specimen { key: public(&[Algorithm::ES256], p256.public_key().as_ref()), made: p256_made },
            Specimen { key: public(&[Algorithm::ES384], p384.public_key().as_ref()), made: p384_made },
            Specimen { key: public(&[Algorithm::EdDSA], ed25519.public_key().as_ref()), made: ed25519_made },
            Specimen { key: secret, made: hmac_made },
        ]
    }

    #[test]
    fn only_public_keys_with_the_same_bytes_and_algorithms_are_the_same() {
        let specimens = specimens();
        for (number, one) in specimens.iter().enumerate() {
            for (other_number, other) in specimens.iter().enumerate() {
                let is_public = !matches!(one.key.verifiers[0].1, KeyVerifier::Secret(_));
                let expected = number == other_number && is_public;
                assert_eq!(one.key.same_as(&other.key), expected, "{number} {other_number}");
            }
        }
        let rsa = &specimens[0].key;
        let KeyVerifier::Public(bytes) = &rsa.verifiers[0].1 else { panic!("a public key") };
        let fewer = VerificationKey::public(None, &[Algorithm::RS256], bytes.as_ref()).unwrap();
        assert!(!rsa.same_as(&fewer) && !fewer.same_as(rsa) && fewer.same_as(&fewer));
    }

    #[test]
    fn a_signature_proves_its_message_its_key_and_its_algorithm_only() {
        let specimens = specimens();
        let mut made_with = Vec::new();
        for (owner, specimen) in specimens.iter().enumerate() {
            made_with
                .extend(specimen.made.iter().map(|(algorithm, signature)| (owner, *algorithm, signature)));
        }
        assert_eq!(made_with.len(), 12);
        for (owner, algorithm, signature) in &made_with {
            for (holder, claimed, _) in &made_with {
                let proved = specimens[*holder].key.verify(*claimed, MESSAGE, signature);
                assert_eq!(proved, owner == holder && algorithm == claimed, "{algorithm:?} as {claimed:?}");
            }
        }
    }

    #[test]
    fn a_damaged_signature_proves_nothing() {
        for Specimen { key, made } in specimens() {
            for (algorithm, signature) in made {
                assert!(
                    !key.verify(algorithm, b"header.Payload", &signature),
                    "{algorithm:?}: other message"
                );
                let mut damaged = signature.clone();
                damaged[0] ^= 1;
                let longer = [signature.as_slice(), &[0]].concat();
                for bad in [&[], &signature[1..], &signature[..signature.len() - 1], &damaged, &longer] {
                    assert!(!key.verify(algorithm, MESSAGE, bad), "{algorithm:?}: {} bytes", bad.len());
                }
            }
        }
    }

    #[test]
    fn ecdsa_signatures_have_the_fixed_form() {
        let rng = SystemRandom::new();
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let key = VerificationKey::public(None, &[Algorithm::ES256], pair.public_key().as_ref()).unwrap();
        let der = pair.sign(&rng, MESSAGE).unwrap();
        assert!(!key.verify(Algorithm::ES256, MESSAGE, der.as_ref()), "a DER signature");
        assert!(!key.verify(Algorithm::ES256, MESSAGE, &[0; 64]), "R = S = 0");
        assert!(!key.verify(Algorithm::ES256, MESSAGE, &[0xff; 64]), "R and S above the order");
    }

    #[test]
    fn a_key_needs_algorithms_of_its_kind() {
        let pair = EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        for algorithms in [
            &[][..],
            &[Algorithm::ES384],
            &[Algorithm::HS256],
            &[Algorithm::RS256],
            &[Algorithm::EdDSA],
            &[Algorithm::ES256, Algorithm::HS256],
        ] {
            assert!(
                VerificationKey::public(None, algorithms, pair.public_key().as_ref()).is_none(),
                "{algorithms:?}"
            );
        }
    }

    #[test]
    fn a_secret_is_as_long_as_its_hash() {
        for (algorithm, needed) in [(Algorithm::HS256, 32), (Algorithm::HS384, 48), (Algorithm::HS512, 64)] {
            assert_eq!(check_secret(&vec![1; needed], &[algorithm]), Ok(()));
            let short = ShortSecret { algorithm, needed };
            assert_eq!(check_secret(&vec![1; needed - 1], &[algorithm]), Err(short));
            assert_eq!(VerificationKey::secret(b"", &[algorithm]).unwrap_err(), short);
            let text = format!("{algorithm:?} needs a secret of at least {needed} bytes (RFC 7518 §3.2)");
            assert_eq!(short.to_string(), text);
        }
        assert!(check_secret(&[1; 32], &[Algorithm::HS256, Algorithm::HS512]).is_err());
    }

    #[test]
    fn nothing_prints_a_secret() {
        let key = VerificationKey::secret(b"0123456789abcdef0123456789abcdef", &[Algorithm::HS256]).unwrap();
        assert_eq!(format!("{key:?}"), "VerificationKey { kid: None, algorithms: [HS256] }");
        assert_eq!(key.content(), (None, &[][..]));
    }
}
