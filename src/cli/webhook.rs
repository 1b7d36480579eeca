//! `notihub webhook`: a partner's endpoints. Calls the API as the partner, or as an admin for it.

use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::client::{Client, Target};
use super::endpoints::{self, no_such_event, page_items, partner_query};
use super::{Output, print, redrive, webhook_listen, webhook_verify};
use crate::error::{Error, Result};
use crate::flow::endpoint::{OVERLAP, OVERLAP_MOST};
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::Status;
use crate::model::event::{EVENT_KINDS, EventKind};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub webhook create https://orders.example.com/hooks --events \
delivery.delivered,delivery.failed\n  notihub webhook test 0TB9C87800002 --wait\n  notihub webhook deliveries \
0TB9C87800002 --status FAILED\n  notihub webhook rotate 0TB9C87800002")]
pub struct WebhookCommand {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Makes an endpoint. The secret is printed once and cannot be read again.
    #[command(
        after_help = "Examples:\n  notihub webhook create https://orders.example.com/hooks\n  notihub webhook create \
https://orders.example.com/hooks --events delivery.failed,message.completed --ordered true"
    )]
    Create(Create),
    /// Lists all endpoints.
    List(List),
    /// Shows an endpoint and its health.
    #[command(after_help = "Example:\n  notihub webhook show 0TB9C87800002 --output json")]
    Show(EndpointArgs),
    /// Changes an endpoint. Flags that are left out change nothing.
    #[command(
        after_help = "Examples:\n  notihub webhook set 0TB9C87800002 --events delivery.failed,delivery.expired\n  \
notihub webhook set 0TB9C87800002 --endpoint-url https://orders.example.com/new --contact-email ops@example.com"
    )]
    Set(Set),
    /// Pauses an endpoint: its webhooks wait. After thirty days it is disabled.
    #[command(
        after_help = "Example:\n  notihub webhook pause 0TB9C87800002\n\nIts webhooks wait for thirty days; then the \
endpoint is disabled, and the waiting webhooks become dead letters. A disabled endpoint cannot be paused."
    )]
    Pause(EndpointArgs),
    /// Resumes a paused or disabled endpoint, and sends the waiting webhooks.
    #[command(
        after_help = "Examples:\n  notihub webhook resume 0TB9C87800002\n  notihub webhook recover 0TB9C87800002 \
--since 2026-12-24T09:00:00+09:00   also sends webhooks that failed meanwhile"
    )]
    Resume(EndpointArgs),
    /// Makes a new secret, which is printed once. During the overlap requests are signed with both secrets.
    #[command(
        after_help = "Example:\n  notihub webhook rotate 0TB9C87800002 --overlap-seconds 3600\n\nDuring the overlap \
X-Signature is made with the old secret and X-Signature-Next with the new one; webhook-signature has both. Afterwards \
X-Signature is made with the new secret, and X-Signature-Next is left out."
    )]
    Rotate(Rotate),
    /// Sends the event endpoint.test to an endpoint, whatever it subscribes to.
    #[command(after_help = "Example:\n  notihub webhook test 0TB9C87800002 --wait")]
    Test(Test),
    /// Lists an endpoint's webhooks, newest first.
    #[command(after_help = "Examples:\n  notihub webhook deliveries 0TB9C87800002 --status FAILED\n  notihub status \
0TB9C87800003-1   one webhook, with each call and its response")]
    Deliveries(Deliveries),
    /// Deletes an endpoint. Its unsent webhooks are canceled.
    #[command(after_help = "Example:\n  notihub webhook delete 0TB9C87800002")]
    Delete(EndpointArgs),
    /// Sends failed webhooks of an endpoint again, with the same events and ids.
    Recover(redrive::RecoverArgs),
    /// Sends the events of a window of time to an endpoint again, with the same ids.
    Replay(redrive::ReplayArgs),
    /// Receives webhooks on this machine, verifies and prints them, and answers as configured: for developing an
    /// endpoint.
    Listen(webhook_listen::Listen),
    /// Verifies the signatures of one pasted request: start line, headers, an empty line, body.
    Verify(webhook_verify::Verify),
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    target: Target,
    /// The endpoint's URL: https://…
    #[arg(value_name = "ENDPOINT_URL")]
    endpoint_url: String,
    #[command(flatten)]
    change: EndpointFlags,
    /// The partner that owns the endpoint; for admins.
    #[arg(long, value_name = "PARTNER", value_parser = parse_id)]
    partner_id: Option<Tsid>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: Target,
    /// Only endpoints of this partner; for operators and admins.
    #[arg(long, value_name = "PARTNER", value_parser = parse_id)]
    partner_id: Option<Tsid>,
}

