//! The events that connections receive, compared with the stream: every connection of every process gets every event
//! once and in order. The same comparison objects to processes that share one consumer.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::room::stomp::Client;
use crate::room::{ask_at, group_at, text};
use crate::support::database::fresh_database;
use crate::support::process::{Folder, Program, fsck, http_to, on};
use crate::support::wait::until;

/// An event of a room: its number, and its type with the text of its message.
pub type Entry = (i64, String);

fn entry(seq: i64, event: &Value) -> Entry {
    (seq, format!("{} {}", text(&event["eventType"]), event["data"]["content"].as_str().unwrap_or_default()))
}

/// The entry of a message.
pub fn message(seq: i64, content: &str) -> Entry {
    (seq, format!("MESSAGE_CREATED {content}"))
}

/// The stream of a room, as a process shows it.
pub async fn stream_at(http: &reqwest::Client, address: SocketAddr, token: &str, room: &str) -> Vec<Entry> {
    let mut stream: Vec<Entry> = Vec::new();
    loop {
        let path = format!("/chatrooms/{room}/events?after={}", stream.len());
        let (status, found) = ask_at(http, address, token, "GET", &path, None).await;
        assert_eq!(status, 200, "{found}");
        let items = found["data"]["items"].as_array().unwrap();
        if items.is_empty() {
            return stream;
        }
        stream.extend(items.iter().map(|item| entry(item["seq"].as_i64().unwrap(), item)));
    }
}

/// The differences between a stream after the number `from`, where a connection began, and the events that the
/// connection has received, which should be the same in the same order.
pub fn objections(from: i64, received: &[Entry], stream: &[Entry]) -> Vec<String> {
    let due: BTreeSet<&Entry> = stream.iter().filter(|(seq, _)| *seq > from).collect();
    let came: BTreeSet<&Entry> = received.iter().collect();
    let missing = due.difference(&came).map(|(seq, what)| format!("{seq} {what:?} is missing"));
    let strange = came.difference(&due).map(|(seq, what)| format!("{seq} {what:?} is not in the stream"));
    let backwards = received.windows(2).filter(|pair| pair[1].0 <= pair[0].0);
    let backwards = backwards.map(|pair| format!("{} came after {}", pair[1].0, pair[0].0));
    missing.chain(strange).chain(backwards).collect()
}

