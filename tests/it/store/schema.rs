//! The tables as seed 000 draws them.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::app::{App, email};

/// S0-53, S0-54, S0-55, S0-56, S0-57, S0-58, S0-59, S0-77: one table of messages for sending and reporting, its details
/// as JSON, its key and indexes under the names that the seed gives them. What a partitioned table cannot hold is
/// beside it: the status, which lives on deliveries, and the uniqueness of a partner's key.
#[tokio::test]
async fn schema_of_messages_is_the_seeds() {
    let app = App::new().await;
    let db = app.db().await;
    let names = "select c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname \
        = 'public'";
    let names: BTreeSet<String> = sqlx::query_scalar(names).fetch_all(&db).await.unwrap().into_iter().collect();
    for name in [
        "messages",
        "pk_messages",
        "idx_message_partner_id",
        "idx_message_status",
        "idx_message_created_at",
        "uk_message_partner_client_msg",
    ] {
        assert!(names.contains(name), "{name}");
    }
    let kind = "select data_type::text from information_schema.columns where table_name = 'messages' and column_name \
        = 'detail'";
    assert_eq!(sqlx::query_scalar::<_, String>(kind).fetch_one(&db).await.unwrap(), "jsonb");
    let key = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'uk_message_partner_client_msg'";
    let key: String = sqlx::query_scalar(key).fetch_one(&db).await.unwrap();
    assert!(key.contains("partner_id, client_msg_id"), "{key}");
    app.done().await;
}

/// S0-24: the six statuses of the seed, as a view of the one machine.
#[tokio::test]
async fn schema_view_has_the_seeds_six_statuses() {
    let app = App::new().await;
    let mut later = email("later@example.com");
    later["scheduledAt"] = json!("2027-03-06T00:00:00Z");
    let mut worthless = email("worthless@example.com");
    worthless["expiresAt"] = json!("2027-03-05T00:30:01Z");
    for body in [email("sent@example.com"), email("bounce@example.com"), later, worthless] {
        app.post("/v1/messages", body).await.expect(202);
    }
    let words = async || -> Vec<(String, String)> {
        let view = "select recipient, gateway_status from messages_with_status order by recipient";
        sqlx::query_as(view).fetch_all(&app.db().await).await.unwrap()
    };
    assert!(words().await.iter().all(|(_, status)| status == "RECEIVED"), "{:?}", words().await);
    app.advance(2);
    app.work().await;
    let answer: Vec<String> = words().await.into_iter().map(|(to, status)| format!("{to} {status}")).collect();
    assert_eq!(
        answer,
        [
            "bounce@example.com FAILED",
            "later@example.com RECEIVED",
            "sent@example.com SENT",
            "worthless@example.com EXPIRED"
        ]
    );
    app.done().await;
}
