//! Key sets of issuers as they were fetched, so that a gate can start while an issuer is unavailable.

use super::{Store, StoreError, rows};
use crate::time::{Monotonic, Now, Timestamp};

impl Store {
    /// Saves the last good key set of an issuer from this source, as it was fetched.
    ///
    /// # Errors
    /// When the disk is full or fails.
    pub async fn save_key_set(
        &self,
        (issuer, source): (&str, &str),
        body: &[u8],
        fetched_at: Now,
    ) -> Result<(), StoreError> {
        if let Some(fleet) = self.fleet() {
            return fleet.save_key_set((issuer, source), body, fetched_at.wall).await;
        }
        let (issuer, source, body) = (issuer.to_owned(), source.to_owned(), body.to_owned());
        let at = (fetched_at.wall, self.uptime.at(fetched_at.monotonic));
        self.writer.run(move |db| rows::save_key_set(db, (&issuer, &source), &body, at)).await
    }

    /// Returns the last good key set of an issuer from this source, and when it was fetched: by the wall clock,
    /// and on the monotonic clock of this process if the store counts running time.
    ///
    /// # Errors
    /// When the disk fails.
    pub async fn key_set(
        &self,
        (issuer, source): (&str, &str),
    ) -> Result<Option<(Vec<u8>, Timestamp, Option<Monotonic>)>, StoreError> {
        if let Some(fleet) = self.fleet() {
            let kept = fleet.key_set((issuer, source)).await?;
            return Ok(kept.map(|(body, at)| (body, at, None)));
        }
        let (issuer, source) = (issuer.to_owned(), source.to_owned());
        let kept = self.writer.read(move |db| rows::key_set(db, (&issuer, &source))).await?;
        Ok(kept.map(|(body, at, running)| (body, at, Some(self.uptime.moment(running)))))
    }
}
