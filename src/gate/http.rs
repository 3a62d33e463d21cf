//! Handles one request, from its head to the response head: limits, enforcement, then the upstream or a rejection.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body as _;
use tokio::time::Instant;

use super::accept::ClientConnection;
use super::access::Record;
use super::answer::{AnswerForm, DPOP_NONCE, GateRefusal, believable_request_id};
use super::body::{AnswerBody, ClientBody, Limited, Serving, discard};
use super::cors::{CorsAnswer, Preflight};
use super::cut::Cut;
use super::http1::{ClientWire, Http1Fault};
use super::io::ClientStream;
use super::limits::within_limits;
use super::own::OwnRoom;
use super::streams::{StreamQuestion, WatchedStream};
use super::worker::Generation;
use crate::enforce::decide::{Asked, Permit, Request as Judged, Verdict};
use crate::enforce::target::RequestTarget;
use crate::forward::{
    Flow, ForwardBody, Hop, Interim, Outgoing, RequestBody, RequestSlot, Tunnel, TunnelEnd, client_address,
};
use crate::time::{Now, Timestamp};

/// The head of a request, over either protocol.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) target: RequestTarget,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Properties of a request that only HTTP/1.1 has.
pub(super) struct Http1 {
    /// Accepts interim responses.
    pub(super) wire: Rc<ClientWire>,
    /// Whether the client asks for another protocol in a form that can be granted.
    pub(super) wants_upgrade: bool,
}

/// Serves one request.
pub(super) async fn serve(
    connection: Rc<ClientConnection>,
    http1: Option<Http1>,
    head: Rc<Head>,
    body: ClientBody,
    serving: Option<Serving>,
) -> Response<AnswerBody> {
    let mut record = begin(&connection, &head);

    let within = record.admit().and_then(|()| within_limits(&head, &body, &record.generation));
    if within.is_ok()
        && let Some(own) = OwnRoom::of(&record.generation.live, &head)
        // Without a valid certificate, the request is rejected below like any other.
        && let Ok(certificate) = connection.certificate(&record.generation.live, Timestamp::now())
    {
        // Boxed, like all rare cases, to keep the future of the others small.
        return Box::pin(own.serve(&head, (body, certificate.copied()), record, serving)).await;
    }
    let judged = match within {
        Ok(host) => {
            record.host = Some(host.clone());
            if let Some(preflight) = Preflight::of(&head, &host, &connection, &record.generation) {
                return Box::pin(preflight.answer(&head, body, record, serving)).await;
            }
            enforce(&head, &host, &connection, &mut record).await.map(|(permit, slot)| (permit, slot, host))
        }
        Err(refusal) => Err(refusal),
    };
    let (refusal, cors) = match judged {
        Ok((permit, slot, host)) => {
            let generation = Rc::clone(&record.generation);
            let (streams, question) = (&connection.worker.streams, StreamQuestion::new(&head, &host));
            let watched = streams.watch(&generation.live, &permit, question, &connection);
            record.received = (!body.is_end_stream()).then(Rc::default);
            let grpc = http1.is_none();
            let outgoing = outgoing(&head, body, (host, slot), &connection, http1, &record, &watched);
            let forwarding = pin!(generation.forwarder.forward(&permit, outgoing));
            let outcome = until_cut(&watched, forwarding).await;
            let cors = CorsAnswer::of(permit.route(), &head.headers);
            let refusal = match outcome {
                Ok(Ok(mut answer)) => {
                    cors.replace(answer.headers_mut());
                    add_nonce(&permit, answer.headers_mut());
                    return pass_on(answer, grpc, serving, watched, record);
                }
                Ok(Err(error)) => {
                    record.failed(&error);
                    GateRefusal::from(&error)
                }
                Err(cut) => {
                    record.ended_by = Some("gate");
                    cut.refusal(Some(permit.route())).closing()
                }
            };
            (refusal, cors)
        }
        Err(refusal) => {
            record.denied(&refusal);
            let cors = CorsAnswer::of_rejected(&head, &record);
            let is_read = Box::pin(discard(body, head.headers.contains_key(EXPECT))).await;
            (if is_read { refusal } else { refusal.closing() }, cors)
        }
    };
    let form = AnswerForm::of(&head.method, &head.headers);
    let mut answer = refusal.to_response(form, &record.request_id);
    cors.add(answer.headers_mut());
    record.answered(answer.status());
    answer.map(|text| AnswerBody::refusal(text, record, serving))
}

