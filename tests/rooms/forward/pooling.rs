//! Which connections are reused, and what happens to a request whose connection has died.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{join_all, select_all};
use http::Method;
use portcullis::enforce::bearer::BearerSettings;
use portcullis::enforce::policy::IdentitySettings;
use portcullis::forward::{ErrorKind, Forwarder, Scheme, Upstream, UpstreamSettings};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::Semaphore;

use crate::forward::support::{Ask, Gate, Peer, full, listen, permit, read, settings, worker};

async fn fetch(gate: &Gate) -> String {
    read(gate.get("/").await.unwrap()).await.unwrap().0
}

/// Returns the upstream's end of a gate's idle connection.
async fn with_idle(gate: &Gate, listener: &tokio::net::TcpListener) -> Peer {
    let (body, peer) = tokio::join!(fetch(gate), async {
        let mut peer = Peer::accept(listener).await;
        peer.serve("first").await;
        peer
    });
    assert_eq!(body, "first");
    peer
}

#[test]
fn connections_are_used_again_the_last_one_first() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let both = async { tokio::join!(fetch(&gate), fetch(&gate)) };
        let (bodies, (mut one, mut two)) = tokio::join!(both, async {
            let mut one = Peer::accept(&listener).await;
            let mut two = Peer::accept(&listener).await;
            one.serve("1").await;
            two.serve("2").await;
            (one, two)
        });
        assert_eq!(bodies.0.len() + bodies.1.len(), 2);
        for _ in 0..3 {
            let (body, ()) = tokio::join!(fetch(&gate), async {
                tokio::select! { _ = one.serve("x") => {}, _ = two.serve("x") => {} }
            });
            assert_eq!(body, "x");
        }
    });
}

#[test]
fn a_thousand_and_twenty_four_connections_wait_for_the_next_request() {
    const KEPT: usize = 1_024;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    worker(async {
        let (listener, port) = listen().await;
        let patient = settings(Scheme::Http, port);
        let gate = Rc::new(Gate::new(UpstreamSettings { response_timeout: testkit::PATIENCE, ..patient }));
        // As many requests at once as leave one connection too many.
        let (mut asked, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..=KEPT {
            let gate = Rc::clone(&gate);
            asked.push(tokio::task::spawn_local(async move { fetch(&gate).await }));
            let mut peer = Peer::accept(&listener).await;
            peer.head().await;
            peers.push(peer);
        }
        for peer in &mut peers {
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx").await;
        }
        assert!(join_all(asked).await.into_iter().all(|body| body.unwrap() == "x"));
        let closed = peers.into_iter().map(|mut peer| Box::pin(async move { peer.closed().await }));
        let (_unread, _, kept) = select_all(closed).await;
        assert_eq!(kept.len(), KEPT);
        assert!(join_all(kept).now_or_never().is_none());
    });
}

#[test]
fn answers_that_end_the_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        for answer in [
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx",
            // What is left over belongs to nobody.
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\ny",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n\r\n",
        ] {
            let (body, ()) = tokio::join!(fetch(&gate), async {
                let mut peer = Peer::accept(&listener).await;
                peer.head().await;
                peer.say(answer).await;
                assert_eq!(peer.closed().await, 0);
            });
            assert_eq!(body, "x", "{answer}");
        }
    });
}

#[test]
fn what_an_idle_connection_says_is_no_answer() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let mut idle = with_idle(&gate, &listener).await;
        idle.say("HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged").await;
        // A POST, because the kernel is asked before it is sent.
        let ((), mut peer) = tokio::join!(
            async {
                let answer = gate.send(Ask::post("/", full("x"))).await.unwrap();
                assert_eq!(read(answer).await.unwrap().0, "real");
            },
            async {
                let mut peer = Peer::accept(&listener).await;
                peer.serve("real").await;
                peer
            }
        );
        assert_eq!(idle.closed().await, 0);
        assert_eq!(peer.take(1).await, "x");
    });
}

#[test]
fn a_request_is_sent_again_when_its_connection_died_unanswered() {
    worker(async {
        for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE] {
            let (listener, port) = listen().await;
            let gate = Gate::http(port);
            let mut idle = with_idle(&gate, &listener).await;
            let (answer, ()) = tokio::join!(gate.send(Ask::new(method.clone(), "/")), async {
                idle.head().await;
                drop(idle);
                let mut peer = Peer::accept(&listener).await;
                assert!(peer.head().await.starts_with(method.as_str()));
                peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            });
            assert_eq!(answer.unwrap().status(), 204, "{method}");
            assert_eq!(gate.errors("closed"), 0, "{method}");
        }
    });
}

