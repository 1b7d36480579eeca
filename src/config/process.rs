//! The processes: the API, the workers, and the times that bound their work.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "API")]
pub struct Api {
    /// Address and port the API listens on.
    #[arg(long, env = "NOTIHUB_LISTEN", default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// A proxy of yours stands in front: a caller's address is the last that it wrote into `--proxy-header`. Without a
    /// proxy anybody could write there what they like.
    #[arg(long, env = "NOTIHUB_BEHIND_PROXY")]
    pub behind_proxy: bool,
    /// The header in which the proxy writes its caller's address: a list as X-Forwarded-For, one address as X-Real-IP,
    /// or Forwarded (RFC 7239). The proxy must write it into every request, or callers can.
    #[arg(long, env = "NOTIHUB_PROXY_HEADER", default_value = "x-forwarded-for", value_name = "NAME", value_parser = header_name)]
    pub proxy_header: String,
    /// Where /metrics is served without sign-in, for a scraper on a private network. On the API's own port an operator's
    /// token is needed.
    #[arg(long, env = "NOTIHUB_METRICS_LISTEN", value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Transactions that write accepted messages at the same time. While they write, further requests gather and go
    /// together in the next.
    #[arg(long, env = "NOTIHUB_INTAKE_WRITERS", default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub intake_writers: u16,
    /// Deliveries a partner may have unfinished in a lane; what it posts beyond that gives way to others, in the order it
    /// came, and is as fast as ever while there are none. A huge number turns this off.
    #[arg(long, env = "NOTIHUB_FAIR_UNFINISHED", default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub fair_unfinished: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Workers")]
pub struct Work {
    /// Deliveries of one channel that one worker process holds at a time, if its provider takes as many.
    #[arg(long, env = "NOTIHUB_IN_FLIGHT", default_value_t = 2048, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub in_flight: u32,
    /// Deliveries claimed at once, at most.
    #[arg(long, env = "NOTIHUB_CLAIM_BATCH", default_value_t = 500, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5_000))]
    pub claim_batch: u32,
    /// Milliseconds between looks for work while idle. Hints wake a worker sooner; looking is what guarantees.
    #[arg(long, env = "NOTIHUB_POLL_IDLE_MS", default_value_t = 1000, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub poll_idle_ms: u64,
    /// Milliseconds between looks for work while there is some.
    #[arg(long, env = "NOTIHUB_POLL_BUSY_MS", default_value_t = 250, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..=60_000))]
    pub poll_busy_ms: u64,
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing")]
pub struct Timing {
    /// Milliseconds a provider has to answer, connecting and reading included. More than 10,000, the longest a statement
    /// may run.
    #[arg(long, env = "NOTIHUB_CALL_BUDGET_MS", default_value_t = 15_000, value_name = "MS")]
    pub call_budget_ms: u64,
    /// Milliseconds of the call budget that connecting may take.
    #[arg(long, env = "NOTIHUB_CONNECT_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub connect_budget_ms: u64,
    /// Milliseconds kept for writing an outcome before the lease ends.
    #[arg(long, env = "NOTIHUB_SETTLE_BUDGET_MS", default_value_t = 5_000, value_name = "MS")]
    pub settle_budget_ms: u64,
    /// Milliseconds kept between the last write and the end of the lease.
    #[arg(long, env = "NOTIHUB_LEASE_MARGIN_MS", default_value_t = 5_000, value_name = "MS")]
    pub lease_margin_ms: u64,
    /// Milliseconds a worker may hold a delivery. When it is over, others take the delivery back.
    #[arg(long, env = "NOTIHUB_LEASE_MS", default_value_t = 30_000, value_name = "MS")]
    pub lease_ms: u64,
    /// Milliseconds between looks for deliveries whose lease is over.
    #[arg(long, env = "NOTIHUB_REAP_EVERY_MS", default_value_t = 5_000, value_name = "MS")]
    pub reap_every_ms: u64,
    /// Milliseconds between looks for scheduled deliveries and retries that are due.
    #[arg(long, env = "NOTIHUB_PROMOTE_EVERY_MS", default_value_t = 200, value_name = "MS")]
    pub promote_every_ms: u64,
    /// Milliseconds a stopping process has to finish its calls and write their outcomes.
    #[arg(long, env = "NOTIHUB_SHUTDOWN_GRACE_MS", default_value_t = 25_000, value_name = "MS")]
    pub shutdown_grace_ms: u64,
}

impl Timing {
    pub fn call_budget(&self) -> Duration {
        Duration::from_millis(self.call_budget_ms)
    }

    pub fn connect_budget(&self) -> Duration {
        Duration::from_millis(self.connect_budget_ms)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// How long after its claim was sent a call may still begin.
    pub fn begin_within(&self) -> Duration {
        Duration::from_millis(
            self.lease_ms.saturating_sub(self.call_budget_ms + self.settle_budget_ms + self.lease_margin_ms),
        )
    }

    /// How long a call may go on once the process stops: what is left of the grace is for writing its outcome. At least
    /// a call budget.
    pub fn call_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms.saturating_sub(self.settle_budget_ms))
    }

    pub fn shutdown_grace(&self) -> Duration {
        Duration::from_millis(self.shutdown_grace_ms)
    }
}

fn header_name(text: &str) -> Result<String, &'static str> {
    let is_name = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    is_name.then(|| text.to_owned()).ok_or("a header's name is letters, digits and '-', as in X-Forwarded-For")
}
