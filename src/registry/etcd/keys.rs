//! Names of the keys.

use uuid::Uuid;

use crate::model::digest::sha256_hex;
use crate::model::{Target, TargetId};

/// The key of the generation, below the root.
pub(super) const GENERATION: &str = "registry/generation";

/// Number of bytes of the digest that names the key of an export.
const EXPORT_BYTES: usize = 16;

/// The keys of one registry.
pub(super) struct RegistryKeys {
    root: String,
}

impl RegistryKeys {
    /// The keys below a prefix, such as `/targetwatch/cloud1`.
    pub(super) fn new(prefix: &str) -> Self {
        Self { root: format!("/{}/v1", prefix.trim_matches('/')) }
    }

    /// Everything before `meta` and `registry`, without a final slash.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// A key, or a folder of keys, by its name below the root.
    pub(super) fn named(&self, name: &str) -> String {
        format!("{}/{name}", self.root)
    }

    pub(super) fn generation(&self) -> String {
        self.named(GENERATION)
    }

    pub(super) fn target(&self, id: TargetId) -> String {
        self.named(&format!("registry/targets/{id}"))
    }

    pub(super) fn target_type(&self, target_id: TargetId, id: Uuid) -> String {
        self.named(&format!("registry/types/{target_id}/{id}"))
    }

    /// The key of a target's export, which no other target has.
    pub(super) fn export(&self, target: &Target) -> String {
        let hash = sha256_hex(target.spec.export(), EXPORT_BYTES);
        self.named(&format!("registry/exports/{hash}"))
    }
}
