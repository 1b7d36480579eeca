//! Scenarios of webhooks: their latency and cost, the isolation of an endpoint that never answers, and redrives next to
//! new messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::process;
use super::endpoint::{self, Endpoint, EndpointBehavior, Waits};
use super::load::{self, Load};
use super::report::Goal;
use super::run::{Run, drained, fill, load_of, settled};
use super::testbed::{self, Testbed};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::redrive::RedriveOrder;
use crate::model::access::principal::Actor;
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::event::EventKind;
use crate::model::redrive::{JobFilter, RedriveKind};
use crate::store;
use crate::store::redrive::RedriveJob;
use crate::worker::{self, Role};

/// The events of a message with one delivery: accepted, sent, completed.
const EVENTS: u64 = 3;
/// The longest wait for events.
const PATIENCE: Duration = Duration::from_secs(600);

/// Measures the latency, throughput and cost of webhooks.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn webhook(run: &mut Run<'_>) -> Result<()> {
    run.name = "webhook";
    one_by_one(run).await?;
    all_at_once(run).await?;
    cost_of_webhooks(run).await
}

/// A testbed whose hub sends webhooks, also to this machine.
async fn bed_with_webhooks(run: &Run<'_>, shards: Option<i16>) -> Result<Testbed> {
    let mut settings = endpoint::reachable(run.settings);
    settings.database.shards = shards.unwrap_or(settings.database.shards);
    let providers = process::providers(&settings, &Clock::system(), &crate::shutdown::Shutdown::new())?;
    let further = providers.for_channel(Channel::Webhook).iter().map(|a| a.provider.clone()).collect();
    Testbed::start_with(&settings, run.ground, further).await
}

/// An endpoint of the testbed's partner, which answers at once.
async fn prompt_endpoint(bed: &Testbed, events: Option<&[EventKind]>) -> Result<Endpoint> {
    let endpoint = Endpoint::start(EndpointBehavior::Prompt, bed.hub.clock.clone(), &bed.hub.shutdown).await?;
    endpoint.register(&bed.api, &bed.credentials, events, false).await?;
    Ok(endpoint)
}

