//! The link between a connection, its socket and its request: deadlines by phase, interim answers.

use super::*;

const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(75) };

/// A link that was opened a while ago.
fn link(ago: u64) -> Link {
    let mut link = Arc::into_inner(Link::new()).unwrap();
    link.opened -= Duration::from_secs(ago);
    link
}

/// Seconds from now to the deadline.
fn left(link: &Link) -> Option<f64> {
    let (now, deadline) = (Instant::now(), link.deadline(PATIENCE)?);
    let left = deadline.saturating_duration_since(now).as_secs_f64();
    Some((left - now.saturating_duration_since(deadline).as_secs_f64()).round())
}

#[test]
fn patience_follows_the_phases() {
    let link = link(20);
    assert_eq!(left(&link), Some(55.0));
    link.head_began();
    assert_eq!(left(&link), Some(10.0));
    link.since.store(12_000, Ordering::Relaxed);
    link.head_began();
    assert_eq!(left(&link), Some(2.0));
    link.serving();
    assert_eq!(left(&link), None);
    assert!(!link.flushed(false));
    link.answered();
    assert_eq!(left(&link), None);
    assert!(link.flushed(true));
    assert_eq!(left(&link), Some(10.0));
    link.serving();
    link.answered();
    assert!(link.flushed(false));
    assert_eq!(left(&link), Some(75.0));
}

#[test]
fn a_client_that_does_not_read_loses_patience_until_it_does() {
    let link = link(20);
    link.serving();
    link.wrote(false);
    assert_eq!(left(&link), Some(75.0));
    link.stalled.store(5_000, Ordering::Relaxed);
    link.wrote(false);
    link.answered();
    assert_eq!(left(&link), Some(60.0));
    link.wrote(true);
    assert_eq!(left(&link), None);
}

#[test]
fn a_client_that_does_not_read_has_no_time_left_once_it_is_cut() {
    let link = link(100);
    link.serving();
    link.cut();
    assert_eq!(left(&link), None, "it reads, and so it will be told");
    link.wrote(false);
    assert_eq!(left(&link), Some(0.0));
}

#[test]
fn a_client_that_ended_its_side_is_served_as_long_as_something_flows() {
    let link = link(20);
    link.serving();
    link.flowed();
    assert_eq!(left(&link), None);
    link.client_ended();
    assert_eq!(left(&link), Some(75.0));
    link.ended.store(19_000, Ordering::Relaxed);
    link.client_ended();
    link.wrote(true);
    assert_eq!(left(&link), Some(74.0));
    link.flowed();
    assert_eq!(left(&link), Some(75.0));
    link.wrote(false);
    assert_eq!(left(&link), Some(75.0));
}

#[test]
fn a_tunnel_takes_as_long_as_it_takes() {
    let link = link(1000);
    link.serving();
    link.switched();
    link.answered();
    assert!(!link.flushed(false));
    assert_eq!((link.phase(), left(&link)), (Phase::Tunnel, None));
}

#[test]
fn interim_answers_are_written_in_order_before_the_final_one() {
    let link = Link::new();
    let mut headers = HeaderMap::new();
    link.interim(StatusCode::CONTINUE, &headers);
    link.interim(StatusCode::PROCESSING, &headers);
    headers.insert("link", http::HeaderValue::from_static("</a>"));
    link.interim(StatusCode::EARLY_HINTS, &headers);
    let cx = Context::from_waker(Waker::noop());
    assert!(link.poll_interim_written(&cx).is_pending());
    let mut written = Vec::new();
    let mut room = 5;
    assert!(
        link.poll_interim(|bytes| {
            if room == 0 {
                return Poll::Pending;
            }
            room -= 1;
            written.push(bytes[0]);
            Poll::Ready(Ok(1))
        })
        .is_pending()
    );
    assert!(link.poll_interim_written(&cx).is_pending());
    let rest = link.poll_interim(|bytes| {
        written.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    });
    assert!(matches!(rest, Poll::Ready(Ok(()))));
    let expected = "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    assert_eq!(String::from_utf8(written).unwrap(), expected);
    assert!(link.poll_interim_written(&cx).is_ready());
}

#[test]
fn a_client_that_does_not_read_makes_no_queue_without_end() {
    let link = Link::new();
    for _ in 0..10_000 {
        link.interim(StatusCode::PROCESSING, &HeaderMap::new());
    }
    assert!(link.rare().interim.len() <= MAX_INTERIM);
}
