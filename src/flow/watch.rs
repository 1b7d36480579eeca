//! Watch: the events of a message as they happen, as webhooks have them. All messages that this process watches are
//! read by one statement.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::hub::watches::{MessageNews, Watch};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::STATUSES;
use crate::model::event::{ACCEPTED_SEQ, COMPLETED_SEQ, EventKind, EventPayload, EventSubject, WHOLE_MESSAGE_NO};
use crate::model::message::OverallStatus;
use crate::model::partner::Partner;
use crate::store;

/// A watched message.
pub struct WatchedMessage {
    pub subject: EventSubject,
    /// Its events so far.
    pub news: MessageNews,
    pub watch: Watch,
}

/// Watches a message of this partner.
///
/// # Errors
/// `Error::NotFound` if the partner has no such message. `Error::Busy` if this process watches as many messages as it
/// may. `Error::Unavailable` if the database cannot be reached.
pub async fn open(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<WatchedMessage> {
    let key = (partner.shard, message_id);
    let db = hub.store.api();
    let message = store::message::get(db, &hub.keyring, partner.partner_id, partner.shard, message_id).await?;
    let message = message.ok_or(Error::NotFound)?;
    // Before the read: an event that is committed during it is in the next news at the latest.
    let watch = hub.watches.watch(key).ok_or(Error::Busy("this process watches as many messages as it may"))?;
    let news = read(hub, &[(key.0, key.1, DateTime::UNIX_EPOCH)]).await?.remove(&key).ok_or(Error::NotFound)?;
    let subject = EventSubject {
        partner_id: partner.partner_id,
        message_id,
        has_message: true,
        kind: Some(message.kind),
        client_msg_id: message.client_msg_id,
        content: None,
    };
    Ok(WatchedMessage { subject, news, watch })
}

/// Where the reads of watched messages have come.
#[derive(Debug, Default)]
pub struct WatchPosition(HashMap<(i16, Tsid), DateTime<Utc>>);

/// Reads the new events of all watched messages, and passes them on.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the next run reads the same events.
pub async fn send_news(hub: &Hub, position: &mut WatchPosition) -> Result<()> {
    let watched = hub.watches.all();
    if watched.is_empty() {
        position.0.clear();
        return Ok(());
    }
    let known: HashSet<(i16, Tsid)> = watched.iter().copied().collect();
    position.0.retain(|key, _| known.contains(key));
    let since = |key: &(i16, Tsid)| position.0.get(key).copied().unwrap_or(DateTime::UNIX_EPOCH);
    let asked: Vec<(i16, Tsid, DateTime<Utc>)> = watched.iter().map(|key| (key.0, key.1, since(key))).collect();
    for (key, news) in read(hub, &asked).await? {
        let last = news.events.iter().map(|event| event.occurred_at).max();
        // An event may be committed later than one that happened after it.
        position.0.extend(last.map(|last| (key, last - limits::WATCH_AGAIN)));
        hub.watches.send(key, &news);
    }
    Ok(())
}

/// Events of messages from a time on. The events of the message as a whole, which are recorded only for endpoints, are
/// added where they are missing.
async fn read(hub: &Hub, asked: &[(i16, Tsid, DateTime<Utc>)]) -> Result<HashMap<(i16, Tsid), MessageNews>> {
    let db = hub.store.api();
    // In this order: the events of a message that has ended are all read after that was seen.
    let ended = store::event::ended_messages(db, &asked.iter().map(|a| (a.0, a.1)).collect()).await?;
    let rows = store::event::of_watched(db, asked).await?;
    let mut events: HashMap<(i16, Tsid), Vec<EventPayload>> = HashMap::new();
    for row in rows {
        events.entry((row.shard, row.message_id)).or_default().push(with_status(row.payload));
    }
    let mut all = HashMap::new();
    for (shard, message_id, since) in asked {
        let mut events = events.remove(&(*shard, *message_id)).unwrap_or_default();
        let has = |events: &[EventPayload], seq| events.iter().any(|e| e.no == WHOLE_MESSAGE_NO && e.seq == seq);
        if !has(&events, ACCEPTED_SEQ) && *since == DateTime::UNIX_EPOCH {
            events.insert(0, of_message(EventKind::MessageAccepted, ACCEPTED_SEQ, None, message_id.time()));
        }
        let over = ended.iter().find(|e| (e.shard, e.message_id) == (*shard, *message_id));
        if let Some(over) = over.filter(|_| !has(&events, COMPLETED_SEQ)) {
            let deliveries = over.deliveries.iter();
            let overall =
                OverallStatus::of(deliveries.map(|(chain, lane, status)| (*chain, lane.channel(), *status, 1)));
            let at = events.iter().map(|event| event.occurred_at).max().unwrap_or(*since);
            events.push(of_message(EventKind::MessageCompleted, COMPLETED_SEQ, Some(overall.as_str()), at));
        }
        all.insert((*shard, *message_id), MessageNews { events: Arc::new(events), is_over: over.is_some() });
    }
    Ok(all)
}

fn of_message(kind: EventKind, seq: i16, status: Option<&str>, at: DateTime<Utc>) -> EventPayload {
    EventPayload {
        event: kind.as_str().into(),
        no: WHOLE_MESSAGE_NO,
        seq,
        status: status.map(str::to_owned),
        occurred_at: at,
        ..EventPayload::default()
    }
}

/// Adds the status that an event reports: of the delivery, or of the message when it is complete, which is stored as
/// the event's reason.
fn with_status(event: EventPayload) -> EventPayload {
    if event.event == EventKind::MessageCompleted.as_str() {
        return EventPayload { status: event.reason, reason: None, ..event };
    }
    let reported = STATUSES.into_iter().find(|s| s.event_kind().is_some_and(|kind| kind.as_str() == event.event));
    EventPayload { status: reported.map(|status| status.as_str().to_owned()), ..event }
}
