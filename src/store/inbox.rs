//! Inboxes of users: items, their changes, and counts. Every change locks the head of the user's stream first, so that
//! numbers follow each other without a gap in the order of the commits.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::keys::KeyColumns;
use super::{Conn, Db};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::DeliveryKey;
use crate::model::inbox::{InboxCounts, InboxFilter, ItemChange};
use crate::model::stream::StoredEvent;

/// An item to put into an inbox.
#[derive(Debug, Clone, Copy)]
pub struct NewItem {
    pub key: DeliveryKey,
    pub user_id: Tsid,
    /// Index of its content in the message.
    pub content: i16,
    pub expires_at: Option<DateTime<Utc>>,
}

/// An item's row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRow {
    pub message_id: Tsid,
    pub no: i16,
    pub content: i16,
    pub seq: i64,
    pub arrived_at: DateTime<Utc>,
    pub read_at: Option<DateTime<Utc>>,
    pub archived_at: Option<DateTime<Utc>>,
    pub snoozed_until: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    pub is_seen: bool,
}

/// The row of an item from a record of `list.sql` or `get.sql`, whose types differ only in name.
macro_rules! item_row {
    ($record:expr) => {
        ItemRow {
            message_id: Tsid($record.message_id),
            no: $record.no,
            content: $record.content,
            seq: $record.seq,
            arrived_at: $record.arrived_at,
            read_at: $record.read_at,
            archived_at: $record.archived_at,
            snoozed_until: $record.snoozed_until,
            expires_at: $record.expires_at,
            is_seen: $record.is_seen,
        }
    };
}

/// A number that a user's stream has reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserSeq {
    pub shard: i16,
    pub user_id: Tsid,
    pub seq: i64,
}

/// Users as statements take them: one array per column.
pub(super) fn user_columns(users: impl ExactSizeIterator<Item = (i16, Tsid)>) -> (Vec<i16>, Vec<i64>) {
    users.map(|(shard, user_id)| (shard, user_id.0)).unzip()
}

/// Puts items into inboxes, in one statement; `items` holds each once. Returns the new ones with their numbers: an item
/// that is there already is left as it is. None if another transaction put one of them at the same moment: nothing was
/// written, and the next call finds it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a head for longer than the lock
/// time-out. All were put, or none; outside a transaction they may have been.
pub async fn put(db: impl Db<'_>, items: &[NewItem], now: DateTime<Utc>) -> Result<Option<Vec<UserSeq>>> {
    let Some(keys) = KeyColumns::of(items.iter().map(|item| item.key)) else { return Ok(Some(Vec::new())) };
    let put = sqlx::query_file!(
        "sql/inbox/put.sql",
        &keys.shards,
        &items.iter().map(|item| item.user_id.0).collect::<Vec<_>>(),
        &keys.message_ids,
        &keys.nos,
        &items.iter().map(|item| item.content).collect::<Vec<_>>(),
        &items.iter().map(|item| item.expires_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        now,
        keys.low,
        keys.high,
    )
    .fetch_all(db)
    .await;
    match put {
        Ok(rows) => Ok(Some(rows.into_iter().map(|r| user_seq(r.shard, r.user_id, r.seq)).collect())),
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(None),
        Err(e) => Err(e.into()),
    }
}

fn user_seq(shard: i16, user_id: i64, seq: i64) -> UserSeq {
    UserSeq { shard, user_id: Tsid(user_id), seq }
}

/// Changes one item of a user. Returns the number of the change; None if it changed nothing, or there is no such item.
///
/// # Errors
/// As `put`.
pub async fn change(
    db: impl Db<'_>,
    user: (i16, Tsid),
    item: (Tsid, i16),
    change: ItemChange,
    now: DateTime<Utc>,
    event_id: Tsid,
) -> Result<Option<i64>> {
    let number = sqlx::query_file_scalar!(
        "sql/inbox/change.sql",
        user.0,
        user.1.0,
        item.0.0,
        item.1,
        change.as_str(),
        change.until(),
        now,
        event_id.0,
        StoredEvent::ItemChanged.as_str(),
    );
    Ok(number.fetch_optional(db).await?)
}

/// Marks all unread items of a user as read that its list shows; of one type, if `kind` names it. Returns the number of
/// the change; None if none was unread.
///
/// # Errors
/// As `put`.
pub async fn read_all(
    db: impl Db<'_>,
    user: (i16, Tsid),
    kind: Option<&str>,
    now: DateTime<Utc>,
    event_id: Tsid,
) -> Result<Option<i64>> {
    let detail = kind.map(|kind| serde_json::json!({ "type": kind }));
    let number = sqlx::query_file_scalar!(
        "sql/inbox/read_all.sql",
        user.0,
        user.1.0,
        kind,
        now,
        event_id.0,
        StoredEvent::AllRead.as_str(),
        detail as Option<Value>,
    );
    Ok(number.fetch_optional(db).await?)
}

/// Records that a user has seen its inbox up to this arrival; up to the last one if None. Returns the number of the
/// change; None if nothing was unseen.
///
/// # Errors
/// As `put`.
pub async fn see(db: impl Db<'_>, user: (i16, Tsid), up_to: Option<i64>, event_id: Tsid) -> Result<Option<i64>> {
    let number =
        sqlx::query_file_scalar!("sql/inbox/see.sql", user.0, user.1.0, up_to, event_id.0, StoredEvent::Seen.as_str(),);
    Ok(number.fetch_optional(db).await?)
}

/// Counts of these users' inboxes, in no particular order. A user without an inbox has zeros.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn counts(
    db: impl Db<'_>,
    users: &[(i16, Tsid)],
    now: DateTime<Utc>,
    most: i64,
) -> Result<Vec<((i16, Tsid), InboxCounts)>> {
    let (shards, ids) = user_columns(users.iter().copied());
    let rows = sqlx::query_file!("sql/inbox/counts.sql", &shards, &ids, now, most).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|r| ((r.shard, Tsid(r.user_id)), InboxCounts { unseen: r.unseen, unread: r.unread, seq: r.seq }))
        .collect())
}

