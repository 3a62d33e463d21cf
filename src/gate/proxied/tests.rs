//! Headers of the PROXY protocol, valid and hostile.

use super::*;

/// The outcome of a connection that begins with `bytes` and then ends, and the bytes left unread.
async fn outcome(version: ProxyProtocol, bytes: &[u8]) -> (Result<Option<IpAddr>, String>, Vec<u8>) {
    let mut stream = bytes;
    let read = read(&mut stream, version).await.map_err(|error| error.to_string());
    (read, stream.to_vec())
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn v2(version: u8, protocol: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [&V2_SIGNATURE[..], &[version, protocol], &length, rest].concat()
}

const INET: [u8; 12] = [192, 0, 2, 7, 10, 0, 0, 1, 0xdd, 0xd5, 1, 187];

fn inet6() -> Vec<u8> {
    let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
    [&address("2001:db8::7")[..], &address("2001:db8::1"), &[0xdd, 0xd5, 1, 187]].concat()
}

#[tokio::test]
async fn well_formed_headers_name_the_client_and_leave_what_follows() {
    let follows = b"GET / HTTP/1.1\r\n\r\n";
    let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
    assert_eq!(longest.len(), V1_LENGTHS.0);
    for (version, header, client) in [
        (ProxyProtocol::V1, &b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n"[..], ip("192.0.2.7")),
        (ProxyProtocol::V1, b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n", ip("0.0.0.0")),
        (ProxyProtocol::V1, b"PROXY TCP6 2001:db8::7 2001:db8::1 1 443\r\n", ip("2001:db8::7")),
        (ProxyProtocol::V1, b"PROXY TCP6 ::ffff:192.0.2.7 ::1 1 443\r\n", ip("::ffff:192.0.2.7")),
        (ProxyProtocol::V1, b"PROXY UNKNOWN\r\n", None),
        (ProxyProtocol::V1, b"PROXY UNKNOWN 192.0.2.7 10.0.0.1 56789 443\r\n", None),
        (ProxyProtocol::V1, longest.as_bytes(), None),
        (ProxyProtocol::V2, &v2(0x21, 0x11, &INET), ip("192.0.2.7")),
        (ProxyProtocol::V2, &v2(0x21, 0x21, &inet6()), ip("2001:db8::7")),
        (
            ProxyProtocol::V2,
            &v2(0x21, 0x11, &[&INET[..], b"\x03\x00\x04\x01\x02\x03\x04"].concat()),
            ip("192.0.2.7"),
        ),
        (ProxyProtocol::V2, &v2(0x20, 0x00, &[]), None),
        (ProxyProtocol::V2, &v2(0x20, 0x11, &INET), None),
        (ProxyProtocol::V2, &v2(0x20, 0xff, &[1, 2, 3]), None),
        (ProxyProtocol::V2, &v2(0x21, 0x00, &[]), None),
        (ProxyProtocol::V2, &v2(0x21, 0x31, &[0; 216]), None),
        (ProxyProtocol::V2, &v2(0x21, 0x11, &[&INET[..], &[0; V2_REST - 12]].concat()), ip("192.0.2.7")),
    ] {
        let (read, left) = outcome(version, &[header, follows].concat()).await;
        assert_eq!(read, Ok(client), "{}", header.escape_ascii());
        assert_eq!(left, follows, "{}", header.escape_ascii());
    }
}

/// Invalid headers of version 1.
const HOSTILE_LINES: [&str; 36] = [
    "",
    "\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXYTCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    " PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY  TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY\tTCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY tcp4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY UNKNOWNX 192.0.2.7\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2 \r\n",
    "PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY TCP4 192.0.2.7  10.0.0.1 1 2\r\n",
    "PROXY TCP4 192.0.2.07 10.0.0.1 1 2\r\n",
    "PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
    "PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n",
    "PROXY TCP4 0xc0.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY TCP4 192.0.2.7 nowhere 1 2\r\n",
    "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
    "PROXY TCP6 192.0.2.7 10.0.0.1 1 2\r\n",
    "PROXY TCP6 [2001:db8::7] 2001:db8::1 1 2\r\n",
    "PROXY TCP6 fe80::1%eth0 2001:db8::1 1 2\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 -1 2\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 \u{664}\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\r",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2\rGET / HTTP/1.1\r\n",
    "PROXY TCP4 192.0.2.7 10.0.0.1 1 2",
    "PROXY TCP4 192.0.2.7\0 10.0.0.1 1 2\r\n",
];

#[tokio::test]
async fn hostile_headers_are_rejected() {
    let v1 = ProxyProtocol::V1;
    let lines = HOSTILE_LINES.into_iter().map(|line| (v1, line.as_bytes().to_vec()));
    let mut table: Vec<(ProxyProtocol, Vec<u8>)> = lines.collect();
    table.push((v1, format!("PROXY UNKNOWN {}\r\n", "f".repeat(92)).into_bytes()));
    table.push((v1, [b"PROXY ".repeat(1000), b"\r\n".to_vec()].concat()));
    table.push((v1, b"PROXY TCP4 \xff\xfe 10.0.0.1 1 2\r\n".to_vec()));
    table.push((v1, v2(0x21, 0x11, &INET)));
    let two = ProxyProtocol::V2;
    table.push((two, b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n".to_vec()));
    table.push((two, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()));
    for (version, protocol) in
        [(0x11, 0x11), (0x31, 0x11), (0x01, 0x11), (0x22, 0x11), (0x2f, 0x11), (0x21, 0x12), (0x21, 0x22)]
    {
        table.push((two, v2(version, protocol, &inet6())));
    }
    for protocol in [0x01, 0x10, 0x20, 0x30, 0x32, 0x41, 0xff] {
        table.push((two, v2(0x21, protocol, &[0; 216])));
    }
    table.push((two, v2(0x21, 0x11, &INET[..11])));
    table.push((two, v2(0x21, 0x21, &inet6()[..35])));
    table.push((two, v2(0x21, 0x31, &[0; 215])));
    table.push((two, v2(0x21, 0x11, &[0; V2_REST + 1])));
    table.push((two, v2(0x20, 0x00, &[0; 65_535])));
    // Truncated anywhere, neither is a header.
    for whole in [b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n".to_vec(), v2(0x21, 0x11, &INET)] {
        let version = if whole.starts_with(b"PROXY") { v1 } else { two };
        table.extend((0..whole.len()).map(|length| (version, whole[..length].to_vec())));
    }
    for (version, bytes) in table {
        let (read, _) = outcome(version, &bytes).await;
        assert!(read.is_err(), "{version:?} {} {read:?}", bytes.escape_ascii());
    }
}

#[tokio::test]
async fn without_the_protocol_nothing_is_read() {
    let line = b"PROXY TCP4 192.0.2.7 10.0.0.1 56789 443\r\n";
    assert_eq!(outcome(ProxyProtocol::Off, line).await, (Ok(None), line.to_vec()));
}
