//! Events.

use std::collections::HashSet;

use chrono::{DateTime, Utc};

use super::keys::Messages;
use super::{Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::model::lane::{Lane, Priority};

#[derive(Debug, Clone)]
pub struct EventRow {
    pub no: i16,
    pub seq: i16,
    pub attempt: i16,
    pub event: String,
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
}

pub async fn of_message(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<EventRow>> {
    let rows = sqlx::query_file_as!(EventRow, "sql/event/of_message.sql", partner_id.0, shard, message_id.0);
    Ok(rows.fetch_all(db).await?)
}

/// Takes at most `rows` marks that a delivery of a message ended: (shard, message), each once, and how many marks those were.
pub async fn take_endings(db: impl Db<'_>, rows: i64) -> Result<(HashSet<(i16, Tsid)>, usize)> {
    let taken = sqlx::query_file!("sql/event/take_endings.sql", rows).fetch_all(db).await?;
    let marks = taken.len();
    Ok((taken.into_iter().map(|r| (r.shard, Tsid(r.message_id))).collect(), marks))
}

/// How a message stands.
pub struct MessageProgress {
    pub shard: i16,
    pub message_id: Tsid,
    pub partner_id: Tsid,
    pub priority: Priority,
    pub created_at: DateTime<Utc>,
    /// Each kind of standing that its deliveries have: chain, lane, status; webhooks left out.
    pub deliveries: Vec<(Option<i16>, Lane, Status)>,
    /// Its completion was told.
    pub told: bool,
}

pub async fn standing(db: impl Db<'_>, messages: &HashSet<(i16, Tsid)>) -> Result<Vec<MessageProgress>> {
    let Some(Messages { shards, ids, low, high }) = Messages::of(messages.iter().copied()) else {
        return Ok(Vec::new());
    };
    let rows = sqlx::query_file!("sql/event/standing.sql", &shards, &ids, low, high).fetch_all(db).await?;
    let row = rows.into_iter().map(|r| {
        let statuses = r.statuses.iter().map(|s| word(s, "status")).collect::<Result<Vec<Status>>>()?;
        Ok(MessageProgress {
            shard: r.shard,
            message_id: Tsid(r.message_id),
            partner_id: Tsid(r.partner_id),
            priority: word(&r.priority, "priority")?,
            created_at: r.created_at,
            deliveries: r.chains.into_iter().zip(r.lanes).zip(statuses).map(|((c, l), s)| (c, Lane(l), s)).collect(),
            told: r.told,
        })
    });
    row.collect()
}

/// Writes that these messages, each with its overall status, are complete; returns those of which nobody wrote it before.
pub async fn whole(
    db: impl Db<'_>,
    done: &[(&MessageProgress, &'static str)],
    now: DateTime<Utc>,
) -> Result<HashSet<Tsid>> {
    let rows = sqlx::query_file!(
        "sql/event/whole.sql",
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

/// Marks that a delivery of these messages ended, each with its partner, for partners that want to hear of completions.
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

/// What happened, with what is told of it beside the event itself.
#[derive(Debug, Clone)]
pub struct Happened {
    pub message_id: Tsid,
    pub event: EventRow,
    pub priority: Priority,
    /// Of the delivery it is about; none: it is about the message as a whole.
    pub lane: Option<Lane>,
    /// Of the attempt that ended with it, or whose receipt it was.
    pub provider: Option<String>,
    pub code: Option<String>,
    /// Of a fallback: what took its place, and the event before it.
    pub stand_in: Option<(i16, Lane)>,
    pub before: Option<String>,
}

/// Which of a partner's events: from a time on, behind one (message, no, seq) at that very time, up to another time.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub from: DateTime<Utc>,
    pub behind: (Tsid, i16, i16),
    pub until: DateTime<Utc>,
}

/// What is told of a partner's messages, but not of the telling, oldest first.
pub async fn of_partner(
    db: impl Db<'_>,
    (partner_id, shard): (Tsid, i16),
    slice: Slice,
    events: &[String],
    rows: i64,
) -> Result<Vec<Happened>> {
    // Ids are made by clocks that may be a little ahead of the one that noted the event.
    let ids_below = Tsid::floor(slice.until + chrono::TimeDelta::minutes(1));
    let found = sqlx::query_file!(
        "sql/event/of_partner.sql",
        partner_id.0,
        shard,
        slice.from,
        slice.until,
        slice.behind.0.0,
        slice.behind.1,
        slice.behind.2,
        ids_below.0,
        events,
        rows,
    );
    let row = found.fetch_all(db).await?.into_iter().map(|r| {
        Ok(Happened {
            message_id: Tsid(r.message_id),
            event: EventRow {
                no: r.no,
                seq: r.seq,
                attempt: r.attempt,
                event: r.event,
                reason: r.reason,
                occurred_at: r.occurred_at,
            },
            priority: word(&r.priority, "priority")?,
            lane: r.lane.map(Lane),
            provider: r.provider,
            code: r.code,
            stand_in: r.stand_in.zip(r.stand_in_lane).map(|(no, lane)| (no, Lane(lane))),
            before: r.before,
        })
    });
    row.collect()
}
