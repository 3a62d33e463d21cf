//! Authenticates callers of the admin listener and checks their permissions: one bearer token per caller, compared in
//! constant time.
//!
//! Limits guessing: a wrong token counts against its address; a correct one is always accepted.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};

use super::problem::Problem;
use super::{Permission, Settings, Token};
use crate::authority::throttle::AddressThrottle;
use crate::time::Monotonic;
use crate::tls::ServerTls;

const BARE: &str = r#"Bearer realm="portcullis-admin""#;
const INVALID_REQUEST: &str = r#"Bearer realm="portcullis-admin", error="invalid_request""#;
const INVALID_TOKEN: &str = r#"Bearer realm="portcullis-admin", error="invalid_token""#;
const INSUFFICIENT: &str = r#"Bearer realm="portcullis-admin", error="insufficient_scope""#;

/// What of the admin listener's settings a reload may change: its callers and its TLS.
pub struct Access {
    callers: ArcSwap<Vec<([u8; 32], Caller)>>,
    pub(super) tls: Arc<ArcSwapOption<ServerTls>>,
    guesses: AddressThrottle,
}

/// Wrong tokens that an address may show in a minute; as many as `authority.failures_per_address` allows by default.
const GUESSES: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// A caller that showed its token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) name: Arc<str>,
    permissions: Arc<[Permission]>,
}

impl Access {
    /// Access by these settings; `tls` is what was made of `settings.tls`, for HTTP/1.1 only.
    #[must_use]
    pub fn new(settings: &Settings, tls: Option<Arc<ServerTls>>) -> Self {
        let guesses = AddressThrottle::new(GUESSES);
        let access = Self { callers: ArcSwap::default(), tls: Arc::default(), guesses };
        access.replace(settings, tls);
        access
    }

    /// Puts other settings in force: tokens for the next request, TLS for the next connection.
    pub fn replace(&self, settings: &Settings, tls: Option<Arc<ServerTls>>) {
        let callers = settings.tokens.iter().map(|Token { name, secret, permissions }| {
            let caller = Caller { name: name.as_str().into(), permissions: permissions.as_slice().into() };
            (sha256(secret.as_bytes()), caller)
        });
        self.callers.store(Arc::new(callers.collect()));
        self.tls.store(tls);
    }

    /// The caller whose token the request carries. A right token passes, whatever its address has tried.
    pub(super) fn authenticate(
        &self,
        headers: &HeaderMap,
        address: IpAddr,
        now: Monotonic,
    ) -> Result<Caller, Problem> {
        let presented = sha256(bearer(headers)?);
        self.caller(&presented).ok_or_else(|| match self.guesses.fail(address, now) {
            Ok(()) => Problem::new(StatusCode::UNAUTHORIZED, "the token is not an admin token of this gate")
                .with_challenge(INVALID_TOKEN),
            Err(wait) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many failed attempts from this address; try again later",
            )
            .with_retry_after(wait),
        })
    }

    /// The digest of a token that is one of this gate, to be shown again to [`Self::caller`]. As [`Self::authenticate`].
    ///
    /// # Errors
    /// How long to wait, when the token is wrong and too many wrong ones came from this address.
    pub(crate) fn identify(
        &self,
        token: &[u8],
        address: IpAddr,
        now: Monotonic,
    ) -> Result<Option<[u8; 32]>, Duration> {
        let presented = sha256(token);
        if self.caller(&presented).is_some() {
            return Ok(Some(presented));
        }
        self.guesses.fail(address, now).map(|()| None)
    }

    /// The caller whose token has this digest now.
    pub(crate) fn caller(&self, presented: &[u8; 32]) -> Option<Caller> {
        let mut found = None;
        // Digests, so that the length of a secret does not show; all of them, so that its place does not.
        for (expected, caller) in self.callers.load().iter() {
            if verify_slices_are_equal(expected, presented).is_ok() {
                found = Some(caller.clone());
            }
        }
        found
    }

    /// Whether there is any token at all.
    pub(crate) fn has_tokens(&self) -> bool {
        !self.callers.load().is_empty()
    }

    /// Whether connections are encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.load().is_some()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").finish_non_exhaustive()
    }
}

impl Caller {
    /// Whether the caller's token was made for this.
    pub(crate) fn may(&self, permission: Permission) -> bool {
        self.permissions.contains(&permission)
    }

    /// Refuses what the caller's token was not made for.
    pub(super) fn require(&self, permission: Permission) -> Result<(), Problem> {
        if self.may(permission) {
            return Ok(());
        }
        let detail = format!("the token lacks the permission `{}`", permission.as_str());
        Err(Problem::new(StatusCode::FORBIDDEN, detail).with_challenge(INSUFFICIENT))
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

/// The one bearer token of a request (RFC 6750 §2.1). Any visible ASCII is taken, because operators choose secrets.
fn bearer(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let mut fields = headers.get_all(AUTHORIZATION).iter().map(http::HeaderValue::as_bytes);
    let missing =
        || Problem::new(StatusCode::UNAUTHORIZED, "an admin token is required").with_challenge(BARE);
    let malformed = |detail| Problem::new(StatusCode::BAD_REQUEST, detail).with_challenge(INVALID_REQUEST);
    let field = fields.next().ok_or_else(missing)?;
    if fields.next().is_some() {
        return Err(malformed("the request has more than one Authorization header"));
    }
    let (scheme, token) = field.split_at(field.iter().position(|byte| *byte == b' ').unwrap_or(field.len()));
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(missing());
    }
    let token = token.trim_ascii();
    if token.is_empty() || !token.iter().all(u8::is_ascii_graphic) {
        return Err(malformed("the Authorization header does not contain a bearer token"));
    }
    Ok(token)
}
