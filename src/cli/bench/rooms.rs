//! Scenarios of rooms: messages stored a second, deliveries a second to those who listen, and how long both take.

use super::report::{Goal, number};
use super::room_bed::{RoomBed, SENDS, cost};
use super::run::{Rate, Run};
use super::talk::{Sending, TalkProcess, Talked};
use crate::error::{Error, Result};
use crate::store::bench;

/// Senders, each with a connection.
const SENDERS: usize = 64;
/// The time in which caches and plans fill before the first measurement, in seconds.
const WARM_UP_S: u64 = 2;

fn ms(us: u64) -> f64 {
    us as f64 / 1000.0
}

/// Measures messages a second that are stored and have their receipt, and how long that takes at half of it.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn send(run: &mut Run<'_>) -> Result<()> {
    run.name = "send";
    let mut bed = RoomBed::start(run, SENDERS, 0, run.sizes.rooms).await?;
    let mut talkers = bed.talkers().await?;
    let all = bed.people.rooms;
    let warm_up = Sending { senders: SENDERS, rooms: all, seconds: WARM_UP_S, rate: 0, listeners: 0 };
    bed.send(run, &mut talkers, warm_up).await?;
    for (senders, rooms, goal) in [(SENDERS, all, 8_000.0), (16, all, 4_000.0), (SENDERS, all.first(1), 8_000.0)] {
        let place = if rooms.count == 1 { "room" } else { "rooms" };
        let what = format!("{senders} in {} {place}", rooms.count);
        let seconds = run.sizes.seconds;
        run.say(&format!("{what}, for {seconds} s"));
        let sending = Sending { senders, rooms, seconds, rate: 0, listeners: 0 };
        let before = bed.bed.cost().await?;
        let talked = bed.send(run, &mut talkers, sending).await?;
        let after = bed.bed.cost().await?;
        let rate = sent_rate(&talked);
        run.rate(format!("saved, {what}"), rate.clone(), Some(Goal::AtLeast(goal)));
        run.figure(format!("SEND → SAVED p50, {what}"), ms(talked.saved_p50_us), "ms");
        run.figure(format!("SEND → SAVED p99, {what}"), ms(talked.saved_p99_us), "ms");
        run.goal(format!("not saved, {what}"), talked.refused as f64, "", Goal::AtMost(0.0));
        cost(run, &before, &after, talked.sent, &what);
        let half = Sending { rate: (rate.0 / 2.0) as u64, ..sending };
        let talked = bed.send(run, &mut talkers, half).await?;
        run.figure(format!("at half of it: SEND → SAVED p50, {what}"), ms(talked.saved_p50_us), "ms");
        let p99 = ms(talked.saved_p99_us);
        run.goal(format!("at half of it: SEND → SAVED p99, {what}"), p99, "ms", Goal::AtMost(25.0));
    }
    drop(talkers);
    bed.clear(run).await
}

/// Messages a second with a receipt, over all and in each second.
fn sent_rate(talked: &Talked) -> Rate {
    // Behind the last whole second come the receipts of what was sent in it.
    let seconds = talked.series.len().saturating_sub(1);
    let series = talked.series.iter().take(seconds).map(|n| *n as f64).collect();
    (talked.sent as f64 / talked.seconds, series)
}

/// Measures deliveries a second to those who listen to a room, offered faster and faster until they come late.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn fan_out(run: &mut Run<'_>) -> Result<()> {
    run.name = "fan-out";
    fan_out_of(run, 1, 500).await?;
    fan_out_of(run, 50, 100).await
}

async fn fan_out_of(run: &mut Run<'_>, rooms: usize, listeners: usize) -> Result<()> {
    const OFFERED: [u64; 13] =
        [10_000, 20_000, 30_000, 40_000, 45_000, 50_000, 55_000, 60_000, 70_000, 80_000, 100_000, 120_000, 150_000];
    const JUDGED: u64 = 30_000;
    const LATE_MS: f64 = 250.0;
    // So many that none waits for a receipt when its next message is due.
    const SENDERS: usize = 32;
    let what = if rooms == 1 { format!("1 room of {listeners}") } else { format!("{rooms} rooms of {listeners}") };
    let mut bed = RoomBed::start(run, SENDERS, rooms * listeners, rooms).await?;
    let mut talkers = bed.talkers().await?;
    run.say(&format!("{what}: the listeners connect"));
    let address = bed.bed.api.clone();
    bed.listen(&mut talkers, &address).await?;
    let (all, each) = (bed.people.rooms, listeners as u64);
    let sending = |offered: u64, seconds: u64| {
        let rate = (offered / each).max(1);
        Sending { senders: SENDERS, rooms: all, seconds, rate, listeners: each }
    };
    bed.send(run, &mut talkers, sending(OFFERED[0], WARM_UP_S)).await?;
    let seconds = (run.sizes.seconds / 3).max(3);
    let mut most = 0.0_f64;
    for offered in OFFERED {
        let mut step = fan_out_at(run, &mut bed, &mut talkers, sending(offered, seconds)).await?;
        // Other load on the machine may make deliveries late for a moment.
        if step.p99_ms > LATE_MS && step.ended == 0 {
            step = fan_out_at(run, &mut bed, &mut talkers, sending(offered, seconds)).await?;
        }
        if offered == JUDGED {
            run.goal(format!("p99 at 30,000/s, {what}"), step.p99_ms, "ms", Goal::AtMost(100.0));
            run.goal(format!("CPU of the hub per delivery, {what}"), step.cpu_us, "µs", Goal::AtMost(20.0));
            run.goal(format!("statements per delivery, {what}"), step.statements, "", Goal::AtMost(0.05));
        }
        if step.p99_ms > LATE_MS || step.ended > 0 {
            run.figure(format!("came late when offered, {what}"), offered as f64, "/s");
            break;
        }
        most = most.max(step.rate);
    }
    run.goal(format!("deliveries, p99 ≤ 250 ms, {what}"), most, "/s", Goal::AtLeast(45_000.0));
    drop(talkers);
    bed.clear(run).await
}

