//! apalis with apalis-postgres. The commands and their lines are those of ../lib.mjs; see there.
//!
//! Tuned with what it offers for throughput: tasks are fetched a batch at a time (`batch_size`, which also bounds how
//! many acknowledgements are written together), no extra "running" mark is written for each task (`lock_tasks(false)`;
//! fetching has locked the row already), and notifications wake an idle worker (`with_pubsub`), beside a short poll.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::postgres::PgPoolOptions;
use tokio::io::{AsyncBufReadExt, BufReader};

type Result<T> = std::result::Result<T, BoxDynError>;
type Storage = PostgresStorage<Job>;

/// In one process, so that one fetches while the other acknowledges.
const WORKERS: usize = 2;
const WARM_UP: u64 = 40;
const PAUSE: Duration = Duration::from_millis(50);

/// As many bytes as the message that `notihub bench` posts.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    n: u64,
    r#type: String,
    title: String,
    body: String,
    to: String,
    metadata: Metadata,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    order_id: String,
}

fn job(n: u64) -> Job {
    Job {
        n,
        r#type: "ORDER_COMPLETED".into(),
        title: "Order 2026-1234 completed".into(),
        body: "Thank you! Your order 2026-1234 is on its way and will be with you the day after tomorrow.".into(),
        to: "kim@example.com".into(),
        metadata: Metadata { order_id: "1234".into() },
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64() * 1000.0)
}

// ---- the handler, which does nothing but count

static HANDLED: AtomicU64 = AtomicU64::new(0);
static FIRST: Mutex<Option<f64>> = Mutex::new(None);
/// Filled only when somebody wants it.
static STAMPS: Mutex<Option<Vec<(u64, f64)>>> = Mutex::new(None);

async fn handle(job: Job) -> Result<()> {
    if HANDLED.fetch_add(1, Ordering::Relaxed) == 0 {
        *FIRST.lock().unwrap() = Some(now());
    }
    if let Some(stamps) = STAMPS.lock().unwrap().as_mut() {
        stamps.push((job.n, now()));
    }
    Ok(())
}

fn report() {
    let stamps = STAMPS.lock().unwrap().as_mut().map(std::mem::take).unwrap_or_default();
    let first = *FIRST.lock().unwrap();
    println!("{}", json!({"at": now(), "handled": HANDLED.load(Ordering::Relaxed), "first": first, "stamps": stamps}));
}

async fn report_on() {
    loop {
        tokio::time::sleep(Duration::from_millis(20)).await;
        report();
    }
}

// ---- the commands

/// So many callers at once, each with so many jobs in a call, until the time is over or all are in.
async fn enqueue(storage: &Storage, callers: u64, batch: u64, during: Duration, all: u64) -> Result<()> {
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..callers {
        let (mut storage, next) = (storage.clone(), next.clone());
        tasks.spawn(async move {
            let mut count = 0;
            while began.elapsed() < during {
                let first = next.fetch_add(batch, Ordering::Relaxed);
                if first >= all {
                    break;
                }
                let end = all.min(first + batch);
                if batch == 1 {
                    storage.push(job(first)).await?;
                } else {
                    storage.push_bulk((first..end).map(job).collect()).await?;
                }
                count += end - first;
            }
            Ok::<u64, BoxDynError>(count)
        });
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    println!("{}", json!({"count": count, "seconds": began.elapsed().as_secs_f64()}));
    Ok(())
}

/// Counts from the moment the enqueuing call returned. The first jobs warm caches and pools, and are not counted.
async fn pace(storage: &Storage, seconds: u64) -> Result<()> {
    let (mut storage, mut returned) = (storage.clone(), Vec::new());
    let mut tick = tokio::time::interval(PAUSE);
    for n in 0..WARM_UP + seconds * 20 {
        tick.tick().await;
        storage.push(job(n)).await?;
        if n >= WARM_UP {
            returned.push((n, now()));
        }
    }
    println!("{}", json!({"returned": returned}));
    Ok(())
}

/// Works until told to stop, then writes what is left to acknowledge.
async fn work(storage: &Storage, stop: impl Future<Output = ()>) -> Result<()> {
    let workers: Vec<_> = (0..WORKERS)
        .map(|n| {
            let backend = storage.clone().with_pubsub().poll_with_interval(Duration::from_millis(100));
            let name = format!("worker-{}-{n}", std::process::id());
            let context = WorkerContext::new(&name);
            let worker = WorkerBuilder::new(&context).backend(backend).build(handle);
            (context, tokio::spawn(worker.run()))
        })
        .collect();
    let reporter = tokio::spawn(report_on());
    stop.await;
    for (context, worker) in workers {
        context.stop()?;
        worker.await??;
    }
    reporter.abort();
    report();
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    let command = std::env::args().nth(1).unwrap_or_default();
    let argument = std::env::args().nth(2).unwrap_or_default();
    let number = || argument.parse::<u64>();
    let pool = PgPoolOptions::new().max_connections(16).connect(&std::env::var("DATABASE_URL")?).await?;
    // How many jobs a worker process may have fetched at a time; its documentation names no number.
    let held = std::env::var("PEERS_HELD").ok().map_or(Ok(2000), |held| held.parse::<usize>())?;
    let config = Config::default().queue("noop").batch_size(held.div_ceil(WORKERS)).lock_tasks(false);
    let storage: Storage = PostgresStorage::new(&pool).with_config(config);
    let forever = Duration::from_secs(86_400);
    match command.as_str() {
        "setup" => PostgresStorage::setup(&pool).await?,
        "single" => enqueue(&storage, 16, 1, Duration::from_secs(number()?), u64::MAX).await?,
        "bulk" => enqueue(&storage, 4, 1000, forever, number()?).await?,
        "flood" => enqueue(&storage, 8, 50, Duration::from_secs(number()?), u64::MAX).await?,
        "pace" => pace(&storage, number()?).await?,
        "work" => {
            if argument == "stamps" {
                *STAMPS.lock().unwrap() = Some(Vec::new());
            }
            println!("{}", json!({"ready": true}));
            let mut lines = BufReader::new(tokio::io::stdin()).lines();
            if lines.next_line().await?.as_deref() == Some("go") {
                work(&storage, async move { drop(lines.next_line().await) }).await?;
            }
        }
        "both" => {
            *STAMPS.lock().unwrap() = Some(Vec::new());
            let (enqueuer, seconds) = (storage.clone(), number()?);
            let paced = async move {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let paced = pace(&enqueuer, seconds).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
                paced
            };
            // A task like any other: not on the main thread, which the runtime wakes late.
            let paced = tokio::spawn(paced);
            work(&storage, async { paced.await.expect("paced").expect("enqueued") }).await?;
        }
        other => return Err(format!("unknown command: {other}").into()),
    }
    // A line of stdin may still be waited for.
    std::process::exit(0)
}
