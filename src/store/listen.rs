//! Notifications between processes over LISTEN and NOTIFY: lanes that became ready, partners that post much, changes of
//! partners, keys and users. They are hints; polling and short-lived caches are the guarantee. Sent outside any
//! transaction: inside one, NOTIFY takes a database-wide lock at commit. (Runtime queries: the channel's name cannot be
//! a parameter.)

use chrono::{DateTime, Utc};
use sqlx::postgres::PgListener;

use super::{Db, Store};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::fairness::AcceptedCount;
use crate::model::lane::Lane;
use crate::model::live::LiveNote;
use crate::model::stream::{STREAM_KINDS, StreamHints, StreamKey, StreamKind};
use crate::model::watermark::{ReadyHints, ShardLane};

/// NOTIFY takes less than 8,000 bytes. A list of places that would be longer is left empty, which means "anywhere".
const PAYLOAD_BYTES: usize = 7_900;

/// Notifies workers that deliveries became ready. `from` is the process that sends, so that it can ignore its own
/// notification.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_ready(store: &Store, from: Tsid, ready: &ReadyHints) -> Result<()> {
    let place = |(place, since): (&ShardLane, &DateTime<Utc>)| {
        format!("{}:{}:{}", place.0, place.1.0, since.timestamp_micros())
    };
    let places = ready.places.iter().map(place).collect::<Vec<_>>().join(",");
    let places = if places.len() > PAYLOAD_BYTES || ready.hints_lost { String::new() } else { places };
    let payload = format!("{from};{places}");
    notify(store.engine(), Topic::Ready, payload).await
}

/// Notifies all processes that a partner or an API key changed, so that they reload it. Call it after the commit.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_changed(store: &Store) -> Result<()> {
    notify(store.api(), Topic::Changed, String::new()).await
}

/// Notifies all processes that these users, or sign-ins of theirs, changed, so that they forget them. Call it after the
/// commit.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_users(store: &Store, users: &[Tsid]) -> Result<()> {
    let payload = users.iter().map(Tsid::to_string).collect::<Vec<_>>().join(",");
    notify(store.api(), Topic::Users, if payload.len() > PAYLOAD_BYTES { String::new() } else { payload }).await
}

async fn notify(db: impl Db<'_>, topic: Topic, payload: String) -> Result<()> {
    sqlx::query("select pg_notify($1, $2)").bind(topic.channel()).bind(payload).execute(db).await?;
    Ok(())
}

/// Notifies other processes how much this one accepted from each partner. The largest come first; the rest is left out
/// if it does not fit.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_shares(store: &Store, from: Tsid, mut shares: Vec<AcceptedCount>) -> Result<()> {
    shares.sort_by_key(|share| std::cmp::Reverse(share.count));
    let mut payload = format!("{from};");
    for AcceptedCount { partner_id, place, count } in shares {
        let share = format!("{}:{}:{}:{count},", partner_id.0, place.0, place.1.0);
        if payload.len() + share.len() > PAYLOAD_BYTES {
            break;
        }
        payload.push_str(&share);
    }
    notify(store.engine(), Topic::Shares, payload).await
}

fn read_share(text: &str) -> Option<AcceptedCount> {
    let mut parts = text.splitn(4, ':');
    let (partner, shard, lane, count) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let place = (shard.parse().ok()?, Lane(lane.parse().ok()?));
    Some(AcceptedCount { partner_id: Tsid(partner.parse().ok()?), place, count: count.parse().ok()? })
}

/// Notifies other processes of the numbers that streams have reached. A list that would be too long is left empty,
/// which means "any stream". Call it after the commits.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_streams(store: &Store, from: Tsid, hints: &StreamHints) -> Result<()> {
    let head = |(key, seq): (&StreamKey, &i64)| format!("{}{}.{}:{seq}", stream_letter(key.kind), key.shard, key.id.0);
    let heads = hints.heads.iter().map(head).collect::<Vec<_>>().join(",");
    let heads = if heads.len() > PAYLOAD_BYTES || hints.hints_lost { String::new() } else { heads };
    notify(store.engine(), Topic::Streams, format!("{from};{heads}")).await
}

fn stream_letter(kind: StreamKind) -> char {
    match kind {
        StreamKind::User => 'u',
        StreamKind::Room => 'r',
    }
}

