//! The user that writes backups: ids, or names of this host.
//!
//! Names are looked up only in `/etc/passwd` and `/etc/group`. getpwnam(3) may query a directory service such as LDAP,
//! and waits for it without a limit. A user of a directory service is configured by its ids.

use std::path::Path;

use toml::Spanned;

use crate::config::error::InvalidValue;
use crate::config::raw;
use crate::config::validated::Validated;
use crate::model::settings::{BackupUser, BackupUserOrigin};

/// User and group id of `nova` in Kolla's images, for hosts without a user [`NOVA`].
const KOLLA_NOVA: u32 = 42436;

/// User of OpenStack's compute service, which writes backups on hosts that do not run it in a container.
const NOVA: &str = "nova";

/// Value of keys that the operator does not set.
const DEFAULT: &str = "default";

/// Users and groups of this host.
pub(super) struct Accounts {
    /// Lines as in passwd(5).
    passwd: String,
    /// Lines as in group(5).
    group: String,
}

impl Accounts {
    /// Reads the files of this host. A file that cannot be read, or is larger than a configuration may be, counts as
    /// empty: the defaults must work without it.
    pub(super) fn of_host() -> Self {
        let read = |path: &str| crate::config::file::read(Path::new(path)).unwrap_or_default();
        Self { passwd: read("/etc/passwd"), group: read("/etc/group") }
    }

    /// Returns user id and group id of the first user for which `is_wanted`, which gets name and user id.
    fn user(&self, is_wanted: impl Fn(&str, u32) -> bool) -> Option<(u32, u32)> {
        self.passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
            is_wanted(name, uid).then_some((uid, gid))
        })
    }

    fn group_id(&self, wanted: &str) -> Option<u32> {
        self.group.lines().find_map(|line| {
            let mut fields = line.split(':');
            let (name, _password) = (fields.next()?, fields.next()?);
            fields.next()?.parse().ok().filter(|_| name == wanted)
        })
    }
}

/// Validates the ids of the user. By default the user is `nova` of this host, and the group is the primary group of
/// the user.
pub(super) fn backup_user(canary: &raw::Canary, accounts: &Accounts) -> Validated<BackupUser> {
    const UID: &str = "[probe.canary] uid";
    const GID: &str = "[probe.canary] gid";
    let by_name = |wanted: &str| accounts.user(|name, _| name == wanted);
    let (uid, origin) = match canary.uid.get_ref() {
        raw::Account::Id(uid) => (valid_id(*uid, &canary.uid, UID)?, BackupUserOrigin::Configured),
        raw::Account::Name(name) if name == DEFAULT => match by_name(NOVA) {
            Some((uid, _)) => (uid, BackupUserOrigin::HostUser),
            None => (KOLLA_NOVA, BackupUserOrigin::Default),
        },
        raw::Account::Name(name) => {
            let (uid, _) = by_name(name).ok_or_else(|| unknown(&canary.uid, UID, name, "user", "/etc/passwd"))?;
            (uid, BackupUserOrigin::Configured)
        }
    };
    let gid = match canary.gid.get_ref() {
        raw::Account::Id(gid) => valid_id(*gid, &canary.gid, GID)?,
        raw::Account::Name(name) if name == DEFAULT => {
            let named = match canary.uid.get_ref() {
                raw::Account::Name(name) => by_name(name),
                raw::Account::Id(_) => None,
            };
            // Several users may have the same id.
            named.or_else(|| accounts.user(|_, id| id == uid)).map_or(KOLLA_NOVA, |(_, gid)| gid)
        }
        raw::Account::Name(name) => {
            accounts.group_id(name).ok_or_else(|| unknown(&canary.gid, GID, name, "group", "/etc/group"))?
        }
    };
    Ok(BackupUser { uid, gid, origin })
}

/// Refuses the id that means "unchanged" in system calls such as setfsuid(2).
fn valid_id(id: u32, at: &Spanned<raw::Account>, key: &str) -> Validated<u32> {
    if id == u32::MAX {
        return Err(InvalidValue::new(at.span(), key, format!("{id} is not an id, expected 0 to {}", u32::MAX - 1)));
    }
    Ok(id)
}

fn unknown(at: &Spanned<raw::Account>, key: &str, name: &str, kind: &str, file: &str) -> InvalidValue {
    let problem = format!(
        "{name:?} is not a {kind} in {file} of this host, expected one of these or an id: give the id of a {kind} that LDAP or another directory defines"
    );
    InvalidValue::new(at.span(), key, problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canary(text: &str) -> raw::Canary {
        toml::from_str(text).expect(text)
    }

    fn accounts(nova: &str) -> Accounts {
        let passwd = format!("root:x:0:0:root:/root:/bin/sh\n# broken\nbackup:x:34:35::/:/bin/sh\n{nova}+::::::\n");
        Accounts { passwd, group: "root:x:0:\nkvm:x:36:qemu,nova\nbackups:x:77:\n".to_owned() }
    }

    #[test]
    fn backup_user_is_nova_of_this_host_unless_configured() {
        use BackupUserOrigin::{Configured, Default, HostUser};
        let nova = "nova:x:162:163:OpenStack Nova:/var/lib/nova:/sbin/nologin\n";
        for (nova, text, expected) in [
            ("", "", (42436, 42436, Default)),
            (nova, "", (162, 163, HostUser)),
            (nova, "uid = \"default\"\ngid = \"default\"", (162, 163, HostUser)),
            (nova, "gid = 36", (162, 36, HostUser)),
            (nova, "uid = 42436\ngid = 42436", (42436, 42436, Configured)),
            ("", "uid = 34", (34, 35, Configured)),
            ("", "uid = 1000", (1000, 42436, Configured)),
            ("", "uid = \"backup\"", (34, 35, Configured)),
            ("", "uid = \"backup\"\ngid = \"kvm\"", (34, 36, Configured)),
            (nova, "uid = \"nova\"\ngid = \"backups\"", (162, 77, Configured)),
            ("twin:x:34:99::/:/bin/sh\n", "uid = \"twin\"", (34, 99, Configured)),
        ] {
            let user = backup_user(&canary(text), &accounts(nova)).expect(text);
            assert_eq!((user.uid, user.gid, user.origin), expected, "{text}");
        }
    }

    #[test]
    fn unknown_names_and_impossible_ids_are_refused() {
        for (text, expected) in [
            ("uid = \"nobody-here\"", &["\"nobody-here\" is not a user in /etc/passwd", "an id", "LDAP"][..]),
            ("uid = \"34\"", &["\"34\" is not a user"]),
            ("uid = \"\"", &["\"\" is not a user"]),
            ("gid = \"backup\"", &["\"backup\" is not a group in /etc/group"]),
            ("uid = 4294967295", &["4294967295 is not an id, expected 0 to 4294967294"]),
        ] {
            let error = backup_user(&canary(text), &accounts("")).expect_err(text);
            let message = error.into_error(Path::new("c.toml"), text).to_string();
            assert!(expected.iter().all(|part| message.contains(part)), "{message}");
        }
        for text in ["uid = -1", "uid = 4294967296", "gid = 1.5"] {
            let error = toml::from_str::<raw::Canary>(text).expect_err(text).to_string();
            assert!(error.contains("an id from 0 to 4294967294"), "{error}");
        }
    }
}
