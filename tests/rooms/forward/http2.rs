//! HTTP/2 upstreams in plaintext, with prior knowledge.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use http_body_util::BodyExt as _;
use portcullis::forward::{BodyError, ErrorKind, ForwardError, Interim, RequestBodyError, Scheme};
use tokio::net::{TcpListener, TcpStream};

use crate::forward::support::{
    Ask, Gate, ODD_QUERIES, Peer, full, listen, next, pieces, read, settings, worker,
};

type Server = Connection<TcpStream, Bytes>;
type Exchange = (Request<RecvStream>, SendResponse<Bytes>);

fn h2c(port: u16) -> Gate {
    Gate::new(settings(Scheme::H2c, port))
}

async fn accept(listener: &TcpListener) -> Server {
    let (stream, _) = listener.accept().await.unwrap();
    h2::server::handshake(stream).await.unwrap()
}

/// Returns the next request of a connection, which is driven in the background.
async fn serve(mut server: Server) -> Exchange {
    let exchange = server.accept().await.expect("a request").unwrap();
    keep_moving(server);
    exchange
}

fn keep_moving(mut server: Server) {
    drop(tokio::task::spawn_local(async move { while server.accept().await.is_some() {} }));
}

fn ok() -> Response<()> {
    Response::new(())
}

async fn data(stream: &mut RecvStream) -> String {
    let data = stream.data().await.expect("more data").unwrap();
    stream.flow_control().release_capacity(data.len()).unwrap();
    String::from_utf8(data.to_vec()).unwrap()
}

/// Responds to every request of a connection with `body`.
async fn always(mut server: Server, body: &'static str) {
    while let Some(Ok((_, mut respond))) = server.accept().await {
        let mut stream = respond.send_response(ok(), false).unwrap();
        stream.send_data(Bytes::from_static(body.as_bytes()), true).unwrap();
    }
}

#[test]
fn a_request_becomes_one_stream_of_a_shared_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let server = async {
            let mut server = accept(&listener).await;
            for _ in 0..3 {
                let (request, mut respond) = server.accept().await.unwrap().unwrap();
                assert_eq!(request.uri(), "http://api.example/deals?q=1");
                let headers = request.headers();
                assert!(headers.get("via").unwrap().as_bytes().starts_with(b"2 portcullis-"));
                assert_eq!(headers.get("x-forwarded-for").unwrap(), "192.0.2.7");
                assert_eq!(headers.get_all("cookie").iter().count(), 2);
                for name in ["host", "connection", "upgrade", "keep-alive", "content-length"] {
                    assert!(!headers.contains_key(name), "{name}");
                }
                let mut stream = respond.send_response(ok(), false).unwrap();
                stream.send_data(Bytes::from_static(b"hello"), true).unwrap();
            }
            keep_moving(server);
        };
        let client = async {
            for _ in 0..3 {
                let ask = Ask::get("/deals?q=1").header("cookie", "a=1").header("cookie", "b=2");
                let ask = Ask {
                    version: Version::HTTP_2,
                    ..ask.header("connection", "keep-alive, upgrade").header("upgrade", "x")
                };
                let answer = gate.send(ask).await.unwrap();
                assert_eq!(answer.headers().get("x-request-id").unwrap(), "request-1");
                assert_eq!(read(answer).await.unwrap().0, "hello");
            }
        };
        tokio::join!(server, client);
    });
}

#[test]
fn many_requests_at_once_share_the_first_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let opened = Rc::new(RefCell::new(0));
        let counter = Rc::clone(&opened);
        drop(tokio::task::spawn_local(async move {
            loop {
                let server = accept(&listener).await;
                *counter.borrow_mut() += 1;
                drop(tokio::task::spawn_local(always(server, "x")));
            }
        }));
        let all = (0..50).map(|_| async { read(gate.get("/").await.unwrap()).await.unwrap().0 });
        let bodies = futures_util::future::join_all(all).await;
        assert!(bodies.iter().all(|body| body == "x"));
        assert_eq!(*opened.borrow(), 1);
    });
}

