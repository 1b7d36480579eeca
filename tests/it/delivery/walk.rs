//! Random walks through the real engine, beside a model of it: the invariants hold after every step.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use notihub::flow::delivery::claim::claim;
use notihub::flow::delivery::load::{HeldDelivery, load};
use notihub::flow::delivery::promote::{Promoter, promote};
use notihub::flow::delivery::reap::{Reaper, reap};
use notihub::flow::delivery::settle::settle;
use notihub::flow::delivery::suspect;
use notihub::flow::delivery::sweep::{Sweeper, sweep};
use notihub::flow::fsck::{Checked, check_everything};
use notihub::flow::rollup::rollup;
use notihub::hub::{Hub, Parts};
use notihub::id::Tsid;
use notihub::model::capability::Capability;
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::{
    BeginRecord, DeliveryFacts, DeliveryKey, Outcome, OutcomeKind, Status, Transition, next_transition,
    parse_public_id, transition_after_lost_worker,
};
use notihub::model::lane::Lane;
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::{Account, BoxFuture, Provider, Providers, SendRequest};
use notihub::shutdown::Shutdown;
use notihub::store::Conn;
use notihub::store::delivery::Settle;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngSeed, TestRunner};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::runtime::{Builder, Runtime};

use crate::support::app::{App, MASTER_KEY};

/// What the provider does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Accepted,
    RefusedForNow,
    RefusedForGood,
    ComeBackIn(u64),
    SilentTaken,
    SilentLost,
}

impl Answer {
    fn taken(self) -> bool {
        matches!(self, Answer::Accepted | Answer::SilentTaken)
    }

    fn outcome(self) -> Outcome {
        let rejected = |class, retry_after| Outcome::Rejected {
            class,
            code: "scripted".into(),
            detail: String::new(),
            retry_after,
        };
        match self {
            Answer::Accepted => Outcome::Accepted { provider_ref: Some("ref".into()) },
            Answer::RefusedForNow => rejected(ErrorClass::Unreachable, None),
            Answer::RefusedForGood => rejected(ErrorClass::Content, None),
            Answer::ComeBackIn(seconds) => rejected(ErrorClass::Throttled, Some(Duration::from_secs(seconds))),
            Answer::SilentTaken | Answer::SilentLost => {
                Outcome::Unknown { code: "no_answer", detail: "silence".into() }
            }
        }
    }
}

/// Answers as the walk sets it, and keeps a ledger of its own.
struct Scripted {
    next: Mutex<Answer>,
    ledger: Mutex<Vec<(DeliveryKey, i16, Answer)>>,
}

impl Provider for Scripted {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Email)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        let answer = *self.next.lock().expect("no panic in here");
        self.ledger.lock().expect("no panic in here").push((letter.key, letter.attempt, answer));
        Box::pin(async move { answer.outcome() })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("scripted".into()) })
    }
}

#[derive(Debug, Clone)]
enum Op {
    Accept {
        recipients: usize,
        /// In seconds; for how long it is worth sending, from then on.
        delay: Option<i64>,
        life: Option<i64>,
    },
    /// The same request once more.
    AcceptAgain(Index),
    Claim {
        worker: usize,
        most: i64,
    },
    /// By a worker that dies before it has read what to send.
    ClaimAndDie,
    Call(Index, Answer),
    /// By a worker that is too slow to begin in time.
    CallTooLate(Index),
    /// By a worker that stops.
    GiveBack(Index),
    Settle(Index),
    /// It was written, but the worker does not know, and will write it again.
    SettleUnheard(Index),
    SettleAll,
    Crash(Index),
    LeaseOver(Index),
    /// One that a worker was lost with is claimed alone, and called.
    Alone(Answer),
    Promote,
    Advance(i64),
    Cancel(Index),
    Sweep,
}

/// One step, as thrown: which of the things that can be done now, and to what.
#[derive(Debug, Clone)]
struct Throw {
    kind: Index,
    which: Index,
    answer: Answer,
    recipients: usize,
    delay: Option<i64>,
    life: Option<i64>,
    seconds: i64,
}

fn throws() -> impl Strategy<Value = Vec<Throw>> {
    let answer = prop_oneof![
        3 => Just(Answer::Accepted),
        4 => Just(Answer::RefusedForNow),
        3 => Just(Answer::RefusedForGood),
        1 => (1..5_u64).prop_map(Answer::ComeBackIn),
        2 => Just(Answer::SilentTaken),
        2 => Just(Answer::SilentLost),
    ];
    let (delay, life) = (proptest::option::weighted(0.2, 5..20_i64), proptest::option::weighted(0.4, 4..15_i64));
    let throw = (any::<Index>(), any::<Index>(), answer, 1..=2_usize, delay, life, 1..12_i64).prop_map(
        |(kind, which, answer, recipients, delay, life, seconds)| Throw {
            kind,
            which,
            answer,
            recipients,
            delay,
            life,
            seconds,
        },
    );
    vec(throw, 25..=35)
}

