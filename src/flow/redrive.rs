//! Redrive: sends dead letters again on request. One at once; many, and replays of events, by jobs that run in small
//! steps at a bounded rate. A step and the job's new position are one commit, so a crash loses nothing and repeats
//! nothing.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Refusal, Result, Unavailable};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::{OperatorPermit, RedrivePermit};
use crate::model::access::principal::Actor;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, STATUSES, Status, max_attempts_after_redrive};
use crate::model::endpoint::{Endpoint, EndpointStatus};
use crate::model::event::{EVENT_KINDS, EventKind, EventPayload, WHOLE_MESSAGE_NO};
use crate::model::lane::Lane;
use crate::model::message::{Content, ERASED, OverallStatus};
use crate::model::redrive::{
    DEAD_LETTER_STATUSES, JobFilter, MIN_STEP, RedriveKind, RedriveStatus, allowance, rate_used_until,
};
use crate::model::watermark::ShardLane;
use crate::shutdown::may_die_at;
use crate::store::audit::AuditEntry;
use crate::store::delivery::EndpointPosition;
use crate::store::event::{EventRange, PartnerEvent};
use crate::store::redrive::{DeadLetterFilter, DeliveryPosition, RedriveCandidate, RedriveJob};
use crate::store::{self, Conn};

use super::fallback::event_fields;
use super::partner::{audit, unknown};
use super::publish::{NewEvent, Published, announce, publish};

/// The rows that were written, to be announced after the commit.
#[derive(Default)]
struct Written {
    count: usize,
    places: Vec<(ShardLane, DateTime<Utc>)>,
    published: Published,
}

impl Written {
    fn announce(self, hub: &Hub) {
        hub.wake.notify(self.places);
        announce(hub, &self.published);
    }
}

/// Redrives one dead letter of the permit's partner: it becomes PENDING. Returns the delivery as it is then.
///
/// # Errors
/// `Error::NotFound` if the partner has no such delivery. `Error::Refused` if the permit does not cover its channel, or
/// it cannot be sent again. Nothing was written then. `Error::Unavailable` if the database fails; nothing was written,
/// unless it failed during the commit.
pub async fn redrive_one(
    hub: &Hub,
    permit: RedrivePermit<'_>,
    message_id: Tsid,
    no: i16,
) -> Result<store::delivery::DeliveryRow> {
    let (actor, partner) = (permit.actor(), permit.partner());
    let (id, shard) = (partner.partner_id, partner.shard);
    let mut tx = hub.store.begin().await?;
    let dead = store::redrive::get_candidate(&mut *tx, id, shard, message_id, no).await?.ok_or(Error::NotFound)?;
    permit.check_channel(dead.lane.channel())?;
    let refused = |(reason, detail): (&'static str, &'static str)| Error::from(Refusal::new(422, reason, detail));
    let attempts = attempts_allowed(hub, &dead).map_err(refused)?;
    let key = dead.key;
    let written = make_pending(hub, &mut tx, vec![(dead, attempts)]).await?;
    if written.count == 0 {
        // Another request was faster, or the content was erased.
        let dead = store::redrive::get_candidate(&mut *tx, id, shard, message_id, no).await?.ok_or(Error::NotFound)?;
        attempts_allowed(hub, &dead).map_err(refused)?;
        return Err(Refusal::new(
            422,
            "content_erased",
            "its content or recipient was erased, so it cannot be sent again",
        )
        .into());
    }
    if actor.principal.is_audited() {
        let (action, object) = ("delivery.redrive".into(), Some(key.to_string()));
        audit(hub, &mut tx, actor, &AuditEntry { action, object, partner_id: Some(id), ..AuditEntry::default() })
            .await?;
    }
    let row = store::delivery::of_message(&mut *tx, id, shard, message_id, Some(no)).await?;
    tx.commit().await?;
    written.announce(hub);
    row.into_iter().next().ok_or(Error::NotFound)
}

/// How many attempts a redriven delivery may have; or reason and detail why it cannot be redriven.
fn attempts_allowed(hub: &Hub, dead: &RedriveCandidate) -> Result<i16, (&'static str, &'static str)> {
    let (channel, retry) = (dead.lane.channel(), &hub.settings.retry);
    if dead.replaced {
        return Err(("replaced", "another delivery replaced it; to send it again, post the message again"));
    }
    max_attempts_after_redrive(
        dead.status,
        dead.attempt,
        hub.providers.on_unknown(channel, retry),
        &retry.policy(channel, false),
    )
}

