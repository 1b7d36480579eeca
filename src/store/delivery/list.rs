//! Deliveries as the API lists them, and the erasure of their recipients.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::lane::Lane;
use crate::store::{Conn, Db, parse_word};

/// A delivery as the API shows it.
#[derive(Debug, Clone)]
pub struct DeliveryRow {
    pub partner_id: Tsid,
    pub shard: i16,
    pub message_id: Tsid,
    pub no: i16,
    pub lane: Lane,
    pub status: Status,
    /// Attempts spent.
    pub attempt: i16,
    pub max_attempts: i16,
    /// Index of its content in the message.
    pub content: i16,
    /// An attempt may have been accepted by a provider.
    pub possibly_sent: bool,
    pub cancel_requested: bool,
    /// From when it may be claimed (PENDING) or promoted (SCHEDULED); a far future time while parked.
    pub ready_at: DateTime<Utc>,
    pub lease_until: Option<DateTime<Utc>>,
    pub worker: Option<Tsid>,
    pub expires_at: Option<DateTime<Utc>>,
    pub settled_at: Option<DateTime<Utc>>,
    /// Normalised, as the provider gets it.
    pub recipient: String,
    /// The recipient as the partner wrote it, if that differs.
    pub recipient_as_given: Option<String>,
    pub provider: Option<String>,
    /// Stable word of `DELIVERY_REASONS` or of `model::retry`.
    pub reason: Option<String>,
    /// With a fallback: the number of the first delivery of the chain.
    pub chain: Option<i16>,
    /// It has a fallback that was not used yet.
    pub has_fallback: bool,
    /// Until when a receipt is awaited.
    pub receipt_due: Option<DateTime<Utc>>,
}

impl DeliveryRow {
    /// The recipient as the partner wrote it.
    pub fn to(&self) -> &str {
        self.recipient_as_given.as_deref().unwrap_or(&self.recipient)
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
            status: parse_word(&$r.status, "status")?,
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
            recipient_as_given: $r.written,
            provider: $r.provider,
            reason: $r.reason,
            chain: $r.chain,
            has_fallback: $r.has_fallback,
            receipt_due: $r.receipt_due,
        }
    };
}

/// The deliveries of a partner's message, by number; with `no` that one alone. Empty if the message is not the
/// partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
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

/// Whether a partner's message has a delivery that is not settled, or was settled at `settled_since` or later.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
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

/// Which deliveries to list; None does not filter.
#[derive(Debug, Clone)]
pub struct DeliveryFilter {
    pub status: Option<Status>,
    /// First and last lane of a channel; None: all channels but WEBHOOK.
    pub lanes: Option<(i16, i16)>,
    pub provider: Option<String>,
    pub reason: Option<String>,
    /// A recipient as stored, or as the partner wrote it.
    pub to: Option<String>,
    /// `to` as E.164, if it is a phone number.
    pub phone: Option<String>,
    /// `to` in lower case, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// A page of a list of deliveries.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryPage {
    /// The last delivery of the page before.
    pub after: (Tsid, i16),
    /// Message ids below this and from `from` on: the time range.
    pub below: Tsid,
    pub from: Tsid,
}

/// Up to `rows` deliveries of these partners (id and shard of each) that pass the filter: message ids descending,
/// delivery numbers ascending.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn list(
    db: impl Db<'_>,
    owners: &[(Tsid, i16)],
    filter: &DeliveryFilter,
    window: DeliveryPage,
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

/// Recipient and content of a delivery.
pub struct DeliveryRecipient {
    pub no: i16,
    pub lane: Lane,
    /// Index of its content in the message.
    pub content: i16,
    /// Normalised, as the provider gets it.
    pub recipient: String,
    /// The recipient as the partner wrote it, if that differs.
    pub recipient_as_given: Option<String>,
    pub status: Status,
}

/// Recipient, lane, content and status of each delivery of a message, by number.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// status that this program does not know.
pub async fn recipients(db: impl Db<'_>, shard: i16, message_id: Tsid) -> Result<Vec<DeliveryRecipient>> {
    let rows = sqlx::query_file!("sql/delivery/recipients.sql", shard, message_id.0).fetch_all(db).await?.into_iter();
    let row = rows.map(|r| {
        let status = parse_word(&r.status, "status")?;
        Ok(DeliveryRecipient {
            no: r.no,
            lane: Lane(r.lane),
            content: r.content,
            recipient: r.recipient,
            recipient_as_given: r.written,
            status,
        })
    });
    row.collect()
}

/// A name of a user, of a partner in a shard, whose messages before `below` are looked for.
pub struct FormerName<'n> {
    pub shard: i16,
    pub partner_id: Tsid,
    pub name: &'n str,
    pub below: Tsid,
}

/// The messages with in-app deliveries to these names: (shard, message_id, index of the name). Reads all deliveries,
/// once for all names: on a connection for scans.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_names(conn: &mut Conn, names: &[FormerName<'_>]) -> Result<BTreeSet<(i16, Tsid, usize)>> {
    let (first, last) = Lane::range_of(Channel::Inapp);
    let shards: Vec<i16> = names.iter().map(|n| n.shard).collect();
    let partners: Vec<i64> = names.iter().map(|n| n.partner_id.0).collect();
    let texts: Vec<String> = names.iter().map(|n| n.name.to_owned()).collect();
    let below: Vec<i64> = names.iter().map(|n| n.below.0).collect();
    let rows = sqlx::query_file!("sql/delivery/of_names.sql", &shards, &partners, &texts, &below, first, last);
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(|r| (r.shard, Tsid(r.message_id), usize::try_from(r.which - 1).unwrap_or(usize::MAX))).collect())
}

/// Erases providers' answers about these deliveries of a message, and the providers' own ids. The caller has locked the
/// receipts with `receipt::lock_of_messages`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn redact_answers(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/redact_answers.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}

/// Erases the recipients of these deliveries of a message.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn redact_recipients(db: impl Db<'_>, shard: i16, message_id: Tsid, nos: &[i16]) -> Result<()> {
    sqlx::query_file!("sql/delivery/redact_recipients.sql", shard, message_id.0, nos).execute(db).await?;
    Ok(())
}
