//! The registry in etcd: whether a quorum answers, whether this node has joined it, and how etcd is set up.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::timeout;

use super::bounds::{STEP_DEADLINE, blocking};
use super::facts::Facts;
use super::result::{HostCheck, HostCheckOutcome};
use crate::cli::fleet;
use crate::etcd::{EtcdClient, EtcdError, EtcdRevision, KeyValueStore as _, MemberStatus, RangeRequest};
use crate::registry::{self, CloudId, EtcdRegistry, SharedRegistry as _};

/// Oldest version of etcd without known faults that matter here.
const VERSION_MIN: (u32, u32, u32) = (3, 5, 23);

/// Part of the quota above which the database is nearly full, in percent.
const NEARLY_FULL_PERCENT: u64 = 80;

/// With auto-compaction, etcd does not keep more revisions than this for long.
const KEPT_REVISIONS_MAX: u64 = 100_000;

/// Number of revisions from which a missing compaction is a warning.
const UNCOMPACTED_REVISIONS_MAX: u64 = 10_000;

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    let url = &facts.settings.registry_url;
    let Some(shared) = url.shared() else {
        return HostCheck::skipped("[registry] url does not name etcd");
    };
    let client = match fleet::connect_client(shared).await {
        Ok(client) => client,
        Err(error) => return HostCheck::failed(format!("{error:#}")),
    };
    let registry = EtcdRegistry::new(client.clone(), &shared.prefix);
    let (version, members) = tokio::join!(timeout(STEP_DEADLINE, registry.latest_version()), client.member_statuses());
    let mut checked = match version {
        Ok(Ok(version)) => registry_found(version.cloud_id, url.file().to_owned()).await,
        Ok(Err(problem)) => {
            HostCheck::warning(format!("the agent continues with its copy, and changes fail: {problem}"))
        }
        Err(_) => HostCheck::warning(format!(
            "the agent continues with its copy, and changes fail: etcd did not answer within {} s",
            STEP_DEADLINE.as_secs()
        )),
    };
    let mut newest = None;
    for (url, member) in members {
        match member {
            Ok(member) => {
                newest = newest.max(Some(member.revision));
                check_member(&mut checked, url, &member);
            }
            Err(error) => checked.add(HostCheckOutcome::Warning, format!("{url}: {error}")),
        }
    }
    if let Some(newest) = newest
        && is_uncompacted(&client, &shared.prefix, newest).await
    {
        checked.add(
            HostCheckOutcome::Warning,
            "etcd keeps every old revision until its database is full, because auto-compaction is off by default: start its members with --auto-compaction-mode=periodic --auto-compaction-retention=1h",
        );
    }
    checked
}

/// Compares the registry in etcd with the one that this node has joined.
async fn registry_found(cloud_id: CloudId, file: PathBuf) -> HostCheck {
    let found = HostCheck::passed(format!("registry {cloud_id}"));
    // Problems of the file are those of another check.
    let Some(Ok((copy, joined))) = blocking(move || registry::read_copy(&file)).await else {
        return found;
    };
    match joined {
        Some(joined) if joined != cloud_id => HostCheck::warning(format!(
            "the agent continues with its copy, and changes fail: this node has joined the registry {joined}, and the one in etcd is {cloud_id}. Correct [registry] url, or leave the former registry: targetwatch fleet join --leave --dry-run"
        )),
        None if !copy.targets().is_empty() => HostCheck::warning(
            "this node has targets of its own and has not joined the registry in etcd: targetwatch fleet join --dry-run",
        )
        .detail(format!("registry {cloud_id}")),
        _ => found,
    }
}

fn check_member(checked: &mut HostCheck, url: &str, member: &MemberStatus) {
    let mut warn = |problem: String| checked.add(HostCheckOutcome::Warning, format!("{url}: {problem}"));
    let MemberStatus { version, database_bytes, quota_bytes, problems, .. } = member;
    if numbers(version).is_some_and(|version| version < VERSION_MIN) {
        let (major, minor, patch) = VERSION_MIN;
        warn(format!(
            "etcd {version} has known faults, such as leases that end too early or never: install {major}.{minor}.{patch} or later"
        ));
    }
    if problems.iter().any(|problem| problem.contains("NOSPACE")) {
        warn(EtcdError::NoSpace.to_string());
    } else if let Some(quota) = quota_bytes.filter(|quota| *database_bytes > quota / 100 * NEARLY_FULL_PERCENT) {
        warn(format!(
            "the database has {database_bytes} bytes of the quota of {quota} bytes. Compact and defragment it, or raise --quota-backend-bytes"
        ));
    }
    for problem in problems.iter().filter(|problem| !problem.contains("NOSPACE")) {
        warn(problem.clone());
    }
}

/// Returns the numbers of a version such as `3.5.23`.
fn numbers(version: &str) -> Option<(u32, u32, u32)> {
    let mut numbers = version.split(['.', '-', '+']).map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some((next()?, next()?, next()?))
}

/// Whether etcd has many revisions and did not remove the old ones.
async fn is_uncompacted(client: &EtcdClient, prefix: &str, newest: EtcdRevision) -> bool {
    let old = EtcdRevision(newest.0.saturating_sub(KEPT_REVISIONS_MAX).max(1));
    let key = format!("/{}/v1/meta/schema", prefix.trim_matches('/'));
    let request = RangeRequest { revision: Some(old), ..RangeRequest::key(key).serializable() };
    newest.0 > UNCOMPACTED_REVISIONS_MAX && matches!(timeout(STEP_DEADLINE, client.range(&request)).await, Ok(Ok(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(member: &MemberStatus) -> String {
        let mut checked = HostCheck::passed("");
        check_member(&mut checked, "http://etcd", member);
        checked.messages()
    }

    #[test]
    fn problems_of_a_member_are_warnings() {
        let healthy = MemberStatus {
            version: "3.5.23".to_owned(),
            revision: EtcdRevision(1),
            database_bytes: 20_480,
            quota_bytes: Some(2 << 30),
            problems: Vec::new(),
        };
        assert_eq!(messages(&healthy), "");
        assert_eq!(messages(&MemberStatus { version: "3.6.0-rc.1".to_owned(), ..healthy.clone() }), "");
        for (member, expected) in [
            (MemberStatus { version: "3.4.23".to_owned(), ..healthy.clone() }, "install 3.5.23 or later"),
            (MemberStatus { database_bytes: 2_000_000_000, ..healthy.clone() }, "2147483648 bytes"),
            (
                MemberStatus { problems: vec!["memberID:1 alarm:NOSPACE ".to_owned()], ..healthy.clone() },
                "alarm disarm",
            ),
            (MemberStatus { problems: vec!["etcdserver: no leader".to_owned()], ..healthy.clone() }, "no leader"),
        ] {
            let messages = messages(&member);
            assert!(messages.contains(expected) && messages.lines().count() == 1, "{messages}");
        }
    }
}
