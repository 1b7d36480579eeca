//! The testbed of a scenario: a database of its own, a hub whose providers do nothing, and measurements of its cost.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::super::pg::{PgPlace, PrivatePg};
use super::super::process;
use crate::clock::Clock;
use crate::config::Settings;
use crate::error::{Error, Result};
use crate::flow::partner::{Credentials, PartnerChange};
use crate::http::server::ServerLimits;
use crate::hub::{Hub, Parts};
use crate::model::access::principal::{Actor, Origin};
use crate::model::capability::Capability;
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::Outcome;
use crate::model::partner::Partner;
use crate::provider::{Account, BoxFuture, Provider, Providers, SendRequest};
use crate::shutdown::Shutdown;
use crate::store::bench;
use crate::{api, flow, http, worker};

/// The PostgreSQL server that all scenarios of a run share.
pub struct BenchServer {
    url: String,
    own: Option<(Shutdown, std::path::PathBuf)>,
}

impl BenchServer {
    /// Uses the server of `--database-url`, or starts a private one in a temporary folder.
    ///
    /// # Errors
    /// `Error::Setup` if the private server cannot start.
    pub async fn prepare(settings: &Settings) -> Result<BenchServer> {
        if let Some(url) = &settings.database.database_url {
            return Ok(BenchServer { url: url.clone(), own: None });
        }
        let folder = match &settings.database.data_dir {
            Some(folder) => folder.clone(),
            None => std::path::PathBuf::from(format!("/var/tmp/notihub-bench-{}", std::process::id())),
        };
        let ground = Shutdown::new();
        let mut pg = PrivatePg::start(PgPlace { data_dir: folder.clone(), throw_away: false }).await?;
        let url = pg.url().to_owned();
        let stop = ground.clone();
        ground.spawn(async move {
            pg.supervise(stop.stopping()).await;
            if let Err(e) = pg.stop().await {
                tracing::error!(error = %e, "the private PostgreSQL did not stop as it should");
            }
        });
        Ok(BenchServer { url, own: Some((ground, folder)) })
    }

    /// The URL of the server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The process id of the postmaster, if the server is a private one.
    pub fn postmaster(&self) -> Option<i32> {
        let (_, folder) = self.own.as_ref()?;
        let file = std::fs::read_to_string(folder.join("pg/postmaster.pid")).ok()?;
        file.lines().next()?.trim().parse().ok()
    }

    /// Suspends all processes of a private server for `long`.
    pub async fn stall(&self, long: Duration) {
        let Some(postmaster) = self.postmaster() else { return };
        // The postmaster first, so that it starts no further children.
        signal(postmaster, Signal::SIGSTOP);
        let children = children(postmaster);
        children.iter().for_each(|child| signal(*child, Signal::SIGSTOP));
        tokio::time::sleep(long).await;
        children.iter().for_each(|child| signal(*child, Signal::SIGCONT));
        signal(postmaster, Signal::SIGCONT);
    }

    /// Stops a private server and deletes its folder.
    pub async fn stop(self) {
        if let Some((ground, folder)) = self.own {
            ground.stop();
            ground.drained(Duration::from_secs(30)).await;
            if let Err(e) = std::fs::remove_dir_all(&folder) {
                tracing::error!(error = %e, folder = %folder.display(), "the bench's folder could not be removed");
            }
        }
    }
}

/// The type of messages whose wait is not recorded: those of a flood, and those that had waited before the measurement.
pub const FLOOD: &str = "FLOOD";

/// A provider that accepts everything at once and records the waits.
pub struct NoopProvider {
    channel: Channel,
    clock: Clock,
    pub calls: Arc<AtomicU64>,
    /// The microseconds from acceptance to call.
    pub waits: Arc<Mutex<Histogram<u64>>>,
    /// The time of each message's call, for `latency`.
    pub called: Arc<Mutex<Option<std::collections::HashMap<crate::id::Tsid, Instant>>>>,
}

impl Provider for NoopProvider {
    fn name(&self) -> &'static str {
        "noop"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { on_unknown: OnUnknown::Retry, ..Capability::of(self.channel) }]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        let now = Instant::now();
        let waited = (self.clock.now() - letter.created_at).num_microseconds().unwrap_or(0).max(1).unsigned_abs();
        // A wait beyond the histogram's range is recorded as the longest.
        if letter.kind != FLOOD {
            self.waits.lock().unwrap_or_else(PoisonError::into_inner).saturating_record(waited);
        }
        if let Some(called) = self.called.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            called.insert(letter.key.message_id, now);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(Outcome::Accepted { provider_ref: None }))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok("does nothing".into())))
    }
}