/// What a delivery should look like.
#[derive(Debug, Clone)]
struct Twin {
    head: DeliveryFacts,
    /// The status at the last comparison.
    seen: Status,
    ready_at: DateTime<Utc>,
    /// A worker was lost with it, and it waits apart from all others.
    apart: bool,
    /// The time of a retry has jitter in it: what the API says is taken over, within these bounds.
    ready_within: Option<(DateTime<Utc>, DateTime<Utc>)>,
    reason: Option<String>,
    /// Outcome, and whether it came late.
    attempts: BTreeMap<i16, (OutcomeKind, bool)>,
    /// Attempts whose outcome is the reaper's guess: only these may a late answer correct.
    guessed: BTreeSet<i16>,
    events: Vec<Status>,
}

/// What a worker knows and has not written yet.
struct Known {
    settle: Settle,
    /// The step by the reference, with the least and the most jitter.
    steps: (Transition, Transition),
}

/// Every change of a head that was seen, and how often.
type Seen = BTreeMap<(Status, Status), u32>;

/// Speaks up when its walk fails: throws mean little to a reader.
#[derive(Default)]
struct Diary(Vec<Op>);

impl Drop for Diary {
    fn drop(&mut self) {
        if std::thread::panicking() {
            report(&format!("the walk was {:?}", self.0));
        }
    }
}

struct Walk {
    app: App,
    /// The same hub as a worker sees it that never begins in time, and as one sees it that is stopping.
    slow: Hub,
    stopping: Hub,
    db: PgPool,
    /// What fsck does, on one connection: it knows its queries after the first time.
    auditor: Conn,
    provider: Arc<Scripted>,
    on_unknown: OnUnknown,
    workers: [Tsid; 2],
    held: Vec<HeldDelivery>,
    known: Vec<Known>,
    twins: BTreeMap<DeliveryKey, Twin>,
    seen: Seen,
    /// The operations of this walk, for the reader of a failure.
    ops: Diary,
    /// Messages so far, of this walk and those before it.
    messages: u32,
    /// Requests that can be repeated word for word, and the id they were given.
    requests: Vec<(Value, String)>,
}