/// Makes dead letters PENDING, each with the attempts it may have, and publishes their events. Leaves out those whose
/// content or recipient was erased, and those that changed meanwhile.
async fn make_pending(hub: &Hub, tx: &mut Conn, mut dead: Vec<(RedriveCandidate, i16)>) -> Result<Written> {
    let now = hub.clock.now();
    dead.sort_by_key(|(d, _)| d.key);
    dead.dedup_by_key(|(d, _)| d.key);
    let messages: BTreeSet<(i16, Tsid)> = dead.iter().map(|(d, _)| (d.key.shard, d.key.message_id)).collect();
    let messages: Vec<(i16, Tsid)> = messages.into_iter().collect();
    let contents = store::message::contents(&mut *tx, &hub.keyring, &messages).await?;
    let contents: HashMap<Tsid, _> = contents.into_iter().collect();
    let blank = Content::default();
    dead.retain(|(d, _)| {
        let message = contents.get(&d.key.message_id).and_then(Option::as_ref);
        let content = message.and_then(|m| m.detail.contents.get(usize::try_from(d.content).ok()?));
        d.recipient != ERASED && content.is_some_and(|content| *content != blank)
    });
    let owners: HashMap<DeliveryKey, Tsid> = dead.iter().map(|(d, _)| (d.key, d.partner_id)).collect();
    let redriven = store::delivery::redrive(&mut *tx, &dead, now).await?;
    // Redriven webhooks emit no event: no webhook reports on a webhook.
    let events = redriven.iter().filter(|r| r.lane.channel() != Channel::Webhook).map(|r| NewEvent {
        partner_id: owners[&r.key],
        shard: r.key.shard,
        about: Some(r.key.message_id),
        priority: r.lane.priority(),
        overflow: true,
        payload: EventPayload {
            event: EventKind::Redriven.as_str().into(),
            no: r.key.no,
            seq: r.event_seq,
            attempt: Some(r.attempt),
            lane: Some(r.lane.0),
            status: Some(Status::Pending.as_str().into()),
            occurred_at: now,
            ..EventPayload::default()
        },
        only: None,
    });
    let events: Vec<NewEvent> = events.collect();
    let published = publish(hub, tx, &events).await?;
    let places = redriven.iter().map(|r| ((r.key.shard, r.lane), now)).collect();
    Ok(Written { count: redriven.len(), places, published })
}

/// Number of dead letters that an order would redrive.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetterCount {
    /// Dead letters counted.
    pub count: i64,
    /// Deliveries that wait for a retry; None where the order does not cover them.
    pub waiting: Option<i64>,
    /// There are more: counting stopped at its limit.
    pub more: bool,
}

/// A request for a redrive job.
#[derive(Debug, Clone)]
pub struct RedriveOrder {
    /// What the job does.
    pub kind: RedriveKind,
    /// Only of this partner; None: of all.
    pub partner_id: Option<Tsid>,
    /// Only webhooks to this endpoint.
    pub endpoint_id: Option<Tsid>,
    /// Which deliveries or events.
    pub filter: JobFilter,
    /// Deliveries or events a second, at most.
    pub rate_per_second: i32,
}

/// Counts the dead letters that an operator's order would redrive, up to `limits::REDRIVE_COUNT` and for at most
/// `limits::REDRIVE_COUNTING`.
///
/// # Errors
/// `Error::Refused` if the order names an unknown partner. `Error::Unavailable` if the database fails.
pub async fn count(hub: &Hub, _permit: OperatorPermit<'_>, order: &RedriveOrder) -> Result<DeadLetterCount> {
    counted(hub, order).await
}

async fn counted(hub: &Hub, order: &RedriveOrder) -> Result<DeadLetterCount> {
    let mut walk = Walk::new(hub, order.partner_id, order.endpoint_id, &order.filter, None).await?;
    let _turn = hub.count_turn.acquire().await;
    let (began, mut count) = (Instant::now(), 0);
    // An engine connection, like a step: its planner settings make the walk use the index.
    let mut conn = hub.store.begin_engine().await?;
    while !walk.is_over() {
        if count >= limits::REDRIVE_COUNT || began.elapsed() > limits::REDRIVE_COUNTING {
            return Ok(DeadLetterCount { count, waiting: None, more: true });
        }
        count += i64::try_from(walk.next(hub, &mut conn, limits::REDRIVE_LOOK).await?.len()).unwrap_or(0);
    }
    Ok(DeadLetterCount { count, waiting: None, more: false })
}

