//! Accept: a message, its deliveries and its key become durable together, or not at all. Answered only after the commit.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::crypt;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::lane::Lane;
use crate::model::message::{NewDelivery, NewMessage, Posted};
use crate::model::partner::Partner;
use crate::shutdown::may_die_at;
use crate::store;
use crate::store::idempotency::{self, Held};
use crate::store::message::{Insert, Written};

/// What the caller is told.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub message_id: Tsid,
    pub client_msg_id: Option<String>,
    pub created_at: DateTime<Utc>,
    /// The same request came before; this is its answer.
    pub replayed: bool,
    /// Endpoints are told of it.
    pub heard: bool,
    pub status: Status,
    /// Channel, and recipient as this request wrote it.
    pub deliveries: Vec<(Channel, String)>,
}

/// Accepts one message, together with whatever else arrives meanwhile.
pub async fn accept(hub: &Hub, partner: &Partner, posted: impl Into<Posted>) -> Result<Accepted> {
    let posted = posted.into();
    if posted.faults_if_new.is_empty() {
        return hub.intake.write(prepare(hub, partner, posted)?).await;
    }
    let answer = stored_before(hub, hub.store.intake(), &[(partner, &posted)]).await?.pop();
    let accepted = answer.ok_or_else(|| Error::Internal("a message got no answer".into()))??;
    count_replayed(hub, 1);
    Ok(accepted)
}

/// Accepts all of them, or none. The caller has its turn (`Intake::batch`).
pub async fn accept_all(hub: &Hub, partner: &Partner, batch: Vec<Posted>) -> Result<Vec<Accepted>> {
    let (right, faulty): (Vec<_>, Vec<_>) =
        batch.into_iter().enumerate().partition(|(_, posted)| posted.faults_if_new.is_empty());
    let (mut places, inserts) = (Vec::with_capacity(right.len() + faulty.len()), Vec::with_capacity(right.len()));
    let inserts = right.into_iter().try_fold(inserts, |mut inserts, (place, posted)| {
        places.push(place);
        inserts.push(prepare(hub, partner, posted)?);
        Ok::<_, Error>(inserts)
    })?;
    places.extend(faulty.iter().map(|(place, _)| *place));
    let refs: Vec<&Insert> = inserts.iter().collect();
    let now = hub.clock.now();
    let mut tx = hub.store.begin_intake().await?;
    let written = store::message::insert(&mut *tx, &refs, now).await?;
    let mut answers = judge(&refs, holders(&mut *tx, &refs, &written).await?);
    let asked: Vec<(&Partner, &Posted)> = faulty.iter().map(|(_, posted)| (partner, posted)).collect();
    answers.extend(stored_before(hub, &mut *tx, &asked).await?);
    let accepted = match all_or_none(&places, answers) {
        Ok(accepted) => accepted,
        Err(e) => {
            tx.rollback().await?;
            return Err(e);
        }
    };
    may_die_at("accept_all.before_commit");
    tx.commit().await?;
    may_die_at("accept_all.after_commit");
    hub.metrics.intake_group.with_label_values::<&str>(&[]).observe(inserts.len() as f64);
    announce(hub, &refs.iter().copied().zip(&accepted).collect::<Vec<_>>(), now);
    count_replayed(hub, asked.len());
    let mut accepted: Vec<(usize, Accepted)> = places.into_iter().zip(accepted).collect();
    accepted.sort_by_key(|(place, _)| *place);
    Ok(accepted.into_iter().map(|(_, accepted)| accepted).collect())
}

