//! Calls to a transmitter's API: one request for each step, one result for the state machine.

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::description::{KnownStream, StreamStatus};
use super::machine::StreamMachine;
use super::metadata::StreamMetadata;
use super::steps::{StreamAnswer, StreamStep, UpdateMethod};
use crate::client::{Client, GetError, Url};
use crate::jose::json;
use crate::keys::source::signals_metadata_url;
use crate::signals::Concealed;
use crate::signals::ssf::{Settings, StreamAccess};
use crate::time::Timestamp;

/// The timeout of a request.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);
/// The assumed lifetime of a token if the server does not state one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(300);
/// The shortest and the longest lifetime assumed for a token, whatever the server states.
const SHORTEST_LIFETIME: Duration = Duration::from_secs(1);
const LONGEST_LIFETIME: Duration = Duration::from_secs(86_400);

/// The API of one transmitter, with its credentials.
#[derive(Debug)]
pub(super) struct StreamApi<'a> {
    settings: &'a Settings,
    access: &'a StreamAccess,
    client: &'a Client,
    /// The access token.
    token: Option<Concealed>,
}

impl<'a> StreamApi<'a> {
    pub(super) fn new(settings: &'a Settings, access: &'a StreamAccess, client: &'a Client) -> Self {
        let token = match access {
            StreamAccess::Token(token) => Some(token.clone()),
            StreamAccess::Client { .. } => None,
        };
        Self { settings, access, client, token }
    }

    /// The `Authorization` value for the polling endpoint.
    pub(super) fn authorization(&self) -> Option<Concealed> {
        self.token.as_ref().map(|token| Concealed::new(format!("Bearer {}", token.reveal())))
    }

    /// Performs a step. `state` is the state for the next verification.
    pub(super) async fn perform(
        &mut self,
        step: &StreamStep,
        machine: &StreamMachine,
        state: &str,
    ) -> StreamAnswer {
        let answer = match step {
            StreamStep::Discover => self.discover().await,
            StreamStep::Authorize => self.authorize().await,
            StreamStep::Find
            | StreamStep::Create
            | StreamStep::Update(..)
            | StreamStep::Verify(_)
            | StreamStep::ReadStatus(_)
            | StreamStep::AddSubject(..)
            | StreamStep::Wait(_) => {
                match request(step, machine, state, &self.settings.subject_issuer.issuer.issuer) {
                    Some((url, method, body)) => {
                        let read = reader(step);
                        let call = self.call(&url, method, body.as_ref()).await;
                        call.and_then(|response| understood(&response, read))
                    }
                    None => Err("the transmitter has no such endpoint".to_owned()),
                }
            }
        };
        answer.unwrap_or_else(StreamAnswer::Failed)
    }

    async fn discover(&self) -> Result<StreamAnswer, String> {
        let (issuer, insecure_http) = (&self.settings.issuer, self.settings.transmission.insecure_http);
        let place = signals_metadata_url(issuer, insecure_http).map_err(|error| error.to_string())?;
        let url = Url::parse(&place, insecure_http).map_err(|error| format!("{place} {error}"))?;
        let document = self.client.get(&url).await.map_err(|error| format!("{place}: {error}"))?;
        let metadata = StreamMetadata::read(&document, issuer, insecure_http)?;
        Ok(StreamAnswer::Metadata(Box::new(metadata)))
    }

    /// Fetches an access token (RFC 6749 §4.4), with the credentials in the header field that every
    /// server supports (§2.3.1).
    async fn authorize(&mut self) -> Result<StreamAnswer, String> {
        let StreamAccess::Client { token_url, id, secret, scopes } = self.access else {
            return Err("no credential is configured for fetching a token".to_owned());
        };
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !scopes.is_empty() {
            form.append_pair("scope", &scopes.join(" "));
        }
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let credentials = STANDARD.encode(format!("{}:{}", encoded(id), encoded(secret.reveal())));
        let mut request = Request::new(Bytes::from(form.finish()));
        *request.method_mut() = Method::POST;
        let fields = request.headers_mut();
        fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
        fields.insert(AUTHORIZATION, sensitive(&format!("Basic {credentials}"))?);
        let response = send(self.client, token_url, request).await?;
        let mut fetched = None;
        let answer = understood(&response, |body| {
            let (token, lifetime) = read_token(body)?;
            fetched = Some(token);
            Ok(StreamAnswer::Token(lifetime))
        });
        if fetched.is_some() {
            self.token = fetched;
        }
        answer
    }

