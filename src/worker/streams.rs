//! The loops of streams: hints to other processes, the reader of streams that are due, and the sweep that finds what no
//! hint named. A process without live connections only sends hints, and only after changes.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::error::Result;
use crate::flow;
use crate::flow::watch::WatchPosition;
use crate::hub::Hub;
use crate::limits;
use crate::store;
use crate::store::listen;

use super::driver::{Period, repeat};

/// Starts the task that sends hints of this process's commits to other processes. A hint that cannot be sent is
/// dropped: their sweeps find the same.
pub fn start_hints(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = hub.streams.for_others_notify.notified() => (),
                () = hub.shutdown.stopping() => return,
            }
            let hints = hub.streams.take_for_others();
            if hints.heads.is_empty() {
                continue;
            }
            if let Err(e) = listen::notify_streams(&hub.store, hub.process, &hints).await {
                tracing::debug!(
                    error = %e,
                    "a hint about streams could not be sent to other processes; their sweeps find what it named"
                );
            }
            hub.shutdown.sleep(limits::STREAM_HINT_PAUSE).await;
        }
    });
}

/// Starts the task that sends live notes of this process to others. What cannot be sent is dropped.
pub fn start_live_notes(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = hub.live_notes.for_others_notify.notified() => (),
                () = hub.shutdown.stopping() => return,
            }
            let notes = hub.live_notes.take_for_others();
            if !notes.is_empty()
                && let Err(e) = listen::notify_live(&hub.store, hub.process, &notes).await
            {
                tracing::debug!(error = %e, "live notes could not be sent to other processes; they are dropped");
            }
            hub.shutdown.sleep(limits::LIVE_NOTES_EVERY).await;
        }
    });
}

/// Starts the loop that writes the marks of rooms' members.
pub fn start_marks(hub: &Hub) {
    repeat(hub, "marks", Period::every(limits::MARKS_EVERY), write_marks);
}

async fn write_marks(hub: Hub) -> Result<bool> {
    flow::room::mark::write_waiting(&hub).await
}

/// Starts the readers and the sweep, for a process that has live connections.
pub fn start_reading(hub: &Hub) {
    let position = Arc::new(Mutex::new(WatchPosition::default()));
    repeat(hub, "watched messages", Period::every(limits::WATCH_MESSAGES_EVERY), move |hub| {
        watch_messages(hub, position.clone())
    });
    repeat(hub, "connections", Period::every(limits::CONNECTIONS_EVERY), record_connections);
    repeat(hub, "stream sweep", Period::every(limits::SWEEP_EVERY), sweep);
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        loop {
            tokio::select! {
                () = hub.streams.due_notify.notified() => (),
                () = hub.shutdown.stopping() => return,
            }
            // One round is under way; all that becomes due meanwhile is read by the next.
            loop {
                match flow::stream::send_due(&hub).await {
                    Ok(true) => (),
                    Ok(false) => break,
                    Err(e) => {
                        tracing::warn!(error = %e, "streams could not be read; they are read again");
                        if !hub.shutdown.sleep(Duration::from_millis(500)).await {
                            return;
                        }
                    }
                }
            }
        }
    });
}

/// Lets snoozed items arrive again.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the items stay hidden until the next run.
pub async fn wake_snoozed(hub: Hub) -> Result<bool> {
    let shards = store::partner::shards(hub.store.engine()).await?;
    flow::inbox::wake_snoozed(&hub, &shards).await
}

async fn watch_messages(hub: Hub, position: Arc<Mutex<WatchPosition>>) -> Result<bool> {
    flow::watch::send_news(&hub, &mut *position.lock().await).await?;
    Ok(false)
}

async fn record_connections(hub: Hub) -> Result<bool> {
    flow::presence::record(&hub).await?;
    flow::presence::show_offline(&hub).await
}

async fn sweep(hub: Hub) -> Result<bool> {
    flow::stream::sweep(&hub).await?;
    Ok(false)
}