/// Like `counted`, with the deliveries to the endpoint that wait for a retry.
async fn counted_to_recover(hub: &Hub, endpoint: &Endpoint, order: &RedriveOrder) -> Result<DeadLetterCount> {
    let DeadLetterCount { count, mut more, .. } = counted(hub, order).await?;
    let (began, now, mut waiting) = (Instant::now(), hub.clock.now(), 0);
    let to = endpoint.endpoint_id.to_string();
    let mut conn = hub.store.begin_engine().await?;
    let mut next = Some(waits_behind(&order.filter));
    while let Some(behind) = next.take() {
        if waiting >= limits::REDRIVE_COUNT || began.elapsed() > limits::REDRIVE_COUNTING {
            more = true;
            break;
        }
        let along = EndpointPosition { after: behind, below: Tsid(i64::MAX) };
        let (found, last) =
            store::delivery::count_retrying(&mut *conn, (endpoint.shard, &to), along, limits::REDRIVE_LOOK, now)
                .await?;
        (waiting, next) = (waiting + found, last);
    }
    Ok(DeadLetterCount { count, waiting: Some(waiting), more })
}

/// Position before the first delivery since the filter's time: ids rise with time.
fn waits_behind(filter: &JobFilter) -> DeliveryPosition {
    (filter.since.map_or(START.0, Tsid::floor), 0)
}

/// Begins an operator's job over dead letters; returns it with the count of them.
///
/// # Errors
/// `Error::Refused` if the order names an unknown partner or too many jobs run; nothing was written.
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn begin(
    hub: &Hub,
    permit: OperatorPermit<'_>,
    order: RedriveOrder,
) -> Result<(RedriveJob, DeadLetterCount)> {
    let counted = counted(hub, &order).await?;
    let job = insert(hub, permit.actor(), order, Some(counted)).await?;
    Ok((job, counted))
}

/// Begins a job for one endpoint: of the partner `partner_id`, or of any partner if that is None (for operators).
/// `order` makes the order for the endpoint. Returns the job, and the count of dead letters unless it is a replay.
///
/// # Errors
/// `Error::NotFound` if the partner has no such endpoint. `Error::Refused` if it is disabled or too many jobs run.
/// Nothing was written then. `Error::Unavailable` if the database fails; nothing was written, unless it failed during
/// the commit.
pub async fn begin_for_endpoint(
    hub: &Hub,
    actor: &Actor,
    partner_id: Option<Tsid>,
    endpoint_id: Tsid,
    order: impl FnOnce(&Endpoint) -> RedriveOrder,
) -> Result<(RedriveJob, Option<DeadLetterCount>)> {
    let endpoint = endpoint(hub, endpoint_id).await?;
    let theirs = |e: &Endpoint| partner_id.is_none_or(|id| id == e.partner_id) && e.status != EndpointStatus::Deleted;
    let endpoint = endpoint.filter(theirs).ok_or(Error::NotFound)?;
    if endpoint.status == EndpointStatus::Disabled {
        let detail = "the endpoint is disabled: nothing would be sent there; make it active first";
        return Err(Refusal::new(422, "endpoint_disabled", detail).into());
    }
    let order = order(&endpoint);
    let counted = match order.kind {
        RedriveKind::Replay => None,
        RedriveKind::Redrive => Some(counted(hub, &order).await?),
        RedriveKind::Recover => Some(counted_to_recover(hub, &endpoint, &order).await?),
    };
    Ok((insert(hub, actor, order, counted).await?, counted))
}

async fn endpoint(hub: &Hub, endpoint_id: Tsid) -> Result<Option<Endpoint>> {
    Ok(store::endpoint::load(hub.store.api(), &hub.keyring, &[endpoint_id]).await?.into_iter().next())
}

