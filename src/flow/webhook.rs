//! Webhooks: what a claimed delivery to an endpoint takes to be sent, whether it is its turn, and what its answers say of the
//! endpoint.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::delivery::{BEHIND, Key, Outcome, PARKED};
use crate::model::endpoint::{Endpoint, EndpointStatus};
use crate::model::event::{About, EventKind, Told, WHOLE};
use crate::model::lane::Priority;
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::model::partner::Partner;
use crate::model::retry::ErrorClass;
use crate::provider::Parcel;
use crate::store::delivery::{Addressed, Claimed, OpenWebhook, Sequence, SequencePosition, Settle};
use crate::store::endpoint::{Disabled, HeardBack};
use crate::store::message::{Contents, Insert};
use crate::store::{self, Conn};

use super::accept::prepare as prepare_message;
use super::publish::{Notice, announce, publish};

/// What to send, and whose endpoint that is.
pub struct Ready {
    pub endpoint_id: Tsid,
    pub parcel: Parcel,
    /// Its endpoint wants the events of a message in order.
    pub in_order: bool,
    turn: Turn,
}

/// Whom it comes after, and whom before, among those claimed together, where its endpoint asks for order.
#[derive(Default)]
struct Turn {
    after: Option<oneshot::Receiver<()>>,
    before: Option<oneshot::Sender<()>>,
}

/// For each claimed delivery what to send, or why it is not called. What cannot be read now is left out.
pub async fn prepare(
    hub: &Hub,
    claimed: &[(&Claimed, &Contents)],
) -> Result<HashMap<Key, std::result::Result<Ready, Outcome>>> {
    let db = hub.store.webhooks();
    let ids: Vec<Tsid> = claimed.iter().filter_map(|(c, _)| c.recipient.parse().ok()).collect();
    let endpoints = store::endpoint::load(db, &hub.keyring, &ids).await?;
    let endpoints: HashMap<String, Endpoint> = endpoints.into_iter().map(|e| (e.endpoint_id.to_string(), e)).collect();
    let abouts: BTreeSet<(i16, Tsid)> = claimed.iter().map(|(c, contents)| (c.key.shard, about(c, contents))).collect();
    let abouts: Vec<_> = abouts.into_iter().collect();
    let told_of = store::message::told_of(db, &abouts).await?;
    let mut order = order(hub, claimed, &endpoints).await?;
    let mut said = Said::default();
    let now = hub.clock.now();
    let mut prepared = HashMap::with_capacity(claimed.len());
    for (claimed, contents) in claimed {
        let about_id = about(claimed, contents);
        let turn = order.remove(&claimed.key).unwrap_or_else(|| Ok(Turn::default()));
        let told = contents.detail.contents.first().and_then(|c| c.event.as_ref());
        let one = match (endpoints.get(&claimed.recipient), told) {
            // Its secret does not open here, perhaps elsewhere.
            (None, _) => Err(Outcome::deferred(now + UNREADABLE, "endpoint_unreadable")),
            (Some(_), None) => Err(unreadable()),
            (Some(endpoint), Some(told)) => match may_go(endpoint).and(turn) {
                Err(outcome) => Err(outcome),
                Ok(turn) => {
                    let told_of = told_of.get(&about_id);
                    let about = About {
                        partner_id: contents.partner_id,
                        message_id: about_id,
                        of_message: told_of.is_some_and(|m| m.is_message),
                        kind: told_of.filter(|m| m.is_message).map(|m| m.kind.clone()),
                        client_msg_id: told_of.and_then(|m| m.client_msg_id.clone()),
                        content: said.content(hub, endpoint, about_id, told).await?,
                    };
                    let (endpoint_id, in_order) = (endpoint.endpoint_id, endpoint.ordered);
                    Ok(Ready { endpoint_id, parcel: parcel(endpoint, told, &about, now), in_order, turn })
                }
            },
        };
        prepared.insert(claimed.key, one);
    }
    Ok(prepared)
}

