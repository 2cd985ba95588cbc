//! Current and former addresses of an NFS server's name.
//!
//! Until it is unmounted, a mount uses the address that the name had when it was mounted. If the name now has another
//! address, the mount still uses the former server. Clusters of file servers have rotating names: each lookup returns
//! one of many addresses. A change of a rotating name means nothing. Such a name is recognized by repeated returns to
//! former addresses. A name that returns only once was moved and then moved back. Rotation is a guess, so it only
//! prevents a warning. The agent always verifies that the server of the mount still answers.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Maximum number of former addresses that are kept.
const FORMER_MAX: usize = 64;

/// Longest time between two returns of a rotating name to former addresses.
const ROTATION_MEMORY: Duration = Duration::from_secs(3600);

/// Addresses to which the name of one target's server resolved.
#[derive(Debug, Clone, Default)]
pub struct ServerAddresses {
    /// The name.
    host: String,
    current: Vec<IpAddr>,
    /// Former addresses that are not current, oldest first.
    former: Vec<IpAddr>,
    /// When the name last resolved to a former address.
    returned_at: Option<Instant>,
    /// When the name last returned to a former address within [`ROTATION_MEMORY`] of an earlier return.
    rotated_at: Option<Instant>,
}

impl ServerAddresses {
    /// Records the current addresses of a name. Forgets the addresses of any other name, which an earlier configuration
    /// used.
    pub fn update(&mut self, host: &str, addresses: Vec<IpAddr>) {
        if self.host != host {
            *self = Self { host: host.to_owned(), ..Self::default() };
        }
        if self.former.iter().any(|address| addresses.contains(address)) {
            let now = Instant::now();
            self.rotated_at = self.returned_at.filter(|at| at.elapsed() < ROTATION_MEMORY).map(|_| now);
            self.returned_at = Some(now);
        }
        for address in std::mem::take(&mut self.current) {
            if !self.former.contains(&address) {
                self.former.push(address);
            }
        }
        self.former.retain(|address| !addresses.contains(address));
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..surplus);
        self.current = addresses;
    }

    /// Whether the name was never resolved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    /// Current addresses.
    #[must_use]
    pub fn current(&self) -> &[IpAddr] {
        &self.current
    }

    /// Whether the name resolves to the address, or did so earlier.
    #[must_use]
    pub fn ever_included(&self, address: IpAddr) -> bool {
        self.current.contains(&address) || self.former.contains(&address)
    }

    /// Whether the name resolves to other addresses now.
    #[must_use]
    pub fn is_elsewhere(&self, address: IpAddr) -> bool {
        !self.is_empty() && !self.current.contains(&address)
    }

    /// Whether the name moved away from the address. False for a rotating name.
    #[must_use]
    pub fn has_left(&self, address: IpAddr) -> bool {
        let rotates = self.rotated_at.is_some_and(|at| at.elapsed() < ROTATION_MEMORY);
        self.is_elsewhere(address) && !rotates
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn former_address_is_left_after_the_name_moved() {
        let mut servers = ServerAddresses::default();
        assert!(servers.is_empty() && !servers.has_left(address(1)), "never resolved");
        servers.update("nas", vec![address(1), address(2)]);
        assert!(!servers.has_left(address(1)) && !servers.has_left(address(2)));
        servers.update("nas", vec![address(3)]);
        assert!(servers.has_left(address(1)));
        assert!(
            servers.ever_included(address(1))
                && servers.ever_included(address(3))
                && !servers.ever_included(address(4))
        );
    }

    #[test]
    fn address_between_is_left_after_the_name_moved_back() {
        let mut servers = ServerAddresses::default();
        for number in [1, 2, 1] {
            servers.update("nas", vec![address(number)]);
        }
        assert!(servers.has_left(address(2)) && !servers.has_left(address(1)));
    }

    #[test]
    fn rotating_name_leaves_no_address() {
        let mut servers = ServerAddresses::default();
        for number in [1, 2, 3, 1, 2] {
            servers.update("nas", vec![address(number)]);
        }
        assert!((1..=4).all(|number| !servers.has_left(address(number))));
    }

    #[test]
    fn addresses_of_another_name_are_forgotten() {
        let mut servers = ServerAddresses::default();
        servers.update("nas", vec![address(1)]);
        servers.update("other", vec![address(2)]);
        assert!(servers.ever_included(address(2)) && !servers.ever_included(address(1)));
    }

    #[test]
    fn number_of_former_addresses_is_bounded() {
        let mut servers = ServerAddresses::default();
        for number in 0..=255 {
            servers.update("nas", vec![address(number)]);
        }
        assert_eq!(servers.former.len(), FORMER_MAX);
        assert!(servers.ever_included(address(254)) && !servers.ever_included(address(0)));
    }
}
