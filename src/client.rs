//! The one outbound HTTP client: one request on a fresh connection, for keys, discovery documents and
//! commands.
//!
//! Everything is bounded: time, head, body. It follows no redirects and knows nothing about what it fetches.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::{ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_ENCODING, HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
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

/// A URL that may be fetched: `https`, or `http` to a loopback host or if explicitly allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    authority: Authority,
    target: PathAndQuery,
    transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Tls,
    /// Clear text, and only to loopback addresses.
    PlainLoopback,
    Plain,
}

/// Why a text is not a valid [`Url`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UrlError {
    /// Not an absolute URL of visible ASCII characters with a host.
    Malformed,
    /// The scheme is neither `https` nor `http`.
    Scheme,
    /// `http` to a host that is not loopback.
    Insecure,
    /// A user name or password in the URL.
    UserInfo,
    /// A fragment, which is never sent to a server.
    Fragment,
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

impl Url {
    /// Parses `text`; `insecure_http` allows plain `http` to any host.
    ///
    /// # Errors
    /// When it is not a URL that may be fetched.
    pub fn parse(text: &str, insecure_http: bool) -> Result<Self, UrlError> {
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(UrlError::Malformed);
        }
        if text.contains('#') {
            return Err(UrlError::Fragment);
        }
        let parts = text.parse::<Uri>().map_err(|_parse| UrlError::Malformed)?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(UrlError::Malformed);
        };
        if authority.as_str().contains('@') {
            return Err(UrlError::UserInfo);
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let transport = match scheme {
            s if s == Scheme::HTTPS => Transport::Tls,
            s if s != Scheme::HTTP => return Err(UrlError::Scheme),
            _ if insecure_http => Transport::Plain,
            _ if is_loopback(&host) => Transport::PlainLoopback,
            _ => return Err(UrlError::Insecure),
        };
        let default_port = if transport == Transport::Tls { 443 } else { 80 };
        let port = match authority.as_str().rsplit_once(':') {
            Some((_, digits)) if !digits.ends_with(']') => {
                digits.parse().map_err(|_parse| UrlError::Malformed)?
            }
            _ => default_port,
        };
        if host.is_empty() || port == 0 {
            return Err(UrlError::Malformed);
        }
        let target = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self { host, port, authority, target, transport })
    }

    /// Whether both have the same scheme, host and port.
    #[must_use]
    pub fn is_same_origin(&self, other: &Self) -> bool {
        let is_tls = |url: &Self| url.transport == Transport::Tls;
        (&self.host, self.port, is_tls(self)) == (&other.host, other.port, is_tls(other))
    }

    /// Whether it uses TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.transport == Transport::Tls
    }

    /// Whether others can read what is sent there: plain `http` to another host.
    #[must_use]
    pub fn is_exposed(&self) -> bool {
        self.transport == Transport::Plain && !is_loopback(&self.host)
    }

    /// The URL of an endpoint below this one, whose path and query begin with `/`; `None` if this one has a
    /// query.
    #[must_use]
    pub fn at(&self, endpoint: &str) -> Option<Self> {
        let base = self.target.as_str().trim_end_matches('/');
        let target = format!("{base}{endpoint}").parse().ok().filter(|_| self.target.query().is_none())?;
        Some(Self { target, ..self.clone() })
    }

    /// This URL with another query parameter.
    #[must_use]
    pub fn with_parameter(&self, name: &str, value: &str) -> Self {
        let pair = form_urlencoded::Serializer::new(String::new()).append_pair(name, value).finish();
        let sign = if self.target.query().is_some() { '&' } else { '?' };
        // Percent-encoded, so that it parses.
        let target = format!("{}{sign}{pair}", self.target).parse();
        Self { target: target.unwrap_or_else(|_| self.target.clone()), ..self.clone() }
    }
}

/// Whether a host is `localhost` or a loopback address. The addresses of a name are checked again when
/// connecting.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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

