//! One request and its response over HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use http_body::Body as _;
use portcullis::forward::{Address, ErrorKind, ForwardError, Interim, RequestBodyError, Scheme};
use testkit::ports::ClaimedPort;

use crate::forward::support::{Ask, Gate, ODD_QUERIES, Peer, full, listen, pieces, read, settings, worker};

#[test]
fn a_request_reaches_the_upstream_byte_for_byte() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let ask = Ask::get("/deals/%61?q=%zz&x=a;b").header("accept", "*/*").header("x-auth", "1");
        let (answer, head) =
            tokio::join!(gate.send(ask), async { Peer::accept(&listener).await.serve("{}").await });
        assert!(head.starts_with("GET /deals/%61?q=%zz&x=a;b HTTP/1.1\r\nhost: api.example\r\n"), "{head}");
        for line in ["accept: */*", "x-auth: 1", "x-forwarded-for: 192.0.2.7", "x-request-id: request-1"] {
            assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
        }
        assert!(head.contains("\r\nvia: 1.1 portcullis-"), "{head}");
        assert!(!head.contains("content-length") && !head.contains("transfer-encoding"), "{head}");
        let answer = answer.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(answer.headers().get("x-request-id").unwrap(), "request-1");
        assert_eq!(answer.body().size_hint().exact(), Some(2));
        assert_eq!(read(answer).await.unwrap().0, "{}");
    });
}

#[test]
fn a_query_is_sent_byte_for_byte_whatever_it_holds() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for target in ODD_QUERIES {
            let (answer, head) = tokio::join!(gate.get(target), async {
                let mut peer = Peer::accept(&listener).await;
                let head = peer.head().await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                head
            });
            assert_eq!(answer.unwrap().status(), StatusCode::OK);
            assert!(head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "{head}");
        }
    });
}

/// The body that a client sends, and how it is framed.
#[test]
fn bodies_are_framed_by_what_is_known() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let served = |ask| async {
            let (answer, (head, rest)) = tokio::join!(gate.send(ask), async {
                let mut peer = Peer::accept(&listener).await;
                let head = peer.head().await;
                let rest = match () {
                    () if head.contains("content-length: 5") => peer.take(5).await,
                    () if head.contains("transfer-encoding: chunked") => peer.until(b"0\r\n\r\n").await,
                    () => String::new(),
                };
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                (head, rest)
            });
            answer.unwrap();
            (head, rest)
        };
        let (head, body) = served(Ask::post("/", full("hello"))).await;
        assert!(head.contains("\r\ncontent-length: 5\r\n"), "{head}");
        assert_eq!(body, "hello");

        let (pieces, body) = pieces();
        let ((head, body), ()) = tokio::join!(served(Ask::post("/", body)), async move {
            pieces.send("hello").await;
            pieces.send("").await;
            pieces.send("0123456789abcdef").await;
        });
        assert!(head.contains("\r\ntransfer-encoding: chunked\r\n"), "{head}");
        assert_eq!(body, "5\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\n\r\n");

        for (method, announced) in [(Method::POST, true), (Method::PUT, true), (Method::DELETE, false)] {
            let (head, _) = served(Ask::new(method.clone(), "/")).await;
            assert_eq!(head.contains("content-length: 0"), announced, "{method}: {head}");
        }
        let (head, _) = served(Ask::new(Method::DELETE, "/").header("content-length", "0")).await;
        assert!(head.contains("content-length: 0"), "{head}");
    });
}

#[test]
fn answers_without_a_body_end_with_their_head() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let server = async {
            let mut peer = Peer::accept(&listener).await;
            for answer in [
                "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\n\r\n",
            ] {
                peer.head().await;
                peer.say(answer).await;
            }
        };
        let client = async {
            let head = gate.send(Ask::new(Method::HEAD, "/")).await.unwrap();
            assert_eq!(head.headers().get("content-length").unwrap(), "500");
            assert!(head.body().is_end_stream());
            assert_eq!(read(head).await.unwrap().0, "");
            for status in [204, 304] {
                let answer = gate.get("/").await.unwrap();
                assert_eq!(answer.status(), status);
                assert!(answer.body().is_end_stream());
            }
        };
        tokio::join!(client, server);
    });
}

