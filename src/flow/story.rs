//! A message's whole story: what happened and why, oldest first, put together from the books when asked.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{READY_WHEN_RESUMED, Status};
use crate::model::event::EventKind;
use crate::model::message::{Message, OverallStatus};
use crate::model::partner::Partner;
use crate::store::delivery::WebhookMessage;
use crate::store::provider::ProviderOutage;
use crate::store::{self, attempt, delivery, event, receipt};

/// A message with all that is under it.
pub struct MessageDetails {
    pub message: Message,
    pub overall: OverallStatus,
    pub deliveries: Vec<delivery::DeliveryRow>,
    pub attempts: Vec<attempt::AttemptRow>,
}

pub async fn message_details(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<MessageDetails> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let message = store::message::get(db, &hub.keyring, id, shard, message_id).await?.ok_or(Error::NotFound)?;
    let deliveries = delivery::of_message(db, id, shard, message_id, None).await?;
    let attempts = attempt::of_message(db, id, shard, message_id, None).await?;
    let overall = OverallStatus::of(deliveries.iter().map(|d| (d.chain, d.lane.channel(), d.status, d.attempt)));
    Ok(MessageDetails { message, overall, deliveries, attempts })
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    pub at: DateTime<Utc>,
    /// accepted, scheduled, limited, breaker, paused, claimed, called, answered, retry, receipt, fallback, event, webhook …
    pub kind: &'static str,
    /// Its message and number; none: the message as a whole.
    pub delivery: Option<(Tsid, i16)>,
    pub attempt: Option<i16>,
    /// Of a webhook: what it tells, and to which endpoint. `delivery` and `attempt` are its own then, not the message's.
    pub webhook: Option<Webhook>,
    /// When a webhook is tried again.
    pub next_at: Option<DateTime<Utc>>,
    pub text: String,
}

#[derive(Debug, Clone)]
pub struct Webhook {
    pub endpoint_id: String,
    pub event: String,
}

impl TimelineEntry {
    fn new(at: DateTime<Utc>, what: &'static str, delivery: Option<(Tsid, i16)>, text: String) -> TimelineEntry {
        TimelineEntry { at, kind: what, delivery, attempt: None, webhook: None, next_at: None, text }
    }
}

/// The webhooks that tell of a message, oldest first, and whether there are more.
pub async fn webhooks(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<(Vec<WebhookMessage>, bool)> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let mut notices = delivery::webhooks_of_message(db, id, shard, message_id, limits::TIMELINE_WEBHOOKS + 1).await?;
    let untold = notices.len() as i64 > limits::TIMELINE_WEBHOOKS;
    notices.truncate(usize::try_from(limits::TIMELINE_WEBHOOKS).unwrap_or(0));
    Ok((notices, untold))
}

pub async fn timeline(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<Vec<TimelineEntry>> {
    let MessageDetails { message, deliveries, attempts, .. } = message_details(hub, partner, message_id).await?;
    let events = event::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id).await?;
    let receipts =
        receipt::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id, limits::TIMELINE_RECEIPTS);
    let receipts = receipts.await?;
    let many = if deliveries.len() == 1 { "delivery" } else { "deliveries" };
    let text = format!("{} with {} {many}, {}", message.kind, deliveries.len(), message.priority.as_str());
    let mut story = vec![TimelineEntry::new(message.created_at, "accepted", None, text)];
    if let Some(at) = message.scheduled_at.filter(|at| *at > message.created_at) {
        let text = format!("not before {}", at.to_rfc3339());
        story.push(TimelineEntry::new(message.created_at, "scheduled", None, text));
    }
    for row in &attempts {
        tell_attempt(message_id, row, &mut story);
    }
    for row in deliveries.iter().filter(|d| d.worker.is_some()) {
        let until = row.lease_until.map(|at| at.to_rfc3339()).unwrap_or_default();
        let worker = row.worker.map(|w| w.to_string()).unwrap_or_default();
        let at = row.lease_until.map_or(message.created_at, |until| {
            until - chrono::TimeDelta::from_std(hub.settings.timing.lease()).unwrap_or_default()
        });
        let text = format!("held by worker {worker} until {until}");
        let delivery = Some((message_id, row.no));
        story.push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, "claimed", delivery, text) });
    }
    for row in receipts {
        tell_receipt(message_id, &row, &mut story);
    }
    for row in events {
        let text = row.reason.as_ref().map_or(row.event.clone(), |reason| format!("{}: {reason}", row.event));
        if tell_fallback(message_id, &row, &deliveries, &mut story) {
            continue;
        }
        let (at, delivery) = (row.occurred_at, Some((message_id, row.no)));
        story.push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, "event", delivery, text) });
    }
    tell_webhooks(hub, partner, message_id, &mut story).await?;
    tell_holds(hub, &message, &deliveries, &attempts, &mut story).await?;
    story.sort_by_key(|entry| entry.at);
    Ok(story)
}

