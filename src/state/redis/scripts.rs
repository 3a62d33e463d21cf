//! Operations that must be atomic on the server: one script each, with the reason why a plain command is not enough.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, cmd};

use super::directory::{CHANGE_DIRECTORY, DIRECTORY_NEWS};
use super::terms::KEEP_TERMS;

/// A script and the name the server knows it by.
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

    /// A call without keys and arguments yet.
    pub(super) fn call(&self, keys: usize) -> Cmd {
        let mut call = cmd("EVALSHA");
        call.arg(&self.sha).arg(keys);
        call
    }

    /// Makes the server know it.
    pub(super) fn load(&self) -> Cmd {
        let mut load = cmd("SCRIPT");
        load.arg("LOAD").arg(self.text);
        load
    }
}

/// All scripts.
#[derive(Debug)]
pub(super) struct Scripts {
    /// The origin and the server's clock, read at one moment.
    pub(super) beat: Script,
    /// Counts the log's age and removes what was kept for long enough: by what all gates together counted.
    pub(super) tick: Script,
    /// Deletes a lock, unless somebody else holds it by now.
    pub(super) release: Script,
    /// Registers an authority for its issuer, unless another one is there.
    pub(super) claim: Script,
    /// Creates the origin unless there is one: two replicas must not both.
    pub(super) found: Script,
    /// Moves the origin's creation on, unless it is another origin by now.
    pub(super) raise: Script,
    /// Moves it back, unless somebody raised it meanwhile.
    pub(super) lower: Script,
    /// Appends events: each entry names the one before it, so that a replica that reads them notices a gap.
    pub(super) append: Script,
    /// Keeps last uses, which only ever move forward; tells which tokens were found idle meanwhile.
    pub(super) save: Script,
    /// Reads a last use, and marks a token that is idle everywhere, for later readers.
    pub(super) look: Script,
    /// Keeps first uses, which only ever move back.
    pub(super) first: Script,
    /// Keeps the idle timeouts in force, and of each the later of two floors.
    pub(super) terms: Script,
    /// Adds counts and moves their times forward.
    pub(super) count: Script,
    /// Keeps the newer of two key sets.
    pub(super) keep: Script,
    /// Takes or renews the lease of a transmitter's stream, and reads what replicas said about the stream: at one moment.
    pub(super) hold: Script,
    /// Says something about a stream, with the moment by the server's clock until which it stands.
    pub(super) tell: Script,
    /// Tells of a verification once, if somebody asked for it.
    pub(super) confirm: Script,
    /// Adds subjects to a list that stays short.
    pub(super) offer: Script,
    /// Takes subjects out of it; older servers pop one at a time.
    pub(super) take: Script,
    /// Reads what changed in a directory together with its revision.
    pub(super) news: Script,
    /// Changes a directory, unless its revision is another one by now.
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

/// KEYS: origin, stamp. Answers milliseconds of the server's clock and of the stamp, version, identity, creation, the
/// last entry, the place up to which entries may be missing, the gaps that were filled, for how long entries are kept, the
/// log's age in ticks, and what was removed at which age; then the idle timeouts in force last, and their floors.
const BEAT: &str = "
local t = redis.call('TIME')
local o = redis.call('HMGET', KEYS[1], 'version', 'id', 'created_at', 'last', 'trimmed', 'filled', 'kept', 'ticks', 'dropped', 'idle', 'idles')
return {t[1] * 1000 + math.floor(t[2] / 1000), redis.call('GET', KEYS[2]) or '',
  {o[1] or '', o[2] or '', o[3] or '0', o[4] or '0', o[5] or '0', o[6] or '', o[7] or '0', o[8] or '0', o[9] or ''}, (o[10] or '') .. '\\n' .. (o[11] or '')}
";

/// KEYS: origin, events. ARGV: identity, milliseconds that events are kept at least.
///
/// The age of the log is counted in ticks: milliseconds that went by between two calls, five seconds at most and never
/// less than none, so that a clock that steps adds next to nothing. A mark says which entry was the last at which tick;
/// what a mark that is old enough names may be removed, and what comes before it. For each retention, the last such mark is
/// kept in `dropped`: what came until then may have ended tokens that are older. A creation that lies ahead was told by a clock that was wrong: it is now.
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

/// KEYS: a stream's owner, what was said about it. ARGV: who asks, milliseconds of the lease. Returns whether the lease is
/// theirs, what was said, and how many milliseconds that stands. Uses no commands but those that the documented user may.
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

/// KEYS: what was said about a stream. ARGV: what to say, milliseconds that it stands.
const TELL: &str = "
local t = redis.call('TIME')
local ends = t[1] * 1000 + math.floor(t[2] / 1000) + tonumber(ARGV[2])
redis.call('SET', KEYS[1], string.format('%.0f', ends) .. ' ' .. ARGV[1], 'PX', ARGV[2])
return 1
";

/// KEYS: a state of a verification, what was said about its stream. ARGV: what to say, milliseconds that it stands. Answers 0
/// for a state that nobody asked for, 1 for the first arrival of one, 2 for a later one, which says nothing: it may be a copy.
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

/// KEYS: subjects. ARGV: how many may wait, then some.
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

/// KEYS: a lock. ARGV: who holds it.
const RELEASE: &str = "
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// KEYS: an issuer's authority. ARGV: milliseconds that it is kept, then the ids of its keys. Answers what is there when
/// no id is the same; two authorities share none, and one keeps some whenever it rotates.
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

/// KEYS: origin, events. ARGV: version, identity, and when it was created, if that is not now. Returns whether it was
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

/// KEYS: origin. ARGV: identity, creation in milliseconds. Moves the creation on, by a replica that found events missing.
const RAISE: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'created_at')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
if tonumber(ARGV[2]) > tonumber(o[2]) then redis.call('HSET', KEYS[1], 'created_at', ARGV[2]) end
return 1
";

/// KEYS: origin. ARGV: identity, creation in milliseconds, the creation that the replica last read, the retentions of removed
/// entries that it knows of, the gaps it filled.
/// Moves the creation back, by a replica that has published everything since then. Answers 0 when another replica has
/// raised it meanwhile: that one found events missing which this replica has not published. A log that was created again does not
/// know what was removed from the former one: it takes it that this came until its own first moment.
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

/// KEYS: origin, events. ARGV: identity, the highest sequence this replica knows, milliseconds that events are kept at
/// least, then the events. Sequences are microseconds of the server's clock, or one more than the last: so they are not
/// given twice, whatever server takes over. Answers them.
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

/// KEYS: last uses. ARGV: milliseconds that each is kept from its use on, then the uses. Returns the places of the tokens
/// that were found idle. No use is later than now, whatever a gate's clock says; one that is known already is kept for as
/// long as the settings in force ask.
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

/// KEYS: a last use. ARGV: the last use known to who asks, the idle timeout, milliseconds that a mark is kept, whether to
/// mark. Returns the last use; -1 for a token that is permanently idle; 0 for one that seems idle and was not marked.
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