/// Answers a request whose head cannot be read; the connection closes after it.
pub(super) fn refuse_unread(connection: &Rc<ClientConnection>, fault: Http1Fault, method: Method) -> Vec<u8> {
    let worker = &connection.worker;
    let refusal = GateRefusal::from(fault);
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

/// Starts the record with the client's address and the request id.
fn begin(connection: &Rc<ClientConnection>, head: &Rc<Head>) -> Box<Record> {
    let worker = Rc::clone(&connection.worker);
    let (mut request_id, mut client) = (None, connection.peer);
    let generation = worker.generation();
    let is_trusted = trusts(&generation, connection.peer);
    if is_trusted {
        request_id = believable_request_id(&head.headers).cloned();
        let fields = generation.live.settings.trusted_fields;
        let trusted = |address| trusts(&generation, address);
        client = client_address(&head.headers, fields, trusted).unwrap_or(client);
    }
    let mut request_id = request_id.unwrap_or_else(|| worker.request_ids.next());
    // Not a secret, but a value that never repeats. This keeps it out of the HPACK tables of both sides,
    // where it would displace fields that do repeat (RFC 7541 §7.1.3) and which h2 searches entry by entry.
    request_id.set_sensitive(true);
    let origin = (client, connection.tls_version);
    // Boxed, because it travels with the response through every layer above.
    let mut record = Box::new(Record::new(worker, request_id, origin, head.version, head.method.clone()));
    record.head = Some(Rc::clone(head));
    record.begin_trace(&head.headers, is_trusted);
    record
}

/// Decides whether the request may pass, and answers each question of the decision once. A request that may
/// pass holds a slot at its upstream.
async fn enforce(
    head: &Head,
    host: &HeaderValue,
    connection: &ClientConnection,
    record: &mut Record,
) -> Result<(Permit, RequestSlot), GateRefusal> {
    let (mut asked, mut began) = (Asked::NOTHING, record.began);
    loop {
        let now = Now::read();
        let certificate = connection.certificate(&record.generation.live, now.wall);
        let question = Judged {
            method: &head.method,
            target: &head.target,
            host: host.to_str().ok(),
            headers: &head.headers,
            certificate: certificate.map_err(|reason| GateRefusal::from(reason).closing())?,
        };
        // Before its token is verified, which costs more; the response depends only on its route.
        if let Some(route) = record.generation.full_route(&question, now) {
            record.routed(route);
            return Err(GateRefusal::UPSTREAM_OVERLOADED);
        }
        let judgement = record.generation.live.enforcer.decide(&question, asked, now);
        match record.judged(judgement, began, now.wall) {
            Verdict::Allow(permit) => {
                // First, because a request that is not forwarded is not a use of its token.
                let slot = record.generation.begin_at_upstream(permit.route())?;
                if let Err(reason) = record.generation.live.enforcer.begin(&permit, now) {
                    return Err(GateRefusal::denied(&reason.into(), Some(permit.route())));
                }
                record.allowed(permit.shadow().map(|denial| denial.reason));
                return Ok((permit, slot));
            }
            Verdict::Deny(denial) => {
                record.refused_token(denial.reason, &head.headers);
                return Err(GateRefusal::denied(&denial, record.route().map(AsRef::as_ref)));
            }
            Verdict::Ask(ask) => {
                asked = Box::pin(record.generation.live.enforcer.find_out(&ask, asked)).await;
                began = Instant::now();
            }
        }
    }
}

/// The request to the upstream.
fn outgoing<'h>(
    head: &'h Head,
    body: ClientBody,
    (host, slot): (HeaderValue, RequestSlot),
    connection: &ClientConnection,
    http1: Option<Http1>,
    record: &Record,
    watched: &Rc<WatchedStream>,
) -> Outgoing<'h> {
    let can_switch = http1.as_ref().is_some_and(|http1| http1.wants_upgrade);
    // The client gets the gate's own 100 when its body is first read.
    let interim = http1.filter(|_| head.version == Version::HTTP_11).map(|Http1 { wire, .. }| {
        Interim::new(move |status, headers| {
            if status != StatusCode::CONTINUE {
                wire.interim(status, headers);
            }
        })
    });
    let settings = &record.generation.live.settings;
    let body = if body.is_end_stream() {
        RequestBody::empty()
    } else {
        let limited = Limited::new(body, settings.limits.body_bytes, Some(Rc::clone(watched)));
        RequestBody::new(limited.counted(record.received.clone()))
    };
    Outgoing {
        method: &head.method,
        headers: &head.headers,
        body,
        hop: Hop {
            client: connection.peer,
            tls: connection.tls,
            trusted: trusts(&record.generation, connection.peer).then_some(settings.trusted_fields),
            host,
            version: head.version,
            request_id: record.request_id.clone(),
        },
        can_switch,
        interim,
        slot,
        trace: record.outgoing_trace(),
    }
}

