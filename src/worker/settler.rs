//! Settlers: the tasks that write outcomes in batches.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, mpsc};

use super::slots::Slot;
use crate::error::{Error, Unavailable, UnavailableKind};
use crate::flow::delivery::settle::settle;
use crate::hub::Hub;
use crate::limits;
use crate::store::delivery::Settle;

/// Tasks that write outcomes: one writes a batch while another's commit waits for the disk.
const SETTLERS: usize = 2;

/// Starts the tasks that write the outcomes sent to the returned queue. They end after its last sender.
pub(super) fn start(hub: &Hub) -> mpsc::Sender<(Settle, Slot)> {
    let (settles, settled) = mpsc::channel(limits::SETTLE_BATCH * 2);
    let settled = Arc::new(Mutex::new(settled));
    for _ in 0..SETTLERS {
        hub.shutdown.spawn(settle_all(hub.clone(), settled.clone()));
    }
    settles
}

/// Writes outcomes, as many at once as have arrived meanwhile. A full queue holds the calls back.
async fn settle_all(hub: Hub, settled: Arc<Mutex<mpsc::Receiver<(Settle, Slot)>>>) {
    let mut waiting: Vec<(Settle, Slot)> = Vec::new();
    loop {
        if waiting.is_empty() && settled.lock().await.recv_many(&mut waiting, limits::SETTLE_BATCH).await == 0 {
            return;
        }
        // Two outcomes of one delivery (a late one and that of the next attempt) go into two batches.
        let mut keys = HashSet::new();
        let (now, later): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|(s, _)| keys.insert(s.key));
        waiting = later;
        let (batch, slots): (Vec<Settle>, Vec<Slot>) = now.into_iter().unzip();
        settle_with_retries(&hub, batch).await;
        drop(slots);
    }
}

/// Settles a batch and retries until it is written: an outcome that comes after its lease is over is still kept on its
/// attempt. Only a stopping process gives up, once the leases are over; the reaper then takes the deliveries back.
pub(super) async fn settle_with_retries(hub: &Hub, batch: Vec<Settle>) {
    let began = Instant::now();
    let mut pause = Duration::from_millis(20);
    loop {
        match settle(hub, batch.clone()).await {
            Ok(()) => return,
            Err(Error::Unavailable(Unavailable { why, .. }))
                if !hub.shutdown.is_stopping() || began.elapsed() < hub.settings.timing.lease() =>
            {
                tracing::warn!(why, steps = batch.len(), "outcomes could not be written; the write is tried again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
            Err(e) if batch.len() > 1 && (!matches!(e, Error::Unavailable(_)) || is_row_locked(&e)) => {
                tracing::error!(
                    error = %e, steps = batch.len(),
                    "a batch of outcomes was refused; each is tried alone"
                );
                for settle in batch {
                    Box::pin(settle_with_retries(hub, vec![settle])).await;
                }
                return;
            }
            Err(e) => {
                tracing::error!(
                    error = %e, steps = batch.len(),
                    "outcomes could not be written; the reaper takes the deliveries back when their leases end"
                );
                return;
            }
        }
    }
}

/// Whether another transaction held a row lock for longer than the lock timeout: the rest of the batch need not wait.
fn is_row_locked(e: &Error) -> bool {
    matches!(e, Error::Unavailable(Unavailable { kind: UnavailableKind::Locked, .. }))
}
