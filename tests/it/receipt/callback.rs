//! Receipts by callback: applied once, matched to their attempt, forged by no one.

use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use notihub::clock::Clock;
use notihub::config::ProviderSettings;
use notihub::flow;
use notihub::model::access::role::StaffRole;
use notihub::model::channel::Channel;
use notihub::model::lane::Lane;
use notihub::model::receipt::Receipt;
use notihub::model::retry::ErrorClass;
use notihub::model::watermark::PlannedClaim;
use notihub::provider::http::ClientSettings;
use notihub::provider::registry::build_account;
use notihub::provider::simulator::nhn;
use notihub::provider::simulator::vendor::SimulatorSetup;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};

use crate::support::app::{App, call_one, start_time};
use crate::support::message::post;
use crate::support::vendor::{Vendor, apply_receipt, call, over, reference, refused, send_receipts, statuses, unknown};

/// S0-6, S0-43, F18: an accepted delivery is SENT and waits; its receipt makes it DELIVERED, once, and the API shows
/// the receipt.
#[tokio::test]
async fn receipt_delivered_ends_delivered_once() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    let waits = app.message(&id).await["deliveries"][0].clone();
    assert_eq!((&waits["status"], &waits["receipt"]), (&json!("SENT"), &Value::Null));
    assert_eq!(waits["awaitingReceiptUntil"], "2027-03-05T01:30:00.000000Z");

    apply_receipt(&app, &id, 1, "ACCEPTED").await;
    assert_eq!(app.message(&id).await["deliveries"][0]["receipt"]["outcome"], "ACCEPTED");
    assert_eq!(statuses(&app, &id).await, ["SENT"]);
    let arrived = json!([{"key": "k", "ref": reference(&app, &id, 1, 1), "outcome": "DELIVERED", "code": "0"}]);
    for _ in 0..3 {
        send_receipts(&app, arrived.clone()).await;
        flow::receipt::apply(&app.hub).await.unwrap();
    }
    apply_receipt(&app, &id, 1, "FAILED").await;
    let delivery = app.message(&id).await["deliveries"][0].clone();
    assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("DELIVERED"), &Value::Null));
    assert_eq!((&delivery["receipt"]["code"], &delivery["awaitingReceiptUntil"]), (&json!("0"), &Value::Null));
    assert_eq!(app.count("select count(*) from receipts").await, 3, "each piece once");
    assert_eq!(app.count("select count(*) from receipts where effect = 'known'").await, 1);
    let story = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).text;
    for part in ["provider vendor reported DELIVERED", "known already", "delivery.delivered"] {
        assert!(story.contains(part), "{part} in {story}");
    }
    app.done().await;
}

/// A send from which nothing was to follow is recorded in its delivery's own row. A receipt that comes all the same
/// finds it, and the story reads on.
#[tokio::test]
async fn receipt_for_a_send_recorded_in_its_row_continues_its_story() {
    let app = App::with_provider(&[], Arc::new(Vendor::default())).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    let in_rows = "select count(*) from deliveries where sent_called_at is not null and sent_ref is not null";
    assert_eq!(app.count(in_rows).await, 1);
    assert_eq!(app.count("select (select count(*) from attempts) + (select count(*) from events)").await, 0);
    let story = async || app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).body["items"].clone();
    let sent = story().await;
    assert_eq!(app.message(&id).await["deliveries"][0]["status"], "SENT");

    apply_receipt(&app, &id, 1, "DELIVERED").await;
    assert_eq!(app.count(in_rows).await, 0);
    assert_eq!(app.message(&id).await["deliveries"][0]["status"], "DELIVERED");
    let delivered = story().await;
    let (sent, delivered) = (sent.as_array().unwrap(), delivered.as_array().unwrap());
    assert!(sent.iter().all(|entry| delivered.contains(entry)), "{sent:#?} {delivered:#?}");
    assert!(delivered.len() > sent.len(), "{delivered:#?}");
    app.done().await;
}

