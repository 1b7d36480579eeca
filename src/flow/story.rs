//! A message's whole story: what happened and why, oldest first, put together from the books when asked.

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
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
    /// accepted, scheduled, claimed, called, answered, retry, taken_back, released, event …
    pub what: &'static str,
    /// None: the message as a whole.
    pub no: Option<i16>,
    pub attempt: Option<i16>,
    pub text: String,
}

pub async fn timeline(hub: &Hub, partner: &Partner, message_id: Tsid) -> Result<Vec<Entry>> {
    let Whole { message, deliveries, attempts, .. } = whole(hub, partner, message_id).await?;
    let events = event::of_message(hub.store.api(), partner.partner_id, partner.shard, message_id).await?;
    let mut story = vec![Entry {
        at: message.created_at,
        what: "accepted",
        no: None,
        attempt: None,
        text: format!("{} with {} deliveries, {}", message.kind, deliveries.len(), message.priority.as_str()),
    }];
    if let Some(at) = message.scheduled_at.filter(|at| *at > message.created_at) {
        let text = format!("not before {}", at.to_rfc3339());
        story.push(Entry { at: message.created_at, what: "scheduled", no: None, attempt: None, text });
    }
    for row in &attempts {
        tell_attempt(row, &mut story);
    }
    for row in deliveries.iter().filter(|d| d.worker.is_some()) {
        let until = row.lease_until.map(|at| at.to_rfc3339()).unwrap_or_default();
        let worker = row.worker.map(|w| w.to_string()).unwrap_or_default();
        let at = row.lease_until.map_or(message.created_at, |until| {
            until - chrono::TimeDelta::from_std(hub.settings.timing.lease()).unwrap_or_default()
        });
        let text = format!("held by worker {worker} until {until}");
        story.push(Entry { at, what: "claimed", no: Some(row.no), attempt: Some(row.attempt), text });
    }
    for row in events {
        let text = row.reason.map_or(row.event.clone(), |reason| format!("{}: {reason}", row.event));
        story.push(Entry { at: row.occurred_at, what: "event", no: Some(row.no), attempt: Some(row.attempt), text });
    }
    story.sort_by_key(|entry| entry.at);
    Ok(story)
}

fn tell_attempt(row: &attempt::Row, story: &mut Vec<Entry>) {
    let mut tell = |at: DateTime<Utc>, what, text: String| {
        story.push(Entry { at, what, no: Some(row.no), attempt: Some(row.attempt), text });
    };
    tell(row.claimed_at, "claimed", format!("by worker {}", row.worker));
    if let Some(at) = row.called_at {
        tell(at, "called", format!("provider {}", row.provider.as_deref().unwrap_or("unknown")));
    }
    let Some(ended) = row.ended_at else { return };
    let said = [row.code.as_deref(), row.detail.as_deref(), row.provider_ref.as_deref()];
    let said: Vec<&str> = said.into_iter().flatten().collect();
    let late = if row.late { " (late: its lease was over)" } else { "" };
    let text = if said.is_empty() {
        format!("{}{late}", row.outcome)
    } else {
        format!("{}{late}: {}", row.outcome, said.join(" · "))
    };
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
