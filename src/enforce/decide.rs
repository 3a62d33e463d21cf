//! Decides on one request with the table of checks in `checks.rs`.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method};

use super::Settings;
pub use super::ask::{Ask, Asked};
use super::bearer::BearerSettings;
use super::checks::{self, Case, Stop, Subject};
use super::claims::IssuerRules;
use super::denial::{Denial, Reason};
use super::dpop::{DEFAULT_TRACKED, DpopSettings};
use super::permit;
pub use super::permit::{Pass, Permit};
use super::policy::Route;
use super::router::{PolicyError, Router};
use super::signals::IssuerSignals;
use super::target::RequestTarget;
use super::token::{IssuerIndex, VerifiedToken};
use super::verify::TokenVerifier;
use crate::keys::store::KeyStore;
use crate::metrics::Metrics;
use crate::replays::Replays;
use crate::revocations::Revocations;
use crate::sessions::{self, Sessions};
use crate::state::freshness::Freshness;
use crate::state::redis::SharedUse;
use crate::time::{Monotonic, Now};

/// The head of a request to judge.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub target: &'a RequestTarget,
    /// The requested host; port, final dot and case do not matter.
    pub host: Option<&'a str>,
    /// The header section.
    pub headers: &'a HeaderMap,
    /// SHA-256 of the client certificate in DER form, if TLS verified one.
    pub certificate: Option<&'a [u8; 32]>,
}

/// An issuer: the rules for its tokens, and its keys.
#[derive(Debug, Clone)]
pub struct TrustedIssuer {
    /// The rules for its tokens.
    pub rules: IssuerRules,
    /// Its keys.
    pub keys: Arc<KeyStore>,
}

/// The state by which tokens are judged besides their own contents. Outlives every configuration.
#[derive(Debug, Clone)]
pub struct InForce {
    /// What events have ended.
    pub revocations: Arc<Revocations>,
    /// When tokens were last used.
    pub sessions: Arc<Sessions>,
    /// Whether both are fresh enough to judge by.
    pub freshness: Arc<Freshness>,
    /// Which proofs of possession were used.
    pub replays: Arc<Replays>,
}

impl InForce {
    /// State with nothing revoked, in which no token ever goes idle.
    #[must_use]
    pub fn unlimited() -> Self {
        let (idle_timeouts, max_tracked) = (None.into(), 1_000_000);
        let settings =
            sessions::Settings { idle_timeouts, max_tracked, leeway: Duration::ZERO, saved: false };
        Self {
            revocations: Arc::new(Revocations::new(None)),
            sessions: Arc::new(Sessions::new(settings)),
            freshness: Arc::new(Freshness::always()),
            replays: Arc::new(Replays::new(DEFAULT_TRACKED, None)),
        }
    }
}

/// Decides on requests. One per configuration in force, shared by all workers.
#[derive(Debug)]
pub struct Enforcer {
    pub(super) router: Router,
    bearer: BearerSettings,
    pub(super) dpop: DpopSettings,
    pub(super) verifier: TokenVerifier,
    pub(super) in_force: InForce,
    /// Signals of the issuers, in their order; empty if no signals are wanted.
    pub(super) signals: Box<[IssuerSignals]>,
}

/// The decision, and what became known on the way, for logs and metrics.
#[derive(Debug)]
pub struct Judgement {
    /// The route, once one matched.
    pub route: Option<Arc<Route>>,
    /// The token, once its signature was found valid, whatever was found then.
    pub token: Option<Arc<VerifiedToken>>,
    /// The claims of a token that was not seen before; unverified.
    pub claimed: Option<Claimed>,
    /// Where the proof of the signature came from.
    pub proof: Proof,
    /// The decision.
    pub verdict: Verdict,
}

/// What a token claims, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The configured issuer that it names.
    pub issuer: IssuerIndex,
    /// The key ID that it names, in visible ASCII and of limited length.
    pub kid: Option<Box<str>>,
    /// The client that it names, in the same form.
    pub client: Option<Box<str>>,
}

/// Where the proof of a signature came from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Proof {
    /// From the cache.
    Cached,
    /// From a key, just now.
    Fresh,
    /// There is no proof.
    #[default]
    None,
}

impl Proof {
    /// The metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Fresh => "fresh",
            Self::None => "none",
        }
    }
}

/// The decision.
#[derive(Debug)]
pub enum Verdict {
    /// Forward the request.
    Allow(Permit),
    /// Deny the request.
    Deny(Denial),
    /// Answer this question once, then decide again.
    Ask(Ask),
}

/// Why there is no permit (yet).
#[derive(Debug)]
pub(super) enum NoPermit {
    Deny(Denial),
    Ask(Ask),
}

impl From<Reason> for NoPermit {
    fn from(reason: Reason) -> Self {
        Self::Deny(reason.into())
    }
}

impl From<Denial> for NoPermit {
    fn from(denial: Denial) -> Self {
        Self::Deny(denial)
    }
}

/// What becomes known about a token while it is judged.
#[derive(Debug, Default)]
pub(super) struct Trail {
    pub(super) token: Option<Arc<VerifiedToken>>,
    pub(super) claimed: Option<Claimed>,
    pub(super) proof: Proof,
}

impl Enforcer {
    /// Creates an enforcer. Issuers keep their order: [`IssuerIndex`] refers to it.
    ///
    /// # Errors
    /// Every error in every route.
    pub fn new(
        settings: Settings,
        issuers: Vec<TrustedIssuer>,
        in_force: InForce,
        metrics: &Metrics,
    ) -> Result<Self, Vec<PolicyError>> {
        let Settings { routes, identity, bearer, dpop, proofs } = settings;
        let router = Router::new(routes)?;
        let conditions = router.conditions().clone();
        let verifier = TokenVerifier::new(issuers, identity, conditions, proofs, &in_force.sessions, metrics);
        Ok(Self { router, bearer, dpop, verifier, in_force, signals: Box::default() })
    }

