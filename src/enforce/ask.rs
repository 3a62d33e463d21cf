//! Questions that a decision needs answered by its caller, and the answers so far.

use std::time::Duration;

use super::decide::Enforcer;
use super::denial::Reason;
use super::token::IssuerIndex;
use crate::identity::{Key, TokenKey};
use crate::keys::store::WantedKey;
use crate::replays::ProofUse;
use crate::replays::nonces::UnknownPeriod;
use crate::state::redis::{FirstUse, SharedUse};
use crate::time::{Monotonic, Timestamp};

/// A question that cannot be answered without the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Fetch the issuer's keys: a newer set may verify the token.
    Keys {
        /// The issuer.
        issuer: IssuerIndex,
        /// The key that the current set lacks.
        wanted: WantedKey,
        /// Why the token is rejected if the key does not come.
        otherwise: Reason,
    },
    /// Read when the token was last used on any replica, because it is idle on this one.
    Session {
        /// The token.
        token: TokenKey,
        /// Its issuer, whose idle timeout applies.
        issuer: IssuerIndex,
        /// Its last use on this replica.
        last_used_at: Timestamp,
    },
    /// Read when the token was first used on any replica: an event lies shortly before its `iat`, and its
    /// issuer's clock may be ahead.
    FirstUse {
        /// The token.
        token: TokenKey,
    },
    /// Use a proof of possession, which is possible only once.
    Proof {
        /// The proof.
        proof: Key,
        /// How long it could be accepted again.
        keep: Duration,
        /// The time of the decision.
        at: Monotonic,
    },
    /// Fetch the nonce key of a period.
    NonceKey(UnknownPeriod),
}

/// What was already asked for this request, so that it is not asked again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    keys: bool,
    session: Option<SharedUse>,
    first_use: Option<FirstUse>,
    proof: Option<ProofUse>,
    nonce_period: Option<UnknownPeriod>,
}

impl Asked {
    /// Nothing was asked yet.
    pub const NOTHING: Self =
        Self { keys: false, session: None, first_use: None, proof: None, nonce_period: None };

    /// Keys must not be asked for.
    pub const KEYS: Self = Self { keys: true, ..Self::NOTHING };

    /// Adds this question; the last use of a session is then unknown, unless [`Self::told`] says otherwise.
    #[must_use]
    pub fn and(self, ask: &Ask) -> Self {
        match ask {
            Ask::Keys { .. } => Self { keys: true, ..self },
            Ask::Session { .. } => self.told(SharedUse::Unknown),
            Ask::FirstUse { .. } => self.told_first_use(FirstUse::Unknown),
            Ask::Proof { .. } => self.told_proof(ProofUse::Unknown),
            Ask::NonceKey(period) => Self { nonce_period: Some(*period), ..self },
        }
    }

    /// Records the answer for the proof of possession. Everything else about the proof was already found
    /// valid.
    #[must_use]
    pub fn told_proof(self, answer: ProofUse) -> Self {
        Self { proof: Some(answer), ..self }
    }

    pub(super) fn proof(self) -> Option<ProofUse> {
        self.proof
    }

    pub(super) fn nonce_period(self) -> Option<UnknownPeriod> {
        self.nonce_period
    }

    /// Records the answer for the token's last use.
    #[must_use]
    pub fn told(self, answer: SharedUse) -> Self {
        Self { session: Some(answer), ..self }
    }

    /// Records the answer for the token's first use.
    #[must_use]
    pub fn told_first_use(self, answer: FirstUse) -> Self {
        Self { first_use: Some(answer), ..self }
    }

    pub(super) fn first_use(self) -> Option<FirstUse> {
        self.first_use
    }

    pub(super) fn session(self) -> Option<SharedUse> {
        self.session
    }

    pub(super) fn keys(self) -> bool {
        self.keys
    }
}

