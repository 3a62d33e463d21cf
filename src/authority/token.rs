//! Issues tokens to clients: determines scopes, roles and expiry (RFC 9068).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::client::AuthenticatedClient;
use super::directory::{Credential, User};
use super::error::OauthError;
use super::possession::ProvenKeys;
use super::rotation::KeyRing;
use super::signing::token_id;
use super::{Authority, Settings};
use crate::identity::{ClientKey, IssuerKey, SubjectKey, TokenKey};
use crate::revocations::TokenFacts;
use crate::time::{Now, Timestamp};

/// The claims of RFC 9068 §2.2, and the versions and tenants that routes and upstreams ask for.
#[derive(Debug, Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    client_id: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    roles: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    role_version: u64,
    iat: i64,
    exp: i64,
    jti: &'a str,
    #[serde(skip_serializing_if = "ProvenKeys::is_empty")]
    cnf: &'a ProvenKeys,
}

/// A token that was issued.
pub(super) struct Issued {
    pub(super) token: String,
    /// Seconds.
    pub(super) expires_in: i64,
}

/// What a token is issued for: the resource that is asked for (RFC 8707), and without one, the API.
pub(super) fn audience<'s>(settings: &'s Settings, asked: Option<&str>) -> Result<&'s str, OauthError> {
    let Some(asked) = asked else { return Ok(&settings.audience) };
    let mut known = std::iter::once(&settings.audience).chain(&settings.resources);
    known.find(|known| *known == asked).map(String::as_str).ok_or(OauthError::Target)
}

/// The scopes that a client asks for and may have, space-delimited; all it has, if it does not say (RFC 6749 §3.3).
pub(super) fn granted_scope(
    settings: &Settings,
    credential: &Credential,
    asked: Option<&str>,
) -> Result<String, OauthError> {
    let is_known = |scope: &&str| settings.scopes.iter().any(|known| known == scope);
    let mut own: Vec<&str> = credential.scopes.iter().map(|scope| &**scope).filter(is_known).collect();
    let Some(asked) = asked else { return Ok(own.join(" ")) };
    // A body has room for tens of thousands of repeated scopes: each is searched for among at most 256.
    own.sort_unstable();
    let mut is_granted = vec![false; own.len()];
    let mut granted: Vec<&str> = Vec::new();
    for scope in asked.split(' ') {
        let place = own.binary_search(&scope).map_err(|_missing| OauthError::Scope)?;
        if let Some(before) = is_granted.get_mut(place)
            && !std::mem::replace(before, true)
        {
            granted.push(scope);
        }
    }
    Ok(granted.join(" "))
}

/// The credential's roles that the owner still holds.
fn granted_roles<'a>(credential: &'a Credential, owner: &User) -> Result<Vec<&'a str>, OauthError> {
    let held: HashSet<&str> = owner.roles.iter().map(|role| &**role).collect();
    let roles: Vec<&str> =
        credential.roles.iter().map(|role| &**role).filter(|role| held.contains(role)).collect();
    if roles.is_empty() && !credential.roles.is_empty() { Err(OauthError::NoRoleLeft) } else { Ok(roles) }
}

impl Authority {
    /// Issues a token; `None` when the client or its owner changed meanwhile, and has to be looked at again.
    ///
    /// `iat` counts whole seconds, and an event ends what was issued in its own second. A token that would be born dead
    /// by that is issued in the next second instead.
    pub(super) async fn issue(
        &self,
        client: &AuthenticatedClient,
        scope: &str,
        audience: &str,
        keys: &ProvenKeys,
    ) -> Result<Option<Issued>, OauthError> {
        let AuthenticatedClient { credential, owner } = client;
        let settings = self.settings();
        let roles = granted_roles(credential, owner)?;
        let jti = token_id().map_err(|_no_randomness| OauthError::Unavailable)?;
        let mut now = Now::read();
        if self.is_born_dead(&settings, client, &jti, now) {
            let next = Timestamp::from_secs(now.wall.as_secs() + 1);
            tokio::time::sleep(next.since(now.wall) + Duration::from_millis(1)).await;
            now = Now::read();
            if self.is_born_dead(&settings, client, &jti, now) {
                // Something else ended it meanwhile, or the clock is behind the one that issued what was ended.
                return Ok(None);
            }
        }
        let lifetime = i64::try_from(settings.token_lifetime.as_secs()).unwrap_or(i64::MAX);
        let iat = now.wall.as_secs();
        let end = credential.expires_at.map_or(i64::MAX, Timestamp::as_secs);
        let exp = iat.saturating_add(lifetime).min(end);
        if exp <= iat {
            // In the last second of the credential: as if it were over.
            return Err(OauthError::Client);
        }
        let claims = Claims {
            iss: &settings.issuer,
            aud: audience,
            sub: &owner.id,
            client_id: &credential.client_id,
            scope,
            roles: &roles,
            tenant: credential.tenant.as_deref(),
            role_version: owner.role_version,
            iat,
            exp,
            jti: &jti,
            cnf: keys,
        };
        let claims = serde_json::to_string(&claims).map_err(|_unwritable| OauthError::Unavailable)?;
        let ring = self.ring.load_full();
        self.announce(&ring, now.wall, Timestamp::from_secs(exp));
        let token = sign(&ring, claims).await?;
        // A deletion takes the client out of the directory, then ends the tokens issued until that moment. This one was
        // issued before, and ends with them, or the client is no longer there.
        let holds = self.directory.still_holds(credential, owner);
        Ok(holds.then_some(Issued { token, expires_in: exp - iat }))
    }

