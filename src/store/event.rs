//! Events: what is reported to partners about deliveries and messages.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::keys::MessageColumns;
use super::{Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::model::event::EventPayload;
use crate::model::lane::{Lane, Priority};

/// An event as stored.
#[derive(Debug, Clone)]
pub struct EventRow {
    /// Number of the delivery; 0: the message as a whole.
    pub no: i16,
    /// Numbered from 1 without gaps, per delivery.
    pub seq: i16,
    /// The attempt it belongs to; 0: none.
    pub attempt: i16,
    pub event: String,
    /// Stable word; of 'message.completed' the message's status.
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
}

/// Events of the deliveries of a partner's message, by delivery and sequence number. Empty if the message is not the
/// partner's.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_message(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<EventRow>> {
    let rows = sqlx::query_file_as!(EventRow, "sql/event/of_message.sql", partner_id.0, shard, message_id.0);
    Ok(rows.fetch_all(db).await?)
}

/// An event of a watched message, with what its webhook says.
#[derive(Debug, Clone)]
pub struct WatchedEvent {
    pub shard: i16,
    pub message_id: Tsid,
    pub payload: EventPayload,
}

/// Events of watched messages (shard, id), each from its time on, in the order in which they happened.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_watched(db: impl Db<'_>, watched: &[(i16, Tsid, DateTime<Utc>)]) -> Result<Vec<WatchedEvent>> {
    let Some(MessageColumns { shards, ids, low, high }) = MessageColumns::of(watched.iter().map(|w| (w.0, w.1))) else {
        return Ok(Vec::new());
    };
    let since: Vec<DateTime<Utc>> = watched.iter().map(|w| w.2).collect();
    let rows = sqlx::query_file!("sql/event/of_watched.sql", &shards, &ids, &since, low, high).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|r| WatchedEvent {
            shard: r.shard,
            message_id: Tsid(r.message_id),
            payload: EventPayload {
                event: r.event,
                no: r.no,
                seq: r.seq,
                attempt: (r.attempt > 0).then_some(r.attempt),
                lane: r.lane,
                provider: r.provider,
                code: r.code,
                reason: r.reason,
                occurred_at: r.occurred_at,
                ..EventPayload::default()
            },
        })
        .collect())
}

/// Marks of messages of which a delivery ended, deleted.
pub struct EndingMarks {
    /// The messages (shard, id), each once.
    pub messages: HashSet<(i16, Tsid)>,
    /// The number of marks.
    pub marks: usize,
    /// The last block of the table that had one.
    pub last_block: Option<i64>,
}

/// Deletes and returns up to `rows` marks, from a block of the table on (None: the first). Marks locked by another
/// process are skipped; a rollback brings the marks back.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn take_ending_marks(db: impl Db<'_>, rows: i64, from_block: Option<i64>) -> Result<EndingMarks> {
    let block = from_block.unwrap_or(0);
    let taken = sqlx::query_file!("sql/event/take_ending_marks.sql", rows, block).fetch_all(db).await?;
    Ok(EndingMarks {
        marks: taken.len(),
        last_block: taken.iter().map(|r| r.block).max(),
        messages: taken.into_iter().map(|r| (r.shard, Tsid(r.message_id))).collect(),
    })
}

/// A message of which every delivery has ended.
pub struct EndedMessage {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub priority: Priority,
    pub created_at: DateTime<Utc>,
    /// The distinct (chain, lane, status) of its deliveries; webhooks left out.
    pub deliveries: Vec<(Option<i16>, Lane, Status)>,
    /// Its event 'message.completed' is written.
    pub completion_recorded: bool,
}

/// Those of these messages (shard, id) of which every delivery has ended.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn ended_messages(db: impl Db<'_>, messages: &HashSet<(i16, Tsid)>) -> Result<Vec<EndedMessage>> {
    let Some(MessageColumns { shards, ids, low, high }) = MessageColumns::of(messages.iter().copied()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query_file!("sql/event/ended_messages.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let row = rows.into_iter().map(|r| {
        let statuses = r.statuses.iter().map(|s| parse_word(s, "status")).collect::<Result<Vec<Status>>>()?;
        Ok(EndedMessage {
            shard: r.shard,
            message_id: Tsid(r.message_id),
            partner_id: Tsid(r.partner_id),
            priority: parse_word(&r.priority, "priority")?,
            created_at: r.created_at,
            deliveries: r.chains.into_iter().zip(r.lanes).zip(statuses).map(|((c, l), s)| (c, Lane(l), s)).collect(),
            completion_recorded: r.completion_recorded,
        })
    });
    row.collect()
}

