//! Pace: the rate that one destination (a recipient, or a provider's account) accepts, shared by all processes. A
//! destination has no pace until it answers "too fast" or fails repeatedly. Then each message to it takes a turn in the
//! database, and the others are deferred without a call.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::error::Result;
use crate::hub::Hub;
use crate::hub::paces::{Destination, DestinationLock};
use crate::limits;
use crate::model::breaker::{self, Verdict};
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

/// Checks whether a message may go to a recipient by this account at `now`, from memory only.
///
/// # Errors
/// The outcome to settle instead: deferred to the next free slot.
pub fn check(hub: &Hub, account: &Account, recipient: &str, now: DateTime<Utc>) -> Result<(), Outcome> {
    if !any_paced(hub) {
        return Ok(());
    }
    destination(account, recipient).map_or(Ok(()), |destination| hub.paces.check(&destination, now))
}

/// Returns whether any destination has a pace.
pub fn any_paced(hub: &Hub) -> bool {
    hub.paces.any()
}

/// Takes the turn of a request that is made right after. The returned lock is held until the answer is recorded.
///
/// Chat destinations get one request at a time, so that one "too fast" holds back all others; the lock is waited for at
/// most `limits::LINE_WAIT`, then the request goes without it.
///
/// # Errors
/// The outcome to settle instead: deferred to the next free slot, or postponed if the database fails.
pub async fn take_turn(hub: &Hub, account: &Account, recipient: &str) -> Result<DestinationLock, Outcome> {
    let (limited_by, paces) = (account.provider.limited_by(), &hub.paces);
    if limited_by != LimitScope::Destination && !any_paced(hub) {
        return Ok(None);
    }
    let Some(destination) = destination(account, recipient) else { return Ok(None) };
    let line = match limited_by {
        LimitScope::Destination => {
            tokio::time::timeout(limits::LINE_WAIT, paces.lock_of(&destination).lock_owned()).await.ok()
        }
        LimitScope::Message | LimitScope::Account | LimitScope::Endpoint => None,
    };
    if !any_paced(hub) {
        return Ok(line);
    }
    let now = hub.clock.now();
    paces.check(&destination, now)?;
    if limited_by == LimitScope::Account || !paces.has(&destination) {
        return Ok(line);
    }
    let answer_within = hub.settings.timing.call_budget();
    match Box::pin(store::pace::take_turn(hub.store.engine(), &destination.0, &destination.1, now, answer_within)).await
    {
        Ok(Some(pace)) => {
            paces.set(destination, pace);
            Ok(line)
        }
        // Another process took the turn.
        Ok(None) => {
            let _stale_if_failed = refresh(hub).await;
            paces.check(&destination, now)?;
            Err(Outcome::deferred(now + TimeDelta::seconds(1), REASON_DESTINATION_PACED))
        }
        Err(e) => {
            tracing::warn!(
                provider = destination.0, error = %e,
                "the pace of a destination could not be read; its delivery is postponed"
            );
            Err(Outcome::Postponed)
        }
    }
}

/// Records the outcomes of a request that began at `called_at`: a destination that answered "too fast" gets a slower
/// pace, and a chat destination that fails repeatedly gets a pause. Call it before the destination's lock is released.
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
    let verdict = if limited_by == LimitScope::Destination { breaker::verdict(outcomes) } else { Verdict::NoEvidence };
    if asked.is_none() && verdict == Verdict::NoEvidence {
        return;
    }
    if verdict == Verdict::Healthy && !any_paced(hub) {
        return hub.paces.record_success(account.name(), recipient, now);
    }
    let Some(destination) = destination(account, recipient) else { return };
    if let Some(asked) = asked {
        let written = store::pace::slow_down(hub.store.engine(), &destination.0, &destination.1, asked, now).await;
        tracing::info!(
            provider = destination.0, destination = destination.1, until = %asked.next_at,
            "a destination takes no more messages for now; deliveries to it wait"
        );
        publish_pace(hub, destination, asked, written).await;
    } else {
        judge(hub, destination, verdict, called_at, now).await;
    }
}

/// Records the verdict on a destination that is a server of its own.
async fn judge(hub: &Hub, destination: Destination, verdict: Verdict, called_at: DateTime<Utc>, now: DateTime<Utc>) {
    let (paces, engine) = (&hub.paces, hub.store.engine());
    let failures = paces.failures(&destination);
    match verdict {
        Verdict::NoEvidence => (),
        Verdict::Healthy if failures == 0 => paces.record_success(&destination.0, &destination.1, now),
        Verdict::Healthy => {
            let written = store::pace::record_recovery(engine, &destination.0, &destination.1, now).await;
            tracing::info!(
                provider = destination.0,
                destination = destination.1,
                "a destination that failed repeatedly works again"
            );
            let pace = Pace { next_at: now, interval: Duration::ZERO, failures: 0 };
            paces.record_success(&destination.0, &destination.1, now);
            publish_pace(hub, destination, pace, written.map(|()| pace)).await;
        }
        Verdict::Failing(_) | Verdict::Refusing(_)
            if failures == 0 && !paces.record_failure(&destination, called_at) => {}
        Verdict::Failing(reason) | Verdict::Refusing(reason) => {
            let pace = Pace::after_failures(failures.saturating_add(1), now, rand::random());
            // Calls that hung at the same time fail at the same time; they count as one failure.
            let written =
                match store::pace::record_failure(engine, &destination.0, &destination.1, pace, called_at, now).await {
                    Ok(None) => return,
                    Ok(Some(pace)) => Ok(pace),
                    Err(e) => Err(e),
                };
            tracing::warn!(
                provider = destination.0, destination = destination.1, reason, until = %pace.next_at,
                "a destination fails repeatedly; deliveries to it wait"
            );
            publish_pace(hub, destination, pace, written).await;
        }
    }
}

/// Takes over a pace as it was written, or as it was to be written, and notifies the other processes.
async fn publish_pace(hub: &Hub, destination: Destination, wanted: Pace, written: Result<Pace>) {
    let pace = written.unwrap_or_else(|e| {
        tracing::warn!(
            provider = destination.0, error = %e,
            "the pace of a destination could not be written; only this process keeps it"
        );
        wanted
    });
    hub.paces.set(destination, pace);
    if let Err(e) = store::listen::notify_changed(&hub.store).await {
        tracing::debug!(error = %e, "other processes could not be notified; they read the change within a second");
    }
}

/// Reads the paces of all destinations.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the paces known before stay.
pub async fn refresh(hub: &Hub) -> Result<()> {
    let now = hub.clock.now();
    hub.paces.replace(store::pace::list(hub.store.engine(), now).await?, now);
    Ok(())
}
