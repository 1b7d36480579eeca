//! Fallback: another channel takes the place of what does not arrive, once, if the message asks for it.

use notihub::flow;
use notihub::flow::channel_down::ReadMarks;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::retry::ErrorClass;
use serde_json::{Value, json};

use crate::support::app::App;
use crate::support::message::post;
use crate::support::vendor::{Vendor, apply_receipt, over, refused, statuses, unknown};

const KIM: &str = "010-1234-5678";

/// Kakao, and these behind it.
fn kakao(fallback: Value) -> Value {
    json!({"type": "TEST", "body": "hello",
        "channels": [{"channel": "KAKAO_ALIMTALK", "to": KIM, "templateCode": "T1", "fallback": fallback}]})
}

fn channels(vendor: &Vendor) -> Vec<&'static str> {
    vendor.took().into_iter().map(|(channel, ..)| channel.as_str()).collect()
}

/// S1-17, S1-18, S1-19, S1-20: Kakao fails three times, each logged; then by SMS, logged; the caller sees it completed,
/// by which way, and that is logged, too.
#[tokio::test]
async fn fallback_after_three_failures_is_sent_and_logged() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let log = crate::support::log::capture();
    vendor.answer(Channel::KakaoAlimtalk, (0..3).map(|_| refused(ErrorClass::Unreachable)));
    let id = post(&app, kakao(json!([{"channel": "SMS", "body": "by SMS"}]))).await;
    app.settle_all().await;
    let took = vendor.took();
    assert_eq!(
        took.iter().map(|t| t.0.as_str()).collect::<Vec<_>>(),
        ["KAKAO_ALIMTALK", "KAKAO_ALIMTALK", "KAKAO_ALIMTALK", "SMS"]
    );
    assert_eq!((took[3].1.as_str(), took[3].2.as_str()), ("+821012345678", "by SMS"), "to the same person");

    let message = app.message(&id).await;
    assert_eq!(message["status"], "COMPLETED");
    let [first, second] = [&message["deliveries"][0], &message["deliveries"][1]];
    assert_eq!(
        (&first["status"], &first["attempt"], &first["fallbackOf"]),
        (&json!("FAILED"), &json!(3), &Value::Null)
    );
    assert_eq!((&second["status"], &second["channel"]), (&json!("SENT"), &json!("SMS")));
    assert_eq!((&second["fallbackOf"], &second["to"]), (&json!(format!("{id}-1")), &json!(KIM)));
    let story = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).text;
    for part in ["fallback to SMS", "fallback success", "retry"] {
        assert!(story.contains(part), "{part} in {story}");
    }
    let logged = log.text();
    for part in ["retry attempt 1", "retry attempt 2", "fallback to SMS", "status=SENT"] {
        assert!(logged.contains(part), "{part} in {logged}");
    }
    assert!(!logged.contains("1012345678") && !logged.contains("by SMS"), "nothing personal: {logged}");
    app.done().await;
}

/// C1, S0-8: without a fallback in the request nothing is sent another way; an installation may set one for all.
#[tokio::test]
async fn fallback_not_asked_for_is_off() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    vendor.answer(Channel::KakaoAlimtalk, [refused(ErrorClass::NotReachable)]);
    let id = post(&app, over("KAKAO_ALIMTALK")).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &id).await, ["FAILED"]);
    app.done().await;

    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&["--fallback=KAKAO_ALIMTALK=SMS"], vendor.clone()).await;
    vendor.answer(Channel::KakaoAlimtalk, (0..3).map(|_| refused(ErrorClass::NotReachable)));
    let body = |body: String, fallback: Value| {
        json!({"type": "T", "body": body,
        "channels": [{"channel": "KAKAO_ALIMTALK", "to": KIM, "fallback": fallback}]})
    };
    let by_rule = post(&app, over("KAKAO_ALIMTALK")).await;
    let none = post(&app, body("b".into(), json!([]))).await;
    let long = post(&app, body("b".repeat(91), Value::Null)).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &by_rule).await, ["FAILED", "SENT"]);
    assert_eq!(statuses(&app, &none).await, ["FAILED"]);
    assert_eq!(statuses(&app, &long).await, ["FAILED"], "it does not fit");
    app.done().await;
}

