//! The record of a request: what is counted about each, and a line of the access log.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Version;

use super::meters::Meters;
use crate::enforce::decide::Proof;
use crate::enforce::parts::route;
use crate::log::{self, AccessRecord, Decision, Format};
use crate::metrics::Metrics;
use crate::parts::{Part, part};
use crate::time::Timestamp;

/// What a worker counts, and the line that a request has if the access log is on, as far as the worker writes it.
pub(crate) fn all() -> Vec<Part> {
    let (metrics, route) = (Metrics::new().expect("instruments"), route());
    // Its place among the routes counts, not what stands before it.
    let meters = Meters::new(&metrics, &vec![Arc::clone(&route); route.index() + 1], None, None);
    let took = Duration::from_micros(120);
    let counts = part("record: counts", move || {
        meters.enforced(black_box(Proof::Cached), took);
        meters.decided(Decision::Allow, None, Some(&route));
        let client = meters.forwarded("app-17", route.index());
        meters.route(Some(&route), None).answered(&meters.metrics.requests, "GET", 200, took);
        meters.used(client, route.index(), 200, Timestamp::from_secs(1_800_000_000));
    });
    let settings =
        log::Settings { format: Format::Json, level: "info".to_owned(), access_log: true, log_paths: false };
    let (access, guard, _) = log::open(&settings, &Metrics::new().expect("instruments"), io::sink())
        .expect("a log that goes nowhere");
    let line = part("record: a line of the access log", move || {
        let _open = &guard;
        access.write(black_box(&RECORD));
    });
    vec![counts, line]
}

/// A request that was let through.
const RECORD: AccessRecord<'_> = AccessRecord {
    request_id: "0123456789abcdef0123456789abcdef",
    trace_id: None,
    method: "GET",
    route: Some("/deals/{*rest}"),
    path: Some("/deals/81723/lines"),
    status: 200,
    decision: Decision::Allow,
    reason: None,
    issuer: Some("https://idp.example.com/"),
    kid: Some("key-1"),
    token: Some(&[0xab; 32]),
    subject: Some("0123456789ab"),
    client: Some("app-17"),
    claimed: None,
    claimed_client: None,
    client_address: std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
    host: Some("api.example.com"),
    user_agent: Some("bench/1.0 (of the parts of a request)"),
    omitted: None,
    tls: Some("1.3"),
    bytes_in: None,
    bytes_out: 196,
    upstream_time: Some(Duration::from_micros(90)),
    lasted: Duration::from_micros(130),
    ended_by: None,
    upstream: Some("api"),
    failure: None,
    cause: None,
    protocol: Version::HTTP_11,
    duration: Duration::from_micros(120),
};
