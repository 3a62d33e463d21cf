//! All users and application credentials in memory, as every worker reads them: a copy of the store that only `changes`
//! writes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use serde::{Deserialize, Serialize};

use super::password::{PasswordHash, PasswordStamp};
use super::secret::SecretHash;
use crate::time::Timestamp;

/// A person or an organization on whose behalf applications call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its id: `sub` in its tokens.
    pub id: Arc<str>,
    /// Its display name.
    pub name: Box<str>,
    /// The roles it holds.
    pub roles: Vec<Box<str>>,
    /// Raised whenever the roles change.
    pub role_version: u64,
    /// When it was created.
    pub created_at: Timestamp,
    /// Whether it is active: otherwise neither its credentials nor its password are accepted. Earlier releases wrote none.
    #[serde(default = "yes")]
    pub is_active: bool,
    /// What its password is checked by; `None`: it has none and cannot sign in. Left out of intents: only the store and
    /// the directory hold it, so that a change which is completed late brings back no old one.
    #[serde(skip)]
    pub password: Option<PasswordHash>,
}

const fn yes() -> bool {
    true
}

impl User {
    /// Whether it can sign in.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.password.is_some()
    }

    /// Tells this password from the one before and the one after: a session that began under another one has ended, and so
    /// has one of an inactive user.
    #[must_use]
    pub fn password_stamp(&self) -> Option<PasswordStamp> {
        self.password.as_ref().filter(|_| self.is_active).map(PasswordHash::stamp)
    }
}

/// What an application of a user authenticates with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Its id: `client_id` in its tokens.
    pub client_id: Arc<str>,
    /// Its display name.
    pub name: Box<str>,
    /// The id of the user it belongs to.
    pub owner: Arc<str>,
    /// The roles that its tokens may carry, of those that the owner holds.
    pub roles: Vec<Box<str>>,
    /// The scopes that its tokens may carry.
    pub scopes: Vec<Box<str>>,
    /// The tenant it belongs to.
    pub tenant: Option<Box<str>>,
    /// From then on it and its tokens are of no use.
    pub expires_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    pub(super) secret: SecretHash,
    /// The secret before, which is good until then.
    pub(super) old_secret: Option<(SecretHash, Timestamp)>,
}

impl Credential {
    /// Until when the secret before the present one is good.
    #[must_use]
    pub fn old_secret_expires_at(&self) -> Option<Timestamp> {
        self.old_secret.as_ref().map(|(_, until)| *until)
    }

    /// Whether this secret is good at `now`. Looks at both secrets, so that it takes the same time whichever it is.
    pub(super) fn proves(&self, presented: &str, now: Timestamp) -> bool {
        let (old, until) =
            self.old_secret.as_ref().map_or((&SecretHash::NOBODY, now), |(old, until)| (old, *until));
        let is_old = old.matches(presented) && now < until;
        self.secret.matches(presented) | is_old
    }

    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| end <= now)
    }
}

/// All users and credentials.
#[derive(Debug, Default)]
pub(super) struct Directory(RwLock<Tables>);

#[derive(Debug, Default)]
struct Tables {
    users: BTreeMap<Arc<str>, Arc<User>>,
    /// How many of them have a password.
    passwords: usize,
    credentials: BTreeMap<Arc<str>, Arc<Credential>>,
    /// Owner, then client.
    owned: BTreeSet<(Arc<str>, Arc<str>)>,
}

impl Directory {
    /// Holds these instead of what it held, at one moment.
    pub(super) fn replace(&self, users: Vec<User>, credentials: Vec<Credential>) {
        let mut tables = Tables::default();
        users.into_iter().for_each(|user| tables.put_user(Arc::new(user)));
        credentials.into_iter().for_each(|credential| tables.put(Arc::new(credential)));
        *self.write() = tables;
    }