/// Each refusal triggers a fallback or not: not every one; not an unknown outcome, unless asked for; a failed receipt,
/// and a missing one, if asked for.
#[tokio::test]
async fn fallback_trigger_follows_its_rule() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let sms = json!([{"channel": "SMS"}]);
    let answers = |outcome: fn() -> notihub::model::delivery::Outcome, n: usize| {
        vendor.answer(Channel::KakaoAlimtalk, (0..n).map(|_| outcome()));
    };
    answers(|| refused(ErrorClass::OptedOut), 1);
    let opted_out = post(&app, kakao(sms.clone())).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &opted_out).await, ["FAILED"], "who said no is not asked by another way");

    answers(unknown, 3);
    let held = post(&app, kakao(sms.clone())).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &held).await, ["UNDETERMINED"]);
    answers(unknown, 1);
    let again = post(&app, kakao(json!([{"channel": "SMS", "onUnknown": true, "afterAttempts": 1}]))).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &again).await, ["UNDETERMINED", "SENT"]);

    let failed = post(&app, kakao(sms.clone())).await;
    app.work().await;
    apply_receipt(&app, &failed, 1, "FAILED").await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &failed).await, ["FAILED", "SENT"]);

    let silent = post(&app, kakao(json!([{"channel": "SMS", "noReceiptSeconds": 60}]))).await;
    app.work().await;
    app.advance(61);
    flow::receipt::overdue(&app.hub, &[app.partner.shard]).await.unwrap();
    app.settle_all().await;
    assert_eq!(statuses(&app, &silent).await, ["SENT", "SENT"]);
    let waits = app.message(&silent).await["deliveries"][0]["awaitingReceiptUntil"].clone();
    assert!(waits.is_string(), "its receipt is waited for all the same");
    let story = app.get(&format!("/v1/messages/{silent}/timeline")).await.expect(200).text;
    assert!(story.contains("gets it twice"), "{story}");

    let down = post(&app, kakao(sms)).await;
    let left = leave(&app, &mut ReadMarks::default()).await;
    assert!(!left, "that was all");
    app.settle_all().await;
    assert_eq!(statuses(&app, &down).await, ["FAILED", "SENT"]);
    let first = app.message(&down).await["deliveries"][0].clone();
    assert_eq!((&first["reason"], &first["attempt"]), (&json!("channel_down"), &json!(0)));
    app.done().await;
}

/// Also what is SENT by the word of a receipt is waited for as long as its message says.
#[tokio::test]
async fn fallback_after_an_accepted_receipt_waits_as_long_as_set() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    vendor.answer(Channel::KakaoAlimtalk, [unknown()]);
    let id = post(&app, kakao(json!([{"channel": "SMS", "noReceiptSeconds": 60}]))).await;
    app.work().await;
    apply_receipt(&app, &id, 1, "ACCEPTED").await;
    assert_eq!(statuses(&app, &id).await, ["SENT"]);
    app.advance(61);
    flow::receipt::overdue(&app.hub, &[app.partner.shard]).await.unwrap();
    app.settle_all().await;
    assert_eq!(statuses(&app, &id).await, ["SENT", "SENT"]);
    app.done().await;
}

async fn leave(app: &App, leaver: &mut ReadMarks) -> bool {
    flow::channel_down::fall_back(&app.hub, leaver, &[app.partner.shard], &[Channel::KakaoAlimtalk]).await.unwrap()
}

