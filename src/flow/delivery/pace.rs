//! Pace: what one destination takes, by all processes together. Nothing is known, read or written of a destination
//! until it answers "too fast" or fails again and again; then each message sent there takes its turn in the database,
//! and the others wait without a call.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::paces::{Destination, DestinationLock};
use crate::limits;
use crate::model::breaker::{Verdict, verdict};
use crate::model::delivery::{Outcome, REASON_DESTINATION_PACED};
use crate::model::pace::{LimitScope, Pace};
use crate::provider::Account;
use crate::store;

fn destination(account: &Account, recipient: &str) -> Option<Destination> {
    let destination = match account.provider.limited_by() {
        LimitScope::Message => return None,
        LimitScope::Account => "",
        LimitScope::Destination | LimitScope::Endpoint => recipient,
    };
    Some((account.name().to_owned(), destination.to_owned()))
}

/// Whether a message may go to a recipient by this account now; else until when it waits.
pub fn check(hub: &Hub, account: &Account, recipient: &str, now: DateTime<Utc>) -> Result<(), Outcome> {
    if !any_paced(hub) {
        return Ok(());
    }
    destination(account, recipient).map_or(Ok(()), |place| hub.paces.check(&place, now))
}

/// Whether any destination has a pace.
pub fn any_paced(hub: &Hub) -> bool {
    hub.paces.any()
}

/// Takes the turn of a request that is made right after; what to settle instead where it has to wait.
///
/// A chat's destination answers one request at a time, so that one "too fast" tells all the others; one that answers
/// slowly is not waited for.
pub async fn take_turn(hub: &Hub, account: &Account, recipient: &str) -> Result<DestinationLock, Outcome> {
    let (limited_by, paces) = (account.provider.limited_by(), &hub.paces);
    if limited_by != LimitScope::Destination && !any_paced(hub) {
        return Ok(None);
    }
    let Some(place) = destination(account, recipient) else { return Ok(None) };
    let line = match limited_by {
        LimitScope::Destination => {
            tokio::time::timeout(limits::LINE_WAIT, paces.lock_of(&place).lock_owned()).await.ok()
        }
        LimitScope::Message | LimitScope::Account | LimitScope::Endpoint => None,
    };
    if !any_paced(hub) {
        return Ok(line);
    }
    let now = hub.clock.now();
    paces.check(&place, now)?;
    if limited_by == LimitScope::Account || !paces.has(&place) {
        return Ok(line);
    }
    let answer_within = hub.settings.timing.call_budget();
    match Box::pin(store::pace::take_turn(hub.store.engine(), &place.0, &place.1, now, answer_within)).await {
        Ok(Some(pace)) => {
            paces.set(place, pace);
            Ok(line)
        }
        // Another process took it.
        Ok(None) => {
            let _what_is_known_now = refresh(hub).await;
            paces.check(&place, now)?;
            Err(Outcome::deferred(now + TimeDelta::seconds(1), REASON_DESTINATION_PACED))
        }
        Err(e) => {
            tracing::warn!(provider = place.0, error = %e, "whether its destination may be called is not known");
            Err(Outcome::Postponed)
        }
    }
}

/// Slows a destination down that asks for it, and leaves one of a chat alone that fails again and again.
pub async fn record_outcomes(
    hub: &Hub,
    account: &Account,
    recipient: &str,
    called_at: DateTime<Utc>,
    outcomes: &[Outcome],
) {
    let (limited_by, now) = (account.provider.limited_by(), hub.clock.now());
    let asked = outcomes.iter().filter_map(|outcome| Pace::from_outcome(outcome, limited_by, now));
    let asked = asked.max_by_key(|pace| pace.next_at);
    let said = if limited_by == LimitScope::Destination { verdict(outcomes) } else { Verdict::NoEvidence };
    if asked.is_none() && said == Verdict::NoEvidence {
        return;
    }
    if said == Verdict::Healthy && !any_paced(hub) {
        return hub.paces.record_success(account.name(), recipient, now);
    }
    let Some(place) = destination(account, recipient) else { return };
    if let Some(asked) = asked {
        let written = store::pace::slow_down(hub.store.engine(), &place.0, &place.1, asked, now).await;
        tracing::info!(
            provider = place.0, destination = place.1, until = %asked.next_at,
            "a destination takes no more for now; what is for it waits"
        );
        publish_pace(hub, place, asked, written).await;
    } else {
        judge(hub, place, said, called_at, now).await;
    }
}

/// What an answer says of a destination that is a server of its own.
async fn judge(hub: &Hub, place: Destination, said: Verdict, called_at: DateTime<Utc>, now: DateTime<Utc>) {
    let (paces, engine) = (&hub.paces, hub.store.engine());
    let troubles = paces.failures(&place);
    match said {
        Verdict::NoEvidence => (),
        Verdict::Healthy if troubles == 0 => paces.record_success(&place.0, &place.1, now),
        Verdict::Healthy => {
            let written = store::pace::record_recovery(engine, &place.0, &place.1, now).await;
            tracing::info!(provider = place.0, destination = place.1, "a destination that failed works again");
            let pace = Pace { next_at: now, interval: Duration::ZERO, failures: 0 };
            paces.record_success(&place.0, &place.1, now);
            publish_pace(hub, place, pace, written.map(|()| pace)).await;
        }
        Verdict::Failing(_) | Verdict::Refusing(_) if troubles == 0 && !paces.record_failure(&place, called_at) => (),
        Verdict::Failing(reason) | Verdict::Refusing(reason) => {
            let pace = Pace::after_failures(troubles.saturating_add(1), now, rand::random());
            // Calls that hung together fail together: that is one failure.
            let written = match store::pace::record_failure(engine, &place.0, &place.1, pace, called_at, now).await {
                Ok(None) => return,
                Ok(Some(pace)) => Ok(pace),
                Err(e) => Err(e),
            };
            tracing::warn!(
                provider = place.0, destination = place.1, reason, until = %pace.next_at,
                "a destination fails again and again; what is for it waits"
            );
            publish_pace(hub, place, pace, written).await;
        }
    }
}

/// Learns a pace as it was written, and tells the other processes.
async fn publish_pace(hub: &Hub, place: Destination, wanted: Pace, written: Result<Pace>) {
    let pace = written.unwrap_or_else(|e| {
        tracing::warn!(provider = place.0, error = %e, "a pace could not be written; this process alone keeps it");
        wanted
    });
    hub.paces.set(place, pace);
    if let Err(e) = store::listen::notify_changed(&hub.store).await {
        tracing::debug!(error = %e, "other processes are not told at once: they look each second");
    }
}

/// Reads what all processes know.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: what was known before holds.
pub async fn refresh(hub: &Hub) -> Result<()> {
    let now = hub.clock.now();
    hub.paces.replace(store::pace::list(hub.store.engine(), now).await?, now);
    Ok(())
}
