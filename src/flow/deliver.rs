//! Deliver: claim, call, settle (engine.md §2). The attempt is spent by the claim, before any call can happen; the call
//! holds no connection; the settle is fenced by the attempt's number. A phase's type is what the phase before gave, so
//! nothing is called that was not claimed, and nothing settled that was neither called nor given back.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt as _;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::capability::Batch;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::{Key, Outcome, Status, next};
use crate::model::event::{EventKind, Told};
use crate::model::lane::Lane;
use crate::model::provider_text::clean;
use crate::model::receipt::Reference;
use crate::model::retry::{Action, ErrorClass, Profile};
use crate::model::watermark::Look;
use crate::provider::{Account, Letter, Looked, Provider};
use crate::shutdown::{may_die_at, may_die_holding};
use crate::store;
use crate::store::delivery::{Ask, Claimed, Lifted, Settle, Tried, Waiting, Won};
use crate::store::message::Contents;
use crate::telemetry::observe;

use super::fallback::{self, Made};
use super::pace;
use super::publish::{Notice, publish};
use super::receipt;
use super::route;
use super::webhook;

/// A delivery this process holds, with what is to be sent.
pub struct Held {
    pub claimed: Claimed,
    message: Arc<Contents>,
    account: Arc<Account>,
    on_unknown: OnUnknown,
    /// The beginning of its call is recorded: its claim said so.
    begins_recorded: bool,
    holder: Holder,
    /// Of a webhook; boxed, as what is rare is below: every delivery's task is as large as what it may hold.
    webhook: Option<Box<webhook::Ready>>,
    /// Where its provider's way is not plain.
    seat: Option<route::Seat>,
    /// For how long it has been tried, where its provider says that it was asked too fast.
    waited: Duration,
}

/// Who holds a delivery, and since when.
#[derive(Debug, Clone, Copy)]
struct Holder {
    worker: Tsid,
    claimed_at: DateTime<Utc>,
    /// Monotonic, from before the claim was sent: the lease cannot have begun earlier.
    since: Instant,
}

impl Held {
    pub fn key(&self) -> Key {
        self.claimed.key
    }

    /// Whether the provider is asked what it has before it is sent anything.
    fn asks_first(&self) -> bool {
        self.claimed.head.possibly_sent && self.on_unknown == OnUnknown::Lookup
    }

    /// What did not go the first time may be what the provider does not take: with others it would keep these, too. And
    /// whether a provider has something is asked of one thing at a time.
    fn goes_alone(&self) -> bool {
        self.claimed.provider.is_some() || self.claimed.head.possibly_sent
    }

    /// How long a receipt is waited for, before it is given up or something else takes its place.
    fn receipt_within(&self) -> Option<TimeDelta> {
        let within = TimeDelta::from_std(self.account.of(self.claimed.head.channel)?.receipt_within?).ok()?;
        let fallback = self.letter().and_then(|letter| letter.content.fallback.as_deref());
        let sooner = fallback.filter(|_| self.claimed.head.has_fallback).and_then(|f| f.no_receipt_s);
        Some(sooner.map_or(within, |s| within.min(TimeDelta::seconds(i64::from(s)))))
    }

    fn letter(&self) -> Option<Letter<'_>> {
        Some(Letter {
            key: self.claimed.key,
            attempt: self.claimed.head.attempt,
            channel: self.claimed.head.channel,
            kind: &self.message.kind,
            to: &self.claimed.recipient,
            content: self.message.detail.contents.get(usize::try_from(self.claimed.content).ok()?)?,
            created_at: self.message.created_at,
            parcel: self.webhook.as_ref().map(|w| &w.parcel),
        })
    }
}

/// What a claim took, not yet ready to be called.
pub struct Claim {
    pub rows: Vec<Claimed>,
    /// Which way each goes; decided at once, so that no other claim counts on the same room.
    routes: Vec<route::Chosen>,
    holder: Holder,
}

/// Claims for `worker` at most `most` deliveries from these places.
pub async fn claim(hub: &Hub, worker: Tsid, looks: &[Look], most: i64) -> Result<Claim> {
    let holder = Holder { worker, claimed_at: hub.clock.now(), since: Instant::now() };
    let ask = |look: &Look| Ask {
        shard: look.place.0,
        lane: look.place.1,
        mark: look.mark,
        take: look.take,
        begins_recorded: hub.providers.on_unknown(look.place.1.channel(), &hub.settings.retry) > OnUnknown::Retry,
    };
    let asks: Vec<Ask> = looks.iter().map(ask).collect();
    // All of webhooks, or none: they have claiming loops of their own.
    let db = hub.store.serving(looks.first().map_or(Channel::Email, |look| look.place.1.channel()));
    let rows = store::delivery::claim(db, &asks, most, worker, hub.settings.timing.lease()).await?;
    may_die_at("claim.after_commit");
    observe(&hub.metrics.claim_seconds, &[], holder.since.elapsed());
    hub.metrics.claim_rows.with_label_values::<&str>(&[]).observe(rows.len() as f64);
    for row in &rows {
        let waited = (holder.claimed_at - row.ready_at).to_std().unwrap_or_default();
        observe(&hub.metrics.queue_wait_seconds, &[row.lane.priority().as_str()], waited);
        hub.metrics.claimed.with_label_values(&[row.head.channel.as_str()]).inc();
    }
    let routes = rows.iter().map(|row| route::choose(hub, row)).collect();
    Ok(Claim { rows, routes, holder })
}

