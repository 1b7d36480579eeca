//! `notihub webhook listen`: an endpoint for trying webhooks. It prints each request and whether its signatures are
//! valid, and answers as configured. Requests come from outside, so they are printed escaped.

use std::collections::{BTreeMap, HashMap};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use clap::Args;
use data_encoding::BASE64;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::client::{Client, Target};
use super::webhook_verify::{self, Secrets};
use super::{Output, endpoints, print};
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::http::server::{self, ServerLimits};
use crate::model::signature::{self, SignatureChecks};
use crate::shutdown::{Shutdown, signalled};

/// The description by which a listener recognises endpoints that it registered.
const DESCRIPTION: &str = "notihub webhook listen";
const BODY_BYTES: usize = 1 << 20;
/// The number of event ids kept to recognise repeats. At the limit all are dropped.
const REMEMBERED: usize = 100_000;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  notihub webhook listen --secret whsec_…\n  notihub webhook listen --create   \
         registers an endpoint at a running hub and deletes it at the end\n  notihub webhook listen --answer \
500,500,200   two failures, then success\n  notihub webhook listen --answer delay:20s,410   too slow once, then \
gone\n  notihub \
webhook listen --secret whsec_… --save got\n  notihub webhook verify --secret whsec_… --ignore-time \
got/FILE\n\nExtract the body of a saved request: sed '1,/^$/d' got/FILE\n\n\
A hub calls this machine only if that is allowed: notihub up --demo, or --webhook-allow-http --webhook-allow-network \
127.0.0.0/8\n\n\
A listener that is killed leaves its endpoint registered: `notihub webhook delete` deletes it, and so does the next \
--create \
with the same URL.")]
pub struct Listen {
    /// The address to listen on; port 0 takes any free port.
    #[arg(long, default_value = "127.0.0.1:9099", value_name = "ADDRESS")]
    listen: SocketAddr,
    #[command(flatten)]
    secrets: Secrets,
    /// The answers, in order; the last one repeats. Each is a status, delay:3s (then 200) or delay:3s:503 [default:
    /// 200, and 401 for an invalid signature].
    #[arg(long, value_delimiter = ',', value_name = "ANSWER")]
    answer: Vec<Answer>,
    /// Save each request as a file in this folder: start line, headers, an empty line, the exact bytes of the body.
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Register an endpoint at the hub while listening, and verify with its secret.
    #[arg(long)]
    create: bool,
    /// The URL where the hub reaches this listener [default: the address it listens on].
    #[arg(long, requires = "create", value_name = "URL")]
    endpoint_url: Option<String>,
    /// Only these events, for example delivery.failed,message.completed [default: all].
    #[arg(long, requires = "create", value_delimiter = ',', value_name = "EVENT")]
    events: Vec<String>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    status: StatusCode,
    delay: Duration,
}

impl FromStr for Answer {
    type Err = String;
    fn from_str(text: &str) -> Result<Answer, String> {
        let (delay, status) = match text.strip_prefix("delay:") {
            Some(rest) => match rest.split_once(':') {
                Some((delay, status)) => (delay, status),
                None => (rest, "200"),
            },
            None => ("0s", text),
        };
        let number = |digits: &str| digits.parse::<u32>().ok();
        let delay = match delay.strip_suffix("ms") {
            Some(millis) => number(millis).map(|n| Duration::from_millis(n.into())),
            None => number(delay.strip_suffix('s').unwrap_or(delay)).map(|n| Duration::from_secs(n.into())),
        };
        // A status below 200 is not a final answer.
        let status = status.parse().ok().filter(|status: &StatusCode| (200..=599).contains(&status.as_u16()));
        let read = delay.zip(status).map(|(delay, status)| Answer { status, delay });
        read.ok_or_else(|| "an answer is a status from 200 to 599, delay:3s or delay:500ms:503".to_owned())
    }
}

