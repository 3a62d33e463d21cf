//! The `WWW-Authenticate` fields of a denial (RFC 9110 §11.6.1, RFC 6750 §3, RFC 9449 §7.1).

use http::{HeaderValue, StatusCode};

use crate::enforce::bearer::TokenScheme;
use crate::enforce::denial::{Challenge, Denial, Reason};
use crate::enforce::dpop::{ALGORITHMS, ProofFault};
use crate::enforce::policy::{Authentication, Route};

/// The challenges of a denial; empty if another token would not help. `route` is the one that matched.
pub(super) fn challenges(denial: &Denial, route: Option<&Route>) -> Vec<HeaderValue> {
    let wire = denial.reason.wire();
    let schemes: &[TokenScheme] = match (wire.challenge, scheme(denial)) {
        (Challenge::None, _) => &[],
        (Challenge::Bare, _) if denial.possession.takes_dpop => &[TokenScheme::Bearer, TokenScheme::Dpop],
        (Challenge::Bare, _) | (Challenge::Error, TokenScheme::Bearer) => &[TokenScheme::Bearer],
        (Challenge::Error, TokenScheme::Dpop) => &[TokenScheme::Dpop],
    };
    schemes.iter().filter_map(|scheme| challenge(*scheme, denial, route)).collect()
}

fn challenge(scheme: TokenScheme, denial: &Denial, route: Option<&Route>) -> Option<HeaderValue> {
    let wire = denial.reason.wire();
    let mut text = ChallengeText::new(scheme);
    if wire.challenge == Challenge::Error {
        text.with("error", wire.error).with("error_description", description(denial));
        if denial.reason == Reason::InsufficientAuthentication
            && let Some(route) = route
        {
            step_up(&mut text, &route.settings().authentication);
        }
    }
    // For a malformed request, the requirements of the resource are of no use.
    let asks_for_token = matches!(wire.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let of_resource = route.filter(|route| asks_for_token && route.resource_metadata().is_some());
    if let Some(scope) = denial.scope.as_ref().or(of_resource.and_then(Route::scope)) {
        text.with("scope", scope);
    }
    if let Some(url) = of_resource.and_then(Route::resource_metadata) {
        text.with("resource_metadata", url);
    }
    if scheme == TokenScheme::Dpop {
        text.with("algs", &ALGORITHMS.join(" "));
    }
    text.into_value()
}

/// The description for the client.
pub(super) fn description(denial: &Denial) -> &'static str {
    denial.possession.fault.map_or(denial.reason.wire().description, ProofFault::description)
}

/// The scheme of the request; DPoP also for a token that needs a proof.
fn scheme(denial: &Denial) -> TokenScheme {
    match denial.reason {
        Reason::BadProof | Reason::NonceRequired | Reason::UnprovenToken => TokenScheme::Dpop,
        _ => denial.possession.scheme,
    }
}

/// Adds the required authentication (RFC 9470 §3).
fn step_up(challenge: &mut ChallengeText, needed: &Authentication) {
    if !needed.acr_values.is_empty() {
        challenge.with("acr_values", &needed.acr_values.join(" "));
    }
    if let Some(most) = needed.max_age {
        challenge.with("max_age", &most.as_secs().to_string());
    }
}

/// A challenge under construction.
struct ChallengeText(String);

