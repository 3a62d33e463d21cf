//! Directories in the shared store: one hash with the documents, and one with the last revisions, from which a
//! replica learns whether its copy is an earlier state of the server's directory, and what has changed since.

use std::time::Duration;

use redis::{Cmd, cmd};

use super::fault::RedisFault;
use super::supervise::random_id;
use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::state::StoreError;
use crate::state::directory::{DirectoryEntry, DirectoryNews, DirectoryRevision, PAGE};

/// The timeout for a change of many documents.
const LONG: Duration = Duration::from_secs(10);

/// The keys of a directory, which share a slot.
struct DirectoryKeys {
    state: String,
    history: String,
    entries: String,
}

/// The server's reply about a directory: number, token, a code for the rest (0: nothing is new; 1: the changes
/// follow; 2: read the whole directory), keys, bodies.
type SaidOfDirectory = (u64, String, u8, Vec<String>, Vec<Option<String>>);

impl SharedStore {
    fn directory(&self, name: &str) -> DirectoryKeys {
        let of = self.keys.directory(name);
        DirectoryKeys {
            state: format!("{of}:state"),
            history: format!("{of}:history"),
            entries: format!("{of}:entries"),
        }
    }

    async fn ask_directory<T: redis::FromRedisValue>(
        &self,
        keys: &DirectoryKeys,
        call: &Cmd,
        patience: Duration,
    ) -> Result<T, RedisFault> {
        let lane = self.lane(keys.state.as_bytes())?;
        lane.ask(call, patience).await.inspect_err(|fault| self.report(fault))
    }

    /// Returns what changed in a directory.
    pub(in crate::state) async fn directory_news(
        &self,
        name: &str,
        known: &DirectoryRevision,
    ) -> Result<Option<DirectoryNews>, StoreError> {
        let keys = self.directory(name);
        let (number, token, kind, changed, bodies) = self.say_directory(&keys, known).await?;
        let mut revision = DirectoryRevision { number, token: token.into() };
        match kind {
            0 => Ok(None),
            1 => Ok(Some(DirectoryNews { revision, is_whole: false, entries: entries(changed, bodies) })),
            _ => {
                let mut entries = self.scan_directory(&keys).await?;
                // The changes made while it was read.
                let (number, token, kind, keys_after, bodies_after) =
                    self.say_directory(&keys, &revision).await?;
                if kind > 1 {
                    return Err(StoreError::Unreachable(
                        "the directory was replaced while it was being read".to_owned(),
                    ));
                }
                revision = DirectoryRevision { number, token: token.into() };
                let gone: std::collections::HashSet<&str> = keys_after.iter().map(String::as_str).collect();
                entries.retain(|entry| !gone.contains(&*entry.key));
                entries.extend(
                    self::entries(keys_after, bodies_after).into_iter().filter(|entry| entry.body.is_some()),
                );
                Ok(Some(DirectoryNews { revision, is_whole: true, entries }))
            }
        }
    }

    async fn say_directory(
        &self,
        keys: &DirectoryKeys,
        known: &DirectoryRevision,
    ) -> Result<SaidOfDirectory, RedisFault> {
        let mut call = self.scripts.news.call(3);
        call.arg(&keys.state).arg(&keys.history).arg(&keys.entries);
        call.arg(known.number).arg(&*known.token).arg(PAGE);
        self.ask_directory(keys, &call, RESPONSE_TIMEOUT).await
    }

