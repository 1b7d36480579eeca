//! Processes that are killed while rooms are written to, and what must survive them.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::room::ledger::{Entry, Tab, message, objections, stream_at};
use crate::room::stomp::Client;
use crate::room::{ask_at, group_at, send_at, text};
use crate::support::database::fresh_database;
use crate::support::process::{Folder, fsck, http_to, on};
use crate::support::wait::until;

/// A user who writes over STOMP, and sees how far its messages are.
struct Writer {
    client: Client,
    room: String,
}

impl Writer {
    async fn open(address: SocketAddr, token: &str, room: &str) -> Writer {
        let mut client = Client::connect(address, token).await;
        client.subscribe("s", &format!("/topic/message/status/{room}"), &[]).await;
        Writer { client, room: room.to_owned() }
    }

    /// Sends a message whose text is its tempId. Returns its id once it is saved; none if the process is gone before.
    async fn send(&mut self, temp_id: &str) -> Option<String> {
        let body = json!({"roomId": self.room, "tempId": temp_id, "content": temp_id});
        self.client.call("/app/chat", body).await;
        loop {
            let frame = self.client.next().await;
            if frame.command == "END" {
                return None;
            }
            let status = frame.json();
            assert_ne!(status["status"], "FAILED", "{status}");
            if status["status"] == "SAVED" {
                return Some(text(&status["persistedId"]));
            }
        }
    }

    /// Sends one message after the other until the process is gone. Returns the ids of those that were saved, by their
    /// tempIds, and the tempId of the one without an answer.
    async fn send_until_killed(mut self, name: usize) -> (BTreeMap<String, String>, String) {
        let mut saved = BTreeMap::new();
        for n in 0.. {
            let temp_id = format!("m-{name}-{n}");
            match self.send(&temp_id).await {
                Some(id) => saved.insert(temp_id, id),
                None => return (saved, temp_id),
            };
        }
        unreachable!("it is killed")
    }
}

fn entry_of(id: &str, content: &str) -> Entry {
    message(id.rsplit_once('-').unwrap().1.parse().unwrap(), content)
}

/// S4-61, L1, L5: a process is killed while four users write at it, just before a commit and just after it. No
/// connection has a number or an answer that the database lacks. Everything without an answer is sent again with its
/// tempId, at the other process, and is stored once.
#[tokio::test]
async fn writer_killed_around_its_commit_is_never_ahead_of_the_database() {
    for (step, is_committed) in [("chat.before_commit", false), ("chat.after_commit", true)] {
        let (folder, url) = (Folder::new(), fresh_database().await);
        let http = http_to(&url).await;
        let serve = |fail_points: &str| {
            let args = ["serve", "--email=off", "--listen=127.0.0.1:0", "--user-sends=1000", "--room-sends=1000"];
            on(&folder, &url, &args).env("FAILPOINTS", fail_points).start()
        };
        let mut doomed = serve(&format!("{step}=60*off->return"));
        let mut other = serve("");
        let (here, there) = (doomed.address().await, other.address().await);
        let (room, tokens) = group_at(&http, there, &["u-1", "u-2", "u-3", "u-4"]).await;
        let near = Tab::open(here, &tokens[0], &room).await;
        let far = Tab::open(there, &tokens[1], &room).await;
        let mut writers = Vec::new();
        for token in &tokens {
            writers.push(Writer::open(here, token, &room).await);
        }
        let writers = writers.into_iter().enumerate().map(|(n, writer)| writer.send_until_killed(n));
        let (saved, unanswered): (Vec<_>, Vec<_>) = join_all(writers).await.into_iter().unzip();
        let mut saved: BTreeMap<String, String> = saved.into_iter().flatten().collect();
        assert_eq!(doomed.ended().await.code, None, "{step}");

        let stored = stream_at(&http, there, &tokens[0], &room).await;
        let is_stored = |temp_id: &str| stored.iter().any(|(_, what)| *what == message(0, temp_id).1);
        for (temp_id, id) in &saved {
            assert!(stored.contains(&entry_of(id, temp_id)), "{step}: {temp_id} has the answer {id}");
        }
        let (from, seen) = (near.from, near.ended().await);
        let last = seen.last().map_or(from, |(seq, _)| *seq);
        let until_there: Vec<Entry> = stored.iter().filter(|(seq, _)| *seq <= last).cloned().collect();
        assert_eq!(objections(from, &seen, &until_there), [""; 0], "{step}");
        assert!(!seen.is_empty(), "{step}: it was killed too early to tell anything");
        // Those of the last group, and perhaps some whose answer was on its way.
        assert!(unanswered.iter().any(|temp_id| is_stored(temp_id) == is_committed), "{step}: {unanswered:?}");
        far.reaches(stored.last().unwrap().0).await;

        for (n, temp_id) in unanswered.iter().enumerate() {
            let id = Writer::open(there, &tokens[n], &room).await.send(temp_id).await.expect("an answer");
            let is_new = !is_stored(temp_id);
            assert_eq!(stored.contains(&entry_of(&id, temp_id)), !is_new, "{step}: {temp_id} is {id}");
            saved.insert(temp_id.clone(), id);
        }
        let (temp_id, id) = saved.iter().find(|(temp_id, _)| temp_id.starts_with("m-0-")).unwrap();
        let again = Writer::open(there, &tokens[0], &room).await.send(temp_id).await;
        assert_eq!(again.as_ref(), Some(id), "{step}: an answered one that is sent again is the same message");

        let stream = stream_at(&http, there, &tokens[0], &room).await;
        let mut sent: Vec<Entry> = saved.iter().map(|(temp_id, id)| entry_of(id, temp_id)).collect();
        sent.sort();
        assert_eq!(stream[1..], sent, "{step}: each message once, and nothing else");
        far.reaches(stream.last().unwrap().0).await;
        let from = far.from;
        assert_eq!(objections(from, &far.ended().await, &stream), [""; 0], "{step}");
        drop(other);
        fsck(&folder, &url).await;
    }
}

