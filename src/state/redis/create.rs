//! Creates the log of a shared store before the first gate does, and so decides how tokens issued earlier are treated.

use super::connect::Connector;
use super::fault::RedisFault;
use super::keys::{RedisKeys, VERSION, slot};
use super::scripts::Scripts;
use super::supervise::random_id;
use super::{RESPONSE_TIMEOUT, Settings, setup};
use crate::state::OpenError;
use crate::time::Timestamp;

/// Creates the log; with `accept_existing_tokens` it assumes that nothing was revoked before.
///
/// # Errors
/// When the server cannot be used, or the log already exists.
pub async fn create(settings: &Settings, accept_existing_tokens: bool) -> Result<(), OpenError> {
    let refused = |fault: RedisFault| OpenError::Refused(fault.to_string());
    if try_create(settings, accept_existing_tokens).await.map_err(refused)? {
        return Ok(());
    }
    Err(OpenError::Refused("a store already exists under state.key_prefix; it was not changed".to_owned()))
}

async fn try_create(settings: &Settings, accept_existing_tokens: bool) -> Result<bool, RedisFault> {
    let (keys, scripts) = (RedisKeys::new(&settings.key_prefix), Scripts::new());
    let connector = Connector::new(settings.endpoint.clone(), settings.ca.as_ref());
    let connector = connector.map_err(|error| RedisFault::Refused(error.to_string()))?;
    let lanes = connector.lanes().await?;
    let lane = lanes.to(if connector.is_cluster() { slot(keys.origin.as_bytes()) } else { 0 })?;
    setup::check(lane, RESPONSE_TIMEOUT).await?;
    lane.ask::<String>(&scripts.found.load(), RESPONSE_TIMEOUT).await?;
    let mut call = scripts.found.call(2);
    call.arg(&keys.origin).arg(&keys.events).arg(VERSION).arg(random_id());
    if accept_existing_tokens {
        call.arg(Timestamp::EPOCH.as_millis());
    }
    Ok(lane.ask::<i64>(&call, RESPONSE_TIMEOUT).await? == 1)
}
