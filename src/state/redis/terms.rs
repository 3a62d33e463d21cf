//! The idle timeouts that all replicas share, and what was idle when one grew. The gate whose timeouts change
//! stores them; the others receive them with the heartbeat.

use std::time::Duration;

use super::log::Beat;
use super::{RESPONSE_TIMEOUT, SharedStore, lock};
use crate::state::StoreError;
use crate::state::record::{IdleFloor, IdleTerms, PerIssuer};
use crate::time::{Monotonic, Timestamp};

/// KEYS: origin. ARGV: identity, then four values for each timeout in force: milliseconds, or -1 for none; the
/// floor and its timeout, or two empty strings; the issuer, empty for the first, which applies to all other
/// issuers. The common timeout is kept in one field, those of issuers in another, one per line. An issuer that
/// only the store names now has the common timeout and keeps its floor; one that only the gate names had the
/// common timeout before. A floor is at least its timeout in the past, whatever a gate's clock says.
pub(super) const KEEP_TERMS: &str = "
local o = redis.call('HMGET', KEYS[1], 'id', 'idle', 'idles')
if o[1] ~= ARGV[1] then return redis.error_reply('STALE this is another database') end
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local function later(before, floor, timeout)
  if floor == '' then return before end
  local new = math.min(tonumber(floor), now - timeout)
  if new > tonumber(before[1] or 0) then return {string.format('%.0f', new), timeout} end
  return before
end
local former, own, told, lines = {string.match(o[2] or '', '^[^ ]+ (%d+) (%d+)$')}, {}, {}, {}
for floor, timeout, issuer in string.gmatch(o[3] or '', '[^ \\n]+ ([^ \\n]+) ([^ \\n]+) ([^\\n]+)') do
  own[issuer] = floor == '-' and {} or {floor, timeout}
end
local common = later(former, ARGV[3], ARGV[4])
local function keep(issuer, timeout, floor)
  if timeout == ARGV[2] and floor[1] == common[1] and floor[2] == common[2] then return end
  lines[#lines + 1] = table.concat({timeout, floor[1] or '-', floor[2] or '-', issuer}, ' ')
end
for i = 6, #ARGV, 4 do
  local issuer = ARGV[i + 3]
  told[issuer] = true
  keep(issuer, ARGV[i], later(own[issuer] or former, ARGV[i + 1], ARGV[i + 2]))
end
for issuer, floor in pairs(own) do
  if not told[issuer] then keep(issuer, ARGV[2], later(floor, ARGV[3], ARGV[4])) end
end
table.sort(lines)
redis.call('HSET', KEYS[1], 'idle', ARGV[2] .. (common[1] and ' ' .. common[1] .. ' ' .. common[2] or ''))
if #lines > 0 or o[3] then redis.call('HSET', KEYS[1], 'idles', table.concat(lines, '\\n')) end
return 1
";

/// What the store keeps for an issuer: the timeout, and the floor by the server's clock with its own timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeptTerms {
    timeout: Option<Duration>,
    floor: Option<(Timestamp, Duration)>,
}

impl KeptTerms {
    /// Parses the value from the heartbeat: the first line applies to all issuers except those with a line of
    /// their own. `None` if nothing has been stored yet.
    pub(super) fn parse(kept: &str) -> Option<PerIssuer<Self>> {
        let mut lines = kept.split('\n');
        let common = Self::parse_one(lines.next()?)?;
        let own = lines.filter_map(|line| {
            let (at, _) = line.match_indices(' ').nth(2)?;
            let (terms, issuer) = line.split_at(at);
            Some((issuer.get(1..)?.into(), Self::parse_one(terms)?))
        });
        Some(PerIssuer::new(common, own))
    }

    fn parse_one(kept: &str) -> Option<Self> {
        let mut words = kept.split(' ').map(|word| word.parse::<i64>().ok());
        let millis = |word: i64| u64::try_from(word).ok().map(Duration::from_millis);
        let timeout = millis(words.next()??);
        let (floor, floor_timeout) = (words.next().flatten(), words.next().flatten());
        let floor = floor.map(Timestamp::from_millis).zip(floor_timeout.and_then(millis));
        Some(Self { timeout, floor })
    }

