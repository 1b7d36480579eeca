//! Invariants: each is a query that finds nothing in a sound database.
//!
//! Statements about messages read one slice, a range of ids of one shard, along primary keys: their time is bounded
//! whatever the planner believes about the tables.

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::TryStreamExt as _;

use super::Conn;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::UNCALLED_ENDINGS;
use crate::model::lane::Lane;
use crate::model::stats::CountTotals;
use crate::model::stream::StoredEvent;

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
    /// A slice of messages, with everything under them.
    Slice,
    /// The whole database: it compares messages with each other, or is about other tables.
    All,
    /// As `All`, and it needs what a check of all slices has gathered.
    AllSlices,
}

/// All invariants in the order in which they are checked: name, meaning, scope.
pub const INVARIANTS: [(&str, &str, Scope); 29] = [
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
    ("turn", "no delivery waits while later ones of its lane are claimed", Scope::AllSlices),
    ("moving", "no channel stands still while its providers are available", Scope::AllSlices),
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
    ("stats", "the statistics are what a recount gives", Scope::AllSlices),
    // These read all users and all items, so they are left out of the rounds of a watch.
    ("inbox", "an item is in an inbox if its delivery arrived, and only then", Scope::AllSlices),
    ("heads", "the stream of a user or a room is numbered without gaps up to its head", Scope::AllSlices),
    ("rooms", "the head of a room agrees with its members, messages and marks", Scope::AllSlices),
    ("users", "users are on the shards of their partners, and nothing is left of deleted ones", Scope::AllSlices),
];

/// Messages of a shard with ids from `from` up to, not including, `to`, with everything under them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slice {
    pub shard: i16,
    pub from: Tsid,
    pub to: Tsid,
}

impl Slice {
    /// All messages of a shard.
    pub fn all(shard: i16) -> Slice {
        Slice::since(shard, Tsid(i64::MIN))
    }

    /// Messages of a shard from this one on.
    pub fn since(shard: i16, from: Tsid) -> Slice {
        Slice { shard, from, to: Tsid(i64::MAX) }
    }
}

/// The shards that have rows, ascending: not only those of partners, because a row may be on a wrong shard.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn shards(conn: &mut Conn) -> Result<Vec<i16>> {
    let (mut shards, mut last) = (Vec::new(), i16::MIN);
    while let Some(next) = sqlx::query_file_scalar!("sql/fsck/next_shard.sql", last).fetch_one(&mut *conn).await? {
        shards.push(next);
        last = next;
    }
    Ok(shards)
}

/// Cuts a range of messages of a shard into consecutive slices of about `deliveries` deliveries, more by those of one
/// message at most. Boundaries are found by walking the primary key, not from statistics.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn slices(conn: &mut Conn, range: Slice, deliveries: i64) -> Result<Vec<Slice>> {
    let (mut slices, mut rest) = (Vec::new(), range);
    let mut passed = range.from.0.saturating_sub(1);
    loop {
        let cut = sqlx::query_file_scalar!("sql/fsck/next_cut.sql", range.shard, passed, deliveries);
        let Some(cut) = cut.fetch_optional(&mut *conn).await?.filter(|cut| *cut < range.to.0) else { break };
        slices.push(Slice { to: Tsid(cut), ..rest });
        rest.from = Tsid(cut);
        passed = cut;
    }
    slices.push(rest);
    Ok(slices)
}

/// Idempotency keys of a shard, after one key up to another, each as partner and clientMsgId.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlice {
    pub shard: i16,
    pub after: (Tsid, String),
    pub last: (Tsid, String),
}

/// Cuts the idempotency keys of a shard into slices of `keys`, the last one of fewer.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn key_slices(conn: &mut Conn, shard: i16, keys: i64) -> Result<Vec<KeySlice>> {
    let (mut slices, mut after) = (Vec::new(), (Tsid(i64::MIN), String::new()));
    loop {
        let next = sqlx::query_file!("sql/fsck/next_key.sql", shard, after.0.0, after.1, keys);
        let Some(next) = next.fetch_optional(&mut *conn).await? else { return Ok(slices) };
        let last = (Tsid(next.partner_id), next.client_msg_id);
        slices.push(KeySlice { shard, after, last: last.clone() });
        after = last;
    }
}