fn tell_attempt(message_id: Tsid, row: &attempt::AttemptRow, story: &mut Vec<TimelineEntry>) {
    let mut tell = |at: DateTime<Utc>, what, text: String| {
        let delivery = Some((message_id, row.no));
        story.push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, what, delivery, text) });
    };
    tell(row.claimed_at, "claimed", format!("by worker {}", row.worker));
    if let Some(at) = row.called_at {
        tell(at, "called", format!("provider {}", row.provider.as_deref().unwrap_or("unknown")));
    }
    let Some(ended) = row.ended_at else { return };
    let late = if row.late { " (late: its lease was over)" } else { "" };
    let text = said(
        &format!("{}{late}", row.outcome),
        [row.code.as_deref(), row.detail.as_deref(), row.provider_ref.as_deref()],
    );
    let what = match (row.outcome.as_str(), row.called_at) {
        (_, Some(_)) => "answered",
        ("NOT_CALLED", None) => "not_called",
        // Whoever held it never said what came of it.
        (_, None) => "lost",
    };
    tell(ended, what, text);
    if let Some(next) = row.next_at {
        let why = row.reason.as_deref().unwrap_or("given back");
        tell(ended, "retry", format!("not before {} ({why})", next.to_rfc3339()));
    }
}

/// What a provider told, when, and what came of it.
fn tell_receipt(message_id: Tsid, row: &receipt::ReceiptRow, story: &mut Vec<TimelineEntry>) {
    let effect = match row.effect.as_deref() {
        None => "waits for the worker that holds it",
        Some("applied") => "applied",
        Some("known") => "known: it says nothing new",
        Some("recorded") => "kept on its attempt; the delivery stands as it did",
        Some(other) => other,
    };
    let late = row.applied_at.filter(|at| *at > row.received_at).map(|at| format!("applied {}", at.to_rfc3339()));
    let told = said(&row.outcome, [row.class.as_deref(), row.code.as_deref(), row.detail.as_deref()]);
    let text = said(&format!("{} told {told} ({effect})", row.provider), [late.as_deref()]);
    let entry = TimelineEntry::new(row.received_at, "receipt", Some((message_id, row.no)), text);
    story.push(TimelineEntry { attempt: Some(row.attempt), ..entry });
}

/// That another delivery took its place, and that this came to something; whether the event is told by that.
fn tell_fallback(
    message_id: Tsid,
    row: &event::EventRow,
    deliveries: &[delivery::DeliveryRow],
    story: &mut Vec<TimelineEntry>,
) -> bool {
    let of = |no: i16| deliveries.iter().find(|d| d.no == no);
    let Some(chain) = of(row.no).and_then(|d| d.chain) else { return false };
    let at = Some((message_id, row.no));
    let mut tell = |text: String| {
        let entry = TimelineEntry::new(row.occurred_at, "fallback", at, text);
        story.push(TimelineEntry { attempt: Some(row.attempt), ..entry });
    };
    if row.event == EventKind::Fallback.as_str() {
        // The next in its chain.
        let next = deliveries.iter().filter(|d| d.chain == Some(chain) && d.no > row.no).min_by_key(|d| d.no);
        let Some(next) = next else { return false };
        let why = match row.reason.as_deref() {
            Some("no_receipt") => "no receipt says that it arrived; if it does all the same, it arrives twice",
            Some("unknown") => "nobody knows whether it was sent; if it was, it arrives twice",
            Some("channel_down") => "nothing can be sent over its channel, or to its destination, for now",
            _ => "it failed",
        };
        tell(format!("fallback to {}, as {message_id}-{}: {why}", next.lane.channel(), next.no));
        return true;
    }
    if chain != row.no && row.event == EventKind::Sent.as_str() {
        tell(format!("fallback success: {} took the place of {message_id}-{chain}", row.event));
    }
    false
}

/// An outcome, and what was said with it.
fn said<const N: usize>(outcome: &str, said: [Option<&str>; N]) -> String {
    let said: Vec<&str> = said.into_iter().flatten().collect();
    if said.is_empty() { outcome.to_owned() } else { format!("{outcome}: {}", said.join(" · ")) }
}

/// When a delivery waited to be claimed: number, channel, from, until; None: it waits yet.
type Wait = (i16, Channel, DateTime<Utc>, Option<DateTime<Utc>>);

fn waits(message: &Message, deliveries: &[delivery::DeliveryRow], attempts: &[attempt::AttemptRow]) -> Vec<Wait> {
    let mut waits = Vec::new();
    for row in deliveries {
        let channel = row.lane.channel();
        let mut from = Some(message.scheduled_at.unwrap_or(message.created_at).max(message.created_at));
        for attempt in attempts.iter().filter(|a| a.no == row.no) {
            waits.extend(from.map(|from| (row.no, channel, from, Some(attempt.claimed_at))));
            // What was not called waited on; what was called waits from when its retry is due.
            from = attempt.called_at.and(attempt.next_at).or(attempt.ended_at);
        }
        let open = matches!(row.status, Status::Pending | Status::Scheduled) && row.ready_at < READY_WHEN_RESUMED;
        waits.extend(from.filter(|_| open).map(|from| (row.no, channel, from, None)));
    }
    waits
}

