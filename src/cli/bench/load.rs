//! The load generator. It is a process of its own, so that its CPU time is not counted as the hub's, and it writes
//! HTTP/1.1 by hand, because a client library would use more CPU than the hub.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::super::print;
use crate::error::{Error, Result};
use crate::shutdown::Shutdown;

#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct Load {
    /// The `host:port` of the API.
    #[arg(long)]
    pub address: String,
    #[arg(long, default_value_t = 16)]
    pub connections: u32,
    #[arg(long = "for", default_value_t = 10)]
    pub seconds: u64,
    /// Messages per request; 1 posts single messages.
    #[arg(long, default_value_t = 1)]
    pub batch: u32,
    /// Messages a second over all connections, at most; 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub rate: u64,
    /// The total number of messages, after which it ends early; 0: no limit.
    #[arg(long, default_value_t = 0)]
    pub messages: u64,
    #[arg(long, default_value = "ORDER_COMPLETED")]
    pub kind: String,
    #[arg(long, default_value = "NORMAL")]
    pub priority: String,
    /// An access token.
    #[arg(long, env = "NOTIHUB_TOKEN", hide_env_values = true)]
    pub token: String,
}

/// The report of a load to its parent process.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    pub accepted: u64,
    pub refused: u64,
    pub seconds: f64,
    pub p50_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
    /// The messages accepted in each second.
    pub series: Vec<u64>,
}

/// The process: posts the load and prints a report as JSON.
///
/// # Errors
/// `Error::Setup` if the API cannot be reached.
pub async fn run(load: &Load) -> Result<u8> {
    let shutdown = Shutdown::new();
    let began = Instant::now();
    let series: Arc<Vec<AtomicU64>> = Arc::new((0..=load.seconds).map(|_| AtomicU64::new(0)).collect());
    let tasks: Vec<_> = (0..load.connections)
        .map(|n| {
            let (load, series) = (load.clone(), series.clone());
            shutdown.spawn(async move { connection(&load, n, began, &series).await })
        })
        .collect();
    let mut all = histogram()?;
    let (mut accepted, mut refused) = (0, 0);
    for task in tasks {
        let (latencies, good, bad) = task.await.map_err(|e| Error::Internal(e.to_string()))??;
        all += latencies;
        accepted += good;
        refused += bad;
    }
    let report = LoadReport {
        accepted,
        refused,
        seconds: began.elapsed().as_secs_f64(),
        p50_us: all.value_at_quantile(0.5),
        p99_us: all.value_at_quantile(0.99),
        max_us: all.max(),
        series: series.iter().map(|s| s.load(Ordering::Relaxed)).collect(),
    };
    print::json(&serde_json::to_value(report).map_err(|e| Error::Internal(e.to_string()))?);
    Ok(0)
}

fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_max(600_000_000, 3).map_err(|e| Error::Internal(e.to_string()))
}

fn request(load: &Load) -> Vec<u8> {
    let one = format!(
        "{{\"type\":\"{}\",\"priority\":\"{}\",\"title\":\"Order 2026-1234 completed\",\
         \"body\":\"Thank you! Your \
         order 2026-1234 is on its way and will be with you the day after tomorrow.\",\
         \"channels\":[{{\"channel\":\"EMAIL\",\
         \"to\":\"kim@example.com\"}}],\"metadata\":{{\"orderId\":\"1234\"}}}}",
        load.kind, load.priority
    );
    let (path, body) = if load.batch == 1 {
        ("/v1/messages", one)
    } else {
        let many = vec![one; load.batch as usize].join(",");
        ("/v1/messages/batch", format!(r#"{{"messages":[{many}]}}"#))
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {}\r\ncontent-type: \
            application/json\r\ncontent-length: {}\r\n\r\n",
        load.token,
        body.len()
    );
    (head + &body).into_bytes()
}

async fn connection(load: &Load, n: u32, began: Instant, series: &[AtomicU64]) -> Result<(Histogram<u64>, u64, u64)> {
    let failed = |e: std::io::Error| Error::Setup(format!("the load's connection to {} failed: {e}", load.address));
    let stream = TcpStream::connect(&load.address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let mut stream = BufReader::new(stream);
    let request = request(load);
    let until = began + Duration::from_secs(load.seconds);
    let pause = (load.rate > 0)
        .then(|| Duration::from_secs_f64(f64::from(load.connections) * f64::from(load.batch) / load.rate as f64));
    // Spread the connections of a paced load evenly over time.
    let mut due = began + pause.unwrap_or_default().mul_f64(f64::from(n) / f64::from(load.connections));
    let (mut latencies, mut good, mut bad) = (histogram()?, 0, 0);
    // Each connection posts its share.
    let most = if load.messages == 0 { u64::MAX } else { load.messages / u64::from(load.connections) };
    while Instant::now() < until && good < most {
        // Latency is measured from the due time, so that a stall counts for every request that it delayed.
        let mut asked = Instant::now();
        if let Some(pause) = pause {
            tokio::time::sleep_until(due.into()).await;
            asked = due;
            due += pause;
        }
        stream.get_mut().write_all(&request).await.map_err(failed)?;
        let status = answer(&mut stream).await.map_err(failed)?;
        latencies.saturating_record(u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX));
        if status == 202 {
            good += u64::from(load.batch);
            let second = usize::try_from(began.elapsed().as_secs()).unwrap_or(0).min(series.len() - 1);
            series[second].fetch_add(u64::from(load.batch), Ordering::Relaxed);
        } else {
            bad += u64::from(load.batch);
        }
    }
    Ok((latencies, good, bad))
}

/// Reads one answer and returns its status.
async fn answer(stream: &mut BufReader<TcpStream>) -> std::io::Result<u16> {
    let (mut status, mut length) = (0, 0);
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim_end();
        if text.is_empty() {
            break;
        }
        if status == 0 {
            status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        } else if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(status)
}

/// Runs a load in a process of its own and returns its report.
///
/// # Errors
/// `Error::Internal` if the process fails or prints no report.
pub async fn spawn(load: &Load) -> Result<LoadReport> {
    let program = std::env::current_exe().map_err(|e| Error::Internal(format!("who am I: {e}")))?;
    let failed = |e: std::io::Error| Error::Setup(format!("the load generator cannot start: {e}"));
    let child = tokio::process::Command::new(program)
        .args(["bench", "load", "--address", &load.address])
        .args(["--connections", &load.connections.to_string(), "--for", &load.seconds.to_string()])
        .args(["--batch", &load.batch.to_string(), "--rate", &load.rate.to_string(), "--priority", &load.priority])
        .args(["--messages", &load.messages.to_string(), "--kind", &load.kind])
        .env("NOTIHUB_TOKEN", &load.token)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    let done = child.wait_with_output().await.map_err(failed)?;
    serde_json::from_slice(&done.stdout).map_err(|e| Error::Internal(format!("the load generator said nothing: {e}")))
}
