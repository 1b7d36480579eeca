//! Accept: a message, its deliveries and its key become durable together, or not at all. Answered only after the commit.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use crate::crypt;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::lane::Lane;
use crate::model::message::{NewDelivery, NewMessage};
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
pub async fn accept(hub: &Hub, partner: &Partner, message: NewMessage) -> Result<Accepted> {
    let accepted = hub.intake.write(prepare(hub, partner, message)?).await?;
    Ok(accepted)
}

/// Accepts all of them, or none. The caller has its turn (`Intake::batch`).
pub async fn accept_all(hub: &Hub, partner: &Partner, messages: Vec<NewMessage>) -> Result<Vec<Accepted>> {
    let inserts: Vec<Insert> =
        messages.into_iter().map(|message| prepare(hub, partner, message)).collect::<Result<_>>()?;
    let refs: Vec<&Insert> = inserts.iter().collect();
    let now = hub.clock.now();
    let mut tx = hub.store.begin_intake().await?;
    let written = store::message::insert(&mut *tx, &refs, now).await?;
    let held = holders(&mut *tx, &refs, &written).await?;
    let answers = judge(&refs, held);
    let faults: Vec<Fault> = answers
        .iter()
        .enumerate()
        .filter(|(_, answer)| answer.is_err())
        .map(|(n, _)| Fault {
            pointer: format!("/messages/{n}/clientMsgId"),
            reason: "idempotency_key_reused",
            detail: "was used for a different message".into(),
            code: Code::E004,
        })
        .collect();
    if !faults.is_empty() {
        tx.rollback().await?;
        return Err(Refusal { status: 409, ..Refusal::of(faults) }.into());
    }
    may_die_at("accept_all.before_commit");
    tx.commit().await?;
    may_die_at("accept_all.after_commit");
    hub.metrics.intake_group.with_label_values::<&str>(&[]).observe(inserts.len() as f64);
    let accepted: Vec<Accepted> = answers.into_iter().collect::<Result<_>>()?;
    announce(hub, &refs, &accepted, now);
    Ok(accepted)
}

pub(super) fn prepare(hub: &Hub, partner: &Partner, message: NewMessage) -> Result<Insert> {
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
        fingerprint: message.fingerprint(),
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
    let answer = |insert: &Insert, message_id, created_at, replayed| {
        let message = &insert.message;
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
    };
    let one = |(insert, verdict): (&&Insert, Verdict)| match verdict {
        Verdict::New { heard } => Ok(Accepted { heard, ..answer(insert, insert.message_id, insert.created_at, false) }),
        Verdict::Taken(Some(held)) if held.fingerprint == insert.fingerprint => {
            Ok(answer(insert, held.message_id, held.created_at, true))
        }
        Verdict::Taken(Some(_)) => Err(Refusal::new(
            409,
            "idempotency_key_reused",
            "this clientMsgId was used for a different message; use a new one, or send the first message unchanged",
        )
        .with_code(Code::E004)
        .into()),
        // The holder's transaction was rolled back, or its message was dropped, between our two statements.
        Verdict::Taken(None) => Err(Error::Busy("the same clientMsgId is being written by another request")),
    };
    inserts.iter().zip(verdicts).map(one).collect()
}

/// After the commit: counts, and wakes workers where something can go at once, ready since `now`.
pub(super) fn announce(hub: &Hub, inserts: &[&Insert], accepted: &[Accepted], now: DateTime<Utc>) {
    let fresh = || inserts.iter().zip(accepted).filter(|(_, a)| !a.replayed);
    let new = fresh().count() as u64;
    hub.metrics.accepted.with_label_values(&["new"]).inc_by(new);
    hub.metrics.accepted.with_label_values(&["replayed"]).inc_by(accepted.len() as u64 - new);
    let ready = fresh().filter(|(_, a)| a.status == Status::Pending);
    let ready = ready.flat_map(|(insert, _)| insert.lanes.iter().map(move |lane| ((insert.shard, *lane), now)));
    let told = fresh().filter(|(_, a)| a.heard).map(|(insert, _)| ((insert.shard, insert.notice_lane), now));
    hub.wake.ready(ready.chain(told));
}
