//! The users and groups of one provider, all in memory, indexed by every attribute that a filter may use.
//!
//! Pure: knows nothing about the store or the effect of a change.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::group::ScimGroup;
use super::user::ScimUser;
use crate::state::DirectoryEntry;

/// The directory of one provider.
#[derive(Debug, Default)]
pub(super) struct ScimDirectory {
    users: BTreeMap<u64, Arc<ScimUser>>,
    groups: BTreeMap<u64, Arc<ScimGroup>>,
    user_ids: HashMap<Box<str>, u64>,
    group_ids: HashMap<Box<str>, u64>,
    /// Keyed in lower case, because names are compared without case.
    user_names: HashMap<Box<str>, u64>,
    external_ids: BTreeSet<(Box<str>, u64)>,
    /// Keyed in lower case.
    addresses: BTreeSet<(Box<str>, u64)>,
    /// The users of each group: a group's id, and their `order`.
    members: HashMap<Box<str>, BTreeSet<u64>>,
}

/// The users and groups that change, each with its new state; `None` if it is deleted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct DirectoryChange {
    pub(super) users: Vec<(Box<str>, Option<Arc<ScimUser>>)>,
    pub(super) groups: Vec<(Box<str>, Option<Arc<ScimGroup>>)>,
}

/// The key prefixes of stored users and groups.
const USER: &str = "user/";
const GROUP: &str = "group/";

impl DirectoryChange {
    pub(super) fn is_empty(&self) -> bool {
        self.users.is_empty() && self.groups.is_empty()
    }

    /// Converts the change to its stored form.
    pub(super) fn entries(&self) -> Result<Vec<DirectoryEntry>, serde_json::Error> {
        fn body<T: serde::Serialize>(
            resource: Option<&Arc<T>>,
        ) -> Result<Option<Box<str>>, serde_json::Error> {
            resource.map(|resource| serde_json::to_string(&**resource).map(Into::into)).transpose()
        }
        let users = self.users.iter().map(|(id, user)| {
            Ok(DirectoryEntry { key: format!("{USER}{id}").into(), body: body(user.as_ref())? })
        });
        let groups = self.groups.iter().map(|(id, group)| {
            Ok(DirectoryEntry { key: format!("{GROUP}{id}").into(), body: body(group.as_ref())? })
        });
        users.chain(groups).collect()
    }

    /// Parses stored entries; skips kinds that only a later release knows.
    pub(super) fn parse(entries: Vec<DirectoryEntry>) -> Result<Self, serde_json::Error> {
        let mut change = Self::default();
        for DirectoryEntry { key, body } in entries {
            if let Some(id) = key.strip_prefix(USER) {
                let user = body.map(|body| serde_json::from_str(&body)).transpose()?;
                change.users.push((id.into(), user.map(Arc::new)));
            } else if let Some(id) = key.strip_prefix(GROUP) {
                let group = body.map(|body| serde_json::from_str(&body)).transpose()?;
                change.groups.push((id.into(), group.map(Arc::new)));
            }
        }
        Ok(change)
    }
}

impl ScimDirectory {
    /// Applies the change.
    pub(super) fn apply(&mut self, change: DirectoryChange) {
        for (id, user) in change.users {
            self.remove_user(&id);
            user.into_iter().for_each(|user| self.insert_user(user));
        }
        for (id, group) in change.groups {
            if let Some(order) = self.group_ids.remove(&id) {
                self.groups.remove(&order);
            }
            if let Some(group) = group {
                self.group_ids.insert(id, group.order);
                self.groups.insert(group.order, group);
            }
        }
    }

    fn insert_user(&mut self, user: Arc<ScimUser>) {
        let order = user.order;
        self.user_ids.insert(user.id.clone(), order);
        self.user_names.insert(folded(&user.fields.user_name), order);
        if let Some(external_id) = &user.fields.external_id {
            self.external_ids.insert((external_id.clone(), order));
        }
        for address in &user.fields.emails {
            self.addresses.insert((folded(&address.value), order));
        }
        for group in &user.groups {
            self.members.entry(group.clone()).or_default().insert(order);
        }
        self.users.insert(order, user);
    }

    fn remove_user(&mut self, id: &str) {
        let Some(user) = self.user_ids.remove(id).and_then(|order| self.users.remove(&order)) else { return };
        let order = user.order;
        self.user_names.remove(&folded(&user.fields.user_name));
        if let Some(external_id) = &user.fields.external_id {
            self.external_ids.remove(&(external_id.clone(), order));
        }
        for address in &user.fields.emails {
            self.addresses.remove(&(folded(&address.value), order));
        }
        for group in &user.groups {
            if let Some(members) = self.members.get_mut(group) {
                members.remove(&order);
                if members.is_empty() {
                    self.members.remove(group);
                }
            }
        }
    }

    pub(super) fn user(&self, id: &str) -> Option<&Arc<ScimUser>> {
        self.users.get(self.user_ids.get(id)?)
    }

    pub(super) fn group(&self, id: &str) -> Option<&Arc<ScimGroup>> {
        self.groups.get(self.group_ids.get(id)?)
    }

    /// All users, in the order of their creation.
    pub(super) fn users(&self) -> impl Iterator<Item = &Arc<ScimUser>> {
        self.users.values()
    }

    /// All groups, in the order of their creation.
    pub(super) fn groups(&self) -> impl Iterator<Item = &Arc<ScimGroup>> {
        self.groups.values()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.groups.len())
    }

    /// The user with this name, compared without case.
    pub(super) fn user_named(&self, user_name: &str) -> Option<&Arc<ScimUser>> {
        self.users.get(self.user_names.get(&folded(user_name))?)
    }

    /// The users with this `externalId`, in order.
    pub(super) fn users_with_external_id(&self, external_id: &str) -> impl Iterator<Item = &Arc<ScimUser>> {
        self.found(&self.external_ids, external_id.into())
    }

    /// The users with this e-mail address, compared without case, in order.
    pub(super) fn users_with_address(&self, address: &str) -> impl Iterator<Item = &Arc<ScimUser>> {
        self.found(&self.addresses, folded(address))
    }

    fn found<'a>(
        &'a self,
        index: &'a BTreeSet<(Box<str>, u64)>,
        key: Box<str>,
    ) -> impl Iterator<Item = &'a Arc<ScimUser>> {
        let found = index.range((key.clone(), 0)..=(key, u64::MAX));
        found.filter_map(|(_, order)| self.users.get(order))
    }

    /// The members of a group, in order.
    pub(super) fn members(&self, group: &str) -> impl Iterator<Item = &Arc<ScimUser>> {
        let members = self.members.get(group).into_iter().flatten();
        members.filter_map(|order| self.users.get(order))
    }

    /// The groups of a user.
    pub(super) fn groups_of<'a>(&'a self, user: &'a ScimUser) -> impl Iterator<Item = &'a Arc<ScimGroup>> {
        user.groups.iter().filter_map(|id| self.group(id))
    }

    /// The complete directory, as a change to an empty one.
    pub(super) fn all(&self) -> DirectoryChange {
        DirectoryChange {
            users: self.users().map(|user| (user.id.clone(), Some(Arc::clone(user)))).collect(),
            groups: self.groups().map(|group| (group.id.clone(), Some(Arc::clone(group)))).collect(),
        }
    }
}

/// Normalizes names and addresses for comparison.
pub(super) fn folded(text: &str) -> Box<str> {
    text.to_lowercase().into()
}
