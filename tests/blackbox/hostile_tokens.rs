//! Tokens that must be rejected: a table of everything RFC 8725 warns about, and of common mistakes in JOSE libraries.
//!
//! Every row is sent to a real gate; the oracle is the status, the reason that the gate counts, and an upstream
//! that receives nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::pinned::Pinned;
use testkit::gate::Gate;
use testkit::issuer::{KeyServer, Source};
use testkit::metrics::Scrape;
use testkit::raw_upstream::RawUpstream;
use testkit::settings::Settings;
use testkit::tokens::{Issuer, Signer, Token, compact, log_hash, twin, unique};
use testkit::wire::Wire;
use testkit::{b64, now};

/// The credentials, and the status with which they are rejected. The reason is in the data.
struct Row {
    name: String,
    /// The value of the `Authorization` field.
    credentials: Vec<u8>,
    status: u16,
}

/// A builder for the table.
#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn field(&mut self, name: &str, credentials: impl AsRef<[u8]>, status: u16) {
        let credentials = credentials.as_ref().to_vec();
        self.0.push(Row { name: name.to_owned(), credentials, status });
    }

    /// Adds a token that is rejected with 401.
    fn token(&mut self, name: &str, token: &str) {
        self.field(name, format!("Bearer {token}"), 401);
    }
}

/// Three issuers with keys of every family: two with JWKS, whose keys have the same `kid`, and one with a secret.
struct Scene {
    main: Issuer,
    other: Issuer,
    shared: Issuer,
}

const SECRET: &[u8] = b"a secret of the tests that is long enough for HS512, which wants sixty-four bytes";

impl Scene {
    fn new() -> Self {
        let keys =
            vec![Signer::new("ES256", "key-1"), Signer::new("RS256", "rsa"), Signer::new("EdDSA", "ed")];
        let secret = vec![Signer::secret("HS256", SECRET)];
        Self {
            main: Issuer::with("https://idp.example.com/", keys),
            other: Issuer::named("https://other.example.com/"),
            shared: Issuer::with("https://secret.example.com/", secret),
        }
    }

    fn settings(&self, upstream: &RawUpstream) -> Settings {
        let secret = Source::Secret(String::from_utf8(SECRET.to_vec()).unwrap());
        Settings::plaintext()
            .upstream("api", &upstream.url(), "")
            .issuer(&self.main)
            .issuer(&self.other)
            .issuer_from(&self.shared, &secret, "algorithms = [\"HS256\"]")
            .route("/{*rest}", "")
    }
}

/// Holds docs/configuration.md, Settings: issuers[].issuer, .audiences
#[test]
fn every_hostile_token_is_refused_for_its_reason_and_reaches_nobody() {
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let mut gate = Gate::start(&scene.settings(&upstream));
    for (name, token) in good_tokens(&scene) {
        let answer = gate.get("/").token(&token).send();
        assert_eq!(answer.status(), 200, "{name}: {}", answer.text());
    }
    let reached = upstream.count();

    let rows = table(&scene);
    assert!(rows.len() >= 250, "{} rows", rows.len());
    let (mut wrong, mut pinned) = (String::new(), Pinned::new("hostile/tokens"));
    for row in &rows {
        let mut request = b"GET /hostile HTTP/1.1\r\nHost: api.test\r\nAuthorization: ".to_vec();
        request.extend_from_slice(&row.credentials);
        request.extend_from_slice(b"\r\n\r\n");
        let (answer, decision) = gate.decision(|| gate.connect().exchange(&request).unwrap());
        let reason = decision.strip_prefix("deny/").unwrap_or(&decision);
        if answer.status() != row.status || decision == reason {
            let (got, name) = (answer.status(), &row.name);
            writeln!(wrong, "{name}: {got} {decision} instead of {}", row.status).unwrap();
        }
        pinned.row(&row.name, &format!("{} {reason}", answer.status()));
        if upstream.count() != reached {
            writeln!(wrong, "{}: REACHED THE UPSTREAM", row.name).unwrap();
            break;
        }
    }
    assert!(wrong.is_empty(), "of {} rows:\n{wrong}", rows.len());
    pinned.check();
    assert!(gate.is_alive());
    assert_eq!(gate.get("/").token(&scene.main.good()).send().status(), 200, "good ones still pass");
}

fn good_tokens(scene: &Scene) -> Vec<(&'static str, String)> {
    let main = &scene.main;
    let by = |n: usize| main.token_by(&main.signers[n]);
    vec![
        ("ES256", by(0).build()),
        ("RS256", by(1).build()),
        ("EdDSA", by(2).build()),
        ("HS256 of the issuer with a secret", scene.shared.token().build()),
        ("without kid of the issuer with a secret", scene.shared.token().headless("kid").build()),
        ("another issuer's", scene.other.good()),
        ("without kid, where one key fits", by(2).headless("kid").build()),
        ("typ JWT", by(0).head("typ", "JWT").build()),
        ("typ absent", by(0).headless("typ").build()),
        ("typ in another case", by(0).head("typ", "AT+JWT").build()),
        ("typ with application/", by(0).head("typ", "application/at+jwt").build()),
        ("audience in an array", by(0).claim("aud", json!(["https://x.example.com", main.audience])).build()),
        ("expired within leeway", by(0).claim("iat", now() - 600).claim("exp", now() - 5).build()),
        ("not before within leeway", by(0).claim("nbf", now() + 5).build()),
        ("issued in the future within leeway", by(0).claim("iat", now() + 5).build()),
        ("fractions of seconds", by(0).with_text("\"iat\":", "\"nbf\":1500000000.75,\"iat\":")),
        (
            "a lifetime of exactly 24 h",
            by(0).claim("iat", now() - 10).claim("exp", now() - 10 + 86_400).build(),
        ),
        (
            "unknown claims and parameters",
            by(0).head("x", json!({"y": [1]})).claim("z", json!([null, {"q": 1.5}])).build(),
        ),
        ("null for scope", by(0).claim("scope", json!(null)).build()),
        ("null for roles", by(0).claim("roles", json!(null)).build()),
        ("null for client_id", by(0).claim("client_id", json!(null)).build()),
        ("null for tenant", by(0).claim("tenant", json!(null)).build()),
        ("null for role_version", by(0).claim("role_version", json!(null)).build()),
        ("null for nbf", by(0).claim("nbf", json!(null)).build()),
        ("null for jti", by(0).claim("jti", json!(null)).build()),
    ]
}

