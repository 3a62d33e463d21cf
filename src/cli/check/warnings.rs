//! The warnings of `check`: issuers whose tokens strangers can obtain while routes require nothing of them, and conditions that
//! match more than they seem to.

use crate::config::{IssuerSettings, Settings};
use crate::enforce::conditions::{ClaimCondition, ClaimTest, ClaimValue, SEGMENT_ENDS};
use crate::enforce::policy::{Requirement, RouteSettings};
use crate::keys::KeySource;

/// Issuers whose tokens many strangers can obtain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WorkloadIssuer {
    GitHub,
    GitLab,
    Kubernetes,
    Spiffe,
}

/// All of them, in the order of the file.
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
    // Where several issuers are configured, a route's condition may be about any of them.
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

/// Whether the keys are those of an API server.
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

/// What a condition matches that its author may not have intended.
fn loose(place: &str, condition: &ClaimCondition, kind: Option<WorkloadIssuer>) -> Vec<String> {
    let claim = &condition.claim;
    let mut found = Vec::new();
    for test in &condition.tests {
        if let ClaimTest::Prefix(prefix) = test
            && !prefix.ends_with(SEGMENT_ENDS)
            // It separates a name from its number in subjects of GitHub, and is in no name.
            && !prefix.ends_with('@')
        {
            found.push(format!(
                "{place}: the prefix {prefix:?} of {claim} ends inside a segment, so \"{prefix}-evil\" fits as well; end it with / or :"
            ));
        }
        if kind == Some(WorkloadIssuer::GitHub) && claim.to_string() == "sub" && fits_pull_requests(test) {
            found.push(format!(
                "{place}: the condition on sub also fits jobs of pull requests, whose code nobody needs to have reviewed; name a branch or an environment"
            ));
        }
    }
    found
}

/// Whether the subject of a pull request's job passes.
fn fits_pull_requests(test: &ClaimTest) -> bool {
    const PULL_REQUEST: &str = "pull_request";
    let is_of_one = |value: &ClaimValue| matches!(value, ClaimValue::Text(text) if text.split(':').next_back() == Some(PULL_REQUEST));
    match test {
        ClaimTest::Equals(value) => is_of_one(value),
        ClaimTest::In(values) => values.iter().any(is_of_one),
        // After `repo:owner/name:` comes what the job is for.
        ClaimTest::Prefix(prefix) => {
            prefix.splitn(3, ':').nth(2).is_none_or(|rest| PULL_REQUEST.starts_with(rest))
        }
        ClaimTest::Glob(glob) => {
            glob.pattern().split(':').next_back().is_some_and(|last| last == "*" || last == PULL_REQUEST)
        }
        ClaimTest::Exists(_) | ClaimTest::AtLeast(_) | ClaimTest::AtMost(_) => false,
    }
}
