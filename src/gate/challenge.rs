//! The `WWW-Authenticate` fields of a refusal (RFC 9110 §11.6.1, RFC 6750 §3).

use http::{HeaderValue, StatusCode};

use crate::enforce::denial::{Challenge, Denial, Reason};
use crate::enforce::policy::{Authentication, Route};

/// The challenges of a denial; none where another token would not help. `route`: the one that matched.
pub(super) fn challenges(denial: &Denial, route: Option<&Route>) -> Vec<HeaderValue> {
    let wire = denial.reason.wire();
    let mut bearer = ChallengeText::bearer();
    match wire.challenge {
        Challenge::None => return Vec::new(),
        Challenge::Bare => {}
        Challenge::Error => {
            bearer.with("error", wire.error).with("error_description", wire.description);
            if denial.reason == Reason::InsufficientAuthentication
                && let Some(route) = route
            {
                step_up(&mut bearer, &route.settings().authentication);
            }
        }
    }
    // To a request that is malformed it is no use to know what the resource asks for.
    let asks_for_token = matches!(wire.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
    let of_resource = route.filter(|route| asks_for_token && route.resource_metadata().is_some());
    if let Some(scope) = denial.scope.as_ref().or(of_resource.and_then(Route::scope)) {
        bearer.with("scope", scope);
    }
    if let Some(url) = of_resource.and_then(Route::resource_metadata) {
        bearer.with("resource_metadata", url);
    }
    bearer.into_value().into_iter().collect()
}

/// What authentication is needed (RFC 9470 §3).
fn step_up(challenge: &mut ChallengeText, needed: &Authentication) {
    if !needed.acr_values.is_empty() {
        challenge.with("acr_values", &needed.acr_values.join(" "));
    }
    if let Some(most) = needed.max_age {
        challenge.with("max_age", &most.as_secs().to_string());
    }
}

/// One challenge in the making.
struct ChallengeText(String);

impl ChallengeText {
    fn bearer() -> Self {
        Self(r#"Bearer realm="portcullis""#.to_owned())
    }

    /// Adds a parameter. A value that cannot be written in a quoted string as it is, is left out.
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
