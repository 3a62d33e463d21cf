//! Signing keys of every kind, and tokens of any shape: valid ones by default, invalid ones on request.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
};
use serde_json::{Map, Value, json};

use crate::{b64, now};

/// A key pair (or a shared secret) and its algorithm.
pub struct Signer {
    /// The id of the key in the issuer's set.
    pub kid: String,
    /// The algorithm it signs with by default.
    pub alg: &'static str,
    key: Key,
}

enum Key {
    Ecdsa(EcdsaKeyPair),
    Rsa(&'static RsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Secret(Vec<u8>),
}

impl Signer {
    /// Creates a key for `alg`. RSA keys are generated once per process, because that takes long: two
    /// signers share the pair.
    pub fn new(alg: &'static str, kid: &str) -> Self {
        let key = match alg {
            "ES256" => Key::Ecdsa(ecdsa(&signature::ECDSA_P256_SHA256_FIXED_SIGNING)),
            "ES384" => Key::Ecdsa(ecdsa(&signature::ECDSA_P384_SHA384_FIXED_SIGNING)),
            "ES512" => Key::Ecdsa(ecdsa(&signature::ECDSA_P521_SHA512_FIXED_SIGNING)),
            "EdDSA" => Key::Ed25519(Ed25519KeyPair::generate().unwrap()),
            "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" => Key::Rsa(rsa()),
            other => panic!("no signer for {other}"),
        };
        Self { kid: kid.to_owned(), alg, key }
    }

    /// Creates a shared secret for `HS256`, `HS384` or `HS512`.
    pub fn secret(alg: &'static str, secret: &[u8]) -> Self {
        Self { kid: "secret".to_owned(), alg, key: Key::Secret(secret.to_vec()) }
    }

    /// Signs `message` with `alg`, which must be of the key's family.
    pub fn sign_as(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match &self.key {
            Key::Ecdsa(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Key::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Key::Secret(secret) => {
                let digest = match alg {
                    "HS256" => hmac::HMAC_SHA256,
                    "HS384" => hmac::HMAC_SHA384,
                    "HS512" => hmac::HMAC_SHA512,
                    other => panic!("a secret does not sign {other}"),
                };
                hmac::sign(&hmac::Key::new(digest, secret), message).as_ref().to_vec()
            }
            Key::Rsa(pair) => {
                let padding: &'static dyn RsaEncoding = match alg {
                    "RS256" => &signature::RSA_PKCS1_SHA256,
                    "RS384" => &signature::RSA_PKCS1_SHA384,
                    "RS512" => &signature::RSA_PKCS1_SHA512,
                    "PS256" => &signature::RSA_PSS_SHA256,
                    "PS384" => &signature::RSA_PSS_SHA384,
                    "PS512" => &signature::RSA_PSS_SHA512,
                    other => panic!("an RSA key does not sign {other}"),
                };
                let mut made = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut made).unwrap();
                made
            }
        }
    }

    /// The public key as a JWK.
    pub fn jwk(&self) -> Value {
        let mut jwk = match &self.key {
            Key::Ecdsa(pair) => {
                let point = &pair.public_key().as_ref()[1..];
                let (x, y) = point.split_at(point.len() / 2);
                let curve = match x.len() {
                    32 => "P-256",
                    48 => "P-384",
                    _ => "P-521",
                };
                json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
            }
            Key::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key().as_ref())})
            }
            Key::Rsa(pair) => json!({
                "kty": "RSA",
                "n": b64(pair.public_key().modulus().big_endian_without_leading_zero()),
                "e": b64(pair.public_key().exponent().big_endian_without_leading_zero()),
            }),
            Key::Secret(secret) => json!({"kty": "oct", "k": b64(secret)}),
        };
        jwk["kid"] = json!(self.kid);
        jwk["alg"] = json!(self.alg);
        jwk["use"] = json!("sig");
        jwk
    }

    /// The bytes of the public key that an attacker might use as an HMAC secret: X.509 DER and its PEM.
    pub fn public_forms(&self) -> Vec<Vec<u8>> {
        use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
        use base64::Engine as _;
        let der: Vec<u8> = match &self.key {
            Key::Ecdsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Key::Rsa(pair) => {
                AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec()
            }
            Key::Ed25519(pair) => pair.public_key().as_ref().to_vec(),
            Key::Secret(_) => Vec::new(),
        };
        let body = base64::engine::general_purpose::STANDARD.encode(&der);
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----", lines.join("\n"));
        vec![der, format!("{pem}\n").into_bytes(), pem.into_bytes(), self.jwk().to_string().into_bytes()]
    }
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm) -> EcdsaKeyPair {
    EcdsaKeyPair::generate(algorithm).unwrap()
}

fn rsa() -> &'static RsaKeyPair {
    static PAIR: OnceLock<RsaKeyPair> = OnceLock::new();
    PAIR.get_or_init(|| RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
}

/// An issuer of tokens with one or several keys.
pub struct Issuer {
    /// The `iss` of its tokens.
    pub name: String,
    /// The `aud` of its tokens.
    pub audience: String,
    /// Its keys; the first signs.
    pub signers: Vec<Signer>,
}

