//! Nonces that proofs must carry (RFC 9449 §8, §9): a time and a MAC under a shared key, so that no nonce has
//! to be stored.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::state::Store;
use crate::time::Timestamp;

/// How long one key creates nonces, in seconds.
const PERIOD: i64 = 86_400;
/// How long the shared store keeps a key: its period, the next one, and the difference between clocks.
const KEPT: Duration = Duration::from_secs(3 * 86_400);
/// Bytes of the MAC.
const CODE: usize = 16;

/// The nonce keys known here, one per period.
pub struct NonceKeys {
    known: ArcSwap<Vec<(i64, Arc<hmac::Key>)>>,
    store: Option<Store>,
}

/// The key of this period is not known here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownPeriod(pub i64);

impl fmt::Debug for NonceKeys {
    /// Never prints a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NonceKeys(…)")
    }
}

impl NonceKeys {
    pub(super) fn new(store: Option<Store>) -> Self {
        Self { known: ArcSwap::default(), store }
    }

    /// Returns the nonce to issue now; it is valid for at least `bucket`, and less than twice that.
    ///
    /// # Errors
    /// When its key must be fetched first.
    pub fn current(&self, bucket: Duration, now: Timestamp) -> Result<Box<str>, UnknownPeriod> {
        self.nonce(start(bucket, now))
    }

    /// Whether a nonce is valid: it belongs to this time bucket or the previous one.
    ///
    /// # Errors
    /// When its key must be fetched first.
    pub fn is_good(&self, nonce: &str, bucket: Duration, now: Timestamp) -> Result<bool, UnknownPeriod> {
        let this = start(bucket, now);
        let before = this.saturating_sub(secs(bucket));
        let made = URL_SAFE_NO_PAD.decode(nonce).ok().filter(|bytes| bytes.len() == 8 + CODE);
        let named = made.and_then(|bytes| bytes.first_chunk().map(|secs| i64::from_be_bytes(*secs)));
        let Some(named) = named.filter(|named| *named == this || *named == before) else { return Ok(false) };
        let good = self.nonce(named)?;
        Ok(aws_lc_rs::constant_time::verify_slices_are_equal(good.as_bytes(), nonce.as_bytes()).is_ok())
    }

    /// Fetches or creates the key of a period. Returns false if that fails.
    pub async fn learn(&self, UnknownPeriod(period): UnknownPeriod) -> bool {
        let mut fresh = Zeroizing::new([0; 32]);
        if rand::fill(&mut *fresh).is_err() {
            return false;
        }
        let key = match &self.store {
            None => Some(fresh.to_vec()),
            Some(store) => store.nonce_key(period, &*fresh, KEPT).await.ok(),
        };
        let Some(key) = key.map(Zeroizing::new).filter(|key| key.len() == 32) else { return false };
        let key = Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key));
        self.known.rcu(|known| {
            // The first key stays, and keys that are no longer needed are dropped.
            let needed = known.iter().filter(|(of, _)| (period - 1..=period + 1).contains(of));
            let mut needed: Vec<_> = needed.cloned().collect();
            if !needed.iter().any(|(of, _)| *of == period) {
                needed.push((period, Arc::clone(&key)));
            }
            needed
        });
        true
    }

    fn nonce(&self, start: i64) -> Result<Box<str>, UnknownPeriod> {
        let period = start.div_euclid(PERIOD);
        let known = self.known.load();
        let (_, key) = known.iter().find(|(of, _)| *of == period).ok_or(UnknownPeriod(period))?;
        let start = start.to_be_bytes();
        let code = hmac::sign(key, &start);
        let code = code.as_ref().get(..CODE).unwrap_or_default();
        Ok(URL_SAFE_NO_PAD.encode([&start, code].concat()).into())
    }
}

/// The start of the time bucket that contains `now`, in seconds since 1970.
fn start(bucket: Duration, now: Timestamp) -> i64 {
    let secs = secs(bucket);
    now.as_secs().div_euclid(secs).saturating_mul(secs)
}