/// What a delivery waited for: the times when a provider of its channel was not asked, within those when it waited; and of
/// one that waits yet, until when.
async fn tell_holds(
    hub: &Hub,
    message: &Message,
    deliveries: &[delivery::DeliveryRow],
    attempts: &[attempt::AttemptRow],
    story: &mut Vec<TimelineEntry>,
) -> Result<()> {
    let (now, waits) = (hub.clock.now(), waits(message, deliveries, attempts));
    let Some(first) = waits.iter().map(|w| w.2).min() else { return Ok(()) };
    let of = |channel: &Channel| hub.providers.for_channel(*channel).iter().map(|a| a.name().to_owned());
    let names: BTreeSet<String> = waits.iter().flat_map(|w| of(&w.1).collect::<Vec<_>>()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let after = now + chrono::TimeDelta::microseconds(1);
    let holds = store::provider::outages(hub.store.api(), &names, first, after, limits::TIMELINE_OUTAGES).await?;
    for (no, channel, from, until) in waits {
        for hold in holds.iter().filter(|h| of(&channel).any(|name| name == h.provider)) {
            let (began, ended) = (hold.began_at.max(from), hold.ended_at.min(until.unwrap_or(READY_WHEN_RESUMED)));
            if ended > began {
                let delivery = Some((message.message_id, no));
                story.push(TimelineEntry::new(began, what_held(hold), delivery, told_hold(hold, ended, now)));
            }
        }
    }
    Ok(())
}

fn what_held(hold: &ProviderOutage) -> &'static str {
    match hold.reason.as_str() {
        "breaker" => "breaker",
        "paused" => "paused",
        _ => "limited",
    }
}

fn told_hold(hold: &ProviderOutage, ended: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let until = match (ended > now, ended >= READY_WHEN_RESUMED) {
        (true, true) => "; it waits yet".to_owned(),
        (true, false) => format!("; it waits until {}", ended.to_rfc3339()),
        (false, _) => format!("; it waited until {}", ended.to_rfc3339()),
    };
    let (provider, detail) = (&hold.provider, hold.detail.as_deref().unwrap_or_default());
    let why = match what_held(hold) {
        "breaker" => format!("provider {provider} is left alone: {detail}"),
        "paused" => format!("an operator paused provider {provider}"),
        _ => format!("the rate limit of provider {provider} was used up: {detail}"),
    };
    format!("{why}{until}")
}

/// Which endpoints were told what of it, what they answered, and when they are told again.
async fn tell_webhooks(hub: &Hub, partner: &Partner, message_id: Tsid, story: &mut Vec<TimelineEntry>) -> Result<()> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let (notices, untold) = webhooks(hub, partner, message_id).await?;
    let ids: BTreeSet<Tsid> = notices.iter().map(|notice| notice.message_id).collect();
    let calls = attempt::calls_of_messages(db, id, shard, &ids.into_iter().collect::<Vec<_>>()).await?;
    let mut told = HashMap::with_capacity(notices.len());
    for notice in &notices {
        let webhook = Webhook { endpoint_id: notice.recipient.clone(), event: notice.event.clone() };
        let key = (notice.message_id, notice.no);
        let parked = notice.status == Status::Scheduled && notice.ready_at == READY_WHEN_RESUMED;
        let text = if parked { "waits: the endpoint is paused" } else { "is to be told" };
        let entry = TimelineEntry::new(notice.created_at, "webhook", Some(key), text.into());
        story.push(TimelineEntry { webhook: Some(webhook.clone()), ..entry });
        told.insert(key, webhook);
    }
    for call in calls {
        let key = (Tsid(call.message_id), call.no);
        // What an endpoint took has no code, what it refused has no reference.
        let answer = [call.code.as_deref(), call.detail.as_deref(), call.provider_ref.as_deref()];
        let answer: Vec<&str> = answer.into_iter().flatten().collect();
        let text = if answer.is_empty() { call.outcome } else { answer.join(" · ") };
        let entry = TimelineEntry::new(call.ended_at.unwrap_or(call.called_at), "webhook", Some(key), text);
        let (attempt, next_at) = (Some(call.attempt), call.next_at.filter(|at| *at < READY_WHEN_RESUMED));
        story.push(TimelineEntry { attempt, next_at, webhook: told.get(&key).cloned(), ..entry });
    }
    if let Some(last) = notices.last().filter(|_| untold) {
        let text =
            format!("more than {} webhooks; GET /v1/webhooks/{{id}}/deliveries tells all", limits::TIMELINE_WEBHOOKS);
        story.push(TimelineEntry::new(last.created_at, "webhook", None, text));
    }
    Ok(())
}