/// The answers of a batch, or everything that is wrong with it. `places` are those of its messages.
fn all_or_none(places: &[usize], answers: Vec<Result<Accepted>>) -> Result<Vec<Accepted>> {
    let (mut accepted, mut refused) = (Vec::with_capacity(answers.len()), Vec::new());
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(answer) => accepted.push(answer),
            Err(Error::Refused(refusal)) => refused.push((*place, refusal)),
            Err(e) => return Err(e),
        }
    }
    if refused.is_empty() {
        return Ok(accepted);
    }
    refused.sort_by_key(|(place, _)| *place);
    let taken = |place: usize| Fault {
        pointer: format!("/messages/{place}/clientMsgId"),
        reason: "idempotency_key_reused",
        detail: "was used for a different message".into(),
        code: Code::E004,
    };
    let mut faults = Vec::new();
    for (place, refusal) in refused {
        // What is wrong with the batch as a whole is told of each of its messages.
        let own = if refusal.faults.is_empty() { vec![taken(place)] } else { refusal.faults };
        faults.extend(own.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>());
    }
    faults.truncate(limits::FAULTS);
    let all_taken = faults.iter().all(|fault| fault.code == Code::E004);
    let refusal = Refusal::of(faults);
    Err(if all_taken { Refusal { status: 409, ..refusal } } else { refusal }.into())
}

/// Of messages that would be refused if they were new: the first answer to each that was stored before. Asked of no other,
/// so that the ordinary way costs no statement more.
pub(super) async fn stored_before(
    hub: &Hub,
    db: impl store::Db<'_>,
    asked: &[(&Partner, &Posted)],
) -> Result<Vec<Result<Accepted>>> {
    let keyed = |(partner, posted): &(&Partner, &Posted)| {
        let client_msg_id = posted.message.client_msg_id.clone()?;
        let hash = key_hash(hub, partner.partner_id, &client_msg_id);
        Some(idempotency::Key { shard: partner.shard, partner_id: partner.partner_id, client_msg_id, hash })
    };
    let keys: Vec<_> = asked.iter().filter_map(keyed).collect();
    let mut held = if keys.is_empty() { Vec::new() } else { idempotency::find(db, &keys).await? }.into_iter();
    let answer = |asked: &(&Partner, &Posted)| {
        let posted = asked.1;
        match posted.message.client_msg_id.as_ref().and_then(|_| held.next().flatten()) {
            Some(held) => replay(&posted.message, &posted.fingerprint, &held),
            None => Err(Refusal::of(posted.faults_if_new.clone()).into()),
        }
    };
    Ok(asked.iter().map(answer).collect())
}

pub(super) fn prepare(hub: &Hub, partner: &Partner, posted: Posted) -> Result<Insert> {
    let Posted { message, fingerprint, .. } = posted;
    let message_id = hub.next_id();
    let detail = store::message::write_detail(&hub.keyring, message_id, &message.detail, partner.encrypt_content)?;
    let lanes = lanes(hub, partner, &message);
    // What is told of it gives way as it does.
    let overflow = lanes.first().is_some_and(|lane| lane.is_overflow());
    let attempts = |d: &NewDelivery| hub.settings.retry.policy(d.channel, d.has_fallback).max_attempts;
    let max_attempts = message.deliveries.iter().map(|d| d.attempts.unwrap_or_else(|| attempts(d))).collect();
    Ok(Insert {
        lanes,
        notice_id: hub.next_id(),
        notice_lane: Lane::new(Channel::Webhook, message.priority, overflow),
        message_id,
        detail,
        partner_id: partner.partner_id,
        shard: partner.shard,
        fingerprint,
        key_hash: message.client_msg_id.as_ref().map(|key| key_hash(hub, partner.partner_id, key)),
        created_at: hub.clock.now(),
        max_attempts,
        message,
    })
}

/// What stands for a key that was erased. Under a key of the installation: keys are easily guessed.
pub(super) fn key_hash(hub: &Hub, partner_id: Tsid, key: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, format!("clientMsgId|{partner_id}|{key}").as_bytes())
}

/// Where each delivery waits: in its prompt lane while the partner has no more than its fair share there.
fn lanes(hub: &Hub, partner: &Partner, message: &NewMessage) -> Vec<Lane> {
    let now = hub.clock.now();
    let ready_at = message.scheduled_at.unwrap_or(now).max(now);
    let mut fairness = hub.fairness();
    let lane = |channel: Channel| {
        let prompt = Lane::new(channel, message.priority, false);
        let fair = fairness.admit(partner.partner_id, (partner.shard, prompt), ready_at, now);
        if fair { prompt } else { Lane::new(channel, message.priority, true) }
    };
    message.deliveries.iter().map(|d| d.channel).map(lane).collect()
}