/// A hub with its API and a database of its own.
pub struct Testbed {
    pub hub: Hub,
    /// The partner that posts, without a rate limit.
    pub partner: Arc<Partner>,
    pub credentials: Credentials,
    /// An access token of this partner.
    pub token: String,
    pub api: String,
    pub database_url: String,
    pub calls: Arc<AtomicU64>,
    pub waits: Arc<Mutex<Histogram<u64>>>,
    pub called: Arc<Mutex<Option<std::collections::HashMap<crate::id::Tsid, Instant>>>>,
    server_url: String,
    name: String,
    postmaster: Option<u32>,
}

impl Testbed {
    /// Makes a database on the server and starts a hub with the provider that does nothing.
    ///
    /// # Errors
    /// Any error of the database or the hub; the database may stay.
    pub async fn start(settings: &Settings, ground: &BenchServer) -> Result<Testbed> {
        Testbed::start_with(settings, ground, Vec::new()).await
    }

    /// As [`Testbed::start`], with these further providers.
    ///
    /// # Errors
    /// As [`Testbed::start`].
    pub async fn start_with(
        settings: &Settings,
        ground: &BenchServer,
        further: Vec<Arc<dyn Provider>>,
    ) -> Result<Testbed> {
        let stamp = Clock::system().unix_millis();
        let name = format!("notihub_bench_{}_{stamp}", std::process::id());
        let database_url = bench::create_database(&ground.url, &name).await?;
        let store = process::open_store(&settings.database, &database_url)?;
        store.migrate().await?;
        store.close().await;
        let (hub, NoopCounters { calls, waits, called }) = noop_hub(settings, &database_url, further).await?;
        let (partner, credentials) = posting_partner(&hub, "bench").await?;
        let token = sign_in(&hub, &credentials).await?;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|e| Error::Setup(format!("no port is free on loopback: {e}")))?;
        let address = listener.local_addr().map_err(|e| Error::Internal(e.to_string()))?;
        let streams = usize::try_from(settings.api.live_connections).unwrap_or(usize::MAX);
        let allowance = ServerLimits { streams, ..ServerLimits::default() };
        http::server::start_with(allowance, listener, api::router(&hub), &hub.shutdown);
        let postmaster = postmaster(&hub).await;
        let server_url = ground.url.clone();
        let api = format!("{address}");
        Ok(Testbed {
            hub,
            partner: Arc::new(partner),
            credentials,
            token,
            api,
            database_url,
            calls,
            waits,
            called,
            server_url,
            name,
            postmaster,
        })
    }

    /// The number of calls to the provider that does nothing.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes the recorded waits, in microseconds.
    pub fn take_waits(&self) -> Histogram<u64> {
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = waits.clone();
        waits.reset();
        taken
    }

    /// The resources used so far.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn cost(&self) -> Result<Cost> {
        Ok(Cost {
            at: Instant::now(),
            ours_cpu_s: cpu_seconds(std::process::id(), false),
            pg_cpu_s: self.postmaster.map(|pid| cpu_seconds(pid, true)),
            wal_bytes: bench::wal_bytes(self.hub.store.api()).await?,
            transactions: bench::transactions(self.hub.store.api()).await?,
            dead_rows: bench::dead_rows(self.hub.store.api()).await?,
        })
    }

    /// Stops the hub, checks the invariants and drops the database. Returns the number of findings, which are logged.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached; the database then stays.
    pub async fn clear(self) -> Result<usize> {
        self.hub.shutdown.stop();
        self.hub.shutdown.drained(Duration::from_secs(60)).await;
        let findings = flow::fsck::fsck(&self.hub.store, self.hub.clock.now(), |_| ()).await?;
        for finding in findings.iter().take(5) {
            tracing::error!(?finding, "fsck");
        }
        self.hub.store.close().await;
        bench::drop_database(&self.server_url, &self.name).await?;
        Ok(findings.len())
    }
}

/// Signs in and returns an access token.
///
/// # Errors
/// As `flow::sign_in::sign_in`.
pub async fn sign_in(hub: &Hub, Credentials { client_id, client_secret }: &Credentials) -> Result<String> {
    Ok(flow::sign_in::sign_in(hub, client_id, client_secret, &Origin::default()).await?.access)
}

/// Makes a partner and signs it in. Returns it with an access token.
///
/// # Errors
/// As `flow::partner::create`.
pub async fn signed_in_partner(hub: &Hub, change: PartnerChange) -> Result<(Partner, String)> {
    let admin = Actor::local_admin("bench".into());
    let (partner, credentials) = flow::partner::create(hub, admin.admin_permit()?, change).await?;
    Ok((partner, sign_in(hub, &credentials).await?))
}

