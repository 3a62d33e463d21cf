//! Every refusal in every form.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;

use super::*;
use crate::forward::{BadAnswer, RequestBodyError};

fn id() -> HeaderValue {
    HeaderValue::from_static("0123456789abcdef0123456789abcdef")
}

/// Status, `error` of the body, challenge.
fn told(refusal: &GateRefusal) -> (u16, String, Option<String>) {
    let answer = refusal.to_response(AnswerForm::Json, &id());
    let headers = answer.headers();
    assert_eq!(headers.get(CACHE_CONTROL).unwrap(), "no-store");
    assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "application/json");
    assert_eq!(headers.get(X_REQUEST_ID).unwrap(), id());
    assert_eq!(headers.contains_key(RETRY_AFTER), answer.status() == StatusCode::SERVICE_UNAVAILABLE);
    let body = answer.body().clone().unwrap();
    assert_eq!(headers.get(CONTENT_LENGTH).unwrap(), &body.len().to_string());
    let json: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&body).unwrap();
    assert_eq!(json.len(), 3, "{json:?}");
    assert_eq!(json.get("request_id").unwrap(), id().to_str().unwrap());
    assert!(!json.get("error_description").unwrap().as_str().unwrap().is_empty());
    let challenge = headers.get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
    (answer.status().as_u16(), json.get("error").unwrap().as_str().unwrap().to_owned(), challenge)
}

#[test]
fn denials_are_answered_as_promised() {
    let bare = r#"Bearer realm="portcullis""#;
    for (reason, status, error, challenge) in [
        (Reason::Missing, 401, "missing_token", Some(bare.to_owned())),
        (Reason::NoRouteNoToken, 401, "missing_token", Some(bare.to_owned())),
        (Reason::NoRoute, 403, "access_denied", None),
        (Reason::BadTarget, 400, "invalid_request", None),
        (
            Reason::Expired,
            401,
            "invalid_token",
            Some(format!(
                r#"{bare}, error="invalid_token", error_description="The access token has expired""#
            )),
        ),
        (Reason::KeysUnavailable, 503, "temporarily_unavailable", None),
        (Reason::StateUnavailable, 503, "temporarily_unavailable", None),
        (Reason::SignalsStale, 503, "temporarily_unavailable", None),
        (Reason::Overloaded, 503, "temporarily_unavailable", None),
    ] {
        assert_eq!(told(&GateRefusal::from(reason)), (status, error.to_owned(), challenge), "{reason:?}");
    }
}