async fn insert(hub: &Hub, actor: &Actor, order: RedriveOrder, counted: Option<DeadLetterCount>) -> Result<RedriveJob> {
    let now = hub.clock.now();
    let job = RedriveJob {
        redrive_id: hub.next_id(),
        kind: order.kind,
        partner_id: order.partner_id,
        endpoint_id: order.endpoint_id,
        filter: order.filter,
        rate_per_second: order.rate_per_second,
        status: RedriveStatus::Running,
        expected: counted.filter(|c| !c.more).map(|c| c.count),
        done: 0,
        position: None,
        requested_by: actor.name.clone(),
        created_at: now,
        stepped_at: now,
        finished_at: None,
    };
    let mut tx = hub.store.begin().await?;
    if !store::redrive::insert(&mut *tx, &job).await? {
        let detail = format!("{} of this partner's jobs are running already", limits::REDRIVES_AT_ONCE);
        return Err(Refusal::new(422, "too_many_redrives", detail).into());
    }
    audit_job(hub, &mut tx, actor, &job, "redrive.begin").await?;
    tx.commit().await?;
    Ok(job)
}

/// Writes the audit entry of a job, if the actor is audited: partners are not audited for their own deliveries.
async fn audit_job(hub: &Hub, tx: &mut Conn, actor: &Actor, job: &RedriveJob, action: &str) -> Result<()> {
    if !actor.principal.is_audited() {
        return Ok(());
    }
    let after = json!({
        "kind": job.kind.as_str(),
        "endpointId": job.endpoint_id.map(|id| id.to_string()),
        "filter": serde_json::to_value(&job.filter).unwrap_or_default(),
        "ratePerSecond": job.rate_per_second,
    });
    let object = Some(job.redrive_id.to_string());
    let entry = AuditEntry {
        action: action.into(),
        object,
        partner_id: job.partner_id,
        after: Some(after),
        ..AuditEntry::default()
    };
    audit(hub, tx, actor, &entry).await
}

/// Stops a job; what it has redriven stays. Returns the job as it is then. `partner_id`: only a job of this partner.
///
/// # Errors
/// `Error::NotFound` if there is no such job. `Error::Unavailable` if the database fails; nothing was written, unless
/// it failed during the commit.
pub async fn cancel(hub: &Hub, actor: &Actor, partner_id: Option<Tsid>, redrive_id: Tsid) -> Result<RedriveJob> {
    let mut tx = hub.store.begin().await?;
    let job = store::redrive::get(&mut *tx, redrive_id, partner_id).await?.ok_or(Error::NotFound)?;
    if store::redrive::cancel(&mut *tx, redrive_id, hub.clock.now()).await? {
        audit_job(hub, &mut tx, actor, &job, "redrive.cancel").await?;
    }
    let job = store::redrive::get(&mut *tx, redrive_id, partner_id).await?.ok_or(Error::NotFound)?;
    tx.commit().await?;
    Ok(job)
}

/// Result of one step of a job.
struct StepResult {
    written: Written,
    /// How many of the allowed deliveries or events it used.
    used: usize,
    position: Option<Value>,
    is_over: bool,
}

/// Makes one step of the job whose turn it is, in one transaction. Returns false if no job is due.
///
/// # Errors
/// `Error::Unavailable` if the database fails. The job's position is unchanged then, and other jobs have their turn
/// before it is tried again.
pub async fn step(hub: &Hub) -> Result<bool> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_engine().await?;
    let Some(job) = store::redrive::lock_next_job(&mut tx, now, MIN_STEP).await? else { return Ok(false) };
    let (id, rate) = (job.redrive_id, job.rate_per_second);
    let allowed = allowance(rate, job.stepped_at, now);
    if allowed == 0 {
        return Ok(false);
    }
    let mut part = store::savepoint(&mut tx).await?;
    let result = match job.kind {
        RedriveKind::Redrive => dead_letters(hub, &mut part, &job, allowed).await,
        RedriveKind::Recover => recover(hub, &mut part, &job, allowed).await,
        RedriveKind::Replay => replay(hub, &mut part, &job, allowed).await,
    };
    let step = match result {
        Ok(step) => step,
        Err(e) => {
            // Roll the step back, but record the turn, so that other jobs go first before it is tried again.
            part.rollback().await?;
            store::redrive::record_step(&mut tx, id, job.position.as_ref(), 0, now, None).await?;
            tx.commit().await?;
            return Err(e);
        }
    };
    part.commit().await?;
    let did = i64::try_from(step.written.count).unwrap_or(0);
    let stepped_at = rate_used_until(rate, job.stepped_at, now, allowed, step.used);
    let finished_at = step.is_over.then_some(now);
    store::redrive::record_step(&mut tx, id, step.position.as_ref(), did, stepped_at, finished_at).await?;
    may_die_at("redrive.before_commit");
    tx.commit().await?;
    may_die_at("redrive.after_commit");
    if step.is_over {
        tracing::info!(redrive = %id, kind = job.kind.as_str(), done = job.done + did, "the redrive job is complete");
    }
    step.written.announce(hub);
    Ok(true)
}

