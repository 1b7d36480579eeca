//! Scenarios of the inbox and its streams.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::client::{Client, Target};
use super::listen::ListenProcess;
use super::report::Goal;
use super::room_bed::People;
use super::run::Run;
use super::talk::{Open, Sending, TalkProcess};
use super::testbed::{Testbed, memory_mb};
use crate::error::{Error, Result};
use crate::provider::inapp::Inapp;
use crate::worker::{self, Role};

/// Members of a room in `connections`.
const MEMBERS: usize = 10;
/// Messages of one request.
const BATCH: usize = 500;

/// A testbed whose hub has inboxes.
async fn testbed(run: &Run<'_>) -> Result<Testbed> {
    Testbed::start_with(run.settings, run.ground, vec![Arc::new(Inapp)]).await
}

fn client(bed: &Testbed) -> Result<Client> {
    Client::new(&Target::of(format!("http://{}", bed.api), &bed.credentials))
}

/// A message to the inbox of user `n`, with its time in the body.
fn message(bed: &Testbed, n: usize) -> Value {
    let posted = bed.hub.clock.now().timestamp_micros().to_string();
    json!({"type": "BENCH", "channels": [{"channel": "INAPP", "to": format!("u-{n}"), "subject": "t", "body": posted}]})
}

/// Posts one message to each of `users`, in batches.
async fn post_to_all(bed: &Testbed, client: &Client, users: usize) -> Result<()> {
    let all: Vec<usize> = (0..users).collect();
    for batch in all.chunks(BATCH) {
        let messages: Vec<Value> = batch.iter().map(|n| message(bed, *n)).collect();
        client.post("/v1/messages/batch", &json!({"messages": messages})).await?;
    }
    Ok(())
}

fn arrived(bed: &Testbed) -> u64 {
    bed.hub.metrics.settled.with_label_values(&["INAPP", "DELIVERED"]).get()
}

async fn wait_for(bed: &Testbed, items: u64) -> Result<()> {
    let began = Instant::now();
    while arrived(bed) < items {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if began.elapsed() > Duration::from_secs(600) {
            return Err(Error::Internal(format!("{} of {items} items arrived after ten minutes", arrived(bed))));
        }
    }
    Ok(())
}

/// Measures how fast waiting INAPP deliveries become items of users that do not exist yet, and then of users that do;
/// and how long a message takes to an open stream.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn inbox(run: &mut Run<'_>) -> Result<()> {
    run.name = "inbox";
    let bed = testbed(run).await?;
    let client = client(&bed)?;
    let users = run.sizes.users;
    post_to_all(&bed, &client, users).await?;
    run.say(&format!("{users} messages wait"));
    let items = users as u64;
    let (before, began) = (bed.cost().await?, Instant::now());
    worker::start(&bed.hub, Role::Both);
    wait_for(&bed, items).await?;
    let rate = items as f64 / began.elapsed().as_secs_f64();
    let after = bed.cost().await?;
    run.cost(&before, &after, items as f64);
    run.goal("items, users are made meanwhile", rate, "/s", Goal::AtLeast(10_000.0));
    run.figure("memory at its highest", memory_mb().highest, "MB");

    let mut readers = ListenProcess::start(&bed.api, &bed.token, 100)?;
    readers.ask("open").await?;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    let posts = usize::try_from(run.sizes.seconds).unwrap_or(15) * 100;
    for n in 0..posts {
        tick.tick().await;
        client.post("/v1/messages", &message(&bed, n % 100)).await?;
    }
    wait_for(&bed, items + posts as u64).await?;
    let report = readers.ask(&format!("report {posts}")).await?;
    run.figure("posted → on an open stream, p50", report.p50_us as f64 / 1000.0, "ms");
    run.goal("posted → on an open stream, p99", report.p99_us as f64 / 1000.0, "ms", Goal::AtMost(50.0));
    let lost = posts.saturating_sub(report.waits) + report.twice;
    run.goal("items of open streams lost or twice", lost as f64, "", Goal::AtMost(0.0));
    run.clear(bed).await
}

