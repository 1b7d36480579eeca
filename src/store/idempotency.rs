//! Keys: which request holds a partner's `clientMsgId`.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

pub struct Held {
    pub message_id: Tsid,
    pub fingerprint: Vec<u8>,
    pub created_at: DateTime<Utc>,
}

/// For each key, in the order asked, who holds it.
pub async fn find(db: impl Db<'_>, keys: &[(i16, Tsid, String)]) -> Result<Vec<Option<Held>>> {
    let shards: Vec<i16> = keys.iter().map(|k| k.0).collect();
    let partners: Vec<i64> = keys.iter().map(|k| k.1.0).collect();
    let client_ids: Vec<String> = keys.iter().map(|k| k.2.clone()).collect();
    let rows = sqlx::query_file!("sql/idempotency/find.sql", &shards, &partners, &client_ids).fetch_all(db).await?;
    let mut found: Vec<Option<Held>> = keys.iter().map(|_| None).collect();
    for row in rows {
        let slot = usize::try_from(row.position - 1).ok().and_then(|n| found.get_mut(n));
        if let Some(slot) = slot {
            let message_id = Tsid(row.message_id);
            *slot = Some(Held { message_id, fingerprint: row.fingerprint, created_at: row.created_at });
        }
    }
    Ok(found)
}

/// Forgets keys of messages older than `oldest`, at most `rows`; says how many.
pub async fn forget(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/idempotency/forget.sql", oldest.0, rows).execute(db).await?.rows_affected())
}