fn secs(bucket: Duration) -> i64 {
    i64::try_from(bucket.as_secs()).unwrap_or(i64::MAX).clamp(1, PERIOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[tokio::test]
    async fn a_nonce_is_good_in_its_bucket_and_the_next() {
        let keys = NonceKeys::new(None);
        let unknown = UnknownPeriod(20_000);
        let made = 20_000 * PERIOD + 120;
        assert_eq!(keys.current(MINUTE, at(made)), Err(unknown));
        assert!(keys.learn(unknown).await);
        let nonce = keys.current(MINUTE, at(made + 30)).unwrap();
        for (secs, good) in [(-1, false), (0, true), (59, true), (60, true), (119, true), (120, false)] {
            assert_eq!(keys.is_good(&nonce, MINUTE, at(made + secs)), Ok(good), "{secs}");
        }
        assert_eq!(keys.current(MINUTE, at(made)).unwrap(), nonce);
        assert_ne!(keys.current(MINUTE, at(made + 60)).unwrap(), nonce);
    }

    #[tokio::test]
    async fn what_others_made_is_no_nonce() {
        let (keys, others) = (NonceKeys::new(None), NonceKeys::new(None));
        let now = at(20_000 * PERIOD);
        assert!(keys.learn(UnknownPeriod(20_000)).await && others.learn(UnknownPeriod(20_000)).await);
        let nonce = keys.current(MINUTE, now).unwrap();
        let foreign = others.current(MINUTE, now).unwrap();
        let longer = format!("{nonce}A");
        for bad in ["", "x", &foreign, &nonce[1..], &longer, &nonce.to_lowercase()] {
            assert_eq!(keys.is_good(bad, MINUTE, now), Ok(false), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_nonce_outlives_the_period_of_its_key() {
        let keys = NonceKeys::new(None);
        let end = 20_001 * PERIOD;
        assert!(keys.learn(UnknownPeriod(20_000)).await);
        let nonce = keys.current(MINUTE, at(end - 1)).unwrap();
        assert_eq!(keys.is_good(&nonce, MINUTE, at(end + 1)), Ok(true));
        assert_eq!(keys.current(MINUTE, at(end + 1)), Err(UnknownPeriod(20_001)));
        assert!(keys.learn(UnknownPeriod(20_001)).await);
        assert_eq!(keys.is_good(&nonce, MINUTE, at(end + 1)), Ok(true), "the key before is known, too");
        assert!(keys.learn(UnknownPeriod(20_002)).await);
        assert_eq!(keys.current(MINUTE, at(end - 1)), Err(UnknownPeriod(20_000)), "nobody needs it any more");
    }

    #[tokio::test]
    async fn the_keys_of_the_periods_beside_the_one_that_was_learnt_last_are_known() {
        for (learnt, known) in [
            (&[7][..], &[7][..]),
            (&[7, 8], &[7, 8]),
            (&[8, 7], &[7, 8]),
            (&[7, 8, 7], &[7, 8]),
            (&[8, 7, 8], &[7, 8]),
            (&[7, 9], &[9]),
            (&[9, 7], &[7]),
            (&[7, 8, 9], &[8, 9]),
            (&[9, 8, 7], &[7, 8]),
            (&[7, 9, 8], &[8, 9]),
            (&[-1, 0, 1], &[0, 1]),
        ] {
            let keys = NonceKeys::new(None);
            for period in learnt {
                assert!(keys.learn(UnknownPeriod(*period)).await);
            }
            let mut found: Vec<i64> = keys.known.load().iter().map(|(of, _)| *of).collect();
            found.sort_unstable();
            assert_eq!(found, known, "{learnt:?}");
        }
    }

    #[tokio::test]
    async fn the_first_key_of_a_period_stays() {
        let keys = NonceKeys::new(None);
        assert!(keys.learn(UnknownPeriod(7)).await);
        let nonce = keys.current(MINUTE, at(7 * PERIOD)).unwrap();
        assert!(keys.learn(UnknownPeriod(7)).await);
        assert_eq!(keys.current(MINUTE, at(7 * PERIOD)).unwrap(), nonce);
    }
}
