//! Mailbox of a task: what the agent asks of it, and which requests for a probe it has served.
//!
//! There is one for each target, so it is small. The channels of tokio would need ten times its memory.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::agent::error::AgentError;
use crate::model::Target;
use crate::registry::Snapshot;

/// Answer to a deletion: the content of the registry without the target.
pub(in crate::agent) type Deleted = Result<Arc<Snapshot>, AgentError>;

/// What a task does next.
pub(super) enum Event {
    /// Probe the target.
    ProbeDue,
    /// The target has other storage. `None` when it is not a target of this node any more.
    Assigned(Option<Arc<Target>>),
    /// Unmount the target, and remove it from the registry.
    Delete(oneshot::Sender<Deleted>),
    /// End, because the agent no longer exists.
    Abandoned,
}

/// Mailbox that the agent and a task share.
pub(in crate::agent) struct Mailbox {
    content: Mutex<Content>,
    /// Wakes the task.
    arrived: Notify,
    /// Wakes the callers that wait for the task.
    progressed: Notify,
}

struct Content {
    /// The target as the registry contains it. `None` when it is not a target of this node any more.
    assigned: Option<Arc<Target>>,
    /// Whether the task has not seen that `assigned` has other storage or was removed.
    is_reassigned: bool,
    /// Number of probes that were requested.
    requested: u64,
    /// The value of `requested` when the latest probe began.
    begun: u64,
    /// The value of `requested` when the latest finished probe began.
    served: u64,
    /// The next deletion. Others wait until the task has taken it.
    deletion: Option<oneshot::Sender<Deleted>>,
    is_abandoned: bool,
    /// Whether the task accepts no more requests.
    is_closed: bool,
}

impl Mailbox {
    pub(super) fn new(target: Arc<Target>) -> Self {
        let content = Content {
            assigned: Some(target),
            is_reassigned: false,
            requested: 0,
            begun: 0,
            served: 0,
            deletion: None,
            is_abandoned: false,
            is_closed: false,
        };
        Self { content: Mutex::new(content), arrived: Notify::new(), progressed: Notify::new() }
    }

    /// Requests a probe. Returns the number of the request, for [`Self::served`].
    pub(in crate::agent) fn request_probe(&self) -> u64 {
        let mut content = self.content();
        content.requested += 1;
        self.arrived.notify_one();
        content.requested
    }

    /// Waits until a probe ends that began after this request. Returns false if the task ends before.
    pub(in crate::agent) async fn served(&self, request: u64) -> bool {
        self.progress(|content| match content.served >= request {
            false if content.is_closed => Some(false),
            is_served => is_served.then_some(true),
        })
        .await
    }

    /// Tells the task to delete its target. Waits until the task has taken the deletion before this one. Returns `None`
    /// if the task accepts no more requests. If a step fails, the task continues.
    pub(in crate::agent) async fn delete(&self) -> Option<oneshot::Receiver<Deleted>> {
        let (reply, answer) = oneshot::channel();
        let mut reply = Some(reply);
        let is_sent = self.progress(|content| {
            if content.is_closed || content.deletion.is_some() {
                return content.is_closed.then_some(false);
            }
            content.deletion = reply.take();
            self.arrived.notify_one();
            Some(true)
        });
        is_sent.await.then_some(answer)
    }

    /// Gives the task the current version of its target, or `None` when it was removed. Wakes the task only if the
    /// storage changed, which needs a new driver and a new probe.
    pub(in crate::agent) fn assign(&self, target: Option<Arc<Target>>) {
        let mut content = self.content();
        let [former, new] = [&content.assigned, &target].map(|target| target.as_ref().map(|target| &target.spec));
        let is_other_storage = former != new;
        content.assigned = target;
        if is_other_storage {
            content.is_reassigned = true;
            self.arrived.notify_one();
        }
    }

    /// Ends the task without unmounting the target.
    pub(super) fn abandon(&self) {
        self.content().is_abandoned = true;
        self.arrived.notify_one();
    }

    /// Refuses all requests, also those that wait.
    pub(super) fn close(&self) {
        let mut content = self.content();
        content.is_closed = true;
        content.deletion = None;
        self.progressed.notify_waiters();
    }

    /// Waits for an event that interrupts a probe.
    pub(super) async fn interruption(&self) -> Event {
        self.arrival(Content::interruption).await
    }

