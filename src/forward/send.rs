//! One request: which connection it takes, what becomes of it there, whether it may be sent again.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme as UriScheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};

use super::body::{RequestBody, Source};
use super::headers;
use super::http1::connection::Connection;
use super::http1::decode::Head;
use super::http1::encode::{self, Framing};
use super::http1::upload::Upload;
use super::http1::{self, BadAnswer};
use super::http2::Slot;
use super::http2::exchange::{self, Failed};
use super::pool::Link;
use super::tunnel::Tunnel;
use super::upstream::Scheme;
use super::{ForwardBody, ForwardError, Forwarder, Hop, Interim, OnUpgrade, Outgoing};

/// What a permit comes down to.
pub(crate) struct Order<'a> {
    /// Which upstream.
    pub(crate) upstream: usize,
    /// The route's own limit.
    pub(crate) response_timeout: Option<Duration>,
    /// Path and query, byte for byte as they were judged.
    pub(crate) target: &'a PathAndQuery,
    /// What the upstream learns of the token.
    pub(crate) identity: &'a [(HeaderName, HeaderValue)],
}

/// A request ready to be sent, without its body.
struct Message<'a> {
    order: &'a Order<'a>,
    limit: Duration,
    method: Method,
    headers: HeaderMap,
    hop: Hop,
    interim: Option<Interim>,
    /// The client's connection, if it asks for a switch of protocol that may be granted.
    upgrade: Option<OnUpgrade>,
    /// The body waits for `100 Continue`.
    expect: bool,
}

/// A connection for one request.
enum Lane {
    Http1(Rc<RefCell<Connection>>),
    Http2(Slot),
}

type Answer = Result<Response<ForwardBody>, Failed>;

impl Forwarder {
    /// Sends `outgoing` where `order` says.
    pub(crate) async fn send(
        &self,
        order: &Order<'_>,
        outgoing: Outgoing,
    ) -> Result<Response<ForwardBody>, ForwardError> {
        let Some(link) = self.links.get(order.upstream) else {
            return Err(ForwardError::Connect(io::ErrorKind::NotFound.into()));
        };
        let (message, body) = Message::new(order, link, outgoing);
        let request_id = message.hop.request_id.clone();
        match self.attempt(link, message, body).await {
            Ok(mut response) => {
                response.headers_mut().insert(headers::X_REQUEST_ID, request_id);
                Ok(response)
            }
            Err(error) => {
                link.errors.count(&error);
                Err(error)
            }
        }
    }

    async fn attempt(
        &self,
        link: &Rc<Link>,
        mut message: Message<'_>,
        mut body: RequestBody,
    ) -> Result<Response<ForwardBody>, ForwardError> {
        if headers::came_back(&message.headers) {
            return Err(ForwardError::Loop);
        }
        let idempotent = message.method.is_idempotent();
        // What cannot be sent again deserves a closer look at the connection it is sent on.
        let surely = !idempotent || !body.is_empty();
        let http1_only = message.upgrade.is_some();
        let mut open = link.open_lane(http1_only, surely);
        let mut sent_before = false;
        loop {
            let used_before = open.is_some();
            let lane = match open.take() {
                Some(lane) => lane,
                // Boxed, as all that is not done for every request: the future of the others stays small.
                None => Box::pin(link.new_lane(http1_only)).await?,
            };
            let failed = match self.exchange(link, lane, &mut message, body).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let harmless = failed.is_harmless(used_before && idempotent);
            match failed.body {
                Some(untouched) if harmless && !sent_before => body = untouched,
                _ => return Err(failed.error),
            }
            sent_before = true;
        }
    }

    async fn exchange(
        &self,
        link: &Rc<Link>,
        lane: Lane,
        message: &mut Message<'_>,
        body: RequestBody,
    ) -> Answer {
        match lane {
            Lane::Http1(connection) => self.exchange_http1(link, connection, message, body).await,
            Lane::Http2(slot) => Box::pin(self.exchange_http2(link, slot, message, body)).await,
        }
    }

    async fn exchange_http1(
        &self,
        link: &Rc<Link>,
        connection: Rc<RefCell<Connection>>,
        message: &mut Message<'_>,
        body: RequestBody,
    ) -> Answer {
        let framing = Framing::of(body.is_empty(), body.size());
        let upgrade = message.wanted_upgrade();
        {
            let mut connection = connection.borrow_mut();
            connection.begin(message.limit);
            let fields = message.fields(self, upgrade);
            let lead = connection.outbox.lead();
            encode::head(lead, &message.method, message.order.target, &self.rules, &fields, framing);
        }
        let mut upload = Upload::new(body, framing, message.expect, Rc::clone(&self.rules));
        let (method, interim) = (&message.method, message.interim.as_ref());
        let exchange = http1::exchange::Exchange { method, upgrade, interim };
        let head = match exchange.run(&connection, &mut upload).await {
            Ok(head) => head,
            Err(error) => {
                let unanswered = matches!(error, ForwardError::Closed(_)) && !connection.borrow().answered;
                return Err(Failed { error, unprocessed: false, unanswered, body: upload.into_untouched() });
            }
        };
        let source = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            switch(connection, message.upgrade.take(), &head.headers).map_err(Failed::finally)?
        } else {
            http1::download::begin(link, connection, &head, upload)
        };
        let Head { status, headers, .. } = head;
        Ok(response(status, headers, source))
    }

    async fn exchange_http2(
        &self,
        link: &Rc<Link>,
        slot: Slot,
        message: &mut Message<'_>,
        body: RequestBody,
    ) -> Answer {
        let request = message.http2_request(self, link, &body).map_err(Failed::finally)?;
        let exchange = exchange::Exchange {
            request,
            body,
            held: message.expect,
            rules: &self.rules,
            interim: message.interim.as_ref(),
            limit: message.limit,
        };
        let (head, download) = exchange.run(link, slot).await?.into_parts();
        let has_body = message.method != Method::HEAD && head.status != StatusCode::NOT_MODIFIED;
        let download = download.announced(&head.headers, has_body);
        Ok(response(head.status, head.headers, Source::Http2(Box::new(download))))
    }
}

