//! Detection of members whose answers must not be used.
//!
//! A member that is cut off from the others answers serializable reads from its old state. A cluster that is restored
//! from a backup has a lower revision and term. It keeps its id if the URLs of its peers and its token are the same.
//! Only answers that needed a quorum set what later answers are compared with: a member that is cut off may increment
//! its own term without end.

use std::time::Duration;

use tokio::time::Instant;

use super::error::EtcdError;
use super::key_value::{AnswerHeader, EtcdRevision};

/// How long the known cluster must have been silent before another one, or the same one with an older state, is
/// accepted. That is a restored backup.
const CLUSTER_CHANGE_AFTER: Duration = Duration::from_secs(60);

/// Newest state of the cluster that an answer showed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StaleGuard {
    /// The cluster, and when its latest answer arrived that was not older than the known state.
    cluster: Option<(u64, Instant)>,
    revision: EtcdRevision,
    raft_term: u64,
}

/// What an answer says about the state of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    /// A quorum confirmed it.
    Quorum,
    /// A member read its own state.
    Local,
    /// The leader answered, and the header is that of the member that forwarded the request.
    Forwarded,
}

impl StaleGuard {
    /// Checks an answer against what was known when its request was sent, and remembers it.
    ///
    /// # Errors
    /// [`EtcdError::Stale`] when it must not be used.
    pub(super) fn check(&mut self, sent: &Self, header: &AnswerHeader, kind: AnswerKind) -> Result<(), EtcdError> {
        let now = Instant::now();
        match self.cluster {
            Some((id, seen)) if id != header.cluster_id => {
                // A member of another cluster that was cut off proves nothing.
                if kind != AnswerKind::Quorum || seen.elapsed() < CLUSTER_CHANGE_AFTER {
                    return Err(EtcdError::Stale(format!(
                        "member {:x} belongs to cluster {:x}, expected {id:x}. Check the hosts of [registry] url",
                        header.member_id, header.cluster_id
                    )));
                }
                *self = Self::default();
            }
            Some((_, seen)) => {
                // The known state is older than `sent` if a restored cluster was accepted since.
                let revision = sent.revision.min(self.revision);
                let raft_term = sent.raft_term.min(self.raft_term);
                let is_older =
                    header.raft_term < raft_term || (kind != AnswerKind::Forwarded && header.revision < revision);
                if is_older {
                    // A member that is cut off has no quorum, so this is the state of the cluster.
                    if kind != AnswerKind::Quorum || seen.elapsed() < CLUSTER_CHANGE_AFTER {
                        return Err(EtcdError::Stale(format!(
                            "member {:x} is at revision {} of term {}, but revision {revision} of term {raft_term} was seen before",
                            header.member_id, header.revision, header.raft_term
                        )));
                    }
                    *self = Self::default();
                }
            }
            None => {}
        }
        self.cluster = Some((header.cluster_id, now));
        if kind == AnswerKind::Quorum {
            self.revision = self.revision.max(header.revision);
            self.raft_term = self.raft_term.max(header.raft_term);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(cluster_id: u64, revision: u64, raft_term: u64) -> AnswerHeader {
        AnswerHeader { cluster_id, member_id: 1, revision: EtcdRevision(revision), raft_term }
    }

    #[tokio::test(start_paused = true)]
    async fn older_answer_is_refused_and_an_overtaken_one_is_not() {
        let mut guard = StaleGuard::default();
        let before = guard;
        guard.check(&before, &header(1, 10, 3), AnswerKind::Quorum).expect("the first one");
        let sent = guard;
        // Another request was answered between.
        guard.check(&sent, &header(1, 11, 3), AnswerKind::Quorum).expect("newer");
        guard.check(&sent, &header(1, 10, 3), AnswerKind::Quorum).expect("sent before the newer answer");
        let sent = guard;
        guard.check(&sent, &header(1, 10, 3), AnswerKind::Local).expect_err("an older revision");
        guard.check(&sent, &header(1, 12, 2), AnswerKind::Local).expect_err("an older term");
        guard.check(&sent, &header(1, 10, 3), AnswerKind::Forwarded).expect("the header of another member");
        // A member that is cut off campaigns.
        guard.check(&sent, &header(1, 11, 99), AnswerKind::Local).expect("not older");
        let sent = guard;
        guard.check(&sent, &header(1, 12, 4), AnswerKind::Quorum).expect("the term of the quorum");
    }

    #[tokio::test(start_paused = true)]
    async fn another_cluster_is_accepted_after_a_minute_of_silence() {
        let mut guard = StaleGuard::default();
        let before = guard;
        guard.check(&before, &header(1, 10, 3), AnswerKind::Quorum).expect("the first one");
        let sent = guard;
        guard.check(&sent, &header(2, 20, 3), AnswerKind::Quorum).expect_err("another cluster");
        tokio::time::advance(CLUSTER_CHANGE_AFTER).await;
        let sent = guard;
        guard.check(&sent, &header(2, 2, 1), AnswerKind::Local).expect_err("one member");
        guard.check(&sent, &header(2, 2, 1), AnswerKind::Forwarded).expect_err("the header of one member");
        guard.check(&sent, &header(2, 2, 1), AnswerKind::Quorum).expect("the cluster was set up anew");
        guard.check(&guard.clone(), &header(2, 2, 1), AnswerKind::Local).expect("a member of the new cluster");
    }

    #[tokio::test(start_paused = true)]
    async fn restored_cluster_with_its_id_is_accepted_after_a_minute_of_silence() {
        let mut guard = StaleGuard::default();
        let before = guard;
        guard.check(&before, &header(1, 10, 3), AnswerKind::Quorum).expect("the first one");
        let half = CLUSTER_CHANGE_AFTER / 2;
        tokio::time::advance(half).await;
        let sent = guard;
        guard.check(&sent, &header(1, 5, 2), AnswerKind::Quorum).expect_err("the known state was seen lately");
        guard.check(&sent, &header(1, 10, 3), AnswerKind::Local).expect("the known state");
        tokio::time::advance(half).await;
        guard.check(&sent, &header(1, 5, 2), AnswerKind::Quorum).expect_err("it was seen again");
        tokio::time::advance(half).await;
        guard.check(&sent, &header(1, 5, 2), AnswerKind::Local).expect_err("a member that is cut off");
        guard.check(&sent, &header(1, 5, 2), AnswerKind::Forwarded).expect_err("the header of another member");
        guard.check(&sent, &header(1, 5, 2), AnswerKind::Quorum).expect("the cluster was restored");
        guard.check(&sent, &header(1, 6, 2), AnswerKind::Local).expect("sent before it was accepted");
        let sent = guard;
        guard.check(&sent, &header(1, 4, 2), AnswerKind::Local).expect_err("older than the restored state");
    }
}
