//! Timeline: the history of a message, what happened and why, oldest first. It is computed from the stored rows on
//! request.

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

/// A message with its deliveries and attempts.
pub struct MessageDetails {
    /// The message.
    pub message: Message,
    /// Its status, computed from those of its deliveries.
    pub overall: OverallStatus,
    /// Its deliveries, by number.
    pub deliveries: Vec<delivery::DeliveryRow>,
    /// The attempts of all its deliveries.
    pub attempts: Vec<attempt::AttemptRow>,
}

/// Reads a message of this partner with its deliveries and attempts.
///
/// # Errors
/// `Error::NotFound` if the partner has no such message. `Error::Unavailable` if the database fails.
pub async fn message_details(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<MessageDetails> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let message = store::message::get(db, &hub.keyring, id, shard, message_id).await?.ok_or(Error::NotFound)?;
    let deliveries = delivery::of_message(db, id, shard, message_id, None).await?;
    let attempts = attempt::of_message(db, id, shard, message_id, None).await?;
    let overall = OverallStatus::of(deliveries.iter().map(|d| (d.chain, d.lane.channel(), d.status, d.attempt)));
    Ok(MessageDetails { message, overall, deliveries, attempts })
}

/// One entry of a timeline.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    /// When it happened.
    pub at: DateTime<Utc>,
    /// accepted, scheduled, limited, breaker, paused, claimed, called, answered, not_called, lost, retry, receipt,
    /// fallback, event or webhook.
    pub kind: &'static str,
    /// The delivery, by message and number; None: the message as a whole.
    pub delivery: Option<(Tsid, i16)>,
    /// The number of the attempt.
    pub attempt: Option<i16>,
    /// Event and endpoint of a webhook. `delivery` and `attempt` are those of the webhook then.
    pub webhook: Option<Webhook>,
    /// When the webhook is retried.
    pub next_at: Option<DateTime<Utc>>,
    /// One plain sentence for people.
    pub text: String,
}

/// The event and endpoint of a webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub endpoint_id: String,
    pub event: String,
}

impl TimelineEntry {
    fn new(at: DateTime<Utc>, kind: &'static str, delivery: Option<(Tsid, i16)>, text: String) -> TimelineEntry {
        TimelineEntry { at, kind, delivery, attempt: None, webhook: None, next_at: None, text }
    }
}

/// Returns the webhooks about a message, oldest first, `limits::TIMELINE_WEBHOOKS` at most, and whether there are more.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn webhooks(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<(Vec<WebhookMessage>, bool)> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let mut webhook_rows =
        delivery::webhooks_of_message(db, id, shard, message_id, limits::TIMELINE_WEBHOOKS + 1).await?;
    let more = webhook_rows.len() as i64 > limits::TIMELINE_WEBHOOKS;
    webhook_rows.truncate(usize::try_from(limits::TIMELINE_WEBHOOKS).unwrap_or(0));
    Ok((webhook_rows, more))
}

