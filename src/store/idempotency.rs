//! Keys: which request holds a partner's `clientMsgId`.

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::idempotency::KeyHolder;

/// A key as one request gives it.
pub struct IdempotencyKey {
    pub shard: i16,
    pub partner_id: Tsid,
    pub client_msg_id: String,
    /// Stands for the key where that was erased, because it was a message's to a person who was.
    pub hash: [u8; 32],
}

/// The message that holds each key, in the order asked.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn find(db: impl Db<'_>, keys: &[IdempotencyKey]) -> Result<Vec<Option<KeyHolder>>> {
    let shards: Vec<i16> = keys.iter().map(|k| k.shard).collect();
    let partners: Vec<i64> = keys.iter().map(|k| k.partner_id.0).collect();
    let client_ids: Vec<String> = keys.iter().map(|k| k.client_msg_id.clone()).collect();
    let hashes: Vec<Vec<u8>> = keys.iter().map(|k| k.hash.to_vec()).collect();
    let rows = sqlx::query_file!("sql/idempotency/find.sql", &shards, &partners, &client_ids, &hashes);
    let rows = rows.fetch_all(db).await?;
    let mut found: Vec<Option<KeyHolder>> = keys.iter().map(|_| None).collect();
    for row in rows {
        let slot = usize::try_from(row.position - 1).ok().and_then(|n| found.get_mut(n));
        if let Some(slot) = slot {
            let message_id = Tsid(row.message_id);
            *slot = Some(KeyHolder { message_id, fingerprint: row.fingerprint, created_at: row.created_at });
        }
    }
    Ok(found)
}

/// Forgets keys of messages older than `oldest`, at most `rows`; says how many.
pub async fn forget(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/idempotency/forget.sql", oldest.0, rows).execute(db).await?.rows_affected())
}

/// A message's key goes; `hash` stays for as long as the message.
pub async fn erase(db: impl Db<'_>, shard: i16, message_id: Tsid, hash: [u8; 32]) -> Result<()> {
    sqlx::query_file!("sql/idempotency/erase.sql", shard, message_id.0, &hash[..]).execute(db).await?;
    Ok(())
}

/// Forgets hashes of erased keys of messages older than `oldest`, at most `rows`; says how many.
pub async fn forget_erased(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/idempotency/forget_erased.sql", oldest.0, rows).execute(db).await?.rows_affected())
}
