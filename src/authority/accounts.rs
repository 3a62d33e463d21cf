//! Administrators' operations on users, roles and application credentials. Validates them; `changes` carries them out.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Authority;
use super::changes::AccountChange;
use super::directory::{Credential, User};
use super::secret::{Secret, random_text};
use crate::state::StoreError;
use crate::time::Timestamp;

/// What client ids begin with and user ids do not, so that `sub` and `client_id` never collide (RFC 9068 §5).
const CLIENT_PREFIX: &str = "app_";
/// Random characters of a client id; 62^22 is more than 2^128.
const CLIENT_CHARACTERS: usize = 22;
/// Of an id, a name, a role, a tenant, in bytes.
const LONGEST: usize = 255;
/// Roles or scopes of one record.
const MOST: usize = 256;

/// Why nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// A field has a value that it cannot have.
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A user has this id already.
    Taken,
    /// There is no such user.
    NoUser,
    /// There is no such credential.
    NoCredential,
    /// The random number generator failed.
    NoRandomness,
    /// There is not enough memory to hash a password.
    NoMemory,
    /// A store cannot be written.
    Store(StoreError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { field, why } => write!(f, "{field}: {why}"),
            Self::Taken => f.write_str("id: is already in use by another user"),
            Self::NoUser => f.write_str("there is no such user"),
            Self::NoCredential => f.write_str("there is no such credential"),
            Self::NoRandomness => f.write_str("the random number generator failed"),
            Self::NoMemory => f.write_str("not enough memory to hash a password"),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Refused {}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<aws_lc_rs::error::Unspecified> for Refused {
    fn from(_: aws_lc_rs::error::Unspecified) -> Self {
        Self::NoRandomness
    }
}

/// A new user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewUser {
    /// Its id.
    pub id: String,
    /// Its display name; its id, if empty.
    pub name: String,
    /// The roles it holds.
    pub roles: Vec<String>,
}

/// A new credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewCredential {
    /// Its display name.
    pub name: String,
    /// The id of its owner.
    pub owner: String,
    /// The roles that its tokens may carry: of those that the owner holds.
    pub roles: Vec<String>,
    /// The scopes that its tokens may carry: of those that the authority knows.
    pub scopes: Vec<String>,
    /// The tenant it belongs to.
    pub tenant: Option<String>,
    /// When it expires; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// Changes to a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edit {
    /// Its name; `None`: unchanged.
    pub name: Option<String>,
    /// When it expires; `Some(None)`: never, `None`: unchanged.
    pub expires_at: Option<Option<Timestamp>>,
}

impl Authority {
    /// A user.
    #[must_use]
    pub fn user(&self, id: &str) -> Option<Arc<User>> {
        self.directory.user(id)
    }

    /// Up to `limit` users after an id, in the order of their ids.
    #[must_use]
    pub fn users(&self, after: Option<&str>, limit: usize) -> Vec<Arc<User>> {
        self.directory.users(after, limit)
    }

    /// A credential.
    #[must_use]
    pub fn credential(&self, client_id: &str) -> Option<Arc<Credential>> {
        self.directory.credential(client_id)
    }

