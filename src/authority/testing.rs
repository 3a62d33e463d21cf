//! What the authority's unit tests share.

use super::secret::SecretHash;
use super::*;

pub(super) fn settings() -> Settings {
    Settings {
        issuer: "https://gate.test".into(),
        audience: "https://api.test".to_owned(),
        resources: Vec::new(),
        token_path: "/OAuth/Token".to_owned(),
        token_lifetime: Duration::from_secs(3600),
        signing_algorithm: Algorithm::ES256,
        key_rotation: Duration::from_secs(30 * 24 * 3600),
        tenant_parameter: None,
        failures_per_client: NonZeroU32::new(10).unwrap(),
        failures_per_address: NonZeroU32::new(100).unwrap(),
        scopes: ["read:deals", "read:activity", "read:users"].map(str::to_owned).to_vec(),
        introspection_clients: Vec::new(),
        global_token_revocation: None,
        binds_certificates: false,
        path: PathBuf::new(),
    }
}

fn words(words: &[&str]) -> Vec<Box<str>> {
    words.iter().map(|word| Box::from(*word)).collect()
}

pub(super) fn user(id: &str, roles: &[&str]) -> User {
    User {
        id: id.into(),
        name: id.into(),
        roles: words(roles),
        role_version: 1,
        created_at: Timestamp::EPOCH,
        is_active: true,
        password: None,
    }
}

pub(super) fn credential(client_id: &str, owner: &str, roles: &[&str], scopes: &[&str]) -> Credential {
    Credential {
        client_id: client_id.into(),
        name: client_id.into(),
        owner: owner.into(),
        roles: words(roles),
        scopes: words(scopes),
        tenant: None,
        expires_at: None,
        created_at: Timestamp::EPOCH,
        secret: SecretHash::NOBODY,
        old_secret: None,
    }
}
