//! Compact identifiers: issuers, subjects, clients and tokens as 128-bit keys, computed once per verified token.
//!
//! This module knows only hashing, not what the keys are used for.

use std::fmt;
use std::hash::{BuildHasher, Hash, Hasher};

use aws_lc_rs::digest::{Context, SHA256};

/// A 128-bit key: the first half of a SHA-256.
///
/// Finding two names with the same key takes 2^64 hashes and gains nothing: what ends one then ends the other
/// too. Finding a name with the key of another's name takes 2^128.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Key {
    high: u64,
    low: u64,
}

impl Key {
    /// Creates a key from the first 16 bytes of a digest.
    #[must_use]
    pub fn from_digest(digest: &[u8; 32]) -> Self {
        Self::from_bytes(std::array::from_fn(|i| digest[i]))
    }

    /// Restores a key from [`Self::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { high: (both >> 64) as u64, low: both as u64 }
    }

    /// The stored form of the key; sorts like the key.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.high) << 64 | u128::from(self.low)).to_be_bytes()
    }

    /// The leading 64 bits, which are evenly distributed and sort like the key.
    #[must_use]
    pub const fn high(self) -> u64 {
        self.high
    }

    /// The trailing 64 bits.
    #[must_use]
    pub const fn low(self) -> u64 {
        self.low
    }

    fn of(parts: [&str; 2]) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(parts[0].as_bytes());
        context.update(b"\n");
        context.update(parts[1].as_bytes());
        Self::finish(context)
    }

    /// The key of a list of texts. Lengths are hashed too, so that no two lists collide.
    pub(crate) fn of_all(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part.as_bytes());
        }
        Self::finish(context)
    }

    fn finish(context: Context) -> Self {
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        Self::from_digest(&digest)
    }
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Hashes the low half: tables that shard by the high half would otherwise see the same bits twice.
        state.write_u64(self.low);
    }
}

impl fmt::Display for Key {
    /// Writes 32 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.high, self.low)
    }
}

/// Defines distinct key types, so that they cannot be confused.
macro_rules! keys {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub Key);
    )*};
}

keys! {
    /// An issuer.
    IssuerKey
    /// A subject of one issuer.
    SubjectKey
    /// A login session of one issuer, or of one subject only.
    SessionKey
    /// A client of one issuer.
    ClientKey
    /// A token, independent of its encoding.
    TokenKey
}

impl IssuerKey {
    /// The key of `iss`.
    #[must_use]
    pub fn new(issuer: &str) -> Self {
        Self(Key::of([issuer, ""]))
    }
}

impl SubjectKey {
    /// The key of `iss` and `sub`.
    #[must_use]
    pub fn new(issuer: &str, subject: &str) -> Self {
        Self(Key::of([issuer, subject]))
    }
}

impl SubjectKey {
    /// The key of `iss` and an e-mail address, whose domain is compared without case (RFC 5321 §2.4).
    #[must_use]
    pub fn email(issuer: &str, address: &str) -> Self {
        let address = match address.rsplit_once('@') {
            Some((mailbox, domain)) => format!("{mailbox}@{}", domain.to_ascii_lowercase()),
            None => address.to_owned(),
        };
        Self(Key::of_all(&["email", issuer, &address]))
    }

    /// The key of `iss` and another name of the subject.
    #[must_use]
    pub fn alias(issuer: &str, alias: &str) -> Self {
        Self(Key::of_all(&["alias", issuer, alias]))
    }
}

impl SessionKey {
    /// The key of `iss` and the session claim.
    #[must_use]
    pub fn new(issuer: &str, session: &str) -> Self {
        Self(Key::of_all(&["session", issuer, session]))
    }

    /// The key of the same session, for this subject only.
    #[must_use]
    pub fn of(issuer: &str, session: &str, subject: SubjectKey) -> Self {
        Self(Key::of_all(&["session", issuer, session, &subject.0.to_string()]))
    }
}

impl ClientKey {
    /// The key of `iss` and the client claim.
    #[must_use]
    pub fn new(issuer: &str, client: &str) -> Self {
        Self(Key::of([issuer, client]))
    }
}

impl TokenKey {
    /// The key of `iss` and `jti`; a token without `jti` has that of its signing input's digest.
    #[must_use]
    pub fn new(issuer: &str, jti: &str) -> Self {
        Self(Key::of([issuer, jti]))
    }
}

/// Other names in a token by which events may refer to it, besides its subject. Most tokens have none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TokenNames {
    /// Its subject's e-mail address and aliases.
    pub subjects: Box<[SubjectKey]>,
    /// Its login session: by itself, and with each name of its subject.
    pub sessions: Box<[SessionKey]>,
}