/// What a check found.
#[derive(Debug, Default)]
pub struct Violations {
    /// The first rows found, up to `limits::FSCK_FINDINGS`.
    pub findings: Vec<Finding>,
    /// Number of rows found.
    pub rows: u64,
}

impl Violations {
    /// Adds those of another slice.
    pub fn add(&mut self, other: Violations) {
        self.rows += other.rows;
        let room = limits::FSCK_FINDINGS.saturating_sub(self.findings.len());
        self.findings.extend(other.findings.into_iter().take(room));
    }
}

/// Runs a statement that finds violations.
macro_rules! find {
    ($conn:ident, $invariant:ident, $file:literal $(, $arg:expr)*) => {{
        let mut rows = sqlx::query_file!($file $(, $arg)*).fetch(&mut *$conn);
        let mut found = Violations::default();
        while let Some(row) = rows.try_next().await? {
            found.rows += 1;
            if found.findings.len() < limits::FSCK_FINDINGS {
                let message_id = Tsid(row.message_id);
                found.findings.push(Finding { invariant: $invariant, message_id, no: row.no, found: row.found });
            }
        }
        found
    }};
}

/// Checks an invariant of `Scope::Slice` on a connection of `Store::connect_for_fsck`. `now` is the hub's time.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` for the name of no such invariant.
pub async fn check_slice(
    conn: &mut Conn,
    invariant: &'static str,
    slice: Slice,
    now: DateTime<Utc>,
) -> Result<Violations> {
    let Slice { shard, from: Tsid(from), to: Tsid(to) } = slice;
    let uncalled = UNCALLED_ENDINGS.map(str::to_owned);
    Ok(match invariant {
        "lease" => find!(conn, invariant, "sql/fsck/lease.sql", shard, from, to),
        "attempts" => find!(conn, invariant, "sql/fsck/attempts.sql", shard, from, to),
        "in_flight" => find!(conn, invariant, "sql/fsck/in_flight.sql", shard, from, to),
        "not_sent" => find!(conn, invariant, "sql/fsck/not_sent.sql", shard, from, to),
        "sent" => find!(conn, invariant, "sql/fsck/sent.sql", shard, from, to),
        "doubt" => find!(conn, invariant, "sql/fsck/doubt.sql", shard, from, to),
        "tried" => find!(conn, invariant, "sql/fsck/tried.sql", shard, from, to, &uncalled),
        "events" => find!(conn, invariant, "sql/fsck/events.sql", shard, from, to),
        "told" => find!(conn, invariant, "sql/fsck/told.sql", shard, from, to),
        "final" => find!(conn, invariant, "sql/fsck/final.sql", shard, from, to),
        "spent" => find!(conn, invariant, "sql/fsck/spent.sql", shard, from, to),
        "stuck" => find!(conn, invariant, "sql/fsck/stuck.sql", shard, from, to, now),
        "put_off" => find!(conn, invariant, "sql/fsck/put_off.sql", shard, from, to),
        "whole" => find!(conn, invariant, "sql/fsck/whole.sql", shard, from, to),
        "keys" => find!(conn, invariant, "sql/fsck/keys.sql", shard, from, to),
        "shards" => find!(conn, invariant, "sql/fsck/shards.sql", shard, from, to),
        "notices" => find!(conn, invariant, "sql/fsck/notices.sql", shard, from, to),
        "receipts" => find!(conn, invariant, "sql/fsck/receipts.sql", shard, from, to),
        "fallback" => find!(conn, invariant, "sql/fsck/fallback.sql", shard, from, to),
        other => return Err(Error::Internal(format!("no invariant of a slice is called {other}"))),
    })
}

