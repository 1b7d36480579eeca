//! The floor: the throughput of the bare statements with a few clients and nothing around them. It shows what
//! PostgreSQL allows on this machine, and figures are also reported as a ratio to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::testbed::Testbed;
use crate::error::{Error, Result};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::{Outcome, OutcomeKind, next_transition};
use crate::model::lane::{Lane, Priority};
use crate::model::message::{Content, Detail, NewDelivery, NewMessage};
use crate::shutdown::Shutdown;
use crate::store::delivery::{ClaimRequest, EndedAttempt, Settle};
use crate::store::{self, message::NewMessageRow};

/// The message that measurements post.
pub fn example() -> NewMessage {
    NewMessage {
        client_msg_id: None,
        kind: "ORDER_COMPLETED".into(),
        priority: Priority::Normal,
        detail: Detail {
            title: Some("Order 2026-1234 completed".into()),
            contents: vec![Content {
                subject: Some("Order 2026-1234 completed".into()),
                body: "Thank you! Your order 2026-1234 is on its way and will be with you the day after tomorrow."
                    .into(),
                ..Content::default()
            }],
            metadata: serde_json::Map::from_iter([("orderId".to_owned(), "1234".into())]),
            erased: false,
        },
        deliveries: vec![NewDelivery::new(Channel::Email, "kim@example.com".into())],
        scheduled_at: None,
        expires_at: None,
    }
}

/// Measures messages a second when each of `clients` inserts one message per commit.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn single_inserts(bed: &Testbed, clients: u32, during: Duration) -> Result<f64> {
    let pool =
        store::Store::new(&bed.database_url, store::PoolSizes { api: 1, intake: clients, engine: 1, webhooks: 1 })?;
    let (shutdown, done, began) = (Shutdown::new(), Arc::new(AtomicU64::new(0)), Instant::now());
    let bed = Arc::new(FloorMessage::of(bed));
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (pool, done, bed) = (pool.clone(), done.clone(), bed.clone());
            shutdown.spawn(async move {
                while began.elapsed() < during {
                    store::message::insert_plain(pool.intake(), &[&bed.insert()], bed.hub.clock.now()).await?;
                    done.fetch_add(1, Ordering::Relaxed);
                }
                Ok::<(), Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|e| Error::Internal(e.to_string()))??;
    }
    let rate = done.load(Ordering::Relaxed) as f64 / began.elapsed().as_secs_f64();
    pool.close().await;
    Ok(rate)
}

/// The parts of the testbed that the tasks need.
struct FloorMessage {
    hub: crate::hub::Hub,
    partner: std::sync::Arc<crate::model::partner::Partner>,
}

impl FloorMessage {
    fn of(bed: &Testbed) -> FloorMessage {
        FloorMessage { hub: bed.hub.clone(), partner: bed.partner.clone() }
    }

    fn insert(&self) -> NewMessageRow {
        let message = example();
        NewMessageRow {
            message_id: self.hub.next_id(),
            detail: serde_json::to_string(&message.detail).unwrap_or_default(),
            partner_id: self.partner.partner_id,
            shard: self.partner.shard,
            fingerprint: [0; 32],
            key_hash: None,
            created_at: self.hub.clock.now(),
            max_attempts: vec![3],
            lanes: vec![Lane::new(Channel::Email, Priority::Normal, false)],
            webhook_message_id: self.hub.next_id(),
            webhook_lane: Lane::new(Channel::Webhook, Priority::Normal, false),
            message,
        }
    }
}

/// Measures deliveries a second through the claim and settle statements alone, by two clients with batches of 200.
/// `pending`: the number of deliveries that were made before.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn claim_and_settle(bed: &Testbed, pending: i64) -> Result<f64> {
    let (shutdown, done, began) = (Shutdown::new(), Arc::new(AtomicU64::new(0)), Instant::now());
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            let (hub, done, shard) = (bed.hub.clone(), done.clone(), bed.partner.shard);
            shutdown.spawn(async move {
                let worker = hub.next_id();
                let mut mark = chrono::DateTime::UNIX_EPOCH;
                loop {
                    let lane = Lane::new(Channel::Email, Priority::Normal, false);
                    let ask = ClaimRequest { shard, lane, watermark: mark, limit: 200, begins_recorded: false };
                    let db = hub.store.engine();
                    let claimed = store::delivery::claim(db, &[ask], 200, worker, Duration::from_secs(30)).await?;
                    let Some(last) = claimed.iter().map(|c| c.ready_at).max() else { return Ok::<(), Error>(()) };
                    mark = last.min(hub.clock.now() - chrono::TimeDelta::milliseconds(250));
                    let now = hub.clock.now();
                    let accepted = Outcome::Accepted { provider_ref: None };
                    let policy = hub.settings.retry.policy(Channel::Email, false);
                    let mut settles: Vec<Settle> = claimed
                        .into_iter()
                        .map(|c| Settle {
                            key: c.key,
                            lane: c.lane,
                            head: c.head,
                            step: next_transition(&c.head, &accepted, &policy, OnUnknown::Retry, now, 0.0),
                            provider: Some("noop".into()),
                            ended_attempt: Some(EndedAttempt {
                                outcome: OutcomeKind::Accepted,
                                has_in_flight_row: false,
                                worker,
                                claimed_at: now,
                                called_at: Some(now),
                                code: None,
                                detail: None,
                                provider_ref: None,
                            }),
                            event_message_id: hub.next_id(),
                            receipt_due: None,
                            suspect: None,
                            partner_id: None,
                            release_limit: 0,
                        })
                        .collect();
                    settles.sort_by_key(|s| s.key);
                    let won = store::delivery::settle_sends(db, &settles.iter().collect::<Vec<_>>(), now).await?;
                    done.fetch_add(won.len() as u64, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.map_err(|e| Error::Internal(e.to_string()))??;
    }
    let settled = done.load(Ordering::Relaxed) as f64;
    if (settled as i64) < pending {
        return Err(Error::Internal(format!("the floor settled {settled} of {pending}")));
    }
    Ok(settled / began.elapsed().as_secs_f64())
}
