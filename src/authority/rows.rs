//! The SQL statements of the authority: one function per operation.

use std::sync::Arc;

use jsonwebtoken::Algorithm;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::Zeroizing;

use super::directory::{Credential, User};
use super::password::PasswordHash;
use super::secret::SecretHash;
use super::signing;
use crate::time::Timestamp;

/// A signing key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyRow {
    pub(super) kid: Box<str>,
    pub(super) algorithm: Algorithm,
    /// PKCS #8.
    pub(super) private: Zeroizing<Vec<u8>>,
    /// When it was made by the wall clock; in the rows of earlier releases, when it was to sign.
    pub(super) signs_from: Timestamp,
    /// The longest life of a token it has signed, in milliseconds.
    pub(super) longest_life: i64,
    /// The running time from which it signs, until the next one does; `None` in the rows of earlier releases.
    pub(super) signs_uptime: Option<i64>,
    /// The running time at which another key took over.
    pub(super) retired_uptime: Option<i64>,
    /// All tokens it has signed expire by then; `None`: it has signed nothing.
    pub(super) expires_by: Option<Timestamp>,
}

/// Creates a user without a password, or changes one and leaves its password alone: a change of roles that is completed
/// late must not bring back an old one.
pub(super) fn put_user(db: &Connection, user: &User) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO users (id, name, roles, role_version, created_at, active) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET name = ?2, roles = ?3, role_version = ?4, active = ?6",
    )?
    .execute(params![
        user.id,
        user.name,
        words(&user.roles),
        i64::try_from(user.role_version).unwrap_or(i64::MAX),
        user.created_at.as_millis(),
        user.is_active,
    ])
    .map(drop)
}

pub(super) fn put_password(
    db: &Connection,
    id: &str,
    password: Option<&PasswordHash>,
) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE users SET password = ?2 WHERE id = ?1")?
        .execute(params![id, password.map(PasswordHash::as_phc)])
        .map(drop)
}

/// Deletes the user with its credentials. Its version is kept: when the id is given again, older tokens must not count as
/// newer than those issued after that.
pub(super) fn delete_user(db: &Connection, id: &str) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO former_users (id, role_version) SELECT id, role_version FROM users WHERE id = ?1
         ON CONFLICT (id) DO UPDATE SET role_version = excluded.role_version",
    )?
    .execute([id])?;
    db.prepare_cached("DELETE FROM credentials WHERE owner = ?1")?.execute([id])?;
    db.prepare_cached("DELETE FROM users WHERE id = ?1")?.execute([id]).map(drop)
}

/// The version of the roles that a deleted user of this id had.
pub(super) fn former_version(db: &Connection, id: &str) -> rusqlite::Result<Option<u64>> {
    db.prepare_cached("SELECT role_version FROM former_users WHERE id = ?1")?
        .query_row([id], |row| row.get::<_, i64>(0))
        .optional()
        .map(|version| version.and_then(|version| u64::try_from(version).ok()))
}

pub(super) fn put_credential(db: &Connection, credential: &Credential) -> rusqlite::Result<()> {
    let old = credential.old_secret.as_ref();
    db.prepare_cached(
        "INSERT INTO credentials (client_id, name, owner, roles, scopes, tenant, expires_at, created_at, secret,
             old_secret, old_secret_until)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
         ON CONFLICT (client_id) DO UPDATE SET name = ?2, expires_at = ?7, secret = ?9, old_secret = ?10,
             old_secret_until = ?11",
    )?
    .execute(params![
        credential.client_id,
        credential.name,
        credential.owner,
        words(&credential.roles),
        words(&credential.scopes),
        credential.tenant,
        credential.expires_at.map(Timestamp::as_millis),
        credential.created_at.as_millis(),
        credential.secret.to_bytes(),
        old.map(|(secret, _)| secret.to_bytes()),
        old.map(|(_, until)| until.as_millis()),
    ])
    .map(drop)
}

pub(super) fn delete_credential(db: &Connection, client_id: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM credentials WHERE client_id = ?1")?.execute([client_id]).map(drop)
}

