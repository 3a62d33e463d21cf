//! Client authentication: reads the client id and secret from HTTP Basic or the request body, and verifies them.

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::Authority;
use super::directory::{Credential, User};
use super::error::OauthError;
use super::form::{FormFields, decode};
use super::secret::SecretHash;
use super::throttle::Attempt;
use crate::time::Now;

/// Basic credentials are padded; some clients leave the padding out, and it means nothing.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// An id and a secret, as they may be meant.
struct IdAndSecret {
    client_id: String,
    secret: Zeroizing<String>,
}

/// A client that has authenticated, with its owner.
#[derive(Debug)]
pub(super) struct AuthenticatedClient {
    pub(super) credential: Arc<Credential>,
    pub(super) owner: Arc<User>,
}

impl Authority {
    /// The client that asks. `tenant` is what it must belong to, if that is to be judged.
    ///
    /// The secret is checked first and a right one passes, whatever others have guessed: limits that also held for right
    /// secrets would let anyone who knows a client id, or shares an address, shut the client out. Limits cannot protect
    /// 256 random bits any further, and checking costs less than they would save: at most four SHA-256 over a few
    /// hundred bytes, a small part of what reading the request costs.
    ///
    /// Whatever is wrong, the answer and the way to it are the same: as many hashes, and a failure on both counts.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        form: &FormFields,
        tenant: Option<&str>,
        address: IpAddr,
        now: Now,
    ) -> Result<AuthenticatedClient, OauthError> {
        let pairs = presented(headers, form)?;
        for IdAndSecret { client_id, secret } in &pairs {
            let Some((credential, owner)) = self.directory.client(client_id) else {
                // As long as it takes with a client: its secret and the one before.
                let _ = SecretHash::NOBODY.matches(secret) | SecretHash::NOBODY.matches(secret);
                continue;
            };
            let belongs = tenant.is_none_or(|tenant| credential.tenant.as_deref() == Some(tenant));
            let may_come_in = owner.is_active & !credential.is_expired(now.wall);
            if credential.proves(secret, now.wall) & belongs & may_come_in {
                return Ok(AuthenticatedClient { credential, owner });
            }
        }
        let named = pairs.first().map_or("", |pair| pair.client_id.as_str());
        let attempt = Attempt::new(&self.settings().issuer, named, address);
        self.throttle.load().fail(attempt, now.monotonic).map_err(OauthError::TooMany)?;
        Err(OauthError::Client)
    }
}

/// The client that is named, which nothing has proved.
pub(super) fn named(headers: &HeaderMap, form: &FormFields) -> Option<String> {
    presented(headers, form).ok()?.into_iter().next().map(|pair| pair.client_id)
}

/// The one pair that is presented, in each way it can be read.
fn presented(headers: &HeaderMap, form: &FormFields) -> Result<Vec<IdAndSecret>, OauthError> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (field, more) = (fields.next(), fields.next().is_some());
    if more {
        return Err(OauthError::Request("The request has more than one Authorization header"));
    }
    let in_body = (form.get("client_id"), form.get("client_secret"));
    let Some(field) = field else {
        let (Some(client_id), Some(secret)) = in_body else { return Err(OauthError::NoClient) };
        return Ok(vec![IdAndSecret {
            client_id: client_id.to_owned(),
            secret: Zeroizing::new(secret.to_owned()),
        }]);
    };
    let pairs = basic(field.as_bytes()).ok_or(OauthError::NoClient)?;
    // RFC 6749 §2.3: one method in each request. Repeating one's id is not a second method.
    let same = |id: &str| pairs.iter().any(|pair| pair.client_id == id);
    match in_body {
        (_, Some(_)) => Err(OauthError::Request("The client uses more than one authentication method")),
        (Some(id), None) if !same(id) => Err(OauthError::Request("The request names two different clients")),
        (_, None) => Ok(pairs),
    }
}

/// RFC 7617, with both halves form-encoded as RFC 6749 §2.3.1 asks; and as they are, because not all clients do that.
fn basic(field: &[u8]) -> Option<Vec<IdAndSecret>> {
    let (scheme, rest) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = Zeroizing::new(BASE64.decode(rest.trim_ascii()).ok()?);
    let (id, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    let raw = IdAndSecret { client_id: id.to_owned(), secret: Zeroizing::new(secret.to_owned()) };
    let Some((id, secret)) = decode(id).zip(decode(secret)) else { return Some(vec![raw]) };
    let decoded = IdAndSecret { client_id: id.into_owned(), secret: Zeroizing::new(secret.into_owned()) };
    let same = decoded.client_id == raw.client_id
        && verify_slices_are_equal(decoded.secret.as_bytes(), raw.secret.as_bytes()).is_ok();
    Some(if same { vec![raw] } else { vec![decoded, raw] })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    fn read(headers: &HeaderMap, body: &str) -> Result<Vec<(String, String)>, OauthError> {
        let pairs = presented(headers, &FormFields::parse(body.as_bytes()).unwrap())?;
        Ok(pairs.into_iter().map(|pair| (pair.client_id, pair.secret.to_string())).collect())
    }

    #[test]
    fn one_pair_is_read_from_the_header_or_the_body() {
        let pair = |id: &str, secret: &str| (id.to_owned(), secret.to_owned());
        let none = HeaderMap::new();
        assert_eq!(read(&none, "client_id=a&client_secret=b%2B"), Ok(vec![pair("a", "b+")]));
        let encode = |text: &str| format!("bASIC {}", BASE64.encode(text));
        assert_eq!(read(&header(&encode("a:b:c")), ""), Ok(vec![pair("a", "b:c")]));
        assert_eq!(read(&header(&encode("a:b")), "client_id=a"), Ok(vec![pair("a", "b")]));
        assert_eq!(read(&header(&encode("a:b%2B+")), ""), Ok(vec![pair("a", "b+ "), pair("a", "b%2B+")]));
        assert_eq!(read(&header(&encode("a:100%")), ""), Ok(vec![pair("a", "100%")]), "no escape: as it is");
        assert_eq!(
            read(&header("Basic YTpiYw"), ""),
            read(&header("Basic YTpiYw=="), ""),
            "padding means nothing"
        );
    }

    #[test]
    fn two_ways_at_once_and_half_a_pair_are_refused() {
        let none = HeaderMap::new();
        for body in ["", "client_id=a", "client_secret=b", "client_id=a&client_secret="] {
            assert_eq!(read(&none, body), Err(OauthError::NoClient), "{body}");
        }
        for value in ["Bearer x", "Basic", "Basic !", "Basic YQ==", "Basic /zph"] {
            assert_eq!(
                read(&header(value), "client_id=a&client_secret=b"),
                Err(OauthError::NoClient),
                "{value}"
            );
        }
        let basic = header("Basic YTpi");
        for body in ["client_id=a&client_secret=b", "client_secret=b", "client_id=c"] {
            assert!(matches!(read(&basic, body), Err(OauthError::Request(_))), "{body}");
        }
        let mut twice = basic;
        twice.append(AUTHORIZATION, "Basic YTpi".parse().unwrap());
        assert!(matches!(read(&twice, ""), Err(OauthError::Request(_))));
    }
}
