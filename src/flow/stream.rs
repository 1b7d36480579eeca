//! Streams: brings new events to the live connections of this process. A connection opens a stream with the position
//! that it has, or without one; from then on it gets every event once and in order, or has to begin anew.
//!
//! One reader per process: streams that are due are read together, one round at a time, so that under load rounds grow
//! instead of waiting for each other. A hint that was lost is found by the sweep.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use data_encoding::BASE32HEX_NOPAD;
use sha2::{Digest as _, Sha256};

use super::inbox::{self, UserKey};
use super::room;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::streams::Listener;
use crate::id::Tsid;
use crate::limits;
use crate::model::inbox::InboxCounts;
use crate::model::stream::{
    EventBody, ResetReason, StreamEvent, StreamHints, StreamKey, StreamKind, StreamNews, StreamTail, parse_position,
};
use crate::shutdown::seeded_defect;
use crate::store;

/// A stream that a connection has opened.
pub struct OpenStream {
    pub epoch: Arc<str>,
    /// The position from which `listener` goes on.
    pub seq: i64,
    /// The counts at that position.
    pub counts: InboxCounts,
    /// What the connection missed; None: it gave no position.
    pub missed: Option<StreamNews>,
    pub listener: Listener,
}

/// Opens a user's stream. `position`: the last event that the client has, as it was given its id; None: from now on.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn open(hub: &Hub, user: UserKey, position: Option<&str>) -> Result<OpenStream> {
    let (key, epoch) = (StreamKey::user(user.0, user.1), epoch(hub).await?);
    let mut counts = inbox::counts(hub, user).await?;
    let (mut seq, mut missed) = (counts.seq, None);
    if let Some(position) = position {
        let after = parse_position(position).filter(|(of, _)| **of == *epoch).map(|(_, after)| after);
        let events = match after {
            None => Err(ResetReason::Epoch),
            Some(after) => {
                let read = tail(hub, key, after, limits::STREAM_REPLAY + 1).await?;
                let events = read.after(after, limits::STREAM_REPLAY + 1);
                events.and_then(|events| match events.len() {
                    n if n > limits::STREAM_REPLAY => Err(ResetReason::TooFar),
                    _ => Ok((after, events)),
                })
            }
        };
        missed = Some(match events {
            Ok((after, events)) => {
                seq = events.last().map_or(after, |event| event.seq);
                StreamNews::Events { events: events.into_iter().map(Arc::new).collect(), counts: Some(counts) }
            }
            Err(reason) => StreamNews::Reset { reason, head: seq, counts: Some(counts) },
        });
    }
    // Other connections of the stream may have got more meanwhile.
    let listener = loop {
        match hub.streams.join(key, seq) {
            Ok(listener) => break listener,
            Err(_) => {
                let more = tail(hub, key, seq, limits::STREAM_REPLAY).await?;
                counts = inbox::counts(hub, user).await?;
                match (more.after(seq, limits::STREAM_REPLAY), &mut missed) {
                    (Ok(more), Some(StreamNews::Events { events, .. })) => {
                        seq = more.last().map_or(seq, |event| event.seq);
                        events.extend(more.into_iter().map(Arc::new));
                    }
                    (Ok(more), _) => seq = more.last().map_or(seq, |event| event.seq),
                    (Err(reason), missed) => {
                        seq = counts.seq;
                        *missed = Some(StreamNews::Reset { reason, head: seq, counts: Some(counts) });
                    }
                }
            }
        }
    };
    Ok(OpenStream { epoch, seq, counts, missed, listener })
}

/// A room's stream that a connection has opened.
pub struct OpenRoom {
    pub epoch: Arc<str>,
    /// The position from which `listener` goes on.
    pub seq: i64,
    /// What the connection missed; None: it gave no position.
    pub missed: Option<std::result::Result<Vec<Arc<StreamEvent>>, ResetReason>>,
    pub listener: Listener,
}

