//! Shutdown: requests in flight finish, idle connections close, and what remains is ended.

use portcullis::shutdown::Phase;

use crate::gate::bed::{Bed, PATIENCE, get};

#[test]
fn requests_in_flight_finish_and_everything_else_ends() {
    let mut bed = Bed::start(|_| {});
    let (mut idle, mut busy, mut fresh) = (bed.connect(), bed.connect(), bed.connect());
    idle.send(get("/ok")).unwrap();
    idle.answer().unwrap();
    bed.upstream.seen();
    busy.send(get("/hold")).unwrap();
    bed.upstream.seen();
    bed.advance(Phase::Leaving);
    fresh.send(get("/ok")).unwrap();
    assert_eq!(fresh.answer().unwrap().status(), 200);
    bed.upstream.seen();
    bed.advance(Phase::Draining);
    assert!(idle.is_closed());
    assert!(fresh.is_closed());
    bed.until_closed();
    bed.upstream.go();
    let answer = busy.answer().unwrap();
    assert_eq!((answer.body.as_slice(), answer.field("connection")), (&b"held"[..], Some("close")));
    assert!(busy.is_closed());
    bed.ended();
}

#[test]
fn a_request_that_crosses_the_farewell_is_served_however_long_it_takes() {
    let mut bed = Bed::start(|settings| settings.limits.idle_connection_timeout = 10 * PATIENCE);
    let (mut crossing, mut unused) = (bed.connect(), bed.connect());
    bed.until_open(2);
    bed.advance(Phase::Draining);
    bed.until_closed();
    crossing.send(get("/hold")).unwrap();
    bed.upstream.seen();
    // The farewell of both ends with this one.
    assert!(unused.is_closed());
    bed.upstream.go();
    let answer = crossing.answer().unwrap();
    assert_eq!((answer.body.as_slice(), answer.field("connection")), (&b"held"[..], Some("close")));
    assert!(crossing.is_closed());
    bed.ended();
}

#[test]
fn what_does_not_finish_is_cut_at_the_end_of_the_drain() {
    let mut bed = Bed::start(|_| {});
    let (mut busy, mut tunnel) = (bed.connect(), bed.connect());
    busy.send(get("/hold")).unwrap();
    bed.upstream.seen();
    tunnel
        .send("GET /open/switch HTTP/1.1\r\nHost: gate\r\nConnection: upgrade\r\nUpgrade: test\r\n\r\n")
        .unwrap();
    assert_eq!(tunnel.answer().unwrap().status(), 101);
    bed.advance(Phase::Draining);
    bed.until_closed();
    // A tunnel would last for ever.
    assert_eq!(tunnel.take(6).unwrap(), b"hello ");
    assert!(tunnel.is_closed());
    bed.advance(Phase::Stopped);
    bed.ended();
    assert!(busy.is_closed());
}
