//! What a process that starts makes of what the last one left.

use outrigger::clock;

use super::tools::total;
use crate::support::{gateway, http, settings};

/// The age of what was kept is a matter of the wall clock, the only one that two processes share. One that jumped makes
/// it unknown, and then it is forgotten: a budget that is full again harms nobody.
#[tokio::test]
async fn what_was_kept_is_forgotten_when_the_wall_clock_jumped() {
    let now = clock::wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
    for (saved_at, kept) in [(now, true), (now - 3600, false), (now + 3600, false)] {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("{{\"version\":1,\"saved_at\":{saved_at},\"budgets\":{{\"default\":[[6,4]]}}}}");
        std::fs::write(dir.path().join("state.json"), text).unwrap();
        let mut settings = settings(&["http://127.0.0.1:9/v1".to_owned()]);
        settings.state_dir = Some(dir.path().to_owned());
        let gateway = gateway(settings).await;
        let left = total(&http(), &gateway, "outrigger_retry_budget_remaining_ratio", &[]).await;
        assert_eq!(left < 1.0, kept, "saved {} s ago: {left} is left", now as i64 - saved_at as i64);
    }
}
