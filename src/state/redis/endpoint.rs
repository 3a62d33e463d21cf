//! The address of a shared store, parsed from its URL: one server, Sentinels, or a cluster.
//!
//! Only parses; does not resolve or connect.

use std::fmt;

/// A server's host and port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    /// Name or address literal, without brackets.
    pub name: String,
    /// Port.
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]:{}", self.name, self.port)
        } else {
            write!(f, "{}:{}", self.name, self.port)
        }
    }
}

/// What runs at the hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topology {
    /// One server.
    Single,
    /// Sentinels, which know the primary of this name.
    Sentinel(String),
    /// Nodes of a cluster.
    Cluster,
}

/// User name and password. Never printed.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credentials {
    /// The ACL user; empty for the default user.
    pub username: String,
    /// Its password; empty for none.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// The address of a shared store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisEndpoint {
    /// What runs at the hosts.
    pub topology: Topology,
    /// Whether the connection uses TLS.
    pub tls: bool,
    /// The hosts, at least one.
    pub hosts: Vec<Host>,
    /// User name and password.
    pub credentials: Credentials,
    /// The database to select.
    pub database: i64,
}

/// The URL schemes, and whether each uses TLS.
const SCHEMES: [(&str, RedisKind, bool); 6] = [
    ("redis://", RedisKind::Single, false),
    ("rediss://", RedisKind::Single, true),
    ("redis-sentinel://", RedisKind::Sentinel, false),
    ("rediss-sentinel://", RedisKind::Sentinel, true),
    ("redis-cluster://", RedisKind::Cluster, false),
    ("rediss-cluster://", RedisKind::Cluster, true),
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum RedisKind {
    Single,
    Sentinel,
    Cluster,
}

impl RedisEndpoint {
    /// Parses `scheme://[user:password@]host[:port][,host[:port]…][/database or primary's name]`.
    ///
    /// # Errors
    /// What is wrong with it; never repeats what may be a password.
    pub fn parse(text: &str) -> Result<Self, String> {
        let known =
            SCHEMES.iter().find_map(|(scheme, kind, tls)| Some((text.strip_prefix(scheme)?, *kind, *tls)));
        let Some((rest, kind, tls)) = known else {
            return Err(format!("must begin with one of {}", SCHEMES.map(|(scheme, ..)| scheme).join(", ")));
        };
        if rest.contains(['?', '#', ' ']) {
            return Err("must not have a query, a fragment or a space".to_owned());
        }
        // A password may contain `/` or `@`: the hosts begin after the last `@`.
        let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
        let (username, password) = user.split_once(':').unwrap_or((user, ""));
        let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if kind == RedisKind::Sentinel { 26379 } else { 6379 };
        let hosts = hosts.split(',').map(|host| Host::parse(host, port)).collect::<Result<Vec<_>, _>>()?;
        let (topology, database) = match (kind, path) {
            (RedisKind::Single, _) if hosts.len() > 1 => {
                return Err(
                    "has several hosts, which only redis-sentinel:// and redis-cluster:// allow".to_owned()
                );
            }
            (RedisKind::Single, "") => (Topology::Single, 0),
            (RedisKind::Single, number) => (Topology::Single, database(number)?),
            (RedisKind::Sentinel, "") => {
                return Err("must end with the name of the primary: redis-sentinel://host/NAME".to_owned());
            }
            (RedisKind::Sentinel, path) => {
                let (name, number) = path.split_once('/').unwrap_or((path, "0"));
                (Topology::Sentinel(name.to_owned()), database(number)?)
            }
            (RedisKind::Cluster, "" | "0") => (Topology::Cluster, 0),
            (RedisKind::Cluster, _) => return Err("a cluster has only database 0".to_owned()),
        };
        let credentials = Credentials { username: decoded(username)?, password: decoded(password)? };
        Ok(Self { topology, tls, hosts, credentials, database })
    }
}

/// Decodes a user name or password, which may be percent-encoded (RFC 3986 §3.2.1). A `%` that does not
/// begin an escape is literal.
fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_encoding::percent_decode_str(text).decode_utf8();
    decoded
        .map(Into::into)
        .map_err(|_not_text| "has a user or password that is not UTF-8 after decoding".to_owned())
}

fn database(text: &str) -> Result<i64, String> {
    let number = text.parse().ok().filter(|number| (0..=1_000_000).contains(number));
    number.ok_or_else(|| format!("{text:?} is not a database number"))
}

impl Host {
    fn parse(text: &str, default_port: u16) -> Result<Self, String> {
        let (name, port) = match text.strip_prefix('[').map(|rest| rest.split_once(']')) {
            Some(Some((name, port))) => (name, port),
            Some(None) => return Err(format!("{text:?} has no closing bracket")),
            None => text.split_at(text.find(':').unwrap_or(text.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => Some(default_port),
            None => None,
            Some(port) => port.parse().ok().filter(|port| *port > 0),
        };
        let port = port.ok_or_else(|| format!("{text:?} has no valid port (1 to 65535)"))?;
        if name.is_empty() {
            return Err("the host is missing".to_owned());
        }
        Ok(Self { name: name.to_owned(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match RedisEndpoint::parse(text) {
            Ok(RedisEndpoint { topology, tls, hosts, credentials, database }) => {
                let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
                let Credentials { username, password } = credentials;
                format!("{topology:?} {tls} {} {username} {password} {database}", hosts.join(" "))
            }
            Err(problem) => problem,
        }
    }

    #[test]
    fn every_form_is_read() {
        for (text, parts) in [
            ("redis://127.0.0.1:7000", "Single false 127.0.0.1:7000   0"),
            ("rediss://[::1]/3", "Single true [::1]:6379   3"),
            ("redis://:p@ss/w:rd@h", "Single false h:6379  p@ss/w:rd 0"),
            ("redis://:p%40ss@h", "Single false h:6379  p@ss 0"),
            ("redis://us%3Aer:%2F%25%3f@h", "Single false h:6379 us:er /%? 0"),
            ("redis://:100%@h", "Single false h:6379  100% 0"),
            ("redis-sentinel://u:p@a,b:2/main", "Sentinel(\"main\") false a:26379 b:2 u p 0"),
            ("rediss-sentinel://a/main/2", "Sentinel(\"main\") true a:26379   2"),
            ("redis-cluster://a:1,b:2", "Cluster false a:1 b:2   0"),
        ] {
            assert_eq!(shown(text), parts, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (text, why) in [
            ("http://a", "must begin with one of redis://"),
            ("redis://", "the host is missing"),
            ("redis://a:0", "no valid port"),
            ("redis://a:x", "no valid port"),
            ("redis://[::1", "no closing bracket"),
            ("redis://[::1]6379", "no valid port"),
            ("redis://a,b", "several hosts"),
            ("redis://a/x", "not a database number"),
            ("redis://a?db=1", "must not have a query"),
            ("redis://:%ff@a", "not UTF-8"),
            ("redis-sentinel://a", "the name of the primary"),
            ("redis-cluster://a,", "the host is missing"),
            ("redis-cluster://a/1", "only database 0"),
        ] {
            assert!(shown(text).contains(why), "{text}: {}", shown(text));
        }
    }
}
