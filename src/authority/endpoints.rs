//! The authority's endpoints on the public listener: takes the head and body of a request and returns a complete response.
//!
//! Knows no sockets; the gate reads the body and sends the response.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use http::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::client::{AuthenticatedClient, named};
use super::directory::Credential;
use super::error::{OauthError, json_response};
use super::form::{FormError, FormFields};
use super::possession::hand_out_nonce;
use super::rotation::ahead;
use super::token::{Issued, audience, granted_scope};
use super::{Authority, Settings};
use crate::enforce::decide::{Asked, Enforcer};
use crate::enforce::denial::Reason;
use crate::enforce::dpop::ALGORITHMS;
use crate::enforce::inspect::Inspection;
use crate::enforce::token::VerifiedToken;
use crate::jose::jws::Jws;
use crate::state::record::{EventKind, EventSource};
use crate::time::Now;

/// The longest body that is read, in bytes: a token and some fields.
pub const MAX_BODY: usize = 64 * 1024;

/// How long others may keep what is published, in seconds.
const MAX_AGE: u64 = 300;

const AUTHORIZATION_PATH: &str = "/oauth/authorize";
const REVOCATION_PATH: &str = "/oauth/revoke";
const INTROSPECTION_PATH: &str = "/oauth/introspect";
const KEYS_PATH: &str = "/.well-known/jwks.json";
const METADATA_PATH: &str = "/.well-known/oauth-authorization-server";

/// What a path of the authority is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorityEndpoint {
    /// RFC 6749 §3.2.
    Token,
    /// RFC 6749 §3.1, where nothing is granted: clients that need the endpoint in the metadata find one.
    Authorization,
    /// RFC 7009.
    Revocation,
    /// RFC 7662.
    Introspection,
    /// RFC 7517 §5.
    Keys,
    /// RFC 8414.
    Metadata,
}

/// A request to the authority.
#[derive(Debug, Clone, Copy)]
pub struct EndpointCall<'a> {
    /// The method.
    pub method: &'a Method,
    /// The query.
    pub query: Option<&'a [u8]>,
    /// The header section.
    pub headers: &'a HeaderMap,
    /// The body; `None` when it is longer than [`MAX_BODY`].
    pub body: Option<&'a [u8]>,
    /// Where it comes from.
    pub address: IpAddr,
    /// SHA-256 of the client certificate's DER form, when TLS verified one.
    pub certificate: Option<&'a [u8; 32]>,
}