/// Computes the timeline of a message of this partner, oldest first.
///
/// # Errors
/// `Error::NotFound` if the partner has no such message. `Error::Unavailable` if the database fails.
pub async fn timeline(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<Vec<TimelineEntry>> {
    let MessageDetails { message, deliveries, attempts, .. } = message_details(hub, partner, message_id).await?;
    let events = event::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id).await?;
    let receipts =
        receipt::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id, limits::TIMELINE_RECEIPTS);
    let receipts = receipts.await?;
    let many = if deliveries.len() == 1 { "delivery" } else { "deliveries" };
    let text = format!("{} with {} {many}, {}", message.kind, deliveries.len(), message.priority.as_str());
    let mut timeline = vec![TimelineEntry::new(message.created_at, "accepted", None, text)];
    if let Some(at) = message.scheduled_at.filter(|at| *at > message.created_at) {
        let text = format!("not before {}", at.to_rfc3339());
        timeline.push(TimelineEntry::new(message.created_at, "scheduled", None, text));
    }
    for row in &attempts {
        add_attempt(message_id, row, &mut timeline);
    }
    for row in deliveries.iter().filter(|d| d.worker.is_some()) {
        let until = row.lease_until.map(|at| at.to_rfc3339()).unwrap_or_default();
        let worker = row.worker.map(|w| w.to_string()).unwrap_or_default();
        let at = row.lease_until.map_or(message.created_at, |until| {
            until - chrono::TimeDelta::from_std(hub.settings.timing.lease()).unwrap_or_default()
        });
        let text = format!("held by worker {worker} until {until}");
        let delivery = Some((message_id, row.no));
        timeline
            .push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, "claimed", delivery, text) });
    }
    for row in receipts {
        add_receipt(message_id, &row, &mut timeline);
    }
    for row in events {
        let text = row.reason.as_ref().map_or(row.event.clone(), |reason| format!("{}: {reason}", row.event));
        if add_fallback(message_id, &row, &deliveries, &mut timeline) {
            continue;
        }
        let (at, delivery) = (row.occurred_at, Some((message_id, row.no)));
        timeline.push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, "event", delivery, text) });
    }
    add_webhooks(hub, partner, message_id, &mut timeline).await?;
    add_outages(hub, &message, &deliveries, &attempts, &mut timeline).await?;
    timeline.sort_by_key(|entry| entry.at);
    Ok(timeline)
}

fn add_attempt(message_id: Tsid, row: &attempt::AttemptRow, timeline: &mut Vec<TimelineEntry>) {
    let mut add = |at: DateTime<Utc>, kind, text: String| {
        let delivery = Some((message_id, row.no));
        timeline.push(TimelineEntry { attempt: Some(row.attempt), ..TimelineEntry::new(at, kind, delivery, text) });
    };
    add(row.claimed_at, "claimed", format!("by worker {}", row.worker));
    if let Some(at) = row.called_at {
        add(at, "called", format!("provider {}", row.provider.as_deref().unwrap_or("unknown")));
    }
    let Some(ended) = row.ended_at else { return };
    let late = if row.late { " (late: its lease was over)" } else { "" };
    let text = with_details(
        &format!("{}{late}", row.outcome),
        [row.code.as_deref(), row.detail.as_deref(), row.provider_ref.as_deref()],
    );
    let kind = match (row.outcome.as_str(), row.called_at) {
        (_, Some(_)) => "answered",
        ("NOT_CALLED", None) => "not_called",
        // The worker that held it was lost before it recorded an outcome.
        (_, None) => "lost",
    };
    add(ended, kind, text);
    if let Some(next) = row.next_at {
        let why = row.reason.as_deref().unwrap_or("given back");
        add(ended, "retry", format!("not before {} ({why})", next.to_rfc3339()));
    }
}

/// Adds a receipt and its effect.
fn add_receipt(message_id: Tsid, row: &receipt::ReceiptRow, timeline: &mut Vec<TimelineEntry>) {
    let effect = match row.effect.as_deref() {
        None => "waits until the worker that holds the delivery settles it",
        Some("applied") => "applied",
        Some("known") => "known already",
        Some("recorded") => "recorded on its attempt; the status is unchanged",
        Some(other) => other,
    };
    let late = row.applied_at.filter(|at| *at > row.received_at).map(|at| format!("applied {}", at.to_rfc3339()));
    let reported = with_details(&row.outcome, [row.class.as_deref(), row.code.as_deref(), row.detail.as_deref()]);
    let text = with_details(&format!("provider {} reported {reported} ({effect})", row.provider), [late.as_deref()]);
    let entry = TimelineEntry::new(row.received_at, "receipt", Some((message_id, row.no)), text);
    timeline.push(TimelineEntry { attempt: Some(row.attempt), ..entry });
}

