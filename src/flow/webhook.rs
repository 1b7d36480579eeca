//! Webhooks: what a claimed delivery to an endpoint takes to be sent, whether it is its turn, and what its answers say of the
//! endpoint.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{Key, Outcome, PARKED};
use crate::model::endpoint::{Endpoint, EndpointStatus};
use crate::model::event::{About, EventKind, Told};
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::model::partner::Partner;
use crate::model::retry::{ErrorClass, RetryPolicy, WEBHOOK_ATTEMPTS};
use crate::provider::Parcel;
use crate::store::delivery::Claimed;
use crate::store::endpoint::{Disabled, HeardBack};
use crate::store::message::Contents;
use crate::store::{self};

use super::accept::accept;
use super::publish::{Notice, announce, publish};

/// What to send, and whose endpoint that is.
#[derive(Clone)]
pub struct Ready {
    pub endpoint_id: Tsid,
    pub parcel: Parcel,
}

/// For each claimed delivery what to send, or why it is not called. What cannot be read now is left out.
pub async fn prepare(
    hub: &Hub,
    claimed: &[(&Claimed, &Contents)],
) -> Result<HashMap<Key, std::result::Result<Ready, Outcome>>> {
    let db = hub.store.engine();
    let ids: Vec<Tsid> = claimed.iter().filter_map(|(c, _)| c.recipient.parse().ok()).collect();
    let endpoints = store::endpoint::load(db, &hub.keyring, &ids).await?;
    let endpoints: HashMap<String, Endpoint> = endpoints.into_iter().map(|e| (e.endpoint_id.to_string(), e)).collect();
    let about = |c: &Claimed, contents: &Contents| contents.about.unwrap_or(c.key.message_id);
    let abouts: Vec<(i16, Tsid)> = claimed.iter().map(|(c, contents)| (c.key.shard, about(c, contents))).collect();
    let told_of = store::message::told_of(db, &abouts).await?;
    let is_ordered = |c: &Claimed| endpoints.get(&c.recipient).is_some_and(|e| e.ordered);
    let in_order: Vec<(i16, Tsid, String)> = claimed
        .iter()
        .filter(|(c, _)| is_ordered(c))
        .map(|(c, contents)| (c.key.shard, about(c, contents), c.recipient.clone()))
        .collect();
    let first = if in_order.is_empty() { Vec::new() } else { store::delivery::first_open(db, &in_order).await? };
    let first: HashMap<(Tsid, &str), (Tsid, DateTime<Utc>)> =
        first.iter().map(|f| ((f.about, f.recipient.as_str()), (f.message_id, f.ready_at))).collect();
    let now = hub.clock.now();
    let mut prepared = HashMap::with_capacity(claimed.len());
    for (claimed, contents) in claimed {
        let about_id = about(claimed, contents);
        let before = first.get(&(about_id, claimed.recipient.as_str())).filter(|f| f.0 < claimed.key.message_id);
        let one = match endpoints.get(&claimed.recipient) {
            // Its secret does not open here, perhaps elsewhere.
            None => Err(Outcome::deferred(now + UNREADABLE, "endpoint_unreadable")),
            Some(endpoint) => match (may_go(endpoint), before) {
                (Err(outcome), _) => Err(outcome),
                (Ok(()), Some((_, ready_at))) => Err(after(claimed, *ready_at, now)),
                (Ok(()), None) => {
                    let told_of = told_of.get(&about_id);
                    let Some(told) = contents.detail.contents.first().and_then(|c| c.event.as_ref()) else {
                        prepared.insert(claimed.key, Err(unreadable()));
                        continue;
                    };
                    let about = About {
                        partner_id: contents.partner_id,
                        message_id: about_id,
                        of_message: told_of.is_some_and(|m| m.is_message),
                        kind: told_of.filter(|m| m.is_message).map(|m| m.kind.clone()),
                        client_msg_id: told_of.and_then(|m| m.client_msg_id.clone()),
                        content: content(hub, endpoint, about_id, told).await?,
                    };
                    Ok(Ready { endpoint_id: endpoint.endpoint_id, parcel: parcel(endpoint, told, &about, now) })
                }
            },
        };
        prepared.insert(claimed.key, one);
    }
    Ok(prepared)
}

const UNREADABLE: TimeDelta = TimeDelta::seconds(60);

fn unreadable() -> Outcome {
    Outcome::Rejected {
        class: ErrorClass::Content,
        code: "content_unreadable".into(),
        detail: "its content in the database cannot be understood by this program".into(),
        retry_after: None,
    }
}