    /// Converts it to the clocks of this process when the server's clock says `clock`.
    fn at(self, clock: Timestamp, now: Monotonic) -> IdleTerms {
        let floor = |(wall, timeout)| IdleFloor { monotonic: now.minus(clock.since(wall)), wall, timeout };
        IdleTerms { timeout: self.timeout, floor: self.floor.map(floor) }
    }
}

impl SharedStore {
    /// Saves the idle timeouts in force, for gates that run and those that start later.
    pub(in crate::state) async fn save_idle_terms(
        &self,
        terms: &PerIssuer<IdleTerms>,
    ) -> Result<(), StoreError> {
        let millis =
            |duration: Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX).min(1 << 50);
        let mut call = self.scripts.terms.call(1);
        call.arg(&self.keys.origin).arg(self.position().id);
        let own = terms.own().map(|(issuer, terms)| (&**issuer, terms));
        for (issuer, IdleTerms { timeout, floor }) in std::iter::once(("", terms.common())).chain(own) {
            call.arg(timeout.map_or(-1, millis));
            match floor {
                Some(floor) => call.arg(floor.wall.as_millis()).arg(millis(floor.timeout)),
                None => call.arg("").arg(""),
            };
            call.arg(issuer);
        }
        let kept: Result<i64, _> = self.log_lane()?.ask(&call, RESPONSE_TIMEOUT).await;
        kept.inspect_err(|fault| self.report(fault))?;
        Ok(())
    }

    /// Returns the stored timeouts if they have changed.
    pub(super) fn new_terms(&self, beat: &Beat) -> Option<PerIssuer<IdleTerms>> {
        let kept = beat.idle.clone()?;
        let now = Monotonic::now();
        let mut before = lock(&self.idle);
        if before.as_ref() == Some(&kept) {
            return None;
        }
        let terms = kept.map(|kept| kept.at(beat.clock, now));
        *before = Some(kept);
        Some(terms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_read_as_they_were_kept_and_put_on_the_clocks_of_this_process() {
        let (minute, ms) = (Duration::from_secs(60), Timestamp::from_millis);
        for (kept, expected) in [
            ("", None),
            ("x 900000 30000", None),
            ("-1", Some((None, None))),
            ("60000", Some((Some(minute), None))),
            ("60000 900000 30000", Some((Some(minute), Some((ms(900_000), minute / 2))))),
            ("-1 900000 30000", Some((None, Some((ms(900_000), minute / 2))))),
            ("60000 x 30000", Some((Some(minute), None))),
            ("60000 900000", Some((Some(minute), None))),
            ("60000\n", Some((Some(minute), None))),
        ] {
            let parsed = KeptTerms::parse(kept).map(|kept| *kept.common());
            assert_eq!(parsed.map(|kept| (kept.timeout, kept.floor)), expected, "{kept:?}");
        }
        let kept = KeptTerms { timeout: None, floor: Some((ms(900_000), minute)) };
        for (clock, now, expected) in [(1_000_000, 5_000, -95_000), (900_000, 5_000, 5_000), (1, 7, 7)] {
            let floor = kept.at(ms(clock), Monotonic::from_millis(now)).floor.unwrap();
            assert_eq!((floor.monotonic.as_millis(), floor.wall), (expected, ms(900_000)), "{clock}");
        }
    }

    #[test]
    fn issuers_with_terms_of_their_own_have_a_line_each() {
        let (minute, ms) = (Duration::from_secs(60), Timestamp::from_millis);
        let kept = |timeout, floor| KeptTerms { timeout, floor };
        let text = "60000\n-1 - - https://a/\n120000 900000 30000 of a b\nx - - https://c/\n5 6 7\n5 6 7 \n";
        let own = [
            ("https://a/", kept(None, None)),
            ("of a b", kept(Some(2 * minute), Some((ms(900_000), minute / 2)))),
            ("", kept(Some(Duration::from_millis(5)), Some((ms(6), Duration::from_millis(7))))),
        ];
        let own = own.map(|(issuer, kept)| (issuer.into(), kept));
        assert_eq!(KeptTerms::parse(text), Some(PerIssuer::new(kept(Some(minute), None), own)));
        assert_eq!(KeptTerms::parse("\n-1 - - https://a/"), None, "none is kept yet");
    }
}
