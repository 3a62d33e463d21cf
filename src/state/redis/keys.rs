//! The names of all keys in the shared store, and the slots they fall into.
//!
//! The log, its origin and the lock for mending it share one slot, because scripts change them together. Last
//! uses are spread over 256 hash tags, so that a cluster distributes them while one script can still write many.

use crate::identity::{Key, TokenKey};

/// The version of the data under the prefix. Other versions are refused.
pub(super) const VERSION: &str = "1";

/// The key names under one prefix.
#[derive(Debug)]
pub(super) struct RedisKeys {
    prefix: String,
    /// A hash that describes the log: version, identity, creation, last entry, age and what is missing; and the
    /// idle timeouts of the fleet.
    pub(super) origin: String,
    /// The events: a stream.
    pub(super) events: String,
    /// The time of the last write that proved that the server accepts writes.
    pub(super) stamp: String,
    /// The lock of the replica that republishes lost events.
    pub(super) mender: String,
    /// How many responses of each kind each client received: a hash.
    pub(super) usage: String,
    /// The time of the last of them: a hash in the same slot.
    pub(super) usage_last: String,
}

impl RedisKeys {
    pub(super) fn new(prefix: &str) -> Self {
        let log = format!("{prefix}:{{{prefix}.log}}");
        let usage = format!("{prefix}:{{{prefix}.usage}}");
        Self {
            prefix: prefix.to_owned(),
            origin: format!("{log}:origin"),
            events: format!("{log}:events"),
            stamp: format!("{log}:stamp"),
            mender: format!("{log}:mender"),
            usage: format!("{usage}:counts"),
            usage_last: format!("{usage}:last"),
        }
    }

    /// The last use of a token: a number, which expires.
    pub(super) fn session(&self, token: TokenKey) -> Vec<u8> {
        let bytes = token.0.to_bytes();
        let mut key = format!("{}:{{{:02x}}}:", self.prefix, bytes[0]).into_bytes();
        key.extend(bytes);
        key
    }

    /// The first use of a token that was used before its `iat`: a number, which expires.
    pub(super) fn first_use(&self, token: TokenKey) -> Vec<u8> {
        let bytes = token.0.to_bytes();
        let mut key = format!("{}:first:{{{:02x}}}:", self.prefix, bytes[0]).into_bytes();
        key.extend(bytes);
        key
    }

    /// A used proof of possession, which expires.
    pub(super) fn proof(&self, proof: Key) -> Vec<u8> {
        let bytes = proof.to_bytes();
        let mut key = format!("{}:proof:{{{:02x}}}:", self.prefix, bytes[0]).into_bytes();
        key.extend(bytes);
        key
    }

    /// The key of the nonces in proofs for a period, which expires.
    pub(super) fn nonces(&self, period: i64) -> String {
        format!("{}:nonces:{period}", self.prefix)
    }

    /// The authority of an issuer: the ids of its public keys.
    pub(super) fn authority(&self, issuer: &str) -> String {
        format!("{}:authority:{}", self.prefix, crate::identity::IssuerKey::new(issuer).0)
    }

    /// A value about a transmitter's stream; all keys of a stream share a slot.
    pub(super) fn stream(&self, name: &str, what: &str) -> String {
        format!("{0}:{{{0}.signals.{name}}}:{what}", self.prefix)
    }

    /// The prefix of a directory's keys, which share a slot.
    pub(super) fn directory(&self, name: &str) -> String {
        format!("{}:{{{}.directory.{name}}}", self.prefix, self.prefix)
    }

    /// The last good key set of an issuer from a source: a hash. Replicas with different
    /// configurations do not mix theirs.
    pub(super) fn key_set(&self, (issuer, source): (&str, &str)) -> String {
        format!("{}:keys:{}:{source}", self.prefix, crate::identity::IssuerKey::new(issuer).0)
    }
}

/// The cluster slot of a key: CRC16 (XMODEM) of its hash tag, or of the whole key without one, modulo 16384.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    let crc =
        tag.unwrap_or(key).iter().fold(0_u16, |crc, byte| {
            (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
            })
        });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // The results of CLUSTER KEYSLOT on a Redis 7.0 server.
        for (key, expected) in
            [("123456789", 12739), ("foo{bar}baz", 5061), ("{bar}", 5061), ("foo{}x", 2691)]
        {
            assert_eq!(slot(key.as_bytes()), expected, "{key}");
        }
    }

    #[test]
    fn names_are_those_that_other_releases_use() {
        let (keys, of_a) = (RedisKeys::new("p"), crate::identity::IssuerKey::new("https://a/").0);
        for (name, expected) in [
            (keys.origin.clone(), "p:{p.log}:origin".to_owned()),
            (keys.events.clone(), "p:{p.log}:events".to_owned()),
            (keys.stamp.clone(), "p:{p.log}:stamp".to_owned()),
            (keys.mender.clone(), "p:{p.log}:mender".to_owned()),
            (keys.usage.clone(), "p:{p.usage}:counts".to_owned()),
            (keys.usage_last.clone(), "p:{p.usage}:last".to_owned()),
            (keys.nonces(-7), "p:nonces:-7".to_owned()),
            (keys.authority("https://a/"), format!("p:authority:{of_a}")),
            (keys.stream("okta", "owner"), "p:{p.signals.okta}:owner".to_owned()),
            (keys.directory("entra"), "p:{p.directory.entra}".to_owned()),
            (keys.key_set(("https://a/", "url")), format!("p:keys:{of_a}:url")),
        ] {
            assert_eq!(name, expected);
        }
        let token = TokenKey(Key::from_bytes([0x61; 16]));
        let named = |text: &str| format!("{text}{}", "a".repeat(16)).into_bytes();
        assert_eq!(keys.session(token), named("p:{61}:"));
        assert_eq!(keys.first_use(token), named("p:first:{61}:"));
        assert_eq!(keys.proof(token.0), named("p:proof:{61}:"));
    }

    #[test]
    fn what_one_script_changes_lies_in_one_slot() {
        let keys = RedisKeys::new("p");
        let of = |key: &str| slot(key.as_bytes());
        assert_eq!(of(&keys.origin), of(&keys.events));
        assert_eq!(of(&keys.origin), of(&keys.stamp));
        assert_eq!(of(&keys.origin), of(&keys.mender));
        assert_eq!(of(&keys.usage), of(&keys.usage_last));
        for what in ["told", "state:1f", "subjects"] {
            assert_eq!(of(&keys.stream("okta", "owner")), of(&keys.stream("okta", what)), "{what}");
        }
        // The raw bytes of a token may contain braces; the hash tag comes first.
        let braces = TokenKey(Key::from_bytes(*b"{}{}{}{}{}{}{}{}"));
        assert_eq!(slot(&keys.session(braces)), of("{7b}"));
        assert_eq!(slot(&keys.first_use(braces)), of("{7b}"));
        assert_eq!(slot(&keys.proof(braces.0)), of("{7b}"));
    }
}
