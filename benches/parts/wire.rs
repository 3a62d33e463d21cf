//! Heads: reading the client's, writing the request's to the upstream and reading its response's, and writing
//! the response's to the client.

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version};

use super::{Part, part};
use crate::enforce::bearer::BearerSettings;
use crate::enforce::parts::{head_bytes, identity};
use crate::enforce::target::{RequestTarget, Target};
use crate::forward::Hop;
use crate::forward::headers::hop::Listed;
use crate::forward::headers::{FieldRules, FreshTrace, RequestFields};
use crate::forward::http1::{decode, encode};
use crate::gate::http1::encode as answers;
use crate::gate::http1::head::{HeadLimits, HeadReader};

const LIMITS: HeadLimits = HeadLimits { bytes: 64 * 1024, fields: 100 };
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Fri, 15 Jan 2027 08:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 196\r\nConnection: keep-alive\r\n\r\n";

/// Reads the bytes of the head into the buffer, and parses the head.
pub(super) fn from_client() -> Vec<Part> {
    let (bytes, mut inbox) = (head_bytes(), BytesMut::with_capacity(16 * 1024));
    let mut reader = HeadReader::new(LIMITS);
    let head = part("head: read from the client (HTTP/1.1)", move || {
        inbox.extend_from_slice(&bytes);
        let read = reader.read(&mut inbox);
        assert!(black_box(&read).as_ref().is_ok_and(Option::is_some));
        drop(read);
        // The memory that the pieces of the head referred to is free again.
        if inbox.capacity() < 4 * 1024 {
            inbox.reserve(16 * 1024);
        }
    });
    let target = part("target: parse", || {
        let sent = RequestTarget::from_bytes(Bytes::from_static(b"/deals/81723/lines?limit=50&after=1029"));
        let target = sent.and_then(|sent| Target::parse(&Method::GET, &sent));
        assert!(black_box(target).is_ok());
    });
    vec![head, target]
}

/// The request that the gate writes, and the response that it reads.
pub(super) fn upstream() -> Vec<Part> {
    let headers = crate::enforce::parts::headers();
    let listed = Listed::in_connection(&headers).expect("few options");
    let rules = FieldRules::new(&identity(), &BearerSettings::default());
    let hop = Hop {
        client: [127, 0, 0, 1].into(),
        tls: true,
        trusted: None,
        host: HeaderValue::from_static("api.example.com"),
        version: Version::HTTP_11,
        request_id: HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
    };
    let told = ["user-00000001", "app-17", "read:deals read:activity read:users", "editor,viewer"];
    let names = ["x-auth-subject", "x-auth-client", "x-auth-scope", "x-auth-roles"];
    let told = names.map(HeaderName::from_static).into_iter().zip(told.map(HeaderValue::from_static));
    let told: Vec<_> = told.collect();
    let mut out = Vec::with_capacity(4 * 1024);
    let request = part("headers: request to the upstream", move || {
        out.clear();
        let fields = RequestFields {
            method: &Method::GET,
            headers: &headers,
            listed: &listed,
            hop: &hop,
            host: &hop.host,
            identity: &told,
            upgrade: None,
            expect: false,
            trace: FreshTrace { trace_id: 7, parent_id: 9 },
            decided: None,
        };
        let target = b"/deals/81723/lines?limit=50&after=1029";
        encode::head(&mut out, &Method::GET, target, &rules, &fields, encode::RequestFraming::Empty);
        black_box(&out);
    });
    let mut inbox = BytesMut::with_capacity(16 * 1024);
    let answer = part("headers: answer of the upstream", move || {
        inbox.extend_from_slice(ANSWER);
        let read = decode::head(&mut inbox, &mut decode::HeadEnd::default(), &Method::GET);
        assert!(black_box(&read).as_ref().is_ok_and(Option::is_some));
        drop(read);
        if inbox.capacity() < 4 * 1024 {
            inbox.reserve(16 * 1024);
        }
    });
    vec![request, answer]
}

/// The response that the gate writes.
pub(super) fn to_client() -> Vec<Part> {
    let headers: HeaderMap = [
        (SERVER, HeaderValue::from_static("nginx/1.22.1")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (
            HeaderName::from_static("x-request-id"),
            HeaderValue::from_static("0123456789abcdef0123456789abcdef"),
        ),
    ]
    .into_iter()
    .collect();
    let mut inbox = BytesMut::from(&head_bytes()[..]);
    let read = HeadReader::new(LIMITS).read(&mut inbox).ok().flatten().expect("a head");
    let asked = answers::AnswerTraits::new(&read.head);
    let date = HeaderValue::from_static("Fri, 15 Jan 2027 08:00:00 GMT");
    let mut out = Vec::with_capacity(4 * 1024);
    vec![part("headers: answer to the client (HTTP/1.1)", move || {
        out.clear();
        let framing = answers::AnswerFraming::of(StatusCode::OK, asked, Some(196));
        answers::head(&mut out, (StatusCode::OK, &headers), asked, framing, true, &date);
        black_box(&out);
    })]
}