#[test]
fn a_full_connection_gets_a_second_one_beside_it() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let narrow = || async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut server: Server =
                h2::server::Builder::new().max_concurrent_streams(1).handshake(stream).await.unwrap();
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let stream = respond.send_response(ok(), false).unwrap();
            keep_moving(server);
            stream
        };
        let (one, mut first) = tokio::join!(gate.get("/"), narrow());
        let (two, mut second) = tokio::join!(gate.get("/"), narrow());
        first.send_data(Bytes::from_static(b"1"), true).unwrap();
        second.send_data(Bytes::from_static(b"2"), true).unwrap();
        assert_eq!(read(one.unwrap()).await.unwrap().0, "1");
        assert_eq!(read(two.unwrap()).await.unwrap().0, "2");
    });
}

#[test]
fn client_resets_and_gone_clients_reach_the_upstream() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, (_request, mut respond)) = tokio::join!(gate.get("/"), async {
            let (request, mut respond) = serve(accept(&listener).await).await;
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
            (request, stream)
        });
        let mut body = answer.unwrap().into_body();
        assert_eq!(next(&mut body).await, "hello");
        drop(body);
        assert_eq!(poll_fn(|cx| respond.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn resets_during_the_answer_are_errors_of_the_body() {
    worker(async {
        for (length, reason, clean) in [
            (None, Reason::INTERNAL_ERROR, false),
            (None, Reason::CANCEL, false),
            (Some(5), Reason::NO_ERROR, true),
            (Some(10), Reason::NO_ERROR, false),
        ] {
            let (listener, port) = listen().await;
            let gate = h2c(port);
            let (answer, mut stream) = tokio::join!(gate.get("/"), async {
                let (_, mut respond) = serve(accept(&listener).await).await;
                let mut response = ok();
                if let Some(length) = length {
                    response.headers_mut().insert("content-length", HeaderValue::from(length));
                }
                let mut stream = respond.send_response(response, false).unwrap();
                stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
                stream
            });
            let mut body = answer.unwrap().into_body();
            assert_eq!(next(&mut body).await, "hello");
            stream.send_reset(reason);
            match body.frame().await {
                None => assert!(clean, "{reason} looks like the end"),
                Some(Err(BodyError::Reset(error))) => {
                    assert_eq!((error.reason(), clean), (Some(reason), false))
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(gate.errors("reset"), u64::from(!clean));
        }
    });
}

#[test]
fn a_lost_connection_is_an_error_of_the_body_and_of_waiting_requests() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, (mut server, stream)) = tokio::join!(gate.get("/"), async {
            let mut server = accept(&listener).await;
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
            // Written out, and nothing more.
            poll_fn(|cx| {
                drop(server.poll_closed(cx));
                std::task::Poll::Ready(())
            })
            .await;
            (server, stream)
        });
        let mut body = answer.unwrap().into_body();
        assert_eq!(next(&mut body).await, "hello");
        let (waiting, ()) = tokio::join!(gate.send(Ask::post("/", full("x"))), async {
            let taken_up = server.accept().await.unwrap().unwrap();
            drop(server);
            drop((taken_up, stream));
        });
        assert_eq!(waiting.expect_err("lost").kind(), Some(ErrorKind::Closed));
        let error = body.frame().await.expect("no clean end").expect_err("lost");
        assert_eq!(error.kind(), Some(ErrorKind::Closed), "{error}");
        // The next request opens a new connection.
        let (answer, ()) = tokio::join!(async { read(gate.get("/").await.unwrap()).await }, async {
            let server = accept(&listener).await;
            drop(tokio::task::spawn_local(always(server, "new")));
        });
        assert_eq!(answer.unwrap().0, "new");
    });
}

