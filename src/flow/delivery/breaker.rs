//! Breakers: what all processes know of the providers' troubles, read and written.

use chrono::{DateTime, Utc};

use super::pace;
use crate::error::Result;
use crate::hub::Hub;
use crate::hub::provider_state::ProviderState;
use crate::limits;
use crate::model::breaker::{BreakerState, SharedProviderState};
use crate::model::delivery::READY_WHEN_RESUMED;
use crate::store;
use crate::store::provider::ProviderOutage;

/// What all know of the providers.
pub async fn refresh(hub: &Hub) -> Result<()> {
    pace::refresh(hub).await?;
    let mut news = false;
    for (provider, state) in store::provider::states(hub.store.engine()).await? {
        if let Some(known) = hub.provider_states.named(&provider) {
            news |= known.adopt_if_newer(state);
        }
    }
    for provider in hub.provider_states.iter() {
        let (name, state) = (provider.account.name(), provider.state());
        let level = match state.breaker {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        hub.metrics.breaker_state.with_label_values(&[name]).set(level);
        hub.metrics.provider_paused.with_label_values(&[name]).set(i64::from(state.paused_at.is_some()));
    }
    if news {
        hub.wake.wake_all();
    }
    Ok(())
}

/// Writes a state that follows on the one that was `seen`, unless another was faster. What is known then is what is
/// written.
pub async fn write_state(
    hub: &Hub,
    provider: &ProviderState,
    seen: &SharedProviderState,
    next: SharedProviderState,
    now: DateTime<Utc>,
) -> Result<bool> {
    let name = provider.account.name();
    let mut tx = hub.store.begin_engine().await?;
    if !store::provider::compare_and_set_state(&mut *tx, name, &next, seen.changed_at).await? {
        tx.rollback().await?;
        reload(hub, provider).await?;
        return Ok(false);
    }
    let opens = next.breaker == BreakerState::Open && seen.breaker != BreakerState::Open;
    let closes = next.breaker == BreakerState::Closed && seen.breaker != BreakerState::Closed;
    if opens {
        let (reason, detail) = ("breaker".to_owned(), next.reason.clone());
        let hold =
            ProviderOutage { provider: name.to_owned(), reason, began_at: now, ended_at: READY_WHEN_RESUMED, detail };
        store::provider::begin_outage(&mut *tx, &hold, now - limits::OUTAGES_MERGE).await?;
    } else if closes {
        store::provider::end_outage(&mut *tx, name, "breaker", now).await?;
    }
    tx.commit().await?;
    if opens {
        hub.metrics.breaker_openings.with_label_values(&[name, next.reason.as_deref().unwrap_or_default()]).inc();
        tracing::warn!(
            provider = name,
            reason = next.reason,
            until = next.open_until.map(tracing::field::display),
            "a provider's breaker opened"
        );
    } else if closes {
        tracing::info!(provider = name, "a provider's breaker closed: it works again");
    }
    provider.adopt_if_newer(next);
    hub.wake.wake_all();
    if (opens || closes)
        && let Err(e) = store::listen::notify_changed(&hub.store).await
    {
        tracing::debug!(error = %e, "other processes are not told at once: they look each second");
    }
    Ok(true)
}

/// What is written is what holds, whatever was known before.
pub async fn reload(hub: &Hub, provider: &ProviderState) -> Result<()> {
    let states = store::provider::states(hub.store.engine()).await?;
    let mine = states.into_iter().find(|(name, _)| name == provider.account.name());
    provider.replace(mine.map(|(_, state)| state).unwrap_or_default());
    hub.wake.wake_all();
    Ok(())
}
