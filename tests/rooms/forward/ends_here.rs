//! Requests that the gate answers itself.

use http::{Method, StatusCode};
use portcullis::forward::ForwardError;

use crate::forward::support::{Ask, Gate, Peer, listen, read, worker};

#[test]
fn max_forwards_is_counted_down_and_answered_at_zero() {
    worker(async {
        for (method, sent, seen) in [
            (Method::OPTIONS, "5", Some("4")),
            (Method::TRACE, "1", Some("0")),
            (Method::GET, "0", Some("0")),
            (Method::OPTIONS, "0", None),
        ] {
            let (listener, port) = listen().await;
            let gate = Gate::http(port);
            let asked = gate.send(Ask::new(method.clone(), "/").header("max-forwards", sent));
            let answer = match seen {
                None => asked.await.unwrap(),
                Some(seen) => {
                    let (answer, head) =
                        tokio::join!(asked, async { Peer::accept(&listener).await.serve("there").await });
                    assert!(head.contains(&format!("\r\nmax-forwards: {seen}\r\n")), "{method}: {head}");
                    answer.unwrap()
                }
            };
            assert_eq!(answer.status(), StatusCode::OK);
            assert!(answer.headers().contains_key("x-request-id"));
            assert_eq!(read(answer).await.unwrap().0, if seen.is_some() { "there" } else { "" }, "{method}");
        }
    });
}

#[test]
fn trace_never_shows_credentials() {
    worker(async {
        let (_listener, port) = listen().await;
        let gate = Gate::http(port);
        for (name, value) in [
            ("authorization", "Basic eA=="),
            ("proxy-authorization", "Basic eA=="),
            ("cookie", "session=1"),
            ("max-forwards", "0"),
        ] {
            let refused = gate.send(Ask::new(Method::TRACE, "/").header(name, value)).await;
            let error = refused.expect_err(name);
            assert!(matches!(error, ForwardError::Trace), "{name}: {error}");
            assert_eq!((error.status(), error.kind()), (StatusCode::METHOD_NOT_ALLOWED, None));
        }
    });
}
