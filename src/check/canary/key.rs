//! The keys of canaries.
//!
//! Format: `<prefix><node and target>/<role>-<instance>/<kind>-<until>-<id>/workload_…/snapshot_…/…`. A key has several
//! hundred characters in many segments, like the keys of backup software, because some gateways and policies
//! accept short keys and fail on long ones. A key counts as a canary only if it equals, byte for byte,
//! the key that its parts produce. No other object below the prefix is ever touched.

use std::fmt;

use uuid::Uuid;

use super::clock::ServiceClock;
use crate::model::fnv::{FNV_OFFSET_BASIS, fnv1a};

/// Age at which a canary of a one-shot command is a leftover, in seconds. Several commands may run at
/// the same time without knowing each other.
pub const COMMAND_LEFTOVER_AGE_SECONDS: i64 = 600;

/// Time after the end of its retention at which a locked canary of a one-shot command is a leftover, in seconds. Until
/// then the command may still be about to remove it.
pub const COMMAND_LOCKED_LEFTOVER_SECONDS: i64 = 60;

/// Number of keys of commands in a bucket that cannot be listed. With the key of the agent, at most five canaries of a
/// host remain there.
pub const COMMAND_KEYS: u128 = 4;

/// Whether this process is the daemon or a one-shot command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessRole {
    /// The daemon. A node runs one.
    Daemon,
    /// A command that probes once, possibly while the agent runs.
    OneShot,
}

/// Purpose of a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CanaryKind {
    /// Proves that backups can be written.
    Write,
    /// Proves that a locked object cannot be deleted.
    Lock,
}

/// One canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanaryKey {
    /// Role of the process that wrote it.
    pub role: ProcessRole,
    /// Instance of that process.
    pub instance: Uuid,
    /// Purpose of the canary.
    pub kind: CanaryKind,
    /// Requested end of the retention, in seconds since 1970. 0 without a retention.
    pub until: i64,
    /// Id of the canary.
    pub id: Uuid,
}

/// Creates and parses the keys of canaries of one process on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CanaryNames {
    folder: String,
    role: ProcessRole,
    instance: Uuid,
}

impl CanaryNames {
    /// Names below a prefix, which ends with `/`. `node` distinguishes this host from all others, and `export`
    /// distinguishes this target from other targets of the same bucket, so that none removes the canaries of another.
    #[must_use]
    pub fn new(prefix: &str, node: &str, export: &str, role: ProcessRole, instance: Uuid) -> Self {
        let parts = [node, "\n", export];
        let hash = parts.iter().fold(FNV_OFFSET_BASIS, |hash, part| fnv1a(hash, part.as_bytes()));
        Self { folder: format!("{prefix}{hash:016x}/"), role, instance }
    }

    /// Role of this process.
    #[must_use]
    pub fn role(&self) -> ProcessRole {
        self.role
    }

    /// Common prefix of the keys of all canaries of this target on this node.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// A new canary.
    #[must_use]
    pub fn new_key(&self, kind: CanaryKind, until: i64) -> CanaryKey {
        CanaryKey { role: self.role, instance: self.instance, kind, until, id: Uuid::new_v4() }
    }

    /// Returns the key of a write canary if the service refuses to list the bucket. It is always the same, whatever the
    /// retention, so that a later canary replaces an object that a PUT stored late. Commands may run at the same time,
    /// so they have [`COMMAND_KEYS`] keys. Each begins with another one, and `attempt` counts those that it used.
    #[must_use]
    pub fn unlisted_key(&self, attempt: u128) -> CanaryKey {
        let number = match self.role {
            ProcessRole::Daemon => 0,
            ProcessRole::OneShot => self.instance.as_u128().wrapping_add(attempt) % COMMAND_KEYS,
        };
        let key = self.new_key(CanaryKind::Write, 0);
        CanaryKey { instance: Uuid::nil(), id: Uuid::from_u128(number), ..key }
    }

    /// Returns the key of a canary.
    #[must_use]
    pub fn text(&self, key: &CanaryKey) -> String {
        let CanaryKey { role, instance, kind, until, id } = key;
        format!(
            "{}{role}-{}/{kind}-{until}-{}/workload_{id}/snapshot_{instance}/vm_id_{id}/vm_res_id_{id}_vda/{id}.00000000",
            self.folder,
            instance.simple(),
            id.simple()
        )
    }

    /// Parses a key. `None` if it is not the key of a canary of this node.
    #[must_use]
    pub fn parse(&self, text: &str) -> Option<CanaryKey> {
        let (run, rest) = text.strip_prefix(&self.folder)?.split_once('/')?;
        let (role, instance) = run.split_once('-')?;
        let (canary, _) = rest.split_once('/')?;
        let mut parts = canary.splitn(3, '-');
        let role = [ProcessRole::Daemon, ProcessRole::OneShot].into_iter().find(|known| known.to_string() == role)?;
        let kind = parts.next()?;
        let kind = CanaryKind::ALL.iter().copied().find(|known| known.to_string() == kind)?;
        let until = parts.next()?.parse().ok()?;
        let id = Uuid::try_parse(parts.next()?).ok()?;
        let key = CanaryKey { role, instance: Uuid::try_parse(instance).ok()?, kind, until, id };
        (self.text(&key) == text).then_some(key)
    }

