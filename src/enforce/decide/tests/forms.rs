//! Tokens in forms that no parser should have to accept.

use serde_json::json;

use super::hostile::check;
use crate::enforce::denial::Reason;
use crate::enforce::testing::{NOW, OTHER, SIGNERS, b64, header, payload, token, token_of};
use crate::jose::jws::decode;

#[test]
fn texts_that_have_two_readings() {
    let head = header(json!({})).to_string();
    let claims = payload(json!({})).to_string();
    let twice = |text: &str, member: &str| format!("{},{member}}}", text.trim_end_matches('}'));
    let rows: Vec<_> = [
        token_of(&SIGNERS.es256, &twice(&head, r#""alg":"ES256""#), &claims),
        token_of(&SIGNERS.es256, &twice(&head, r#""\u0061lg":"none""#), &claims),
        token_of(&SIGNERS.es256, &twice(&head, r#""kid":"rs""#), &claims),
        token_of(&SIGNERS.es256, &twice(&head, r#""x":{"a":1,"a":1}"#), &claims),
        token_of(&SIGNERS.es256, &head, &twice(&claims, r#""sub":"root""#)),
        token_of(&SIGNERS.es256, &head, &twice(&claims, r#""s\u0075b":"root""#)),
        token_of(&SIGNERS.es256, &head, &twice(&claims, &format!(r#""exp":{}"#, NOW + 601))),
        token_of(&SIGNERS.es256, &head, &twice(&claims, &format!(r#""iss":"{OTHER}""#))),
        token_of(&SIGNERS.es256, &head, &twice(&claims, r#""x":{"roles":[],"roles":["admin"]}"#)),
        token_of(&SIGNERS.es256, &head, &twice(&claims, r#""x":[[{"a":1,"a":2}]]"#)),
        token_of(
            &SIGNERS.es256,
            &head,
            &twice(&claims, &format!(r#""x":{}{}"#, "[".repeat(100), "]".repeat(100))),
        ),
    ]
    .into_iter()
    .map(|token| (token, Reason::BadClaim))
    .collect();
    check(&rows);
}

#[test]
fn strings_that_are_no_jwt() {
    let good = token(&payload(json!({})));
    let [head, claims, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let bytes = |text: &[u8]| b64(text);
    let rows: Vec<_> = [
        "opaque".to_owned(),
        "2YotnFZFEjr1zCsicMWpAA==".to_owned(),
        ".".to_owned(),
        "..".to_owned(),
        "...".to_owned(),
        format!("{head}.{claims}"),
        format!("{head}.{claims}.{signature}.x"),
        format!("{head}.{claims}.{signature}."),
        format!(".{head}.{claims}.{signature}"),
        format!("{head}..{signature}"),
        format!(".{claims}.{signature}"),
        format!("{head}.{claims}.{signature}="),
        format!("{head}.{claims}.{signature}=="),
        format!("{head}.{claims}.+{signature}"),
        format!("{head}.{claims}.~"),
        format!("{head}.{claims}.a"),
        format!("{head}/.{claims}.{signature}"),
        format!("{head}.{claims}.{head}.{claims}.{signature}"),
        format!("{}.{claims}.{signature}", bytes(b"{}x")),
        format!("{}.{claims}.{signature}", bytes(b"[]")),
        format!("{}.{claims}.{signature}", bytes(b"\"ES256\"")),
        format!("{}.{claims}.{signature}", bytes(b"\xff\xfe")),
        format!("{}.{claims}.{signature}", bytes(b"{\"alg\":\"ES256\"")),
        format!("{head}.{}.{signature}", bytes(b"null")),
        format!("{head}.{}.{signature}", bytes(b"claims")),
        format!("{head}.{}.{signature}", bytes(b"{\"exp\":NaN}")),
        format!("{head}.{}.{signature}", bytes(b"{\"exp\":1e999}")),
        format!("{head}.{}.{signature}", bytes(b"\xef\xbb\xbf{}")),
    ]
    .into_iter()
    .map(|token| (token, Reason::NotJwt))
    .collect();
    check(&rows);
}

#[test]
fn signatures_that_are_none() {
    let good = token(&payload(json!({})));
    let (input, signature) = good.rsplit_once('.').expect("a signature");
    let other_claims = b64(payload(json!({"sub": "root"})).to_string().as_bytes());
    let head = input.split('.').next().expect("a header");
    let raw = decode(signature.as_bytes()).expect("base64");
    let (r, s) = raw.split_at(32);
    let der = [&[0x30, 0x44, 0x02, 0x20][..], r, &[0x02, 0x20], s].concat();
    let with = |signature: &[u8]| format!("{input}.{}", b64(signature));
    let rows: Vec<_> = [
        format!("{input}."),
        format!("{head}.{other_claims}.{signature}"),
        // CVE-2022-21449: zero verifies everything with a careless verifier.
        with(&[0; 64]),
        with(&[0; 32].iter().chain(s).copied().collect::<Vec<_>>()),
        with(&[255; 64]),
        with(&der),
        with(&raw[..63]),
        with(&[&raw[..], &[0]].concat()),
        with(&[s, r].concat()),
        with(&raw.iter().enumerate().map(|(i, b)| if i == 40 { b ^ 1 } else { *b }).collect::<Vec<_>>()),
    ]
    .into_iter()
    .map(|token| (token, Reason::BadSignature))
    .collect();
    check(&rows);
}
