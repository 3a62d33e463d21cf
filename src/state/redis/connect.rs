//! Opens connections: TCP, TLS, credentials, and the discovery of the primary with Sentinel or in a cluster.
//!
//! The crate implements the protocol; sockets, TLS and routing are our own, so that certificate trust, timeouts
//! and redirections work the same way as elsewhere in the gate.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, select_ok};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, RedisConnectionInfo, Value, cmd};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::endpoint::{Credentials, Host, RedisEndpoint, Topology};
use super::fault::RedisFault;
use crate::tls;

/// How long opening a connection may take, including the handshakes.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);

/// A multiplexed connection, shared by its users. It closes when the last of them drops it.
#[derive(Clone)]
pub(super) struct RedisConnection {
    inner: MultiplexedConnection,
    _driver: Arc<Driver>,
}

struct Driver(JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl RedisConnection {
    /// Sends a command and waits at most `patience` for the response.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        command: &Cmd,
        patience: Duration,
    ) -> Result<T, RedisFault> {
        let mut connection = self.inner.clone();
        match timeout(patience, command.query_async(&mut connection)).await {
            Ok(answer) => Ok(answer?),
            Err(_elapsed) => Err(RedisFault::silent("Redis")),
        }
    }
}

/// The connections to the servers, by the slots that they serve.
#[derive(Debug)]
pub(super) struct Lanes {
    ranges: Vec<(u16, u16, Host)>,
    open: HashMap<Host, RedisConnection>,
}

impl Lanes {
    /// Returns the connection for a slot.
    pub(super) fn to(&self, slot: u16) -> Result<&RedisConnection, RedisFault> {
        let host = self.host(slot)?;
        self.open.get(host).ok_or_else(|| RedisFault::Unreachable(format!("cannot reach {host}")))
    }

    /// Returns every connection with its server.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Host, &RedisConnection)> {
        self.open.iter()
    }

    /// Returns the server of a slot.
    pub(super) fn host(&self, slot: u16) -> Result<&Host, RedisFault> {
        let range = self.ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot));
        range
            .map(|(.., host)| host)
            .ok_or_else(|| RedisFault::Unreachable(format!("no node of the cluster serves slot {slot}")))
    }
}

#[cfg(test)]
impl Lanes {
    /// No connections.
    pub(super) fn none() -> Self {
        Self { ranges: Vec::new(), open: HashMap::new() }
    }
}

