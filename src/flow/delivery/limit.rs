//! Limits: a process takes requests from a provider's rate limit ahead, and reports later which of them it made. All
//! processes share the limit in the database; no call waits for it while requests are in hand.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::provider_state::ProviderState;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::limit::{PermitReport, RateLimit, RateLimitGrant};
use crate::store;
use crate::store::provider::ProviderOutage;

/// Takes from the limits of a channel's providers what is about to be claimed, if it is not in hand.
pub async fn lease_ahead(hub: &Hub, channel: Channel, wanted: i64) -> Result<()> {
    for provider in hub.provider_states.of(channel) {
        let Some(limit) = provider.limit() else { continue };
        let short = provider.needs_grants(hub.clock.now());
        // Who asks already asks for all.
        let Some(_leasing) = provider.lease_turn.try_lock().ok().filter(|_| short) else { continue };
        lease(hub, provider, u32::try_from(wanted).unwrap_or(u32::MAX).min(limit.chunk_size())).await?;
    }
    Ok(())
}

/// One more request for a delivery that is held already.
pub async fn lease_one(hub: &Hub, provider: &ProviderState) -> Result<Option<DateTime<Utc>>> {
    let _leasing = provider.lease_turn.lock().await;
    let now = hub.clock.now();
    if let Some(until) = provider.take_grant(now) {
        return Ok(Some(until));
    }
    if provider.may_lease(now) {
        lease(hub, provider, 1).await?;
    }
    // It may have taken so long that what was taken lapsed.
    Ok(provider.take_grant(hub.clock.now()))
}

/// Takes from a provider's limit, and tells what became of what was taken before.
async fn lease(hub: &Hub, provider: &ProviderState, wanted: u32) -> Result<()> {
    let Some(limit) = provider.limit() else { return Ok(()) };
    let (name, reports) = (provider.account.name(), provider.take_reports(hub.clock.now()));
    match write_lease(hub, name, limit, wanted, &reports).await {
        Ok(taken) => {
            provider.record_lease(taken, wanted, hub.clock.now());
            hub.metrics.limit_free.with_label_values(&[name]).set(i64::from(taken.free));
            Ok(())
        }
        Err(e) => {
            // The transaction may have committed. Only used requests are reported again: an unused one that is reported
            // twice would be free twice.
            provider.put_back_reports(reports.into_iter().filter(|report| report.made_at.is_some()));
            Err(e)
        }
    }
}

async fn write_lease(
    hub: &Hub,
    provider: &str,
    limit: &RateLimit,
    wanted: u32,
    reports: &[PermitReport],
) -> Result<RateLimitGrant> {
    let mut tx = hub.store.begin_engine().await?;
    let mut booked = store::provider::lock_limit(&mut tx, provider, hub.clock.now()).await?;
    // The connection and the lock may have been waited for: what is taken may be made from now on, not from then.
    let now = hub.clock.now();
    booked.apply_reports(limit, reports);
    let taken = booked.take(limit, wanted, now);
    store::provider::update_limit(&mut *tx, provider, &booked, now).await?;
    if wanted > 0 && taken.granted == 0 {
        let detail = Some(format!("{} in {} s, {}", limit.count, limit.per.as_secs(), limit.strategy));
        let hold = ProviderOutage {
            provider: provider.to_owned(),
            reason: "limited".into(),
            began_at: now,
            ended_at: taken.next_free_at,
            detail,
        };
        store::provider::begin_outage(&mut *tx, &hold, now - limits::OUTAGES_MERGE).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Tells what became of all that was taken. `all`: nothing is kept in hand.
pub async fn report_grants(hub: &Hub, all: bool) -> Result<()> {
    for provider in hub.provider_states.iter().filter(|provider| provider.limit().is_some()) {
        let _leasing = provider.lease_turn.lock().await;
        if provider.expire_grants(if all { DateTime::<Utc>::MAX_UTC } else { hub.clock.now() }) {
            lease(hub, provider, 0).await?;
        }
    }
    Ok(())
}
