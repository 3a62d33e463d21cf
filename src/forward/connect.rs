//! Opens a TCP or TLS connection to a host name, using the first address that responds (RFC 8305, "happy eyeballs").
//!
//! Attempts overlap: the next address is tried when the previous one fails or is slow, so that an
//! unresponsive address costs a fraction of a second instead of the request.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::ForwardError;
use super::io::UpstreamStream;
use super::patience::{ADDRESS_LEFT_OUT, ATTEMPT_DELAY, KEEPALIVE_AFTER, KEEPALIVE_EVERY, PEER_GONE};
use crate::time::Monotonic;

/// Addresses of one name that could not be connected to. Each is tried last for a while.
#[derive(Debug, Default)]
pub(crate) struct Avoided(Mutex<Vec<(IpAddr, Monotonic)>>);

impl Avoided {
    fn add(&self, address: IpAddr, now: Monotonic) {
        let mut avoided = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        avoided.retain(|(other, until)| *other != address && *until > now);
        avoided.push((address, now.plus(ADDRESS_LEFT_OUT)));
    }

    fn remove(&self, address: IpAddr) {
        let mut avoided = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        avoided.retain(|(other, _)| *other != address);
    }

    fn contains(&self, address: IpAddr, now: Monotonic) -> bool {
        let avoided = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        avoided.iter().any(|(other, until)| *other == address && *until > now)
    }

    /// The order in which addresses are tried: families alternate, starting with the resolver's first (RFC
    /// 8305 §4); avoided addresses come last.
    fn order(&self, addresses: impl IntoIterator<Item = SocketAddr>, now: Monotonic) -> VecDeque<SocketAddr> {
        let (avoided, good): (Vec<_>, Vec<_>) =
            interleave(addresses).into_iter().partition(|address| self.contains(address.ip(), now));
        good.into_iter().chain(avoided).collect()
    }
}

fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut addresses = addresses.into_iter().peekable();
    let first_is_v6 = addresses.peek().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.partition(|address| address.is_ipv6() == first_is_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    loop {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            return order;
        }
        order.extend(pair.into_iter().flatten());
    }
}

/// Connects to `host` within `limit`, with TLS if there is a connector.
pub(super) async fn connect(
    (host, port): (&str, u16),
    tls: Option<(&TlsConnector, &ServerName<'static>)>,
    avoided: &Avoided,
    limit: Duration,
) -> Result<UpstreamStream, ForwardError> {
    let deadline = Instant::now().checked_add(limit);
    let attempt = async {
        let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_name) => {
                tokio::net::lookup_host((host, port)).await.map_err(ForwardError::Connect)?.collect()
            }
        };
        let left = avoided.order(addresses, Monotonic::now());
        try_all(left, tls, avoided, limit, deadline).await
    };
    match deadline {
        Some(deadline) => timeout_at(deadline, attempt)
            .await
            .unwrap_or_else(|_| Err(ForwardError::not_connected_within(limit))),
        None => attempt.await,
    }
}

