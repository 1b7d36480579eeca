//! Receipts as providers told them, and what came of them.

use chrono::{DateTime, Utc};

use super::keys::key;
use super::{Conn, Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::receipt::{AttemptReference, Receipt, ReceiptOutcome};

/// A piece of news to keep.
#[derive(Debug, Clone)]
pub struct NewReceipt {
    pub event_key: String,
    /// None: it could not be read; `detail` says why.
    pub outcome: Option<ReceiptOutcome>,
    pub reference: Option<AttemptReference>,
    pub provider_ref: Option<String>,
    pub class: Option<&'static str>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
}

impl NewReceipt {
    pub fn unreadable(event_key: String, why: Option<String>) -> NewReceipt {
        let (outcome, reference, provider_ref, class, code, occurred_at) = (None, None, None, None, None, None);
        NewReceipt { event_key, outcome, reference, provider_ref, class, code, detail: why, occurred_at }
    }

    pub fn of(receipt: &Receipt) -> NewReceipt {
        NewReceipt {
            event_key: receipt.event_key.clone(),
            outcome: Some(receipt.outcome),
            reference: receipt.reference,
            provider_ref: receipt.provider_ref.clone(),
            class: receipt.class.map(|class| class.as_str()),
            code: receipt.code.clone(),
            detail: receipt.detail.clone(),
            occurred_at: receipt.occurred_at,
        }
    }
}

/// Keeps those that are new; says how many. Sorted by event key.
pub async fn insert(db: impl Db<'_>, provider: &str, told: &[NewReceipt], now: DateTime<Utc>) -> Result<u64> {
    let key = |part: fn(AttemptReference) -> i16| told.iter().map(|t| t.reference.map(part)).collect::<Vec<_>>();
    let text =
        |part: fn(&NewReceipt) -> Option<&str>| told.iter().map(|t| part(t).map(str::to_owned)).collect::<Vec<_>>();
    let query = sqlx::query_file!(
        "sql/receipt/insert.sql",
        provider,
        now,
        &told.iter().map(|t| t.event_key.clone()).collect::<Vec<_>>(),
        &key(|r| r.key.shard) as &[Option<i16>],
        &told.iter().map(|t| t.reference.map(|r| r.key.message_id.0)).collect::<Vec<_>>() as &[Option<i64>],
        &key(|r| r.key.no) as &[Option<i16>],
        &key(|r| r.attempt) as &[Option<i16>],
        &text(|t| t.provider_ref.as_deref()) as &[Option<String>],
        &text(|t| t.outcome.map(ReceiptOutcome::as_str)) as &[Option<String>],
        &text(|t| t.class) as &[Option<String>],
        &text(|t| t.code.as_deref()) as &[Option<String>],
        &text(|t| t.detail.as_deref()) as &[Option<String>],
        &told.iter().map(|t| t.occurred_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
    );
    Ok(query.execute(db).await?.rows_affected())
}

/// A receipt that is not done.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub provider: String,
    pub event_key: String,
    pub received_at: DateTime<Utc>,
    pub reference: Option<AttemptReference>,
    pub outcome: ReceiptOutcome,
    pub class: Option<String>,
    pub code: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
}

/// Locks at most `rows` of those to look at now.
pub async fn take(conn: &mut Conn, now: DateTime<Utc>, rows: i64) -> Result<Vec<Waiting>> {
    let found = sqlx::query_file!("sql/receipt/take.sql", now, rows).fetch_all(conn).await?;
    let row = found.into_iter().map(|r| {
        let reference = r.shard.zip(r.message_id).zip(r.no).zip(r.attempt);
        let reference =
            reference.map(|(((shard, id), no), attempt)| AttemptReference { key: key(shard, id, no), attempt });
        Ok(Waiting {
            provider: r.provider,
            event_key: r.event_key,
            received_at: r.received_at,
            reference,
            outcome: word(&r.outcome, "outcome of a receipt")?,
            class: r.class,
            code: r.code,
            occurred_at: r.occurred_at,
        })
    });
    row.collect()
}

/// Holds what was told of these messages until the transaction ends.
pub async fn hold(conn: &mut Conn, shard: i16, messages: &[Tsid]) -> Result<()> {
    let messages: Vec<i64> = messages.iter().map(|id| id.0).collect();
    sqlx::query_file!("sql/receipt/hold.sql", shard, &messages).fetch_all(conn).await?;
    Ok(())
}

/// What came of a receipt.
#[derive(Debug, Clone)]
pub struct Done {
    pub provider: String,
    pub event_key: String,
    /// The attempt it is about, as far as that is known by now.
    pub reference: Option<AttemptReference>,
    pub effect: Option<&'static str>,
    /// It is not done, and is looked at again then.
    pub again_at: Option<DateTime<Utc>>,
}

pub async fn done(db: impl Db<'_>, done: &[Done], now: DateTime<Utc>) -> Result<()> {
    let key = |part: fn(AttemptReference) -> i16| done.iter().map(|d| d.reference.map(part)).collect::<Vec<_>>();
    sqlx::query_file!(
        "sql/receipt/done.sql",
        &done.iter().map(|d| d.provider.clone()).collect::<Vec<_>>(),
        &done.iter().map(|d| d.event_key.clone()).collect::<Vec<_>>(),
        &done.iter().map(|d| d.effect.map(str::to_owned)).collect::<Vec<_>>() as &[Option<String>],
        &done.iter().map(|d| d.again_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
        now,
        &key(|r| r.key.shard) as &[Option<i16>],
        &done.iter().map(|d| d.reference.map(|r| r.key.message_id.0)).collect::<Vec<_>>() as &[Option<i64>],
        &key(|r| r.key.no) as &[Option<i16>],
        &key(|r| r.attempt) as &[Option<i16>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// (provider, how many, since when) of those that are about nothing of ours and came before that time; `most` are counted.
pub async fn unmatched(db: impl Db<'_>, before: DateTime<Utc>, most: i64) -> Result<Vec<(String, i64, DateTime<Utc>)>> {
    let rows = sqlx::query_file!("sql/receipt/unmatched.sql", before, most).fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| (r.provider, r.receipts, r.since)).collect())
}

/// Forgets some that are as old as messages may be; says how many.
pub async fn forget(db: impl Db<'_>, before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/receipt/forget.sql", before, rows).execute(db).await?.rows_affected())
}

/// A receipt as people look at it.
#[derive(Debug, Clone)]
pub struct ReceiptRow {
    pub provider: String,
    pub event_key: String,
    pub received_at: DateTime<Utc>,
    pub no: i16,
    pub attempt: i16,
    pub outcome: String,
    pub class: Option<String>,
    pub code: Option<String>,
    pub detail: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
    pub applied_at: Option<DateTime<Utc>>,
    pub effect: Option<String>,
}

pub async fn of_message(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    rows: i64,
) -> Result<Vec<ReceiptRow>> {
    let found = sqlx::query_file_as!(ReceiptRow, "sql/receipt/of_message.sql", partner_id.0, shard, message_id.0, rows);
    Ok(found.fetch_all(db).await?)
}

/// Erases what a provider told of no attempt of ours.
pub async fn erase(db: impl Db<'_>, provider: &str, event_key: &str) -> Result<()> {
    sqlx::query_file!("sql/receipt/erase.sql", provider, event_key).execute(db).await?;
    Ok(())
}
