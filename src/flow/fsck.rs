//! fsck: checks every invariant, slice by slice.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::limits;
use crate::store::Store;
use crate::store::fsck::{Finding, INVARIANTS, IdRange, Scope, check, id_ranges};

/// How far the check is.
#[derive(Debug, Clone, Copy)]
pub enum Progress {
    /// An invariant is being checked: slice `slice` of `of`, from 1 on.
    Checking { invariant: &'static str, slice: usize, of: usize },
    /// An invariant was checked in full; `rows` break it.
    Checked { invariant: &'static str, law: &'static str, rows: u64 },
}

/// Checks all invariants on a connection of its own. Of each it returns up to `limits::FSCK_FINDINGS` findings per slice;
/// `progress` gets the count of all.
///
/// # Errors
///
/// `Unavailable` if the database cannot be reached.
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
