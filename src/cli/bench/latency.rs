//! Scenarios of intake and delivery together: the wait from acceptance to the call, and the cost of an old snapshot.

use std::time::{Duration, Instant};

use super::load::Load;
use super::report::Goal;
use super::run::{Run, load_of, settled, together};
use super::testbed::Testbed;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::model::channel::Channel;
use crate::store::bench;
use crate::worker::{self, Role};
/// Measures the wait from acceptance to the provider call at 20 messages a second.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn latency(run: &mut Run<'_>) -> Result<()> {
    run.name = "latency";
    let bed = Testbed::start(run.settings, run.ground).await?;
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
        // A call that came before the client had read its answer counts as no wait.
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

/// The wait with the worker in another process, which posts to a simulator in this one.
async fn across(run: &mut Run<'_>) -> Result<()> {
    use crate::provider::simulator::slack::SlackSimulator;
    let ground = crate::shutdown::Shutdown::new();
    let slack = SlackSimulator::start(0, &ground).await?;
    let mut settings = run.settings.clone();
    settings.slack.slack_destinations = vec![("ops".into(), slack.webhook_url("ops"))];
    let providers = super::super::process::providers(&settings, &Clock::system(), &ground)?;
    let further = providers.for_channel(Channel::Slack).iter().map(|a| a.provider.clone()).collect();
    let bed = Testbed::start_with(&settings, run.ground, further).await?;
    worker::start(&bed.hub, Role::Api);
    let program = std::env::current_exe().map_err(|e| Error::Internal(e.to_string()))?;
    let mut child = tokio::process::Command::new(program)
        .args(["work", "--log", "error", "--email", "off", "--database-url", &bed.database_url])
        .args(["--slack-destination", &format!("ops={}", slack.webhook_url("ops"))])
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
        while slack.accepted_count() <= n {
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

/// Measures intake and delivery at a constant rate below the highest throughput.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn steady(run: &mut Run<'_>) -> Result<()> {
    run.name = "steady";
    let bed = Testbed::start(run.settings, run.ground).await?;
    worker::start(&bed.hub, Role::Both);
    // The throughput of both together on the same cores.
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
    let (report, _) = together(run, &bed, &load, seconds).await?;
    while bed.calls() < most.accepted + report.accepted {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let after = bed.cost().await?;
    let waits = bed.take_waits();
    let ms = |q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("accepted at 60 % of that", report.accepted as f64 / report.seconds, "/s");
    run.figure("accepted → called p50", ms(0.5), "ms");
    run.goal("accepted → called p99", ms(0.99), "ms", Goal::AtMost(50.0));
    run.cost(&before, &after, report.accepted as f64);
    let per_delivery = (after.wal_bytes - before.wal_bytes) / report.accepted as f64;
    run.figure("of all, waited in overflow", bench::overflow_share(bed.hub.store.api()).await? * 100.0, "%");
    run.goal("WAL per delivery, accepted to settled", per_delivery, "bytes", Goal::AtMost(1536.0));
    run.clear(bed).await
}

/// Measures throughput while a session holds an old snapshot, after a control without one: what the control loses from
/// its first sixth to its last is vacuum, checkpoints and the growth of the tables.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn pinned(run: &mut Run<'_>) -> Result<()> {
    run.name = "pinned";
    let control = first_and_last_sixth(run, false).await?;
    let held = first_and_last_sixth(run, true).await?;
    let share = |(first, last): (f64, f64)| last / first * 100.0;
    run.figure("without a snapshot: delivered in the first sixth", control.0, "/s");
    run.figure("without a snapshot: delivered in the last sixth", control.1, "/s");
    run.figure("without a snapshot: last of first", share(control), "%");
    run.figure("delivered in the first sixth", held.0, "/s");
    run.figure("delivered in the last sixth", held.1, "/s");
    run.figure("last sixth with the snapshot, of without", held.1 / control.1 * 100.0, "%");
    run.goal("last of first", share(held), "%", Goal::AtLeast(95.0));
    Ok(())
}

/// Accepts and delivers at full speed for `pinned_seconds`, with or without an old snapshot held. Returns the
/// deliveries a second in the first sixth of the time, without its first second, and in the last.
async fn first_and_last_sixth(run: &mut Run<'_>, held: bool) -> Result<(f64, f64)> {
    let bed = Testbed::start(run.settings, run.ground).await?;
    let pin = if held { Some(bench::hold_snapshot(&bed.hub.store).await?) } else { None };
    worker::start(&bed.hub, Role::Both);
    let seconds = run.sizes.pinned_seconds;
    let load = Load { batch: 50, ..load_of(&bed, 8, seconds) };
    let what = if held { "an old snapshot is held" } else { "no snapshot is held" };
    run.say(&format!("{what} for {seconds} s"));
    let (report, series) = together(run, &bed, &load, seconds).await?;
    let part = (series.len() / 6).max(1);
    let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len().max(1) as f64;
    // The first second fills caches and pools.
    let sixths = (mean(&series[1..=part]), mean(&series[series.len() - part..]));
    if held {
        let accepted: Vec<f64> = report.series.iter().map(|n| *n as f64).collect();
        run.rate("accepted", (report.accepted as f64 / report.seconds, accepted), None);
        run.rate("delivered", (mean(&series), series.clone()), None);
        run.figure("dead rows while pinned", bench::dead_rows(bed.hub.store.api()).await? as f64, "rows");
    }
    drop(pin);
    while settled(&bed) < report.accepted {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    run.clear(bed).await?;
    Ok(sixths)
}
