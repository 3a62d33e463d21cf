//! No token, secret or subject appears in a log line, a metric, a trace or an administrator's view, at any log level.

use testkit::collector::Collector;
use testkit::gate::Gate;
use testkit::issuer::Source;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::{ADMIN_TOKEN, Settings};
use testkit::tokens::{Issuer, Signer, Token};
use testkit::{h2_client, now};

const SECRET: &str = "the-shared-secret-of-an-issuer-that-must-stay-secret-0123456789";
const SUBJECT: &str = "very.secret.person@example.com";

fn by(issuer: &Issuer) -> Token<'_> {
    issuer.token().claim("sub", SUBJECT)
}

#[test]
fn even_at_trace_level_nothing_that_could_be_used_or_names_a_person_is_written() {
    let upstream = RawUpstream::start();
    let (issuer, shared) = (
        Issuer::new(),
        Issuer::with("https://secret.example.com/", vec![Signer::secret("HS256", SECRET.as_bytes())]),
    );
    let collector = Collector::start();
    let traces = format!(
        "otlp_endpoint = \"{}\"\ntrace_sample_ratio = 1\nlog_paths = true\notlp_headers = {{ api-key = \"{SECRET}\" }}",
        collector.url()
    );
    let settings = Settings::tls()
        .telemetry("log_level = \"trace\"")
        .telemetry(&traces)
        .upstream("api", &upstream.url(), "")
        .issuer(&issuer)
        .issuer_from(&shared, &Source::Secret(SECRET.to_owned()), "algorithms = [\"HS256\"]")
        .route("/{*rest}", "")
        .route("/scoped", "scopes = [\"x\"]")
        .route("/shadow", "mode = \"shadow\"")
        .admin();
    let gate = Gate::start(&settings);
    let stranger = Issuer::named("https://stranger.example.com/");
    let tokens = [
        by(&issuer).build(),
        by(&shared).build(),
        by(&issuer).claim("exp", now() - 100).build(),
        by(&issuer).claim("aud", "x").build(),
        by(&issuer).head("kid", "x").build(),
        by(&issuer).head("typ", "x").build(),
        by(&issuer).head("crit", serde_json::json!(["x"])).build(),
        by(&issuer).claim("scope", 7).build(),
        by(&stranger).build(),
        by(&Issuer::new()).build(),
        by(&issuer).build() + "AAAA",
        format!("{}.x.y", by(&issuer).build()),
    ];
    for token in &tokens {
        for path in ["/a", "/scoped", "/shadow", "/nowhere/../x"] {
            gate.get(path).token(token).send();
        }
        gate.get(&format!("/q?access_token={token}&x=1")).send();
        gate.get(&format!("/q?access_token={token}")).token(token).send();
        gate.get("/twice").token(token).token(token).send();
        gate.get("/basic").field("Authorization", "Basic c2VjcmV0OnBhc3N3b3Jk").send();
        gate.get("/odd").field("Authorization", &format!("Bearer {token} x")).send();
        gate.get("/other").field("X-Api-Key", token).field("Cookie", &format!("session={token}")).send();
        gate.get("/state")
            .token(token)
            .field("Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
            .field("Tracestate", &format!("vendor={SECRET}"))
            .send();
        testkit::block_on(async {
            let mut client = h2_client::H2Client::connect(&gate).await;
            let request = h2_client::request("GET", "/h2", token, testkit::app::empty());
            client.exchange(request).await.unwrap();
        });
    }
    gate.signal("HUP");
    gate.wait_for_reloads("ok", 1.0);
    gate.settings.file("portcullis.toml", format!("[[issuers]]\nsecret = \"{SECRET}\"\nunknown = 1\n"));
    gate.signal("HUP");
    gate.wait_for_reloads("error", 1.0);

    gate.wait_for_metric("the traces are exported", |page| {
        (page.sum("portcullis_spans_total", &[("result", "exported")]) > 50.0).then_some(())
    });
    let exported: Vec<String> =
        collector.exports().iter().map(|export| String::from_utf8_lossy(&export.body).into_owned()).collect();
    let (log, metrics, traces) = (gate.log().text(), gate.telemetry("/metrics").text(), exported.concat());
    assert!(log.lines().count() > 50, "there is a log to look at");
    let mut secrets = vec![
        SECRET.to_owned(),
        ADMIN_TOKEN.to_owned(),
        SUBJECT.to_owned(),
        "very.secret.person".to_owned(),
        "c2VjcmV0OnBhc3N3b3Jk".to_owned(),
    ];
    for token in &tokens {
        // The header says nothing secret; payload and signature do, also in part.
        secrets.extend(
            token.split('.').skip(1).filter(|part| part.len() > 20).map(|part| part[..20].to_owned()),
        );
        secrets.extend(
            token
                .split('.')
                .skip(1)
                .filter(|part| part.len() > 40)
                .map(|part| part[part.len() - 20..].to_owned()),
        );
    }
    for secret in secrets {
        for (place, text) in [("log", &log), ("metrics", &metrics), ("traces", &traces)] {
            let found = text.lines().find(|line| line.contains(&secret));
            assert!(found.is_none(), "{secret:?} in the {place}: {found:?}");
        }
    }
}

#[test]
fn the_key_of_the_certificate_and_the_environment_stay_out_of_the_log() {
    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::tls()
        .telemetry("log_level = \"trace\"")
        .guarding(&upstream.url(), &issuer)
        .toml("[admin]\nlisten = \"127.0.0.1:0\"\n[[admin.tokens]]\nname = \"ops\"\nsecret = { env = \"TEST_ADMIN_SECRET\" }\npermissions = [\"config\"]\n");
    let gate = Gate::launch_with(&settings, |command| {
        command.env("TEST_ADMIN_SECRET", "from-the-environment-0123456789-0123456789");
    });
    gate.wait_until_ready();
    gate.get("/").token(&issuer.good()).send();
    let key = std::fs::read_to_string(gate.settings.folder().join("server.key")).unwrap();
    let log = gate.log().text();
    assert!(!log.contains(key.lines().nth(1).unwrap()));
    assert!(!log.contains("from-the-environment"));
}