/// F18: a callback that does not prove to be the provider's is refused and leaves nothing; nor does one that cannot be
/// read.
#[tokio::test]
async fn receipt_callback_forged_or_unreadable_leaves_nothing() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    let body = json!([{"key": "k", "ref": reference(&app, &id, 1, 1), "outcome": "FAILED"}]).to_string();
    call(&app, "vendor", "guess", body.clone().into_bytes()).await.refused(401, "receipt_forged");
    call(&app, "vendor", "swordfish", b"{".to_vec()).await.refused(400, "receipt_unreadable");
    call(&app, "nobody", "swordfish", body.clone().into_bytes()).await.refused(404, "not_found");
    call(&app, "smtp", "swordfish", body.into_bytes()).await.refused(404, "not_found");
    call(&app, "vendor", "swordfish", vec![b' '; (8 << 20) + 1]).await.refused(413, "body_too_large");
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from receipts").await, 0);
    assert_eq!(statuses(&app, &id).await, ["SENT"]);
    app.done().await;
}

/// S0-38, S0-42: a receipt that comes before the answer waits for it, and one that comes before there is an attempt is
/// not lost; another provider's is never believed.
#[tokio::test]
async fn receipt_before_its_answer_is_kept() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    apply_receipt(&app, &id, 1, "ACCEPTED").await;
    assert_eq!(app.count("select count(*) from receipts where effect = 'unmatched'").await, 1);
    let lane = Lane::new(Channel::Sms, Default::default(), false);
    let look = PlannedClaim { place: (app.partner.shard, lane), from_ready_at: DateTime::UNIX_EPOCH, rows: 10 };
    let claim = flow::delivery::claim::claim(&app.hub, app.hub.next_id(), &[look], 10).await.unwrap();
    let mut ready = flow::delivery::load::load(&app.hub, claim).await;
    apply_receipt(&app, &id, 1, "DELIVERED").await;
    assert_eq!(statuses(&app, &id).await, ["PROCESSING"]);
    let settle = call_one(&app.hub, ready.held.pop().unwrap()).await;
    flow::delivery::settle::settle(&app.hub, vec![settle]).await.unwrap();
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["SENT"], "not yet looked at again");
    app.advance(60);
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["DELIVERED"]);
    assert_eq!(app.count("select count(*) from receipts where applied_at is null").await, 0);

    let other = Receipt {
        event_key: "k".into(),
        reference: reference(&app, &id, 1, 1).parse().ok(),
        provider_ref: None,
        outcome: notihub::model::receipt::ReceiptOutcome::Failed,
        class: None,
        code: None,
        detail: None,
        occurred_at: None,
    };
    flow::receipt::save(&app.hub, "another", vec![Ok(other)], b"").await.unwrap();
    flow::receipt::apply(&app.hub).await.unwrap();
    let kept = app.count("select count(*) from receipts where provider = 'another' and effect = 'unmatched'").await;
    assert_eq!(kept, 1);
    app.advance(3600);
    flow::receipt::measure(&app.hub).await.unwrap();
    assert_eq!(app.hub.metrics.receipts_unmatched.with_label_values::<&str>(&[]).get(), 1);
    app.done().await;
}

