//! Connections of each peer, which are bounded so that one peer cannot lock the others out.
//!
//! A peer is an address, of IPv6 the network of 64 bits that a host is given. This host's own clients
//! are not bounded here.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The most connections of one peer.
pub const PEER_CONNECTIONS_MAX: usize = 256;

/// The bits of an IPv6 address that are of a network.
const NETWORK: u128 = !0 << 64;

#[derive(Debug, Clone, Default)]
pub(super) struct Peers {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One connection of a peer, until it is dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    peers: Peers,
    of: Option<IpAddr>,
}

impl Peers {
    /// Counts a connection; none when its peer has too many.
    pub(super) fn admit(&self, address: IpAddr) -> Option<Admitted> {
        let of = peer(address);
        if let Some(of) = of {
            let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(of).or_default();
            if *count >= PEER_CONNECTIONS_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Admitted { peers: self.clone(), of })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let Some(of) = self.of else { return };
        let mut counts = self.peers.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&of) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&of);
            }
        }
    }
}

/// Peer of an address. `None` for an address of this host.
fn peer(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        address if address.is_loopback() => None,
        IpAddr::V4(address) => Some(address.into()),
        IpAddr::V6(address) => Some(Ipv6Addr::from_bits(address.to_bits() & NETWORK).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_its_places_and_no_others_and_this_host_has_all() {
        let peers = Peers::default();
        let admit = |address: &str| peers.admit(address.parse().expect("an address"));
        let mut held: Vec<_> = (0..PEER_CONNECTIONS_MAX).map(|_| admit("192.0.2.1").expect("a place")).collect();
        assert!(admit("192.0.2.1").is_none() && admit("::ffff:192.0.2.1").is_none());
        let other = admit("192.0.2.2").expect("another peer");
        held.pop();
        held.push(admit("192.0.2.1").expect("a place that is free again"));
        for number in 0..PEER_CONNECTIONS_MAX {
            held.push(admit(&format!("2001:db8::{number:x}")).expect("a place"));
            held.push(admit("127.0.0.1").expect("no bound"));
        }
        assert!(admit("2001:db8::ffff").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        assert!(admit("::1").is_some());
        drop((held, other));
        assert!(peers.counts.lock().expect("a lock").is_empty(), "nobody is remembered");
    }
}