/// A page of a user's inbox.
#[derive(Debug, Clone, Default)]
pub struct ItemQuery {
    pub filter: InboxFilter,
    /// The message's type; None: all.
    pub kind: Option<String>,
    /// Items that arrived before this number; None: from the newest on.
    pub below: Option<i64>,
    pub limit: i64,
}

/// Items of a user, the newest arrivals first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list(db: impl Db<'_>, user: (i16, Tsid), query: &ItemQuery, now: DateTime<Utc>) -> Result<Vec<ItemRow>> {
    let rows = sqlx::query_file!(
        "sql/inbox/list.sql",
        user.0,
        user.1.0,
        query.filter.as_str(),
        query.kind.as_deref(),
        query.below.unwrap_or(i64::MAX),
        now,
        query.limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| item_row!(r)).collect())
}

/// One item of a user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn get(db: impl Db<'_>, user: (i16, Tsid), item: (Tsid, i16)) -> Result<Option<ItemRow>> {
    let row = sqlx::query_file!("sql/inbox/get.sql", user.0, user.1.0, item.0.0, item.1).fetch_optional(db).await?;
    Ok(row.map(|r| item_row!(r)))
}

/// A snoozed item whose time has come.
#[derive(Debug, Clone, Copy)]
pub struct DueItem {
    pub key: DeliveryKey,
    pub user_id: Tsid,
}

/// Snoozed items of these shards whose time has come, at most `most` of a shard, in the order of their users.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn snoozed_due(db: impl Db<'_>, shards: &[i16], now: DateTime<Utc>, most: i64) -> Result<Vec<DueItem>> {
    let rows = sqlx::query_file!("sql/inbox/snoozed_due.sql", shards, now, most).fetch_all(db).await?;
    let items = rows.into_iter().map(|r| DueItem {
        key: DeliveryKey { shard: r.shard, message_id: Tsid(r.message_id), no: r.no },
        user_id: Tsid(r.user_id),
    });
    Ok(items.collect())
}

/// Locks the heads of these users' streams until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a head for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_heads(tx: &mut Conn, users: &[(i16, Tsid)]) -> Result<()> {
    let (shards, ids) = user_columns(users.iter().copied());
    sqlx::query_file!("sql/inbox/lock_heads.sql", &shards, &ids).fetch_all(tx).await?;
    Ok(())
}

/// Lets those of these items arrive again that are still snoozed and due. The caller holds the locks of their heads.
/// Returns the new numbers.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the transaction is lost then.
pub async fn arrive_again(
    tx: &mut Conn,
    items: &[DueItem],
    now: DateTime<Utc>,
    event_id: Tsid,
) -> Result<Vec<UserSeq>> {
    let Some(keys) = KeyColumns::of(items.iter().map(|item| item.key)) else { return Ok(Vec::new()) };
    let rows = sqlx::query_file!(
        "sql/inbox/arrive_again.sql",
        &keys.shards,
        &keys.message_ids,
        &keys.nos,
        now,
        event_id.0,
        StoredEvent::ItemMoved.as_str(),
    )
    .fetch_all(tx)
    .await?;
    Ok(rows.into_iter().map(|r| user_seq(r.shard, r.user_id, r.seq)).collect())
}
