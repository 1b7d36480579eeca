//! Faults under load. Each fault runs against real processes: an API, two workers, PostgreSQL, a provider that records
//! what it receives, and clients that record their answers. Afterwards the records are compared. Each fault runs a
//! second time with its defence turned off, and the comparison must then find objections; otherwise it would prove
//! nothing.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::process::{Child, Command};

use super::super::{Output, client, print, process};
use super::endpoint::{Endpoint, EndpointBehavior};
use super::judge::{Allowed, Doubt, Ending, EventCheck, Objections, Promises, check, check_events};
use super::report::{Figure, Goal, print_figure, table};
use super::sizes::Sizes;
use super::testbed::{self, BenchServer};
use crate::clock::Clock;
use crate::config::{Database, Settings};
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::partner::Credentials;
use crate::id::Tsid;
use crate::model::delivery::Status;
use crate::provider::simulator::smtp::SmtpSimulator;
use crate::provider::simulator::{Behaviour, slack::SlackSimulator, smtp};
use crate::shutdown::Shutdown;
use crate::store::{Store, bench};

/// A fault, and the effects that it may have.
struct Fault {
    name: &'static str,
    /// Additional flags of the hub's processes; the second list is for the control run.
    flags: &'static [(&'static str, &'static str)],
    control_flags: &'static [(&'static str, &'static str)],
    disturbance: Disturbance,
    /// The disturbance of the control run; none if there is no defence to turn off.
    control_act: Option<Disturbance>,
    allowed: Allowed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disturbance {
    /// Every two seconds a worker ends by this signal and another one replaces it. A killed worker is in the middle of
    /// calls; one that is terminated must end with exit code 0.
    EndWorkers(Signal),
    /// Every second and a half the API is killed in the middle of requests, and started again.
    KillApi,
    /// The same, and clients repeat unanswered messages with new keys.
    KillApiForgetful,
    /// PostgreSQL is killed twice with SIGKILL.
    KillPostgres,
    /// The same, on a database that confirms commits before they are on disk.
    KillPostgresTooEarly,
    /// Some responses of the provider are cut after it accepted the message.
    CutAnswers,
    /// The provider accepts forty messages without answering.
    Hang,
    /// Three thousand refusals in a row: 503, then 429.
    Storm,
    /// The table of deliveries is locked for three seconds while all clients post at once.
    Lock,
    /// The partner's endpoint answers 500 to the first attempt of every other event, and workers are killed at random.
    Flap,
    /// One worker after the other is suspended in the middle of calls for longer than a lease, and then continues.
    StopWorkers,
    /// Both workers are killed three times between claim and call, where a read waits for a lock. Clients pause, so
    /// that the same deliveries are claimed each time.
    KillBeforeCall,
    /// PostgreSQL is suspended repeatedly for longer than the lease's margin, and once for longer than a lease. Some
    /// calls are not answered.
    StallPostgres,
    /// The partner's endpoint is ordered and answers 500 to the first attempt of every other event.
    Order,
    /// The same endpoint without order.
    Disorder,
    /// The Slack hook accepts five posts a second and answers the others with 429 and `Retry-After`.
    Throttle,
    /// The mail server refuses the first attempt for every recipient (greylisting).
    Greylist,
}

impl Disturbance {
    /// Messages a second, all clients together.
    fn rate(self) -> u32 {
        match self {
            Disturbance::Flap | Disturbance::Order | Disturbance::Disorder => RATE_HEARD,
            Disturbance::Throttle => RATE_THROTTLED,
            Disturbance::Greylist => RATE_MAILED,
            _ => RATE,
        }
    }

    /// The behaviour of the partner's endpoint, and whether it is ordered; none without an endpoint.
    fn endpoint(self) -> Option<(EndpointBehavior, bool)> {
        match self {
            Disturbance::Flap | Disturbance::Disorder => Some((EndpointBehavior::Flapping, false)),
            Disturbance::Order => Some((EndpointBehavior::Flapping, true)),
            _ => None,
        }
    }

