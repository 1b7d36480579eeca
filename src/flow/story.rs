//! A message's whole story: what happened and why, oldest first, put together from the books when asked.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{PARKED, Status};
use crate::model::message::{Message, Overall};
use crate::model::partner::Partner;
use crate::store::{self, attempt, delivery, event};

/// A message with all that is under it.
pub struct Whole {
    pub message: Message,
    pub overall: Overall,
    pub deliveries: Vec<delivery::Row>,
    pub attempts: Vec<attempt::Row>,
}

pub async fn whole(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<Whole> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let message = store::message::get(db, &hub.keyring, id, shard, message_id).await?.ok_or(Error::NotFound)?;
    let deliveries = delivery::of_message(db, id, shard, message_id, None).await?;
    let attempts = attempt::of_message(db, id, shard, message_id, None).await?;
    let overall = Overall::of(deliveries.iter().map(|d| (d.lane.channel(), d.status, d.attempt)));
    Ok(Whole { message, overall, deliveries, attempts })
}

/// One thing that happened.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: DateTime<Utc>,
    /// accepted, scheduled, claimed, called, answered, retry, taken_back, released, event, webhook …
    pub what: &'static str,
    /// Its message and number; none: the message as a whole.
    pub delivery: Option<(Tsid, i16)>,
    pub attempt: Option<i16>,
    pub text: String,
}

pub async fn timeline(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<Vec<Entry>> {
    let Whole { message, deliveries, attempts, .. } = whole(hub, partner, message_id).await?;
    let events = event::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id).await?;
    let mut story = vec![Entry {
        at: message.created_at,
        what: "accepted",
        delivery: None,
        attempt: None,
        text: format!("{} with {} deliveries, {}", message.kind, deliveries.len(), message.priority.as_str()),
    }];
    if let Some(at) = message.scheduled_at.filter(|at| *at > message.created_at) {
        let text = format!("not before {}", at.to_rfc3339());
        story.push(Entry { at: message.created_at, what: "scheduled", delivery: None, attempt: None, text });
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
        story.push(Entry { at, what: "claimed", delivery, attempt: Some(row.attempt), text });
    }
    for row in events {
        let text = row.reason.map_or(row.event.clone(), |reason| format!("{}: {reason}", row.event));
        let (at, delivery) = (row.occurred_at, Some((message_id, row.no)));
        story.push(Entry { at, what: "event", delivery, attempt: Some(row.attempt), text });
    }
    tell_webhooks(hub, partner, message_id, &mut story).await?;
    story.sort_by_key(|entry| entry.at);
    Ok(story)
}

fn tell_attempt(message_id: Tsid, row: &attempt::Row, story: &mut Vec<Entry>) {
    let mut tell = |at: DateTime<Utc>, what, text: String| {
        story.push(Entry { at, what, delivery: Some((message_id, row.no)), attempt: Some(row.attempt), text });
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

/// An outcome, and what was said with it.
fn said<const N: usize>(outcome: &str, said: [Option<&str>; N]) -> String {
    let said: Vec<&str> = said.into_iter().flatten().collect();
    if said.is_empty() { outcome.to_owned() } else { format!("{outcome}: {}", said.join(" · ")) }
}

/// Which endpoints were told what of it, what they answered, and when they are told again.
async fn tell_webhooks(hub: &Hub, partner: &Partner, message_id: Tsid, story: &mut Vec<Entry>) -> Result<()> {
    let (id, shard, db) = (partner.partner_id, partner.shard, hub.store.api());
    let mut notices = delivery::about(db, id, shard, message_id, limits::STORY_NOTICES + 1).await?;
    let untold = notices.len() as i64 > limits::STORY_NOTICES;
    notices.truncate(usize::try_from(limits::STORY_NOTICES).unwrap_or(0));
    let ids: BTreeSet<Tsid> = notices.iter().map(|notice| notice.message_id).collect();
    let calls = attempt::of_messages(db, id, shard, &ids.into_iter().collect::<Vec<_>>()).await?;
    let mut tell = |at, delivery, attempt, text| story.push(Entry { at, what: "webhook", delivery, attempt, text });
    let last = notices.last().map(|notice| notice.created_at);
    for notice in notices {
        let delivery = Some((notice.message_id, notice.no));
        let parked = notice.status == Status::Scheduled && notice.ready_at == PARKED;
        let state = if parked { ", which is paused: it waits" } else { "" };
        tell(notice.created_at, delivery, None, format!("{} to endpoint {}{state}", notice.event, notice.recipient));
    }
    for call in calls {
        let (delivery, attempt) = (Some((Tsid(call.message_id), call.no)), Some(call.attempt));
        let text = said(&call.outcome, [call.code.as_deref(), call.detail.as_deref(), call.provider_ref.as_deref()]);
        let ended = call.ended_at.unwrap_or(call.called_at);
        tell(ended, delivery, attempt, text);
        if let Some(next) = call.next_at {
            let why = call.reason.as_deref().unwrap_or("given back");
            tell(ended, delivery, attempt, format!("not before {} ({why})", next.to_rfc3339()));
        }
    }
    if let Some(at) = last.filter(|_| untold) {
        let most = limits::STORY_NOTICES;
        tell(at, None, None, format!("more than {most} webhooks; GET /v1/webhooks/{{id}}/deliveries tells all"));
    }
    Ok(())
}
