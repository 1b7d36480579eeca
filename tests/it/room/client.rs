//! Clients of other projects talk in a room, unchanged: npm's @stomp/stompjs (plain and over sockjs-client),
//! webstomp-client and stompjs, and PyPI's stomp.py, at two processes one of which is killed.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::laws::root;
use crate::room::{group_at, text};
use crate::support::database::fresh_database;
use crate::support::process::{Folder, fsck, http_to, on};
use crate::support::programs::{node_library, python};
use crate::support::wait::until;

/// A client in a program of its own.
struct Client {
    kind: &'static str,
    lines: Arc<Mutex<Vec<Value>>>,
    input: ChildStdin,
    _child: Child,
}

impl Client {
    /// A client of npm.
    async fn node(library: &str, kind: &'static str, url: &str, token: &str, room: &str) -> Client {
        let mut command = Command::new("node");
        command.arg(root().join("tests/fixtures/stomp_client.mjs")).args([library, kind, url, token, room]);
        Client::start(kind, command).await
    }

    /// PyPI's stomp.py.
    async fn python(url: &str, token: &str, room: &str) -> Client {
        let mut command = Command::new(python("stomp"));
        command.arg(root().join("tests/fixtures/stomp_client.py")).args([url, token, room]);
        Client::start("stomp.py", command).await
    }

    async fn start(kind: &'static str, mut command: Command) -> Client {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("node");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let received = lines.clone();
        Shutdown::new().spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                received.lock().unwrap().push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
            }
        });
        let input = child.stdin.take().expect("a pipe");
        let client = Client { kind, lines, input, _child: child };
        until(&format!("{kind} is ready"), async || client.count("ready") > 0).await;
        client
    }

    async fn send(&mut self, temp_id: &str) {
        let line = json!({"tempId": temp_id, "text": temp_id}).to_string() + "\n";
        self.input.write_all(line.as_bytes()).await.unwrap();
    }

    /// Ends its input: it disconnects, and gets a RECEIPT for that.
    async fn leave(self) {
        let Client { kind, lines, input, _child } = self;
        drop(input);
        let has_left = || lines.lock().unwrap().iter().any(|line| line["what"] == "left");
        until(&format!("{kind} has left"), async || has_left()).await;
    }

    fn count(&self, what: &str) -> usize {
        self.lines.lock().unwrap().iter().filter(|line| line["what"] == what).count()
    }

    /// The texts of the messages in the order in which they came.
    fn texts(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let created = lines.iter().filter(|line| line["body"]["eventType"] == "MESSAGE_CREATED");
        created.map(|line| text(&line["body"]["data"]["content"])).collect()
    }

    fn statuses(&self, temp_id: &str) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        let own = lines.iter().filter(|line| line["what"] == "status" && line["tempId"] == temp_id);
        own.map(|line| text(&line["status"])).collect()
    }

    async fn has(&self, texts: &[String]) {
        until(&format!("{} has {texts:?}", self.kind), async || self.texts().len() >= texts.len()).await;
        assert_eq!(self.texts(), texts, "{}", self.kind);
    }
}

/// S2-2, S2-12, S2-58, S2-63, S2-71, S2-72, S2-86, S2-97, S4-43, S4-47, S4-160, S4-161, S4-198, S4-201, S4-202, S4-213,
/// L3, L4, L5: five stock clients at two processes get every message once and in order. A process is killed while they
/// write and starts again: the clients of @stomp/stompjs come back by themselves and miss nothing. stomp.py
/// acknowledges each message, and leaves with a RECEIPT.
#[tokio::test]
async fn stock_clients_talk_across_a_killed_process() {
    let Some(library) = node_library() else { return };
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let serve = |listen: &str| on(&folder, &url, &["serve", "--email=off", "--user-sends=100", listen]).start();
    let mut doomed = serve("--listen=127.0.0.1:0");
    let here = doomed.address().await;
    let mut other = serve("--listen=127.0.0.1:0");
    let there = other.address().await;
    let (room, tokens) = group_at(&http, there, &["u-1", "u-2", "u-3", "u-4", "u-5"]).await;
    let (here_url, there_url) = (format!("http://{here}"), format!("http://{there}"));
    let mut clients = vec![
        Client::node(&library, "stompjs", &here_url, &tokens[0], &room).await,
        Client::node(&library, "sockjs", &there_url, &tokens[1], &room).await,
        Client::node(&library, "webstomp", &there_url, &tokens[2], &room).await,
        Client::node(&library, "stompjs2", &there_url, &tokens[3], &room).await,
        Client::python(&there_url, &tokens[4], &room).await,
    ];
    let mut sent: Vec<String> = Vec::new();
    for (n, client) in clients.iter_mut().enumerate() {
        let temp_id = format!("m-{n}");
        client.send(&temp_id).await;
        until("it is saved", async || client.statuses(&temp_id).last().is_some_and(|word| word == "SAVED")).await;
        assert_eq!(client.statuses(&temp_id), ["SENDING", "SENT_TO_KAFKA", "PROCESSING", "SAVED"], "{}", client.kind);
        sent.push(temp_id);
    }
    for client in &clients {
        client.has(&sent).await;
    }
    doomed.signal(Signal::SIGKILL);
    doomed.ended().await;
    for n in 0..10 {
        let temp_id = format!("missed-{n}");
        clients[1].send(&temp_id).await;
        sent.push(temp_id);
    }
    clients[1].has(&sent).await;
    let _again = serve(&format!("--listen={here}"));
    clients[0].has(&sent).await;
    clients[0].send("back").await;
    sent.push("back".to_owned());
    for client in &clients {
        client.has(&sent).await;
        assert_eq!(client.count("error") + client.count("refused"), 0, "{}", client.kind);
    }
    let python = clients.pop().expect("the last one");
    python.leave().await;
    drop(clients);
    fsck(&folder, &url).await;
}