/// Claims for `worker` one delivery that waits apart, of these channels: of the most urgent lane the one that waits for longest;
/// with how many workers were lost while they held it.
pub async fn claim_suspect(
    hub: &Hub,
    worker: Tsid,
    shards: &[i16],
    channels: &[Channel],
) -> Result<Option<(Claim, i16)>> {
    let holder = Holder { worker, claimed_at: hub.clock.now(), since: Instant::now() };
    let begins_recorded = |lane: Lane| hub.providers.on_unknown(lane.channel(), &hub.settings.retry) > OnUnknown::Retry;
    let lanes: Vec<(Lane, bool)> =
        Lane::all_of(channels).into_iter().map(|lane| (lane, begins_recorded(lane))).collect();
    let lease = hub.settings.timing.lease();
    let claimed = store::suspect::claim(hub.store.engine(), shards, &lanes, holder.claimed_at, worker, lease).await?;
    let Some((row, deaths)) = claimed else { return Ok(None) };
    may_die_at("claim.after_commit");
    hub.metrics.claimed.with_label_values(&[row.head.channel.as_str()]).inc();
    let routes = vec![route::choose(hub, &row)];
    Ok(Some((Claim { rows: vec![row], routes, holder }, deaths)))
}

/// What became of a claim: deliveries to call, and those given back because what to send could not be read.
pub struct Ready {
    pub held: Vec<Held>,
    pub given_back: Vec<Settle>,
}

/// Loads contents and records beginnings.
pub async fn hold(hub: &Hub, claim: Claim) -> Ready {
    let Claim { rows: claimed, routes, holder } = claim;
    may_die_holding("hold.before", |recipient| claimed.iter().any(|c| c.recipient == recipient));
    let wanted: BTreeSet<(i16, Tsid)> = claimed.iter().map(|c| (c.key.shard, c.key.message_id)).collect();
    let wanted: Vec<(i16, Tsid)> = wanted.into_iter().collect();
    let Some(channel) = claimed.first().map(|c| c.head.channel) else {
        return Ready { held: Vec::new(), given_back: Vec::new() };
    };
    let db = hub.store.serving(channel);
    let contents = store::message::contents(db, &hub.keyring, &wanted).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, deliveries = claimed.len(), "claimed, but what to send could not be read");
        Vec::new()
    });
    let contents: HashMap<Tsid, Option<Arc<Contents>>> =
        contents.into_iter().map(|(id, message)| (id, message.map(Arc::new))).collect();
    let mut webhooks = webhooks(hub, &claimed, &contents).await;
    let (mut held, mut given_back) = (Vec::with_capacity(claimed.len()), Vec::new());
    for (claimed, route) in claimed.into_iter().zip(routes) {
        let message = contents.get(&claimed.key.message_id).cloned();
        let webhook = webhooks.remove(&claimed.key);
        let outcome = match (message, route) {
            (Some(Some(_)), Ok(_)) if webhook.is_none() && claimed.head.channel == Channel::Webhook => {
                Outcome::Postponed
            }
            (Some(Some(message)), Ok((account, seat))) => match webhook.transpose() {
                Ok(webhook) => {
                    let channel = claimed.head.channel;
                    let begins_recorded = hub.providers.on_unknown(channel, &hub.settings.retry) > OnUnknown::Retry;
                    let on_unknown = account.on_unknown(channel, &hub.settings.retry);
                    let webhook = webhook.map(Box::new);
                    held.push(Held {
                        claimed,
                        message,
                        account,
                        on_unknown,
                        begins_recorded,
                        holder,
                        webhook,
                        seat,
                        waited: Duration::ZERO,
                    });
                    continue;
                }
                Err(outcome) => outcome,
            },
            // One row that cannot be understood must not hold up the others, nor come back for ever.
            (Some(None), _) => Outcome::Rejected {
                class: ErrorClass::Content,
                code: "content_unreadable".into(),
                detail: "its content in the database cannot be understood by this program".into(),
                retry_after: None,
            },
            (Some(Some(_)), Err(outcome)) => outcome,
            (None, _) => Outcome::Postponed,
        };
        given_back.push(settle_of(hub, &claimed, holder, outcome, None));
    }
    let (held, late) = begin(hub, holder, held).await;
    given_back.extend(late);
    Ready { held, given_back }
}