    /// Whether a canary belongs to this process. The daemon also owns the canaries of its earlier runs.
    #[must_use]
    pub fn is_own(&self, key: &CanaryKey) -> bool {
        key.instance == self.instance || (key.role, self.role) == (ProcessRole::Daemon, ProcessRole::Daemon)
    }

    /// Whether no process uses a canary any more. `in_use` is the canary of this instance that stays.
    #[must_use]
    pub fn is_leftover(
        &self,
        key: &CanaryKey,
        modified: Option<i64>,
        clock: ServiceClock,
        in_use: Option<Uuid>,
    ) -> bool {
        if key.instance == self.instance {
            return in_use != Some(key.id);
        }
        match (key.role, self.role) {
            // A node has one daemon, so the other instance is an earlier run that has ended.
            (ProcessRole::Daemon, ProcessRole::Daemon) => true,
            (ProcessRole::Daemon, ProcessRole::OneShot) => false,
            (ProcessRole::OneShot, _) if key.until > 0 => {
                clock.is_past(key.until.saturating_add(COMMAND_LOCKED_LEFTOVER_SECONDS))
            }
            (ProcessRole::OneShot, _) => {
                modified.is_some_and(|modified| clock.now() >= modified.saturating_add(COMMAND_LEFTOVER_AGE_SECONDS))
            }
        }
    }
}

impl CanaryKind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[Self::Write, Self::Lock];
}

impl fmt::Display for ProcessRole {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Daemon => "agent",
            Self::OneShot => "check",
        })
    }
}

impl fmt::Display for CanaryKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Write => "write",
            Self::Lock => "lock",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::canary::CLOCK_UNCERTAINTY_SECONDS;

    fn names(role: ProcessRole) -> CanaryNames {
        CanaryNames::new("targetwatch-canary/", "node-7", "s3/backups", role, Uuid::new_v4())
    }

    #[test]
    fn canary_key_is_as_long_as_those_of_backups_and_is_parsed_back() {
        let names = names(ProcessRole::Daemon);
        for kind in CanaryKind::ALL {
            for until in [0, 1_700_000_000] {
                let key = names.new_key(*kind, until);
                let text = names.text(&key);
                assert!((300..=1024 - 200).contains(&text.len()), "{} bytes: {text}", text.len());
                assert_eq!(names.parse(&text), Some(key));
            }
        }
    }

    #[test]
    fn key_is_not_a_canary_unless_it_is_exactly_one_of_this_node() {
        let names = names(ProcessRole::Daemon);
        let text = names.text(&names.new_key(CanaryKind::Write, 0));
        let of =
            |node, export| CanaryNames::new("targetwatch-canary/", node, export, ProcessRole::Daemon, Uuid::new_v4());
        let (other_node, other_target) = (of("node-8", "s3/backups"), of("node-7", "S3/backups"));
        for (wrong, why) in [
            (other_node.text(&other_node.new_key(CanaryKind::Write, 0)), "of another node"),
            (other_target.text(&other_target.new_key(CanaryKind::Write, 0)), "of the same bucket by another name"),
            (format!("{text}x"), "with more after it"),
            (format!("x{text}"), "with more before it"),
            (text.replace("write-0-", "write-00-"), "with a number that is written differently"),
            (text.replace("write-", "read-"), "of no kind"),
            (text.replace("agent-", "human-"), "unknown role"),
            (text.to_uppercase(), "in capitals"),
            (text.replace("vda", "vdb"), "with another tail"),
            (names.folder().to_owned(), "a folder"),
            ("backups/2026/important".to_owned(), "a backup"),
        ] {
            assert_eq!(names.parse(&wrong), None, "{why}: {wrong}");
        }
    }

    #[test]
    fn canary_is_a_leftover_when_no_process_uses_it() {
        let clock = ServiceClock::default();
        let (fresh, old) = (Some(clock.now()), Some(clock.now() - COMMAND_LEFTOVER_AGE_SECONDS));
        let (agent, command) = (names(ProcessRole::Daemon), names(ProcessRole::OneShot));
        let mine = agent.new_key(CanaryKind::Write, 0);
        let before = names(ProcessRole::Daemon).new_key(CanaryKind::Write, 0);
        let beside = names(ProcessRole::OneShot).new_key(CanaryKind::Write, 0);
        let locked = |ago: i64| names(ProcessRole::OneShot).new_key(CanaryKind::Lock, clock.now() - ago);
        let (just, long) = (locked(CLOCK_UNCERTAINTY_SECONDS + 1), locked(COMMAND_LOCKED_LEFTOVER_SECONDS + 3));
        for (names, key, modified, in_use, expected, why) in [
            (&agent, &mine, fresh, Some(mine.id), false, "one in use"),
            (&agent, &mine, fresh, None, true, "one whose PUT was given up"),
            (&agent, &before, fresh, None, true, "one of an agent that ended"),
            (&agent, &beside, fresh, None, false, "one of a command that may still run"),
            (&agent, &beside, old, None, true, "one of a command that ended"),
            (&agent, &beside, None, None, false, "one of unknown age"),
            (&agent, &just, fresh, None, false, "a locked one of a command that may be about to remove it"),
            (&agent, &long, fresh, None, true, "a locked one of a command that did not remove it"),
            (&command, &mine, old, None, false, "one of the agent, seen by a command"),
            (&command, &beside, fresh, None, false, "one of a command beside this"),
            (&command, &beside, old, None, true, "one of a command before this"),
        ] {
            assert_eq!(names.is_leftover(key, modified, clock, in_use), expected, "{why}");
        }
    }
}