#[test]
fn what_the_upstream_did_not_take_up_is_sent_again() {
    worker(async {
        for method in [Method::GET, Method::POST] {
            let (listener, port) = listen().await;
            let gate = h2c(port);
            // A first request, so that the second one finds an open connection.
            let (answer, mut server) = tokio::join!(gate.get("/"), async {
                let mut server = accept(&listener).await;
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_response(ok(), true).unwrap();
                tokio::select! { biased; _ = server.accept() => {}, () = std::future::ready(()) => {} }
                server
            });
            assert_eq!(answer.unwrap().status(), 200);
            let (answer, ()) = tokio::join!(gate.send(Ask::new(method.clone(), "/")), async {
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_reset(Reason::REFUSED_STREAM);
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_response(Response::builder().status(204).body(()).unwrap(), true).unwrap();
                keep_moving(server);
            });
            assert_eq!(answer.unwrap().status(), 204, "{method}");
        }
    });
}

#[test]
fn a_connection_that_says_goodbye_gets_no_new_requests() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (one, mut stream) = tokio::join!(gate.get("/"), async {
            let mut server = accept(&listener).await;
            let (_, mut respond) = server.accept().await.unwrap().unwrap();
            let stream = respond.send_response(ok(), false).unwrap();
            server.graceful_shutdown();
            drop(tokio::task::spawn_local(always(server, "old")));
            stream
        });
        // Requests may still arrive until the GOAWAY has; all are answered, soon by a new connection.
        drop(tokio::task::spawn_local(async move { always(accept(&listener).await, "new").await }));
        while read(gate.get("/").await.unwrap()).await.unwrap().0 == "old" {}
        assert_eq!(read(gate.get("/").await.unwrap()).await.unwrap().0, "new");
        stream.send_data(Bytes::from_static(b"one"), true).unwrap();
        assert_eq!(read(one.unwrap()).await.unwrap().0, "one");
    });
}

#[test]
fn interim_answers_and_expectations_are_passed_on() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let recorder = Rc::clone(&seen);
        let interim = Interim::new(move |status, _| recorder.borrow_mut().push(status.as_u16()));
        let (sender, body) = pieces();
        let ask = Ask { interim: Some(interim), ..Ask::post("/", body).header("expect", "100-continue") };
        let (answer, ()) = tokio::join!(gate.send(ask), async {
            let (mut request, mut respond) = serve(accept(&listener).await).await;
            assert_eq!(request.headers().get("expect").unwrap(), "100-continue");
            assert!(!sender.was_asked());
            for status in [103, 100] {
                let interim = Response::builder().status(status).body(()).unwrap();
                respond.send_informational(interim).unwrap();
            }
            sender.send("hello").await;
            drop(sender);
            assert_eq!(data(request.body_mut()).await, "hello");
            respond.send_response(ok(), true).unwrap();
        });
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(*seen.borrow(), [103, 100]);
    });
}

#[test]
fn a_refused_expectation_never_asks_for_the_body() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (sender, body) = pieces();
        let (answer, ()) =
            tokio::join!(gate.send(Ask::post("/", body).header("expect", "100-continue")), async {
                let (_request, mut respond) = serve(accept(&listener).await).await;
                respond.send_response(Response::builder().status(413).body(()).unwrap(), true).unwrap();
            });
        assert_eq!(answer.unwrap().status(), 413);
        assert!(!sender.was_asked());
    });
}

#[test]
fn a_silent_upstream_ends_in_a_timeout() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, reason) = tokio::join!(gate.get("/impatient"), async {
            let (_request, mut respond) = serve(accept(&listener).await).await;
            poll_fn(|cx| respond.poll_reset(cx)).await.unwrap()
        });
        let error = answer.expect_err("no answer");
        assert_eq!((error.kind(), error.status()), (Some(ErrorKind::Timeout), StatusCode::GATEWAY_TIMEOUT));
        assert_eq!(reason, Reason::CANCEL);
    });
}

