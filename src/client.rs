//! The one outbound HTTP client: one request on a fresh connection, for keys, discovery documents and
//! commands.
//!
//! Everything is bounded: time, head, body. It follows no redirects and knows nothing about what it fetches.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use url::Transport;
pub use url::{Url, UrlError};

mod url;

/// Maximum size of a response body in bytes.
pub const MAX_BODY: usize = 1024 * 1024;
/// Time limit from the name lookup to the last byte of the body.
const TOTAL: Duration = Duration::from_secs(5);
/// As `TOTAL`, for a request whose sender waits for the response.
const PATIENT: Duration = Duration::from_secs(60);
/// Time limit per address of a host, so that a dead one leaves time for the next.
const ONE_ADDRESS: Duration = Duration::from_secs(2);
/// Maximum size of a response head in bytes.
const MAX_HEAD: usize = 64 * 1024;

/// Fetches documents over `https`, and over `http` if [`Url`] allows it.
#[derive(Debug, Clone)]
pub struct Client {
    tls: Arc<rustls::ClientConfig>,
}

/// Why a document could not be fetched.
#[derive(Debug)]
pub enum GetError {
    /// The host name could not be resolved.
    Resolve(io::Error),
    /// No address of the host accepted the connection.
    Connect(io::Error),
    /// The TLS handshake failed, for example because the certificate is not trusted.
    Tls(io::Error),
    /// The response is not HTTP, or ended early.
    Http(Box<dyn std::error::Error + Send + Sync>),
    /// The response was not complete in time.
    Timeout,
    /// A redirect, which is never followed: keys come only from the configured URL.
    Redirect(StatusCode),
    /// Any other status than 200.
    Status(StatusCode),
    /// The body has a content coding, although the request accepted none.
    Encoding,
    /// The body is larger than [`MAX_BODY`].
    TooLarge,
}

/// A request, its URL, and the accepted statuses; the body of any other response is not read.
struct OutboundCall<'a> {
    url: &'a Url,
    request: Request<Bytes>,
    takes: fn(StatusCode) -> Result<(), GetError>,
}

impl Client {
    /// Creates a client with the trust of `tls`.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>) -> Self {
        Self { tls }
    }

    /// Fetches a document: the complete body of a 200 response to a GET.
    ///
    /// # Errors
    /// Anything else, within five seconds.
    pub async fn get(&self, url: &Url) -> Result<Bytes, GetError> {
        self.get_as(url, None).await
    }

    /// As [`Self::get`], with this `Authorization`. Redirects are not followed, so no other host receives it.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn get_as(&self, url: &Url, authorization: Option<&HeaderValue>) -> Result<Bytes, GetError> {
        let mut request = Request::new(Bytes::new());
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/jwk-set+json"));
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let takes = |status: StatusCode| match status {
            StatusCode::OK => Ok(()),
            status if status.is_redirection() => Err(GetError::Redirect(status)),
            status => Err(GetError::Status(status)),
        };
        self.within(TOTAL, OutboundCall { url, request, takes }).await.map(Response::into_body)
    }

    /// Sends any request and returns the complete response, whatever its status. Ignores the URI of the
    /// request.
    ///
    /// # Errors
    /// When there is no complete response within a minute, or its body is larger than [`MAX_BODY`].
    pub async fn send(&self, url: &Url, request: Request<Bytes>) -> Result<Response<Bytes>, GetError> {
        self.within(PATIENT, OutboundCall { url, request, takes: |_| Ok(()) }).await
    }

    async fn within(&self, time: Duration, call: OutboundCall<'_>) -> Result<Response<Bytes>, GetError> {
        // Boxed because TLS and HTTP state is large, and this runs only every few minutes.
        timeout(time, Box::pin(self.untimed(call))).await.unwrap_or(Err(GetError::Timeout))
    }

    async fn untimed(&self, call: OutboundCall<'_>) -> Result<Response<Bytes>, GetError> {
        let url = call.url;
        let socket = connect(url).await?;
        if url.transport != Transport::Tls {
            return exchange(socket, call).await;
        }
        let name = ServerName::try_from(url.host.clone())
            .map_err(|invalid| GetError::Tls(io::Error::new(io::ErrorKind::InvalidInput, invalid)))?;
        let connector = TlsConnector::from(Arc::clone(&self.tls));
        exchange(connector.connect(name, socket).await.map_err(GetError::Tls)?, call).await
    }
}

async fn connect(url: &Url) -> Result<TcpStream, GetError> {
    let addresses = lookup_host((url.host.as_str(), url.port)).await.map_err(GetError::Resolve)?;
    let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "the host has no permitted address");
    for address in addresses {
        if url.transport == Transport::PlainLoopback && !address.ip().is_loopback() {
            continue;
        }
        match timeout(ONE_ADDRESS, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_elapsed) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(GetError::Connect(last))
}

async fn exchange<S>(socket: S, call: OutboundCall<'_>) -> Result<Response<Bytes>, GetError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let OutboundCall { url, mut request, takes } = call;
    *request.uri_mut() = Uri::from(url.target.clone());
    let host = HeaderValue::from_str(url.authority.as_str()).map_err(|error| GetError::Http(error.into()))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    headers.insert(USER_AGENT, HeaderValue::from_static(concat!("portcullis/", env!("CARGO_PKG_VERSION"))));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let request = request.map(Full::new);
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(socket))
        .await
        .map_err(|error| GetError::Http(error.into()))?;
    let answer = std::pin::pin!(async {
        let response = sender.send_request(request).await.map_err(|error| GetError::Http(error.into()))?;
        takes(response.status())?;
        complete(response).await
    });
    // The connection does the reading and writing; if it fails, the response fails too.
    match select(answer, std::pin::pin!(connection)).await {
        Either::Left((result, _)) => result,
        Either::Right((_, answer)) => answer.await,
    }
}

async fn complete(response: Response<Incoming>) -> Result<Response<Bytes>, GetError> {
    let mut codings = response.headers().get_all(CONTENT_ENCODING).iter();
    if codings.any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(GetError::Encoding);
    }
    if response.body().size_hint().lower() > MAX_BODY as u64 {
        return Err(GetError::TooLarge);
    }
    let (head, body) = response.into_parts();
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(Response::from_parts(head, body.to_bytes())),
        Err(error) if error.is::<LengthLimitError>() => Err(GetError::TooLarge),
        Err(error) => Err(GetError::Http(error)),
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resolve(error) => write!(f, "cannot resolve the host: {error}"),
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Tls(error) => write!(f, "the TLS handshake failed: {error}"),
            Self::Http(error) => match error.source() {
                Some(cause) => write!(f, "{error}: {cause}"),
                None => write!(f, "{error}"),
            },
            Self::Timeout => f.write_str("did not respond in time"),
            Self::Redirect(status) => write!(f, "responded with {status}; redirects are not followed"),
            Self::Status(status) => write!(f, "responded with {status}"),
            Self::Encoding => f.write_str("the body is compressed, which was not requested"),
            Self::TooLarge => f.write_str("the body is larger than 1 MiB"),
        }
    }
}

impl std::error::Error for GetError {}
