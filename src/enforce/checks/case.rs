//! The facts about a token and its request, collected while the checks run.

use std::sync::Arc;

use http::{HeaderMap, Method};
use jsonwebtoken::Algorithm;

use super::Stop;
use crate::enforce::bearer::{self, BearerToken, TokenScheme};
use crate::enforce::claims;
use crate::enforce::decide::{Asked, Enforcer, NoPermit, Pass, Proof, Request, Trail, TrustedIssuer};
use crate::enforce::denial::Reason;
use crate::enforce::explain::Question;
use crate::enforce::faults::LastingFault;
use crate::enforce::mcp::McpFault;
use crate::enforce::policy::Route;
use crate::enforce::proofs::ProofKey;
use crate::enforce::target::Target;
use crate::enforce::token::{IssuerIndex, Validity, VerifiedToken};
use crate::jose::jws::Jws;
use crate::keys::set::KeySet;
use crate::sessions::IdleLook;
use crate::time::Now;

/// One token to judge, and what the checks have found so far. A check that needs an earlier check's result
/// gets it from the functions below, which know why it is missing.
pub(in crate::enforce) struct Case<'r> {
    pub(in crate::enforce) enforcer: &'r Enforcer,
    pub(in crate::enforce) subject: Subject<'r>,
    pub(in crate::enforce) asked: Asked,
    pub(in crate::enforce) now: Now,
    pub(in crate::enforce) target: Option<Target>,
    pub(in crate::enforce) route: Option<&'r Arc<Route>>,
    /// A fault in the fields by which the route of an MCP request is chosen.
    pub(in crate::enforce) mcp: Result<(), McpFault>,
    pub(in crate::enforce) proof_key: Option<ProofKey>,
    /// The fault found when the token came before.
    pub(in crate::enforce) fault: Option<Arc<LastingFault>>,
    pub(in crate::enforce) jws: Option<Jws<'r>>,
    pub(in crate::enforce) issuer: Option<(IssuerIndex, &'r TrustedIssuer)>,
    pub(in crate::enforce) algorithm: Option<Algorithm>,
    pub(in crate::enforce) validity: Option<Validity>,
    /// The key set that has a key for the token.
    pub(in crate::enforce) keys: Option<Arc<KeySet>>,
    /// The cached token if every check runs again; used only for when it was first seen.
    pub(in crate::enforce) seen: Option<Arc<VerifiedToken>>,
    /// The token with usable claims. If checks continue after a failure, it may be forged.
    pub(in crate::enforce) token: Option<Arc<VerifiedToken>>,
    /// Why the claims cannot be used.
    pub(in crate::enforce) unusable: Option<String>,
    /// How the token is presented.
    pub(in crate::enforce) scheme: TokenScheme,
    /// Whether possession of the key that the token is bound to was proven.
    pub(in crate::enforce) is_proven: bool,
    /// The nonce for the next proof.
    pub(in crate::enforce) nonce: Option<Box<str>>,
    /// The idle clock, if it is only displayed.
    pub(in crate::enforce) look: Option<IdleLook>,
    /// For log and metrics.
    pub(in crate::enforce) trail: Trail,
}