async fn wait_until(what: &str, mut so: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !so().await? {
        if began.elapsed() > PATIENCE {
            return Err(Error::Internal(format!("never: {what}")));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

async fn all_arrived(endpoint: &Endpoint, events: u64) -> Result<()> {
    wait_until("all events arrive", async || Ok(endpoint.events() >= events)).await
}

/// The wait at this quantile, in milliseconds.
fn ms(waits: &mut Waits, q: f64) -> f64 {
    waits.sort_unstable();
    let at = ((waits.len().max(1) - 1) as f64 * q) as usize;
    waits.get(at).copied().unwrap_or(0) as f64 / 1000.0
}

/// Measures the latency of each event at 20 messages a second.
async fn one_by_one(run: &mut Run<'_>) -> Result<()> {
    let bed = bed_with_webhooks(run, None).await?;
    let endpoint = prompt_endpoint(&bed, None).await?;
    worker::start(&bed.hub, Role::Both);
    let warm = load::spawn(&Load { rate: 20, ..load_of(&bed, 1, 2) }).await?;
    all_arrived(&endpoint, warm.accepted * EVENTS).await?;
    endpoint.take_waits();
    run.say(&format!("20 messages a second for {} s, one process", run.sizes.seconds));
    let report = load::spawn(&Load { rate: 20, ..load_of(&bed, 1, run.sizes.seconds) }).await?;
    all_arrived(&endpoint, (warm.accepted + report.accepted) * EVENTS).await?;
    let mut waits: BTreeMap<String, Waits> = endpoint.take_waits();
    for (event, waits) in &mut waits {
        let name = if event == endpoint::WHOLE { event.clone() } else { format!("{event}: happened → received") };
        run.figure(format!("{name}, p50"), ms(waits, 0.5), "ms");
        run.figure(format!("{name}, p99"), ms(waits, 0.99), "ms");
    }
    run.clear(bed).await
}

/// Measures events a second, from many messages until the last event arrived.
async fn all_at_once(run: &mut Run<'_>) -> Result<()> {
    let bed = bed_with_webhooks(run, None).await?;
    let endpoint = prompt_endpoint(&bed, None).await?;
    worker::start(&bed.hub, Role::Both);
    run.say(&format!("{} messages in batches of 50", run.sizes.webhook_messages));
    let load = Load { batch: 50, messages: run.sizes.webhook_messages, ..load_of(&bed, 4, PATIENCE.as_secs()) };
    let (before, began) = (bed.cost().await?, Instant::now());
    let report = load::spawn(&load).await?;
    all_arrived(&endpoint, report.accepted * EVENTS).await?;
    let took = began.elapsed().as_secs_f64();
    let after = bed.cost().await?;
    let events = endpoint.events();
    run.figure("events, from the first POST to the last received", events as f64 / took, "/s");
    run.figure("requests for each event", endpoint.calls() as f64 / events.max(1) as f64, "×");
    run.cost(&before, &after, (report.accepted + events) as f64);
    run.clear(bed).await
}

/// Measures intake and drain of a partner without an endpoint, and of one whose endpoint subscribes to all events.
async fn cost_of_webhooks(run: &mut Run<'_>) -> Result<()> {
    for with_webhooks in [false, true] {
        let whose = if with_webhooks { "with an endpoint" } else { "without an endpoint" };
        let bed = bed_with_webhooks(run, None).await?;
        if with_webhooks {
            prompt_endpoint(&bed, None).await?;
        }
        run.say(&format!("intake {whose}, 16 connections for {} s", run.sizes.seconds));
        let report = load::spawn(&load_of(&bed, 16, run.sizes.seconds)).await?;
        run.figure(
            format!("accepted {whose}, 16 connections, no worker"),
            report.accepted as f64 / report.seconds,
            "/s",
        );
        run.clear(bed).await?;

        let bed = bed_with_webhooks(run, None).await?;
        if with_webhooks {
            prompt_endpoint(&bed, None).await?;
        }
        fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
        let rate = drained(run, &bed, run.sizes.deliveries).await?;
        run.rate(format!("drained {whose}, what it hears sent beside"), rate, None);
        run.clear(bed).await?;
    }
    Ok(())
}

/// The number of rounds with and without the tarpit, in turns, so that other load on the machine affects both.
const ROUNDS: usize = 3;
const WAITING: u64 = 1_000;

/// Measures the waits of an endpoint that answers at once, with and without another partner's endpoint that never
/// answers and has a thousand events waiting.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn tarpit(run: &mut Run<'_>) -> Result<()> {
    run.name = "tarpit";
    let (mut alone, mut beside) = (Waits::new(), Waits::new());
    for round in 1..=ROUNDS {
        run.say(&format!(
            "round {round} of {ROUNDS}: 50 events a second for {} s, alone, then beside",
            run.sizes.seconds
        ));
        alone.extend(other_endpoint(run, false).await?);
        beside.extend(other_endpoint(run, true).await?);
    }
    let (p99_alone, p99_beside) = (ms(&mut alone, 0.99), ms(&mut beside, 0.99));
    run.figure("alone, happened → received p50", ms(&mut alone, 0.5), "ms");
    run.figure("beside the tarpit, happened → received p50", ms(&mut beside, 0.5), "ms");
    run.figure("alone, happened → received p99", p99_alone, "ms");
    run.figure("beside the tarpit, happened → received p99", p99_beside, "ms");
    run.goal("p99 beside the tarpit, of alone", p99_beside / p99_alone, "×", Goal::AtMost(1.1));
    Ok(())
}

/// Measures the waits of the endpoint that answers at once.
async fn other_endpoint(run: &mut Run<'_>, beside: bool) -> Result<Waits> {
    // One shard, so that both use the same lanes.
    let bed = bed_with_webhooks(run, Some(1)).await?;
    let sent = Some([EventKind::Sent].as_slice());
    let endpoint = prompt_endpoint(&bed, sent).await?;
    worker::start(&bed.hub, Role::Both);
    let (_, slow) = testbed::posting_partner(&bed.hub, "tarpit").await?;
    let tarpit = Endpoint::start(EndpointBehavior::Never, bed.hub.clock.clone(), &bed.hub.shutdown).await?;
    if beside {
        tarpit.register(&bed.api, &slow, sent, false).await?;
    }
    // Both rounds post the same messages; only the endpoint differs.
    let token = testbed::sign_in(&bed.hub, &slow).await?;
    load::spawn(&Load { token, batch: 50, messages: WAITING, ..load_of(&bed, 1, PATIENCE.as_secs()) }).await?;
    wait_until("the tarpit's messages are sent", async || Ok(settled(&bed) >= WAITING)).await?;
    let warm = load::spawn(&Load { rate: 50, ..load_of(&bed, 1, 2) }).await?;
    all_arrived(&endpoint, warm.accepted).await?;
    endpoint.take_waits();
    let report = load::spawn(&Load { rate: 50, ..load_of(&bed, 1, run.sizes.seconds) }).await?;
    all_arrived(&endpoint, warm.accepted + report.accepted).await?;
    if beside {
        run.figure("requests the tarpit took", tarpit.calls() as f64, "");
        let waiting = WAITING.saturating_sub(tarpit.calls());
        run.goal("of its events, not yet asked for at the end", waiting as f64, "", Goal::AtLeast(500.0));
    }
    let waits = endpoint.take_waits().remove(EventKind::Sent.as_str()).unwrap_or_default();
    run.clear(bed).await?;
    Ok(waits)
}

/// The rate of the redrive, and the rate of new messages, each a second.
const REDRIVE_RATE: i32 = 2_000;
const LIVE_RATE: u64 = 100;

/// The length of the turns in which new messages are measured with and without the redrive, so that other load on the
/// machine affects both.
const TURN: Duration = Duration::from_secs(5);
/// Turns of each kind at most: of a million dead letters, the rest teaches nothing more.
const TURNS: usize = 10;

/// Measures the waits of new messages with and without a redrive of dead letters of the same partner.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn redrive(run: &mut Run<'_>) -> Result<()> {
    run.name = "redrive";
    let bed = Testbed::start(run.settings, run.ground).await?;
    fill(run, &bed, Status::Failed, run.sizes.rows.unwrap_or(100_000)).await?;
    worker::start(&bed.hub, Role::Both);
    let live = Load { rate: LIVE_RATE, ..load_of(&bed, 4, TURN.as_secs()) };
    load::spawn(&live).await?;
    let mut alone = bed.take_waits();
    alone.reset();
    let mut beside = alone.clone();
    let (mut done, mut took) = (0, 0.0);
    let dead = async || store::bench::count_with_status(bed.hub.store.api(), Status::Failed).await;
    run.say(&format!(
        "{LIVE_RATE} messages a second, {} s alone and {} s beside, in turns",
        TURN.as_secs(),
        TURN.as_secs()
    ));
    for _ in 0..TURNS {
        if dead().await? == 0 {
            break;
        }
        load::spawn(&live).await?;
        alone += bed.take_waits();
        let job = begin(&bed).await?;
        load::spawn(&live).await?;
        beside += bed.take_waits();
        let job = ended(&bed, job).await?;
        done += job.done;
        took += job.finished_at.map_or(0.0, |at| (at - job.created_at).as_seconds_f64());
        wait_until("what is redriven is sent", async || {
            Ok(store::bench::count_with_status(bed.hub.store.api(), Status::Pending).await? == 0)
        })
        .await?;
        bed.take_waits();
    }
    run.goal("redriven", done as f64 / took, "/s", Goal::AtLeast(f64::from(REDRIVE_RATE) * 0.95));
    let ms = |waits: &hdrhistogram::Histogram<u64>, q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("live alone, accepted → called p50", ms(&alone, 0.5), "ms");
    run.figure("live beside it, accepted → called p50", ms(&beside, 0.5), "ms");
    run.figure("live alone, accepted → called p99", ms(&alone, 0.99), "ms");
    run.figure("live beside it, accepted → called p99", ms(&beside, 0.99), "ms");
    run.goal("p99 beside the redrive, of alone", ms(&beside, 0.99) / ms(&alone, 0.99), "×", Goal::AtMost(1.2));
    run.clear(bed).await
}

async fn begin(bed: &Testbed) -> Result<RedriveJob> {
    let actor = Actor::local_admin("bench".into());
    let filter = JobFilter {
        channel: None,
        provider: None,
        error: None,
        status: Some(Status::Failed),
        events: None,
        since: None,
        until: bed.hub.clock.now(),
    };
    let order = RedriveOrder {
        kind: RedriveKind::Redrive,
        partner_id: Some(bed.partner.partner_id),
        endpoint_id: None,
        filter,
        rate_per_second: REDRIVE_RATE,
    };
    Ok(flow::redrive::begin(&bed.hub, actor.operator_permit()?, order).await?.0)
}

/// Stops a job, unless it has ended.
async fn ended(bed: &Testbed, job: RedriveJob) -> Result<RedriveJob> {
    let actor = Actor::local_admin("bench".into());
    flow::redrive::cancel(&bed.hub, &actor, None, job.redrive_id).await
}