/// Deliveries of messages that were sent at one rate.
struct FanOut {
    /// Deliveries a second.
    rate: f64,
    p99_ms: f64,
    /// CPU of the hub and statements for each delivery.
    cpu_us: f64,
    statements: f64,
    /// Connections that ended because they took less than came.
    ended: u64,
}

async fn fan_out_at(run: &Run<'_>, bed: &mut RoomBed, talkers: &mut TalkProcess, sending: Sending) -> Result<FanOut> {
    let before = bed.bed.cost().await?;
    let talked = bed.send(run, talkers, sending).await?;
    let after = bed.bed.cost().await?;
    let deliveries = talked.received.max(1) as f64;
    let step = FanOut {
        rate: talked.received as f64 / talked.received_seconds,
        p99_ms: ms(talked.received_p99_us),
        cpu_us: (after.ours_cpu_s - before.ours_cpu_s) * 1e6 / deliveries,
        statements: (after.transactions - before.transactions) / deliveries,
        ended: talked.ended,
    };
    run.say(&format!(
        "{} offered: {} deliveries a second, p50 {:.1} ms, p99 {:.1} ms, {:.1} µs of CPU each",
        number((sending.rate * sending.listeners) as f64),
        number(step.rate),
        ms(talked.received_p50_us),
        step.p99_ms,
        step.cpu_us
    ));
    Ok(step)
}

/// Measures how long a message takes to another user at 200 messages a second, in one process and across two.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn live_latency(run: &mut Run<'_>) -> Result<()> {
    const PAIRS: usize = 20;
    run.name = "live-latency";
    let mut bed = RoomBed::start(run, PAIRS, PAIRS, PAIRS).await?;
    let address = bed.bed.api.clone();
    let (p50, p99) = latency_to(run, &mut bed, &address, "one process").await?;
    run.goal("sent → received, one process, p50", p50, "ms", Goal::AtMost(2.0));
    run.goal("sent → received, one process, p99", p99, "ms", Goal::AtMost(10.0));
    let (second, address) = second_process(&bed).await?;
    let (p50, p99) = latency_to(run, &mut bed, &address, "two processes").await?;
    run.goal("sent → received, two processes, p50", p50, "ms", Goal::AtMost(14.0));
    run.goal("sent → received, two processes, p99", p99, "ms", Goal::AtMost(40.0));
    drop(second);
    bed.clear(run).await
}

/// Sends 200 messages a second to listeners at `address`. Returns how long they take, p50 and p99, in milliseconds.
async fn latency_to(run: &mut Run<'_>, bed: &mut RoomBed, address: &str, what: &str) -> Result<(f64, f64)> {
    let mut talkers = bed.talkers().await?;
    bed.listen(&mut talkers, address).await?;
    let (senders, rooms) = (bed.people.senders.len(), bed.people.rooms);
    let sending = Sending { senders, rooms, seconds: WARM_UP_S, rate: 200, listeners: 1 };
    bed.send(run, &mut talkers, sending).await?;
    run.say(&format!("200 a second, {what}, for {} s", run.sizes.seconds));
    let talked = bed.send(run, &mut talkers, Sending { seconds: run.sizes.seconds, ..sending }).await?;
    Ok((ms(talked.received_p50_us), ms(talked.received_p99_us)))
}

/// Starts a second process of the API on the bed's database. Returns it with its address.
async fn second_process(bed: &RoomBed) -> Result<(tokio::process::Child, String)> {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr());
    let address = free.map_err(|e| Error::Setup(format!("no port is free on loopback: {e}")))?;
    let program = std::env::current_exe().map_err(|e| Error::Internal(format!("this program's path: {e}")))?;
    let second = tokio::process::Command::new(program)
        .args(["serve", "--log=error", "--database-url", &bed.bed.database_url, &format!("--listen={address}")])
        .args([format!("--user-sends={SENDS}"), format!("--room-sends={SENDS}")])
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Error::Setup(format!("the second API cannot start: {e}")))?;
    while tokio::net::TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok((second, address.to_string()))
}