impl Settings {
    /// The paths that are the authority's, with the method each takes.
    #[must_use]
    pub fn paths(&self) -> [(AuthorityEndpoint, &'static str, &str); 6] {
        [
            (AuthorityEndpoint::Token, "POST", &self.token_path),
            (AuthorityEndpoint::Authorization, "GET", AUTHORIZATION_PATH),
            (AuthorityEndpoint::Revocation, "POST", REVOCATION_PATH),
            (AuthorityEndpoint::Introspection, "POST", INTROSPECTION_PATH),
            (AuthorityEndpoint::Keys, "GET", KEYS_PATH),
            (AuthorityEndpoint::Metadata, "GET", METADATA_PATH),
        ]
    }

    /// What a path is for, if it is the authority's. The token path is compared without case.
    #[must_use]
    pub fn endpoint(&self, path: &str) -> Option<AuthorityEndpoint> {
        let found = self.paths().into_iter().find(|(endpoint, _, known)| match endpoint {
            AuthorityEndpoint::Token => known.eq_ignore_ascii_case(path),
            _ => *known == path,
        });
        if let Some((endpoint, ..)) = found {
            return Some(endpoint);
        }
        // RFC 8414 §3.1: the path of the issuer, if it has one, follows.
        let suffix = path.strip_prefix(METADATA_PATH)?;
        (!suffix.is_empty() && suffix == self.issuer_path().trim_end_matches('/'))
            .then_some(AuthorityEndpoint::Metadata)
    }

    /// Whether a client may learn about a token.
    fn may_introspect(&self, credential: &Credential, token: &VerifiedToken) -> bool {
        let own = token.client.as_deref() == Some(&*credential.client_id);
        own || self.introspection_clients.iter().any(|client| **client == *credential.client_id)
    }

    /// Scheme and authority of the issuer, and what follows.
    fn issuer_parts(&self) -> (&str, &str) {
        let after_scheme = self.issuer.find("://").map_or(0, |at| at + 3);
        let end = self.issuer.get(after_scheme..).and_then(|rest| rest.find('/'));
        self.issuer.split_at(end.map_or(self.issuer.len(), |at| after_scheme + at))
    }

    /// Scheme, host and port of the issuer, as of all URLs that it publishes.
    pub(super) fn origin(&self) -> &str {
        self.issuer_parts().0
    }

    fn issuer_path(&self) -> &str {
        self.issuer_parts().1
    }

    /// RFC 8414 §2.
    fn metadata(&self) -> Value {
        const METHODS: [&str; 2] = ["client_secret_basic", "client_secret_post"];
        let origin = self.issuer_parts().0;
        let url = |path: &str| format!("{origin}{path}");
        let mut metadata = json!({
            "issuer": &*self.issuer,
            // Some clients refuse metadata without it, whichever grant they use.
            "authorization_endpoint": url(AUTHORIZATION_PATH),
            "token_endpoint": url(&self.token_path),
            "token_endpoint_auth_methods_supported": METHODS,
            "grant_types_supported": ["client_credentials"],
            // Required, and empty lists must be left out: the one response type by which nothing is issued.
            "response_types_supported": ["none"],
            "jwks_uri": url(KEYS_PATH),
            "revocation_endpoint": url(REVOCATION_PATH),
            "revocation_endpoint_auth_methods_supported": METHODS,
            "introspection_endpoint": url(INTROSPECTION_PATH),
            "introspection_endpoint_auth_methods_supported": METHODS,
            "dpop_signing_alg_values_supported": ALGORITHMS,
        });
        if let (true, Some(members)) = (self.binds_certificates, metadata.as_object_mut()) {
            members.insert("tls_client_certificate_bound_access_tokens".to_owned(), true.into());
        }
        if let (false, Some(members)) = (self.scopes.is_empty(), metadata.as_object_mut()) {
            members.insert("scopes_supported".to_owned(), self.scopes.clone().into());
        }
        if let (Some(url), Some(members)) = (&self.global_token_revocation, metadata.as_object_mut()) {
            members.insert("global_token_revocation_endpoint".to_owned(), url.as_str().into());
        }
        metadata
    }
}

impl Authority {
    /// Answers a request.
    pub async fn answer(
        self: &Arc<Self>,
        endpoint: AuthorityEndpoint,
        call: &EndpointCall<'_>,
        enforcer: &Enforcer,
    ) -> Response<Bytes> {
        let outcome = match endpoint {
            AuthorityEndpoint::Keys | AuthorityEndpoint::Metadata => self.document(endpoint, call),
            AuthorityEndpoint::Token => self.token(call, enforcer).await,
            AuthorityEndpoint::Authorization => Err(authorization(call)),
            AuthorityEndpoint::Revocation => self.revocation(call, enforcer).await,
            AuthorityEndpoint::Introspection => self.introspection(call, enforcer).await,
        };
        if endpoint == AuthorityEndpoint::Token {
            let (result, error) = match &outcome {
                Ok(_) => ("ok", "none"),
                Err(error) => ("error", error.word()),
            };
            self.metrics.token_requests.with_label_values(&[result, error]).inc();
        }
        let mut response = outcome.unwrap_or_else(OauthError::to_response);
        if endpoint == AuthorityEndpoint::Token {
            hand_out_nonce(enforcer, call.headers, response.headers_mut()).await;
        }
        response
    }

    fn document(
        &self,
        endpoint: AuthorityEndpoint,
        call: &EndpointCall<'_>,
    ) -> Result<Response<Bytes>, OauthError> {
        if !matches!(*call.method, Method::GET | Method::HEAD) {
            return Err(OauthError::Method("GET, HEAD"));
        }
        let settings = self.settings();
        let (mut response, max_age) = match endpoint {
            AuthorityEndpoint::Keys => {
                let mut response = json_response(StatusCode::OK, &());
                *response.body_mut() = self.ring.load().jwks.clone();
                // A copy must be gone before a key signs that is not in it.
                (response, (ahead(settings.key_rotation).as_secs() / 2).min(MAX_AGE))
            }
            _ => (json_response(StatusCode::OK, &settings.metadata()), MAX_AGE),
        };
        let headers = response.headers_mut();
        headers.remove(PRAGMA);
        if let Ok(value) = format!("public, max-age={max_age}").parse() {
            headers.insert(CACHE_CONTROL, value);
        }
        Ok(response)
    }

