//! Endpoints: create, change, rotate, test and delete, by their partner or an admin. Each change writes its entry in
//! the audit log in the same transaction. Webhooks parked for a paused endpoint are released after it is resumed.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use super::partner::audit;
use super::publish::{self, NewEvent};
use crate::crypt;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::OwnerPermit;
use crate::model::delivery::{DeliveryKey, OutcomeKind, READY_WHEN_PREDECESSOR_ENDS, READY_WHEN_RESUMED, Status};
use crate::model::egress::EndpointUrl;
use crate::model::endpoint::{Endpoint, EndpointStatus};
use crate::model::event::{EventKind, EventPayload};
use crate::model::lane::Priority;
use crate::model::signature;
use crate::store::audit::AuditEntry;
use crate::store::delivery::{WebhookFilter, WebhookRow};
use crate::store::{self, delivery, endpoint};

/// How long the former secret stays valid after a rotation, by default.
pub const OVERLAP: TimeDelta = TimeDelta::hours(24);
/// Longest time that a former secret may stay valid.
pub const OVERLAP_MOST: TimeDelta = TimeDelta::days(7);
/// The time over which the health of an endpoint is computed.
const HEALTH_WINDOW: TimeDelta = TimeDelta::hours(24);

/// Changes to an endpoint, or the fields of a new one. None leaves a field as it is; in a nested option the inner None
/// clears it.
#[derive(Clone, Default)]
pub struct EndpointEdit {
    /// Required for a new endpoint.
    pub url: Option<EndpointUrl>,
    pub description: Option<Option<String>>,
    /// The events that it receives; the inner None: all, including kinds added later.
    pub events: Option<Option<Vec<EventKind>>>,
    /// ACTIVE or PAUSED; not for a new endpoint.
    pub status: Option<EndpointStatus>,
    pub ordered: Option<bool>,
    pub include_content: Option<bool>,
    pub contact_email: Option<Option<String>>,
    /// Replaces all headers.
    pub headers: Option<BTreeMap<String, String>>,
}

impl EndpointEdit {
    fn apply(self, e: &mut Endpoint) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        if let Some(url) = self.url.map(|url| url.as_str().to_owned()).filter(|url| *url != e.url) {
            // The failures were those of another URL.
            (e.url, e.failing_since) = (url, None);
        }
        set(&mut e.description, self.description);
        let words = |kinds: Vec<EventKind>| kinds.into_iter().map(|kind| kind.as_str().to_owned()).collect();
        set(&mut e.events, self.events.map(|events| events.map(words)));
        set(&mut e.status, self.status);
        set(&mut e.ordered, self.ordered);
        set(&mut e.include_content, self.include_content);
        set(&mut e.contact_email, self.contact_email);
        set(&mut e.headers, self.headers);
    }
}

/// Creates an endpoint with a new secret, and returns it. The partner's row is locked, so that two requests at once
/// cannot exceed the limit of endpoints.
///
/// # Errors
/// `Error::Refused` if the partner has `limits::ENDPOINTS` endpoints or has deleted too many within a day; nothing was
/// written. `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn create(hub: &Hub, permit: OwnerPermit<'_>, change: EndpointEdit) -> Result<Endpoint> {
    let (partner, now) = (permit.partner(), hub.clock.now());
    let mut endpoint_row = Endpoint {
        shard: partner.shard,
        partner_id: partner.partner_id,
        endpoint_id: hub.next_id(),
        url: String::new(),
        description: None,
        events: None,
        status: EndpointStatus::Active,
        disabled_reason: None,
        ordered: false,
        include_content: false,
        contact_email: None,
        headers: BTreeMap::new(),
        secret: signature::encode_secret(&crypt::random()),
        previous_secret: None,
        failing_since: None,
        last_success_at: None,
        last_failure_at: None,
        resumed_at: None,
        created_at: now,
        updated_at: now,
    };
    change.apply(&mut endpoint_row);
    let mut tx = hub.store.begin().await?;
    // Lock the partner, so that two requests at once cannot both create the last endpoint allowed.
    store::partner::lock(&mut tx, partner.partner_id).await?.ok_or_else(super::partner::unknown)?;
    let (there, deleted) =
        endpoint::count(&mut *tx, endpoint_row.partner_id, endpoint_row.shard, now - TimeDelta::days(1)).await?;
    if there >= limits::ENDPOINTS {
        let detail = format!("there are {} endpoints, as many as a partner may have", limits::ENDPOINTS);
        return Err(Refusal::new(422, "endpoint_limit", detail).into());
    }
    if deleted >= limits::ENDPOINTS_DELETED {
        let detail = format!("{deleted} endpoints were deleted within a day; change one instead of making it anew");
        return Err(Refusal::new(422, "endpoint_limit", detail).into());
    }
    endpoint::insert(&mut *tx, &hub.keyring, &endpoint_row).await?;
    let entry = AuditEntry { after: Some(audit_view(&endpoint_row)), ..audit_entry(&endpoint_row, "endpoint.create") };
    audit(hub, &mut tx, permit.actor(), &entry).await?;
    tx.commit().await?;
    Ok(endpoint_row)
}

