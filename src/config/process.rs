//! Settings of the API, the workers, and the times that bound their work.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

use crate::limits;

/// Settings of the API.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub struct Api {
    /// Address and port on which the API listens.
    #[arg(long, env = "NOTIHUB_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// The API runs behind your proxy: a caller's address is the last one in the header --proxy-header. Without a proxy
    /// every caller could forge that header.
    #[arg(long, env = "NOTIHUB_BEHIND_PROXY")]
    pub behind_proxy: bool,
    /// The header in which the proxy passes the caller's address: a list like X-Forwarded-For, one address like
    /// X-Real-IP, or Forwarded (RFC 7239). The proxy must set it in every request, or callers can forge it.
    #[arg(
        long,
        env = "NOTIHUB_PROXY_HEADER",
        default_value = "x-forwarded-for",
        value_name = "NAME",
        value_parser = header_name
    )]
    pub proxy_header: String,
    /// Web pages of these origins may call what users call (`/api`, `/v1/inbox`) from a browser; several are separated
    /// by commas. `*` admits every page, which is safe: a token is no cookie, so a page can send only what it has
    /// itself.
    #[arg(
        long = "allowed-origin",
        env = "NOTIHUB_ALLOWED_ORIGIN",
        value_name = "ORIGIN",
        value_delimiter = ',',
        value_parser = origin
    )]
    pub allowed_origins: Vec<String>,
    /// Live connections (streams of events) of this process, besides those that carry requests; a further one is
    /// refused. Each costs about 20 KiB and an open file: the process raises its limit of open files to the highest
    /// that the system grants.
    #[arg(
        long,
        env = "NOTIHUB_LIVE_CONNECTIONS",
        default_value_t = limits::STREAMS,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=1_000_000)
    )]
    pub live_connections: u32,
    /// Address and port of a separate /metrics without sign-in, for a scraper on a private network. On the API's own
    /// port /metrics needs an operator's token.
    #[arg(long, env = "NOTIHUB_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Concurrent transactions that store accepted messages. While they run, further requests are collected and stored
    /// together in the next one: more writers make smaller groups, which cost the database more for each message.
    #[arg(
        long,
        env = "NOTIHUB_INTAKE_WRITERS",
        default_value_t = 2,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(1..=16)
    )]
    pub intake_writers: u16,
    /// Unfinished deliveries that a partner may have in a lane. Further ones keep their order and wait behind other
    /// partners'; if there are none, they are sent at full speed. A very large number turns this off.
    #[arg(
        long,
        env = "NOTIHUB_FAIR_UNFINISHED",
        default_value_t = 200,
        value_name = "N",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub fair_unfinished: u64,
}

/// Settings of the workers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct Work {
    /// Deliveries of one channel that a worker process holds at a time, if the provider accepts as many.
    #[arg(
        long,
        env = "NOTIHUB_IN_FLIGHT",
        default_value_t = 2048,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=65_536)
    )]
    pub in_flight: u32,
    /// Most deliveries claimed in one statement.
    #[arg(
        long,
        env = "NOTIHUB_CLAIM_BATCH",
        default_value_t = 500,
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=5_000)
    )]
    pub claim_batch: u32,
    /// Milliseconds between queries for work while idle. Notifications wake a worker sooner; these queries find work
    /// whose notification was lost.
    #[arg(
        long,
        env = "NOTIHUB_POLL_IDLE_MS",
        default_value_t = 1000,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(10..=60_000)
    )]
    pub poll_idle_ms: u64,
    /// Milliseconds between queries for work while busy.
    #[arg(
        long,
        env = "NOTIHUB_POLL_BUSY_MS",
        default_value_t = 250,
        value_name = "MS",
        value_parser = clap::value_parser!(u64).range(10..=60_000)
    )]
    pub poll_busy_ms: u64,
    /// Seconds between rounds of `fsck --watch` in one of the workers, which raises an alert when an invariant is
    /// broken. Without it no worker checks: a round costs about a fifth of a core.
    #[arg(
        long,
        env = "NOTIHUB_FSCK_EVERY_S",
        value_name = "S",
        value_parser = clap::value_parser!(u32).range(10..=300)
    )]
    pub fsck_every_s: Option<u32>,
}

/// The times that bound a worker's work, in milliseconds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing")]
pub struct Timing {
    /// Milliseconds that a provider has to answer, including connecting and reading. Must exceed 10,000, the statement
    /// time-out.
    #[arg(long, env = "NOTIHUB_CALL_BUDGET_MS", default_value_t = 15_000, value_name = "MS")]
    pub call_budget_ms: u64,
    /// Milliseconds of the call budget that connecting may use.
    #[arg(long, env = "NOTIHUB_CONNECT_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub connect_budget_ms: u64,
    /// Milliseconds reserved for storing an outcome before the lease ends.
    #[arg(long, env = "NOTIHUB_SETTLE_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub settle_budget_ms: u64,
    /// Milliseconds of safety between storing the outcome and the end of the lease.
    #[arg(long, env = "NOTIHUB_LEASE_MARGIN_MS", default_value_t = 5_000, value_name = "MS")]
    pub lease_margin_ms: u64,
    /// Milliseconds of a lease. When it ends, other workers take the delivery back.
    #[arg(long, env = "NOTIHUB_LEASE_MS", default_value_t = 30_000, value_name = "MS")]
    pub lease_ms: u64,
    /// Milliseconds between queries for deliveries whose lease has ended.
    #[arg(long, env = "NOTIHUB_REAP_EVERY_MS", default_value_t = 5_000, value_name = "MS")]
    pub reap_every_ms: u64,
    /// Milliseconds between queries for scheduled deliveries and retries that are due.
    #[arg(long, env = "NOTIHUB_PROMOTE_EVERY_MS", default_value_t = 200, value_name = "MS")]
    pub promote_every_ms: u64,
    /// Milliseconds that a stopping process has to finish its calls and store their outcomes.
    #[arg(long, env = "NOTIHUB_SHUTDOWN_GRACE_MS", default_value_t = 25_000, value_name = "MS")]
    pub shutdown_grace_ms: u64,
}

impl Timing {
    /// `--call-budget-ms`.
    pub fn call_budget(&self) -> Duration {
        Duration::from_millis(self.call_budget_ms)
    }

    /// `--connect-budget-ms`.
    pub fn connect_budget(&self) -> Duration {
        Duration::from_millis(self.connect_budget_ms)
    }

    /// `--lease-ms`.
    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How long after its claim was sent a call may still begin so that it and its outcome fit into the lease.
    pub fn begin_within(&self) -> Duration {
        Duration::from_millis(
            self.lease_ms.saturating_sub(self.call_budget_ms + self.settle_budget_ms + self.lease_margin_ms),
        )
    }

    /// How long a call may continue once the process stops; the rest of the grace is for storing its outcome. At least
    /// the call budget.
    pub fn call_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms.saturating_sub(self.settle_budget_ms))
    }

    /// `--shutdown-grace-ms`.
    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }
}

/// Reads `*` or an origin as browsers send it: scheme, host, and port if it is not the scheme's own.
fn origin(text: &str) -> Result<String, String> {
    let is_origin = |url: url::Url| url.origin().ascii_serialization() == text && url.has_host();
    if text == "*" || url::Url::parse(text).is_ok_and(is_origin) {
        return Ok(text.to_owned());
    }
    Err("give * or an origin as browsers send it: https://app.example.com, with a port only if it is unusual"
        .to_owned())
}

fn header_name(text: &str) -> Result<String, &'static str> {
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| text.to_owned()).ok_or("a header name may have only letters, digits and '-', as in X-Forwarded-For")
}