fn table(scene: &Scene) -> Vec<Row> {
    let mut table = Table::default();
    presentation(scene, &mut table);
    shape(scene, &mut table);
    algorithms(scene, &mut table);
    header_parameters(scene, &mut table);
    signatures(scene, &mut table);
    identity_claims(scene, &mut table);
    times(scene, &mut table);
    typed_claims(scene, &mut table);
    duplicates(scene, &mut table);
    table.0
}

/// RFC 6750 §2: how a token is presented.
fn presentation(scene: &Scene, table: &mut Table) {
    let good = scene.main.good();
    for (name, credentials) in [
        ("scheme only", "Bearer".to_owned()),
        ("scheme and a space", "Bearer ".to_owned()),
        ("two words", "Bearer a b".to_owned()),
        ("a good token and a word", format!("Bearer {good} x")),
        ("two good tokens in one field", format!("Bearer {good}, Bearer {good}")),
        ("two good tokens with a comma", format!("Bearer {good},{good}")),
        ("a comma at the end", format!("Bearer {good},")),
        ("a comma at the start", format!("Bearer ,{good}")),
        ("in quotes", format!("Bearer \"{good}\"")),
        ("in brackets", format!("Bearer <{good}>")),
        ("as a parameter", format!("Bearer token={good}")),
        ("the scheme twice", format!("Bearer Bearer {good}")),
        ("with a tab inside", format!("Bearer {}\t{}", &good[..9], &good[9..])),
        ("only padding", "Bearer ===".to_owned()),
        ("padding inside", "Bearer a=b".to_owned()),
        ("a percent sign", format!("Bearer {}%2e", &good[..20])),
        ("a colon", "Bearer a:b".to_owned()),
        ("a backslash", "Bearer a\\b".to_owned()),
        ("an asterisk", "Bearer *".to_owned()),
        ("17 KiB of letters", format!("Bearer {}", "a".repeat(17 * 1024))),
        ("one byte above 16 KiB", format!("Bearer {}", "a".repeat(16 * 1024 + 1))),
        (
            "17 KiB, truly signed",
            format!("Bearer {}", scene.main.token().claim("x", "y".repeat(13 * 1024)).build()),
        ),
    ] {
        table.field(name, credentials, 400);
    }
    table.field("bytes outside ASCII", b"Bearer \xe9\xff", 400);
    table.field("UTF-8", "Bearer é", 400);
    table.field("a tab for a space", format!("Bearer\t{good}"), 400);
    for (name, credentials) in [
        ("no scheme", good.clone()),
        ("another scheme", "Basic YTpi".to_owned()),
        ("another scheme with a good token", format!("Token {good}")),
        ("DPoP", format!("DPoP {good}")),
        ("a scheme that begins like it", format!("Bearers {good}")),
        ("no space", format!("Bearer{good}")),
        ("nothing", String::new()),
    ] {
        table.field(name, credentials, 401);
    }
}

