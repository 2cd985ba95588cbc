//! Finding Keystone's addresses, when its name server is slow or down.
//!
//! A lookup holds a thread for as long as resolv.conf(5) says, and probes need threads for theirs. So
//! only one is on its way at a time, whoever gave it up, and what was found last is used when there is
//! no answer within [`LOOKUP_WITHIN`]: who moves Keystone while its name server is down is not found.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tokio::sync::Semaphore;
use tower::Service;

/// How long a lookup is waited for.
const LOOKUP_WITHIN: Duration = Duration::from_secs(2);

type Addresses = Vec<SocketAddr>;
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Addresses>> + Send + Sync;

/// Finds the addresses of one name. Clones share what was found.
#[derive(Clone)]
pub(super) struct Resolver {
    lookup: Arc<Lookup>,
    place: Arc<Semaphore>,
    last: Arc<Mutex<Option<Addresses>>>,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Resolver").field("last", &self.last).finish_non_exhaustive()
    }
}

impl Resolver {
    /// Asks the system's resolver.
    pub(super) fn new() -> Self {
        Self::with(Arc::new(|name| {
            Box::pin(async move { tokio::net::lookup_host((name.as_str(), 0)).await.map(Iterator::collect) })
        }))
    }

    fn with(lookup: Arc<Lookup>) -> Self {
        Self { lookup, place: Arc::new(Semaphore::new(1)), last: Arc::default() }
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Option<Addresses>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(self, name: String) -> io::Result<Addresses> {
        let late = || io::Error::new(io::ErrorKind::TimedOut, format!("the name {name} was not looked up in time"));
        let found = tokio::time::timeout(LOOKUP_WITHIN, self.look_up(&name)).await.unwrap_or_else(|_| Err(late()));
        match found {
            Ok(addresses) => Ok(addresses),
            Err(error) => self.last().clone().ok_or(error),
        }
    }

    async fn look_up(&self, name: &str) -> io::Result<Addresses> {
        let place = match self.place.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                let last = self.last().clone();
                if let Some(last) = last {
                    return Ok(last);
                }
                // Who was before may have found it.
                let place = self.place.clone().acquire_owned().await.map_err(io::Error::other)?;
                let last = self.last().clone();
                if let Some(last) = last {
                    return Ok(last);
                }
                place
            }
        };
        let (resolver, name) = (self.clone(), name.to_owned());
        // A task of its own: the thread goes on when nobody waits any more, and so does its place.
        let looking = tokio::spawn(async move {
            let _place = place;
            let found = (resolver.lookup)(name).await?;
            if found.is_empty() {
                return Err(io::Error::other("the name has no address"));
            }
            *resolver.last() = Some(found.clone());
            Ok(found)
        });
        looking.await.map_err(io::Error::other)?
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let finding = self.clone().find(name.as_str().to_owned());
        Box::pin(async move { finding.await.map(IntoIterator::into_iter) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use tokio::sync::watch;

    use super::*;

    #[tokio::test]
    async fn the_system_knows_localhost() {
        let found = Resolver::new().find("localhost".to_owned()).await.expect("found");
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        let error = Resolver::new().find("no-such-name.invalid".to_owned()).await.expect_err("no such name");
        assert_ne!(error.to_string(), "");
    }

    #[tokio::test(start_paused = true)]
    async fn one_lookup_holds_one_thread_and_what_was_found_last_goes_on() {
        let (asked, open) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(false));
        let address: SocketAddr = "192.0.2.1:0".parse().expect("an address");
        let resolver = {
            let (asked, open) = (asked.clone(), open.clone());
            Resolver::with(Arc::new(move |_| {
                asked.fetch_add(1, Ordering::SeqCst);
                let mut open = open.subscribe();
                Box::pin(async move {
                    open.wait_for(|open| *open).await.map_err(io::Error::other)?;
                    Ok(vec![address])
                })
            }))
        };
        let find = || resolver.clone().find("keystone.example".to_owned());
        for found in join_all((0..50).map(|_| find())).await {
            assert!(found.expect_err("nothing was found").to_string().contains("keystone.example"));
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1, "who gave up gave no place back");

        open.send_replace(true);
        while resolver.last().is_none() {
            tokio::task::yield_now().await;
        }
        assert_eq!(find().await.expect("found"), [address]);
        open.send_replace(false);
        let before = asked.load(Ordering::SeqCst);
        for found in join_all((0..50).map(|_| find())).await {
            assert_eq!(found.expect("found last"), [address]);
        }
        assert_eq!(asked.load(Ordering::SeqCst), before + 1);
    }
}