/// What to send of those that are webhooks; what could not be read is left out.
async fn webhooks(
    hub: &Hub,
    claimed: &[Claimed],
    contents: &HashMap<Tsid, Option<Arc<Contents>>>,
) -> HashMap<Key, std::result::Result<webhook::Ready, Outcome>> {
    let is_webhook = |c: &&Claimed| c.head.channel == Channel::Webhook;
    let known = |c: &'_ Claimed| contents.get(&c.key.message_id).and_then(Option::as_deref);
    let all: Vec<(&Claimed, &Contents)> =
        claimed.iter().filter(is_webhook).filter_map(|c| Some((c, known(c)?))).collect();
    if all.is_empty() {
        return HashMap::new();
    }
    webhook::prepare(hub, &all).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, deliveries = all.len(), "claimed, but what to send to whom could not be read");
        HashMap::new()
    })
}

/// A call that was made, or at least prepared.
struct Call<'a> {
    provider: &'a str,
    profile: Option<Profile>,
    on_unknown: OnUnknown,
    begins_recorded: bool,
    called_at: Option<DateTime<Utc>>,
    /// How long a receipt is waited for, if the provider takes it.
    receipt_within: Option<TimeDelta>,
    waited: Duration,
    /// Its endpoint wants its events in order.
    in_order: bool,
}

/// The settle that an outcome leads to.
fn settle_of(hub: &Hub, claimed: &Claimed, holder: Holder, outcome: Outcome, call: Option<Call<'_>>) -> Settle {
    let in_order = call.as_ref().is_none_or(|c| c.in_order);
    let of_channel = || hub.providers.on_unknown(claimed.head.channel, &hub.settings.retry);
    let on_unknown = call.as_ref().map_or_else(of_channel, |c| c.on_unknown);
    let begun = call.as_ref().is_some_and(|c| c.begins_recorded);
    let called_at = call.as_ref().and_then(|c| c.called_at);
    let profile = call.as_ref().and_then(|c| c.profile);
    let receipt_within = call.as_ref().and_then(|c| c.receipt_within);
    let now = hub.clock.now();
    let waited = call.as_ref().map_or(Duration::ZERO, |c| c.waited);
    let policy = hub.settings.retry.policy(claimed.head.channel, claimed.head.has_fallback);
    let policy = policy.profiled(profile).having_waited(waited);
    let step = next(&claimed.head, &outcome, &policy, on_unknown, now, rand::random());
    Settle {
        followers: webhook::followers(hub, claimed, in_order),
        receipt_due: receipt_within.filter(|_| step.status == Status::Sent).map(|within| now + within),
        key: claimed.key,
        lane: claimed.lane,
        head: claimed.head,
        step,
        provider: call.filter(|_| called_at.is_some()).map(|c| c.provider.to_owned()),
        tried: Some(tried(outcome, begun, holder.worker, holder.claimed_at, called_at)),
        notice_id: hub.next_id(),
        apart: None,
    }
}

/// Where an unknown outcome must not lead to a second copy, the beginning of a call is durable before the call. Returns what
/// may be called, and what is given back: its lease is nearly over, because the hub is late.
async fn begin(hub: &Hub, holder: Holder, held: Vec<Held>) -> (Vec<Held>, Vec<Settle>) {
    let calls: Vec<(Key, i16, String)> = held
        .iter()
        .filter(|h| h.begins_recorded)
        .map(|h| (h.claimed.key, h.claimed.head.attempt, h.account.name().to_owned()))
        .collect();
    if calls.is_empty() {
        return (held, Vec::new());
    }
    let Holder { worker, claimed_at, .. } = holder;
    let lasting = hub.settings.timing.call_budget();
    let db = hub.store.serving(held.first().map_or(Channel::Email, |h| h.claimed.head.channel));
    match store::attempt::begin(db, &calls, worker, claimed_at, hub.clock.now(), lasting).await {
        Ok(begun) => {
            may_die_at("begin.after_commit");
            let begun: HashSet<Key> = begun.into_iter().collect();
            let (held, late): (Vec<Held>, Vec<Held>) =
                held.into_iter().partition(|h| !h.begins_recorded || begun.contains(&h.claimed.key));
            let late = late.iter().map(|h| settle_of(hub, &h.claimed, holder, Outcome::Postponed, None)).collect();
            (held, late)
        }
        Err(e) => {
            // Perhaps it was recorded: whoever takes it back looks.
            tracing::warn!(error = %e, deliveries = calls.len(), "claimed, but the beginning could not be recorded");
            (held.into_iter().filter(|h| !h.begins_recorded).collect(), Vec::new())
        }
    }
}

