//! `[[scim]]`: identity providers that push their users and groups.

use std::collections::BTreeMap;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use serde_json::json;

use super::{transmitters, unique};
use crate::authority;
use crate::config::section::Section;
use crate::config::settings::IssuerSettings;
use crate::config::units;
use crate::signals::Concealed;
use crate::signals::scim::{Settings, SubjectAttribute};

/// The shortest allowed token, in bytes.
const SHORTEST: usize = 16;

/// Compiles all tables.
pub(super) fn providers(
    s: &mut Section<'_>,
    issuers: &[IssuerSettings],
    authority: Option<&authority::Settings>,
    has_intake: bool,
) -> Vec<Settings> {
    let (mut names, mut secrets, mut of_authority) = (Vec::new(), Vec::new(), Vec::new());
    let issuers = s.is_sound("issuers").then_some(issuers);
    let providers = s.tables("scim", |s| {
        let provider = provider(s, issuers, &mut secrets);
        unique(s, "name", &provider.name, &mut names);
        if authority.is_some_and(|authority| authority.issuer == provider.issuer.issuer) {
            // Two providers would remove the roles that the other one assigns.
            if !of_authority.is_empty() {
                s.problem(
                    "issuer",
                    "is the issuer of [authority], whose users another [[scim]] already provides",
                );
            }
            of_authority.push(provider.name.clone());
        }
        provider
    });
    if !providers.is_empty() && !has_intake {
        s.problem("scim", "requires a [signals] table, which sets where its requests arrive");
    }
    providers
}

fn provider(s: &mut Section<'_>, issuers: Option<&[IssuerSettings]>, known: &mut Vec<String>) -> Settings {
    s.describe(
        "roles",
        || json!({ "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } }),
    );
    Settings {
        name: s.required("name", transmitters::segment).unwrap_or_default(),
        tokens: tokens(s, known),
        issuer: transmitters::subject_issuer(s, "issuer", issuers).0.issuer,
        subject: s.word(
            "subject",
            ("externalId", SubjectAttribute::ExternalId),
            &[("userName", SubjectAttribute::UserName), ("id", SubjectAttribute::Id)],
        ),
        roles: s.table("roles", roles),
    }
}

fn tokens(s: &mut Section<'_>, known: &mut Vec<String>) -> Vec<Concealed> {
    let secrets = s.secrets("tokens");
    for (index, secret) in secrets.iter().enumerate() {
        // RFC 6750 §2.1: other characters cannot be sent in `Authorization: Bearer`.
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            s.element_problem("tokens", index, "must be visible ASCII without spaces");
        } else if secret.len() < SHORTEST {
            s.element_problem(
                "tokens",
                index,
                format!("is shorter than {SHORTEST} bytes and could be guessed; generate one with `openssl rand -hex 32`"),
            );
        }
        let is_same = |other: &String| verify_slices_are_equal(other.as_bytes(), secret.as_bytes()).is_ok();
        if known.iter().any(is_same) {
            s.element_problem("tokens", index, "is also a token of another provider, or is listed twice");
        }
        known.push(secret.clone());
    }
    secrets.into_iter().map(Concealed::new).collect()
}

/// `[scim.roles]`: roles by the display names of groups.
fn roles(s: &mut Section<'_>) -> BTreeMap<String, String> {
    let mut roles = BTreeMap::new();
    for group in s.written() {
        if let Some(role) = s.required(group, units::name) {
            roles.insert(group.to_owned(), role);
        }
    }
    roles
}
