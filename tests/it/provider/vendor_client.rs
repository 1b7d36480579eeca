//! The simulators, judged by the vendors' own clients: Solapi's SDKs for Python and JavaScript, and Slack's for Python,
//! each unchanged but for the address. What they send is taken, what is answered they can read, and both tell the same.

use std::process::Stdio;

use notihub::provider::simulator::slack::SlackSimulator;
use notihub::provider::simulator::vendor::{AcceptedMessage, SimulatorSetup, UNREGISTERED_SENDER, VendorSimulator};
use notihub::provider::simulator::{Behaviour, solapi};
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::laws::root;
use crate::support::programs::{is_there, python};
use crate::support::receiver::{Answer, Receiver};

/// A program that does what a line of JSON says and answers with a line.
struct Client {
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Client {
    fn start(program: &str, script: &str, args: &[&str]) -> Client {
        let mut command = Command::new(program);
        command.arg(root().join("tests/fixtures").join(script)).args(args).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Client { stdin: child.stdin.take().unwrap(), answers, _child: child }
    }

    async fn ask(&mut self, order: &Value) -> Value {
        self.stdin.write_all(format!("{order}\n").as_bytes()).await.unwrap();
        let line = self.answers.next_line().await.unwrap().expect("the client answers; what it said is above");
        serde_json::from_str(&line).unwrap()
    }
}

/// Those of Solapi that can be run here: the one for Python, and where there is Node the one for JavaScript.
#[expect(clippy::print_stdout, reason = "a test says what it leaves out")]
fn of_solapi(url: &str, key: &str) -> Vec<(&'static str, Client)> {
    let mut clients =
        vec![("python", Client::start(python("solapi"), "solapi_client.py", &[url, key, solapi::API_SECRET]))];
    if !is_there("node") || !is_there("npm") {
        println!("the SDK for JavaScript is skipped: there is no node with npm here");
        return clients;
    }
    let folder = root().join("target/npm");
    assert!(
        folder.join("node_modules/solapi").is_dir(),
        "this test needs a package: `npm install --prefix target/npm solapi@6.0.1`, as .ci/run does"
    );
    let args = [folder.to_str().unwrap(), url, key, solapi::API_SECRET];
    clients.push(("node", Client::start("node", "solapi_client.mjs", &args)));
    clients
}

struct Bed {
    solapi: VendorSimulator,
    hub: Receiver,
    shutdown: Shutdown,
}

impl Bed {
    /// A Solapi whose clock stands still, and a receiver for its callbacks.
    async fn new() -> Bed {
        let _already = rustls::crypto::ring::default_provider().install_default();
        let (shutdown, hub) = (Shutdown::new(), Receiver::start().await);
        let setup = SimulatorSetup { callback: Some(hub.url.clone()), rate: 0.0, ..SimulatorSetup::default() };
        Bed { solapi: solapi::start(setup, &shutdown).await.unwrap(), hub, shutdown }
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn text(to: &str, output: &str) -> Value {
    json!({ "from": "02-1234-5678", "to": to, "text": output })
}

fn listed(taken: &AcceptedMessage, code: &str, truth: &Value) -> Value {
    let fields = &taken.options["customFields"];
    json!([taken.id, taken.to, taken.from, taken.text, taken.kind, code, truth, fields])
}

/// Every kind of message a client makes is taken as it was meant, and can be read back by it.
#[tokio::test]
async fn solapi_clients_send_and_read_back() {
    let bed = Bed::new().await;
    for (client, mut sdk) in of_solapi(&bed.solapi.url(), solapi::API_KEY) {
        let before = bed.solapi.records().len();
        let mut carrying = text("010-1234-5601", "안녕");
        carrying["customFields"] = json!({ "notihub": "nh-1-0ABCDEFGHJKMN-1-1" });
        let talk = json!({ "pfId": solapi::PF_ID, "templateId": "KA01TP1", "variables": { "name": "홍" } });
        let mut titled = text("01012345603", "본문");
        titled["subject"] = json!("제목");
        let messages = json!([
            carrying,
            text("01012345602", &"가".repeat(46)),
            titled,
            { "from": "0212345678", "to": "01012345604", "kakaoOptions": talk },
        ]);
        let sent = sdk.ask(&json!({ "do": "send", "messages": messages })).await;
        assert_eq!((&sent["count"], &sent["refused"]), (&json!([4, 0]), &json!([])), "{client}: {sent}");
        let taken = bed.solapi.records().split_off(before);
        let kinds: Vec<&str> = taken.iter().map(|taken| taken.kind.as_str()).collect();
        assert_eq!(kinds, ["SMS", "LMS", "LMS", "ATA"], "{client}");
        assert_eq!(taken[0].reference.as_deref(), Some("nh-1-0ABCDEFGHJKMN-1-1"));
        let answer: Vec<Value> = taken.iter().map(|taken| json!([taken.id, "2000"])).collect();
        let heard: Vec<Value> =
            sent["taken"].as_array().unwrap().iter().map(|message| json!([message[0], message[1]])).collect();
        assert_eq!(heard, answer, "{client}");
        assert_eq!(sent["taken"][0][2]["notihub"], "nh-1-0ABCDEFGHJKMN-1-1");

        let group = sent["group"].as_str().unwrap();
        let found = sdk.ask(&json!({ "do": "messages", "query": { "to": "01012345602" } })).await;
        // Told as 1, which both clients take for true.
        let truth = json!(true);
        // By their ids, so the newest is the last.
        let newest = found.as_array().unwrap().last();
        assert_eq!(newest, Some(&listed(&taken[1], "3000", &truth)), "{client}");
        bed.solapi.send_all_receipts().await;
        let query =
            json!({ "do": "messages", "query": { (if client == "node" { "groupId" } else { "group_id" }): group } });
        let found = sdk.ask(&query).await;
        // The first three alone: both clients know their kinds.
        let rows: Vec<Value> = taken[..3].iter().map(|taken| listed(taken, "4000", &truth)).collect();
        assert_eq!(found.as_array().unwrap()[..3], rows, "{client}");
        let found = sdk.ask(&json!({ "do": "group", "id": group })).await;
        assert_eq!((&found["count"], &found["listed"]), (&json!([4, 0, 4]), &json!([group])), "{client}: {found}");
        assert_eq!(found["messages"].as_array().unwrap().len(), 4, "{client}");
        assert_eq!(sdk.ask(&json!({ "do": "balance" })).await, json!(1_000_000), "{client}");
    }
}

/// A 200 with refusals in it is read as that by the clients; one in which all are refused, and a status, as an error.
#[tokio::test]
async fn solapi_clients_understand_refusals() {
    let bed = Bed::new().await;
    for (client, mut sdk) in of_solapi(&bed.solapi.url(), solapi::API_KEY) {
        let before = bed.solapi.accepted_count();
        let mut stranger = text("01012345611", "x");
        stranger["from"] = json!(UNREGISTERED_SENDER);
        let messages = json!([
            text("01012345610", "이모지 🎉"),
            stranger,
            text("01012345612", "once"),
            text("01012345612", "twice"),
            text("01000000010", "opted out"),
            text("01000000002", "not now"),
        ]);
        let sent = sdk.ask(&json!({ "do": "send", "messages": messages })).await;
        let refused = json!([
            ["01012345610", "1029"],
            ["01012345611", "1062"],
            ["01012345612", "1026"],
            ["01000000010", "1061"],
            ["01000000002", "1024"],
        ]);
        assert_eq!((&sent["refused"], &sent["count"]), (&refused, &json!([6, 5])), "{client}: {sent}");
        assert_eq!(bed.solapi.accepted_count(), before + 1);
        let none = sdk.ask(&json!({ "do": "send", "messages": [text("01000000001", "nobody")] })).await;
        assert_eq!(none, json!({ "none": [["01000000001", "3010"]] }), "{client}");
        let limited = sdk.ask(&json!({ "do": "send", "messages": [text("01000000011", client)] })).await;
        assert_eq!(limited["error"][0], "TooManyRequests", "{client}: {limited}");
        assert_eq!(bed.solapi.accepted_count(), before + 1);
    }
    for (client, mut sdk) in of_solapi(&bed.solapi.url(), "NCSNOBODY") {
        let refused = sdk.ask(&json!({ "do": "balance" })).await;
        assert_eq!(refused["error"][0], "InvalidAPIKey", "{client}: {refused}");
    }
}

/// Callbacks are read by the client's own models.
#[tokio::test]
async fn solapi_models_read_callbacks() {
    let bed = Bed::new().await;
    let mut sdk =
        Client::start(python("solapi"), "solapi_client.py", &[&bed.solapi.url(), solapi::API_KEY, solapi::API_SECRET]);
    let mut carrying = text("01012345621", "x");
    carrying["customFields"] = json!({ "notihub": "nh-1-0ABCDEFGHJKMN-1-1" });
    let talk = json!({ "pfId": solapi::PF_ID, "templateId": "KA01TP1" });
    let nobody = json!({ "from": "0212345678", "to": "01000000009", "kakaoOptions": talk });
    sdk.ask(&json!({ "do": "send", "messages": [carrying, nobody] })).await;
    bed.hub.queue([Answer::status(500)]);
    bed.solapi.send_all_receipts().await;
    bed.solapi.send_all_receipts().await;
    let calls = bed.hub.arrived(2).await;
    let ids: Vec<String> = bed.solapi.records().into_iter().map(|taken| taken.id).collect();
    for (tries, call) in calls.iter().enumerate() {
        let body = String::from_utf8(call.body.clone()).unwrap();
        let read = sdk.ask(&json!({ "do": "webhook", "body": body })).await;
        let events = [format!("{}-Delivered", ids[0]), format!("{}-NotAUser", ids[1])];
        let expected = json!([
            [events[0], tries, ids[0], "4000", { "notihub": "nh-1-0ABCDEFGHJKMN-1-1" }],
            [events[1], tries, ids[1], "3104", {}],
        ]);
        assert_eq!(read, expected);
    }
}

/// Slack's client is answered as by Slack.
#[tokio::test]
async fn slack_client_posts() {
    let shutdown = Shutdown::new();
    let slack = SlackSimulator::start(0, &shutdown).await.unwrap();
    let mut sdk = Client::start(python("slack_sdk"), "slack_client.py", &[&slack.webhook_url("ops")]);
    assert_eq!(sdk.ask(&json!({ "text": "안녕" })).await, json!([200, "ok", null]));
    assert_eq!(sdk.ask(&json!({ "blocks": [{ "type": "divider" }] })).await, json!([200, "ok", null]));
    assert_eq!(sdk.ask(&json!({ "text": "" })).await, json!([400, "no_text", null]));
    slack.script(Behaviour::Limit { retry_after: 7 }, 1);
    assert_eq!(sdk.ask(&json!({ "text": "x" })).await, json!([429, "rate_limited", "7"]));
    let texts: Vec<Option<String>> = slack.records().into_iter().map(|post| post.text).collect();
    assert_eq!(texts, [Some("안녕".to_owned()), None]);
    shutdown.stop();
}
