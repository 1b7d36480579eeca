//! Fallback: creates the delivery that a message names for the case that another one does not arrive, in the
//! transaction that finds this out. At most once, because the number of the new delivery follows from the old one's;
//! and only if the message asks for it.

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

/// Why a delivery falls back to another channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FallbackReason {
    /// It failed.
    Failed,
    /// It may have been sent; only if the message asks for a fallback in this case.
    Unknown,
    /// It was sent, and no receipt came in time.
    NoReceipt,
    /// All providers of its channel are down.
    ChannelDown,
}

impl FallbackReason {
    /// Returns the stable word of the reason, as events and metrics carry it.
    pub fn as_str(self) -> &'static str {
        match self {
            FallbackReason::Failed => "failed",
            FallbackReason::Unknown => "unknown",
            FallbackReason::NoReceipt => "no_receipt",
            FallbackReason::ChannelDown => REASON_CHANNEL_DOWN,
        }
    }
}

/// A delivery that is to be replaced by its fallback.
#[derive(Debug, Clone, Copy)]
pub struct FallbackRequest {
    /// The delivery that did not arrive.
    pub key: DeliveryKey,
    /// Why it is replaced.
    pub reason: FallbackReason,
}

/// The fallbacks and events that were written, to be announced after the commit.
#[derive(Debug, Default)]
pub struct NewFallbacks {
    places: Vec<((i16, Lane), DateTime<Utc>)>,
    published: Vec<Published>,
    /// Per fallback: the replaced delivery, the new delivery's number, both channels and the reason.
    created: Vec<(DeliveryKey, i16, Channel, Channel, FallbackReason)>,
}

impl NewFallbacks {
    /// Adds events that were published in the same transaction.
    #[must_use]
    pub fn with(mut self, published: Published) -> NewFallbacks {
        self.published.push(published);
        self
    }

    /// Adds the fallbacks and events of `other`.
    #[must_use]
    pub fn and(mut self, mut other: NewFallbacks) -> NewFallbacks {
        self.places.append(&mut other.places);
        self.published.append(&mut other.published);
        self.created.append(&mut other.created);
        self
    }
}

/// Returns whether another channel may succeed after a failure with this reason. True for reasons that are no error
/// class.
pub fn falls_back(reason: Option<&str>) -> bool {
    RETRY_RULES.iter().find(|row| Some(row.reason) == reason).is_none_or(|row| row.falls_back)
}

/// Returns the fallback that a step requests; the content of the message decides later whether it is made.
pub fn requested_by(settle: &Settle) -> Option<FallbackRequest> {
    let reason = match settle.step.status {
        _ if !settle.head.has_fallback => return None,
        Status::Failed if settle.step.reason == Some(REASON_CHANNEL_DOWN) => FallbackReason::ChannelDown,
        Status::Failed if falls_back(settle.step.reason) => FallbackReason::Failed,
        Status::Undetermined if !matches!(settle.step.reason, Some("canceled" | "expired")) => FallbackReason::Unknown,
        _ => return None,
    };
    Some(FallbackRequest { key: settle.key, reason })
}

/// Creates the fallbacks of these deliveries and their events in the caller's transaction, which has settled the
/// deliveries. Leaves out deliveries whose message does not ask for a fallback for this reason, and those that have one
/// already. Call `announce` with the result after the commit.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the caller's transaction is to be rolled back.
pub async fn create(
    hub: &Hub,
    tx: &mut Conn,
    requests: &[FallbackRequest],
    now: DateTime<Utc>,
) -> Result<NewFallbacks> {
    if requests.is_empty() {
        return Ok(NewFallbacks::default());
    }
    let reasons: HashMap<DeliveryKey, FallbackReason> = requests.iter().map(|w| (w.key, w.reason)).collect();
    let mut all = stand_ins(hub, tx, &reasons).await?;
    all.retain(|stand_in| stand_in.origin.status.is_settled());
    let inserted = store::delivery::insert_fallbacks(&mut *tx, &all, now).await?;
    let (mut fallbacks, mut events) = (NewFallbacks::default(), Vec::new());
    for (stand_in, seq) in all.iter().filter_map(|s| Some((s, inserted.get(&s.origin.key)?))) {
        let NewFallback { origin, no, lane, .. } = stand_in;
        fallbacks.places.push(((origin.key.shard, *lane), now));
        let reason = reasons.get(&origin.key).copied().unwrap_or(FallbackReason::Failed);
        fallbacks.created.push((origin.key, *no, origin.lane.channel(), lane.channel(), reason));
        events.push(event(stand_in, *seq, reason, now));
    }
    let published = publish(hub, tx, &events).await?;
    Ok(fallbacks.with(published))
}

