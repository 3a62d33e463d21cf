//! The console's pages of events, revocations, sessions and usage: who sees them, what they change, and what they show.

use serde_json::{Value, json};

use testkit::app::{App, Speaks};
use testkit::eventually;
use testkit::gate::Gate;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::Issuer;
use testkit::wire::{Answer, Wire};

/// Admin tokens with one permission each.
const EVENTS: &str = "a-token-that-may-do-events-only-0123456789";
const SESSIONS: &str = "a-token-that-may-do-sessions-only-0123456";
const HOSTILE: &str = "<script>alert(1)";

/// A gate in front of an application.
struct Desk {
    gate: Gate,
    issuer: Issuer,
    _app: App,
}

impl Desk {
    fn start() -> Self {
        Self::of(Issuer::new(), "")
    }

    fn of(issuer: Issuer, more: &str) -> Self {
        let app = App::start(Speaks::Http1);
        let admin_token = |name: &str, secret: &str| {
            format!(
                "[[admin.tokens]]\nname = \"{name}\"\nsecret = \"{secret}\"\npermissions = [\"{name}\"]\n"
            )
        };
        let settings = Settings::plaintext()
            .guarding(&app.url(), &issuer)
            .admin()
            .toml(&admin_token("events", EVENTS))
            .toml(&admin_token("sessions", SESSIONS))
            .toml(more);
        Self { gate: Gate::start(&settings), issuer, _app: app }
    }

    /// A token in use.
    fn used(&self, subject: &str, client: &str) -> String {
        let token = self.issuer.token().claim("sub", subject).claim("client_id", client).build();
        assert_eq!(self.status(&token), 200);
        token
    }

    fn status(&self, token: &str) -> u16 {
        self.gate.get("/anything").token(token).send().status()
    }

    fn ask(&self, method: &str, path: &str, fields: &str, form: &str) -> Answer {
        let length = if method == "POST" {
            let length = form.len();
            format!("content-type: application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n")
        } else {
            String::new()
        };
        let request = format!("{method} {path} HTTP/1.1\r\nhost: gate\r\n{fields}{length}\r\n{form}");
        Wire::plain(self.gate.admin).exchange(request).unwrap()
    }

    #[track_caller]
    fn sign_in(&self, token: &str) -> Visit<'_> {
        let answer = self.ask("POST", "/console/sign-in", "", &format!("token={token}"));
        assert_eq!(answer.status(), 303, "{}", answer.text());
        let cookie = answer.field("set-cookie").unwrap().split(';').next().unwrap();
        let mut visit = Visit { desk: self, cookie: format!("cookie: {cookie}\r\n"), csrf: String::new() };
        let page = [("/console/events", EVENTS), ("/console/sessions", SESSIONS)];
        let page = page.iter().find(|(_, of)| *of == token).map_or("/console/events", |(page, _)| page);
        visit.csrf = between(&visit.page(page), "name=\"csrf\" value=\"", "\"").to_owned();
        visit
    }
}

/// A signed-in visitor.
struct Visit<'a> {
    desk: &'a Desk,
    cookie: String,
    csrf: String,
}

impl Visit<'_> {
    fn get(&self, path: &str) -> Answer {
        self.desk.ask("GET", path, &self.cookie, "")
    }

    #[track_caller]
    fn page(&self, path: &str) -> String {
        let answer = self.get(path);
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        answer.text()
    }

    fn post(&self, path: &str, form: &str) -> Answer {
        self.desk.ask("POST", path, &self.cookie, &format!("csrf={}&{form}", self.csrf))
    }

    /// Every page of a list, from the first; at most ten.
    fn pages(&self, path: &str) -> Vec<String> {
        let (mut next, mut pages) = (Some(path.to_owned()), Vec::new());
        while let Some(path) = next.filter(|_| pages.len() < 10) {
            let page = self.page(&path);
            let link =
                page.split("href=\"").find(|part| part.split('>').next().unwrap().contains("rel=\"next\""));
            next = link.map(|part| part.split('"').next().unwrap().replace("&amp;", "&"));
            pages.push(page);
        }
        pages
    }
}

#[track_caller]
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    text.split(start).nth(1).unwrap_or_else(|| panic!("no {start:?} in {text}")).split(end).next().unwrap()
}

