//! Relay: turns requests that a service enqueued in its own SQL transaction into messages, by the same rules as HTTP.
//! Each round is one transaction: a request is removed exactly when its message, or its refusal, is written. So a
//! committed request becomes exactly one message even if a relay dies, and a rolled back one becomes none.

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

/// State of the relay between rounds.
#[derive(Debug, Default)]
pub struct Relay {
    /// The last partner that had its turn: partners take turns, so that a backlog of one does not delay others.
    last_partner: Option<Tsid>,
    /// The last round failed: the next one takes a single request, so that one bad request cannot block all for ever.
    one_at_a_time: bool,
    /// Partners that have used up their limit, and until when their requests wait.
    rate_limited: HashMap<Tsid, DateTime<Utc>>,
}

/// Makes one round; returns whether there may be more.
///
/// # Errors
/// `Error::Unavailable` or `Error::Internal`; nothing was written, unless the database failed during the commit. The
/// next round takes a single request.
pub async fn relay(hub: &Hub, relay: &mut Relay) -> Result<bool> {
    let began = relay.last_partner.take();
    let most = if relay.one_at_a_time { 1 } else { limits::RELAY_REQUESTS };
    let now = hub.clock.now();
    relay.rate_limited.retain(|_, until| now < *until && *until <= now + RATE_PAUSE);
    let rate_limited: Vec<Tsid> = relay.rate_limited.keys().copied().collect();
    sql_intake::ensure_turn_locks(hub.store.intake()).await?;
    let mut tx = hub.store.begin_intake().await?;
    let requests = sql_intake::lock_requests(&mut *tx, began.unwrap_or(Tsid(0)), &rate_limited, most).await?;
    if requests.is_empty() {
        tx.rollback().await?;
        return Ok(began.is_some());
    }
    relay.last_partner = requests.iter().map(|r| r.partner_id).max();
    let written = write(hub, tx, requests, &mut relay.rate_limited).await;
    relay.one_at_a_time = written.is_err();
    written
}

/// How long the requests of a partner wait once it has used up its limit: some slots of the limit, so that it is not
/// checked too often.
const RATE_PAUSE: TimeDelta = TimeDelta::milliseconds(50);