/// Opens a room's stream. `position`: epoch and number of the last event that the client has; None: from now on.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn open_room(hub: &Hub, key: StreamKey, position: Option<(&str, i64)>) -> Result<OpenRoom> {
    let epoch = epoch(hub).await?;
    let heads = store::stream::room_heads(hub.store.api(), &[(key.shard, key.id)]).await?;
    let mut seq = heads.first().map_or(0, |(_, _, seq)| *seq);
    let mut missed = match position {
        None => None,
        Some((of, _)) if *of != *epoch => Some(Err(ResetReason::Epoch)),
        Some((_, after)) => {
            let _turn = hub.replay_turns.acquire().await;
            let events = tail(hub, key, after, limits::STREAM_REPLAY + 1).await?;
            let events = events.after(after, limits::STREAM_REPLAY + 1).and_then(|events| match events.len() {
                n if n > limits::STREAM_REPLAY => Err(ResetReason::TooFar),
                _ if text_bytes(&events) > limits::STREAM_REPLAY_BYTES => Err(ResetReason::TooFar),
                _ => Ok(events),
            });
            if let Ok(events) = &events {
                seq = events.last().map_or(after, |event| event.seq);
            }
            Some(events.map(|events| events.into_iter().map(Arc::new).collect::<Vec<_>>()))
        }
    };
    // Other connections of the stream may have got more meanwhile.
    let listener = loop {
        match hub.streams.join(key, seq) {
            Ok(listener) => break listener,
            Err(_) => {
                let more = tail(hub, key, seq, limits::STREAM_REPLAY).await?;
                let head = more.head;
                match (more.after(seq, limits::STREAM_REPLAY), &mut missed) {
                    (Ok(more), missed) => {
                        seq = more.last().map_or(seq, |event| event.seq);
                        if let Some(Ok(events)) = missed {
                            events.extend(more.into_iter().map(Arc::new));
                        }
                    }
                    (Err(reason), missed) => {
                        seq = head;
                        *missed = missed.take().map(|_| Err(reason));
                    }
                }
            }
        }
    };
    Ok(OpenRoom { epoch, seq, missed, listener })
}

/// Bytes of the texts of rooms' messages in these events.
fn text_bytes(events: &[StreamEvent]) -> usize {
    let text = |event: &StreamEvent| match &event.body {
        EventBody::Room(happened) => happened.message.as_ref().map_or(0, |message| message.content.text.len()),
        _ => 0,
    };
    events.iter().map(text).sum()
}

async fn tail(hub: &Hub, key: StreamKey, after: i64, most: usize) -> Result<StreamTail> {
    Ok(tails(hub, &[(key, after)], most).await?.remove(&key).unwrap_or_default())
}

async fn tails(hub: &Hub, after: &[(StreamKey, i64)], most: usize) -> Result<HashMap<StreamKey, StreamTail>> {
    let (users, rooms): (Vec<_>, Vec<_>) = after.iter().partition(|(key, _)| key.kind == StreamKind::User);
    let mut tails = room::tail::tails(hub, &rooms, most).await?;
    if !users.is_empty() {
        tails.extend(inbox::tails(hub, &users, most).await?);
    }
    Ok(tails)
}

/// What came after a number in a stream, in order: at most `most` events.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. Inside: the reason why the numbers do not go on.
pub async fn replay(
    hub: &Hub,
    key: StreamKey,
    after: i64,
    most: usize,
) -> Result<(i64, Result<Vec<StreamEvent>, ResetReason>)> {
    let read = tail(hub, key, after, most).await?;
    Ok((read.head, read.after(after, most)))
}

/// Reads the streams that are due and sends their events to the connections here. Returns whether more are due.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the streams are read again.
pub async fn send_due(hub: &Hub) -> Result<bool> {
    let due = hub.streams.take_due(limits::STREAM_ROUND);
    if due.is_empty() {
        return Ok(false);
    }
    let users: Vec<UserKey> = users_of(&due);
    let read = async {
        let tails = tails(hub, &due, limits::STREAM_TAIL).await?;
        let is_news = |(key, tail): (&StreamKey, &StreamTail)| key.kind == StreamKind::User && !tail.events.is_empty();
        let has_news = tails.iter().any(is_news);
        let counts = if has_news { inbox::counts_of(hub, hub.store.engine(), &users).await? } else { HashMap::new() };
        Ok::<_, Error>((tails, counts))
    };
    let (mut tails, counts) = match read.await {
        Ok(read) => read,
        Err(e) => {
            hub.streams.put_back(&due);
            return Err(e);
        }
    };
    let mut longer = StreamHints::default();
    for (key, sent) in due {
        let Some(tail) = tails.remove(&key) else { continue };
        let (head, counts) = (tail.head, counts.get(&(key.shard, key.id)).copied());
        match tail.after(sent, limits::STREAM_TAIL) {
            Ok(events) => {
                let events: Vec<Arc<StreamEvent>> = events.into_iter().map(consumed).map(Arc::new).collect();
                if events.last().is_some_and(|last| last.seq < head) {
                    longer.add(key, head);
                }
                let (handed, dropped) = hub.streams.send(key, &events, counts);
                count(hub, &events, handed, dropped);
            }
            Err(reason) => hub.streams.reset(key, head, reason, counts),
        }
    }
    hub.streams.note_here(&longer);
    Ok(!longer.heads.is_empty())
}