    fn is_of_postgres(self) -> bool {
        matches!(self, Disturbance::KillPostgres | Disturbance::KillPostgresTooEarly | Disturbance::StallPostgres)
    }
}

const NO_DUPLICATES: Allowed = Allowed { duplicates: false, undetermined: Doubt::OfNothing };
const DUPLICATES: Allowed = Allowed { duplicates: true, undetermined: Doubt::OfNothing };

const FAULTS: [Fault; 15] = [
    Fault {
        name: "worker-killed",
        flags: &[],
        // No reaping of the deliveries that a dead worker held.
        control_flags: &[("--reap-every-ms", "3600000")],
        disturbance: Disturbance::EndWorkers(Signal::SIGKILL),
        control_act: Some(Disturbance::EndWorkers(Signal::SIGKILL)),
        allowed: DUPLICATES,
    },
    Fault {
        name: "worker-stopped",
        flags: &[],
        control_flags: &[],
        disturbance: Disturbance::EndWorkers(Signal::SIGTERM),
        control_act: Some(Disturbance::EndWorkers(Signal::SIGKILL)),
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "api-killed",
        flags: &[],
        control_flags: &[],
        disturbance: Disturbance::KillApi,
        control_act: Some(Disturbance::KillApiForgetful),
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "postgres-killed",
        flags: &[],
        control_flags: &[("--accept-loss", "true")],
        disturbance: Disturbance::KillPostgres,
        control_act: Some(Disturbance::KillPostgresTooEarly),
        allowed: DUPLICATES,
    },
    Fault {
        name: "answers-cut",
        flags: &[("--on-unknown", "SLACK=hold")],
        control_flags: &[("--on-unknown", "SLACK=retry")],
        disturbance: Disturbance::CutAnswers,
        control_act: Some(Disturbance::CutAnswers),
        allowed: Allowed { duplicates: false, undetermined: Doubt::OfTaken },
    },
    Fault {
        name: "provider-hangs",
        flags: &[],
        control_flags: &[("--retry-max-attempts", "1")],
        disturbance: Disturbance::Hang,
        control_act: Some(Disturbance::Hang),
        allowed: DUPLICATES,
    },
    Fault {
        name: "provider-storms",
        flags: &[("--retry-max-attempts", "8")],
        control_flags: &[("--retry-max-attempts", "1")],
        disturbance: Disturbance::Storm,
        control_act: Some(Disturbance::Storm),
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "table-locked",
        // Fewer connections than clients: the pool is exhausted as well.
        flags: &[("--intake-connections", "1"), ("--intake-writers", "1")],
        control_flags: &[],
        disturbance: Disturbance::Lock,
        control_act: None,
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "webhook",
        flags: &LOOPBACK,
        // No reaping of the deliveries that a dead worker held.
        control_flags: &[("--reap-every-ms", "3600000")],
        disturbance: Disturbance::Flap,
        control_act: Some(Disturbance::Flap),
        allowed: DUPLICATES,
    },
    Fault {
        name: "stopped-longer-than-lease",
        // A worker that goes on after its lease does not call, or a second copy is sent.
        flags: &[("--on-unknown", "SLACK=hold")],
        control_flags: &[("--on-unknown", "SLACK=retry")],
        disturbance: Disturbance::StopWorkers,
        control_act: Some(Disturbance::StopWorkers),
        allowed: Allowed { duplicates: false, undetermined: Doubt::OfTaken },
    },
    Fault {
        name: "killed-between-claim-and-call",
        // With `hold`, the database proves that no call began.
        flags: &[("--on-unknown", "SLACK=hold")],
        // No reaping of the deliveries that a dead worker held.
        control_flags: &[("--reap-every-ms", "3600000")],
        disturbance: Disturbance::KillBeforeCall,
        control_act: Some(Disturbance::KillBeforeCall),
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "database-stalls",
        flags: &[],
        control_flags: &[("--retry-max-attempts", "1")],
        disturbance: Disturbance::StallPostgres,
        control_act: Some(Disturbance::StallPostgres),
        allowed: DUPLICATES,
    },
    Fault {
        name: "ordered-endpoint",
        flags: &LOOPBACK,
        control_flags: &[],
        disturbance: Disturbance::Order,
        control_act: Some(Disturbance::Disorder),
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "throttling-hooks",
        flags: &[],
        control_flags: &[],
        disturbance: Disturbance::Throttle,
        control_act: None,
        allowed: NO_DUPLICATES,
    },
    Fault {
        name: "greylisting",
        // As often as in the default schedule, but in seconds.
        flags: &[
            ("--email", "smtp"),
            ("--smtp-tls", "none"),
            ("--smtp-throttled-pause-s", "1"),
            ("--retry-schedule", "EMAIL=backoff"),
            ("--retry-max-attempts", "8"),
        ],
        control_flags: &[("--retry-max-attempts", "1")],
        disturbance: Disturbance::Greylist,
        control_act: Some(Disturbance::Greylist),
        allowed: NO_DUPLICATES,
    },
];

/// The fault of rooms, which `live_fault` runs.
pub const LIVE: &str = "live";

pub const NAMES: [&str; FAULTS.len() + 1] = {
    let mut names = [LIVE; FAULTS.len() + 1];
    let mut n = 0;
    while n < FAULTS.len() {
        names[n] = FAULTS[n].name;
        n += 1;
    }
    names
};

/// Time limits as short as their rules allow, so that recovery happens within a run.
const FLAGS: [(&str, &str); 9] = [
    ("--call-budget-ms", "10001"),
    ("--connect-budget-ms", "2000"),
    ("--settle-budget-ms", "300"),
    ("--lease-margin-ms", "200"),
    ("--lease-ms", "11600"),
    ("--reap-every-ms", "250"),
    ("--shutdown-grace-ms", "12000"),
    ("--email", "off"),
    ("--log", "error"),
];

/// Allows endpoints on this machine.
const LOOPBACK: [(&str, &str); 2] = [("--webhook-allow-http", "true"), ("--webhook-allow-network", "127.0.0.0/8")];

/// Clients, each posting batches of so many, so many a second in all …
const CLIENTS: u32 = 8;
const BATCH: usize = 10;
const RATE: u32 = 1_500;
/// … or, where each message is three webhooks besides: some ten thousand in 15 s …
const RATE_HEARD: u32 = 700;
/// … or six times as many as a hook takes, one a second …
const RATE_THROTTLED: u32 = 6;
const HOOK_TAKES_ONE_IN: Duration = Duration::from_secs(1);
/// … or each of them a mail that is refused once, with a connection for each.
const RATE_MAILED: u32 = 300;
/// A lease and the reaping after it, with the flags above.
const LEASE: Duration = Duration::from_millis(11_600 + 1_000);
/// Messages posted before workers are killed before their calls: few enough to be claimed all at once, so that the same
/// deliveries are held each time.
const CLAIMED: u64 = 40;
/// What goes on after the last fault, so that what was held up has company.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Longest wait for endings once the faults have stopped: a lease, and every retry's pause.
const PATIENCE: Duration = Duration::from_secs(90);
/// A control that is stuck stays stuck.
const PATIENCE_CONTROL: Duration = Duration::from_secs(20);

/// Runs the named faults, or all. Returns whether every promise was kept and every control run had objections.
///
/// # Errors
/// Any error of the processes under test or the database; further faults are not run.
pub async fn run(
    names: &[String],
    settings: &Settings,
    sizes: &Sizes,
    server: &BenchServer,
    output: Output,
) -> Result<bool> {
    let mut all_reached = true;
    let mut accepted = 0;
    let mut lost = 0;
    for fault in &FAULTS {
        if !names.is_empty() && !names.iter().any(|name| name == fault.name) {
            continue;
        }
        if fault.disturbance.is_of_postgres() && server.postmaster().is_none() {
            let why = "left out: it kills or stops PostgreSQL, and this one is not ours. Run it without --database-url";
            print_line(fault.name, why);
            continue;
        }
        let mut figures = Vec::new();
        let mut add = |name: &str, value: f64, unit: &'static str, goal: Option<Goal>| {
            let mut figure = Figure::new(fault.name, name, value, unit);
            figure.goal = goal;
            print_figure(&figure, output);
            figures.push(figure);
        };
        let none = Some(Goal::AtMost(0.0));
        let outcome = Round::new(fault, settings, false, sizes.seconds).run(server).await?;
        let (found, objections) = (&outcome.found, outcome.objections(fault.allowed));
        accepted += found.accepted;
        lost += found.lost;
        add("acknowledged", found.accepted as f64, "messages", None);
        add("lost", found.lost as f64, "messages", none);
        add("never accepted", found.refused as f64, "messages", none);
        add("accepted twice", found.accepted_twice as f64, "messages", none);
        add(
            "duplicates at the provider",
            found.duplicates as f64,
            "copies",
            none.filter(|_| !fault.allowed.duplicates),
        );
        add("copies the books do not admit", found.unexplained as f64, "copies", none);
        let doubt = none.filter(|_| fault.allowed.undetermined == Doubt::OfNothing);
        add("undetermined", found.undetermined as f64, "deliveries", doubt);
        let wrong = found.denied + found.invented + found.stuck + found.failed + found.doubted;
        add("wrong endings, or none", wrong as f64, "deliveries", none);
        add("processes that ended badly", outcome.ended_badly as f64, "", none);
        add("longest time without an acceptance", outcome.silence_of_intake.as_secs_f64(), "s", None);
        // An ordered endpoint must not delay others.
        let silence = Some(Goal::AtMost(10.0)).filter(|_| fault.disturbance == Disturbance::Order);
        add("longest time without a delivery", outcome.silence_of_delivery.as_secs_f64(), "s", silence);
        if let Some(events_found) = &outcome.events_found {
            add("events", events_found.events as f64, "", None);
            add("events never heard", events_found.unheard as f64, "", none);
            add("events heard that never happened", events_found.strange as f64, "", none);
            add("events that were another when they came again", events_found.changed as f64, "", none);
            if fault.disturbance == Disturbance::Order {
                add("events taken before one that precedes them", events_found.disordered as f64, "", none);
            }
            add("copies of events", events_found.duplicates as f64, "", None);
            add("of them refused at first", outcome.refused as f64, "", None);
        }
        if let Some(refused) = outcome.refused_by_provider {
            add("refused by the provider for now", refused as f64, "calls", Some(Goal::AtLeast(1.0)));
        }
        add("all ended after the load", outcome.ended_after.as_secs_f64(), "s", None);
        add("fsck findings", outcome.findings as f64, "rows", none);
        for objection in objections {
            print_line(fault.name, &format!("the judge objects: {objection}"));
        }
        if fault.control_act.is_none() {
            print_line(fault.name, "no control: there is no defence that could be turned off");
        } else {
            let control = Round::new(fault, settings, true, sizes.seconds.min(8)).run(server).await?;
            let objections = control.objections(fault.allowed);
            print_line(fault.name, &format!("with the defence off the judge objects: {}", objections.join("; ")));
            add("objections with the defence off", objections.len() as f64, "", Some(Goal::AtLeast(1.0)));
        }
        all_reached &= figures.iter().all(|figure| figure.reached() != Some(false));
        if output == Output::Text {
            table(&figures);
        }
    }
    print_line(
        "faults",
        &format!("{accepted} acknowledged, {lost} lost; the hub's own logs are in {}", complaints().display()),
    );
    Ok(all_reached)
}