/// Position of a walk over dead letters, as a job stores it. Field names are stored in the database.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct WalkPosition {
    partner: i64,
    /// Index in `DEAD`.
    status: usize,
    message: i64,
    no: i16,
}

const START: DeliveryPosition = (Tsid(0), 0);

/// A walk over dead letters: partner by partner, status by status, in the order of their ids.
struct Walk {
    /// ((partner, its shard), index in `DEAD`)
    places: Vec<((Tsid, i16), usize)>,
    wanted: DeadLetterFilter,
    n: usize,
    behind: DeliveryPosition,
}

impl Walk {
    async fn new(
        hub: &Hub,
        partner_id: Option<Tsid>,
        endpoint_id: Option<Tsid>,
        filter: &JobFilter,
        at: Option<WalkPosition>,
    ) -> Result<Walk> {
        let db = hub.store.api();
        let mut owners = match partner_id {
            Some(id) => {
                let partner = store::partner::get(db, id).await?.ok_or_else(unknown)?;
                vec![(id, partner.shard)]
            }
            None => store::partner::ids_and_shards(db).await?,
        };
        owners.sort();
        let statuses = (0..DEAD_LETTER_STATUSES.len())
            .filter(|n| filter.status.is_none_or(|status| status == DEAD_LETTER_STATUSES[*n]));
        let places: Vec<_> =
            owners.into_iter().flat_map(|owner| statuses.clone().map(move |status| (owner, status))).collect();
        let channel = if endpoint_id.is_some() { Some(Channel::Webhook) } else { filter.channel };
        let wanted = DeadLetterFilter {
            lanes: channel.map(Lane::range_of),
            provider: filter.provider.clone(),
            reason: filter.error.clone(),
            recipient: endpoint_id.map(|id| id.to_string()),
            since: filter.since,
            until: filter.until,
        };
        let (mut n, mut behind) = (0, START);
        if let Some(at) = at {
            let place = |p: &((Tsid, i16), usize)| (p.0.0.0, p.1);
            n = places.partition_point(|p| place(p) < (at.partner, at.status));
            if places.get(n).map(place) == Some((at.partner, at.status)) {
                behind = (Tsid(at.message), at.no);
            }
        }
        Ok(Walk { places, wanted, n, behind })
    }

    fn is_over(&self) -> bool {
        self.n >= self.places.len()
    }

    fn at(&self) -> Option<WalkPosition> {
        let ((partner, _), status) = self.places.get(self.n)?;
        Some(WalkPosition { partner: partner.0, status: *status, message: self.behind.0.0, no: self.behind.1 })
    }

    /// Reads the next `look` dead letters; returns those that may be redriven, each with the attempts it may have.
    async fn next(&mut self, hub: &Hub, conn: &mut Conn, look: i64) -> Result<Vec<(RedriveCandidate, i16)>> {
        let Some((owner, status)) = self.places.get(self.n) else { return Ok(Vec::new()) };
        let walked = store::redrive::list_dead_letters(
            conn,
            *owner,
            DEAD_LETTER_STATUSES[*status],
            self.behind,
            &self.wanted,
            look,
        )
        .await?;
        match walked.next {
            Some(behind) => self.behind = behind,
            None => (self.n, self.behind) = (self.n + 1, START),
        }
        Ok(walked
            .found
            .into_iter()
            .filter_map(|dead| attempts_allowed(hub, &dead).ok().map(|attempts| (dead, attempts)))
            .collect())
    }
}

