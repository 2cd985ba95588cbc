//! Records of canaries, which the registry keeps.

use async_trait::async_trait;

use crate::driver::CanaryStore;
use crate::model::{CanaryRecord, TargetId};
use crate::registry::Registry;

#[async_trait]
impl CanaryStore for Registry {
    async fn load(&self, target: TargetId) -> Result<Option<CanaryRecord>, String> {
        self.canary_record(target).await.map_err(|error| error.to_string())
    }

    async fn save(&self, target: TargetId, record: CanaryRecord) -> Result<(), String> {
        self.put_canary_record(target, record).await.map_err(|error| error.to_string())
    }
}
