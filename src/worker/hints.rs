//! Notifications between processes, by LISTEN and NOTIFY. Hints about deliveries that became ready here are sent after
//! their commit, at most one notification per `PAUSE`; hints of other processes wake the claiming loops here. A lost
//! hint costs latency, never a delivery.

use std::time::Duration;

use tokio::time::Instant;

use crate::hub::Hub;
use crate::limits;
use crate::model::stream::StreamHints;
use crate::model::watermark::ReadyHints;
use crate::store::listen::{self, Listener, Notification, Topic};

/// Pause between two hints: at most a hundred a second from a process.
const PAUSE: Duration = Duration::from_millis(10);
/// Least pause between two reads of changed settings: any database login that may enqueue can send the notification, as
/// often as it likes.
const CHANGES_APART: Duration = Duration::from_millis(100);

/// Starts the task that sends hints to other processes.
pub fn start_sending(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = hub.wake.for_others_notify.notified() => (),
                () = hub.shutdown.stopping() => return,
            }
            let ready = hub.wake.take_for_others();
            if ready.places.is_empty() {
                continue;
            }
            if let Err(e) = listen::notify_ready(&hub.store, hub.process, &ready).await {
                tracing::debug!(error = %e, "a hint could not be sent to other processes; polling finds the work");
            }
            hub.shutdown.sleep(PAUSE).await;
        }
    });
}

/// Starts the task that listens to other processes on these topics. It connects again a second after it lost the
/// connection.
pub fn start_listening(hub: &Hub, topics: Vec<Topic>) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        while !hub.shutdown.is_stopping() {
            if let Err(e) = listen_until_lost(&hub, &topics).await {
                tracing::debug!(
                    error = %e,
                    "notifications of other processes cannot be received; polling finds the work"
                );
            }
            hub.shutdown.sleep(Duration::from_secs(1)).await;
        }
    });
}

async fn listen_until_lost(hub: &Hub, topics: &[Topic]) -> crate::error::Result<()> {
    let mut listener = Listener::open(&hub.store, topics).await?;
    // Notifications sent before LISTEN were missed.
    let mut notification = Notification::Missed;
    // A notification to ourselves is outstanding. The first one reveals a pooler that keeps no sessions; later ones a
    // server that is no longer the one written to.
    let mut called_self = true;
    // When changed settings are to be read, and when they were last read.
    let (mut read_at, mut read_last) = (None::<Instant>, None::<Instant>);
    listen::notify_self(&hub.store, hub.process).await?;
    loop {
        match notification {
            // Sent by this process.
            Notification::Ready { from, .. }
            | Notification::Shares { from, .. }
            | Notification::Streams { from, .. }
            | Notification::Live { from, .. }
                if from == hub.process => {}
            Notification::Streams { hints, .. } => {
                hub.streams.note_here(&hints);
            }
            Notification::Live { notes, .. } => notes.into_iter().for_each(|note| hub.live_notes.note_here(note)),
            Notification::Ready { ready, .. } => hub.wake.notify_here(&ready),
            Notification::Shares { shares, .. } => {
                let (now, mut fairness) = (hub.clock.now(), hub.fairness());
                shares.into_iter().for_each(|share| fairness.add_remote(share, now, limits::FAIR_TELL_EVERY));
            }
            Notification::Echo => (),
            Notification::Users(users) if users.is_empty() => {
                hub.users.forget_all();
                hub.streams.end_all();
            }
            // Their streams end: clients resume them, if their tokens are still valid.
            Notification::Users(users) => users.into_iter().for_each(|user| {
                hub.users.forget(user);
                hub.streams.end_of_user(user);
            }),
            Notification::Changed => {
                let soonest = read_last.map(|last| last + CHANGES_APART);
                read_at = read_at.or(Some(soonest.unwrap_or_else(Instant::now)));
            }
            Notification::Missed => {
                hub.accounts.forget();
                hub.users.forget_all();
                hub.wake.notify_here(&ReadyHints { hints_lost: true, ..ReadyHints::default() });
                // Among the lost ones may be that a user is blocked: clients prove themselves, and resume.
                hub.streams.end_of_users();
                hub.streams.note_here(&StreamHints { hints_lost: true, ..StreamHints::default() });
            }
        }
        notification = loop {
            tokio::select! {
                notification = listener.next() => break notification?,
                () = sleep_until(read_at) => {
                    read_changes(hub).await;
                    (read_at, read_last) = (None, Some(Instant::now()));
                    continue;
                }
                () = tokio::time::sleep(limits::LISTEN_PROVEN_EVERY) => (),
                () = hub.shutdown.stopping() => return Ok(()),
            }
            if called_self {
                tracing::warn!(
                    "notifications of other processes cannot be received: this process does not receive its own. A \
                     pooler in transaction mode may stand between it and PostgreSQL; polling finds deliveries, later"
                );
                return Ok(());
            }
            called_self = true;
            listen::notify_self(&hub.store, hub.process).await?;
        };
        called_self = false;
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
        tracing::debug!(error = %e, "the states of providers could not be read; they are read again within a second");
    }
    if let Err(e) = crate::flow::sign_in::read_keys(hub).await {
        tracing::warn!(error = %e, "signing keys could not be read; they are read again within a minute");
    }
}

/// Sends to other processes how much each partner has posted here. Always returns false: there is no more to do.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the shares are lost, which makes fairness slower to react.
pub async fn send_shares(hub: Hub) -> crate::error::Result<bool> {
    let shares = hub.fairness().take_unreported();
    if !shares.is_empty() {
        listen::notify_shares(&hub.store, hub.process, shares).await?;
    }
    Ok(false)
}
