//! Bodies: streamed both ways at the pace of the slower side, and never treated as complete when they are not.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http_body::Body as _;
use http_body_util::BodyExt as _;
use portcullis::forward::{BodyError, ForwardError, RequestBodyError};

use crate::forward::support::{Ask, Gate, Peer, full, listen, next, pieces, read, worker};

#[test]
fn chunks_are_handed_on_as_they_come() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (answer, mut peer) = tokio::join!(gate.get("/"), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n").await;
            peer
        });
        let mut answer = answer.unwrap();
        assert!(!answer.headers().contains_key("transfer-encoding"));
        assert_eq!(answer.headers().get("trailer").unwrap(), "x-sum");
        for event in ["data: 1", "data: 2"] {
            peer.say(format!("{:x}\r\n{event}\r\n", event.len())).await;
            assert_eq!(next(answer.body_mut()).await, event);
        }
        peer.say("0\r\nx-sum: 7\r\n\r\n").await;
        let (rest, trailers) = read(answer).await.unwrap();
        assert_eq!((rest.as_str(), trailers.get("x-sum").unwrap().to_str().unwrap()), ("", "7"));
        // Complete, so the connection serves the next request.
        let (answer, _) = tokio::join!(gate.get("/"), peer.serve("again"));
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "again");
    });
}

#[test]
fn a_body_is_over_with_its_last_piece_and_its_connection_is_given_back_once() {
    worker(async {
        for (framing, first, last) in [
            ("content-length: 11", "hello ", "world"),
            ("transfer-encoding: chunked", "6\r\nhello \r\n", "5\r\nworld\r\n0\r\n\r\n"),
        ] {
            let (listener, port) = listen().await;
            let gate = Gate::http(port);
            let (answer, mut peer) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{first}")).await;
                peer
            });
            let mut answer = answer.unwrap();
            assert_eq!(next(answer.body_mut()).await, "hello ");
            assert!(!answer.body().is_end_stream());
            peer.say(last).await;
            assert_eq!(next(answer.body_mut()).await, "world");
            // The end of a chunked body is a piece of its own.
            assert_eq!(answer.body().is_end_stream(), framing.starts_with("content-length"), "{framing}");
            assert!(answer.body_mut().frame().await.is_none(), "{framing}");
            assert!(answer.body().is_end_stream(), "{framing}");
            // Two requests at once: one on this connection, and one on another.
            let (first, second, ()) = tokio::join!(gate.get("/"), gate.get("/"), async {
                let mut other = Peer::accept(&listener).await;
                tokio::join!(peer.serve("here"), other.serve("there"));
            });
            let mut bodies = [read(first.unwrap()).await.unwrap().0, read(second.unwrap()).await.unwrap().0];
            bodies.sort();
            assert_eq!(bodies, ["here", "there"], "{framing}");
        }
    });
}

/// A body that does not report that it has ended.
struct Unaware;

impl http_body::Body for Unaware {
    type Data = Bytes;
    type Error = RequestBodyError;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, RequestBodyError>>> {
        std::task::Poll::Ready(None)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(0)
    }
}

#[test]
fn a_body_of_no_bytes_is_one() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let body = portcullis::forward::RequestBody::new(Unaware);
        let (answer, head) = tokio::join!(gate.send(Ask::post("/", body)), async {
            Peer::accept(&listener).await.serve("ok").await
        });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "ok");
        assert!(head.contains("\r\ncontent-length: 0\r\n"), "{head}");
    });
}

#[test]
fn bodies_that_end_with_the_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for version in ["1.0", "1.1"] {
            let (answer, ()) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(format!("HTTP/{version} 200 OK\r\n\r\nhello ")).await;
                peer.say("world").await;
            });
            assert_eq!(read(answer.unwrap()).await.unwrap().0, "hello world");
        }
    });
}

#[test]
fn a_truncated_answer_is_an_error_of_the_body() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for truncated in
            ["content-length: 10\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"]
        {
            let (answer, ()) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(format!("HTTP/1.1 200 OK\r\n{truncated}")).await;
            });
            let mut body = answer.unwrap().into_body();
            assert_eq!(next(&mut body).await, "hello");
            assert!(!body.is_end_stream());
            let error = body.frame().await.expect("not a clean end").expect_err("not complete");
            assert!(matches!(error, BodyError::Truncated), "{error}");
            assert!(body.frame().await.is_none());
        }
        assert_eq!(gate.errors("closed"), 2);
    });
}

