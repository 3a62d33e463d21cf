//! The claims of a token: parsed once, strictly, with the rules of its issuer.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::conditions::ClaimCondition;
use super::conditions::table::ConditionTable;
use super::denial::Reason;
use super::dpop::SenderConstraint;
use super::identity::{self, TooLong};
use super::policy::{ClaimName, IdentitySettings};
use super::spiffe;
use super::standing::TokenStanding;
use super::token::{Confirmation, IssuerIndex, TokenId, Validity, VerifiedToken, Words, fingerprint};
use crate::identity::{ClientKey, IssuerKey, Key, SubjectKey, TokenKey, TokenNames};
use crate::jose::jws::{self, Jws};
use crate::revocations::TokenFacts;
use crate::time::Timestamp;

pub(super) mod lists;

/// The rules for an issuer's tokens (`[[issuers]]`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IssuerRules {
    /// The value that `iss` must equal exactly.
    pub issuer: Arc<str>,
    /// If set, the tokens are JWT-SVIDs of this SPIFFE trust domain, which must equal that of `sub`; `issuer`
    /// is then only its name in events and metrics, and `iat` may be absent.
    pub trust_domain: Option<Box<str>>,
    /// One of these must be in `aud`.
    pub audiences: Vec<String>,
    /// URLs of resources for which it issues tokens. Such a token is accepted only on routes of its resource.
    pub resources: Vec<String>,
    /// The algorithms its tokens may be signed with.
    pub algorithms: Vec<Algorithm>,
    /// Allowed clock difference for `exp`, `nbf` and `iat`.
    pub leeway: Duration,
    /// Maximum of `exp − iat`.
    pub max_lifetime: Duration,
    /// Values of the header's `typ` that are accepted, compared without case; an absent `typ` counts as `JWT`.
    pub token_types: Vec<String>,
    /// Claims that must be present besides `exp` and `iat`.
    pub required_claims: Vec<String>,
    /// What its tokens must be bound to.
    pub sender_constraint: SenderConstraint,
    /// Where the claims that Portcullis uses are found.
    pub claims: ClaimNames,
    /// The conditions that its tokens must meet on every route.
    pub conditions: Vec<ClaimCondition>,
}

/// Where the claims that Portcullis uses are found (`[issuers.claims]`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// The subject.
    pub subject: ClaimName,
    /// The login session that the token belongs to.
    pub session: ClaimName,
    /// The token's identifier.
    pub token_id: ClaimName,
    /// The audience.
    pub audience: ClaimName,
    /// The subject's e-mail address.
    pub email: Option<ClaimName>,
    /// Other names of the subject.
    pub aliases: Vec<ClaimName>,
    /// Scopes: each claim is a space-delimited string or an array; the union counts.
    pub scope: Vec<ClaimName>,
    /// Roles: each claim is an array, a string that is one role, or an object whose member names are roles;
    /// the union counts.
    pub roles: Vec<ClaimName>,
    /// The client.
    pub client: ClaimName,
    /// The tenant.
    pub tenant: ClaimName,
    /// The version of the subject's roles.
    pub role_version: ClaimName,
}

impl Default for ClaimNames {
    /// The standard names.
    fn default() -> Self {
        let member = |name: &str| ClaimName::Member(name.to_owned());
        Self {
            subject: member("sub"),
            session: member("sid"),
            token_id: member("jti"),
            audience: member("aud"),
            email: None,
            aliases: Vec::new(),
            scope: vec![member("scope")],
            roles: vec![member("roles")],
            client: member("client_id"),
            tenant: member("tenant"),
            role_version: member("role_version"),
        }
    }
}

/// What is wrong with the claims of a token whose signature is valid. The client only sees
/// [`Reason::BadClaim`]; an explanation names the claim.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct UnusableToken(pub(super) String);

impl From<UnusableToken> for Reason {
    fn from(_: UnusableToken) -> Self {
        Self::BadClaim
    }
}

/// The last second of the year 9999; a `NumericDate` further from the epoch is invalid.
const LAST_SECOND: f64 = 253_402_300_799.0;

