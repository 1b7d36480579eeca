//! Live connections: every event of a user's stream once and in order, on every process, or a reset.

use notihub::flow::stream::{send_due, sweep};
use notihub::store::listen::Topic;
use notihub::worker::{hints, streams};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use crate::inbox::Live;
use crate::support::app::App;
use crate::support::hubs::{another, start_live, stop, two_live};
use crate::support::wait::until;

/// A user's own access token, as its partner's server asks for one.
async fn token(app: &App, user: &str) -> String {
    let path = format!("/v1/users/{user}/token");
    let made = app.post(&path, json!({})).await.expect(200).body;
    made["accessToken"].as_str().unwrap().to_owned()
}

fn stream(app: &App, address: std::net::SocketAddr, token: &str, last: Option<&str>) -> reqwest::RequestBuilder {
    let request = app.http.get(format!("http://{address}/v1/inbox/stream")).bearer_auth(token);
    match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    }
}

/// S2-18, S4-74, S4-208, L3, L4, L8: a client of each of two processes gets each item and change once and in order,
/// with absolute counts; one that was away resumes at the other process with exactly what it missed.
#[tokio::test]
async fn live_clients_of_two_processes_agree_and_resume_anywhere() {
    let app = App::new().await;
    let (other, there) = two_live(&app).await;
    let token = token(&app, "u-1").await;
    let mut here = Live::open(stream(&app, app.address, &token, None)).await;
    let mut away = Live::open(stream(&app, there, &token, None)).await;
    for live in [&mut here, &mut away] {
        live.expect_retry().await;
        let first = live.expect("counts").await;
        assert_eq!((&first.data["unread"], &first.data["seq"]), (&json!(0), &json!(0)));
        assert!(first.id.is_some(), "from here it resumes");
    }
    let a = app.arrive("u-1", "a").await;
    let mut last = String::new();
    for live in [&mut here, &mut away] {
        let item = live.expect("item").await;
        assert_eq!((&item.data["body"], &item.data["change"]), (&json!("a"), &json!("ARRIVED")));
        assert_eq!(live.expect("counts").await.data["unread"], 1);
        last = item.id.unwrap();
    }
    drop(away);
    until("a connection that is gone listens no more", async || other.streams.listened().is_empty()).await;
    app.arrive("u-1", "b").await;
    app.as_user("u-1", "POST", &format!("/v1/inbox/{a}/read"), None).await.expect(200);
    app.as_user("u-1", "POST", "/v1/inbox/seen", None).await.expect(200);
    let mut missed = Live::open(stream(&app, there, &token, Some(&last))).await;
    for live in [&mut here, &mut missed] {
        let mut heard = Vec::new();
        while heard.len() < 3 {
            let event = live.next().await.unwrap();
            if event.name != "counts" {
                heard.push((event.id.unwrap(), event.data["change"].clone(), event.data["body"].clone()));
            }
        }
        let (epoch, _) = last.split_once('.').unwrap();
        let at = |seq: i64| format!("{epoch}.{seq}");
        assert_eq!(
            heard,
            [
                (at(2), json!("ARRIVED"), json!("b")),
                (at(3), json!("CHANGED"), json!("a")),
                (at(4), json!("SEEN"), Value::Null)
            ]
        );
        let counts = live.expect("counts").await.data;
        assert_eq!((&counts["unseen"], &counts["unread"], &counts["seq"]), (&json!(0), &json!(1), &json!(4)));
    }
    // Streams end with the process, in order.
    stop(other).await;
    assert_eq!(missed.next().await, None);
    app.done().await;
}

/// A user with a live connection is ONLINE to others, AWAY when nothing came from it for five minutes, and OFFLINE once
/// its last connection has closed, or the process that has it is gone.
#[tokio::test]
async fn user_is_online_while_it_is_connected() {
    let app = App::new().await;
    streams::start_reading(&app.hub);
    let (me, other) = (token(&app, "u-1").await, token(&app, "u-2").await);
    let id = app.ask(&me, "GET", "/api/v1/users/me", None).await.expect(200).body["data"]["userId"].clone();
    let path = format!("/api/v1/users/{}", id.as_str().unwrap());
    let shows = async |status: &str| {
        until(status, async || app.ask(&other, "GET", &path, None).await.expect(200).body["data"]["status"] == status)
            .await;
    };
    shows("OFFLINE").await;
    let mut live = Live::open(stream(&app, app.address, &me, None)).await;
    live.expect("counts").await;
    shows("ONLINE").await;
    app.advance(301);
    shows("AWAY").await;
    drop(live);
    shows("OFFLINE").await;
    app.done().await;
}