/// The upstream's response as sent to the client. `grpc`: whether trailers can tell how the call ended; over
/// HTTP/1.1 they would have to be announced in advance.
fn pass_on(
    answer: Response<ForwardBody>,
    grpc: bool,
    serving: Option<Serving>,
    watched: Rc<WatchedStream>,
    mut record: Box<Record>,
) -> Response<AnswerBody> {
    let (head, mut body) = answer.into_parts();
    record.answered(head.status);
    if let Some(tunnel) = body.take_tunnel() {
        watched.mark_lasting();
        return Response::from_parts(head, AnswerBody::switched(Switched { tunnel, watched, record }));
    }
    let grpc = grpc && AnswerForm::of(&Method::POST, &head.headers) == AnswerForm::Grpc;
    if grpc || is_endless(&head.headers) {
        watched.mark_lasting();
    }
    Response::from_parts(head, AnswerBody::upstream(body, Some(watched), grpc, Some(record), serving))
}

/// Adds the nonce for the client's next proof (RFC 9449 §8.2): the proof was for this gate, so the nonce is
/// too.
fn add_nonce(permit: &Permit, headers: &mut HeaderMap) {
    if let Some(nonce) = permit.nonce().and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
        headers.insert(DPOP_NONCE, nonce);
    }
}

/// Whether a response is a stream of events, which ends only when one side closes it.
fn is_endless(headers: &HeaderMap) -> bool {
    let types = [&b"text/event-stream"[..], b"multipart/x-mixed-replace"];
    let of = |value: &HeaderValue, name: &[u8]| {
        value.as_bytes().get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    headers.get(CONTENT_TYPE).is_some_and(|value| types.into_iter().any(|name| of(value, name)))
}

/// What a connection becomes once the upstream has switched protocols. Logged on drop.
pub(super) struct Switched {
    tunnel: Tunnel,
    watched: Rc<WatchedStream>,
    record: Box<Record>,
}

impl Switched {
    /// Carries bytes until one side ends, the request would be rejected, or the gate drains. `early` is what
    /// the client sent after its request.
    pub(super) async fn carry(self, client: ClientStream, early: Bytes) {
        let Self { tunnel, watched, mut record } = self;
        let (up, down) = record.switched();
        let moved = |flow, bytes| {
            let count = match flow {
                Flow::Up => &up,
                Flow::Down => &down,
            };
            count.set(count.get() + bytes);
            watched.moved(flow);
        };
        // The tunnel ends with either side, so only the log can tell how it ended.
        record.ended_by = match tunnel.run(client, early, moved, watched.denied(), watched.draining()).await {
            TunnelEnd::Closed => None,
            TunnelEnd::ClientFailed => Some("client"),
            TunnelEnd::UpstreamFailed => Some("upstream"),
            TunnelEnd::Cut => Some("gate"),
        };
    }
}

/// The result of `forwarding`, unless the stream must end first.
async fn until_cut<T>(
    watched: &WatchedStream,
    mut forwarding: Pin<&mut impl Future<Output = T>>,
) -> Result<T, Cut> {
    poll_fn(|cx| match forwarding.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Ok(outcome)),
        Poll::Pending => watched.poll_cut(cx).map(Err),
    })
    .await
}

/// Whether the peer's forwarding fields are trusted.
fn trusts(generation: &Generation, peer: IpAddr) -> bool {
    generation.live.settings.trusted_proxies.iter().any(|network| network.contains(&peer))
}
