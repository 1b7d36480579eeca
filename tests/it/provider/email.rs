//! E-mail from the API to an independent mail server (aiosmtpd), which refuses, closes and delays as servers do.

use chrono::{DateTime, TimeDelta, Utc};
use notihub::error::Result;
use notihub::flow::delivery::reap::Reaper;
use notihub::model::channel::Channel;
use notihub::model::lane::Lane;
use notihub::model::watermark::PlannedClaim;
use notihub::{flow, worker};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::app::{App, email, start_time};
use crate::support::message::delivery;
use crate::support::smtp::{Peer, header};
use crate::support::wait::until;

/// A hub that sends its e-mail to the peer's plain port.
async fn app(peer: &Peer, flags: &[&str]) -> App {
    let port = format!("--smtp-port={}", peer.port("plain"));
    App::with(&[&["--smtp-host=127.0.0.1", "--smtp-tls=none", port.as_str()], flags].concat()).await
}

async fn post(app: &App, to: &str) -> String {
    app.post("/v1/messages", email(to)).await.expect(202).id()
}

/// Status, and the outcome of each attempt.
async fn stands(app: &App, id: &str) -> (String, Vec<String>) {
    let report = delivery(app, id).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&report["status"]), report["attempts"].as_array().unwrap().iter().map(|a| text(&a["outcome"])).collect())
}

fn sent_at_once() -> (String, Vec<String>) {
    ("SENT".to_owned(), vec!["ACCEPTED".to_owned()])
}

/// A worker's pass, beside the test.
fn working(app: &App) -> JoinHandle<Result<u64>> {
    let hub = app.hub.clone();
    app.hub.shutdown.spawn(async move { worker::deliver::deliver_due(&hub).await })
}

async fn held(peer: &mut Peer, most: u64) {
    until("contents wait for their answer", async || peer.arrived()["held"] == most).await;
}

fn mails(peer: &mut Peer) -> Vec<Value> {
    peer.arrived()["mails"].as_array().unwrap().clone()
}

/// The end of the only lease.
async fn lease(app: &App) -> DateTime<Utc> {
    let sql = "select lease_until from deliveries where status = 'PROCESSING'";
    sqlx::query_scalar(sql).fetch_one(&app.db().await).await.unwrap()
}

async fn lease_extended(app: &App) {
    let first = lease(app).await;
    until("the lease is extended", async || lease(app).await > first).await;
}

/// Faults E2, F5, F2: a server closes a connection after some mails, with 421 or without a word, at any step before it
/// took the mail. The mail goes at once on a fresh connection, within its attempt, however many exhausted connections
/// are kept; and every connection that the hub closes is closed with QUIT.
#[tokio::test]
async fn mail_on_an_exhausted_connection_goes_on_a_fresh_one() {
    let mut peer = Peer::start();
    let app = app(&peer, &[]).await;
    // Mails that are answered together leave as many connections behind.
    for no in 0..8 {
        post(&app, &format!("held-{no}@example.com")).await;
    }
    let pass = working(&app);
    held(&mut peer, 8).await;
    peer.order(&json!({"release": true}));
    pass.await.unwrap().unwrap();
    let mut exhausted = 0;
    for verb in ["RSET", "MAIL", "RCPT", "DATA"] {
        for reply in [json!("421 4.7.0 enough for this connection"), Value::Null] {
            peer.order(&json!({"mails": 1, "verb": verb, "reply": reply}));
            let id = post(&app, "kim@example.com").await;
            app.work().await;
            assert_eq!(stands(&app, &id).await, sent_at_once(), "{verb} {reply}");
            exhausted += 1;
        }
    }
    app.done().await;
    let arrived = peer.arrived();
    assert_eq!(arrived["mails"].as_array().unwrap().len(), 8 + exhausted);
    let (opened, quits) = (arrived["opened"].as_u64().unwrap(), arrived["quits"].as_u64().unwrap());
    assert_eq!((opened, quits, &arrived["lost"]), (8 + exhausted as u64, 8, &json!(0)), "{arrived}");
}

/// Fault E2: a server takes two connections at a time and greets any more with 421. The mails wait for one of these two
/// instead of losing their attempts.
#[tokio::test]
async fn mail_server_with_few_connections_takes_all_at_the_first_attempt() {
    let mut peer = Peer::start();
    let app = app(&peer, &["--call-budget-ms=60000", "--lease-ms=120000"]).await;
    peer.order(&json!({"connections": 2}));
    let mut ids = Vec::new();
    for no in 0..6 {
        ids.push(post(&app, &format!("held-{no}@example.com")).await);
    }
    let pass = working(&app);
    held(&mut peer, 2).await;
    peer.order(&json!({"release": true}));
    pass.await.unwrap().unwrap();
    for id in ids {
        assert_eq!(stands(&app, &id).await, sent_at_once());
    }
    app.done().await;
}

