//! The database schema, version by version. `schema` decides which steps a file still needs.

/// One step for each version of the file, in order. Steps are only ever appended.
pub(super) const MIGRATIONS: [&str; 7] = [
    "
    CREATE TABLE origin (created_at INTEGER NOT NULL) STRICT;
    CREATE TABLE events (
        sequence    INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice, not even when old events are trimmed
        kind        INTEGER NOT NULL,
        key         BLOB    NOT NULL,
        at          INTEGER NOT NULL,
        detail      INTEGER NOT NULL, -- the role version, or the sequence that is undone; else -1
        issuer      TEXT    NOT NULL,
        subject     TEXT,
        client      TEXT,
        jti         TEXT,
        source      INTEGER NOT NULL,
        received_at INTEGER NOT NULL,
        expires_at  INTEGER NOT NULL,
        undone      INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE UNIQUE INDEX events_once ON events (key, kind, at, detail);
    CREATE INDEX events_end ON events (expires_at);
    CREATE TABLE sessions (
        token         BLOB    PRIMARY KEY,
        issuer        TEXT    NOT NULL,
        subject       BLOB,
        client        TEXT,
        issued_at     INTEGER NOT NULL,
        first_used_at INTEGER NOT NULL,
        last_used_at  INTEGER NOT NULL,
        expires_at    INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE key_sets (
        issuer     TEXT    PRIMARY KEY,
        body       BLOB    NOT NULL,
        fetched_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE usage (
        client       TEXT    NOT NULL,
        route        TEXT    NOT NULL,
        status       INTEGER NOT NULL,
        count        INTEGER NOT NULL,
        last_used_at INTEGER NOT NULL,
        PRIMARY KEY (client, route, status)
    ) STRICT, WITHOUT ROWID;
",
    "
    CREATE TABLE users (
        id           TEXT    PRIMARY KEY,
        name         TEXT    NOT NULL,
        roles        TEXT    NOT NULL, -- here and below: a JSON array of words
        role_version INTEGER NOT NULL,
        created_at   INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE former_users (
        id           TEXT    PRIMARY KEY,
        role_version INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE credentials (
        client_id        TEXT    PRIMARY KEY,
        name             TEXT    NOT NULL,
        owner            TEXT    NOT NULL,
        roles            TEXT    NOT NULL,
        scopes           TEXT    NOT NULL,
        tenant           TEXT,
        expires_at       INTEGER,
        created_at       INTEGER NOT NULL,
        secret           BLOB    NOT NULL, -- the salt, then the hash
        old_secret       BLOB,
        old_secret_until INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX credentials_owner ON credentials (owner);
    CREATE TABLE intents (
        id     INTEGER PRIMARY KEY,
        change TEXT    NOT NULL
    ) STRICT;
    CREATE TABLE signing_keys (
        kid          TEXT    PRIMARY KEY,
        algorithm    TEXT    NOT NULL,
        private      BLOB    NOT NULL, -- PKCS #8
        signs_from   INTEGER NOT NULL,
        longest_life INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    // Running time: the milliseconds for which a gate had the file open. It never steps, so deletions are based on it.
    "
    ALTER TABLE origin ADD COLUMN uptime INTEGER NOT NULL DEFAULT 0; -- the running time of all gates so far
    ALTER TABLE origin ADD COLUMN identity TEXT NOT NULL DEFAULT ''; -- tells this log from any other
    ALTER TABLE origin ADD COLUMN not_before INTEGER NOT NULL DEFAULT 0; -- of tokens issued before, nothing is known
    UPDATE origin SET not_before = created_at, identity = lower(hex(randomblob(16)));
    ALTER TABLE origin ADD COLUMN idle_timeout INTEGER; -- the one in force last; -1: none
    ALTER TABLE origin ADD COLUMN idle_floor INTEGER; -- tokens not used since then are idle, whatever idle_timeout is now
    ALTER TABLE origin ADD COLUMN idle_floor_uptime INTEGER;
    ALTER TABLE origin ADD COLUMN idle_floor_timeout INTEGER; -- unless they were used for no longer than this
    ALTER TABLE events ADD COLUMN received_uptime INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE events ADD COLUMN origin BLOB; -- the signal it came with
    DROP INDEX events_once;
    CREATE UNIQUE INDEX events_once ON events (
        key, kind, ifnull(origin, x''),
        CASE WHEN origin IS NULL THEN at ELSE 0 END, CASE WHEN origin IS NULL THEN detail ELSE 0 END
    );
    ALTER TABLE sessions ADD COLUMN last_used_uptime INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE signing_keys ADD COLUMN signs_uptime INTEGER; -- from when on it signs; NULL: an earlier release wrote it
    ALTER TABLE key_sets ADD COLUMN source TEXT NOT NULL DEFAULT ''; -- where the keys came from; '': an earlier release did not say
    ALTER TABLE key_sets ADD COLUMN fetched_uptime INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE signing_keys ADD COLUMN retired_uptime INTEGER; -- when another key took over; NULL: not yet
    ALTER TABLE signing_keys ADD COLUMN expires_by INTEGER; -- all its tokens expire by then; NULL: it has signed nothing
    CREATE TABLE forgotten ( -- what the deleted events may have ended
        issuer       TEXT    NOT NULL,
        retention    INTEGER NOT NULL, -- tokens that are older than this
        until_uptime INTEGER NOT NULL, -- and were issued until then, by running time
        PRIMARY KEY (issuer, retention)
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE users ADD COLUMN password TEXT; -- a PHC string of Argon2id; NULL: the user has none
",
    "
    ALTER TABLE events ADD COLUMN session TEXT; -- the login session that ended
    ALTER TABLE events ADD COLUMN subject_kind INTEGER NOT NULL DEFAULT 0; -- which claim the subject is compared with
    ALTER TABLE sessions ADD COLUMN names BLOB; -- other names of the token's subject, and its login session, as keys
",
    "
    CREATE TABLE directories ( -- of SCIM providers
        name     TEXT    PRIMARY KEY,
        revision INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE directory_entries (
        directory TEXT NOT NULL,
        key       TEXT NOT NULL,
        body      TEXT NOT NULL,
        PRIMARY KEY (directory, key)
    ) STRICT;
    ALTER TABLE users ADD COLUMN active INTEGER NOT NULL DEFAULT 1; -- whether its credentials and its password are good
",
    "
    CREATE TABLE idle_terms ( -- of issuers with an idle timeout of their own; the columns are those of origin
        issuer        TEXT    PRIMARY KEY,
        timeout       INTEGER NOT NULL,
        floor         INTEGER,
        floor_uptime  INTEGER,
        floor_timeout INTEGER
    ) STRICT, WITHOUT ROWID;
",
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::Connection;

    use super::*;
    use crate::state::schema::{self, WantedDatabase};
    use crate::time::Now;

    /// Writes a file as a release did whose latest schema version was `version`.
    fn write_file(path: &Path, version: usize) {
        let file = Connection::open(path).unwrap();
        MIGRATIONS.iter().take(version).for_each(|step| file.execute_batch(step).unwrap());
        file.execute("INSERT INTO origin (created_at) VALUES (1)", []).unwrap();
        if version >= 2 {
            let user = "INSERT INTO users (id, name, roles, role_version, created_at) VALUES ('ada', 'Ada', '[\"reader\"]', 7, 1)";
            file.execute(user, []).unwrap();
        }
        file.pragma_update(None, "application_id", 0x5043_4c53).unwrap();
        file.pragma_update(None, "user_version", version as i64).unwrap();
    }

    /// Every column of every table.
    fn columns(file: &Connection) -> Vec<String> {
        let all = "SELECT format('%s %d %s %s %d', m.name, c.cid, c.name, c.type, c.\"notnull\")
                   FROM sqlite_schema m, pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY 1";
        let mut statement = file.prepare(all).unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn a_file_of_every_earlier_version_becomes_one_of_this_version_and_keeps_its_users() {
        let folder = tempfile::tempdir().unwrap();
        let fresh = schema::in_memory(Now::read()).map(|database| columns(&database.connection)).unwrap();
        assert!(fresh.iter().any(|column| column.contains(" password TEXT 0")), "{fresh:?}");
        for version in 1..MIGRATIONS.len() {
            let path = folder.path().join(format!("{version}.db"));
            write_file(&path, version);
            let open = || schema::open(&path, WantedDatabase::Any, Now::read()).unwrap();
            drop(open());
            let database = open();
            assert_eq!(columns(&database.connection), fresh, "from version {version}");
            let number: i64 =
                database.connection.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
            assert_eq!(number, MIGRATIONS.len() as i64, "from version {version}");
            let users = "SELECT format('%s %d %s', id, role_version, password IS NULL) FROM users";
            let mut statement = database.connection.prepare(users).unwrap();
            let users: Vec<String> =
                statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
            assert_eq!(users, if version < 2 { vec![] } else { vec!["ada 7 1"] }, "from version {version}");
        }
    }

    #[test]
    fn a_file_of_an_earlier_version_is_not_read_before_a_gate_has_brought_it_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        for version in 1..MIGRATIONS.len() {
            let path = folder.path().join(format!("{version}.db"));
            write_file(&path, version);
            let before = std::fs::read(&path).unwrap();
            let why = schema::open_read_only(&path).unwrap_err().to_string();
            assert!(why.contains("written by an earlier release"), "{why}");
            assert_eq!(std::fs::read(&path).unwrap(), before);
            let database = schema::open(&path, WantedDatabase::Any, Now::at_millis(9)).unwrap();
            assert_eq!(database.created_at.as_millis(), 1, "from version {version}");
            let origins = "SELECT count(*) FROM origin";
            let count: i64 = database.connection.query_row(origins, [], |row| row.get(0)).unwrap();
            assert_eq!(count, 1, "from version {version}");
            drop(database);
            assert!(schema::open_read_only(&path).unwrap().is_some());
        }
    }
}