/// Review F15: deliveries that cannot be replaced do not hide those after them, however many they are.
#[tokio::test]
async fn fallback_of_a_channel_that_is_down_passes_over_rows_that_cannot_be_replaced() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let to: Vec<String> = (0..1100).map(|n| format!("010-{:04}-{:04}", 1000 + n / 10_000, n)).collect();
    let kakao = |to: Value| {
        let fallback = json!([{"channel": "SMS"}]);
        json!({"type": "TEST", "body": "It works.", "channels": [{"channel": "KAKAO_ALIMTALK", "to": to,
            "fallback": fallback}]})
    };
    let blind = post(&app, kakao(json!(to))).await;
    let readable = post(&app, kakao(json!("010-1234-5678"))).await;
    let of = |id: &str| id.parse::<notihub::id::Tsid>().unwrap().0;
    let db = app.db().await;
    let detail: Value = sqlx::query_scalar("select detail from messages where message_id = $1")
        .bind(of(&blind))
        .fetch_one(&db)
        .await
        .unwrap();
    // As content that is sealed under a key that this process lacks.
    let write = "update messages set detail = $2 where message_id = $1";
    sqlx::query(write).bind(of(&blind)).bind(json!({"contents": 7})).execute(&db).await.unwrap();
    let mut leaver = ReadMarks::default();
    while leave(&app, &mut leaver).await {}
    app.settle_all().await;
    assert_eq!(statuses(&app, &readable).await, ["FAILED", "SENT"]);
    sqlx::query(write).bind(of(&blind)).bind(detail).execute(&db).await.unwrap();
    app.settle_all().await;
    app.done().await;
}

/// A delivery of a channel that is down waits on where it has no fallback, and where it is canceled.
#[tokio::test]
async fn delivery_without_a_possible_fallback_waits_for_its_channel() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let (blind, unwanted) =
        (post(&app, kakao(json!([{"channel": "SMS"}]))).await, post(&app, kakao(json!([{"channel": "SMS"}]))).await);
    let db = app.db().await;
    let of = |id: &str| id.parse::<notihub::id::Tsid>().unwrap().0;
    // As it is to a worker that lacks its key.
    let sealed = sqlx::query_scalar::<_, Value>("select detail from messages where message_id = $1").bind(of(&blind));
    let detail = sealed.fetch_one(&db).await.unwrap();
    let write = "update messages set detail = $2 where message_id = $1";
    sqlx::query(write).bind(of(&blind)).bind(json!({"contents": 7})).execute(&db).await.unwrap();
    let cancel = "update deliveries set cancel_requested = $2 where message_id = $1";
    sqlx::query(cancel).bind(of(&unwanted)).bind(true).execute(&db).await.unwrap();
    assert!(!leave(&app, &mut ReadMarks::default()).await);
    assert_eq!(app.count("select count(*) from deliveries where status = 'PENDING'").await, 2);
    sqlx::query(write).bind(of(&blind)).bind(detail).execute(&db).await.unwrap();
    sqlx::query(cancel).bind(of(&unwanted)).bind(false).execute(&db).await.unwrap();
    leave(&app, &mut ReadMarks::default()).await;
    app.settle_all().await;
    assert_eq!(statuses(&app, &blind).await, ["FAILED", "SENT"]);
    app.done().await;
}

/// A late receipt of the first is kept and counts once: the message completes once, and stays as it is.
#[tokio::test]
async fn late_receipt_of_a_replaced_delivery_counts_once() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let url = "https://hooks.example.com/x";
    app.post("/v1/webhooks", json!({"url": url, "events": ["message.completed", "delivery.fallback"]}))
        .await
        .expect(201);
    let id = post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    app.work().await;
    apply_receipt(&app, &id, 1, "FAILED").await;
    assert_eq!(app.message(&id).await["status"], "PROCESSING");
    let completed = "select count(*) from event_history where event = 'message.completed'";
    assert_eq!(app.count(completed).await, 1, "it was through when it was sent");
    app.work().await;
    while flow::publish::publish_completions(&app.hub).await.unwrap() {}
    assert_eq!((app.message(&id).await["status"].as_str(), app.count(completed).await), (Some("COMPLETED"), 1));
    apply_receipt(&app, &id, 1, "DELIVERED").await;
    apply_receipt(&app, &id, 2, "DELIVERED").await;
    while flow::publish::publish_completions(&app.hub).await.unwrap() {}
    assert_eq!(statuses(&app, &id).await, ["DELIVERED", "DELIVERED"]);
    assert_eq!((app.message(&id).await["status"].as_str(), app.count(completed).await), (Some("COMPLETED"), 1));
    let asked = "select count(*) from messages where kind = 'delivery.fallback' \
        and detail #>> '{contents,0,event,more,fallbackChannel}' = 'SMS'";
    assert_eq!(app.count(asked).await, 1, "endpoints can ask for it");
    app.done().await;
}