#[test]
fn what_is_not_sent_again() {
    worker(async {
        // Method, with a body, what the upstream says before it closes.
        for (method, body, says) in [
            (Method::POST, false, ""),
            (Method::PATCH, false, ""),
            (Method::PUT, true, ""),
            (Method::GET, false, "H"),
            (Method::GET, false, "HTTP/1.1 103 Early Hints\r\n\r\n"),
        ] {
            let (listener, port) = listen().await;
            let gate = Gate::http(port);
            let mut idle = with_idle(&gate, &listener).await;
            let ask = Ask::new(method.clone(), "/");
            let ask = if body { Ask { body: full("x"), ..ask } } else { ask };
            let (answer, ()) = tokio::join!(gate.send(ask), async {
                idle.head().await;
                idle.say(says).await;
                drop(idle);
            });
            let error = answer.expect_err("not sent again");
            assert_eq!(error.kind(), Some(ErrorKind::Closed), "{method} {says}");
            assert_eq!(error.status(), 502);
            assert_eq!(gate.errors("closed"), 1);
        }
    });
}

#[test]
fn a_request_is_sent_again_only_once_and_only_after_an_idle_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let mut idle = with_idle(&gate, &listener).await;
        let (answer, ()) = tokio::join!(gate.get("/"), async {
            idle.head().await;
            drop(idle);
            Peer::accept(&listener).await.head().await;
        });
        assert_eq!(answer.expect_err("closed twice").kind(), Some(ErrorKind::Closed));
        let (answer, _) = tokio::join!(gate.get("/"), async { Peer::accept(&listener).await.head().await });
        assert_eq!(answer.expect_err("closed on a new connection").kind(), Some(ErrorKind::Closed));
    });
}

#[test]
fn a_request_that_could_not_be_sent_again_is_not_sent_on_a_closed_connection() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let idle = with_idle(&gate, &listener).await;
        drop(idle);
        let (answer, head) = tokio::join!(gate.send(Ask::post("/", full("x"))), async {
            Peer::accept(&listener).await.serve("second").await
        });
        assert!(head.starts_with("POST"));
        assert_eq!(read(answer.unwrap()).await.unwrap().0, "second");
    });
}

#[test]
fn idle_connections_are_closed_in_time() {
    worker(async {
        let (listener, port) = listen().await;
        let mut settings = settings(Scheme::Http, port);
        settings.idle_timeout = Duration::from_millis(100);
        let gate = Gate::new(settings);
        let mut idle = with_idle(&gate, &listener).await;
        assert_eq!(idle.closed().await, 0);
        let (body, _) =
            tokio::join!(fetch(&gate), async { Peer::accept(&listener).await.serve("new").await });
        assert_eq!(body, "new");
    });
}

#[test]
fn connections_never_take_more_than_their_places_and_give_them_back() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::with_places(settings(Scheme::Http, port), 2);
        let first = async { tokio::join!(gate.get("/"), gate.get("/"), gate.get("/")) };
        let (answers, peers) = tokio::join!(first, async {
            let mut peers = [Peer::accept(&listener).await, Peer::accept(&listener).await];
            for peer in &mut peers {
                peer.serve("a place").await;
            }
            peers
        });
        let error = answers.2.unwrap_err();
        assert_eq!(error.kind(), Some(ErrorKind::Connect));
        assert!(error.to_string().contains("limit on open files"), "{error}");
        for answer in [answers.0, answers.1] {
            assert_eq!(read(answer.unwrap()).await.unwrap().0, "a place");
        }
        // Both ends are closed: new connections are possible, and the upstream does not count as unreachable.
        drop(peers);
        let (body, _) =
            tokio::join!(fetch(&gate), async { Peer::accept(&listener).await.serve("again").await });
        assert_eq!(body, "again");
    });
}

#[test]
fn a_new_configuration_keeps_the_connections_of_unchanged_upstreams() {
    worker(async {
        let (listener, port) = listen().await;
        let gate = Gate::http(port);
        let mut idle = with_idle(&gate, &listener).await;
        let load = |name: &str| {
            let mut settings = settings(Scheme::Http, port);
            settings.name = name.to_owned();
            Upstream::load(settings).unwrap()
        };
        let (identity, bearer) = (IdentitySettings::default(), BearerSettings::default());
        let places = Arc::new(Semaphore::new(1));
        let after = |upstream, previous| {
            Forwarder::new(vec![upstream], &identity, &bearer, (&gate.metrics, &places), Some(previous))
        };
        let same = after(load("api"), &gate.forwarder);
        let next = Gate { forwarder: same, metrics: gate.metrics.clone() };
        let (body, _) = tokio::join!(fetch(&next), idle.serve("kept"));
        assert_eq!(body, "kept");

        let other = after(load("other"), &next.forwarder);
        let other = Gate { forwarder: other, metrics: gate.metrics.clone() };
        let (body, _) =
            tokio::join!(fetch(&other), async { Peer::accept(&listener).await.serve("new").await });
        assert_eq!(body, "new");
        // Nobody can use the old connections any more.
        drop((gate, next));
        assert_eq!(idle.closed().await, 0);
        drop(permit(&Method::GET, "/"));
    });
}
