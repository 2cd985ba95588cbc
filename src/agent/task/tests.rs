//! Tasks with a driver that does as it is told.

use async_trait::async_trait;
use tokio::sync::Notify;

use super::*;
use crate::agent::history::tests::Fake;
use crate::driver::Host;
use crate::model::{MountName, NfsExport, NfsTarget, PathKey, TargetSpec};
use crate::registry::{Entry, Registry};

/// What the tasks of an agent share that has these targets.
pub(in crate::agent) fn shared(registry: Arc<dyn Registry>, targets: Vec<Target>) -> Arc<Shared> {
    let entries = targets.into_iter().map(|target| Entry { target, types: Vec::new() }).collect();
    Arc::new(Shared::new(registry, Arc::new(Host::without_workers()), Arc::new(AgentSettings::quiet()), entries))
}

/// A target of an export.
pub(in crate::agent) fn target() -> Target {
    let spec = TargetSpec::Nfs(NfsTarget { export: NfsExport::parse("nas:/a").expect("an export") });
    let (now, mount_name) = (Timestamp::now(), MountName::derive(&spec, PathKey::default()).expect("a name"));
    Target {
        id: Uuid::new_v4(),
        spec,
        mount_name,
        is_default: false,
        created_at: now,
        updated_at: now,
        version: String::new(),
        metadata: std::collections::BTreeMap::new(),
    }
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
        let shared = shared(Arc::new(Fake::default()), vec![target.clone()]);
        let (began, ended) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (_commands, commands) = mpsc::channel(1);
        let (_requested, requested) = watch::channel(0);
        let (served, _served) = watch::channel(0);
        let (_target, target) = watch::channel(Arc::new(target));
        let driver = Box::new(Hanging { began: began.clone(), ended: ended.clone() });
        let settings = shared.settings.subscribe();
        let task =
            Task { shared: shared.clone(), driver, target, settings, commands, requested, served, mount_id: None };
        let task = tokio::spawn(task.run(FirstProbe::Now));
        began.notified().await;
        shared.stopping.send_replace(true);
        ended.notify_one();
        task.await.expect("ended");
        assert!(shared.view().targets[0].report.is_none(), "{:?}", shared.view().targets[0].report);
    }
}
