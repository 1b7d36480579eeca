//! The invariants, each a query that must find nothing.

use super::Conn;
use crate::error::Result;
use crate::id::Tsid;

use chrono::{DateTime, Utc};

/// One row that should not be.
#[derive(Debug, Clone)]
pub struct Finding {
    pub invariant: &'static str,
    pub message_id: Tsid,
    pub no: i16,
    pub found: String,
}

/// All invariants by name, in the order they are checked.
pub const INVARIANTS: [(&str, &str); 20] = [
    ("lease", "a status and its lease agree"),
    ("attempts", "attempts are 1..n without gaps"),
    ("in_flight", "at most one attempt in flight, and only the newest"),
    ("not_sent", "never FAILED, EXPIRED or CANCELED of something a provider took or may have taken"),
    ("sent", "SENT and DELIVERED only with an accepted attempt, and the reverse"),
    ("doubt", "an attempt of unknown outcome is never forgotten"),
    ("events", "events are numbered without gaps"),
    ("told", "one event for each promised transition"),
    ("final", "terminal is final, except upwards by evidence, and dead letters that somebody asks for"),
    ("spent", "nothing waits for an attempt it may not make"),
    ("stuck", "what is due moves"),
    ("whole", "a message and all under it are there together"),
    ("keys", "a key leads to its message, and back"),
    ("shards", "everything lives on its partner's shard"),
    ("nets", "nothing in the default partitions"),
    ("notices", "endpoints are told of what happened"),
    ("relayed", "what was enqueued in SQL does not stay there"),
    ("receipts", "what providers told is in the books"),
    ("fallback", "what takes another's place does so once"),
    ("stats", "the statistics are what a recount gives"),
];

/// Runs one invariant; `INVARIANTS` lists the names.
pub async fn check(conn: &mut Conn, invariant: &'static str, now: DateTime<Utc>) -> Result<Vec<Finding>> {
    macro_rules! findings {
        ($file:literal $(, $arg:expr)*) => {
            sqlx::query_file!($file $(, $arg)*)
                .fetch_all(&mut *conn)
                .await?
                .into_iter()
                .map(|r| Finding {
                    invariant,
                    message_id: Tsid(r.message_id),
                    no: r.no,
                    found: r.found,
                })
                .collect()
        };
    }
    Ok(match invariant {
        "lease" => findings!("sql/fsck/lease.sql"),
        "attempts" => findings!("sql/fsck/attempts.sql"),
        "in_flight" => findings!("sql/fsck/in_flight.sql"),
        "not_sent" => findings!("sql/fsck/not_sent.sql"),
        "sent" => findings!("sql/fsck/sent.sql"),
        "doubt" => findings!("sql/fsck/doubt.sql"),
        "events" => findings!("sql/fsck/events.sql"),
        "told" => findings!("sql/fsck/told.sql"),
        "final" => findings!("sql/fsck/final.sql"),
        "spent" => findings!("sql/fsck/spent.sql"),
        "stuck" => findings!("sql/fsck/stuck.sql", now),
        "whole" => findings!("sql/fsck/whole.sql"),
        "keys" => findings!("sql/fsck/keys.sql"),
        "shards" => findings!("sql/fsck/shards.sql"),
        "nets" => findings!("sql/fsck/nets.sql"),
        "notices" => findings!("sql/fsck/notices.sql"),
        "relayed" => findings!("sql/fsck/relayed.sql"),
        "receipts" => findings!("sql/fsck/receipts.sql", now),
        "fallback" => findings!("sql/fsck/fallback.sql"),
        "stats" => findings!("sql/fsck/stats.sql", &super::stats::types()),
        other => return Err(crate::error::Error::Internal(format!("no invariant is called {other}"))),
    })
}

/// How many rows of each table hold one of these patterns, everywhere or at one partner.
pub async fn traces(conn: &mut Conn, patterns: &[String], partner: Option<Tsid>) -> Result<Vec<(String, u64)>> {
    let rows =
        sqlx::query_file!("sql/fsck/traces.sql", patterns, partner.map(|id| id.0)).fetch_all(conn).await?.into_iter();
    Ok(rows.map(|r| (r.table, r.rows.unsigned_abs())).collect())
}
