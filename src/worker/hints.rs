//! Hints between processes: what became ready here is told at most once per `PAUSE`, after its commit, and what others
//! tell wakes the loop here. Losing a hint costs latency, never a delivery.

use std::time::Duration;

use tokio::time::Instant;

use crate::hub::Hub;
use crate::limits;
use crate::model::watermark::Ready;
use crate::store::listen::{self, Listener, Notification, Topic};

/// At most a hundred hints a second from a process.
const PAUSE: Duration = Duration::from_millis(10);
/// What changed is read at once, and what changes right after it so much later: any login that may enqueue can say that
/// something changed, as often as it likes.
const CHANGES_APART: Duration = Duration::from_millis(100);

pub fn start_telling(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = hub.wake.elsewhere_notify.notified() => (),
                () = hub.shutdown.stopping() => return,
            }
            let ready = hub.wake.take_elsewhere();
            if ready.places.is_empty() {
                continue;
            }
            if let Err(e) = listen::hint(&hub.store, hub.process, &ready).await {
                tracing::debug!(error = %e, "a hint could not be told; polling finds the work");
            }
            hub.shutdown.sleep(PAUSE).await;
        }
    });
}

/// Hears what other processes say of these topics.
pub fn start_listening(hub: &Hub, topics: Vec<Topic>) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        while !hub.shutdown.is_stopping() {
            if let Err(e) = listen_until_lost(&hub, &topics).await {
                tracing::debug!(error = %e, "notices cannot be heard; polling finds the work");
            }
            hub.shutdown.sleep(Duration::from_secs(1)).await;
        }
    });
}

async fn listen_until_lost(hub: &Hub, topics: &[Topic]) -> crate::error::Result<()> {
    let mut notices = Listener::open(&hub.store, topics).await?;
    // What was said before we listened was missed.
    let mut heard = Notification::Missed;
    // The first notice shows a pooler that keeps no sessions; later ones a server that is not the writers' any more.
    let mut called = true;
    // When what changed is read, and when it was read last.
    let (mut read_at, mut read_last) = (None::<Instant>, None::<Instant>);
    listen::call_self(&hub.store, hub.process).await?;
    loop {
        match heard {
            // Every process knows its own voice.
            Notification::Ready { from, .. } | Notification::Shares { from, .. } if from == hub.process => (),
            Notification::Ready { ready, .. } => hub.wake.heard(&ready),
            Notification::Shares { shares, .. } => {
                let (now, mut fairness) = (hub.clock.now(), hub.fairness());
                shares.into_iter().for_each(|share| fairness.heard(share, now, limits::FAIR_TELL_EVERY));
            }
            Notification::Proof => (),
            Notification::Changed => {
                let soonest = read_last.map(|last| last + CHANGES_APART);
                read_at = read_at.or(Some(soonest.unwrap_or_else(Instant::now)));
            }
            Notification::Missed => {
                hub.accounts.forget();
                hub.wake.heard(&Ready { anywhere: true, ..Ready::default() });
            }
        }
        heard = loop {
            tokio::select! {
                heard = notices.next() => break heard?,
                () = sleep_until(read_at) => {
                    read_changes(hub).await;
                    (read_at, read_last) = (None, Some(Instant::now()));
                    continue;
                }
                () = tokio::time::sleep(limits::LISTEN_PROVEN_EVERY) => (),
                () = hub.shutdown.stopping() => return Ok(()),
            }
            if called {
                tracing::warn!(
                    "notices of other processes cannot be heard: this process does not hear its own. Between it and \
                     PostgreSQL may stand a pooler in transaction mode; deliveries are found by polling, later"
                );
                return Ok(());
            }
            called = true;
            listen::call_self(&hub.store, hub.process).await?;
        };
        called = false;
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

async fn read_changes(hub: &Hub) {
    hub.accounts.forget();
    if let Err(e) = crate::flow::delivery::breaker::refresh(hub).await {
        tracing::debug!(error = %e, "what became of providers could not be read; it is within a second");
    }
    if let Err(e) = crate::flow::sign_in::read_keys(hub).await {
        tracing::warn!(error = %e, "signing keys could not be read; it is tried again within a minute");
    }
}

/// Tells the other processes whom this one accepts much from.
pub async fn tell_shares(hub: Hub) -> crate::error::Result<bool> {
    let shares = hub.fairness().tell();
    if !shares.is_empty() {
        listen::tell_shares(&hub.store, hub.process, shares).await?;
    }
    Ok(false)
}