/// L7: a hint that is lost is made good by the sweep; without the sweep nothing arrives (control). A stream that
/// another history of the database continues begins anew.
#[tokio::test]
async fn lost_hint_is_healed_by_the_sweep() {
    let app = App::new().await;
    let token = token(&app, "u-1").await;
    let mut live = Live::open(stream(&app, app.address, &token, None)).await;
    live.expect("counts").await;
    while send_due(&app.hub).await.unwrap() {}
    // Another process puts the item, and its hint reaches no one.
    let other = another(&app).await;
    app.post("/v1/messages", crate::inbox::to_inbox(&["u-1"], "a")).await.expect(202);
    notihub::worker::deliver::deliver_due(&other).await.unwrap();
    assert!(!send_due(&app.hub).await.unwrap() && app.hub.streams.listened()[0].1 == 0, "nothing is due");
    sweep(&app.hub).await.unwrap();
    send_due(&app.hub).await.unwrap();
    assert_eq!(live.item().await, ("a".to_owned(), 1));

    sqlx::query("update hub_keys set key = sha256(key) where name = 'stream_epoch'")
        .execute(&app.db().await)
        .await
        .unwrap();
    sweep(&app.hub).await.unwrap();
    assert_eq!(live.next().await, None, "it ends, and resumes with the epoch that it knows");
    stop(other).await;
    app.done().await;
}

/// A client whose missed events cannot be replayed gets a reset: another epoch, events that are gone, or too many.
#[tokio::test]
async fn resume_that_cannot_be_whole_is_a_reset() {
    let app = App::new().await;
    let token = token(&app, "u-1").await;
    let a = app.arrive("u-1", "a").await;
    let mut live = Live::open(stream(&app, app.address, &token, None)).await;
    let id = live.expect("counts").await.id.unwrap();
    let (epoch, _) = id.split_once('.').unwrap();
    for change in ["read", "unread", "read"] {
        app.as_user("u-1", "POST", &format!("/v1/inbox/{a}/{change}"), None).await.expect(200);
    }
    let db = app.db().await;
    let resume = async |position: &str| {
        let mut live = Live::open(stream(&app, app.address, &token, Some(position))).await;
        let first = live.next().await.unwrap();
        let counts = if first.name == "reset" { live.expect("counts").await.data["seq"].clone() } else { json!(null) };
        (first.name, first.data["reason"].as_str().unwrap_or_default().to_owned(), counts)
    };
    let reset = |reason: &str, seq: i64| ("reset".to_owned(), reason.to_owned(), json!(seq));
    assert_eq!(resume("0000.1").await, reset("epoch", 4));
    assert_eq!(resume("nonsense").await, reset("epoch", 4));
    assert_eq!(resume(&format!("{epoch}.9")).await, reset("epoch", 4), "a number that was never given");
    assert_eq!(resume(&format!("{epoch}.1")).await.0, "item");
    sqlx::query("create table kept as table stream_events").execute(&db).await.unwrap();
    sqlx::query("delete from stream_events where seq = 3").execute(&db).await.unwrap();
    assert_eq!(resume(&format!("{epoch}.1")).await, reset("gap", 4));
    assert_eq!(resume(&format!("{epoch}.3")).await.0, "item", "what comes after the gap is whole");
    sqlx::query("truncate stream_events").execute(&db).await.unwrap();
    sqlx::query("insert into stream_events table kept").execute(&db).await.unwrap();
    sqlx::query(
        "insert into stream_events (shard, stream_id, seq, event_id, event)
         select shard, stream_id, seq + n, event_id + n, 'INBOX_SEEN' from stream_events, generate_series(1, 500) n
         where seq = 4",
    )
    .execute(&db)
    .await
    .unwrap();
    sqlx::query("update user_heads set seq = 504").execute(&db).await.unwrap();
    assert_eq!(resume(&format!("{epoch}.3")).await, reset("too_far", 504));
    assert_eq!(resume(&format!("{epoch}.4")).await.0, "changed", "500 are replayed");
    app.done().await;
}

