//! Partitions: weekly ones by message id, monthly ones of the audit log. Created ahead, dropped after retention.
//! (Runtime queries: a table's name cannot be a parameter; every name is computed here.)

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, Utc};

use super::{Db, Store};
use crate::error::Result;
use crate::id::Tsid;
use crate::limits;

/// Result of `maintain`: names of partitions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MaintenanceRound {
    pub made: Vec<String>,
    pub dropped: Vec<String>,
    /// Past retention, but with an unsettled delivery: reported as an alarm.
    pub kept: Vec<String>,
}

fn monday(at: DateTime<Utc>) -> NaiveDate {
    let day = at.date_naive();
    day - Days::new(u64::from(day.weekday().num_days_from_monday()))
}

fn first_id(day: NaiveDate) -> i64 {
    Tsid::floor(day.and_time(NaiveTime::MIN).and_utc()).0
}

/// Creates the partitions of this week and `limits::PARTITIONS_AHEAD` more, and of this month and
/// `limits::AUDIT_MONTHS_AHEAD` more of the audit log; drops weeks that ended before `oldest` and have no unsettled
/// delivery. Created and dropped by functions of the schema's owner (migrations 0011 and 0012), because the hub's role
/// may not.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or a lock is not free in time; partitions created or dropped
/// before stay so.
pub async fn maintain(store: &Store, now: DateTime<Utc>, oldest: DateTime<Utc>) -> Result<MaintenanceRound> {
    let mut round = MaintenanceRound::default();
    let mut tx = store.begin().await?;
    for week in 0..=limits::PARTITIONS_AHEAD {
        let start = monday(now) + Days::new((week * limits::PARTITION_DAYS).unsigned_abs());
        let end = start + Days::new(limits::PARTITION_DAYS.unsigned_abs());
        let made = sqlx::query_file_scalar!("sql/partition/make_week.sql", start, first_id(start), first_id(end));
        round.made.extend(made.fetch_one(&mut *tx).await?);
    }
    tx.commit().await?;
    round.made.extend(make_audit_months(store, now).await?);
    super::hub::ensure_lock_row(store.api(), super::hub::HubLock::DropPartitions).await?;
    for start in past(store.api(), oldest).await? {
        drop_week(store, start, &mut round).await?;
    }
    Ok(round)
}

/// Creates the audit log's partitions of this month, the coming months, and the months of entries in its default
/// partition.
async fn make_audit_months(store: &Store, now: DateTime<Utc>) -> Result<Vec<String>> {
    let today = now.date_naive();
    let this_month = today - Days::new(u64::from(today.day0()));
    let ahead = (0..=limits::AUDIT_MONTHS_AHEAD).map(|months| this_month + Months::new(months));
    let last = NaiveDate::from_ymd_opt(2089, 1, 1).map_or(0, |day| first_id(day) - 1);
    let strays =
        sqlx::query_file_scalar!("sql/partition/stray_audit_months.sql", 0, last).fetch_all(store.api()).await?;
    let mut made = Vec::new();
    for month in strays.into_iter().chain(ahead) {
        made.extend(
            sqlx::query_file_scalar!("sql/partition/make_audit_month.sql", month).fetch_one(store.api()).await?,
        );
    }
    Ok(made)
}

/// Drops months of the audit log that ended before `oldest`. Returns their names.
///
/// # Errors
/// `Error::Internal` if `oldest` is less than 90 days ago by the database's clock; nothing was dropped.
/// `Error::Unavailable` if the database cannot be reached.
pub async fn drop_audit_months(store: &Store, oldest: DateTime<Utc>) -> Result<Vec<String>> {
    let dropped = sqlx::query_file_scalar!("sql/partition/drop_audit_months.sql", oldest.date_naive());
    Ok(dropped.fetch_one(store.api()).await?)
}