/// Counts waiting requests, for the metrics.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the metrics stay as they were.
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
    rate_limited: &mut HashMap<Tsid, DateTime<Utc>>,
) -> Result<bool> {
    let partners = partners(&mut tx, &requests).await?;
    let (mut valid, mut inserts, mut faulty, mut refused) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
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
            // Cannot happen: a request without partner is refused when it is read.
            (None, Ok(_)) => continue,
        };
        match read {
            Ok((partner, posted)) => {
                deliveries += posted.message.deliveries.len();
                // Bounds the size of the insert, so that it ends in time: the rest is taken by the next round.
                if deliveries > limits::DELIVERIES && !inserts.is_empty() {
                    break;
                }
                // The requests of a partner over its limit stay in the queue.
                if rate_limited.contains_key(&partner.partner_id) {
                    continue;
                }
                match rate::spend(hub, partner, 1).await {
                    Ok(_) => (),
                    Err(Error::Limited { .. }) => {
                        rate_limited.insert(partner.partner_id, hub.clock.now() + RATE_PAUSE);
                        continue;
                    }
                    Err(e) => return Err(e),
                }
                inserts.push(prepare(hub, partner, posted)?);
                valid.push(request);
            }
            Err(refuse) => refused.push((request.partner_id, refuse)),
        }
    }
    let now = hub.clock.now();
    let mut answers = insert(hub, &mut tx, &inserts.iter().collect::<Vec<_>>(), now).await?;
    // After the insert: the same message may be among those just written.
    let asked: Vec<(&Partner, &PostedMessage)> =
        faulty.iter().map(|(_, partner, posted)| (partner.as_ref(), posted)).collect();
    answers.extend(stored_before(hub, &mut *tx, &asked).await?);
    let written = inserts.iter().map(Some).chain(faulty.iter().map(|_| None));
    let asked = valid.iter().chain(faulty.iter().map(|(request, ..)| request));
    let (mut done, mut accepted) = (Vec::new(), Vec::new());
    for ((request, insert), answer) in asked.zip(written).zip(answers) {
        match answer {
            Ok(answer) => {
                done.push(request.request_id);
                accepted.extend(insert.map(|insert| (insert, answer)));
            }
            Err(Error::Refused(refusal)) => refused.push((request.partner_id, kept(request.request_id, refusal))),
            // Another request is writing the same key at this moment; the next round sees the result.
            Err(Error::Busy(_)) => (),
            Err(Error::Internal(why)) => {
                tracing::error!(request = request.request_id, why, "a request enqueued in SQL could not be written");
                refused.push((request.partner_id, system_error(request.request_id)));
            }
            Err(e) => return Err(e),
        }
    }
    let settled = done.len() + refused.len();
    let (partner_ids, refused): (Vec<Tsid>, Vec<NewRefusal>) = refused.into_iter().unzip();
    let keys = sql_intake::refuse(&mut *tx, &refused, now).await?;
    let rows = sql_intake::delete_relayed(&mut *tx, &done).await? + keys.len() as u64;
    if rows != settled as u64 {
        return Err(Error::Internal(format!("{rows} requests were settled instead of {settled}")));
    }
    let refusals = partner_ids.iter().zip(&refused).filter_map(|(id, refuse)| Some((partners.get(id)?, refuse)));
    let events: Vec<NewEvent> =
        refusals.map(|(partner, refuse)| refusal(partner, refuse, keys.get(&refuse.request_id), now)).collect();
    let published = publish::publish(hub, &mut tx, &events).await?;
    may_die_at("relay.before_commit");
    tx.commit().await?;
    may_die_at("relay.after_commit");
    announce(hub, &accepted.iter().map(|(insert, accepted)| (*insert, accepted)).collect::<Vec<_>>(), now);
    publish::announce(hub, &published);
    for (partner_id, refused) in partner_ids.iter().zip(&refused) {
        let (request, partner) = (refused.request_id, partners.get(partner_id).map(|p| p.name.as_str()));
        let (code, reason) = (refused.code, refused.reason);
        hub.metrics.intake_refused.with_label_values(&[code]).inc();
        tracing::warn!(request, partner, code, reason, "a request enqueued in SQL was refused");
    }
    Ok(settled > 0)
}

/// The event about a refused request: its sender gets no other answer.
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

/// Reads the partners of requests. Whether a partner is active was checked when it enqueued; requests enqueued then are
/// delivered.
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

/// Parses the bodies, each as of the moment it was enqueued, so that a request does not become invalid by waiting.
async fn read(
    hub: &Hub,
    requests: Vec<EnqueuedRequest>,
    mut policies: HashMap<Tsid, IntakePolicy>,
) -> Result<Vec<Read>> {
    let now = hub.clock.now();
    let mut read_one = move |request: EnqueuedRequest| {
        let Some(policy) = policies.get_mut(&request.partner_id) else {
            let gone = refuse(request.request_id, "E007", "partner_unknown", "the partner no longer exists");
            return (request, Err(gone));
        };
        policy.now = now - request.waited;
        // A panic of the parser must not block the requests behind this one.
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
    // On a thread of its own, so that it blocks no async task.
    hub.shutdown.compute(move || requests.into_iter().map(&mut read_one).collect()).await
}

/// Writes messages in one statement. If the database rejects that, each one by itself, so that one bad message does not
/// fail the others. If it rejects all of them, the cause is not in the messages: then this fails, and all wait.
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
    for insert in inserts {
        match insert_group(tx, &[*insert], now).await {
            Ok(answer) => answers.extend(answer),
            Err(e @ Error::Refused(_)) => {
                hub.metrics.rejected_input.inc();
                tracing::error!(error = %e, "the database refused a message that the parser accepted");
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

/// Writes all messages or none, in a savepoint; the transaction continues either way.
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
    let detail = "the hub failed to read the request; its log has the cause under the requestId";
    refuse(request_id, "E100", "system_error", detail)
}
