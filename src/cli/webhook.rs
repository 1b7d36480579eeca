//! `notihub webhook`: where a partner wants to hear what became of its messages. Over the API, as the partner, or as an
//! admin for it.

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
    /// Makes an endpoint. Its secret is shown this once.
    #[command(
        after_help = "Examples:\n  notihub webhook create https://orders.example.com/hooks\n  notihub webhook create \
https://orders.example.com/hooks --events delivery.failed,message.completed --ordered true"
    )]
    Create(Create),
    /// All endpoints.
    List(List),
    /// One endpoint and how it does.
    #[command(after_help = "Example:\n  notihub webhook show 0TB9C87800002 --output json")]
    Show(EndpointArgs),
    /// Changes an endpoint. What is not named stays.
    #[command(
        after_help = "Examples:\n  notihub webhook set 0TB9C87800002 --events delivery.failed,delivery.expired\n  \
notihub webhook set 0TB9C87800002 --endpoint-url https://orders.example.com/new --contact-email ops@example.com"
    )]
    Set(Set),
    /// Sends it nothing for now: what is for it waits. After thirty days it is disabled.
    #[command(
        after_help = "Example:\n  notihub webhook pause 0TB9C87800002\n\nWhat is for it waits for thirty days; then it \
is disabled, and what waited are dead letters. One that is disabled cannot be paused."
    )]
    Pause(EndpointArgs),
    /// Goes on with what waited. A disabled one, too.
    #[command(
        after_help = "Examples:\n  notihub webhook resume 0TB9C87800002\n  notihub webhook recover 0TB9C87800002 \
--since 2026-12-24T09:00:00+09:00   what failed while it did not work, or was disabled"
    )]
    Resume(EndpointArgs),
    /// A new secret, shown this once. For the overlap requests are signed with both.
    #[command(
        after_help = "Example:\n  notihub webhook rotate 0TB9C87800002 --overlap-seconds 3600\n\nDuring the overlap \
X-Signature is by the old secret and X-Signature-Next by the new one, and webhook-signature has both. Then X-Signature is by \
the new one, and there is no X-Signature-Next."
    )]
    Rotate(Rotate),
    /// Sends it an event endpoint.test, whatever it asks for.
    #[command(after_help = "Example:\n  notihub webhook test 0TB9C87800002 --wait")]
    Test(Test),
    /// What it got, newest first.
    #[command(after_help = "Examples:\n  notihub webhook deliveries 0TB9C87800002 --status FAILED\n  notihub status \
0TB9C87800003-1   one of them, each call and what was answered")]
    Deliveries(Deliveries),
    /// Deletes it. What is on its way to it is canceled.
    #[command(after_help = "Example:\n  notihub webhook delete 0TB9C87800002")]
    Delete(EndpointArgs),
    /// Sends again what failed on its way to an endpoint: the same events under the same ids.
    Recover(redrive::RecoverArgs),
    /// Tells an endpoint again what happened in a window of time: the same events under the same ids.
    Replay(redrive::ReplayArgs),
    /// Receives webhooks here, verifies and prints them, and answers as told: for whoever writes the endpoint.
    Listen(webhook_listen::Listen),
    /// Verifies one request, pasted as it came: start line, headers, an empty line, body.
    Verify(webhook_verify::Verify),
}

#[derive(Debug, Args)]
struct Create {
    #[command(flatten)]
    target: Target,
    /// Where it is: https://…
    #[arg(value_name = "ENDPOINT_URL")]
    endpoint_url: String,
    #[command(flatten)]
    change: EndpointFlags,
    /// For admins: whose it is.
    #[arg(long, value_name = "PARTNER", value_parser = parse_id)]
    partner_id: Option<Tsid>,
}

#[derive(Debug, Args)]
struct List {
    #[command(flatten)]
    target: Target,
    /// For operators: only this partner's.
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
    /// Another URL.
    #[arg(long, value_name = "URL")]
    endpoint_url: Option<String>,
    #[command(flatten)]
    change: EndpointFlags,
}

#[derive(Debug, Args)]
struct Rotate {
    #[command(flatten)]
    one: EndpointArgs,
    /// Seconds the secret before signs too; 0: it ends now.
    #[arg(long, default_value_t = OVERLAP.num_seconds(), value_name = "S", value_parser = clap::value_parser!(i64).range(0..=OVERLAP_MOST.num_seconds()))]
    overlap_seconds: i64,
}

