//! The id of a request, in each of its log lines.
//!
//! Nearly every request is answered from memory without a log line, and a span would be a tenth of its user time. So the
//! id is a value of the task that answers, which the format of the lines reads.

use std::fmt;

use uuid::Uuid;

tokio::task_local! {
    static CURRENT: Option<RequestId>;
}

/// The id of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId(Uuid);

impl RequestId {
    /// A new id.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Returns the id of the request that is answered now.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|id| *id).ok().flatten()
    }

    /// Runs work with this id.
    pub fn during<F: Future>(self, work: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(Some(self), work)
    }
}

/// Runs work with the id of the request that is answered now, also if it is spawned.
pub fn during_current<F: Future>(work: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(RequestId::current(), work)
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "req-{}", self.0.hyphenated())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn task_of_a_request_has_its_id() {
        let (one, other) = (RequestId::random(), RequestId::random());
        assert_ne!(one, other);
        let spawned = || tokio::spawn(during_current(async { RequestId::current() }));
        let inner = one.during(async { (RequestId::current(), spawned().await.expect("no panic")) });
        assert_eq!(inner.await, (Some(one), Some(one)));
        assert_eq!((RequestId::current(), spawned().await.expect("no panic")), (None, None));
    }
}