    /// Waits for such an event, or for a request that the latest probe does not serve.
    pub(super) async fn event(&self) -> Event {
        self.arrival(|content| {
            let is_requested = content.requested > content.begun;
            content.interruption().or_else(|| is_requested.then_some(Event::ProbeDue))
        })
        .await
    }

    /// Notes that a probe begins. Returns the number of the latest request that it serves, and whether a caller waits
    /// for it.
    pub(super) fn begin_probe(&self) -> (u64, bool) {
        let mut content = self.content();
        content.begun = content.requested;
        (content.begun, content.begun > content.served)
    }

    /// Notes that a probe has ended that serves the requests up to this one.
    pub(super) fn end_probe(&self, request: u64) {
        self.content().served = request;
        self.progressed.notify_waiters();
    }

    /// Waits until `find` finds something, and looks whenever something arrives.
    async fn arrival(&self, mut find: impl FnMut(&mut Content) -> Option<Event>) -> Event {
        loop {
            let found = find(&mut self.content());
            if let Some(event) = found {
                // A taken deletion makes room for the next one.
                self.progressed.notify_waiters();
                return event;
            }
            self.arrived.notified().await;
        }
    }

    /// Waits until `find` finds something, and looks whenever the task makes progress.
    async fn progress<T>(&self, mut find: impl FnMut(&mut Content) -> Option<T>) -> T {
        loop {
            let mut progressed = pin!(self.progressed.notified());
            // Before the content is read, so that no progress after it is missed.
            progressed.as_mut().enable();
            let found = find(&mut self.content());
            if let Some(found) = found {
                return found;
            }
            progressed.await;
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        // Every change is a few assignments that cannot panic.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content {
    fn interruption(&mut self) -> Option<Event> {
        // A removed target is not deleted again, and is unmounted although its handle no longer exists.
        if std::mem::take(&mut self.is_reassigned) {
            return Some(Event::Assigned(self.assigned.clone()));
        }
        let deletion = self.deletion.take().map(Event::Delete);
        deletion.or_else(|| self.is_abandoned.then_some(Event::Abandoned))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::registry::fixtures::nfs;

    fn mailbox() -> Mailbox {
        Mailbox::new(Arc::new(nfs("nas:/a").0))
    }

    #[tokio::test]
    async fn request_during_a_probe_is_served_by_the_next_one() {
        let mailbox = mailbox();
        let first = mailbox.request_probe();
        assert!(matches!(mailbox.event().await, Event::ProbeDue));
        assert_eq!(mailbox.begin_probe(), (first, true));
        let second = mailbox.request_probe();
        assert!(mailbox.interruption().now_or_never().is_none(), "a request does not interrupt the probe");
        mailbox.end_probe(first);
        assert!(mailbox.served(first).await && mailbox.served(second).now_or_never().is_none());
        assert!(matches!(mailbox.event().await, Event::ProbeDue));
        assert_eq!(mailbox.begin_probe(), (second, true));
        mailbox.end_probe(second);
        assert_eq!((mailbox.served(second).await, mailbox.begin_probe()), (true, (second, false)));
        assert!(mailbox.event().now_or_never().is_none());
    }

    #[tokio::test]
    async fn second_deletion_waits_until_the_task_has_taken_the_first() {
        let mailbox = mailbox();
        let first = mailbox.delete().await.expect("open");
        let mut second = pin!(mailbox.delete());
        assert!(second.as_mut().now_or_never().is_none());
        assert!(matches!(mailbox.interruption().await, Event::Delete(_)));
        assert!(first.await.is_err(), "the task dropped the reply");
        let second = second.await.expect("open");
        mailbox.close();
        assert!(second.await.is_err() && mailbox.delete().await.is_none() && !mailbox.served(1).await);
    }

    #[tokio::test]
    async fn only_other_storage_interrupts_the_task() {
        let mailbox = mailbox();
        let mut target = nfs("nas:/a").0;
        target.is_default = true;
        mailbox.assign(Some(Arc::new(target)));
        assert!(mailbox.interruption().now_or_never().is_none());
        mailbox.assign(Some(Arc::new(nfs("nas:/b").0)));
        mailbox.assign(None);
        mailbox.abandon();
        assert!(matches!(mailbox.interruption().await, Event::Assigned(None)), "before the end");
        assert!(matches!(mailbox.interruption().await, Event::Abandoned));
    }
}