#[test]
fn a_failing_client_resets_the_stream() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (sender, body) = pieces();
        let (answer, ()) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let (mut request, _respond) = serve(accept(&listener).await).await;
            sender.send("hello").await;
            assert_eq!(data(request.body_mut()).await, "hello");
            sender.fail(RequestBodyError::TooLarge).await;
            let error = request.body_mut().data().await.expect("no clean end").expect_err("reset");
            assert_eq!(error.reason(), Some(Reason::CANCEL));
        });
        assert!(matches!(answer, Err(ForwardError::RequestBody(RequestBodyError::TooLarge))), "{answer:?}");
    });
}

#[test]
fn a_slow_client_slows_the_upstream() {
    const LENGTH: usize = 16 * 1024 * 1024;
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, mut stream) = tokio::join!(gate.get("/"), async {
            let (_, mut respond) = serve(accept(&listener).await).await;
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.reserve_capacity(LENGTH);
            stream
        });
        let mut body = answer.unwrap().into_body();
        let mut left = LENGTH;
        // Nobody reads: the stream's window bounds what is taken.
        while let Ok(capacity) =
            tokio::time::timeout(Duration::from_millis(300), poll_fn(|cx| stream.poll_capacity(cx))).await
        {
            let capacity = capacity.unwrap().unwrap().min(left);
            stream.send_data(vec![b'x'; capacity].into(), false).unwrap();
            left -= capacity;
        }
        assert!(
            LENGTH - left <= 512 * 1024,
            "{} bytes were taken for a client that took none",
            LENGTH - left
        );
        let pump = async {
            while left > 0 {
                let capacity = poll_fn(|cx| stream.poll_capacity(cx)).await.unwrap().unwrap().min(left);
                left -= capacity;
                stream.send_data(vec![b'x'; capacity].into(), left == 0).unwrap();
            }
        };
        let drain = async {
            let mut read = 0;
            while let Some(frame) = body.frame().await {
                read += frame.unwrap().into_data().unwrap().len();
            }
            read
        };
        let ((), read) = tokio::join!(pump, drain);
        assert_eq!(read, LENGTH);
    });
}

#[test]
fn uploads_larger_than_every_window_arrive() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let sent: String = (0..100_000).map(|number| format!("{number:>5} ")).collect();
        let length = sent.len();
        let (answer, received) = tokio::join!(gate.send(Ask::post("/", full(sent.clone()))), async {
            let (mut request, mut respond) = serve(accept(&listener).await).await;
            assert_eq!(request.headers().get("content-length").unwrap(), &length.to_string());
            let mut received = String::new();
            while received.len() < length {
                received.push_str(&data(request.body_mut()).await);
            }
            respond.send_response(ok(), true).unwrap();
            received
        });
        assert_eq!(answer.unwrap().status(), 200);
        assert!(received == sent, "the body was changed");
    });
}

#[test]
fn bodiless_answers_are_passed_on() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let server = async {
            let mut server = accept(&listener).await;
            for status in [200, 204, 304] {
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                let response = Response::builder().status(status);
                let response =
                    if status == 200 { response.header("content-length", "500") } else { response };
                respond.send_response(response.body(()).unwrap(), true).unwrap();
            }
            keep_moving(server);
        };
        let client = async {
            let head = gate.send(Ask::new(Method::HEAD, "/")).await.unwrap();
            assert_eq!(head.headers().get("content-length").unwrap(), "500");
            assert!(head.body().is_end_stream());
            for status in [204, 304] {
                let answer = gate.get("/").await.unwrap();
                assert_eq!((answer.status().as_u16(), answer.body().is_end_stream()), (status, true));
            }
        };
        tokio::join!(server, client);
    });
}

