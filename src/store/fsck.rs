//! The invariants, each a query that must find nothing.

use chrono::{DateTime, Utc};
use futures_util::TryStreamExt as _;

use super::{Conn, partition};
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::UNCALLED_ENDINGS;

/// One row that should not be.
#[derive(Debug, Clone)]
pub struct Finding {
    pub invariant: &'static str,
    pub message_id: Tsid,
    pub no: i16,
    pub found: String,
}

/// What an invariant is checked of at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Some of the messages, with all under them.
    Slice,
    /// Everything: it compares messages with each other, or is about other tables.
    All,
}

/// All invariants by name, in the order they are checked.
pub const INVARIANTS: [(&str, &str, Reach); 25] = [
    ("lease", "a status and its lease agree", Reach::Slice),
    ("attempts", "attempts are 1..n without gaps", Reach::Slice),
    ("in_flight", "at most one attempt in flight, and only the newest", Reach::Slice),
    ("not_sent", "never FAILED, EXPIRED or CANCELED of something a provider took or may have taken", Reach::Slice),
    ("sent", "SENT and DELIVERED only with an accepted attempt, and the reverse", Reach::Slice),
    ("doubt", "an attempt of unknown outcome is never forgotten", Reach::Slice),
    ("tried", "FAILED and UNDETERMINED were tried", Reach::Slice),
    ("events", "events are numbered without gaps", Reach::Slice),
    ("told", "one event for each promised transition", Reach::Slice),
    ("final", "terminal is final, except upwards by evidence, and dead letters that somebody asks for", Reach::Slice),
    ("spent", "nothing waits for an attempt it may not make", Reach::Slice),
    ("stuck", "what is due moves", Reach::Slice),
    ("turn", "nothing waits while its lane goes on", Reach::All),
    ("moving", "no channel stands still while its providers are well", Reach::All),
    ("put_off", "the hub itself puts nothing off for long", Reach::Slice),
    ("whole", "a message and all under it are there together", Reach::Slice),
    ("keys", "a key leads to its message, and back", Reach::Slice),
    ("shards", "everything lives on its partner's shard", Reach::Slice),
    ("nets", "nothing in the default partitions", Reach::All),
    ("notices", "endpoints are told of what happened", Reach::Slice),
    ("relayed", "what was enqueued in SQL does not stay there", Reach::All),
    ("receipts", "what providers told is in the books", Reach::Slice),
    ("unapplied", "no receipt that can be applied waits", Reach::All),
    ("fallback", "what takes another's place does so once", Reach::Slice),
    ("stats", "the statistics are what a recount gives", Reach::All),
];

/// Messages by id, from the first up to, not including, the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice(pub Tsid, pub Tsid);

impl Slice {
    pub const ALL: Slice = Slice(Tsid(i64::MIN), Tsid(i64::MAX));
}

/// All messages in slices that follow each other: whole weeks, as many together as have up to `most_bytes` of rows. A
/// larger week is a slice of its own.
///
/// # Errors
///
/// `Unavailable` if the database cannot be reached.
pub async fn slices(conn: &mut Conn, most_bytes: i64) -> Result<Vec<Slice>> {
    let (mut slices, mut from, mut bytes) = (Vec::new(), Slice::ALL.0, 0);
    for week in partition::sizes(conn).await? {
        if bytes > 0 && week.bytes > 0 && bytes + week.bytes > most_bytes {
            slices.push(Slice(from, week.first));
            (from, bytes) = (week.first, 0);
        }
        bytes += week.bytes;
    }
    slices.push(Slice(from, Slice::ALL.1));
    Ok(slices)
}

/// What an invariant found.
#[derive(Debug, Default)]
pub struct Violations {
    /// The first of them.
    pub findings: Vec<Finding>,
    pub rows: u64,
}

/// Checks one invariant on a connection of `Store::checking`: of the messages in `slice`, or as a whole where that is its
/// reach. Keeps up to `limits::FSCK_FINDINGS` of the rows it finds.
///
/// # Errors
///
/// `Unavailable` if the database cannot be reached; `Internal` for a name that is not in `INVARIANTS`.
pub async fn check(conn: &mut Conn, invariant: &'static str, slice: Slice, now: DateTime<Utc>) -> Result<Violations> {
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
    let types = super::stats::types();
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