/// What goes out in one request each: what may go together with others goes together, in the order of the claim.
pub fn requests(held: Vec<Held>) -> Vec<Vec<Held>> {
    let mut requests: Vec<Vec<Held>> = Vec::with_capacity(held.len());
    // The request of a kind that has room still.
    let mut open = HashMap::new();
    for held in held {
        let channel = held.claimed.head.channel;
        let batch = held.account.of(channel).map_or(Batch::One, |c| c.batch);
        let (most, same) = match batch {
            _ if held.goes_alone() => (1, None),
            Batch::One => (1, None),
            Batch::Any(most) => (most, None),
            Batch::SameContent(most) => (most, Some((held.claimed.key.message_id, held.claimed.content))),
        };
        if most <= 1 {
            requests.push(vec![held]);
            continue;
        }
        let kind = (Arc::as_ptr(&held.account), channel, same);
        match open.get(&kind).and_then(|n: &usize| requests.get_mut(*n)).filter(|request| request.len() < most) {
            Some(request) => request.push(held),
            None => {
                open.insert(kind, requests.len());
                requests.push(vec![held]);
            }
        }
    }
    requests
}

/// One request, or the decision not to make it; always ends with something to settle for each delivery.
pub async fn call(hub: &Hub, request: Vec<Held>) -> Vec<Settle> {
    let mut settles = Vec::with_capacity(request.len());
    let mut asked = Vec::with_capacity(request.len());
    for held in request {
        match not_to_be_asked(hub, &held) {
            Some(outcome) => settles.push(ended(hub, &held, outcome, None).await),
            None => asked.push(held),
        }
    }
    let Some(first) = asked.first_mut() else { return settles };
    let turn = pace::enter(hub, &first.account, &first.claimed.recipient).await;
    // Webhooks alone have a way of their own, and go one by one.
    let way = match turn {
        Ok(line) => way(hub, first).await.map(|way| (way, line)),
        Err(outcome) => Err(outcome),
    };
    // Its turn came too late.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let way = if late && way.is_ok() { Err(Outcome::Postponed) } else { way };
    let entered = match way {
        Ok(way) => route::enter(hub, &first.account, first.seat.take()).await.map(|pass| (way, pass)),
        Err(outcome) => Err(outcome),
    };
    let ((mut way, line), mut pass) = match entered {
        Ok(entered) => entered,
        Err(outcome) => {
            for held in &asked {
                settles.push(ended(hub, held, outcome.clone(), None).await);
            }
            return settles;
        }
    };
    let called_at = hub.clock.now();
    // Leave may have been long in coming: the lease would be over before the answer, or what was taken has lapsed.
    let late = first.holder.since.elapsed() > hub.settings.timing.begin_within();
    let begun = if late { Err(Outcome::Postponed) } else { pass.begin(called_at) };
    if let Err(outcome) = begun {
        pass.answered(hub, std::slice::from_ref(&outcome)).await;
        for held in &asked {
            settles.push(ended(hub, held, outcome.clone(), None).await);
        }
        return settles;
    }
    may_die_at("call.before");
    let outcomes = ask(hub, &asked).await;
    may_die_at("call.after_answer");
    pass.answered(hub, &outcomes).await;
    // Before the next request to the same destination may be made.
    if let Some(first) = asked.first() {
        pace::answered(hub, &first.account, &first.claimed.recipient, called_at, &outcomes).await;
    }
    drop(line);
    if let (Some(way), Some(outcome)) = (&mut way, outcomes.first()) {
        way.answered(outcome);
    }
    if outcomes.iter().any(is_throttled) {
        look_since_when(hub, &mut asked).await;
    }
    for (held, outcome) in asked.iter().zip(outcomes) {
        settles.push(ended(hub, held, outcome, Some(called_at)).await);
    }
    settles
}

fn is_throttled(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Rejected { class, .. } if class.action() == Action::Wait)
}

/// For how long these have been tried; read only where it matters. If it cannot be read, patience begins anew.
async fn look_since_when(hub: &Hub, asked: &mut [Held]) {
    let keys: Vec<Key> = asked.iter().filter(|h| h.claimed.head.attempt > 1).map(Held::key).collect();
    let since = store::attempt::tried_since(hub.store.engine(), &keys).await.unwrap_or_else(|e| {
        tracing::warn!(error = %e, deliveries = keys.len(), "since when they have been tried could not be read");
        HashMap::new()
    });
    let now = hub.clock.now();
    for held in asked {
        let waited = since.get(&held.key()).and_then(|since| (now - since).to_std().ok());
        held.waited = waited.unwrap_or_default();
    }
}