impl fmt::Display for UrlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "is not an absolute URL",
            Self::Scheme => "must be an https URL",
            Self::Insecure => {
                "must be an https URL: plain http is allowed only to loopback hosts, or with insecure_http"
            }
            Self::UserInfo => "must not contain a user name or password",
            Self::Fragment => "must not contain a fragment",
        })
    }
}

impl std::error::Error for UrlError {}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_added_behind_those_that_are_there() {
        for (url, value, target) in [
            ("https://idp.example.com", "s1", "/?stream_id=s1"),
            ("https://idp.example.com/status", "a b&c=/é", "/status?stream_id=a+b%26c%3D%2F%C3%A9"),
            ("https://idp.example.com/status?x=1", "", "/status?x=1&stream_id="),
        ] {
            let url = Url::parse(url, false).unwrap().with_parameter("stream_id", value);
            assert_eq!(url.target.as_str(), target);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_and_nothing_else() {
        let url = |text: &str| Url::parse(text, true).unwrap();
        let one = url("https://idp.example.com/a");
        for (other, same) in [
            ("https://idp.example.com/b?c=d", true),
            ("https://IDP.example.com:443", true),
            ("https://idp.example.com:8443/a", false),
            ("http://idp.example.com:443/a", false),
            ("https://evil.example.com/a", false),
            ("https://idp.example.com.evil.example.com/a", false),
        ] {
            assert_eq!(one.is_same_origin(&url(other)), same, "{other}");
        }
        for (text, exposed) in [
            ("http://idp.example.com/", true),
            ("http://127.0.0.1/", false),
            ("http://localhost/", false),
            ("https://idp.example.com/", false),
        ] {
            assert_eq!(url(text).is_exposed(), exposed, "{text}");
        }
    }

    #[test]
    fn only_secure_urls_may_be_fetched() {
        for (text, insecure, expected) in [
            ("https://idp.example.com/jwks", false, Ok(443)),
            ("HTTPS://IDP.example.com:8443", false, Ok(8443)),
            ("https://[2001:db8::1]/x", false, Ok(443)),
            ("https://[::1]:9/x?y=1", false, Ok(9)),
            ("http://127.0.0.1:8080/jwks", false, Ok(8080)),
            ("http://127.9.9.9/jwks", false, Ok(80)),
            ("http://[::1]/jwks", false, Ok(80)),
            ("http://LOCALHOST/jwks", false, Ok(80)),
            ("http://idp.example.com/jwks", true, Ok(80)),
            ("http://idp.example.com/jwks", false, Err(UrlError::Insecure)),
            ("http://127.0.0.1.example.com/", false, Err(UrlError::Insecure)),
            ("http://localhost.example.com/", false, Err(UrlError::Insecure)),
            ("http://0.0.0.0/", false, Err(UrlError::Insecure)),
            ("http://10.0.0.1/", false, Err(UrlError::Insecure)),
            ("ftp://idp.example.com/", true, Err(UrlError::Scheme)),
            ("file:///etc/passwd", true, Err(UrlError::Malformed)),
            ("https://u:p@idp.example.com/", false, Err(UrlError::UserInfo)),
            ("http://localhost@idp.example.com/", false, Err(UrlError::UserInfo)),
            ("https://idp.example.com/#x", false, Err(UrlError::Fragment)),
            ("https://idp.example.com:0/", false, Err(UrlError::Malformed)),
            ("https://idp.example.com:99999/", false, Err(UrlError::Malformed)),
            ("https://:443/", false, Err(UrlError::Malformed)),
            ("https://idp.example.com/a b", false, Err(UrlError::Malformed)),
            ("https://idp.example.com/\r\nx: y", false, Err(UrlError::Malformed)),
            ("https://idp.exämple.com/", false, Err(UrlError::Malformed)),
            ("//idp.example.com/", false, Err(UrlError::Malformed)),
            ("/jwks", false, Err(UrlError::Malformed)),
            ("idp.example.com", false, Err(UrlError::Malformed)),
            ("", false, Err(UrlError::Malformed)),
        ] {
            assert_eq!(Url::parse(text, insecure).map(|url| url.port), expected, "{text}");
        }
    }
}
