//! Operations that must be atomic on the server: one script each, with the reason why a plain command is not enough.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, cmd};

use super::directory::{CHANGE_DIRECTORY, DIRECTORY_NEWS};
use super::terms::KEEP_TERMS;

/// A script and the SHA-1 by which the server knows it.
#[derive(Debug)]
pub(super) struct Script {
    text: &'static str,
    sha: String,
}

impl Script {
    fn new(text: &'static str) -> Self {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
        Self { text, sha: hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect() }
    }

    /// Starts a call; keys and arguments follow.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.sha).arg(keys);
        call
    }

    /// The command that loads it into the server.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    /// Reads the origin and the server's clock together.
    pub(super) beat: Script,
    /// Advances the log's age and removes expired entries: once for all gates.
    pub(super) tick: Script,
    /// Deletes a lock, unless another replica holds it by now.
    pub(super) release: Script,
    /// Registers an authority for its issuer, unless another one is registered.
    pub(super) claim: Script,
    /// Creates the origin unless it exists: two replicas must not both create it.
    pub(super) found: Script,
    /// Moves the log's creation forward, unless the origin has been replaced.
    pub(super) raise: Script,
    /// Moves it back, unless another replica has raised it meanwhile.
    pub(super) lower: Script,
    /// Appends events: each entry names the one before it, so that a replica that reads them notices a gap.
    pub(super) append: Script,
    /// Saves last uses, which only ever move forward; returns the tokens that were found idle meanwhile.
    pub(super) save: Script,
    /// Reads a last use, and marks a token that is idle on all replicas, for later readers.
    pub(super) look: Script,
    /// Saves first uses, which only ever move back.
    pub(super) first: Script,
    /// Saves the idle timeouts in force, and for each the later of two floors.
    pub(super) terms: Script,
    /// Adds counts and moves their times forward.
    pub(super) count: Script,
    /// Keeps the newer of two key sets.
    pub(super) keep: Script,
    /// Takes or renews the lease of a transmitter's stream, and reads the stream's status together with it.
    pub(super) hold: Script,
    /// Stores a stream's status, with the moment by the server's clock until which it is valid.
    pub(super) tell: Script,
    /// Stores the result of a verification once, if a replica requested it.
    pub(super) confirm: Script,
    /// Adds subjects to a bounded list.
    pub(super) offer: Script,
    /// Takes subjects from the list; older servers pop only one at a time.
    pub(super) take: Script,
    /// Reads the changes of a directory together with its revision.
    pub(super) news: Script,
    /// Changes a directory, unless its revision has changed.
    pub(super) change: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            beat: Script::new(BEAT),
            tick: Script::new(TICK),
            release: Script::new(RELEASE),
            claim: Script::new(CLAIM),
            found: Script::new(FOUND),
            raise: Script::new(RAISE),
            lower: Script::new(LOWER),
            append: Script::new(APPEND),
            save: Script::new(SAVE),
            look: Script::new(LOOK),
            first: Script::new(FIRST),
            terms: Script::new(KEEP_TERMS),
            count: Script::new(COUNT),
            keep: Script::new(KEEP),
            hold: Script::new(HOLD),
            tell: Script::new(TELL),
            confirm: Script::new(CONFIRM),
            offer: Script::new(OFFER),
            take: Script::new(TAKE),
            news: Script::new(DIRECTORY_NEWS),
            change: Script::new(CHANGE_DIRECTORY),
        }
    }

    pub(super) fn all(&self) -> [&Script; 21] {
        let Self { beat, tick, release, claim, found, raise, lower, append, save, look, .. } = self;
        let Self { first, terms, count, keep, hold, tell, confirm, offer, take, news, change, .. } = self;
        [
            beat, tick, release, claim, found, raise, lower, append, save, look, first, terms, count, keep,
            hold, tell, confirm, offer, take, news, change,
        ]
    }
}