#[derive(Debug, Args)]
struct EndpointArgs {
    #[command(flatten)]
    target: Target,
    /// The endpoint's id, 13 characters.
    #[arg(value_name = "ENDPOINT", value_parser = parse_id)]
    endpoint: Tsid,
}

#[derive(Debug, Args)]
struct Set {
    #[command(flatten)]
    one: EndpointArgs,
    /// The new URL.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    #[command(flatten)]
    change: EndpointFlags,
}

#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    one: EndpointArgs,
    /// Seconds for which requests are also signed with the old secret; 0: only the new one.
    #[arg(
        long,
        default_value_t = OVERLAP.num_seconds(),
        value_name = "S",
        value_parser = clap::value_parser!(i64).range(0..=OVERLAP_MOST.num_seconds())
    )]
    overlap_seconds: i64,
}

#[derive(Debug, Args)]
struct Test {
    #[command(flatten)]
    one: EndpointArgs,
    /// Wait for the response; exit code 1 unless the endpoint accepted the event.
    #[arg(long)]
    wait: bool,
    /// Seconds to wait at most.
    #[arg(long, default_value_t = 60, value_name = "S")]
    timeout: u64,
}

#[derive(Debug, Args)]
struct Deliveries {
    #[command(flatten)]
    one: EndpointArgs,
    /// Only webhooks with this status; FAILED lists the dead letters.
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
    /// Only webhooks with this event.
    #[arg(long, value_name = "EVENT", value_parser = parse_event)]
    event: Option<EventKind>,
    /// The number of webhooks, at most.
    #[arg(
        long,
        default_value_t = 20,
        value_name = "N",
        value_parser = clap::value_parser!(i64).range(1..=limits::PAGE_MAX)
    )]
    limit: i64,
}

#[derive(Debug, Args)]
struct EndpointFlags {
    /// The events to subscribe to, separated by commas, or `all` [default: all].
    #[arg(long, value_name = "EVENTS", value_parser = parse_events)]
    events: Option<Events>,
    /// A description; empty removes it.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether the events of one message are sent one after the other, in order [default: false].
    #[arg(long, value_name = "BOOL")]
    ordered: Option<bool>,
    /// Whether events carry the content of the message; the partner needs the capability webhook_content [default:
    /// false].
    #[arg(long, value_name = "BOOL")]
    include_content: Option<bool>,
    /// The e-mail address that is informed when the endpoint is disabled; empty removes it.
    #[arg(long, value_name = "ADDRESS")]
    contact_email: Option<String>,
    /// An additional header of every request, as 'Name: value'; may be given several times. Replaces all former ones.
    #[arg(long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<Header>,
    /// Remove all additional headers.
    #[arg(long, conflicts_with = "header")]
    no_headers: bool,
}

/// The events of an endpoint; none: all.
#[derive(Debug, Clone)]
struct Events(Option<Vec<String>>);

/// A header. `Debug` hides its value, which may be a credential.
#[derive(Clone)]
struct Header(String, String);

impl std::fmt::Debug for Header {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Header {}", self.0)
    }
}

fn parse_id(text: &str) -> std::result::Result<Tsid, String> {
    text.parse().map_err(|_| "an id has 13 characters; `notihub webhook list` shows them".into())
}

fn parse_event(text: &str) -> std::result::Result<EventKind, String> {
    text.parse().map_err(|()| no_such_event(&EVENT_KINDS))
}

/// Splits the list. The hub checks the names.
fn parse_events(text: &str) -> std::result::Result<Events, String> {
    Ok(Events((text != "all").then(|| text.split(',').map(|event| event.trim().to_owned()).collect())))
}

fn parse_header(text: &str) -> std::result::Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("write a header as 'Name: value'")?;
    Ok(Header(name.trim().to_owned(), value.trim().to_owned()))
}

