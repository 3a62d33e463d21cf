//! Sends one request: selects its connection, handles the outcome, and decides whether to retry.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;

use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode};

use super::body::{RequestBody, ResponseSource};
use super::headers::{self, FreshTrace};
use super::http1::connection::Http1Connection;
use super::http1::decode::ResponseHead;
use super::http1::encode::{self, RequestFraming};
use super::http1::upload::UpstreamUpload;
use super::http1::{self, BadAnswer};
use super::http2::StreamSlot;
use super::http2::exchange;
use super::lane::Lane;
use super::message::{ForwardOrder, PreparedRequest};
use super::pool::{EndpointPool, Tried, UpstreamPool};
use super::retry::{Failed, FailureStage, SendAttempt};
use super::tunnel::Tunnel;
use super::{ForwardBody, ForwardError, Forwarder, Outgoing};

type SendResult = Result<Response<ForwardBody>, Failed>;

impl Forwarder {
    /// Sends `outgoing` to the upstream of `order`.
    pub(crate) async fn send(
        &self,
        order: &ForwardOrder<'_>,
        mut outgoing: Outgoing<'_>,
    ) -> Result<Response<ForwardBody>, ForwardError> {
        let slot = std::mem::take(&mut outgoing.slot);
        let Some(pool) = self.pools.get(order.upstream) else {
            return Err(ForwardError::Connect(io::ErrorKind::NotFound.into()));
        };
        let (message, body) = PreparedRequest::new(order, pool.upstream.settings(), outgoing)?;
        let request_id = message.hop.request_id.clone();
        let answer = match message.ends_here() {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => self.attempt(pool, message, body).await,
            Err(error) => Err(error),
        };
        match answer {
            Ok(mut response) => {
                response.headers_mut().insert(headers::X_REQUEST_ID, request_id);
                response.body_mut().hold_slot(slot);
                Ok(response)
            }
            Err(error) => {
                if let Some(errors) = pool.errors() {
                    errors.count(&error);
                }
                Err(error)
            }
        }
    }

    async fn attempt(
        &self,
        upstream: &UpstreamPool,
        mut message: PreparedRequest<'_>,
        mut body: RequestBody,
    ) -> Result<Response<ForwardBody>, ForwardError> {
        let idempotent = message.method.is_idempotent();
        // A request that cannot be sent again needs a stricter check of its connection.
        let ask_kernel = !idempotent || !body.is_empty();
        let http1_only = message.may_switch;
        let (mut tried, mut repeated, mut unreachable) = (Tried::default(), false, None);
        loop {
            let Some((pool, in_flight)) = upstream.choose(tried) else {
                let none = || ForwardError::Connect(io::ErrorKind::NotFound.into());
                return Err(unreachable.unwrap_or_else(none));
            };
            message.goes_to(pool);
            let open = if repeated { None } else { pool.open_lane(http1_only, ask_kernel) };
            let reused = open.is_some();
            let lane = match open {
                Some(lane) => lane,
                // Boxed, like all that not every request needs, to keep the future of the others small.
                None => match Box::pin(pool.new_lane(http1_only)).await {
                    Ok(lane) => lane,
                    // Nothing was sent, so the next address may be tried, whatever the method.
                    Err(error) => {
                        tried.add(pool);
                        if let Some(last) = unreachable.replace(error) {
                            pool.was_unreachable(&last);
                        }
                        continue;
                    }
                },
            };
            if let Some(error) = unreachable.take() {
                pool.was_unreachable(&error);
            }
            let failed = match self.exchange(pool, lane, &mut message, body).await {
                Ok(mut answer) => {
                    answer.body_mut().counted(in_flight);
                    message.call().inspect(|call| call.answered(answer.status()));
                    return Ok(answer);
                }
                Err(failed) => failed,
            };
            match failed.body {
                Some(untouched)
                    if (SendAttempt { idempotent, reused, repeated }).may_be_repeated(failed.stage) =>
                {
                    body = untouched;
                }
                _ => return Err(failed.error),
            }
            repeated = true;
            message.call().inspect(|call| call.is_sent_again());
        }
    }

