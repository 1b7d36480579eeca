//! Publish: what happened becomes a message of its own with a delivery for each endpoint that asks for it. What a settled
//! delivery or an accepted message tells is published by its own statement (`sql/delivery/settle.sql`,
//! `sql/message/insert.sql`), in the same commit; this is for everything else.

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
use crate::store::{self, Conn, event::EndedMessage, message::NewWebhookMessage};

/// One thing to tell.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub partner_id: Tsid,
    pub shard: i16,
    /// The message it tells of; none: no message, and the notice is about itself.
    pub about: Option<Tsid>,
    pub priority: Priority,
    /// Gives way to what others have to be told now.
    pub overflow: bool,
    pub payload: EventPayload,
    /// Goes to this endpoint alone, whatever it asks for.
    pub only: Option<Tsid>,
}

/// What was written, to be announced after the commit.
#[derive(Debug, Default)]
pub struct Published {
    pub deliveries: Vec<DeliveryKey>,
    places: Vec<((i16, Lane), DateTime<Utc>)>,
}

/// In the caller's transaction. Endpoints that are disabled or deleted get nothing.
pub async fn publish(hub: &Hub, tx: &mut Conn, notices: &[NewEvent]) -> Result<Published> {
    if notices.is_empty() {
        return Ok(Published::default());
    }
    let now = hub.clock.now();
    let one = |notice: &NewEvent| {
        let message_id = hub.next_id();
        let content = Content { event: Some(Box::new(notice.payload.clone())), ..Content::default() };
        let detail = Detail { contents: vec![content], ..Detail::default() };
        let lane = Lane::of_events(notice.priority, notice.overflow);
        Ok(NewWebhookMessage {
            shard: notice.shard,
            message_id,
            partner_id: notice.partner_id,
            event: notice.payload.event.clone(),
            priority: notice.priority,
            lane,
            detail: store::message::encode_detail(&hub.keyring, message_id, &detail, false)?,
            about: notice.about.unwrap_or(message_id),
            only_endpoint: notice.only,
        })
    };
    let all = notices.iter().map(one).collect::<Result<Vec<NewWebhookMessage>>>()?;
    let written = store::message::publish(tx, &all, now).await?;
    let places = written.iter().map(|(key, lane)| ((key.shard, *lane), now)).collect();
    Ok(Published { deliveries: written.into_iter().map(|(key, _)| key).collect(), places })
}

/// After the commit: wakes workers.
pub fn announce(hub: &Hub, published: &Published) {
    hub.wake.notify(published.places.iter().copied());
}

/// Looks whether messages are complete of which a delivery ended, and tells it of those that are: once each, for the row of
/// the event is there once. Returns whether there was anything to look at.
///
/// No row of a message is touched by all its deliveries' ends. Each end leaves a mark, committed with it; whoever looks at the
/// last one's mark sees all of them ended.
pub async fn publish_completions(hub: &Hub) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let (messages, marks) = store::event::take_ending_marks(&mut *tx, limits::COMPLETE_BATCH).await?;
    if marks == 0 {
        return Ok(false);
    }
    let standing = store::event::ended_messages(&mut *tx, &messages).await?;
    let is_complete =
        |s: &&EndedMessage| !s.completion_recorded && s.deliveries.iter().all(|(_, _, status)| status.is_settled());
    let overall = |s: &EndedMessage| {
        OverallStatus::of(s.deliveries.iter().map(|(chain, lane, status)| (*chain, lane.channel(), *status, 1)))
    };
    let done: Vec<(&EndedMessage, &'static str)> =
        standing.iter().filter(is_complete).map(|s| (s, overall(s).as_str())).collect();
    let fresh = store::event::record_completions(&mut *tx, &done, now).await?;
    let notice = |(s, status): &(&EndedMessage, &'static str)| NewEvent {
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
    let notices: Vec<NewEvent> = done.iter().filter(|(s, _)| fresh.contains(&s.message_id)).map(notice).collect();
    let published = publish(hub, &mut tx, &notices).await?;
    may_die_at("complete.before_commit");
    tx.commit().await.map_err(Error::from)?;
    announce(hub, &published);
    Ok(true)
}
