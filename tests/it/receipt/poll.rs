//! Receipts by poll: a list of results is read by one process at a time.

use std::sync::Arc;
use std::time::Duration;

use notihub::{flow, store};
use serde_json::json;

use crate::support::app::App;
use crate::support::hubs::another;
use crate::support::message::post;
use crate::support::vendor::{Vendor, over, reference, statuses};

/// S0-40: a list of results is read by one process at a time, from where it stood, also when its reader is gone.
#[tokio::test]
async fn receipt_list_is_read_on_after_a_crash() {
    let vendor = Vendor { within: Some(Duration::from_secs(3600)), polls: true, ..Vendor::default() };
    let vendor = Arc::new(vendor);
    let app = App::with_provider(&[], vendor.clone()).await;
    let other = another(&app).await;
    let id = post(&app, over("KAKAO_ALIMTALK")).await;
    app.work().await;
    let of = reference(&app, &id, 1, 1);
    *vendor.pages.lock().unwrap() = vec![
        vec![json!({"key": "1", "ref": of, "outcome": "ACCEPTED"})],
        vec![json!({"key": "2", "ref": of, "outcome": "DELIVERED"}), json!({"key": "3"})],
    ];
    let account = app.hub.providers.get("vendor").unwrap().clone();
    assert!(flow::receipt::poll(&app.hub, &account).await.unwrap(), "there is more");
    // A process that took the lease, and was lost with it.
    let (now, db) = (app.hub.clock.now(), app.hub.store.api());
    let taken = store::provider_cursor::lease(db, "vendor", now, now + chrono::TimeDelta::seconds(25)).await.unwrap();
    assert_eq!(taken, Some(Some("1".to_owned())));
    assert!(!flow::receipt::poll(&other, &account).await.unwrap());
    app.advance(30);
    assert!(!flow::receipt::poll(&other, &account).await.unwrap(), "that was the last page");
    assert_eq!(*vendor.asked.lock().unwrap(), [None, Some("1".to_owned())]);
    flow::receipt::apply(&other).await.unwrap();
    assert_eq!(statuses(&app, &id).await, ["DELIVERED"]);
    assert_eq!(app.count("select count(*) from receipts").await, 3);
    // A list that cannot be read is left alone for a while.
    flow::receipt::poll(&app.hub, &account).await.unwrap_err();
    assert!(!flow::receipt::poll(&other, &account).await.unwrap());
    assert_eq!(vendor.asked.lock().unwrap().len(), 3);
    app.advance(31);
    flow::receipt::poll(&other, &account).await.unwrap_err();
    app.done().await;
}