impl IssuerRules {
    pub(super) fn check_type(&self, jws: &Jws<'_>) -> Result<(), Reason> {
        let is_listed = |typ: &&str| self.token_types.iter().any(|listed| listed.eq_ignore_ascii_case(typ));
        jws.token_type().filter(is_listed).ok_or(Reason::WrongType)?;
        // A SET whose `typ` says JWT is still a SET (RFC 8417 §2.2, §4.2), as is a logout token.
        if jws.payload.get("events").is_some_and(Value::is_object) { Err(Reason::WrongType) } else { Ok(()) }
    }

    pub(super) fn check_algorithm(&self, jws: &Jws<'_>) -> Result<Algorithm, Reason> {
        jws.algorithm().filter(|alg| self.algorithms.contains(alg)).ok_or(Reason::BadAlgorithm)
    }

    pub(super) fn check_lifetime(&self, validity: Validity) -> Result<(), Reason> {
        if validity.expires_at <= validity.issued_at {
            return Err(Reason::BadClaim);
        }
        let too_long = validity.expires_at.since(validity.issued_at) > self.max_lifetime;
        if too_long { Err(Reason::TooLongLived) } else { Ok(()) }
    }

    pub(super) fn check_required(&self, payload: &Map<String, Value>) -> Result<(), Reason> {
        if self.missing(payload).next().is_none() { Ok(()) } else { Err(Reason::MissingClaim) }
    }

    /// The required claims that are absent.
    pub(super) fn missing<'r>(&'r self, payload: &'r Map<String, Value>) -> impl Iterator<Item = &'r str> {
        let is_absent = |name: &&str| matches!(payload.get(*name), None | Some(Value::Null));
        self.required_claims.iter().map(String::as_str).filter(is_absent)
    }

    /// Checks the audience: a string or an array of strings, one of them ours (RFC 7519 §4.1.3).
    pub(super) fn check_audience(&self, payload: &Map<String, Value>) -> Result<(), Reason> {
        let named = self.named_audiences(payload).ok_or(Reason::BadClaim)?;
        let is_resource = |one: &&str| self.resources.iter().any(|url| url == one);
        if self.has_own(&named) || named.iter().any(is_resource) {
            Ok(())
        } else {
            Err(Reason::WrongAudience)
        }
    }

    /// Whether one of these audiences is configured for the issuer.
    fn has_own(&self, named: &[&str]) -> bool {
        named.iter().any(|one| self.audiences.iter().any(|ours| ours == one))
    }

    /// Whether a token is for one of `audiences`.
    pub(super) fn names_audience(&self, payload: &Map<String, Value>, audiences: &[String]) -> bool {
        let is_one = |one: &&str| audiences.iter().any(|audience| audience == one);
        self.named_audiences(payload).is_some_and(|named| named.iter().any(is_one))
    }

