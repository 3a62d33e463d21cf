//! Whose tokens end with a change of a user, and what becomes of its account.

use std::collections::BTreeSet;

use super::{GroupAfter, Planner, ScimPlan, SubjectEnd, WantedAccount};
use crate::signals::scim::SubjectAttribute;
use crate::signals::scim::error::ScimError;
use crate::signals::scim::user::{ScimUser, UserFields};

/// The most roles of one user.
pub(super) const MOST_ROLES: usize = 256;

impl Planner<'_> {
    /// Plans which tokens end when a user changes, and the wanted state of its account.
    pub(super) fn end_tokens(
        &self,
        plan: &mut ScimPlan,
        before: Option<&ScimUser>,
        after: Option<&ScimUser>,
        group: GroupAfter<'_>,
    ) -> Result<(), ScimError> {
        let old_subject = before.map(|user| self.subject(user)).transpose();
        let Some(after) = after else {
            // If a changed setting has left a user without a subject, no event can name it; but it can be deleted.
            if let Some(subject) = old_subject.ok().flatten() {
                plan.ends.push((subject.into(), SubjectEnd::Revoked));
            }
            if let (Some(_), Some(user)) = (self.has_account, before) {
                plan.accounts.push(WantedAccount::Deleted(user.id.clone()));
            }
            return Ok(());
        };
        let subject = self.subject(after)?;
        let roles = self.roles(&after.groups, group);
        if roles.len() > MOST_ROLES {
            return Err(ScimError::value(format!("a user would have more than {MOST_ROLES} roles")));
        }
        let former = before.map(|user| self.roles(&user.groups, None)).unwrap_or_default();
        let old_subject = old_subject.ok().flatten();
        if let Some(old_subject) = old_subject.filter(|old| *old != subject) {
            plan.ends.push((old_subject.into(), SubjectEnd::Revoked));
        }
        let is_new = old_subject != Some(subject);
        let was_active = before.is_none_or(ScimUser::is_active);
        if !after.is_active() && (was_active || is_new) {
            plan.ends.push((subject.into(), SubjectEnd::Revoked));
        } else if former != roles {
            plan.ends.push((subject.into(), SubjectEnd::RolesChanged));
        }
        if self.has_account.is_some() {
            let (id, name) = (after.id.clone(), after.label().into());
            let roles = roles.into_iter().map(str::to_owned).collect();
            plan.accounts.push(WantedAccount::Kept { id, name, roles, is_active: after.is_active() });
        }
        Ok(())
    }

    /// The roles of a member of these groups.
    fn roles<'s>(&'s self, groups: &'s BTreeSet<Box<str>>, after: GroupAfter<'s>) -> BTreeSet<&'s str> {
        let name = |id: &'s str| match after {
            Some((changed, name)) if changed == id => name,
            _ => self.directory.group(id).map(|group| &*group.display_name),
        };
        let role = |name: &'s str| self.settings.roles.get(name).map_or(name, String::as_str);
        groups.iter().filter_map(|id| name(id)).map(role).collect()
    }

    /// The subject of a user's tokens.
    fn subject<'u>(&self, user: &'u ScimUser) -> Result<&'u str, ScimError> {
        if self.has_account.is_some() || self.settings.subject == SubjectAttribute::Id {
            return Ok(&user.id);
        }
        self.named_subject(&user.fields)
    }

    /// The attribute that is the subject.
    pub(super) fn named_subject<'u>(&self, fields: &'u UserFields) -> Result<&'u str, ScimError> {
        match self.settings.subject {
            SubjectAttribute::ExternalId => fields.external_id.as_deref().ok_or_else(|| {
                ScimError::value("externalId is required: it is the subject of the user's tokens")
            }),
            SubjectAttribute::UserName | SubjectAttribute::Id => Ok(&fields.user_name),
        }
    }
}
