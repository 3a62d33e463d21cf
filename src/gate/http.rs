//! One request, from its head to the head of its answer: limits, enforcement, and then the upstream or a refusal.

use std::future::poll_fn;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, USER_AGENT};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::Body as _;
use hyper::upgrade::OnUpgrade;
use tokio::task::spawn_local;
use tokio::time::Instant;

use super::accept::Connection;
use super::access::Record;
use super::answer::{Form, Refusal, believable_request_id};
use super::body::{AnswerBody, ClientBody, Limited, Serving, discard};
use super::cut::Cut;
use super::framing::is_host;
use super::link::{Broken, Link};
use super::own;
use super::streams::{Question, Watched};
use super::worker::Generation;
use crate::enforce::decide::{Asked, Permit, Request as Judged, Verdict};
use crate::enforce::denial::Denial;
use crate::enforce::target::RequestTarget;
use crate::forward::{ForwardBody, Hop, Interim, Outgoing, RequestBody, Tunnel, client_address};
use crate::time::Now;

/// Serves one request.
pub(super) async fn serve(
    connection: Rc<Connection>,
    link: Option<Arc<Link>>,
    request: Request<ClientBody>,
    serving: Serving,
) -> Response<AnswerBody> {
    let (head, body) = request.into_parts();
    let target = RequestTarget::from(&head.uri);
    let form = Form::of(&head.method, &head.headers);
    let mut record = begin(&connection, &head, &target);

    let within = admissible((&head, &target), &body, &connection, &record.generation);
    if within.is_ok()
        && let Some(authority) = record.generation.live.authority.clone()
        && let Some(endpoint) = own::endpoint(&authority, &head.method, &target)
    {
        return own::serve(&authority, endpoint, head, &target, body, record, serving).await;
    }
    let judged = match within {
        Ok(host) => {
            record.host = Some(host.clone());
            enforce((&head, &target), &host, &connection, &mut record).await.map(|permit| (permit, host))
        }
        Err(refusal) => Err(refusal),
    };
    let refusal = match judged {
        Ok((permit, host)) => {
            let generation = Rc::clone(&record.generation);
            let (streams, question) = (&connection.worker.streams, Question::new(&head, target, &host));
            let watched = streams.watch(&generation.live, &permit, question, &connection, link.as_ref());
            record.handed_on = Some(Instant::now());
            record.received = (!body.is_end_stream()).then(Rc::default);
            let outgoing = outgoing(head, body, host, &connection, link.as_ref(), &record, &watched);
            match until_cut(&watched, generation.forwarder.forward(&permit, outgoing)).await {
                Ok(Ok(answer)) => {
                    return pass_on(answer, link.as_deref(), serving, watched, record).await;
                }
                Ok(Err(error)) => {
                    record.failed(&error);
                    Refusal::from(&error)
                }
                Err(cut) => cut.refusal().closing(),
            }
        }
        Err(refusal) => {
            record.denied(&refusal);
            let expects_continue = head.headers.contains_key(EXPECT);
            if discard(body, expects_continue).await { refusal } else { refusal.closing() }
        }
    };
    let answer = refusal.to_response(form, &record.request_id);
    record.answered(answer.status());
    answer.map(|text| AnswerBody::refusal(text, record, serving))
}

/// Answers a request whose head cannot be read; the connection ends with it.
pub(super) fn refuse_unread(connection: &Rc<Connection>, broken: &Broken) -> Vec<u8> {
    let worker = &connection.worker;
    let refusal = Refusal::from(broken.fault);
    let method = Method::from_bytes(broken.method.as_bytes()).unwrap_or_else(|_none| Method::default());
    let head_only = method == Method::HEAD;
    let mut record = Record::new(
        Rc::clone(worker),
        worker.request_ids.next(),
        (connection.peer, connection.tls_version),
        Version::HTTP_11,
        method,
    );
    record.denied(&refusal);
    record.status = Some(refusal.status);
    refusal.to_bytes(&record.request_id, head_only)
}

/// Starts the record: who asks, and by which name the request goes.
fn begin(connection: &Rc<Connection>, head: &Parts, target: &RequestTarget) -> Box<Record> {
    let worker = Rc::clone(&connection.worker);
    let (mut request_id, mut client) = (None, connection.peer);
    let generation = worker.generation();
    if trusts(&generation, connection.peer) {
        request_id = believable_request_id(&head.headers).cloned();
        let fields = generation.live.settings.trusted_fields;
        let trusted = |address| trusts(&generation, address);
        client = client_address(&head.headers, fields, trusted).unwrap_or(client);
    }
    let request_id = request_id.unwrap_or_else(|| worker.request_ids.next());
    let origin = (client, connection.tls_version);
    // Boxed, because it goes with the response through every layer above.
    let mut record = Box::new(Record::new(worker, request_id, origin, head.version, head.method.clone()));
    record.target = Some(target.clone());
    record.user_agent = head.headers.get(USER_AGENT).cloned();
    record
}