/// Returns the fallbacks of these deliveries without writing them: those whose message can be read and asks for one.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn stand_ins(
    hub: &Hub,
    tx: &mut Conn,
    reasons: &HashMap<DeliveryKey, FallbackReason>,
) -> Result<Vec<NewFallback>> {
    let keys: BTreeSet<DeliveryKey> = reasons.keys().copied().collect();
    let (origins, contents) = origins(hub, tx, keys).await?;
    let stand_in = |origin: &ReplaceableDelivery| {
        let message = contents.get(&origin.key.message_id)?.as_ref()?;
        stand_in(hub, origin, message, *reasons.get(&origin.key)?)
    };
    Ok(origins.iter().filter_map(stand_in).collect())
}

/// Reads these deliveries and the contents of their messages.
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

/// The fallback that the message names for a delivery.
fn fallback_of<'a>(origin: &ReplaceableDelivery, message: &'a StoredMessage) -> Option<&'a Fallback> {
    let content = usize::try_from(origin.content).ok().and_then(|n| message.detail.contents.get(n))?;
    content.fallback.as_deref()
}

/// Shortens the wait for receipts of deliveries that became SENT, where their messages ask for a fallback sooner.
/// `sent` holds until when the receipt of each may come. In the caller's transaction.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the caller's transaction is to be rolled back.
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

/// The fallback of a delivery; None if its message does not ask for one for this reason.
fn stand_in(
    hub: &Hub,
    origin: &ReplaceableDelivery,
    message: &StoredMessage,
    reason: FallbackReason,
) -> Option<NewFallback> {
    let fallback = fallback_of(origin, message)?;
    let next = message.detail.contents.get(usize::try_from(fallback.content).ok()?)?;
    let wants = match reason {
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
        reason: reason.as_str(),
        origin: origin.clone(),
        recipient,
        recipient_as_given: written,
    })
}

/// Whether an internal service handled it: there a second copy does less harm than none.
fn is_own_service(hub: &Hub, origin: &ReplaceableDelivery) -> bool {
    let account = origin.provider.as_deref().and_then(|name| hub.providers.get(name));
    account.is_some_and(|account| account.terms.profile == Some(Profile::Internal))
}

fn event(stand_in: &NewFallback, seq: i16, reason: FallbackReason, now: DateTime<Utc>) -> NewEvent {
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
            reason: Some(reason.as_str().into()),
            occurred_at: now,
            extra: event_fields(origin.key.message_id, *no, lane.channel()),
            ..EventPayload::default()
        },
        only: None,
    }
}

/// Returns the fields that an event carries about a fallback delivery.
pub fn event_fields(message_id: Tsid, no: i16, channel: Channel) -> Map<String, Value> {
    let delivery = Value::from(format!("{message_id}-{no}"));
    let channel = Value::from(channel.as_str());
    Map::from_iter([("fallbackDeliveryId".to_owned(), delivery), ("fallbackChannel".to_owned(), channel)])
}

/// Counts fallbacks, notes their alert cause, and wakes workers. Call it after the commit.
pub fn announce(hub: &Hub, fallbacks: &NewFallbacks) {
    for (origin, no, from, to, reason) in &fallbacks.created {
        hub.metrics.fallbacks.with_label_values(&[from.as_str(), to.as_str(), reason.as_str()]).inc();
        tracing::info!(delivery = %origin, no, why = reason.as_str(), "fallback to {to}");
        hub.causes.note(AlertCause::Fallback { from: *from, to: *to }, reason.as_str().to_owned());
    }
    hub.wake.notify(fallbacks.places.iter().copied());
    fallbacks.published.iter().for_each(|published| publish::announce(hub, published));
}
