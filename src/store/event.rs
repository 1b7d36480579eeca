//! Events.

use chrono::{DateTime, Utc};

use super::{Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::model::lane::{Lane, Priority};

#[derive(Debug, Clone)]
pub struct Row {
    pub no: i16,
    pub seq: i16,
    pub attempt: i16,
    pub event: String,
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
}

pub async fn of_message(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<Row>> {
    let rows = sqlx::query_file_as!(Row, "sql/event/of_message.sql", partner_id.0, shard, message_id.0);
    Ok(rows.fetch_all(db).await?)
}

/// What happened, with what is told of it beside the event itself.
#[derive(Debug, Clone)]
pub struct Happened {
    pub message_id: Tsid,
    pub event: Row,
    pub priority: Priority,
    /// Of the delivery it is about; none: it is about the message as a whole.
    pub lane: Option<Lane>,
    /// Of the attempt that ended with it.
    pub provider: Option<String>,
    pub code: Option<String>,
    /// Of an event that tells how the message as a whole ended: (lane, status, attempts spent) of each delivery.
    pub deliveries: Vec<(Lane, Status, i16)>,
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
    lanes_below: Lane,
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
        lanes_below.0,
        rows,
    );
    let row = found.fetch_all(db).await?.into_iter().map(|r| {
        let statuses = r.statuses.unwrap_or_default();
        let statuses = statuses.iter().map(|s| word(s, "status")).collect::<Result<Vec<Status>>>()?;
        let lanes = r.lanes.unwrap_or_default().into_iter().map(Lane);
        let deliveries = lanes.zip(statuses).zip(r.attempts.unwrap_or_default());
        Ok(Happened {
            message_id: Tsid(r.message_id),
            event: Row {
                no: r.no,
                seq: r.seq,
                attempt: r.attempt,
                event: r.event,
                reason: r.reason,
                occurred_at: r.occurred_at,
            },
            priority: r.priority.parse().unwrap_or_default(),
            lane: r.lane.map(Lane),
            provider: r.provider,
            code: r.code,
            deliveries: deliveries.map(|((lane, status), attempt)| (lane, status, attempt)).collect(),
        })
    });
    row.collect()
}