impl EndpointFlags {
    /// The body for the API, with the flags that were given.
    fn body(self) -> Map<String, Value> {
        let or_null = |text: String| if text.is_empty() { Value::Null } else { text.into() };
        let headers: Map<String, Value> =
            self.header.into_iter().map(|Header(name, value)| (name, value.into())).collect();
        let named = [
            ("events", self.events.map(|events| json!(events.0))),
            ("description", self.description.map(or_null)),
            ("ordered", self.ordered.map(Value::from)),
            ("includeContent", self.include_content.map(Value::from)),
            ("contactEmail", self.contact_email.map(or_null)),
            ("headers", (self.no_headers || !headers.is_empty()).then_some(Value::Object(headers))),
        ];
        named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// `notihub webhook`: runs the subcommand. Returns the exit code.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers;
/// `Error::Usage` if `set` gets no flag.
pub async fn run(args: WebhookCommand, output: Output) -> Result<u8> {
    let say = |answer: &Value, text: &dyn Fn(&Value)| match output {
        Output::Json => print::json(answer),
        Output::Text => text(answer),
    };
    match args.action {
        Action::Create(args) => {
            let mut body = args.change.body();
            body.insert("url".into(), args.endpoint_url.into());
            let path = format!("/v1/webhooks{}", partner_query('?', args.partner_id));
            let made = Client::new(&args.target)?.post(&path, &Value::Object(body)).await?;
            say(&made, &print_with_secret);
        }
        Action::List(args) => {
            let items = endpoints::list_all(&Client::new(&args.target)?, args.partner_id).await?;
            say(&json!({"items": items}), &|_| items.iter().for_each(print_line));
            if items.is_empty() && output == Output::Text {
                anstream::eprintln!("no endpoints; `notihub webhook create URL` makes one");
            }
        }
        Action::Show(args) => {
            let client = Client::new(&args.target)?;
            let mut endpoint = client.get(&args.path("")).await?;
            endpoint["health"] = client.get(&args.path("/health")).await?;
            say(&endpoint, &print_endpoint);
        }
        Action::Set(args) => {
            let mut body = args.change.body();
            body.extend(args.endpoint_url.map(|url| ("url".to_owned(), url.into())));
            if body.is_empty() {
                return Err(Error::Usage(
                    "nothing to change: give at least one flag; `notihub webhook set --help` lists them".into(),
                ));
            }
            say(&args.one.patch(&Value::Object(body)).await?, &print_line);
        }
        Action::Pause(args) => say(&args.patch(&json!({"status": "PAUSED"})).await?, &print_line),
        Action::Resume(args) => say(&args.patch(&json!({"status": "ACTIVE"})).await?, &print_line),
        Action::Rotate(args) => {
            let (client, body) = (Client::new(&args.one.target)?, json!({"overlapSeconds": args.overlap_seconds}));
            say(&client.post(&args.one.path("/rotate"), &body).await?, &print_with_secret);
        }
        Action::Test(args) => return test(&args, output).await,
        Action::Deliveries(args) => {
            let mut path = args.one.path(&format!("/deliveries?limit={}", args.limit));
            path.extend(args.status.map(|status| format!("&status={status}")));
            path.extend(args.event.map(|event| format!("&event={}", event.as_str())));
            let page = Client::new(&args.one.target)?.get(&path).await?;
            say(&page, &|page| page_items(page).for_each(print_delivery));
        }
        Action::Delete(args) => {
            Client::new(&args.target)?.delete(&args.path("")).await?;
            let id = args.endpoint.to_string();
            say(&json!({"deleted": id}), &|_| anstream::println!("{id} is deleted"));
        }
        Action::Recover(args) => return redrive::recover(args, output).await,
        Action::Replay(args) => return redrive::replay(args, output).await,
        Action::Listen(args) => return webhook_listen::run(args, output).await,
        Action::Verify(args) => return webhook_verify::run(args, output),
    }
    Ok(0)
}

impl EndpointArgs {
    fn path(&self, below: &str) -> String {
        format!("/v1/webhooks/{}{below}", self.endpoint)
    }

    async fn patch(&self, body: &Value) -> Result<Value> {
        Client::new(&self.target)?.patch(&self.path(""), body).await
    }
}

/// Sends a test event; with `--wait` prints its outcome.
async fn test(args: &Test, output: Output) -> Result<u8> {
    let client = Client::new(&args.one.target)?;
    let sent = client.post(&args.one.path("/test"), &json!({})).await?;
    let id = sent["deliveryId"].as_str().unwrap_or_default();
    if !args.wait {
        match output {
            Output::Json => print::json(&sent),
            Output::Text => anstream::println!("{id}"),
        }
        return Ok(0);
    }
    let (began, within) = (Instant::now(), Duration::from_secs(args.timeout));
    let path = format!("/v1/deliveries/{id}");
    let mut answer = client.get(&path).await?;
    // SCHEDULED is an outcome: the first attempt failed, and another follows.
    while matches!(answer["status"].as_str(), Some("PENDING" | "PROCESSING")) && began.elapsed() < within {
        tokio::time::sleep(Duration::from_millis(50)).await;
        answer = client.get(&path).await?;
    }
    let status = answer["status"].as_str().unwrap_or_default();
    match output {
        Output::Json => print::json(&answer),
        Output::Text => {
            let last = answer["attempts"].as_array().and_then(|all| all.last()).unwrap_or(&Value::Null);
            let answered = ["errorCode", "errorDetail", "providerRef"].map(|name| text(&last[name]));
            let answered: Vec<String> = answered.into_iter().filter(|text| !text.is_empty()).collect();
            anstream::println!("{id}  {}  {}", print::status(status), answered.join(" · "));
        }
    }
    Ok(u8::from(status != "SENT"))
}

fn text(value: &Value) -> String {
    print::printable(value.as_str().unwrap_or_default())
}

fn print_line(endpoint: &Value) {
    let events = endpoint["events"].as_array().map(|all| all.iter().map(text).collect::<Vec<_>>().join(", "));
    let why = endpoint["disabledReason"].as_str().map(|why| format!(" ({why})")).unwrap_or_default();
    let since = endpoint["failingSince"].as_str().map(|at| format!("  failing since {at}")).unwrap_or_default();
    anstream::println!(
        "{} {}{why}  {}  {}{since}  {}",
        text(&endpoint["endpointId"]),
        print::status(&text(&endpoint["status"])),
        text(&endpoint["url"]),
        events.unwrap_or_else(|| "every event".into()),
        print::paint(print::DIM, &text(&endpoint["description"])),
    );
}

fn print_with_secret(made: &Value) {
    print_line(made);
    anstream::println!("secret  {}   (shown this once)", text(&made["secret"]));
    during_rotation(made);
}

/// Prints which secret signs which header, during a rotation.
fn during_rotation(endpoint: &Value) {
    if let Some(until) = endpoint["formerSecretGoodUntil"].as_str() {
        anstream::println!(
            "  until {until}: X-Signature with the old secret, X-Signature-Next with the new one; then X-Signature \
             with the new one"
        );
    }
}

fn print_endpoint(endpoint: &Value) {
    print_line(endpoint);
    during_rotation(endpoint);
    let headers: Vec<String> = endpoint["headers"].as_array().into_iter().flatten().map(text).collect();
    let settings = [
        (
            endpoint["contactEmail"].is_string(),
            format!("{} is informed when it is disabled", text(&endpoint["contactEmail"])),
        ),
        (!headers.is_empty(), format!("additional headers: {}", headers.join(", "))),
        (endpoint["ordered"] == true, "the events of a message are sent one after the other".to_owned()),
        (endpoint["includeContent"] == true, "events carry the content of the message".to_owned()),
    ];
    settings.iter().filter(|(is_set, _)| *is_set).for_each(|(_, text)| anstream::println!("  {text}"));
    let health = &endpoint["health"];
    let count = |name: &str| health[name].as_u64().unwrap_or_default();
    let rate = health["successRate"].as_f64();
    anstream::println!("  since {}", text(&health["since"]));
    anstream::println!(
        "    delivered     {}{}",
        count("delivered"),
        rate.map_or(", not called".to_owned(), |rate| format!(", {:.1} % of those called", rate * 100.0)),
    );
    anstream::println!("    dead letters  {}", count("dead"));
    let (pending, parked) = (count("pending"), count("parked"));
    let failing = count("failing");
    let in_vain = if failing > 0 { format!("; {failing} with failed calls so far") } else { String::new() };
    anstream::println!("    waiting       {pending} to be sent, {parked} until the endpoint is resumed{in_vain}");
    health["lastFailures"].as_array().into_iter().flatten().for_each(print_delivery);
}

/// Prints a webhook as one line: time, delivery, event, message, event id, status, calls and the last response.
fn print_delivery(row: &Value) {
    let last = &row["lastAttempt"];
    let or_none = |value: &Value| value.as_str().map_or("–".to_owned(), print::printable);
    let calls = match row["attempts"].as_u64().unwrap_or_default() {
        1 => "1 call".to_owned(),
        n => format!("{n} calls"),
    };
    let next = row["nextAttemptAt"].as_str().map(|at| format!("  next {at}")).unwrap_or_default();
    // The reason for the status, and the last response.
    let mut answered = [&row["reason"], &last["code"], &last["detail"]].map(text).to_vec();
    answered.retain(|text| !text.is_empty());
    anstream::println!(
        "  {} {:<16} {:<22} {:<13} {:<18} {} {calls:>8}{next}  {}",
        text(&row["createdAt"]),
        text(&row["deliveryId"]),
        text(&row["event"]),
        or_none(&row["about"]),
        or_none(&row["eventId"]),
        print::status(&format!("{:<12}", text(&row["status"]))),
        print::paint(print::DIM, &answered.join(" · ").replace('\n', " ")),
    );
}
