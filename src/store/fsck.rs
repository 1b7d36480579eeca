//! Invariants: each is a query that finds nothing in a sound database.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;

use super::{Conn, partition};
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::UNCALLED_ENDINGS;

/// A row that violates an invariant.
#[derive(Debug, Clone)]
pub struct Finding {
    pub invariant: &'static str,
    /// The message; for some invariants 0, or the partner (see their statements).
    pub message_id: Tsid,
    /// The delivery's number; 0: the message as a whole.
    pub no: i16,
    /// Text for operators.
    pub found: String,
}

/// How much one check of an invariant covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// A range of messages, with everything under them.
    Slice,
    /// The whole database: it compares messages with each other, or is about other tables.
    All,
}

/// All invariants in the order in which they are checked: name, meaning, scope.
pub const INVARIANTS: [(&str, &str, Scope); 25] = [
    ("lease", "a status and its lease agree", Scope::Slice),
    ("attempts", "attempts are 1..n without gaps", Scope::Slice),
    ("in_flight", "at most one attempt in flight, and only the newest", Scope::Slice),
    (
        "not_sent",
        "no delivery that a provider accepted or may have accepted is FAILED, EXPIRED or CANCELED",
        Scope::Slice,
    ),
    ("sent", "a delivery is SENT or DELIVERED if an attempt was accepted, and only then", Scope::Slice),
    ("doubt", "an attempt of unknown outcome marks its delivery as possibly sent", Scope::Slice),
    ("tried", "FAILED and UNDETERMINED deliveries were tried", Scope::Slice),
    ("events", "events are numbered without gaps", Scope::Slice),
    ("told", "the last event of a delivery names its status", Scope::Slice),
    ("final", "an ended delivery changes only by evidence, or when it is redriven", Scope::Slice),
    ("spent", "no delivery waits that has spent its attempts", Scope::Slice),
    ("stuck", "ended leases and passed times are acted on within minutes", Scope::Slice),
    ("turn", "no delivery waits while later ones of its lane are claimed", Scope::All),
    ("moving", "no channel stands still while its providers are available", Scope::All),
    ("put_off", "the hub postpones no call for long", Scope::Slice),
    ("whole", "a message, its deliveries, attempts and events are there together", Scope::Slice),
    ("keys", "an idempotency key leads to its message, and back", Scope::Slice),
    ("shards", "every message is on the shard of its partner", Scope::Slice),
    ("nets", "the default partitions are empty", Scope::All),
    ("notices", "every webhook reports an event that is recorded", Scope::Slice),
    ("relayed", "requests enqueued in SQL are taken in", Scope::All),
    ("receipts", "applied receipts are recorded on their attempts and deliveries", Scope::Slice),
    ("unapplied", "no receipt that can be applied waits", Scope::All),
    ("fallback", "a fallback replaces its delivery once", Scope::Slice),
    ("stats", "the statistics are what a recount gives", Scope::All),
];

/// Messages with ids from the first up to, not including, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange(pub Tsid, pub Tsid);

impl IdRange {
    pub const ALL: IdRange = IdRange(Tsid(i64::MIN), Tsid(i64::MAX));
}

/// Splits all messages into consecutive ranges: whole weeks, as many together as have up to `most_bytes` of rows on
/// disk. A larger week is a range of its own.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn id_ranges(conn: &mut Conn, most_bytes: i64) -> Result<Vec<IdRange>> {
    let (mut slices, mut from, mut bytes) = (Vec::new(), IdRange::ALL.0, 0);
    for week in partition::week_sizes(conn).await? {
        if bytes > 0 && week.bytes > 0 && bytes + week.bytes > most_bytes {
            slices.push(IdRange(from, week.first));
            (from, bytes) = (week.first, 0);
        }
        bytes += week.bytes;
    }
    slices.push(IdRange(from, IdRange::ALL.1));
    Ok(slices)
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Violations {
    /// The first rows found, up to `limits::FSCK_FINDINGS`.
    pub findings: Vec<Finding>,
    /// Number of rows found.
    pub rows: u64,
}

/// Checks one invariant on a connection of `Store::connect_for_fsck`: of the messages in `slice`, or of the whole
/// database if that is its scope.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` for a name that is not in `INVARIANTS`.
pub async fn check(conn: &mut Conn, invariant: &'static str, slice: IdRange, now: DateTime<Utc>) -> Result<Violations> {
    macro_rules! find {
        ($file:literal $(, $arg:expr)*) => {{
            let mut rows = sqlx::query_file!($file $(, $arg)*).fetch(&mut *conn);
            let mut found = Violations::default();
            while let Some(row) = rows.try_next().await? {
                found.rows += 1;
                if found.findings.len() < limits::FSCK_FINDINGS {
                    let message_id = Tsid(row.message_id);
                    found.findings.push(Finding { invariant, message_id, no: row.no, found: row.found });
                }
            }
            found
        }};
    }
    let (from, to) = (slice.0.0, slice.1.0);
    let types = super::stats::lane_types();
    let uncalled = UNCALLED_ENDINGS.map(str::to_owned);
    Ok(match invariant {
        "lease" => find!("sql/fsck/lease.sql", from, to),
        "attempts" => find!("sql/fsck/attempts.sql", from, to),
        "in_flight" => find!("sql/fsck/in_flight.sql", from, to),
        "not_sent" => find!("sql/fsck/not_sent.sql", from, to),
        "sent" => find!("sql/fsck/sent.sql", from, to),
        "doubt" => find!("sql/fsck/doubt.sql", from, to),
        "tried" => find!("sql/fsck/tried.sql", &uncalled, from, to),
        "events" => find!("sql/fsck/events.sql", from, to),
        "told" => find!("sql/fsck/told.sql", from, to),
        "final" => find!("sql/fsck/final.sql", from, to),
        "spent" => find!("sql/fsck/spent.sql", from, to),
        "stuck" => find!("sql/fsck/stuck.sql", now, from, to),
        "turn" => find!("sql/fsck/turn.sql"),
        "moving" => find!("sql/fsck/moving.sql", now, &types),
        "put_off" => find!("sql/fsck/put_off.sql", from, to),
        "whole" => find!("sql/fsck/whole.sql", from, to),
        "keys" => find!("sql/fsck/keys.sql", from, to),
        "shards" => find!("sql/fsck/shards.sql", from, to),
        "nets" => find!("sql/fsck/nets.sql"),
        "notices" => find!("sql/fsck/notices.sql", from, to),
        "relayed" => find!("sql/fsck/relayed.sql"),
        "receipts" => find!("sql/fsck/receipts.sql", from, to),
        "unapplied" => find!("sql/fsck/unapplied.sql", now),
        "fallback" => find!("sql/fsck/fallback.sql", from, to),
        "stats" => find!("sql/fsck/stats.sql", &types),
        other => return Err(Error::Internal(format!("no invariant is called {other}"))),
    })
}