#[test]
fn unused_connections_are_closed() {
    worker(async {
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::H2c, port);
        settings.idle_timeout = Duration::from_millis(100);
        let gate = Gate::new(settings);
        let (answer, ()) =
            tokio::join!(async { read(gate.get("/").await.unwrap()).await.unwrap().0 }, async {
                // Ends when the gate closes the connection.
                always(accept(&listener).await, "x").await;
            });
        assert_eq!(answer, "x");
    });
}

#[test]
fn an_upstream_that_does_not_speak_http2() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            let mut peer = Peer::accept(&listener).await;
            peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
            peer.closed().await;
        });
        let error = answer.expect_err("not HTTP/2");
        assert_eq!(
            (error.kind(), error.status()),
            (Some(ErrorKind::BadAnswer), StatusCode::BAD_GATEWAY),
            "{error}"
        );
    });
}

#[test]
fn trailers_of_requests_and_answers_are_passed_on() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (sender, body) = pieces();
        let ask = Ask::post("/grpc.Service/Call", body).header("te", "trailers");
        let (answer, (), ()) = tokio::join!(
            async {
                let answer = gate.send(ask).await.unwrap();
                read(answer).await.unwrap()
            },
            async move {
                sender.send("one").await;
                sender.send("two").await;
                sender.trailers("x-sum", "2").await;
            },
            async {
                let (mut request, mut respond) = serve(accept(&listener).await).await;
                assert_eq!(request.headers().get("te").unwrap(), "trailers");
                let mut stream = respond.send_response(ok(), false).unwrap();
                for word in ["one", "two"] {
                    assert_eq!(data(request.body_mut()).await, word);
                    stream.send_data(Bytes::from(word), false).unwrap();
                }
                assert!(request.body_mut().data().await.is_none());
                let trailers = request.body_mut().trailers().await.unwrap().unwrap();
                assert_eq!(trailers.get("x-sum").unwrap(), "2");
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                stream.send_trailers(trailers).unwrap();
            }
        );
        assert_eq!(
            (answer.0.as_str(), answer.1.get("grpc-status").unwrap().to_str().unwrap()),
            ("onetwo", "0")
        );
    });
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (sender, body) = pieces();
        let (answer, (mut request, mut stream)) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let (request, mut respond) = serve(accept(&listener).await).await;
            (request, respond.send_response(ok(), false).unwrap())
        });
        let mut answer = answer.unwrap();
        for word in ["one", "two"] {
            sender.send(word).await;
            assert_eq!(data(request.body_mut()).await, word);
            stream.send_data(Bytes::from(word), false).unwrap();
            assert_eq!(next(answer.body_mut()).await, word);
        }
        drop(sender);
        assert!(request.body_mut().data().await.is_none_or(|end| end.unwrap().is_empty()));
        stream.send_data(Bytes::new(), true).unwrap();
        assert_eq!(read(answer).await.unwrap().0, "");
    });
}

#[test]
fn a_request_is_refused_twice_at_most() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, ()) = tokio::join!(gate.send(Ask::new(Method::POST, "/")), async {
            let mut server = accept(&listener).await;
            for _ in 0..2 {
                let (_, mut respond) = server.accept().await.unwrap().unwrap();
                respond.send_reset(Reason::REFUSED_STREAM);
            }
            keep_moving(server);
        });
        let error = answer.expect_err("refused twice");
        assert!(matches!(error, ForwardError::Reset(Reason::REFUSED_STREAM)), "{error}");
        assert_eq!(gate.errors("reset"), 1);
    });
}

/// An upstream that writes HTTP/2 frames by hand.
struct ByHand(Peer);

impl ByHand {
    async fn accept(listener: &TcpListener) -> Self {
        let mut peer = Peer::accept(listener).await;
        assert_eq!(peer.take(24).await, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        Self(peer)
    }

    async fn say(&mut self, kind: u8, flags: u8, stream: u8, payload: &[u8]) {
        let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream];
        frame.extend(payload);
        self.0.say(frame).await;
    }

