//! Hints between processes: which lanes just got something. Only hints; polling is the guarantee. Sent on a connection
//! outside any transaction: inside one, NOTIFY takes a lock over the whole database at commit. (Runtime queries: the
//! channel's name is not a parameter.)

use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;

use super::Store;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::fairness::Share;
use crate::model::lane::Lane;
use crate::model::watermark::{Place, Ready};

const CHANNEL: &str = "notihub_ready";
const SHARES: &str = "notihub_shares";
/// NOTIFY takes less than 8,000 bytes; a hint that would be longer names nothing and so means: look everywhere.
const PAYLOAD_BYTES: usize = 7_900;

pub async fn hint(store: &Store, from: Tsid, ready: &Ready) -> Result<()> {
    let place =
        |(place, since): (&Place, &DateTime<Utc>)| format!("{}:{}:{}", place.0, place.1.0, since.timestamp_micros());
    let places = ready.places.iter().map(place).collect::<Vec<_>>().join(",");
    let places = if places.len() > PAYLOAD_BYTES || ready.anywhere { String::new() } else { places };
    let payload = format!("{from};{places}");
    sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(store.engine()).await?;
    Ok(())
}

/// Whom a process accepts much from. What does not fit is left out: the largest come first.
pub async fn tell_shares(store: &Store, from: Tsid, mut shares: Vec<Share>) -> Result<()> {
    shares.sort_by_key(|share| std::cmp::Reverse(share.count));
    let mut payload = format!("{from};");
    for Share { partner_id, place, count } in shares {
        let share = format!("{}:{}:{}:{count},", partner_id.0, place.0, place.1.0);
        if payload.len() + share.len() > PAYLOAD_BYTES {
            break;
        }
        payload.push_str(&share);
    }
    sqlx::query("select pg_notify($1, $2)").bind(SHARES).bind(payload).execute(store.engine()).await?;
    Ok(())
}

/// What other processes say of whom they accept much from.
pub struct Shares(PgListener);

impl Shares {
    pub async fn open(store: &Store) -> Result<Shares> {
        let mut listener = PgListener::connect_with(store.listen()).await?;
        listener.listen(SHARES).await?;
        Ok(Shares(listener))
    }

    /// Who said it, and what.
    pub async fn next(&mut self) -> Result<(Tsid, Vec<Share>)> {
        let notice = self.0.recv().await?;
        let (from, shares) = notice.payload().split_once(';').unwrap_or_default();
        Ok((from.parse().unwrap_or(Tsid(0)), shares.split(',').filter_map(read_share).collect()))
    }
}

fn read_share(text: &str) -> Option<Share> {
    let mut parts = text.splitn(4, ':');
    let (partner, shard, lane, count) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let place = (shard.parse().ok()?, Lane(lane.parse().ok()?));
    Some(Share { partner_id: Tsid(partner.parse().ok()?), place, count: count.parse().ok()? })
}

/// What a process said: it wakes others, and knows its own voice.
pub struct Hint {
    pub from: Tsid,
    pub ready: Ready,
}

pub struct Hints(PgListener);

impl Hints {
    pub async fn open(store: &Store) -> Result<Hints> {
        let mut listener = PgListener::connect_with(store.listen()).await?;
        listener.listen(CHANNEL).await?;
        Ok(Hints(listener))
    }

    /// The next hint; none when the connection was lost meanwhile and hints may have been missed. Cancel-safe.
    pub async fn next(&mut self) -> Result<Option<Hint>> {
        let Some(notice) = self.0.try_recv().await? else { return Ok(None) };
        let (from, places) = notice.payload().split_once(';').unwrap_or_default();
        let mut ready = Ready::default();
        for (place, since) in places.split(',').filter_map(read_place) {
            ready.add(place, since);
        }
        ready.anywhere = ready.places.is_empty();
        // What cannot be read is taken as: somebody else, anywhere.
        Ok(Some(Hint { from: from.parse().unwrap_or(Tsid(0)), ready }))
    }
}

fn read_place(text: &str) -> Option<(Place, DateTime<Utc>)> {
    let mut parts = text.splitn(3, ':');
    let (shard, lane, micros) = (parts.next()?, parts.next()?, parts.next()?);
    let since = DateTime::from_timestamp_micros(micros.parse().ok()?)?;
    Some(((shard.parse().ok()?, Lane(lane.parse().ok()?)), since))
}