/// Whether its owner, and we, let anything be sent there.
fn may_go(endpoint: &Endpoint) -> std::result::Result<(), Outcome> {
    match endpoint.status {
        EndpointStatus::Active => Ok(()),
        EndpointStatus::Paused => Err(Outcome::deferred(PARKED, "endpoint_paused")),
        EndpointStatus::Deleted => Err(Outcome::Canceled),
        EndpointStatus::Disabled => Err(Outcome::Rejected {
            class: ErrorClass::EndpointDisabled,
            code: endpoint.disabled_reason.clone().unwrap_or_else(|| "disabled".into()),
            detail: "the endpoint is disabled; make it ACTIVE again, then recover what it missed".into(),
            retry_after: None,
        }),
    }
}

/// Another event of the same message comes first: not before that is tried again, and ever less often.
fn after(claimed: &Claimed, its_ready_at: DateTime<Utc>, now: DateTime<Utc>) -> Outcome {
    let turns = claimed.head.max_attempts - WEBHOOK_ATTEMPTS + 1;
    let policy =
        RetryPolicy { backoff: Duration::from_millis(100), ceiling: Duration::from_secs(10), ..RetryPolicy::default() };
    let pause = TimeDelta::from_std(policy.backoff(turns, rand::random())).unwrap_or_default();
    Outcome::deferred(its_ready_at.max(now) + pause, "waits_for_its_turn")
}

fn parcel(endpoint: &Endpoint, told: &Told, about: &About, now: DateTime<Utc>) -> Parcel {
    Parcel {
        partner_id: endpoint.partner_id,
        url: endpoint.url.clone(),
        event_id: told.event_id(about.message_id),
        body: told.body(about),
        headers: endpoint.headers.clone(),
        secret: endpoint.secret.clone(),
        former_secret: endpoint.former_secret(now).map(str::to_owned),
        timestamp: now.timestamp(),
    }
}

/// What the message said, where the endpoint asks for it and its partner may have it.
async fn content(hub: &Hub, endpoint: &Endpoint, about: Tsid, told: &Told) -> Result<Option<Value>> {
    if !endpoint.include_content {
        return Ok(None);
    }
    let db = hub.store.engine();
    let Some(partner) = store::partner::get(db, endpoint.partner_id).await? else { return Ok(None) };
    if !partner.may_receive_content {
        return Ok(None);
    }
    let (id, shard) = (partner.partner_id, partner.shard);
    let Some(message) = store::message::get(db, &hub.keyring, id, shard, about).await? else { return Ok(None) };
    let Detail { title, contents, metadata, .. } = message.detail;
    let mut said = json!({"title": title, "metadata": metadata});
    if told.no > 0 {
        let deliveries = store::delivery::of_message(db, id, shard, about, Some(told.no)).await?;
        let delivery = deliveries.first();
        let content = delivery.and_then(|d| contents.get(usize::try_from(d.content).ok()?));
        said["to"] = json!(delivery.map(store::delivery::Row::to));
        said["subject"] = json!(content.and_then(|c| c.subject.as_ref()));
        said["body"] = json!(content.map(|c| &c.body));
    }
    Ok(Some(said))
}

/// The way to an endpoint, held for one call.
pub struct Way {
    hub: Hub,
    endpoint_id: Tsid,
    partner_id: Tsid,
    since: Instant,
    answered: bool,
}

impl Way {
    /// Waits a moment for its turn; who would have to wait for longer comes back later.
    pub async fn open(hub: &Hub, ready: &Ready) -> std::result::Result<Way, Outcome> {
        let (endpoint_id, partner_id) = (ready.endpoint_id, ready.parcel.partner_id);
        let began = Instant::now();
        loop {
            let entered = hub.gates().enter(endpoint_id, partner_id, hub.clock.now());
            let Err(wait) = entered else { break };
            if began.elapsed() + wait > limits::GATE_WAIT {
                let until = hub.clock.now() + TimeDelta::from_std(wait).unwrap_or_default();
                return Err(Outcome::deferred(until, "endpoint_busy"));
            }
            tokio::time::sleep(wait).await;
        }
        Ok(Way { hub: hub.clone(), endpoint_id, partner_id, since: Instant::now(), answered: false })
    }

