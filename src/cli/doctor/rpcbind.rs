//! rpcbind on this host. Only locks of NFSv3 need it, for `rpc.statd`. Mounting asks the port mapper of the server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::time::timeout;

use super::bounds::STEP_DEADLINE;
use super::facts::Facts;
use super::mount_helper::MOUNTS_NOTHING;
use super::result::HostCheck;
use crate::model::NfsOptions;

/// Address of rpcbind (RFC 1833 §3.1). systemd listens there until the first connection starts rpcbind.
const RPCBIND: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 111);

pub(super) async fn check(facts: Arc<Facts>) -> HostCheck {
    if !facts.mounts() {
        return HostCheck::skipped(MOUNTS_NOTHING);
    }
    let Some((options, place)) = first_with_locks(&facts) else {
        return HostCheck::skipped("no NFS options need it: they contain nolock, or NFS version 4");
    };
    let address = SocketAddr::from(RPCBIND);
    match timeout(STEP_DEADLINE, TcpStream::connect(address)).await {
        Ok(Ok(_)) => HostCheck::passed(format!("answers on {address}; {place} need it for locks")),
        _ => HostCheck::failed(format!(
            "nothing listens on {address}, and mount.nfs needs rpcbind for the locks of {place} ({options}): add nolock to these options, or start rpcbind (systemctl enable --now rpcbind.socket)"
        )),
    }
}

/// Returns the first NFS options that may need `rpc.statd`, and where they are.
fn first_with_locks(facts: &Facts) -> Option<(String, String)> {
    let mounts = &facts.settings.agent.mounts;
    let configured = std::iter::once((&mounts.nfs_options, "[mounts] nfs_options"))
        .chain(mounts.nfs_overrides.iter().map(|entry| (&entry.options, "[[mounts.nfs]] options")))
        .map(|(options, place)| (options.clone(), place.to_owned()));
    let of_targets = facts.targets.iter().filter_map(|spec| {
        let options = NfsOptions::parse(&spec.to_fields().nfs_mount_opts?).ok()?;
        Some((options, format!("the options of {}", spec.export())))
    });
    let (options, place) = configured.chain(of_targets).find(|(options, _)| options.may_need_statd())?;
    Some((options.as_str().to_owned(), place))
}
