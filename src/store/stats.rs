//! Statistics: changes as deliveries are settled, rolled up into days.

use chrono::{DateTime, NaiveDate, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::{STATUSES, Status};
use crate::model::lane::Lane;
use crate::model::partner::Partner;
use crate::model::stats::{CountTotals, Counts, counts_of};

/// The message type of each lane, from lane 0 on: rows have a lane, statistics a message type.
pub(super) fn lane_types() -> Vec<String> {
    let mut lanes = Lane::all_of(&CHANNELS);
    lanes.sort();
    lanes.into_iter().map(|lane| lane.channel().as_str().to_owned()).collect()
}

/// Counts by status, as statements take them: one array per column.
pub(super) struct StatDeltas {
    pub status: Vec<String>,
    pub total: Vec<i16>,
    pub success: Vec<i16>,
    pub failed: Vec<i16>,
}

impl StatDeltas {
    /// The counts of each of these statuses.
    pub fn of(statuses: &[Status], law: impl Fn(Status) -> Counts) -> StatDeltas {
        let each = |part: fn(Counts) -> i16| statuses.iter().map(|s| part(law(*s))).collect();
        StatDeltas {
            status: statuses.iter().map(|s| s.as_str().to_owned()).collect(),
            total: each(|c| c.total),
            success: each(|c| c.success),
            failed: each(|c| c.failed),
        }
    }
}

/// Moves up to `rows` changes into their days, from a block of their table on (None: the first). Returns how many were
/// moved, and the last block that had one.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn roll_up(db: impl Db<'_>, rows: i64, from_block: Option<i64>) -> Result<(i64, Option<i64>)> {
    let block = from_block.unwrap_or(0);
    let moved = sqlx::query_file!("sql/stats/roll_up.sql", rows, &lane_types(), block).fetch_one(db).await?;
    Ok((moved.taken, moved.last_block))
}

/// Records how much of the statistics belongs to deliveries with message ids from `low` up to, not including, `high`,
/// which are about to be dropped in the same transaction.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_dropped(db: impl Db<'_>, low: Tsid, high: Tsid) -> Result<()> {
    let law = StatDeltas::of(&STATUSES, counts_of);
    sqlx::query_file!(
        "sql/stats/record_dropped.sql",
        low.0,
        high.0,
        &lane_types(),
        &law.status,
        &law.total,
        &law.success,
        &law.failed
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Counts of one day and message type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DailyStatsRow {
    pub date: NaiveDate,
    /// The channel's word. Text, because stored words may be of a channel that this program does not know.
    pub message_type: String,
    pub sums: CountTotals,
}

/// A partner's counts from `from` to `to`, both included, newest first; with `channel` those of that channel.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn daily(
    db: impl Db<'_>,
    partner: &Partner,
    from: NaiveDate,
    to: NaiveDate,
    channel: Option<Channel>,
) -> Result<Vec<DailyStatsRow>> {
    let rows = sqlx::query_file!(
        "sql/stats/daily.sql",
        partner.partner_id.0,
        partner.time_zone,
        from,
        to,
        channel.map(Channel::as_str),
        &lane_types(),
    )
    .fetch_all(db)
    .await?;
    let day = |sums, date, message_type| DailyStatsRow { date, message_type, sums };
    let sums = |total, success, failed| CountTotals { total, success, failed };
    Ok(rows.into_iter().map(|r| day(sums(r.total, r.success, r.failed), r.stat_date, r.message_type)).collect())
}

/// The date in a time zone.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn today(db: impl Db<'_>, now: DateTime<Utc>, time_zone: &str) -> Result<NaiveDate> {
    Ok(sqlx::query_file_scalar!("sql/stats/today.sql", now, time_zone).fetch_one(db).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_the_type_of_its_channel() {
        let types = lane_types();
        for channel in CHANNELS {
            for lane in Lane::all_of(&[channel]) {
                assert_eq!(types[usize::try_from(lane.0).unwrap()], channel.as_str());
            }
        }
    }
}