/// What a request needs before anything else is looked at: limits kept, and a client certificate where the listener
/// requires one. Returns the host the client asked for.
fn admissible(
    (head, target): (&Parts, &RequestTarget),
    body: &ClientBody,
    connection: &Connection,
    generation: &Generation,
) -> Result<HeaderValue, Refusal> {
    let host = within_limits(head, target, body, generation)?;
    match connection.certificate(&generation.live, Now::read().wall) {
        Ok(_certificate) => Ok(host),
        // The client can only present another one on another connection.
        Err(reason) => Err(Refusal::from(&Denial::from(reason)).closing()),
    }
}

/// Limits, and what HTTP/2 can carry that `framing` refuses in HTTP/1.1. Returns the host the client asked for.
fn within_limits(
    head: &Parts,
    target: &RequestTarget,
    body: &ClientBody,
    generation: &Generation,
) -> Result<HeaderValue, Refusal> {
    let limits = &generation.live.settings.limits;
    if head.method == Method::CONNECT {
        return Err(Refusal::NO_CONNECT);
    }
    if field_count(head) > limits.headers {
        return Err(Refusal::TOO_MANY_FIELDS);
    }
    if head.version == Version::HTTP_2 && list_size(head, target) > limits.header_bytes {
        return Err(Refusal::LIST_TOO_LARGE);
    }
    if head.headers.get_all(CONTENT_LENGTH).iter().nth(1).is_some() {
        return Err(Refusal::BAD_LENGTH);
    }
    // The one byte that `http` takes for part of a name and RFC 9110 §5.1 does not.
    if head.version == Version::HTTP_2 && head.headers.keys().any(|name| name.as_str().contains('"')) {
        return Err(Refusal::BAD_NAME);
    }
    if limits.body_bytes.is_some_and(|most| body.size_hint().lower() > most) {
        return Err(Refusal::BODY_TOO_LARGE);
    }
    host(head, target).ok_or(Refusal::BAD_HOST)
}

/// Fields as they would stand in HTTP/1.1, where the crumbs of a cookie are one (RFC 9113 §8.2.3).
fn field_count(head: &Parts) -> usize {
    let crumbs = || head.headers.get_all(COOKIE).iter().count().saturating_sub(1);
    head.headers.len() - if head.version == Version::HTTP_2 { crumbs() } else { 0 }
}

/// The size of a header list as RFC 9113 §6.5.2 counts it.
fn list_size(head: &Parts, target: &RequestTarget) -> usize {
    let field = |name: &str, value: usize| name.len() + value + 32;
    let host = target.authority().map_or(0, |host| field(":authority", host.as_str().len()));
    let path = field(":path", target.as_bytes().len());
    let fields = head.headers.iter().map(|(name, value)| field(name.as_str(), value.len()));
    fields.sum::<usize>() + host + path + field(":method", head.method.as_str().len()) + field(":scheme", 5)
}

/// The one host that was asked for (RFC 9112 §3.2, RFC 9113 §8.3.1). HTTP/1.0 may name none.
fn host(head: &Parts, target: &RequestTarget) -> Option<HeaderValue> {
    let mut fields = head.headers.get_all(HOST).iter();
    let (field, more) = (fields.next(), fields.next().is_some());
    let asked = target.authority().map(Authority::as_str);
    let host = match (asked, field) {
        (Some(asked), Some(field)) if head.version == Version::HTTP_2 => {
            field.as_bytes().eq_ignore_ascii_case(asked.as_bytes()).then(|| field.clone())
        }
        (Some(asked), _) => HeaderValue::from_str(asked).ok(),
        (None, Some(field)) => Some(field.clone()),
        (None, None) if head.version == Version::HTTP_10 => return Some(HeaderValue::from_static("")),
        (None, None) => None,
    };
    host.filter(|host| !more && is_host(host.as_bytes()))
}