#[derive(Debug, Args)]
struct Test {
    #[command(flatten)]
    one: EndpointArgs,
    /// Wait for what it answers; exit 1 unless it took it.
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
    /// Those that stand so, as FAILED: the dead letters.
    #[arg(long, value_name = "STATUS")]
    status: Option<Status>,
    /// Those of this event.
    #[arg(long, value_name = "EVENT", value_parser = parse_event)]
    event: Option<EventKind>,
    /// How many at most.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(i64).range(1..=limits::PAGE_MAX))]
    limit: i64,
}

#[derive(Debug, Args)]
struct EndpointFlags {
    /// What it is told of, with commas; all: everything, which is the default.
    #[arg(long, value_name = "EVENTS", value_parser = parse_events)]
    events: Option<Events>,
    /// What it is for; empty: nothing.
    #[arg(long, value_name = "TEXT")]
    description: Option<String>,
    /// Whether events of one message are sent one after the other. A new one has false.
    #[arg(long, value_name = "BOOL")]
    ordered: Option<bool>,
    /// Whether events carry what the message said; the partner must have been granted that. A new one has false.
    #[arg(long, value_name = "BOOL")]
    include_content: Option<bool>,
    /// Who is told by e-mail when it is disabled; empty: nobody.
    #[arg(long, value_name = "ADDRESS")]
    contact_email: Option<String>,
    /// A header of its own for every request, as 'Name: value'; several times for several. These are all it has then.
    #[arg(long, value_name = "HEADER", value_parser = parse_header)]
    header: Vec<Header>,
    /// It has no headers of its own.
    #[arg(long, conflicts_with = "header")]
    no_headers: bool,
}

/// None: all.
#[derive(Debug, Clone)]
struct Events(Option<Vec<String>>);

/// Its value may be a credential.
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

/// The hub says which there are.
fn parse_events(text: &str) -> std::result::Result<Events, String> {
    Ok(Events((text != "all").then(|| text.split(',').map(|event| event.trim().to_owned()).collect())))
}

fn parse_header(text: &str) -> std::result::Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("write a header as 'Name: value'")?;
    Ok(Header(name.trim().to_owned(), value.trim().to_owned()))
}

impl EndpointFlags {
    /// As the API takes it; what is not named is not in it.
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
                return Err(Error::Usage("nothing to change: name it; `notihub webhook set --help` lists all".into()));
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

/// Sends a test, and says what came of it.
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
    // SCHEDULED is an answer: it did not take it, and is asked again.
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

/// Which secret signs which header, while there are two.
fn during_rotation(endpoint: &Value) {
    if let Some(until) = endpoint["formerSecretGoodUntil"].as_str() {
        anstream::println!(
            "  until {until}: X-Signature by the old secret, X-Signature-Next by the new; then X-Signature by the new"
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
            format!("{} is told when it is disabled", text(&endpoint["contactEmail"])),
        ),
        (!headers.is_empty(), format!("headers of its own: {}", headers.join(", "))),
        (endpoint["ordered"] == true, "events of a message go one after the other".to_owned()),
        (endpoint["includeContent"] == true, "events carry what the message said".to_owned()),
    ];
    settings.iter().filter(|(is_set, _)| *is_set).for_each(|(_, text)| anstream::println!("  {text}"));
    let health = &endpoint["health"];
    let count = |name: &str| health[name].as_u64().unwrap_or_default();
    let rate = health["successRate"].as_f64();
    anstream::println!("  since {}", text(&health["since"]));
    anstream::println!(
        "    delivered     {}{}",
        count("delivered"),
        rate.map_or(", not called".to_owned(), |rate| format!(", {:.1} % of those it was called for", rate * 100.0)),
    );
    anstream::println!("    dead letters  {}", count("dead"));
    let (pending, parked) = (count("pending"), count("parked"));
    let failing = count("failing");
    let in_vain = if failing > 0 { format!("; {failing} of them called in vain so far") } else { String::new() };
    anstream::println!("    waiting       {pending} for their turn, {parked} until it is resumed{in_vain}");
    health["lastFailures"].as_array().into_iter().flatten().for_each(print_delivery);
}

/// One event on its way to an endpoint: when, which delivery, which event of which message, and how it stands.
fn print_delivery(row: &Value) {
    let last = &row["lastAttempt"];
    let or_none = |value: &Value| value.as_str().map_or("–".to_owned(), print::printable);
    let calls = match row["attempts"].as_u64().unwrap_or_default() {
        1 => "1 call".to_owned(),
        n => format!("{n} calls"),
    };
    let next = row["nextAttemptAt"].as_str().map(|at| format!("  next {at}")).unwrap_or_default();
    // Why it stands so, and what was answered last.
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