/// Adds that a fallback replaced a delivery, or that a fallback was sent. Returns whether this entry stands for the
/// event, which then needs none of its own.
fn add_fallback(
    message_id: Tsid,
    row: &event::EventRow,
    deliveries: &[delivery::DeliveryRow],
    timeline: &mut Vec<TimelineEntry>,
) -> bool {
    let of = |no: i16| deliveries.iter().find(|d| d.no == no);
    let Some(chain) = of(row.no).and_then(|d| d.chain) else { return false };
    let at = Some((message_id, row.no));
    let mut add = |text: String| {
        let entry = TimelineEntry::new(row.occurred_at, "fallback", at, text);
        timeline.push(TimelineEntry { attempt: Some(row.attempt), ..entry });
    };
    if row.event == EventKind::Fallback.as_str() {
        // The next delivery of its chain.
        let next = deliveries.iter().filter(|d| d.chain == Some(chain) && d.no > row.no).min_by_key(|d| d.no);
        let Some(next) = next else { return false };
        let why = match row.reason.as_deref() {
            Some("no_receipt") => {
                "no receipt came in time; if the message arrives all the same, the recipient gets it twice"
            }
            Some("unknown") => "it is unknown whether the message was sent; if it was, the recipient gets it twice",
            Some("channel_down") => "nothing can be sent over its channel or to its destination for now",
            _ => "it failed",
        };
        add(format!("fallback to {}, as {message_id}-{}: {why}", next.lane.channel(), next.no));
        return true;
    }
    if chain != row.no && row.event == EventKind::Sent.as_str() {
        add(format!("fallback success: {}; it replaced {message_id}-{chain}", row.event));
    }
    false
}

/// An outcome, followed by its details.
fn with_details<const N: usize>(outcome: &str, details: [Option<&str>; N]) -> String {
    let details: Vec<&str> = details.into_iter().flatten().collect();
    if details.is_empty() { outcome.to_owned() } else { format!("{outcome}: {}", details.join(" · ")) }
}

/// A time when a delivery waited to be claimed: number, channel, from, until; None: it still waits.
type Wait = (i16, Channel, DateTime<Utc>, Option<DateTime<Utc>>);

fn waiting_periods(
    message: &Message,
    deliveries: &[delivery::DeliveryRow],
    attempts: &[attempt::AttemptRow],
) -> Vec<Wait> {
    let mut waiting_periods = Vec::new();
    for row in deliveries {
        let channel = row.lane.channel();
        let mut from = Some(message.scheduled_at.unwrap_or(message.created_at).max(message.created_at));
        for attempt in attempts.iter().filter(|a| a.no == row.no) {
            waiting_periods.extend(from.map(|from| (row.no, channel, from, Some(attempt.claimed_at))));
            // A delivery that was not called waits on from the end of the attempt; one that was called, from when its
            // retry is due.
            from = attempt.called_at.and(attempt.next_at).or(attempt.ended_at);
        }
        let open = matches!(row.status, Status::Pending | Status::Scheduled) && row.ready_at < READY_WHEN_RESUMED;
        waiting_periods.extend(from.filter(|_| open).map(|from| (row.no, channel, from, None)));
    }
    waiting_periods
}

/// Adds why deliveries waited: outages of the providers of their channels, cut to the times when they waited; for one
/// that still waits, until when.
async fn add_outages(
    hub: &Hub,
    message: &Message,
    deliveries: &[delivery::DeliveryRow],
    attempts: &[attempt::AttemptRow],
    timeline: &mut Vec<TimelineEntry>,
) -> Result<()> {
    let (now, waiting_periods) = (hub.clock.now(), waiting_periods(message, deliveries, attempts));
    let Some(first) = waiting_periods.iter().map(|w| w.2).min() else { return Ok(()) };
    let of = |channel: &Channel| hub.providers.for_channel(*channel).iter().map(|a| a.name().to_owned());
    let names: BTreeSet<String> = waiting_periods.iter().flat_map(|w| of(&w.1).collect::<Vec<_>>()).collect();
    let names: Vec<String> = names.into_iter().collect();
    let after = now + chrono::TimeDelta::microseconds(1);
    let outages = store::provider::outages(hub.store.api(), &names, first, after, limits::TIMELINE_OUTAGES).await?;
    for (no, channel, from, until) in waiting_periods {
        for outage in outages.iter().filter(|h| of(&channel).any(|name| name == h.provider)) {
            let (began, ended) = (outage.began_at.max(from), outage.ended_at.min(until.unwrap_or(READY_WHEN_RESUMED)));
            if ended > began {
                let delivery = Some((message.message_id, no));
                timeline.push(TimelineEntry::new(
                    began,
                    outage_kind(outage),
                    delivery,
                    outage_text(outage, ended, now),
                ));
            }
        }
    }
    Ok(())
}