impl ChallengeText {
    fn new(scheme: TokenScheme) -> Self {
        let scheme = match scheme {
            TokenScheme::Bearer => "Bearer",
            TokenScheme::Dpop => "DPoP",
        };
        Self(format!(r#"{scheme} realm="portcullis""#))
    }

    /// Adds a parameter, unless its value cannot be written in a quoted string without escapes.
    fn with(&mut self, name: &str, value: &str) -> &mut Self {
        let is_writable = |byte: u8| matches!(byte, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        if value.bytes().all(is_writable) {
            self.0.extend([", ", name, "=\"", value, "\""]);
        }
        self
    }

    fn into_value(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.0).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::enforce::dpop::PossessionDenial;
    use crate::enforce::policy::{Requirement, RouteSettings};
    use crate::enforce::resource::Resource;
    use crate::enforce::router::Router;

    #[test]
    fn each_refusal_names_the_schemes_that_would_help() {
        use TokenScheme::{Bearer, Dpop};
        const BEARER: &str = r#"Bearer realm="portcullis""#;
        const DPOP: &str = r#"DPoP realm="portcullis""#;
        let algorithms = format!(r#", algs="{}""#, ALGORITHMS.join(" "));
        // The scheme of the request, whether DPoP is accepted, and the schemes of the challenges.
        for (reason, sent, takes_dpop, expected) in [
            (Reason::Missing, Bearer, false, &[BEARER][..]),
            (Reason::Missing, Bearer, true, &[BEARER, DPOP]),
            (Reason::Missing, Dpop, false, &[BEARER]),
            (Reason::Expired, Bearer, false, &[BEARER]),
            (Reason::Expired, Bearer, true, &[BEARER]),
            (Reason::Expired, Dpop, true, &[DPOP]),
            (Reason::BadProof, Bearer, true, &[DPOP]),
            (Reason::NonceRequired, Bearer, true, &[DPOP]),
            (Reason::UnprovenToken, Bearer, true, &[DPOP]),
            (Reason::UnprovenToken, Dpop, false, &[DPOP]),
            (Reason::InsufficientScope, Bearer, true, &[BEARER]),
            (Reason::KeysUnavailable, Bearer, true, &[]),
            (Reason::NoRoute, Dpop, true, &[]),
        ] {
            let mut denial = Denial::from(reason);
            denial.possession = PossessionDenial { scheme: sent, takes_dpop, ..Default::default() };
            denial.scope = Some("read:deals write:deals".into());
            let wire = reason.wire();
            let error = match wire.challenge {
                Challenge::Error => {
                    format!(r#", error="{}", error_description="{}""#, wire.error, wire.description)
                }
                Challenge::Bare | Challenge::None => String::new(),
            };
            let algorithms = |scheme: &str| if scheme == DPOP { algorithms.clone() } else { String::new() };
            let whole = |scheme: &&str| {
                format!(r#"{scheme}{error}, scope="read:deals write:deals"{}"#, algorithms(scheme))
            };
            let expected: Vec<String> = expected.iter().map(whole).collect();
            assert_eq!(challenges(&denial, None), expected, "{reason:?} {sent:?} {takes_dpop}");
            denial.scope = None;
            let without = |text: String| text.replace(r#", scope="read:deals write:deals""#, "");
            let expected: Vec<String> = expected.into_iter().map(without).collect();
            assert_eq!(challenges(&denial, None), expected, "{reason:?} {sent:?} {takes_dpop}");
        }
    }

    #[test]
    fn who_needs_a_token_learns_where_the_resource_says_which() {
        let resource = Resource {
            path: "/a".to_owned(),
            url: "https://api.example/a".to_owned(),
            ..Resource::default()
        };
        let requirement = Requirement { scopes: vec!["read".to_owned()], ..Requirement::default() };
        let needed =
            Authentication { acr_values: vec!["gold".to_owned()], max_age: Some(Duration::from_secs(60)) };
        let route = |resource: Option<Resource>| {
            let settings = RouteSettings {
                path: "/a".into(),
                resource: resource.map(Arc::new),
                requirement: requirement.clone(),
                authentication: needed.clone(),
                ..RouteSettings::default()
            };
            Arc::clone(Router::new(vec![settings]).unwrap().routes().first().unwrap())
        };
        let (with, without) = (route(Some(resource)), route(None));
        const OF_RESOURCE: &str = r#", scope="read", resource_metadata="https://api.example/.well-known/oauth-protected-resource/a""#;
        const STEP_UP: &str = r#", acr_values="gold", max_age="60""#;
        for (reason, step_up, of_resource) in [
            (Reason::Missing, "", OF_RESOURCE),
            (Reason::Expired, "", OF_RESOURCE),
            (Reason::InsufficientScope, "", OF_RESOURCE),
            (Reason::InsufficientAuthentication, STEP_UP, OF_RESOURCE),
            (Reason::Malformed, "", ""),
        ] {
            let rest = |route: Option<&Route>| {
                let said = |route| challenges(&Denial::from(reason), route);
                let (plain, of_route) = (said(None), said(route));
                let [plain, of_route] = [&plain, &of_route].map(|one| one.first().unwrap().to_str().unwrap());
                of_route.strip_prefix(plain).unwrap().to_owned()
            };
            assert_eq!(rest(Some(&with)), format!("{step_up}{of_resource}"), "{reason:?}");
            assert_eq!(rest(Some(&without)), step_up, "{reason:?}");
        }
    }

    #[test]
    fn a_fault_of_the_proof_is_described_in_place_of_the_reason() {
        let mut denial = Denial::from(Reason::BadProof);
        assert_eq!(description(&denial), Reason::BadProof.wire().description);
        denial.possession.fault = Some(ProofFault::Replayed);
        assert_eq!(description(&denial), ProofFault::Replayed.description());
        assert_ne!(ProofFault::Replayed.description(), Reason::BadProof.wire().description);
    }

    #[test]
    fn a_value_that_cannot_be_quoted_is_left_out() {
        for (value, is_written) in [
            ("", true),
            (" !#[]~", true),
            ("a\"b", false),
            ("a\\b", false),
            ("a\tb", false),
            ("a\u{1f}b", false),
            ("a\u{7f}b", false),
            ("é", false),
        ] {
            let mut text = ChallengeText::new(TokenScheme::Bearer);
            let written = text.with("scope", value).0.contains("scope");
            assert_eq!(written, is_written, "{value:?}");
        }
    }
}
