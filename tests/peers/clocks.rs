//! A gateway whose clock is wrong: by how much and in which direction is output, also while it still accepts
//! requests, and nothing is signed by its clock to get around it.

use crate::daemon::Daemon;
use crate::gateway::{Gateway, target};
use crate::report::{assert_offline, assert_warning};

/// How many seconds a clock that was just started may have been away from what it was started with.
const STARTED_WITHIN: i64 = 20;

/// The seconds that a sentence tells before these words.
fn seconds(sentence: &str, words: &str) -> i64 {
    let (before, _) = sentence.split_once(words).unwrap_or_else(|| panic!("{words:?} is missing in: {sentence}"));
    before.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{sentence}"))
}

#[tokio::test]
async fn clock_skew_is_a_warning_and_offline_when_large() {
    let gateway = Gateway::shared().await;
    let workspace = gateway.workspace();
    let agent = Daemon::start(&workspace).await;
    let bucket = gateway.bucket().await;
    for (ahead, words) in [
        (1_000_i64, " s ahead of this host's"),
        (-1_000, " s behind this host's"),
        (90, " s ahead of this host's"),
        (-90, " s behind this host's"),
    ] {
        let endpoint = gateway.with_clock(ahead);
        let id = agent.create(target(&endpoint, &bucket)).await;
        // Twice: the second is asked by who has seen the service's clock before.
        for _ in 0..2 {
            let report = agent.check(&id).await;
            let message = if ahead.abs() > 900 {
                let message = assert_offline(&report, "clock_skewed");
                assert!(message.contains("403 RequestTimeTooSkewed"), "{message}");
                message
            } else {
                assert_warning(&report, "clock_skewed");
                report["message"].as_str().expect("a sentence").to_owned()
            };
            assert!((seconds(&message, words) - ahead.abs()).abs() <= STARTED_WITHIN, "{ahead}: {message}");
            assert!(message.contains(&bucket) && message.contains("timedatectl"), "{message}");
        }
        let output = workspace.check_s3(&endpoint, &bucket, &[]).await;
        assert_eq!(output.code, if ahead.abs() > 900 { 2 } else { 1 }, "{output:?}");
        assert!(output.stdout.contains("clock_skewed"), "{output:?}");
    }
}