/// A replay repeats the events of a fallback, and of receipts, as they were.
#[tokio::test]
async fn replay_of_fallback_events_repeats_them() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let endpoint = crate::delivery::redrive::endpoint(&app, &app.partner, None).await;
    let begin = app.hub.clock.now();
    let failed = post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    app.work().await;
    apply_receipt(&app, &failed, 1, "FAILED").await;
    vendor.answer(Channel::KakaoAlimtalk, [refused(ErrorClass::NotReachable)]);
    post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    post(&app, kakao(json!([{"channel": "SMS", "noReceiptSeconds": 60}]))).await;
    app.work().await;
    app.advance(61);
    flow::receipt::overdue(&app.hub, &[app.partner.shard]).await.unwrap();
    app.work().await;
    apply_receipt(&app, &failed, 2, "DELIVERED").await;
    let heard = "select count(*) from messages where kind like 'delivery.%'";
    let before = app.count(heard).await;
    app.advance(1);
    let since = json!({"since": begin.to_rfc3339()});
    app.post(&format!("/v1/webhooks/{endpoint}/replay"), since).await.expect(202);
    app.advance(1);
    while flow::redrive::step(&app.hub).await.unwrap() {}
    assert_eq!(app.count(heard).await, before * 2);
    assert_eq!(app.count("select count(*) from messages where kind = 'delivery.fallback'").await, 6);
    let differs = "select count(*) from (
        select about, e -> 'no', e -> 'seq' from messages, lateral (select detail #> '{contents,0,event}' as e) x
        where kind like 'delivery.%' group by 1, 2, 3 having count(distinct e - 'occurred_at') > 1) y";
    assert_eq!(app.count(differs).await, 0);
    app.done().await;
}

/// Two channels stand by, the one for the other; each delivery has its own number, also of the second recipient.
#[tokio::test]
async fn fallback_of_two_recipients_has_its_own_numbers() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    vendor.answer(Channel::KakaoAlimtalk, (0..2).map(|_| refused(ErrorClass::NotReachable)));
    vendor.answer(Channel::Rcs, (0..2).map(|_| refused(ErrorClass::Throttled)));
    let list = json!([{"channel": "RCS"}, {"channel": "SMS", "afterAttempts": 1}]);
    let mut body = kakao(list);
    body["channels"][0]["to"] = json!([KIM, "010-1234-5679"]);
    let id = post(&app, body).await;
    app.settle_all().await;
    assert_eq!(channels(&vendor), ["KAKAO_ALIMTALK", "KAKAO_ALIMTALK", "RCS", "RCS", "SMS", "SMS"]);
    let message = app.message(&id).await;
    let all: Vec<_> = message["deliveries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|d| (d["channel"].as_str(), d["fallbackOf"].as_str(), d["to"].as_str()))
        .collect();
    let (one, two) = (format!("{id}-1"), format!("{id}-2"));
    let (kim, lee) = (Some(KIM), Some("010-1234-5679"));
    assert_eq!(
        all,
        [
            (Some("KAKAO_ALIMTALK"), None, kim),
            (Some("KAKAO_ALIMTALK"), None, lee),
            (Some("RCS"), Some(one.as_str()), kim),
            (Some("RCS"), Some(two.as_str()), lee),
            (Some("SMS"), Some(one.as_str()), kim),
            (Some("SMS"), Some(two.as_str()), lee),
        ]
    );
    assert_eq!(message["status"], "COMPLETED");
    app.done().await;
}