    /// Random numbers for a request without a trace, or one that starts a trace.
    fn fresh_trace(&self) -> FreshTrace {
        FreshTrace { trace_id: self.trace_ids.trace(), parent_id: self.trace_ids.number() }
    }

    async fn exchange(
        &self,
        pool: &Rc<EndpointPool>,
        lane: Lane,
        message: &mut PreparedRequest<'_>,
        body: RequestBody,
    ) -> SendResult {
        match lane {
            Lane::Http1(connection) => self.exchange_http1(pool, connection, message, body).await,
            Lane::Http2(slot) => Box::pin(self.exchange_http2(pool, slot, message, body)).await,
        }
    }

    async fn exchange_http1(
        &self,
        pool: &Rc<EndpointPool>,
        connection: Rc<RefCell<Http1Connection>>,
        message: &mut PreparedRequest<'_>,
        body: RequestBody,
    ) -> SendResult {
        let framing = RequestFraming::of(body.is_empty(), body.size());
        let upgrade = message.wanted_upgrade();
        {
            let mut connection = connection.borrow_mut();
            connection.begin(message.limit);
            let fields = message.fields(self.fresh_trace(), upgrade);
            let lead = connection.wire.outbox.lead();
            encode::head(lead, message.method, message.order.target, &self.rules, &fields, framing);
        }
        let mut upload = UpstreamUpload::new(body, framing, message.expect, Rc::clone(&self.rules));
        let (method, interim) = (message.method, message.interim.as_ref());
        let exchange = http1::exchange::Http1Exchange { method, upgrade, interim };
        let head = match exchange.run(&connection, &mut upload).await {
            Ok(head) => head,
            Err(error) => {
                let stage = match error {
                    ForwardError::Closed(_) if !connection.borrow().answered => FailureStage::Unanswered,
                    _ => FailureStage::Answered,
                };
                return Err(Failed { error, stage, body: upload.into_untouched() });
            }
        };
        let source = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            switch(connection, message.may_switch, &head.headers).map_err(Failed::without_retry)?
        } else {
            http1::download::begin(pool, connection, &head, upload)
        };
        let ResponseHead { status, mut headers, .. } = head;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            self.rules.select_sub_protocol(message.headers, &mut headers);
        }
        Ok(response(status, headers, source))
    }

    async fn exchange_http2(
        &self,
        pool: &Rc<EndpointPool>,
        slot: StreamSlot,
        message: &mut PreparedRequest<'_>,
        body: RequestBody,
    ) -> SendResult {
        let request = message.http2_request(&self.rules, self.fresh_trace(), &body);
        let exchange = exchange::Http2Exchange {
            request: request.map_err(Failed::without_retry)?,
            body,
            held: message.expect,
            rules: &self.rules,
            interim: message.interim.as_ref(),
            limit: message.limit,
        };
        let (head, download) = exchange.run(pool, slot).await?.into_parts();
        let has_body = message.method != Method::HEAD && head.status != StatusCode::NOT_MODIFIED;
        let download = download.announced(&head.headers, has_body);
        Ok(response(head.status, head.headers, ResponseSource::Http2(Box::new(download))))
    }
}

fn response(status: StatusCode, headers: HeaderMap, source: ResponseSource) -> Response<ForwardBody> {
    let mut response = Response::new(ForwardBody::new(source));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// Takes the tunnel of a 101.
fn switch(
    connection: Rc<RefCell<Http1Connection>>,
    may_switch: bool,
    headers: &HeaderMap,
) -> Result<ResponseSource, ForwardError> {
    let websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    match Rc::try_unwrap(connection).map(RefCell::into_inner) {
        Ok(connection) if may_switch && connection.request_sent => {
            let (upstream, early) = connection.wire.into_parts();
            Ok(ResponseSource::Switched(Box::new(Tunnel::new(upstream, early, websocket))))
        }
        // The upstream cannot have agreed before it had read the request.
        _ => Err(BadAnswer::Switch.into()),
    }
}
