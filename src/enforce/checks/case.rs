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

/// One token to be judged, and what the checks found so far. A check that needs what an earlier one finds asks for it
/// by the functions below, which know why it is missing.
pub(in crate::enforce) struct Case<'r> {
    pub(in crate::enforce) enforcer: &'r Enforcer,
    pub(in crate::enforce) subject: Subject<'r>,
    pub(in crate::enforce) asked: Asked,
    pub(in crate::enforce) now: Now,
    pub(in crate::enforce) target: Option<Target>,
    pub(in crate::enforce) route: Option<&'r Arc<Route>>,
    /// What is wrong with the fields that the route of an MCP request is chosen by.
    pub(in crate::enforce) mcp: Result<(), McpFault>,
    pub(in crate::enforce) proof_key: Option<ProofKey>,
    /// What was found wrong with the token when it came before.
    pub(in crate::enforce) fault: Option<Arc<LastingFault>>,
    pub(in crate::enforce) jws: Option<Jws<'r>>,
    pub(in crate::enforce) issuer: Option<(IssuerIndex, &'r TrustedIssuer)>,
    pub(in crate::enforce) algorithm: Option<Algorithm>,
    pub(in crate::enforce) validity: Option<Validity>,
    /// A set that has a key for the token.
    pub(in crate::enforce) keys: Option<Arc<KeySet>>,
    /// The token as it was proved before, where every check is made again: when it was seen first decides.
    pub(in crate::enforce) seen: Option<Arc<VerifiedToken>>,
    /// Its claims can be used. Where checks go on after a failure, it may be forged.
    pub(in crate::enforce) token: Option<Arc<VerifiedToken>>,
    /// Why its claims cannot be used.
    pub(in crate::enforce) unusable: Option<String>,
    /// How the token is presented.
    pub(in crate::enforce) scheme: TokenScheme,
    /// The key that the token is bound to was proven.
    pub(in crate::enforce) is_proven: bool,
    /// The nonce for the next proof.
    pub(in crate::enforce) nonce: Option<Box<str>>,
    /// The idle clock, when it is only looked at.
    pub(in crate::enforce) look: Option<IdleLook>,
    /// For log and metrics.
    pub(in crate::enforce) trail: Trail,
}

/// Where the token comes from.
#[derive(Clone, Copy)]
pub(in crate::enforce) enum Subject<'r> {
    /// A request carries it.
    Request(Request<'r>),
    /// Somebody asks what a request with it would meet, which leaves no trace. The header section is missing when no
    /// request could carry the token.
    Question(&'r Question<'r>, Option<&'r HeaderMap>),
    /// It is judged by itself.
    Alone(&'r str),
    /// A request carried it that lasts; with the client certificate of its connection.
    Lasting(Option<&'r [u8; 32]>),
}

impl<'r> Case<'r> {
    /// Nothing is known yet.
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

    /// A request that was allowed with this token, and lasts.
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

    /// Uses a cached proof, if there is one: all that its checks would find is known. Or what is known to be wrong.
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

    /// Finds out when a token was seen first, and checks everything again all the same.
    pub(super) fn remind(&mut self, bearer: BearerToken<'_>) {
        let verifier = &self.enforcer.verifier;
        self.seen = verifier.seen(verifier.proof_key(bearer), self.now.monotonic).map(|(token, _)| token);
    }

    /// Remembers the proof of a token whose checks passed up to its claims.
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

    /// What passed every check.
    pub(in crate::enforce) fn pass(&mut self) -> Result<Pass, NoPermit> {
        let (told, is_proven) = (self.asked.session(), self.is_proven);
        let pass = self.token.take().map(|token| Pass { token, told, is_proven });
        pass.ok_or_else(|| Stop::NotChecked("a check is missing").into_refusal())
    }

    /// Ends the session of a token that is about to be denied as idle, if there is one: that is final. False when it was
    /// used meanwhile.
    pub(in crate::enforce) fn close(&self) -> bool {
        let (Some(token), Some((_, issuer))) = (&self.token, self.issuer) else { return true };
        let sessions = self.enforcer.sessions();
        token.session(sessions).is_none_or(|session| {
            sessions.close(&session, &token.introduction(&issuer.rules.issuer), self.now)
        })
    }

    /// The header section of the request; `None` without a request, or when no request could carry the token.
    pub(in crate::enforce) fn headers(&self) -> Option<&'r HeaderMap> {
        match self.subject {
            Subject::Request(Request { headers, .. }) => Some(headers),
            Subject::Question(_, headers) => headers,
            Subject::Alone(_) | Subject::Lasting(_) => None,
        }
    }

    /// The token as the request presents it, whose form may be unchecked; `None` when it presents none.
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

    /// Method and host that are asked for, and the fields that say more.
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

    /// Whether it is known at all what was revoked and used.
    pub(super) fn state(&self) -> Result<(), Stop<'r>> {
        match self.subject {
            Subject::Question(Question { stateless: Some(why), .. }, _) => Err(Stop::NotChecked(why)),
            Subject::Question(..) | Subject::Request(_) | Subject::Alone(_) | Subject::Lasting(_) => Ok(()),
        }
    }
}
