//! Tasks with a driver that the test controls.

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::driver::Host;
use crate::registry::fixtures::{nfs, snapshot_of};
use crate::registry::{MemoryStore, Registry, Snapshot, Store};

/// What the tasks of an agent share whose view shows these targets.
pub(in crate::agent) fn shared(store: Arc<dyn Store>, targets: Vec<Target>) -> Arc<Shared> {
    let shared = Shared::new(Registry::new(store), Arc::new(Host::without_workers()), AgentSettings::quiet());
    let snapshot = snapshot_of(targets.into_iter().map(|target| (target, nfs("nas:/a").1)));
    shared.views.publish_differences(&snapshot.differences_from(&Snapshot::default()), "/mounts".as_ref());
    Arc::new(shared)
}

/// An NFS target.
pub(in crate::agent) fn target() -> Target {
    nfs("nas:/a").0
}

/// A probe that hangs until its child is taken from it, and fails then.
struct Hanging {
    began: Arc<Notify>,
    ended: Arc<Notify>,
}

#[async_trait]
impl Driver for Hanging {
    async fn probe(&mut self, _: &AgentSettings, _: Depth) -> Probe {
        self.began.notify_one();
        self.ended.notified().await;
        panicked()
    }

    async fn detach(&mut self, _: &AgentSettings) -> Result<Option<String>, DetachError> {
        unreachable!()
    }
}

#[tokio::test]
async fn a_probe_that_the_end_of_the_agent_ended_says_nothing_of_its_storage() {
    // Which of two things that happened at once a task sees first is left to chance: many tries.
    for _ in 0..50 {
        let target = target();
        let shared = shared(Arc::new(MemoryStore::default()), vec![target.clone()]);
        let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (_commands, commands) = mpsc::channel(1);
        let (_requested, requested) = watch::channel(0);
        let (served, _served) = watch::channel(0);
        let target = Arc::new(target);
        let (_assigned, assigned) = watch::channel(Some(target.clone()));
        let driver = Box::new(Hanging { began: began.clone(), ended: ended.clone() });
        let settings = shared.settings.subscribe();
        let task = Task {
            shared: shared.clone(),
            driver,
            target,
            assigned,
            settings,
            commands,
            requested,
            served,
            mount_id: None,
        };
        let task = tokio::spawn(task.run(FirstProbe::Now));
        began.notified().await;
        shared.stopping.send_replace(true);
        ended.notify_one();
        task.await.expect("ended");
        assert!(shared.views.view().targets[0].report.is_none(), "{:?}", shared.views.view().targets[0].report);
    }
}
