//! Where the name of an NFS server leads, and where it led before.
//!
//! A mount talks to the address that the name had when it was mounted, for as long as it is mounted.
//! So a name that leads elsewhere now means that the mount talks to the old machine. There are also
//! names that give one address of many at each lookup, as clusters of file servers have: from those
//! nothing follows. Such a name gives itself away by an address that it gave before and gives again.

use std::net::IpAddr;
use std::time::{Duration, Instant};

/// How many former addresses of a name are remembered.
const FORMER_MAX: usize = 64;

/// How long a name that gave a former address again is taken for one that gives them by turns.
const BY_TURNS: Duration = Duration::from_secs(3600);

/// What one target's driver has seen of its server's name.
#[derive(Debug, Clone, Default)]
pub struct ServerAddresses {
    /// The name.
    host: String,
    given: Vec<IpAddr>,
    /// Given before and not now, oldest first.
    former: Vec<IpAddr>,
    gave_again: Option<Instant>,
}

impl ServerAddresses {
    /// Notes what the name gives now. Nothing is kept of another name: that was the server of another
    /// configuration.
    pub fn learn(&mut self, host: &str, addresses: Vec<IpAddr>) {
        if self.host != host {
            *self = Self { host: host.to_owned(), ..Self::default() };
        }
        if self.former.iter().any(|address| addresses.contains(address)) {
            self.gave_again = Some(Instant::now());
        }
        for address in std::mem::take(&mut self.given) {
            if !self.former.contains(&address) {
                self.former.push(address);
            }
        }
        self.former.retain(|address| !addresses.contains(address));
        let surplus = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..surplus);
        self.given = addresses;
    }

    /// Whether nothing is known of it yet.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.given.is_empty()
    }

    /// What it gives now.
    #[must_use]
    pub fn given(&self) -> &[IpAddr] {
        &self.given
    }

    /// Whether it leads there, or did.
    #[must_use]
    pub fn have_led_to(&self, address: IpAddr) -> bool {
        self.given.contains(&address) || self.former.contains(&address)
    }

    /// Whether it leads elsewhere now, and not by turns.
    #[must_use]
    pub fn have_left(&self, address: IpAddr) -> bool {
        let by_turns = self.gave_again.is_some_and(|at| at.elapsed() < BY_TURNS);
        !self.is_unknown() && !by_turns && !self.given.contains(&address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[test]
    fn a_name_that_leads_elsewhere_has_left_its_former_address() {
        let mut servers = ServerAddresses::default();
        assert!(servers.is_unknown() && !servers.have_left(address(1)), "nothing is known yet");
        servers.learn("nas", vec![address(1), address(2)]);
        assert!(!servers.have_left(address(1)) && !servers.have_left(address(2)));
        servers.learn("nas", vec![address(3)]);
        assert!(servers.have_left(address(1)));
        assert!(servers.have_led_to(address(1)) && servers.have_led_to(address(3)) && !servers.have_led_to(address(4)));
    }

    #[test]
    fn a_name_that_gives_its_addresses_by_turns_has_left_none() {
        let mut servers = ServerAddresses::default();
        for number in [1, 2, 3, 1, 2] {
            servers.learn("nas", vec![address(number)]);
        }
        assert!((1..=4).all(|number| !servers.have_left(address(number))));
    }

    #[test]
    fn nothing_is_kept_of_another_name() {
        let mut servers = ServerAddresses::default();
        servers.learn("nas", vec![address(1)]);
        servers.learn("other", vec![address(2)]);
        assert!(servers.have_led_to(address(2)) && !servers.have_led_to(address(1)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut servers = ServerAddresses::default();
        for number in 0..=255 {
            servers.learn("nas", vec![address(number)]);
        }
        assert_eq!(servers.former.len(), FORMER_MAX);
        assert!(servers.have_led_to(address(254)) && !servers.have_led_to(address(0)));
    }
}
