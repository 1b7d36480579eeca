//! Idempotency keys: which message holds a partner's `clientMsgId`.

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::idempotency::KeyHolder;

/// A key as a request gives it.
pub struct IdempotencyKey {
    pub shard: i16,
    pub partner_id: Tsid,
    pub client_msg_id: String,
    /// Stands for the key after it was erased together with a person's data.
    pub hash: [u8; 32],
}

/// The message that holds each key, in the order asked; None for a free key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn find_holders(db: impl Db<'_>, keys: &[IdempotencyKey]) -> Result<Vec<Option<KeyHolder>>> {
    let shards: Vec<i16> = keys.iter().map(|k| k.shard).collect();
    let partners: Vec<i64> = keys.iter().map(|k| k.partner_id.0).collect();
    let client_ids: Vec<String> = keys.iter().map(|k| k.client_msg_id.clone()).collect();
    let hashes: Vec<Vec<u8>> = keys.iter().map(|k| k.hash.to_vec()).collect();
    let rows = sqlx::query_file!("sql/idempotency/find_holders.sql", &shards, &partners, &client_ids, &hashes);
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

/// Deletes up to `rows` keys of messages older than `oldest`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/idempotency/delete_old.sql", oldest.0, rows).execute(db).await?.rows_affected())
}

/// Deletes a message's key; `hash` still stands for it as long as the message exists. Does nothing if the message has
/// no key.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn erase_key(db: impl Db<'_>, shard: i16, message_id: Tsid, hash: [u8; 32]) -> Result<()> {
    sqlx::query_file!("sql/idempotency/erase_key.sql", shard, message_id.0, &hash[..]).execute(db).await?;
    Ok(())
}

/// Deletes up to `rows` hashes of erased keys of messages older than `oldest`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old_erased(db: impl Db<'_>, oldest: Tsid, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/idempotency/delete_old_erased.sql", oldest.0, rows).execute(db).await?.rows_affected())
}