/// Connects by TCP to whichever address responds first, then starts TLS there; if TLS fails, continues with
/// the other addresses.
async fn try_all(
    mut left: VecDeque<SocketAddr>,
    tls: Option<(&TlsConnector, &ServerName<'static>)>,
    avoided: &Avoided,
    limit: Duration,
    deadline: Option<Instant>,
) -> Result<UpstreamStream, ForwardError> {
    let delay = ATTEMPT_DELAY.min(limit / u32::try_from(left.len() + 1).unwrap_or(u32::MAX));
    loop {
        let (address, stream) = race(&mut left, delay, avoided).await.map_err(ForwardError::Connect)?;
        let Some((connector, name)) = tls else {
            avoided.remove(address.ip());
            return Ok(UpstreamStream::Tcp(stream));
        };
        // Leaves the other addresses their share of the remaining time.
        let rest = deadline.map_or(limit, |deadline| deadline.saturating_duration_since(Instant::now()));
        let share = rest / u32::try_from(left.len() + 1).unwrap_or(u32::MAX);
        let shaken = match timeout(share, connector.connect(name.clone(), stream)).await {
            Ok(shaken) => shaken.map_err(ForwardError::Tls),
            Err(_elapsed) => Err(ForwardError::not_connected_within(limit)),
        };
        match shaken {
            Ok(stream) => {
                avoided.remove(address.ip());
                return Ok(UpstreamStream::Tls(Box::new(stream)));
            }
            Err(cause) => {
                avoided.add(address.ip(), Monotonic::now());
                if left.is_empty() {
                    return Err(cause);
                }
            }
        }
    }
}

/// Returns the first connection to any of `left`; the next attempt starts when the last one has failed or has
/// taken `delay`. Removes from `left` the addresses that failed or were too slow.
async fn race(
    left: &mut VecDeque<SocketAddr>,
    delay: Duration,
    avoided: &Avoided,
) -> io::Result<(SocketAddr, TcpStream)> {
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the host name has no address");
    let (mut attempts, mut started) = (FuturesUnordered::new(), Vec::new());
    loop {
        if let Some(address) = left.pop_front() {
            started.push(address);
            attempts.push(async move { (address, open(address).await) });
        }
        let next = attempts.next();
        let ended = if left.is_empty() { Ok(next.await) } else { timeout(delay, next).await };
        match ended {
            // The last attempt is slow: the next one starts beside it.
            Err(_elapsed) => {}
            Ok(None) => return Err(failure),
            Ok(Some((address, Ok(stream)))) => {
                let slower = started.iter().take_while(|other| **other != address);
                slower.for_each(|other| avoided.add(other.ip(), Monotonic::now()));
                left.extend(started.iter().skip_while(|other| **other != address).skip(1));
                return Ok((address, stream));
            }
            Ok(Some((address, Err(cause)))) => {
                avoided.add(address.ip(), Monotonic::now());
                started.retain(|other| *other != address);
                failure = cause;
            }
        }
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let socket = SockRef::from(&stream);
    socket
        .set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER).with_interval(KEEPALIVE_EVERY))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(PEER_GONE))?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::net::TcpListener;

    use super::*;

    /// A listener whose queue is full: the kernel answers no further SYN.
    struct Dead {
        address: SocketAddr,
        _socket: socket2::Socket,
        _waiting: Vec<std::net::TcpStream>,
    }

    impl Dead {
        fn at(ip: [u8; 4]) -> Self {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from((ip, 0)).into()).unwrap();
            socket.listen(0).unwrap();
            let address = socket.local_addr().unwrap().as_socket().unwrap();
            let connect = |_| std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)).ok();
            let waiting: Vec<_> = (0..8).map_while(connect).collect();
            assert!(waiting.len() < 8, "the queue of a dead address is full");
            Self { address, _socket: socket, _waiting: waiting }
        }
    }

    async fn alive() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    fn refused() -> SocketAddr {
        testkit::ports::reserved()
    }

    async fn tried(addresses: &[SocketAddr], avoided: &Avoided) -> Result<SocketAddr, String> {
        let left = avoided.order(addresses.iter().copied(), Monotonic::now());
        let limit = Duration::from_secs(20);
        match try_all(left, None, avoided, limit, Instant::now().checked_add(limit)).await {
            Ok(UpstreamStream::Tcp(stream)) => Ok(stream.peer_addr().unwrap()),
            Ok(_) => Err("no TCP".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    #[tokio::test]
    async fn an_address_that_is_dead_or_refuses_costs_no_request() {
        let (dead, (good, _listener)) = (Dead::at([127, 0, 0, 77]), alive().await);
        for addresses in [
            vec![dead.address, good],
            vec![refused(), good],
            vec![dead.address, refused(), good],
            vec![good, dead.address],
        ] {
            let avoided = Avoided::default();
            assert_eq!(tried(&addresses, &avoided).await, Ok(good), "{addresses:?}");
        }
    }

    #[tokio::test]
    async fn a_dead_address_is_tried_last_for_a_while() {
        let (dead, (good, _listener)) = (Dead::at([127, 0, 0, 78]), alive().await);
        let (avoided, now) = (Avoided::default(), Monotonic::now());
        tried(&[dead.address, good], &avoided).await.unwrap();
        assert_eq!(avoided.order([dead.address, good], Monotonic::now()), [good, dead.address]);
        let later = now.plus(ADDRESS_LEFT_OUT * 2);
        assert_eq!(avoided.order([dead.address, good], later), [dead.address, good]);
    }

    #[tokio::test]
    async fn without_an_address_that_answers_the_last_cause_is_told() {
        let avoided = Avoided::default();
        assert!(tried(&[refused(), refused()], &avoided).await.unwrap_err().contains("refused"));
        assert!(tried(&[], &avoided).await.unwrap_err().contains("no address"));
    }

    #[test]
    fn families_are_tried_in_turn_beginning_with_the_first() {
        let parse = |text: &str| SocketAddr::new(text.parse().unwrap(), 1);
        for (given, order) in [
            (vec!["::1", "::2", "10.0.0.1", "10.0.0.2"], vec!["::1", "10.0.0.1", "::2", "10.0.0.2"]),
            (vec!["10.0.0.1", "::1", "::2"], vec!["10.0.0.1", "::1", "::2"]),
            (vec!["10.0.0.1"], vec!["10.0.0.1"]),
            (vec![], vec![]),
        ] {
            let order: Vec<_> = order.into_iter().map(parse).collect();
            assert_eq!(interleave(given.into_iter().map(parse)), order);
        }
    }
}