/// Prints a line about a fault.
pub fn print_line(name: &str, text: &str) {
    anstream::eprintln!("{} {text}", print::paint(print::DIM, name));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The result of a round.
struct RoundResult {
    found: Objections,
    /// The check of the endpoint, if there is one.
    events_found: Option<EventCheck>,
    /// The events whose first attempt the endpoint refused.
    refused: u64,
    /// The refusals by the provider, if they are the fault.
    refused_by_provider: Option<u64>,
    ended_badly: u64,
    findings: usize,
    silence_of_intake: Duration,
    silence_of_delivery: Duration,
    ended_after: Duration,
}

impl RoundResult {
    fn objections(&self, allowed: Allowed) -> Vec<String> {
        let mut objections = self.found.objections(allowed);
        objections.extend(self.events_found.iter().flat_map(EventCheck::objections));
        if self.ended_badly > 0 {
            objections.push(format!("{} processes ended badly", self.ended_badly));
        }
        if self.findings > 0 {
            objections.push(format!("fsck has {} findings", self.findings));
        }
        objections
    }
}

/// One run of a fault.
struct Round<'a> {
    fault: &'a Fault,
    settings: &'a Settings,
    control: bool,
    seconds: u64,
}

/// The hub's processes of a round.
struct Deployment {
    database_url: String,
    store: Store,
    slack: SlackSimulator,
    smtp: Option<SmtpSimulator>,
    /// The partner's endpoint.
    endpoint: Option<Endpoint>,
    port: u16,
    credentials: Credentials,
    /// The variables that set the channels' providers.
    providers: Vec<(&'static str, String)>,
    flags: Vec<String>,
    serve: Child,
    workers: Vec<Child>,
    ended_badly: u64,
}

impl<'a> Round<'a> {
    fn new(fault: &'a Fault, settings: &'a Settings, control: bool, seconds: u64) -> Round<'a> {
        Round { fault, settings, control, seconds }
    }

