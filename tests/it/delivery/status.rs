//! Statuses: four words outside for nine inside, and a message's status follows from its deliveries.

use std::collections::BTreeSet;

use notihub::model::delivery::STATUSES;

use crate::support::app::App;
use crate::support::notification::{deliveries, notification, order_completed, payment_failed};

/// S3-19, S3-34: a notification has no status of its own, neither stored nor to store one in: the status in an answer
/// follows from the deliveries at the moment of asking.
#[tokio::test]
async fn notification_status_is_computed_from_deliveries() {
    let app = App::new().await;
    let columns =
        "select count(*) from information_schema.columns where table_name = 'messages' and column_name like '%stat%'";
    assert_eq!(app.count(columns).await, 0);
    let id = app.post("/notifications", payment_failed()).await.expect(202).id();
    let db = app.db().await;
    for (email, slack, overall) in [
        ("PENDING", "SENT", "PROCESSING"),
        ("SENT", "DELIVERED", "COMPLETED"),
        ("SENT", "FAILED", "PARTIAL"),
        ("UNDETERMINED", "EXPIRED", "FAILED"),
        ("CANCELED", "CANCELED", "CANCELED"),
        ("PENDING", "PENDING", "PENDING"),
    ] {
        let set = "update deliveries set status = (case no when 1 then $1 else $2 end)::delivery_status";
        sqlx::query(set).bind(email).bind(slack).execute(&db).await.unwrap();
        assert_eq!(notification(&app, &id).await["status"], overall, "{email}, {slack}");
        let listed = app.get(&format!("/notifications?status={overall}")).await.expect(200).body;
        assert_eq!(listed["items"][0]["id"], id, "{email}, {slack}");
    }
    app.done().await;
}

/// S3-35: nine statuses inside, exactly four words outside.
#[tokio::test]
async fn delivery_status_outside_is_one_of_four_words() {
    let app = App::new().await;
    let id = app.post("/notifications", order_completed()).await.expect(202).id();
    let db = app.db().await;
    let mut words = BTreeSet::new();
    for status in STATUSES {
        let set = "update deliveries set status = $1::delivery_status, worker = case $1 when 'PROCESSING' then 1 end, \
                   lease_until = case $1 when 'PROCESSING' then now() end";
        sqlx::query(set).bind(status.as_str()).execute(&db).await.unwrap();
        let (told, listed) = (notification(&app, &id).await, app.get("/notifications").await.expect(200).body);
        assert_eq!(deliveries(&told), deliveries(&listed["items"][0]), "{status}");
        words.insert(deliveries(&told)[0].1.to_owned());
    }
    assert_eq!(words.iter().map(String::as_str).collect::<Vec<_>>(), ["FAILED", "PENDING", "PROCESSING", "SUCCESS"]);
    let back = "update deliveries set status = 'PENDING', worker = null, lease_until = null";
    sqlx::query(back).execute(&db).await.unwrap();
    app.done().await;
}
