//! State of the configuration, for the metrics.

use jiff::Timestamp;

/// The configuration in force, for the metrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigState {
    /// Fingerprint of the settings.
    pub fingerprint: String,
    /// Whether the latest attempt to load the configuration succeeded.
    pub is_last_reload_successful: bool,
    /// When the configuration was last loaded.
    pub loaded_at: Timestamp,
}
