//! Fallback: what a message names for the case that a delivery does not arrive takes its place, in the transaction that finds
//! that out. Once, because the new delivery's number follows from the old one's; and off unless the message asks for it.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::alert::AlertCause;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, REASON_CHANNEL_DOWN, Status};
use crate::model::event::{EventKind, EventPayload};
use crate::model::lane::Lane;
use crate::model::message::{ERASED, Fallback};
use crate::model::retry::{Profile, RETRY_RULES};
use crate::store::delivery::{NewFallback, ReplaceableDelivery, Settle};
use crate::store::message::StoredMessage;
use crate::store::{self, Conn};

use super::publish::{self, NewEvent, Published, publish};

/// Why another channel is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackReason {
    Failed,
    /// It may have been sent; only where the message says that it is to be sent again then.
    Unknown,
    /// It was sent, and nobody knows whether it arrived.
    NoReceipt,
    ChannelDown,
}

impl FallbackReason {
    pub fn as_str(self) -> &'static str {
        match self {
            FallbackReason::Failed => "failed",
            FallbackReason::Unknown => "unknown",
            FallbackReason::NoReceipt => "no_receipt",
            FallbackReason::ChannelDown => REASON_CHANNEL_DOWN,
        }
    }
}

/// A delivery whose place is to be taken.
#[derive(Debug, Clone, Copy)]
pub struct FallbackRequest {
    pub key: DeliveryKey,
    pub reason: FallbackReason,
}

/// What was written, to be announced after the commit.
#[derive(Debug, Default)]
pub struct NewFallbacks {
    places: Vec<((i16, Lane), DateTime<Utc>)>,
    published: Vec<Published>,
    /// From which channel to which, as which delivery.
    created: Vec<(DeliveryKey, i16, Channel, Channel, FallbackReason)>,
}

impl NewFallbacks {
    #[must_use]
    pub fn with(mut self, published: Published) -> NewFallbacks {
        self.published.push(published);
        self
    }

    #[must_use]
    pub fn and(mut self, mut other: NewFallbacks) -> NewFallbacks {
        self.places.append(&mut other.places);
        self.published.append(&mut other.published);
        self.created.append(&mut other.created);
        self
    }
}

/// Whether another channel may succeed where this was the reason. What is no class of errors says nothing of the message.
pub fn falls_back(reason: Option<&str>) -> bool {
    RETRY_RULES.iter().find(|row| Some(row.reason) == reason).is_none_or(|row| row.falls_back)
}

/// What a step asks for, before the message itself is asked.
pub fn requested_by(settle: &Settle) -> Option<FallbackRequest> {
    let why = match settle.step.status {
        _ if !settle.head.has_fallback => return None,
        Status::Failed if settle.step.reason == Some(REASON_CHANNEL_DOWN) => FallbackReason::ChannelDown,
        Status::Failed if falls_back(settle.step.reason) => FallbackReason::Failed,
        Status::Undetermined if !matches!(settle.step.reason, Some("canceled" | "expired")) => FallbackReason::Unknown,
        _ => return None,
    };
    Some(FallbackRequest { key: settle.key, reason: why })
}

/// Makes the deliveries that take the place of these, in the caller's transaction. Those are left out whose message does not
/// want it so, or whose place was taken before.
pub async fn create(hub: &Hub, tx: &mut Conn, wanted: &[FallbackRequest], now: DateTime<Utc>) -> Result<NewFallbacks> {
    if wanted.is_empty() {
        return Ok(NewFallbacks::default());
    }
    let why: HashMap<DeliveryKey, FallbackReason> = wanted.iter().map(|w| (w.key, w.reason)).collect();
    let mut all = stand_ins(hub, tx, &why).await?;
    all.retain(|stand_in| stand_in.origin.status.is_settled());
    let fresh = store::delivery::insert_fallbacks(&mut *tx, &all, now).await?;
    let (mut made, mut notices) = (NewFallbacks::default(), Vec::new());
    for (stand_in, seq) in all.iter().filter_map(|s| Some((s, fresh.get(&s.origin.key)?))) {
        let NewFallback { origin, no, lane, .. } = stand_in;
        made.places.push(((origin.key.shard, *lane), now));
        let why = why.get(&origin.key).copied().unwrap_or(FallbackReason::Failed);
        made.created.push((origin.key, *no, origin.lane.channel(), lane.channel(), why));
        notices.push(event(stand_in, *seq, why, now));
    }
    let published = publish(hub, tx, &notices).await?;
    Ok(made.with(published))
}

/// What takes the place of these, as far as their messages can be read and want it so.
pub async fn stand_ins(
    hub: &Hub,
    tx: &mut Conn,
    why: &HashMap<DeliveryKey, FallbackReason>,
) -> Result<Vec<NewFallback>> {
    let keys: BTreeSet<DeliveryKey> = why.keys().copied().collect();
    let (origins, contents) = origins(hub, tx, keys).await?;
    let stand_in = |origin: &ReplaceableDelivery| {
        let message = contents.get(&origin.key.message_id)?.as_ref()?;
        stand_in(hub, origin, message, *why.get(&origin.key)?)
    };
    Ok(origins.iter().filter_map(stand_in).collect())
}

