//! Calls to servers that speak HTTP in their own way: what they answer is heard, and what they leave out loses nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use chrono::{DateTime, TimeDelta, Utc};
use notihub::clock::Clock;
use notihub::config::ProviderSettings;
use notihub::model::access::role::StaffRole;
use notihub::provider::http::ClientSettings;
use notihub::provider::registry::build_account;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::app::{App, email, start_time};

/// An answer as bytes, and whether the connection is closed after it.
type Said = (Vec<u8>, bool);

type Law = Arc<dyn Fn(usize, usize) -> Said + Send + Sync>;

/// A server on loopback that answers in bytes. Ends when it is dropped.
struct Server {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
    shutdown: Shutdown,
}

impl Server {
    /// `law`: from the number of the request, and its number on its connection, both from 0.
    async fn start(law: impl Fn(usize, usize) -> Said + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let (requests, shutdown, law) = (Arc::<Mutex<Vec<String>>>::default(), Shutdown::new(), Arc::new(law) as Law);
        let (seen, stopping) = (requests.clone(), shutdown.clone());
        shutdown.spawn(async move {
            loop {
                let (stream, _) = tokio::select! {
                    accepted = listener.accept() => accepted.unwrap(),
                    () = stopping.stopping() => return,
                };
                let (seen, law, ending) = (seen.clone(), law.clone(), stopping.clone());
                stopping.spawn(async move {
                    tokio::select! { () = converse(stream, seen, law) => (), () = ending.stopping() => () }
                });
            }
        });
        Server { url, requests, shutdown }
    }

