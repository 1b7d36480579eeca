//! Limits: a process leases grants (permissions to make one request) from a provider's rate limit ahead of the calls,
//! and later reports which of them it used. All processes share the limit in the database; a call waits for the
//! database only while no grant is left.

use chrono::{DateTime, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::provider_state::ProviderState;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::limit::{PermitReport, RateLimit, RateLimitGrant};
use crate::store;
use crate::store::provider::ProviderOutage;

/// Leases grants for up to `wanted` deliveries of a channel that are about to be claimed, from each of its providers
/// that has a limit and no grant left. Returns at once where another task leases already: it leases for all.
///
/// # Errors
/// `Error::Unavailable` if the database fails. Grants that were leased all the same expire unused.
pub async fn lease_ahead(hub: &Hub, channel: Channel, wanted: i64) -> Result<()> {
    for provider in hub.provider_states.of(channel) {
        let Some(limit) = provider.limit() else { continue };
        let short = provider.needs_grants(hub.clock.now());
        // The task that leases already leases for all.
        let Some(_turn) = provider.lease_turn.try_lock().ok().filter(|_| short) else { continue };
        lease(hub, provider, u32::try_from(wanted).unwrap_or(u32::MAX).min(limit.chunk_size())).await?;
    }
    Ok(())
}

/// Leases one grant for a claimed delivery. Returns until when it is valid; None if the limit is used up.
///
/// # Errors
/// `Error::Unavailable` if the database fails. A grant that was leased all the same expires unused.
pub async fn lease_one(hub: &Hub, provider: &ProviderState) -> Result<Option<DateTime<Utc>>> {
    let _turn = provider.lease_turn.lock().await;
    let now = hub.clock.now();
    if let Some(until) = provider.take_grant(now) {
        return Ok(Some(until));
    }
    if provider.may_lease(now) {
        lease(hub, provider, 1).await?;
    }
    // The lease may have taken so long that the grant expired.
    Ok(provider.take_grant(hub.clock.now()))
}

/// Leases from a provider's limit, and reports the grants leased before.
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
    // Read after the wait for the connection and the lock: the grants are valid from now on.
    let now = hub.clock.now();
    booked.apply_reports(limit, reports);
    let taken = booked.take(limit, wanted, now);
    store::provider::update_limit(&mut *tx, provider, &booked, now).await?;
    if wanted > 0 && taken.granted == 0 {
        let detail = Some(format!("{} in {} s, {}", limit.count, limit.per.as_secs(), limit.strategy));
        let outage = ProviderOutage {
            provider: provider.to_owned(),
            reason: "limited".into(),
            began_at: now,
            ended_at: taken.next_free_at,
            detail,
        };
        store::provider::begin_outage(&mut *tx, &outage, now - limits::OUTAGES_MERGE).await?;
    }
    tx.commit().await?;
    Ok(taken)
}

/// Reports used and expired grants to the database; with `all` also those that are still valid, which are then gone.
///
/// # Errors
/// `Error::Unavailable` if the database fails. Used grants are reported again next time.
pub async fn report_grants(hub: &Hub, all: bool) -> Result<()> {
    for provider in hub.provider_states.iter().filter(|provider| provider.limit().is_some()) {
        let _turn = provider.lease_turn.lock().await;
        if provider.expire_grants(if all { DateTime::<Utc>::MAX_UTC } else { hub.clock.now() }) {
            lease(hub, provider, 0).await?;
        }
    }
    Ok(())
}
