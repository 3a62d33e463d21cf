//! Compiles the browser settings of `[[routes]]`: `origins` and `[routes.cors]`.

use http::{HeaderName, Method};

use crate::config::section::Section;
use crate::config::values::Zero;
use crate::enforce::policy::{CorsOrigins, CorsSettings, WebOrigin};

/// The allowed origins of requests.
pub(super) fn origins(s: &mut Section<'_>) -> Vec<WebOrigin> {
    s.list("origins", &[], |text| match text {
        "*" => Err("\"*\" is not an origin; remove origins to allow every origin".to_owned()),
        text => WebOrigin::parse(text),
    })
}

/// `[routes.cors]` of a route that accepts these methods.
pub(super) fn cors(s: &mut Section<'_>, of_route: &[Method]) -> CorsSettings {
    let origins = s.list("origins", &[], |text| match text {
        "*" => Ok(None),
        text => WebOrigin::parse(text).map(Some),
    });
    let methods = s.list("methods", &[], super::routes::method);
    let are_sound = s.is_sound("methods") && !of_route.is_empty();
    for (index, method) in methods.iter().enumerate().filter(|_| are_sound) {
        if !of_route.contains(method) {
            s.element_problem("methods", index, format!("the route does not accept {method}"));
        }
    }
    let settings = CorsSettings {
        origins: allowed(s, &origins),
        methods,
        headers: s.list("headers", &["authorization", "content-type"], field),
        expose: s.list("expose", &["www-authenticate", "x-request-id"], field),
        credentials: s.flag("credentials", false),
        max_age: s.duration("max_age", "10m", Zero::Allowed),
    };
    if settings.max_age.subsec_nanos() > 0 {
        s.problem("max_age", "must be whole seconds");
    }
    if settings.credentials && s.is_sound("origins") {
        credentials(s, &settings.origins);
    }
    settings
}

fn allowed(s: &Section<'_>, origins: &[Option<WebOrigin>]) -> CorsOrigins {
    if origins.iter().all(Option::is_some) {
        return CorsOrigins::Listed(origins.iter().flatten().cloned().collect());
    }
    if origins.len() > 1 {
        s.problem("origins", "\"*\" means every origin; remove the others");
    }
    CorsOrigins::Any
}

/// Checks that credentials are not allowed to every origin (Fetch §3.2.5): any page could use them.
fn credentials(s: &Section<'_>, origins: &CorsOrigins) {
    match origins {
        CorsOrigins::Any => s.problem(
            "credentials",
            "cannot be true if origins is \"*\": any page could use the cookies of its visitors; list the origins",
        ),
        CorsOrigins::Listed(listed) if listed.iter().any(WebOrigin::is_null) => s.problem(
            "credentials",
            "cannot be true if origins contains \"null\", which any page can use as its origin",
        ),
        CorsOrigins::Listed(_) => {}
    }
}

/// Parses a header name. `*` is a valid one, but means less than it seems to: it never covers `Authorization`.
fn field(text: &str) -> Result<HeaderName, String> {
    match text.parse::<HeaderName>() {
        Ok(name) if name != "*" => Ok(name),
        Ok(_) => Err("\"*\" does not cover every header (never Authorization); list the headers".to_owned()),
        Err(_) => Err(format!("{text:?} is not a valid header name (letters, digits and `-`)")),
    }
}