    /// RFC 6749 §4.4.
    async fn token(
        &self,
        call: &EndpointCall<'_>,
        enforcer: &Enforcer,
    ) -> Result<Response<Bytes>, OauthError> {
        /// How often a client that keeps changing is looked at again.
        const ATTEMPTS: usize = 4;
        let form = form(call)?;
        let settings = self.settings();
        match form.get("grant_type") {
            Some("client_credentials") => {}
            Some(_) => return Err(OauthError::GrantType),
            None => return Err(OauthError::Request("The parameter grant_type is missing")),
        }
        let tenant = match &settings.tenant_parameter {
            None => None,
            Some(name) => Some(form.get(name).ok_or(OauthError::Request("The tenant parameter is missing"))?),
        };
        let audience = audience(&settings, form.get("resource"))?;
        let mut keys = None;
        for _ in 0..ATTEMPTS {
            let client = self.authenticate(call.headers, &form, tenant, call.address, Now::read())?;
            let asked = form.get("scope");
            let scope = granted_scope(&settings, &client.credential, asked)?;
            // Once: a proof is used up by it.
            let keys = match &mut keys {
                Some(keys) => keys,
                none => none.insert(self.proven_keys(call, enforcer).await?),
            };
            if let Some(Issued { token, expires_in }) = self.issue(&client, &scope, audience, keys).await? {
                self.metrics.tokens_issued.inc();
                let token_type = keys.token_type();
                let mut body =
                    json!({ "access_token": token, "token_type": token_type, "expires_in": expires_in });
                // RFC 6749 §5.1: when it is not what was asked for.
                if asked.unwrap_or_default() != scope {
                    body["scope"] = scope.into();
                }
                return Ok(json_response(StatusCode::OK, &body));
            }
        }
        Err(OauthError::Unavailable)
    }

    /// RFC 7009: 200 for a token that was in force and for anything else, so that the answer does not tell them apart.
    async fn revocation(
        self: &Arc<Self>,
        call: &EndpointCall<'_>,
        enforcer: &Enforcer,
    ) -> Result<Response<Bytes>, OauthError> {
        let form = form(call)?;
        let now = Now::read();
        let AuthenticatedClient { credential, .. } =
            self.authenticate(call.headers, &form, None, call.address, now)?;
        let token = form.get("token").ok_or(OauthError::Request("The parameter token is missing"))?;
        if let Some((verified, _)) = self.own_token(token, enforcer).await? {
            if verified.client.as_deref() != Some(&*credential.client_id) {
                return Err(OauthError::OthersToken);
            }
            let event = self.event_issuer().token_revoked(verified.facts.token, now.wall);
            let published = self.log.publish(vec![event], EventSource::Authority, now).await;
            published.map_err(|error| {
                tracing::warn!(%error, "cannot revoke a token");
                OauthError::Unavailable
            })?;
            let labels = [EventKind::TokenRevoked.as_str(), EventSource::Authority.as_str()];
            self.metrics.events.with_label_values(&labels).inc();
        }
        // RFC 7009 §2.2: clients ignore the body. Some of them nevertheless read one, and only as JSON.
        Ok(json_response(StatusCode::OK, &json!({})))
    }

