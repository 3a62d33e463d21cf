//! State about the stream of a Shared Signals transmitter that replicas share: which of them maintains it, which
//! verifications were requested, when one arrived, and which subjects were seen.
//!
//! If the store is not shared, this process is the owner and nothing is stored.

use std::time::Duration;

use super::{Store, StoreError};

/// One look at a stream's lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenure {
    /// Whether this replica keeps the stream until the lease ends.
    pub is_mine: bool,
    /// What was told last of the stream's heartbeat, and how long that stands.
    pub told: Option<(String, Duration)>,
}

/// What is known of a verification's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedState {
    /// Nobody asked for it.
    Unknown,
    /// It was asked for, and arrived for the first time.
    First,
    /// It arrived before.
    Again,
}

impl Store {
    /// Takes or renews the lease of a stream for this holder, unless another one has it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn hold_stream(
        &self,
        stream: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<Tenure, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.hold_stream(stream, holder, lease).await,
            None => Ok(Tenure { is_mine: true, told: None }),
        }
    }

    /// Gives up the lease of a stream, if this holder has it.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn leave_stream(&self, stream: &str, holder: &str) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.leave_stream(stream, holder).await,
            None => Ok(()),
        }
    }

    /// Lets every replica know that a verification with this state was asked for.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn expect_state(&self, stream: &str, state: &str, kept: Duration) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.expect_state(stream, state, kept).await,
            None => Ok(()),
        }
    }

    /// A verification with this state arrived. When a replica asked for it, all are told `text` for as long as it is kept.
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

    /// Tells all replicas of a stream's heartbeat.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn tell_of_stream(&self, stream: &str, text: &str, kept: Duration) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.tell_of_stream(stream, text, kept).await,
            None => Ok(()),
        }
    }

    /// Leaves subjects for the replica that keeps the stream; the oldest are dropped when too many wait.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn offer_subjects(&self, stream: &str, subjects: &[Box<str>]) -> Result<(), StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.offer_subjects(stream, subjects).await,
            None => Ok(()),
        }
    }

    /// Takes some of the subjects that other replicas left.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn take_subjects(&self, stream: &str) -> Result<Vec<Box<str>>, StoreError> {
        match self.fleet() {
            Some(fleet) => fleet.take_subjects(stream).await,
            None => Ok(Vec::new()),
        }
    }

    /// Keeps a short text about a stream over restarts.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn remember_stream(&self, stream: &str, text: &str) -> Result<(), StoreError> {
        // In the table of fetched documents, which are kept by who they are of; no issuer has this name.
        let now = crate::time::Now::read();
        self.save_key_set((&kept_as(stream), "stream"), text.as_bytes(), now).await
    }

    /// What was kept about a stream.
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
        assert_eq!(held, Ok(Tenure { is_mine: true, told: None }));
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