/// RFC 7515 §5.2, RFC 8259: not a JWS, or without JSON in it.
fn shape(scene: &Scene, table: &mut Table) {
    let good = scene.main.good();
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    for (name, token) in [
        ("one word", "abc".to_owned()),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.x")),
        ("five parts, as encrypted ones have", format!("{good}.x.y")),
        ("a dot at the end", format!("{good}.")),
        ("a dot at the start", format!(".{good}")),
        ("two dots", "..".to_owned()),
        ("a single dot", ".".to_owned()),
        ("no header", format!(".{payload}.{signature}")),
        ("no payload", format!("{header}..{signature}")),
        ("padding after the token", format!("{good}=")),
        ("padding of two after the token", format!("{good}==")),
        ("plus and slash", format!("{header}.{payload}.{}", "+/".repeat(43))),
        ("a tilde in the header", format!("~{header}.{payload}.{signature}")),
        ("a tilde in the payload", format!("{header}.{payload}~.{signature}")),
        ("a header of one character", format!("e.{payload}.{signature}")),
        ("a payload of five characters", format!("{header}.{}.{signature}", &payload[..5])),
    ] {
        table.token(name, &token);
    }
    let turned = format!("{payload}.{header}.{signature}");
    table.token("header and payload exchanged", &turned);
    let token = scene.main.token();
    let (header, claims) = (token.header_json(), token.claims_json());
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let broken = |json: &str| {
        let open = json.strip_suffix('}').unwrap();
        vec![
            ("empty", Vec::new()),
            ("blank", b" ".to_vec()),
            ("an array", format!("[{json}]").into_bytes()),
            ("a string", format!("{json:?}").into_bytes()),
            ("a number", b"7".to_vec()),
            ("null", b"null".to_vec()),
            ("cut off", open.as_bytes().to_vec()),
            ("with something after it", format!("{json}x").into_bytes()),
            ("with another object after it", format!("{json}{json}").into_bytes()),
            ("with a trailing comma", format!("{open},}}").into_bytes()),
            ("with a comment", format!("{open}/**/}}").into_bytes()),
            ("in single quotes", json.replace('"', "'").into_bytes()),
            ("with a byte order mark", format!("\u{feff}{json}").into_bytes()),
            ("with a null byte after it", format!("{json}\0").into_bytes()),
            ("with a null byte before it", format!("\0{json}").into_bytes()),
            ("with a raw control byte in a string", format!("{open},\"x\":\"\x01\"}}").into_bytes()),
            ("with an unknown escape", format!("{open},\"x\":\"\\q\"}}").into_bytes()),
            ("with half a surrogate pair", format!("{open},\"x\":\"\\ud800\"}}").into_bytes()),
            ("with invalid UTF-8", [open.as_bytes(), b",\"x\":\"\xff\"}"].concat()),
            ("with overlong UTF-8", [open.as_bytes(), b",\"x\":\"\xc0\xaf\"}"].concat()),
            ("with NaN", format!("{open},\"x\":NaN}}").into_bytes()),
            ("with Infinity", format!("{open},\"x\":Infinity}}").into_bytes()),
            ("with a leading zero", format!("{open},\"x\":01}}").into_bytes()),
            ("with a plus sign", format!("{open},\"x\":+1}}").into_bytes()),
            ("with a bare word for a name", format!("{open},x:1}}").into_bytes()),
            ("in UTF-16", json.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("nested 5,000 deep", format!("{open},\"x\":{deep}}}").into_bytes()),
            ("nested without end", format!("{open},\"x\":{}", "{\"x\":".repeat(1000)).into_bytes()),
        ]
    };
    for (name, bytes) in broken(&header) {
        table.token(&format!("a header {name}"), &token.raw(&bytes, claims.as_bytes()));
    }
    for (name, bytes) in broken(&claims) {
        table.token(&format!("a payload {name}"), &token.raw(header.as_bytes(), &bytes));
    }
}

/// RFC 8725 §2.1, §3.1, §3.2: the issuer determines the algorithm, not the token.
fn algorithms(scene: &Scene, table: &mut Table) {
    let main = &scene.main;
    let token = main.token();
    let (header, claims) = (token.header_json(), token.claims_json());
    for none in ["none", "None", "NONE", "nOnE", "none ", ""] {
        let header = header.replacen("ES256", none, 1);
        let input = format!("{}.{}", b64(&header), b64(&claims));
        let (_, signature) =
            token.build().rsplit_once('.').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
        table.token(&format!("alg {none:?} without a signature"), &format!("{input}."));
        table.token(&format!("alg {none:?} with a signature"), &format!("{input}.{signature}"));
    }
    for alg in [
        "es256",
        "ES256 ",
        "ES-256",
        "ES256K",
        "ES512",
        "ES384",
        "RS384",
        "RS512",
        "PS256",
        "PS384",
        "PS512",
        "HS256",
        "HS384",
        "HS512",
        "RS1",
        "HS1",
        "Ed448",
        "Ed25519",
        "ed25519",
        "dir",
        "RSA-OAEP",
        "A128GCMKW",
        "ECDH-ES",
        "PBES2-HS256+A128KW",
        "HMAC",
        "unknown",
        "ES256\u{0}",
        "ЕS256",
    ] {
        table.token(&format!("alg {alg:?}"), &token.clone().head("alg", alg).build());
    }
    for (name, alg) in [
        ("a number", json!(256)),
        ("null", json!(null)),
        ("an array", json!(["ES256"])),
        ("an object", json!({"ES256": true})),
        ("true", json!(true)),
    ] {
        table.token(&format!("alg as {name}"), &token.clone().head("alg", alg).build());
    }
    table.token("no alg", &token.clone().headless("alg").build());

    // The classic: the public key as an HMAC secret.
    for (signer, name) in main.signers.iter().zip(["EC", "RSA", "Ed25519"]) {
        for (form, bytes) in ["DER", "PEM", "PEM without a newline", "JWK"].iter().zip(signer.public_forms())
        {
            for alg in ["HS256", "HS384", "HS512"] {
                let forged = token.clone().head("alg", alg).head("kid", signer.kid.as_str());
                let made = compact(
                    &Signer::secret(alg, &bytes),
                    alg,
                    forged.header_json().as_bytes(),
                    claims.as_bytes(),
                );
                table.token(&format!("{alg} with the {name} public key as {form}"), &made);
            }
        }
    }
    // A key of another family than the header says.
    let [ec, rsa, ed] = &main.signers[..] else { unreachable!("three keys") };
    for (signer, alg, kid) in [
        (ec, "RS256", "key-1"),
        (ec, "EdDSA", "key-1"),
        (rsa, "ES256", "rsa"),
        (rsa, "EdDSA", "rsa"),
        (ed, "ES256", "ed"),
        (ed, "RS256", "ed"),
        (ec, "ES256", "rsa"),
        (rsa, "RS256", "key-1"),
        (ed, "EdDSA", "key-1"),
        (ec, "ES256", "ed"),
    ] {
        let header = token.clone().head("alg", alg).head("kid", kid).header_json();
        let made = compact(signer, signer.alg, header.as_bytes(), claims.as_bytes());
        table.token(&format!("{alg} for the key {kid:?}, signed by {:?}", signer.kid), &made);
    }
    let header = token.clone().head("alg", "RS256").head("kid", "rsa").header_json();
    for alg in ["PS256", "RS384", "RS512"] {
        let made = compact(rsa, alg, header.as_bytes(), claims.as_bytes());
        table.token(&format!("RS256 in the header, {alg} in truth"), &made);
    }

    // The issuer with a secret takes HS256 alone, and of that secret alone.
    let shared = &scene.shared;
    for (name, secret) in [
        ("no secret", Vec::new()),
        ("another", b"another secret that is long enough for it".to_vec()),
        ("one byte less", SECRET[1..].to_vec()),
        ("with a newline", [SECRET, b"\n"].concat()),
        ("a null byte", vec![0]),
    ] {
        let signer = Signer::secret("HS256", &secret);
        table.token(&format!("HS256 with {name}"), &shared.token().signed_by(&signer).build());
    }
    let strong = Signer::secret("HS512", SECRET);
    table.token(
        "HS512 where HS256 is configured",
        &shared.token().head("alg", "HS512").signed_by(&strong).build(),
    );
    let full = shared.good();
    // 20 characters, which leave no bits over.
    table.token("HS256 cut to 15 bytes", &full[..full.len() - 23]);
    let asymmetric = shared.token().head("alg", "ES256").head("kid", "key-1").signed_by(ec).build();
    table.token("ES256 for the issuer with a secret", &asymmetric);
    let header = main.token().head("alg", "HS256").header_json();
    let crossed = compact(&Signer::secret("HS256", SECRET), "HS256", header.as_bytes(), claims.as_bytes());
    table.token("the secret of another issuer", &crossed);
}

/// RFC 7515 §4.1: header parameters other than the algorithm.
fn header_parameters(scene: &Scene, table: &mut Table) {
    let main = &scene.main;
    let token = main.token();
    let with = |name: &str, value: Value| main.token().head(name, value).build();
    for typ in [
        "JWS",
        "jose",
        "secevent+jwt",
        "application/secevent+jwt",
        "dpop+jwt",
        "logout+jwt",
        "token-introspection+jwt",
        "oauth-authz-req+jwt",
        "id_token+jwt",
        "at+jwt ",
        " at+jwt",
        "at jwt",
        "at%2Bjwt",
        "atjwt",
        "",
        "application/",
        "text/at+jwt",
        "application/application/at+jwt",
    ] {
        table.token(&format!("typ {typ:?}"), &with("typ", json!(typ)));
    }
    for (name, value) in wrong_types(&["string"]) {
        table.token(&format!("typ as {name}"), &with("typ", value.clone()));
        table.token(&format!("kid as {name}"), &with("kid", value.clone()));
    }
    for (name, crit) in [
        ("of an unknown parameter", json!(["x"])),
        ("of exp", json!(["exp"])),
        ("of b64", json!(["b64"])),
        ("of alg", json!(["alg"])),
        ("of nothing", json!([])),
        ("as a string", json!("x")),
        ("as null", json!(null)),
        ("as an object", json!({})),
    ] {
        let made = main.token().head("crit", crit).head("x", 1).head("exp", 1).head("b64", false).build();
        table.token(&format!("crit {name}"), &made);
    }
    for kid in [
        "unknown",
        "KEY-1",
        "key-1 ",
        "key-1\u{0}",
        "",
        "../../../../dev/null",
        "/dev/null",
        "' OR '1'='1",
        "key-1;x",
        "*",
        "0",
        "https://evil.test/key",
        "\u{202e}1-yek",
    ] {
        table.token(&format!("kid {kid:?}"), &with("kid", json!(kid)));
    }
    table.token("a kid of 8,000 letters", &with("kid", json!("k".repeat(8000))));

    // A key that the token brings is never used.
    let attacker = Signer::new("ES256", "key-1");
    let unknown = Signer::new("ES256", "mine");
    for (name, parameter, value) in [
        ("jwk", "jwk", attacker.jwk()),
        ("jku", "jku", json!("https://evil.test/jwks")),
        ("x5u", "x5u", json!("https://evil.test/cert.pem")),
        ("x5c", "x5c", json!(["MIIB"])),
        ("x5t", "x5t", json!("AAAA")),
        ("x5t#S256", "x5t#S256", json!("AAAA")),
    ] {
        let made = token.clone().head(parameter, value.clone()).signed_by(&attacker).build();
        table.token(&format!("{name} in the header, under the right kid"), &made);
        let made = main.token_by(&unknown).head(parameter, value.clone()).build();
        table.token(&format!("{name} in the header, under a new kid"), &made);
        let made = token.clone().headless("kid").head(parameter, value).signed_by(&attacker).build();
        table.token(&format!("{name} in the header, without a kid"), &made);
    }
}

/// RFC 7515 §5.2: the signature is over exactly these bytes, by exactly this key.
fn signatures(scene: &Scene, table: &mut Table) {
    use base64::Engine as _;
    let main = &scene.main;
    let good = main.good();
    let (input, text) = good.rsplit_once('.').unwrap();
    let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
    let (r, s) = raw.split_at(32);
    let order = twin_order();
    for (name, bytes) in [
        ("none", Vec::new()),
        ("one byte", vec![1]),
        ("zeros", vec![0; 64]),
        ("r zero", [&[0; 32], s].concat()),
        ("s zero", [r, &[0; 32]].concat()),
        ("r the order", [&order, s].concat()),
        ("s the order", [r, &order].concat()),
        ("both the order", [order, order].concat()),
        ("all ones", vec![0xff; 64]),
        ("halves exchanged", [s, r].concat()),
        ("one byte less", raw[..63].to_vec()),
        ("one byte more", [&raw[..], &[0]].concat()),
        ("a zero before", [&[0], &raw[..]].concat()),
        ("twice", [&raw[..], &raw[..]].concat()),
        ("first bit flipped", flipped(&raw, 0)),
        ("last bit flipped", flipped(&raw, 511)),
        ("in DER", der(r, s)),
        ("in hexadecimal", raw.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect()),
    ] {
        table.token(&format!("signature: {name}"), &format!("{input}.{}", b64(bytes)));
    }
    let other = main.good();
    let (other_input, other_text) = other.rsplit_once('.').unwrap();
    table.token("the signature of another token", &format!("{input}.{other_text}"));
    table.token("the payload of another token", &format!("{other_input}.{text}"));
    let root = main.token().claim("sub", "root");
    let (head, _) = input.split_once('.').unwrap();
    table.token("another subject", &format!("{head}.{}.{text}", b64(root.claims_json())));
    let header = main.token().head("x", 1).header_json();
    let payload = input.split_once('.').unwrap().1;
    table.token("another header", &format!("{}.{payload}.{text}", b64(header)));

    let stale = Signer::new("ES256", "key-1");
    table.token("another key of that name", &main.token_by(&stale).build());
    let foreign = &scene.other.signers[0];
    table.token("the key of another issuer, of the same name", &main.token_by(foreign).build());
    table.token("our key for the other issuer", &scene.other.token_by(&main.signers[0]).build());
    table.token(
        "our key for the other issuer, by its own name",
        &scene.other.token_by(&main.signers[1]).build(),
    );
    table.token("no kid and another key", &main.token_by(&stale).headless("kid").build());

    for (signer, length) in [(&main.signers[1], 256), (&main.signers[2], 64)] {
        let good = main.token_by(signer).build();
        let (input, text) = good.rsplit_once('.').unwrap();
        let raw = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!(raw.len(), length);
        let alg = signer.alg;
        for (name, bytes) in [
            ("zeros", vec![0; length]),
            ("all ones", vec![0xff; length]),
            ("one byte less", raw[..length - 1].to_vec()),
            ("one byte more", [&raw[..], &[0]].concat()),
            ("a zero before", [&[0], &raw[..]].concat()),
            ("a bit flipped", flipped(&raw, 77)),
            ("the number one", [vec![0; length - 1], vec![1]].concat()),
        ] {
            table.token(&format!("{alg} signature: {name}"), &format!("{input}.{}", b64(bytes)));
        }
    }
}

/// Which issuer and subject a token is from, and which audience it is for.
fn identity_claims(scene: &Scene, table: &mut Table) {
    let main = &scene.main;
    let with = |name: &str, value: Value| main.token().claim(name, value).build();
    for iss in [
        "https://stranger.example.com/",
        "https://idp.example.com",
        "https://idp.example.com//",
        "http://idp.example.com/",
        "https://IDP.example.com/",
        "https://idp.example.com/ ",
        " https://idp.example.com/",
        "https://idp.example.com:443/",
        "https://idp.example.com/\u{0}",
        "idp.example.com",
        "https://idp.example.com/.",
        "https://idp.еxample.com/",
        "",
    ] {
        table.token(&format!("iss {iss:?}"), &with("iss", json!(iss)));
    }
    table.token("no iss", &main.token().without("iss").build());
    for (name, value) in wrong_types(&["string"]) {
        table.token(&format!("iss as {name}"), &with("iss", value));
    }
    table.token("iss as an array with the right one", &with("iss", json!([main.name])));

    for (name, aud) in [
        ("another", json!("https://other.example.com")),
        ("empty", json!("")),
        ("an empty array", json!([])),
        ("an array of others", json!(["a", "b"])),
        ("a prefix", json!("https://api.example")),
        ("with a slash", json!("https://api.example.com/")),
        ("in another case", json!("https://API.example.com")),
        ("with spaces", json!(" https://api.example.com ")),
        ("two in one string", json!("x https://api.example.com")),
        ("the issuer", json!(main.name)),
    ] {
        table.token(&format!("aud {name}"), &with("aud", aud));
    }
    table.token("no aud", &main.token().without("aud").build());
    for (name, value) in wrong_types(&["string", "array of strings"]) {
        table.token(&format!("aud as {name}"), &with("aud", value));
    }
    table.token("aud with a number beside the right one", &with("aud", json!([main.audience, 7])));
    table.token("aud in an array in an array", &with("aud", json!([[main.audience]])));
    table.token("aud as an object", &with("aud", json!({main.audience.clone(): true})));

    table.token("no sub", &main.token().without("sub").build());
    table.token("SUB for sub", &main.token().without("sub").claim("SUB", "alice").build());
    table.token("sub null", &with("sub", json!(null)));
    for (name, value) in [
        ("a number", json!(7)),
        ("an array", json!(["alice"])),
        ("an object", json!({})),
        ("true", json!(true)),
    ] {
        table.token(&format!("sub as {name}"), &with("sub", value.clone()));
        table.token(&format!("jti as {name}"), &with("jti", value));
    }
}

/// RFC 7519 §4.1.4 to §4.1.6: all times must be numbers, and all are checked.
fn times(scene: &Scene, table: &mut Table) {
    let main = &scene.main;
    let with = |name: &str, value: Value| main.token().claim(name, value).build();
    let span = |iat: i64, exp: i64| main.token().claim("iat", now() + iat).claim("exp", now() + exp).build();
    table.token("expired", &span(-7200, -3600));
    table.token("expired in 1970", &with("exp", json!(0)));
    table.token("expired before 1970", &with("exp", json!(-5)));
    table.token(
        "expired by a fraction",
        &main.token().with_text(&format!("\"exp\":{}", now() + 3600), "\"exp\":1.5"),
    );
    table.token("exp before iat", &span(-10, -600));
    table.token("no exp", &main.token().without("exp").build());
    table.token("no iat", &main.token().without("iat").build());
    table.token("neither exp nor iat", &main.token().without("exp").without("iat").build());
    for claim in ["exp", "iat", "nbf"] {
        // `null` is like an absent claim, and `nbf` may be absent.
        let fits = if claim == "nbf" { &["number", "null"][..] } else { &["number"] };
        for (name, value) in wrong_types(fits) {
            table.token(&format!("{claim} as {name}"), &with(claim, value));
        }
        table
            .token(&format!("{claim} as a string of digits"), &with(claim, json!((now() + 600).to_string())));
    }
    table.token("issued in the future", &span(600, 1200));
    table.token("not yet valid", &with("nbf", json!(now() + 600)));
    table.token("a lifetime of 25 h", &span(-10, 90_000));
    table.token("a lifetime of one second too much", &span(-10, 86_391));
    table.token("a lifetime of 100 years", &span(0, 3_153_600_000));
    table.token("issued in 1970 for ever", &with("iat", json!(0)));
    for exp in
        ["9223372036854775807", "18446744073709551616", "99999999999999999999999", "1e300", "1e400", "1E+19"]
    {
        let made = main.token().with_text(&format!("\"exp\":{}", now() + 3600), &format!("\"exp\":{exp}"));
        table.token(&format!("exp {exp}"), &made);
    }
    for iat in ["-9223372036854775808", "-1e300", "-1e400", "-1"] {
        let made = main.token().with_text(&format!("\"iat\":{}", now()), &format!("\"iat\":{iat}"));
        table.token(&format!("iat {iat}"), &made);
    }
}

/// Claims with a meaning must have the right type.
fn typed_claims(scene: &Scene, table: &mut Table) {
    let main = &scene.main;
    let with = |name: &str, value: Value| main.token().claim(name, value).build();
    for claim in ["scope", "roles"] {
        for (name, value) in [
            ("a number", json!(7)),
            ("an object", json!({"read:deals": true})),
            ("true", json!(true)),
            ("an array of numbers", json!([1, 2])),
            ("an array with an array", json!([["read:deals"]])),
            ("an array with null", json!(["read:deals", null])),
        ] {
            table.token(&format!("{claim} as {name}"), &with(claim, value));
        }
    }
    for (name, value) in [
        ("a number", json!(7)),
        ("an object", json!({})),
        ("an array", json!(["app"])),
        ("true", json!(true)),
    ] {
        table.token(&format!("client_id as {name}"), &with("client_id", value));
    }
    for (name, value) in [
        ("a string", json!("7")),
        ("negative", json!(-1)),
        ("a fraction", json!(1.5)),
        ("an array", json!([1])),
        ("an object", json!({})),
        ("true", json!(true)),
    ] {
        table.token(&format!("role_version {name}"), &with("role_version", value));
    }
    let thumbprint = b64([7; 32]);
    for (name, cnf) in [
        ("of a certificate, without one", json!({"x5t#S256": thumbprint})),
        ("of a key (DPoP)", json!({"jkt": thumbprint})),
        ("of a whole key", json!({"jwk": main.signers[0].jwk()})),
        ("of a kid", json!({"kid": "key-1"})),
        ("of nothing", json!({})),
        ("as a string", json!("x")),
        ("as an array", json!([])),
        ("as null", json!(null)),
        ("with a thumbprint that is a number", json!({"x5t#S256": 7})),
        ("with a thumbprint that is too short", json!({"x5t#S256": "AAAA"})),
        ("with a thumbprint that is no base64url", json!({"x5t#S256": "+/=="})),
        ("of a certificate and a key", json!({"x5t#S256": thumbprint, "jkt": thumbprint})),
    ] {
        table.token(&format!("cnf {name}"), &with("cnf", cnf));
    }
}

/// RFC 7519 §4: parsers disagree about members with the same name.
fn duplicates(scene: &Scene, table: &mut Table) {
    let token = scene.main.token();
    for (name, value) in [
        ("exp", "9999999999"),
        ("iat", "1"),
        ("nbf", "1"),
        ("iss", "\"https://idp.example.com/\""),
        ("sub", "\"root\""),
        ("aud", "\"https://api.example.com\""),
        ("scope", "\"admin\""),
        ("jti", "\"x\""),
        ("client_id", "\"root\""),
    ] {
        let base = if name == "nbf" { token.clone().claim("nbf", 1) } else { token.clone() };
        table.token(&format!("{name} twice"), &base.with_members(&format!("\"{name}\":{value}")));
        let escaped = format!("\\u{:04x}{}", u32::from(name.as_bytes()[0]), &name[1..]);
        table.token(
            &format!("{name} twice, once escaped"),
            &base.with_members(&format!("\"{escaped}\":{value}")),
        );
    }
    table.token("an unknown member twice", &token.with_members("\"zz\":1,\"zz\":1"));
    table.token("twice within a member", &token.with_members("\"zz\":{\"a\":1,\"a\":2}"));
    table.token("twice within an array", &token.with_members("\"zz\":[{\"a\":1,\"a\":2}]"));
    for (name, value) in
        [("alg", "\"none\""), ("alg", "\"ES256\""), ("kid", "\"key-1\""), ("typ", "\"at+jwt\"")]
    {
        table.token(
            &format!("{name} twice in the header ({value})"),
            &token.with_header_members(&format!("\"{name}\":{value}")),
        );
    }
    table
        .token("alg twice in the header, once escaped", &token.with_header_members("\"\\u0061lg\":\"none\""));
}

/// Values of every JSON type except these.
fn wrong_types(but: &[&str]) -> Vec<(&'static str, Value)> {
    [
        ("a number", "number", json!(7)),
        ("a string", "string", json!("x")),
        ("null", "null", json!(null)),
        ("true", "bool", json!(true)),
        ("an object", "object", json!({"a": 1})),
        ("an array of numbers", "array", json!([7])),
        ("an array of strings", "array of strings", json!(["x"])),
    ]
    .into_iter()
    .filter(|(_, kind, _)| !but.contains(kind))
    .map(|(name, _, value)| (name, value))
    .collect()
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[bit / 8] ^= 0x80 >> (bit % 8);
    bytes
}

/// The order of P-256 (SEC 2 §2.4.2).
fn twin_order() -> [u8; 32] {
    let mut order = [0xff; 32];
    order[4..8].fill(0);
    let tail =
        [0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51];
    order[16..].copy_from_slice(&tail);
    order
}

/// An ECDSA signature in the DER form of X.509, which JOSE does not use.
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let mut body = if bytes[0] & 0x80 == 0 { Vec::new() } else { vec![0] };
        body.extend_from_slice(bytes);
        [vec![2, u8::try_from(body.len()).unwrap()], body].concat()
    };
    let body = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(body.len()).unwrap()], body].concat()
}