/// A small generator of numbers, the same in each run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// F18, I7, I11: a thousand deliveries of two attempts each, the first of unknown outcome; receipts come in an order of
/// their own for each, with repetitions, in several bodies, some before the attempt. All end alike, by the same
/// receipts, and are counted alike.
#[tokio::test]
async fn receipts_in_any_order_end_alike() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&["--fair-unfinished=1000000"], vendor.clone()).await;
    let to: Vec<String> = (0..1000).map(|n| format!("010-2000-{n:04}")).collect();
    vendor.answer(Channel::Sms, (0..1000).map(|_| unknown()));
    let id = post(&app, json!({"type": "T", "body": "b", "channels": [{"channel": "SMS", "to": to}]})).await;
    // For each third of the deliveries: the receipts of each attempt, and the status that they lead to.
    let sets: [(&[(i16, &str)], &str); 3] = [
        (&[(1, "ACCEPTED"), (1, "FAILED"), (2, "ACCEPTED"), (2, "EXPIRED"), (2, "DELIVERED")], "DELIVERED"),
        (&[(1, "EXPIRED"), (1, "FAILED"), (2, "ACCEPTED"), (2, "EXPIRED")], "FAILED"),
        (&[(1, "EXPIRED"), (2, "ACCEPTED"), (2, "EXPIRED")], "EXPIRED"),
    ];
    let mut dice = Dice(7);
    let mut rounds: [Vec<Value>; 5] = Default::default();
    for no in 1..=1000i16 {
        let (set, _) = sets[usize::try_from(no).unwrap() % 3];
        // All of them once, and some again.
        let mut order: Vec<usize> = (0..set.len()).collect();
        order.extend((0..3).map(|_| dice.roll(set.len())));
        for n in (1..order.len()).rev() {
            order.swap(n, dice.roll(n + 1));
        }
        let mut turns: Vec<usize> = order.iter().map(|_| dice.roll(rounds.len())).collect();
        turns.sort_unstable();
        for (n, turn) in order.into_iter().zip(turns) {
            let (attempt, outcome) = set[n];
            let (key, of) = (format!("{no}-{attempt}-{outcome}-{}", dice.roll(2)), reference(&app, &id, no, attempt));
            rounds[turn].push(json!({"key": key, "ref": of, "outcome": outcome}));
        }
    }
    send_receipts(&app, json!(rounds[0])).await;
    while flow::receipt::apply(&app.hub).await.unwrap() {}
    app.settle_all().await;
    assert_eq!(vendor.took().len(), 2000);
    for round in &rounds[1..] {
        send_receipts(&app, json!(round)).await;
        while flow::receipt::apply(&app.hub).await.unwrap() {}
        app.advance(30);
    }
    app.advance(3600);
    while flow::receipt::apply(&app.hub).await.unwrap() {}
    assert_eq!(app.count("select count(*) from receipts where applied_at is null").await, 0);
    let all = app.message(&id).await["deliveries"].as_array().unwrap().clone();
    for delivery in &all {
        let no: usize = delivery["deliveryId"].as_str().unwrap().rsplit('-').next().unwrap().parse().unwrap();
        assert_eq!(delivery["status"], sets[no % 3].1, "{delivery}");
    }
    app.done().await;
}

/// Bad inputs: ten thousand results in one body are kept in one go; one that cannot be read is kept as such, once.
#[tokio::test]
async fn receipt_callback_of_ten_thousand_is_stored_at_once() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    let of = reference(&app, &id, 1, 1);
    let mut items: Vec<Value> =
        (0..9_999).map(|n| json!({"key": format!("k{n}"), "ref": of, "outcome": "ACCEPTED"})).collect();
    items.insert(5_000, json!({"key": "strange", "outcome": "LOST"}));
    for _ in 0..2 {
        send_receipts(&app, json!(items)).await;
    }
    assert_eq!(app.count("select count(*) from receipts").await, 10_000);
    assert_eq!(app.count("select count(*) from receipts where effect = 'unreadable'").await, 1);
    while flow::receipt::apply(&app.hub).await.unwrap() {}
    assert_eq!(app.count("select count(*) from receipts where effect = 'recorded'").await, 1);
    assert_eq!(app.count("select count(*) from receipts where effect = 'known'").await, 9_998);
    // A key as long as a vendor likes, with what no database takes, is a key all the same.
    let odd = json!([{"key": format!("\0{}", "x".repeat(5000)), "outcome": "ACCEPTED", "detail": "a\0b"}]);
    send_receipts(&app, odd.clone()).await;
    send_receipts(&app, odd).await;
    assert_eq!(app.count("select count(*) from receipts").await, 10_001);
    app.done().await;
}

