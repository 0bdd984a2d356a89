//! `Address`: a host, by name or number, and a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::error::NetError;

/// The longest host name, in bytes (RFC 1035).
const HOST_BYTES_MAX: usize = 253;

/// Where a broker listens: `host:port`; an IPv6 address stands in brackets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name or an address, without brackets.
    pub host: String,
    /// The TCP port; 0 lets the operating system choose one to listen on.
    pub port: u16,
}

impl Address {
    /// Whether only this machine can reach it: `localhost` or a loopback address. Other names count as reachable.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host.parse::<IpAddr>() {
            Ok(ip) => ip.is_loopback(),
            Err(_) => self.host.eq_ignore_ascii_case("localhost"),
        }
    }
}

impl FromStr for Address {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        parse(text).ok_or_else(|| NetError::BadAddress {
            text: text.chars().take(HOST_BYTES_MAX).collect(),
        })
    }
}

fn parse(text: &str) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').filter(|host| host.contains(':'))?,
        None => Some(host).filter(|host| !host.contains([':', ']']))?,
    };
    let is_sane = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != '@';
    let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if host.is_empty() || host.len() > HOST_BYTES_MAX || !host.chars().all(is_sane) || !is_port {
        return None;
    }
    Some(Address {
        host: host.to_owned(),
        port: port.parse().ok()?,
    })
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
