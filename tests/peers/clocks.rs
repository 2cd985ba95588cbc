//! A gateway with a wrong clock. The agent reports the size and direction of the skew, even while the gateway still
//! accepts requests. It does not sign requests with the gateway's time.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::{assert_offline, assert_warning};

/// Maximum difference between the reported and the configured skew, in seconds.
const TOLERANCE_SECONDS: i64 = 20;

/// The number of seconds before these words in a message.
fn seconds(message: &str, words: &str) -> i64 {
    let (before, _) = message.split_once(words).unwrap_or_else(|| panic!("{words:?} is missing in: {message}"));
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{message}"))
}

#[tokio::test]
async fn clock_skew_is_a_warning_and_offline_when_large() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let daemon = Daemon::start(&workspace).await;
    let bucket = gateway.bucket().await;
    for (ahead, words) in [
        (1_000_i64, " s ahead of this host's"),
        (-1_000, " s behind this host's"),
        (90, " s ahead of this host's"),
        (-90, " s behind this host's"),
    ] {
        let endpoint = gateway.with_clock(ahead);
        let id = daemon.create(target(&endpoint, &bucket)).await;
        // The agent knows the service's clock before the second probe.
        for _ in 0..2 {
            let report = daemon.check(&id).await;
            let message = if ahead.abs() > 900 {
                let message = assert_offline(&report, "clock_skewed");
                assert!(message.contains("403 RequestTimeTooSkewed"), "{message}");
                message
            } else {
                assert_warning(&report, "clock_skewed");
                report["message"].as_str().expect("a message").to_owned()
            };
            assert!((seconds(&message, words) - ahead.abs()).abs() <= TOLERANCE_SECONDS, "{ahead}: {message}");
            assert!(message.contains(&bucket) && message.contains("timedatectl"), "{message}");
        }
        let output = workspace.check_s3(&endpoint, &bucket, &[]).await;
        assert_eq!(output.code, if ahead.abs() > 900 { 2 } else { 1 }, "{output:?}");
        assert!(output.stdout.contains("clock_skewed"), "{output:?}");
    }
}