    /// Records when a token is issued that is about to be signed, because what ends it must not be earlier, and of
    /// when it expires, because its key must be kept until then. When the clock has stepped ahead of what is recorded, that
    /// is recorded now.
    pub(super) fn announce(&self, ring: &KeyRing, issued_at: Timestamp, expires_at: Timestamp) {
        self.latest_issue.fetch_max(issued_at.as_millis(), Ordering::Relaxed);
        self.latest_expiry.fetch_max(expires_at.as_millis(), Ordering::Relaxed);
        if expires_at > ring.recorded_until {
            self.wake.notify_one();
        }
    }

    /// Whether an event of this very second would end a token that is issued now.
    fn is_born_dead(&self, settings: &Settings, client: &AuthenticatedClient, jti: &str, now: Now) -> bool {
        let AuthenticatedClient { credential, owner } = client;
        let issuer = &settings.issuer;
        let facts = TokenFacts {
            token: TokenKey::new(issuer, jti),
            issuer: IssuerKey::new(issuer),
            subject: Some(SubjectKey::new(issuer, &owner.id)),
            client: Some(ClientKey::new(issuer, &credential.client_id)),
            issued_at: Timestamp::from_secs(now.wall.as_secs()),
            role_version: Some(owner.role_version),
            names: None,
        };
        self.in_force.revocations.load().judge(&facts, now).is_some()
    }
}

async fn sign(ring: &KeyRing, claims: String) -> Result<String, OauthError> {
    let key = Arc::clone(&ring.signing);
    let signed = if key.is_slow() {
        let signing = tokio::task::spawn_blocking(move || key.token(&claims));
        signing.await.map_err(|_ending| OauthError::Unavailable)?
    } else {
        key.token(&claims)
    };
    signed.map_err(|_failed| OauthError::Unavailable)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::testing;

    #[test]
    fn scopes_are_those_asked_for_that_the_client_has() {
        let settings = testing::settings();
        let credential = testing::credential("c", "u", &[], &["read:deals", "read:users", "gone"]);
        for (asked, granted) in [
            (None, Ok("read:deals read:users")),
            (Some("read:users"), Ok("read:users")),
            (Some("read:users read:deals read:users"), Ok("read:users read:deals")),
            (Some("read:activity"), Err(OauthError::Scope)),
            (Some("gone"), Err(OauthError::Scope)),
            (Some("read:users read:activity"), Err(OauthError::Scope)),
            (Some("READ:USERS"), Err(OauthError::Scope)),
            (Some("read:users  read:deals"), Err(OauthError::Scope)),
            (Some(" read:users"), Err(OauthError::Scope)),
            (Some("read:users\tread:deals"), Err(OauthError::Scope)),
        ] {
            assert_eq!(granted_scope(&settings, &credential, asked), granted.map(str::to_owned), "{asked:?}");
        }
    }

    #[test]
    fn a_token_is_for_the_resource_that_is_asked_for() {
        let mcp = "https://api.example.com/mcp";
        let settings = Settings { resources: vec![mcp.to_owned()], ..testing::settings() };
        let own = settings.audience.as_str();
        for (asked, granted) in [
            (None, Ok(own)),
            (Some(own), Ok(own)),
            (Some(mcp), Ok(mcp)),
            (Some("https://api.example.com/mcp/"), Err(OauthError::Target)),
            (Some("https://api.example.com/MCP"), Err(OauthError::Target)),
            (Some("https://other.example.com/"), Err(OauthError::Target)),
        ] {
            assert_eq!(audience(&settings, asked), granted, "{asked:?}");
        }
    }

    #[test]
    fn a_scope_repeated_as_often_as_a_body_allows_is_granted_once() {
        let own: Vec<String> = (0..256).map(|n| format!("s{n}")).collect();
        let settings = Settings { scopes: own.clone(), ..testing::settings() };
        let own: Vec<&str> = own.iter().map(String::as_str).collect();
        let credential = testing::credential("c", "u", &[], &own);
        let asked = vec!["s255"; 13_000].join(" ");
        assert_eq!(granted_scope(&settings, &credential, Some(&asked)), Ok("s255".to_owned()));
        assert_eq!(
            granted_scope(&settings, &credential, None),
            Ok(own.join(" ")),
            "in the order they were given"
        );
    }

    #[test]
    fn roles_are_those_of_the_credential_that_the_owner_holds() {
        let credential = testing::credential("c", "u", &["a", "b"], &[]);
        for (held, granted) in [
            (&["a", "b", "c"][..], Ok(vec!["a", "b"])),
            (&["b", "c"], Ok(vec!["b"])),
            (&["c"], Err(OauthError::NoRoleLeft)),
            (&[], Err(OauthError::NoRoleLeft)),
        ] {
            assert_eq!(granted_roles(&credential, &testing::user("u", held)), granted);
        }
        let without = testing::credential("c", "u", &[], &[]);
        assert_eq!(granted_roles(&without, &testing::user("u", &[])), Ok(vec![]));
    }
}