/// The message it tells of.
fn about(claimed: &Claimed, contents: &Contents) -> Tsid {
    contents.about.unwrap_or(claimed.key.message_id)
}

/// Whose turn it is, for endpoints that ask for order. Those claimed together go one after the other, up to the first that is
/// not among them: what follows that waits behind it, until its end releases them (`release_next`). Reads no more webhooks
/// than were claimed, however many the endpoint got before.
async fn order(
    hub: &Hub,
    claimed: &[(&Claimed, &Contents)],
    endpoints: &HashMap<String, Endpoint>,
) -> Result<HashMap<Key, std::result::Result<Turn, Outcome>>> {
    let ordered = claimed.iter().filter(|(c, _)| endpoints.get(&c.recipient).is_some_and(|e| e.ordered));
    let ordered: Vec<(&Claimed, Sequence)> = ordered.map(|(c, contents)| (*c, sequence(c, contents))).collect();
    // Until its turn is known, each is behind another.
    let mut turns: HashMap<Key, std::result::Result<Turn, Outcome>> =
        ordered.iter().map(|(c, _)| (c.key, Err(behind()))).collect();
    let Some(last) = ordered.iter().map(|(c, _)| c.key.message_id).max() else { return Ok(turns) };
    let mut wanted: BTreeMap<Sequence, i64> = BTreeMap::new();
    let mut mine: HashMap<(Tsid, &str), (Key, Tsid)> = HashMap::new();
    for (claimed, sequence) in &ordered {
        *wanted.entry(sequence.clone()).or_default() += 1;
        mine.insert((claimed.key.message_id, claimed.recipient.as_str()), (claimed.key, sequence.about));
    }
    let wanted: Vec<(Sequence, i64)> = wanted.into_iter().collect();
    let open = store::delivery::sequences(hub.store.webhooks(), &wanted, last).await?;
    for sequence in open.chunk_by(|a, b| (a.about, &a.recipient) == (b.about, &b.recipient)) {
        let mut before: Option<Key> = None;
        // One that has no `about` yet stands in other sequences than its own, too: there it is a stranger.
        let own = |webhook: &OpenWebhook| {
            let (key, about) = mine.get(&(webhook.message_id, webhook.recipient.as_str()))?;
            (*about == webhook.about).then_some(*key)
        };
        for key in sequence.iter().map_while(own) {
            let mut turn = Turn::default();
            if let Some(Ok(ahead)) = before.and_then(|key| turns.get_mut(&key)) {
                let (done, ready) = oneshot::channel();
                (ahead.before, turn.after) = (Some(done), Some(ready));
            }
            turns.insert(key, Ok(turn));
            before = Some(key);
        }
    }
    Ok(turns)
}

fn sequence(claimed: &Claimed, contents: &Contents) -> Sequence {
    let recipient = claimed.recipient.clone();
    Sequence { shard: claimed.key.shard, about: about(claimed, contents), recipient }
}

/// Another event of the same message comes first. Its end makes this one PENDING again.
fn behind() -> Outcome {
    Outcome::deferred(BEHIND, "waits_for_its_turn")
}

/// How many webhooks of its sequence may go at once when this one ends: as many as its endpoint takes, one after the other, well
/// before those claimed together are given back. 0: it is in no sequence.
pub(super) fn followers(hub: &Hub, claimed: &Claimed, in_order: bool) -> i64 {
    if claimed.head.channel != Channel::Webhook || !in_order {
        return 0;
    }
    let within = hub.settings.timing.begin_within() / 2;
    claimed.recipient.parse().map_or(1, |endpoint_id| hub.gates().in_a_row(endpoint_id, within, hub.clock.now()))
}