    // Nothing panics while it holds the lock for writing, so what a poisoned one guards is whole.
    fn read(&self) -> RwLockReadGuard<'_, Tables> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Tables> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn user(&self, id: &str) -> Option<Arc<User>> {
        self.read().users.get(id).cloned()
    }

    pub(super) fn credential(&self, client_id: &str) -> Option<Arc<Credential>> {
        self.read().credentials.get(client_id).cloned()
    }

    /// A credential with its owner, at one moment.
    pub(super) fn client(&self, client_id: &str) -> Option<(Arc<Credential>, Arc<User>)> {
        let tables = self.read();
        let credential = tables.credentials.get(client_id)?;
        Some((Arc::clone(credential), Arc::clone(tables.users.get(&credential.owner)?)))
    }

    /// Whether both are still what the directory holds.
    pub(super) fn still_holds(&self, credential: &Arc<Credential>, owner: &Arc<User>) -> bool {
        self.client(&credential.client_id)
            .is_some_and(|(c, u)| Arc::ptr_eq(&c, credential) && Arc::ptr_eq(&u, owner))
    }

    pub(super) fn put_user(&self, user: Arc<User>) {
        self.write().put_user(user);
    }

    /// Puts a user whose roles changed in its place. Its password stays: what was read from an intent has none.
    pub(super) fn put_roles(&self, user: &User) {
        let mut tables = self.write();
        let password = tables.users.get(&user.id).and_then(|before| before.password.clone());
        tables.put_user(Arc::new(User { password, ..user.clone() }));
    }

    /// Deactivates a user; returns what it was.
    pub(super) fn shut_out(&self, id: &str) -> Option<Arc<User>> {
        let mut tables = self.write();
        let before = tables.users.get(id).cloned()?;
        tables.put_user(Arc::new(User { is_active: false, ..User::clone(&before) }));
        Some(before)
    }

    /// Sets or removes the password of a user.
    pub(super) fn put_password(&self, id: &str, password: Option<PasswordHash>) {
        let mut tables = self.write();
        if let Some(before) = tables.users.get(id) {
            let user = User { password, ..User::clone(before) };
            tables.put_user(Arc::new(user));
        }
    }

    /// Whether any user has a password.
    pub(super) fn has_passwords(&self) -> bool {
        self.read().passwords > 0
    }

    pub(super) fn put_credential(&self, credential: Arc<Credential>) {
        self.write().put(credential);
    }

    /// Takes a user out, with the credentials it owns.
    pub(super) fn remove_user(&self, id: &str) -> (Option<Arc<User>>, Vec<Arc<Credential>>) {
        let mut tables = self.write();
        let user = tables.remove_user(id);
        let owned: Vec<Arc<str>> = tables.owned_by(id, None).cloned().collect();
        (user, owned.iter().filter_map(|client_id| tables.remove(client_id)).collect())
    }

    pub(super) fn remove_credential(&self, client_id: &str) -> Option<Arc<Credential>> {
        self.write().remove(client_id)
    }

    /// Up to `limit` users after an id, in the order of their ids.
    pub(super) fn users(&self, after: Option<&str>, limit: usize) -> Vec<Arc<User>> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.read();
        tables
            .users
            .range::<str, _>((from, Bound::Unbounded))
            .take(limit)
            .map(|(_, user)| Arc::clone(user))
            .collect()
    }

    /// Up to `limit` credentials after a client id, in the order of their client ids; with an owner, only its own.
    pub(super) fn credentials(
        &self,
        owner: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Credential>> {
        let tables = self.read();
        if let Some(owner) = owner {
            let ids = tables.owned_by(owner, after).take(limit);
            return ids.filter_map(|id| tables.credentials.get(id).cloned()).collect();
        }
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let found = tables.credentials.range::<str, _>((from, Bound::Unbounded));
        found.take(limit).map(|(_, credential)| Arc::clone(credential)).collect()
    }

    /// How many users and credentials there are.
    pub(super) fn counts(&self) -> (usize, usize) {
        let tables = self.read();
        (tables.users.len(), tables.credentials.len())
    }
}

impl Tables {
    fn owned_by(&self, owner: &str, after: Option<&str>) -> impl Iterator<Item = &Arc<str>> {
        let owner: Arc<str> = owner.into();
        let from = match after {
            Some(after) => Bound::Excluded((Arc::clone(&owner), after.into())),
            None => Bound::Included((Arc::clone(&owner), "".into())),
        };
        let found = self.owned.range((from, Bound::Unbounded));
        found.take_while(move |(of, _)| *of == owner).map(|(_, client_id)| client_id)
    }

    fn put_user(&mut self, user: Arc<User>) {
        self.passwords += usize::from(user.has_password());
        let before = self.users.insert(Arc::clone(&user.id), user);
        self.passwords -= usize::from(before.is_some_and(|before| before.has_password()));
    }

    fn remove_user(&mut self, id: &str) -> Option<Arc<User>> {
        let user = self.users.remove(id)?;
        self.passwords -= usize::from(user.has_password());
        Some(user)
    }