    /// Takes over the cached proofs of the previous enforcer that the change of settings left valid.
    #[must_use]
    pub fn after(mut self, previous: &Self) -> Self {
        self.verifier.inherit(&previous.verifier);
        self
    }

    /// Drops proofs of tokens that are idle or dead, and old faults of bad tokens. Does no I/O.
    pub fn sweep(&self, now: Monotonic) {
        self.verifier.sweep(now);
    }

    /// All routes, by index.
    #[must_use]
    pub fn routes(&self) -> &[Arc<Route>] {
        self.router.routes()
    }

    /// How tokens may be presented.
    #[must_use]
    pub fn bearer(&self) -> &BearerSettings {
        &self.bearer
    }

    /// The issuer at this index.
    #[must_use]
    pub fn issuer(&self, index: IssuerIndex) -> Option<&TrustedIssuer> {
        self.verifier.issuer(index)
    }

    /// How proofs of possession are judged.
    #[must_use]
    pub fn dpop(&self) -> &DpopSettings {
        &self.dpop
    }

    /// The used proofs of possession.
    #[must_use]
    pub fn replays(&self) -> &Replays {
        &self.in_force.replays
    }

    /// The idle clocks.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.in_force.sessions
    }

    /// The route that a request takes, whatever its token.
    #[must_use]
    pub fn route(&self, request: &Request<'_>, now: Now) -> Option<Arc<Route>> {
        let mut case = Case::new(self, Subject::Request(*request), Asked::NOTHING, now);
        checks::route(&mut case).map(Arc::clone)
    }

    /// Decides on a request at this moment. If several checks fail, the reason is the first in the order of
    /// [`explain::CHECKS`](super::explain::CHECKS).
    #[must_use]
    pub fn decide(&self, request: &Request<'_>, asked: Asked, now: Now) -> Judgement {
        let mut case = Case::new(self, Subject::Request(*request), asked, now);
        let outcome = match checks::run(&mut case) {
            Ok(()) => case.pass().map(Some),
            Err(Stop::Anonymous) => Ok(None),
            Err(stop) => Err(stop.into_refusal()),
        };
        if let Err(NoPermit::Deny(Denial { reason: Reason::Idle, .. })) = &outcome
            && !case.close()
        {
            // Another request used the token at this very moment, before it went idle.
            return self.decide(request, asked, now);
        }
        let outcome =
            outcome.map_err(|refusal| self.with_scheme(refusal, request, case.route.map(AsRef::as_ref)));
        let Case { route, target, nonce, trail: Trail { token, claimed, proof }, .. } = case;
        let verdict = match (route, target, outcome) {
            (Some(route), Some(target), outcome) => {
                permit::verdict(outcome, Arc::clone(route), target, nonce)
            }
            (_, _, Err(NoPermit::Deny(denial))) => Verdict::Deny(denial),
            (_, _, Ok(_) | Err(NoPermit::Ask(_))) => Verdict::Deny(Reason::NoRoute.into()),
        };
        Judgement { route: route.map(Arc::clone), token, claimed, proof, verdict }
    }

    /// Whether the first use of its token on other replicas matters and they were not asked yet.
    pub(super) fn has_question(&self, pass: &Pass) -> bool {
        let InForce { revocations, sessions, .. } = &self.in_force;
        let Some(issuer) = self.issuer(pass.token.issuer).filter(|_| sessions.is_shared()) else {
            return false;
        };
        let (token, snapshot) = (&pass.token, revocations.load());
        !token.is_known_in_force(&snapshot) && {
            let session = token.session(sessions);
            let session = session.as_deref().map(AsRef::as_ref);
            token.is_first_use_in_question(session, &snapshot, issuer.rules.leeway)
        }
    }

    /// Counts bytes on a stream as a use of its token, unless the token is already idle.
    pub fn keep_alive(&self, pass: &Pass, now: Now) {
        // A use that comes too late changes nothing; the next check of the stream finds the token idle.
        let _in_use = self.count_use(pass, None, now);
    }

    /// Checks whether a lasting request that was allowed with this token may continue, under the
    /// configuration and keys that allowed it.
    ///
    /// # Errors
    /// Why it may not.
    pub(super) fn judge_again(
        &self,
        pass: &Pass,
        route: &Arc<Route>,
        certificate: Option<&[u8; 32]>,
        now: Now,
    ) -> Result<(), Reason> {
        let mut case =
            Case::lasting(self, &pass.token, route, certificate, now).ok_or(Reason::UnknownIssuer)?;
        checks::run_again(&mut case).map_err(|stop| stop.into_refusal().reason())
    }

    /// Counts the request as a use of its token, just before it is forwarded. A request on an anonymous route
    /// does not need its token, so it does not keep it alive.
    ///
    /// # Errors
    /// [`Reason::Idle`] when the token went idle or left memory since it was judged: do not forward.
    pub fn begin(&self, permit: &Permit, now: Now) -> Result<(), Reason> {
        match permit.pass() {
            Some(pass) if !permit.route().settings().anonymous => self.count_use(pass, pass.told, now),
            Some(_) | None => Ok(()),
        }
    }

    fn count_use(&self, pass: &Pass, told: Option<SharedUse>, now: Now) -> Result<(), Reason> {
        let issuer = &self.issuer(pass.token.issuer).ok_or(Reason::UnknownIssuer)?.rules.issuer;
        pass.count_use(told, issuer, &self.in_force.sessions, now).map_err(|_idle| Reason::Idle)
    }
}

#[cfg(test)]
mod tests;