/// Changes an endpoint and returns it as it is now. If it becomes ACTIVE, the webhooks parked for it are released. A
/// DISABLED endpoint cannot be paused: the reason of its end, and with it the hint that it missed events, would be
/// lost.
///
/// # Errors
/// `Error::NotFound` if the partner has no such endpoint. `Error::Refused` if it is DISABLED and should be PAUSED.
/// Nothing was written then. `Error::Unavailable` if the database fails; nothing was written, unless it failed during
/// the commit.
pub async fn update(hub: &Hub, permit: OwnerPermit<'_>, id: Tsid, change: EndpointEdit) -> Result<Endpoint> {
    change_with(hub, permit, id, "endpoint.update", |e| {
        let (before, was_ordered) = (e.status, e.ordered);
        if before == EndpointStatus::Disabled && change.status == Some(EndpointStatus::Paused) {
            let detail = "the endpoint is disabled and gets nothing as it is; to pause it, make it ACTIVE first";
            return Err(Refusal::new(422, "endpoint_disabled", detail));
        }
        change.apply(e);
        if e.status != before {
            e.disabled_reason = None;
        }
        if e.status == EndpointStatus::Active && before != EndpointStatus::Active {
            e.failing_since = None;
            e.resumed_at = Some(hub.clock.now());
        }
        // Without order no webhook waits behind another: release those that do.
        if was_ordered && !e.ordered && e.status != EndpointStatus::Paused {
            e.resumed_at = Some(hub.clock.now());
        }
        Ok(())
    })
    .await
}

/// Marks an endpoint as deleted. Webhooks on their way to it, parked ones included, are canceled when their turn comes.
///
/// # Errors
/// `Error::NotFound` if the partner has no such endpoint. `Error::Unavailable` if the database fails; nothing was
/// written, unless it failed during the commit.
pub async fn delete(hub: &Hub, permit: OwnerPermit<'_>, id: Tsid) -> Result<()> {
    let deleted = change_with(hub, permit, id, "endpoint.delete", |e| {
        e.status = EndpointStatus::Deleted;
        e.resumed_at = Some(hub.clock.now());
        e.headers.clear();
        e.contact_email = None;
        Ok(())
    });
    deleted.await.map(drop)
}

async fn change_with(
    hub: &Hub,
    permit: OwnerPermit<'_>,
    id: Tsid,
    action: &str,
    change: impl FnOnce(&mut Endpoint) -> Result<(), Refusal>,
) -> Result<Endpoint> {
    let partner = permit.partner();
    let mut tx = hub.store.begin().await?;
    let locked = endpoint::lock(&mut tx, &hub.keyring, partner.partner_id, partner.shard, id).await?;
    let before = locked.ok_or(Error::NotFound)?;
    let mut after = before.clone();
    change(&mut after)?;
    if after != before {
        after.updated_at = hub.clock.now();
        endpoint::update(&mut *tx, &hub.keyring, &after).await?;
        let entry = AuditEntry {
            before: Some(audit_view(&before)),
            after: Some(audit_view(&after)),
            ..audit_entry(&after, action)
        };
        audit(hub, &mut tx, permit.actor(), &entry).await?;
    }
    tx.commit().await?;
    if after.resumed_at != before.resumed_at {
        // Release a first batch at once; the `release` loop does the rest, and this batch, too, if it fails.
        let in_order = after.ordered && after.status == EndpointStatus::Active;
        if let Err(e) = release(hub, after.endpoint_id, after.shard, in_order).await {
            tracing::warn!(
                error = %e,
                "webhooks parked for a resumed endpoint could not be released; they are released within seconds"
            );
        }
    }
    Ok(after)
}