    /// Answers everything so, and closes.
    async fn saying(answer: &'static str) -> Server {
        Server::start(move |_, _| (answer.into(), true)).await
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

async fn converse(mut stream: TcpStream, seen: Arc<Mutex<Vec<String>>>, law: Law) {
    for of_connection in 0.. {
        let Some(request) = request(&mut stream).await else { return };
        let n = {
            let mut seen = seen.lock().unwrap();
            seen.push(request);
            seen.len() - 1
        };
        let (answer, close) = law(n, of_connection);
        if stream.write_all(&answer).await.is_err() || close {
            return;
        }
    }
}

/// A whole request, head and body.
async fn request(stream: &mut TcpStream) -> Option<String> {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        text.push_str(&String::from_utf8_lossy(&buffer[..read]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

/// A hub whose partners' endpoints may be here.
async fn with_endpoints(flags: &[&str]) -> App {
    App::with(&[flags, &["--webhook-allow-network=127.0.0.0/8", "--webhook-allow-http"]].concat()).await
}

/// The outcomes of the calls to a provider, in their order.
async fn outcomes(app: &App, provider: &str) -> Vec<String> {
    let sql = "select outcome::text from attempt_history where provider = $1 order by message_id, no, attempt";
    sqlx::query_scalar(sql).bind(provider).fetch_all(&app.db().await).await.unwrap()
}

/// Faults E7: `Retry-After` in each form of RFC 9110, 5.6.7, with `Date` and without.
#[tokio::test]
async fn retry_after_in_each_form_of_a_date_is_honoured() {
    let forms: [(&str, &str); 5] = [
        ("Fri, 05 Mar 2027 00:40:00 GMT", ""),
        ("Friday, 05-Mar-27 00:40:00 GMT", ""),
        ("Fri Mar  5 00:40:00 2027", ""),
        ("Sunday, 06-Nov-94 08:59:37 GMT", "Date: Sunday, 06-Nov-94 08:49:37 GMT\r\n"),
        ("600", ""),
    ];
    for (said, date) in forms {
        let answer = format!("HTTP/1.1 503 Later\r\n{date}Retry-After: {said}\r\nContent-Length: 0\r\n\r\n");
        let server = Server::start(move |_, _| (answer.clone().into_bytes(), true)).await;
        let app = with_endpoints(&[&format!("--slack-destination=away={}", server.url)]).await;
        app.post("/v1/webhooks", json!({"url": server.url})).await.expect(201);
        app.post("/v1/messages", email("kim@example.com")).await.expect(202);
        let slack = json!({"type": "TEST", "body": "x", "channels": [{"channel": "SLACK", "to": "away"}]});
        app.post("/v1/messages", slack).await.expect(202);
        app.work().await;
        let waits = "select min(ready_at), max(ready_at) from deliveries where status = 'SCHEDULED'";
        let waits: (DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(waits).fetch_one(&app.db().await).await.unwrap();
        let (least, most) = (start_time() + TimeDelta::seconds(600), start_time() + TimeDelta::seconds(660));
        assert!(least <= waits.0 && waits.1 <= most, "{said} {date}: {waits:?}");
        app.done().await;
    }
}

/// Faults E8: a webhook is judged by its status; its body may be cut, or have no end.
#[tokio::test]
async fn webhook_answer_with_a_cut_body_is_judged_by_its_status() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let server = Server::saying(answer).await;
        let app = with_endpoints(&[]).await;
        app.post("/v1/webhooks", json!({"url": server.url, "events": ["delivery.sent"]})).await.expect(201);
        app.post("/v1/messages", email("kim@example.com")).await.expect(202);
        app.settle_all().await;
        assert_eq!((outcomes(&app, "webhook").await, server.count()), (vec!["ACCEPTED".to_owned()], 1), "{answer:?}");
        app.done().await;
    }
}

/// Faults E8: a body without an end is kept up to its bound, and no longer waited for.
#[tokio::test]
async fn webhook_answer_with_an_endless_body_is_not_waited_for() {
    let endless = [b"HTTP/1.1 200 OK\r\n\r\n".as_slice(), &vec![b'x'; 1 << 20]].concat();
    let server = Server::start(move |_, _| (endless.clone(), false)).await;
    let app = with_endpoints(&[]).await;
    app.post("/v1/webhooks", json!({"url": server.url, "events": ["delivery.sent"]})).await.expect(201);
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.settle_all().await;
    assert_eq!((outcomes(&app, "webhook").await, server.count()), (vec!["ACCEPTED".to_owned()], 1));
    app.done().await;
}

fn sms(text: &str) -> Value {
    json!({"type": "TEST", "body": text, "channels": [{"channel": "SMS", "to": "010-1234-5678"}]})
}

/// An account `main` at a server.
fn account(adapter: &str, url: (&str, &str), options: &[(&str, &str)]) -> notihub::provider::Account {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let options = options.iter().chain([&url]).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let settings = ProviderSettings { name: "main".into(), adapter: adapter.into(), options: options.collect() };
    build_account(&settings, &ClientSettings::with_budget(std::time::Duration::from_secs(10))).unwrap()
}

const GATEWAY: [(&str, &str); 2] = [("secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), ("channels", "SMS")];

/// Faults E8, F5: a gateway of one's own is judged by its status, too.
#[tokio::test]
async fn gateway_answer_with_a_cut_body_is_judged_by_its_status() {
    let server = Server::saying("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}").await;
    let app = App::with_accounts(&[], vec![account("gateway", ("url", &server.url), &GATEWAY)]).await;
    app.post("/v1/messages", sms("x")).await.expect(202);
    app.settle_all().await;
    assert_eq!(outcomes(&app, "main").await, ["ACCEPTED"]);
    app.done().await;
}

/// Faults F5: a server closes a kept connection while the next request is on its way. A paid message never goes over
/// one.
#[tokio::test]
async fn paid_message_goes_over_a_fresh_connection() {
    let taken = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
    let server = Server::start(move |_, n| if n == 0 { (taken.into(), false) } else { (Vec::new(), true) }).await;
    let app = App::with_accounts(&[], vec![account("gateway", ("url", &server.url), &GATEWAY)]).await;
    for text in ["one", "two", "three"] {
        app.post("/v1/messages", sms(text)).await.expect(202);
        app.work().await;
    }
    assert_eq!((outcomes(&app, "main").await, server.count()), (vec!["ACCEPTED".to_owned(); 3], 3));
    let closes = |request: &String| request.to_lowercase().contains("\r\nconnection: close\r\n");
    assert!(server.requests.lock().unwrap().iter().all(closes), "the server need not keep it");
    app.done().await;
}

/// Faults E5: servers that take Slack's posts and answer in their own words. What may have been taken is never FAILED.
#[tokio::test]
async fn slack_answer_in_other_words_is_accepted_or_unknown() {
    for (answer, compatible, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n{\"success\":true}", false, "SENT"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"ok\":true}", false, "SENT"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", false, "SENT"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nposted", false, "UNDETERMINED"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nposted", true, "SENT"),
        ("HTTP/1.1 204 No Content\r\n\r\n", true, "SENT"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nno_service", true, "FAILED"),
    ] {
        let server = Server::saying(answer).await;
        let destination = format!("--slack-destination=away={}", server.url);
        let flags = [destination.as_str(), "--slack-compatible=away"];
        let app = App::with(&flags[..if compatible { 2 } else { 1 }]).await;
        let id = app.post("/v1/messages", slack("away")).await.expect(202).id();
        app.settle_all().await;
        let delivery = &app.message(&id).await["deliveries"][0];
        assert_eq!(delivery["status"], status, "{answer:?} {compatible}: {delivery}");
        app.done().await;
    }
}

fn slack(to: &str) -> Value {
    json!({"type": "TEST", "body": "x", "channels": [{"channel": "SLACK", "to": to}]})
}

/// Faults E1: a hook that takes one message per N s and refuses the others with 429. All arrive, few are refused, and
/// other destinations do not wait.
#[tokio::test]
async fn slack_hook_with_a_rate_gets_all_of_a_burst() {
    for n in [1, 5, 30] {
        let clock: Arc<OnceLock<Clock>> = Arc::default();
        let (seen, last) = (clock.clone(), Mutex::new(None::<DateTime<Utc>>));
        let server = Server::start(move |_, _| {
            let (now, mut last) = (seen.get().unwrap().now(), last.lock().unwrap());
            if last.is_some_and(|last| now < last + TimeDelta::seconds(n)) {
                let head = format!("HTTP/1.1 429 Slow\r\nRetry-After: {n}\r\nContent-Length: 12\r\n\r\nrate_limited");
                return (head.into_bytes(), false);
            }
            *last = Some(now);
            (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(), false)
        })
        .await;
        let app = App::with(&[&format!("--slack-destination=slow={}", server.url)]).await;
        assert!(clock.set(app.hub.clock.clone()).is_ok());
        for _ in 0..10 {
            app.post("/v1/messages", slack("slow")).await.expect(202);
        }
        app.work().await;
        app.post("/v1/messages", slack("ops")).await.expect(202);
        app.work().await;
        assert_eq!(app.slack.records().len(), 1, "another destination does not wait");
        app.settle_all().await;
        let sent = app.count("select count(*) from deliveries where status = 'SENT'").await;
        let refused = server.count() - 10;
        assert!(sent == 11 && refused <= 2, "one per {n} s: {sent} sent, {refused} refused");
        app.done().await;
    }
}

/// Faults E1: the pace that one process was given holds for all processes.
#[tokio::test]
async fn slack_destination_paced_by_one_process_is_paced_in_all() {
    let server = Server::saying("HTTP/1.1 429 Slow\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n").await;
    let app = App::with(&[&format!("--slack-destination=slow={}", server.url)]).await;
    app.post("/v1/messages", slack("slow")).await.expect(202);
    app.work().await;
    assert_eq!(server.count(), 1);
    let other = app.another_process().await;
    app.post("/v1/messages", slack("slow")).await.expect(202);
    app.post("/v1/messages", slack("ops")).await.expect(202);
    notihub::worker::deliver::deliver_due(&other).await.unwrap();
    assert_eq!((server.count(), app.slack.records().len()), (1, 1));
    other.shutdown.stop();
    app.done().await;
}

/// Faults E3, E5: each of Slack's destinations may be a server of its own. Failing ones hold up themselves alone, cost
/// few calls, and get their waiting posts once they work; posts with a fallback go there.
#[tokio::test]
async fn slack_destination_that_fails_holds_up_itself_alone() {
    let works = Arc::new(AtomicBool::new(false));
    let seen = works.clone();
    let server = Server::start(move |_, _| {
        let answer = if seen.load(Ordering::SeqCst) { "200 OK\r\nContent-Length: 2\r\n\r\nok" } else { BROKEN };
        (format!("HTTP/1.1 {answer}").into_bytes(), false)
    })
    .await;
    const BROKEN: &str = "503 Away\r\nContent-Length: 19\r\n\r\nservice_unavailable";
    let away = ["away-1", "away-2", "away-3"];
    let flags = away.map(|name| format!("--slack-destination={name}={}", server.url));
    let app = App::with(&flags.each_ref().map(String::as_str)).await;
    for n in 0..45 {
        app.post("/v1/messages", slack(away[n % 3])).await.expect(202);
    }
    for round in 1..=20 {
        app.post("/v1/messages", slack("ops")).await.expect(202);
        app.work().await;
        app.advance(1);
        assert_eq!(app.slack.records().len(), round, "another destination does not wait");
    }
    assert!(server.count() <= 30, "{} calls to three that fail", server.count());
    let waits = "select count(*) from deliveries where status = 'SCHEDULED' and reason = 'destination_failing'";
    assert!(app.count(waits).await >= 27);
    let mut with_fallback = slack("away-1");
    with_fallback["channels"][0]["fallback"] = json!([{"channel": "EMAIL", "to": "kim@example.com", "subject": "x"}]);
    let id = app.post("/v1/messages", with_fallback).await.expect(202).id();
    app.work().await;
    app.work().await;
    let mut shown = app.message(&id).await;
    if shown["deliveries"][0]["status"] == "SCHEDULED" {
        // It was the occasional probe: the destination answered it, and it waits for its next attempt.
        app.advance(5);
        app.work().await;
        app.work().await;
        shown = app.message(&id).await;
    }
    let ends = |n: usize| (shown["deliveries"][n]["status"].clone(), shown["deliveries"][n]["reason"].clone());
    assert_eq!((ends(0), ends(1)), ((json!("FAILED"), json!("channel_down")), (json!("SENT"), Value::Null)), "{shown}");
    let operator = app.staff(StaffRole::Operator).await;
    let providers = app.ask(&operator, "GET", "/v1/providers", None).await.expect(200);
    let shown = providers.body["items"].as_array().unwrap().iter().find(|shown| shown["name"] == "slack").unwrap();
    assert_eq!((&shown["name"], &shown["status"]), (&json!("slack"), &json!("UP")));
    assert_eq!(shown["failingDestinations"], json!(away));

    works.store(true, Ordering::SeqCst);
    app.settle_all().await;
    let by_status = app.count("select count(*) from deliveries where status = 'SENT'").await;
    assert!(by_status >= 60, "{by_status} of 66 sent: the first of each may have used their attempts up");
    app.done().await;
}

/// Faults E1: an account's 429 holds for all that is sent with it, and a partner's endpoint's for that endpoint.
#[tokio::test]
async fn retry_after_of_a_429_holds_for_its_account_or_endpoint() {
    let slow = "HTTP/1.1 429 Slow\r\nRetry-After: 600\r\nContent-Length: 0\r\n\r\n";
    let (vendor, endpoint) = (Server::saying(slow).await, Server::saying(slow).await);
    let flags = ["--webhook-allow-network=127.0.0.0/8", "--webhook-allow-http"];
    let app = App::with_accounts(&flags, vec![account("gateway", ("url", &vendor.url), &GATEWAY)]).await;
    app.post("/v1/webhooks", json!({"url": endpoint.url, "events": ["delivery.sent"]})).await.expect(201);
    app.post("/v1/messages", sms("first")).await.expect(202);
    app.post("/v1/messages", email("kim@example.com")).await.expect(202);
    app.work().await;
    assert_eq!((vendor.count(), endpoint.count()), (1, 1));
    for n in 0..5 {
        app.advance(60);
        app.post("/v1/messages", sms(&format!("no {n}"))).await.expect(202);
        app.post("/v1/messages", email("kim@example.com")).await.expect(202);
        app.work().await;
    }
    assert_eq!((vendor.count(), endpoint.count()), (1, 1), "nothing before the time");
    app.done().await;
}

/// Faults E13: Slack's limit is of what is posted there.
#[tokio::test]
async fn slack_length_limit_is_of_the_posted_text() {
    let app = App::new().await;
    let message = |subject: &str, body: String| {
        let channel = json!({"channel": "SLACK", "to": "ops", "subject": subject, "body": body});
        json!({"type": "TEST", "channels": [channel]})
    };
    // The subject stands between two asterisks, on a line of its own.
    app.post("/v1/messages", message("title", "x".repeat(40_000 - 8))).await.expect(202);
    app.post("/v1/messages", message("a&b", "x".repeat(40_000 - 10))).await.expect(202);
    for (body, length) in [(message("title", "x".repeat(40_000)), 40_008), (message("a&b", "&".repeat(8_000)), 40_010)]
    {
        let refused = app.post("/v1/messages", body).await.expect(422);
        let shown = format!("{length} characters");
        assert!(refused.text.contains("E006") && refused.text.contains(&shown), "{}", refused.text);
        assert!(refused.text.contains("40000 characters"), "{}", refused.text);
    }
    app.work().await;
    let posted = app.slack.records().into_iter().filter_map(|post| post.text);
    assert_eq!(posted.map(|text| text.chars().count()).collect::<Vec<_>>(), [40_000, 40_000]);
    app.done().await;
}