/// Why a delivery is not called, if it is not.
fn not_to_be_asked(hub: &Hub, held: &Held) -> Option<Outcome> {
    let head = held.claimed.head;
    if head.expires_at.is_some_and(|worthless| worthless <= hub.clock.now()) {
        Some(Outcome::Expired)
    } else if head.cancel_requested {
        Some(Outcome::Canceled)
    } else if hub.shutdown.is_stopping() {
        Some(Outcome::Released)
    } else if held.holder.since.elapsed() > hub.settings.timing.begin_within() {
        // Not begun in time to end within the lease.
        Some(Outcome::Postponed)
    } else if held.letter().is_none() {
        Some(Outcome::Rejected {
            class: ErrorClass::Content,
            code: "content_missing".into(),
            detail: "its content is not in the books".into(),
            retry_after: None,
        })
    } else {
        None
    }
}

async fn ended(hub: &Hub, held: &Held, outcome: Outcome, called_at: Option<DateTime<Utc>>) -> Settle {
    if let Some(ready) = held.webhook.as_ref().filter(|_| webhook::is_gone(&outcome))
        && let Err(e) = Box::pin(webhook::disable(hub, ready.endpoint_id, "gone", Some(&ready.parcel.url))).await
    {
        tracing::warn!(error = %e, endpoint = %ready.endpoint_id, "gone, but not disabled yet: the next answer will");
    }
    let (provider, kind) = (held.account.name(), outcome.kind().as_str());
    let Held { on_unknown, begins_recorded, .. } = *held;
    let profile = held.account.terms.profile;
    let receipt_within = held.receipt_within();
    let waited = held.waited;
    let in_order = held.webhook.as_ref().is_some_and(|ready| ready.in_order);
    let call = Call { provider, profile, on_unknown, begins_recorded, called_at, receipt_within, waited, in_order };
    let settle = settle_of(hub, &held.claimed, held.holder, outcome, Some(call));
    let (status, reason) = (settle.step.status, settle.step.reason.unwrap_or_default());
    hub.metrics.outcomes.with_label_values(&[provider, kind, reason]).inc();
    if called_at.is_some() && status == Status::Scheduled {
        hub.metrics.retries.with_label_values(&[provider, reason]).inc();
    }
    tracing::debug!(
        delivery = %held.claimed.key, attempt = held.claimed.head.attempt, provider, outcome = kind, %status, reason,
        "attempt ended"
    );
    if status == Status::Scheduled && held.claimed.head.has_fallback && !settle.step.refund {
        let (channel, attempt) = (held.claimed.head.channel, held.claimed.head.attempt);
        tracing::info!(delivery = %held.claimed.key, %channel, reason, "retry attempt {attempt}");
    }
    settle
}

/// Whether it is its turn: for webhooks alone, whose endpoints are strangers.
async fn way(hub: &Hub, held: &mut Held) -> std::result::Result<Option<webhook::Way>, Outcome> {
    let until = held.holder.since + hub.settings.timing.begin_within();
    match &mut held.webhook {
        Some(ready) => Box::pin(webhook::Way::open(hub, ready, until)).await.map(Some),
        None => Ok(None),
    }
}

/// As many outcomes as there are deliveries.
async fn ask(hub: &Hub, asked: &[Held]) -> Vec<Outcome> {
    let Some(first) = asked.first() else { return Vec::new() };
    let mut letters: Vec<Letter<'_>> = asked.iter().filter_map(Held::letter).collect();
    let provider = &first.account.provider;
    let began = Instant::now();
    let sending = async {
        match letters.pop() {
            Some(letter) if letters.is_empty() && first.asks_first() => vec![look_up_and_send(provider, letter).await],
            Some(letter) if letters.is_empty() => vec![provider.send(letter).await],
            Some(letter) => {
                letters.push(letter);
                provider.send_batch(letters).await
            }
            None => Vec::new(),
        }
    };
    // A panicking adapter ends its own attempts only; whether it had asked by then, nobody can say.
    let sending = AssertUnwindSafe(sending).catch_unwind();
    let nobody_knows = |code, detail: &str| vec![Outcome::Unknown { code, detail: detail.into() }; asked.len()];
    let outcomes = match answer(hub, asked, provider.extra_time(), sending).await {
        Ok(Ok(outcomes)) if outcomes.len() == asked.len() => outcomes,
        Ok(Ok(_)) => nobody_knows("answer_incomplete", "the provider's adapter lost count of what it sent"),
        Ok(Err(_panic)) => {
            tracing::error!(delivery = %first.claimed.key, provider = provider.name(), "the provider's adapter panicked");
            nobody_knows("sender_panicked", "our own code failed while sending")
        }
        Err(why) => nobody_knows("no_answer", why),
    };
    observe(&hub.metrics.call_seconds, &[provider.name()], began.elapsed());
    outcomes
}

