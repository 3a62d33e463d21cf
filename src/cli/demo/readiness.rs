//! Asks the demo's gate at `/ready` whether it is ready, and what it is waiting for.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Map, Value};

/// The timeout for a response.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often in a row to ask before reporting what the gate is waiting for: most starts need a few attempts.
const QUIETLY: usize = 50;

/// Asks a gate whether it is ready.
#[derive(Debug)]
pub(super) struct Readiness {
    telemetry: SocketAddr,
    asked: usize,
    waits_for: String,
    said: String,
}

impl Readiness {
    pub(super) fn of(telemetry: SocketAddr) -> Self {
        Self { telemetry, asked: 0, waits_for: String::new(), said: String::new() }
    }

    /// Asks once. A gate that does not respond yet is not ready.
    pub(super) fn is_ready(&mut self) -> bool {
        self.asked += 1;
        let Ok(answer) = ask(self.telemetry) else { return false };
        self.waits_for = waits_for(&answer).unwrap_or_default();
        answer.get("ready") == Some(&Value::Bool(true))
    }

    /// Returns what the gate is waiting for, if that takes long and has not been returned before.
    pub(super) fn news(&mut self) -> Option<&str> {
        if self.asked < QUIETLY || self.waits_for == self.said {
            return None;
        }
        self.said.clone_from(&self.waits_for);
        Some(&self.said)
    }
}

fn ask(telemetry: SocketAddr) -> io::Result<Value> {
    let mut stream = TcpStream::connect_timeout(&telemetry, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
    Ok(serde_json::from_str(body)?)
}

/// The components that are not ready, each with the reason.
fn waits_for(answer: &Value) -> Option<String> {
    let components: &Map<String, Value> = answer.get("components")?.as_object()?;
    let missing = components.iter().filter(|(_, condition)| *condition != "ok");
    let missing: Vec<String> = missing
        .map(|(name, condition)| format!("{name}: {}", condition.as_str().unwrap_or_default()))
        .collect();
    Some(missing.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn components_that_are_not_ready_are_named_with_the_reason() {
        for (answer, expected) in [
            (json!({"ready": true, "components": {"gate": "ok", "state": "ok"}}), Some("")),
            (
                json!({"ready": false, "components": {"gate": "ok", "keys:https://a/": "never loaded: refused", "state": "stale"}}),
                Some("keys:https://a/: never loaded: refused; state: stale"),
            ),
            (json!({}), None),
        ] {
            assert_eq!(waits_for(&answer).as_deref(), expected, "{answer}");
        }
    }

    #[test]
    fn the_visitor_hears_once_what_the_gate_waits_for_and_only_when_it_takes_long() {
        let mut readiness = Readiness::of(SocketAddr::from(([127, 0, 0, 1], 9)));
        readiness.waits_for = "keys".to_owned();
        assert_eq!(readiness.news(), None);
        readiness.asked = QUIETLY;
        assert_eq!(readiness.news(), Some("keys"));
        assert_eq!(readiness.news(), None);
        readiness.waits_for = "state".to_owned();
        assert_eq!(readiness.news(), Some("state"));
    }
}
