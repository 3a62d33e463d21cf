//! Remembers when a token without `iat`, such as a JWT-SVID, was first seen. That moment counts as its time
//! of issue, so it must stay the same as long as the token can be used.

use std::fmt;
use std::time::{Duration, Instant};

use moka::policy::Expiry;
use moka::sync::Cache;

use crate::identity::{AsIs, TokenKey};
use crate::time::Timestamp;

/// The times at which tokens were first seen, for a bounded number of tokens.
pub(super) struct FirstSeen(Cache<TokenKey, Moment, AsIs>);

/// When a token was first seen, and how long from then on it may come again.
#[derive(Debug, Clone, Copy)]
struct Moment {
    at: Timestamp,
    keep: Duration,
}

impl FirstSeen {
    /// Creates a table for this many tokens; beyond that, the least recently used ones are forgotten and
    /// count as new.
    pub(super) fn new(tokens: usize) -> Self {
        let cache = Cache::builder()
            .max_capacity(u64::try_from(tokens).unwrap_or(u64::MAX))
            .expire_after(SeenLifetimes)
            .build_with_hasher(AsIs::default());
        Self(cache)
    }

    /// When the token was first seen.
    pub(super) fn get(&self, token: TokenKey) -> Option<Timestamp> {
        self.0.get(&token).map(|moment| moment.at)
    }

    /// Records that the token was seen, unless that is recorded already; it can come again for as long as
    /// `keep`.
    pub(super) fn note(&self, token: TokenKey, at: Timestamp, keep: Duration) {
        self.0.entry(token).or_insert(Moment { at, keep });
    }
}

/// Expiry in running time, which no wall clock can shorten.
struct SeenLifetimes;

impl Expiry<TokenKey, Moment> for SeenLifetimes {
    fn expire_after_create(&self, _: &TokenKey, moment: &Moment, _: Instant) -> Option<Duration> {
        Some(moment.keep)
    }
}

impl fmt::Debug for FirstSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FirstSeen").field("tokens", &self.0.entry_count()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Key;

    #[test]
    fn the_first_moment_stays() {
        let (seen, token) = (FirstSeen::new(10), |byte| TokenKey(Key::from_bytes([byte; 16])));
        let hour = Duration::from_secs(3600);
        assert_eq!(seen.get(token(1)), None);
        seen.note(token(1), Timestamp::from_secs(7), hour);
        seen.note(token(1), Timestamp::from_secs(9), hour);
        seen.note(token(2), Timestamp::from_secs(8), hour);
        assert_eq!(seen.get(token(1)), Some(Timestamp::from_secs(7)));
        assert_eq!(seen.get(token(2)), Some(Timestamp::from_secs(8)));
        seen.note(token(3), Timestamp::from_secs(8), Duration::ZERO);
        assert_eq!(seen.get(token(3)), None, "it cannot come again");
    }
}