pub(super) fn users(db: &Connection) -> rusqlite::Result<Vec<User>> {
    db.prepare("SELECT id, name, roles, role_version, created_at, password, active FROM users")?
        .query_map([], |row| {
            Ok(User {
                id: row.get(0)?,
                name: row.get(1)?,
                roles: list(row, 2)?,
                role_version: u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0),
                created_at: time(row, 4)?,
                password: password(row, 5)?,
                is_active: row.get(6)?,
            })
        })?
        .collect()
}

pub(super) fn credentials(db: &Connection) -> rusqlite::Result<Vec<Credential>> {
    db.prepare(
        "SELECT client_id, name, owner, roles, scopes, tenant, expires_at, created_at, secret, old_secret,
             old_secret_until FROM credentials",
    )?
    .query_map([], |row| {
        let old = row.get::<_, Option<[u8; 48]>>(9)?.map(SecretHash::from_bytes);
        let until = row.get::<_, Option<i64>>(10)?.map(Timestamp::from_millis);
        Ok(Credential {
            client_id: row.get(0)?,
            name: row.get(1)?,
            owner: row.get(2)?,
            roles: list(row, 3)?,
            scopes: list(row, 4)?,
            tenant: row.get(5)?,
            expires_at: row.get::<_, Option<i64>>(6)?.map(Timestamp::from_millis),
            created_at: time(row, 7)?,
            secret: SecretHash::from_bytes(row.get(8)?),
            old_secret: old.zip(until),
        })
    })?
    .collect()
}

/// Keeps a change that was decided on until it is carried out to the end; returns its id.
pub(super) fn put_intent(db: &Connection, change: &str) -> rusqlite::Result<i64> {
    db.prepare_cached("INSERT INTO intents (change) VALUES (?1)")?.execute([change])?;
    Ok(db.last_insert_rowid())
}

pub(super) fn delete_intent(db: &Connection, id: i64) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM intents WHERE id = ?1")?.execute([id]).map(drop)
}

pub(super) fn intents(db: &Connection) -> rusqlite::Result<Vec<(i64, String)>> {
    db.prepare_cached("SELECT id, change FROM intents ORDER BY id")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub(super) fn signing_keys(db: &Connection) -> rusqlite::Result<Vec<KeyRow>> {
    db.prepare(
        "SELECT kid, algorithm, private, signs_from, longest_life, signs_uptime, retired_uptime, expires_by
         FROM signing_keys ORDER BY signs_uptime, signs_from",
    )?
    .query_map([], |row| {
        let name: String = row.get(1)?;
        let algorithm = signing::algorithm(&name).ok_or_else(|| {
            rusqlite::Error::FromSqlConversionFailure(1, Type::Text, format!("algorithm {name}?").into())
        })?;
        Ok(KeyRow {
            kid: row.get(0)?,
            algorithm,
            private: Zeroizing::new(row.get(2)?),
            signs_from: time(row, 3)?,
            longest_life: row.get(4)?,
            signs_uptime: row.get(5)?,
            retired_uptime: row.get(6)?,
            expires_by: row.get::<_, Option<i64>>(7)?.map(Timestamp::from_millis),
        })
    })?
    .collect()
}

pub(super) fn put_signing_key(db: &Connection, key: &KeyRow) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO signing_keys (kid, algorithm, private, signs_from, longest_life, signs_uptime, retired_uptime,
             expires_by)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
         ON CONFLICT (kid) DO UPDATE SET longest_life = ?5, signs_uptime = ?6, retired_uptime = ?7, expires_by = ?8",
    )?
    .execute(params![
        key.kid,
        signing::name(key.algorithm),
        *key.private,
        key.signs_from.as_millis(),
        key.longest_life,
        key.signs_uptime,
        key.retired_uptime,
        key.expires_by.map(Timestamp::as_millis),
    ])
    .map(drop)
}

pub(super) fn delete_signing_key(db: &Connection, kid: &str) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM signing_keys WHERE kid = ?1")?.execute([kid]).map(drop)
}

/// Words as a JSON array.
fn words(words: &[Box<str>]) -> String {
    serde_json::Value::from_iter(words.iter().map(|word| &**word)).to_string()
}

fn list(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Box<str>>> {
    let text: Arc<str> = row.get(column)?;
    serde_json::from_str(&text)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into()))
}

fn password(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<PasswordHash>> {
    let stored: Option<Arc<str>> = row.get(column)?;
    stored.map(PasswordHash::from_phc).transpose().map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.to_string().into())
    })
}

fn time(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp::from_millis)
}