/// Finds idempotency keys of messages in `range` that lead to no message: the other half of the invariant `keys`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn check_keys(conn: &mut Conn, slice: &KeySlice, range: Slice) -> Result<Violations> {
    let (KeySlice { shard, after, last }, invariant) = (slice, "keys");
    let (from, to) = (range.from.0, range.to.0);
    Ok(find!(conn, invariant, "sql/fsck/keys_back.sql", shard, after.0.0, after.1, last.0.0, last.1, from, to))
}

/// A fingerprint of idempotency keys of messages in one stretch of ids, which does not depend on their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMark {
    /// The number of the stretch: messages with ids from `stretch << limits::FSCK_STRETCH_BITS` on.
    pub stretch: i64,
    pub keys: i64,
    /// Hashes of all keys, combined by exclusive or.
    pub mark: i64,
}

/// Fingerprints of the keys that the messages of a slice should have. Far cheaper than looking each of them up.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn message_marks(conn: &mut Conn, slice: Slice) -> Result<Vec<KeyMark>> {
    let bits = limits::FSCK_STRETCH_BITS;
    let rows = sqlx::query_file!("sql/fsck/message_marks.sql", slice.shard, slice.from.0, slice.to.0, bits);
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(|row| KeyMark { stretch: row.stretch, keys: row.keys, mark: row.mark }).collect())
}

/// Fingerprints of the keys of a slice that belong to messages below `to`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn key_marks(conn: &mut Conn, slice: &KeySlice, to: Tsid) -> Result<Vec<KeyMark>> {
    let (KeySlice { shard, after, last }, bits) = (slice, limits::FSCK_STRETCH_BITS);
    let rows = sqlx::query_file!("sql/fsck/key_marks.sql", shard, after.0.0, after.1, last.0.0, last.1, to.0, bits);
    let rows = rows.fetch_all(conn).await?.into_iter();
    Ok(rows.map(|row| KeyMark { stretch: row.stretch, keys: row.keys, mark: row.mark }).collect())
}

/// The latest signs of life of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneEvidence {
    pub lane: Lane,
    /// The latest `ready_at` of a delivery that was claimed.
    pub ready_at: Option<DateTime<Utc>>,
    /// The latest call.
    pub called_at: Option<DateTime<Utc>>,
}

/// Signs of life of each lane in a slice, from attempts that were claimed or called after `since`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn evidence(conn: &mut Conn, slice: Slice, since: DateTime<Utc>) -> Result<Vec<LaneEvidence>> {
    let rows = sqlx::query_file!("sql/fsck/evidence.sql", slice.shard, slice.from.0, slice.to.0, since);
    let rows = rows.fetch_all(conn).await?.into_iter();
    let lane = |lane, ready_at, called_at| LaneEvidence { lane: Lane(lane), ready_at, called_at };
    Ok(rows.map(|row| lane(row.lane, row.ready_at, row.called_at)).collect())
}

/// Deliveries of a partner, day, lane and provider, counted as statistics are.
#[derive(Debug, Clone)]
pub struct Recount {
    pub partner_id: Tsid,
    /// The day of settling; none: not settled.
    pub date: Option<NaiveDate>,
    pub lane: Lane,
    pub provider: Option<String>,
    pub deliveries: i64,
    pub sums: CountTotals,
}

/// Counts the deliveries of a slice.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn recount(conn: &mut Conn, slice: Slice) -> Result<Vec<Recount>> {
    let rows = sqlx::query_file!("sql/fsck/recount.sql", slice.shard, slice.from.0, slice.to.0).fetch_all(conn).await?;
    let count = |total, success, failed| CountTotals { total, success, failed };
    Ok(rows
        .into_iter()
        .map(|row| Recount {
            partner_id: Tsid(row.partner_id),
            date: row.stat_date,
            lane: Lane(row.lane),
            provider: row.provider,
            deliveries: row.deliveries,
            sums: count(row.total, row.success, row.failed),
        })
        .collect())
}

