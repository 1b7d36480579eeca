//! Providers, for operators: they are seen as all processes know them, paused, and let go on.

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

/// Pauses a provider, or lets it go on. What waits for it waits longer, and loses no attempt.
pub async fn pause(hub: &Hub, permit: OperatorPermit<'_>, provider: &str, pause: bool) -> Result<()> {
    let known = hub.provider_states.named(provider).ok_or(Error::NotFound)?;
    let actor = permit.actor();
    for _ in 0..limits::STATE_ROUNDS {
        reload(hub, known).await?;
        let (now, seen) = (hub.clock.now(), known.state());
        // Of one that nobody paused, but that is left alone for what it answered, resuming has it probed.
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
            let hold = ProviderOutage {
                provider: provider.to_owned(),
                reason,
                began_at: now,
                ended_at: READY_WHEN_RESUMED,
                detail,
            };
            store::provider::begin_outage(&mut *tx, &hold, now - limits::OUTAGES_MERGE).await?;
        } else {
            store::provider::end_outage(&mut *tx, provider, "paused", now).await?;
        }
        let action = if pause { "provider.pause" } else { "provider.resume" }.to_owned();
        let deed = AuditEntry { action, object: Some(provider.to_owned()), ..AuditEntry::default() };
        store::audit::insert(&mut *tx, hub.next_id(), now, actor, &deed).await?;
        tx.commit().await?;
        refresh(hub).await?;
        if let Err(e) = store::listen::notify_changed(&hub.store).await {
            tracing::debug!(error = %e, "other processes are not told at once: they look each second");
        }
        return Ok(());
    }
    Err(Error::Unavailable("the provider's state changes faster than it can be written: try again".into()))
}

/// How a provider stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProviderHealth {
    Up,
    /// Its limit is used up at present.
    Limited,
    Open,
    HalfOpen,
    Paused,
}

impl ProviderHealth {
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

pub const PROVIDER_HEALTHS: [ProviderHealth; 5] = [
    ProviderHealth::Up,
    ProviderHealth::Limited,
    ProviderHealth::Open,
    ProviderHealth::HalfOpen,
    ProviderHealth::Paused,
];

/// A provider as operators see it.
pub struct ProviderStatus {
    pub account: Arc<Account>,
    pub health: ProviderHealth,
    pub state: SharedProviderState,
    /// Of its limit: how many count now, and when one more is free.
    pub used: Option<(u32, DateTime<Utc>)>,
    /// Deliveries of its channels that workers hold.
    pub held: i64,
    /// Its destinations that fail again and again.
    pub failing: Vec<String>,
}

/// All providers of this hub's settings, as the books have them.
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
        let stand = match (state.paused_at, state.breaker, used) {
            (Some(_), ..) => ProviderHealth::Paused,
            (None, BreakerState::Open, _) => ProviderHealth::Open,
            (None, BreakerState::HalfOpen, _) => ProviderHealth::HalfOpen,
            (None, BreakerState::Closed, Some((_, free_at))) if free_at > now => ProviderHealth::Limited,
            (None, BreakerState::Closed, _) => ProviderHealth::Up,
        };
        let mine = held.iter().filter(|(lane, _)| account.capability(lane.channel()).is_some());
        let failing = failing.remove(name).unwrap_or_default();
        ProviderStatus {
            account: account.clone(),
            health: stand,
            state,
            used,
            held: mine.map(|(_, n)| n).sum(),
            failing,
        }
    };
    Ok(hub.providers.iter().map(seen).collect())
}