/// After the commit of these: of webhooks that ended, those next in their sequences become PENDING. So do those just put off
/// behind one that ended meanwhile: each of the two commits before it looks, so one of them sees the other. If a worker is
/// lost in between, `restart_stalled` finds it.
pub(super) async fn release_next(hub: &Hub, settles: &[Settle]) {
    let ends = |s: &&Settle| {
        s.followers > 0 && (s.step.status.is_settled() || s.step.possibly_sent || s.step.ready_at == Some(BEHIND))
    };
    let ended: Vec<(Key, i64)> = settles.iter().filter(ends).map(|s| (s.key, s.followers)).collect();
    if let Err(e) = release(hub, &ended).await {
        tracing::warn!(error = %e, webhooks = ended.len(), "what follows them is not released yet; it is within seconds");
    }
}

async fn release(hub: &Hub, ended: &[(Key, i64)]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let now = hub.clock.now();
    let places = store::delivery::release_next(hub.store.webhooks(), ended, now).await?;
    hub.wake.ready(places.into_iter().map(|place| (place, now)));
    Ok(())
}

/// Where the walk over open sequences stands.
#[derive(Debug, Default)]
pub struct Stalled {
    behind: Option<SequencePosition>,
}

/// Looks at a slice of the open sequences, and releases what waits behind nothing, since a worker was lost. Webhooks that an
/// older program wrote get what tells their sequence first. Says whether there is more.
pub async fn restart_stalled(hub: &Hub, stalled: &mut Stalled) -> Result<bool> {
    let (db, rows) = (hub.store.webhooks(), limits::HOUSEKEEPING_BATCH);
    let shards = store::partner::shards(db).await?;
    if store::delivery::fill_about(db, &shards, rows).await? > 0 {
        return Ok(true);
    }
    let behind = stalled.behind.unwrap_or((i16::MIN, Tsid(i64::MIN)));
    let (found, next) = store::delivery::stalled(db, behind, limits::SEQUENCES_LOOK).await?;
    stalled.behind = next;
    if !found.is_empty() {
        tracing::info!(released = found.len(), "webhooks waited behind one that had ended");
    }
    release(hub, &found.into_iter().map(|key| (key, 1)).collect::<Vec<_>>()).await?;
    Ok(false)
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

/// What messages said, each read once for all that tell of it.
#[derive(Default)]
struct Said {
    partners: HashMap<Tsid, Option<Partner>>,
    messages: HashMap<Tsid, Option<(Detail, Vec<Addressed>)>>,
}

impl Said {
    /// Where the endpoint asks for it and its partner may have it.
    async fn content(&mut self, hub: &Hub, endpoint: &Endpoint, about: Tsid, told: &Told) -> Result<Option<Value>> {
        if !endpoint.include_content {
            return Ok(None);
        }
        let db = hub.store.webhooks();
        let (id, shard) = (endpoint.partner_id, endpoint.shard);
        if let Entry::Vacant(place) = self.partners.entry(id) {
            place.insert(store::partner::get(db, id).await?);
        }
        if !self.partners.get(&id).and_then(Option::as_ref).is_some_and(|p| p.may_receive_content) {
            return Ok(None);
        }
        if let Entry::Vacant(place) = self.messages.entry(about) {
            let read = match store::message::get(db, &hub.keyring, id, shard, about).await? {
                Some(message) => Some((message.detail, store::delivery::contents(db, shard, about).await?)),
                None => None,
            };
            place.insert(read);
        }
        let Some(Some((detail, deliveries))) = self.messages.get(&about) else { return Ok(None) };
        let mut said = json!({"title": detail.title, "metadata": detail.metadata});
        if told.no > WHOLE {
            let delivery = deliveries.iter().find(|d| d.no == told.no);
            let content = delivery.and_then(|d| detail.contents.get(usize::try_from(d.content).ok()?));
            said["to"] = json!(delivery.map(|d| d.written.as_ref().unwrap_or(&d.recipient)));
            said["subject"] = json!(content.and_then(|c| c.subject.as_ref()));
            said["body"] = json!(content.map(|c| &c.body));
        }
        Ok(Some(said))
    }
}

/// The way to an endpoint, held for one call.
pub struct Way {
    hub: Hub,
    endpoint_id: Tsid,
    partner_id: Tsid,
    since: Instant,
    answered: bool,
    /// Who waits for it to be through.
    before: Option<oneshot::Sender<()>>,
}

impl Way {
    /// Waits for its turn, at most until then; and a moment for room. Who would have to wait for longer comes back later.
    pub async fn open(hub: &Hub, ready: &mut Ready, until: Instant) -> std::result::Result<Way, Outcome> {
        let (endpoint_id, partner_id) = (ready.endpoint_id, ready.parcel.partner_id);
        if let Some(after) = ready.turn.after.take()
            && !matches!(tokio::time::timeout_at(until.into(), after).await, Ok(Ok(())))
        {
            return Err(behind());
        }
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
        let before = ready.turn.before.take();
        Ok(Way { hub: hub.clone(), endpoint_id, partner_id, since: Instant::now(), answered: false, before })
    }

    /// What the call came to.
    pub fn answered(&mut self, outcome: &Outcome) {
        self.answered = match outcome {
            Outcome::Accepted { .. } => true,
            Outcome::Rejected { class, .. } => *class != ErrorClass::Unreachable,
            _ => false,
        };
        let succeeded = matches!(outcome, Outcome::Accepted { .. });
        if let Some(before) = self.before.take().filter(|_| succeeded) {
            // Gone when it did not wait any longer.
            let _gone = before.send(());
        }
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
    let failing = match store::endpoint::heard_back(hub.store.webhooks(), &heard, too_long).await {
        Ok(failing) => failing,
        Err(e) => {
            hub.put_back_heard(heard);
            return Err(e);
        }
    };
    for endpoint_id in failing {
        disable(hub, endpoint_id, "failing", None).await?;
    }
    Ok(())
}

/// Disables an endpoint, once, and tells its owner: by an event to its other endpoints, and by e-mail. `url`: only while that
/// is its URL, whose answer is the reason.
pub async fn disable(hub: &Hub, endpoint_id: Tsid, reason: &'static str, url: Option<&str>) -> Result<()> {
    let now = hub.clock.now();
    let mut tx = hub.store.begin_serving(Channel::Webhook).await?;
    let disabled = store::endpoint::disable(&mut *tx, endpoint_id, reason, url, now).await?;
    let Some(disabled) = disabled else { return Ok(()) };
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
    let mail = mail(hub, &mut tx, endpoint_id, &disabled, reason).await?;
    tx.commit().await?;
    announce(hub, &published);
    hub.wake.ready(mail.iter().flat_map(|m| m.lanes.iter().map(|lane| ((m.shard, *lane), now))));
    tracing::warn!(endpoint = %endpoint_id, partner = %disabled.partner_id, reason, "an endpoint was disabled");
    Ok(())
}

/// As a message of the partner's own, so that it sees what became of it; over EMAIL, if it may use that.
async fn mail(
    hub: &Hub,
    tx: &mut Conn,
    endpoint_id: Tsid,
    disabled: &Disabled,
    reason: &str,
) -> Result<Option<Insert>> {
    let Some(to) = disabled.contact_email.clone() else { return Ok(None) };
    let Some(partner) = store::partner::get(&mut *tx, disabled.partner_id).await? else { return Ok(None) };
    if hub.providers.of(Channel::Email).is_empty() || !partner.may_use(Channel::Email) {
        tracing::warn!(endpoint = %endpoint_id, "nobody is told by e-mail that it was disabled: nothing serves it EMAIL");
        return Ok(None);
    }
    let message = disabled_mail(endpoint_id, &partner, &disabled.url, to, reason);
    let insert = prepare_message(hub, &partner, message.into())?;
    store::message::insert(tx, &[&insert], hub.clock.now()).await?;
    Ok(Some(insert))
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
        deliveries: vec![NewDelivery::new(Channel::Email, to)],
        scheduled_at: None,
        expires_at: None,
    }
}