#[test]
fn broken_chunks_are_an_error_of_the_body() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzzz\r\n").await;
        });
        let error = read(answer.unwrap()).await.expect_err("broken");
        assert!(matches!(error, BodyError::BadAnswer(_)), "{error}");
        assert_eq!(gate.errors("bad_answer"), 1);
    });
}

#[test]
fn request_trailers_are_forwarded() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let ask = Ask::post("/", body).header("trailer", "x-sum").header("te", "trailers");
        let (answer, (), ()) = tokio::join!(
            gate.send(ask),
            async move {
                sender.send("hello").await;
                sender.trailers("x-sum", "7").await;
            },
            async {
                let mut peer = Peer::accept(&listener).await;
                let head = peer.head().await;
                assert!(
                    head.contains("\r\ntrailer: x-sum\r\n")
                        && head.contains("\r\nte: trailers\r\nconnection: te\r\n"),
                    "{head}"
                );
                assert_eq!(peer.head().await, "5\r\nhello\r\n0\r\nx-sum: 7\r\n\r\n");
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        );
        answer.unwrap();
    });
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let (answer, mut peer) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
            peer
        });
        let mut answer = answer.unwrap();
        for word in ["one", "two"] {
            sender.send(word).await;
            assert_eq!(peer.take(8).await, format!("3\r\n{word}\r\n"));
            peer.say(format!("3\r\n{word}\r\n")).await;
            assert_eq!(next(answer.body_mut()).await, word);
        }
        drop(sender);
        assert_eq!(peer.take(5).await, "0\r\n\r\n");
        peer.say("0\r\n\r\n").await;
        assert_eq!(read(answer).await.unwrap().0, "");
        // Both sides are complete, so the connection is used again.
        let (answer, _) = tokio::join!(gate.get("/"), peer.serve("again"));
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "again");
    });
}

#[test]
fn the_request_goes_on_while_nobody_reads_the_answer() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let (answer, mut peer) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
            peer
        });
        let answer = answer.unwrap();
        for _ in 0..100 {
            sender.send("0123456789").await;
            assert_eq!(peer.take(15).await, "a\r\n0123456789\r\n");
        }
        drop(sender);
        peer.take(5).await;
        peer.say("hello").await;
        assert_eq!(read(answer).await.unwrap().0, "hello");
    });
}

#[test]
fn a_complete_answer_ends_the_rest_of_the_request() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let (answer, mut peer) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\nno").await;
            peer
        });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "no");
        sender.unwanted().await;
        peer.closed().await;
    });
}

#[test]
fn a_body_above_the_limit_stops_the_request() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let (answer, (), _) = tokio::join!(
            gate.send(Ask::post("/", body)),
            async {
                sender.send("hello").await;
                sender.fail(RequestBodyError::TooLarge).await;
            },
            async { Peer::accept(&listener).await.closed().await }
        );
        let error = answer.expect_err("too large");
        assert!(matches!(error, ForwardError::RequestBody(RequestBodyError::TooLarge)), "{error}");
        assert_eq!(error.status(), 413);
        assert_eq!(error.kind(), None);
    });
}

#[test]
fn a_client_that_fails_during_the_answer_breaks_the_answer() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let (answer, mut peer) = tokio::join!(gate.send(Ask::post("/", body)), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n").await;
            peer
        });
        let (error, ()) = tokio::join!(read(answer.unwrap()), sender.fail(RequestBodyError::TooLarge));
        assert!(matches!(error, Err(BodyError::Request(RequestBodyError::TooLarge))), "{error:?}");
        // The upstream must not take the request for complete: no last chunk.
        assert_eq!(peer.closed().await, 0);
    });
}

