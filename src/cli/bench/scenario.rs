//! The scenarios (engine.md §5). Each makes its bed, runs, tells its figures, and clears the bed with `fsck`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::super::{Output, print};
use super::bed::{self, Bed, Cost, Ground, memory_mb};
use super::drainer;
use super::floor;
use super::load::{self, Load, Told};
use super::report::{Figure, Goal, number, table, tell};
use super::{Scenario, Sizes};
use super::{hang, webhook};
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::flow::intake::accept::accept;
use crate::flow::partner::Change;
use crate::hub::Hub;
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::lane::{Lane, Priority};
use crate::model::partner::Partner;
use crate::store::bench::{self, Fill};
use crate::store::partner;
use crate::worker::{self, Role};

/// What a scenario has at hand.
pub(super) struct Run<'a> {
    pub name: &'static str,
    pub settings: &'a Settings,
    pub sizes: &'a Sizes,
    pub ground: &'a Ground,
    output: Output,
    figures: Vec<Figure>,
}

impl Run<'_> {
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(Figure::new(self.name, name, value, unit));
    }

    fn add(&mut self, figure: Figure) {
        tell(&figure, self.output);
        self.figures.push(figure);
    }

    pub fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.add(Figure::new(self.name, name, value, unit).goal(goal));
    }

    /// A line of progress, on standard error so that figures stay alone on standard output.
    pub fn say(&self, text: &str) {
        anstream::eprintln!("{} {text}", print::paint(print::DIM, self.name));
    }

    pub async fn clear(&mut self, bed: Bed) -> Result<()> {
        self.say("fsck");
        let findings = bed.clear().await?;
        self.goal("fsck findings", findings as f64, "rows", Goal::AtMost(0.0));
        Ok(())
    }

    /// At the end of a scenario: a later one that fails must not take its figures along.
    fn told(&mut self) {
        if self.output == Output::Text {
            table(&self.figures);
        }
        self.figures.clear();
    }

    /// A rate and how it went.
    pub fn rate(&mut self, name: impl Into<String>, (value, per_second): (f64, Vec<f64>), goal: Option<Goal>) {
        let mut figure = Figure::new(self.name, name, value, "/s").over_time(per_second);
        figure.goal = goal;
        self.add(figure);
    }

    /// What was spent between two moments, per delivery.
    pub fn cost(&mut self, from: &Cost, to: &Cost, deliveries: f64) {
        let wall = (to.at - from.at).as_secs_f64();
        self.figure("CPU of the hub", (to.ours_cpu_s - from.ours_cpu_s) / wall * 100.0, "% of one");
        if let (Some(before), Some(after)) = (from.pg_cpu_s, to.pg_cpu_s) {
            self.figure("CPU of PostgreSQL", (after - before) / wall * 100.0, "% of one");
        }
        self.figure("WAL per delivery in this window", (to.wal_bytes - from.wal_bytes) / deliveries, "bytes");
        self.figure("dead rows afterwards", to.dead_rows as f64, "rows");
    }
}

pub async fn run(which: &Scenario, settings: &Settings, sizes: &Sizes, ground: &Ground, output: Output) -> Result<()> {
    let mut run = Run { name: "", settings, sizes, ground, output, figures: Vec::new() };
    let all = *which == Scenario::All;
    let is = |scenario: Scenario| all || *which == scenario;
    if is(Scenario::Idle) {
        idle(&mut run).await?;
        run.told();
    }
    if is(Scenario::Intake) {
        intake(&mut run).await?;
        run.told();
    }
    if is(Scenario::IntakeBatch) {
        intake_batch(&mut run).await?;
        run.told();
    }
    if is(Scenario::Drain) {
        drain(&mut run).await?;
        run.told();
    }
    if is(Scenario::Latency) {
        latency(&mut run).await?;
        run.told();
    }
    if is(Scenario::Steady) {
        steady(&mut run).await?;
        run.told();
    }
    if is(Scenario::History) {
        beside(&mut run, "history", Status::Sent, 1_000_000).await?;
        run.told();
    }
    if is(Scenario::Backlog) {
        backlog(&mut run).await?;
        run.told();
    }
    if is(Scenario::Delayed) {
        beside(&mut run, "delayed", Status::Scheduled, 1_000_000).await?;
        run.told();
    }
    if is(Scenario::Pinned) {
        pinned(&mut run).await?;
        run.told();
    }
    if is(Scenario::Flood) {
        flood(&mut run).await?;
        run.told();
    }
    if is(Scenario::Limit) {
        limit(&mut run).await?;
        run.told();
    }
    if is(Scenario::Webhook) {
        webhook::webhook(&mut run).await?;
        run.told();
    }
    if is(Scenario::Tarpit) {
        webhook::tarpit(&mut run).await?;
        run.told();
    }
    if is(Scenario::Hang) {
        hang::hang(&mut run).await?;
        run.told();
    }
    if is(Scenario::Redrive) {
        webhook::redrive(&mut run).await?;
        run.told();
    }
    Ok(())
}

