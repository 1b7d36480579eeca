//! Promises of live rooms that one process shows: lost hints, clients that read nothing, and what is stored nowhere.

use std::collections::BTreeMap;

use notihub::flow::stream::{send_due, sweep};
use notihub::hub::Hub;
use notihub::model::stream::StreamKind;
use notihub::store::listen::Topic;
use notihub::worker::{hints, streams};
use serde_json::json;

use crate::inbox::serve;
use crate::room::stomp::{Client, two};
use crate::room::{send, send_at};
use crate::support::app::App;
use crate::support::hubs::{another, stop, two_live};
use crate::support::sql::rows_by_table;
use crate::support::wait::until;

/// The number up to which the connections of a process have the only room.
fn sent(hub: &Hub) -> i64 {
    let listened = hub.streams.listened();
    listened.iter().find(|(key, _)| key.kind == StreamKind::Room).expect("a room with listeners").1
}

/// Sends what is due until the room has come to this number.
async fn reaches(hub: &Hub, seq: i64) {
    until(&format!("the room is at {seq}"), async || {
        while send_due(hub).await.unwrap() {}
        sent(hub) == seq
    })
    .await;
}

/// Nothing is due, the room is where it was, and the client has got nothing.
async fn gets_nothing(hub: &Hub, client: &mut Client, seq: i64) {
    assert!(!send_due(hub).await.unwrap());
    assert_eq!(sent(hub), seq);
    client.write("SEND", &[("destination", "/app/typing"), ("receipt", "nothing")], "{}").await;
    let next = client.next().await;
    assert_eq!(next.header("receipt-id"), "nothing", "{next:?}");
}

/// L7: a message whose hint comes is sent at once. One whose hint is lost waits (control) for the sweep, or until the
/// connection that listens was lost and has been made anew.
#[tokio::test]
async fn lost_hint_of_a_room_is_healed() {
    let app = App::new().await;
    let (hinting, silent) = (another(&app).await, another(&app).await);
    let (hinting_at, silent_at) = (serve(&hinting).await, serve(&silent).await);
    hints::start_listening(&app.hub, vec![Topic::Streams, Topic::Echo]);
    streams::start_hints(&hinting);
    let (room, one, two) = two(&app).await;
    let mut client = Client::connect(app.address, &one).await;
    client.subscribe("e", &format!("/topic/rooms/{room}"), &[]).await;
    while send_due(&app.hub).await.unwrap() {}
    send_at(&app.http, hinting_at, &two, &room, "hinted").await;
    reaches(&app.hub, 2).await;
    assert_eq!(client.message("e").await.json()["data"]["content"], "hinted");

    send_at(&app.http, silent_at, &two, &room, "swept").await;
    gets_nothing(&app.hub, &mut client, 2).await;
    sweep(&app.hub).await.unwrap();
    reaches(&app.hub, 3).await;
    assert_eq!(client.message("e").await.json()["data"]["content"], "swept");

    send_at(&app.http, silent_at, &two, &room, "missed").await;
    gets_nothing(&app.hub, &mut client, 3).await;
    let cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity \
        where datname = current_database() and query ilike 'listen%'";
    assert_eq!(app.count(cut).await, 1);
    reaches(&app.hub, 4).await;
    assert_eq!(client.message("e").await.json()["data"]["content"], "missed");
    stop(hinting).await;
    stop(silent).await;
    app.done().await;
}

/// S2-56, L7: a user is blocked at another process, and the notice of it is lost. Its connection goes on (control)
/// until the process that has it listens again.
#[tokio::test]
async fn lost_notice_of_a_block_is_healed() {
    let app = App::new().await;
    let silent = another(&app).await;
    let there = serve(&silent).await;
    let (room, _, two) = two(&app).await;
    let mut client = Client::connect(app.address, &two).await;
    client.subscribe("e", &format!("/topic/rooms/{room}"), &[]).await;
    let block = app.http.put(format!("http://{there}/v1/users/u-2")).header("content-type", "application/json");
    let block = block.bearer_auth(app.fresh_token().await).body(json!({"state": "BLOCKED"}).to_string());
    assert_eq!(block.send().await.unwrap().status().as_u16(), 200);
    send(&app, "u-1", &room, "a").await.expect(201);
    reaches(&app.hub, 2).await;
    assert_eq!(client.message("e").await.json()["data"]["content"], "a");
    hints::start_listening(&app.hub, vec![Topic::Users, Topic::Echo]);
    assert_eq!(client.end().await, Some(4401));
    stop(silent).await;
    app.done().await;
}