/// A connection that keeps the events of a room, in a task of its own.
pub struct Tab {
    pub from: i64,
    received: Arc<Mutex<Vec<Entry>>>,
    leave: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Tab {
    /// Connects and subscribes.
    pub async fn open(address: SocketAddr, token: &str, room: &str) -> Tab {
        let mut client = Client::connect(address, token).await;
        let receipt = client.subscribe("e", &format!("/topic/rooms/{room}"), &[]).await;
        let from = receipt.header("x-head").parse().unwrap();
        let received: Arc<Mutex<Vec<Entry>>> = Arc::default();
        let (leave, mut leaves) = oneshot::channel();
        let kept = received.clone();
        let task = Shutdown::new().spawn(async move {
            let mut is_leaving = false;
            loop {
                let frame = tokio::select! {
                    frame = client.next() => frame,
                    _ = &mut leaves, if !is_leaving => {
                        is_leaving = true;
                        client.write("DISCONNECT", &[("receipt", "bye")], "").await;
                        continue;
                    }
                };
                match frame.command.as_str() {
                    "MESSAGE" => {
                        let seq = frame.header("x-seq").parse().unwrap();
                        kept.lock().unwrap().push(entry(seq, &frame.json()));
                    }
                    "END" => return,
                    other => assert_eq!((other, is_leaving), ("RECEIPT", true), "{frame:?}"),
                }
            }
        });
        Tab { from, received, leave, task }
    }

    pub fn received(&self) -> Vec<Entry> {
        self.received.lock().unwrap().clone()
    }

    /// Waits until it has this number, or a later one.
    pub async fn reaches(&self, seq: i64) {
        until(&format!("a connection has {seq}"), async || {
            self.received.lock().unwrap().last().is_some_and(|(last, _)| *last >= seq)
        })
        .await;
    }

    /// Leaves, and returns everything that was sent to it.
    pub async fn ended(self) -> Vec<Entry> {
        let _over = self.leave.send(());
        self.task.await.unwrap();
        std::mem::take(&mut self.received.lock().unwrap())
    }
}

/// Where everything that was sent has to arrive.
enum Whole {
    /// At each connection: it has the last event.
    EachConnection,
    /// At the processes between them.
    AllProcesses,
}

/// Three processes with two users each, who have two tabs each, while one of each process writes, 200 messages a second
/// together. `fail_points`: of each process. `whole`: where everything has arrived before the connections are judged.
/// Returns the objections to each of the twelve.
async fn ledgers(messages: usize, whole: Whole, fail_points: [&str; 3]) -> Vec<Vec<String>> {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let serve = |fail_points: &str| -> Program {
        let args = ["serve", "--email=off", "--listen=127.0.0.1:0", "--user-sends=1000", "--room-sends=1000"];
        on(&folder, &url, &args).env("FAILPOINTS", fail_points).start()
    };
    let mut processes = fail_points.map(serve);
    let mut places = Vec::new();
    for process in &mut processes {
        places.push(process.address().await);
    }
    let users = ["u-1", "u-2", "u-3", "u-4", "u-5", "u-6"];
    let (room, tokens) = group_at(&http, places[0], &users).await;
    let mut tabs = Vec::new();
    for (n, token) in tokens.iter().enumerate() {
        for _ in 0..2 {
            tabs.push(Tab::open(places[n / 2], token, &room).await);
        }
    }
    let write = async |n: usize| {
        let mut client = Client::connect(places[n], &tokens[2 * n]).await;
        let mut tick = tokio::time::interval(Duration::from_millis(15));
        for m in 0..messages / 3 {
            tick.tick().await;
            client.call("/app/chat", json!({"roomId": room, "content": format!("{n} writes {m}")})).await;
        }
        // Comes after the effect of what was sent before.
        client.write("SEND", &[("destination", "/app/typing"), ("receipt", "done")], "{}").await;
        assert_eq!(client.next().await.header("receipt-id"), "done");
    };
    join_all((0..3).map(write)).await;
    let stream = stream_at(&http, places[0], &tokens[0], &room).await;
    assert_eq!(stream.len(), 1 + messages / 3 * 3, "the room was made, and everything that was sent is there");
    let head = stream.last().unwrap().0;
    match whole {
        Whole::EachConnection => {
            for tab in &tabs {
                tab.reaches(head).await;
            }
        }
        Whole::AllProcesses => {
            until("the processes have everything between them", async || {
                let first_of = |process: usize| tabs[4 * process].received();
                let came: BTreeSet<Entry> = (0..3).flat_map(first_of).collect();
                came.len() == stream.len() - 1
            })
            .await;
        }
    }
    let mut objected = Vec::new();
    for tab in tabs {
        let from = tab.from;
        objected.push(objections(from, &tab.ended().await, &stream));
    }
    drop(processes);
    fsck(&folder, &url).await;
    objected
}

/// S4-201, L2, L3: each of twelve connections at three processes receives every event once and in order, at 200
/// messages a second.
#[tokio::test]
async fn every_connection_of_every_process_gets_every_event() {
    let objected = ledgers(450, Whole::EachConnection, ["", "", ""]).await;
    assert_eq!(objected, vec![Vec::<String>::new(); 12]);
}

/// L3, control: the check objects to every connection when the processes share one consumer, so that each event reaches
/// one process.
#[tokio::test]
async fn consumer_shared_by_processes_is_objected_to() {
    let shared = |n: usize| format!("streams.shared_consumer=return({n})");
    let shared: [String; 3] = [shared(0), shared(1), shared(2)];
    let objected = ledgers(90, Whole::AllProcesses, [&shared[0], &shared[1], &shared[2]]).await;
    for (n, objections) in objected.iter().enumerate() {
        assert!(objections.len() >= 50, "connection {n}: {objections:?}");
        assert!(objections.iter().all(|objection| objection.ends_with("is missing")), "{objections:?}");
    }
}

/// The check sees each way in which a connection can be wrong, and nothing where it is right.
#[test]
fn wrong_ledger_is_seen() {
    let event = |seq: i64| message(seq, &seq.to_string());
    let stream: Vec<Entry> = (1..=5).map(event).collect();
    let of = |received: &[i64]| {
        let received: Vec<Entry> = received.iter().map(|seq| event(*seq)).collect();
        objections(2, &received, &stream).len()
    };
    assert_eq!(of(&[3, 4, 5]), 0);
    assert_eq!((of(&[3, 5]), of(&[3, 4]), of(&[])), (1, 1, 3), "missing");
    assert_eq!((of(&[3, 4, 4, 5]), of(&[4, 3, 5]), of(&[2, 3, 4, 5]), of(&[3, 4, 5, 6])), (1, 1, 1, 1));
    assert_eq!(objections(4, &[message(5, "another text")], &stream).len(), 2);
}
