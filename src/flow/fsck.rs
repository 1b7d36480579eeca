//! fsck: checks every invariant of the database, slice by slice.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::limits;
use crate::store::Store;
use crate::store::fsck::{Finding, INVARIANTS, IdRange, Scope, check, id_ranges};

/// Progress of the check.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// A slice of an invariant is about to be checked: number `slice` (from 1) of `of`.
    Checking { invariant: &'static str, slice: usize, of: usize },
    /// An invariant was checked completely; `rows` rows break it.
    Checked { invariant: &'static str, law: &'static str, rows: u64 },
}

/// Checks all invariants as of `now`, on a connection of its own. Returns up to `limits::FSCK_FINDINGS` findings per
/// invariant and slice; `progress` gets the number of all.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn fsck(store: &Store, now: DateTime<Utc>, mut progress: impl FnMut(Progress)) -> Result<Vec<Finding>> {
    let mut conn = store.connect_for_fsck().await?;
    let slices = id_ranges(&mut conn, limits::FSCK_SLICE_BYTES).await?;
    let mut findings = Vec::new();
    for (invariant, law, reach) in INVARIANTS {
        let slices = if reach == Scope::Slice { slices.as_slice() } else { &[IdRange::ALL] };
        let mut rows = 0;
        for (n, slice) in slices.iter().enumerate() {
            progress(Progress::Checking { invariant, slice: n + 1, of: slices.len() });
            let found = check(&mut conn, invariant, *slice, now).await?;
            rows += found.rows;
            findings.extend(found.findings);
        }
        progress(Progress::Checked { invariant, law, rows });
    }
    Ok(findings)
}