    fn put(&mut self, credential: Arc<Credential>) {
        self.owned.insert((Arc::clone(&credential.owner), Arc::clone(&credential.client_id)));
        self.credentials.insert(Arc::clone(&credential.client_id), credential);
    }

    fn remove(&mut self, client_id: &str) -> Option<Arc<Credential>> {
        let credential = self.credentials.remove(client_id)?;
        self.owned.remove(&(Arc::clone(&credential.owner), Arc::clone(&credential.client_id)));
        Some(credential)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn credential(client_id: &str, owner: &str) -> Credential {
        Credential {
            client_id: client_id.into(),
            name: "".into(),
            owner: owner.into(),
            roles: Vec::new(),
            scopes: Vec::new(),
            tenant: None,
            expires_at: None,
            created_at: NOW,
            secret: SecretHash::NOBODY,
            old_secret: None,
        }
    }

    fn user(id: &str) -> User {
        User {
            id: id.into(),
            name: "".into(),
            roles: Vec::new(),
            role_version: 1,
            created_at: NOW,
            is_active: true,
            password: None,
        }
    }

    fn with_password(id: &str) -> User {
        User { password: Some(PasswordHash::nobody()), ..user(id) }
    }

    #[test]
    fn lists_are_in_order_and_an_owner_sees_its_own_only() {
        let pairs = [("c1", "b"), ("c2", "a"), ("c3", "b"), ("c4", "bb"), ("c5", "a")];
        let directory = Directory::default();
        directory.put_user(Arc::new(user("gone")));
        directory.replace(
            ["b", "a", "bb"].map(user).to_vec(),
            pairs.map(|(client, owner)| credential(client, owner)).to_vec(),
        );
        let ids = |owner, after, limit| -> Vec<String> {
            directory.credentials(owner, after, limit).iter().map(|c| c.client_id.to_string()).collect()
        };
        assert_eq!(ids(None, None, 3), ["c1", "c2", "c3"]);
        assert_eq!(ids(None, Some("c3"), 9), ["c4", "c5"]);
        assert_eq!(ids(Some("b"), None, 9), ["c1", "c3"]);
        assert_eq!(ids(Some("b"), Some("c1"), 9), ["c3"]);
        assert_eq!(ids(Some("nobody"), None, 9), Vec::<String>::new());
        let users: Vec<_> = directory.users(Some("a"), 9).iter().map(|user| user.id.to_string()).collect();
        assert_eq!(users, ["b", "bb"]);

        assert_eq!(directory.remove_user("b").1.len(), 2);
        assert_eq!(ids(None, None, 9), ["c2", "c4", "c5"]);
        assert_eq!(directory.counts(), (2, 3));
        assert!(directory.client("c1").is_none());
    }

    #[test]
    fn a_replaced_record_is_another_one() {
        let directory = Directory::default();
        directory.replace(vec![user("a")], vec![credential("c", "a")]);
        let (credential_before, owner) = directory.client("c").unwrap();
        assert!(directory.still_holds(&credential_before, &owner));
        directory.put_user(Arc::new(user("a")));
        assert!(!directory.still_holds(&credential_before, &owner));
    }

    #[test]
    fn the_directory_knows_at_any_moment_whether_somebody_has_a_password() {
        let directory = Directory::default();
        let has = |wanted: bool, when: &str| assert_eq!(directory.has_passwords(), wanted, "{when}");
        has(false, "empty");
        directory.put_user(Arc::new(user("a")));
        directory.put_password("nobody", Some(PasswordHash::nobody()));
        has(false, "no such user");
        assert!(directory.user("nobody").is_none());
        directory.put_password("a", Some(PasswordHash::nobody()));
        directory.put_password("a", Some(PasswordHash::nobody()));
        has(true, "given twice to one user");
        directory.put_roles(&User { roles: vec!["r".into()], ..user("a") });
        let kept = directory.user("a").unwrap();
        assert!(kept.has_password() && *kept.roles == [Box::from("r")], "roles leave it: {kept:?}");
        directory.put_user(Arc::new(with_password("b")));
        directory.put_password("a", None);
        has(true, "another one has it");
        drop(directory.remove_user("b"));
        has(false, "its only holder is gone");
        drop(directory.remove_user("b"));
        has(false, "gone twice");
        directory.put_user(Arc::new(with_password("b")));
        directory.replace(vec![user("b"), user("c")], Vec::new());
        has(false, "all are replaced");
        directory.replace(vec![with_password("b"), with_password("b")], Vec::new());
        directory.put_user(Arc::new(user("b")));
        has(false, "one user counts once");
    }
}