/// The statistics of a partner, day and message type, less those of dropped deliveries.
#[derive(Debug, Clone)]
pub struct Counted {
    pub partner_id: Tsid,
    pub date: NaiveDate,
    pub message_type: String,
    pub sums: CountTotals,
}

/// All statistics that a recount of deliveries has to give.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn counted(conn: &mut Conn) -> Result<Vec<Counted>> {
    let rows = sqlx::query_file!("sql/fsck/counted.sql", &super::stats::lane_types()).fetch_all(conn).await?;
    let count = |total, success, failed| CountTotals { total, success, failed };
    Ok(rows
        .into_iter()
        .map(|row| Counted {
            partner_id: Tsid(row.partner_id),
            date: row.stat_date,
            message_type: row.message_type,
            sums: count(row.total, row.success, row.failed),
        })
        .collect())
}

/// Since when the oldest PENDING delivery is ready.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn oldest_pending(conn: &mut Conn) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_file_scalar!("sql/fsck/oldest_pending.sql").fetch_one(conn).await?)
}

/// What the slices of a complete check have shown about the whole database.
#[derive(Debug, Default)]
pub struct WholeFacts {
    /// Of each shard and lane with claims: the latest `ready_at` of a claimed delivery.
    pub claimed: Vec<(i16, Lane, DateTime<Utc>)>,
    /// Channels with a call since five minutes before the check.
    pub called: Vec<String>,
    /// Channels and the providers that have deliveries of them.
    pub serves: Vec<(String, String)>,
    /// Partners whose statistics differ from the recount of the slices. Perhaps only because deliveries were settled
    /// meanwhile.
    pub doubtful: Vec<Tsid>,
}

/// Checks an invariant of `Scope::All` on a connection of `Store::connect_for_fsck`. `began` is the hub's time when the
/// first slice was read.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; `Error::Internal` for the name of no such invariant.
pub async fn check_all(
    conn: &mut Conn,
    invariant: &'static str,
    facts: &WholeFacts,
    began: DateTime<Utc>,
) -> Result<Violations> {
    let types = super::stats::lane_types();
    Ok(match invariant {
        "turn" => {
            let shards: Vec<i16> = facts.claimed.iter().map(|c| c.0).collect();
            let lanes: Vec<i16> = facts.claimed.iter().map(|c| c.1.0).collect();
            let ready: Vec<DateTime<Utc>> = facts.claimed.iter().map(|c| c.2).collect();
            find!(conn, invariant, "sql/fsck/turn.sql", &shards, &lanes, &ready)
        }
        "moving" => {
            let (channels, providers): (Vec<String>, Vec<String>) = facts.serves.iter().cloned().unzip();
            find!(conn, invariant, "sql/fsck/moving.sql", began, &types, &facts.called, &channels, &providers)
        }
        "nets" => find!(conn, invariant, "sql/fsck/nets.sql"),
        "relayed" => find!(conn, invariant, "sql/fsck/relayed.sql"),
        "unapplied" => find!(conn, invariant, "sql/fsck/unapplied.sql", began),
        "inbox" => find!(conn, invariant, "sql/fsck/inbox.sql"),
        "heads" => {
            let since = began - limits::STREAM_CHECKED;
            let moved = StoredEvent::ItemMoved.as_str();
            find!(conn, invariant, "sql/fsck/heads.sql", since, Tsid::floor(since).0, moved)
        }
        "rooms" => find!(conn, invariant, "sql/fsck/rooms.sql"),
        "users" => find!(conn, invariant, "sql/fsck/users.sql"),
        "stats" if facts.doubtful.is_empty() => Violations::default(),
        "stats" => {
            let partners: Vec<i64> = facts.doubtful.iter().map(|partner| partner.0).collect();
            find!(conn, invariant, "sql/fsck/stats.sql", &types, &partners)
        }
        other => return Err(Error::Internal(format!("no invariant of the whole database is called {other}"))),
    })
}