/// A delivery that was accepted and had no receipt is in doubt when it is redriven: never FAILED then. And a delivery
/// that waits because of a redrive is not ended by earlier evidence.
#[tokio::test]
async fn redriven_delivery_without_a_receipt_keeps_its_doubt() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    let operator = app.staff(StaffRole::Operator).await;
    let redrive = async |id: &str| {
        app.ask(&operator, "POST", &format!("/v1/deliveries/{id}-1/redrive"), None).await.expect(200);
        app.work().await;
        let delivery = app.message(id).await["deliveries"][0].clone();
        assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("SCHEDULED"), &json!("redriven")));
        app.settle_all().await;
    };
    let silent = post(&app, over("SMS")).await;
    app.work().await;
    app.advance(3601);
    flow::receipt::overdue(&app.hub, &[app.partner.shard]).await.unwrap();
    assert_eq!(statuses(&app, &silent).await, ["UNDETERMINED"]);
    vendor.answer(Channel::Sms, [refused(ErrorClass::Unreachable), refused(ErrorClass::Content)]);
    redrive(&silent).await;
    assert_eq!(statuses(&app, &silent).await, ["UNDETERMINED"]);

    let failed = post(&app, over("SMS")).await;
    app.work().await;
    apply_receipt(&app, &failed, 1, "FAILED").await;
    vendor.answer(Channel::Sms, [unknown()]);
    redrive(&failed).await;
    assert_eq!(statuses(&app, &failed).await, ["SENT"]);
    app.done().await;
}

/// A failed lookup is no copy: the last receipt of the only copy is applied. And where a lookup comes first, an
/// UNDETERMINED delivery can be redriven.
#[tokio::test]
async fn receipt_after_a_failed_lookup_is_applied() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&["--on-unknown=SMS=lookup"], vendor.clone()).await;
    vendor.answer(Channel::Sms, [unknown()]);
    let id = post(&app, over("SMS")).await;
    app.settle_all().await;
    assert_eq!((statuses(&app, &id).await, vendor.took().len()), (vec!["UNDETERMINED".to_owned()], 1));
    let operator = app.staff(StaffRole::Operator).await;
    app.ask(&operator, "POST", &format!("/v1/deliveries/{id}-1/redrive"), None).await.expect(200);
    app.settle_all().await;
    assert_eq!((statuses(&app, &id).await, vendor.took().len()), (vec!["UNDETERMINED".to_owned()], 0));
    apply_receipt(&app, &id, 1, "FAILED").await;
    assert_eq!(statuses(&app, &id).await, ["FAILED"]);
    app.done().await;
}

/// A receipt ends a retry that waits because the outcome was unknown.
#[tokio::test]
async fn receipt_ends_the_waiting_retry() {
    let vendor = Vendor::with_receipts();
    let app = App::with_provider(&[], vendor.clone()).await;
    vendor.answer(Channel::Sms, [unknown(), unknown(), unknown(), unknown()]);
    let mut ends = Vec::new();
    for outcome in ["ACCEPTED", "FAILED", "DELIVERED"] {
        let id = post(&app, over("SMS")).await;
        app.work().await;
        assert_eq!(statuses(&app, &id).await, ["SCHEDULED"]);
        apply_receipt(&app, &id, 1, outcome).await;
        ends.push(statuses(&app, &id).await.remove(0));
        if outcome == "ACCEPTED" {
            assert!(app.message(&id).await["deliveries"][0]["awaitingReceiptUntil"].is_string());
        }
    }
    assert_eq!(ends, ["SENT", "FAILED", "DELIVERED"]);
    app.settle_all().await;
    assert_eq!(vendor.took().len(), 3, "no second copy");
    app.done().await;
}