    /// The audiences of a token; `None` if they are neither a string nor an array of strings.
    fn named_audiences<'p>(&self, payload: &'p Map<String, Value>) -> Option<Vec<&'p str>> {
        let audience = self.claims.audience.find(payload);
        audience.map_or(Some(Vec::new()), |aud| {
            aud.as_str().map_or_else(|| lists::strings(aud), |one| Some(vec![one]))
        })
    }

    /// Reads the claims of a token whose signature is valid.
    ///
    /// # Errors
    /// [`UnusableToken`] for a claim of the wrong type, a `cnf` with members other than `x5t#S256` and `jkt`,
    /// and an identity header that would be too long.
    pub(super) fn read(
        &self,
        issuer: IssuerIndex,
        jws: &Jws<'_>,
        validity: Validity,
        identity: &IdentitySettings,
        conditions: &ConditionTable,
    ) -> Result<VerifiedToken, UnusableToken> {
        let payload = &jws.payload;
        let names = &self.claims;
        if self.trust_domain.is_some() {
            spiffe::check_workload(payload).map_err(|wrong| UnusableToken(wrong.to_owned()))?;
        }
        let claim = |name: &ClaimName| text(name.find(payload), name);
        let (subject, jti) = (claim(&names.subject)?, claim(&names.token_id)?);
        let not_whole = || UnusableToken(format!("{} is not a whole number", names.role_version));
        let whole = |version: &Value| version.as_u64().ok_or_else(not_whole);
        let id = self.token_id(jti, jws.signing_input)?;
        let client = text(names.client.find(payload), &names.client)?;
        let role_version = names.role_version.find(payload).map(whole).transpose()?;
        let facts = TokenFacts {
            token: key(&id),
            issuer: IssuerKey::new(&self.issuer),
            subject: subject.map(|subject| SubjectKey::new(&self.issuer, subject)),
            client: client.map(|client| ClientKey::new(&self.issuer, client)),
            issued_at: validity.issued_at,
            role_version,
            names: self.names(payload)?.map(Arc::new),
        };
        let mut audiences = self.named_audiences(payload).unwrap_or_default();
        let is_for_resources = !self.has_own(&audiences);
        // No configured audience contains a NUL.
        audiences.retain(|one| !one.contains('\0'));
        Ok(VerifiedToken {
            audiences: Words::new(&audiences).unwrap_or_default(),
            is_for_resources,
            issuer,
            id,
            subject_hash: subject.map(|subject| fingerprint(&self.issuer, subject).to_string().into()),
            subject: subject.map(Box::from),
            jti: jti.map(Box::from),
            client: client.map(Arc::from),
            tenant: names.tenant.find(payload).map(identity::plain),
            role_version,
            issued_at: validity.issued_at,
            expires_at: validity.expires_at,
            not_before: validity.not_before,
            scopes: words(lists::scopes(&names.scope, payload)?, "a scope")?,
            roles: words(lists::roles(&names.roles, payload)?, "a role")?,
            bound_to: payload.get("cnf").map(confirmation).transpose()?.unwrap_or_default(),
            identity: identity::render(identity, names, payload).map_err(|TooLong { header, length }| {
                let most = identity.max_value;
                UnusableToken(format!(
                    "the identity header {header} would have {length} bytes; max_value is {most}"
                ))
            })?,
            // An invalid time counts as absent: it only matters where a route requires it.
            authenticated_at: date(payload, "auth_time").ok().flatten(),
            met: conditions.met_by(self, payload),
            facts,
            standing: TokenStanding::default(),
        })
    }

    /// The key by which the token is remembered; `None` if its identifier is unusable.
    pub(super) fn token_key(&self, jws: &Jws<'_>) -> Option<TokenKey> {
        let name = &self.claims.token_id;
        let jti = text(name.find(&jws.payload), name).ok()?;
        self.token_id(jti, jws.signing_input).ok().as_ref().map(key)
    }

    /// How long after it was first seen a token can come again: without an `iat`, `max_lifetime` counts from
    /// then.
    pub(super) fn longest(&self) -> Duration {
        self.max_lifetime.saturating_add(self.leeway)
    }

    /// The other names by which events may refer to the token. Empty names are ignored, because they would
    /// connect all tokens that carry one.
    fn names(&self, payload: &Map<String, Value>) -> Result<Option<TokenNames>, UnusableToken> {
        let (issuer, names) = (&*self.issuer, &self.claims);
        let claim = |name: &ClaimName| Ok(text(name.find(payload), name)?.filter(|text| !text.is_empty()));
        let email = names.email.as_ref().map(claim).transpose()?.flatten();
        let mut others: Vec<SubjectKey> =
            email.into_iter().map(|address| SubjectKey::email(issuer, address)).collect();
        for name in &names.aliases {
            others.extend(claim(name)?.map(|alias| SubjectKey::alias(issuer, alias)));
        }
        let subject = claim(&names.subject)?.map(|subject| SubjectKey::new(issuer, subject));
        Ok(TokenNames::new(issuer, subject, others, claim(&names.session)?))
    }

    /// The token's identifier. An empty `jti` is rejected, because all tokens with one would share an
    /// identifier.
    fn token_id(&self, jti: Option<&str>, signing_input: &[u8]) -> Result<TokenId, UnusableToken> {
        match jti {
            Some("") => Err(UnusableToken("jti is empty".to_owned())),
            Some(jti) => Ok(fingerprint(&self.issuer, jti)),
            None => Ok(TokenId::of(signing_input)),
        }
    }
}