/// Asks whether the request may pass, and once for what the answer depends on.
async fn enforce(
    (head, target): (&Parts, &RequestTarget),
    host: &HeaderValue,
    connection: &Connection,
    record: &mut Record,
) -> Result<Permit, Refusal> {
    let mut asked = Asked::NOTHING;
    loop {
        let (began, now) = (Instant::now(), Now::read());
        let certificate = connection.certificate(&record.generation.live, now.wall);
        let question = Judged {
            method: &head.method,
            target,
            host: host.to_str().ok(),
            headers: &head.headers,
            certificate: certificate.map_err(|reason| Refusal::from(&Denial::from(reason)).closing())?,
        };
        let judgement = record.generation.live.enforcer.decide(&question, asked, now);
        record.judged(&judgement, began.elapsed());
        match judgement.verdict {
            Verdict::Allow(permit) => {
                if let Err(reason) = record.generation.live.enforcer.begin(&permit, now) {
                    return Err(Refusal::from(&Denial::from(reason)));
                }
                record.allowed(permit.shadow().map(|denial| denial.reason));
                return Ok(permit);
            }
            Verdict::Deny(denial) => {
                record.refused_token(denial.reason, &head.headers);
                return Err(Refusal::from(&denial));
            }
            Verdict::Ask(ask) => {
                asked = record.generation.live.enforcer.find_out(&ask, asked).await;
            }
        }
    }
}

/// What goes to the upstream.
fn outgoing(
    mut head: Parts,
    body: ClientBody,
    host: HeaderValue,
    connection: &Connection,
    link: Option<&Arc<Link>>,
    record: &Record,
    watched: &Rc<Watched>,
) -> Outgoing {
    let interim = link.filter(|_| head.version == Version::HTTP_11).map(|link| {
        let link = Arc::clone(link);
        Interim::new(move |status, headers| link.interim(status, headers))
    });
    let settings = &record.generation.live.settings;
    let limit = settings.limits.body_bytes;
    Outgoing {
        method: head.method,
        headers: head.headers,
        body: RequestBody::new(
            Limited::new(body, limit, Some(Rc::clone(watched))).counted(record.received.clone()),
        ),
        hop: Hop {
            client: connection.peer,
            tls: connection.tls,
            trusted: trusts(&record.generation, connection.peer).then_some(settings.trusted_fields),
            host,
            version: head.version,
            request_id: record.request_id.clone(),
        },
        upgrade: head.extensions.remove::<OnUpgrade>(),
        interim,
    }
}

/// Hands the upstream's answer on; beside a `101` the tunnel begins to run.
async fn pass_on(
    answer: Response<ForwardBody>,
    link: Option<&Link>,
    serving: Serving,
    watched: Rc<Watched>,
    mut record: Box<Record>,
) -> Response<AnswerBody> {
    let (head, mut body) = answer.into_parts();
    record.answered(head.status);
    let mut record = Some(record);
    if let Some(link) = link {
        poll_fn(|cx| link.poll_interim_written(cx)).await;
        if let Some(tunnel) = body.take_tunnel() {
            link.switched();
            watched.lasts();
            // It ends with either side, and there is nobody left to be told how.
            drop(spawn_local(carry(tunnel, Rc::clone(&watched), record.take())));
        }
    }
    // Trailers over HTTP/1.1 have to be announced before.
    let grpc = link.is_none() && Form::of(&Method::POST, &head.headers) == Form::Grpc;
    if grpc || is_endless(&head.headers) {
        watched.lasts();
    }
    Response::from_parts(head, AnswerBody::upstream(body, Some(watched), grpc, record, serving))
}

/// Whether an answer is a stream of events, which ends when one of the two sides has had enough.
fn is_endless(headers: &HeaderMap) -> bool {
    let types = [&b"text/event-stream"[..], b"multipart/x-mixed-replace"];
    let of = |value: &HeaderValue, name: &[u8]| {
        value.as_bytes().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    headers.get(CONTENT_TYPE).is_some_and(|value| types.into_iter().any(|name| of(value, name)))
}

/// Runs a tunnel to its end, or until its request would be rejected or the gate drains; then it is logged.
async fn carry(tunnel: Tunnel, watched: Rc<Watched>, record: Option<Box<Record>>) {
    let outcome = tunnel.run(|| watched.moved(), watched.denied(), watched.left()).await;
    drop((outcome, record));
}

/// What comes of `forwarding`, unless the stream must end first.
async fn until_cut<T>(watched: &Watched, forwarding: impl Future<Output = T>) -> Result<T, Cut> {
    let mut forwarding = std::pin::pin!(forwarding);
    poll_fn(|cx| match forwarding.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
        Poll::Pending => watched.poll_cut(cx).map(Err),
    })
    .await
}

/// Whether what the peer says of the request's way here is believed.
fn trusts(generation: &Generation, peer: IpAddr) -> bool {
    generation.live.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
}
