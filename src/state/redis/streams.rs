//! What replicas share about a Shared Signals transmitter's stream. Its keys are in one slot, because scripts
//! change them together.

use std::time::Duration;

use redis::{Cmd, FromRedisValue};

use super::{RESPONSE_TIMEOUT, SharedStore};
use crate::state::StoreError;
use crate::state::streams::{AskedState, StreamLease};

/// How many subjects may wait for the replica that owns the stream.
const SUBJECTS: usize = 10_000;
/// How many subjects it takes at once.
const AT_ONCE: usize = 100;

impl SharedStore {
    pub(in crate::state) async fn hold_stream(
        &self,
        stream: &str,
        holder: &str,
        lease: Duration,
    ) -> Result<StreamLease, StoreError> {
        let mut call = self.scripts.hold.call(2);
        call.arg(self.keys.stream(stream, "owner")).arg(self.keys.stream(stream, "told"));
        call.arg(holder).arg(millis(lease));
        let (mine, told, left): (i64, String, i64) = self.about_stream(stream, &call).await?;
        let left = u64::try_from(left).ok().filter(|_| !told.is_empty()).map(Duration::from_millis);
        Ok(StreamLease { is_mine: mine == 1, told: left.map(|left| (told, left)) })
    }

    pub(in crate::state) async fn leave_stream(&self, stream: &str, holder: &str) -> Result<(), StoreError> {
        let mut call = self.scripts.release.call(1);
        call.arg(self.keys.stream(stream, "owner")).arg(holder);
        self.about_stream::<i64>(stream, &call).await.map(drop)
    }

    pub(in crate::state) async fn expect_state(
        &self,
        stream: &str,
        state: &str,
        kept: Duration,
    ) -> Result<(), StoreError> {
        let mut call = redis::cmd("SET");
        call.arg(self.state_key(stream, state)).arg("asked").arg("PX").arg(millis(kept));
        self.about_stream::<String>(stream, &call).await.map(drop)
    }

    pub(in crate::state) async fn confirm_state(
        &self,
        stream: &str,
        state: &str,
        (text, kept): (&str, Duration),
    ) -> Result<AskedState, StoreError> {
        let mut call = self.scripts.confirm.call(2);
        call.arg(self.state_key(stream, state)).arg(self.keys.stream(stream, "told"));
        call.arg(text).arg(millis(kept));
        Ok(match self.about_stream::<i64>(stream, &call).await? {
            1 => AskedState::First,
            2 => AskedState::Again,
            _ => AskedState::Unknown,
        })
    }

    pub(in crate::state) async fn tell_of_stream(
        &self,
        stream: &str,
        text: &str,
        kept: Duration,
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.tell.call(1);
        call.arg(self.keys.stream(stream, "told")).arg(text).arg(millis(kept));
        self.about_stream::<i64>(stream, &call).await.map(drop)
    }

    pub(in crate::state) async fn offer_subjects(
        &self,
        stream: &str,
        subjects: &[Box<str>],
    ) -> Result<(), StoreError> {
        let mut call = self.scripts.offer.call(1);
        call.arg(self.keys.stream(stream, "subjects")).arg(SUBJECTS);
        for subject in subjects {
            call.arg(&**subject);
        }
        self.about_stream::<i64>(stream, &call).await.map(drop)
    }

    pub(in crate::state) async fn take_subjects(&self, stream: &str) -> Result<Vec<Box<str>>, StoreError> {
        let mut call = self.scripts.take.call(1);
        call.arg(self.keys.stream(stream, "subjects")).arg(AT_ONCE);
        let taken: Vec<String> = self.about_stream(stream, &call).await?;
        Ok(taken.into_iter().map(String::into_boxed_str).collect())
    }

    /// The key for a state. The state comes from outside, so everything that a state of this gate
    /// cannot contain is removed.
    fn state_key(&self, stream: &str, state: &str) -> String {
        let state: String = state.chars().filter(char::is_ascii_hexdigit).take(32).collect();
        self.keys.stream(stream, &format!("state:{state}"))
    }

    async fn about_stream<T: FromRedisValue>(&self, stream: &str, call: &Cmd) -> Result<T, StoreError> {
        let lane = self.lane(self.keys.stream(stream, "owner").as_bytes())?;
        Ok(lane.ask(call, RESPONSE_TIMEOUT).await.inspect_err(|fault| self.report(fault))?)
    }
}

/// At least 1: Redis rejects a shorter time to live.
fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).clamp(1, 1 << 50)
}

#[cfg(test)]
mod tests;