#[test]
fn broken_answers_are_bad_gateways_and_cost_the_connection() {
    const BROKEN: &[&str] = &[
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nna me: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nname: x\r\n folded\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        "220 mail.example ESMTP\r\n\r\n",
    ];
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for broken in BROKEN {
            let (answer, ()) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(broken).await;
                peer.closed().await;
            });
            let error = answer.expect_err(broken);
            assert_eq!(
                (error.kind(), error.status()),
                (Some(ErrorKind::BadAnswer), StatusCode::BAD_GATEWAY),
                "{broken}"
            );
        }
        assert_eq!(gate.errors("bad_answer"), BROKEN.len() as u64);
    });
}

#[test]
fn interim_answers_are_passed_on() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let recorder = Rc::clone(&seen);
        let interim = Interim::new(move |status, headers| {
            recorder
                .borrow_mut()
                .push((status.as_u16(), headers.get("link").map(|link| link.to_str().unwrap().to_owned())));
        });
        let ask = Ask { interim: Some(interim), ..Ask::get("/") };
        let (answer, ()) = tokio::join!(gate.send(ask), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n").await;
            peer.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        });
        assert_eq!(answer.unwrap().status(), 200);
        assert_eq!(*seen.borrow(), [(103, Some("</a.css>".to_owned())), (102, None)]);
    });
}

#[test]
fn interim_answers_without_end_are_refused() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000)).await;
            peer.closed().await;
        });
        assert!(matches!(answer, Err(ForwardError::BadAnswer(_))), "{answer:?}");
        for (count, is_passed_on) in [(64, true), (65, false)] {
            let (answer, ()) = tokio::join!(gate.get("/"), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                let hints = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(count);
                let last = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                peer.say(hints + last).await;
            });
            assert_eq!(answer.is_ok(), is_passed_on, "{count}");
        }
    });
}

fn expecting(body: portcullis::forward::RequestBody) -> Ask {
    Ask::post("/", body).header("expect", "100-continue")
}

#[test]
fn an_expected_continue_releases_the_body() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (pieces, body) = pieces();
        let hinted = Rc::new(Cell::new(false));
        let saw = Rc::clone(&hinted);
        let interim = Interim::new(move |status, _| saw.set(status == StatusCode::EARLY_HINTS));
        let ask = Ask { interim: Some(interim), ..expecting(body) };
        let (answer, ()) = tokio::join!(gate.send(ask), async {
            let mut peer = Peer::accept(&listener).await;
            assert!(peer.head().await.contains("\r\nexpect: 100-continue\r\n"));
            peer.say("HTTP/1.1 103 Early Hints\r\n\r\n").await;
            testkit::eventually_async("the hint has come", || hinted.get().then_some(())).await;
            assert!(!pieces.was_asked(), "the body was asked for before the upstream wanted it");
            peer.say("HTTP/1.1 100 Continue\r\n\r\n").await;
            pieces.send("hello").await;
            drop(pieces);
            assert_eq!(peer.until(b"0\r\n\r\n").await, "5\r\nhello\r\n0\r\n\r\n");
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        });
        assert_eq!(answer.unwrap().status(), 200);
    });
}

#[test]
fn a_refused_expectation_never_asks_for_the_body() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let (pieces, body) = pieces();
        let (answer, mut peer) = tokio::join!(gate.send(expecting(body)), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peer.say("HTTP/1.1 413 Payload Too Large\r\ncontent-length: 2\r\n\r\nno").await;
            peer
        });
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 413);
        assert_eq!(read(answer).await.unwrap().0, "no");
        assert!(!pieces.was_asked());
        // The upstream may still wait for the body there.
        assert_eq!(peer.closed().await, 0);
    });
}