pub(super) fn load_of(bed: &Bed, connections: u32, seconds: u64) -> Load {
    let (address, kind, priority) = (bed.api.clone(), "ORDER_COMPLETED".into(), "NORMAL".into());
    Load { address, connections, seconds, batch: 1, rate: 0, messages: 0, kind, priority, token: bed.token.clone() }
}

async fn idle(run: &mut Run<'_>) -> Result<()> {
    run.name = "idle";
    let bed = Bed::make(run.settings, run.ground).await?;
    worker::start(&bed.hub, Role::Both);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = bed.cost().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = bed.cost().await?;
    run.goal("memory of the process", memory_mb().0, "MB", Goal::AtMost(60.0));
    run.figure("CPU of the hub", (after.ours_cpu_s - before.ours_cpu_s) / 5.0 * 100.0, "% of one");
    if let (Some(a), Some(b)) = (after.pg_cpu_s, before.pg_cpu_s) {
        run.figure("CPU of PostgreSQL", (a - b) / 5.0 * 100.0, "% of one");
    }
    run.clear(bed).await
}

async fn intake(run: &mut Run<'_>) -> Result<()> {
    run.name = "intake";
    let bed = Bed::make(run.settings, run.ground).await?;
    let floor_16 = floor::single_inserts(&bed, 16, Duration::from_secs(5)).await?;
    run.figure("floor: bare SQL, one row per commit, 16 clients", floor_16, "/s");
    for connections in [1, 16, 64] {
        run.say(&format!("{connections} connections for {} s", run.sizes.seconds));
        let before = bed.cost().await?;
        let told = load::spawn(&load_of(&bed, connections, run.sizes.seconds)).await?;
        let after = bed.cost().await?;
        let rate = told.accepted as f64 / told.seconds;
        let name = format!("accepted, {connections} connections");
        match connections {
            64 => run.goal(name, rate, "/s", Goal::AtLeast(8_000.0)),
            // Four times graphile-worker's single enqueue on this kind of machine (1,250/s).
            16 => run.goal(name, rate, "/s", Goal::AtLeast(5_000.0)),
            _ => run.figure(name, rate, "/s"),
        }
        if connections == 16 {
            run.figure("of the floor", rate / floor_16, "×");
        }
        let p50 = told.p50_us as f64 / 1000.0;
        match connections {
            1 => run.goal("answer p50, 1 connection", p50, "ms", Goal::AtMost(10.0)),
            n => run.figure(format!("answer p50, {n} connections"), p50, "ms"),
        }
        run.figure(format!("answer p99, {connections} connections"), told.p99_us as f64 / 1000.0, "ms");
        run.goal(format!("not accepted, {connections} connections"), told.refused as f64, "", Goal::AtMost(0.0));
        if connections == 64 {
            run.cost(&before, &after, told.accepted as f64);
        }
    }
    run.clear(bed).await
}