/// Those of these deliveries that another may take the place of, and what their messages say.
async fn origins(
    hub: &Hub,
    tx: &mut Conn,
    keys: BTreeSet<DeliveryKey>,
) -> Result<(Vec<ReplaceableDelivery>, HashMap<Tsid, Option<StoredMessage>>)> {
    let origins = store::delivery::lock_replaceable(&mut *tx, &keys.into_iter().collect::<Vec<_>>()).await?;
    let messages: BTreeSet<(i16, Tsid)> = origins.iter().map(|o| (o.key.shard, o.key.message_id)).collect();
    let messages: Vec<(i16, Tsid)> = messages.into_iter().collect();
    let contents = store::message::contents(&mut *tx, &hub.keyring, &messages).await?;
    Ok((origins, contents.into_iter().collect()))
}

/// What its message names for the case that it does not arrive.
fn fallback_of<'a>(origin: &ReplaceableDelivery, message: &'a StoredMessage) -> Option<&'a Fallback> {
    let content = usize::try_from(origin.content).ok().and_then(|n| message.detail.contents.get(n))?;
    content.fallback.as_deref()
}

/// Has these that are SENT by now, each with until when its receipt may come, looked at as soon as their messages want.
pub async fn shorten_receipt_waits(
    hub: &Hub,
    tx: &mut Conn,
    sent: &HashMap<DeliveryKey, DateTime<Utc>>,
    now: DateTime<Utc>,
) -> Result<()> {
    if sent.is_empty() {
        return Ok(());
    }
    let (origins, contents) = origins(hub, tx, sent.keys().copied().collect()).await?;
    let sooner = |origin: &ReplaceableDelivery| {
        let message = contents.get(&origin.key.message_id)?.as_ref()?;
        let at = now + TimeDelta::seconds(i64::from(fallback_of(origin, message)?.no_receipt_s?));
        sent.get(&origin.key).filter(|due| at < **due).map(|_| (origin.key, Some(at)))
    };
    store::delivery::set_receipt_due(tx, &origins.iter().filter_map(sooner).collect::<Vec<_>>()).await
}

/// What takes its place, if its message wants that for this reason.
fn stand_in(
    hub: &Hub,
    origin: &ReplaceableDelivery,
    message: &StoredMessage,
    why: FallbackReason,
) -> Option<NewFallback> {
    let fallback = fallback_of(origin, message)?;
    let next = message.detail.contents.get(usize::try_from(fallback.content).ok()?)?;
    let wants = match why {
        FallbackReason::Failed | FallbackReason::ChannelDown => true,
        FallbackReason::Unknown => fallback.on_unknown || is_own_service(hub, origin),
        FallbackReason::NoReceipt => {
            fallback.no_receipt_s.is_some() || origin.status != Status::Sent && fallback.on_unknown
        }
    };
    if !wants || origin.recipient == ERASED {
        return None;
    }
    let (recipient, written) = match &fallback.to {
        Some(to) => (to.clone(), None),
        None => (origin.recipient.clone(), origin.recipient_as_given.clone()),
    };
    let policy = hub.settings.retry.policy(fallback.channel, next.fallback.is_some());
    Some(NewFallback {
        no: origin.key.no.checked_add(fallback.step)?,
        lane: Lane::new(fallback.channel, origin.lane.priority(), origin.lane.is_overflow()),
        content: fallback.content,
        max_attempts: fallback.max_attempts.unwrap_or(policy.max_attempts),
        has_fallback: next.fallback.is_some(),
        reason: why.as_str(),
        origin: origin.clone(),
        recipient,
        recipient_as_given: written,
    })
}

/// A service of our own had it: a second copy does less harm than none.
fn is_own_service(hub: &Hub, origin: &ReplaceableDelivery) -> bool {
    let account = origin.provider.as_deref().and_then(|name| hub.providers.get(name));
    account.is_some_and(|account| account.terms.profile == Some(Profile::Internal))
}

fn event(stand_in: &NewFallback, seq: i16, why: FallbackReason, now: DateTime<Utc>) -> NewEvent {
    let NewFallback { origin, no, lane, .. } = stand_in;
    NewEvent {
        partner_id: origin.partner_id,
        shard: origin.key.shard,
        about: Some(origin.key.message_id),
        priority: lane.priority(),
        overflow: lane.is_overflow(),
        payload: EventPayload {
            event: EventKind::Fallback.as_str().into(),
            no: origin.key.no,
            seq,
            attempt: Some(origin.attempt),
            lane: Some(origin.lane.0),
            status: Some(origin.status.as_str().into()),
            provider: origin.provider.clone(),
            reason: Some(why.as_str().into()),
            occurred_at: now,
            extra: event_fields(origin.key.message_id, *no, lane.channel()),
            ..EventPayload::default()
        },
        only: None,
    }
}

/// What is told of what took a delivery's place.
pub fn event_fields(message_id: Tsid, no: i16, channel: Channel) -> Map<String, Value> {
    let delivery = Value::from(format!("{message_id}-{no}"));
    let channel = Value::from(channel.as_str());
    Map::from_iter([("fallbackDeliveryId".to_owned(), delivery), ("fallbackChannel".to_owned(), channel)])
}

/// After the commit: counts, tells, and wakes workers.
pub fn announce(hub: &Hub, made: &NewFallbacks) {
    for (origin, no, from, to, why) in &made.created {
        hub.metrics.fallbacks.with_label_values(&[from.as_str(), to.as_str(), why.as_str()]).inc();
        tracing::info!(delivery = %origin, no, why = why.as_str(), "fallback to {to}");
        hub.causes.note(AlertCause::Fallback { from: *from, to: *to }, why.as_str().to_owned());
    }
    hub.wake.notify(made.places.iter().copied());
    made.published.iter().for_each(|published| publish::announce(hub, published));
}
