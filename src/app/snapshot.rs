//! What survives a restart: the retry budgets, so that a crash loop does not get a fresh allowance every time.
//!
//! One small file, replaced atomically. Writing never fails a call: a full disk is a warning.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::config::Settings;
use crate::policy::budget::WINDOW;
use crate::stack::Stacks;

const FILE: &str = "state.json";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Snapshot {
    version: u32,
    /// Unix time in seconds.
    saved_at: u64,
    /// Route name to the counts of its targets: first sends and repeats of the last window.
    budgets: BTreeMap<String, Vec<(u32, u32)>>,
}

/// Takes over what a former process left, where it is still of any meaning.
pub fn restore(dir: &Path, settings: &Settings, stacks: &Stacks) {
    let path = dir.join(FILE);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "cannot read the state of the last run; starting fresh");
            return;
        }
    };
    let snapshot: Snapshot = match serde_json::from_slice(&text) {
        Ok(snapshot) => snapshot,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the state of the last run is broken; starting fresh");
            return;
        }
    };
    if snapshot.version != VERSION || age(snapshot.saved_at) >= WINDOW {
        return;
    }
    let now = clock::now();
    for (route, budgets) in settings.routes.iter().zip(&stacks.budgets) {
        let saved = snapshot.budgets.get(&route.name).map_or(&[][..], Vec::as_slice);
        for (budget, (firsts, repeats)) in budgets.iter().zip(saved) {
            budget.restore(now, *firsts, *repeats);
        }
    }
}

/// Writes the state down.
pub async fn write(dir: &Path, settings: &Settings, stacks: &Stacks) {
    let now = clock::now();
    let budgets = settings
        .routes
        .iter()
        .zip(&stacks.budgets)
        .map(|(route, budgets)| (route.name.clone(), budgets.iter().map(|budget| budget.counts(now)).collect()));
    let saved_at = clock::wall().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let snapshot = Snapshot { version: VERSION, saved_at, budgets: budgets.collect() };
    if let Err(error) = replace(dir, &snapshot).await {
        tracing::warn!(dir = %dir.display(), %error, "cannot write the state down; it will not survive a restart");
    }
}

async fn replace(dir: &Path, snapshot: &Snapshot) -> std::io::Result<()> {
    let text = serde_json::to_vec(snapshot)?;
    tokio::fs::create_dir_all(dir).await?;
    let (path, new) = (dir.join(FILE), dir.join(format!("{FILE}.new")));
    let mut file = tokio::fs::File::create(&new).await?;
    tokio::io::AsyncWriteExt::write_all(&mut file, &text).await?;
    file.sync_all().await?;
    tokio::fs::rename(new, path).await
}

/// How long ago, by the wall clock; a time in the future is as good as too old.
fn age(saved_at: u64) -> Duration {
    let saved = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(saved_at));
    saved.and_then(|saved| clock::wall().duration_since(saved).ok()).unwrap_or(Duration::MAX)
}
