//! Proofs of possession (RFC 9449): valid ones by default, invalid ones on request.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use crate::tokens::{Signer, compact, unique};
use crate::{b64, now};

/// A builder for a proof.
#[derive(Clone)]
pub struct DpopProof<'a> {
    signer: &'a Signer,
    header: Map<String, Value>,
    claims: Map<String, Value>,
}

impl Signer {
    /// Its public key with only the required members.
    pub fn bare_jwk(&self) -> Value {
        let mut jwk = self.jwk();
        let members = jwk.as_object_mut().unwrap();
        members.retain(|name, _| ["crv", "e", "k", "kty", "n", "x", "y"].contains(&name.as_str()));
        jwk
    }

    /// The RFC 7638 thumbprint in base64url: the `jkt` of tokens that are bound to it.
    pub fn thumbprint(&self) -> String {
        // `serde_json` sorts members and writes no white space.
        b64(digest(&SHA256, self.bare_jwk().to_string().as_bytes()))
    }

    /// A valid proof for a request with this token; without a token, for a token request.
    pub fn proof(&self, method: &str, url: &str, token: Option<&str>) -> DpopProof<'_> {
        let header = json!({ "typ": "dpop+jwt", "alg": self.alg, "jwk": self.bare_jwk() });
        let mut claims = json!({ "jti": unique(), "htm": method, "htu": url, "iat": now() });
        if let Some(token) = token {
            claims["ath"] = json!(b64(digest(&SHA256, token.as_bytes())));
        }
        let [header, claims] = [header, claims].map(|value| value.as_object().unwrap().clone());
        DpopProof { signer: self, header, claims }
    }
}

impl<'a> DpopProof<'a> {
    /// Sets a claim.
    #[must_use]
    pub fn claim(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.claims.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a claim.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.claims.remove(name);
        self
    }

    /// Sets a member of the header.
    #[must_use]
    pub fn head(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.header.insert(name.to_owned(), value.into());
        self
    }

    /// Removes a member of the header.
    #[must_use]
    pub fn headless(mut self, name: &str) -> Self {
        self.header.remove(name);
        self
    }

    /// Signs with another key.
    #[must_use]
    pub fn signed_by(mut self, signer: &'a Signer) -> Self {
        self.signer = signer;
        self
    }

    /// The value of the header field.
    pub fn build(&self) -> String {
        let text = |members: &Map<String, Value>| Value::Object(members.clone()).to_string();
        compact(self.signer, self.signer.alg, text(&self.header).as_bytes(), text(&self.claims).as_bytes())
    }
}