#[test]
fn an_unanswered_expectation_is_not_waited_for_long() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let begun = std::time::Instant::now();
        let (answer, ()) = tokio::join!(gate.send(expecting(full("hello"))), async {
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            assert_eq!(peer.take(5).await, "hello");
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        });
        assert_eq!(answer.unwrap().status(), 200);
        assert!(begun.elapsed() >= Duration::from_millis(990));
    });
}

#[test]
fn http_1_0_clients_expect_nothing() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let ask = Ask { version: Version::HTTP_10, ..expecting(full("hello")) };
        let (answer, ()) = tokio::join!(gate.send(ask), async {
            let mut peer = Peer::accept(&listener).await;
            assert!(!peer.head().await.contains("expect"));
            assert_eq!(peer.take(5).await, "hello");
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        });
        answer.unwrap();
    });
}

#[test]
fn a_silent_upstream_ends_in_a_timeout() {
    worker(async {
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::Http, port);
        settings.response_timeout = Duration::from_millis(150);
        let gate = Gate::new(settings);
        for (path, say) in [("/", ""), ("/", "HTTP/1.1 200 OK\r\n"), ("/impatient", "")] {
            let (answer, ()) = tokio::join!(gate.get(path), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(say).await;
                peer.closed().await;
            });
            let error = answer.expect_err("no answer");
            assert_eq!(
                (error.kind(), error.status()),
                (Some(ErrorKind::Timeout), StatusCode::GATEWAY_TIMEOUT)
            );
        }
        assert_eq!(gate.errors("timeout"), 3);
    });
}

#[test]
fn a_long_upload_does_not_time_out_but_a_stalled_one_does() {
    worker(async {
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::Http, port);
        settings.response_timeout = Duration::from_millis(250);
        let gate = Gate::new(settings);
        let (sender, body) = pieces();
        let (answer, (), ()) = tokio::join!(
            gate.send(Ask::post("/", body)),
            async move {
                for _ in 0..5 {
                    testkit::let_pass_async(Duration::from_millis(100)).await; // the pause of a slow client
                    sender.send("x").await;
                }
            },
            async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.until(b"0\r\n\r\n").await;
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
            }
        );
        assert_eq!(answer.unwrap().status(), 200);

        let (_sender, body) = pieces();
        let (answer, _) = tokio::join!(gate.send(Ask::post("/", body)), async {
            Peer::accept(&listener).await.closed().await
        });
        let error = answer.expect_err("the client stalls");
        assert!(matches!(error, ForwardError::RequestBody(RequestBodyError::Stalled)), "{error}");
        assert_eq!((error.kind(), error.status()), (None, StatusCode::REQUEST_TIMEOUT));
        assert_eq!(gate.errors("timeout"), 0, "the upstream is not to blame");
    });
}

#[test]
fn an_upstream_that_is_not_there() {
    worker(async {
        let place = ClaimedPort::new();
        let gate = Gate::http(place.number());
        let error = gate.get("/").await.expect_err("nobody listens");
        assert_eq!((error.kind(), error.status()), (Some(ErrorKind::Connect), StatusCode::BAD_GATEWAY));
        assert_eq!(gate.errors("connect"), 1);
    });
}

#[test]
fn names_are_resolved_and_all_addresses_tried() {
    worker(async {
        // `localhost` may be ::1 first, where nobody listens.
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::Http, port);
        settings.addresses = vec![Address::Tcp { host: "localhost".to_owned(), port }];
        let gate = Gate::new(settings);
        let (answer, _) =
            tokio::join!(gate.get("/"), async { Peer::accept(&listener).await.serve("ok").await });
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "ok");
    });
}

#[test]
fn a_client_that_goes_away_takes_the_connection_with_it() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let mut peer = {
            let asked = gate.get("/");
            let served = async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer
            };
            tokio::pin!(asked);
            tokio::select! {
                answer = &mut asked => panic!("responded with {answer:?}"),
                peer = served => peer,
            }
        };
        assert_eq!(peer.closed().await, 0);
    });
}