    async fn call(&self, url: &Url, method: Method, body: Option<&Value>) -> Result<Response<Bytes>, String> {
        let mut request = Request::new(body.map(|body| Bytes::from(body.to_string())).unwrap_or_default());
        *request.method_mut() = method;
        let fields = request.headers_mut();
        fields.insert(ACCEPT, HeaderValue::from_static("application/json"));
        if body.is_some() {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = self.authorization() {
            fields.insert(AUTHORIZATION, sensitive(authorization.reveal())?);
        }
        send(self.client, url, request).await
    }
}

/// A header value that does not appear in debug output.
pub(super) fn sensitive(value: &str) -> Result<HeaderValue, String> {
    let value = HeaderValue::from_str(value);
    let mut value = value.map_err(|_why| "the credential is not a valid header value".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

async fn send(client: &Client, url: &Url, request: Request<Bytes>) -> Result<Response<Bytes>, String> {
    let answer = timeout(RESPONSE_TIMEOUT, client.send(url, request)).await;
    answer.unwrap_or(Err(GetError::Timeout)).map_err(|error| error.to_string())
}

/// The URL, method and body of a step's request; `None` if the transmitter has no endpoint for it.
fn request(
    step: &StreamStep,
    machine: &StreamMachine,
    state: &str,
    subject_issuer: &str,
) -> Option<(Url, Method, Option<Value>)> {
    let metadata = machine.metadata()?;
    let wanted = &machine.terms().wanted;
    let configuration = metadata.configuration.clone();
    Some(match step {
        StreamStep::Discover | StreamStep::Authorize | StreamStep::Wait(_) => return None,
        StreamStep::Find => (configuration, Method::GET, None),
        StreamStep::Create => (configuration, Method::POST, Some(wanted.body(None))),
        StreamStep::Update(id, UpdateMethod::Patch) => {
            (configuration, Method::PATCH, Some(wanted.body(Some(id))))
        }
        StreamStep::Update(id, UpdateMethod::Put) => {
            (configuration, Method::PUT, Some(wanted.body(Some(id))))
        }
        StreamStep::Verify(id) => {
            (metadata.verification.clone()?, Method::POST, Some(json!({"stream_id": id, "state": state})))
        }
        StreamStep::ReadStatus(id) => {
            (metadata.status.as_ref()?.with_parameter("stream_id", id), Method::GET, None)
        }
        StreamStep::AddSubject(id, subject) => {
            let subject = json!({"format": "iss_sub", "iss": subject_issuer, "sub": subject});
            let body = json!({"stream_id": id, "subject": subject, "verified": true});
            (metadata.add_subject.clone()?, Method::POST, Some(body))
        }
    })
}

/// The parser for the body of a successful response to a step.
fn reader(step: &StreamStep) -> fn(&[u8]) -> Result<StreamAnswer, String> {
    match step {
        StreamStep::Find => |body| KnownStream::list(body).map(StreamAnswer::Streams),
        StreamStep::Create | StreamStep::Update(..) => {
            |body| KnownStream::read(body).map(|stream| StreamAnswer::Stream(Box::new(stream)))
        }
        StreamStep::ReadStatus(_) => |body| {
            let members =
                json::object(body).map_err(|_why| "the stream status is not a JSON object".to_owned())?;
            let status = members.get("status").and_then(Value::as_str).and_then(StreamStatus::read);
            status.map(StreamAnswer::Status).ok_or_else(|| "the stream status is unknown".to_owned())
        },
        StreamStep::Verify(_)
        | StreamStep::AddSubject(..)
        | StreamStep::Discover
        | StreamStep::Authorize
        | StreamStep::Wait(_) => |_body| Ok(StreamAnswer::Done),
    }
}

/// Interprets a response.
fn understood(
    response: &Response<Bytes>,
    read: impl FnOnce(&[u8]) -> Result<StreamAnswer, String>,
) -> Result<StreamAnswer, String> {
    match response.status() {
        status if status.is_success() => read(response.body()),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Ok(StreamAnswer::Later(retry_after(response.headers(), Timestamp::now())))
        }
        status if status.is_redirection() => {
            Err(format!("responded with {status}; redirects are not followed"))
        }
        status if status.is_client_error() || status == StatusCode::NOT_IMPLEMENTED => {
            Ok(StreamAnswer::Denied(status))
        }
        status => Err(format!("responded with {status}")),
    }
}

/// Parses `Retry-After` in seconds or as a date (RFC 9110 §10.2.3).
pub(super) fn retry_after(fields: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = fields.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let date = Timestamp::from_secs(i64::try_from(date.as_secs()).ok()?);
    Some(date.since(now))
}

/// Parses a token response: the access token and its lifetime (RFC 6749 §5.1).
fn read_token(body: &[u8]) -> Result<(Concealed, Duration), String> {
    let members =
        json::object(body).map_err(|_why| "the token endpoint did not return a JSON object".to_owned())?;
    let text = |name: &str| members.get(name).and_then(Value::as_str);
    if text("token_type").is_some_and(|kind| !kind.eq_ignore_ascii_case("bearer")) {
        return Err("the token endpoint issued a token that is not a bearer token".to_owned());
    }
    let token = text("access_token").filter(|token| !token.is_empty());
    let token = token.ok_or_else(|| "the token endpoint returned no access_token".to_owned())?;
    let expires_in = members.get("expires_in");
    let seconds = expires_in.and_then(|seconds| seconds.as_u64().or_else(|| seconds.as_str()?.parse().ok()));
    let lifetime = seconds.map_or(DEFAULT_LIFETIME, |seconds| {
        Duration::from_secs(seconds).clamp(SHORTEST_LIFETIME, LONGEST_LIFETIME)
    });
    Ok((Concealed::new(token.to_owned()), lifetime))
}

/// Generates 128 random bits as hexadecimal digits.
pub(super) fn random_state() -> Option<String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_with_their_lifetime() {
        for (body, expected) in [
            (r#"{"access_token":"a","token_type":"Bearer","expires_in":60}"#, Some(("a", 60))),
            (r#"{"access_token":"a","token_type":"bearer","expires_in":"60"}"#, Some(("a", 60))),
            (r#"{"access_token":"a"}"#, Some(("a", 300))),
            (r#"{"access_token":"a","expires_in":0}"#, Some(("a", 1))),
            (r#"{"access_token":"a","expires_in":99999999}"#, Some(("a", 86_400))),
            (r#"{"access_token":"a","token_type":"DPoP"}"#, None),
            (r#"{"access_token":""}"#, None),
            (r#"{"access_token":7}"#, None),
            (r#"{"error":"invalid_client"}"#, None),
            ("[]", None),
            ("", None),
        ] {
            let read = read_token(body.as_bytes()).ok();
            let read = read.as_ref().map(|(token, lifetime)| (token.reveal(), lifetime.as_secs()));
            assert_eq!(read, expected, "{body}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = Timestamp::from_secs(784_111_777);
        for (text, expected) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
            ("", None),
        ] {
            let fields = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
            assert_eq!(retry_after(&fields, now).map(|wait| wait.as_secs()), expected, "{text:?}");
        }
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn statuses_are_understood_whatever_the_body() {
        let answer = |status: u16, body: &'static str| {
            let response =
                Response::builder().status(status).body(Bytes::from_static(body.as_bytes())).unwrap();
            understood(&response, reader(&StreamStep::ReadStatus("s".to_owned())))
        };
        let denied = |status: u16| Ok(StreamAnswer::Denied(StatusCode::from_u16(status).unwrap()));
        for (status, body, expected) in [
            (200, r#"{"status":"enabled"}"#, Ok(StreamAnswer::Status(StreamStatus::Enabled))),
            (200, r#"{"status":"paused","reason":"x"}"#, Ok(StreamAnswer::Status(StreamStatus::Paused))),
            (204, r#"{"status":"disabled"}"#, Ok(StreamAnswer::Status(StreamStatus::Disabled))),
            (200, r#"{"status":"off"}"#, Err("the stream status is unknown".to_owned())),
            (200, "", Err("the stream status is not a JSON object".to_owned())),
            (302, "", Err("responded with 302 Found; redirects are not followed".to_owned())),
            (401, "", denied(401)),
            (404, "{}", denied(404)),
            (429, "", Ok(StreamAnswer::Later(None))),
            (501, "", denied(501)),
            (503, "", Ok(StreamAnswer::Later(None))),
            (500, "", Err("responded with 500 Internal Server Error".to_owned())),
        ] {
            assert_eq!(answer(status, body), expected, "{status} {body}");
        }
    }

    #[test]
    fn states_differ_and_cannot_be_guessed() {
        let (one, other) = (random_state().unwrap(), random_state().unwrap());
        assert_eq!((one.len(), one == other), (32, false));
    }
}