#[test]
fn other_spellings_of_a_token_are_no_other_tokens() {
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let gate = Gate::start(&scene.settings(&upstream));
    let good = scene.main.token().claim("jti", "the-one").build();
    let hash = log_hash(&scene.main.name, "the-one");
    let logged = |token: &str| {
        let answer = gate.get("/").token(token).send();
        (answer.status() == 200).then(|| gate.record_of(answer.field("x-request-id").unwrap()).to_string())
    };
    assert!(logged(&good).expect("accepted").contains(&hash));
    let spare = |text: &str| {
        // The last character of 64 bytes in base64url has four bits that say nothing.
        let (start, last) = text.split_at(text.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let at = alphabet.find(last).unwrap();
        format!("{start}{}", &alphabet[at ^ 1..][..1])
    };
    for (name, other) in [("the twin signature", twin(&good)), ("spare bits", spare(&good))] {
        if let Some(record) = logged(&other) {
            assert!(record.contains(&hash), "{name}: accepted as another token: {record}");
        }
    }
}

#[test]
fn keys_that_a_token_names_are_never_fetched() {
    let attacker = Signer::new("ES256", "mine");
    let server = KeyServer::start(json!({"keys": [attacker.jwk()]}));
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let gate = Gate::start(&scene.settings(&upstream));
    for parameter in ["jku", "x5u"] {
        let token = scene.main.token_by(&attacker).head(parameter, server.jwks_url()).build();
        assert_eq!(gate.get("/").token(&token).send().status(), 401);
    }
    let issuer = Issuer::with(&server.issuer_url(), vec![attacker]);
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 401, "nor those of an unknown issuer");
    assert_eq!((server.fetches(), server.discoveries()), (0, 0));
}

