//! Pages of other origins in a real Chromium (`tests/node/browsers.mjs` runs the scenarios and counts its
//! checks): what they can read of the gate's responses, and what reaches the upstream.

use std::process::{Command, Stdio};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::accept_async;

use testkit::block_on;
use testkit::gate::{Gate, field};
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::Issuer;
use testkit::tools::{node_modules, root};

/// A gate, what it protects, and two servers for pages.
struct Stage {
    gate: Gate,
    api: RawUpstream,
    app: RawUpstream,
    stranger: RawUpstream,
    issuer: Issuer,
}

impl Stage {
    fn start(settings: Settings) -> Self {
        Self::start_with(settings, |settings, _| settings)
    }

    /// `more` adds to the settings; it receives the origin of the app's pages.
    fn start_with(settings: Settings, more: impl FnOnce(Settings, &str) -> Settings) -> Self {
        let page = || {
            RawUpstream::scripted(|exchange| {
                exchange.answer(
                    "200 OK",
                    "Content-Type: text/html\r\n",
                    "<!doctype html><title>A page</title>",
                )
            })
        };
        let (app, stranger) = (page(), page());
        let api = RawUpstream::scripted(|exchange| {
            let asked = &exchange.request;
            let own = asked.target().starts_with("/own");
            let body = match asked.target().as_str() {
                "/deals" => "deals".to_owned(),
                "/cookies" => asked.field("cookie").unwrap_or_default(),
                _ => "own".to_owned(),
            };
            let fields = "X-Total: 7\r\nX-Secret: 8\r\nAccess-Control-Allow-Origin: *\r\n\
                          Access-Control-Allow-Headers: *, authorization\r\n";
            exchange.answer("200 OK", if own { fields } else { "X-Total: 7\r\nX-Secret: 8\r\n" }, &body)
        });
        let (issuer, origin) = (Issuer::new(), app.url());
        let cors = |more: &str| format!("cors = {{ origins = [\"{origin}\"]{more} }}");
        let settings = settings
            .limits("body_bytes = 100")
            .upstream("api", &api.url(), "")
            .upstream("dead", &format!("http://{}", testkit::ports::reserved()), "")
            .issuer(&issuer)
            .route(
                "/deals",
                &format!(
                    "methods = [\"GET\", \"POST\", \"PUT\"]\n{}",
                    cors(", expose = [\"www-authenticate\", \"x-request-id\", \"x-total\"]")
                ),
            )
            .route("/admin", &format!("scopes = [\"admin\"]\n{}", cors("")))
            .route("/dead", &format!("upstream = \"dead\"\n{}", cors("")))
            .route("/any", &cors(""))
            .route("/cookies", &cors(", credentials = true"))
            .route("/public", "cors = { origins = [\"*\"] }")
            .route("/listed", &format!("anonymous = true\norigins = [\"{origin}\"]\n{}", cors("")))
            .route("/plain", "")
            .route("/own/{*rest}", "methods = [\"OPTIONS\"]\nanonymous = true")
            .route("/own/{*rest}", "methods = [\"GET\"]");
        let settings = more(settings, &origin);
        Self { gate: Gate::start(&settings), api, app, stranger, issuer }
    }

    /// Runs a scenario, and returns the number of its checks.
    #[track_caller]
    fn play(&self, scenario: &str) -> u32 {
        let gate = match self.gate.settings.has_tls() {
            true => self.gate.url(""),
            false => format!("http://{}", self.gate.public),
        };
        let expired = self.issuer.token().claim("iat", 1_000_000_000).claim("exp", 1_000_000_600).build();
        let output = Command::new("node")
            .arg(root().join("tests/node/browsers.mjs"))
            .env("GATE", gate)
            .env("APP", self.app.url())
            .env("STRANGER", self.stranger.url())
            .env("DEAD", format!("http://{}", testkit::ports::reserved()))
            .env("TOKENS", json!({"good": self.issuer.good(), "expired": expired}).to_string())
            .env("SCENARIO", scenario)
            .env("NODE_MODULES", node_modules())
            .stdin(Stdio::null())
            .output();
        let output = output.unwrap_or_else(|error| panic!("node: {error}; tests/run installs it"));
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{scenario}: {}\n{out}\n{err}", output.status);
        let checks = out.lines().last().and_then(|last| last.strip_suffix(" checks")?.parse().ok());
        checks.unwrap_or_else(|| panic!("{scenario}: {out}\n{err}"))
    }

