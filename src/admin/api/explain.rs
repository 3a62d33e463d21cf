//! `/v1/explain`: explains the verdict on a token under the current configuration and state.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;

use super::Api;
use crate::admin::body::read_json;
use crate::admin::problem::Problem;
use crate::enforce::decide::Asked;
use crate::enforce::explain::{Explanation, Question};
use crate::time::Now;

pub(super) fn routes() -> Router<Api> {
    Router::new().route("/v1/explain", post(explain))
}

/// A token, and the request it is shown with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ExplainInput {
    token: String,
    #[serde(default = "get")]
    method: String,
    #[serde(default = "root")]
    path: String,
    host: Option<String>,
    /// Other fields of the request; a list for one that is repeated.
    #[serde(default)]
    headers: BTreeMap<String, FieldValues>,
}

/// What a field of the request holds.
#[derive(Deserialize)]
#[serde(untagged)]
enum FieldValues {
    One(String),
    Several(Vec<String>),
}

impl FieldValues {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

fn get() -> String {
    Method::GET.to_string()
}

fn root() -> String {
    "/".to_owned()
}

async fn explain(State(api): State<Api>, request: Request) -> Result<Json<Explanation>, Problem> {
    let bad = |what| Problem::new(StatusCode::BAD_REQUEST, what);
    let asking: Option<ExplainInput> = read_json(request, &api.limits).await?;
    let ExplainInput { token, method, path, host, headers } =
        asking.ok_or_else(|| bad("the body is empty; `token` is required"))?;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_invalid| bad("`method` is not a valid HTTP method"))?;
    let fields =
        headers.iter().flat_map(|(name, values)| values.as_slice().iter().map(move |value| (name, value)));
    let fields = fields.map(|(name, value)| field(name, value)).collect::<Option<HeaderMap>>();
    let headers = fields.ok_or_else(|| bad("`headers` has an invalid header name or value"))?;
    let presented =
        Presented { token: &token, method: &method, path: &path, host: host.as_deref(), headers: &headers };
    Ok(Json(api.explain(&presented).await))
}

fn field(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}

/// A token, and the request that it is presented with.
pub(crate) struct Presented<'a> {
    pub(crate) token: &'a str,
    pub(crate) method: &'a Method,
    /// A query is allowed.
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
    /// Its other fields.
    pub(crate) headers: &'a HeaderMap,
}

impl Api {
    /// The verdict on a token, with all that was compared. Leaves no trace.
    pub(crate) async fn explain(&self, presented: &Presented<'_>) -> Explanation {
        let enforcer = self.control.enforcer.load_full();
        let &Presented { token, method, path, host, headers } = presented;
        // As the gate does before it rejects a key that it does not know, or a token that it has not seen for long.
        let mut asked = Asked::NOTHING;
        loop {
            let (token, now) = (token.trim(), Now::read());
            let question = Question { token, method, path, host, headers, now, stateless: None, asked };
            let explanation = enforcer.explain(&question);
            let Some(ask) = &explanation.ask else { return explanation };
            asked = enforcer.find_out(ask, asked).await;
        }
    }
}
