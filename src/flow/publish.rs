//! Publish: writes an event as a message of its own, with a webhook delivery for each endpoint that asks for it. The
//! events of settled deliveries and accepted messages are published by those statements themselves
//! (`sql/delivery/settle.sql`, `sql/message/insert.sql`), in the same commit; this flow is for all other events.

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::DeliveryKey;
use crate::model::event::{COMPLETED_SEQ, EventKind, EventPayload, WHOLE_MESSAGE_NO};
use crate::model::lane::{Lane, Priority};
use crate::model::message::{Content, Detail, OverallStatus};
use crate::shutdown::may_die_at;
use crate::store::event::{EndedMessage, EndingMarks};
use crate::store::{self, Conn, message::NewWebhookMessage};

/// An event to publish.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The partner whose endpoints receive it.
    pub partner_id: Tsid,
    /// The partner's shard.
    pub shard: i16,
    /// The message that the event is about; None: no message, for example an endpoint.
    pub about: Option<Tsid>,
    /// Priority of its webhooks.
    pub priority: Priority,
    /// Its webhooks wait in the overflow lane (see `model::fairness`).
    pub overflow: bool,
    /// The body of the event.
    pub payload: EventPayload,
    /// Sends it to this endpoint only, whatever events that asks for.
    pub only: Option<Tsid>,
}

/// The webhooks that were written, to be announced after the commit.
#[derive(Debug, Default)]
pub struct Published {
    /// The webhook deliveries.
    pub deliveries: Vec<DeliveryKey>,
    places: Vec<((i16, Lane), DateTime<Utc>)>,
}

/// Writes events and their webhooks in the caller's transaction. Disabled and deleted endpoints get none. Call
/// `announce` with the result after the commit.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the caller's transaction is to be rolled back.
pub async fn publish(hub: &Hub, tx: &mut Conn, events: &[NewEvent]) -> Result<Published> {
    if events.is_empty() {
        return Ok(Published::default());
    }
    let now = hub.clock.now();
    let row = |event: &NewEvent| {
        let message_id = hub.next_id();
        let content = Content { event: Some(Box::new(event.payload.clone())), ..Content::default() };
        let detail = Detail { contents: vec![content], ..Detail::default() };
        let lane = Lane::of_events(event.priority, event.overflow);
        Ok(NewWebhookMessage {
            shard: event.shard,
            message_id,
            partner_id: event.partner_id,
            event: event.payload.event.clone(),
            priority: event.priority,
            lane,
            detail: store::message::encode_detail(&hub.keyring, message_id, &detail, false)?,
            about: event.about.unwrap_or(message_id),
            only_endpoint: event.only,
        })
    };
    let all = events.iter().map(row).collect::<Result<Vec<NewWebhookMessage>>>()?;
    let written = store::message::publish(tx, &all, now).await?;
    let places = written.iter().map(|(key, lane)| ((key.shard, *lane), now)).collect();
    Ok(Published { deliveries: written.into_iter().map(|(key, _)| key).collect(), places })
}

/// Wakes workers for published webhooks. Call it after the commit.
pub fn announce(hub: &Hub, published: &Published) {
    hub.wake.notify(published.places.iter().copied());
}

/// Checks messages of which a delivery ended, and publishes `message.completed` for those of which all deliveries
/// ended: once each, because the event has one row. Returns whether there was anything to check.
///
/// The ends of deliveries share no row of their message, which would serialise them. Each end inserts a mark in its own
/// transaction; the run that reads the last mark sees all deliveries ended.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn publish_completions(hub: &Hub) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let take = async |from| {
        let taken = store::event::take_ending_marks(&mut *tx, limits::COMPLETE_BATCH, from).await?;
        let last = taken.last_block;
        Ok((taken, last))
    };
    let EndingMarks { messages, marks, .. } = hub.tails.endings.read(take).await?;
    if marks == 0 {
        return Ok(false);
    }
    let progress = store::event::ended_messages(&mut *tx, &messages).await?;
    let is_complete =
        |s: &&EndedMessage| !s.completion_recorded && s.deliveries.iter().all(|(_, _, status)| status.is_settled());
    let overall = |s: &EndedMessage| {
        OverallStatus::of(s.deliveries.iter().map(|(chain, lane, status)| (*chain, lane.channel(), *status, 1)))
    };
    let done: Vec<(&EndedMessage, &'static str)> =
        progress.iter().filter(is_complete).map(|s| (s, overall(s).as_str())).collect();
    let fresh = store::event::record_completions(&mut *tx, &done, now).await?;
    let event = |(s, status): &(&EndedMessage, &'static str)| NewEvent {
        partner_id: s.partner_id,
        shard: s.shard,
        about: Some(s.message_id),
        priority: s.priority,
        overflow: s.deliveries.iter().all(|(_, lane, _)| lane.is_overflow()),
        payload: EventPayload {
            event: EventKind::MessageCompleted.as_str().into(),
            no: WHOLE_MESSAGE_NO,
            seq: COMPLETED_SEQ,
            status: Some((*status).to_owned()),
            occurred_at: now,
            ..EventPayload::default()
        },
        only: None,
    };
    let events: Vec<NewEvent> = done.iter().filter(|(s, _)| fresh.contains(&s.message_id)).map(event).collect();
    let published = publish(hub, &mut tx, &events).await?;
    may_die_at("complete.before_commit");
    tx.commit().await.map_err(Error::from)?;
    announce(hub, &published);
    Ok(true)
}
