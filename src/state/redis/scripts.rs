//! What must happen in one step on the server: eight scripts, each with the reason why a plain command is not enough.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, cmd};

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
    /// Creates the origin unless there is one: two replicas must not both.
    pub(super) found: Script,
    /// Moves the origin's creation, unless it is another origin by now.
    pub(super) shift: Script,
    /// Appends events: each entry names the one before it, so that a replica that reads them notices a gap.
    pub(super) append: Script,
    /// Keeps last uses, which only ever move forward; tells which tokens were found idle meanwhile.
    pub(super) save: Script,
    /// Reads a last use, and marks a token that is idle everywhere: whoever comes later finds the mark.
    pub(super) look: Script,
    /// Adds counts and moves their times forward.
    pub(super) count: Script,
    /// Keeps the newer of two key sets.
    pub(super) keep: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            beat: Script::new(BEAT),
            found: Script::new(FOUND),
            shift: Script::new(SHIFT),
            append: Script::new(APPEND),
            save: Script::new(SAVE),
            look: Script::new(LOOK),
            count: Script::new(COUNT),
            keep: Script::new(KEEP),
        }
    }

    pub(super) fn all(&self) -> [&Script; 8] {
        [&self.beat, &self.found, &self.shift, &self.append, &self.save, &self.look, &self.count, &self.keep]
    }
}

/// KEYS: origin. Answers milliseconds of the server's clock, version, identity, creation, the last entry, and the entry
/// up to which gaps were filled.
const BEAT: &str = "
local t = redis.call('TIME')
local o = redis.call('HMGET', KEYS[1], 'version', 'id', 'created_at', 'last', 'whole')
return {t[1] * 1000 + math.floor(t[2] / 1000), o[1] or '', o[2] or '', o[3] or '0', o[4] or '0', o[5] or '0'}
";

/// KEYS: origin, events. ARGV: version, identity. Answers whether it was created.
const FOUND: &str = "
if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
local t = redis.call('TIME')
local created = string.format('%.0f', t[1] * 1000 + math.floor(t[2] / 1000))
local last = '0'
local e = redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)
if e[1] then
  local ms, n = string.match(e[1][1], '(%d+)-(%d+)')
  last = string.format('%.0f', ms * 1000 + n)
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'id', ARGV[2], 'created_at', created, 'last', last)
return 1
";

/// KEYS: origin. ARGV: identity, creation in milliseconds, `lower` or `raise`. Moves the creation back, by a replica that
/// has published everything since then, or on, by one that found events missing.
const SHIFT: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'created_at', 'last')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
local lower = ARGV[3] == 'lower'
if lower and tonumber(ARGV[2]) < tonumber(o[2]) then
  redis.call('HSET', KEYS[1], 'created_at', ARGV[2], 'whole', o[3])
elseif not lower and tonumber(ARGV[2]) > tonumber(o[2]) then
  redis.call('HSET', KEYS[1], 'created_at', ARGV[2])
end
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
redis.call('XTRIM', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(t[1] * 1000 - kept, 0)))
return sequences
";

/// KEYS: last uses. ARGV: milliseconds that each is kept from its use on, then the uses. Answers the places of the tokens
/// that were found idle.
const SAVE: &str = "
local over = {}
for i, key in ipairs(KEYS) do
  local at = tonumber(ARGV[i + 1])
  local kept = tonumber(redis.call('GET', key) or 0)
  if kept < 0 then
    over[#over + 1] = i
  elseif kept < at then
    redis.call('SET', key, ARGV[i + 1], 'PXAT', string.format('%.0f', at + ARGV[1]))
  end
end
return over
";

/// KEYS: a last use. ARGV: the last use known to who asks, the idle timeout, milliseconds that a mark is kept, whether to
/// mark. Answers the last use; -1 for a token that is idle for good; 0 for one that seems idle and was not marked.
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
