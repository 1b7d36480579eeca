//! fsck: runs every invariant.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::store::Store;
use crate::store::fsck::{Finding, INVARIANTS, check};

/// `progress` hears of each invariant and how many rows break it.
pub async fn fsck(
    store: &Store,
    now: DateTime<Utc>,
    mut progress: impl FnMut(&'static str, &'static str, usize),
) -> Result<Vec<Finding>> {
    let mut conn = store.auditing().await?;
    let mut all = Vec::new();
    for (name, law) in INVARIANTS {
        let found = check(&mut conn, name, now).await?;
        progress(name, law, found.len());
        all.extend(found);
    }
    Ok(all)
}
