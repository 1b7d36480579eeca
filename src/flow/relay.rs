//! Relay: what a service enqueued in its own SQL transaction becomes messages, by the law that HTTP has. All of a round
//! commits together: a request is gone exactly when its message is there, or when it is kept as refused. So one that was
//! committed becomes one message whenever a relay dies, and one that was rolled back never was.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::intake::announce::announce;
use super::intake::judge::{answers, stored_before};
use super::intake::prepare::prepare;
use super::publish::{self, NewEvent};
use super::rate;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::event::{EventKind, EventPayload};
use crate::model::idempotency::Accepted;
use crate::model::intake::{self, IntakePolicy};
use crate::model::lane::Priority;
use crate::model::message::PostedMessage;
use crate::model::partner::Partner;
use crate::shutdown::may_die_at;
use crate::store::message::NewMessageRow;
use crate::store::sql_intake::{self, EnqueuedRequest, NewRefusal, RequestFault};
use crate::store::{self, Conn, Tx};

/// Where the relay stands between rounds.
#[derive(Debug, Default)]
pub struct Relay {
    /// The last partner that had its turn: partners take turns, so that one with a backlog holds up no other.
    last_partner: Option<Tsid>,
    /// The last round failed as a whole: the next one takes one request, lest one spoil all for ever.
    one_at_a_time: bool,
    /// Partners that have spent their requests, and until when they are passed over: theirs wait.
    rate_limited: HashMap<Tsid, DateTime<Utc>>,
}

/// One round; says whether there may be more.
pub async fn relay(hub: &Hub, relay: &mut Relay) -> Result<bool> {
    let began = relay.last_partner.take();
    let most = if relay.one_at_a_time { 1 } else { limits::RELAY_REQUESTS };
    let now = hub.clock.now();
    relay.rate_limited.retain(|_, until| now < *until && *until <= now + RATE_PAUSE);
    let over: Vec<Tsid> = relay.rate_limited.keys().copied().collect();
    sql_intake::ensure_turn_locks(hub.store.intake()).await?;
    let mut tx = hub.store.begin_intake().await?;
    let requests = sql_intake::lock_requests(&mut *tx, began.unwrap_or(Tsid(0)), &over, most).await?;
    if requests.is_empty() {
        tx.rollback().await?;
        return Ok(began.is_some());
    }
    relay.last_partner = requests.iter().map(|r| r.partner_id).max();
    let written = write(hub, tx, requests, &mut relay.rate_limited).await;
    relay.one_at_a_time = written.is_err();
    written
}

/// How long a partner is passed over once it has spent its requests: some slots of its limit, so that looking again is rare.
const RATE_PAUSE: TimeDelta = TimeDelta::milliseconds(50);

/// How much waits, for the metrics.
pub async fn measure(hub: &Hub) -> Result<()> {
    let waiting = sql_intake::backlog(hub.store.api(), limits::RELAY_COUNT).await?;
    hub.metrics.sql_intake_waiting.with_label_values::<&str>(&[]).set(waiting.requests);
    hub.metrics.sql_intake_oldest_seconds.with_label_values::<&str>(&[]).set(waiting.oldest.num_seconds());
    Ok(())
}