impl TokenNames {
    /// The names of a token with this subject and login session; `None` if there are none.
    #[must_use]
    pub fn new(
        issuer: &str,
        subject: Option<SubjectKey>,
        others: Vec<SubjectKey>,
        session: Option<&str>,
    ) -> Option<Self> {
        let sessions = session.into_iter().flat_map(|session| {
            let of = |subject: &SubjectKey| SessionKey::of(issuer, session, *subject);
            let narrowed = subject.iter().chain(&others).map(of).collect::<Vec<_>>();
            [SessionKey::new(issuer, session)].into_iter().chain(narrowed)
        });
        let sessions: Box<[SessionKey]> = sessions.collect();
        (!others.is_empty() || !sessions.is_empty()).then(|| Self { subjects: others.into(), sessions })
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        self.subjects.iter().map(|subject| subject.0).chain(self.sessions.iter().map(|session| session.0))
    }

    /// Whether a key is among them.
    #[must_use]
    pub fn has(&self, key: Key) -> bool {
        self.keys().any(|known| known == key)
    }

    /// The memory it takes.
    #[must_use]
    pub fn size(&self) -> usize {
        size_of::<Self>() + size_of::<Key>() * (self.subjects.len() + self.sessions.len())
    }

    /// The stored form: how many of the keys are subjects, then all keys.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let count = u8::try_from(self.subjects.len()).unwrap_or(u8::MAX);
        [count].into_iter().chain(self.keys().flat_map(Key::to_bytes)).collect()
    }

    /// Restores names from [`Self::to_bytes`]; `None` if the bytes are invalid.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (count, keys) = bytes.split_first()?;
        let (keys, rest) = keys.as_chunks::<16>();
        let (subjects, sessions) = keys.split_at_checked(usize::from(*count))?;
        let key = |bytes: &[u8; 16]| Key::from_bytes(*bytes);
        rest.is_empty().then(|| Self {
            subjects: subjects.iter().map(|bytes| SubjectKey(key(bytes))).collect(),
            sessions: sessions.iter().map(|bytes| SessionKey(key(bytes))).collect(),
        })
    }
}

/// A hasher that uses the bits of a [`Key`] as the hash.
#[derive(Debug, Clone, Copy, Default)]
pub struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        // Not called for keys; mixing the bytes keeps the hasher correct for anything else.
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, bits: u64) {
        self.0 = bits;
    }
}

impl BuildHasher for AsIs {
    type Hasher = Self;

    fn build_hasher(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_first_half_of_sha256_of_both_names() {
        // printf 'https://idp.example.com/\nalice' | sha256sum
        let key = SubjectKey::new("https://idp.example.com/", "alice").0;
        assert_eq!(key.to_string(), "9559fdf5f9c616d84744831b822ea8be");
        assert_eq!(Key::from_bytes(key.to_bytes()), key);
    }

    #[test]
    fn the_same_subject_of_another_issuer_is_another_key() {
        assert_ne!(SubjectKey::new("https://a/", "s"), SubjectKey::new("https://b/", "s"));
        assert_ne!(SubjectKey::new("https://a/", "s"), SubjectKey::new("https://a/", "t"));
    }

    #[test]
    fn the_domain_of_an_address_is_compared_without_case_and_the_mailbox_with_it() {
        let key = |address: &str| SubjectKey::email("https://a/", address);
        assert_eq!(key("Ada@Example.COM"), key("Ada@example.com"));
        assert_ne!(key("Ada@example.com"), key("ada@example.com"));
        assert_eq!(key("\"a@B\"@C.test"), key("\"a@B\"@c.test"));
        assert_ne!(key("\"a@B\"@c.test"), key("\"a@b\"@c.test"));
        assert_ne!(key("ADA"), key("ada"));
    }

    #[test]
    fn one_word_names_another_thing_as_subject_address_alias_and_session() {
        let (issuer, word) = ("https://a/", "x@b.test");
        let subject = SubjectKey::new(issuer, word);
        let keys = [
            subject.0,
            SubjectKey::email(issuer, word).0,
            SubjectKey::alias(issuer, word).0,
            SessionKey::new(issuer, word).0,
            SessionKey::of(issuer, word, subject).0,
            SessionKey::of(issuer, word, SubjectKey::new(issuer, "y")).0,
            SessionKey::new("https://b/", word).0,
        ];
        let different: std::collections::BTreeSet<Key> = keys.into_iter().collect();
        assert_eq!(different.len(), keys.len());
    }

    #[test]
    fn keys_sort_as_their_bytes_do() {
        let mut keys: Vec<Key> = (0..100).map(|i| SubjectKey::new("https://a/", &i.to_string()).0).collect();
        keys.sort_unstable();
        assert!(keys.windows(2).all(|pair| pair[0].to_bytes() < pair[1].to_bytes()));
    }
}
