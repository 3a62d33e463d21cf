//! Compiles `[admin]`, the listener for operators.

use std::net::SocketAddr;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use super::{address, server, unique};
use crate::admin::{Permission, Settings, Token};
use crate::config::section::Section;
use crate::config::{describe, units};

/// The shortest allowed secret of an admin token, in bytes.
const SHORTEST: usize = 16;

/// The permissions of admin tokens.
const PERMISSIONS: [(&str, Permission); 5] = [
    ("events", Permission::Events),
    ("signals", Permission::Signals),
    ("sessions", Permission::Sessions),
    ("authority", Permission::Authority),
    ("config", Permission::Config),
];

/// `[admin]`.
pub(super) fn admin(s: &mut Section<'_>, taken: &mut Vec<SocketAddr>) -> Settings {
    let default = SocketAddr::from(([127, 0, 0, 1], 9443));
    let listen = s.parsed("listen", &default.to_string(), |text| address(text, taken)).unwrap_or(default);
    s.narrow("listen", describe::address);
    let tls = s.optional_table("tls", server::tls);
    if tls.is_none() && !listen.ip().is_loopback() {
        s.problem(
            "listen",
            format!("{listen} is not a loopback address: add [admin.tls], or listen on 127.0.0.1"),
        );
    }
    Settings { listen, tls, tokens: tokens(s) }
}

fn tokens(s: &mut Section<'_>) -> Vec<Token> {
    let (mut names, mut secrets) = (Vec::new(), Vec::new());
    s.tables("tokens", |s| {
        let name = s.required("name", units::name).unwrap_or_default();
        unique(s, "name", &name, &mut names);
        let secret = s.required_secret("secret");
        // RFC 6750 §2.1: other characters cannot be sent in `Authorization: Bearer`.
        if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
            s.problem("secret", "must be visible ASCII without spaces");
        }
        if !secret.is_empty() && secret.len() < SHORTEST {
            s.problem("secret", format!("is shorter than {SHORTEST} bytes and could be guessed; generate one with `openssl rand -hex 32`"));
        }
        let is_same = |other: &String| verify_slices_are_equal(other.as_bytes(), secret.as_bytes()).is_ok();
        if secrets.iter().any(is_same) && !secret.is_empty() {
            s.problem("secret", "is also the secret of another admin token");
        }
        secrets.push(secret.clone());
        Token { name, secret, permissions: s.words("permissions", &PERMISSIONS) }
    })
}