impl Enforcer {
    /// Answers a decision's question. The decision itself never waits; its callers call this between two
    /// decisions.
    pub async fn find_out(&self, ask: &Ask, asked: Asked) -> Asked {
        match ask {
            Ask::Keys { issuer, wanted, .. } => {
                if let Some(issuer) = self.issuer(*issuer) {
                    issuer.keys.ask(wanted).await;
                }
                asked.and(ask)
            }
            Ask::Session { token, issuer, last_used_at } => match self.issuer(*issuer) {
                Some(issuer) => {
                    let issuer = &issuer.rules.issuer;
                    asked.told(self.sessions().ask_others(*token, issuer, *last_used_at).await)
                }
                None => asked.and(ask),
            },
            Ask::FirstUse { token } => asked.told_first_use(self.sessions().ask_first_use(*token).await),
            Ask::Proof { proof, keep, at } => {
                asked.told_proof(self.in_force.replays.claim(*proof, *keep, *at).await)
            }
            Ask::NonceKey(period) => {
                // If the key is unavailable, the next decision finds out.
                let _is_known = self.in_force.replays.nonces().learn(*period).await;
                asked.and(ask)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enforce::testing::{enforcer, issuers, now, route};

    fn asks() -> [Ask; 3] {
        let token = TokenKey(Key::from_bytes([7; 16]));
        let keys = |kid| Ask::Keys {
            issuer: IssuerIndex(0),
            wanted: WantedKey::key(kid),
            otherwise: Reason::UnknownKey,
        };
        [
            keys("nobody"),
            Ask::Session { token, issuer: IssuerIndex(0), last_used_at: now() },
            Ask::FirstUse { token },
        ]
    }

    #[test]
    fn each_answer_is_kept_beside_the_others() {
        let [keys, session, first_use] = asks();
        let parts = |asked: Asked| (asked.keys(), asked.session(), asked.first_use());
        assert_eq!(parts(Asked::NOTHING), (false, None, None));
        assert_eq!(parts(Asked::KEYS), (true, None, None));
        let mut asked = Asked::NOTHING.and(&keys);
        assert_eq!(parts(asked), (true, None, None));
        asked = asked.and(&session);
        assert_eq!(parts(asked), (true, Some(SharedUse::Unknown), None));
        asked = asked.and(&first_use);
        assert_eq!(parts(asked), (true, Some(SharedUse::Unknown), Some(FirstUse::Unknown)));
        asked = asked.told(SharedUse::Over).told_first_use(FirstUse::Ordinary);
        assert_eq!(parts(asked), (true, Some(SharedUse::Over), Some(FirstUse::Ordinary)));
    }

    #[tokio::test]
    async fn a_gate_without_others_answers_its_own_questions() {
        let gate = enforcer(issuers(), vec![route("/{*rest}")]);
        let proof =
            Ask::Proof { proof: Key::default(), keep: Duration::from_secs(9), at: Monotonic::from_millis(0) };
        for expected in [ProofUse::First, ProofUse::Again] {
            assert_eq!(gate.find_out(&proof, Asked::NOTHING).await, Asked::NOTHING.told_proof(expected));
        }
        assert_eq!(Asked::NOTHING.and(&proof), Asked::NOTHING.told_proof(ProofUse::Unknown));
        let period = UnknownPeriod(7);
        let asked = gate.find_out(&Ask::NonceKey(period), Asked::NOTHING).await;
        assert_eq!((asked.nonce_period(), asked.proof()), (Some(period), None));
        assert!(gate.in_force.replays.nonces().current(Duration::from_secs(60), now()).is_err());
        let [keys, session, first_use] = asks();
        let asked = gate.find_out(&keys, Asked::NOTHING).await;
        assert_eq!(asked, Asked::KEYS);
        let asked = gate.find_out(&session, asked).await;
        assert_eq!(asked, Asked::KEYS.told(SharedUse::LastUsed(now())));
        let asked = gate.find_out(&first_use, asked).await;
        assert_eq!(asked, Asked::KEYS.told(SharedUse::LastUsed(now())).told_first_use(FirstUse::Ordinary));
    }
}