/// Fault E3: greylisting and other refusals of one recipient for now, as servers word them, are one class, open no
/// breaker, and hold up no other recipient.
#[tokio::test]
async fn mail_recipient_refused_for_now_is_retried_and_holds_up_no_other() {
    let mut peer = Peer::start();
    let app = app(&peer, &[]).await;
    let wordings = [
        "450-4.2.0",
        "422-4.2.2",
        "451",
        "450",
        "452-4.5.3",
        "450-4.2.1",
        "451-4.7.1",
        "451-4.3.0",
        "452",
        "450-4.7.1",
        "451-4.4.1",
    ];
    let mut refused = Vec::new();
    for wording in wordings {
        refused.push((wording, post(&app, &format!("first-{wording}@example.com")).await));
    }
    app.work().await;
    let class = "select count(*) from deliveries where status = 'SCHEDULED' and reason = 'recipient_not_ready'";
    assert_eq!(app.count(class).await, wordings.len() as i64);
    let id = post(&app, "kim@example.com").await;
    app.work().await;
    assert_eq!(stands(&app, &id).await, sent_at_once(), "no breaker is in its way");
    // Beyond the first pause of any schedule.
    app.advance(4 * 3600);
    app.work().await;
    for (wording, id) in refused {
        let report = delivery(&app, &id).await;
        assert_eq!((&report["status"], report["attempts"].as_array().unwrap().len()), (&json!("SENT"), 2), "{wording}");
        let code = format!("smtp_{}", wording.split('-').next().unwrap());
        assert_eq!(report["attempts"][0]["errorCode"], code, "{wording}");
    }
    assert_eq!(mails(&mut peer).len(), wordings.len() + 1);
    app.done().await;
}

/// `--smtp-throttled-pause-s`: a server that refuses us for a while, not one recipient, is left alone by all mails, and
/// none of them loses an attempt; then all go.
#[tokio::test]
async fn mail_server_that_throttles_is_left_alone_for_the_pause() {
    let mut peer = Peer::start();
    let app = app(&peer, &["--smtp-throttled-pause-s=120"]).await;
    peer.order(&json!({"mails": 0, "verb": "MAIL", "reply": "450 4.7.1 too many mails from you"}));
    post(&app, "kim@example.com").await;
    app.work().await;
    peer.order(&json!({"mails": null}));
    let opened = peer.arrived()["opened"].clone();
    for no in 0..5 {
        post(&app, &format!("kim-{no}@example.com")).await;
        app.advance(20);
        app.work().await;
    }
    let arrived = peer.arrived();
    assert_eq!((&arrived["opened"], arrived["mails"].as_array().unwrap().len()), (&opened, 0), "{arrived}");
    app.settle_all().await;
    assert_eq!(mails(&mut peer).len(), 6);
    assert_eq!(app.count("select count(*) from deliveries where status = 'SENT'").await, 6);
    app.done().await;
}

const LATE: [&str; 4] =
    ["--connect-budget-ms=3000", "--call-budget-ms=3000", "--settle-budget-ms=10", "--lease-ms=9000"];

/// Fault E4: a server that looks into a mail for longer than the call budget, and for longer than the hub can be sure
/// of the lease, accepts one mail: its answer is waited for, and no other worker takes the delivery meanwhile.
#[tokio::test]
async fn mail_answered_after_the_call_budget_is_sent_once() {
    let mut peer = Peer::start();
    let app = app(&peer, &LATE).await;
    let id = post(&app, "held@example.com").await;
    let pass = working(&app);
    held(&mut peer, 1).await;
    let first = lease(&app).await;
    // Extended every three seconds: the fourth time is after the first lease.
    for _extension in 0..4 {
        lease_extended(&app).await;
    }
    assert!(lease(&app).await > first + TimeDelta::seconds(9), "the first lease is over");
    let taken_back = flow::delivery::reap::reap(&app.hub, &mut Reaper::default(), &[app.partner.shard]).await.unwrap();
    assert_eq!((taken_back, stands(&app, &id).await.0), (0, "PROCESSING".to_owned()));
    peer.order(&json!({"release": true}));
    pass.await.unwrap().unwrap();
    assert_eq!(stands(&app, &id).await, sent_at_once());
    assert_eq!(mails(&mut peer).len(), 1);
    app.done().await;
}

