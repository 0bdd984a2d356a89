//! `Peers`: how many connections there are, from where, and who failed to log in.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::config::Limits;

/// Addresses whose refused logins are remembered; beyond, everybody new waits longest.
const REMEMBERED_MAX: usize = 4_096;
/// A refused login is forgotten after so long without another.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// The delay doubles at most so often.
const DOUBLINGS_MAX: u32 = 6;

/// Connections by address, and failures to log in.
pub(super) struct Peers {
    connections_max: usize,
    per_address_max: usize,
    delay: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    connections: usize,
    by_address: HashMap<IpAddr, usize>,
    refused: HashMap<IpAddr, (u32, Instant)>,
}

/// A connection's place, until it is dropped.
pub(super) struct Place {
    peers: Arc<Peers>,
    address: IpAddr,
}

impl Peers {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            delay: limits.refused_login_delay,
            table: Mutex::default(),
        })
    }

    /// A place for a connection from `from`; `None` if there is none left.
    pub(super) fn admit(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let address = network(from);
        let mut table = self.table.lock();
        if table.connections >= self.connections_max {
            return None;
        }
        let count = table.by_address.entry(address).or_default();
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        table.connections += 1;
        Some(Place {
            peers: Arc::clone(self),
            address,
        })
    }

    /// Returns the delay of the answer to a refused login from `from`.
    pub(super) fn refused_login(&self, from: IpAddr, now: Instant) -> Duration {
        let address = network(from);
        let refused = &mut self.table.lock().refused;
        if refused.len() >= REMEMBERED_MAX && !refused.contains_key(&address) {
            refused.retain(|_, (_, last)| now.duration_since(*last) < FORGET_AFTER);
            if refused.len() >= REMEMBERED_MAX {
                return self.delay * (1 << DOUBLINGS_MAX);
            }
        }
        let (count, last) = refused.entry(address).or_insert((0, now));
        if now.duration_since(*last) >= FORGET_AFTER {
            *count = 0;
        }
        let doublings = (*count).min(DOUBLINGS_MAX);
        (*count, *last) = (count.saturating_add(1), now);
        self.delay * (1 << doublings)
    }

    /// A login from `from` went well.
    pub(super) fn logged_in(&self, from: IpAddr) {
        self.table.lock().refused.remove(&network(from));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.peers.table.lock();
        table.connections -= 1;
        if let Some(count) = table.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                table.by_address.remove(&self.address);
            }
        }
    }
}

/// One customer has a whole /64 of IPv6: they count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peers() -> Arc<Peers> {
        Peers::new(&Limits {
            connections_max: 3,
            connections_per_address_max: 2,
            refused_login_delay: Duration::from_millis(100),
            ..Limits::default()
        })
    }

    #[test]
    fn places_are_limited_in_all_and_for_each_address_and_given_back() {
        let peers = peers();
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let one = peers.admit(address("10.0.0.1")).unwrap();
        let _two = peers.admit(address("10.0.0.1")).unwrap();
        assert!(peers.admit(address("10.0.0.1")).is_none());
        let _three = peers.admit(address("2001:db8::1")).unwrap();
        assert!(peers.admit(address("10.0.0.2")).is_none(), "three in all");
        drop(one);
        assert!(peers.admit(address("10.0.0.1")).is_some());
        assert_eq!(
            network(address("2001:db8::1")),
            network(address("2001:db8::ffff:1"))
        );
        assert_ne!(
            network(address("2001:db8:0:1::1")),
            network(address("2001:db8::1"))
        );
    }

    #[test]
    fn each_refused_login_costs_its_address_twice_the_time_of_the_one_before() {
        let peers = peers();
        let (alice, mallory) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let now = Instant::now();
        let delays: Vec<u128> = (0..9)
            .map(|_| peers.refused_login(mallory, now).as_millis())
            .collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 6400, 6400]);
        assert_eq!(peers.refused_login(alice, now).as_millis(), 100);
        peers.logged_in(alice);
        assert_eq!(peers.refused_login(alice, now).as_millis(), 100);
        let later = now + FORGET_AFTER;
        assert_eq!(peers.refused_login(mallory, later).as_millis(), 100);
    }
}