fn rfc3339(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

impl Twin {
    fn take(&mut self, step: &Transition, latest: &Transition) {
        self.head.status = step.status;
        self.head.possibly_sent |= step.possibly_sent;
        self.head.max_attempts += i16::from(step.refund);
        self.reason = step.reason.map(str::to_owned);
        if let (Some(from), Some(to)) = (step.ready_at, latest.ready_at) {
            self.ready_at = from;
            self.ready_within = Some((from, to));
        }
        if step.status.is_settled() {
            self.events.push(step.status);
        }
    }

    /// A step that was fenced by what it started from. Says whether the fence held.
    fn settle(&mut self, settle: &Settle, steps: &(Transition, Transition)) -> bool {
        if (self.head.status, self.head.attempt) != (settle.head.status, settle.head.attempt) {
            return false;
        }
        self.take(&steps.0, &steps.1);
        if let Some(tried) = &settle.ended_attempt {
            self.attempts.insert(settle.head.attempt, (tried.outcome, false));
            self.apart &= tried.outcome == OutcomeKind::NotCalled;
        }
        self.look();
        true
    }

    /// An outcome whose fence was gone: kept on its own attempt in the stead of a doubt, and evidence if it was
    /// accepted.
    fn late(&mut self, attempt: i16, outcome: OutcomeKind) {
        if self.guessed.contains(&attempt)
            && let Some(row) = self.attempts.get_mut(&attempt)
            && matches!(row.0, OutcomeKind::InFlight | OutcomeKind::Unknown)
        {
            *row = (outcome, true);
        }
        if outcome == OutcomeKind::Accepted {
            self.look();
        }
    }

    /// An attempt that was given up and turned out to be accepted lifts a head that does not know better.
    fn look(&mut self) {
        let accepted = self.attempts.values().any(|row| row.0 == OutcomeKind::Accepted);
        if accepted && matches!(self.head.status, Status::Scheduled | Status::Pending | Status::Undetermined) {
            self.head.status = Status::Sent;
            self.reason = Some("late_answer".into());
            self.events.push(Status::Sent);
        }
    }
}

impl Walk {
    async fn new(on_unknown: OnUnknown) -> Walk {
        let provider = Arc::new(Scripted { next: Mutex::new(Answer::Accepted), ledger: Mutex::default() });
        let flag = if on_unknown == OnUnknown::Hold { "--on-unknown=EMAIL=hold" } else { "--on-unknown=EMAIL=retry" };
        // Leases end by a step of the walk, not by the passing of time.
        let flags = [flag, "--retry-schedule=EMAIL=backoff", "--retry-backoff-delay=1000", "--lease-ms=3600000"];
        let app = App::with_provider(&flags, provider.clone()).await;
        let another = |lease: &'static str| {
            notihub::flow::start(Parts {
                settings: crate::support::app::settings(&[&flags[..3], &["--accept-loss", lease]].concat()),
                store: app.hub.store.clone(),
                providers: Providers::new([Account::from(provider.clone() as Arc<dyn Provider>)]).expect("one"),
                clock: app.hub.clock.clone(),
                shutdown: Shutdown::new(),
                master_keys: vec![MASTER_KEY],
            })
        };
        // A lease too short for a call: every call comes too late to be begun.
        let slow = another("--lease-ms=1").await.expect("a second hub");
        let stopping = another(flags[3]).await.expect("a third hub");
        stopping.shutdown.stop();
        let workers = [app.hub.next_id(), app.hub.next_id()];
        let db = app.db().await;
        let auditor = app.hub.store.connect_without_timeout().await.expect("a connection");
        let (held, known, twins, requests) = (Vec::new(), Vec::new(), BTreeMap::new(), Vec::new());
        let (seen, ops, messages) = (Seen::new(), Diary::default(), 0);
        Walk {
            app,
            slow,
            stopping,
            db,
            auditor,
            provider,
            on_unknown,
            workers,
            held,
            known,
            twins,
            seen,
            ops,
            messages,
            requests,
        }
    }

    /// From an empty queue to an empty queue, so that the next walk may begin here too.
    async fn run(&mut self, throws: &[Throw]) {
        self.twins.clear();
        self.requests.clear();
        self.ops.0.clear();
        self.provider.ledger.lock().expect("no panic in here").clear();
        for throw in throws {
            let op = self.op(throw);
            self.ops.0.push(op.clone());
            let touched = self.act(&op).await;
            if !touched.is_empty() {
                self.compare(&touched).await;
            }
        }
        self.drain().await;
    }

    fn now(&self) -> DateTime<Utc> {
        self.app.hub.clock.now()
    }

    fn step(&self, head: &DeliveryFacts, outcome: &Outcome, jitter: f64) -> Transition {
        next_transition(
            head,
            outcome,
            &self.app.hub.settings.retry.policy(head.channel, head.has_fallback),
            self.on_unknown,
            self.now(),
            jitter,
        )
    }

    fn in_status(&self, status: Status) -> Vec<DeliveryKey> {
        self.twins.iter().filter(|(_, twin)| twin.head.status == status).map(|(key, _)| *key).collect()
    }

    /// What the throw means here and now, among what can be done. The rarer something is possible, the more it weighs.
    fn op(&self, throw: &Throw) -> Op {
        let Throw { kind, which, answer, recipients, delay, life, seconds } = throw.clone();
        let any_in = |status| self.twins.values().any(|twin| twin.head.status == status);
        let open = self.twins.values().filter(|twin| !twin.head.status.is_settled()).count();
        let now = self.now();
        let scheduled = |twin: &Twin| twin.head.status == Status::Scheduled && twin.ready_at <= now;
        let due = |twin: &Twin| scheduled(twin) && !twin.apart;
        let alone = |twin: &Twin| scheduled(twin) && twin.apart;
        let worthless =
            |twin: &Twin| twin.head.status == Status::Pending && twin.head.expires_at.is_some_and(|at| at <= now);
        let (worker, most) = (usize::from(seconds % 2 == 0), recipients as i64);
        let possible = [
            ([6, 2, 1].get(open).copied().unwrap_or(0), Op::Accept { recipients, delay, life }),
            (usize::from(!self.requests.is_empty()), Op::AcceptAgain(which)),
            (if any_in(Status::Pending) { 6 } else { 0 }, Op::Claim { worker, most }),
            (usize::from(any_in(Status::Pending)), Op::ClaimAndDie),
            (4 * self.held.len().min(2), Op::Call(which, answer)),
            (self.held.len().min(1), Op::CallTooLate(which)),
            (self.held.len().min(1), Op::GiveBack(which)),
            (2 * self.known.len().min(2), Op::Settle(which)),
            (self.known.len().min(1), Op::SettleUnheard(which)),
            (self.known.len().saturating_sub(1), Op::SettleAll),
            ((self.held.len() + self.known.len()).min(1), Op::Crash(which)),
            (if any_in(Status::Processing) { 3 } else { 0 }, Op::LeaseOver(which)),
            (if self.twins.values().any(alone) { 6 } else { 0 }, Op::Alone(answer)),
            (if self.twins.values().any(due) { 8 } else { usize::from(any_in(Status::Scheduled)) }, Op::Promote),
            (if any_in(Status::Scheduled) { 4 } else { 1 }, Op::Advance(seconds)),
            (open.min(1), Op::Cancel(which)),
            (if self.twins.values().any(worthless) { 4 } else { 0 }, Op::Sweep),
        ];
        let mut left = kind.index(possible.iter().map(|p| p.0).sum());
        let chosen = possible.into_iter().find(|(weight, _)| {
            let here = left < *weight;
            left = left.saturating_sub(*weight);
            here
        });
        chosen.expect("time can always pass").1
    }

    /// Does it, here and there. Returns the deliveries it touched.
    async fn act(&mut self, op: &Op) -> Vec<DeliveryKey> {
        let nothing = Vec::new();
        match op {
            Op::Accept { recipients, delay, life } => self.accept(*recipients, *delay, *life).await,
            Op::AcceptAgain(which) => {
                let (body, id) = which.get(&self.requests);
                let again = self.app.post("/v1/messages", body.clone()).await.expect(200);
                assert_eq!(again.id(), *id, "the same key is the same message");
                id.parse().map(|message_id| self.of_message(message_id)).expect("an id")
            }
            Op::Claim { worker, most } => self.claim(self.workers[*worker], *most, false).await,
            Op::ClaimAndDie => self.claim(self.workers[0], 1, true).await,
            Op::Call(which, answer) => {
                let held = self.held.remove(which.index(self.held.len()));
                vec![self.call(held, Ok(*answer)).await]
            }
            Op::CallTooLate(which) => {
                let held = self.held.remove(which.index(self.held.len()));
                vec![self.call(held, Err(Outcome::Postponed)).await]
            }
            Op::GiveBack(which) => {
                let held = self.held.remove(which.index(self.held.len()));
                vec![self.call(held, Err(Outcome::Released)).await]
            }
            Op::Settle(which) | Op::SettleUnheard(which) => {
                let n = which.index(self.known.len());
                let touched = self.settle(vec![self.known[n].settle.clone()]).await;
                if matches!(op, Op::Settle(_)) {
                    self.known.remove(n);
                }
                touched
            }
            Op::SettleAll => {
                // Two steps of one delivery are never in one batch.
                let mut keys = BTreeSet::new();
                let first = self.known.iter().filter(|k| keys.insert(k.settle.key));
                let batch: Vec<Settle> = first.map(|k| k.settle.clone()).collect();
                let written: BTreeSet<(DeliveryKey, i16)> = batch.iter().map(|s| (s.key, s.head.attempt)).collect();
                let touched = self.settle(batch).await;
                self.known.retain(|k| !written.contains(&(k.settle.key, k.settle.head.attempt)));
                touched
            }
            Op::Crash(which) => {
                let n = which.index(self.held.len() + self.known.len());
                if n < self.held.len() {
                    drop(self.held.remove(n));
                } else {
                    drop(self.known.remove(n - self.held.len()));
                }
                nothing
            }
            Op::LeaseOver(which) => {
                let key = *which.get(&self.in_status(Status::Processing));
                self.lease_over(key).await;
                vec![key]
            }
            Op::Alone(answer) => self.alone(*answer).await,
            Op::Promote => self.promote().await,
            Op::Advance(seconds) => {
                self.app.advance(*seconds);
                // Time passes, so the roll-up comes by: of the statistics some are in their days and some are not.
                rollup(&self.app.hub).await.expect("a roll-up");
                nothing
            }
            Op::Cancel(which) => {
                let messages: BTreeSet<Tsid> = self.twins.keys().map(|key| key.message_id).collect();
                let messages: Vec<Tsid> = messages.into_iter().collect();
                self.cancel(*which.get(&messages)).await
            }
            Op::Sweep => self.sweep().await,
        }
    }

    fn of_message(&self, message_id: Tsid) -> Vec<DeliveryKey> {
        self.twins.keys().filter(|key| key.message_id == message_id).copied().collect()
    }

    async fn accept(&mut self, recipients: usize, delay: Option<i64>, life: Option<i64>) -> Vec<DeliveryKey> {
        let now = self.now();
        let at = |seconds: Option<i64>| seconds.map(|s| now + TimeDelta::seconds(s));
        let life = life.map(|s| s + delay.unwrap_or(0));
        let to: Vec<String> = (1..=recipients).map(|n| format!("kim{n}@example.com")).collect();
        self.messages += 1;
        let mut body = json!({
            "type": "WALK", "title": "Hello", "body": "It works.", "clientMsgId": format!("walk-{}", self.messages),
            "channels": [{"channel": "EMAIL", "to": to}],
        });
        if let Some(at) = at(delay) {
            body["scheduledAt"] = rfc3339(at).into();
        }
        if let Some(at) = at(life) {
            body["expiresAt"] = rfc3339(at).into();
        }
        let accepted = self.app.post("/v1/messages", body.clone()).await.expect(202);
        let (id, shard) = (accepted.id(), self.app.partner.shard);
        let message_id: Tsid = id.parse().expect("an id");
        let keys: Vec<DeliveryKey> =
            (1_i16..).take(recipients).map(|no| DeliveryKey { shard, message_id, no }).collect();
        for key in &keys {
            let head = DeliveryFacts {
                status: if delay.is_some() { Status::Scheduled } else { Status::Pending },
                channel: Channel::Email,
                attempt: 0,
                max_attempts: 3,
                possibly_sent: false,
                cancel_requested: false,
                expires_at: at(life),
                has_fallback: false,
            };
            let twin = Twin {
                head,
                seen: head.status,
                ready_at: at(delay).unwrap_or(now),
                apart: false,
                ready_within: None,
                reason: None,
                attempts: BTreeMap::new(),
                guessed: BTreeSet::new(),
                events: Vec::new(),
            };
            self.twins.insert(*key, twin);
        }
        if delay.is_none() && life.is_none() {
            self.requests.push((body, id));
        }
        keys
    }

    /// S3-11: the oldest first, each once, and all of it mine from then on.
    async fn claim(&mut self, worker: Tsid, most: i64, dies: bool) -> Vec<DeliveryKey> {
        let hub = self.app.hub.clone();
        let shard = self.app.partner.shard;
        let lanes = Lane::all_of(&[Channel::Email]).into_iter();
        let looks: Vec<PlannedClaim> = lanes
            .map(|lane| PlannedClaim { place: (shard, lane), from_ready_at: DateTime::UNIX_EPOCH, rows: most })
            .collect();
        let claim = claim(&hub, worker, &looks, most).await.expect("a claim");
        let claimed: Vec<DeliveryKey> = claim.rows.iter().map(|row| row.key).collect();
        let waiting = self.in_status(Status::Pending);
        assert_eq!(claimed.len(), waiting.len().min(most as usize), "all that may be claimed is claimed");
        let ready = |key: &DeliveryKey| self.twins[key].ready_at;
        let last = claimed.iter().map(ready).max().unwrap_or_default();
        assert!(waiting.iter().filter(|key| !claimed.contains(key)).all(|key| ready(key) >= last), "oldest first");
        for row in &claim.rows {
            let twin = self.twins.get_mut(&row.key).expect("a delivery we know");
            assert_eq!(twin.head.status, Status::Pending, "{} was picked up twice", row.key);
            assert_eq!(row.ready_at, twin.ready_at);
            twin.head.status = Status::Processing;
            twin.head.attempt += 1;
            assert_eq!(format!("{:?}", row.head), format!("{:?}", twin.head));
        }
        if !dies {
            let ready = load(&hub, claim).await;
            assert_eq!((ready.held.len(), ready.given_back.len()), (claimed.len(), 0), "what is mine may be called");
            self.held.extend(ready.held);
            if self.on_unknown == OnUnknown::Hold {
                for key in &claimed {
                    let twin = self.twins.get_mut(key).expect("a delivery we know");
                    twin.attempts.insert(twin.head.attempt, (OutcomeKind::InFlight, false));
                }
            }
        }
        claimed
    }

    /// What the provider answers, or why it is not asked.
    async fn call(&mut self, held: HeldDelivery, answer: Result<Answer, Outcome>) -> DeliveryKey {
        let (key, head) = (held.key(), held.claimed.head);
        let outcome = if head.expires_at.is_some_and(|at| at <= self.now()) {
            Outcome::Expired
        } else if head.cancel_requested {
            Outcome::Canceled
        } else {
            answer.clone().map_or_else(|why| why, Answer::outcome)
        };
        let steps = (self.step(&head, &outcome, 0.0), self.step(&head, &outcome, 1.0));
        let hub = match answer {
            Ok(_) => &self.app.hub,
            Err(Outcome::Released) => &self.stopping,
            Err(_) => &self.slow,
        };
        *self.provider.next.lock().expect("no panic in there") = answer.unwrap_or(Answer::Accepted);
        let settle = crate::support::app::call_one(hub, held).await;
        assert_eq!(settle.ended_attempt.as_ref().map(|tried| tried.outcome), Some(outcome.kind()));
        assert_eq!(settle.step.status, steps.0.status);
        self.known.push(Known { settle, steps });
        key
    }

    async fn settle(&mut self, batch: Vec<Settle>) -> Vec<DeliveryKey> {
        settle(&self.app.hub, &batch).await.expect("a settle");
        for one in &batch {
            let attempt = one.head.attempt;
            let twin = self.twins.get_mut(&one.key).expect("a delivery we know");
            let same = |k: &&Known| (k.settle.key, k.settle.head.attempt) == (one.key, attempt);
            let steps = &self.known.iter().find(same).expect("something known").steps;
            if twin.settle(one, steps) {
                let head = twin.head;
                if head.cancel_requested && matches!(head.status, Status::Scheduled | Status::Pending) {
                    // The wish came during the call.
                    let step = self.step(&head, &Outcome::Canceled, 0.0);
                    self.twins.get_mut(&one.key).expect("a delivery we know").take(&step, &step);
                }
            } else {
                twin.late(attempt, one.ended_attempt.as_ref().expect("an attempt").outcome);
            }
            suspect::forget(&self.app.hub, (one.key.shard, one.key.message_id)).await.expect("a look");
        }
        batch.iter().map(|one| one.key).collect()
    }

    async fn lease_over(&mut self, key: DeliveryKey) {
        // The lease runs by the database's clock, which no test can move.
        sqlx::query(
            "update deliveries set lease_until = clock_timestamp() - interval '1 second' where message_id = \
            $1 and no = $2",
        )
        .bind(key.message_id.0)
        .bind(key.no)
        .execute(&self.db)
        .await
        .expect("the lease ends");
        let deaths = "select deaths from suspects where message_id = $1 and no = $2";
        let deaths = sqlx::query_scalar(deaths).bind(key.message_id.0).bind(key.no);
        let deaths: i16 = deaths.fetch_optional(&self.db).await.expect("a look").unwrap_or(0);
        let reaped = reap(&self.app.hub, &mut Reaper::default(), &[key.shard]).await.expect("a reap");
        assert_eq!(reaped, 1);
        let now = self.now();
        let twin = self.twins.get_mut(&key).expect("a delivery we know");
        let on_record = twin.attempts.get(&twin.head.attempt).is_some_and(|row| row.0 == OutcomeKind::InFlight);
        let begun = match self.on_unknown {
            _ if on_record => BeginRecord::Present,
            OnUnknown::Retry => BeginRecord::NotKept,
            OnUnknown::Lookup | OnUnknown::Hold => BeginRecord::Absent,
        };
        let (outcome, step) = transition_after_lost_worker(&twin.head, begun, deaths + 1, self.on_unknown, now);
        twin.apart = step.ready_at.is_some();
        twin.take(&step, &step);
        twin.ready_within = None;
        twin.attempts.insert(twin.head.attempt, (outcome.kind(), false));
        twin.guessed.insert(twin.head.attempt);
        twin.look();
    }

    /// Among all that wait apart, one that may be claimed by now; by a worker that calls it at once.
    async fn alone(&mut self, answer: Answer) -> Vec<DeliveryKey> {
        let (now, shard) = (self.now(), self.app.partner.shard);
        *self.provider.next.lock().expect("no panic in there") = answer;
        let settles = suspect::call_next(&self.app.hub, self.workers[0], &[shard], &self.app.hub.providers.channels())
            .await
            .expect("a claim");
        let mut due = self.in_status(Status::Scheduled);
        due.retain(|key| self.twins[key].apart && self.twins[key].ready_at <= now);
        let Some(mut settles) = settles else {
            assert!(due.is_empty(), "{due:?} wait apart");
            return Vec::new();
        };
        let settle = settles.pop().filter(|s| settles.is_empty() && due.contains(&s.key)).expect("one of those");
        let key = settle.key;
        let twin = self.twins.get_mut(&key).expect("a delivery we know");
        twin.head.status = Status::Processing;
        twin.head.attempt += 1;
        let head = twin.head;
        if self.on_unknown == OnUnknown::Hold {
            twin.attempts.insert(head.attempt, (OutcomeKind::InFlight, false));
        }
        let outcome = match head.expires_at {
            Some(at) if at <= now => Outcome::Expired,
            _ if head.cancel_requested => Outcome::Canceled,
            _ => answer.outcome(),
        };
        assert_eq!(settle.ended_attempt.as_ref().map(|tried| tried.outcome), Some(outcome.kind()));
        let steps = (self.step(&head, &outcome, 0.0), self.step(&head, &outcome, 1.0));
        self.known.push(Known { settle, steps });
        vec![key]
    }

    async fn promote(&mut self) -> Vec<DeliveryKey> {
        let now = self.now();
        let shard = self.app.partner.shard;
        let promoted = promote(&self.app.hub, &mut Promoter::default(), &[shard]).await.expect("a promotion");
        let mut due = self.in_status(Status::Scheduled);
        due.retain(|key| self.twins[key].ready_at <= now && !self.twins[key].apart);
        assert_eq!(promoted, due.len());
        for key in &due {
            let twin = self.twins.get_mut(key).expect("a delivery we know");
            twin.head.status = Status::Pending;
            twin.ready_at = now;
        }
        due
    }

    async fn cancel(&mut self, message_id: Tsid) -> Vec<DeliveryKey> {
        self.app.post(&format!("/v1/messages/{message_id}/cancel"), json!({})).await.expect(200);
        let keys = self.of_message(message_id);
        for key in &keys {
            let head = self.twins[key].head;
            let step = self.step(&head, &Outcome::Canceled, 0.0);
            let twin = self.twins.get_mut(key).expect("a delivery we know");
            match head.status {
                Status::Processing => twin.head.cancel_requested = true,
                Status::Scheduled | Status::Pending => twin.take(&step, &step),
                _ => (),
            }
        }
        keys
    }

    async fn sweep(&mut self) -> Vec<DeliveryKey> {
        let swept = sweep(&self.app.hub, &mut Sweeper::default()).await.expect("a sweep");
        let mut worthless = self.in_status(Status::Pending);
        worthless.retain(|key| self.twins[key].head.expires_at.is_some_and(|at| at <= self.now()));
        assert_eq!(swept, worthless.len());
        for key in &worthless {
            let step = self.step(&self.twins[key].head, &Outcome::Expired, 0.0);
            self.twins.get_mut(key).expect("a delivery we know").take(&step, &step);
        }
        worthless
    }

    /// Every head, and the attempts and events of what was touched, are as the reference has them; no invariant is
    /// broken; and what the provider knows does not contradict what we say.
    async fn compare(&mut self, touched: &[DeliveryKey]) {
        let list = self.app.get("/v1/deliveries?limit=200").await.expect(200).body;
        let mut seen = BTreeMap::new();
        for row in list["items"].as_array().expect("a list") {
            let (message_id, no) = row["deliveryId"].as_str().and_then(parse_public_id).expect("an id");
            seen.insert((message_id, no), row.clone());
        }
        // Of earlier walks there may be more, all of them ended.
        let ended = |row: &Value| row["status"].as_str().and_then(|s| s.parse().ok()).is_some_and(Status::is_settled);
        let mine =
            |(message_id, no): &(Tsid, i16)| self.twins.keys().any(|k| (k.message_id, k.no) == (*message_id, *no));
        assert!(seen.iter().all(|(id, row)| mine(id) || ended(row)), "what ended has not come back");
        for (key, twin) in &mut self.twins {
            if twin.seen != twin.head.status {
                *self.seen.entry((twin.seen, twin.head.status)).or_default() += 1;
                twin.seen = twin.head.status;
            }
            let row = &seen[&(key.message_id, key.no)];
            twin.compare_head(*key, row);
        }
        let touched: BTreeSet<Tsid> = touched.iter().map(|key| key.message_id).collect();
        for message_id in touched {
            self.compare_message(message_id).await;
        }
        let ledger = self.provider.ledger.lock().expect("no panic in there").clone();
        let calls: BTreeSet<(DeliveryKey, i16)> = ledger.iter().map(|(key, attempt, _)| (*key, *attempt)).collect();
        assert_eq!(calls.len(), ledger.len(), "an attempt is one call at most: {ledger:?}");
        for (key, attempt, answer) in &ledger {
            let twin = &self.twins[key];
            assert!(*attempt <= twin.head.attempt, "{key}: call {attempt} of {}", twin.head.attempt);
            let denied = matches!(twin.head.status, Status::Failed | Status::Expired | Status::Canceled);
            assert!(!(answer.taken() && denied), "{key} is {}, but attempt {attempt} was taken", twin.head.status);
        }
        if self.on_unknown == OnUnknown::Hold {
            let taken: Vec<DeliveryKey> = ledger.iter().filter(|call| call.2.taken()).map(|call| call.0).collect();
            let once: BTreeSet<DeliveryKey> = taken.iter().copied().collect();
            assert_eq!(taken.len(), once.len(), "a second copy where unknown outcomes are held: {ledger:?}");
        }
        let checked = check_everything(&mut self.auditor, self.app.hub.clock.now(), |_| ()).await.expect("fsck");
        for Checked { law, violations, .. } in checked {
            assert_eq!(violations.rows, 0, "not so: {law}: {:#?}", violations.findings);
        }
    }

    async fn compare_message(&self, message_id: Tsid) {
        let message = self.app.message(&message_id.to_string()).await;
        let timeline = self.app.get(&format!("/v1/messages/{message_id}/timeline")).await.expect(200).body;
        for row in message["deliveries"].as_array().expect("deliveries") {
            let id = row["deliveryId"].as_str().expect("an id");
            let (message_id, no) = parse_public_id(id).expect("an id");
            let twin = &self.twins[&DeliveryKey { shard: self.app.partner.shard, message_id, no }];
            let attempts: Vec<Value> = row["attempts"]
                .as_array()
                .expect("attempts")
                .iter()
                .map(|a| json!([a["attempt"], a["outcome"], a["late"]]))
                .collect();
            let expected: Vec<Value> =
                twin.attempts.iter().map(|(n, (outcome, late))| json!([n, outcome.as_str(), late])).collect();
            assert_eq!(attempts, expected, "attempts of {id}: {twin:#?}");
            let reported = timeline["items"].as_array().expect("a timeline").iter();
            let reported = reported.filter(|entry| entry["what"] == "event" && entry["deliveryId"] == id);
            let reported: Vec<&str> = reported
                .filter_map(|entry| entry["detail"].as_str())
                .map(|detail| detail.split_once(':').map_or(detail, |(event, _)| event))
                .collect();
            let expected: Vec<&str> =
                twin.events.iter().filter_map(|status| status.event_kind()).map(|event| event.as_str()).collect();
            assert_eq!(reported, expected, "events of {id}: {twin:#?}");
        }
    }

    /// L1, promise 2: once faults stop, everything accepted ends, within the attempts it has.
    async fn drain(&mut self) {
        self.held.clear();
        self.known.clear();
        for _ in 0..40 {
            for key in self.in_status(Status::Processing) {
                self.lease_over(key).await;
            }
            if self.twins.values().all(|twin| twin.head.status.is_settled()) {
                return;
            }
            // What lost its worker more than once pauses for longer.
            let apart = self.twins.values().filter(|twin| twin.head.status == Status::Scheduled && twin.apart);
            let wait = apart.map(|twin| (twin.ready_at - self.now()).num_seconds() + 1).max().unwrap_or(0);
            self.app.advance(wait.max(5));
            while !self.alone(Answer::Accepted).await.is_empty() {}
            self.promote().await;
            self.claim(self.workers[0], 100, false).await;
            for held in std::mem::take(&mut self.held) {
                self.call(held, Ok(Answer::Accepted)).await;
            }
            self.act(&Op::SettleAll).await;
            let everything: Vec<DeliveryKey> = self.twins.keys().copied().collect();
            self.compare(&everything).await;
        }
        panic!("not everything ends: {:#?}", self.twins);
    }

    async fn done(self) -> Seen {
        for hub in [self.slow, self.stopping] {
            hub.shutdown.stop();
            assert!(hub.shutdown.drained(Duration::from_secs(20)).await, "tasks are left behind");
        }
        self.db.close().await;
        drop(self.auditor);
        self.app.done().await;
        self.seen
    }
}