/// One partner with the default limit, offered three times as much over two API processes.
async fn limit(run: &mut Run<'_>) -> Result<()> {
    run.name = "limit";
    let bed = Bed::make(run.settings, run.ground).await?;
    let (partner, token) = bed::partner(&bed.hub, Change { name: Some("limited".into()), ..Change::default() }).await?;
    let limit = f64::from(partner.rate_limit_tps);
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr());
    let second = free.map_err(|e| Error::Setup(format!("no port is free on loopback: {e}")))?;
    let program = std::env::current_exe().map_err(|e| Error::Internal(format!("who am I: {e}")))?;
    let _second = tokio::process::Command::new(program)
        .args(["serve", "--log=error", "--database-url", &bed.database_url, &format!("--listen={second}")])
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::Setup(format!("the second API cannot start: {e}")))?;
    while tokio::net::TcpStream::connect(second).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Counted on a run that is under way: the first requests find their partner in no memory.
    let offered = (limit * 1.5) as u64;
    let one = Load { rate: offered, token, ..load_of(&bed, 8, run.sizes.seconds) };
    let two = Load { address: second.to_string(), ..one.clone() };
    run.say(&format!("2 API processes, each offered {offered}/s by one partner, for {} s", run.sizes.seconds));
    let (first, second) = tokio::join!(load::spawn(&one), load::spawn(&two));
    let (first, second) = (first?, second?);
    let passed = (first.accepted + second.accepted) as f64;
    let seconds = run.sizes.seconds as f64;
    run.figure("offered", (passed + (first.refused + second.refused) as f64) / seconds, "/s");
    run.figure("accepted", passed / seconds, "/s");
    run.figure("of them by the first process", first.accepted as f64 / passed * 100.0, "%");
    run.goal("off the limit", (passed / seconds / limit - 1.0).abs() * 100.0, "%", Goal::AtMost(2.0));
    run.clear(bed).await
}

async fn intake_batch(run: &mut Run<'_>) -> Result<()> {
    run.name = "intake-batch";
    let bed = Bed::make(run.settings, run.ground).await?;
    let load = Load { batch: 500, ..load_of(&bed, 4, run.sizes.seconds) };
    run.say(&format!("batches of 500, 4 connections for {} s", run.sizes.seconds));
    let before = bed.cost().await?;
    let told = load::spawn(&load).await?;
    let after = bed.cost().await?;
    run.goal("accepted", told.accepted as f64 / told.seconds, "/s", Goal::AtLeast(40_000.0));
    run.goal("not accepted", told.refused as f64, "", Goal::AtMost(0.0));
    run.cost(&before, &after, told.accepted as f64);
    run.clear(bed).await
}

/// Makes deliveries of this status, a hundred thousand at a time.
pub(super) async fn fill(run: &Run<'_>, bed: &Bed, status: Status, count: i64) -> Result<()> {
    const STEP: i64 = 100_000;
    let mut conn = bed.hub.store.unhurried().await?;
    let detail = serde_json::to_string(&floor::example().detail).map_err(|e| Error::Internal(e.to_string()))?;
    let lane = Lane::new(Channel::Email, Priority::Normal, false);
    let now = bed.hub.clock.now();
    let ready_at = if status == Status::Scheduled { now + chrono::TimeDelta::hours(6) } else { now };
    let kind = if status == Status::Failed { bed::FLOOD } else { "BENCH" };
    let mut made = 0;
    while made < count {
        let step = STEP.min(count - made);
        // Ids of one fill follow each other; the next fill begins at a later millisecond.
        let fill = Fill { first: bed.hub.next_id(), count: step, kind, lane, status, created_at: now, ready_at };
        bench::fill(&mut conn, &bed.partner, &fill, &detail).await?;
        made += step;
        if made % 1_000_000 == 0 || made == count {
            run.say(&format!("{} {status} made", number(made as f64)));
        }
    }
    bench::settle_tables(&bed.hub.store).await
}

/// Drains what is pending with this process's workers; deliveries a second, over time.
pub(super) async fn drained(run: &mut Run<'_>, bed: &Bed, count: i64) -> Result<Rate> {
    let (before, began) = (bed.cost().await?, Instant::now());
    let start = bed.calls();
    worker::start(&bed.hub, Role::Worker);
    let target = count.unsigned_abs();
    let mut series = Vec::new();
    let (mut last, mut next_tick) = (start, Instant::now() + Duration::from_secs(1));
    while settled(bed) < target {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if Instant::now() >= next_tick {
            let calls = bed.calls();
            series.push((calls - last) as f64);
            last = calls;
            next_tick += Duration::from_secs(1);
        }
        if began.elapsed() > Duration::from_secs(600) {
            return Err(Error::Internal(format!("{} of {target} settled after ten minutes", settled(bed))));
        }
    }
    let took = began.elapsed().as_secs_f64();
    let after = bed.cost().await?;
    run.say(&format!("calls in each second: {}", series.iter().map(|n| number(*n)).collect::<Vec<_>>().join(" ")));
    run.cost(&before, &after, count as f64);
    run.goal("memory at its highest", memory_mb().1, "MB", Goal::AtMost(200.0));
    Ok((count as f64 / took, series))
}