/// Fault E4: a worker that is lost while it waits extends nothing more: its delivery is taken back when the lease is
/// over, in doubt.
#[tokio::test]
async fn mail_whose_worker_is_lost_while_waiting_loses_its_lease() {
    let mut peer = Peer::start();
    let app = app(&peer, &LATE).await;
    let id = post(&app, "held@example.com").await;
    let lane = Lane::new(Channel::Email, Default::default(), false);
    let look = PlannedClaim { place: (app.partner.shard, lane), from_ready_at: DateTime::UNIX_EPOCH, rows: 1 };
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 1).await.unwrap();
    let ready = flow::delivery::load::load(&app.hub, claim).await;
    let hub = app.hub.clone();
    let call = app.hub.shutdown.spawn(async move { flow::delivery::call::call(&hub, ready.held).await });
    held(&mut peer, 1).await;
    lease_extended(&app).await;
    call.abort();
    let mut reaper = Reaper::default();
    until("it is taken back", async || {
        flow::delivery::reap::reap(&app.hub, &mut reaper, &[app.partner.shard]).await.unwrap() == 1
    })
    .await;
    let report = delivery(&app, &id).await;
    assert_eq!(
        (&report["attempts"][0]["outcome"], &report["attempts"][0]["errorCode"]),
        (&json!("UNKNOWN"), &json!("worker_lost"))
    );
    peer.order(&json!({"release": true}));
    app.settle_all().await;
    assert_eq!(stands(&app, &id).await.0, "SENT");
    app.done().await;
}

/// Fault E4: a process that stops waits for the answer until its grace is nearly over, and then says what it knows: the
/// mail may have been taken.
#[tokio::test]
async fn mail_awaiting_its_answer_at_a_stop_is_in_doubt() {
    let mut peer = Peer::start();
    let app = app(&peer, &["--settle-budget-ms=10", "--shutdown-grace-ms=200"]).await;
    post(&app, "held@example.com").await;
    let pass = working(&app);
    held(&mut peer, 1).await;
    app.hub.shutdown.stop();
    pass.await.unwrap().unwrap();
    let doubt = "select count(*) from deliveries d join attempt_history a using (shard, message_id, no)
        where d.status = 'SCHEDULED' and d.possibly_sent and a.outcome = 'UNKNOWN' and a.code = 'no_answer'";
    until("its outcome is written", async || app.count(doubt).await == 1).await;
    app.done().await;
}

/// Fault E10: a subject is shown as it was posted: several blanks, blanks at its ends, long words, and what looks like
/// an encoded word.
#[tokio::test]
async fn mail_subject_is_shown_as_posted() {
    let mut peer = Peer::start();
    let app = app(&peer, &[]).await;
    let subjects = [
        "주문  완료".to_owned(),
        "=?utf-8?B?7ZWc6riA?=".to_owned(),
        "[알림] =?utf-8?Q?=41?= 끝".to_owned(),
        "a =?us-ascii?q?b?= c".to_owned(),
        "a  b   c".to_owned(),
        "주문 완료 order 7 완료   끝".to_owned(),
        "x".repeat(200),
        "가".repeat(100),
        "plain words that are folded, and folded again, since they are many more than fit in a line ".repeat(2) + "end",
        "100% \"quoted\" <b> (c) ; : @ \\ ? = _".to_owned(),
    ];
    for subject in &subjects {
        let channel = json!({"channel": "EMAIL", "to": "kim@example.com", "subject": subject});
        app.post("/v1/messages", json!({"type": "TEST", "body": "x", "channels": [channel]})).await.expect(202);
    }
    app.work().await;
    let arrived = mails(&mut peer);
    let mut shown: Vec<&str> = arrived.iter().filter_map(|mail| header(mail, "Subject")).collect();
    let mut posted: Vec<&str> = subjects.iter().map(String::as_str).collect();
    shown.sort_unstable();
    posted.sort_unstable();
    assert_eq!(shown, posted);
    for mail in arrived {
        assert_eq!((&mail["defects"], &mail["broken_lines"]), (&json!([]), &json!(false)), "{mail}");
    }
    app.done().await;
}

/// Fault F2: a mail that waited for its time is as old as its sending.
#[tokio::test]
async fn mail_scheduled_is_dated_by_its_sending() {
    let mut peer = Peer::start();
    let app = app(&peer, &[]).await;
    let sending = start_time() + TimeDelta::days(3);
    let mut scheduled = email("kim@example.com");
    scheduled["scheduledAt"] = json!(sending.to_rfc3339());
    let id = app.post("/v1/messages", scheduled).await.expect(202).id();
    app.hub.clock.advance(TimeDelta::days(3));
    app.work().await;
    let [mail] = <[Value; 1]>::try_from(mails(&mut peer)).unwrap();
    assert_eq!(
        header(&mail, "Date").map(str::to_owned),
        Some(sending.format("%a, %d %b %Y %H:%M:%S +0000").to_string())
    );
    assert_eq!(header(&mail, "Message-ID"), Some(format!("<{id}-1@example.com>").as_str()));
    app.done().await;
}