/// Gives an endpoint a new secret, and returns it. For `overlap` (at most `OVERLAP_MOST`) the former secret signs, too;
/// an even older one no longer does.
///
/// # Errors
/// `Error::NotFound` if the partner has no such endpoint. `Error::Unavailable` if the database fails; nothing was
/// written, unless it failed during the commit.
pub async fn rotate(hub: &Hub, permit: OwnerPermit<'_>, id: Tsid, overlap: TimeDelta) -> Result<Endpoint> {
    let (partner, now) = (permit.partner(), hub.clock.now());
    let mut tx = hub.store.begin().await?;
    let locked = endpoint::lock(&mut tx, &hub.keyring, partner.partner_id, partner.shard, id).await?;
    let before = locked.ok_or(Error::NotFound)?;
    let former_until = (overlap > TimeDelta::zero()).then(|| now + overlap.min(OVERLAP_MOST));
    let after = Endpoint {
        secret: signature::encode_secret(&crypt::random()),
        previous_secret: former_until.map(|until| (before.secret.clone(), until)),
        updated_at: now,
        ..before
    };
    endpoint::rotate_secret(&mut *tx, &hub.keyring, &after).await?;
    let after_json = json!({"formerSecretGoodUntil": former_until.map(|at| at.to_rfc3339())});
    audit(
        hub,
        &mut tx,
        permit.actor(),
        &AuditEntry { after: Some(after_json), ..audit_entry(&after, "endpoint.rotate") },
    )
    .await?;
    tx.commit().await?;
    Ok(after)
}

/// Sends a test event to one endpoint, whatever events it asks for; returns the public id of the delivery.
///
/// # Errors
/// `Error::NotFound` if the partner has no such endpoint. `Error::Refused` if it is not ACTIVE. Nothing was written
/// then. `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn send_test(hub: &Hub, permit: OwnerPermit<'_>, id: Tsid) -> Result<String> {
    let (partner, now) = (permit.partner(), hub.clock.now());
    let inactive = || {
        let detail = "the endpoint is not active, so nothing is sent to it; make it ACTIVE first";
        Error::from(Refusal::new(422, "endpoint_not_active", detail))
    };
    let mut tx = hub.store.begin().await?;
    let locked = endpoint::lock(&mut tx, &hub.keyring, partner.partner_id, partner.shard, id).await?;
    let tested = locked.ok_or(Error::NotFound)?;
    if tested.status != EndpointStatus::Active {
        return Err(inactive());
    }
    let event = NewEvent {
        partner_id: tested.partner_id,
        shard: tested.shard,
        about: None,
        priority: Priority::Normal,
        overflow: false,
        payload: EventPayload {
            event: EventKind::EndpointTest.as_str().to_owned(),
            occurred_at: now,
            ..EventPayload::default()
        },
        only: Some(tested.endpoint_id),
    };
    let published = publish::publish(hub, &mut tx, &[event]).await?;
    let delivery_id = published.deliveries.first().map(DeliveryKey::to_string).ok_or_else(inactive)?;
    audit(hub, &mut tx, permit.actor(), &audit_entry(&tested, "endpoint.test")).await?;
    tx.commit().await?;
    publish::announce(hub, &published);
    Ok(delivery_id)
}

fn audit_entry(e: &Endpoint, action: &str) -> AuditEntry {
    let object = Some(e.endpoint_id.to_string());
    AuditEntry { action: action.into(), object, partner_id: Some(e.partner_id), ..AuditEntry::default() }
}

/// An endpoint as the audit log keeps it: without anything that could be a credential or name a person.
fn audit_view(e: &Endpoint) -> Value {
    json!({
        "origin": e.origin(),
        "events": e.events,
        "status": e.status.as_str(),
        "ordered": e.ordered,
        "includeContent": e.include_content,
        "hasContact": e.contact_email.is_some(),
        "headers": e.headers.keys().collect::<Vec<_>>(),
    })
}

/// Checks that the partner may receive message content in webhooks.
///
/// # Errors
/// The fault to report for `/includeContent`.
pub fn may_include_content(permit: OwnerPermit<'_>) -> Result<(), Fault> {
    if permit.partner().may_receive_content {
        return Ok(());
    }
    let detail =
        "needs the capability webhook_content, which this partner does not have; an admin of this hub can grant it";
    Err(Fault { pointer: "/includeContent".into(), reason: "not_allowed", detail: detail.into(), code: Code::E001 })
}

