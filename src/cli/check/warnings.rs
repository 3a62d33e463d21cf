//! The warnings of `check`: issuers from which strangers can obtain tokens while routes require nothing else,
//! and conditions that match more than they seem to.

use crate::config::{IssuerSettings, Settings};
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue, SEGMENT_ENDS};
use crate::enforce::policy::{Requirement, RouteSettings};
use crate::keys::KeySource;

/// Issuers from which many strangers can obtain tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkloadIssuer {
    GitHub,
    GitLab,
    Kubernetes,
    Spiffe,
}

/// Returns all warnings, in the order of the file.
pub(super) fn warnings(settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    for issuer in &settings.issuers {
        let name = &issuer.rules.issuer;
        let kind = WorkloadIssuer::of(issuer);
        if let Some(kind) = kind.filter(|_| is_open(issuer, &settings.enforce.routes)) {
            let (who, example) = kind.described();
            warnings.push(format!(
                "issuer {name}: {who} can request a token with your audience, and is accepted; add conditions = {{ {example} = … }}, or claims to every route"
            ));
        }
        let place = format!("issuer {name}");
        warnings.extend(issuer.rules.conditions.iter().flat_map(|condition| loose(&place, condition, kind)));
    }
    // With several issuers, it is unknown which one a route's condition is meant for.
    let github =
        settings.issuers.iter().filter_map(WorkloadIssuer::of).find(|kind| *kind == WorkloadIssuer::GitHub);
    for route in &settings.enforce.routes {
        let place = format!("route {}", route.path);
        let conditions = requirements(route).flat_map(|requirement| &requirement.claims);
        warnings.extend(conditions.flat_map(|condition| loose(&place, condition, github)));
    }
    warnings
}

impl WorkloadIssuer {
    fn of(issuer: &IssuerSettings) -> Option<Self> {
        let name = &*issuer.rules.issuer;
        let host =
            name.strip_prefix("https://").and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
        let is_cluster = is_api_server(&issuer.keys.source)
            || host.starts_with("kubernetes.default.svc")
            || host.starts_with("oidc.eks.")
            || host == "container.googleapis.com";
        if issuer.rules.trust_domain.is_some() {
            Some(Self::Spiffe)
        } else if is_cluster {
            Some(Self::Kubernetes)
        } else if host == "token.actions.githubusercontent.com" || name.ends_with("/_services/token") {
            Some(Self::GitHub)
        } else if host.split('.').any(|label| label == "gitlab") {
            Some(Self::GitLab)
        } else {
            None
        }
    }

    /// Who is accepted without a condition, and a claim to require.
    const fn described(self) -> (&'static str, &'static str) {
        match self {
            Self::GitHub => ("any workflow on GitHub", "repository_id"),
            Self::GitLab => ("any job of that GitLab", "project_id"),
            Self::Kubernetes => ("any pod of the cluster", "\"/kubernetes.io/namespace\""),
            Self::Spiffe => ("any workload of the trust domain", "sub"),
        }
    }
}

/// Whether the keys come from a Kubernetes API server.
fn is_api_server(source: &KeySource) -> bool {
    matches!(source, KeySource::Url(url) if url.ends_with("/openid/v1/jwks"))
}

/// Whether a route accepts tokens of the issuer whatever their claims.
fn is_open(issuer: &IssuerSettings, routes: &[RouteSettings]) -> bool {
    let takes = |route: &&RouteSettings| {
        !route.anonymous && (route.issuers.is_empty() || route.issuers.contains(&issuer.rules.issuer))
    };
    let is_narrow = |conditions: &[ClaimCondition]| {
        conditions
            .iter()
            .flat_map(|condition| &condition.tests)
            .any(|test| !matches!(test, ClaimTest::Exists(_)))
    };
    let is_narrow_route = |route: &RouteSettings| {
        is_narrow(&route.requirement.claims)
            || (!route.allow.is_empty() && route.allow.iter().all(|one| is_narrow(&one.claims)))
    };
    !is_narrow(&issuer.rules.conditions) && routes.iter().filter(takes).any(|route| !is_narrow_route(route))
}

fn requirements(route: &RouteSettings) -> impl Iterator<Item = &Requirement> {
    std::iter::once(&route.requirement).chain(&route.allow)
}

/// Describes what a condition matches that its author may not have intended.
fn loose(place: &str, condition: &ClaimCondition, kind: Option<WorkloadIssuer>) -> Vec<String> {
    let claim = &condition.claim;
    let mut found = Vec::new();
    for test in &condition.tests {
        if let ClaimTest::Prefix(prefix) = test
            && !prefix.ends_with(SEGMENT_ENDS)
            // In subjects of GitHub, `@` separates a name from its number; no name contains it.
            && !prefix.ends_with('@')
        {
            found.push(format!(
                "{place}: the prefix {prefix:?} of {claim} ends inside a segment, so it also matches \"{prefix}-evil\"; end it with / or :"
            ));
        }
        if kind == Some(WorkloadIssuer::GitHub) && claim.to_string() == "sub" && fits_pull_requests(test) {
            found.push(format!(
                "{place}: the condition on sub also matches jobs of pull requests, whose code may not have been reviewed; name a branch or an environment"
            ));
        }
    }
    found
}

/// Whether a test matches the subject of a pull request's job.
fn fits_pull_requests(test: &ClaimTest) -> bool {
    const PULL_REQUEST: &str = "pull_request";
    let is_of_one = |value: &ClaimValue| matches!(value, ClaimValue::Text(text) if text.split(':').next_back() == Some(PULL_REQUEST));
    match test {
        ClaimTest::Equals(value) => is_of_one(value),
        ClaimTest::In(values) => values.iter().any(is_of_one),
        // What the job is for follows after `repo:owner/name:`.
        ClaimTest::Prefix(prefix) => {
            prefix.splitn(3, ':').nth(2).is_none_or(|rest| PULL_REQUEST.starts_with(rest))
        }
        ClaimTest::Glob(glob) => {
            glob.pattern().split(':').next_back().is_some_and(|last| last == "*" || last == PULL_REQUEST)
        }
        ClaimTest::Exists(_) | ClaimTest::AtLeast(_) | ClaimTest::AtMost(_) => false,
    }
}