/// Opens connections to one endpoint.
#[derive(Debug)]
pub(super) struct Connector {
    endpoint: RedisEndpoint,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Connector {
    /// Creates it and reads the CA certificates for TLS.
    pub(super) fn new(endpoint: RedisEndpoint, ca: Option<&PathBuf>) -> Result<Self, tls::TlsError> {
        let tls =
            endpoint.tls.then(|| tls::client_config(ca.map(PathBuf::as_path), None, &[])).transpose()?;
        Ok(Self { endpoint, tls })
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.endpoint.topology == Topology::Cluster
    }

    /// Connects to all servers that serve slots. A cluster node that cannot be reached is left out, so
    /// that only its slots fail.
    pub(super) async fn lanes(&self) -> Result<Lanes, RedisFault> {
        if !self.is_cluster() {
            let host = self.primary().await?;
            let open = HashMap::from([(host.clone(), self.open(&host, &self.endpoint.credentials).await?)]);
            return Ok(Lanes { ranges: vec![(0, u16::MAX, host)], open });
        }
        let ranges = self.slots().await?;
        let mut lanes = Lanes { ranges, open: HashMap::new() };
        let mut hosts: Vec<Host> = lanes.ranges.iter().map(|(.., host)| host.clone()).collect();
        hosts.sort_by_key(ToString::to_string);
        hosts.dedup();
        let opening = hosts.iter().map(|host| self.open(host, &self.endpoint.credentials));
        let opened = join_all(opening).await;
        for (host, connection) in hosts.into_iter().zip(opened) {
            if let Ok(connection) = connection {
                lanes.open.insert(host, connection);
            }
        }
        Ok(lanes)
    }

    /// Opens a separate connection to the server of a slot, for blocking commands.
    pub(super) async fn alone(&self, lanes: &Lanes, slot: u16) -> Result<RedisConnection, RedisFault> {
        self.open(lanes.host(slot)?, &self.endpoint.credentials).await
    }

    /// Opens a connection to any server of this endpoint, for reading.
    pub(super) async fn any(&self) -> Result<RedisConnection, RedisFault> {
        let host = self.primary().await?;
        self.open(&host, &self.endpoint.credentials).await
    }

    /// The configured server, or the primary according to the sentinels.
    async fn primary(&self) -> Result<Host, RedisFault> {
        let Topology::Sentinel(name) = &self.endpoint.topology else {
            let first = self.endpoint.hosts.first().cloned();
            return first.ok_or_else(|| RedisFault::Refused("no host is configured".to_owned()));
        };
        self.first_of(|host| self.ask_sentinel(host, name)).await
    }

    /// Returns the first successful answer of the hosts. All are asked at once, so that one that hangs
    /// does not delay the others.
    async fn first_of<'a, T, F>(&'a self, ask: impl Fn(&'a Host) -> F) -> Result<T, RedisFault>
    where
        F: Future<Output = Result<T, RedisFault>>,
    {
        let asked = self.endpoint.hosts.iter().map(|host| Box::pin(ask(host)));
        select_ok(asked).await.map(|(first, _others)| first)
    }

    async fn ask_sentinel(&self, host: &Host, name: &str) -> Result<Host, RedisFault> {
        // Most sentinels have no password; the others mostly use that of the servers.
        let mut where_is = cmd("SENTINEL");
        where_is.arg("GET-MASTER-ADDR-BY-NAME").arg(name);
        let open = self.open(host, &Credentials::default()).await;
        let answer = match &open {
            Ok(sentinel) => sentinel.ask::<Option<(String, u16)>>(&where_is, CONNECT_TIMEOUT).await,
            Err(fault) => Err(fault.clone()),
        };
        let answer = match answer {
            Err(RedisFault::Refused(_)) => {
                self.open(host, &self.endpoint.credentials).await?.ask(&where_is, CONNECT_TIMEOUT).await
            }
            answer => answer,
        };
        let known = answer?.ok_or_else(|| {
            RedisFault::Unreachable(format!("Sentinel {host} does not know a primary {name:?}"))
        })?;
        Ok(Host { name: known.0, port: known.1 })
    }

    /// Which node serves which slots, according to the first node that answers.
    async fn slots(&self) -> Result<Vec<(u16, u16, Host)>, RedisFault> {
        self.first_of(|host| self.ask_node(host)).await
    }

    async fn ask_node(&self, host: &Host) -> Result<Vec<(u16, u16, Host)>, RedisFault> {
        let node = self.open(host, &self.endpoint.credentials).await?;
        let mut slots = cmd("CLUSTER");
        let slots: Vec<Value> = node.ask(slots.arg("SLOTS"), CONNECT_TIMEOUT).await?;
        let ranges: Vec<_> = slots.iter().filter_map(|range| slot_range(range, host)).collect();
        if ranges.is_empty() {
            return Err(RedisFault::Unreachable(format!(
                "{host} serves no slots: is it a node of a cluster?"
            )));
        }
        Ok(ranges)
    }

    async fn open(&self, host: &Host, credentials: &Credentials) -> Result<RedisConnection, RedisFault> {
        let opening = async {
            let tcp = TcpStream::connect((host.name.as_str(), host.port)).await?;
            tcp.set_nodelay(true)?;
            match &self.tls {
                None => self.speak(tcp, credentials).await,
                Some(config) => {
                    let name = ServerName::try_from(host.name.clone());
                    let name = name.map_err(|_invalid| {
                        RedisFault::Refused(format!("{host} is not a valid TLS server name"))
                    })?;
                    let stream = TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?;
                    self.speak(stream, credentials).await
                }
            }
        };
        match timeout(CONNECT_TIMEOUT, opening).await {
            Ok(Err(RedisFault::Unreachable(why))) => Err(RedisFault::Unreachable(format!("{host}: {why}"))),
            Ok(opened) => opened,
            Err(_elapsed) => Err(RedisFault::silent(host)),
        }
    }

    async fn speak<S>(&self, stream: S, credentials: &Credentials) -> Result<RedisConnection, RedisFault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut info = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(self.endpoint.database);
        if !credentials.username.is_empty() {
            info = info.set_username(&credentials.username);
        }
        if !credentials.password.is_empty() {
            info = info.set_password(&credentials.password);
        }
        // Each request has its own timeout.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let (inner, driver) = MultiplexedConnection::new_with_config(&info, stream, config).await?;
        let connection = RedisConnection { inner, _driver: Arc::new(Driver(tokio::spawn(driver))) };
        // A hung server still accepts connections, so check that it responds.
        connection.ask::<String>(&cmd("PING"), CONNECT_TIMEOUT).await?;
        Ok(connection)
    }
}

/// Parses one element of `CLUSTER SLOTS`: first slot, last slot, then the nodes, primary first.
fn slot_range(range: &Value, asked: &Host) -> Option<(u16, u16, Host)> {
    let Value::Array(parts) = range else { return None };
    let [Value::Int(first), Value::Int(last), Value::Array(primary), ..] = parts.as_slice() else {
        return None;
    };
    let [name, Value::Int(port), ..] = primary.as_slice() else { return None };
    let name = String::from_redis_value_ref(name).ok().filter(|name| !name.is_empty() && name != "?");
    let name = name.unwrap_or_else(|| asked.name.clone());
    let host = Host { name, port: u16::try_from(*port).ok()? };
    Some((u16::try_from(*first).ok()?, u16::try_from(*last).ok()?, host))
}

#[cfg(test)]
mod tests;
