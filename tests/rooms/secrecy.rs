//! At the finest log level, the HTTP libraries log every frame, and other versions may log more. The gate's log
//! passes none of it on, and contains no token at any level.
#![allow(clippy::unwrap_used, reason = "a broken promise fails the test")]

use std::convert::Infallible;
use std::fmt::Debug;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use portcullis::log::{self, Format, Settings};
use portcullis::metrics::Metrics;
use tracing::dispatcher;
use tracing::field::{Field, Visit};
use tracing::subscriber::NoSubscriber;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt as _};

const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhZGEifQ.c2lnbmF0dXJl";

/// What was printed.
#[derive(Clone, Default)]
pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints every event of every crate.
struct Everything(Printed);

impl<S: Subscriber> Layer<S> for Everything {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        event.record(&mut Fields(self.0.clone()));
    }
}

struct Fields(Printed);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, "{}={value:?} ", field.name()).unwrap();
    }
}

async fn answer(_request: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::new(Empty::new()))
}

/// Sends a request with a token over HTTP/2; both sides are in this task.
async fn exchange() {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    let server = server.serve_connection(TokioIo::new(far), service_fn(answer));
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(near)).await.unwrap();
    let request = Request::get("http://gate/deals/7")
        .header("authorization", format!("Bearer {TOKEN}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let request = async {
        let status = client.send_request(request).await.unwrap().status();
        drop(client);
        status
    };
    let (status, served, _) = tokio::join!(request, server, connection);
    served.unwrap();
    assert_eq!(status, 200);
}

#[tokio::test]
async fn no_level_lets_the_libraries_speak() {
    // While there is only one subscriber, a thread of another test may turn off a call site that it reaches first.
    let _second = Dispatch::new(NoSubscriber::default());
    let printed = Printed::default();
    let everything = Dispatch::new(tracing_subscriber::registry().with(Everything(printed.clone())));
    let default = dispatcher::set_default(&everything);
    exchange().await;
    drop(default);
    assert!(printed.text().contains("received frame=Headers"), "the libraries say nothing at all");

    for format in [Format::Json, Format::Pretty] {
        let printed = Printed::default();
        let settings = Settings { format, level: "trace".to_owned(), access_log: true, log_paths: true };
        let (_, guard, events) = log::open(&settings, &Metrics::new().unwrap(), printed.clone()).unwrap();
        let default = dispatcher::set_default(&events);
        exchange().await;
        tracing::trace!(target: "portcullis::gate", "a line of our own");
        drop(default);
        drop(guard);
        let text = printed.text();
        assert!(text.contains("a line of our own") && text.lines().count() == 1, "{text}");
        assert!(!text.contains(TOKEN), "{text}");
    }
}