    /// Up to `limit` credentials after a client id, in the order of their client ids; with an owner, only its own.
    #[must_use]
    pub fn credentials(
        &self,
        owner: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Vec<Arc<Credential>> {
        self.directory.credentials(owner, after, limit)
    }

    /// Creates a user.
    ///
    /// # Errors
    /// When the id is in use or a field is invalid.
    pub async fn create_user(self: &Arc<Self>, new: NewUser) -> Result<Arc<User>, Refused> {
        let NewUser { id, name, roles } = new;
        let id = user_id(id)?;
        let name = if name.is_empty() { id.clone() } else { text("name", name)? };
        let roles = words("roles", roles, |_| Ok(()))?;
        let alone = self.settled_alone().await?;
        if self.directory.user(&id).is_some() {
            return Err(Refused::Taken);
        }
        let former = id.clone();
        let former = self.store.transact(move |db| super::rows::former_version(db, &former)).await?;
        let (role_version, created_at) = (former.unwrap_or(0) + 1, Timestamp::now());
        let (id, name) = (id.into(), name.into());
        let user =
            Arc::new(User { id, name, roles, role_version, created_at, is_active: true, password: None });
        self.carry_out(alone, AccountChange::CreateUser(Arc::clone(&user))).await?;
        Ok(user)
    }

    /// Gives a user these roles instead of those it has: every token issued on its behalf ends, and later tokens carry no
    /// role that it does not hold. The same roles in another order change nothing.
    ///
    /// # Errors
    /// When there is no such user or a role is invalid.
    pub async fn set_roles(self: &Arc<Self>, id: &str, roles: Vec<String>) -> Result<Arc<User>, Refused> {
        let roles = words("roles", roles, |_| Ok(()))?;
        let alone = self.settled_alone().await?;
        let before = self.directory.user(id).ok_or(Refused::NoUser)?;
        if roles.len() == before.roles.len() && roles.iter().all(|role| before.roles.contains(role)) {
            return Ok(before);
        }
        let user = Arc::new(User { roles, role_version: before.role_version + 1, ..User::clone(&before) });
        self.carry_out(alone, AccountChange::SetRoles(Arc::clone(&user))).await?;
        Ok(user)
    }

    /// Deletes a user with its credentials, and ends their tokens.
    ///
    /// # Errors
    /// When there is no such user.
    pub async fn delete_user(self: &Arc<Self>, id: &str) -> Result<(), Refused> {
        let alone = self.settled_alone().await?;
        let user = self.directory.user(id).ok_or(Refused::NoUser)?;
        Ok(self.carry_out(alone, AccountChange::DeleteUser(Arc::clone(&user.id))).await?)
    }

    /// Creates a credential; the secret is returned only here.
    ///
    /// # Errors
    /// When there is no such owner or a field is invalid.
    pub async fn create_credential(
        self: &Arc<Self>,
        new: NewCredential,
    ) -> Result<(Arc<Credential>, Secret), Refused> {
        let NewCredential { name, owner, roles, scopes, tenant, expires_at } = new;
        let name = text("name", name)?.into();
        let tenant = tenant.map(|tenant| text("tenant", tenant)).transpose()?.map(Into::into);
        let now = Timestamp::now();
        future(expires_at, now)?;
        let settings = self.settings();
        let scopes = words("scopes", scopes, |scope| {
            let known = settings.scopes.iter().any(|known| known == scope);
            if known { Ok(()) } else { Err("the authority does not define this scope") }
        })?;
        let turn = self.shared().await;
        let owner =
            self.directory.user(&owner).ok_or_else(|| invalid("owner", "there is no such user".into()))?;
        let roles = words("roles", roles, |role| {
            let held = owner.roles.iter().any(|held| **held == *role);
            if held { Ok(()) } else { Err("the owner does not hold this role") }
        })?;
        let client_id = format!("{CLIENT_PREFIX}{}", *random_text(CLIENT_CHARACTERS)?);
        let secret = Secret::generate()?;
        let credential = Arc::new(Credential {
            client_id: client_id.into(),
            name,
            owner: Arc::clone(&owner.id),
            roles,
            scopes,
            tenant,
            expires_at,
            created_at: now,
            secret: secret.hash()?,
            old_secret: None,
        });
        let change = AccountChange::PutCredential { credential: Arc::clone(&credential), end_tokens: false };
        self.carry_out(turn, change).await?;
        Ok((credential, secret))
    }

    /// Changes a credential's name and end. Where its end comes so early that a token could outlive it, its tokens end
    /// now: the next ones expire in time.
    ///
    /// # Errors
    /// When there is no such credential or a field is invalid.
    pub async fn edit_credential(
        self: &Arc<Self>,
        client_id: &str,
        edit: Edit,
    ) -> Result<Arc<Credential>, Refused> {
        let now = Timestamp::now();
        let name = edit.name.map(|name| text("name", name)).transpose()?;
        future(edit.expires_at.flatten(), now)?;
        let alone = self.settled_alone().await?;
        let before = self.directory.credential(client_id).ok_or(Refused::NoCredential)?;
        let expires_at = edit.expires_at.unwrap_or(before.expires_at);
        let end = |credential: Option<Timestamp>| credential.unwrap_or(Timestamp::from_millis(i64::MAX));
        let ring = self.ring.load();
        // The clock may be behind what it said when the last token was issued.
        let last_token = now.plus(ring.longest_life).max(ring.last_expiry);
        let end_tokens = end(expires_at) < end(before.expires_at).min(last_token);
        let name = name.map_or_else(|| before.name.clone(), Into::into);
        let credential = Arc::new(Credential { name, expires_at, ..Credential::clone(&before) });
        let change = AccountChange::PutCredential { credential: Arc::clone(&credential), end_tokens };
        self.carry_out(alone, change).await?;
        Ok(credential)
    }

    /// Gives a credential a new secret; the one it has is good for `overlap` longer, and any before it for no longer.
    /// Its tokens live on, or end.
    ///
    /// # Errors
    /// When there is no such credential.
    pub async fn new_secret(
        self: &Arc<Self>,
        client_id: &str,
        overlap: Duration,
        end_tokens: bool,
    ) -> Result<(Arc<Credential>, Secret), Refused> {
        let secret = Secret::generate()?;
        let alone = self.settled_alone().await?;
        let before = self.directory.credential(client_id).ok_or(Refused::NoCredential)?;
        let until = Timestamp::now().plus(overlap);
        let old_secret = (!overlap.is_zero()).then(|| (before.secret.clone(), until));
        let credential =
            Arc::new(Credential { secret: secret.hash()?, old_secret, ..Credential::clone(&before) });
        let change = AccountChange::PutCredential { credential: Arc::clone(&credential), end_tokens };
        self.carry_out(alone, change).await?;
        Ok((credential, secret))
    }

    /// Deletes a credential and ends its tokens.
    ///
    /// # Errors
    /// When there is no such credential.
    pub async fn delete_credential(self: &Arc<Self>, client_id: &str) -> Result<(), Refused> {
        let alone = self.settled_alone().await?;
        let credential = self.directory.credential(client_id).ok_or(Refused::NoCredential)?;
        Ok(self.carry_out(alone, AccountChange::DeleteCredential(Arc::clone(&credential.client_id))).await?)
    }
}

pub(super) fn invalid(field: &'static str, why: String) -> Refused {
    Refused::Invalid { field, why }
}

/// An id that a user can have.
pub(super) fn user_id(id: String) -> Result<String, Refused> {
    let id = text("id", id)?;
    if id.starts_with(CLIENT_PREFIX) {
        return Err(invalid(
            "id",
            format!("must not begin with {CLIENT_PREFIX:?}, which is reserved for client ids"),
        ));
    }
    if matches!(id.as_str(), "." | "..") {
        // Many clients take it out of the path of a URL before they send it.
        return Err(invalid("id", "cannot be used in the path of a URL".to_owned()));
    }
    Ok(id)
}

/// A text that can stand in a token, a header and a log.
pub(super) fn text(field: &'static str, text: String) -> Result<String, Refused> {
    let problem = if text.is_empty() {
        "is empty"
    } else if text.len() > LONGEST {
        "is longer than 255 bytes"
    } else if text.chars().any(char::is_control) {
        "contains a control character"
    } else if text.trim() != text {
        "must not begin or end with a space"
    } else {
        return Ok(text);
    };
    Err(invalid(field, problem.to_owned()))
}

/// Words that pass, each once. Takes time in proportion to the list, however often a word is repeated in it.
pub(super) fn words(
    field: &'static str,
    words: Vec<String>,
    passes: impl Fn(&str) -> Result<(), &'static str>,
) -> Result<Vec<Box<str>>, Refused> {
    let mut known = HashSet::new();
    let mut kept: Vec<Box<str>> = Vec::new();
    for word in words {
        let word: Box<str> = text(field, word)?.into();
        if !known.insert(word.clone()) {
            continue;
        }
        if kept.len() == MOST {
            return Err(invalid(field, format!("has more than {MOST} entries")));
        }
        passes(&word).map_err(|why| invalid(field, format!("{word:?}: {why}")))?;
        kept.push(word);
    }
    Ok(kept)
}

fn future(end: Option<Timestamp>, now: Timestamp) -> Result<(), Refused> {
    match end {
        Some(end) if end <= now => Err(invalid("expires_at", "must be in the future".to_owned())),
        Some(_) | None => Ok(()),
    }
}
