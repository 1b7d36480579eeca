//! Statistics: changes as they come, and the days they are rolled up into.

use chrono::{DateTime, NaiveDate, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::{STATUSES, Status};
use crate::model::lane::Lane;
use crate::model::partner::Partner;
use crate::model::stats::{CountTotals, Counts, counts_of};

/// The type of each lane, from lane 0 on: rows know their lane, statistics speak of types.
pub(super) fn types() -> Vec<String> {
    let mut lanes = Lane::all_of(&CHANNELS);
    lanes.sort();
    lanes.into_iter().map(|lane| lane.channel().as_str().to_owned()).collect()
}

/// What a statement is told of the law: statuses, and for each its counts.
pub(super) struct StatDeltas {
    pub status: Vec<String>,
    pub total: Vec<i16>,
    pub success: Vec<i16>,
    pub failed: Vec<i16>,
}

impl StatDeltas {
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

/// Moves at most `rows` changes into their days; returns how many there were.
pub async fn rollup(db: impl Db<'_>, rows: i64) -> Result<i64> {
    Ok(sqlx::query_file_scalar!("sql/stats/rollup.sql", rows, &types()).fetch_one(db).await?)
}

/// Notes how much of the statistics is of the deliveries with these message ids, from `low` to below `high`, which are
/// about to be dropped.
pub async fn retire(db: impl Db<'_>, low: Tsid, high: Tsid) -> Result<()> {
    let law = StatDeltas::of(&STATUSES, counts_of);
    sqlx::query_file!(
        "sql/stats/retire.sql",
        low.0,
        high.0,
        &types(),
        &law.status,
        &law.total,
        &law.success,
        &law.failed
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What was counted on one day, of one type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    pub date: NaiveDate,
    /// The channel's word; text, because the books are older than any program that reads them.
    pub message_type: String,
    pub sums: CountTotals,
}

/// The partner's days from `from` to `to`, newest first.
pub async fn daily(
    db: impl Db<'_>,
    partner: &Partner,
    from: NaiveDate,
    to: NaiveDate,
    channel: Option<Channel>,
) -> Result<Vec<Day>> {
    let rows = sqlx::query_file!(
        "sql/stats/daily.sql",
        partner.partner_id.0,
        partner.time_zone,
        from,
        to,
        channel.map(Channel::as_str),
        &types(),
    )
    .fetch_all(db)
    .await?;
    let day = |sums, date, message_type| Day { date, message_type, sums };
    let sums = |total, success, failed| CountTotals { total, success, failed };
    Ok(rows.into_iter().map(|r| day(sums(r.total, r.success, r.failed), r.stat_date, r.message_type)).collect())
}

/// Which day it is in a time zone.
pub async fn today(db: impl Db<'_>, now: DateTime<Utc>, time_zone: &str) -> Result<NaiveDate> {
    Ok(sqlx::query_file_scalar!("sql/stats/today.sql", now, time_zone).fetch_one(db).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lane_has_the_type_of_its_channel() {
        let types = types();
        for channel in CHANNELS {
            for lane in Lane::all_of(&[channel]) {
                assert_eq!(types[usize::try_from(lane.0).unwrap()], channel.as_str());
            }
        }
    }
}
