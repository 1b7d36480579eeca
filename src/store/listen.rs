//! Notices between processes: which lanes just got something, who posts much, that a partner changed. Only hints; polling,
//! and a short memory, are the guarantee. Sent on a connection
//! outside any transaction: inside one, NOTIFY takes a lock over the whole database at commit. (Runtime queries: the
//! channel's name is not a parameter.)

use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;

use super::{Db, Store};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::fairness::AcceptedCount;
use crate::model::lane::Lane;
use crate::model::watermark::{ReadyHints, ShardLane};

/// NOTIFY takes less than 8,000 bytes; a hint that would be longer names nothing and so means: look everywhere.
const PAYLOAD_BYTES: usize = 7_900;

pub async fn hint(store: &Store, from: Tsid, ready: &ReadyHints) -> Result<()> {
    let place = |(place, since): (&ShardLane, &DateTime<Utc>)| {
        format!("{}:{}:{}", place.0, place.1.0, since.timestamp_micros())
    };
    let places = ready.places.iter().map(place).collect::<Vec<_>>().join(",");
    let places = if places.len() > PAYLOAD_BYTES || ready.hints_lost { String::new() } else { places };
    let payload = format!("{from};{places}");
    tell(store.engine(), Topic::Ready, payload).await
}

/// A partner or a key changed: whoever remembers one reads it again. After the commit.
pub async fn tell_changed(store: &Store) -> Result<()> {
    tell(store.api(), Topic::Changed, String::new()).await
}

async fn tell(db: impl Db<'_>, topic: Topic, payload: String) -> Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(topic.channel()).bind(payload).execute(db).await?;
    Ok(())
}

/// Whom a process accepts much from. What does not fit is left out: the largest come first.
pub async fn tell_shares(store: &Store, from: Tsid, mut shares: Vec<AcceptedCount>) -> Result<()> {
    shares.sort_by_key(|share| std::cmp::Reverse(share.count));
    let mut payload = format!("{from};");
    for AcceptedCount { partner_id, place, count } in shares {
        let share = format!("{}:{}:{}:{count},", partner_id.0, place.0, place.1.0);
        if payload.len() + share.len() > PAYLOAD_BYTES {
            break;
        }
        payload.push_str(&share);
    }
    tell(store.engine(), Topic::Shares, payload).await
}

fn read_share(text: &str) -> Option<AcceptedCount> {
    let mut parts = text.splitn(4, ':');
    let (partner, shard, lane, count) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let place = (shard.parse().ok()?, Lane(lane.parse().ok()?));
    Some(AcceptedCount { partner_id: Tsid(partner.parse().ok()?), place, count: count.parse().ok()? })
}

/// Sends this process a notice over the engine's sessions: its listener proves itself by hearing it.
pub async fn call_self(store: &Store, from: Tsid) -> Result<()> {
    tell(store.engine(), Topic::Proof, format!("{from};")).await
}

/// What a process said to the others.
pub enum Notification {
    /// Something became ready.
    Ready { from: Tsid, ready: ReadyHints },
    /// Whom it accepts much from.
    Shares { from: Tsid, shares: Vec<AcceptedCount> },
    /// A partner or a key is not what it was.
    Changed,
    /// A process proves its listener, and thereby every other's.
    Proof,
    /// The connection was lost for a moment: something may have been said meanwhile.
    Missed,
}

/// What a listener wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Ready,
    Shares,
    Changed,
    Proof,
}

impl Topic {
    fn channel(self) -> &'static str {
        match self {
            Topic::Ready => "notihub_ready",
            Topic::Shares => "notihub_shares",
            Topic::Changed => "notihub_changed",
            Topic::Proof => "notihub_proof",
        }
    }
}

/// One connection that hears all its topics.
pub struct Listener(PgListener);

impl Listener {
    pub async fn open(store: &Store, topics: &[Topic]) -> Result<Listener> {
        let mut listener = PgListener::connect_with(store.listen()).await?;
        listener.listen_all(topics.iter().map(|topic| topic.channel())).await?;
        Ok(Listener(listener))
    }

    /// The next of them. Cancel-safe.
    pub async fn next(&mut self) -> Result<Notification> {
        let Some(notice) = self.0.try_recv().await? else { return Ok(Notification::Missed) };
        if notice.channel() == Topic::Changed.channel() {
            return Ok(Notification::Changed);
        }
        if notice.channel() == Topic::Proof.channel() {
            return Ok(Notification::Proof);
        }
        let (from, said) = notice.payload().split_once(';').unwrap_or_default();
        // What cannot be read is taken as: somebody else, anywhere.
        let from = from.parse().unwrap_or(Tsid(0));
        if notice.channel() == Topic::Shares.channel() {
            return Ok(Notification::Shares { from, shares: said.split(',').filter_map(read_share).collect() });
        }
        let mut ready = ReadyHints::default();
        said.split(',').filter_map(read_place).for_each(|(place, since)| ready.add(place, since));
        ready.hints_lost = ready.places.is_empty();
        Ok(Notification::Ready { from, ready })
    }
}

fn read_place(text: &str) -> Option<(ShardLane, DateTime<Utc>)> {
    let mut parts = text.splitn(3, ':');
    let (shard, lane, micros) = (parts.next()?, parts.next()?, parts.next()?);
    let since = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
    Some(((shard.parse().ok()?, Lane(lane.parse().ok()?)), since))
}