/// S4-41: a ticket opens one stream, within half a minute; a stream ends with its token, and when its user is signed
/// out everywhere.
#[tokio::test]
async fn ticket_opens_one_stream_and_a_stream_ends_with_its_token() {
    let app = App::new().await;
    hints::start_listening(&app.hub, vec![Topic::Users, Topic::Echo]);
    let token = token(&app, "u-1").await;
    let ticket = async || {
        let made = app.ask(&token, "POST", "/api/v1/sse/ticket", None).await.expect(200).body;
        assert_eq!((&made["success"], &made["data"]["expiresIn"]), (&json!(true), &json!(30)));
        format!("/v1/inbox/stream?ticket={}", made["data"]["ticket"].as_str().unwrap())
    };
    let path = ticket().await;
    let mut live = Live::open(app.http.get(app.uri(&path))).await;
    live.expect("counts").await;
    app.ask("", "GET", &path, None).await.refused(401, "unauthenticated");
    let late = ticket().await;
    app.advance(31);
    app.ask("", "GET", &late, None).await.refused(401, "unauthenticated");
    app.ask("", "GET", "/v1/inbox/stream", None).await.refused(401, "unauthenticated");

    let out = app.ask(&app.fresh_token().await, "PUT", "/v1/users/u-1", Some(json!({"state": "BLOCKED"}))).await;
    out.expect(200);
    assert_eq!(live.next().await, None, "it ends, and cannot be resumed");
    let refused = app.ask(&token, "GET", "/v1/inbox/stream", None).await;
    assert!(matches!(refused.status, 401 | 403), "{}", refused.text);

    let own = crate::inbox::live::token(&app, "u-2").await;
    // The token's last second, by the hub's clock.
    app.advance(3_599);
    let mut live = Live::open(stream(&app, app.address, &own, None)).await;
    live.expect("counts").await;
    live.expect("expired").await;
    assert_eq!(live.next().await, None);
    app.done().await;
}

/// Web pages of the origins in the settings may use the inbox, and those of others may not; other paths admit none.
#[tokio::test]
async fn page_of_an_allowed_origin_is_admitted() {
    let app = App::with(&["--allowed-origin=https://app.example.com,https://b.example.com:8443"]).await;
    let ask = async |method: &str, path: &str, origin: &str| {
        let request = app.http.request(method.parse().unwrap(), app.uri(path)).header("origin", origin);
        let request = request.header("access-control-request-method", "GET");
        let answer = crate::support::app::Answer::read(request).await;
        (answer.status, answer.header("access-control-allow-origin").to_owned())
    };
    let page = "https://app.example.com";
    assert_eq!(ask("OPTIONS", "/v1/inbox", page).await, (204, page.to_owned()));
    assert_eq!(ask("OPTIONS", "/api/v1/sse/ticket", "https://b.example.com:8443").await.0, 204);
    assert_eq!(ask("GET", "/v1/inbox", page).await, (401, page.to_owned()), "the page learns why");
    assert_eq!(ask("OPTIONS", "/v1/inbox", "https://evil.example.com").await.1, "");
    assert_eq!(ask("OPTIONS", "/v1/messages", page).await, (405, String::new()));
    app.done().await;
}

/// L10: a client that reads nothing costs its own connection and nothing else: the other stream gets each item, and the
/// connection that takes nothing is ended once its queue is full. Its client resumes, or begins anew.
#[tokio::test]
async fn client_that_reads_nothing_costs_no_other_client_anything() {
    let app = App::new().await;
    start_live(&app.hub);
    let (slow, quick) = (token(&app, "u-slow").await, token(&app, "u-1").await);
    let mut quick = Live::open(stream(&app, app.address, &quick, None)).await;
    quick.expect("counts").await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut socket = socket.connect(app.address).await.unwrap();
    let request = format!("GET /v1/inbox/stream HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {slow}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    until("both are listened to", async || app.hub.streams.listened().len() == 2).await;
    let a = app.arrive("u-slow", &"0123456789".repeat(6_000)).await;
    let (mut changes, mut items) = (0, 0);
    while app.hub.streams.listened().len() == 2 {
        changes += 1;
        assert!(changes < 1_000, "the connection that takes nothing is kept");
        let change = if changes % 2 == 1 { "read" } else { "unread" };
        app.as_user("u-slow", "POST", &format!("/v1/inbox/{a}/{change}"), None).await.expect(200);
        if changes % 50 == 0 {
            items += 1;
            app.arrive("u-1", &items.to_string()).await;
            assert_eq!(quick.item().await, (items.to_string(), items));
        }
    }
    assert!(changes > 100 && items > 1, "it is ended by its queue, not by {changes} changes");
    let again = Live::open(stream(&app, app.address, &slow, None)).await.expect("counts").await;
    assert_eq!(again.data["seq"], 1 + changes);
    drop((socket, quick));
    app.done().await;
}
