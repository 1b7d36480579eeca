//! Breakers: the shared states of providers, read from and written to the database.

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

/// Reads the states and paces of all providers, and wakes the claiming loops if a state changed.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the states known before stay.
pub async fn refresh(hub: &Hub) -> Result<()> {
    pace::refresh(hub).await?;
    let mut changed = false;
    for (provider, state) in store::provider::states(hub.store.engine()).await? {
        if let Some(known) = hub.provider_states.named(&provider) {
            changed |= known.adopt_if_newer(state);
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
    if changed {
        hub.wake.wake_all();
    }
    Ok(())
}

/// Writes `next` as the state of a provider if the state in the database is still `seen`, in one transaction with the
/// outage that begins or ends with it. Then this process knows what is written, and other processes are notified.
/// Returns false if another process was faster; the state is read again then.
///
/// # Errors
/// `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
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
        let outage =
            ProviderOutage { provider: name.to_owned(), reason, began_at: now, ended_at: READY_WHEN_RESUMED, detail };
        store::provider::begin_outage(&mut *tx, &outage, now - limits::OUTAGES_MERGE).await?;
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
            "the breaker of a provider opened; the provider is not called until its probe succeeds"
        );
    } else if closes {
        tracing::info!(provider = name, "the breaker of a provider closed; the provider works again");
    }
    provider.adopt_if_newer(next);
    hub.wake.wake_all();
    if (opens || closes)
        && let Err(e) = store::listen::notify_changed(&hub.store).await
    {
        tracing::debug!(error = %e, "other processes could not be notified; they read the change within a second");
    }
    Ok(true)
}

/// Reads the state of one provider and takes it over, even if it is older than the known one.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the state known before stays.
pub async fn reload(hub: &Hub, provider: &ProviderState) -> Result<()> {
    let states = store::provider::states(hub.store.engine()).await?;
    let mine = states.into_iter().find(|(name, _)| name == provider.account.name());
    provider.replace(mine.map(|(_, state)| state).unwrap_or_default());
    hub.wake.wake_all();
    Ok(())
}