fn read_stream(text: &str) -> Option<(StreamKey, i64)> {
    let kind = STREAM_KINDS.into_iter().find(|kind| text.starts_with(stream_letter(*kind)))?;
    let (shard, rest) = text.get(1..)?.split_once('.')?;
    let (id, seq) = rest.split_once(':')?;
    Some((StreamKey { kind, shard: shard.parse().ok()?, id: Tsid(id.parse().ok()?) }, seq.parse().ok()?))
}

/// Notifies other processes of live notes. What does not fit is dropped.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_live(store: &Store, from: Tsid, notes: &[LiveNote]) -> Result<()> {
    let mut payload = format!("{from};");
    for note in notes {
        let note = note.encode();
        if payload.len() + note.len() + 1 > PAYLOAD_BYTES {
            break;
        }
        payload.push_str(&note);
        payload.push(',');
    }
    notify(store.engine(), Topic::Live, payload).await
}

/// Sends an echo over the engine's sessions: a listener that receives its own echo works.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; the notification may have been
/// sent.
pub async fn notify_self(store: &Store, from: Tsid) -> Result<()> {
    notify(store.engine(), Topic::Echo, format!("{from};")).await
}

/// A notification from a process, possibly this one.
pub enum Notification {
    /// Deliveries became ready in these places.
    Ready { from: Tsid, ready: ReadyHints },
    /// How much the process accepted from each partner.
    Shares { from: Tsid, shares: Vec<AcceptedCount> },
    /// Streams have reached these numbers.
    Streams { from: Tsid, hints: StreamHints },
    /// What happens in rooms and is stored nowhere.
    Live { from: Tsid, notes: Vec<LiveNote> },
    /// A partner or an API key changed.
    Changed,
    /// These users, or sign-ins of theirs, changed. Empty: perhaps every user.
    Users(Vec<Tsid>),
    /// An echo, from `notify_self` of any process.
    Echo,
    /// The connection was lost; notifications may have been missed.
    Missed,
}

/// A kind of notification to listen to; one NOTIFY channel each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    Ready,
    Shares,
    Changed,
    Streams,
    Live,
    Users,
    Echo,
}

impl Topic {
    fn channel(self) -> &'static str {
        match self {
            Topic::Ready => "notihub_ready",
            Topic::Shares => "notihub_shares",
            Topic::Changed => "notihub_changed",
            Topic::Streams => "notihub_streams",
            Topic::Live => "notihub_live",
            Topic::Users => "notihub_users",
            Topic::Echo => "notihub_proof",
        }
    }
}

/// A connection that listens to topics.
pub struct Listener(PgListener);

impl Listener {
    /// Opens a connection of the listeners' pool and listens to the topics.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached or does not answer in time.
    pub async fn open(store: &Store, topics: &[Topic]) -> Result<Listener> {
        let mut listener = PgListener::connect_with(store.listen()).await?;
        listener.listen_all(topics.iter().map(|topic| topic.channel())).await?;
        Ok(Listener(listener))
    }

    /// Waits for the next notification. Cancel-safe. After `Missed` it listens again by itself.
    ///
    /// # Errors
    /// `Error::Unavailable` if the connection was lost and cannot be made again.
    pub async fn next(&mut self) -> Result<Notification> {
        let Some(notification) = self.0.try_recv().await? else { return Ok(Notification::Missed) };
        if notification.channel() == Topic::Changed.channel() {
            return Ok(Notification::Changed);
        }
        if notification.channel() == Topic::Users.channel() {
            // An id that cannot be read names no user.
            let ids = notification.payload().split(',').filter_map(|id| id.parse().ok());
            return Ok(Notification::Users(ids.collect()));
        }
        if notification.channel() == Topic::Echo.channel() {
            return Ok(Notification::Echo);
        }
        let (from, content) = notification.payload().split_once(';').unwrap_or_default();
        // A payload that cannot be read counts as one of another process, about any place.
        let from = from.parse().unwrap_or(Tsid(0));
        if notification.channel() == Topic::Live.channel() {
            return Ok(Notification::Live { from, notes: content.split(',').filter_map(LiveNote::parse).collect() });
        }
        if notification.channel() == Topic::Shares.channel() {
            return Ok(Notification::Shares { from, shares: content.split(',').filter_map(read_share).collect() });
        }
        if notification.channel() == Topic::Streams.channel() {
            let mut hints = StreamHints::default();
            content.split(',').filter_map(read_stream).for_each(|(key, seq)| hints.add(key, seq));
            hints.hints_lost = hints.heads.is_empty();
            return Ok(Notification::Streams { from, hints });
        }
        let mut ready = ReadyHints::default();
        content.split(',').filter_map(read_place).for_each(|(place, since)| ready.add(place, since));
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
