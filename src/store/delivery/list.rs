//! Deliveries as people look at them, and as their recipients are erased.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::model::lane::Lane;
use crate::store::{Db, word};

/// A delivery as people look at it.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    pub partner_id: Tsid,
    pub shard: i16,
    pub message_id: Tsid,
    pub no: i16,
    pub lane: Lane,
    pub status: Status,
    pub attempt: i16,
    pub max_attempts: i16,
    pub content: i16,
    pub possibly_sent: bool,
    pub cancel_requested: bool,
    pub ready_at: DateTime<Utc>,
    pub lease_until: Option<DateTime<Utc>>,
    pub worker: Option<Tsid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    pub recipient: String,
    /// How the partner wrote the recipient, where that is not the same.
    pub written: Option<String>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    /// Where a fallback was made: the number of the first of them.
    pub chain: Option<i16>,
    pub has_fallback: bool,
    pub receipt_due: Option<DateTime<Utc>>,
}

impl DeliveryRow {
    /// The recipient in the partner's words.
    pub fn to(&self) -> &str {
        self.written.as_deref().unwrap_or(&self.recipient)
    }
}

macro_rules! row {
    ($r:expr) => {
        DeliveryRow {
            partner_id: Tsid($r.partner_id),
            shard: $r.shard,
            message_id: Tsid($r.message_id),
            no: $r.no,
            lane: Lane($r.lane),
            status: word(&$r.status, "status")?,
            attempt: $r.attempt,
            max_attempts: $r.max_attempts,
            content: $r.content,
            possibly_sent: $r.possibly_sent,
            cancel_requested: $r.cancel_requested,
            ready_at: $r.ready_at,
            lease_until: $r.lease_until,
            worker: $r.worker.map(Tsid),
            expires_at: $r.expires_at,
            settled_at: $r.settled_at,
            recipient: $r.recipient,
            written: $r.written,
            provider: $r.provider,
            reason: $r.reason,
            chain: $r.chain,
            has_fallback: $r.has_fallback,
            receipt_due: $r.receipt_due,
        }
    };
}

/// The deliveries of a partner's message, by number; with `no` that one alone. None where the message is not the
/// partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn of_message(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    no: Option<i16>,
) -> Result<Vec<DeliveryRow>> {
    let rows = sqlx::query_file!("sql/delivery/of_message.sql", partner_id.0, shard, message_id.0, no);
    rows.fetch_all(db).await?.into_iter().map(|r| Ok(row!(r))).collect()
}

/// Whether a delivery of a partner's message is not settled yet, or was settled at this time or later.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn visible(
    db: impl Db<'_>,
    partner_id: Tsid,
    shard: i16,
    message_id: Tsid,
    settled_since: DateTime<Utc>,
) -> Result<bool> {
    let visible =
        sqlx::query_file_scalar!("sql/delivery/visible.sql", partner_id.0, shard, message_id.0, settled_since);
    Ok(visible.fetch_one(db).await?)
}

/// Which deliveries to list.
#[derive(Debug, Clone)]
pub struct Filter {
    pub status: Option<Status>,
    /// First and last lane of a channel; none: all channels but WEBHOOK.
    pub lanes: Option<(i16, i16)>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    /// A recipient as it is kept, or as the partner wrote it …
    pub to: Option<String>,
    /// … as E.164, if it is a phone number …
    pub phone: Option<String>,
    /// … and in small letters, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// Where a page of deliveries begins: behind this delivery, within these ids.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub after: (Tsid, i16),
    pub below: Tsid,
    pub from: Tsid,
}

/// Up to `rows` deliveries of these partners (id and shard of each) that pass the filter, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn list(
    db: impl Db<'_>,
    owners: &[(Tsid, i16)],
    filter: &Filter,
    window: Window,
    rows: i64,
) -> Result<Vec<DeliveryRow>> {
    let found = sqlx::query_file!(
        "sql/delivery/list.sql",
        &owners.iter().map(|o| o.0.0).collect::<Vec<_>>(),
        &owners.iter().map(|o| o.1).collect::<Vec<_>>(),
        window.after.0.0,
        window.after.1,
        window.below.0,
        window.from.0,
        filter.status.map(Status::as_str),
        filter.lanes.map(|l| l.0),
        filter.lanes.map(|l| l.1),
        filter.provider.as_deref(),
        filter.reason.as_deref(),
        filter.to.as_deref(),
        rows,
        filter.phone.as_deref(),
        filter.mailbox.as_deref(),
    )
    .fetch_all(db)
    .await?;
    found.into_iter().map(|r| Ok(row!(r))).collect()
}

/// Which delivery of a message goes to whom, and says what.
pub struct Addressed {
    pub no: i16,
    pub content: i16,
    pub recipient: String,
    pub written: Option<String>,
    pub status: Status,
}

/// Recipient and content of each delivery of a message.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. `Error::Internal` for a status that this program does not
/// know.
pub async fn contents(db: impl Db<'_>, shard: i16, message_id: Tsid) -> Result<Vec<Addressed>> {
    let rows = sqlx::query_file!("sql/delivery/contents.sql", shard, message_id.0).fetch_all(db).await?.into_iter();
    let row = rows.map(|r| {
        let status = word(&r.status, "status")?;
        Ok(Addressed { no: r.no, content: r.content, recipient: r.recipient, written: r.written, status })
    });
    row.collect()
}

/// Erases what providers said of these deliveries, and their own ids of them. The receipts are locked by
/// `receipt::hold`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn redact_answers(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/redact_answers.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}

/// Erases the recipients of these deliveries.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction may have committed.
pub async fn redact_recipients(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/redact_recipients.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}