    fn disturbance(&self) -> Disturbance {
        self.fault.control_act.filter(|_| self.control).unwrap_or(self.fault.disturbance)
    }

    async fn run(self, server: &BenchServer) -> Result<RoundResult> {
        let what = if self.control { "once more, with the defence off" } else { "under load" };
        print_line(self.fault.name, &format!("{what}, for {} s", self.seconds));
        let here = Shutdown::new();
        let name = format!("notihub_faults_{}_{}", std::process::id(), Clock::system().unix_millis());
        let mut deployment = self.deploy(server, &name, &here).await?;
        let load = Arc::new(Load::new(deployment.port, &deployment.credentials, self.disturbance())?);
        let clients: Vec<_> = (0..CLIENTS).map(|n| here.spawn(load.clone().client(n))).collect();
        let watch = here.spawn(watch(load.clone(), deployment.slack.clone(), deployment.smtp.clone()));
        let until = Instant::now() + Duration::from_secs(self.seconds);
        tokio::time::sleep(Duration::from_secs(1)).await;
        self.disturb(&mut deployment, &load, server, until).await?;
        let until = until.max(Instant::now() + AFTERMATH);
        tokio::time::sleep_until(until.into()).await;
        load.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.await.map_err(|e| Error::Internal(e.to_string()))?;
        }
        let ended_after = self.wait_until_settled(&deployment).await;
        load.over.store(true, Ordering::Relaxed);
        let silence_of_delivery = watch.await.map_err(|e| Error::Internal(e.to_string()))?;
        deployment.stop().await;
        let endings = bench::run_results(&deployment.store).await?.into_iter();
        let endings: Vec<Ending> = endings
            .map(|(token, message_id, status, may_be_sent)| Ending { token, message_id, status, may_be_sent })
            .collect();
        let mut received: HashMap<String, u64> = HashMap::new();
        for post in deployment.slack.records() {
            *received.entry(post.text.unwrap_or_default()).or_default() += 1;
        }
        for mail in deployment.smtp.iter().flat_map(SmtpSimulator::records) {
            let subject = mail.data.lines().find_map(|line| line.strip_prefix("Subject: "));
            *received.entry(subject.unwrap_or_default().to_owned()).or_default() += 1;
        }
        let findings = flow::fsck::fsck(&deployment.store, Clock::system().now(), |_| ()).await?;
        for finding in findings.iter().take(5) {
            print_line(self.fault.name, &format!("fsck: {finding:?}"));
        }
        let promises = std::mem::take(&mut *lock(&load.promises));
        print_line(self.fault.name, &format!("clients were answered {:?}", promises.answers));
        let deploy = check(&promises, &endings, &received);
        let arrived = deployment.endpoint.as_ref().map(Endpoint::arrived);
        let mut events_found = arrived.map(|arrived| check_events(&promises, &arrived));
        // Order is judged wherever it was asked for, and in the control.
        let in_order = matches!(self.disturbance(), Disturbance::Order | Disturbance::Disorder);
        if let (Some(events_found), Some(endpoint), true) = (&mut events_found, &deployment.endpoint, in_order) {
            events_found.disordered = endpoint.disordered();
        }
        let refused = deployment.endpoint.as_ref().map_or(0, Endpoint::refused);
        let refused_by_provider = match self.disturbance() {
            Disturbance::Throttle => Some(deployment.slack.too_soon_count()),
            Disturbance::Greylist => Some(bench::count_refusals(&deployment.store).await?),
            _ => None,
        };
        let silence_of_intake = load.longest_silence(until);
        here.stop();
        deployment.store.close().await;
        bench::drop_database(server.url(), &name).await?;
        let (ended_badly, findings) = (deployment.ended_badly, findings.len());
        Ok(RoundResult {
            found: deploy,
            events_found,
            refused,
            refused_by_provider,
            ended_badly,
            findings,
            silence_of_intake,
            silence_of_delivery,
            ended_after,
        })
    }

    async fn deploy(&self, server: &BenchServer, name: &str, here: &Shutdown) -> Result<Deployment> {
        let database_url = bench::create_database(server.url(), name).await?;
        if self.disturbance() == Disturbance::KillPostgresTooEarly {
            bench::disable_synchronous_commit(server.url(), name).await?;
        }
        let sizes = crate::store::PoolSizes { api: 2, intake: 1, engine: 1, webhooks: 1 };
        let store = Store::new(&database_url, sizes)?;
        store.migrate().await?;
        let database = Database { database_url: Some(database_url.clone()), ..self.settings.database.clone() };
        let hub = process::open_for_command(&database).await?.0;
        let (_, credentials) = testbed::posting_partner(&hub, "bench").await?;
        process::stop(&hub).await;
        let slack = SlackSimulator::start(0, here).await?;
        let smtp = if self.disturbance() == Disturbance::Greylist {
            Some(SmtpSimulator::start(0, 0, here).await?)
        } else {
            None
        };
        let port = free_port().await?;
        let mut flags: BTreeMap<&str, &str> = FLAGS.into_iter().chain(self.fault.flags.iter().copied()).collect();
        if self.control {
            flags.extend(self.fault.control_flags.iter().copied());
        }
        let flags: Vec<String> = flags
            .into_iter()
            .map(|(name, value)| if value == "true" { name.to_owned() } else { format!("{name}={value}") })
            .collect();
        let providers = providers(&slack, smtp.as_ref());
        let serve = start(&database_url, &providers, &flags, &["serve", &format!("--listen=127.0.0.1:{port}")])?;
        let (endpoint, workers, ended_badly) = (None, Vec::new(), 0);
        let mut deployment = Deployment {
            database_url,
            store,
            slack,
            smtp,
            endpoint,
            port,
            credentials,
            providers,
            flags,
            serve,
            workers,
            ended_badly,
        };
        deployment.wait_until_ready().await?;
        if let Some((manner, ordered)) = self.disturbance().endpoint() {
            let endpoint = Endpoint::start(manner, Clock::system(), here).await?;
            endpoint.register(&format!("127.0.0.1:{port}"), &deployment.credentials, None, ordered).await?;
            deployment.endpoint = Some(endpoint);
        }
        if self.disturbance() == Disturbance::Throttle {
            deployment.slack.set_min_interval(HOOK_TAKES_ONE_IN);
        }
        if self.disturbance() == Disturbance::KillBeforeCall {
            // This worker reaps for others and serves no channel that clients post to.
            deployment.workers.push(start(&deployment.database_url, &[], &deployment.flags, &["work"])?);
        } else {
            for _ in 0..2 {
                deployment.workers.push(deployment.worker()?);
            }
        }
        Ok(deployment)
    }

    /// Disturbs the deployment until `until`.
    async fn disturb(
        &self,
        deployment: &mut Deployment,
        load: &Arc<Load>,
        server: &BenchServer,
        until: Instant,
    ) -> Result<()> {
        let soon = |ms| Instant::now() + Duration::from_millis(ms) + Duration::from_millis(500) < until;
        match self.disturbance() {
            Disturbance::EndWorkers(signal) => {
                while soon(2_000) {
                    let mut ending = deployment.workers.remove(0);
                    deployment.workers.push(deployment.worker()?);
                    check_alive(&mut ending)?;
                    if signal == Signal::SIGKILL {
                        // Calls without an answer make sure that the worker holds deliveries when it is killed.
                        deployment.slack.script(Behaviour::Hang, 16);
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                    send(&ending, signal);
                    let status = tokio::time::timeout(Duration::from_secs(15), ending.wait()).await;
                    let code = status.ok().and_then(|status| status.ok()?.code());
                    deployment.ended_badly += u64::from(signal == Signal::SIGTERM && code != Some(0));
                    tokio::time::sleep(Duration::from_millis(2_000)).await;
                }
            }
            Disturbance::Flap => {
                while soon(1_500) {
                    tokio::time::sleep(Duration::from_millis(rand::random_range(500..1_500))).await;
                    let mut ending = deployment.workers.swap_remove(rand::random_range(0..deployment.workers.len()));
                    deployment.workers.push(deployment.worker()?);
                    check_alive(&mut ending)?;
                    send(&ending, Signal::SIGKILL);
                    let _killed = ending.wait().await;
                }
            }
            Disturbance::KillApi | Disturbance::KillApiForgetful => {
                while soon(1_500) {
                    check_alive(&mut deployment.serve)?;
                    send(&deployment.serve, Signal::SIGKILL);
                    let _killed = deployment.serve.wait().await;
                    let listen = format!("--listen=127.0.0.1:{}", deployment.port);
                    deployment.serve =
                        start(&deployment.database_url, &deployment.providers, &deployment.flags, &["serve", &listen])?;
                    deployment.wait_until_ready().await?;
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
            }
            Disturbance::KillPostgres | Disturbance::KillPostgresTooEarly => {
                for _ in 0..2 {
                    if let Some(pid) = server.postmaster() {
                        // The server may still be starting.
                        let _gone = kill(Pid::from_raw(pid), Signal::SIGKILL);
                    }
                    let before = load.acceptances();
                    while load.acceptances() < before + u64::from(RATE) && soon(0) {
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                }
            }
            Disturbance::CutAnswers => {
                while soon(0) {
                    deployment.slack.script(Behaviour::Cut, 3);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
            Disturbance::Hang => deployment.slack.script(Behaviour::Hang, 40),
            Disturbance::StopWorkers => {
                for worker in &mut deployment.workers {
                    check_alive(worker)?;
                    // Calls without an answer make sure that the worker holds deliveries when it is suspended.
                    deployment.slack.script(Behaviour::Hang, 16);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    send(worker, Signal::SIGSTOP);
                    tokio::time::sleep(LEASE).await;
                    send(worker, Signal::SIGCONT);
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
            }
            Disturbance::KillBeforeCall => self.kill_before_call(deployment, load).await?,
            Disturbance::StallPostgres => {
                // A process that starts while its database is suspended ends; restarting it is a supervisor's task.
                let began = Instant::now();
                while deployment.slack.accepted_count() == 0 && began.elapsed() < LEASE {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                while soon(3_500) {
                    deployment.slack.script(Behaviour::Hang, 8);
                    server.stall(Duration::from_secs(2)).await;
                    tokio::time::sleep(Duration::from_millis(1_500)).await;
                }
                server.stall(LEASE).await;
            }
            Disturbance::Order | Disturbance::Disorder | Disturbance::Greylist => {
                tokio::time::sleep_until(until.into()).await
            }
            Disturbance::Throttle => {
                tokio::time::sleep_until(until.into()).await;
                load.stop.store(true, Ordering::Relaxed);
                // What is refused yet is taken when it comes again.
                deployment.slack.set_min_interval(Duration::ZERO);
            }
            Disturbance::Storm => {
                deployment.slack.script(Behaviour::Fail { status: 503, text: "service_unavailable".into() }, 2_000);
                deployment.slack.script(Behaviour::Limit { retry_after: 1 }, 1_000);
                tokio::time::sleep_until(until.into()).await;
                // A storm lasts for a time and not for a number of calls, because the hub makes few calls during it.
                deployment.slack.clear_script();
            }
            Disturbance::Lock => {
                let held = bench::lock_deliveries(&deployment.store).await?;
                tokio::time::sleep(Duration::from_secs(3)).await;
                drop(held);
            }
        }
        Ok(())
    }

    /// Three times: workers claim everything, wait for a lock before they read the contents, and are killed there.
    async fn kill_before_call(&self, deployment: &mut Deployment, load: &Load) -> Result<()> {
        while load.acceptances() < CLAIMED {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for _ in 0..3 {
            let locked = bench::lock_messages(&deployment.store).await?;
            let mut doomed = vec![deployment.worker()?, deployment.worker()?];
            let began = Instant::now();
            while bench::count_with_status(deployment.store.api(), Status::Processing).await? == 0
                && began.elapsed() < LEASE
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // Less than the lock time-out, after which they would give back what they hold.
            tokio::time::sleep(Duration::from_millis(500)).await;
            for worker in &mut doomed {
                check_alive(worker)?;
                send(worker, Signal::SIGKILL);
                let _killed = worker.wait().await;
            }
            drop(locked);
            let began = Instant::now();
            let patience = if self.control { Duration::ZERO } else { 2 * LEASE };
            while bench::count_with_status(deployment.store.api(), Status::Processing).await? > 0
                && began.elapsed() < patience
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        load.quota.store(u64::MAX, Ordering::Relaxed);
        for _ in 0..2 {
            deployment.workers.push(deployment.worker()?);
        }
        Ok(())
    }

    /// Waits until every delivery has a final status. Returns the time that took.
    async fn wait_until_settled(&self, deployment: &Deployment) -> Duration {
        let began = Instant::now();
        let patience = match self.disturbance() {
            _ if self.control => PATIENCE_CONTROL,
            // What workers were lost with pauses for longer each time; what is throttled goes one by one, and looks
            // again after minutes.
            Disturbance::KillBeforeCall | Disturbance::Throttle | Disturbance::Storm => 4 * PATIENCE,
            _ => PATIENCE,
        };
        while began.elapsed() < patience {
            let open = [Status::Scheduled, Status::Pending, Status::Processing];
            let mut left = 0;
            if self.disturbance() == Disturbance::Flap {
                // What fails twice would wait for five minutes.
                let _next_time = bench::make_scheduled_due(deployment.store.api(), Clock::system().now()).await;
            }
            if self.disturbance().endpoint().is_some() {
                left += bench::count_ending_marks(deployment.store.api()).await.unwrap_or(1);
            }
            for status in open {
                left += bench::count_with_status(deployment.store.api(), status).await.unwrap_or(1);
            }
            if left == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        began.elapsed()
    }
}

/// The variables that set these providers.
fn providers(slack: &SlackSimulator, smtp: Option<&SmtpSimulator>) -> Vec<(&'static str, String)> {
    let mut all = vec![("NOTIHUB_SLACK_DESTINATION", format!("ops={}", slack.webhook_url("ops")))];
    if let Some(smtp) = smtp {
        all.push(("NOTIHUB_SMTP_HOST", smtp.address().ip().to_string()));
        all.push(("NOTIHUB_SMTP_PORT", smtp.address().port().to_string()));
    }
    all
}

/// Starts a process of the hub that is under test.
///
/// # Errors
/// `Error::Setup` if it cannot be started.
pub fn start(
    database_url: &str,
    providers: &[(&'static str, String)],
    flags: &[String],
    role: &[&str],
) -> Result<Child> {
    let program = std::env::current_exe().map_err(|e| Error::Internal(format!("who am I: {e}")))?;
    let mut command = Command::new(program);
    command.args(role).args(flags).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    // Their logs go to a file: the errors are expected.
    let log = std::fs::OpenOptions::new().create(true).append(true).open(complaints());
    command.stderr(log.map_err(|e| Error::Setup(format!("{}: {e}", complaints().display())))?);
    command.env("NOTIHUB_DATABASE_URL", database_url);
    command.envs(providers.iter().map(|(name, value)| (name, value)));
    command.spawn().map_err(|e| Error::Setup(format!("a process of the hub cannot start: {e}")))
}

/// The log file of the processes under test.
pub fn complaints() -> std::path::PathBuf {
    std::env::temp_dir().join(format!("notihub-faults-{}.log", std::process::id()))
}

/// Fails if the process has ended before it is disturbed.
///
/// # Errors
/// `Error::Internal` if it has.
pub fn check_alive(child: &mut Child) -> Result<()> {
    match child.try_wait() {
        Ok(None) => Ok(()),
        ended => Err(Error::Internal(format!("a process ended by itself ({ended:?}): {}", complaints().display()))),
    }
}

/// A port that is free now.
///
/// # Errors
/// `Error::Setup` if there is none.
pub async fn free_port() -> Result<u16> {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.and_then(|listener| listener.local_addr());
    Ok(free.map_err(|e| Error::Setup(format!("no port is free on loopback: {e}")))?.port())
}

/// Waits until an API under test answers.
///
/// # Errors
/// `Error::Internal` if it has ended, or takes longer than 20 s.
pub async fn wait_until_answering(serve: &mut Child, port: u16) -> Result<()> {
    let began = Instant::now();
    while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
        let ended = serve.try_wait().ok().flatten();
        if ended.is_some() || began.elapsed() > Duration::from_secs(20) {
            let log = complaints();
            return Err(Error::Internal(format!("the API under test does not answer ({ended:?}): {}", log.display())));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Sends a signal to a process under test.
pub fn send(child: &Child, signal: Signal) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        // A process that has ended by itself is noticed when it is waited for.
        let _gone = kill(Pid::from_raw(pid), signal);
    }
}

impl Deployment {
    fn worker(&self) -> Result<Child> {
        start(&self.database_url, &self.providers, &self.flags, &["work"])
    }

    /// Waits until the API is ready.
    async fn wait_until_ready(&mut self) -> Result<()> {
        wait_until_answering(&mut self.serve, self.port).await
    }

    async fn stop(&mut self) {
        for child in self.workers.iter_mut().chain([&mut self.serve]) {
            send(child, Signal::SIGTERM);
        }
        for child in self.workers.iter_mut().chain([&mut self.serve]) {
            let status = tokio::time::timeout(Duration::from_secs(20), child.wait()).await;
            self.ended_badly += u64::from(status.ok().and_then(|s| s.ok()?.code()) != Some(0));
        }
    }
}

/// Clients that post until they are stopped, repeat messages that were not accepted, and record the answers.
struct Load {
    client: client::Client,
    disturbance: Disturbance,
    promises: Mutex<Promises>,
    /// The times at which batches were accepted.
    times: Mutex<Vec<Instant>>,
    stop: AtomicBool,
    /// The number of messages that clients may post before they wait for a higher quota.
    quota: AtomicU64,
    over: AtomicBool,
    next: AtomicU64,
}

impl Load {
    fn new(port: u16, credentials: &Credentials, disturbance: Disturbance) -> Result<Load> {
        Ok(Load {
            client: client::Client::new(&client::Target::of(format!("http://127.0.0.1:{port}"), credentials))?,
            disturbance,
            promises: Mutex::default(),
            times: Mutex::default(),
            stop: AtomicBool::new(false),
            quota: AtomicU64::new(if disturbance == Disturbance::KillBeforeCall { CLAIMED } else { u64::MAX }),
            over: AtomicBool::new(false),
            next: AtomicU64::new(0),
        })
    }

    fn acceptances(&self) -> u64 {
        lock(&self.promises).accepted.len() as u64
    }

    async fn client(self: Arc<Load>, n: u32) {
        let period = Duration::from_secs_f64(f64::from(CLIENTS) * BATCH as f64 / f64::from(self.disturbance.rate()));
        tokio::time::sleep(period.mul_f64(f64::from(n) / f64::from(CLIENTS))).await;
        let mut tick = tokio::time::interval(period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !self.stop.load(Ordering::Relaxed) {
            tick.tick().await;
            let quota = self.quota.load(Ordering::Relaxed);
            let within = |next: u64| next.checked_add(BATCH as u64).filter(|next| *next <= quota);
            let Ok(first) = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, within) else { continue };
            let tokens: Vec<String> = (first..).take(BATCH).map(|n| format!("T-{n}")).collect();
            if n.is_multiple_of(2) {
                self.post(&tokens).await;
            } else {
                // Single messages at the same time exercise the group commit.
                futures_util::future::join_all(tokens.chunks(1).map(|one| self.post(one))).await;
            }
        }
    }

    /// Posts one batch repeatedly until it is accepted.
    async fn post(&self, tokens: &[String]) {
        let began = Instant::now();
        let mut tries = 0;
        while began.elapsed() < PATIENCE {
            let message = |token: &String| {
                let key = match self.disturbance {
                    Disturbance::KillApiForgetful => format!("{token}-{tries}"),
                    _ => token.clone(),
                };
                let slack = json!([{"channel": "SLACK", "to": "ops"}]);
                let mut message = json!({"type": token, "clientMsgId": key, "body": token, "channels": slack});
                if self.disturbance == Disturbance::Greylist {
                    message["title"] = json!(token);
                    message["channels"] = json!([{"channel": "EMAIL", "to": greylisted(token)}]);
                }
                message
            };
            let answer = match tokens {
                [one] => self.client.try_post("/v1/messages", &message(one)).await,
                many => {
                    let body = json!({"messages": many.iter().map(message).collect::<Vec<_>>()});
                    self.client.try_post("/v1/messages/batch", &body).await
                }
            };
            tries += 1;
            let kind = match &answer {
                None => "none".to_owned(),
                Some((status, body)) => format!("{status} {}", body["code"].as_str().unwrap_or_default()),
            };
            *lock(&self.promises).answers.entry(kind).or_default() += 1;
            match answer {
                Some((200 | 202, body)) => return self.keep(tokens, &body),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        lock(&self.promises).given_up += tokens.len() as u64;
    }

    fn keep(&self, tokens: &[String], answer: &Value) {
        let id = |message: &Value| message["messageId"].as_str()?.parse().ok();
        let many = answer["messages"].as_array().map(|messages| messages.iter().filter_map(id).collect());
        let ids: Vec<Tsid> = many.unwrap_or_else(|| id(answer).into_iter().collect());
        let mut promises = lock(&self.promises);
        // Only the messages that the answer names are accepted.
        promises.given_up += (tokens.len() - ids.len().min(tokens.len())) as u64;
        promises.accepted.extend(tokens.iter().cloned().zip(ids));
        drop(promises);
        lock(&self.times).push(Instant::now());
    }

    fn longest_silence(&self, until: Instant) -> Duration {
        let mut times = lock(&self.times).clone();
        times.retain(|at| *at <= until);
        // An intake that does not recover is silent until the end.
        times.push(until);
        times.sort();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// A unique recipient whose server greylists, in one of several ways.
fn greylisted(token: &str) -> String {
    let n = token.trim_start_matches("T-").parse::<usize>().unwrap_or(0) % smtp::GREYLISTED.len();
    format!("greylist-{n}@{}.example.com", token.to_lowercase())
}

/// The longest time during the load in which the provider received nothing.
async fn watch(load: Arc<Load>, slack: SlackSimulator, smtp: Option<SmtpSimulator>) -> Duration {
    let (mut last, mut taken, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while !load.over.load(Ordering::Relaxed) {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let now = slack.accepted_count() + smtp.as_ref().map_or(0, SmtpSimulator::accepted_count);
        if now != taken || load.stop.load(Ordering::Relaxed) {
            (taken, last) = (now, Instant::now());
        }
        longest = longest.max(last.elapsed());
    }
    longest
}