/// Taken back, it is not sent another way; and whose place was taken is not redriven.
#[tokio::test]
async fn delivery_canceled_or_replaced_is_not_sent_or_redriven() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let cancel = async |id: &str| app.post(&format!("/v1/messages/{id}/cancel"), Value::Null).await.expect(200);
    let early = post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    cancel(&early).await;
    assert_eq!(app.count("select count(*) from deliveries where has_fallback").await, 0);
    vendor.answer(Channel::KakaoAlimtalk, [refused(ErrorClass::NotReachable)]);
    let late = post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    let lane = notihub::model::lane::Lane::new(Channel::KakaoAlimtalk, Default::default(), false);
    let place = (app.partner.shard, lane);
    let look = notihub::model::watermark::PlannedClaim { place, from_ready_at: chrono::DateTime::UNIX_EPOCH, rows: 10 };
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 10).await.unwrap();
    let mut ready = flow::delivery::load::load(&app.hub, claim).await;
    let settle = crate::support::app::call_one(&app.hub, ready.held.pop().unwrap()).await;
    flow::delivery::settle::settle(&app.hub, std::slice::from_ref(&settle)).await.unwrap();
    assert_eq!(statuses(&app, &late).await, ["FAILED", "PENDING"]);
    // An answer that is written twice makes nothing twice.
    flow::delivery::settle::settle(&app.hub, &[settle]).await.unwrap();
    assert_eq!(statuses(&app, &late).await, ["FAILED", "PENDING"]);
    cancel(&late).await;
    assert_eq!(statuses(&app, &late).await, ["FAILED", "CANCELED"]);
    let operator = app.staff(StaffRole::Operator).await;
    let redrive = app.ask(&operator, "POST", &format!("/v1/deliveries/{late}-1/redrive"), None).await;
    redrive.refused(422, "replaced");
    app.settle_all().await;
    assert_eq!(channels(&vendor), ["KAKAO_ALIMTALK"]);
    app.done().await;
}

/// A fallback is read as a channel of its own, each fault with its place; a dry run shows it, and it is part of the
/// message.
#[tokio::test]
async fn fallback_in_a_body_is_read_as_a_channel() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    for (fallback, reason, pointer) in [
        (json!([{"channel": "KAKAO_ALIMTALK"}]), "fallback_same_channel", "0/channel"),
        (json!([{"channel": "SMS"}, {"channel": "SMS"}]), "fallback_same_channel", "1/channel"),
        (json!([{"channel": "SMS"}, {"channel": "LMS"}, {"channel": "RCS"}]), "too_many_items", ""),
        (json!([{"channel": "SMS", "body": "b".repeat(91)}]), "content_too_long", "0/body"),
        (json!([{"channel": "SMS", "afterAttempts": 0}]), "min", "0/afterAttempts"),
        (json!([{"channel": "SMS", "noReceiptSeconds": 9}]), "min", "0/noReceiptSeconds"),
        (json!([{"channel": "SMS", "fallback": []}]), "unknown_field", "0/fallback"),
        (json!([{"channel": "EMAIL", "subject": "s"}]), "required", "0/to"),
        (json!([{"channel": "SMS", "to": "x"}]), "phone_invalid", "0/to"),
        (json!("SMS"), "type_mismatch", ""),
    ] {
        let refused = app.post("/v1/messages", kakao(fallback.clone())).await;
        assert!(refused.status == 422 || refused.status == 400, "{fallback}: {}", refused.text);
        let pointer = format!("/channels/0/fallback/{pointer}");
        let fault = &refused.body["errors"][0];
        assert_eq!(
            (fault["reason"].as_str(), fault["pointer"].as_str()),
            (Some(reason), Some(pointer.trim_end_matches('/'))),
            "{fallback}"
        );
    }
    let asked = kakao(json!([{"channel": "EMAIL", "to": "kim@example.com", "subject": "s", "noReceiptSeconds": 60}]));
    let dry = app.post("/v1/messages?dryRun=true", asked.clone()).await.expect(200).body;
    let fallback =
        json!({"channel": "EMAIL", "content": 0, "to": "kim@example.com", "step": 1, "noReceiptSeconds": 60});
    assert_eq!(dry["contents"][1]["fallback"], fallback);
    let with_key = |mut body: Value| {
        body["clientMsgId"] = json!("k");
        body
    };
    app.post("/v1/messages", with_key(asked.clone())).await.expect(202);
    app.post("/v1/messages", with_key(asked.clone())).await.expect(200);
    app.post("/v1/messages", with_key(kakao(json!([])))).await.refused(409, "idempotency_key_reused");
    let batch = app.post("/v1/messages/batch", json!({"messages": [asked]})).await.expect(202).body;
    assert_eq!(batch["messages"][0]["deliveries"].as_array().unwrap().len(), 1);
    app.settle_all().await;
    app.done().await;
}

