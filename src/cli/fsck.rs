//! `notihub fsck`: every invariant is a query that must find nothing.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use serde_json::{Value, json};

use super::{Output, print, process};
use crate::clock::Clock;
use crate::config::{Database, Log};
use crate::error::{Error, Result};
use crate::flow::fsck::{Check, Checked, Coverage, Position, Step, Watch};
use crate::id::Tsid;
use crate::limits;
use crate::shutdown::signalled;
use crate::store::Store;
use crate::store::fsck::Finding;
use crate::telemetry;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub fsck\n  notihub fsck --since 2h\n  notihub fsck --rate 20000\n  notihub \
fsck --watch --every 30\n\nIt only reads: a role that may read all tables is enough, and so is a hot standby. Exit \
codes: 0 nothing is broken, 1 something is, or the database failed, 130 stopped by a signal. A stopped check prints \
the position that --resume takes.")]
pub struct Fsck {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    log: Log,
    /// Findings shown of each invariant.
    #[arg(long, default_value_t = 10, value_name = "N")]
    most: usize,
    /// Only messages accepted since then, with everything under them: how long ago (90s, 30m, 2h, 7d), or a time as
    /// 2026-12-24T09:00:00+09:00. The invariants that need all messages (turn, moving, stats) and keys without a
    /// message are not checked.
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Since>,
    /// Go on where a check was stopped, with the position that it printed. The invariants that need all messages (turn,
    /// moving, stats) are not checked.
    #[arg(long, value_name = "POSITION", conflicts_with = "since")]
    resume: Option<Position>,
    /// Deliveries a second at most; without it, as fast as the database reads.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// Slices that are checked at the same time, each on a connection of its own: more use more cores of the database.
    #[arg(long, default_value_t = 2, value_name = "N", conflicts_with = "watch",
        value_parser = clap::value_parser!(u16).range(1..=16))]
    connections: u16,
    /// Check what is new again and again, until a signal, and print each finding once. Each round checks messages of
    /// the last ten minutes, then some of those accepted since --since [24h], at --rate [10000], until all were
    /// checked and it begins with the oldest again. Older messages, also those that ended lately, and the invariants
    /// that need all messages are not covered.
    #[arg(long, conflicts_with = "resume")]
    watch: bool,
    /// Seconds between the rounds of --watch.
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "watch",
        value_parser = clap::value_parser!(u32).range(1..=3600))]
    every: u32,
}

/// The earliest time of acceptance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Since {
    Ago(TimeDelta),
    At(DateTime<Utc>),
}

impl Since {
    pub(super) fn time(self, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Since::Ago(ago) => now - ago,
            Since::At(at) => at,
        }
    }
}

/// Reads how long ago (`90s`, `30m`, `2h`, `7d`), or an RFC 3339 time.
pub(super) fn since(text: &str) -> std::result::Result<Since, String> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Ok(Since::At(at.to_utc()));
    }
    let unit = |unit| {
        Some(match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        })
    };
    let parsed = text.char_indices().next_back().and_then(|(end, last)| {
        let seconds = text[..end].parse::<u32>().ok().map(i64::from)?.checked_mul(unit(last)?)?;
        // Ids begin in 2020.
        TimeDelta::try_seconds(seconds).filter(|ago| *ago <= TimeDelta::days(36_500))
    });
    parsed
        .map(Since::Ago)
        .ok_or_else(|| "write how long ago, as 2h or 7d, or a time as 2026-12-24T09:00:00Z".to_owned())
}

/// Runs `notihub fsck`. Returns the exit code: 0 when nothing was found, 1 otherwise, 130 when a signal stopped it.
///
/// # Errors
/// `Error::Setup` for settings, `Error::Unavailable` if the database cannot be reached or fails; the position of a
/// check under way is printed before.
pub async fn run(args: Fsck, output: Output) -> Result<u8> {
    telemetry::start_logs(&args.log)?;
    let store = process::reading_store(&args.database, &process::database_url(&args.database)?).await?;
    if args.watch {
        return watch(&store, &args, output).await;
    }
    let now = Clock::system().now();
    let mut coverage = Coverage::ALL;
    if let Some(since) = args.since {
        coverage = Coverage { from: Position::Message(Tsid::floor(since.time(now))), keys: false, ..coverage };
    }
    coverage.from = args.resume.unwrap_or(coverage.from);
    if let Some(rate) = args.rate {
        coverage.slice = coverage.slice.min(i64::from(rate));
    }
    let mut signal = std::pin::pin!(signalled());
    // Its handlers are installed when it is polled first.
    tokio::select! { biased; () = &mut signal => (), () = std::future::ready(()) => () }
    let mut conns = Vec::new();
    for _ in 0..args.connections {
        conns.push(store.connect_for_fsck().await?);
    }
    let mut check = Check::begin(&mut conns, coverage, now).await?;
    let mut progress = Progress::new(output);
    let stopped = loop {
        let step = match check.step().await {
            Ok(Some(step)) => step,
            Ok(None) => break None,
            Err(e) => {
                progress.clear();
                if let Some(position) = check.position() {
                    anstream::eprintln!("go on with: notihub fsck --resume {position}");
                }
                return Err(e);
            }
        };
        progress.show(step);
        let ahead = args.rate.map_or(Duration::ZERO, |rate| {
            Duration::from_secs_f64(step.deliveries as f64 / f64::from(rate)).saturating_sub(progress.began.elapsed())
        });
        tokio::select! {
            biased;
            () = &mut signal => break step.position,
            () = tokio::time::sleep(ahead) => (),
        }
    };
    progress.clear();
    let checked = if stopped.is_none() { check.finish().await? } else { check.stop() };
    let clean = checked.iter().all(|checked| checked.violations.rows == 0);
    match output {
        Output::Json => print::json(&document(&checked, clean, stopped)),
        Output::Text => show(&checked, clean, stopped, args.most),
    }
    Ok(if stopped.is_some() { 130 } else { u8::from(!clean) })
}