#[test]
fn weak_and_misused_keys_of_a_set_verify_nothing() {
    let (upstream, issuer) = (
        RawUpstream::start(),
        Issuer::with(
            "https://idp.example.com/",
            vec![
                Signer::new("ES256", "good"),
                Signer::new("ES256", "for-encryption"),
                Signer::new("ES256", "to-sign"),
                Signer::new("ES256", "other-alg"),
                Signer::new("ES384", "p384"),
            ],
        ),
    );
    let mut jwks = issuer.jwks();
    let keys = jwks["keys"].as_array_mut().unwrap();
    keys[1]["use"] = json!("enc");
    keys[2]["key_ops"] = json!(["sign"]);
    keys[3]["alg"] = json!("ES384");
    keys[4]["alg"] = json!("ES256");
    for broken in [
        json!({"kty": "unknown", "kid": "a"}),
        json!({"kid": "b"}),
        json!({"kty": "EC", "kid": "c"}),
        json!(7),
        json!({"kty": "EC", "crv": "P-256", "kid": "d", "x": "AAAA", "y": "AAAA"}),
        json!({"kty": "EC", "crv": "P-256", "kid": "e", "x": b64([0; 32]), "y": b64([0; 32])}),
        json!({"kty": "oct", "kid": "oct", "k": b64(SECRET), "alg": "HS256"}),
        json!({"kty": "RSA", "kid": "f", "n": "", "e": "AQAB"}),
        json!({"kty": "RSA", "kid": "g", "n": b64([0xff; 64]), "e": "AQAB"}),
    ] {
        keys.push(broken);
    }
    let settings = Settings::plaintext().upstream("api", &upstream.url(), "");
    settings.file("keys.json", jwks.to_string());
    let settings =
        settings.issuer_from(&issuer, &Source::File("keys.json".to_owned()), "").route("/{*rest}", "");
    let gate = Gate::start(&settings);
    assert_eq!(
        gate.get("/").token(&issuer.good()).send().status(),
        200,
        "unusable keys do not spoil the set"
    );
    for signer in &issuer.signers[1..4] {
        let answer = gate.get("/").token(&issuer.token_by(signer).build()).send();
        assert_eq!(answer.status(), 401, "{}", signer.kid);
    }
    let header = issuer.token().head("kid", "oct").head("alg", "HS256").header_json();
    let token = compact(
        &Signer::secret("HS256", SECRET),
        "HS256",
        header.as_bytes(),
        issuer.token().claims_json().as_bytes(),
    );
    assert_eq!(gate.get("/").token(&token).send().status(), 401, "a symmetric key in a public set");
}