/// Measures messages stored a second while a session holds an old snapshot, and in another database without one, in
/// turns, so that other load on the machine affects both.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn pinned(run: &mut Run<'_>) -> Result<()> {
    const TURN_S: u64 = 4;
    run.name = "rooms-pinned";
    let mut free = RoomBed::start(run, SENDERS, 0, run.sizes.rooms).await?;
    let mut held = RoomBed::start(run, SENDERS, 0, run.sizes.rooms).await?;
    let (mut to_free, mut to_held) = (free.talkers().await?, held.talkers().await?);
    saved(run, &mut free, &mut to_free, WARM_UP_S).await?;
    saved(run, &mut held, &mut to_held, WARM_UP_S).await?;
    let pin = bench::hold_snapshot(&held.bed.hub.store).await?;
    let turns = usize::try_from(run.sizes.pinned_seconds / TURN_S).unwrap_or(0).max(6);
    run.say(&format!("{turns} turns of {TURN_S} s each, without and with an old snapshot"));
    let (mut of_free, mut of_held) = (Vec::new(), Vec::new());
    for _ in 0..turns {
        of_free.push(saved(run, &mut free, &mut to_free, TURN_S).await?);
        of_held.push(saved(run, &mut held, &mut to_held, TURN_S).await?);
    }
    let sixth = turns / 6;
    let mean = |s: &[f64]| s.iter().sum::<f64>() / s.len() as f64;
    let first = (mean(&of_free[..sixth]), mean(&of_held[..sixth]));
    let last = (mean(&of_free[turns - sixth..]), mean(&of_held[turns - sixth..]));
    run.figure("dead rows while pinned", bench::dead_rows(held.bed.hub.store.api()).await? as f64, "rows");
    for (when, (free, held)) in [("first", first), ("last", last)] {
        run.figure(format!("saved without a snapshot, {when} sixth"), free, "/s");
        run.figure(format!("saved with it, {when} sixth"), held, "/s");
    }
    run.figure("last of first, without a snapshot", last.0 / first.0 * 100.0, "%");
    run.figure("last of first, with it", last.1 / first.1 * 100.0, "%");
    // What time alone changes, in the tables and on the machine, is in both.
    let share = (last.1 / first.1) / (last.0 / first.0) * 100.0;
    run.goal("last of first, with it of without", share, "%", Goal::AtLeast(90.0));
    drop((pin, to_free, to_held));
    free.clear(run).await?;
    held.clear(run).await
}

/// Measures messages stored a second with many older ones in the tables and without them, in turns, so that other load
/// on the machine affects both.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn history(run: &mut Run<'_>) -> Result<()> {
    const PAIRS: usize = 5;
    run.name = "rooms-history";
    let rows = run.sizes.rows.unwrap_or(10_000_000);
    let mut alone = RoomBed::start(run, SENDERS, 0, run.sizes.rooms).await?;
    let mut beside = RoomBed::start(run, SENDERS, 0, run.sizes.rooms).await?;
    beside.fill(run, rows).await?;
    let (mut to_alone, mut to_beside) = (alone.talkers().await?, beside.talkers().await?);
    saved(run, &mut alone, &mut to_alone, WARM_UP_S).await?;
    saved(run, &mut beside, &mut to_beside, WARM_UP_S).await?;
    let seconds = (run.sizes.seconds / 3).max(2);
    let (mut rates, mut shares) = ((Vec::new(), Vec::new()), Vec::new());
    for pair in 0..PAIRS {
        let of_alone = saved(run, &mut alone, &mut to_alone, seconds).await?;
        let of_beside = saved(run, &mut beside, &mut to_beside, seconds).await?;
        run.say(&format!("pair {} of {PAIRS}: {}/s alone, {}/s beside", pair + 1, number(of_alone), number(of_beside)));
        rates.0.push(of_alone);
        rates.1.push(of_beside);
        shares.push(of_beside / of_alone * 100.0);
    }
    let sorted = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of
    };
    let (of_alone, of_beside, shares) = (sorted(rates.0), sorted(rates.1), sorted(shares));
    run.figure("saved alone, median", of_alone[PAIRS / 2], "/s");
    run.figure(format!("saved beside {} messages, median", number(rows as f64)), of_beside[PAIRS / 2], "/s");
    run.figure("of alone, lowest of the pairs", shares[0], "%");
    run.figure("of alone, highest of the pairs", shares[PAIRS - 1], "%");
    run.goal("of alone, median of the pairs", shares[PAIRS / 2], "%", Goal::AtLeast(95.0));
    drop((to_alone, to_beside));
    alone.clear(run).await?;
    beside.clear(run).await
}

/// Sends at full speed. Returns the messages a second that are stored.
async fn saved(run: &Run<'_>, bed: &mut RoomBed, talkers: &mut TalkProcess, seconds: u64) -> Result<f64> {
    let sending = Sending { senders: SENDERS, rooms: bed.people.rooms, seconds, rate: 0, listeners: 0 };
    Ok(sent_rate(&bed.send(run, talkers, sending).await?).0)
}