/// Waits for a call as long as its provider may take: the call budget, and `extra` where the protocol lets the other side
/// answer late. Then the lease is extended meanwhile, and a process that stops waits until its grace is nearly over. Fails
/// with the reason why there is no answer.
async fn answer<T>(
    hub: &Hub,
    asked: &[Held],
    extra: Duration,
    call: impl Future<Output = T>,
) -> std::result::Result<T, &'static str> {
    let timing = &hub.settings.timing;
    let call = tokio::time::timeout(timing.call_budget() + extra, call);
    if extra.is_zero() {
        return call.await.map_err(|_elapsed| "no answer within the call budget");
    }
    let stopped = async {
        hub.shutdown.stopping().await;
        tokio::time::sleep(timing.grace_of_calls()).await;
    };
    tokio::select! {
        answer = call => answer.map_err(|_elapsed| "no answer within the time that the provider may take"),
        never = keep_leases(hub, asked) => match never {},
        () = stopped => Err("this process stopped while the provider's answer was still to come"),
    }
}

/// Extends the leases of a running call three times a lease, so that one failure to do so loses none. A worker that dies
/// extends nothing: the reaper comes one lease later.
async fn keep_leases(hub: &Hub, asked: &[Held]) -> Infallible {
    let every = hub.settings.timing.lease() / 3;
    let mut due = asked.iter().map(|held| held.holder.since).min().unwrap_or_else(Instant::now);
    loop {
        due = Instant::now().max(due + every);
        tokio::time::sleep_until(due.into()).await;
        let attempts = asked.iter().map(|held| (held.key(), held.claimed.head.attempt, held.holder.worker)).collect();
        // A task of its own: when the answer comes, this is dropped, and a statement must not be dropped half-way.
        let _waited = hub.shutdown.spawn(extend_leases(hub.clone(), attempts)).await;
    }
}

async fn extend_leases(hub: Hub, attempts: Vec<(Key, i16, Tsid)>) {
    let lease = hub.settings.timing.lease();
    for (key, attempt, worker) in attempts {
        match store::delivery::extend(hub.store.engine(), key, attempt, worker, lease).await {
            Ok(true) => tracing::debug!(delivery = %key, attempt, "lease extended: the answer is still to come"),
            Ok(false) => {
                tracing::debug!(delivery = %key, attempt, "no lease to extend: the attempt has ended or was lost")
            }
            Err(e) => tracing::warn!(delivery = %key, attempt, error = %e, "the lease could not be extended"),
        }
    }
}

/// What may have been sent is asked for first, where the provider can tell.
async fn look_up_and_send(provider: &Arc<dyn Provider>, letter: Letter<'_>) -> Outcome {
    match provider.lookup(letter.clone()).await {
        Looked::Taken { provider_ref } => Outcome::Accepted { provider_ref },
        Looked::NotTaken => provider.send(letter).await,
        Looked::CannotTell => Outcome::Unknown {
            code: "lookup_failed",
            detail: "an earlier attempt may have been taken, and the provider could not say".into(),
        },
    }
}

/// The books' view of an outcome.
pub(super) fn tried(
    outcome: Outcome,
    begun: bool,
    worker: Tsid,
    claimed_at: DateTime<Utc>,
    called_at: Option<DateTime<Utc>>,
) -> Tried {
    let kind = outcome.kind();
    let (code, detail, provider_ref) = match outcome {
        Outcome::Accepted { provider_ref } => (None, None, provider_ref),
        Outcome::Rejected { code, detail, .. } => (Some(code), Some(detail), None),
        Outcome::Unknown { code, detail } => (Some(code.to_owned()), Some(detail), None),
        Outcome::Released => (Some("released".to_owned()), None, None),
        Outcome::Postponed => (Some("postponed".to_owned()), None, None),
        Outcome::Deferred { reason, .. } => (Some(reason.to_owned()), None, None),
        Outcome::Expired => (Some("expired".to_owned()), None, None),
        Outcome::Canceled => (Some("canceled".to_owned()), None, None),
    };
    Tried {
        outcome: kind,
        begun,
        worker,
        claimed_at,
        called_at,
        code: code.and_then(clean),
        detail: detail.and_then(clean),
        provider_ref: provider_ref.and_then(clean),
    }
}