fn key(id: &TokenId) -> TokenKey {
    TokenKey(Key::from_digest(&id.0))
}

/// The validity period of a token. A token without `iat`, where that is allowed, counts as issued at its
/// `nbf`, but not after it was `first_seen`.
///
/// # Errors
/// [`Reason::MissingClaim`] without `iat` or `exp`; [`Reason::BadClaim`] for one that is not a time.
pub(super) fn validity(
    payload: &Map<String, Value>,
    first_seen: Option<Timestamp>,
) -> Result<Validity, Reason> {
    let not_before = date(payload, "nbf")?;
    let unsaid = first_seen.map(|seen| not_before.map_or(seen, |from| from.min(seen)));
    Ok(Validity {
        issued_at: date(payload, "iat")?.or(unsaid).ok_or(Reason::MissingClaim)?,
        expires_at: date(payload, "exp")?.ok_or(Reason::MissingClaim)?,
        not_before,
    })
}

/// Whether the token says when it was issued.
pub(super) fn is_dated(payload: &Map<String, Value>) -> bool {
    member(payload, "iat").is_some()
}

/// Parses a `NumericDate` (RFC 7519 §2): seconds, possibly with a fraction.
pub(super) fn date(payload: &Map<String, Value>, name: &str) -> Result<Option<Timestamp>, Reason> {
    let Some(value) = member(payload, name) else {
        return Ok(None);
    };
    let seconds = value.as_f64().filter(|seconds| seconds.abs() <= LAST_SECOND).ok_or(Reason::BadClaim)?;
    let distance = Duration::try_from_secs_f64(seconds.abs()).map_err(|_out_of_range| Reason::BadClaim)?;
    let date = if seconds < 0.0 { Timestamp::EPOCH.minus(distance) } else { Timestamp::EPOCH.plus(distance) };
    Ok(Some(date))
}

/// The value of a claim; `null` counts as absent. Not for `cnf`: ignoring a `null` there would turn a token
/// that was meant to be bound into a bearer token.
fn member<'p>(payload: &'p Map<String, Value>, name: &str) -> Option<&'p Value> {
    payload.get(name).filter(|value| !value.is_null())
}

fn text<'p>(value: Option<&'p Value>, name: &dyn Display) -> Result<Option<&'p str>, UnusableToken> {
    let unusable = || UnusableToken(format!("{name} is not a string"));
    value.map(|value| value.as_str().ok_or_else(unusable)).transpose()
}

fn words(held: Option<Vec<&str>>, each: &str) -> Result<Words, UnusableToken> {
    Words::new(&held.unwrap_or_default())
        .ok_or_else(|| UnusableToken(format!("{each} contains a NUL character")))
}

/// What a token is bound to (RFC 8705 §3.1, RFC 9449 §6.1). A confirmation that cannot be checked here is
/// rejected rather than ignored, which would turn its token into a bearer token.
fn confirmation(cnf: &Value) -> Result<Confirmation, UnusableToken> {
    let unusable = || UnusableToken("cnf is not an x5t#S256 or a jkt of 32 bytes".to_owned());
    let members = cnf.as_object().filter(|members| !members.is_empty()).ok_or_else(unusable)?;
    let mut bound_to = Confirmation::default();
    for (name, value) in members {
        let decoded = value.as_str().and_then(|text| jws::decode(text.as_bytes()).ok());
        let hash: [u8; 32] = decoded.and_then(|bytes| bytes.try_into().ok()).ok_or_else(unusable)?;
        match name.as_str() {
            "x5t#S256" => bound_to.certificate = Some(hash),
            "jkt" => bound_to.key = Some(hash),
            _ => return Err(unusable()),
        }
    }
    Ok(bound_to)
}

#[cfg(test)]
mod tests;
