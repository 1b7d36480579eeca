//! `notihub redrive`, and what `notihub webhook` needs of it: dead letters tried again, events told again.

use std::time::Duration;

use clap::Args;
use serde_json::{Map, Value, json};

use super::client::{Client, Target};
use super::{Output, endpoints, print};
use crate::error::{DELIVERY_REASONS, Error, Result};
use crate::limits;
use crate::model::event::EventKind;
use crate::shutdown::signalled;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub redrive 0P8MV3S4Y0T1C-1\n  notihub redrive --channel EMAIL --since \
2026-12-24T09:00:00+09:00 --dry-run\n  notihub redrive --channel EMAIL --since 2026-12-24T09:00:00+09:00 --rate 500\n  \
notihub redrive --all --error unreachable\n  notihub redrive --job 0P8MV3S4Y0T1C            how far a job is\n  notihub \
redrive --job 0P8MV3S4Y0T1C --cancel\n\nThis is for operators: without --client-id as the one that `up` keeps on this \
machine. Partners may redrive their own webhooks, one by one, and look at their jobs; see `notihub webhook recover` for many.")]
pub struct Redrive {
    /// One dead letter: {messageId}-{no}.
    #[arg(value_name = "DELIVERY", conflicts_with_all = ["all", "partner", "channel", "provider", "error", "status", "endpoint",
        "since", "until", "dry_run", "rate", "no_wait"])]
    delivery: Option<String>,
    /// Every dead letter there is, if no filter is given.
    #[arg(long)]
    all: bool,
    /// Only this partner's.
    #[arg(long, value_name = "ID")]
    partner: Option<String>,
    /// Only those over this channel.
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only those this provider was asked for last.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only those with this reason, as `unreachable`.
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    error: Option<String>,
    /// FAILED or UNDETERMINED [default: both].
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only webhooks for this endpoint.
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only those that failed at this time or later, as 2026-12-24T09:00:00+09:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only those that failed before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only say how many there are.
    #[arg(long)]
    dry_run: bool,
    /// How far this job is, a redrive, recover or replay; begins none.
    #[arg(long, value_name = "ID", conflicts_with_all = ["delivery", "all", "partner", "channel", "provider", "error", "status",
        "endpoint", "since", "until", "dry_run", "rate", "no_wait"])]
    job: Option<String>,
    /// With --job: it goes no further.
    #[arg(long, requires = "job")]
    cancel: bool,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

/// How fast, and whether somebody watches.
#[derive(Debug, Args)]
struct RateArgs {
    /// How many a second, at most: what is new goes first in any case.
    #[arg(long, value_name = "N", default_value_t = limits::REDRIVE_RATE_DEFAULT, value_parser = clap::value_parser!(i32).range(1..=limits::REDRIVE_RATE_MOST))]
    rate: i32,
    /// Begin, say the job's id, and do not wait until all is queued.
    #[arg(long)]
    no_wait: bool,
}

/// Sends again what failed on its way to an endpoint, and now what waits for its next try: the same events under the same ids.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  notihub webhook recover 0P8MV3S4Y0T1C --since 2026-12-24T09:00:00+09:00\n\nIt ends when \
all is queued; `notihub webhook deliveries ENDPOINT` shows what comes of it."
)]
pub struct RecoverArgs {
    /// The endpoint's id.
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// What failed at this time or later.
    #[arg(long, value_name = "TIME")]
    since: String,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

/// Tells an endpoint again what happened in a window of time, whether or not it was told before: the same events under the
/// same ids.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  notihub webhook replay 0P8MV3S4Y0T1C --since 2026-12-24T09:00:00+09:00 --until \
2026-12-24T10:00:00+09:00\n\nIt ends when all is queued; `notihub webhook deliveries ENDPOINT` shows what comes of it.")]
pub struct ReplayArgs {
    /// The endpoint's id.
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// What happened at this time or later …
    #[arg(long, value_name = "TIME")]
    since: String,
    /// … and before this one [default: now].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this event; several times for several [default: all that the endpoint asks for].
    #[arg(long, value_name = "EVENT", value_parser = endpoints::parse_requestable_event)]
    event: Vec<EventKind>,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

pub async fn run(args: Redrive, output: Output) -> Result<u8> {
    let client = Client::operating(&args.target)?;
    if let Some(id) = &args.job {
        let path = format!("/v1/redrives/{}", path_segment(id));
        let job = if args.cancel {
            client.post(&format!("{path}/cancel"), &json!({})).await
        } else {
            client.get(&path).await
        };
        print_job(&job?, output);
        return Ok(0);
    }
    if let Some(id) = &args.delivery {
        let delivery = client.post(&format!("/v1/deliveries/{}/redrive", path_segment(id)), &json!({})).await?;
        match output {
            Output::Json => print::json(&delivery),
            Output::Text => anstream::println!(
                "{} {}",
                text(&delivery["deliveryId"]),
                print::status(delivery["status"].as_str().unwrap_or_default())
            ),
        }
        return Ok(0);
    }
    let given = [
        ("partnerId", &args.partner),
        ("channel", &args.channel),
        ("provider", &args.provider),
        ("error", &args.error),
        ("status", &args.status),
        ("endpointId", &args.endpoint),
        ("since", &args.since),
        ("until", &args.until),
    ];
    let filter: Map<String, Value> =
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), json!(value.as_ref()?)))).collect();
    if filter.is_empty() && !args.all {
        return Err(Error::Usage("say which: a delivery, a filter (see --help), or --all".into()));
    }
    let order = json!({"filter": filter, "dryRun": args.dry_run, "ratePerSecond": args.pace.rate});
    let told = client.post("/v1/dead-letters/redrive", &order).await?;
    if args.dry_run {
        match output {
            Output::Json => print::json(&told),
            Output::Text => anstream::println!("{}", count_text(&told)),
        }
        return Ok(0);
    }
    follow(&client, told, &args.pace, output).await
}

