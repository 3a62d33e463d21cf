//! Applies a provider's changes to the users of the embedded authority.

use std::sync::Arc;

use super::error::ScimError;
use super::plan::WantedAccount;
use crate::authority::{Authority, ProvidedUser, Refused};

/// Creates, changes and deletes users of the authority as wanted. If one fails, the earlier changes stay; the
/// whole list may be applied again.
pub(super) async fn provide(authority: &Arc<Authority>, wanted: Vec<WantedAccount>) -> Result<(), ScimError> {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for account in wanted {
        match account {
            WantedAccount::Kept { id, name, roles, is_active } => {
                kept.push(ProvidedUser { id: id.into(), name: name.into(), roles, is_active });
            }
            WantedAccount::Deleted(id) => gone.push(id),
        }
    }
    if !kept.is_empty() {
        authority.provide(kept).await.map_err(refused)?;
    }
    for id in gone {
        match authority.delete_user(&id).await {
            Ok(()) | Err(Refused::NoUser) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    Ok(())
}

fn refused(refused: Refused) -> ScimError {
    match refused {
        Refused::Invalid { field, why } => ScimError::value(format!("the authority's user: {field}: {why}")),
        Refused::Store(error) => ScimError::from(error),
        other => {
            tracing::error!(error = %other, "cannot change the authority's users");
            ScimError::unavailable()
        }
    }
}