    async fn scan_directory(&self, keys: &DirectoryKeys) -> Result<Vec<DirectoryEntry>, RedisFault> {
        let (mut cursor, mut found) = (0_u64, std::collections::BTreeMap::new());
        loop {
            let mut scan = cmd("HSCAN");
            scan.arg(&keys.entries).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, part): (u64, Vec<(String, String)>) =
                self.ask_directory(keys, &scan, RESPONSE_TIMEOUT).await?;
            // HSCAN may return a document twice.
            found.extend(part);
            cursor = next;
            if cursor == 0 {
                let entry = |(key, body): (String, String)| DirectoryEntry {
                    key: key.into(),
                    body: Some(body.into()),
                };
                return Ok(found.into_iter().map(entry).collect());
            }
        }
    }

    /// Changes a directory from the revision `known`, or returns `None` if its revision is not `known`.
    pub(in crate::state) async fn change_directory(
        &self,
        name: &str,
        known: &DirectoryRevision,
        entries: &[DirectoryEntry],
        above: u64,
    ) -> Result<Option<DirectoryRevision>, StoreError> {
        let keys = self.directory(name);
        let revision = DirectoryRevision { number: known.number.max(above) + 1, token: random_id().into() };
        let mut call = self.scripts.change.call(3);
        call.arg(&keys.state).arg(&keys.history).arg(&keys.entries);
        call.arg(known.number).arg(&*known.token).arg(revision.number).arg(&*revision.token).arg(PAGE);
        for entry in entries {
            call.arg(&*entry.key).arg(entry.body.as_deref().unwrap_or_default());
        }
        let changed: i64 = self.ask_directory(&keys, &call, LONG).await?;
        Ok((changed == 1).then_some(revision))
    }
}

fn entries(keys: Vec<String>, bodies: Vec<Option<String>>) -> Vec<DirectoryEntry> {
    let entry = |(key, body): (String, Option<String>)| DirectoryEntry {
        key: key.into(),
        body: body.map(Into::into),
    };
    keys.into_iter().zip(bodies).map(entry).collect()
}

/// KEYS: a directory's state, history and documents. ARGV: number and token of the known revision, and the most
/// documents to return. Returns number and token of the current revision; then 0 if it is the known one, 1 and
/// the documents that changed since, or 2 if all must be read: nothing is known, too much has changed, or the
/// known revision is not in the history. The history has a field for each of the last revisions: its token, and
/// the keys that it changed, or `*` for many.
pub(super) const DIRECTORY_NEWS: &str = "
local s = redis.call('HMGET', KEYS[1], 'number', 'token')
local number, token = s[1] or '0', s[2] or ''
if number == ARGV[1] and token == ARGV[2] then return {number, token, 0, {}, {}} end
local known, last = tonumber(ARGV[1]), tonumber(number)
local past = redis.call('HGET', KEYS[2], ARGV[1])
if known == 0 or known >= last or not past or string.match(past, '^[^\\n]*') ~= ARGV[2] then return {number, token, 2, {}, {}} end
local seen, keys, bodies = {}, {}, {}
for n = known + 1, last do
  local entry = redis.call('HGET', KEYS[2], string.format('%.0f', n))
  local changed = entry and string.match(entry, '^[^\\n]*\\n(.*)$')
  if not changed or changed == '*' then return {number, token, 2, {}, {}} end
  for key in string.gmatch(changed, '[^\\n]+') do
    if not seen[key] then
      seen[key] = true
      keys[#keys + 1] = key
      bodies[#keys] = redis.call('HGET', KEYS[3], key)
    end
  end
  if #keys > tonumber(ARGV[3]) then return {number, token, 2, {}, {}} end
end
return {number, token, 1, keys, bodies}
";

/// KEYS: a directory's state, history and documents. ARGV: number and token of the known revision, those of the
/// new one, the most keys that a history field names, then pairs of key and body; an empty body deletes.
/// Returns whether the directory was changed.
pub(super) const CHANGE_DIRECTORY: &str = "
local s = redis.call('HMGET', KEYS[1], 'number', 'token')
if (s[1] or '0') ~= ARGV[1] or (s[2] or '') ~= ARGV[2] then return 0 end
local keys = {}
for i = 6, #ARGV, 2 do
  if ARGV[i + 1] == '' then redis.call('HDEL', KEYS[3], ARGV[i]) else redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 1]) end
  keys[#keys + 1] = ARGV[i]
end
local changed = #keys > tonumber(ARGV[5]) and '*' or table.concat(keys, '\\n')
redis.call('HSET', KEYS[2], ARGV[3], ARGV[4] .. '\\n' .. changed)
redis.call('HDEL', KEYS[2], string.format('%.0f', ARGV[3] - 1000))
redis.call('HSET', KEYS[1], 'number', ARGV[3], 'token', ARGV[4])
return 1
";

#[cfg(test)]
mod tests;
