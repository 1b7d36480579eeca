//! Webhooks: endpoints of partners, and the events that they get.

mod crash;
mod egress;
mod endpoint;
mod listen;
mod order;
mod run;
mod sample;
mod signature;

use std::fs::File;
use std::process::Command;

use data_encoding::{BASE64, HEXLOWER};
use serde_json::{Value, json};

use crate::laws::root;
use crate::support::app::App;
use crate::support::process::Folder;
use crate::support::programs::{node_library, python};
use crate::support::receiver::{Receiver, Recorded};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const FORMER: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD1c0y";

/// What each verifier says of a request. The clock of the libraries stands at the time the request is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// By `webhook-signature`: the library for Python and, where there is Node, the one for JavaScript, which must
    /// agree.
    pub library: bool,
    /// By `X-Signature`, or the one that comes next.
    pub seed: bool,
}

const HOLDS: Verdict = Verdict { library: true, seed: true };

const REFUSED: Verdict = Verdict { library: false, seed: false };

/// Every request is taken by every verifier that has its secret, and by none when one bit of it is changed: of the
/// body, of its signatures, of the time; of the id, which the seed's signature does not cover, by no library.
pub fn verify_all<'r>(requests: impl IntoIterator<Item = (&'r str, &'r Recorded)>) {
    let mut cases = Vec::new();
    for (n, (secret, request)) in requests.into_iter().enumerate() {
        let at = request.header("webhook-timestamp").parse().ok();
        let mut case = |what, request, expected| cases.push((what, secret, request, at, expected));
        case("as it came", request.clone(), HOLDS);
        case("body", Recorded { body: flipped(&request.body, n * 7), ..request.clone() }, REFUSED);
        case("signatures", with_flipped_signatures(request, n), REFUSED);
        let last = |value: &str| text(flipped(value.as_bytes(), value.len() * 8 - 8));
        let time = |name: &str, value: &str| if name.ends_with("-timestamp") { last(value) } else { value.to_owned() };
        case("time", with_headers(request, time), REFUSED);
        let id = |name: &str, value: &str| if name == "webhook-id" { last(value) } else { value.to_owned() };
        case("id", with_headers(request, id), Verdict { library: false, seed: true });
    }
    assert!(!cases.is_empty(), "nothing to verify");
    let found = verdicts(cases.iter().map(|(_, secret, request, at, _)| (*secret, request, *at)));
    for ((what, secret, request, _, expected), found) in cases.iter().zip(found) {
        assert_eq!(found, *expected, "{what} ({secret}): {request:?}");
    }
}

/// `at`: what the clock says when it is verified; none: the real time.
pub fn verdicts<'r>(cases: impl Iterator<Item = (&'r str, &'r Recorded, Option<i64>)>) -> Vec<Verdict> {
    let (folder, mut lines, mut count) = (Folder::new(), String::new(), 0);
    for (secret, request, at) in cases {
        let body = BASE64.encode(&request.body);
        lines += &format!("{}\n", json!({"secret": secret, "headers": request.headers, "body": body, "at": at}));
        count += 1;
    }
    let asked = folder.path().join("requests");
    std::fs::write(&asked, lines).unwrap();
    let ask = |program: &str, script: &str, args: &[String]| -> Vec<Value> {
        let mut command = Command::new(program);
        command.arg(root().join("tests/fixtures").join(script)).args(args).stdin(File::open(&asked).unwrap());
        let ran = command.output().unwrap();
        assert!(ran.status.success(), "{script}: {}", String::from_utf8_lossy(&ran.stderr));
        let answers = String::from_utf8(ran.stdout).unwrap();
        let answers: Vec<Value> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(answers.len(), count, "{script} answers every line");
        answers
    };
    let python = ask(python("standardwebhooks"), "standard_webhooks.py", &[]);
    if let Some(folder) = node_library() {
        let node = ask("node", "standard_webhooks.mjs", &[folder]);
        for (n, (python, node)) in python.iter().zip(node).enumerate() {
            assert_eq!(python["library"], node["library"], "the libraries disagree about the request number {n}");
        }
    }
    let verdict = |answer: &Value| Verdict {
        library: answer["library"].as_bool().unwrap(),
        seed: answer["seed"].as_bool().unwrap(),
    };
    python.iter().map(verdict).collect()
}

fn flipped(bytes: &[u8], bit: usize) -> Vec<u8> {
    let (mut flipped, bit) = (bytes.to_vec(), bit % (bytes.len() * 8));
    flipped[bit / 8] ^= 1 << (bit % 8);
    flipped
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn with_headers(request: &Recorded, change: impl Fn(&str, &str) -> String) -> Recorded {
    let headers = request.headers.iter().map(|(name, value)| (name.clone(), change(name, value))).collect();
    Recorded { headers, ..request.clone() }
}

/// With one bit changed of every MAC: the bits that were computed, not those of how they are written, of which base64
/// has two that mean nothing.
fn with_flipped_signatures(request: &Recorded, bit: usize) -> Recorded {
    let entry = |entry: &str| {
        let mac = BASE64.decode(entry.strip_prefix("v1,").unwrap().as_bytes()).unwrap();
        format!("v1,{}", BASE64.encode(&flipped(&mac, bit)))
    };
    with_headers(request, |name, value| match name {
        "x-signature" | "x-signature-next" => {
            HEXLOWER.encode(&flipped(&HEXLOWER.decode(value.as_bytes()).unwrap(), bit))
        }
        "webhook-signature" => value.split(' ').map(entry).collect::<Vec<_>>().join(" "),
        _ => value.to_owned(),
    })
}

/// Endpoints may be on this machine, as in development.
pub const HERE: [&str; 2] = ["--webhook-allow-network=127.0.0.0/8", "--webhook-allow-http"];

/// A hub that sends webhooks to this machine, and a server there.
async fn here() -> (App, Receiver) {
    (App::with(&HERE).await, Receiver::start().await)
}

/// An endpoint at this server; its id and its secret.
async fn endpoint(app: &App, receiver: &Receiver, more: Value) -> (String, String) {
    let mut body = more;
    body["url"] = json!(receiver.url);
    let made = app.post("/v1/webhooks", body).await.expect(201).body;
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("endpointId"), text("secret"))
}

fn events(records: &[Recorded]) -> Vec<String> {
    records.iter().map(|r| r.json()["event"].as_str().unwrap().to_owned()).collect()
}

fn ids(records: &[Recorded]) -> Vec<String> {
    records.iter().map(|r| r.header("webhook-id").to_owned()).collect()
}

impl App {
    /// The webhooks of an endpoint, newest first.
    async fn webhooks(&self, endpoint: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/webhooks/{endpoint}/deliveries?limit=200")).await.expect(200);
        answer.body["items"].as_array().unwrap().clone()
    }

    async fn statuses(&self, endpoint: &str) -> Vec<String> {
        self.webhooks(endpoint).await.iter().map(|d| d["status"].as_str().unwrap().to_owned()).collect()
    }
}