/// `notihub webhook listen`: listens until a signal, then prints a summary. Returns the exit code.
///
/// # Errors
/// `Error::Setup` if the address cannot be listened on or the folder cannot be written; `Error::Answered` with the
/// hub's problem if the hub refuses the request; `Error::Setup` if no hub answers (with `--create`).
pub async fn run(args: Listen, output: Output) -> Result<u8> {
    let mut secrets = args.secrets.read()?;
    if let Some(folder) = &args.save {
        let unusable = |e| Error::Setup(format!("{} cannot be written to: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(unusable)?;
    }
    let listener = TcpListener::bind(args.listen).await.map_err(|e| {
        Error::Setup(format!("cannot listen on {}: {e}; give another --listen, or port 0 for any", args.listen))
    })?;
    let address = listener.local_addr().map_err(|e| Error::Internal(format!("a listener has no address: {e}")))?;
    let url = args.endpoint_url.clone().unwrap_or_else(|| format!("http://{address}/"));
    let created = if args.create { Some(RegisteredEndpoint::new(&args, &url).await?) } else { None };
    secrets.extend(created.iter().map(|created| created.secret.clone()));
    let unchecked = secrets.is_empty();
    let receiver =
        Arc::new(Receiver { secrets, answers: args.answer, save: args.save, output, counts: Mutex::default() });

    let shutdown = Shutdown::new();
    let router = Router::new().fallback(receive).with_state((receiver.clone(), shutdown.clone()));
    // A busy hub opens many connections, and none of them signs in.
    let allowance = ServerLimits { unauthenticated_per_network: None, ..ServerLimits::default() };
    server::start_with(allowance, listener, router, &shutdown);
    match output {
        Output::Json => {
            let endpoint_id = created.as_ref().map(|created| created.endpoint_id.as_str());
            print::json(&json!({"listening": format!("http://{address}/"), "endpointId": endpoint_id}));
        }
        Output::Text => {
            let checked = if unchecked { "; signatures are not checked without --secret" } else { "" };
            let registered = created
                .as_ref()
                .map_or(String::new(), |c| format!(" as endpoint {}", print::printable(&c.endpoint_id)));
            anstream::println!("listens on http://{address}/{registered}; Ctrl-C ends{checked}");
        }
    }
    signalled().await;
    shutdown.stop();
    let drained = shutdown.drained(Duration::from_secs(5)).await;
    // Print the summary even if the hub cannot be reached any more.
    let removed = match created {
        Some(created) => created.remove().await,
        None => Ok(()),
    };
    receiver.print_summary();
    removed.map(|()| u8::from(!drained))
}

/// The endpoint that was registered at the hub while listening.
struct RegisteredEndpoint {
    client: Client,
    endpoint_id: String,
    secret: String,
}

impl RegisteredEndpoint {
    async fn new(args: &Listen, url: &str) -> Result<RegisteredEndpoint> {
        let client = Client::new(&args.target)?;
        let others = endpoints::list_all(&client, None).await?;
        let mut body = json!({"url": url, "description": DESCRIPTION});
        if !args.events.is_empty() {
            body["events"] = json!(args.events);
        }
        let made = client.post("/v1/webhooks", &body).await.map_err(|e| match e {
            Error::Answered { message, problem }
                if matches!(problem["reason"].as_str(), Some("url_scheme" | "url_host_not_allowed")) =>
            {
                let flags = "--webhook-allow-http --webhook-allow-network 127.0.0.0/8";
                let message = format!(
                    "{message}\n  the hub may call this machine only if it is started with `notihub up --demo` or with \
                     {flags}"
                );
                Error::Answered { message, problem }
            }
            other => other,
        })?;
        let text = |name: &str| made[name].as_str().unwrap_or_default().to_owned();
        // Endpoints that a killed listener left for the same URL.
        let same = |other: &&Value| other["url"] == made["url"] && other["description"] == DESCRIPTION;
        for left in others.iter().filter(same) {
            client.delete(&format!("/v1/webhooks/{}", left["endpointId"].as_str().unwrap_or_default())).await?;
        }
        Ok(RegisteredEndpoint { endpoint_id: text("endpointId"), secret: text("secret"), client })
    }

    async fn remove(self) -> Result<()> {
        let removed = self.client.delete(&format!("/v1/webhooks/{}", self.endpoint_id)).await;
        let stays = |e| Error::Setup(format!("the endpoint {} is still registered: {e}", self.endpoint_id));
        removed.map(drop).map_err(stays)
    }
}

struct Receiver {
    secrets: Vec<String>,
    /// The configured answers; empty: 200 for valid requests, 401 for others.
    answers: Vec<Answer>,
    save: Option<PathBuf>,
    output: Output,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: usize,
    again: usize,
    invalid: usize,
    events: HashMap<String, usize>,
}

async fn receive(State((receiver, shutdown)): State<(Arc<Receiver>, Shutdown)>, request: Request) -> Response {
    if request.method() != Method::POST {
        return (StatusCode::METHOD_NOT_ALLOWED, [("allow", "POST")], "webhooks are posted here\n").into_response();
    }
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_BYTES).await else {
        return (StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB, or was cut\n").into_response();
    };
    let answer = receiver.handle(&head, &body, Clock::system().now());
    shutdown.sleep(answer.delay).await;
    let mut response = Response::new(Body::empty());
    *response.status_mut() = answer.status;
    response
}

impl Receiver {
    /// Prints a request and returns its answer. The lock keeps the printed requests in order of arrival.
    fn handle(&self, head: &Parts, body: &[u8], at: DateTime<Utc>) -> Answer {
        let headers: Vec<(&str, &[u8])> = head.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        let secrets: Vec<&str> = self.secrets.iter().map(String::as_str).collect();
        let findings = signature::verify(&secrets, &headers, body, Some(at.timestamp()));
        let findings = (!secrets.is_empty()).then_some(findings);
        let json: Option<Value> = serde_json::from_slice(body).ok();
        let field = |name: &str| json.as_ref().and_then(|json| json[name].as_str()).map(str::to_owned);
        let id = || head.headers.get("webhook-id").map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
        let event_id = field("eventId").or_else(id);

        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let valid = findings.as_ref().is_none_or(SignatureChecks::all_valid);
        let unasked = if valid { &OK } else { &UNAUTHORIZED };
        let answer = *self.answers.get(counts.requests).or(self.answers.last()).unwrap_or(unasked);
        counts.requests += 1;
        counts.invalid += usize::from(!valid);
        let times = event_id.as_ref().map_or(1, |id| counts.count(id));
        let shown = RequestReport {
            at,
            path: head.uri.to_string(),
            event: field("event"),
            event_id,
            message_id: field("messageId"),
            delivery_id: field("deliveryId"),
            times,
            findings,
            saved: self.save.as_deref().map(|folder| save(folder, counts.requests, head, body, at)),
            answer,
        };
        match self.output {
            Output::Json => anstream::println!("{}", print::escaped(&shown.json(&headers, json, body).to_string())),
            Output::Text => anstream::println!("{}", shown.text(json.as_ref(), body)),
        }
        answer
    }

    fn print_summary(&self) {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { requests, again, invalid, events } = &*counts;
        let events = events.len();
        match self.output {
            Output::Json => {
                print::json(&json!({"requests": requests, "events": events, "again": again, "invalid": invalid}))
            }
            Output::Text => {
                anstream::println!("{requests} requests, {events} events, {again} repeats, {invalid} not valid")
            }
        }
    }
}

const OK: Answer = Answer { status: StatusCode::OK, delay: Duration::ZERO };
const UNAUTHORIZED: Answer = Answer { status: StatusCode::UNAUTHORIZED, delay: Duration::ZERO };

/// Writes a request into a file, with lines that end in LF. Returns the path, or the error as text. No part of the
/// request is used in the file's name.
fn save(folder: &Path, number: usize, head: &Parts, body: &[u8], at: DateTime<Utc>) -> Result<String, String> {
    let file = folder.join(format!("{}-{number}.http", at.format("%Y%m%dT%H%M%S%.3f")));
    let mut request = format!("{} {} {:?}\n", head.method, head.uri, head.version).into_bytes();
    for (name, value) in &head.headers {
        request.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\n"].concat());
    }
    request.push(b'\n');
    request.extend(body);
    let created = std::fs::File::create_new(&file);
    let written = created.and_then(|mut created| created.write_all(&request));
    written.map(|()| file.display().to_string()).map_err(|e| format!("{}: {e}", file.display()))
}

impl Counts {
    fn count(&mut self, id: &str) -> usize {
        if self.events.len() >= REMEMBERED {
            self.events.clear();
        }
        let times = self.events.entry(id.to_owned()).or_default();
        *times += 1;
        self.again += usize::from(*times > 1);
        *times
    }
}

/// One request as it is printed.
struct RequestReport {
    at: DateTime<Utc>,
    path: String,
    event: Option<String>,
    event_id: Option<String>,
    message_id: Option<String>,
    delivery_id: Option<String>,
    times: usize,
    /// None if there was no secret to verify with.
    findings: Option<SignatureChecks>,
    /// The path of the saved request, or the error; none without `--save`.
    saved: Option<Result<String, String>>,
    answer: Answer,
}

impl RequestReport {
    fn text(&self, json: Option<&Value>, body: &[u8]) -> String {
        // Values from the request must not break a line.
        let one = |text: &str| print::escaped(text).replace('\n', "\\n");
        let or_none = |text: &Option<String>| text.as_deref().map_or("–".to_owned(), one);
        let again = if self.times > 1 { format!("  seen before ({} times now)", self.times) } else { String::new() };
        let invalid = self.findings.as_ref().is_some_and(|findings| !findings.all_valid());
        let mut lines = vec![format!(
            "\n{} {}{}  {}  {}{}",
            print::paint(print::DIM, &self.at.format("%H:%M:%S%.3f").to_string()),
            if invalid { print::paint(print::BAD, "NOT VALID  ") } else { String::new() },
            print::paint(print::BOLD, &or_none(&self.event)),
            or_none(&self.event_id),
            one(&self.path),
            print::paint(print::WARN, &again),
        )];
        lines.push(format!("message {}  delivery {}", or_none(&self.message_id), or_none(&self.delivery_id)));
        match &self.findings {
            Some(findings) => lines.extend(webhook_verify::findings_text(findings)),
            None => lines.push("signatures not checked".to_owned()),
        }
        let pretty = json.and_then(|json| serde_json::to_string_pretty(json).ok());
        let body = pretty.unwrap_or_else(|| String::from_utf8_lossy(body).into_owned());
        lines.extend(print::escaped(&body).lines().map(str::to_owned));
        match &self.saved {
            Some(Ok(file)) => lines.push(format!("saved {}", one(file))),
            Some(Err(why)) => lines.push(format!("not saved: {}", one(why))),
            None => (),
        }
        let Answer { status, delay } = self.answer;
        let after = if delay.is_zero() { String::new() } else { format!(" after {delay:?}") };
        lines.push(format!("→ {}{after}", status.as_u16()));
        lines.join("\n  ")
    }

    fn json(&self, headers: &[(&str, &[u8])], json: Option<Value>, body: &[u8]) -> Value {
        let text = || std::str::from_utf8(body).ok().map(Value::from);
        let base64 = || json!({"base64": BASE64.encode(body)});
        // Repeated headers are joined as in RFC 9110, 5.3.
        let mut joined: BTreeMap<&str, String> = BTreeMap::new();
        for (name, value) in headers {
            let value = String::from_utf8_lossy(value);
            joined.entry(name).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value.into_owned());
        }
        json!({
            "at": self.at.to_rfc3339_opts(SecondsFormat::Millis, true),
            "path": self.path,
            "event": self.event,
            "eventId": self.event_id,
            "messageId": self.message_id,
            "deliveryId": self.delivery_id,
            "times": self.times,
            "valid": self.findings.as_ref().map(SignatureChecks::all_valid),
            "signatures": self.findings.as_ref().map(webhook_verify::findings_json),
            "headers": joined,
            "body": json.or_else(text).unwrap_or_else(base64),
            "rawBody": text().unwrap_or_else(base64),
            "saved": self.saved.as_ref().and_then(|saved| saved.as_ref().ok()),
            "answer": self.answer.status.as_u16(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read() {
        let read = |text: &str| text.parse::<Answer>().map(|a| (a.status.as_u16(), a.delay.as_millis()));
        assert_eq!(read("503"), Ok((503, 0)));
        assert_eq!(read("delay:3s"), Ok((200, 3000)));
        assert_eq!(read("delay:250ms:410"), Ok((410, 250)));
        for wrong in ["", "100", "600", "ok", "delay:", "delay:3m", "delay:-1s", "delay:3s:", "delay:3s:99", "2000"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
