//! What operators are told of, once for each cause.

use chrono::{DateTime, Utc};
use std::collections::BTreeSet;

use super::{Conn, Db};
use crate::error::Result;
use crate::model::alert::ALERT_KINDS;

/// A cause that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub cause: String,
    pub times: u64,
    pub detail: String,
}

/// Notes causes, each once in `seen`; returns those that are new.
pub async fn raise(conn: &mut Conn, seen: &[Seen], now: DateTime<Utc>) -> Result<BTreeSet<String>> {
    let rows = sqlx::query_file!(
        "sql/alert/raise.sql",
        &seen.iter().map(|s| s.cause.clone()).collect::<Vec<_>>(),
        &seen.iter().map(|s| i64::try_from(s.times).unwrap_or(i64::MAX)).collect::<Vec<_>>(),
        &seen.iter().map(|s| s.detail.clone()).collect::<Vec<_>>(),
        now,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().filter(|r| r.is_new).map(|r| r.cause).collect())
}

/// A cause that was there, and how often it was seen.
#[derive(Debug, Clone)]
pub struct Alert {
    pub cause: String,
    pub opened_at: DateTime<Utc>,
    pub times: i64,
    pub detail: String,
}

/// Ends those that were not seen of late; returns them.
pub async fn clear(conn: &mut Conn, now: DateTime<Utc>) -> Result<Vec<Alert>> {
    let kinds: Vec<String> = ALERT_KINDS.iter().map(|k| k.0.to_owned()).collect();
    let quiet: Vec<f64> = ALERT_KINDS.iter().map(|k| k.1.as_secs_f64()).collect();
    let rows = sqlx::query_file!("sql/alert/clear.sql", &kinds, &quiet, now).fetch_all(conn).await?.into_iter();
    let alert = rows.map(|r| Alert { cause: r.cause, opened_at: r.opened_at, times: r.times, detail: r.detail });
    Ok(alert.collect())
}

pub async fn forget(db: impl Db<'_>, before: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/alert/forget.sql", before).execute(db).await?;
    Ok(())
}
