//! Providers, for operators: their shared state, pause and resume.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::delivery::breaker::{refresh, reload};
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::limits;
use crate::model::access::permit::OperatorPermit;
use crate::model::breaker::{BreakerState, SharedProviderState};
use crate::model::delivery::READY_WHEN_RESUMED;
use crate::model::limit::RateLimitUsage;
use crate::provider::Account;
use crate::store;
use crate::store::audit::AuditEntry;
use crate::store::provider::ProviderOutage;

/// Pauses a provider, or resumes it. Deliveries that wait for it lose no attempt. Resuming a provider that is not
/// paused but whose breaker is open has it probed at once. Does nothing if the provider is in the wanted state already.
///
/// # Errors
/// `Error::NotFound` if the provider is not in the settings. `Error::Unavailable` if the database fails, or if other
/// processes changed the state `limits::STATE_ROUNDS` times meanwhile; nothing was written, unless it failed during the
/// commit.
pub async fn pause(hub: &Hub, permit: OperatorPermit<'_>, provider: &str, pause: bool) -> Result<()> {
    let known = hub.provider_states.named(provider).ok_or(Error::NotFound)?;
    let actor = permit.actor();
    for _ in 0..limits::STATE_ROUNDS {
        reload(hub, known).await?;
        let (now, seen) = (hub.clock.now(), known.state());
        // Resuming a provider that is not paused, but whose breaker is open, has it probed.
        let probed = !pause && seen.breaker == BreakerState::Open && seen.next_probe_at(now).is_some_and(|at| at > now);
        if seen.paused_at.is_some() == pause && !probed {
            return Ok(());
        }
        let next = seen.with_pause(pause.then_some(actor.name.as_str()), now);
        let mut tx = hub.store.begin().await?;
        if !store::provider::compare_and_set_state(&mut *tx, provider, &next, seen.changed_at).await? {
            tx.rollback().await?;
            continue;
        }
        if pause {
            let (reason, detail) = ("paused".to_owned(), None);
            let outage = ProviderOutage {
                provider: provider.to_owned(),
                reason,
                began_at: now,
                ended_at: READY_WHEN_RESUMED,
                detail,
            };
            store::provider::begin_outage(&mut *tx, &outage, now - limits::OUTAGES_MERGE).await?;
        } else {
            store::provider::end_outage(&mut *tx, provider, "paused", now).await?;
        }
        let action = if pause { "provider.pause" } else { "provider.resume" }.to_owned();
        let entry = AuditEntry { action, object: Some(provider.to_owned()), ..AuditEntry::default() };
        store::audit::insert(&mut *tx, hub.next_id(), now, actor, &entry).await?;
        tx.commit().await?;
        refresh(hub).await?;
        if let Err(e) = store::listen::notify_changed(&hub.store).await {
            tracing::debug!(error = %e, "other processes could not be notified; they read the change within a second");
        }
        return Ok(());
    }
    Err(Error::Unavailable("other processes keep changing the provider's state; try again".into()))
}

/// The health of a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderHealth {
    /// It can be called.
    Up,
    /// Its rate limit is used up at present.
    Limited,
    /// Its breaker is open: it is not called.
    Open,
    /// Its breaker is half-open: a probe is in flight.
    HalfOpen,
    /// An operator paused it.
    Paused,
}

impl ProviderHealth {
    /// Returns the stable word of the health.
    pub fn as_str(self) -> &'static str {
        match self {
            ProviderHealth::Up => "UP",
            ProviderHealth::Limited => "LIMITED",
            ProviderHealth::Open => "OPEN",
            ProviderHealth::HalfOpen => "HALF_OPEN",
            ProviderHealth::Paused => "PAUSED",
        }
    }
}

/// All healths, for the document of the API.
pub const PROVIDER_HEALTHS: [ProviderHealth; 5] = [
    ProviderHealth::Up,
    ProviderHealth::Limited,
    ProviderHealth::Open,
    ProviderHealth::HalfOpen,
    ProviderHealth::Paused,
];

/// The state of a provider, for operators.
pub struct ProviderStatus {
    /// The account of the settings.
    pub account: Arc<Account>,
    /// Its health, derived from state and limit.
    pub health: ProviderHealth,
    /// Its breaker and pause.
    pub state: SharedProviderState,
    /// Use of its rate limit: the requests that count now, and when the next one is free. None without a limit.
    pub used: Option<(u32, DateTime<Utc>)>,
    /// Deliveries of its channels that workers hold.
    pub held: i64,
    /// Its destinations that fail repeatedly.
    pub failing: Vec<String>,
}

/// Returns the state in the database of all providers of this process's settings.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn statuses(hub: &Hub) -> Result<Vec<ProviderStatus>> {
    let db = hub.store.api();
    let now = hub.clock.now();
    let mut states: HashMap<String, SharedProviderState> = store::provider::states(db).await?.into_iter().collect();
    let mut booked: HashMap<String, RateLimitUsage> = store::provider::limits(db).await?.into_iter().collect();
    let mut failing: HashMap<String, Vec<String>> = HashMap::new();
    for ((provider, destination), pace) in store::pace::list(db, now).await? {
        if pace.failures > 0 {
            failing.entry(provider).or_default().push(destination);
        }
    }
    let held = store::provider::count_processing(db, &store::partner::shards(db).await?).await?;
    let seen = |account: &Arc<Account>| {
        let name = account.name();
        let (state, booked) = (states.remove(name).unwrap_or_default(), booked.remove(name).unwrap_or_default());
        let used = account.terms.limit.map(|limit| booked.used(&limit, now));
        let health = match (state.paused_at, state.breaker, used) {
            (Some(_), ..) => ProviderHealth::Paused,
            (None, BreakerState::Open, _) => ProviderHealth::Open,
            (None, BreakerState::HalfOpen, _) => ProviderHealth::HalfOpen,
            (None, BreakerState::Closed, Some((_, free_at))) if free_at > now => ProviderHealth::Limited,
            (None, BreakerState::Closed, _) => ProviderHealth::Up,
        };
        let mine = held.iter().filter(|(lane, _)| account.capability(lane.channel()).is_some());
        let failing = failing.remove(name).unwrap_or_default();
        ProviderStatus { account: account.clone(), health, state, used, held: mine.map(|(_, n)| n).sum(), failing }
    };
    Ok(hub.providers.iter().map(seen).collect())
}