#[test]
fn an_rsa_key_of_1024_bits_verifies_nothing() {
    use base64::Engine as _;
    use testkit::gate::path_text;
    use testkit::tools::run;

    let (upstream, issuer) = (RawUpstream::start(), Issuer::new());
    let settings = Settings::plaintext().upstream("api", &upstream.url(), "");
    let key = settings.folder().join("weak.pem");
    run("openssl", &["genrsa", "-out", path_text(&key), "1024"]);
    let modulus = run("openssl", &["rsa", "-in", path_text(&key), "-noout", "-modulus"]);
    let hex = modulus.trim().strip_prefix("Modulus=").unwrap();
    let bytes: Vec<u8> =
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    let jwks = json!({"keys": [{"kty": "RSA", "kid": "weak", "alg": "RS256", "n": b64(bytes), "e": "AQAB"}, issuer.signers[0].jwk()]});
    settings.file("keys.json", jwks.to_string());
    let settings =
        settings.issuer_from(&issuer, &Source::File("keys.json".to_owned()), "").route("/{*rest}", "");
    let gate = Gate::start(&settings);

    let token = issuer.token().head("kid", "weak").head("alg", "RS256");
    let input = format!("{}.{}", b64(token.header_json()), b64(token.claims_json()));
    let message = settings.file("message", &input);
    let signed = settings.folder().join("signature.b64");
    run(
        "openssl",
        &["dgst", "-sha256", "-sign", path_text(&key), "-out", path_text(&signed), path_text(&message)],
    );
    let weak = format!("{input}.{}", b64(std::fs::read(&signed).unwrap()));
    assert_eq!(
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(weak.rsplit_once('.').unwrap().1)
            .unwrap()
            .len(),
        128
    );
    assert_eq!(gate.get("/").token(&weak).send().status(), 401);
    assert_eq!(gate.get("/").token(&issuer.good()).send().status(), 200);
}

