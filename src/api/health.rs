//! Endpoints for monitoring: liveness, readiness, metrics, and the version.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::ChannelWord;
use crate::error::{Code, Result};
use crate::http::answer::{Answer, Success, respond};
use crate::http::caller::{Authenticated, Operator};
use crate::hub::Hub;
use crate::store;

#[derive(Serialize, ToSchema)]
pub struct Alive {
    code: Success,
    /// Always `alive`.
    status: &'static str,
}

#[utoipa::path(get, path = "/healthz", operation_id = "getHealth", tag = "operations",
    responses((status = 200, description = "alive", body = Alive)))]
/// Liveness
///
/// Answers 200 as long as the process runs. It does not look at the database.
pub async fn alive() -> Response {
    respond(StatusCode::OK, &Alive { code: Success::Success, status: "alive" })
}

/// Whether the process can accept messages.
#[derive(Serialize, ToSchema)]
pub struct Readiness {
    /// 0000; E102 when messages cannot be accepted.
    code: &'static str,
    /// True when messages can be accepted.
    ready: bool,
    /// True when the process is shutting down.
    stopping: bool,
    checks: Vec<Check>,
}

#[derive(Serialize, ToSchema)]
pub struct Check {
    /// `database`, `migrations`, `partitions` or `worker`.
    check: &'static str,
    ok: bool,
    detail: String,
}

#[utoipa::path(get, path = "/readyz", operation_id = "getReadiness", tag = "operations",
    responses(
        (status = 200, description = "messages can be accepted", body = Readiness),
        (status = 503, description = "messages cannot be accepted", body = Readiness),
    ))]
/// Readiness
///
/// Answers 200 when messages can be accepted, otherwise 503 with the check that failed. A small commit, at most one a
/// second, proves that the database takes writes: on a standby, or while commits wait for a synchronous standby that is
/// gone, the answer is 503. A missing worker is reported and does not lead to 503: messages are stored, and delivered
/// as soon as a worker runs, for example one started by cron.
pub async fn ready(State(hub): State<Hub>) -> Response {
    let checks = match check_readiness(&hub).await {
        Ok(checks) => checks,
        Err(e) => vec![("database", false, e.to_string())],
    };
    let good = !hub.shutdown.is_stopping() && checks.iter().all(|c| c.1 || c.0 == "worker");
    let body = Readiness {
        code: if good { Code::Success } else { Code::E102 }.as_str(),
        ready: good,
        stopping: hub.shutdown.is_stopping(),
        checks: checks.into_iter().map(|(check, ok, detail)| Check { check, ok, detail }).collect(),
    };
    respond(if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, &body)
}

async fn check_readiness(hub: &Hub) -> Result<Vec<(&'static str, bool, String)>> {
    hub.store.prove_writes().await?;
    let db = hub.store.api();
    let missing = hub.store.migrations_pending().await?;
    let partitions = store::partition::status(db).await?;
    let ahead = partitions.until.is_some_and(|until| until > hub.clock.now() + chrono::TimeDelta::days(7));
    let workers = store::worker::list(db, hub.clock.now() - chrono::TimeDelta::seconds(30)).await?;
    Ok(vec![
        ("database", true, "takes writes".to_owned()),
        ("migrations", missing == 0, format!("{missing} missing")),
        (
            "partitions",
            ahead && !partitions.in_default,
            format!("made until {}", partitions.until.map_or("never".into(), |u| u.date_naive().to_string())),
        ),
        ("worker", !workers.is_empty(), format!("{} seen in the last 30 s", workers.len())),
    ])
}

#[utoipa::path(get, path = "/metrics", operation_id = "getMetrics", tag = "operations", security(("bearer" = [])),
    responses((status = 200, description = "the metrics", body = String, content_type = "text/plain")))]
/// Metrics
///
/// The counters and gauges of this process, in Prometheus' text format.
pub async fn metrics(State(hub): State<Hub>, _operator: Operator) -> Answer {
    render_metrics(&hub)
}

/// A router with `/metrics` and `/healthz` without sign-in, for `--metrics-listen`. The listener's address must be
/// reachable by the monitoring system only.
pub fn metrics_router(hub: &Hub) -> Router {
    Router::new()
        .route("/metrics", get(metrics_unsigned))
        .route("/healthz", get(alive))
        .fallback(crate::http::problem::route_not_found)
        .layer(axum::middleware::from_fn_with_state(hub.clone(), crate::http::request::wrap_request))
        .with_state(hub.clone())
}

/// `/metrics` without sign-in.
async fn metrics_unsigned(State(hub): State<Hub>) -> Answer {
    render_metrics(&hub)
}

fn render_metrics(hub: &Hub) -> Answer {
    let text = hub.metrics.render()?;
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response())
}

/// The program and the database it uses.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct About {
    code: Success,
    name: &'static str,
    version: &'static str,
    /// The number of migrations that the database still lacks.
    migrations_missing: usize,
    /// PostgreSQL's version and its durability settings, as PostgreSQL names them.
    database: BTreeMap<String, String>,
    /// The channels that have a provider.
    #[schema(value_type = Vec<ChannelWord>)]
    channels: Vec<&'static str>,
}

#[utoipa::path(get, path = "/about", operation_id = "getAbout", tag = "operations", security(("bearer" = [])),
    responses((status = 200, description = "this program", body = About)))]
/// Version
///
/// The version, missing migrations, the database's durability settings, and the channels that have a provider.
pub async fn about(State(hub): State<Hub>, _signed: Authenticated) -> Answer {
    let settings = store::hub::server_settings(hub.store.api()).await?;
    let is_shown = |name: &str| matches!(name, "server_version" | "fsync" | "full_page_writes" | "synchronous_commit");
    let body = About {
        code: Success::Success,
        name: "notihub",
        version: env!("CARGO_PKG_VERSION"),
        migrations_missing: hub.store.migrations_pending().await?,
        database: settings.into_iter().filter(|s| is_shown(&s.name)).map(|s| (s.name, s.setting)).collect(),
        channels: hub.providers.postable_channels().iter().map(|c| c.as_str()).collect(),
    };
    Ok(respond(StatusCode::OK, &body))
}