/// Long messages, which fill what lies between the process and a client that reads nothing; and short ones, one piece
/// of news each, more than may wait for a connection.
const LONG: i64 = 40;
const SHORT: i64 = 270;

/// L10: one of four clients at two processes never reads. The others get everything meanwhile. The slow one finds the
/// beginning of it, without a gap, and the close 4408; it comes back with its position and gets the rest.
#[tokio::test]
async fn client_that_never_reads_costs_its_own_connection_alone() {
    let app = App::with(&["--user-sends=1000", "--room-sends=1000"]).await;
    let (other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let topic = format!("/topic/rooms/{room}");
    let mut slow = Client::connect_narrow(app.address, &two).await;
    // Each message comes as often as it is subscribed to.
    let mut epoch = String::new();
    for n in 0..10 {
        epoch = slow.subscribe(&n.to_string(), &topic, &[]).await.header("x-epoch").to_owned();
    }
    let mut writer = Client::connect(app.address, &one).await;
    let mut reader = Client::connect(app.address, &two).await;
    let mut away = Client::connect(there, &two).await;
    for client in [&mut writer, &mut reader, &mut away] {
        client.subscribe("e", &topic, &[]).await;
    }
    let head = 1 + LONG + SHORT;
    for seq in 2..=head {
        let content = if seq <= 1 + LONG { "가".repeat(4_000) } else { seq.to_string() };
        writer.call("/app/chat", json!({"roomId": room, "content": content})).await;
        for client in [&mut writer, &mut reader] {
            assert_eq!(client.message("e").await.header("x-seq"), seq.to_string());
        }
    }
    for seq in 2..=head {
        assert_eq!(away.message("e").await.header("x-seq"), seq.to_string());
    }
    let open = "select count(*) from connections";
    until("the slow one is open yet", async || app.count(open).await == 4).await;

    let mut found = 1;
    loop {
        let frame = slow.next().await;
        if frame.command == "END" {
            break;
        }
        if frame.header("subscription") == "0" {
            found += 1;
            assert_eq!(frame.header("x-seq"), found.to_string());
        }
    }
    assert_eq!(slow.closed, Some(4408));
    assert!(1 < found && found < head, "it found {found} of {head}");
    let mut again = Client::connect(app.address, &two).await;
    again.subscribe("e", &topic, &[("x-from-seq", &found.to_string()), ("x-epoch", &epoch)]).await;
    for seq in found + 1..=head {
        assert_eq!(again.message("e").await.header("x-seq"), seq.to_string());
    }
    drop((writer, reader, away, again));
    stop(other).await;
    app.done().await;
}

/// S4-75, L12: who types and who looks at a room reaches others at another process and leaves no row in any table. A
/// message does (control).
#[tokio::test]
async fn typing_and_looking_leave_no_row() {
    let app = App::new().await;
    let (other, there) = two_live(&app).await;
    let (room, one, two) = two(&app).await;
    let mut here = Client::connect(app.address, &one).await;
    let mut away = Client::connect(there, &two).await;
    away.subscribe("t", &format!("/topic/typing/{room}"), &[]).await;
    away.subscribe("a", &format!("/topic/active/{room}"), &[]).await;
    away.message("a").await;
    until("both connections are recorded", async || app.count("select count(*) from connections").await == 2).await;
    let before = rows_by_table(&app).await;
    let changed = async || -> BTreeMap<String, Vec<String>> {
        let mut rows = rows_by_table(&app).await;
        rows.retain(|table, rows| before[table] != *rows);
        rows
    };
    for on in [true, false] {
        here.call("/app/typing", json!({"roomId": room, "isTyping": on})).await;
        assert_eq!(away.message("t").await.json()["isTyping"], on);
        here.call("/app/active", json!({"roomId": room, "active": on})).await;
        assert_eq!(away.message("a").await.json()["active"], on);
    }
    assert_eq!(changed().await, BTreeMap::new());
    send(&app, "u-1", &room, "stored").await.expect(201);
    let stored = changed().await;
    assert!(stored.contains_key("public.chat_messages"), "{stored:?}");
    drop((here, away));
    stop(other).await;
    app.done().await;
}