#[test]
fn every_reason_has_an_answer_whose_challenge_and_body_agree() {
    for reason in Reason::ALL {
        let (status, error, challenge) = told(&GateRefusal::from(reason));
        assert!((400..=503).contains(&status), "{reason:?}");
        assert_eq!(challenge.is_some(), status == 401 || challenge.is_some(), "{reason:?}");
        if let Some(challenge) = challenge.filter(|text| text.contains("error=")) {
            assert!(challenge.contains(&format!(r#"error="{error}""#)), "{challenge}");
        }
    }
}

#[test]
fn the_scopes_that_are_missing_are_named_unless_they_cannot_be_written() {
    let challenge = |scope: &str| {
        let denial = Denial { scope: Some(Arc::from(scope)), ..Reason::InsufficientScope.into() };
        told(&GateRefusal::denied(&denial, None)).2.unwrap()
    };
    assert!(challenge("read:deals read:users").ends_with(r#", scope="read:deals read:users""#));
    for unwritable in ["a\"b", "a\\b", "a\nb", "\u{e9}"] {
        assert!(!challenge(unwritable).contains("scope=\""), "{unwritable}");
    }
}

#[test]
fn a_failing_upstream_is_answered_as_promised() {
    let io = || io::Error::from(io::ErrorKind::ConnectionRefused);
    for (error, status, word, close) in [
        (ForwardError::Connect(io()), 502, "upstream_unreachable", false),
        (ForwardError::Tls(io()), 502, "upstream_unreachable", false),
        (ForwardError::Closed(io()), 502, "upstream_unreachable", false),
        (ForwardError::BadAnswer(BadAnswer::Switch), 502, "upstream_unreachable", false),
        (ForwardError::Loop, 502, "upstream_unreachable", false),
        (ForwardError::Timeout, 504, "upstream_timeout", false),
        (ForwardError::Host, 400, "invalid_request", false),
        (ForwardError::Target, 400, "invalid_request", false),
        (ForwardError::RequestBody(RequestBodyError::TooLarge), 413, "request_too_large", true),
        (ForwardError::RequestBody(RequestBodyError::Stalled), 408, "invalid_request", true),
        (ForwardError::RequestBody(RequestBodyError::Length), 400, "invalid_request", true),
    ] {
        let refusal = GateRefusal::from(&error);
        assert_eq!(told(&refusal), (status, word.to_owned(), None), "{error}");
        assert_eq!((refusal.reason, refusal.close), (None, close), "{error}");
    }
}

#[test]
fn limits_and_faults_are_answered_as_promised() {
    let fault = |status: u16, of_target| {
        let status = StatusCode::from_u16(status).unwrap();
        GateRefusal::from(Http1Fault { status, problem: "What is wrong", of_target })
    };
    for (refusal, status, error, reason) in [
        (GateRefusal::BODY_TOO_LARGE, 413, "request_too_large", Reason::Overloaded),
        (GateRefusal::TOO_MANY_FIELDS, 431, "headers_too_large", Reason::Overloaded),
        (GateRefusal::NO_CONNECT, 405, "method_not_allowed", Reason::BadTarget),
        (GateRefusal::BAD_HOST, 400, "invalid_request", Reason::BadTarget),
        (GateRefusal::BAD_LENGTH, 400, "invalid_request", Reason::Malformed),
        (GateRefusal::BAD_NAME, 400, "invalid_request", Reason::Malformed),
        (GateRefusal::OVERLOADED, 503, "temporarily_unavailable", Reason::Overloaded),
        (fault(400, false), 400, "invalid_request", Reason::Malformed),
        (fault(400, true), 400, "invalid_request", Reason::BadTarget),
        (fault(405, false), 405, "method_not_allowed", Reason::BadTarget),
        (fault(414, false), 414, "invalid_request", Reason::Overloaded),
        (fault(431, false), 431, "headers_too_large", Reason::Overloaded),
        (fault(501, false), 501, "invalid_request", Reason::Malformed),
        (fault(505, false), 505, "invalid_request", Reason::Malformed),
    ] {
        assert_eq!(told(&refusal), (status, error.to_owned(), None));
        assert_eq!(refusal.reason, Some(reason));
    }
}

#[test]
fn grpc_is_refused_in_its_own_form() {
    for (refusal, grpc) in [
        (GateRefusal::from(Reason::Missing), "16"),
        (GateRefusal::from(Reason::Expired), "16"),
        (GateRefusal::from(Reason::NoRoute), "7"),
        (GateRefusal::from(Reason::InsufficientScope), "7"),
        (GateRefusal::from(Reason::Ambiguous), "3"),
        (GateRefusal::from(Reason::KeysUnavailable), "14"),
        (GateRefusal::from(&ForwardError::Timeout), "4"),
        (GateRefusal::from(&ForwardError::BadAnswer(BadAnswer::Switch)), "14"),
        (GateRefusal::BODY_TOO_LARGE, "8"),
    ] {
        let answer = refusal.to_response(AnswerForm::Grpc, &id());
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers().get(GRPC_STATUS).unwrap(), grpc);
        assert_eq!(answer.headers().get(CONTENT_TYPE).unwrap(), "application/grpc");
        assert_eq!(answer.headers().get(X_REQUEST_ID).unwrap(), id());
        assert!(!answer.headers().get(GRPC_MESSAGE).unwrap().is_empty());
        assert!(!answer.headers().contains_key(CONTENT_LENGTH));
        assert!(answer.body().is_none());
    }
    assert_eq!(percent_encoded("100 % \u{e9}\n"), "100 %25 %C3%A9%0A");
}

#[test]
fn the_form_follows_the_request() {
    let form = |method: &Method, content_type: Option<&'static str>| {
        let content_type = content_type.map(|value| (CONTENT_TYPE, HeaderValue::from_static(value)));
        AnswerForm::of(method, &content_type.into_iter().collect())
    };
    for (content_type, expected) in [
        (None, AnswerForm::Json),
        (Some("application/json"), AnswerForm::Json),
        (Some("application/grp"), AnswerForm::Json),
        (Some("text/application/grpc"), AnswerForm::Json),
        (Some("application/grpc"), AnswerForm::Grpc),
        (Some("Application/gRPC+proto"), AnswerForm::Grpc),
        (Some("application/grpc; charset=utf-8"), AnswerForm::Grpc),
        (Some("application/grpc-web"), AnswerForm::Grpc),
    ] {
        assert_eq!(form(&Method::POST, content_type), expected, "{content_type:?}");
    }
    assert_eq!(form(&Method::HEAD, None), AnswerForm::Head);
    let head = GateRefusal::from(Reason::Missing).to_response(AnswerForm::Head, &id());
    assert_eq!(head.status(), StatusCode::UNAUTHORIZED);
    assert!(head.headers().contains_key(CONTENT_LENGTH) && head.body().is_none());
}

#[test]
fn bytes_of_a_refusal_are_a_whole_answer_that_ends_the_connection() {
    for (head_only, method) in [(false, "GET"), (true, "HEAD")] {
        let bytes = GateRefusal::BAD_HOST.to_bytes(&id(), head_only);
        let mut fields = [httparse::EMPTY_HEADER; 16];
        let mut parsed = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(head)) = parsed.parse(&bytes) else { panic!("{method}") };
        assert_eq!((parsed.code, parsed.reason), (Some(400), Some("Bad Request")));
        let field =
            |name: &str| parsed.headers.iter().find(|field| field.name == name).map(|field| field.value);
        assert_eq!(field("connection"), Some(&b"close"[..]));
        let length = std::str::from_utf8(field("content-length").unwrap()).unwrap().parse::<usize>().unwrap();
        assert_eq!(bytes.len() - head, if head_only { 0 } else { length });
    }
}

#[test]
fn request_ids_are_128_bits_that_differ() {
    let (one, two) = (RequestIds::new(), RequestIds::new());
    let ids: HashSet<String> =
        (0..1000).flat_map(|_| [one.next(), two.next()]).map(|id| id.to_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 2000);
    assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
}

#[test]
fn a_request_id_is_believed_when_it_can_stand_anywhere() {
    let believed = |values: &[&str]| {
        let headers: HeaderMap = values
            .iter()
            .map(|value| (X_REQUEST_ID, HeaderValue::from_bytes(value.as_bytes()).unwrap()))
            .collect();
        believable_request_id(&headers).cloned()
    };
    for good in ["a", "0123-4567_89.ab:cd/ef+gh=@~", &"x".repeat(128)] {
        assert_eq!(believed(&[good]).unwrap(), good);
    }
    for bad in ["", "a b", "a\"b", "a\\b", "a\u{e9}", "<a>", "a,b", &"x".repeat(129)] {
        assert_eq!(believed(&[bad]), None, "{bad}");
    }
    assert_eq!(believed(&["a", "b"]), None);
}
