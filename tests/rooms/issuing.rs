//! The embedded authority for tests of what stands on it.
#![expect(clippy::unwrap_used, reason = "helpers of a test fail as the test does")]

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use portcullis::authority::{self, Authority};

const HOUR: Duration = Duration::from_secs(3600);

/// Opens an authority of this name with the scopes `read:deals` and `read:users`.
pub(crate) async fn open(issuer: &str, parts: authority::Parts) -> Arc<Authority> {
    let settings = authority::Settings {
        issuer: issuer.into(),
        audience: issuer.to_owned(),
        resources: Vec::new(),
        token_path: "/oauth/token".to_owned(),
        token_lifetime: HOUR,
        signing_algorithm: authority::ALGORITHMS[0],
        key_rotation: 720 * HOUR,
        tenant_parameter: None,
        failures_per_client: NonZeroU32::MIN,
        failures_per_address: NonZeroU32::MIN,
        scopes: ["read:deals", "read:users"].map(str::to_owned).to_vec(),
        introspection_clients: Vec::new(),
        global_token_revocation: None,
        binds_certificates: false,
        path: PathBuf::new(),
    };
    Authority::open(settings, parts).await.unwrap()
}