fn count(hub: &Hub, events: &[Arc<StreamEvent>], handed: usize, dropped: usize) {
    hub.metrics.live_events.inc_by(handed as u64);
    hub.metrics.slow_listeners.inc_by(dropped as u64);
    if let (Some(EventBody::Room(last)), true) = (events.last().map(|event| &event.body), handed > 0) {
        let took = (hub.clock.now() - last.at).to_std().unwrap_or_default();
        hub.metrics.stream_seconds.with_label_values::<&str>(&[]).observe(took.as_secs_f64());
    }
}

/// The event as this process's connections get it. The fail point `streams.shared_consumer=return(N)` seeds a defect:
/// three processes share one consumer, so process N has one event of three, and its connections get no other.
fn consumed(event: StreamEvent) -> StreamEvent {
    let process = seeded_defect("streams.shared_consumer").and_then(|process| process.parse::<i64>().ok());
    match process {
        Some(process) if event.seq % 3 != process => StreamEvent::new(event.seq, EventBody::Nothing),
        _ => event,
    }
}

fn users_of(streams: &[(StreamKey, i64)]) -> Vec<UserKey> {
    let users = streams.iter().filter(|(key, _)| key.kind == StreamKind::User);
    users.map(|(key, _)| (key.shard, key.id)).collect()
}

/// Compares all streams that are listened to with the database, and marks those as due that have gone on. Ends all
/// streams if the database's history is another one.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next sweep finds the same.
pub async fn sweep(hub: &Hub) -> Result<()> {
    let listened = hub.streams.listened();
    if listened.is_empty() {
        return Ok(());
    }
    let known = hub.streams.known_epoch();
    let epoch = read_epoch(hub).await?;
    if known.is_some_and(|known| known != epoch) {
        tracing::warn!(
            "the database's history is another one (a restored backup or a promoted standby); live clients begin anew"
        );
        hub.streams.end_all();
        return Ok(());
    }
    for some in listened.chunks(limits::STREAM_SWEEP) {
        let (users, mut behind) = (users_of(some), StreamHints::default());
        for head in store::stream::user_heads(hub.store.engine(), &users).await? {
            behind.add(StreamKey::user(head.shard, head.user_id), head.seq);
        }
        let rooms = some.iter().filter(|(key, _)| key.kind == StreamKind::Room);
        let rooms: Vec<(i16, Tsid)> = rooms.map(|(key, _)| (key.shard, key.id)).collect();
        if !rooms.is_empty() {
            for (shard, room_id, seq) in store::stream::room_heads(hub.store.engine(), &rooms).await? {
                behind.add(StreamKey::room(shard, room_id), seq);
            }
        }
        hub.metrics.streams_healed.inc_by(hub.streams.note_here(&behind) as u64);
    }
    Ok(())
}

/// The epoch: a word that stands for one history of the database. Numbers of different epochs are not comparable.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn epoch(hub: &Hub) -> Result<Arc<str>> {
    match hub.streams.fresh_epoch(Instant::now()) {
        Some(epoch) => Ok(epoch),
        None => read_epoch(hub).await,
    }
}

async fn read_epoch(hub: &Hub) -> Result<Arc<str>> {
    let db = hub.store.api();
    let (cluster, timeline) = store::stream::history(db).await?;
    let word = store::hub::get_or_create_key(db, EPOCH_WORD, &crate::crypt::random()).await?;
    let hash = Sha256::new().chain_update(cluster.to_be_bytes()).chain_update(timeline).chain_update(word).finalize();
    let epoch: Arc<str> = BASE32HEX_NOPAD.encode(&hash[..5]).to_ascii_lowercase().into();
    hub.streams.set_epoch(epoch.clone(), Instant::now());
    Ok(epoch)
}

/// The key of `hub_keys` that is part of the epoch: a restored dump keeps cluster and timeline.
pub const EPOCH_WORD: &str = "stream_epoch";