/// Holds docs/configuration.md, Settings: issuers[].algorithms
#[test]
fn every_algorithm_that_can_be_configured_works_and_no_other() {
    let upstream = RawUpstream::start();
    let all = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];
    let signers: Vec<Signer> = all.iter().map(|alg| Signer::new(alg, alg)).collect();
    let issuer = Issuer::with("https://idp.example.com/", signers);
    for allowed in all {
        let settings = Settings::plaintext()
            .upstream("api", &upstream.url(), "")
            .issuer_with(&issuer, &format!("algorithms = [\"{allowed}\"]"))
            .route("/{*rest}", "");
        let gate = Gate::start(&settings);
        for signer in &issuer.signers {
            let expected = if signer.alg == allowed { 200 } else { 401 };
            let answer = gate.get("/").token(&issuer.token_by(signer).build()).send();
            assert_eq!(answer.status(), expected, "{} where {allowed} is allowed", signer.alg);
        }
    }
    for alg in ["HS256", "HS384", "HS512"] {
        let issuer = Issuer::with("https://idp.example.com/", vec![Signer::secret(alg, SECRET)]);
        let source = Source::Secret(String::from_utf8(SECRET.to_vec()).unwrap());
        let settings = Settings::plaintext()
            .upstream("api", &upstream.url(), "")
            .issuer_from(&issuer, &source, &format!("algorithms = [\"{alg}\"]"))
            .route("/{*rest}", "");
        assert_eq!(Gate::start(&settings).get("/").token(&issuer.good()).send().status(), 200, "{alg}");
    }
}

/// RFC 9864 §2.2: `Ed25519` is another name of EdDSA with an Ed25519 key.
///
/// Holds docs/configuration.md, Settings: issuers[].algorithms
#[test]
fn ed25519_and_eddsa_are_names_of_the_same_algorithm() {
    let upstream = RawUpstream::start();
    let issuer = Issuer::with("https://idp.example.com/", vec![Signer::new("EdDSA", "ed")]);
    let other = Issuer::with("https://idp.example.com/", vec![Signer::new("EdDSA", "ed")]);
    let sets = [Some("EdDSA"), Some("Ed25519"), None].map(|alg| {
        let mut set = issuer.jwks();
        match alg {
            Some(alg) => set["keys"][0]["alg"] = json!(alg),
            None => drop(set["keys"][0].as_object_mut().unwrap().remove("alg")),
        }
        set
    });
    for allowed in ["\"EdDSA\"", "\"Ed25519\"", "\"Ed25519\", \"ES256\", \"EdDSA\""] {
        for set in &sets {
            let settings = Settings::plaintext();
            settings.file("keys.json", set.to_string());
            let settings = settings
                .upstream("api", &upstream.url(), "")
                .issuer_from(
                    &issuer,
                    &Source::File("keys.json".to_owned()),
                    &format!("algorithms = [{allowed}]"),
                )
                .route("/{*rest}", "");
            let gate = Gate::start(&settings);
            for name in ["EdDSA", "Ed25519"] {
                let status = |issuer: &Issuer| {
                    let token = issuer.token().claim("jti", unique()).head("alg", name).build();
                    gate.get("/").token(&token).send().status()
                };
                assert_eq!(status(&issuer), 200, "{name} where {allowed} is allowed, {set}");
                assert_eq!(status(&other), 401, "{name} by another key where {allowed} is allowed, {set}");
            }
        }
    }
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(
            &Issuer::with("https://idp.example.com/", vec![Signer::new("ES256", "ed")]),
            "algorithms = [\"ES256\"]",
        )
        .route("/{*rest}", "");
    let token = issuer.token().head("alg", "Ed25519").build();
    assert_eq!(Gate::start(&settings).get("/").token(&token).send().status(), 401, "not where only ES256 is");
}

/// The counters of rejected requests.
const COUNTED: [&str; 4] = [
    "portcullis_requests_total",
    "portcullis_decisions_total",
    "portcullis_proof_cache_total",
    "portcullis_enforce_duration_seconds_count",
];

/// Each series that counts requests.
fn counts(scrape: &Scrape) -> BTreeMap<String, f64> {
    let mut counts = BTreeMap::new();
    for name in COUNTED {
        counts.extend(scrape.family(name).map(|(labels, count)| (format!("{name} {labels:?}"), count)));
    }
    counts
}

