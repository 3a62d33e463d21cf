//! The PROXY protocol: the first bytes of a connection from a load balancer name the client.
//!
//! Specification: haproxy.org, `doc/proxy-protocol.txt`. Strict, because the content is trusted: the header must be
//! complete and of the configured version, or the connection is closed. Nothing after it is read.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The header that every connection to the public listener begins with (`[server] proxy_protocol`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyProtocol {
    /// None: clients connect directly.
    #[default]
    Off,
    /// A header of version 1, which is text.
    V1,
    /// A header of version 2, which is binary.
    V2,
}

/// Maximum and minimum length of a header of version 1, including the line end.
const V1_LENGTHS: (usize, usize) = (107, 15);
/// The signature of a header of version 2.
const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Maximum length of the rest of a header of version 2: addresses and additional values (TLVs).
const V2_REST: usize = 4096;

/// Why a header is not accepted.
#[derive(Debug)]
pub(super) enum HeaderError {
    /// The connection failed or ended before the header did.
    Io(io::Error),
    /// Not a PROXY header, or a malformed one.
    Malformed(&'static str),
}

impl fmt::Display for HeaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the PROXY header was not received: {error}"),
            Self::Malformed(what) => write!(f, "invalid PROXY header: {what}"),
        }
    }
}

impl From<io::Error> for HeaderError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the header and nothing after it. `None`: the balancer itself connects, as for health checks, or does
/// not know the client's address.
pub(super) async fn read(
    stream: &mut (impl AsyncRead + Unpin),
    version: ProxyProtocol,
) -> Result<Option<IpAddr>, HeaderError> {
    match version {
        ProxyProtocol::Off => Ok(None),
        ProxyProtocol::V1 => read_v1(stream).await,
        ProxyProtocol::V2 => read_v2(stream).await,
    }
}

async fn read_v1(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, HeaderError> {
    let (longest, shortest) = V1_LENGTHS;
    let mut line = vec![0; shortest];
    stream.read_exact(&mut line).await?;
    if !line.starts_with(b"PROXY ") {
        return Err(HeaderError::Malformed("it does not begin with PROXY"));
    }
    // One byte at a time: what follows must not be read here.
    while !line.ends_with(b"\r\n") {
        if line.len() >= longest {
            return Err(HeaderError::Malformed("the line is too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let text = line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok());
    parse_v1(text.ok_or(HeaderError::Malformed("it is not text"))?)
}

/// Parses a line without its line end.
fn parse_v1(line: &str) -> Result<Option<IpAddr>, HeaderError> {
    let words: Vec<&str> = line.split(' ').collect();
    let (source, destination, ports) = match words[..] {
        // The rest of the line must be ignored.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", source, destination, from, to] => {
            (address::<Ipv4Addr>(source), address::<Ipv4Addr>(destination), [from, to])
        }
        ["PROXY", "TCP6", source, destination, from, to] => {
            (address::<Ipv6Addr>(source), address::<Ipv6Addr>(destination), [from, to])
        }
        _ => return Err(HeaderError::Malformed("expected PROXY, a protocol, two addresses and two ports")),
    };
    if destination.is_none() || !ports.into_iter().all(is_port) {
        return Err(HeaderError::Malformed("an address or port is invalid"));
    }
    source.map(Some).ok_or(HeaderError::Malformed("the source address is invalid"))
}

fn address<A: std::str::FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<A>().ok().map(Into::into)
}

/// Whether a text is a number from 0 to 65535 without sign and leading zeros.
fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok_and(|port| port.to_string() == text)
}

async fn read_v2(stream: &mut (impl AsyncRead + Unpin)) -> Result<Option<IpAddr>, HeaderError> {
    let mut head = [0; 16];
    // A balancer that sends version 1 may send less than the full head, so a wrong signature is reported as
    // soon as it is read.
    stream.read_exact(&mut head[..12]).await?;
    if head[..12] != V2_SIGNATURE {
        return Err(HeaderError::Malformed("it does not begin with the signature of version 2"));
    }
    stream.read_exact(&mut head[12..]).await?;
    let [.., version, protocol, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > V2_REST {
        return Err(HeaderError::Malformed("it is too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    parse_v2(version, protocol, &rest)
}

/// Parses what follows the signature.
fn parse_v2(version: u8, protocol: u8, rest: &[u8]) -> Result<Option<IpAddr>, HeaderError> {
    match version {
        // LOCAL: the rest must be ignored.
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(HeaderError::Malformed("the version or command is unknown")),
    }
    let short = HeaderError::Malformed("it is too short for its addresses");
    match protocol {
        // Unspecified.
        0x00 => Ok(None),
        // Addresses and ports of source and destination, over a stream.
        0x11 => {
            let source: Option<&[u8; 4]> = rest.get(..12).and_then(<[u8]>::first_chunk);
            source.map(|source| Some(Ipv4Addr::from(*source).into())).ok_or(short)
        }
        0x21 => {
            let source: Option<&[u8; 16]> = rest.get(..36).and_then(<[u8]>::first_chunk);
            source.map(|source| Some(Ipv6Addr::from(*source).into())).ok_or(short)
        }
        // Unix sockets have no address by which clients could be distinguished.
        0x31 => rest.get(..216).map(|_paths| None).ok_or(short),
        _ => Err(HeaderError::Malformed("the protocol is not TCP")),
    }
}

#[cfg(test)]
mod tests;