/// Settles a batch: winners change their heads, and only winners emit. What lost its fence is kept on its own attempt.
pub async fn settle(hub: &Hub, mut batch: Vec<Settle>) -> Result<()> {
    batch.sort_by_key(|s| s.key);
    let began = Instant::now();
    let now = hub.clock.now();
    let Some(channel) = batch.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let (won, made) = if batch
        .iter()
        .any(|s| in_doubt(s) || s.apart.is_some() || fallback::follows(s).is_some() || known_by(hub, s).is_some())
    {
        let mut tx = hub.store.begin_serving(channel).await?;
        let written = write(hub, &mut tx, &batch, now).await?;
        may_die_at("settle.before_commit");
        tx.commit().await?;
        written
    } else {
        (store::delivery::settle(hub.store.serving(channel), &batch, now).await?, fallback::Made::default())
    };
    may_die_at("settle.after_commit");
    observe(&hub.metrics.settle_seconds, &[], began.elapsed());
    let by_key: HashMap<Key, bool> = won.iter().map(|w| (w.key, w.cancel_requested)).collect();
    let (winners, losers): (Vec<Settle>, Vec<Settle>) = batch.into_iter().partition(|s| by_key.contains_key(&s.key));
    tell(hub, &winners, &won);
    fallback::announce(hub, &made);
    webhook::release_next(hub, &winners).await;
    let won = by_key;
    if !losers.is_empty() {
        late(hub, &losers, now).await?;
    }
    // A wish to cancel that came during the call was not known when its step was decided.
    let waits = |s: &&Settle| matches!(s.step.status, Status::Scheduled | Status::Pending) && won[&s.key];
    let unwanted: Vec<Waiting> = winners.iter().filter(waits).map(Waiting::after).collect();
    if !unwanted.is_empty() {
        end(hub, unwanted, &Outcome::Canceled).await?;
    }
    Ok(())
}

/// A head that may have been sent and is not called so: one of its attempts may turn out to have been accepted.
fn in_doubt(settle: &Settle) -> bool {
    settle.step.possibly_sent && settle.step.status != Status::Sent
}

/// By which id of its provider's own receipts will know an attempt, if they do not repeat our reference.
fn known_by(hub: &Hub, settle: &Settle) -> Option<(String, String, Reference)> {
    let (provider, id) = (settle.provider.clone()?, settle.tried.as_ref()?.provider_ref.clone()?);
    let of = hub.providers.named(&provider)?.of(settle.lane.channel())?;
    let known = of.receipt_within.is_some() && !of.repeats_reference && id.len() <= limits::EVENT_KEY_BYTES;
    known.then_some((provider, id, Reference { key: settle.key, attempt: settle.head.attempt }))
}

async fn keep_refs(hub: &Hub, tx: &mut store::Conn, settles: impl IntoIterator<Item = &Settle>) -> Result<()> {
    let mut refs: Vec<_> = settles.into_iter().filter_map(|s| known_by(hub, s)).collect();
    if refs.is_empty() {
        return Ok(());
    }
    refs.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
    store::provider_ref::insert(tx, &refs).await
}

/// Writes steps; a head in doubt is lifted in the same transaction if one of its attempts answered late meanwhile, or a
/// receipt told of it. So at no commit does a head deny what its attempts tell. And what takes the place of those that ended.
pub(super) async fn write(
    hub: &Hub,
    tx: &mut store::Conn,
    batch: &[Settle],
    now: DateTime<Utc>,
) -> Result<(Vec<Won>, Made)> {
    let won = store::delivery::settle(&mut *tx, batch, now).await?;
    let kept: HashSet<Key> = won.iter().map(|w| w.key).collect();
    let doubtful: Vec<Key> = batch.iter().filter(|s| in_doubt(s) && kept.contains(&s.key)).map(|s| s.key).collect();
    keep_refs(hub, tx, batch.iter().filter(|s| kept.contains(&s.key))).await?;
    let apart: Vec<&Settle> = batch.iter().filter(|s| s.apart.is_some() && kept.contains(&s.key)).collect();
    if !apart.is_empty() {
        store::suspect::put(&mut *tx, &apart).await?;
    }
    let lifted = lift(hub, tx, &doubtful, now).await?;
    let follows = batch.iter().filter(|s| kept.contains(&s.key)).filter_map(fallback::follows);
    let made = fallback::make(hub, tx, &follows.collect::<Vec<_>>(), now).await?;
    Ok((won, lifted.and(made)))
}

/// Outcomes that came after their lease was over: kept on their own attempts, and if accepted they lift heads that do not
/// know better, in the same transaction. Heads are locked first: whoever settles them meanwhile comes before or after.
async fn late(hub: &Hub, losers: &[Settle], now: DateTime<Utc>) -> Result<()> {
    let keys: Vec<Key> = losers.iter().map(|s| s.key).collect();
    let Some(channel) = losers.first().map(|s| s.lane.channel()) else { return Ok(()) };
    let mut tx = hub.store.begin_serving(channel).await?;
    store::delivery::lock(&mut tx, &keys).await?;
    let kept = store::attempt::late(&mut *tx, losers, now).await?;
    keep_refs(hub, &mut tx, losers).await?;
    may_die_at("late.before_commit");
    let made = lift(hub, &mut tx, &keys, now).await?;
    tx.commit().await?;
    fallback::announce(hub, &made);
    webhook::release_next(hub, losers).await;
    // Fewer than the losers where a batch is written again because its answer was lost.
    hub.metrics.late_settles.inc_by(kept);
    tracing::info!(late = kept, "outcomes came after their lease was over");
    Ok(())
}