/// Writes the event 'message.completed' of messages, each with its status, and 'message.accepted' where it is missing.
/// Returns the messages whose completion was not written before.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_completions(
    db: impl Db<'_>,
    done: &[(&EndedMessage, &'static str)],
    now: DateTime<Utc>,
) -> Result<HashSet<Tsid>> {
    let rows = sqlx::query_file!(
        "sql/event/record_completions.sql",
        &done.iter().map(|d| d.0.shard).collect::<Vec<_>>(),
        &done.iter().map(|d| d.0.message_id.0).collect::<Vec<_>>(),
        &done.iter().map(|d| d.0.created_at).collect::<Vec<_>>(),
        &done.iter().map(|d| d.1.to_owned()).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| Tsid(r.message_id)).collect())
}

/// Marks messages (shard, id, partner) of which a delivery ended, if the partner has an endpoint subscribed to
/// 'message.completed'. `settle` does the same for its own steps.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn mark_endings(db: impl Db<'_>, ended: &[(i16, Tsid, Tsid)]) -> Result<()> {
    sqlx::query_file!(
        "sql/event/mark_endings.sql",
        &ended.iter().map(|e| e.0).collect::<Vec<_>>(),
        &ended.iter().map(|e| e.1.0).collect::<Vec<_>>(),
        &ended.iter().map(|e| e.2.0).collect::<Vec<_>>(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// An event with what its payload says besides.
#[derive(Debug, Clone)]
pub struct PartnerEvent {
    pub message_id: Tsid,
    pub event: EventRow,
    pub priority: Priority,
    /// Lane of the delivery; None: the event is about the message as a whole.
    pub lane: Option<Lane>,
    /// Provider of the attempt that ended with it, or whose receipt it was.
    pub provider: Option<String>,
    /// The provider's code, of the attempt that ended with it.
    pub code: Option<String>,
    /// Of a fallback event: number and lane of the delivery that took over.
    pub fallback: Option<(i16, Lane)>,
    /// Of a fallback event: the event before it.
    pub previous_event: Option<String>,
}

/// A range of a partner's events: from `from` up to, not including, `until`.
#[derive(Debug, Clone, Copy)]
pub struct EventRange {
    pub from: DateTime<Utc>,
    /// At the time `from` only events after this (message, delivery number, seq).
    pub after: (Tsid, i16, i16),
    pub until: DateTime<Utc>,
}

/// Up to `rows` events of these kinds of a partner's messages, oldest first; excludes events of webhook deliveries. To
/// continue, start a range at the last event returned.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn of_partner(
    db: impl Db<'_>,
    (partner_id, shard): (Tsid, i16),
    slice: EventRange,
    events: &[String],
    rows: i64,
) -> Result<Vec<PartnerEvent>> {
    // Ids come from clocks that may be a little ahead of the one that dated the event.
    let ids_below = Tsid::floor(slice.until + chrono::TimeDelta::minutes(1));
    let found = sqlx::query_file!(
        "sql/event/of_partner.sql",
        partner_id.0,
        shard,
        slice.from,
        slice.until,
        slice.after.0.0,
        slice.after.1,
        slice.after.2,
        ids_below.0,
        events,
        rows,
    );
    let row = found.fetch_all(db).await?.into_iter().map(|r| {
        Ok(PartnerEvent {
            message_id: Tsid(r.message_id),
            event: EventRow {
                no: r.no,
                seq: r.seq,
                attempt: r.attempt,
                event: r.event,
                reason: r.reason,
                occurred_at: r.occurred_at,
            },
            priority: parse_word(&r.priority, "priority")?,
            lane: r.lane.map(Lane),
            provider: r.provider,
            code: r.code,
            fallback: r.fallback_no.zip(r.fallback_lane).map(|(no, lane)| (no, Lane(lane))),
            previous_event: r.previous_event,
        })
    });
    row.collect()
}