    /// The type of the next frame.
    async fn next(&mut self) -> u8 {
        let head = self.0.take_bytes(9).await;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        self.0.skip(length).await;
        head[3]
    }

    async fn until(&mut self, kind: u8) {
        while self.next().await != kind {}
    }
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_HEADERS: u8 = 4;
const STATUS_200: u8 = 0x88;

#[test]
fn a_quiet_stream_is_never_asked_whether_it_is_alive() {
    worker(async {
        for idle_timeout in [Duration::ZERO, Duration::from_millis(20), Duration::from_secs(60)] {
            let (listener, port) = listen().await;
            let mut settings = settings(Scheme::H2c, port);
            settings.idle_timeout = idle_timeout;
            let gate = Gate::new(settings);
            let (answer, mut upstream) = tokio::join!(gate.get("/"), async {
                let mut upstream = ByHand::accept(&listener).await;
                upstream.say(SETTINGS, 0, 0, &[]).await;
                upstream.until(HEADERS).await;
                upstream.say(HEADERS, END_HEADERS, 1, &[STATUS_200]).await;
                upstream
            });
            let mut body = answer.unwrap().into_body();
            let quiet = tokio::time::timeout(Duration::from_millis(400), upstream.until(PING)).await;
            assert!(quiet.is_err(), "a PING, with an idle_timeout of {idle_timeout:?}");
            upstream.say(DATA, 0, 1, b"late").await;
            assert_eq!(next(&mut body).await, "late");
        }
    });
}

#[test]
fn how_long_a_connection_is_pooled_says_nothing_about_its_requests() {
    worker(async {
        for idle_timeout in [Duration::ZERO, Duration::from_millis(20)] {
            let (listener, port) = listen().await;
            let mut settings = settings(Scheme::H2c, port);
            settings.idle_timeout = idle_timeout;
            let gate = Gate::new(settings);
            for _ in 0..3 {
                let (answer, [connection]) = tokio::join!(gate.get("/"), async {
                    let mut server = accept(&listener).await;
                    let (_, mut respond) = server.accept().await.unwrap().unwrap();
                    let connection = tokio::task::spawn_local(async move { server.accept().await.is_none() });
                    // Longer than the connection would be kept.
                    testkit::let_pass_async(Duration::from_millis(100)).await;
                    let mut stream = respond.send_response(ok(), false).unwrap();
                    stream.send_data(Bytes::from_static(b"x"), true).unwrap();
                    [connection]
                });
                assert_eq!(read(answer.unwrap()).await.unwrap().0, "x");
                // The connection ends with its last stream, and the next request opens one.
                connection.await.unwrap();
            }
        }
    });
}

#[test]
fn a_connection_on_which_nothing_comes_gets_no_further_requests() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (answer, mut dead) = tokio::join!(gate.get("/impatient"), ByHand::accept(&listener));
        assert_eq!(answer.expect_err("silence").kind(), Some(ErrorKind::Timeout));
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            let server = accept(&listener).await;
            drop(tokio::task::spawn_local(always(server, "alive")));
        });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "alive");
        dead.0.closed().await;
    });
}

#[test]
fn requests_wait_for_no_more_than_what_a_connection_allows() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let opened = Rc::new(RefCell::new(0));
        let counter = Rc::clone(&opened);
        drop(tokio::task::spawn_local(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                *counter.borrow_mut() += 1;
                drop(tokio::task::spawn_local(async move {
                    let mut one = h2::server::Builder::new();
                    let server: Server = one.max_concurrent_streams(1).handshake(stream).await.unwrap();
                    always(server, "x").await;
                }));
            }
        }));
        // The first connection tells how many streams it allows.
        for _ in 0..2 {
            assert_eq!(read(gate.get("/").await.unwrap()).await.unwrap().0, "x");
        }
        let all = (0..20).map(|_| async { read(gate.get("/").await.unwrap()).await.unwrap().0 });
        let bodies = futures_util::future::join_all(all).await;
        assert!(bodies.iter().all(|body| body == "x"));
        assert!(*opened.borrow() > 1);
    });
}

