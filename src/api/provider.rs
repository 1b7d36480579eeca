//! Providers: response shapes and handlers. For operators.

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

/// A provider: an account at a vendor.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Provider {
    name: String,
    #[schema(value_type = Vec<ChannelWord>)]
    channels: Vec<&'static str>,
    #[schema(value_type = ProviderWord)]
    status: &'static str,
    /// Its share of the deliveries among the providers of a channel. 0: used only when no other provider is available.
    weight: u32,
    /// The circuit breaker; null while it is closed.
    breaker: Option<Breaker>,
    paused_at: Option<Time>,
    paused_by: Option<String>,
    /// The rate limit; null if there is none.
    limit: Option<Limit>,
    /// Deliveries of its channels that workers are sending now.
    in_flight: i64,
    /// Destinations that failed repeatedly of late (Slack). Only deliveries to these destinations wait.
    failing_destinations: Vec<String>,
}

/// A circuit breaker that is open or half-open: the provider failed and is called rarely or not at all.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// The reason of the failures: one of the `deliveryReasons` of `GET /v1/errors`.
    reason: Option<String>,
    since: Option<Time>,
    /// When the provider is called again, with one delivery at a time.
    until: Option<Time>,
    /// How often the breaker has opened since the provider last worked for a longer time.
    openings: i32,
}

/// The rate limit, which all workers share.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Limit {
    count: u32,
    per_seconds: u64,
    #[schema(example = "sliding-window")]
    strategy: String,
    /// Token bucket only: the number of calls that may come at once.
    burst: u32,
    /// The calls that count against the limit now: out of `count`, or out of `burst` for a token bucket.
    used: u32,
    /// When the next call is allowed.
    free_at: Time,
}

#[derive(Serialize, ToSchema)]
pub struct ProviderList {
    code: Success,
    items: Vec<Provider>,
}

/// One provider.
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

#[utoipa::path(get, path = "/v1/providers", operation_id = "listProviders", tag = "providers",
    security(("bearer" = [])),
    responses((status = 200, description = "all providers", body = ProviderList)))]
/// The providers
///
/// All providers with their breakers, limits and pauses.
pub async fn list(State(hub): State<Hub>, _operator: Operator, query: Query) -> Answer {
    query.close()?;
    let items = provider::statuses(&hub).await?.into_iter().map(Provider::of).collect();
    Ok(respond(StatusCode::OK, &ProviderList { code: Success::Success, items }))
}

#[utoipa::path(post, path = "/v1/providers/{name}/pause", operation_id = "pauseProvider", tag = "providers",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "the provider's name in the settings")),
    responses((status = 200, description = "the provider after the change", body = ProviderFound),
        (status = 404, description = "there is no such provider", body = ProblemBody,
            content_type = "application/problem+json")))]
/// Pause a provider
///
/// The provider is not called until it is resumed. Its deliveries go to another provider of the channel, or wait
/// without using attempts.
pub async fn pause(State(hub): State<Hub>, operator: Operator, query: Query, PathId(name): PathId) -> Answer {
    query.close()?;
    set_paused(&hub, &operator, &name, true).await
}

#[utoipa::path(post, path = "/v1/providers/{name}/resume", operation_id = "resumeProvider", tag = "providers",
    security(("bearer" = [])),
    params(("name" = String, Path, description = "the provider's name in the settings")),
    responses((status = 200, description = "the provider after the change", body = ProviderFound),
        (status = 404, description = "there is no such provider", body = ProblemBody,
            content_type = "application/problem+json")))]
/// Resume a provider
///
/// The provider is called again at once.
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
