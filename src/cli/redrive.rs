//! `notihub redrive`, `notihub webhook recover` and `notihub webhook replay`: send dead letters and events again.

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
notihub redrive --all --error unreachable\n  notihub redrive --job 0P8MV3S4Y0T1C            shows the progress of a \
job\n  notihub \
redrive --job 0P8MV3S4Y0T1C --cancel\n\nFor operators; without --client-id it signs in as the operator whose key `up` \
keeps on this machine. Partners may redrive their own webhooks one by one and read their jobs; for many at once see \
`notihub \
webhook recover`.")]
pub struct Redrive {
    /// One dead letter: {messageId}-{no}.
    #[arg(value_name = "DELIVERY", conflicts_with_all = ["all", "partner", "channel", "provider", "error", "status",
        "endpoint", "since", "until", "dry_run", "rate", "no_wait"])]
    delivery: Option<String>,
    /// All dead letters. Needed if no filter is given.
    #[arg(long)]
    all: bool,
    /// Only dead letters of this partner.
    #[arg(long, value_name = "ID")]
    partner: Option<String>,
    /// Only dead letters over this channel.
    #[arg(long, value_name = "CHANNEL")]
    channel: Option<String>,
    /// Only dead letters whose last attempt used this provider.
    #[arg(long, value_name = "NAME")]
    provider: Option<String>,
    /// Only dead letters with this reason, for example `unreachable`.
    #[arg(long, value_name = "REASON", value_parser = parse_reason)]
    error: Option<String>,
    /// Only dead letters with this status, FAILED or UNDETERMINED [default: both].
    #[arg(long, value_name = "STATUS")]
    status: Option<String>,
    /// Only webhooks for this endpoint.
    #[arg(long, value_name = "ID")]
    endpoint: Option<String>,
    /// Only dead letters that failed at this time or later, for example 2026-12-24T09:00:00+09:00.
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only dead letters that failed before this time.
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only count the dead letters.
    #[arg(long)]
    dry_run: bool,
    /// Show the progress of this job (redrive, recover or replay) instead of beginning one.
    #[arg(long, value_name = "ID", conflicts_with_all = ["delivery", "all", "partner", "channel", "provider", "error",
        "status", "endpoint", "since", "until", "dry_run", "rate", "no_wait"])]
    job: Option<String>,
    /// Stop the job that --job names.
    #[arg(long, requires = "job")]
    cancel: bool,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

/// The rate of a job, and whether the command waits for it.
#[derive(Debug, Args)]
struct RateArgs {
    /// Deliveries a second, at most. New deliveries are always sent first.
    #[arg(
        long,
        value_name = "N",
        default_value_t = limits::REDRIVE_RATE_DEFAULT,
        value_parser = clap::value_parser!(i32).range(1..=limits::REDRIVE_RATE_MOST)
    )]
    rate: i32,
    /// Begin the job, print its id, and do not wait until everything is queued.
    #[arg(long)]
    no_wait: bool,
}

/// Sends failed webhooks of an endpoint again, and waiting ones at once, with the same events and ids.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  notihub webhook recover 0P8MV3S4Y0T1C --since 2026-12-24T09:00:00+09:00\n\nThe command \
ends when everything is queued; `notihub webhook deliveries ENDPOINT` shows the outcomes."
)]
pub struct RecoverArgs {
    /// The endpoint's id.
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// Webhooks that failed at this time or later.
    #[arg(long, value_name = "TIME")]
    since: String,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

/// Sends the events of a window of time to an endpoint again, whether or not they were delivered before, with the same
/// ids.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  notihub webhook replay 0P8MV3S4Y0T1C --since 2026-12-24T09:00:00+09:00 --until \
2026-12-24T10:00:00+09:00\n\nThe command ends when everything is queued; `notihub webhook deliveries ENDPOINT` shows \
the \
outcomes.")]
pub struct ReplayArgs {
    /// The endpoint's id.
    #[arg(value_name = "ENDPOINT")]
    endpoint: String,
    /// Events that happened at this time or later.
    #[arg(long, value_name = "TIME")]
    since: String,
    /// Events that happened before this time [default: now].
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Only this event; may be given several times [default: all that the endpoint subscribes to].
    #[arg(long, value_name = "EVENT", value_parser = endpoints::parse_requestable_event)]
    event: Vec<EventKind>,
    #[command(flatten)]
    pace: RateArgs,
    #[command(flatten)]
    target: Target,
}

/// `notihub redrive`: redrives one dead letter, begins a job for many, or shows or cancels a job. Returns the exit
/// code: 1 if a job was canceled or the command was interrupted.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers;
/// `Error::Usage` if nothing is selected.
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
        return Err(Error::Usage("nothing is selected: name a delivery, give a filter (see --help), or --all".into()));
    }
    let order = json!({"filter": filter, "dryRun": args.dry_run, "ratePerSecond": args.pace.rate});
    let answer = client.post("/v1/dead-letters/redrive", &order).await?;
    if args.dry_run {
        match output {
            Output::Json => print::json(&answer),
            Output::Text => anstream::println!("{}", count_text(&answer)),
        }
        return Ok(0);
    }
    follow(&client, answer, &args.pace, output).await
}