/// The origin of the token to judge.
#[derive(Clone, Copy)]
pub(in crate::enforce) enum Subject<'r> {
    /// A request carries the token.
    Request(Request<'r>),
    /// Someone asks how a request with the token would be judged, without side effects. The header section is
    /// `None` if no request could carry the token.
    Question(&'r Question<'r>, Option<&'r HeaderMap>),
    /// The token is judged without a request.
    Alone(&'r str),
    /// A lasting request carries the token; with its connection's client certificate.
    Lasting(Option<&'r [u8; 32]>),
}

impl<'r> Case<'r> {
    /// Creates a case in which nothing is known yet.
    pub(in crate::enforce) fn new(
        enforcer: &'r Enforcer,
        subject: Subject<'r>,
        asked: Asked,
        now: Now,
    ) -> Self {
        Self {
            enforcer,
            subject,
            asked,
            now,
            target: None,
            route: None,
            mcp: Ok(()),
            proof_key: None,
            fault: None,
            jws: None,
            issuer: None,
            algorithm: None,
            validity: None,
            keys: None,
            seen: None,
            token: None,
            unusable: None,
            scheme: TokenScheme::default(),
            is_proven: false,
            nonce: None,
            look: None,
            trail: Trail::default(),
        }
    }

    /// Creates the case of a lasting request that was allowed with this token.
    pub(in crate::enforce) fn lasting(
        enforcer: &'r Enforcer,
        token: &Arc<VerifiedToken>,
        route: &'r Arc<Route>,
        certificate: Option<&'r [u8; 32]>,
        now: Now,
    ) -> Option<Self> {
        Some(Self {
            issuer: Some((token.issuer, enforcer.issuer(token.issuer)?)),
            validity: Some(token.validity()),
            token: Some(Arc::clone(token)),
            route: Some(route),
            ..Self::new(enforcer, Subject::Lasting(certificate), Asked::NOTHING, now)
        })
    }

    /// Whether the token's proof comes from the cache.
    pub(in crate::enforce) fn is_proved(&self) -> bool {
        self.trail.proof == Proof::Cached
    }

    /// Uses the cached proof, with everything its checks would find, or else the known fault.
    pub(super) fn recall(&mut self, bearer: BearerToken<'_>) {
        let verifier = &self.enforcer.verifier;
        self.proof_key = verifier.proof_key(bearer);
        let Some((token, issuer)) = verifier.cached(self.proof_key, self.now.monotonic) else {
            return self.recall_fault();
        };
        self.issuer = Some((token.issuer, issuer));
        self.validity = Some(token.validity());
        self.trail = Trail { token: Some(Arc::clone(&token)), claimed: None, proof: Proof::Cached };
        self.token = Some(token);
    }

    /// Looks up when a token was first seen, although every check runs again.
    pub(super) fn look_up_first_seen(&mut self, bearer: BearerToken<'_>) {
        let verifier = &self.enforcer.verifier;
        self.seen = verifier.seen(verifier.proof_key(bearer), self.now.monotonic).map(|(token, _)| token);
    }

    /// Caches the proof of a token whose checks passed up to its claims.
    pub(super) fn remember(&mut self) {
        let (Some(token), Some(keys)) = (&self.token, &self.keys) else { return };
        let is_dated = self.jws.as_ref().is_none_or(|jws| claims::is_dated(&jws.payload));
        let verifier = &self.enforcer.verifier;
        if let (false, Some((_, issuer))) = (is_dated, self.issuer) {
            verifier.first_seen().note(token.facts.token, token.issued_at, issuer.rules.longest());
        }
        verifier.remember(self.proof_key, (token, is_dated), keys.generation(), self.now);
        self.enforcer.note_subject(token);
        self.trail.token = Some(Arc::clone(token));
        self.trail.proof = Proof::Fresh;
    }

    /// The result when every check has passed.
    pub(in crate::enforce) fn pass(&mut self) -> Result<Pass, NoPermit> {
        let (told, is_proven) = (self.asked.session(), self.is_proven);
        let pass = self.token.take().map(|token| Pass { token, told, is_proven });
        pass.ok_or_else(|| Stop::NotChecked("a check is missing").into_refusal())
    }

    /// Ends the session, if any, of a token that is about to be denied as idle, which is final. Returns false
    /// if the token was used in the meantime.
    pub(in crate::enforce) fn close(&self) -> bool {
        let (Some(token), Some((_, issuer))) = (&self.token, self.issuer) else { return true };
        let sessions = self.enforcer.sessions();
        token.session(sessions).is_none_or(|session| {
            sessions.close(&session, &token.introduction(&issuer.rules.issuer), self.now)
        })
    }

    /// The header section of the request; `None` without a request, or if no request could carry the token.
    pub(in crate::enforce) fn headers(&self) -> Option<&'r HeaderMap> {
        match self.subject {
            Subject::Request(Request { headers, .. }) => Some(headers),
            Subject::Question(_, headers) => headers,
            Subject::Alone(_) | Subject::Lasting(_) => None,
        }
    }

    /// The token that the request presents, with unchecked form; `None` if it presents none.
    pub(super) fn bearer(&self) -> Result<Option<BearerToken<'r>>, Reason> {
        let query = self.target.as_ref().and_then(Target::query);
        match self.subject {
            Subject::Request(_) | Subject::Question(..) => match self.headers() {
                Some(headers) => bearer::presented(headers, query, self.enforcer.bearer()),
                None => Err(Reason::Malformed),
            },
            Subject::Alone(token) => BearerToken::new(token.as_bytes()).map(Some),
            Subject::Lasting(_) => Ok(None),
        }
    }

    /// Method, host and header fields of the request.
    pub(super) fn asks_for(&self) -> Result<(&'r Method, Option<&'r str>, &'r HeaderMap), Stop<'r>> {
        match self.subject {
            Subject::Request(Request { method, host, headers, .. }) => Ok((method, host, headers)),
            Subject::Question(question, _) => Ok((question.method, question.host, question.headers)),
            Subject::Alone(_) | Subject::Lasting(_) => Err(Stop::NotChecked("there is no request")),
        }
    }

    pub(super) fn route(&self) -> Result<&'r Arc<Route>, Stop<'r>> {
        self.route.ok_or_else(Stop::not_checked("no route matches"))
    }

    pub(super) fn jws(&self) -> Result<&Jws<'r>, Stop<'r>> {
        self.jws.as_ref().ok_or_else(Stop::not_checked("the token cannot be read"))
    }

    pub(super) fn issuer(&self) -> Result<(IssuerIndex, &'r TrustedIssuer), Stop<'r>> {
        self.issuer.ok_or_else(|| match self.jws() {
            Ok(_) => Stop::NotChecked("the issuer is not configured"),
            Err(stop) => stop,
        })
    }

    pub(super) fn algorithm(&self) -> Result<Algorithm, Stop<'r>> {
        self.issuer()?;
        self.algorithm.ok_or_else(Stop::not_checked("the algorithm is not accepted"))
    }

    pub(super) fn validity(&self) -> Result<Validity, Stop<'r>> {
        self.issuer()?;
        self.validity.ok_or_else(Stop::not_checked("the dates are unreadable"))
    }

    pub(super) fn keys(&self) -> Result<&KeySet, Stop<'r>> {
        self.issuer()?;
        self.keys.as_deref().ok_or_else(Stop::not_checked("no key is available to verify it"))
    }

    pub(super) fn token(&self) -> Result<&Arc<VerifiedToken>, Stop<'r>> {
        self.validity()?;
        self.token.as_ref().ok_or_else(Stop::not_checked("the claims are invalid"))
    }

    /// Checks that revocations and last uses are known at all.
    pub(super) fn state(&self) -> Result<(), Stop<'r>> {
        match self.subject {
            Subject::Question(Question { stateless: Some(why), .. }, _) => Err(Stop::NotChecked(why)),
            Subject::Question(..) | Subject::Request(_) | Subject::Alone(_) | Subject::Lasting(_) => Ok(()),
        }
    }
}