/// L5, L7: a process is killed after it stored a message and before it gave a hint of it: the sweep of another process
/// brings it to the connections there. Sent again, it is the same message, and comes no second time.
#[tokio::test]
async fn writer_killed_before_its_hint_loses_nothing_and_repeats_nothing() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let serve = |fail_points: &str| {
        let args = ["serve", "--email=off", "--listen=127.0.0.1:0"];
        on(&folder, &url, &args).env("FAILPOINTS", fail_points).start()
    };
    let (mut doomed, mut other) = (serve("chat.after_commit=return"), serve(""));
    let (here, there) = (doomed.address().await, other.address().await);
    let (room, tokens) = group_at(&http, there, &["u-1", "u-2"]).await;
    let far = Tab::open(there, &tokens[1], &room).await;
    assert_eq!(Writer::open(here, &tokens[0], &room).await.send("once").await, None);
    assert_eq!(doomed.ended().await.code, None);
    far.reaches(2).await;
    let mut writer = Writer::open(there, &tokens[0], &room).await;
    assert_eq!(writer.send("once").await, Some(format!("{room}-2")));
    writer.send("next").await.expect("an answer");
    far.reaches(3).await;
    assert_eq!(far.ended().await, [message(2, "once"), message(3, "next")]);
    drop((writer, other));
    fsck(&folder, &url).await;
}

/// L12: a mark whose RECEIPT has come survives a process that is killed. One that waits in memory is lost with the
/// process, and comes again with the message.
#[tokio::test]
async fn mark_with_a_receipt_survives_a_killed_process() {
    let (folder, url) = (Folder::new(), fresh_database().await);
    let http = http_to(&url).await;
    let serve = |fail_points: &str| {
        let args = ["serve", "--email=off", "--listen=127.0.0.1:0"];
        on(&folder, &url, &args).env("FAILPOINTS", fail_points).start()
    };
    // It is killed when it is about to write the first marks that wait.
    let (mut doomed, mut other) = (serve("marks.before_commit=return"), serve(""));
    let (here, there) = (doomed.address().await, other.address().await);
    let (room, tokens) = group_at(&http, there, &["u-1", "u-2"]).await;
    let receipt = async |id: &str| -> Value {
        let (status, shown) = ask_at(&http, there, &tokens[0], "GET", &format!("/messages/{id}"), None).await;
        assert_eq!(status, 200, "{shown}");
        shown["data"]["receipt"].clone()
    };
    let first = send_at(&http, there, &tokens[0], &room, "first").await;
    assert_eq!(receipt(&first).await, "SENT");
    let mut reader = Client::connect(here, &tokens[1]).await;
    let body = json!({"messageId": first}).to_string();
    reader.write("SEND", &[("destination", "/app/read"), ("receipt", "read")], &body).await;
    assert_eq!(reader.next().await.header("receipt-id"), "read");

    let topic = format!("/topic/messages/{room}");
    let subscribed = reader.subscribe("m", &topic, &[]).await;
    let (head, epoch) = (subscribed.header("x-head").to_owned(), subscribed.header("x-epoch").to_owned());
    let second = send_at(&http, there, &tokens[0], &room, "second").await;
    reader.end().await;
    assert_eq!(doomed.ended().await.code, None);
    assert_eq!((receipt(&first).await, receipt(&second).await), (json!("READ"), json!("SENT")));

    let mut reader = Client::connect(there, &tokens[1]).await;
    reader.subscribe("m", &topic, &[("x-from-seq", &head), ("x-epoch", &epoch)]).await;
    assert_eq!(reader.message("m").await.json()["id"], json!(second));
    until("it is delivered", async || receipt(&second).await == "DELIVERED").await;
    drop((reader, other));
    fsck(&folder, &url).await;
}
