//! What an operator does with a running gate, and learns from it: events, lists, verdicts.

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::settings::ADMIN_TOKEN;
use crate::wire::{Answer, Wire};

/// A call of the admin API, as bytes.
pub fn admin_call(method: &str, target: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "{method} {target} HTTP/1.1\r\nHost: admin\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
}

impl Gate {
    /// Calls the admin API.
    pub fn operate(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string).unwrap_or_default();
        Wire::plain(self.admin).exchange(admin_call(method, target, &body)).unwrap()
    }

    /// Publishes one or several events; they are in force when this returns.
    pub fn publish(&self, event: &Value) -> Value {
        let answer = self.operate("POST", "/v1/events", Some(event));
        assert_eq!(answer.status(), 202, "{}", answer.text());
        answer.json()
    }

    /// The items of a list.
    pub fn list(&self, target: &str) -> Vec<Value> {
        let answer = self.operate("GET", target, None);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        answer.json()["items"].as_array().unwrap().clone()
    }

    /// The gate's verdict on a token, without leaving a trace: `allowed`, or the reason for the denial.
    pub fn would_say(&self, token: &str) -> String {
        let question = json!({"token": token, "method": "GET", "path": "/anything"});
        let answer = self.operate("POST", "/v1/explain", Some(&question)).json();
        answer["reason"].as_str().unwrap_or("allowed").to_owned()
    }

    /// The reason for which the gate rejects this token.
    pub fn reason(&self, token: &str) -> String {
        let (_, decision) = self.decision(|| self.get("/anything").token(token).send());
        decision.strip_prefix("deny/").unwrap_or(&decision).to_owned()
    }

    /// How many streams were ended for this reason.
    pub fn cuts(&self, reason: &str) -> f64 {
        self.metrics().sum("portcullis_streams_cut_total", &[("reason", reason)])
    }
}
