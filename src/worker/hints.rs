//! Hints between processes: what became ready here is told at most once per `PAUSE`, after its commit, and what others
//! tell wakes the loop here. Losing a hint costs latency, never a delivery.

use std::time::Duration;

use crate::hub::Hub;
use crate::limits;
use crate::model::watermark::Ready;
use crate::store::listen::{self, Hints, Shares};

/// At most a hundred hints a second from a process.
const PAUSE: Duration = Duration::from_millis(10);

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

pub fn start_listening(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        while !hub.shutdown.is_stopping() {
            if let Err(e) = listen_until_lost(&hub).await {
                tracing::debug!(error = %e, "hints cannot be heard; polling finds the work");
            }
            hub.shutdown.sleep(Duration::from_secs(1)).await;
        }
    });
}

/// Tells the other processes whom this one accepts much from.
pub async fn tell_shares(hub: Hub) -> crate::error::Result<bool> {
    let shares = hub.fairness().tell();
    if !shares.is_empty() {
        listen::tell_shares(&hub.store, hub.process, shares).await?;
    }
    Ok(false)
}

pub fn start_listening_to_shares(hub: &Hub) {
    let hub = hub.clone();
    hub.clone().shutdown.spawn(async move {
        while !hub.shutdown.is_stopping() {
            if let Err(e) = hear_shares_until_lost(&hub).await {
                tracing::debug!(error = %e, "what others accept cannot be heard; fairness is decided by what comes here");
            }
            hub.shutdown.sleep(Duration::from_secs(1)).await;
        }
    });
}

async fn hear_shares_until_lost(hub: &Hub) -> crate::error::Result<()> {
    let mut shares = Shares::open(&hub.store).await?;
    loop {
        let (from, heard) = tokio::select! {
            heard = shares.next() => heard?,
            () = hub.shutdown.stopping() => return Ok(()),
        };
        if from != hub.process {
            let (now, mut fairness) = (hub.clock.now(), hub.fairness());
            heard.into_iter().for_each(|share| fairness.heard(share, now, limits::FAIR_TELL_EVERY));
        }
    }
}

async fn listen_until_lost(hub: &Hub) -> crate::error::Result<()> {
    let mut hints = Hints::open(&hub.store).await?;
    loop {
        let heard = tokio::select! {
            heard = hints.next() => heard?,
            () = hub.shutdown.stopping() => return Ok(()),
        };
        match heard {
            Some(hint) if hint.from == hub.process => (),
            Some(hint) => hub.wake.heard(&hint.ready),
            // The connection was lost for a moment: something may have been said meanwhile.
            None => hub.wake.heard(&Ready { anywhere: true, ..Ready::default() }),
        }
    }
}