/// KEYS: origin, stamp. Returns the server's clock and the stamp in milliseconds, version, identity, creation,
/// the last entry, the place up to which entries may be missing, the filled gaps, how long entries are kept, the
/// log's age in ticks, and what was removed at which age; then the idle timeouts last in force, and their floors.
const BEAT: &str = "
local t = redis.call('TIME')
local o = redis.call('HMGET', KEYS[1], 'version', 'id', 'created_at', 'last', 'trimmed', 'filled', 'kept', 'ticks', 'dropped', 'idle', 'idles')
return {t[1] * 1000 + math.floor(t[2] / 1000), redis.call('GET', KEYS[2]) or '',
  {o[1] or '', o[2] or '', o[3] or '0', o[4] or '0', o[5] or '0', o[6] or '', o[7] or '0', o[8] or '0', o[9] or ''}, (o[10] or '') .. '\\n' .. (o[11] or '')}
";

/// KEYS: origin, events. ARGV: identity, the least milliseconds that events are kept.
///
/// The log's age is counted in ticks: the milliseconds between two calls, at least 0 and at most five seconds,
/// so that a clock that steps adds next to nothing. A mark records the last entry at a tick; once a mark is old
/// enough, its entry and all before it may be removed. For each retention, the last such mark is kept in
/// `dropped`: the entries until then may have ended tokens that are older. A creation in the future comes from
/// a clock that was wrong, and is set to now.
const TICK: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'last', 'created_at', 'kept', 'ticks', 'ticked', 'marks', 'trimmed', 'filled', 'dropped')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local kept = math.max(tonumber(o[4] or 0), tonumber(ARGV[2]))
local ticks = tonumber(o[5] or 0) + math.max(0, math.min(5000, now - tonumber(o[6] or now)))
local function text(number) return string.format('%.0f', number) end
redis.call('HSET', KEYS[1], 'ticks', text(ticks), 'ticked', text(now), 'kept', text(kept))
if tonumber(o[3] or 0) > now + 1000 then redis.call('HSET', KEYS[1], 'created_at', text(now)) end
local marks, trimmed = o[7] or '', tonumber(o[8] or 0)
local newest = tonumber(string.match(marks, '(%d+):%d+$') or -1)
if newest < 0 or ticks - newest >= kept / 64 then
  local left, dropped = {}, nil
  for at, last in string.gmatch(marks, '(%d+):(%d+)') do
    if ticks - tonumber(at) >= kept then
      if tonumber(last) > trimmed then trimmed, dropped = tonumber(last), at end
    else left[#left + 1] = at .. ':' .. last end
  end
  if dropped then
    local all = {}
    for retention, at in string.gmatch(o[10] or '', '(%d+):(%d+)') do
      if tonumber(retention) ~= kept then all[#all + 1] = retention .. ':' .. at end
    end
    all[#all + 1] = text(kept) .. ':' .. dropped
    redis.call('HSET', KEYS[1], 'dropped', table.concat(all, ','))
  end
  left[#left + 1] = text(ticks) .. ':' .. (o[2] or '0')
  redis.call('HSET', KEYS[1], 'marks', table.concat(left, ','), 'trimmed', text(trimmed))
  local filled = {}
  for after, upto in string.gmatch(o[9] or '', '(%d+)-(%d+)') do
    if tonumber(upto) > trimmed then filled[#filled + 1] = after .. '-' .. upto end
  end
  redis.call('HSET', KEYS[1], 'filled', table.concat(filled, ','))
end
if trimmed > 0 then
  local first = trimmed + 1
  redis.call('XTRIM', KEYS[2], 'MINID', '~', text(math.floor(first / 1000)) .. '-' .. text(first % 1000))
end
return 1
";

/// KEYS: a stream's owner, its status. ARGV: the holder, milliseconds of the lease. Returns whether the holder has the
/// lease, the status, and for how many milliseconds it is valid. Uses only commands that the documented ACL user may run.
const HOLD: &str = "
local owner = redis.call('GET', KEYS[1])
if not owner or owner == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  owner = ARGV[1]
end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local ends, said = string.match(redis.call('GET', KEYS[2]) or '', '^(%d+) (.*)$')
return {owner == ARGV[1] and 1 or 0, said or '', math.max(0, tonumber(ends or now) - now)}
";

/// KEYS: a stream's status. ARGV: the new status, milliseconds that it is valid.
const TELL: &str = "
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.0f', ends) .. ' ' .. ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: a verification's state, its stream's status. ARGV: the new status, milliseconds that it is valid.
/// Returns 0 for a state that was not requested, 1 when it arrives for the first time, and 2 after that,
/// without storing the status: a later one may be a replay.
const CONFIRM: &str = "
local state = redis.call('GET', KEYS[1])
if not state then return 0 end
if state ~= 'asked' then return 2 end
redis.call('SET', KEYS[1], 'seen', 'KEEPTTL')
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
redis.call('SET', KEYS[2], string.format('%.0f', ends) .. ' ' .. ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: subjects. ARGV: the most that may wait, then subjects to add.
const OFFER: &str = "
for i = 2, #ARGV do redis.call('XADD', KEYS[1], 'MAXLEN', ARGV[1], '*', 's', ARGV[i]) end
return 1
";

/// KEYS: subjects. ARGV: how many to take.
const TAKE: &str = "
local taken = {}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', ARGV[1])) do
  redis.call('XDEL', KEYS[1], entry[1])
  taken[#taken + 1] = entry[2][2]
end
return taken
";

/// KEYS: a lock. ARGV: its holder.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// KEYS: an issuer's authority. ARGV: milliseconds that it is kept, then the ids of its keys. Returns the
/// registered ids if none is the same: two authorities share none, and an authority keeps some whenever it rotates.
const CLAIM: &str = "
local kept = redis.call('GET', KEYS[1])
local known, mine = not kept, {}
for i = 2, #ARGV do
  mine[#mine + 1] = ARGV[i]
  if kept and string.find(' ' .. kept .. ' ', ' ' .. ARGV[i] .. ' ', 1, true) then known = true end
end
if not known then return kept end
redis.call('SET', KEYS[1], table.concat(mine, ' '), 'PX', ARGV[1])
return ''
";

/// KEYS: origin, events. ARGV: version, identity, and the creation, if that is not now. Returns whether it was
/// created.
const FOUND: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local t = redis.call('TIME')
local created = ARGV[3] or string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local last = '0'
local e = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if e[1] then
  local ms, n = string.match(e[1][1], '(%d+)-(%d+)')
  last = string.format('%.0f', ms * 1000 + n)
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'id', ARGV[2], 'created_at', created, 'last', last)
return 1
";

/// KEYS: origin. ARGV: identity, creation in milliseconds. Moves the creation forward, for a replica
/// that found events missing.
const RAISE: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'created_at')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
if tonumber(ARGV[2]) > tonumber(o[2]) then redis.call('HSET', KEYS[1], 'created_at', ARGV[2]) end
return 1
";

/// KEYS: origin. ARGV: identity, creation in milliseconds, the creation that the replica last read, the
/// retentions of removed entries that it knows of, the gaps it filled. Moves the creation back, for a replica
/// that has published everything since then. Returns 0 if another replica has raised it meanwhile: that one
/// found events missing that this replica has not published. A recreated log has no record of what was removed
/// from its predecessor, and assumes that those entries came until its own creation.
const LOWER: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'created_at', 'filled', 'dropped')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
if tonumber(o[2]) > tonumber(ARGV[3]) then return 0 end
if tonumber(ARGV[2]) < tonumber(o[2]) then redis.call('HSET', KEYS[1], 'created_at', ARGV[2]) end
local dropped = o[4] or ''
for retention in string.gmatch(ARGV[4], '%d+') do
  if not string.find(',' .. dropped, ',' .. retention .. ':', 1, true) then
    dropped = (dropped == '' and '' or dropped .. ',') .. retention .. ':0'
  end
end
if dropped ~= (o[4] or '') then redis.call('HSET', KEYS[1], 'dropped', dropped) end
local filled = o[3] or ''
for i = 5, #ARGV do
  if not string.find(',' .. filled .. ',', ',' .. ARGV[i] .. ',', 1, true) then
    filled = filled == '' and ARGV[i] or filled .. ',' .. ARGV[i]
  end
end
if filled ~= (o[3] or '') then redis.call('HSET', KEYS[1], 'filled', filled) end
return 1
";

/// KEYS: origin, events. ARGV: identity, the highest sequence this replica knows, the least milliseconds that
/// events are kept, then the events. Returns their sequences: microseconds of the server's clock, or one more
/// than the last, so that none is used twice, whichever server takes over.
const APPEND: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'last', 'kept')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
local previous = tonumber(o[2])
local t = redis.call('TIME')
local sequence = math.max(previous, tonumber(ARGV[2]), t[1] * 1000000 + t[2] - 1)
local sequences = {}
for i = 4, #ARGV do
  sequence = sequence + 1
  local id = string.format('%.0f-%.0f', math.floor(sequence / 1000), sequence % 1000)
  redis.call('XADD', KEYS[2], id, 'p', string.format('%.0f', previous), 'e', ARGV[i])
  previous = sequence
  sequences[#sequences + 1] = string.format('%.0f', sequence)
end
local kept = math.max(tonumber(o[3] or 0), tonumber(ARGV[3]))
redis.call('HSET', KEYS[1], 'last', string.format('%.0f', previous), 'kept', string.format('%.0f', kept))
return sequences
";

/// KEYS: last uses. ARGV: milliseconds that each is kept after the use, then the uses. Returns the indexes of
/// the tokens that were found idle. No use is later than now, whatever a gate's clock says; one that is already
/// stored is kept for as long as the settings in force require.
const SAVE: &str = "
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local over = {}
for i, key in ipairs(KEYS) do
  local at = math.min(tonumber(ARGV[i + 1]), now)
  local kept = tonumber(redis.call('GET', key) or 0)
  if kept < 0 then
    over[#over + 1] = i
  elseif kept < at then
    redis.call('SET', key, string.format('%.0f', at), 'PXAT', string.format('%.0f', at + ARGV[1]))
  else
    redis.call('GETEX', key, 'PXAT', string.format('%.0f', kept + ARGV[1]))
  end
end
return over
";

/// KEYS: a last use. ARGV: the last use known to the caller, the idle timeout, milliseconds that a mark is
/// kept, whether to mark. Returns the last use; -1 for a token that is permanently idle; 0 for one that seems
/// idle and was not marked.
const LOOK: &str = "
local kept = tonumber(redis.call('GET', KEYS[1]) or 0)
if kept < 0 then return -1 end
local t = redis.call('TIME')
local last = math.max(kept, tonumber(ARGV[1]))
if t[1] * 1000 + math.floor(t[2] / 1000) - last <= tonumber(ARGV[2]) then return last end
if ARGV[4] == '0' then return 0 end
redis.pcall('SET', KEYS[1], '-1', 'PX', ARGV[3])
return -1
";

/// KEYS: first uses. ARGV: milliseconds that each is kept, then the first uses.
const FIRST: &str = "
for i, key in ipairs(KEYS) do
  local first = math.min(tonumber(ARGV[i + 1]), tonumber(redis.call('GET', key) or ARGV[i + 1]))
  redis.call('SET', key, string.format('%.0f', first), 'PX', ARGV[1])
end
return 1
";

/// KEYS: counts, times. ARGV: triples of field, count, milliseconds.
const COUNT: &str = "
for i = 1, #ARGV, 3 do
  redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
  local last = redis.call('HGET', KEYS[2], ARGV[i])
  if not last or tonumber(last) < tonumber(ARGV[i + 2]) then redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 2]) end
end
return 1
";

/// KEYS: a key set. ARGV: the document, when it was fetched.
const KEEP: &str = "
local at = redis.call('HGET', KEYS[1], 'at')
if not at or tonumber(at) < tonumber(ARGV[2]) then redis.call('HSET', KEYS[1], 'body', ARGV[1], 'at', ARGV[2]) end
return 1
";
