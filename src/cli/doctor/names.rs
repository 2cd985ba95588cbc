//! Name resolution of the hosts to which the agent connects: those of its targets, and Keystone.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::result::{HostCheck, HostCheckOutcome};
use crate::driver;
use crate::model::settings::AuthSettings;
use crate::sys::resolve::NAMES_PENDING_MAX;

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    let (mut users, mut problems) = (BTreeMap::<String, String>::new(), Vec::new());
    for spec in &facts.targets {
        match driver::contacted_host(spec, &facts.settings.agent).await {
            Ok(host) => drop(users.entry(host).or_insert_with(|| spec.export())),
            Err(problem) => problems.push(problem),
        }
    }
    if let AuthSettings::Keystone(keystone) = &facts.settings.api.auth {
        users.entry(keystone.host().to_owned()).or_insert_with(|| "[api.keystone] url".to_owned());
    }
    users.retain(|host, _| host.parse::<IpAddr>().is_err());
    if users.is_empty() && problems.is_empty() {
        return HostCheck::skipped("no target has a host name");
    }
    let count = users.len();
    let mut lookups: FuturesUnordered<_> = users
        .into_iter()
        .take(NAMES_PENDING_MAX)
        .map(|(host, user)| async move {
            let found = driver::addresses_of(&host, STEP_DEADLINE).await;
            found.err().map(|finding| format!("{user}: {}", finding.message))
        })
        .collect();
    while let Some(problem) = lookups.next().await {
        problems.extend(problem);
    }
    problems.sort();
    let mut checked = HostCheck::passed(if count == 1 { "1 name".to_owned() } else { format!("{count} names") });
    for problem in problems {
        checked.add(HostCheckOutcome::Failed, problem);
    }
    if count > NAMES_PENDING_MAX {
        checked.add(HostCheckOutcome::Unknown, format!("only the first {NAMES_PENDING_MAX} names were looked up"));
    }
    checked
}