/// Measures the memory and CPU of open connections on which nothing happens: half are streams, half STOMP with two
/// subscriptions each.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn connections(run: &mut Run<'_>) -> Result<()> {
    run.name = "connections";
    let bed = testbed(run).await?;
    worker::start(&bed.hub, Role::Both);
    let half = run.sizes.streams / 2;
    let client = client(&bed)?;
    post_to_all(&bed, &client, half).await?;
    wait_for(&bed, half as u64).await?;
    let People { rooms, listeners: tokens, .. } = People::make(&bed, 1, half, half.div_ceil(MEMBERS)).await?;
    let without = memory_mb().resident;
    let mut readers = ListenProcess::start(&bed.api, &bed.token, half)?;
    let opened = readers.ask("open").await?;
    run.figure("streams opened", opened.streams as f64, "");
    run.figure("streams opened in a second", opened.streams as f64 / opened.seconds, "/s");
    let each = |n: usize, before: f64| (memory_mb().resident - before) * 1000.0 / n.max(1) as f64;
    run.figure("memory of a stream", each(opened.streams, without), "KiB");
    let with_streams = memory_mb().resident;
    let mut talkers = TalkProcess::start()?;
    let joined = talkers.listen(Open { address: bed.api.clone(), tokens, rooms }).await?;
    run.figure("STOMP connections opened", joined.connections as f64, "");
    run.figure("STOMP connections opened in a second", joined.connections as f64 / joined.seconds, "/s");
    run.figure("memory of a STOMP connection", each(joined.connections, with_streams), "KiB");
    let open = opened.streams + joined.connections;
    run.goal("memory of each", each(open, without), "KiB", Goal::AtMost(20.0));
    run.say(&format!("idle for {} s", run.sizes.seconds));
    let before = bed.cost().await?;
    tokio::time::sleep(Duration::from_secs(run.sizes.seconds)).await;
    let after = bed.cost().await?;
    let wall = (after.at - before.at).as_secs_f64();
    let cpu = (after.ours_cpu_s - before.ours_cpu_s) / wall * 100.0;
    run.goal("CPU of the hub while nothing happens", cpu, "% of one", Goal::AtMost(10.0));
    let ended = talkers.send(Sending { senders: 0, rooms, seconds: 0, rate: 0, listeners: 0 }).await?.ended;
    run.goal("STOMP connections that ended", ended as f64, "", Goal::AtMost(0.0));
    drop((readers, talkers));
    run.clear(bed).await
}

/// Measures how long streams take that are cut at once and have missed 20 items each.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn resume(run: &mut Run<'_>) -> Result<()> {
    const MISSED: usize = 20;
    run.name = "resume";
    let bed = testbed(run).await?;
    worker::start(&bed.hub, Role::Both);
    let streams = run.sizes.streams.min(5_000);
    let client = client(&bed)?;
    post_to_all(&bed, &client, streams).await?;
    wait_for(&bed, streams as u64).await?;
    let mut readers = ListenProcess::start(&bed.api, &bed.token, streams)?;
    readers.ask("open").await?;
    readers.ask("cut").await?;
    for _ in 0..MISSED {
        post_to_all(&bed, &client, streams).await?;
    }
    wait_for(&bed, (streams * (MISSED + 1)) as u64).await?;
    run.say(&format!("{streams} streams resume"));
    let whole = readers.ask(&format!("resume {MISSED}")).await?;
    run.figure("streams", streams as f64, "");
    run.goal("until all are whole", whole.seconds, "s", Goal::AtMost(30.0));
    run.goal("items lost or twice", (whole.missing + whole.twice) as f64, "", Goal::AtMost(0.0));
    drop(readers);
    run.clear(bed).await
}