    /// What the call came to.
    pub fn answered(&mut self, outcome: &Outcome) {
        self.answered = match outcome {
            Outcome::Accepted { .. } => true,
            Outcome::Rejected { class, .. } => *class != ErrorClass::Unreachable,
            _ => false,
        };
        let succeeded = matches!(outcome, Outcome::Accepted { .. });
        self.hub.heard_back(self.endpoint_id, succeeded, self.hub.clock.now());
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.hub.gates().leave(self.endpoint_id, self.partner_id, self.since.elapsed(), self.answered);
    }
}

/// Whether an outcome says that the endpoint is no more.
pub fn is_gone(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { class: ErrorClass::EndpointGone, .. })
}

/// Writes what endpoints answered of late, and disables those that did nothing but fail for days.
pub async fn note_answers(hub: &Hub) -> Result<()> {
    let heard: Vec<(Tsid, HeardBack)> = hub.take_heard_back();
    if heard.is_empty() {
        return Ok(());
    }
    let too_long = hub.clock.now() - limits::ENDPOINT_FAILING;
    let failing = match store::endpoint::heard_back(hub.store.engine(), &heard, too_long).await {
        Ok(failing) => failing,
        Err(e) => {
            hub.put_back_heard(heard);
            return Err(e);
        }
    };
    for endpoint_id in failing {
        disable(hub, endpoint_id, "failing").await?;
    }
    Ok(())
}

/// Disables an endpoint, once, and tells its owner: by an event to its other endpoints, and by e-mail.
pub async fn disable(hub: &Hub, endpoint_id: Tsid, reason: &'static str) -> Result<()> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let Some(disabled) = store::endpoint::disable(&mut *tx, endpoint_id, reason, now).await? else { return Ok(()) };
    let more = json!({"endpointId": endpoint_id.to_string(), "url": disabled.url});
    let told = Told {
        event: EventKind::EndpointDisabled.as_str().into(),
        seq: 1,
        status: Some(EndpointStatus::Disabled.as_str().into()),
        reason: Some(reason.into()),
        occurred_at: now,
        more: more.as_object().cloned().unwrap_or_default(),
        ..Told::default()
    };
    let notice = Notice {
        partner_id: disabled.partner_id,
        shard: disabled.shard,
        about: None,
        priority: Priority::Normal,
        overflow: false,
        told,
        only: None,
    };
    let published = publish(hub, &mut tx, &[notice]).await?;
    tx.commit().await?;
    announce(hub, &published);
    tracing::warn!(endpoint = %endpoint_id, partner = %disabled.partner_id, reason, "an endpoint was disabled");
    mail(hub, endpoint_id, &disabled, reason).await
}

/// As a message of the partner's own, so that it sees what became of it.
async fn mail(hub: &Hub, endpoint_id: Tsid, disabled: &Disabled, reason: &str) -> Result<()> {
    let Some(to) = disabled.contact_email.clone() else { return Ok(()) };
    let Some(partner) = store::partner::get(hub.store.engine(), disabled.partner_id).await? else { return Ok(()) };
    if hub.providers.of(Channel::Email).is_none() {
        tracing::warn!(endpoint = %endpoint_id, "nobody is told by e-mail that it was disabled: nothing here serves EMAIL");
        return Ok(());
    }
    accept(hub, &partner, disabled_mail(endpoint_id, &partner, &disabled.url, to, reason)).await?;
    Ok(())
}

fn disabled_mail(endpoint_id: Tsid, partner: &Partner, url: &str, to: String, reason: &str) -> NewMessage {
    let why = match reason {
        "gone" => "It answered 410 Gone, which says that it wants nothing any more.",
        "paused" => "It was paused for thirty days.",
        _ => "For five days nothing but failures came back.",
    };
    let body = format!(
        "The webhook endpoint {endpoint_id} of {} was disabled.\n\n{url}\n\n{why}\n\nWhat is for it is kept as dead letters. \
         Once it works again, make it ACTIVE and recover what it missed:\n\n  notihub webhook resume {endpoint_id}\n  \
         notihub webhook recover {endpoint_id} --since <when it began to fail>\n",
        partner.name
    );
    let subject = Some(format!("Webhook endpoint {endpoint_id} was disabled"));
    NewMessage {
        client_msg_id: None,
        kind: "ENDPOINT_DISABLED".into(),
        priority: Priority::Normal,
        detail: Detail { contents: vec![Content { subject, body, ..Content::default() }], ..Detail::default() },
        deliveries: vec![NewDelivery { channel: Channel::Email, to, written: None, content: 0 }],
        scheduled_at: None,
        expires_at: None,
    }
}