fn finding_row(f: &Finding) -> Value {
    json!({"invariant": f.invariant, "deliveryId": format!("{}-{}", f.message_id, f.no), "found": f.found})
}

fn document(checked: &[Checked], clean: bool, stopped: Option<Position>) -> Value {
    let findings: Vec<_> = checked.iter().flat_map(|c| &c.violations.findings).map(finding_row).collect();
    let invariant = |c: &Checked| {
        let rows = (!c.skipped).then_some(c.violations.rows);
        json!({"invariant": c.invariant, "law": c.law, "rows": rows, "skipped": c.skipped})
    };
    let invariants: Vec<_> = checked.iter().map(invariant).collect();
    let position = stopped.map(|position| position.to_string());
    json!({"clean": clean, "complete": stopped.is_none(), "position": position, "invariants": invariants,
        "findings": findings})
}

fn show(checked: &[Checked], clean: bool, stopped: Option<Position>, most: usize) {
    for c in checked {
        let mark = match (c.violations.rows, c.skipped) {
            (_, true) => print::paint(print::DIM, "skip"),
            (0, _) => print::paint(print::GOOD, "ok  "),
            _ => print::paint(print::BAD, "FAIL"),
        };
        anstream::println!("{mark} {:<10} {}", c.invariant, c.law);
    }
    for c in checked {
        let shown = c.violations.findings.iter().take(most);
        let rest = c.violations.rows - shown.len() as u64;
        shown.for_each(show_finding);
        if rest > 0 {
            anstream::println!("{}: and {rest} more", c.invariant);
        }
    }
    match stopped {
        Some(position) => anstream::println!("stopped; go on with: notihub fsck --resume {position}"),
        None if clean => anstream::println!("clean"),
        None => (),
    }
}

fn show_finding(finding: &Finding) {
    anstream::println!("{}: {}-{} {}", finding.invariant, finding.message_id, finding.no, finding.found);
}

/// Shows how far a check is: on a terminal in one line, elsewhere in a line every ten seconds, on standard error.
pub(super) struct Progress {
    began: Instant,
    shown: Instant,
    counted: u64,
    on_terminal: bool,
    output: Output,
}

impl Progress {
    pub(super) fn new(output: Output) -> Progress {
        let on_terminal = output == Output::Text && std::io::stderr().is_terminal();
        Progress { began: Instant::now(), shown: Instant::now(), counted: 0, on_terminal, output }
    }

    fn show(&mut self, step: Step) {
        if !self.on_terminal && self.shown.elapsed() < limits::PROGRESS_EVERY {
            return;
        }
        self.shown = Instant::now();
        let Step { slice, of, deliveries, .. } = step;
        let rate = (deliveries as f64 / self.began.elapsed().as_secs_f64().max(0.001)) as u64;
        let text = format!("slice {slice} of {of}, {deliveries} deliveries, {rate} a second");
        match self.output {
            Output::Text if self.on_terminal => anstream::eprint!("\r\x1b[K{text}"),
            Output::Text => anstream::eprintln!("{text}"),
            Output::Json => {
                anstream::eprintln!("{}", json!({"slice": slice, "of": of, "deliveries": deliveries, "rate": rate}));
            }
        }
    }

    /// Adds messages that were counted of something.
    pub(super) fn count(&mut self, of: &str, messages: u64) {
        self.counted += messages;
        if self.on_terminal || self.shown.elapsed() >= limits::PROGRESS_EVERY {
            self.shown = Instant::now();
            match self.output {
                Output::Text if self.on_terminal => anstream::eprint!("\r\x1b[K{of}: {} messages", self.counted),
                Output::Text => anstream::eprintln!("{of}: {} messages", self.counted),
                Output::Json => anstream::eprintln!("{}", json!({"day": of, "messages": self.counted})),
            }
        }
    }

    pub(super) fn clear(&self) {
        if self.on_terminal {
            anstream::eprint!("\r\x1b[K");
        }
    }
}

/// Checks in rounds until a signal. Returns the exit code: 0 when nothing was found.
async fn watch(store: &Store, args: &Fsck, output: Output) -> Result<u8> {
    let clock = Clock::system();
    let mut watch = Watch::new(match args.since {
        None => limits::FSCK_HORIZON,
        Some(since) => clock.now() - since.time(clock.now()),
    });
    let every = Duration::from_secs(u64::from(args.every));
    let budget = u64::from(args.every) * u64::from(args.rate.unwrap_or(limits::FSCK_WATCH_RATE));
    let mut clean = true;
    let mut failing = false;
    let mut signal = std::pin::pin!(signalled());
    loop {
        // Connected anew for each round: the database may be restarted meanwhile.
        let round = async { watch.round(&mut store.connect_for_fsck().await?, clock.now(), budget).await };
        tokio::select! {
            biased;
            () = &mut signal => break,
            round = round => match round {
                Ok(found) => {
                    failing = false;
                    clean &= found.is_empty();
                    match output {
                        Output::Json => found.iter().for_each(|finding| print::json(&finding_row(finding))),
                        Output::Text => found.iter().for_each(show_finding),
                    }
                }
                Err(e @ Error::Unavailable(_)) => {
                    if !std::mem::replace(&mut failing, true) {
                        print::warning(&format!("the round failed and is tried again: {e}"), output);
                    }
                }
                Err(e) => return Err(e),
            },
        }
        tokio::select! {
            () = &mut signal => break,
            () = tokio::time::sleep(every) => (),
        }
    }
    Ok(u8::from(!clean))
}