async fn write(
    hub: &Hub,
    mut tx: Tx,
    requests: Vec<EnqueuedRequest>,
    over: &mut HashMap<Tsid, DateTime<Utc>>,
) -> Result<bool> {
    let partners = partners(&mut tx, &requests).await?;
    let (mut right, mut inserts, mut faulty, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut deliveries = 0;
    let policies = partners.iter().map(|(id, partner)| (*id, hub.intake_policy(partner))).collect();
    for (request, posted) in read(hub, requests, policies).await? {
        let read = match (partners.get(&request.partner_id), posted) {
            (Some(partner), Ok(posted)) if !posted.faults_if_new.is_empty() => {
                faulty.push((request, partner, posted));
                continue;
            }
            (Some(partner), Ok(posted)) => Ok((partner, posted)),
            (_, Err(refuse)) => Err(refuse),
            // What nobody posted was not read either.
            (None, Ok(_)) => continue,
        };
        match read {
            Ok((partner, posted)) => {
                deliveries += posted.message.deliveries.len();
                // A statement is to end in time: the others have the next round.
                if deliveries > limits::DELIVERIES && !inserts.is_empty() {
                    break;
                }
                // One over its rate waits where it is, as does all behind it; nothing is lost.
                if over.contains_key(&partner.partner_id) {
                    continue;
                }
                match rate::spend(hub, partner, 1).await {
                    Ok(_) => (),
                    Err(Error::Limited { .. }) => {
                        over.insert(partner.partner_id, hub.clock.now() + RATE_PAUSE);
                        continue;
                    }
                    Err(e) => return Err(e),
                }
                inserts.push(prepare(hub, partner, posted)?);
                right.push(request);
            }
            Err(refuse) => refused.push((request.partner_id, refuse)),
        }
    }
    let now = hub.clock.now();
    let mut answers = insert(hub, &mut tx, &inserts.iter().collect::<Vec<_>>(), now).await?;
    // After those: the same message may be among them.
    let asked: Vec<(&Partner, &PostedMessage)> =
        faulty.iter().map(|(_, partner, posted)| (partner.as_ref(), posted)).collect();
    answers.extend(stored_before(hub, &mut *tx, &asked).await?);
    let written = inserts.iter().map(Some).chain(faulty.iter().map(|_| None));
    let asked = right.iter().chain(faulty.iter().map(|(request, ..)| request));
    let (mut done, mut accepted) = (Vec::new(), Vec::new());
    for ((request, insert), answer) in asked.zip(written).zip(answers) {
        match answer {
            Ok(answer) => {
                done.push(request.request_id);
                accepted.extend(insert.map(|insert| (insert, answer)));
            }
            Err(Error::Refused(refusal)) => refused.push((request.partner_id, kept(request.request_id, refusal))),
            // Another request is writing the same key at this moment: next time it is seen.
            Err(Error::Busy(_)) => (),
            Err(Error::Internal(why)) => {
                tracing::error!(request = request.request_id, why, "a request enqueued in SQL could not be written");
                refused.push((request.partner_id, system_error(request.request_id)));
            }
            Err(e) => return Err(e),
        }
    }
    let settled = done.len() + refused.len();
    let (of, refused): (Vec<Tsid>, Vec<NewRefusal>) = refused.into_iter().unzip();
    let keys = sql_intake::refuse(&mut *tx, &refused, now).await?;
    let rows = sql_intake::delete_relayed(&mut *tx, &done).await? + keys.len() as u64;
    if rows != settled as u64 {
        return Err(Error::Internal(format!("{rows} requests were settled that should be {settled}")));
    }
    let told = of.iter().zip(&refused).filter_map(|(id, refuse)| Some((partners.get(id)?, refuse)));
    let notices: Vec<NewEvent> =
        told.map(|(partner, refuse)| refusal(partner, refuse, keys.get(&refuse.request_id), now)).collect();
    let published = publish::publish(hub, &mut tx, &notices).await?;
    may_die_at("relay.before_commit");
    tx.commit().await?;
    may_die_at("relay.after_commit");
    announce(hub, &accepted.iter().map(|(insert, accepted)| (*insert, accepted)).collect::<Vec<_>>(), now);
    publish::announce(hub, &published);
    for (partner_id, refused) in of.iter().zip(&refused) {
        let (request, partner) = (refused.request_id, partners.get(partner_id).map(|p| p.name.as_str()));
        let (code, reason) = (refused.code, refused.reason);
        hub.metrics.intake_refused.with_label_values(&[code]).inc();
        tracing::warn!(request, partner, code, reason, "a request enqueued in SQL was refused");
    }
    Ok(settled > 0)
}

/// What is told of a request that was refused: nobody waits for an answer to it.
fn refusal(partner: &Partner, refuse: &NewRefusal, key: Option<&Option<String>>, now: DateTime<Utc>) -> NewEvent {
    let more = serde_json::json!({
        "requestId": refuse.request_id.to_string(),
        "clientMsgId": key,
        "errorDetail": refuse.detail,
        "errors": refuse.errors,
    });
    NewEvent {
        partner_id: partner.partner_id,
        shard: partner.shard,
        about: None,
        priority: Priority::Normal,
        overflow: false,
        payload: EventPayload {
            event: EventKind::MessageRefused.as_str().into(),
            seq: 1,
            code: Some(refuse.code.to_owned()),
            reason: Some(refuse.reason.to_owned()),
            occurred_at: now,
            extra: more.as_object().cloned().unwrap_or_default(),
            ..EventPayload::default()
        },
        only: None,
    }
}

/// Who enqueued these. Whether a partner is active was asked when it enqueued; what it enqueued then is delivered.
async fn partners(conn: &mut Conn, requests: &[EnqueuedRequest]) -> Result<HashMap<Tsid, Arc<Partner>>> {
    let mut partners = HashMap::new();
    for request in requests {
        if !partners.contains_key(&request.partner_id)
            && let Some(partner) = store::partner::get(&mut *conn, request.partner_id).await?
        {
            partners.insert(request.partner_id, Arc::new(partner));
        }
    }
    Ok(partners)
}

type Read = (EnqueuedRequest, std::result::Result<PostedMessage, NewRefusal>);

/// Reads the bodies, each as of the moment it was enqueued: however long it waited, what was right then is right.
async fn read(
    hub: &Hub,
    requests: Vec<EnqueuedRequest>,
    mut policies: HashMap<Tsid, IntakePolicy>,
) -> Result<Vec<Read>> {
    let now = hub.clock.now();
    let mut one = move |request: EnqueuedRequest| {
        let Some(policy) = policies.get_mut(&request.partner_id) else {
            let gone = refuse(request.request_id, "E007", "partner_unknown", "there is no such partner any more");
            return (request, Err(gone));
        };
        policy.now = now - request.waited;
        // A reader that panics is our fault and one request's trouble, not that of all behind it.
        let read = std::panic::catch_unwind(|| {
            may_die_at("relay.read");
            intake::message(request.body.as_bytes(), policy)
        });
        let read = match read {
            Ok(read) => read.map_err(|refusal| kept(request.request_id, refusal)),
            Err(_) => {
                tracing::error!(request = request.request_id, "reading a request enqueued in SQL panicked");
                Err(system_error(request.request_id))
            }
        };
        (request, read)
    };
    // Beside the loops, not between them.
    hub.shutdown.compute(move || requests.into_iter().map(&mut one).collect()).await
}

/// Writes them in one statement. Where the database does not take that, each for itself: one must not spoil the others.
/// When it takes none of them, the fault is not theirs: then this fails, and all of them wait.
async fn insert(
    hub: &Hub,
    tx: &mut Tx,
    inserts: &[&NewMessageRow],
    now: DateTime<Utc>,
) -> Result<Vec<Result<Accepted>>> {
    if inserts.is_empty() {
        return Ok(Vec::new());
    }
    match insert_group(tx, inserts, now).await {
        Err(Error::Refused(_) | Error::Internal(_)) => (),
        other => return other,
    }
    let mut answers = Vec::with_capacity(inserts.len());
    for one in inserts {
        match insert_group(tx, &[*one], now).await {
            Ok(answer) => answers.extend(answer),
            Err(e @ Error::Refused(_)) => {
                hub.metrics.rejected_input.inc();
                tracing::error!(error = %e, "the database refused input that parsing let through");
                answers.push(Err(e));
            }
            Err(e @ Error::Internal(_)) => answers.push(Err(e)),
            Err(e) => return Err(e),
        }
    }
    match answers.iter().all(|a| matches!(a, Err(Error::Internal(_)))).then(|| answers.pop()).flatten() {
        Some(Err(e)) => Err(e),
        _ => Ok(answers),
    }
}

/// All or none of them; the transaction goes on either way.
async fn insert_group(tx: &mut Tx, inserts: &[&NewMessageRow], now: DateTime<Utc>) -> Result<Vec<Result<Accepted>>> {
    let mut point = store::savepoint(tx).await?;
    let inserted = match store::message::insert(&mut *point, inserts, now).await {
        Ok(inserted) => inserted,
        Err(e) => {
            point.rollback().await?;
            return Err(e);
        }
    };
    let answers = answers(&mut *point, inserts, &inserted).await?;
    point.commit().await?;
    Ok(answers)
}

fn kept(request_id: i64, refusal: Refusal) -> NewRefusal {
    let Refusal { code, reason, detail, faults, .. } = refusal;
    let wrong =
        |f: Fault| RequestFault { pointer: f.pointer, reason: f.reason.to_owned(), detail: f.detail.into_owned() };
    let errors = faults.into_iter().map(wrong).collect();
    NewRefusal { request_id, code: Code::as_str(code), reason, detail, errors }
}

fn refuse(request_id: i64, code: &'static str, reason: &'static str, detail: &str) -> NewRefusal {
    NewRefusal { request_id, code, reason, detail: detail.to_owned(), errors: Vec::new() }
}

fn system_error(request_id: i64) -> NewRefusal {
    let detail = "something is wrong on our side; it is in our log under the requestId";
    refuse(request_id, "E100", "system_error", detail)
}
