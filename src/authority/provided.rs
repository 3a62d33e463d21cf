//! Users that an external provider manages: a directory that pushes them (SCIM) instead of an administrator.

use std::sync::Arc;

use super::Authority;
use super::accounts::{Refused, text, user_id, words};
use super::changes::{AccountChange, ProvidedChange};
use super::directory::User;
use crate::time::Timestamp;

/// What a user is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvidedUser {
    /// Its id. A user that is there is taken over with its credentials.
    pub id: String,
    /// Its display name; its id, if empty.
    pub name: String,
    /// All the roles it holds.
    pub roles: Vec<String>,
    /// Whether it is active.
    pub is_active: bool,
}

impl Authority {
    /// Changes all of these users as their provider wants, or none. Ends the tokens of users whose roles change or who become
    /// inactive; users that are already as wanted do not change.
    ///
    /// # Errors
    /// When a field is invalid, or a store cannot be written.
    pub async fn provide(self: &Arc<Self>, wanted: Vec<ProvidedUser>) -> Result<(), Refused> {
        let wanted = wanted.into_iter().map(checked).collect::<Result<Vec<_>, _>>()?;
        let alone = self.settled_alone().await?;
        let mut changes = Vec::new();
        for wanted in wanted {
            changes.extend(self.change_to(wanted).await?);
        }
        if changes.is_empty() {
            return Ok(());
        }
        Ok(self.carry_out(alone, AccountChange::ProvideUsers(changes)).await?)
    }

    async fn change_to(&self, wanted: User) -> Result<Option<ProvidedChange>, Refused> {
        let Some(before) = self.directory.user(&wanted.id) else {
            let id = wanted.id.to_string();
            let former = self.store.transact(move |db| super::rows::former_version(db, &id)).await?;
            let end_tokens = !wanted.is_active;
            let user = User { role_version: former.unwrap_or(0) + 1, created_at: Timestamp::now(), ..wanted };
            return Ok(Some(ProvidedChange { user: Arc::new(user), end_tokens }));
        };
        let has_same_roles = wanted.roles.len() == before.roles.len()
            && wanted.roles.iter().all(|role| before.roles.contains(role));
        let is_shut_out = before.is_active && !wanted.is_active;
        if has_same_roles && before.is_active == wanted.is_active && before.name == wanted.name {
            return Ok(None);
        }
        let end_tokens = is_shut_out || !has_same_roles;
        let User { name, roles, is_active, .. } = wanted;
        let role_version = before.role_version + u64::from(end_tokens);
        let user = User { name, roles, is_active, role_version, ..User::clone(&before) };
        Ok(Some(ProvidedChange { user: Arc::new(user), end_tokens }))
    }
}

/// A user that can be, of the first version.
fn checked(wanted: ProvidedUser) -> Result<User, Refused> {
    let ProvidedUser { id, name, roles, is_active } = wanted;
    let id = user_id(id)?;
    let name = if name.is_empty() { id.clone() } else { text("name", name)? };
    Ok(User {
        id: id.into(),
        name: name.into(),
        roles: words("roles", roles, |_| Ok(()))?,
        role_version: 1,
        created_at: Timestamp::EPOCH,
        is_active,
        password: None,
    })
}