/// How many requests the gate has decided and completely counted.
fn decided(scrape: &Scrape) -> f64 {
    let sum = |name| scrape.sum(name, &[]);
    sum("portcullis_decisions_total").min(sum("portcullis_requests_total"))
}

/// A response and its log line, without what differs between any two requests.
fn shown(gate: &Gate, wire: &mut Wire, request: &[u8]) -> String {
    let mut answer = wire.exchange(request).unwrap();
    let id = answer.field("x-request-id").unwrap().to_owned();
    let mut record = gate.record_of(&id);
    let members = record.as_object_mut().unwrap();
    for name in ["ts", "duration_us", "total_us"] {
        members.remove(name);
    }
    answer.head.fields.retain(|(name, _)| name != "date");
    format!("{:?} {} {record}", answer.head, answer.text()).replace(&id, "ID")
}

#[test]
fn every_hostile_token_meets_the_same_answer_log_line_and_counts_when_it_comes_again() {
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let secret = Source::Secret(String::from_utf8(SECRET.to_vec()).unwrap());
    // Once, and not again in the middle of a round: what is decided after an answer is counted as well.
    let asking = "refresh_interval = \"1h\"\nrefresh_cooldown = \"1h\"";
    let settings = Settings::tls()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&scene.main, asking)
        .issuer_with(&scene.other, asking)
        .issuer_from(&scene.shared, &secret, "algorithms = [\"HS256\"]")
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    assert_eq!(gate.get("/").token(&scene.main.good()).send().status(), 200);
    let rows = table(&scene);
    let mut answers: Vec<Vec<String>> = Vec::new();
    let mut scrapes = vec![gate.wait_for_metric("the good token is counted", |scrape| {
        (decided(scrape) >= 1.0).then(|| counts(scrape))
    })];
    for round in 1..=3_u32 {
        let mut wire = gate.connect();
        let mut seen = Vec::new();
        for row in &rows {
            let mut request = b"GET /hostile HTTP/1.1\r\nHost: api.test\r\nAuthorization: ".to_vec();
            request.extend_from_slice(&row.credentials);
            request.extend_from_slice(b"\r\n\r\n");
            let all = shown(&gate, &mut wire, &request);
            if all.contains("\"close\"") {
                wire = gate.connect();
            }
            seen.push(all);
        }
        answers.push(seen);
        let expected = 1.0 + f64::from(round) * rows.len() as f64;
        scrapes.push(gate.wait_for_metric("every decision is counted", |scrape| {
            (decided(scrape) >= expected).then(|| counts(scrape))
        }));
    }
    for (row, name) in rows.iter().map(|row| &row.name).enumerate() {
        assert_eq!(answers[2][row], answers[1][row], "{name}");
        // Of a token that is truly signed and may not be used as it was, the proof is remembered.
        if !answers[0][row].contains("token_hash") {
            assert_eq!(answers[1][row], answers[0][row], "{name}");
        }
    }
    let more = |round: usize| {
        let before = |name: &str| scrapes[round - 1].get(name).copied().unwrap_or_default();
        let grown = scrapes[round].iter().map(|(name, count)| (name.clone(), count - before(name)));
        grown.filter(|(_, more)| *more > 0.0).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(more(3), more(2));
    let decided = |round: usize| {
        let mut counts = more(round);
        counts.retain(|name, _| name.contains("decisions") || name.contains("requests"));
        counts
    };
    assert_eq!(decided(2), decided(1));
    assert_eq!(upstream.count(), 1, "none of them reached the upstream");
}

#[test]
fn a_bad_token_stays_bad_and_a_good_one_good_when_they_alternate() {
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let gate = Gate::start(&scene.settings(&upstream));
    let good = scene.main.good();
    let (input, _) = good.rsplit_once('.').unwrap();
    let forged = format!("{input}.{}", b64([7; 64]));
    for _ in 0..20 {
        assert_eq!(gate.get("/").token(&good).send().status(), 200);
        assert_eq!(gate.get("/").token(&forged).send().status(), 401, "a cached proof is of the whole token");
    }
    let scrape = gate.metrics();
    assert!(scrape.sum("portcullis_proof_cache_total", &[("result", "hit")]) >= 19.0);
}

#[test]
fn a_cached_token_expires_on_time() {
    let (scene, upstream) = (Scene::new(), RawUpstream::start());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&scene.main, "leeway = \"0s\"")
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let mut expires_at = 0;
    let token = gate.use_in_time("/", || {
        expires_at = now() + 3;
        scene.main.token().claim("iat", expires_at - 4).claim("exp", expires_at).build()
    });
    testkit::eventually("the token expires although its proof is cached", || {
        let asked_at = now();
        let is_accepted = gate.get("/").token(&token).send().status() == 200;
        assert!(!is_accepted || asked_at < expires_at, "let through at {asked_at} or later");
        (!is_accepted).then_some(())
    });
    assert!(now() >= expires_at, "refused before its time");
}

#[test]
fn leeway_ends_where_it_is_configured() {
    let (issuer, upstream) = (Issuer::new(), RawUpstream::start());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, "leeway = \"1m\"")
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    for (claim, offset, decision) in [
        ("exp", -50, "allow"),
        ("exp", -61, "deny/expired"),
        ("nbf", 50, "allow"),
        ("nbf", 70, "deny/not_yet_valid"),
        ("iat", 50, "allow"),
        ("iat", 70, "deny/issued_in_future"),
    ] {
        let token = issuer.token().claim("iat", now() - 600).claim(claim, now() + offset).build();
        let (_, decided) = gate.decision(|| gate.get("/").token(&token).send());
        assert!(decided.starts_with(decision), "{claim} {offset}: {decided}");
    }
}

#[test]
fn required_claims_are_required() {
    let (issuer, upstream) = (Issuer::new(), RawUpstream::start());
    let settings = Settings::plaintext()
        .upstream("api", &upstream.url(), "")
        .issuer_with(&issuer, "required_claims = [\"sub\", \"jti\", \"client_id\", \"tenant\"]")
        .route("/{*rest}", "");
    let gate = Gate::start(&settings);
    let whole = || -> Token<'_> { issuer.token().claim("tenant", "acme") };
    assert_eq!(gate.get("/").token(&whole().build()).send().status(), 200);
    for claim in ["sub", "jti", "client_id", "tenant"] {
        let (answer, decision) =
            gate.decision(|| gate.get("/").token(&whole().without(claim).build()).send());
        assert_eq!((answer.status(), decision.as_str()), (401, "deny/missing_claim"), "{claim}");
    }
}
