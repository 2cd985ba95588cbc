//! Connections of each peer, which are bounded so that one peer cannot lock the others out.
//!
//! A peer is an IPv4 address, or the IPv6 network of 64 bits that a host is given. All addresses of this host are
//! one peer with a larger share, because its users can connect from each of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};

/// Largest number of connections of each other host.
pub const PEER_CONNECTIONS_MAX: usize = 256;

/// Largest number of connections of this host's own clients over TCP.
pub const LOOPBACK_CONNECTIONS_MAX: usize = 512;

/// Network part of an IPv6 address.
const NETWORK: u128 = !0 << 64;

/// The peer of all addresses of this host.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// Permit of one connection, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    peers: Peers,
    peer: IpAddr,
}

impl Peers {
    /// Counts a connection. `None` when its peer has too many.
    pub(super) fn admit(&self, address: SocketAddr) -> Option<Admitted> {
        let peer = if is_of_this_host(address) { LOOPBACK } else { peer(address.ip()) };
        let max = if peer == LOOPBACK { LOOPBACK_CONNECTIONS_MAX } else { PEER_CONNECTIONS_MAX };
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(peer).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Admitted { peers: self.clone(), peer })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.peer) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.peer);
            }
        }
    }
}

/// Whether this host has an address. To one of its own addresses, the kernel sends from the same address. No packet is
/// sent.
fn is_of_this_host(address: SocketAddr) -> bool {
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect(address)?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address.ip())
}

/// Peer of an address.
fn peer(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address if address.is_loopback() => LOOPBACK,
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & NETWORK).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_peer_has_a_share_of_the_connections_and_loopback_a_larger_one() {
        let peers = Peers::default();
        let admit = |address: &str| peers.admit((address.parse::<IpAddr>().expect("an address"), 1).into());
        let mut held: Vec<_> = (0..PEER_CONNECTIONS_MAX).map(|_| admit("198.51.100.1").expect("a place")).collect();
        assert!(admit("198.51.100.1").is_none() && admit("::ffff:198.51.100.1").is_none());
        let other = admit("198.51.100.2").expect("another peer");
        held.pop();
        held.push(admit("198.51.100.1").expect("a place that is free again"));
        for number in 0..PEER_CONNECTIONS_MAX {
            held.push(admit(&format!("2001:db8::{number:x}")).expect("a place"));
        }
        assert!(admit("2001:db8::ffff").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        for number in 0..LOOPBACK_CONNECTIONS_MAX {
            held.push(admit(if number % 2 == 0 { "::1" } else { "127.0.0.9" }).expect("a place"));
        }
        assert!(admit("127.0.0.1").is_none() && admit("::1").is_none() && admit("::ffff:127.0.0.1").is_none());
        held.push(admit("198.51.100.3").expect("a place of another host"));
        drop((held, other));
        assert!(peers.counts.lock().expect("a lock").is_empty(), "no count of a former peer is kept");
    }

    #[test]
    fn addresses_of_interfaces_are_of_this_host() {
        let addresses = nix::ifaddrs::getifaddrs().expect("interfaces").filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| SocketAddr::from((address.ip(), 9)));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| SocketAddr::V6((*address).into())))
        });
        let own: Vec<_> = addresses.collect();
        assert!(!own.is_empty() && own.iter().all(|address| is_of_this_host(*address)), "{own:?}");
        for other in ["198.51.100.1", "2001:db8::1", "::ffff:198.51.100.1"] {
            assert!(!is_of_this_host((other.parse::<IpAddr>().expect("an address"), 9).into()), "{other}");
        }
    }
}