/// Returns what receipts that came before make of them, to be announced after the commit.
async fn lift(hub: &Hub, tx: &mut store::Conn, doubtful: &[Key], now: DateTime<Utc>) -> Result<Made> {
    if doubtful.is_empty() {
        return Ok(Made::default());
    }
    let lifted = store::delivery::evidence(&mut *tx, doubtful, now).await?;
    let made = receipt::reweigh(hub, tx, doubtful, now).await?;
    if lifted.is_empty() {
        return Ok(made);
    }
    let due = |l: &Lifted| {
        let within = receipt::within(hub, l.provider.as_deref(), l.lane.channel())?;
        Some((l.key, now + within))
    };
    let due: HashMap<Key, DateTime<Utc>> = lifted.iter().filter_map(due).collect();
    let awaited: Vec<_> = due.iter().map(|(key, at)| (*key, Some(*at))).collect();
    store::delivery::await_receipts(&mut *tx, &awaited).await?;
    fallback::look_sooner(hub, tx, &due, now).await?;
    tracing::info!(lifted = lifted.len(), "late answers tell that these had been sent");
    let notice = |lifted: &Lifted| Notice {
        partner_id: lifted.partner_id,
        shard: lifted.key.shard,
        about: Some(lifted.key.message_id),
        priority: lifted.lane.priority(),
        overflow: lifted.lane.is_overflow(),
        told: Told {
            event: EventKind::Sent.as_str().into(),
            no: lifted.key.no,
            seq: lifted.seq,
            attempt: Some(lifted.attempt),
            lane: Some(lifted.lane.0),
            status: Some(Status::Sent.as_str().into()),
            provider: lifted.provider.clone(),
            reason: Some("late_answer".into()),
            occurred_at: now,
            ..Told::default()
        },
        only: None,
    };
    let notices: Vec<Notice> = lifted.iter().filter(|l| l.lane.channel() != Channel::Webhook).map(notice).collect();
    let published = publish(hub, tx, &notices).await?;
    let ended: Vec<(i16, Tsid, Tsid)> =
        notices.iter().filter_map(|n| Some((n.shard, n.about?, n.partner_id))).collect();
    store::event::mark_endings(tx, &ended).await?;
    Ok(made.with(published))
}

/// After the commit: counts, and wakes workers for what is PENDING again.
pub(super) fn tell(hub: &Hub, winners: &[Settle], won: &[Won]) {
    for settle in winners {
        let labels = [settle.lane.channel().as_str(), settle.step.status.as_str()];
        hub.metrics.settled.with_label_values(&labels).inc();
    }
    let again = winners.iter().filter(|s| s.step.status == Status::Pending);
    let again = again.filter_map(|s| Some(((s.key.shard, s.lane), s.step.ready_at?)));
    let heard: HashSet<Key> = won.iter().filter(|w| w.heard).map(|w| w.key).collect();
    let told = winners.iter().filter(|s| heard.contains(&s.key));
    let told = told.map(|s| {
        let lane = Lane::new(Channel::Webhook, s.lane.priority(), s.lane.is_overflow());
        ((s.key.shard, lane), hub.clock.now())
    });
    hub.wake.ready(again.chain(told));
}

/// Ends deliveries that no worker holds; returns how many were still as they were seen.
pub async fn end(hub: &Hub, waiting: Vec<Waiting>, outcome: &Outcome) -> Result<usize> {
    let now = hub.clock.now();
    let mut settles: Vec<Settle> = waiting
        .into_iter()
        .map(|w| Settle {
            key: w.key,
            lane: w.lane,
            head: w.head,
            step: next(&w.head, outcome, &hub.settings.retry.policy(w.head.channel, false), OnUnknown::Retry, now, 0.0),
            provider: None,
            tried: None,
            notice_id: hub.next_id(),
            receipt_due: None,
            apart: None,
            followers: i64::from(w.lane.is_webhook()),
        })
        .collect();
    settles.sort_by_key(|s| s.key);
    let won = store::delivery::settle(hub.store.engine(), &settles, now).await?;
    settles.retain(|s| won.iter().any(|w| w.key == s.key));
    tell(hub, &settles, &won);
    webhook::release_next(hub, &settles).await;
    Ok(settles.len())
}