    /// The methods of the requests that reached the upstream at a path, in order.
    fn reached(&self, path: &str) -> Vec<String> {
        let seen = self.api.seen();
        seen.iter().filter(|seen| seen.target() == path).map(testkit::raw_upstream::Seen::method).collect()
    }
}

/// Holds docs/configuration.md, Settings: routes[].cors
#[test]
fn a_page_of_another_origin_tells_an_expired_token_from_a_dead_network() {
    for settings in [Settings::plaintext(), Settings::tls()] {
        let stage = Stage::start(settings);
        assert_eq!(stage.play("refusals"), 14);
        assert_eq!(stage.reached("/deals"), ["GET"], "preflights and rejected requests stay at the gate");
        let preflight = stage.gate.log().wait_for("a preflight of Chromium", |record| {
            field(record, "method") == Some("OPTIONS") && record["status"] == 204
        });
        assert_eq!(
            (field(&preflight, "route"), field(&preflight, "decision")),
            (Some("/deals"), Some("allow"))
        );
    }
}

#[test]
fn a_page_uses_the_methods_and_fields_that_are_listed_and_no_others() {
    let stage = Stage::start(Settings::plaintext());
    assert_eq!(stage.play("preflights"), 6);
    assert_eq!(stage.reached("/deals"), ["PUT", "GET"]);
    assert_eq!(stage.reached("/any"), ["REPORT"]);
}

#[test]
fn cookies_of_a_page_reach_the_upstream_only_where_credentials_are_allowed() {
    let stage = Stage::start(Settings::plaintext());
    assert_eq!(stage.play("credentials"), 5);
    assert_eq!(stage.reached("/cookies"), ["GET", "GET"]);
    assert!(stage.reached("/public").is_empty() || stage.reached("/public") == ["GET"]);
}

/// Holds docs/configuration.md, Settings: routes[].origins
#[test]
fn a_page_of_an_origin_that_is_not_listed_reads_nothing_and_does_nothing() {
    let stage = Stage::start(Settings::plaintext());
    assert_eq!(stage.play("strangers"), 5);
    assert_eq!(stage.reached("/listed"), ["POST"], "only what the listed page sent");
    assert_eq!(stage.reached("/deals"), Vec::<String>::new());
    let rejected = |origin: &str| {
        stage.gate.log().wait_for(&format!("the rejection of {origin}"), |record| {
            field(record, "reason") == Some("bad_origin") && field(record, "method") == Some(origin)
        })
    };
    assert_eq!(rejected("POST")["status"], 403);
    assert_eq!(rejected("OPTIONS")["status"], 403);
}

#[test]
fn a_browser_opens_a_websocket_beside_preflights_that_the_upstream_answers_itself() {
    block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(echo(socket));
            }
        });
        let stage = tokio::task::spawn_blocking(move || {
            let settings = Settings::plaintext()
                .toml("[bearer]\nwebsocket_protocol = \"bearer\"\n")
                .upstream("feed", &url, "")
                .route("/feed", "upstream = \"feed\"");
            Stage::start_with(settings, |settings, origin| {
                settings.route("/feed/listed", &format!("upstream = \"feed\"\norigins = [\"{origin}\"]"))
            })
        });
        let stage = stage.await.unwrap();
        let stage = tokio::task::spawn_blocking(move || {
            assert_eq!(stage.play("sockets"), 8);
            stage
        });
        let stage = stage.await.unwrap();
        assert_eq!(stage.reached("/own/deals"), ["OPTIONS", "GET", "OPTIONS"]);
        let preflights = stage.api.seen();
        let asked = preflights.iter().find(|seen| seen.method() == "OPTIONS").unwrap();
        assert_eq!(asked.field("access-control-request-method").as_deref(), Some("GET"));
        assert_eq!(asked.field("authorization"), None, "a preflight carries no token");
    });
}

/// A WebSocket server that echoes what it receives.
async fn echo(socket: TcpStream) {
    let Ok(mut socket) = accept_async(socket).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() && socket.send(message).await.is_err() {
            return;
        }
    }
}