/// For each insert: written as new, or who holds its key.
pub(super) enum Verdict {
    New {
        /// Endpoints are told of it.
        heard: bool,
    },
    Taken(Option<Held>),
}

/// Asks who holds the keys of those that were not written.
pub(super) async fn holders(db: impl store::Db<'_>, inserts: &[&Insert], written: &[Written]) -> Result<Vec<Verdict>> {
    let written: HashMap<Tsid, bool> = written.iter().map(|w| (w.message_id, w.heard)).collect();
    let key = |i: &&&Insert| idempotency::Key {
        shard: i.shard,
        partner_id: i.partner_id,
        client_msg_id: i.message.client_msg_id.clone().unwrap_or_default(),
        hash: i.key_hash.unwrap_or_default(),
    };
    let left_out: Vec<_> = inserts.iter().filter(|i| !written.contains_key(&i.message_id)).map(|i| key(&i)).collect();
    let mut held = if left_out.is_empty() { Vec::new() } else { idempotency::find(db, &left_out).await? }.into_iter();
    let verdict = |i: &&Insert| {
        written
            .get(&i.message_id)
            .map_or_else(|| Verdict::Taken(held.next().flatten()), |heard| Verdict::New { heard: *heard })
    };
    Ok(inserts.iter().map(verdict).collect())
}

/// The same request again gets the first one's answer; another request under the same key is refused.
pub(super) fn judge(inserts: &[&Insert], verdicts: Vec<Verdict>) -> Vec<Result<Accepted>> {
    let one = |(insert, verdict): (&&Insert, Verdict)| match verdict {
        Verdict::New { heard } => {
            Ok(Accepted { heard, ..answer(&insert.message, insert.message_id, insert.created_at, false) })
        }
        Verdict::Taken(Some(held)) => replay(&insert.message, &insert.fingerprint, &held),
        // The holder's transaction was rolled back, or its message was dropped, between our two statements.
        Verdict::Taken(None) => Err(Error::Busy("the same clientMsgId is being written by another request")),
    };
    inserts.iter().zip(verdicts).map(one).collect()
}

/// The first answer again, if it is the same message.
fn replay(message: &NewMessage, fingerprint: &[u8; 32], held: &Held) -> Result<Accepted> {
    if held.fingerprint == fingerprint {
        return Ok(answer(message, held.message_id, held.created_at, true));
    }
    let detail =
        "this clientMsgId was used for a different message; use a new one, or send the first message unchanged";
    Err(Refusal::new(409, "idempotency_key_reused", detail).with_code(Code::E004).into())
}

fn answer(message: &NewMessage, message_id: Tsid, created_at: DateTime<Utc>, replayed: bool) -> Accepted {
    let waits = message.scheduled_at.is_some_and(|at| at > created_at);
    Accepted {
        message_id,
        client_msg_id: message.client_msg_id.clone(),
        created_at,
        replayed,
        heard: false,
        status: if waits { Status::Scheduled } else { Status::Pending },
        deliveries: message.deliveries.iter().map(|d| (d.channel, d.shown().to_owned())).collect(),
    }
}

fn count_replayed(hub: &Hub, messages: usize) {
    hub.metrics.accepted.with_label_values(&["replayed"]).inc_by(messages as u64);
}

/// After the commit: counts, and wakes workers where something can go at once, ready since `now`.
pub(super) fn announce(hub: &Hub, all: &[(&Insert, &Accepted)], now: DateTime<Utc>) {
    let fresh = || all.iter().filter(|(_, accepted)| !accepted.replayed);
    let new = fresh().count();
    hub.metrics.accepted.with_label_values(&["new"]).inc_by(new as u64);
    count_replayed(hub, all.len() - new);
    let ready = fresh().filter(|(_, accepted)| accepted.status == Status::Pending);
    let ready = ready.flat_map(|(insert, _)| insert.lanes.iter().map(move |lane| ((insert.shard, *lane), now)));
    let told = fresh().filter(|(_, accepted)| accepted.heard);
    let told = told.map(|(insert, _)| ((insert.shard, insert.notice_lane), now));
    hub.wake.ready(ready.chain(told));
}