#[test]
fn a_body_that_is_not_as_long_as_announced() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        /// Announces ten bytes and delivers five.
        struct Short(bool);
        impl http_body::Body for Short {
            type Data = Bytes;
            type Error = RequestBodyError;
            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, RequestBodyError>>> {
                let first = std::mem::take(&mut self.0);
                std::task::Poll::Ready(
                    first.then(|| Ok(http_body::Frame::data(Bytes::from_static(b"hello")))),
                )
            }
            fn size_hint(&self) -> http_body::SizeHint {
                http_body::SizeHint::with_exact(10)
            }
        }
        let body = portcullis::forward::RequestBody::new(Short(true));
        let (answer, sent) = tokio::join!(gate.send(Ask::post("/", body)), async {
            Peer::accept(&listener).await.closed().await
        });
        assert!(matches!(answer, Err(ForwardError::RequestBody(RequestBodyError::Length))), "{answer:?}");
        assert!(sent == 0 || sent > 5);
    });
}

const STALL: Duration = Duration::from_millis(300);

#[test]
fn a_slow_client_slows_the_upstream() {
    const LENGTH: usize = 64 * 1024 * 1024;
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (answer, peer) = tokio::join!(gate.get("/"), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say(format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n")).await;
            peer
        });
        let mut body = answer.unwrap().into_body();
        // The client takes one piece and then none: the upstream is stopped by full socket buffers.
        let stream = peer.stream;
        let piece = vec![b'x'; 64 * 1024];
        let (mut written, mut read) = (0, 0);
        let pump = async {
            while written < LENGTH {
                let Ok(writable) = tokio::time::timeout(STALL, stream.writable()).await else { break };
                writable.unwrap();
                written += stream.try_write(&piece[..piece.len().min(LENGTH - written)]).unwrap_or(0);
            }
        };
        let (first, ()) = tokio::join!(body.frame(), pump);
        read += first.unwrap().unwrap().into_data().unwrap().len();
        assert!(
            written < LENGTH / 4,
            "{written} bytes were taken from the upstream for a client that took {read}"
        );
        let pump = async {
            while written < LENGTH {
                stream.writable().await.unwrap();
                written += stream.try_write(&piece[..piece.len().min(LENGTH - written)]).unwrap_or(0);
            }
        };
        let drain = async {
            while let Some(frame) = body.frame().await {
                let data = frame.unwrap().into_data().unwrap();
                assert!(data.len() <= 128 * 1024, "one piece of {} bytes", data.len());
                read += data.len();
            }
        };
        tokio::join!(pump, drain);
        assert_eq!(read, LENGTH);
    });
}

#[test]
fn a_slow_upstream_slows_the_client() {
    const PIECE: usize = 64 * 1024;
    const LENGTH: usize = 64 * 1024 * 1024;
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (sender, body) = pieces();
        let sent = Rc::new(Cell::new(0));
        let counter = Rc::clone(&sent);
        let client = async move {
            for _ in 0..LENGTH / PIECE {
                sender.send(vec![b'x'; PIECE]).await;
                counter.set(counter.get() + PIECE);
            }
        };
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            let mut before = usize::MAX;
            // Reads nothing until nothing more is sent, which nothing announces.
            while sent.get() != before {
                before = sent.get();
                testkit::let_pass_async(STALL).await;
            }
            assert!(
                before < LENGTH / 4,
                "{before} bytes were taken from the client for an upstream that read none"
            );
            // Every piece has a size line and a line end around it.
            let coded = LENGTH + (LENGTH / PIECE) * (b"10000\r\n\r\n".len()) + b"0\r\n\r\n".len();
            peer.skip(coded).await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        };
        let (answer, (), ()) = tokio::join!(gate.send(Ask::post("/", body)), client, server);
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(sent.get(), LENGTH);
    });
}

#[test]
fn a_dropped_body_closes_the_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for framing in ["content-length: 100", "transfer-encoding: chunked"] {
            let (answer, mut peer) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n5\r\nhello\r\n")).await;
                peer
            });
            let mut body = answer.unwrap().into_body();
            next(&mut body).await;
            drop(body);
            assert_eq!(peer.closed().await, 0);
        }
    });
}

#[test]
fn large_uploads_arrive_whole() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let sent: String = (0..200_000).map(|number| format!("{number:>5} ")).collect();
        let (answer, received) = tokio::join!(gate.send(Ask::post("/", full(sent.clone()))), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            let received = peer.take(sent.len()).await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            received
        });
        answer.unwrap();
        assert!(received == sent, "the body was changed");
    });
}