async fn dead_letters(hub: &Hub, tx: &mut Conn, job: &RedriveJob, allowed: usize) -> Result<StepResult> {
    let at = job.position.clone().and_then(|position| serde_json::from_value(position).ok());
    let mut walk = Walk::new(hub, job.partner_id, job.endpoint_id, &job.filter, at).await?;
    let (began, mut dead) = (Instant::now(), Vec::new());
    let mut look = i64::try_from(allowed).unwrap_or(0).max(100);
    while !walk.is_over() && dead.len() < allowed && began.elapsed() < limits::REDRIVE_STEP {
        let n = walk.n;
        let mut found = walk.next(hub, tx, look).await?;
        let room = allowed - dead.len();
        if found.len() > room {
            // The next step finds the rest again.
            found.truncate(room);
            let last = found.last().map_or(START, |(d, _)| (d.key.message_id, d.key.no));
            (walk.n, walk.behind) = (n, last);
        }
        dead.extend(found);
        // Where a filter matches few, each look reads more.
        look = (look * 2).min(limits::REDRIVE_LOOK);
    }
    let used = dead.len();
    let written = make_pending(hub, tx, dead).await?;
    let position = walk.at().and_then(|at| serde_json::to_value(at).ok());
    Ok(StepResult { written, used, position, is_over: walk.is_over() })
}

/// Position of a recovery among the deliveries that wait for a retry: after this one. Field names are stored in the
/// database.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RecoveryPosition {
    waits: (i64, i16),
}

/// First makes the deliveries PENDING that wait for a retry, then the dead letters: in this order and by id, so that a
/// delivery that fails again meanwhile is not redriven twice.
async fn recover(hub: &Hub, tx: &mut Conn, job: &RedriveJob, allowed: usize) -> Result<StepResult> {
    let at = job.position.clone();
    if at.clone().is_some_and(|position| serde_json::from_value::<WalkPosition>(position).is_ok()) {
        return dead_letters(hub, tx, job, allowed).await;
    }
    let waiting = at.and_then(|position| serde_json::from_value(position).ok());
    let behind =
        waiting.map_or(waits_behind(&job.filter), |RecoveryPosition { waits: (message, no) }| (Tsid(message), no));
    let mut step = retry_now(hub, tx, job, behind, allowed).await?;
    if step.is_over {
        let dead = dead_letters(hub, tx, &RedriveJob { position: None, ..job.clone() }, allowed - step.used).await?;
        let mut written = dead.written;
        written.count += step.written.count;
        written.places.extend(step.written.places);
        step = StepResult { written, used: step.used + dead.used, ..dead };
    }
    Ok(step)
}

async fn retry_now(
    hub: &Hub,
    tx: &mut Conn,
    job: &RedriveJob,
    mut behind: DeliveryPosition,
    allowed: usize,
) -> Result<StepResult> {
    let mut step = StepResult { written: Written::default(), used: 0, position: None, is_over: true };
    let Some(endpoint_id) = job.endpoint_id else { return Ok(step) };
    let Some(endpoint) = endpoint(hub, endpoint_id).await? else { return Ok(step) };
    let (now, began, to) = (hub.clock.now(), Instant::now(), endpoint_id.to_string());
    step.is_over = false;
    while !step.is_over && step.used < allowed && began.elapsed() < limits::REDRIVE_STEP {
        // Deliveries newer than the job do not belong to it.
        let (along, rows) =
            (EndpointPosition { after: behind, below: job.redrive_id }, (limits::REDRIVE_LOOK, allowed - step.used));
        let hastened = store::delivery::retry_now(&mut *tx, (endpoint.shard, &to), along, rows, now).await?;
        step.used += hastened.places.len();
        step.written.places.extend(hastened.places.into_iter().map(|place| (place, now)));
        step.is_over = hastened.next.is_none();
        behind = hastened.next.unwrap_or(behind);
    }
    step.written.count = step.used;
    step.position = serde_json::to_value(RecoveryPosition { waits: (behind.0.0, behind.1) }).ok();
    Ok(step)
}

/// Position of a replay: at this time, after this event. Field names are stored in the database.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct ReplayPosition {
    time: DateTime<Utc>,
    message: i64,
    no: i16,
    seq: i16,
}