/// Releases one batch of the webhooks parked for an endpoint; unless `in_order`, also of those that wait behind
/// another. Returns how many became PENDING: fewer than `limits::HOUSEKEEPING_BATCH` when none is left.
///
/// # Errors
/// `Error::Unavailable` if the database fails; what was released all the same is found by polling.
pub async fn release(hub: &Hub, endpoint_id: Tsid, shard: i16, in_order: bool) -> Result<usize> {
    let (now, mut batch, db) = (hub.clock.now(), limits::HOUSEKEEPING_BATCH, hub.store.webhooks());
    let to = endpoint_id.to_string();
    let mut places = delivery::release(db, (shard, &to), READY_WHEN_RESUMED, now, batch).await?;
    if !in_order {
        batch -= i64::try_from(places.len()).unwrap_or(0);
        places.extend(delivery::release(db, (shard, &to), READY_WHEN_PREDECESSOR_ENDS, now, batch).await?);
    }
    let released = places.len();
    hub.wake.notify(places.into_iter().map(|place| (place, now)));
    Ok(released)
}

/// Releases the webhooks parked for endpoints that were resumed or deleted; returns whether there is more. A worker
/// that read an endpoint while it was paused may park its delivery later, so each endpoint is looked at for
/// `limits::RELEASE_FOR`.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the rest is released by the next run.
pub async fn release_resumed(hub: &Hub) -> Result<bool> {
    let mut more = false;
    for resumed in endpoint::list_releasable(hub.store.api()).await? {
        let released = release(hub, Tsid(resumed.endpoint_id), resumed.shard, resumed.in_order).await?;
        more |= released == usize::try_from(limits::HOUSEKEEPING_BATCH).unwrap_or(usize::MAX);
        if released == 0 && resumed.resumed_at + limits::RELEASE_FOR < hub.clock.now() {
            endpoint::clear_resumed(hub.store.api(), &resumed).await?;
        }
    }
    Ok(more)
}

/// Results of the newest deliveries to an endpoint.
pub struct HealthSummary {
    /// Deliveries created since then are counted, `limits::HEALTH_DELIVERIES` at most.
    pub since: DateTime<Utc>,
    /// Number of deliveries counted.
    pub deliveries: usize,
    /// Deliveries that the endpoint accepted.
    pub delivered: usize,
    /// Deliveries whose last call failed and that will be retried.
    pub failing: usize,
    /// Dead letters.
    pub dead: usize,
    /// Deliveries that are not settled, those to be retried included.
    pub pending: usize,
    /// Deliveries that wait until the endpoint is resumed.
    pub parked: usize,
    /// The newest deliveries whose last call failed, `limits::HEALTH_FAILURES` at most.
    pub failures: Vec<WebhookRow>,
}

impl HealthSummary {
    /// Returns the share (0 to 1) of the called deliveries that were accepted; None if it was not called.
    pub fn success_rate(&self) -> Option<f64> {
        let called = self.delivered + self.failing + self.dead;
        (called > 0).then(|| self.delivered as f64 / called as f64)
    }

    fn of(rows: Vec<WebhookRow>, since: DateTime<Utc>) -> HealthSummary {
        let count = |so: &dyn Fn(&WebhookRow) -> bool| rows.iter().filter(|row| so(row)).count();
        let accepted = OutcomeKind::Accepted.as_str();
        let failed = |row: &WebhookRow| row.last_call.as_ref().is_some_and(|call| call.outcome != accepted);
        let parked = |row: &WebhookRow| row.status == Status::Scheduled && row.ready_at == READY_WHEN_RESUMED;
        HealthSummary {
            since,
            deliveries: rows.len(),
            delivered: count(&|row| row.status.is_success()),
            failing: count(&|row| failed(row) && !row.status.is_settled()),
            dead: count(&|row| failed(row) && row.status.is_settled() && !row.status.is_success()),
            pending: count(&|row| !row.status.is_settled() && !parked(row)),
            parked: count(&parked),
            failures: rows.into_iter().filter(failed).take(limits::HEALTH_FAILURES).collect(),
        }
    }
}

/// Summarises the newest deliveries to an endpoint within the last 24 hours.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn health(hub: &Hub, endpoint: &Endpoint) -> Result<HealthSummary> {
    let since = hub.clock.now() - HEALTH_WINDOW;
    let (window, filter) = ((Tsid(i64::MAX), Tsid::floor(since)), WebhookFilter::default());
    let (db, rows) = (hub.store.api(), limits::HEALTH_DELIVERIES);
    let rows = delivery::of_endpoint(db, &hub.keyring, endpoint, &filter, window, rows).await?;
    Ok(HealthSummary::of(rows, since))
}
