//! Scenarios of intake: single messages and batches over HTTP, the rate limit, and an idle process.

use std::time::Duration;

use super::floor;
use super::load::{self, Load};
use super::report::Goal;
use super::run::{Run, load_of};
use super::testbed::{self, Testbed, memory_mb};
use crate::error::{Error, Result};
use crate::flow::partner::PartnerChange;
use crate::worker::{self, Role};
/// Measures the CPU time and memory of an idle process.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn idle(run: &mut Run<'_>) -> Result<()> {
    run.name = "idle";
    let bed = Testbed::start(run.settings, run.ground).await?;
    worker::start(&bed.hub, Role::Both);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = bed.cost().await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let after = bed.cost().await?;
    let memory = memory_mb();
    run.goal("memory of the process", memory.resident, "MB", Goal::AtMost(60.0));
    run.figure("of it not pages of the program's file", memory.own, "MB");
    run.figure("CPU of the hub", (after.ours_cpu_s - before.ours_cpu_s) / 5.0 * 100.0, "% of one");
    if let (Some(a), Some(b)) = (after.pg_cpu_s, before.pg_cpu_s) {
        run.figure("CPU of PostgreSQL", (a - b) / 5.0 * 100.0, "% of one");
    }
    run.clear(bed).await
}

/// Measures accepted messages a second over HTTP, one message per request.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn intake(run: &mut Run<'_>) -> Result<()> {
    run.name = "intake";
    let bed = Testbed::start(run.settings, run.ground).await?;
    let floor_16 = floor::single_inserts(&bed, 16, Duration::from_secs(5)).await?;
    run.figure("floor: bare SQL, one row per commit, 16 clients", floor_16, "/s");
    for connections in [1, 16, 64] {
        run.say(&format!("{connections} connections for {} s", run.sizes.seconds));
        let before = bed.cost().await?;
        let report = load::spawn(&load_of(&bed, connections, run.sizes.seconds)).await?;
        let after = bed.cost().await?;
        let rate = report.accepted as f64 / report.seconds;
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
        let p50 = report.p50_us as f64 / 1000.0;
        match connections {
            1 => run.goal("answer p50, 1 connection", p50, "ms", Goal::AtMost(10.0)),
            n => run.figure(format!("answer p50, {n} connections"), p50, "ms"),
        }
        run.figure(format!("answer p99, {connections} connections"), report.p99_us as f64 / 1000.0, "ms");
        run.goal(format!("not accepted, {connections} connections"), report.refused as f64, "", Goal::AtMost(0.0));
        if connections == 64 {
            run.cost(&before, &after, report.accepted as f64);
        }
    }
    run.clear(bed).await
}

/// Measures the accuracy of the rate limit: one partner with the default limit posts three times as much to two API
/// processes.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn limit(run: &mut Run<'_>) -> Result<()> {
    run.name = "limit";
    let bed = Testbed::start(run.settings, run.ground).await?;
    let (partner, token) = testbed::signed_in_partner(
        &bed.hub,
        PartnerChange { name: Some("limited".into()), ..PartnerChange::default() },
    )
    .await?;
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
    // Skip the beginning: the first requests have to load the partner.
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

/// Measures accepted messages a second over HTTP in batches.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn intake_batch(run: &mut Run<'_>) -> Result<()> {
    run.name = "intake-batch";
    let bed = Testbed::start(run.settings, run.ground).await?;
    let load = Load { batch: 500, ..load_of(&bed, 4, run.sizes.seconds) };
    run.say(&format!("batches of 500, 4 connections for {} s", run.sizes.seconds));
    let before = bed.cost().await?;
    let report = load::spawn(&load).await?;
    let after = bed.cost().await?;
    run.goal("accepted", report.accepted as f64 / report.seconds, "/s", Goal::AtLeast(40_000.0));
    run.goal("not accepted", report.refused as f64, "", Goal::AtMost(0.0));
    run.cost(&before, &after, report.accepted as f64);
    run.clear(bed).await
}