/// Deliveries a second, over all and in each second.
type Rate = (f64, Vec<f64>);

pub(super) fn settled(bed: &Bed) -> u64 {
    bed.hub.metrics.settled.with_label_values(&["EMAIL", "SENT"]).get()
}

async fn drain(run: &mut Run<'_>) -> Result<()> {
    run.name = "drain";
    let floor = floor_of_drain(run).await?;
    let drained = plain_drain(run).await?;
    run.figure("of the floor", drained.0 / floor, "×");
    run.rate("drained", drained, Some(Goal::AtLeast(40_000.0)));
    let bed = Bed::make(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let two = drainer::drain(&bed, 2, run.sizes.deliveries.unsigned_abs()).await?;
    run.figure("drained by two processes", two, "/s");
    run.clear(bed).await
}

async fn floor_of_drain(run: &mut Run<'_>) -> Result<f64> {
    let bed = Bed::make(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let floor = floor::claim_and_settle(&bed, run.sizes.deliveries).await?;
    run.figure("floor: bare claim and settle, 2 clients", floor, "/s");
    run.clear(bed).await?;
    Ok(floor)
}

async fn plain_drain(run: &mut Run<'_>) -> Result<Rate> {
    let bed = Bed::make(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let rate = drained(run, &bed, run.sizes.deliveries).await?;
    run.clear(bed).await?;
    Ok(rate)
}

/// `drain` with other rows lying beside.
async fn beside(run: &mut Run<'_>, name: &'static str, status: Status, default_rows: i64) -> Result<()> {
    let rows = run.sizes.rows.unwrap_or(default_rows);
    let deliveries = run.sizes.deliveries;
    against_alone(run, name, format!("drained beside {} {status}", number(rows as f64)), async |run, bed| {
        fill(run, bed, status, rows).await?;
        fill(run, bed, Status::Pending, deliveries).await?;
        Ok(deliveries)
    })
    .await
}

async fn backlog(run: &mut Run<'_>) -> Result<()> {
    let rows = run.sizes.rows.unwrap_or(2_000_000);
    against_alone(run, "backlog", format!("drained out of {}", number(rows as f64)), async |run, bed| {
        fill(run, bed, Status::Pending, rows).await?;
        Ok(rows)
    })
    .await
}

/// A drain on a bed that was prepared, against plain ones before and after it, in the same run: what the machine does
/// meanwhile weighs on both.
async fn against_alone(
    run: &mut Run<'_>,
    name: &'static str,
    what: String,
    prepare: impl AsyncFnOnce(&mut Run<'_>, &Bed) -> Result<i64>,
) -> Result<()> {
    run.name = name;
    let before = plain_drain(run).await?;
    let bed = Bed::make(run.settings, run.ground).await?;
    let pending = prepare(run, &bed).await?;
    let rate = drained(run, &bed, pending).await?;
    run.clear(bed).await?;
    let after = plain_drain(run).await?;
    let alone = f64::midpoint(before.0, after.0);
    run.goal("of drain alone", rate.0 / alone * 100.0, "%", Goal::AtLeast(95.0));
    run.rate("drained alone, before", before, None);
    run.rate(what, rate, None);
    run.rate("drained alone, after", after, None);
    Ok(())
}

async fn latency(run: &mut Run<'_>) -> Result<()> {
    run.name = "latency";
    let bed = Bed::make(run.settings, run.ground).await?;
    worker::start(&bed.hub, Role::Both);
    *bed.called.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(std::collections::HashMap::new());
    let (mut waits, seconds) = (Vec::new(), run.sizes.seconds);
    run.say(&format!("20 a second for {seconds} s, one process"));
    let client = super::super::client::Client::new(&super::super::client::Target::of(
        format!("http://{}", bed.api),
        &bed.credentials,
    ))?;
    let body = serde_json::json!({"type": "BENCH", "title": "t", "body": "b",
        "channels": [{"channel": "EMAIL", "to": "kim@example.com"}]});
    let mut tick = tokio::time::interval(Duration::from_millis(50));
    for _ in 0..seconds * 20 {
        tick.tick().await;
        let accepted = client.post("/v1/messages", &body).await?;
        let answered = Instant::now();
        let id = accepted["messageId"].as_str().and_then(|id| id.parse().ok()).unwrap_or(crate::id::Tsid(0));
        let called = loop {
            let found = {
                let mut called = bed.called.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                called.as_mut().and_then(|c| c.remove(&id))
            };
            match found {
                Some(at) => break at,
                None => tokio::time::sleep(Duration::from_micros(200)).await,
            }
        };
        // Called before the caller had read its answer counts as no wait.
        waits.push(called.saturating_duration_since(answered).as_secs_f64() * 1000.0);
    }
    waits.sort_by(f64::total_cmp);
    let at = |q: f64| waits[((waits.len() - 1) as f64 * q) as usize];
    run.goal("one process, p50", at(0.5), "ms", Goal::AtMost(1.0));
    run.goal("one process, p99", at(0.99), "ms", Goal::AtMost(5.0));
    let accepted_to_called = bed.take_waits();
    let ms = |q| accepted_to_called.value_at_quantile(q) as f64 / 1000.0;
    run.figure("request read → called, one process, p50", ms(0.5), "ms");
    run.clear(bed).await?;
    across(run).await
}

/// The worker in a process of its own, posting to a simulator in this one.
async fn across(run: &mut Run<'_>) -> Result<()> {
    use crate::provider::simulator::slack::SlackSimulator;
    let ground = crate::shutdown::Shutdown::new();
    let slack = SlackSimulator::start(0, &ground).await?;
    let mut settings = run.settings.clone();
    settings.slack.slack_destinations = vec![("ops".into(), slack.hook("ops"))];
    let providers = super::super::process::providers(&settings, &Clock::system(), &ground)?;
    let further = providers.of(Channel::Slack).iter().map(|a| a.provider.clone()).collect();
    let bed = Bed::with(&settings, run.ground, further).await?;
    worker::start(&bed.hub, Role::Api);
    let program = std::env::current_exe().map_err(|e| Error::Internal(e.to_string()))?;
    let mut child = tokio::process::Command::new(program)
        .args(["work", "--log", "error", "--email", "off", "--database-url", &bed.database_url])
        .args(["--slack-destination", &format!("ops={}", slack.hook("ops"))])
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::Setup(format!("a second process cannot start: {e}")))?;
    run.say("20 a second, a worker process of its own");
    let client = super::super::client::Client::new(&super::super::client::Target::of(
        format!("http://{}", bed.api),
        &bed.credentials,
    ))?;
    let body = serde_json::json!({"type": "BENCH", "body": "b", "channels": [{"channel": "SLACK", "to": "ops"}]});
    let (mut waits, mut tick) = (Vec::new(), tokio::time::interval(Duration::from_millis(50)));
    let warm_up = 40;
    for n in 0..warm_up + run.sizes.seconds * 20 {
        tick.tick().await;
        client.post("/v1/messages", &body).await?;
        let answered = Instant::now();
        while slack.taken() <= n {
            tokio::time::sleep(Duration::from_micros(200)).await;
            if answered.elapsed() > Duration::from_secs(20) {
                return Err(Error::Internal("the second process delivers nothing".into()));
            }
        }
        if n >= warm_up {
            waits.push(answered.elapsed().as_secs_f64() * 1000.0);
        }
    }
    waits.sort_by(f64::total_cmp);
    let at = |q: f64| waits[((waits.len() - 1) as f64 * q) as usize];
    run.goal("across processes, with the provider's HTTP, p50", at(0.5), "ms", Goal::AtMost(12.0));
    run.figure("across processes, with the provider's HTTP, p99", at(0.99), "ms");
    if let Some(pid) = child.id() {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap_or(0));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).map_err(|e| Error::Internal(e.to_string()))?;
    }
    let ended = child.wait().await.map_err(|e| Error::Internal(e.to_string()))?;
    run.goal("the worker's exit code", f64::from(ended.code().unwrap_or(-1)), "", Goal::AtMost(0.0));
    run.clear(bed).await?;
    ground.stop();
    Ok(())
}

/// Intake and drain together at a rate; what came of it.
async fn together(run: &Run<'_>, bed: &Bed, load: &Load, seconds: u64) -> Result<(Told, Vec<f64>)> {
    let mut series = Vec::new();
    let mut last = bed.calls();
    let spawned = load::spawn(load);
    let mut spawned = std::pin::pin!(spawned);
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let told = loop {
        tokio::select! {
            told = spawned.as_mut() => break told?,
            _ = tick.tick() => {
                let calls = bed.calls();
                series.push((calls - last) as f64);
                last = calls;
                if series.len() % 10 == 0 {
                    run.say(&format!("{} of {seconds} s, {}/s", series.len(), number(series[series.len() - 1])));
                }
            }
        }
    };
    Ok((told, series))
}

async fn steady(run: &mut Run<'_>) -> Result<()> {
    run.name = "steady";
    let bed = Bed::make(run.settings, run.ground).await?;
    worker::start(&bed.hub, Role::Both);
    // What both can do together, on the same cores.
    let (most, _) = together(run, &bed, &load_of(&bed, 32, 10), 10).await?;
    let rate = (most.accepted as f64 / most.seconds * 0.6) as u64;
    run.figure("accepted and delivered together, at most", most.accepted as f64 / most.seconds, "/s");
    while bed.calls() < most.accepted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    bed.take_waits();
    let seconds = run.sizes.seconds.max(20);
    let load = Load { rate, ..load_of(&bed, 32, seconds) };
    let before = bed.cost().await?;
    let (told, _) = together(run, &bed, &load, seconds).await?;
    while bed.calls() < most.accepted + told.accepted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = bed.cost().await?;
    let waits = bed.take_waits();
    let ms = |q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("accepted at 60 % of that", told.accepted as f64 / told.seconds, "/s");
    run.figure("accepted → called p50", ms(0.5), "ms");
    run.goal("accepted → called p99", ms(0.99), "ms", Goal::AtMost(50.0));
    run.cost(&before, &after, told.accepted as f64);
    let per_delivery = (after.wal_bytes - before.wal_bytes) / told.accepted as f64;
    run.figure("of all, waited in overflow", bench::overflow(bed.hub.store.api()).await? * 100.0, "%");
    run.goal("WAL per delivery, accepted to settled", per_delivery, "bytes", Goal::AtMost(1536.0));
    run.clear(bed).await
}

async fn pinned(run: &mut Run<'_>) -> Result<()> {
    run.name = "pinned";
    let bed = Bed::make(run.settings, run.ground).await?;
    let pin = bench::pin(&bed.hub.store).await?;
    worker::start(&bed.hub, Role::Both);
    let seconds = run.sizes.pinned_seconds;
    let load = Load { batch: 50, ..load_of(&bed, 8, seconds) };
    run.say(&format!("an old snapshot is held for {seconds} s"));
    let (told, series) = together(run, &bed, &load, seconds).await?;
    let part = (series.len() / 6).max(1);
    let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len().max(1) as f64;
    // The first second fills caches and pools.
    let (first, last) = (mean(&series[1..=part]), mean(&series[series.len() - part..]));
    run.figure("delivered in the first sixth", first, "/s");
    run.figure("delivered in the last sixth", last, "/s");
    run.goal("last of first", last / first * 100.0, "%", Goal::AtLeast(95.0));
    let accepted: Vec<f64> = told.series.iter().map(|n| *n as f64).collect();
    run.rate("accepted", (told.accepted as f64 / told.seconds, accepted), None);
    run.rate("delivered", (mean(&series), series.clone()), None);
    run.figure("dead rows while pinned", bench::dead_rows(bed.hub.store.api()).await? as f64, "rows");
    drop(pin);
    while settled(&bed) < told.accepted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.clear(bed).await
}

/// How many others there are, each posting one message a second.
const OTHERS: usize = 100;

/// One partner floods, a hundred others post a little: what the flood does to the others' wait.
async fn flood(run: &mut Run<'_>) -> Result<()> {
    run.name = "flood";
    let bed = Bed::make(run.settings, run.ground).await?;
    let mut others = Vec::new();
    for n in 0..OTHERS {
        let shard = i16::try_from(n).unwrap_or(0) % run.settings.database.shards.max(1);
        let partner = Partner::new(bed.hub.next_id(), format!("other-{n}"), shard);
        partner::insert(bed.hub.store.api(), &partner, bed.hub.clock.now()).await?;
        others.push(partner);
    }
    worker::start(&bed.hub, Role::Both);
    let others = Arc::new(others);
    // Caches, pools and plans are warm before anything is counted.
    post_for(&bed, &others, Duration::from_secs(2)).await?;
    bed.take_waits();
    let seconds = run.sizes.seconds;
    run.say(&format!("{OTHERS} partners alone, 1 message a second each, for {seconds} s"));
    let accepted_alone = post_for(&bed, &others, Duration::from_secs(seconds)).await?;
    let alone = bed.take_waits();
    let ms = |waits: &hdrhistogram::Histogram<u64>, q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("others alone, accepted → called p50", ms(&alone, 0.5), "ms");
    run.figure("others alone, accepted → called p99", ms(&alone, 0.99), "ms");

    let messages = run.sizes.flood;
    run.say(&format!("the same beside a flood of {} from one partner", number(messages as f64)));
    let load = Load { batch: 500, messages, kind: bed::FLOOD.into(), ..load_of(&bed, 4, 600) };
    let before = bed.cost().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let posting = bed.hub.shutdown.spawn(post_until(bed.hub.clone(), others.clone(), stop.clone()));
    let (told, _) = together(run, &bed, &load, 600).await?;
    let taken = began.elapsed().as_secs_f64();
    // The others go on until the flood has drained.
    while bench::count(bed.hub.store.api(), Status::Pending).await? > OTHERS as i64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let accepted_beside = posting.await.map_err(|e| Error::Internal(e.to_string()))??;
    let after = bed.cost().await?;
    let beside = bed.take_waits();
    run.figure("the flood accepted", told.accepted as f64 / taken, "/s");
    run.figure("the flood accepted and delivered", told.accepted as f64 / took, "/s");
    run.figure("of all, waited in overflow", bench::overflow(bed.hub.store.api()).await? * 100.0, "%");
    let at = |took: &[u64], q: f64| took[((took.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
    run.figure("others alone, asked → accepted p99", at(&accepted_alone, 0.99), "ms");
    run.figure("others beside it, asked → accepted p50", at(&accepted_beside, 0.5), "ms");
    run.figure("others beside it, asked → accepted p99", at(&accepted_beside, 0.99), "ms");
    run.figure("others beside it, accepted → called p50", ms(&beside, 0.5), "ms");
    run.figure("others beside it, accepted → called p99", ms(&beside, 0.99), "ms");
    run.goal("p99 beside the flood, of alone", ms(&beside, 0.99) / ms(&alone, 0.99), "×", Goal::AtMost(2.0));
    run.cost(&before, &after, told.accepted as f64);
    run.clear(bed).await
}

async fn post_for(bed: &Bed, others: &Arc<Vec<Partner>>, during: Duration) -> Result<Vec<u64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let posting = bed.hub.shutdown.spawn(post_until(bed.hub.clone(), others.clone(), stop.clone()));
    tokio::time::sleep(during).await;
    stop.store(true, Ordering::Relaxed);
    posting.await.map_err(|e| Error::Internal(e.to_string()))?
}

/// One message a second from each, taking turns; none waits for another's answer. How long each took to be accepted, in
/// microseconds.
async fn post_until(hub: Hub, others: Arc<Vec<Partner>>, stop: Arc<AtomicBool>) -> Result<Vec<u64>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(OTHERS).unwrap_or(1));
    let mut posted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let (hub, others, n) = (hub.clone(), others.clone(), posted.len() % others.len());
        posted.push(hub.clone().shutdown.spawn(async move {
            let began = Instant::now();
            accept(&hub, &others[n], floor::example()).await?;
            Ok::<u64, Error>(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
        }));
    }
    let mut took = Vec::with_capacity(posted.len());
    for post in posted {
        took.push(post.await.map_err(|e| Error::Internal(e.to_string()))??);
    }
    took.sort_unstable();
    Ok(took)
}
