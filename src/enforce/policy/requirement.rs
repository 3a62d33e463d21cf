//! The requirements of a route on a token.

use crate::enforce::conditions::ClaimCondition;
use crate::enforce::conditions::table::TokenCondition;
use crate::enforce::denial::Reason;
use crate::enforce::token::{VerifiedToken, Words};

/// Requirements on a token, all of which it must meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirement {
    /// All of these scopes.
    pub scopes: Vec<String>,
    /// At least one of these, if the list is not empty.
    pub any_scope: Vec<String>,
    /// All of these roles.
    pub roles: Vec<String>,
    /// At least one of these, if the list is not empty.
    pub any_role: Vec<String>,
    /// Conditions on its claims.
    pub claims: Vec<ClaimCondition>,
}

impl Requirement {
    /// Whether there are no requirements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { scopes, any_scope, roles, any_role, claims } = self;
        scopes.is_empty()
            && any_scope.is_empty()
            && roles.is_empty()
            && any_role.is_empty()
            && claims.is_empty()
    }

    /// All scopes that it names.
    pub(in crate::enforce) fn scopes(&self) -> impl Iterator<Item = &String> {
        self.scopes.iter().chain(&self.any_scope)
    }

    pub(super) fn conditions(&self) -> impl Iterator<Item = TokenCondition> {
        self.claims.iter().cloned().map(TokenCondition::Claim)
    }

    pub(in crate::enforce) fn judge_scopes(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let enough = suffices(&token.scopes, &self.scopes, &self.any_scope);
        if enough { Ok(()) } else { Err(Reason::InsufficientScope) }
    }

    pub(in crate::enforce) fn judge_roles(&self, token: &VerifiedToken) -> Result<(), Reason> {
        let enough = suffices(&token.roles, &self.roles, &self.any_role);
        if enough { Ok(()) } else { Err(Reason::InsufficientRole) }
    }
}

fn suffices(held: &Words, all: &[String], any: &[String]) -> bool {
    let holds = |wanted: &String| held.contains(wanted);
    all.iter().all(holds) && (any.is_empty() || any.iter().any(holds))
}