#[test]
fn a_switch_of_protocol_is_no_answer_over_http_2() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let ask = Ask::get("/").header("connection", "upgrade").header("upgrade", "echo");
        let (answer, _upstream) = tokio::join!(gate.send(ask), async {
            let mut upstream = ByHand::accept(&listener).await;
            upstream.say(SETTINGS, 0, 0, &[]).await;
            upstream.until(HEADERS).await;
            // A literal `:status: 101`.
            upstream.say(HEADERS, END_HEADERS, 1, b"\x08\x03101").await;
            upstream
        });
        let error = answer.expect_err("no switch");
        assert_eq!((error.kind(), error.status()), (Some(ErrorKind::BadAnswer), StatusCode::BAD_GATEWAY));
    });
}

#[test]
fn a_target_that_the_library_cannot_hold_is_refused_and_costs_nothing() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        drop(tokio::task::spawn_local(async move { always(accept(&listener).await, "x").await }));
        for target in ODD_QUERIES {
            let error = gate.get(target).await.expect_err("cannot be sent");
            assert!(matches!(error, ForwardError::Target), "{target}: {error}");
            assert_eq!((error.kind(), error.status()), (None, StatusCode::BAD_REQUEST), "{target}");
        }
        // What percent-encoding or a lenient library leaves passes, on the same connection.
        for target in ["/?filter=%7B%22a%22:1%7D", "/?a={b}|c^d`e\\f[]", "/\"{}", "/?é"] {
            let answer = gate.get(target).await.unwrap_or_else(|error| panic!("{target}: {error}"));
            assert_eq!(read(answer).await.unwrap().0, "x", "{target}");
        }
    });
}

#[test]
fn an_upstream_that_stops_in_mid_body_is_given_up() {
    worker(async {
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::H2c, port);
        settings.body_timeout = Some(Duration::from_millis(100));
        let gate = Gate::new(settings);
        let (answer, mut stream) = tokio::join!(gate.get("/"), async {
            let (_, mut respond) = serve(accept(&listener).await).await;
            let mut stream = respond.send_response(ok(), false).unwrap();
            stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
            stream
        });
        let mut body = answer.unwrap().into_body();
        assert_eq!(next(&mut body).await, "hello");
        let error = body.frame().await.expect("no clean end").expect_err("silence");
        assert_eq!(error.kind(), Some(ErrorKind::Timeout), "{error}");
        assert_eq!(gate.errors("timeout"), 1);
        assert_eq!(poll_fn(|cx| stream.poll_reset(cx)).await.unwrap(), Reason::CANCEL);
    });
}

#[test]
fn the_time_for_an_answer_begins_when_the_request_has_ended() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = h2c(port);
        let (sender, body) = pieces();
        let ask =
            Ask { path: "/impatient", ..Ask::post("/", body).header("content-type", "application/grpc") };
        let (answer, reason) = tokio::join!(gate.send(ask), async {
            let (request, mut respond) = serve(accept(&listener).await).await;
            // Quiet on both sides for longer than the route's response_timeout, and than its request_body_timeout.
            testkit::let_pass_async(Duration::from_millis(800)).await;
            let early = tokio::time::timeout(Duration::ZERO, poll_fn(|cx| respond.poll_reset(cx))).await;
            assert!(early.is_err(), "a stream that is quiet on both sides is no error: {early:?}");
            drop(sender);
            let reason = poll_fn(|cx| respond.poll_reset(cx)).await.unwrap();
            drop(request);
            reason
        });
        assert_eq!(answer.expect_err("no answer after the end").kind(), Some(ErrorKind::Timeout));
        assert_eq!(reason, Reason::CANCEL);
    });
}
