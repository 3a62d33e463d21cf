//! Responses of an HTTP/2 upstream on their way to an HTTP/1.1 client.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response};

use crate::gate::bed::{Bed, get};

/// How a stream ends after the last byte that its length announced.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Data,
    Trailers,
    Reset,
}

impl Ending {
    fn send(self, answer: &mut SendStream<Bytes>) {
        let trailers = || HeaderMap::from_iter([(http::header::AGE, HeaderValue::from(1))]);
        // The gate may have given the stream up.
        match self {
            Self::Data => drop(answer.send_data(Bytes::new(), true)),
            Self::Trailers => drop(answer.send_trailers(trailers())),
            Self::Reset => answer.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

/// An upstream whose first response announces four bytes, and ends once the sender says so; the others end at once.
fn upstream(ending: Ending) -> (SocketAddr, SyncSender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, gone) = sync_channel(1);
    drop(thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let stream = tokio::net::TcpStream::from_std(stream).unwrap();
            let mut server = h2::server::handshake(stream).await.unwrap();
            let mut gone = Some(gone);
            while let Some(Ok((_, mut respond))) = server.accept().await {
                let response = Response::builder().header("content-length", "4").body(()).unwrap();
                let mut answer = respond.send_response(response, false).unwrap();
                let Some(gone) = gone.take() else {
                    answer.send_data(Bytes::from_static(b"next"), true).unwrap();
                    continue;
                };
                answer.send_data(Bytes::from_static(b"body"), false).unwrap();
                drop(tokio::spawn(async move {
                    drop(tokio::task::spawn_blocking(move || gone.recv()).await);
                    ending.send(&mut answer);
                }));
            }
        });
    }));
    (address, go)
}

#[test]
fn an_answer_has_ended_when_its_stream_has_and_not_when_its_length_was_reached() {
    for ending in [Ending::Data, Ending::Trailers, Ending::Reset] {
        let (address, go) = upstream(ending);
        let bed = Bed::before_http2(address);
        let mut client = bed.connect();
        client.send([get("/first"), get("/second")].concat()).unwrap();
        assert_eq!(client.head().unwrap().status, 200, "{ending:?}");
        assert_eq!(client.take(4).unwrap(), b"body", "{ending:?}");
        go.send(()).unwrap();
        match ending {
            Ending::Data | Ending::Trailers => {
                assert_eq!(client.answer().unwrap().body, b"next", "{ending:?}");
            }
            // What broke off must not look complete: the client learns it by the end of the connection.
            Ending::Reset => assert_eq!(client.rest().unwrap(), b"", "{ending:?}"),
        }
    }
}