/// `notihub webhook recover`: begins the job and follows it. Returns the exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn recover(args: RecoverArgs, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let order = json!({"since": args.since, "ratePerSecond": args.pace.rate});
    let answer = client.post(&format!("/v1/webhooks/{}/recover", path_segment(&args.endpoint)), &order).await?;
    follow(&client, answer, &args.pace, output).await
}

/// `notihub webhook replay`: begins the job and follows it. Returns the exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn replay(args: ReplayArgs, output: Output) -> Result<u8> {
    let client = Client::new(&args.target)?;
    let events: Vec<&str> = args.event.iter().map(|event| event.as_str()).collect();
    let events = (!events.is_empty()).then_some(events);
    let order = json!({"since": args.since, "until": args.until, "events": events, "ratePerSecond": args.pace.rate});
    let answer = client.post(&format!("/v1/webhooks/{}/replay", path_segment(&args.endpoint)), &order).await?;
    follow(&client, answer, &args.pace, output).await
}

/// Prints the progress of a job until it ends. Stopping the command does not stop the job.
async fn follow(client: &Client, mut job: Value, pace: &RateArgs, output: Output) -> Result<u8> {
    let id = text(&job["redriveId"]);
    let shows_progress = output == Output::Text && !pace.no_wait;
    if shows_progress {
        anstream::eprintln!("{} of {}: {} a second at most", id, count_text(&job), pace.rate);
    }
    let mut stop = std::pin::pin!(signalled());
    while !pace.no_wait && job["status"] == "RUNNING" {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_millis(500)) => (),
            () = &mut stop => {
                anstream::eprintln!("the job continues; `notihub redrive --job {id} --cancel` stops it");
                return Ok(1);
            }
        }
        job = client.get(&format!("/v1/redrives/{}", path_segment(&id))).await?;
        if shows_progress {
            anstream::eprintln!("{}", print::paint(print::DIM, &progress_text(&job)));
        }
    }
    if output == Output::Text && pace.no_wait {
        anstream::println!("{id}");
        anstream::eprintln!("`notihub redrive --job {id}` shows its progress; with --cancel it stops the job");
    } else {
        print_job(&job, output);
    }
    Ok(u8::from(job["status"] == "CANCELED"))
}

/// Prints a job and its progress. Queued deliveries are not sent yet.
fn print_job(job: &Value, output: Output) {
    match output {
        Output::Json => print::json(job),
        Output::Text => {
            let endpoint = job["endpointId"].as_str();
            let see = endpoint.map(|_| format!("; see `notihub webhook deliveries {}`", text(&job["endpointId"])));
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

fn count_text(job: &Value) -> String {
    match (job["count"].as_i64(), job["countIsLowerBound"] == true) {
        (Some(count), more) => {
            let waiting = job["waiting"].as_i64().map(|n| format!(" and {n} that wait for their next attempt"));
            format!("{}{count} dead letters{}", if more { "more than " } else { "" }, waiting.unwrap_or_default())
        }
        (None, _) => "the events of that time".to_owned(),
    }
}

fn text(value: &Value) -> String {
    print::printable(value.as_str().unwrap_or_default())
}

/// A typed id as one segment of a path, escaped.
fn path_segment(id: &str) -> String {
    form_urlencoded::byte_serialize(id.as_bytes()).collect()
}