/// Makes a partner with a rate limit that is never reached.
///
/// # Errors
/// As `flow::partner::create`.
pub async fn posting_partner(hub: &Hub, name: &str) -> Result<(Partner, Credentials)> {
    let admin = Actor::local_admin("bench".into());
    let change =
        PartnerChange { name: Some(name.to_owned()), rate_limit_tps: Some(1_000_000_000), ..PartnerChange::default() };
    flow::partner::create(hub, admin.admin_permit()?, change).await
}

/// The records of the provider that does nothing.
pub struct NoopCounters {
    calls: Arc<AtomicU64>,
    waits: Arc<Mutex<Histogram<u64>>>,
    called: Arc<Mutex<Option<std::collections::HashMap<crate::id::Tsid, Instant>>>>,
}

/// A hub on a migrated database, with an e-mail provider that does nothing and these further providers. It starts no
/// loops.
///
/// # Errors
/// `Error::Setup` if the server may lose confirmed transactions; `Error::Unavailable` if the database cannot be
/// reached.
pub async fn noop_hub(
    settings: &Settings,
    database_url: &str,
    further: Vec<Arc<dyn Provider>>,
) -> Result<(Hub, NoopCounters)> {
    let store = process::open_store(&settings.database, database_url)?;
    process::check_durability(&store, false).await?;
    let clock = Clock::system();
    let histogram = Histogram::new_with_max(3_600_000_000, 3).map_err(|e| Error::Internal(e.to_string()))?;
    let watched = NoopCounters {
        calls: Arc::default(),
        waits: Arc::new(Mutex::new(histogram)),
        called: Arc::new(Mutex::new(None)),
    };
    let noop: Arc<dyn Provider> = Arc::new(NoopProvider {
        channel: Channel::Email,
        clock: clock.clone(),
        calls: watched.calls.clone(),
        waits: watched.waits.clone(),
        called: watched.called.clone(),
    });
    let parts = Parts {
        settings: settings.clone(),
        store,
        providers: Providers::new(further.into_iter().chain([noop]).map(Account::from))?,
        clock,
        shutdown: Shutdown::new(),
        master_keys: settings.database.master_keys.clone(),
    };
    let hub = flow::start(parts).await?;
    worker::calibrate(hub.clone()).await?;
    flow::retain::retain(&hub).await?;
    Ok((hub, watched))
}

/// The resources used up to a moment.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub at: Instant,
    pub ours_cpu_s: f64,
    pub pg_cpu_s: Option<f64>,
    pub wal_bytes: f64,
    /// Committed transactions.
    pub transactions: f64,
    pub dead_rows: i64,
}

async fn postmaster(hub: &Hub) -> Option<u32> {
    let folder = bench::data_directory(hub.store.api()).await?;
    let pid = std::fs::read_to_string(format!("{folder}/postmaster.pid")).ok()?;
    pid.lines().next()?.trim().parse().ok()
}

fn signal(pid: i32, signal: Signal) {
    // Fails only if the process has ended.
    let _gone = kill(Pid::from_raw(pid), signal);
}

fn children(parent: i32) -> Vec<i32> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let parent_of = |pid: i32| -> Option<i32> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        text.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The CPU seconds of a process; with `family` also of its children, running and ended.
fn cpu_seconds(pid: u32, family: bool) -> f64 {
    const TICKS_PER_S: f64 = 100.0;
    let stat = |pid: u32| -> Option<(u32, u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |n: usize| fields.get(n)?.parse::<u64>().ok();
        Some((u32::try_from(number(1)?).ok()?, number(11)? + number(12)?, number(13)? + number(14)?))
    };
    let Some((_, own, gone)) = stat(pid) else { return 0.0 };
    let mut ticks = own;
    if family {
        ticks += gone;
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        ticks += pids.filter_map(stat).filter(|(parent, ..)| *parent == pid).map(|(_, own, _)| own).sum::<u64>();
    }
    ticks as f64 / TICKS_PER_S
}

/// Memory of a process in MB.
pub struct Memory {
    /// Resident now, the program's file included.
    pub resident: f64,
    /// Resident at its highest.
    pub highest: f64,
    /// Of the resident memory what is its own: without the pages of the program's file, which processes share and
    /// the system takes back when it needs memory.
    pub own: f64,
}

/// Reads the memory of this process; zeros where the system does not say.
pub fn memory_mb() -> Memory {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kb = |name: &str| {
        let line = text.lines().find(|l| l.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<f64>().ok()
    };
    let mb = |name: &str| kb(name).unwrap_or(0.0) / 1000.0;
    Memory { resident: mb("VmRSS:"), highest: mb("VmHWM:"), own: mb("RssAnon:") }
}
