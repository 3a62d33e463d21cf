//! A visitor of the console, without a browser: signs in, loads pages, submits their forms, watches a stream.

use crate::gate::Gate;
use crate::wire::{Answer, Wire};

/// A signed-in visitor.
pub struct Visitor<'a> {
    gate: &'a Gate,
    cookie: String,
}

impl Gate {
    /// Signs in with an admin token.
    pub fn sign_in(&self, token: &str) -> Visitor<'_> {
        let visitor = Visitor { gate: self, cookie: String::new() };
        let answer = visitor.send("/console/sign-in", &encoded(&[("token", token)]));
        assert_eq!(answer.status(), 303, "{}", answer.text());
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap().to_owned();
        Visitor { gate: self, cookie }
    }
}

impl Visitor<'_> {
    /// Loads a page.
    pub fn page(&self, target: &str) -> Answer {
        Wire::plain(self.gate.admin).exchange(self.get(target)).unwrap()
    }

    /// Fills in a form of a page and submits it.
    pub fn submit(&self, target: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.page(target).text();
        let csrf = page.split("name=\"csrf\" value=\"").nth(1).expect("a form").split('"').next().unwrap();
        self.send(target, &encoded(&[fields, &[("csrf", csrf)]].concat()))
    }

    /// Opens a stream of events.
    pub fn watch(&self, target: &str) -> EventStream {
        let mut wire = Wire::plain(self.gate.admin);
        wire.send(self.get(target)).unwrap();
        let status = wire.head().unwrap().status;
        EventStream { status, has_ended: false, wire }
    }

    fn get(&self, target: &str) -> String {
        format!("GET {target} HTTP/1.1\r\nHost: admin\r\nCookie: {}\r\n\r\n", self.cookie)
    }

    fn send(&self, target: &str, form: &str) -> Answer {
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: admin\r\nCookie: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            self.cookie,
            form.len()
        );
        Wire::plain(self.gate.admin).exchange(request).unwrap()
    }
}

/// A stream of server-sent events.
pub struct EventStream {
    /// The status of its response.
    pub status: u16,
    has_ended: bool,
    wire: Wire,
}

impl EventStream {
    /// The next event: its name and its data; `None` once the stream has ended.
    pub fn event(&mut self) -> Option<(String, String)> {
        while !self.has_ended {
            let Some(chunk) = self.wire.chunk().unwrap() else {
                self.has_ended = true;
                break;
            };
            let text = String::from_utf8(chunk).unwrap();
            let field =
                |name: &str| text.lines().filter_map(|line| line.strip_prefix(name)).collect::<Vec<_>>();
            if let [name] = field("event: ")[..] {
                return Some((name.to_owned(), field("data: ").join("\n")));
            }
        }
        None
    }
}

/// Encodes fields as a form does.
fn encoded(fields: &[(&str, &str)]) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let text = |text: &str| text.bytes().map(byte).collect::<String>();
    fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value))).collect::<Vec<_>>().join("&")
}
