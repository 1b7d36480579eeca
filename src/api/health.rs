//! For machines that watch: is the process alive, may it be sent requests, what does it count, what is it.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use super::error::Answer;
use super::request::ok;
use crate::error::Result;
use crate::hub::Hub;
use crate::store;

/// Alive as long as it answers; says nothing of the database.
pub async fn alive() -> Response {
    ok(StatusCode::OK, &json!({"code": "0000", "status": "alive"}))
}

/// 200 when messages can be accepted; 503 with what is missing otherwise. That no worker was seen is told, and no reason to
/// send requests elsewhere: they are stored, and delivered when one comes, from cron for instance.
pub async fn ready(State(hub): State<Hub>) -> Response {
    let checks = match look(&hub).await {
        Ok(checks) => checks,
        Err(e) => vec![("database", false, e.to_string())],
    };
    let good = !hub.shutdown.is_stopping() && checks.iter().all(|c| c.1 || c.0 == "worker");
    let items: Vec<_> =
        checks.iter().map(|(name, good, text)| json!({"check": name, "ok": good, "detail": text})).collect();
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let stopping = hub.shutdown.is_stopping();
    ok(
        status,
        &json!({"code": if good { "0000" } else { "E102" }, "ready": good, "stopping": stopping, "checks": items}),
    )
}

async fn look(hub: &Hub) -> Result<Vec<(&'static str, bool, String)>> {
    let db = hub.store.api();
    let missing = hub.store.migrations_missing().await?;
    let partitions = store::partition::standing(db).await?;
    let ahead = partitions.until.is_some_and(|until| until > hub.clock.now() + chrono::TimeDelta::days(7));
    let workers = store::worker::list(db, hub.clock.now() - chrono::TimeDelta::seconds(30)).await?;
    Ok(vec![
        ("database", true, "answers".to_owned()),
        ("migrations", missing == 0, format!("{missing} missing")),
        (
            "partitions",
            ahead && !partitions.in_default,
            format!("made until {}", partitions.until.map_or("never".into(), |u| u.date_naive().to_string())),
        ),
        ("worker", !workers.is_empty(), format!("{} seen in the last 30 s", workers.len())),
    ])
}

pub async fn metrics(State(hub): State<Hub>) -> Answer {
    let text = hub.metrics.render()?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

pub async fn about(State(hub): State<Hub>) -> Answer {
    let settings = store::hub::settings(hub.store.api()).await?;
    let durable: serde_json::Map<String, serde_json::Value> = settings
        .into_iter()
        .filter(|s| matches!(s.name.as_str(), "server_version" | "fsync" | "full_page_writes" | "synchronous_commit"))
        .map(|s| (s.name, s.setting.into()))
        .collect();
    let body = json!({
        "code": "0000",
        "name": "notihub",
        "version": env!("CARGO_PKG_VERSION"),
        "migrationsMissing": hub.store.migrations_missing().await?,
        "database": durable,
        "channels": hub.providers.channels().iter().map(|c| c.as_str()).collect::<Vec<_>>(),
    });
    Ok(ok(StatusCode::OK, &body))
}
