//! `/v1/explain`: the verdict on a token against what is in force now.

use axum::extract::{Request, State};
use axum::routing::post;
use axum::{Json, Router};
use http::{Method, StatusCode};
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
    let ExplainInput { token, method, path, host } =
        asking.ok_or_else(|| bad("the body is empty; it needs `token`"))?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_invalid| bad("`method` is no method"))?;
    let presented = Presented { token: &token, method: &method, path: &path, host: host.as_deref() };
    Ok(Json(api.explain(&presented).await))
}

/// A token, and the request that it is presented with.
pub(crate) struct Presented<'a> {
    pub(crate) token: &'a str,
    pub(crate) method: &'a Method,
    /// A query is allowed.
    pub(crate) path: &'a str,
    pub(crate) host: Option<&'a str>,
}

impl Api {
    /// The verdict on a token, with all that was compared. Leaves no trace.
    pub(crate) async fn explain(&self, presented: &Presented<'_>) -> Explanation {
        let enforcer = self.control.enforcer.load_full();
        let &Presented { token, method, path, host } = presented;
        // As the gate does before it rejects a key that it does not know, or a token that it has not seen for long.
        let mut asked = Asked::NOTHING;
        loop {
            let (token, now) = (token.trim(), Now::read());
            let question = Question { token, method, path, host, now, stateless: None, asked };
            let explanation = enforcer.explain(&question);
            let Some(ask) = &explanation.ask else { return explanation };
            asked = enforcer.find_out(ask, asked).await;
        }
    }
}
