//! Receipts that do not come: deliveries end UNDETERMINED in time, and receipts go with their messages.

use std::sync::Arc;
use std::time::Duration;

use notihub::flow;
use serde_json::json;

use crate::support::app::App;
use crate::support::message::post;
use crate::support::vendor::{Vendor, apply_receipt, over, reference, send_receipts, statuses};

/// L1: a delivery without a receipt in time is UNDETERMINED; a later ACCEPTED changes nothing, a later ending does.
#[tokio::test]
async fn receipt_missing_in_time_ends_undetermined() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let ids = [post(&app, over("SMS")).await, post(&app, over("LMS")).await, post(&app, over("RCS")).await];
    app.work().await;
    let shards = [app.partner.shard];
    flow::receipt::overdue(&app.hub, &shards).await.unwrap();
    assert_eq!(statuses(&app, &ids[0]).await, ["SENT"]);
    app.advance(3601);
    flow::receipt::overdue(&app.hub, &shards).await.unwrap();
    for id in &ids {
        let delivery = app.message(id).await["deliveries"][0].clone();
        assert_eq!((&delivery["status"], &delivery["reason"]), (&json!("UNDETERMINED"), &json!("no_receipt")));
        apply_receipt(&app, id, 1, "ACCEPTED").await;
    }
    assert_eq!(statuses(&app, &ids[0]).await, ["UNDETERMINED"]);
    apply_receipt(&app, &ids[1], 1, "DELIVERED").await;
    apply_receipt(&app, &ids[2], 1, "EXPIRED").await;
    assert_eq!(statuses(&app, &ids[1]).await, ["DELIVERED"]);
    assert_eq!(statuses(&app, &ids[2]).await, ["EXPIRED"]);
    apply_receipt(&app, &ids[2], 1, "FAILED").await;
    assert_eq!(app.message(&ids[2]).await["deliveries"][0]["reason"], "receipt_failed");
    app.done().await;
}

/// A receipt that is stored and not applied yet is not missing, nor is one of a list that was not read to its end
/// since; nor does an account that is gone end the wait.
#[tokio::test]
async fn receipt_not_applied_yet_is_not_missing() {
    let vendor = Vendor { within: Some(Duration::from_secs(3600)), polls: true, ..Vendor::default() };
    let vendor = Arc::new(vendor);
    let app = App::with_provider(&[], vendor.clone()).await;
    let account = app.hub.providers.get("vendor").unwrap().clone();
    let shards = [app.partner.shard];
    let overdue = async || flow::receipt::overdue(&app.hub, &shards).await.unwrap();
    let (arrived, silent) = (post(&app, over("SMS")).await, post(&app, over("SMS")).await);
    app.work().await;
    let answer = json!({"key": "1", "ref": reference(&app, &arrived, 1, 1), "outcome": "DELIVERED"});
    vendor.pages.lock().unwrap().extend([vec![], vec![answer], vec![]]);
    flow::receipt::poll(&app.hub, &account).await.unwrap();
    app.advance(3601);
    overdue().await;
    assert_eq!(statuses(&app, &silent).await, ["SENT"], "its list was not read since");
    assert!(flow::receipt::poll(&app.hub, &account).await.unwrap());
    overdue().await;
    assert_eq!(statuses(&app, &silent).await, ["SENT"], "nor to its end");
    flow::receipt::poll(&app.hub, &account).await.unwrap();
    overdue().await;
    assert_eq!(statuses(&app, &silent).await, ["UNDETERMINED"]);
    assert_eq!(statuses(&app, &arrived).await, ["SENT"], "its receipt has arrived, but is not applied");
    flow::receipt::apply(&app.hub).await.unwrap();
    let events = app.count("select count(*) from event_history where event = 'delivery.undetermined'").await;
    assert_eq!((statuses(&app, &arrived).await, events), (vec!["DELIVERED".to_owned()], 1));
    let moved = post(&app, over("SMS")).await;
    app.work().await;
    sqlx::query("update deliveries set provider = 'gone' where status = 'SENT'")
        .execute(&app.db().await)
        .await
        .unwrap();
    app.advance(3601);
    overdue().await;
    assert_eq!(statuses(&app, &moved).await, ["SENT"], "the time of its receipts is unknown");
    app.done().await;
}

/// Retention and erasure cover receipts.
#[tokio::test]
async fn receipts_are_removed_with_their_messages() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    let id = post(&app, over("SMS")).await;
    app.work().await;
    let of = reference(&app, &id, 1, 1);
    send_receipts(
        &app,
        json!([{"key": "01012345678:1", "ref": of, "outcome": "FAILED", "code": "01012345678",
        "detail": "010-1234-5678 is off", "id": "p1"}]),
    )
    .await;
    flow::receipt::apply(&app.hub).await.unwrap();
    let actor = notihub::model::access::principal::Actor::local_admin("test".into());
    let permit = actor.admin_permit().unwrap();
    let erased = flow::erase::erase(&app.hub, permit, "01012345678", None, |_| ()).await.unwrap();
    assert!(erased.left.is_empty(), "{:?}", erased.left);
    assert_eq!(app.count("select count(*) from receipts where detail is null and provider_ref is null").await, 1);
    // A receipt that arrives again is recognised, although the data of the first was erased.
    send_receipts(&app, json!([{"key": "01012345678:1", "ref": of, "outcome": "FAILED", "code": "01012345678"}])).await;
    assert_eq!(app.count("select count(*) from receipts where code is null").await, 1);
    assert_eq!(app.count("select count(*) from receipts").await, 1);
    app.advance(91 * 86_400);
    flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from receipts").await, 0);
    app.done().await;
}

/// A retention step that fails stops no other step.
#[tokio::test]
async fn retention_step_that_fails_stops_no_other() {
    let app = App::with_provider(&[], Vendor::with_receipts()).await;
    send_receipts(&app, json!([{"key": "k", "outcome": "DELIVERED"}])).await;
    app.advance(91 * 86_400);
    let db = app.db().await;
    sqlx::query("alter table provider_holds rename to elsewhere").execute(&db).await.unwrap();
    flow::retain::retain(&app.hub).await.unwrap();
    assert_eq!(app.count("select count(*) from receipts").await, 0);
    sqlx::query("alter table elsewhere rename to provider_holds").execute(&db).await.unwrap();
    app.done().await;
}