impl Twin {
    fn compare_head(&mut self, key: DeliveryKey, row: &Value) {
        let DeliveryFacts { status, attempt, max_attempts, possibly_sent, cancel_requested, .. } = self.head;
        let seen = json!([
            row["status"],
            row["attempt"],
            row["maxAttempts"],
            row["possiblySent"],
            row["cancelRequested"],
            row["reason"]
        ]);
        let reason = &self.reason;
        let expected = json!([status.as_str(), attempt, max_attempts, possibly_sent, cancel_requested, reason]);
        assert_eq!(seen, expected, "{key}: {self:#?}");
        let next_at: Option<DateTime<Utc>> = row["nextAt"].as_str().map(|at| at.parse().expect("a time"));
        if let (Some(at), Some((from, to))) = (next_at, self.ready_within.take()) {
            assert!(from <= at && at <= to + TimeDelta::microseconds(1), "{key}: {from} <= {at} <= {to}");
            self.ready_at = at;
        }
        let shown = status == Status::Scheduled && !self.apart;
        assert_eq!(next_at, shown.then_some(self.ready_at), "{key}: {self:#?}");
    }
}

/// Says which changes of a head the walks came to.
fn walks(on_unknown: OnUnknown) -> Seen {
    let mut config = Config { failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 16;
    }
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(3);
    }
    let seed = config.rng_seed;
    // Good for the next walk. One that fails takes all it had with it: tasks, connections, database.
    let ground: RefCell<Option<(Runtime, Walk)>> = RefCell::default();
    let ran = TestRunner::new(config).run(&throws(), |throws| {
        let (runtime, mut walk) = ground.take().unwrap_or_else(|| {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
            let walk = runtime.block_on(Walk::new(on_unknown));
            (runtime, walk)
        });
        runtime.block_on(walk.run(&throws));
        ground.replace(Some((runtime, walk)));
        Ok(())
    });
    if let Err(failure) = ran {
        panic!("seed {seed}: {failure}");
    }
    let (runtime, walk) = ground.take().expect("a walk");
    let seen = runtime.block_on(walk.done());
    report(&format!("{on_unknown:?}: {seen:?}"));
    seen
}

