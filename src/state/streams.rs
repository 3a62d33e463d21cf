//! What replicas share about a Shared Signals transmitter's stream: which of them owns it, which verifications
//! were requested, when one arrived, and which subjects were seen.
//!
//! If the store is not shared, this process is the owner and nothing is stored.

use std::time::Duration;

use super::{Store, StoreError};

/// The result of taking or renewing a stream's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLease {
    /// Whether this replica owns the stream until the lease ends.
    pub is_mine: bool,
    /// The last reported status of the stream's heartbeat, and how long it is valid.
    pub told: Option<(String, Duration)>,
}

/// What is known of a verification's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedState {
    /// No replica requested it.
    Unknown,
    /// It was requested, and arrived for the first time.
    First,
    /// It has arrived before.
    Again,
}

impl Store {
    /// Takes or renews the lease of a stream for this holder, unless another holder has it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn hold_stream(
        &self,
        stream: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<StreamLease, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.hold_stream(stream, holder, lease).await,
            None => Ok(StreamLease { is_mine: true, told: None }),
        }
    }

    /// Releases the lease of a stream if this holder has it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn leave_stream(&self, stream: &str, holder: &str) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.leave_stream(stream, holder).await,
            None => Ok(()),
        }
    }

    /// Announces to all replicas that a verification with this state was requested.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn expect_state(&self, stream: &str, state: &str, kept: Duration) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.expect_state(stream, state, kept).await,
            None => Ok(()),
        }
    }

    /// Records that a verification with this state arrived. If a replica requested it, `text` becomes the
    /// stream's status for as long as it is kept.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn confirm_state(
        &self,
        stream: &str,
        state: &str,
        (text, kept): (&str, Duration),
    ) -> Result<AskedState, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.confirm_state(stream, state, (text, kept)).await,
            None => Ok(AskedState::Unknown),
        }
    }

    /// Shares the status of a stream's heartbeat with all replicas.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn tell_of_stream(&self, stream: &str, text: &str, kept: Duration) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.tell_of_stream(stream, text, kept).await,
            None => Ok(()),
        }
    }

    /// Queues subjects for the replica that owns the stream; the oldest are dropped when too many wait.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn offer_subjects(&self, stream: &str, subjects: &[Box<str>]) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.offer_subjects(stream, subjects).await,
            None => Ok(()),
        }
    }

    /// Takes some of the subjects that other replicas queued.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn take_subjects(&self, stream: &str) -> Result<Vec<Box<str>>, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.take_subjects(stream).await,
            None => Ok(Vec::new()),
        }
    }

    /// Saves a short text about a stream across restarts.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn remember_stream(&self, stream: &str, text: &str) -> Result<(), StoreError> {
        // Stored in the table of key sets, by issuer; no issuer has this name.
        let now = crate::time::Now::read();
        self.save_key_set((&kept_as(stream), "stream"), text.as_bytes(), now).await
    }

    /// Returns the text saved about a stream.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn remembered_stream(&self, stream: &str) -> Result<Option<String>, StoreError> {
        let kept = self.key_set((&kept_as(stream), "stream")).await?;
        Ok(kept.and_then(|(text, ..)| String::from_utf8(text).ok()))
    }
}

fn kept_as(stream: &str) -> String {
    format!("event_transmitters/{stream}/stream")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Now;

    #[tokio::test]
    async fn a_store_of_ones_own_has_one_owner_and_keeps_what_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gate.db");
        let store = Store::open(&path, Now::read()).unwrap();
        let held = store.hold_stream("t", "me", Duration::from_secs(1)).await;
        assert_eq!(held, Ok(StreamLease { is_mine: true, told: None }));
        assert_eq!(store.remembered_stream("t").await, Ok(None));
        for text in ["one", "two"] {
            store.remember_stream("t", text).await.unwrap();
        }
        store.close().await;
        drop(store);
        let store = Store::open(&path, Now::read()).unwrap();
        assert_eq!(store.remembered_stream("t").await, Ok(Some("two".to_owned())));
        assert_eq!(store.remembered_stream("u").await, Ok(None));
        let told = store.confirm_state("t", "x", ("ok", Duration::from_secs(1))).await;
        assert_eq!(told, Ok(AskedState::Unknown));
    }
}