/// Drops weeks of `stream_events` that ended before `oldest`. Returns their names.
///
/// # Errors
/// `Error::Internal` if `oldest` is less than two weeks ago by the database's clock; nothing was dropped.
/// `Error::Unavailable` if the database cannot be reached.
pub async fn drop_stream_weeks(store: &Store, oldest: DateTime<Utc>) -> Result<Vec<String>> {
    let dropped = sqlx::query_file_scalar!("sql/partition/drop_stream_weeks.sql", oldest.date_naive());
    Ok(dropped.fetch_one(store.api()).await?)
}

/// Mondays of the weeks whose partitions ended before `oldest`.
async fn past(db: impl Db<'_>, oldest: DateTime<Utc>) -> Result<Vec<NaiveDate>> {
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'messages'::regclass order by 1",
    )
    .fetch_all(db)
    .await?;
    let week = |name: &String| NaiveDate::parse_from_str(name.strip_prefix("messages_")?, "%Y%m%d").ok();
    let end = |start: &NaiveDate| *start + Days::new(limits::PARTITION_DAYS.unsigned_abs());
    Ok(names.iter().filter_map(week).filter(|start| end(start) <= oldest.date_naive()).collect())
}

async fn drop_week(store: &Store, start: NaiveDate, round: &mut MaintenanceRound) -> Result<()> {
    let suffix = start.format("%Y%m%d").to_string();
    let mut tx = store.begin().await?;
    // Another process has the lock and drops the week.
    if !super::hub::try_lock(&mut tx, super::hub::HubLock::DropPartitions).await? {
        return Ok(tx.rollback().await?);
    }
    let there = format!("select to_regclass('deliveries_{suffix}') is not null");
    if !sqlx::query_scalar(sqlx::AssertSqlSafe(there)).fetch_one(&mut *tx).await? {
        return Ok(tx.rollback().await?);
    }
    let open = format!(
        "select exists (select from deliveries_{suffix} where status = 'PENDING') \
         or exists (select from deliveries_{suffix} where status = 'PROCESSING') \
         or exists (select from deliveries_{suffix} where status = 'SCHEDULED')"
    );
    if sqlx::query_scalar(sqlx::AssertSqlSafe(open)).fetch_one(&mut *tx).await? {
        round.kept.push(format!("deliveries_{suffix}"));
        return Ok(tx.rollback().await?);
    }
    // Reads the whole week, which may take longer than the statement time-out.
    sqlx::query("set local statement_timeout = 0").execute(&mut *tx).await?;
    let end = start + Days::new(limits::PARTITION_DAYS.unsigned_abs());
    super::stats::record_dropped(&mut *tx, Tsid(first_id(start)), Tsid(first_id(end))).await?;
    let dropped = sqlx::query_file_scalar!("sql/partition/drop_week.sql", start).fetch_one(&mut *tx).await?;
    round.dropped.extend(dropped);
    Ok(tx.commit().await?)
}

/// State of the partitions, for `doctor` and `/readyz`.
#[derive(Debug)]
pub struct PartitionStatus {
    /// The time up to which weekly partitions exist.
    pub until: Option<DateTime<Utc>>,
    /// A default partition of messages or deliveries has rows: a partition was missing.
    pub in_default: bool,
}

/// State of the partitions.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn status(db: impl Db<'_> + Copy) -> Result<PartitionStatus> {
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'messages'::regclass",
    )
    .fetch_all(db)
    .await?;
    let in_default: bool =
        sqlx::query_scalar("select exists (select from messages_default) or exists (select from deliveries_default)")
            .fetch_one(db)
            .await?;
    let last =
        names.iter().filter_map(|n| NaiveDate::parse_from_str(n.strip_prefix("messages_")?, "%Y%m%d").ok()).max();
    let until =
        last.map(|start| (start + Days::new(limits::PARTITION_DAYS.unsigned_abs())).and_time(NaiveTime::MIN).and_utc());
    Ok(PartitionStatus { until, in_default })
}

/// Whether the audit log's default partition has entries: their month had no partition. The next `maintain` moves them.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn has_audit_strays(db: impl Db<'_>) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from audit_default)").fetch_one(db).await?)
}