#[expect(clippy::print_stderr, reason = "seen with --nocapture, and when something fails")]
fn report(line: &str) {
    eprintln!("{line}");
}

#[track_caller]
fn assert_walked(seen: &Seen, changes: &[(Status, Status)]) {
    let missing: Vec<_> = changes.iter().filter(|change| !seen.contains_key(change)).collect();
    assert!(missing.is_empty(), "the walks never came to {missing:?}");
}

/// The invariants I2..I10, I12, I14, I15 and L1; S3-11, S3-36, S3-45: where unknown outcomes are tried again, no order
/// of accepting, claiming, calling, settling (late, twice, in batches), crashing, reaping, promoting, canceling and
/// expiring makes a head other than the law says, and fsck finds nothing after any step.
#[test]
fn walk_with_unknown_outcomes_retried_keeps_the_invariants() {
    use Status::*;
    let seen = walks(OnUnknown::Retry);
    assert_walked(&seen, &[(Processing, Sent), (Processing, Scheduled), (Processing, Pending), (Processing, Failed)]);
    assert_walked(&seen, &[(Pending, Canceled), (Pending, Expired), (Processing, Undetermined), (Scheduled, Sent)]);
    assert_walked(&seen, &[(Scheduled, Processing)]);
}

/// The same where unknown outcomes are held: the beginning of a call is on record, and no recipient ever gets two
/// copies.
#[test]
fn walk_with_unknown_outcomes_held_keeps_the_invariants() {
    use Status::*;
    let seen = walks(OnUnknown::Hold);
    assert_walked(&seen, &[(Processing, Sent), (Processing, Scheduled), (Scheduled, Processing), (Processing, Failed)]);
    assert_walked(&seen, &[(Pending, Canceled), (Pending, Expired), (Processing, Undetermined), (Undetermined, Sent)]);
}