/// The sequences in a list, in their order.
fn sequences(page: &str) -> Vec<u64> {
    let shown = page.split("<span class=\"soft\">#").skip(1);
    shown.map(|part| part.split('<').next().unwrap().parse().unwrap()).collect()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn pages_are_for_who_has_their_permission() {
    let desk = Desk::start();
    let token = desk.used("alice", "app");
    desk.gate.publish(&json!({ "type": "subject-revoked", "subject": "bob" }));
    let (all, events, sessions) = (desk.sign_in(ADMIN_TOKEN), desk.sign_in(EVENTS), desk.sign_in(SESSIONS));
    let digits = desk.gate.list("/v1/sessions")[0]["token"].as_str().unwrap().to_owned();
    let end = format!("/console/sessions/{digits}/end");
    for (path, may, may_not) in [
        ("/console/events", &events, &sessions),
        ("/console/events/new", &events, &sessions),
        ("/console/revocations", &events, &sessions),
        ("/console/revocations/1/undo", &events, &sessions),
        ("/console/sessions", &sessions, &events),
        ("/console/sessions/end?subject=alice", &sessions, &events),
        (&end, &sessions, &events),
        ("/console/usage", &sessions, &events),
        ("/console/usage.csv", &sessions, &events),
    ] {
        assert_eq!((all.get(path).status(), may.get(path).status()), (200, 200), "{path}");
        let refused = may_not.get(path);
        assert_eq!(refused.status(), 403, "{path}");
        assert!(refused.text().contains("Your token lacks the permission"), "{path}");
        let nobody = desk.ask("GET", path, "", "");
        assert_eq!(nobody.status(), 303, "{path}");
        assert!(
            nobody.field("location").unwrap().starts_with("/console/sign-in?next=%2Fconsole%2F"),
            "{path}"
        );
    }
    let event = "type=subject-revoked&subject=alice&confirmed=yes";
    for (path, form, may_not) in [
        ("/console/events/new", event, &sessions),
        ("/console/revocations/1/undo", "", &sessions),
        ("/console/sessions/end", "subject=alice", &events),
        (&end, "", &events),
    ] {
        assert_eq!(may_not.post(path, form).status(), 403, "{path}");
        assert_eq!(desk.ask("POST", path, "", form).status(), 401, "{path}");
    }
    assert_eq!((desk.status(&token), desk.gate.list("/v1/events").len()), (200, 1), "nothing changed");
    assert_eq!(desk.gate.list("/v1/revocations").len(), 1);
}

#[test]
fn an_event_is_published_after_a_confirmation_and_undone_with_the_next_request() {
    let desk = Desk::start();
    let visit = desk.sign_in(EVENTS);
    assert!(visit.page("/console/events").contains("No events yet."));
    let (alice, also, bob) = (desk.used("alice", "app"), desk.used("alice", "app"), desk.used("bob", "app"));
    let form = format!("type=subject-revoked&issuer={}&subject=alice", encoded(&desk.issuer.name));
    let asked = visit.post("/console/events/new", &form);
    assert_eq!(asked.status(), 200);
    assert!(asked.text().contains("2 tokens in use"), "{}", asked.text());
    assert_eq!((desk.status(&alice), desk.gate.list("/v1/events").len()), (200, 0), "only asked so far");

    let published = visit.post("/console/events/new", &format!("{form}&confirmed=yes"));
    assert_eq!((published.status(), published.field("location")), (303, Some("/console/events")));
    assert_eq!([&alice, &also, &bob].map(|token| desk.status(token)), [401, 401, 200]);
    let page = visit.page("/console/events");
    assert!(
        page.contains("subject-revoked") && page.contains("href=\"/console/revocations/1/undo\""),
        "{page}"
    );
    assert!(visit.page("/console/revocations").contains("href=\"/console/revocations/1/undo\""));

    let asked = visit.page("/console/revocations/1/undo");
    assert!(asked.contains("Tokens that it ended are accepted again"), "{asked}");
    assert_eq!(desk.status(&alice), 401, "only asked so far");
    let undone = visit.post("/console/revocations/1/undo", "");
    assert_eq!((undone.status(), undone.field("location")), (303, Some("/console/revocations")));
    assert_eq!([&alice, &also, &bob].map(|token| desk.status(token)), [200, 200, 200]);
    assert!(visit.page("/console/revocations").contains("Nothing is revoked."));
    let page = visit.page("/console/events");
    assert!(page.contains("undoes #1") && !page.contains("/undo\""), "{page}");
    for gone in ["/console/revocations/1/undo", "/console/revocations/2/undo", "/console/revocations/x/undo"]
    {
        assert_eq!(visit.get(gone).status(), 404, "{gone}");
    }
}

#[test]
fn every_type_of_event_says_how_many_tokens_it_ends() {
    let desk = Desk::start();
    let visit = desk.sign_in(EVENTS);
    let named = desk.issuer.token().claim("jti", "one").claim("sub", "alice").claim("client_id", "a").build();
    assert_eq!(desk.status(&named), 200);
    for (subject, client) in [("alice", "b"), ("bob", "b"), ("bob", "b")] {
        desk.used(subject, client);
    }
    for (form, words) in [
        ("type=subject-revoked&subject=alice", "It ends 2 tokens in use"),
        ("type=role-changed&subject=bob", "It ends 2 tokens in use"),
        ("type=role-changed&subject=bob&role_version=3", "It ends up to 2 tokens in use"),
        ("type=client-revoked&client=b", "It ends 3 tokens in use"),
        ("type=client-revoked&client=nobody", "It ends no tokens in use"),
        ("type=token-revoked&jti=one", "It ends 1 token in use"),
        ("type=token-revoked&jti=two", "It ends no tokens in use"),
        ("type=issuer-revoked", "It ends 4 tokens in use"),
    ] {
        let asked = visit.post("/console/events/new", form);
        assert_eq!(asked.status(), 200, "{form}");
        assert!(asked.text().contains(words), "{form}: {}", asked.text());
    }
    for (form, complaint) in [
        ("type=subject-revoked", "requires `subject`"),
        ("type=subject-revoked&subject=a&client=kept", "`client` is not allowed"),
        ("type=role-changed&subject=a&role_version=seven", "Enter a whole number."),
        ("type=issuer-revoked&issuer=https://nobody.example/", "is not a configured issuer"),
        ("type=revocation-undone", "is not an event type"),
        ("", "missing field `type`"),
    ] {
        let again = visit.post("/console/events/new", &format!("{form}&confirmed=yes"));
        assert_eq!(again.status(), 422, "{form}");
        assert!(again.text().contains(complaint), "{form}: {}", again.text());
        assert_eq!(again.text().contains("value=\"kept\""), form.contains("kept"), "{form}");
    }
    assert!(desk.gate.list("/v1/events").is_empty());
}

#[test]
fn sessions_are_searched_and_ended() {
    let desk = Desk::start();
    let visit = desk.sign_in(SESSIONS);
    assert!(visit.page("/console/sessions").contains("No token is in use."));
    let (one, two, bob) = (desk.used("alice", "a"), desk.used("alice", "b"), desk.used("bob", "c"));
    let shown = |query: &str| visit.page(&format!("/console/sessions{query}")).matches("End…").count();
    for (query, count) in [
        ("", 3),
        ("?subject=alice", 2),
        ("?subject=alice&client=a", 1),
        ("?client=c", 1),
        ("?client=d", 0),
        ("?subject=&client=", 3),
    ] {
        assert_eq!(shown(query), count, "{query}");
    }
    assert_eq!(visit.get("/console/sessions?issuer=nobody").status(), 422);
    assert_eq!(visit.get("/console/sessions?from=x").status(), 422);

    let end = between(&visit.page("/console/sessions?client=c"), "<td data-name=\"End\"><a href=\"", "\"")
        .to_owned();
    assert!(visit.page(&end).contains("End this token?"));
    assert_eq!(desk.status(&bob), 200, "only asked so far");
    assert_eq!(visit.post(&end, "").status(), 303);
    assert_eq!([&one, &two, &bob].map(|token| desk.status(token)), [200, 200, 401]);
    assert_eq!(visit.post(&end, "").status(), 404, "it is no longer in use");

    let asked = visit.page("/console/sessions/end?subject=alice");
    assert!(asked.contains("2 tokens in use end."), "{asked}");
    assert_eq!(visit.get("/console/sessions/end").status(), 422);
    assert_eq!(desk.status(&one), 200, "only asked so far");
    assert_eq!(visit.post("/console/sessions/end", "subject=alice").status(), 303);
    assert_eq!([&one, &two].map(|token| desk.status(token)), [401, 401]);
    assert_eq!(shown(""), 0);
}

#[test]
fn forged_forms_change_nothing() {
    let desk = Desk::start();
    let visit = desk.sign_in(ADMIN_TOKEN);
    let token = desk.used("alice", "app");
    desk.gate.publish(&json!({ "type": "subject-revoked", "subject": "bob" }));
    let digits = desk.gate.list("/v1/sessions")[0]["token"].as_str().unwrap().to_owned();
    let end = format!("/console/sessions/{digits}/end");
    for (path, form) in [
        ("/console/events/new", "type=subject-revoked&subject=alice&confirmed=yes"),
        ("/console/revocations/1/undo", "x=y"),
        ("/console/sessions/end", "subject=alice"),
        (&end, "x=y"),
    ] {
        let (cookie, right) = (&visit.cookie, format!("csrf={}&{form}", visit.csrf));
        let elsewhere = format!("{cookie}origin: https://evil.example\r\n");
        let other = desk.sign_in(ADMIN_TOKEN).csrf;
        for (what, fields, form) in [
            ("missing", cookie, form.to_owned()),
            ("empty", cookie, format!("csrf=&{form}")),
            ("wrong", cookie, format!("csrf=0{}&{form}", &visit.csrf[1..].to_uppercase())),
            ("of another visit", cookie, format!("csrf={other}&{form}")),
            ("from elsewhere", &elsewhere, right),
        ] {
            let answer = desk.ask("POST", path, fields, &form);
            assert_eq!(answer.status(), 403, "{path}, {what}");
            assert!(answer.text().contains("No changes were made."), "{path}, {what}");
        }
    }
    assert_eq!((desk.status(&token), desk.gate.list("/v1/events").len()), (200, 1));
    assert_eq!(desk.gate.list("/v1/revocations").len(), 1);
}

#[test]
fn hostile_names_are_shown_as_text() {
    let route = "[[routes]]\npath = \"/<script>alert(1)/{*rest}\"\nupstream = \"api\"\n";
    let desk = Desk::of(Issuer::named(&format!("{HOSTILE}issuer")), route);
    let visit = desk.sign_in(ADMIN_TOKEN);
    let name = |what: &str| format!("{HOSTILE}{what}");
    let token = desk
        .issuer
        .token()
        .claim("sub", name("subject"))
        .claim("client_id", name("client"))
        .claim("jti", name("jti"))
        .build();
    assert_eq!(desk.gate.get("/%3Cscript%3Ealert(1)/x").token(&token).send().status(), 200);
    let issuer = &desk.issuer.name;
    let shows = |path: &str, names: &[&str]| {
        let page = visit.page(path);
        assert!(!page.contains("<script>"), "{path}: {page}");
        for wanted in names {
            assert!(page.contains(&format!("&lt;script&gt;alert(1){wanted}")), "{path}: {wanted} in {page}");
        }
    };
    eventually("usage is counted", || visit.page("/console/usage").contains("client").then_some(()));
    shows("/console/sessions", &["issuer", "client"]);
    shows("/console/usage", &["client", "/{*rest}"]);
    let digits = desk.gate.list("/v1/sessions")[0]["token"].as_str().unwrap().to_owned();
    shows(&format!("/console/sessions/{digits}/end"), &["issuer", "client"]);
    shows(&format!("/console/sessions/end?subject={}", encoded(&name("subject"))), &["subject"]);
    let mut events = Vec::new();
    for (kind, member) in
        [("subject-revoked", "subject"), ("client-revoked", "client"), ("token-revoked", "jti")]
    {
        let value = name(member);
        let form = format!("type={kind}&issuer={}&{member}={}", encoded(issuer), encoded(&value));
        for form in [form.clone(), form.replace(member, "role_version")] {
            let page = visit.post("/console/events/new", &form).text();
            assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"), "{page}");
        }
        events.push(json!({ "type": kind, "issuer": issuer, member: value }));
    }
    desk.gate.publish(&Value::Array(events));
    shows("/console/events", &["issuer", "subject", "client", "jti"]);
    shows("/console/revocations", &["issuer", "subject", "client", "jti"]);
    for (sequence, member) in [(1, "subject"), (2, "client"), (3, "jti")] {
        shows(&format!("/console/revocations/{sequence}/undo"), &["issuer", member]);
        let query = format!("{member}={}", encoded(&name(member)));
        shows(&format!("/console/revocations?{query}"), &["issuer", member]);
        shows(&format!("/console/events/new?{query}"), &["issuer", member]);
    }
}

#[test]
fn lists_go_on_over_three_pages() {
    let desk = Desk::start();
    let visit = desk.sign_in(ADMIN_TOKEN);
    let subject = |number: usize| json!({ "type": "subject-revoked", "subject": format!("s{number}") });
    let mut events: Vec<Value> = (1..=119).map(subject).collect();
    events.insert(9, json!({ "type": "client-revoked", "client": "s1" }));
    desk.gate.publish(&Value::Array(events));
    for number in 0..120 {
        desk.used(&format!("t{number}"), "app");
    }
    let listed = |path: &str| {
        let pages = visit.pages(path);
        (pages.len(), pages.iter().flat_map(|page| sequences(page)).collect::<Vec<_>>())
    };
    assert_eq!(listed("/console/events"), (3, (1..=120).rev().collect()));
    assert_eq!(listed("/console/revocations"), (3, (1..=120).collect()));
    assert_eq!(listed("/console/events?type=client-revoked"), (1, vec![10]));
    assert_eq!(
        listed("/console/events?type=subject-revoked"),
        (3, (1..=120).rev().filter(|n| *n != 10).collect())
    );
    assert_eq!(listed("/console/events?subject=s1"), (1, vec![1]));
    assert_eq!(listed("/console/events?client=s1"), (1, vec![10]));
    assert_eq!(listed("/console/events?client=s1&type=subject-revoked"), (1, vec![]));
    assert_eq!(listed("/console/revocations?client=s1"), (1, vec![10]));
    let of_issuer = format!("/console/events?issuer={}", encoded(&desk.issuer.name));
    assert_eq!(listed(&of_issuer), (3, (1..=120).rev().collect()));
    visit.post("/console/revocations/1/undo", "");
    assert_eq!(listed("/console/events?subject=s1"), (1, vec![121, 1]), "with what took it back");
    assert_eq!(listed("/console/events?type=revocation-undone"), (1, vec![121]));

    let pages = visit.pages("/console/sessions?client=app");
    let mut tokens: Vec<&str> = pages.iter().flat_map(|page| page.split("<code title=\"").skip(1)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    assert_eq!((pages.len(), tokens.len()), (3, 120));

    for (path, status) in [
        ("/console/events?subject=a&client=b", 422),
        ("/console/events?issuer=nobody", 422),
        ("/console/events?type=nothing", 404),
        ("/console/events?from=x", 404),
        ("/console/revocations?subject=a&jti=b", 422),
        ("/console/revocations?from=x", 404),
    ] {
        assert_eq!(visit.get(path).status(), status, "{path}");
    }
}

#[test]
fn usage_is_downloaded_byte_by_byte() {
    let desk = Desk::start();
    let visit = desk.sign_in(SESSIONS);
    for (client, path) in [
        ("plain", "/anything"),
        ("plain", "/status/404"),
        ("plain", "/status/503"),
        ("=1+1", "/anything"),
        ("@a,\"b\"", "/anything"),
    ] {
        let token = desk.issuer.token().claim("client_id", client).build();
        desk.gate.get(path).token(&token).send();
    }
    eventually("all is counted", || (desk.gate.list("/v1/usage").len() == 5).then_some(()));
    let rows = desk.gate.list("/v1/usage");
    let last = |client: &str| {
        let theirs = rows.iter().filter(|row| row["client"] == client);
        theirs.map(|row| row["last_used_at"].as_str().unwrap()).max().unwrap()
    };
    let head = "client,name,route,requests,1xx,2xx,3xx,4xx,5xx,last_used_at\r\n";
    let plain = format!("plain,,/{{*rest}},3,0,1,0,1,1,{}\r\n", last("plain"));
    let expected = format!(
        "{head}'=1+1,,/{{*rest}},1,0,1,0,0,0,{}\r\n\"'@a,\"\"b\"\"\",,/{{*rest}},1,0,1,0,0,0,{}\r\n{plain}",
        last("=1+1"),
        last("@a,\"b\""),
    );
    let file = visit.get("/console/usage.csv");
    assert_eq!(file.text(), expected);
    assert_eq!(file.field("content-type"), Some("text/csv; charset=utf-8"));
    assert_eq!(file.field("content-disposition"), Some("attachment; filename=\"portcullis-usage.csv\""));
    assert_eq!(file.field("cache-control"), Some("no-store"));
    assert_eq!(visit.get("/console/usage.csv?client=plain").text(), format!("{head}{plain}"));
    assert_eq!(visit.get("/console/usage.csv?client=nobody").text(), head);
    let page = visit.page("/console/usage");
    assert!(page.contains("<svg class=\"bar\"") && page.contains("href=\"/console/usage.csv\""), "{page}");
    let page = visit.page("/console/usage?client=plain");
    assert!(page.contains("href=\"/console/usage.csv?client=plain\"") && !page.contains("=1+1"), "{page}");
    assert!(visit.page("/console/usage?client=nobody").contains("This client has not called any route."));
}