async fn replay(hub: &Hub, tx: &mut Conn, job: &RedriveJob, allowed: usize) -> Result<StepResult> {
    let over = StepResult { written: Written::default(), used: 0, position: None, is_over: true };
    let (Some(partner_id), Some(endpoint_id)) = (job.partner_id, job.endpoint_id) else { return Ok(over) };
    let Some(endpoint) = endpoint(hub, endpoint_id).await? else { return Ok(over) };
    if matches!(endpoint.status, EndpointStatus::Disabled | EndpointStatus::Deleted) {
        return Ok(over);
    }
    let wanted = |event: &str| {
        let in_list = |list: &Option<Vec<String>>| list.as_ref().is_none_or(|list| list.iter().any(|e| e == event));
        in_list(&endpoint.events) && in_list(&job.filter.events)
    };
    let event_words: Vec<String> =
        EVENT_KINDS.map(EventKind::as_str).into_iter().filter(|e| wanted(e)).map(str::to_owned).collect();
    let until = job.filter.until;
    let begin = |time| ReplayPosition { time, message: -1, no: -1, seq: -1 };
    let since = job.position.clone().and_then(|position| serde_json::from_value(position).ok());
    let mut since = since.unwrap_or_else(|| begin(job.filter.since.unwrap_or(until)));
    let (began, mut events, mut length) = (Instant::now(), Vec::new(), limits::REPLAY_SLICE);
    while since.time < until && events.len() < allowed && began.elapsed() < limits::REDRIVE_STEP {
        let end = until.min(since.time + length);
        let slice = EventRange { from: since.time, after: (Tsid(since.message), since.no, since.seq), until: end };
        let room = allowed - events.len();
        let rows = i64::try_from(room).unwrap_or(i64::MAX);
        // On another connection than the transaction: past events do not change, and the engine's planner settings do
        // not suit this query.
        let db = hub.store.api();
        let owner = (partner_id, endpoint.shard);
        let asked = Instant::now();
        let happened = match store::event::of_partner(db, owner, slice, &event_words, rows).await {
            // A busy period after a quiet one: the slice was too long to read within the statement timeout.
            Err(Error::Unavailable(Unavailable { why, .. })) if length > limits::REPLAY_SLICE => {
                tracing::debug!(why, "a slice of events took too long to read; it is read in shorter slices");
                length = limits::REPLAY_SLICE;
                continue;
            }
            happened => happened?,
        };
        let quick = asked.elapsed() < limits::REDRIVE_STEP / 4;
        since = match happened.last() {
            Some(last) if happened.len() == room => {
                let (time, message) = (last.event.occurred_at, last.message_id.0);
                ReplayPosition { time, message, no: last.event.no, seq: last.event.seq }
            }
            _ => begin(end),
        };
        events.extend(happened.iter().map(|h| NewEvent {
            partner_id,
            shard: endpoint.shard,
            about: Some(h.message_id),
            priority: h.priority,
            overflow: true,
            payload: event_payload(h),
            only: Some(endpoint_id),
        }));
        length = if quick { (length * 2).min(limits::REPLAY_SLICE_MOST) } else { limits::REPLAY_SLICE };
    }
    let published = publish(hub, tx, &events).await?;
    let written = Written { count: events.len(), places: Vec::new(), published };
    let position = serde_json::to_value(since).ok();
    Ok(StepResult { written, used: events.len(), position, is_over: since.time >= until })
}

/// Rebuilds the payload of an event from its row, as it was when it happened.
pub fn event_payload(happened: &PartnerEvent) -> EventPayload {
    let row = &happened.event;
    let mut reason = row.reason.clone();
    let standing =
        |kind: EventKind| STATUSES.into_iter().find(|s| s.event_kind() == Some(kind)).map(|s| s.as_str().to_owned());
    let status = match row.event.parse() {
        Ok(EventKind::MessageAccepted) => Some(OverallStatus::Pending.as_str().to_owned()),
        // The column `reason` holds the overall status of this event.
        Ok(EventKind::MessageCompleted) => reason.take(),
        Ok(EventKind::Redriven) => Some(Status::Pending.as_str().to_owned()),
        // The status is that of the event before it.
        Ok(EventKind::Fallback) => happened.previous_event.as_deref().and_then(|b| standing(b.parse().ok()?)),
        Ok(kind) => standing(kind),
        Err(()) => None,
    };
    let more = happened.fallback.map(|(no, lane)| event_fields(happened.message_id, no, lane.channel()));
    EventPayload {
        event: row.event.clone(),
        no: row.no,
        seq: row.seq,
        attempt: (row.no != WHOLE_MESSAGE_NO).then_some(row.attempt),
        lane: happened.lane.map(|lane| lane.0),
        status,
        provider: happened.provider.clone(),
        code: happened.code.clone(),
        reason,
        occurred_at: row.occurred_at,
        extra: more.unwrap_or_default(),
    }
}
