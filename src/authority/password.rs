//! Passwords of users: stored as slow hashes, set by administrators, verified at sign-in.
//!
//! People choose them, so a copy of the file must not allow many guesses: each costs 19 MiB of memory and two passes over
//! it (Argon2id, RFC 9106, with the parameters that OWASP recommends). For the same reason, hashing runs outside the
//! runtime and with limited concurrency.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{self, PasswordHasher, PasswordVerifier, phc};
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand;
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use super::accounts::invalid;
use super::changes::AccountChange;
use super::{Authority, Refused, User};
use crate::state::StoreError;

/// Passwords that are hashed at the same time; others wait their turn, so that guesses take neither all cores nor memory.
pub(super) const HASHED_AT_ONCE: usize = 2;

/// The shortest password, in bytes.
const SHORTEST: usize = 8;
/// The longest password, in bytes: what a longer one costs is bounded before it is known to be wrong.
const LONGEST: usize = 1_024;

/// Memory of one hash, in KiB.
const MEMORY: u32 = 19_456;
/// Passes over it.
const PASSES: u32 = 2;
/// Lanes that it could be filled in at the same time.
const LANES: u32 = 1;

/// Of a hash that belongs to no password, made with the same parameters.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// What is kept of a password: an Argon2id hash with its salt and parameters, as a PHC string.
#[derive(Clone)]
pub struct PasswordHash(Arc<str>);

/// Tells one password of a user from another, also when both are the same text. Gives nothing away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PasswordStamp([u8; 16]);

/// Whether a text may be a password. Only its length counts: rules of composition make passwords no harder to guess
/// (NIST SP 800-63B-4 §3.1.1.2).
///
/// # Errors
/// When it is too short or too long.
pub fn check_password(password: &str) -> Result<(), Refused> {
    let problem = match password.len() {
        ..SHORTEST => format!("is shorter than {SHORTEST} bytes"),
        SHORTEST..=LONGEST => return Ok(()),
        _longer => format!("is longer than {LONGEST} bytes"),
    };
    Err(invalid("password", problem))
}

impl PasswordHash {
    /// Hashes a password with a new salt. Slow.
    ///
    /// # Errors
    /// When the text may not be a password, or there are no random numbers or no memory.
    pub fn make(password: &str) -> Result<Self, Refused> {
        check_password(password)?;
        let mut salt = [0; argon2::RECOMMENDED_SALT_LEN];
        rand::fill(&mut salt)?;
        let hash: phc::PasswordHash = hasher()
            .hash_password_with_salt(password.as_bytes(), &salt)
            .map_err(|_only| Refused::NoMemory)?;
        Ok(Self(hash.to_string().into()))
    }

    /// Whether it is this password's. Slow, and as slow for a wrong one as for the right one.
    #[must_use]
    pub fn verify(&self, presented: &str) -> bool {
        let presented = presented.as_bytes();
        let hashed = presented.get(..LONGEST).unwrap_or(presented);
        let is_whole = hashed.len() == presented.len();
        let Ok(hash) = phc::PasswordHash::new(&self.0) else { return false };
        // With the parameters of the hash, which an earlier release may have chosen.
        hasher().verify_password(hashed, &hash).is_ok() & is_whole
    }

    /// One that no password has, to be compared with when there is none: the answer takes as long.
    pub(super) fn nobody() -> Self {
        Self(NOBODY.into())
    }

    /// As it is stored.
    pub(super) fn as_phc(&self) -> &str {
        &self.0
    }

    /// What [`Self::as_phc`] gave.
    ///
    /// # Errors
    /// When it is not a PHC string of Argon2id.
    pub(super) fn from_phc(text: Arc<str>) -> Result<Self, password_hash::Error> {
        let hash =
            phc::PasswordHash::new(&text).map_err(|_malformed| password_hash::Error::EncodingInvalid)?;
        let is_known = Algorithm::try_from(hash.algorithm.as_str()).is_ok_and(|it| it == Algorithm::Argon2id);
        if is_known && hash.hash.is_some() { Ok(Self(text)) } else { Err(password_hash::Error::Algorithm) }
    }

    pub(super) fn stamp(&self) -> PasswordStamp {
        let mut stamp = [0; 16];
        let digest = digest(&SHA256, self.0.as_bytes());
        stamp.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        PasswordStamp(stamp)
    }
}

impl PartialEq for PasswordHash {
    /// Takes the same time wherever the two differ.
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl Eq for PasswordHash {}

impl fmt::Debug for PasswordHash {
    /// Never prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(…)")
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY, PASSES, LANES, None).unwrap_or_default();
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

impl Authority {
    /// Sets or removes the password of a user. Ends no token: those are of its applications.
    ///
    /// # Errors
    /// When there is no such user or the text may not be a password.
    pub async fn set_password(
        self: &Arc<Self>,
        id: &str,
        password: Option<Zeroizing<String>>,
    ) -> Result<Arc<User>, Refused> {
        password.iter().try_for_each(|password| check_password(password))?;
        if self.directory.user(id).is_none() {
            return Err(Refused::NoUser);
        }
        let password = match password {
            Some(text) => Some(self.hash_in_turn(move || PasswordHash::make(&text)).await??),
            None => None,
        };
        let alone = self.settled_alone().await?;
        let user = self.directory.user(id).ok_or(Refused::NoUser)?;
        let change = AccountChange::SetPassword { id: Arc::clone(&user.id), password: password.clone() };
        self.carry_out(alone, change).await?;
        Ok(Arc::new(User { password, ..User::clone(&user) }))
    }

