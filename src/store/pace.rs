//! Paces of destinations that answered "too fast" or failed repeatedly: when each may be sent to again.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::model::pace::{EASE_AFTER_MESSAGES, FORGET_AFTER, MAX_INTERVAL, MIN_INTERVAL, Pace};

/// Slows a destination down: nothing before `pace.next_at`, then one message per `pace.interval`. Returns the pace that
/// now applies, never faster than what another process wrote.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn slow_down(
    db: impl Db<'_>,
    provider: &str,
    destination: &str,
    pace: Pace,
    now: DateTime<Utc>,
) -> Result<Pace> {
    let (old, longest) = (now - FORGET_AFTER, millis(MAX_INTERVAL));
    let (next_at, interval) = (pace.next_at, millis(pace.interval));
    let row = sqlx::query_file!("sql/pace/slow_down.sql", provider, destination, now, next_at, interval, old, longest);
    let row = row.fetch_one(db).await?;
    Ok(read(row.next_at, row.interval_ms, row.failures))
}

/// Records that a destination failed again in a call made at `called_at`: nothing before `pace.next_at`. Returns the
/// pace that now applies; None if the call was made before the last recorded failure.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_failure(
    db: impl Db<'_>,
    provider: &str,
    destination: &str,
    pace: Pace,
    called_at: DateTime<Utc>,
    now: DateTime<Utc>,
) -> Result<Option<Pace>> {
    let Pace { next_at, interval, failures } = pace;
    let interval = millis(interval);
    let row = sqlx::query_file!(
        "sql/pace/record_failure.sql",
        provider,
        destination,
        now,
        next_at,
        interval,
        failures,
        called_at
    );
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| read(row.next_at, row.interval_ms, row.failures)))
}

/// Records that a destination that failed works again.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_recovery(db: impl Db<'_>, provider: &str, destination: &str, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/pace/record_recovery.sql", provider, destination, now).execute(db).await?;
    Ok(())
}

/// Takes the turn for a message sent at `now`. None if it is too early, or the destination has no pace. A failing
/// destination is not called again before `answer_within` has passed.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn take_turn(
    db: impl Db<'_>,
    provider: &str,
    destination: &str,
    now: DateTime<Utc>,
    answer_within: Duration,
) -> Result<Option<Pace>> {
    let answer_by = now + answer_within;
    let row = sqlx::query_file!("sql/pace/take_turn.sql", provider, destination, now, EASE_AFTER_MESSAGES, answer_by);
    let row = row.fetch_optional(db).await?;
    Ok(row.map(|row| read(row.next_at, row.interval_ms, row.failures)))
}

/// Provider, destination and pace of each destination that has a pace at `now`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list(db: impl Db<'_>, now: DateTime<Utc>) -> Result<Vec<((String, String), Pace)>> {
    let rows =
        sqlx::query_file!("sql/pace/list.sql", now - FORGET_AFTER, now, millis(MIN_INTERVAL)).fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.provider, row.destination), read(row.next_at, row.interval_ms, row.failures)))
        .collect())
}

/// Deletes paces of destinations that could have been sent to before `before`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/pace/delete_old.sql", before).execute(db).await?;
    Ok(())
}

fn read(next_at: DateTime<Utc>, interval_ms: i32, failures: i16) -> Pace {
    Pace { next_at, interval: Duration::from_millis(u64::try_from(interval_ms).unwrap_or(0)), failures }
}

fn millis(interval: Duration) -> i32 {
    i32::try_from(interval.as_millis()).unwrap_or(i32::MAX)
}
