//! What all scenarios have at hand: the run with its figures, and a bed that is filled, drained, and loaded.

use std::time::{Duration, Instant};

use super::super::{Output, print};
use super::floor;
use super::load::{self, Load, LoadReport};
use super::report::{Figure, Goal, number, print_figure, table};
use super::sizes::Sizes;
use super::testbed::{self, BenchServer, Cost, Testbed, memory_mb};
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::model::channel::Channel;
use crate::model::delivery::Status;
use crate::model::lane::{Lane, Priority};
use crate::store::bench::{self, BulkFill};
use crate::worker::{self, Role};

/// What a scenario has at hand.
pub struct Run<'a> {
    pub name: &'static str,
    pub settings: &'a Settings,
    pub sizes: &'a Sizes,
    pub ground: &'a BenchServer,
    output: Output,
    figures: Vec<Figure>,
}

impl<'a> Run<'a> {
    /// A run without figures yet; each scenario sets `name`.
    pub fn new(settings: &'a Settings, sizes: &'a Sizes, ground: &'a BenchServer, output: Output) -> Run<'a> {
        Run { name: "", settings, sizes, ground, output, figures: Vec::new() }
    }

    /// Prints and keeps a figure that has no goal.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(Figure::new(self.name, name, value, unit));
    }

    fn add(&mut self, figure: Figure) {
        print_figure(&figure, self.output);
        self.figures.push(figure);
    }

    /// Prints and keeps a figure with its goal.
    pub fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.add(Figure::new(self.name, name, value, unit).goal(goal));
    }

    /// A line of progress, on standard error so that figures stay alone on standard output.
    pub fn say(&self, text: &str) {
        anstream::eprintln!("{} {text}", print::paint(print::DIM, self.name));
    }

    /// Ends a bed: stops its hub, runs fsck, drops its database.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn clear(&mut self, bed: Testbed) -> Result<()> {
        self.say("fsck");
        let findings = bed.clear().await?;
        self.goal("fsck findings", findings as f64, "rows", Goal::AtMost(0.0));
        Ok(())
    }

    /// At the end of a scenario: a later one that fails must not take its figures along.
    pub fn told(&mut self) {
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

/// A load of single messages by the bed's partner, over so many connections, for so many seconds.
pub fn load_of(bed: &Testbed, connections: u32, seconds: u64) -> Load {
    let (address, kind, priority) = (bed.api.clone(), "ORDER_COMPLETED".into(), "NORMAL".into());
    Load { address, connections, seconds, batch: 1, rate: 0, messages: 0, kind, priority, token: bed.token.clone() }
}

/// Makes `count` deliveries of this status, a hundred thousand at a time, and analyses the tables.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached.
pub async fn fill(run: &Run<'_>, bed: &Testbed, status: Status, count: i64) -> Result<()> {
    const STEP: i64 = 100_000;
    let mut conn = bed.hub.store.connect_without_timeout().await?;
    let detail = serde_json::to_string(&floor::example().detail).map_err(|e| Error::Internal(e.to_string()))?;
    let lane = Lane::new(Channel::Email, Priority::Normal, false);
    let now = bed.hub.clock.now();
    let ready_at = if status == Status::Scheduled { now + chrono::TimeDelta::hours(6) } else { now };
    let kind = if status == Status::Failed { testbed::FLOOD } else { "BENCH" };
    let mut made = 0;
    while made < count {
        let step = STEP.min(count - made);
        // Ids of one fill follow each other; the next fill begins at a later millisecond.
        let fill = BulkFill { first: bed.hub.next_id(), count: step, kind, lane, status, created_at: now, ready_at };
        bench::fill(&mut conn, &bed.partner, &fill, &detail).await?;
        made += step;
        if made % 1_000_000 == 0 || made == count {
            run.say(&format!("{} {status} made", number(made as f64)));
        }
    }
    bench::vacuum_tables(&bed.hub.store).await
}

/// Deliveries a second, over all and in each second.
pub type Rate = (f64, Vec<f64>);

/// Drains `count` pending deliveries with this process's workers. Returns deliveries per second, over all and in each
/// second.
///
/// # Errors
/// `Error::Internal` if they are not settled after ten minutes.
pub async fn drained(run: &mut Run<'_>, bed: &Testbed, count: i64) -> Result<Rate> {
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
    run.goal("memory at its highest", memory_mb().highest, "MB", Goal::AtMost(200.0));
    Ok((count as f64 / took, series))
}

/// E-mails that this process has settled as SENT.
pub fn settled(bed: &Testbed) -> u64 {
    bed.hub.metrics.settled.with_label_values(&["EMAIL", "SENT"]).get()
}

/// Runs a load while this process's workers deliver. Returns the report of the load and the calls in each second.
///
/// # Errors
/// `Error::Setup` if the load generator cannot be started.
pub async fn together(run: &Run<'_>, bed: &Testbed, load: &Load, seconds: u64) -> Result<(LoadReport, Vec<f64>)> {
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