impl Issuer {
    /// Creates an issuer with one ES256 key.
    pub fn new() -> Self {
        Self::named("https://idp.example.com/")
    }

    /// Creates an issuer with this name and one ES256 key.
    pub fn named(name: &str) -> Self {
        Self::with(name, vec![Signer::new("ES256", "key-1")])
    }

    /// Creates an issuer with these keys.
    pub fn with(name: &str, signers: Vec<Signer>) -> Self {
        Self { name: name.to_owned(), audience: "https://api.example.com".to_owned(), signers }
    }

    /// Its name in a form for file names.
    pub fn slug(&self) -> String {
        self.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
    }

    /// Its key set (RFC 7517 §5).
    pub fn jwks(&self) -> Value {
        json!({"keys": self.signers.iter().map(Signer::jwk).collect::<Vec<_>>()})
    }

    /// A valid token with a lifetime of an hour, for `alice` through the client `app`, with the scope `read:deals`.
    pub fn token(&self) -> Token<'_> {
        self.token_by(&self.signers[0])
    }

    /// Like [`Self::token`], signed with another key.
    pub fn token_by<'a>(&self, signer: &'a Signer) -> Token<'a> {
        let header = json!({"alg": signer.alg, "kid": signer.kid, "typ": "at+jwt"});
        let claims = json!({
            "iss": self.name, "aud": self.audience, "sub": "alice", "client_id": "app", "scope": "read:deals",
            "iat": now(), "exp": now() + 3600, "jti": unique(),
        });
        Token { signer, header: object(header), claims: object(claims) }
    }

    /// A valid token, ready to send.
    pub fn good(&self) -> String {
        self.token().build()
    }
}

/// 16 random bytes as hex digits.
pub fn unique() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).unwrap();
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// What logs contain instead of a token's `jti` or a subject: 12 hexadecimal digits of SHA-256 of issuer, newline, name.
pub fn log_hash(issuer: &str, name: &str) -> String {
    let text = format!("{issuer}\n{name}");
    hex(&digest::digest(&digest::SHA256, text.as_bytes()).as_ref()[..6])
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("not an object: {other}"),
    }
}

/// A builder for a token.
#[derive(Clone)]
pub struct Token<'a> {
    signer: &'a Signer,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl<'a> Token<'a> {
    /// Sets a claim.
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a header parameter.
    pub fn head(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a header parameter.
    pub fn headless(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with another key, without changing the header.
    pub fn signed_by(mut self, signer: &'a Signer) -> Self {
        self.signer = signer;
        self
    }

    /// The header's JSON.
    pub fn header_json(&self) -> String {
        Value::Object(self.header.clone()).to_string()
    }

    /// The payload's JSON.
    pub fn claims_json(&self) -> String {
        Value::Object(self.claims.clone()).to_string()
    }

    /// The compact form.
    pub fn build(&self) -> String {
        self.raw(self.header_json().as_bytes(), self.claims_json().as_bytes())
    }

    /// The compact form of exactly these bytes, with a valid signature.
    pub fn raw(&self, header: &[u8], payload: &[u8]) -> String {
        compact(self.signer, self.signer.alg, header, payload)
    }

    /// The compact form with members appended to the payload's JSON.
    pub fn with_members(&self, members: &str) -> String {
        let claims = self.claims_json();
        let text = format!("{},{members}}}", claims.strip_suffix('}').unwrap());
        self.raw(self.header_json().as_bytes(), text.as_bytes())
    }

    /// The compact form with members appended to the header's JSON.
    pub fn with_header_members(&self, members: &str) -> String {
        let header = self.header_json();
        let text = format!("{},{members}}}", header.strip_suffix('}').unwrap());
        self.raw(text.as_bytes(), self.claims_json().as_bytes())
    }

    /// The compact form after a text replacement in the payload's JSON, with a valid signature.
    pub fn with_text(&self, from: &str, to: &str) -> String {
        let claims = self.claims_json();
        assert!(claims.contains(from), "{from} is not in {claims}");
        self.raw(self.header_json().as_bytes(), claims.replacen(from, to, 1).as_bytes())
    }
}

/// The compact form of these bytes, signed by `signer` with `alg`.
pub fn compact(signer: &Signer, alg: &str, header: &[u8], payload: &[u8]) -> String {
    let input = format!("{}.{}", b64(header), b64(payload));
    let made = signer.sign_as(alg, input.as_bytes());
    format!("{input}.{}", b64(made))
}

/// The other signature of the same ES256 message: `(r, n − s)` verifies wherever `(r, s)` does.
pub fn twin(token: &str) -> String {
    use base64::Engine as _;
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
        0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let (input, made) = token.rsplit_once('.').unwrap();
    let mut made = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(made).unwrap();
    let mut borrow = 0i16;
    for at in (0..32).rev() {
        let difference = i16::from(ORDER[at]) - i16::from(made[32 + at]) - borrow;
        borrow = i16::from(difference < 0);
        made[32 + at] = u8::try_from(difference.rem_euclid(256)).unwrap();
    }
    format!("{input}.{}", b64(made))
}