/// Taken back once it was sent, nothing takes its place, whatever comes of it.
#[tokio::test]
async fn sent_delivery_that_is_canceled_has_no_fallback() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let early = post(&app, kakao(json!([{"channel": "SMS", "noReceiptSeconds": 60}]))).await;
    let fails = post(&app, kakao(json!([{"channel": "SMS"}]))).await;
    app.work().await;
    for id in [&early, &fails] {
        app.post(&format!("/v1/messages/{id}/cancel"), Value::Null).await.expect(200);
    }
    apply_receipt(&app, &fails, 1, "FAILED").await;
    app.advance(61);
    flow::receipt::overdue(&app.hub, &[app.partner.shard]).await.unwrap();
    assert_eq!(statuses(&app, &early).await, ["SENT"]);
    assert_eq!(statuses(&app, &fails).await, ["FAILED"]);
    app.done().await;
}

/// A fallback on a receipt that the channel does not have is refused.
#[tokio::test]
async fn fallback_on_a_receipt_the_channel_has_not_is_refused() {
    let app = App::with_provider(&[], std::sync::Arc::new(Vendor::default())).await;
    let refused = app.post("/v1/messages", kakao(json!([{"channel": "SMS", "noReceiptSeconds": 60}]))).await;
    let refused = refused.refused(422, "no_receipts");
    assert_eq!(refused.body["errors"][0]["pointer"], "/channels/0/fallback/0/noReceiptSeconds");
    app.post("/v1/messages", kakao(json!([{"channel": "SMS"}]))).await.expect(202);
    app.done().await;
}

/// S0-8: the installation's fallback neither makes another request of one, nor refuses one that would be accepted
/// without it.
#[tokio::test]
async fn fallback_rule_of_the_installation_changes_no_request() {
    let body = |n: usize| {
        let to: Vec<String> = (0..n).map(|n| format!("010-2000-{n:04}")).collect();
        json!({"type": "T", "body": "b", "clientMsgId": "k1", "channels": [
            {"channel": "KAKAO_ALIMTALK", "to": to}, {"channel": "SMS", "to": "010-1234-5678", "body": "c"},
            {"channel": "KAKAO_ALIMTALK", "to": "010-1234-5678", "body": "d", "fallback": [{"channel": "LMS"}]}]})
    };
    let mut prints = Vec::new();
    for flags in [&[][..], &["--fallback=KAKAO_ALIMTALK=SMS"]] {
        let app = App::with_provider(flags, Vendor::with_receipts()).await;
        app.post("/v1/messages", body(2)).await.expect(202);
        let db = app.db().await;
        prints.push(
            sqlx::query_scalar::<_, Vec<u8>>("select fingerprint from idempotency").fetch_one(&db).await.unwrap(),
        );
        let mut many = body(6_000);
        many["clientMsgId"] = json!("k2");
        app.post("/v1/messages", many).await.expect(202);
        let ruled = app.count("select count(*) from deliveries where has_fallback").await;
        assert_eq!(ruled, if flags.is_empty() { 2 } else { 4 }, "where there is room for it");
        app.done().await;
    }
    assert_eq!(prints[0], prints[1]);
}