pub async fn recover(args: RecoverArgs, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let order = json!({"since": args.since, "ratePerSecond": args.pace.rate});
    let told = client.post(&format!("/v1/webhooks/{}/recover", path_segment(&args.endpoint)), &order).await?;
    follow(&client, told, &args.pace, output).await
}

pub async fn replay(args: ReplayArgs, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let events: Vec<&str> = args.event.iter().map(|event| event.as_str()).collect();
    let events = (!events.is_empty()).then_some(events);
    let order = json!({"since": args.since, "until": args.until, "events": events, "ratePerSecond": args.pace.rate});
    let told = client.post(&format!("/v1/webhooks/{}/replay", path_segment(&args.endpoint)), &order).await?;
    follow(&client, told, &args.pace, output).await
}

/// Shows how far a job is, until it ends. Who stops watching does not stop it.
async fn follow(client: &Client, mut job: Value, pace: &RateArgs, output: Output) -> Result<u8> {
    let id = text(&job["redriveId"]);
    let told = output == Output::Text && !pace.no_wait;
    if told {
        anstream::eprintln!("{} of {}: {} a second at most", id, count_text(&job), pace.rate);
    }
    let mut stop = std::pin::pin!(signalled());
    while !pace.no_wait && job["status"] == "RUNNING" {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => (),
            () = &mut stop => {
                anstream::eprintln!("it goes on; notihub redrive --job {id} --cancel stops it");
                return Ok(1);
            }
        }
        job = client.get(&format!("/v1/redrives/{}", path_segment(&id))).await?;
        if told {
            anstream::eprintln!("{}", print::paint(print::DIM, &progress_text(&job)));
        }
    }
    if output == Output::Text && pace.no_wait {
        anstream::println!("{id}");
        anstream::eprintln!("notihub redrive --job {id} shows how far it is; with --cancel it goes no further");
    } else {
        print_job(&job, output);
    }
    Ok(u8::from(job["status"] == "CANCELED"))
}

/// A job as it stands. What it queued is on its way then, not yet there.
fn print_job(job: &Value, output: Output) {
    match output {
        Output::Json => print::json(job),
        Output::Text => {
            let endpoint = job["endpointId"].as_str();
            let see = endpoint.map(|_| format!("; see notihub webhook deliveries {}", text(&job["endpointId"])));
            let (id, status) = (text(&job["redriveId"]), text(&job["status"]));
            anstream::println!("{id} {status}, {}{}", progress_text(job), see.unwrap_or_default());
        }
    }
}

fn progress_text(job: &Value) -> String {
    format!("{} queued again", job["done"])
}

fn parse_reason(text: &str) -> std::result::Result<String, String> {
    let words: Vec<&str> = DELIVERY_REASONS.iter().map(|row| row.0).collect();
    let known = words.contains(&text);
    known.then(|| text.to_owned()).ok_or_else(|| format!("there is no such reason; there are {}", words.join(", ")))
}

fn count_text(told: &Value) -> String {
    match (told["count"].as_i64(), told["countIsLowerBound"] == true) {
        (Some(count), more) => {
            let waiting = told["waiting"].as_i64().map(|n| format!(" and {n} that wait for their next try"));
            format!("{}{count} dead letters{}", if more { "more than " } else { "" }, waiting.unwrap_or_default())
        }
        (None, _) => "what happened then".to_owned(),
    }
}

fn text(value: &Value) -> String {
    print::printable(value.as_str().unwrap_or_default())
}

/// What somebody typed is one part of a path, whatever it is.
fn path_segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect()
}