/// RCS of NHN Cloud repeats no reference of ours, and has a list only: a result is matched by the vendor's id.
#[tokio::test]
async fn receipt_without_our_reference_is_matched_by_the_vendors_id() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let (clock, shutdown) = (Clock::manual(start_time()), Shutdown::new());
    let at = nhn::start(SimulatorSetup { rate: 0.0, clock: clock.clone(), ..SimulatorSetup::default() }, &shutdown)
        .await
        .unwrap();
    let options = [
        ("base-url", at.url()),
        ("app-key", nhn::APP_KEY.to_owned()),
        ("secret-key", nhn::SECRET_KEY.to_owned()),
        ("brand-id", nhn::BRAND_ID.to_owned()),
        ("chatbot-id", "0212345678".to_owned()),
    ];
    let options = options.map(|(name, value)| (name.to_owned(), value)).into();
    let settings = ProviderSettings { name: "rcs".into(), adapter: "nhn-rcs".into(), options };
    let common = ClientSettings::with_budget(Duration::from_secs(5));
    let app = App::with_accounts(&[], vec![build_account(&settings, &common).unwrap()]).await;
    let id = post(&app, over("RCS")).await;
    app.work().await;
    assert_eq!(statuses(&app, &id).await, ["SENT"]);
    clock.advance(chrono::TimeDelta::minutes(10));
    app.advance(600);
    at.send_all_receipts().await;
    let account = app.hub.providers.get("rcs").unwrap().clone();
    while flow::receipt::poll(&app.hub, &account).await.unwrap() {}
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["DELIVERED"]);
    let story = app.get(&format!("/v1/messages/{id}/timeline")).await.expect(200).text;
    assert!(story.contains("provider rcs reported DELIVERED"), "{story}");
    app.advance(91 * 86_400);
    flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from provider_refs").await, 0);
    app.done().await;
    shutdown.stop();
}

/// Bad inputs: a callback for an unknown provider is refused before a byte of its body is read; more results than a
/// body may hold are refused with the remedy; one time beyond all calendars costs no other result.
#[tokio::test]
async fn receipt_callback_of_unknown_provider_or_size_is_refused() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let address = app.uri("").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut caller = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!("POST /v1/receipts/nobody HTTP/1.1\r\nHost: {address}\r\nContent-Length: 8000000\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    caller.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 404");

    let many: Vec<Value> = (0..20_001).map(|n| json!({"key": format!("k{n}"), "outcome": "ACCEPTED"})).collect();
    let answer = call(&app, "vendor", "swordfish", json!(many).to_string().into_bytes()).await;
    assert!(answer.refused(422, "too_many_items").text.contains("in several requests"));
    assert_eq!(app.count("select count(*) from receipts").await, 0);

    let id = post(&app, over("SMS")).await;
    app.work().await;
    let of = reference(&app, &id, 1, 1);
    send_receipts(
        &app,
        json!([{"key": "a", "ref": of, "outcome": "DELIVERED"},
            {"key": "b", "ref": of, "outcome": "ACCEPTED", "at": "-200000-01-01T00:00:00Z"}]),
    )
    .await;
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["DELIVERED"]);
    app.done().await;
}

/// A receipt that matches no attempt is no longer looked at after a day; repeated with our reference, it is applied.
#[tokio::test]
async fn receipt_that_matches_nothing_is_dropped_after_a_day() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    send_receipts(&app, json!([{"key": "k", "id": "v-1", "outcome": "DELIVERED"}])).await;
    flow::receipt::apply(&app.hub).await.unwrap();
    app.advance(86_400);
    flow::receipt::apply(&app.hub).await.unwrap();
    app.advance(86_400);
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from receipts where try_at > '2100-01-01'").await, 1);
    send_receipts(&app, json!([{"key": "k", "ref": reference(&app, &id, 1, 1), "outcome": "DELIVERED"}])).await;
    flow::receipt::apply(&app.hub).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["DELIVERED"]);
    app.done().await;
}