    /// The user of this id, when the password is its own. Takes as long when there is no such user, or one without a
    /// password, so that nobody learns who there is. The caller limits guessing.
    pub async fn sign_in(&self, id: &str, password: Zeroizing<String>) -> Option<Arc<User>> {
        let stored = self.directory.user(id).and_then(|user| user.password.clone());
        let hash = stored.unwrap_or_else(PasswordHash::nobody);
        let checked = hash.clone();
        let is_right = self.hash_in_turn(move || hash.verify(&password)).await.unwrap_or(false);
        // As it is now: meanwhile it may have been deleted, or have got another password.
        let user = self.directory.user(id)?;
        let is_checked = user.password.as_ref().is_some_and(|now| *now == checked);
        (is_right && is_checked && user.is_active).then_some(user)
    }

    /// Whether any user can sign in.
    #[must_use]
    pub fn has_password_users(&self) -> bool {
        self.directory.has_passwords()
    }

    /// Runs slow work away from the runtime when its turn comes. Work that has begun goes on, and counts, until its end,
    /// also when the caller has gone.
    ///
    /// # Errors
    /// When the process is ending.
    pub(super) async fn hash_in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let turn =
            Arc::clone(&self.hashing).acquire_owned().await.map_err(|_never_closed| StoreError::Closed)?;
        let work = spawn_blocking(move || {
            let done = work();
            drop(turn);
            done
        });
        work.await.map_err(|_cancelled| StoreError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_length_of_a_password_counts() {
        for (text, complaint) in [
            (String::new(), "password: is shorter than 8 bytes"),
            ("1234567".to_owned(), "password: is shorter than 8 bytes"),
            ("ääa".to_owned(), "password: is shorter than 8 bytes"),
            ("12345678".to_owned(), ""),
            ("        ".to_owned(), ""),
            ("\0\n\r\t\u{1b}\u{7f}..".to_owned(), ""),
            ("päßwörd".to_owned(), ""),
            ("🔑🔑".to_owned(), ""),
            ("x".repeat(1_024), ""),
            ("x".repeat(1_025), "password: is longer than 1024 bytes"),
            ("🔑".repeat(256) + "x", "password: is longer than 1024 bytes"),
            ("x".repeat(8 << 20), "password: is longer than 1024 bytes"),
        ] {
            let found = check_password(&text).err().map(|refused| refused.to_string()).unwrap_or_default();
            assert_eq!(found, complaint, "{} bytes", text.len());
            let made = PasswordHash::make(&text);
            assert_eq!(made.is_ok(), complaint.is_empty(), "{} bytes", text.len());
            assert!(
                made.is_ok_and(|hash| hash.verify(&text)) | !complaint.is_empty(),
                "{} bytes",
                text.len()
            );
        }
    }

    #[test]
    fn a_hash_knows_its_password_and_no_other() {
        let password = "correct horse battery staple";
        let hash = PasswordHash::make(password).unwrap();
        for wrong in [
            "",
            " ",
            "correct horse battery stapl",
            "correct horse battery staple ",
            "Correct horse battery staple",
        ] {
            assert!(!hash.verify(wrong), "{wrong:?}");
        }
        assert!(hash.verify(password));
        let again = PasswordHash::make(password).unwrap();
        assert!(again.verify(password) && hash != again, "salted");
        assert_ne!(hash.stamp(), again.stamp(), "the same text set again is another password");
        assert_eq!(hash.stamp(), hash.clone().stamp());
        let stored = PasswordHash::from_phc(hash.as_phc().into()).unwrap();
        assert!(stored.verify(password) && stored == hash && stored.stamp() == hash.stamp());
        let long = "x".repeat(LONGEST);
        let hash_of_long = PasswordHash::make(&long).unwrap();
        assert!(!hash_of_long.verify(&format!("{long}x")), "what is not hashed counts");
    }

    #[test]
    fn a_hash_is_argon2id_with_the_recommended_parameters_and_is_never_printed() {
        let hash = PasswordHash::make("correct horse").unwrap();
        let parameters = "$argon2id$v=19$m=19456,t=2,p=1$";
        assert!(hash.as_phc().starts_with(parameters), "{}", hash.as_phc());
        // As long, too: nobody's costs as much to check as anybody's.
        let nobody = PasswordHash::from_phc(NOBODY.into()).unwrap();
        assert!(nobody.as_phc().starts_with(parameters));
        assert_eq!(nobody.as_phc().len(), hash.as_phc().len());
        assert!(!nobody.verify("") && !nobody.verify("correct horse"));
        assert_eq!(format!("{hash:?}"), "PasswordHash(…)");
        let user = User { password: Some(hash.clone()), ..crate::authority::testing::user("ada", &[]) };
        assert!(!format!("{user:?}").contains("argon2"), "{user:?}");
        let text = serde_json::to_string(&user).unwrap();
        assert!(!text.contains("password") && !text.contains("argon2"), "{text}");
        assert_eq!(serde_json::from_str::<User>(&text).unwrap().password, None);
        let change = AccountChange::SetPassword { id: "ada".into(), password: Some(hash) };
        assert!(serde_json::to_string(&change).is_err(), "it cannot become an intent");
    }

    #[test]
    fn a_hash_of_other_parameters_is_checked_by_its_own() {
        let weaker = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(64, 1, 1, None).unwrap());
        let made: phc::PasswordHash =
            weaker.hash_password_with_salt(b"correct horse", b"0123456789abcdef").unwrap();
        let hash = PasswordHash::from_phc(made.to_string().into()).unwrap();
        assert!(hash.verify("correct horse") && !hash.verify("correct horsf"));
    }

    #[test]
    fn what_is_no_hash_of_argon2id_is_not_taken_for_one() {
        for text in [
            "",
            "correct horse battery staple",
            "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA",
            "$argon2i$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E",
        ] {
            assert!(PasswordHash::from_phc(text.into()).is_err(), "{text:?}");
        }
    }
}