    /// RFC 7662: the claims of a token in force, and for any other only that it is not active.
    ///
    /// A client learns only about its own tokens (§2.1 and §4 leave it to the server to restrict this): a token that
    /// leaked to another application tells it nothing. Resource servers that introspect for others are configured.
    async fn introspection(
        &self,
        call: &EndpointCall<'_>,
        enforcer: &Enforcer,
    ) -> Result<Response<Bytes>, OauthError> {
        const MEMBERS: [&str; 12] = [
            "iss",
            "aud",
            "sub",
            "client_id",
            "scope",
            "roles",
            "tenant",
            "role_version",
            "iat",
            "exp",
            "jti",
            "cnf",
        ];
        let form = form(call)?;
        let AuthenticatedClient { credential, .. } =
            self.authenticate(call.headers, &form, None, call.address, Now::read())?;
        let token = form.get("token").ok_or(OauthError::Request("The parameter token is missing"))?;
        let may_see = |token: &VerifiedToken| self.settings().may_introspect(&credential, token);
        let found = self.own_token(token, enforcer).await?;
        let Some((verified, mut claims)) = found.filter(|(token, _)| may_see(token)) else {
            return Ok(json_response(StatusCode::OK, &json!({ "active": false })));
        };
        let token_type = if verified.bound_to.key.is_some() { "DPoP" } else { "Bearer" };
        let mut body = Map::from_iter([
            ("active".to_owned(), true.into()),
            ("token_type".to_owned(), token_type.into()),
        ]);
        body.extend(MEMBERS.iter().filter_map(|name| claims.remove_entry(*name)));
        Ok(json_response(StatusCode::OK, &body))
    }

    /// A token that this authority issued and that is in force, with its claims.
    async fn own_token(
        &self,
        token: &str,
        enforcer: &Enforcer,
    ) -> Result<Option<(Arc<VerifiedToken>, Map<String, Value>)>, OauthError> {
        let mut asked = Asked::NOTHING;
        let verified = loop {
            match enforcer.inspect(token, asked, Now::read()) {
                Inspection::InForce(token) => break token,
                Inspection::Refused(
                    Reason::StateUnavailable | Reason::KeysUnavailable | Reason::SignalsStale,
                ) => {
                    return Err(OauthError::Unavailable);
                }
                Inspection::Refused(_) => return Ok(None),
                Inspection::Ask(ask) => asked = enforcer.find_out(&ask, asked).await,
            }
        };
        let ours = enforcer
            .issuer(verified.issuer)
            .is_some_and(|issuer| issuer.rules.issuer == self.settings().issuer);
        let claims = Jws::parse(token.as_bytes()).ok().filter(|_| ours).map(|jws| jws.payload);
        Ok(claims.map(|claims| (verified, claims)))
    }
}

/// Nothing is granted here, and nobody is redirected: the redirection URI of a stranger is not one to send browsers to.
fn authorization(call: &EndpointCall<'_>) -> OauthError {
    match *call.method {
        Method::GET | Method::HEAD | Method::POST => OauthError::ResponseType,
        _ => OauthError::Method("GET, HEAD, POST"),
    }
}

/// The client that a call says it comes from, which nothing has proved.
#[must_use]
pub fn named_client(call: &EndpointCall<'_>) -> Option<String> {
    named(call.headers, &form(call).ok()?)
}

/// The form that a POST carries, once everything around it is as RFC 6749 §3.2 asks.
fn form(call: &EndpointCall<'_>) -> Result<FormFields, OauthError> {
    if call.method != Method::POST {
        return Err(OauthError::Method("POST"));
    }
    // RFC 6749 §2.3.1: never in the URI, where logs would keep them.
    let query = FormFields::parse(call.query.unwrap_or_default());
    let query = query.map_err(|_unclear| OauthError::Request("The query is malformed"))?;
    let in_body = ["client_id", "client_secret", "grant_type", "token", "scope", "resource"];
    if in_body.iter().any(|name| query.get(name).is_some()) {
        return Err(OauthError::Request("Parameters must be sent in the body, not in the query"));
    }
    let mut types = call.headers.get_all(CONTENT_TYPE).iter();
    let media_type = types.next().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if types.next().is_some() || !essence.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        return Err(OauthError::Request("The body must be application/x-www-form-urlencoded"));
    }
    let body = call.body.ok_or(OauthError::TooLarge)?;
    FormFields::parse(body).map_err(|error| match error {
        FormError::Encoding => OauthError::Request("The body is not valid form-encoded UTF-8"),
        FormError::Repeated => OauthError::Request("A parameter is repeated"),
        FormError::TooMany => OauthError::Request("The body has too many parameters"),
    })
}
