//! Checks issuers with several tables: tokens for different audiences with different rules, but one key set.

use std::sync::Arc;

use crate::config::section::Section;
use crate::config::settings::IssuerSettings;
use crate::keys;

/// Gives the tables of an issuer one shared name and one key source. `lines` are the lines on which the tables begin.
pub(super) fn share(s: &Section<'_>, issuers: &mut [IssuerSettings], lines: &[usize]) {
    for place in 0..issuers.len() {
        let (before, rest) = issuers.split_at_mut(place);
        let Some(here) = rest.first_mut().filter(|here| !here.rules.issuer.is_empty()) else { continue };
        for (other, line) in before.iter().zip(lines) {
            if let Some((key, message)) = conflict(here, other, *line) {
                s.table_problem("issuers", place, key, message);
                break;
            }
        }
        if let Some(other) = before.iter().find(|other| other.rules.issuer == here.rules.issuer) {
            here.rules.issuer = Arc::clone(&other.rules.issuer);
        }
    }
    unite_algorithms(issuers);
}

/// Returns why the gate could not tell which of two tables a token belongs to, or which keys verify it.
fn conflict(here: &IssuerSettings, other: &IssuerSettings, line: usize) -> Option<(&'static str, String)> {
    let same_issuer = here.rules.issuer == other.rules.issuer;
    if here.rules.trust_domain.is_some()
        && here.rules.trust_domain == other.rules.trust_domain
        && !same_issuer
    {
        return Some(("issuer", format!("differs from the issuer of the same trust domain on line {line}")));
    }
    if !same_issuer {
        return None;
    }
    if here.rules.trust_domain != other.rules.trust_domain {
        return Some(("issuer", format!("is used with another trust domain, or with none, on line {line}")));
    }
    if let Some(both) = here.rules.audiences.iter().find(|ours| other.rules.audiences.contains(ours)) {
        return Some((
            "audiences",
            format!(
                "{both:?} is already an audience of this issuer on line {line}: a token could belong to either table"
            ),
        ));
    }
    if here.idle_timeout != other.idle_timeout {
        let message = format!("differs from that on line {line}: an issuer has one idle timeout");
        return Some(("idle_timeout", message));
    }
    let keys = keys::Settings { algorithms: other.keys.algorithms.clone(), ..here.keys.clone() };
    (keys != other.keys).then(|| {
        let message =
            "differs in its key source or refresh settings from the table of the same issuer on line";
        ("issuer", format!("{message} {line}: one issuer has one set of keys"))
    })
}

/// Makes the one key set of an issuer serve the algorithms of all its tables; each table still accepts only its own.
fn unite_algorithms(issuers: &mut [IssuerSettings]) {
    for place in 0..issuers.len() {
        let Some(name) = issuers.get(place).map(|issuer| Arc::clone(&issuer.rules.issuer)) else { continue };
        let tables = issuers.iter().filter(|issuer| issuer.rules.issuer == name);
        let mut all = Vec::new();
        for algorithm in tables.flat_map(|issuer| &issuer.rules.algorithms) {
            if !all.contains(algorithm) {
                all.push(*algorithm);
            }
        }
        if let Some(issuer) = issuers.get_mut(place) {
            issuer.keys.algorithms = all;
        }
    }
}
