//! Providers: outside shapes and handlers. For operators.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::{ChannelWord, ProviderWord};
use crate::error::Error;
use crate::flow::provider::{self, ProviderStatus};
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::Operator;
use crate::http::problem::ProblemBody;
use crate::http::query::Query;
use crate::http::request::PathId;
use crate::hub::Hub;
use crate::model::breaker::BreakerState as Standing;

/// An account at a vendor.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    name: String,
    #[schema(value_type = Vec<ChannelWord>)]
    channels: Vec<&'static str>,
    #[schema(value_type = ProviderWord)]
    status: &'static str,
    /// Its share beside other providers of a channel; 0: only when no other can.
    weight: u32,
    /// Null while it is closed.
    breaker: Option<Breaker>,
    paused_at: Option<Time>,
    paused_by: Option<String>,
    /// Null where there is none.
    limit: Option<Limit>,
    /// Deliveries of its channels that workers hold now.
    in_flight: i64,
    /// Its destinations that failed again and again of late (Slack): what is for them waits, and for no other.
    failing_destinations: Vec<String>,
}

/// It is in trouble, and left alone.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// What it failed by: a reason as deliveries have it.
    reason: Option<String>,
    since: Option<Time>,
    /// When it is asked again, by one at a time.
    until: Option<Time>,
    /// How often it opened since it last worked for long.
    openings: i32,
}

/// What it may be asked, by all workers together.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    count: u32,
    per_seconds: u64,
    #[schema(example = "sliding-window")]
    strategy: String,
    /// Of a token bucket: how many may come at once.
    burst: u32,
    /// How many count now, of `count`; of a token bucket, of `burst`.
    used: u32,
    /// When one more may be made.
    free_at: Time,
}

#[derive(Serialize, ToSchema)]
pub struct ProviderList {
    code: Success,
    items: Vec<Provider>,
}

/// A provider alone.
#[derive(Serialize, ToSchema)]
pub struct ProviderFound {
    code: Success,
    #[serde(flatten)]
    provider: Provider,
}

impl Provider {
    fn of(seen: ProviderStatus) -> Provider {
        let ProviderStatus { account, health: stand, state, used, held, failing } = seen;
        let limit = account.terms.limit.zip(used).map(|(limit, (used, free_at))| Limit {
            count: limit.count,
            per_seconds: limit.per.as_secs(),
            strategy: limit.strategy.to_string(),
            burst: limit.burst,
            used,
            free_at: Time(free_at),
        });
        let breaker = (state.breaker != Standing::Closed).then(|| Breaker {
            reason: state.reason,
            since: state.opened_at.map(Time),
            until: state.open_until.map(Time),
            openings: state.openings,
        });
        Provider {
            name: account.name().to_owned(),
            channels: account.capabilities.iter().map(|c| c.channel.as_str()).collect(),
            status: stand.as_str(),
            weight: account.terms.weight,
            breaker,
            paused_at: state.paused_at.map(Time),
            paused_by: state.paused_by,
            limit,
            in_flight: held,
            failing_destinations: failing,
        }
    }
}

/// The providers
///
/// How each account at a vendor stands: its breaker, its limit, and whether somebody paused it.
#[utoipa::path(get, path = "/v1/providers", operation_id = "listProviders", tag = "providers", security(("bearer" = [])),
    responses((status = 200, description = "all of them", body = ProviderList)))]
pub async fn list(State(hub): State<Hub>, _operator: Operator, query: Query) -> Answer {
    query.close()?;
    let items = provider::statuses(&hub).await?.into_iter().map(Provider::of).collect();
    Ok(respond(StatusCode::OK, &ProviderList { code: Success::Success, items }))
}

/// Pause a provider
///
/// It is not asked until it is resumed; what is for it waits and loses no attempt, or goes to another provider of its channel.
#[utoipa::path(post, path = "/v1/providers/{name}/pause", operation_id = "pauseProvider", tag = "providers",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "as the settings name it")),
    responses((status = 200, description = "the provider as it stands now", body = ProviderFound),
        (status = 404, description = "there is no such provider", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn pause(State(hub): State<Hub>, operator: Operator, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    set_paused(&hub, &operator, &name, true).await
}

/// Resume a provider
///
/// It is asked again, at once.
#[utoipa::path(post, path = "/v1/providers/{name}/resume", operation_id = "resumeProvider", tag = "providers",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "as the settings name it")),
    responses((status = 200, description = "the provider as it stands now", body = ProviderFound),
        (status = 404, description = "there is no such provider", body = ProblemBody,
            content_type = "application/problem+json")))]
pub async fn resume(State(hub): State<Hub>, operator: Operator, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    set_paused(&hub, &operator, &name, false).await
}

async fn set_paused(hub: &Hub, operator: &Operator, name: &str, paused: bool) -> Answer {
    provider::pause(hub, operator.0.operator_permit()?, name, paused).await?;
    let all = provider::statuses(hub).await?;
    let seen = all.into_iter().find(|seen| seen.account.name() == name).ok_or(Error::NotFound)?;
    Ok(respond(StatusCode::OK, &ProviderFound { code: Success::Success, provider: Provider::of(seen) }))
}
