//! Receipts as providers sent them, and the result of evaluating each.

use chrono::{DateTime, Utc};

use super::keys::key;
use super::{Conn, Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::receipt::{AttemptReference, Receipt, ReceiptOutcome};

/// A receipt to store.
#[derive(Debug, Clone)]
pub struct NewReceipt {
    /// Identifies the receipt at its provider: a repetition has the same.
    pub event_key: String,
    /// None: unreadable; `detail` says why.
    pub outcome: Option<ReceiptOutcome>,
    /// The attempt, if the receipt repeats our reference.
    pub reference: Option<AttemptReference>,
    /// The provider's own id.
    pub provider_ref: Option<String>,
    /// Class of the error, a stable word.
    pub class: Option<&'static str>,
    /// The provider's own code.
    pub code: Option<String>,
    pub detail: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
}

impl NewReceipt {
    /// A receipt that could not be read, with the reason if there is one.
    pub fn unreadable(event_key: String, why: Option<String>) -> NewReceipt {
        let (outcome, reference, provider_ref, class, code, occurred_at) = (None, None, None, None, None, None);
        NewReceipt { event_key, outcome, reference, provider_ref, class, code, detail: why, occurred_at }
    }

    /// A receipt as an adapter read it.
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

/// Stores receipts that are new, and completes the reference of one stored without it. `told` is sorted by event key,
/// each key once, so that two writers cannot deadlock. Returns how many were written.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
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

/// A receipt that is due for evaluation; its row is locked.
#[derive(Debug, Clone)]
pub struct PendingReceipt {
    pub provider: String,
    pub event_key: String,
    pub received_at: DateTime<Utc>,
    /// The attempt, by our reference or the provider's own id; None: unknown so far.
    pub reference: Option<AttemptReference>,
    pub outcome: ReceiptOutcome,
    pub class: Option<String>,
    pub code: Option<String>,
    pub occurred_at: Option<DateTime<Utc>>,
    /// When it became due.
    pub try_at: DateTime<Utc>,
}

/// Locks up to `rows` receipts that are due for evaluation at `now`, longest due first, of those that became due from
/// `from` on (None: of all). Rows locked by others are
/// skipped.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored outcome that this program does not know.
pub async fn lock_pending(
    conn: &mut Conn,
    now: DateTime<Utc>,
    rows: i64,
    from: Option<DateTime<Utc>>,
) -> Result<Vec<PendingReceipt>> {
    let from = from.unwrap_or(DateTime::UNIX_EPOCH);
    let found = sqlx::query_file!("sql/receipt/lock_pending.sql", now, rows, from).fetch_all(conn).await?;
    let row = found.into_iter().map(|r| {
        let reference = r.shard.zip(r.message_id).zip(r.no).zip(r.attempt);
        let reference =
            reference.map(|(((shard, id), no), attempt)| AttemptReference { key: key(shard, id, no), attempt });
        Ok(PendingReceipt {
            provider: r.provider,
            event_key: r.event_key,
            received_at: r.received_at,
            reference,
            outcome: parse_word(&r.outcome, "outcome of a receipt")?,
            class: r.class,
            code: r.code,
            occurred_at: r.occurred_at,
            try_at: r.try_at,
        })
    });
    row.collect()
}

/// Locks the receipts of these messages until the transaction ends. Call it before locking their deliveries: the
/// evaluation of receipts locks in this order.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then.
pub async fn lock_of_messages(conn: &mut Conn, shard: i16, messages: &[Tsid]) -> Result<()> {
    let messages: Vec<i64> = messages.iter().map(|id| id.0).collect();
    sqlx::query_file!("sql/receipt/lock_of_messages.sql", shard, &messages).fetch_all(conn).await?;
    Ok(())
}

/// The result of evaluating a receipt.
#[derive(Debug, Clone)]
pub struct ReceiptResult {
    pub provider: String,
    pub event_key: String,
    /// The attempt, if it is known by now.
    pub reference: Option<AttemptReference>,
    /// Stable word: 'applied', 'recorded', 'known' or 'unmatched'; None: it waits for its delivery.
    pub effect: Option<&'static str>,
    /// When it is evaluated again; None: never.
    pub retry_at: Option<DateTime<Utc>>,
}

/// Records the results of evaluating receipts that `lock_pending` locked.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_results(db: impl Db<'_>, done: &[ReceiptResult], now: DateTime<Utc>) -> Result<()> {
    let key = |part: fn(AttemptReference) -> i16| done.iter().map(|d| d.reference.map(part)).collect::<Vec<_>>();
    sqlx::query_file!(
        "sql/receipt/record_results.sql",
        &done.iter().map(|d| d.provider.clone()).collect::<Vec<_>>(),
        &done.iter().map(|d| d.event_key.clone()).collect::<Vec<_>>(),
        &done.iter().map(|d| d.effect.map(str::to_owned)).collect::<Vec<_>>() as &[Option<String>],
        &done.iter().map(|d| d.retry_at).collect::<Vec<_>>() as &[Option<DateTime<Utc>>],
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

/// (provider, number, oldest arrival) of receipts that match no attempt and arrived before `before`. At most `most` are
/// counted in all.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn count_unmatched(
    db: impl Db<'_>,
    before: DateTime<Utc>,
    most: i64,
) -> Result<Vec<(String, i64, DateTime<Utc>)>> {
    let rows = sqlx::query_file!("sql/receipt/count_unmatched.sql", before, most).fetch_all(db).await?.into_iter();
    Ok(rows.map(|r| (r.provider, r.receipts, r.since)).collect())
}

/// Deletes up to `rows` receipts that arrived before `before`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/receipt/delete_old.sql", before, rows).execute(db).await?.rows_affected())
}

/// A receipt as the API shows it.
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

/// Up to `rows` receipts of a partner's message, in the order of their arrival. Empty if the message is not the
/// partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
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

/// Erases personal data from a receipt that matches no attempt.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn redact(db: impl Db<'_>, provider: &str, event_key: &str) -> Result<()> {
    sqlx::query_file!("sql/receipt/redact.sql", provider, event_key).execute(db).await?;
    Ok(())
}
