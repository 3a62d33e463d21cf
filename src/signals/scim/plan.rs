//! Plans a change: which users and groups it changes, and whose tokens it ends.
//!
//! Pure: takes the directory, the time and the next revision as arguments, so that a test is a table of values.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::directory::{DirectoryChange, ScimDirectory};
use super::error::ScimError;
use super::group::{GroupEdit, ScimGroup};
use super::patch::PatchOperation;
use super::user::{ScimUser, UserFields};
use super::{Settings, SubjectAttribute};
use crate::time::Timestamp;

mod ends;

/// The most users and groups in a directory.
const MOST_USERS: usize = 200_000;
const MOST_GROUPS: usize = 20_000;

/// The change that a request asks for.
#[derive(Debug, Clone)]
pub(super) enum WantedChange {
    /// Creates a user with this new id, unless the id is its subject.
    CreateUser(UserFields, Box<str>),
    ReplaceUser(UserFields),
    PatchUser(Vec<PatchOperation>),
    DeleteUser,
    /// Creates a group with this id.
    CreateGroup(GroupEdit, Box<str>),
    ReplaceGroup(GroupEdit),
    PatchGroup(Vec<PatchOperation>),
    DeleteGroup,
}

/// Which tokens of a subject end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubjectEnd {
    /// All of them.
    Revoked,
    /// Those that may carry the previous roles.
    RolesChanged,
}

/// The wanted state of a user of the embedded authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WantedAccount {
    Kept { id: Box<str>, name: Box<str>, roles: Vec<String>, is_active: bool },
    Deleted(Box<str>),
}

/// What the response reports once the change is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum PlannedAnswer {
    CreatedUser(Box<str>),
    User(Box<str>),
    CreatedGroup(Box<str>),
    Group(Box<str>),
    NoContent,
}

/// The effect of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ScimPlan {
    pub(super) change: DirectoryChange,
    /// One entry for each subject whose tokens end.
    pub(super) ends: Vec<(Box<str>, SubjectEnd)>,
    /// The users of the embedded authority to create, change or delete, if the directory is for it.
    pub(super) accounts: Vec<WantedAccount>,
    pub(super) answer: PlannedAnswer,
}

/// A group after the request: its id and its name, or no name if it is deleted.
type GroupAfter<'a> = Option<(&'a str, Option<&'a str>)>;

/// The inputs of a plan.
pub(super) struct Planner<'a> {
    pub(super) directory: &'a ScimDirectory,
    pub(super) settings: &'a Settings,
    /// Tells whether the embedded authority has a user with this id; set if the directory's users are its own.
    pub(super) has_account: Option<&'a dyn Fn(&str) -> bool>,
    pub(super) now: Timestamp,
    /// The revision of the directory after the change.
    pub(super) revision: u64,
}

impl ScimPlan {
    fn new(answer: PlannedAnswer) -> Self {
        Self { change: DirectoryChange::default(), ends: Vec::new(), accounts: Vec::new(), answer }
    }
}