fn response(status: StatusCode, headers: HeaderMap, source: Source) -> Response<ForwardBody> {
    let mut response = Response::new(ForwardBody::from(source));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// The tunnel behind a 101.
fn switch(
    connection: Rc<RefCell<Connection>>,
    client: Option<OnUpgrade>,
    headers: &HeaderMap,
) -> Result<Source, ForwardError> {
    let websocket = headers
        .get(header::UPGRADE)
        .is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    match (Rc::try_unwrap(connection).map(RefCell::into_inner), client) {
        (Ok(connection), Some(client)) if connection.request_sent => {
            let (upstream, early) = connection.into_parts();
            Ok(Source::Switched(Box::new(Tunnel::new(upstream, early, client, websocket))))
        }
        // Before it had read the request, the upstream could not have agreed to it.
        _ => Err(BadAnswer::Switch.into()),
    }
}

impl<'a> Message<'a> {
    fn new(order: &'a Order<'a>, link: &Link, outgoing: Outgoing) -> (Self, RequestBody) {
        let Outgoing { method, headers, body, hop, upgrade, interim } = outgoing;
        let settings = link.upstream.settings();
        // HTTP/2 has no upgrades: the request goes on without asking for one.
        let possible = settings.scheme != Scheme::H2c;
        let wanted = possible && headers::hop::wanted_upgrade(&method, hop.version, &headers).is_some();
        let expect = hop.version > Version::HTTP_10
            && !body.is_empty()
            && headers
                .get(header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let limit = order.response_timeout.unwrap_or(settings.response_timeout);
        let upgrade = upgrade.filter(|_| wanted);
        (Self { order, limit, method, headers, hop, interim, upgrade, expect }, body)
    }

    fn wanted_upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref().and_then(|_| self.headers.get(header::UPGRADE))
    }

    fn fields<'m>(&'m self, forwarder: &Forwarder, upgrade: Option<&'m HeaderValue>) -> headers::Request<'m> {
        headers::Request {
            headers: &self.headers,
            hop: &self.hop,
            identity: self.order.identity,
            upgrade,
            expect: self.expect,
            trace: forwarder.trace_ids.next(),
        }
    }

    fn http2_request(
        &self,
        forwarder: &Forwarder,
        link: &Link,
        body: &RequestBody,
    ) -> Result<Request<()>, ForwardError> {
        let mut fields = HeaderMap::with_capacity(self.headers.len() + 16);
        headers::request(&forwarder.rules, &self.fields(forwarder, None), &mut fields);
        let announced = !body.is_empty() || encode::announces_empty(&self.method, &self.headers);
        if let Some(length) = body.size().filter(|_| announced) {
            fields.insert(header::CONTENT_LENGTH, length.into());
        }
        let mut uri = http::uri::Parts::default();
        let tls = link.upstream.settings().scheme == Scheme::Https;
        uri.scheme = Some(if tls { UriScheme::HTTPS } else { UriScheme::HTTP });
        uri.authority =
            Some(Authority::try_from(self.hop.host.as_bytes()).map_err(|_invalid| ForwardError::Host)?);
        uri.path_and_query = Some(self.order.target.clone());
        let mut request = Request::new(());
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = Uri::from_parts(uri).map_err(|_invalid| ForwardError::Host)?;
        *request.version_mut() = Version::HTTP_2;
        *request.headers_mut() = fields;
        Ok(request)
    }
}

impl Link {
    /// A connection that is open already.
    fn open_lane(&self, http1_only: bool, surely: bool) -> Option<Lane> {
        let scheme = self.upstream.settings().scheme;
        if scheme != Scheme::Http
            && !http1_only
            && let Some(slot) = self.http2.take()
        {
            return Some(Lane::Http2(slot));
        }
        if scheme == Scheme::H2c { None } else { self.take(surely).map(Lane::Http1) }
    }

    /// A new connection; of HTTP/2, or one that another request has opened meanwhile.
    async fn new_lane(&self, http1_only: bool) -> Result<Lane, ForwardError> {
        let opened =
            tokio::time::timeout(self.upstream.settings().connect_timeout, self.dial_lane(http1_only));
        opened.await.unwrap_or_else(|_elapsed| Err(ForwardError::Connect(io::ErrorKind::TimedOut.into())))
    }

    async fn dial_lane(&self, http1_only: bool) -> Result<Lane, ForwardError> {
        let settings = self.upstream.settings();
        if settings.scheme == Scheme::Http || http1_only || self.chose_http1.get() {
            return self.dial_one(http1_only).await;
        }
        // Many requests at once must not open many connections where one will do.
        let _turn = self.http2.dialing.lock().await;
        match self.http2.take() {
            Some(slot) => Ok(Lane::Http2(slot)),
            None => self.dial_one(http1_only).await,
        }
    }

    async fn dial_one(&self, http1_only: bool) -> Result<Lane, ForwardError> {
        let io = self.upstream.dial(http1_only).await?;
        let settings = self.upstream.settings();
        if settings.scheme == Scheme::H2c || io.is_http2() {
            self.chose_http1.set(false);
            return self.http2.add(io, settings.idle_timeout).await.map(Lane::Http2);
        }
        self.chose_http1.set(settings.scheme == Scheme::Https && !http1_only);
        Ok(Lane::Http1(Rc::new(RefCell::new(Connection::new(io)))))
    }
}