fn outage_kind(outage: &ProviderOutage) -> &'static str {
    match outage.reason.as_str() {
        "breaker" => "breaker",
        "paused" => "paused",
        _ => "limited",
    }
}

fn outage_text(outage: &ProviderOutage, ended: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let until = match (ended > now, ended >= READY_WHEN_RESUMED) {
        (true, true) => "; the delivery still waits".to_owned(),
        (true, false) => format!("; the delivery waits until {}", ended.to_rfc3339()),
        (false, _) => format!("; the delivery waited until {}", ended.to_rfc3339()),
    };
    let (provider, detail) = (&outage.provider, outage.detail.as_deref().unwrap_or_default());
    let why = match outage_kind(outage) {
        "breaker" => format!("the breaker of provider {provider} opened: {detail}"),
        "paused" => format!("an operator paused provider {provider}"),
        _ => format!("the rate limit of provider {provider} was used up: {detail}"),
    };
    format!("{why}{until}")
}

/// Adds the webhooks about the message: when each was queued, what its endpoint answered, and when it is retried.
async fn add_webhooks(hub: &Hub, partner: &Partner, message_id: Tsid, timeline: &mut Vec<TimelineEntry>) -> Result<()> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let (webhook_rows, more) = webhooks(hub, partner, message_id).await?;
    let ids: BTreeSet<Tsid> = webhook_rows.iter().map(|webhook_row| webhook_row.message_id).collect();
    let calls = attempt::calls_of_messages(db, id, shard, &ids.into_iter().collect::<Vec<_>>()).await?;
    let mut by_key = HashMap::with_capacity(webhook_rows.len());
    for webhook_row in &webhook_rows {
        let webhook = Webhook { endpoint_id: webhook_row.recipient.clone(), event: webhook_row.event.clone() };
        let key = (webhook_row.message_id, webhook_row.no);
        let parked = webhook_row.status == Status::Scheduled && webhook_row.ready_at == READY_WHEN_RESUMED;
        let text =
            if parked { "the webhook waits: the endpoint is paused" } else { "the webhook is queued for the endpoint" };
        let entry = TimelineEntry::new(webhook_row.created_at, "webhook", Some(key), text.into());
        timeline.push(TimelineEntry { webhook: Some(webhook.clone()), ..entry });
        by_key.insert(key, webhook);
    }
    for call in calls {
        let key = (Tsid(call.message_id), call.no);
        // An accepted call has no code, a refused one no reference.
        let answer = [call.code.as_deref(), call.detail.as_deref(), call.provider_ref.as_deref()];
        let answer: Vec<&str> = answer.into_iter().flatten().collect();
        let text = if answer.is_empty() { call.outcome } else { answer.join(" · ") };
        let entry = TimelineEntry::new(call.ended_at.unwrap_or(call.called_at), "webhook", Some(key), text);
        let (attempt, next_at) = (Some(call.attempt), call.next_at.filter(|at| *at < READY_WHEN_RESUMED));
        timeline.push(TimelineEntry { attempt, next_at, webhook: by_key.get(&key).cloned(), ..entry });
    }
    if let Some(last) = webhook_rows.last().filter(|_| more) {
        let text =
            format!("more than {} webhooks; GET /v1/webhooks/{{id}}/deliveries lists all", limits::TIMELINE_WEBHOOKS);
        timeline.push(TimelineEntry::new(last.created_at, "webhook", None, text));
    }
    Ok(())
}
