//! Weekly partitions by message id, and monthly ones of the audit log: made ahead, dropped when retention is over.
//! (Runtime queries: the name of a table is no parameter; every name is computed here.)

use chrono::{DateTime, Datelike as _, Days, Months, NaiveDate, NaiveTime, Utc};

use super::{Conn, Db, Store};
use crate::error::Result;
use crate::id::Tsid;
use crate::limits;

/// What a round did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Round {
    pub made: Vec<String>,
    pub dropped: Vec<String>,
    /// Over age, but something in them is still open: an alarm.
    pub kept: Vec<String>,
}

fn monday(at: DateTime<Utc>) -> NaiveDate {
    let day = at.date_naive();
    day - Days::new(u64::from(day.weekday().num_days_from_monday()))
}

fn first_id(day: NaiveDate) -> i64 {
    Tsid::floor(day.and_time(NaiveTime::MIN).and_utc()).0
}

/// Makes the partitions of this week and of the coming weeks, and of this month and the coming months of the audit log, and
/// drops the weeks that ended before `oldest`. The hub's role may do none of it itself: all are functions of the schema's
/// owner, of migrations 0011 and 0012.
pub async fn maintain(store: &Store, now: DateTime<Utc>, oldest: DateTime<Utc>) -> Result<Round> {
    let mut round = Round::default();
    let mut tx = store.begin().await?;
    for week in 0..=limits::PARTITIONS_AHEAD {
        let start = monday(now) + Days::new((week * limits::PARTITION_DAYS).unsigned_abs());
        let end = start + Days::new(limits::PARTITION_DAYS.unsigned_abs());
        let made = sqlx::query_file_scalar!("sql/partition/make_week.sql", start, first_id(start), first_id(end));
        round.made.extend(made.fetch_one(&mut *tx).await?);
    }
    tx.commit().await?;
    round.made.extend(make_audit_months(store, now).await?);
    super::hub::make_lock(store.api(), super::hub::Lock::DropPartitions).await?;
    for start in past(store.api(), oldest).await? {
        drop_week(store, start, &mut round).await?;
    }
    Ok(round)
}

/// This month's and the coming months' partitions of the audit log, and those of entries that fell into its default.
async fn make_audit_months(store: &Store, now: DateTime<Utc>) -> Result<Vec<String>> {
    let today = now.date_naive();
    let this_month = today - Days::new(u64::from(today.day0()));
    let ahead = (0..=limits::AUDIT_MONTHS_AHEAD).map(|months| this_month + Months::new(months));
    let last = NaiveDate::from_ymd_opt(2089, 1, 1).map_or(0, |day| first_id(day) - 1);
    let strays = sqlx::query_file_scalar!("sql/partition/audit_strays.sql", 0, last).fetch_all(store.api()).await?;
    let mut made = Vec::new();
    for month in strays.into_iter().chain(ahead) {
        made.extend(
            sqlx::query_file_scalar!("sql/partition/make_audit_month.sql", month).fetch_one(store.api()).await?,
        );
    }
    Ok(made)
}

/// Drops the months of the audit log that ended before `oldest`. Returns their names.
///
/// # Errors
/// The database's clock says that `oldest` is less than 90 days ago.
pub async fn drop_audit_months(store: &Store, oldest: DateTime<Utc>) -> Result<Vec<String>> {
    let dropped = sqlx::query_file_scalar!("sql/partition/drop_audit_months.sql", oldest.date_naive());
    Ok(dropped.fetch_one(store.api()).await?)
}

/// Weeks whose partitions ended before `oldest`.
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

async fn drop_week(store: &Store, start: NaiveDate, round: &mut Round) -> Result<()> {
    let suffix = start.format("%Y%m%d").to_string();
    let mut tx = store.begin().await?;
    // Another process that is at it goes on with it.
    if !super::hub::try_lock(&mut tx, super::hub::Lock::DropPartitions).await? {
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
    // Reads the whole week, however long that takes.
    sqlx::query("set local statement_timeout = 0").execute(&mut *tx).await?;
    let end = start + Days::new(limits::PARTITION_DAYS.unsigned_abs());
    super::stats::retire(&mut *tx, Tsid(first_id(start)), Tsid(first_id(end))).await?;
    let dropped = sqlx::query_file_scalar!("sql/partition/drop_week.sql", start).fetch_one(&mut *tx).await?;
    round.dropped.extend(dropped);
    Ok(tx.commit().await?)
}

/// A week of all tables.
#[derive(Debug)]
pub struct Week {
    /// The lowest id that belongs to it.
    pub first: Tsid,
    pub bytes: i64,
}

/// The weeks there are partitions for, oldest first, with the size of their rows on disk.
pub async fn sizes(conn: &mut Conn) -> Result<Vec<Week>> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select right(c.relname, 8), coalesce(sum(pg_relation_size(c.oid)), 0)::bigint \
         from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = any(array['messages', 'deliveries', 'attempts', 'events']::regclass[]) \
         group by 1 order by 1",
    )
    .fetch_all(conn)
    .await?;
    let week = |(name, bytes): (String, i64)| {
        let start = NaiveDate::parse_from_str(&name, "%Y%m%d").ok()?;
        Some(Week { first: Tsid(first_id(start)), bytes })
    };
    Ok(rows.into_iter().filter_map(week).collect())
}

/// How things stand with the partitions, for `doctor` and `/readyz`.
#[derive(Debug)]
pub struct PartitionStatus {
    /// The last moment for which there is a partition.
    pub until: Option<DateTime<Utc>>,
    /// Something fell into the net.
    pub in_default: bool,
}

pub async fn standing(db: impl Db<'_> + Copy) -> Result<PartitionStatus> {
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

/// Whether the audit log has entries of a time for which no month had been made. The next round puts them into theirs.
pub async fn audit_strays(db: impl Db<'_>) -> Result<bool> {
    Ok(sqlx::query_scalar("select exists (select from audit_default)").fetch_one(db).await?)
}