impl Planner<'_> {
    /// Plans a change of the resource with this id; `expected` is compared with its revision.
    pub(super) fn plan(
        &self,
        id: &str,
        wanted: WantedChange,
        expected: impl Fn(u64) -> bool,
    ) -> Result<ScimPlan, ScimError> {
        let user = || {
            let user = self.directory.user(id).ok_or_else(|| ScimError::not_found("user"))?;
            if expected(user.revision) { Ok(user) } else { Err(ScimError::outdated()) }
        };
        let group = || {
            let group = self.directory.group(id).ok_or_else(|| ScimError::not_found("group"))?;
            if expected(group.revision) { Ok(group) } else { Err(ScimError::outdated()) }
        };
        match wanted {
            WantedChange::CreateUser(fields, id) => self.create_user(fields, id),
            WantedChange::ReplaceUser(fields) => self.change_user(user()?, fields),
            WantedChange::PatchUser(operations) => {
                let user = user()?;
                let mut fields = user.fields.clone();
                operations.into_iter().try_for_each(|operation| fields.apply(id, operation))?;
                self.change_user(user, fields)
            }
            WantedChange::DeleteUser => self.delete_user(user()?),
            WantedChange::CreateGroup(edit, id) => self.create_group(edit, id),
            WantedChange::ReplaceGroup(edit) => {
                self.change_group(group()?, edit, PlannedAnswer::Group(id.into()))
            }
            WantedChange::PatchGroup(operations) => {
                let group = group()?;
                let mut edit = GroupEdit::of(group);
                operations.into_iter().try_for_each(|operation| edit.apply(id, operation))?;
                self.change_group(group, edit, PlannedAnswer::NoContent)
            }
            WantedChange::DeleteGroup => self.delete_group(group()?),
        }
    }

    fn create_user(&self, fields: UserFields, random_id: Box<str>) -> Result<ScimPlan, ScimError> {
        if self.directory.counts().0 >= MOST_USERS {
            return Err(ScimError::full("users"));
        }
        let id = match (self.has_account, self.settings.subject) {
            (None, _) | (Some(_), SubjectAttribute::Id) => random_id,
            // A user of the embedded authority is identified by the subject, whether it exists already or not.
            (Some(_), _) => account_id(self.named_subject(&fields)?)?,
        };
        if self.directory.user(&id).is_some() || self.directory.group(&id).is_some() {
            return Err(ScimError::taken("another user has this id"));
        }
        let (order, revision) = (self.revision, self.revision);
        let groups = BTreeSet::new();
        let user = ScimUser { id, order, revision, created: self.now, modified: self.now, fields, groups };
        self.check_unique(&user)?;
        let mut plan = ScimPlan::new(PlannedAnswer::CreatedUser(user.id.clone()));
        self.put_user(&mut plan, None, Some(user), None)?;
        Ok(plan)
    }

    fn change_user(&self, before: &Arc<ScimUser>, fields: UserFields) -> Result<ScimPlan, ScimError> {
        let mut plan = ScimPlan::new(PlannedAnswer::User(before.id.clone()));
        if before.fields == fields {
            return Ok(plan);
        }
        let user =
            ScimUser { fields, revision: self.revision, modified: self.now, ..ScimUser::clone(before) };
        self.check_unique(&user)?;
        if let Some(has_account) = self.has_account
            && self.settings.subject != SubjectAttribute::Id
        {
            let named = self.named_subject(&user.fields)?;
            let is_new = self.named_subject(&before.fields).ok() != Some(named);
            let is_anothers = self.directory.user(named).is_some() || has_account(named);
            if is_new && *named != *user.id && is_anothers {
                return Err(ScimError::taken("another user has this id"));
            }
        }
        self.put_user(&mut plan, Some(before), Some(user), None)?;
        Ok(plan)
    }

    fn delete_user(&self, user: &Arc<ScimUser>) -> Result<ScimPlan, ScimError> {
        let mut plan = ScimPlan::new(PlannedAnswer::NoContent);
        self.put_user(&mut plan, Some(user), None, None)?;
        for group in self.directory.groups_of(user) {
            let group = self.touched(group);
            plan.change.groups.push((group.id.clone(), Some(Arc::new(group))));
        }
        Ok(plan)
    }

    fn create_group(&self, edit: GroupEdit, id: Box<str>) -> Result<ScimPlan, ScimError> {
        if self.directory.counts().1 >= MOST_GROUPS {
            return Err(ScimError::full("groups"));
        }
        let (order, revision) = (self.revision, self.revision);
        let (display_name, external_id) = (edit.display_name.clone(), edit.external_id.clone());
        let (created, modified) = (self.now, self.now);
        let group =
            ScimGroup { id: id.clone(), order, revision, created, modified, display_name, external_id };
        let mut plan = ScimPlan::new(PlannedAnswer::CreatedGroup(id.clone()));
        self.put_members(&mut plan, &group.id, Some(&group.display_name), &edit)?;
        plan.change.groups.push((id, Some(Arc::new(group))));
        Ok(plan)
    }

    fn change_group(
        &self,
        before: &Arc<ScimGroup>,
        edit: GroupEdit,
        answer: PlannedAnswer,
    ) -> Result<ScimPlan, ScimError> {
        let mut plan = ScimPlan::new(answer);
        self.put_members(&mut plan, &before.id, Some(&edit.display_name), &edit)?;
        let is_same = before.display_name == edit.display_name && before.external_id == edit.external_id;
        if !is_same || !plan.change.is_empty() {
            let GroupEdit { display_name, external_id, .. } = edit;
            let group = ScimGroup { display_name, external_id, ..self.touched(before) };
            plan.change.groups.push((group.id.clone(), Some(Arc::new(group))));
        }
        Ok(plan)
    }

    fn delete_group(&self, group: &Arc<ScimGroup>) -> Result<ScimPlan, ScimError> {
        let mut plan = ScimPlan::new(PlannedAnswer::NoContent);
        let edit = GroupEdit { is_cleared: true, ..GroupEdit::of(group) };
        self.put_members(&mut plan, &group.id, None, &edit)?;
        plan.change.groups.push((group.id.clone(), None));
        Ok(plan)
    }

    fn touched(&self, group: &ScimGroup) -> ScimGroup {
        ScimGroup { revision: self.revision, modified: self.now, ..group.clone() }
    }

    /// Plans the members of a group, and the resulting roles; a name of `None` means that the group is deleted.
    fn put_members(
        &self,
        plan: &mut ScimPlan,
        group: &str,
        name: Option<&str>,
        edit: &GroupEdit,
    ) -> Result<(), ScimError> {
        let after = Some((group, name));
        let former = if edit.is_cleared { Some(self.directory.members(group)) } else { None };
        for user in former.into_iter().flatten().filter(|user| edit.members.get(&user.id) != Some(&true)) {
            self.put_membership(plan, user, after, false)?;
        }
        for (id, is_member) in &edit.members {
            match self.directory.user(id) {
                Some(user) if user.groups.contains(group) == *is_member => {}
                // Already removed above.
                Some(_) if !*is_member && edit.is_cleared => {}
                Some(user) => self.put_membership(plan, user, after, *is_member)?,
                // Removing a user that does not exist has no effect.
                None if !*is_member => {}
                None if self.directory.group(id).is_some() => {
                    return Err(ScimError::value("a group cannot be a member of another"));
                }
                None => return Err(ScimError::value("a member refers to a user that does not exist")),
            }
        }
        let is_renamed =
            self.directory.group(group).is_some_and(|before| Some(&*before.display_name) != name);
        if is_renamed && name.is_some() {
            let stays = |user: &&Arc<ScimUser>| match edit.members.get(&user.id) {
                Some(is_member) => *is_member,
                None => !edit.is_cleared,
            };
            for user in self.directory.members(group).filter(stays) {
                self.end_tokens(plan, Some(user), Some(user), after)?;
            }
        }
        Ok(())
    }

    fn put_membership(
        &self,
        plan: &mut ScimPlan,
        before: &Arc<ScimUser>,
        after: GroupAfter<'_>,
        is_member: bool,
    ) -> Result<(), ScimError> {
        let mut user = ScimUser { revision: self.revision, modified: self.now, ..ScimUser::clone(before) };
        if let Some((group, _)) = after {
            if is_member {
                user.groups.insert(group.into())
            } else {
                user.groups.remove(group)
            };
        }
        self.put_user(plan, Some(before), Some(user), after)
    }

    fn put_user(
        &self,
        plan: &mut ScimPlan,
        before: Option<&Arc<ScimUser>>,
        after: Option<ScimUser>,
        group: GroupAfter<'_>,
    ) -> Result<(), ScimError> {
        self.end_tokens(plan, before.map(|user| &**user), after.as_ref(), group)?;
        let id =
            after.as_ref().map(|user| &user.id).or(before.map(|user| &user.id)).cloned().unwrap_or_default();
        plan.change.users.push((id, after.map(Arc::new)));
        Ok(())
    }

    /// Checks that no other user has the same name or subject.
    fn check_unique(&self, user: &ScimUser) -> Result<(), ScimError> {
        let named = self.directory.user_named(&user.fields.user_name);
        if named.is_some_and(|other| other.id != user.id) {
            return Err(ScimError::taken("another user has this userName"));
        }
        if self.settings.subject == SubjectAttribute::ExternalId {
            let external_id = self.named_subject(&user.fields)?;
            let mut others = self.directory.users_with_external_id(external_id);
            if others.any(|other| other.id != user.id) {
                return Err(ScimError::taken("another user has this externalId"));
            }
        }
        Ok(())
    }
}

/// Checks that a subject can be an id in the embedded authority, and a URL segment.
fn account_id(subject: &str) -> Result<Box<str>, ScimError> {
    if subject.contains(['/', '\\', '?', '#', '%']) {
        return Err(ScimError::value("the subject contains a character that is not allowed in a user id"));
    }
    Ok(subject.into())
}

#[cfg(test)]
mod tests;
