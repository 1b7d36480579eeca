//! Background loops. `start` is the table of all of them; a new loop is one line there and one function in `flow`.

pub mod deliver;
pub mod driver;
pub mod hints;
mod settler;
mod slots;
pub mod streams;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};

use crate::error::Result;
use crate::flow::{self, delivery};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::Channel;
use crate::provider::Account;
use crate::store;
use crate::store::listen::Topic;

use driver::{Period, repeat};

/// The part of the work that a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Answers requests. Runs the loops that intake needs: clock, partitions, statistics, hints, keys.
    Api,
    /// Delivers messages.
    Worker,
    /// Answers requests and delivers messages.
    Both,
}

/// Starts the loops of this process as tasks. They end when the hub's shutdown begins to stop.
pub fn start(hub: &Hub, role: Role) {
    let every = Period::every;
    repeat(hub, "clock", every(Duration::from_secs(30)), calibrate);
    repeat(hub, "server", every(limits::SERVER_LOOK_EVERY), keep_server);
    repeat(hub, "retain", every(Duration::from_secs(3600)), retain);
    repeat(hub, "rollup", every(limits::ROLLUP_EVERY), rollup);
    hints::start_sending(hub);
    streams::start_hints(hub);
    // Workers accept messages, too: those enqueued in SQL.
    repeat(hub, "fairness", every(limits::FAIR_LOOK_EVERY), check_fairness);
    repeat(hub, "shares", every(limits::FAIR_TELL_EVERY), hints::send_shares);
    let mut topics = vec![Topic::Shares, Topic::Changed, Topic::Users, Topic::Echo];
    if role != Role::Api {
        topics.push(Topic::Ready);
    }
    if role != Role::Worker {
        topics.extend([Topic::Streams, Topic::Live]);
        streams::start_reading(hub);
        streams::start_marks(hub);
        streams::start_live_notes(hub);
    }
    hints::start_listening(hub, topics);
    if role != Role::Worker {
        repeat(hub, "keys", every(Duration::from_secs(60)), keys);
    }
    if role == Role::Api {
        return;
    }
    let timing = &hub.settings.timing;
    let worker = hub.next_id();
    let (reaper, promoter, sweeper) = (Stateful::default(), Stateful::default(), Stateful::default());
    let (relayer, leaver) = (Stateful::default(), Stateful::default());
    deliver::start(hub, worker);
    repeat(hub, "reap", every(Duration::from_millis(timing.reap_every_ms)), move |hub| reap(hub, reaper.clone()));
    repeat(hub, "promote", every(Duration::from_millis(timing.promote_every_ms)), move |hub| {
        promote(hub, promoter.clone())
    });
    let slots = |channel| (channel, Arc::new(Semaphore::new(flow::channel::suspects_at_once(channel))));
    let slots_by_channel = Arc::new(hub.providers.channels().into_iter().map(slots).collect::<Vec<_>>());
    repeat(hub, "suspects", every(limits::SUSPECTS_EVERY), move |hub| suspects(hub, worker, slots_by_channel.clone()));
    repeat(hub, "snoozed", every(limits::SNOOZED_EVERY), streams::wake_snoozed);
    repeat(hub, "sweep", every(Duration::from_secs(10)), move |hub| sweep(hub, sweeper.clone()));
    repeat(hub, "relay", every(limits::RELAY_EVERY), move |hub| relay(hub, relayer.clone()));
    repeat(hub, "release", every(limits::RELEASE_EVERY), release);
    let stalled = Stateful::default();
    repeat(hub, "sequences", every(limits::SEQUENCES_EVERY), move |hub| restart_stalled(hub, stalled.clone()));
    repeat(hub, "erase users", every(limits::ERASE_USERS_EVERY), move |hub| erase_users(hub, worker));
    repeat(hub, "redrive", every(limits::REDRIVE_EVERY), redrive);
    repeat(hub, "complete", every(limits::COMPLETE_EVERY), complete);
    repeat(hub, "receipts", every(limits::RECEIPT_EVERY), |hub: Hub| async move { flow::receipt::apply(&hub).await });
    repeat(hub, "overdue", every(limits::OVERDUE_EVERY), move |hub| overdue(hub, leaver.clone()));
    for account in hub.providers.iter().filter(|a| a.provider.poll_receipts(None, hub.clock.now()).is_some()) {
        let account = account.clone();
        repeat(hub, "poll", every(limits::POLL_EVERY), move |hub| poll(hub, account.clone()));
    }
    repeat(hub, "note answers", every(limits::NOTE_ANSWERS_EVERY), note_answers);
    repeat(hub, "watch", every(limits::WATCH_EVERY), watch);
    if let Some(every_s) = hub.settings.work.fsck_every_s {
        let check = Arc::new(Mutex::new(flow::fsck::Watch::new(limits::FSCK_HORIZON)));
        repeat(hub, "fsck", every(Duration::from_secs(u64::from(every_s))), move |hub| {
            fsck(hub, worker, check.clone())
        });
    }
    repeat(hub, "depth", every(Duration::from_secs(10)), measure_queues);
    repeat(hub, "traffic", every(limits::TRAFFIC_EVERY), refresh_traffic);
    repeat(hub, "heartbeat", every(Duration::from_secs(5)), move |hub| heartbeat(hub, worker));
}

/// State that a loop keeps between its runs.
type Stateful<T> = Arc<Mutex<T>>;

/// Switches to another of several database servers when the chosen one is lost.
async fn keep_server(hub: Hub) -> Result<bool> {
    hub.store.keep_server().await?;
    Ok(false)
}

async fn retain(hub: Hub) -> Result<bool> {
    flow::retain::retain(&hub).await?;
    Ok(false)
}

async fn keys(hub: Hub) -> Result<bool> {
    flow::sign_in::maintain_keys(&hub).await?;
    Ok(false)
}

async fn rollup(hub: Hub) -> Result<bool> {
    flow::rollup::rollup(&hub).await
}

async fn reap(hub: Hub, reaper: Stateful<delivery::reap::Reaper>) -> Result<bool> {
    let shards = store::partner::shards(hub.store.engine()).await?;
    Ok(delivery::reap::reap(&hub, &mut *reaper.lock().await, &shards).await? == limits::HOUSEKEEPING_BATCH as usize)
}

async fn promote(hub: Hub, promoter: Stateful<delivery::promote::Promoter>) -> Result<bool> {
    let shards = store::partner::shards(hub.store.engine()).await?;
    let promoted = delivery::promote::promote(&hub, &mut *promoter.lock().await, &shards).await?;
    Ok(promoted == limits::HOUSEKEEPING_BATCH as usize)
}

/// Delivers suspects, each channel in tasks of its own: calls of one channel may take minutes and must not delay
/// others.
async fn suspects(hub: Hub, worker: Tsid, slots_by_channel: Arc<Vec<(Channel, Arc<Semaphore>)>>) -> Result<bool> {
    if !store::suspect::any_claimable(hub.store.engine(), hub.clock.now()).await? {
        return Ok(false);
    }
    let shards: Arc<[i16]> = store::partner::shards(hub.store.engine()).await?.into();
    for (channel, slots) in slots_by_channel.iter() {
        while let Ok(place) = slots.clone().try_acquire_owned() {
            let (to, shards, channel) = (hub.clone(), shards.clone(), *channel);
            hub.shutdown.spawn(async move {
                let _place = place;
                loop {
                    match deliver::deliver_one_suspect(&to, worker, &shards, &[channel]).await {
                        Ok(true) => (),
                        Ok(false) => break,
                        Err(e) => {
                            tracing::warn!(
                                error = %e,
                                "suspect deliveries could not be delivered; they wait for the next run"
                            );
                            break;
                        }
                    }
                }
            });
        }
    }
    Ok(false)
}

async fn sweep(hub: Hub, sweeper: Stateful<delivery::sweep::Sweeper>) -> Result<bool> {
    delivery::sweep::sweep(&hub, &mut *sweeper.lock().await).await?;
    Ok(false)
}

async fn relay(hub: Hub, relay: Stateful<flow::relay::Relay>) -> Result<bool> {
    flow::relay::relay(&hub, &mut *relay.lock().await).await
}

async fn release(hub: Hub) -> Result<bool> {
    flow::endpoint::release_resumed(&hub).await
}

async fn restart_stalled(hub: Hub, stalled: Stateful<flow::channel::StalledCursor>) -> Result<bool> {
    flow::channel::restart_stalled(&hub, &mut *stalled.lock().await).await
}

/// One step of the redrive job whose turn it is.
async fn redrive(hub: Hub) -> Result<bool> {
    let stepped = flow::redrive::step(&hub).await?;
    Ok(stepped && hub.shutdown.sleep(limits::REDRIVE_REST).await)
}

async fn complete(hub: Hub) -> Result<bool> {
    flow::publish::publish_completions(&hub).await
}

async fn refresh_traffic(hub: Hub) -> Result<bool> {
    delivery::breaker::refresh(&hub).await?;
    delivery::limit::report_grants(&hub, false).await?;
    Ok(false)
}

/// Handles receipts that did not come in time, and channels that are down while a fallback is named.
async fn overdue(hub: Hub, leaver: Stateful<flow::channel_down::ReadMarks>) -> Result<bool> {
    let shards = store::partner::shards(hub.store.engine()).await?;
    let more = flow::receipt::overdue(&hub, &shards).await?;
    let mut down = hub.providers.postable_channels();
    down.retain(|channel| delivery::route::downtime(&hub, *channel).is_some());
    Ok(flow::channel_down::fall_back(&hub, &mut *leaver.lock().await, &shards, &down).await? || more)
}

async fn poll(hub: Hub, account: Arc<Account>) -> Result<bool> {
    flow::receipt::poll(&hub, &account).await
}

async fn note_answers(hub: Hub) -> Result<bool> {
    flow::channel::note_answers(&hub).await?;
    Ok(false)
}

/// Reads how far the lanes have come in which a partner may have more than its share. Most of the time there are none.
async fn check_fairness(hub: Hub) -> Result<bool> {
    let places = hub.fairness().lanes_to_check();
    if !places.is_empty() {
        let asked = hub.clock.now();
        let oldest = store::lane::oldest_ready(hub.store.engine(), &places).await?;
        let mut fairness = hub.fairness();
        oldest.into_iter().for_each(|(place, oldest)| fairness.record_oldest(place, oldest, asked));
    }
    Ok(false)
}

/// Brings this process's clock in step with the database's. Always returns false.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the clock goes on as it was set before.
pub async fn calibrate(hub: Hub) -> Result<bool> {
    let off = flow::start::calibrate(&hub.store, &hub.clock).await?;
    if off.num_milliseconds().abs() > 1_000 {
        tracing::warn!(
            off_ms = off.num_milliseconds(),
            "this host's clock differs from the database's; the hub uses the database's time"
        );
    }
    Ok(false)
}

async fn watch(hub: Hub) -> Result<bool> {
    flow::alert::watch(&hub).await?;
    Ok(false)
}

/// Checks what is new, in the oldest of the workers that live.
async fn fsck(hub: Hub, worker: Tsid, watch: Arc<Mutex<flow::fsck::Watch>>) -> Result<bool> {
    if is_oldest(&hub, worker).await? {
        flow::fsck::watch_lately(&hub, &mut *watch.lock().await).await?;
    }
    Ok(false)
}

/// Erases the messages to erased users, in the oldest of the workers that live.
async fn erase_users(hub: Hub, worker: Tsid) -> Result<bool> {
    Ok(is_oldest(&hub, worker).await? && flow::erase::erase_users(&hub).await?)
}

/// Whether this worker is the oldest of those that live: it does what one of them is to do.
async fn is_oldest(hub: &Hub, worker: Tsid) -> Result<bool> {
    let living = store::worker::list(hub.store.engine(), hub.clock.now() - limits::WORKER_SEEN).await?;
    Ok(living.iter().map(|row| row.worker_id).min() == Some(worker.0))
}

/// Measures the depth of the queue for the metrics.
async fn measure_queues(hub: Hub) -> Result<bool> {
    const COUNT_UP_TO: i64 = 10_000;
    let shards = store::partner::shards(hub.store.api()).await?;
    let lanes = crate::model::lane::Lane::all_of(&hub.providers.channels());
    let depths = store::lane::depths(hub.store.api(), &shards, &lanes, COUNT_UP_TO).await?;
    hub.metrics.queue_depth.reset();
    hub.metrics.oldest_pending_seconds.reset();
    for row in depths {
        let lane = row.lane.to_string();
        hub.metrics.queue_depth.with_label_values(&[&lane]).set(row.depth);
        let age = row.oldest.map_or(0, |at| (hub.clock.now() - at).num_seconds());
        hub.metrics.oldest_pending_seconds.with_label_values(&[&lane]).set(age.max(0));
    }
    flow::relay::measure(&hub).await?;
    flow::receipt::measure(&hub).await?;
    Ok(false)
}

/// Records that this worker lives, and removes workers not seen for five minutes.
async fn heartbeat(hub: Hub, worker: Tsid) -> Result<bool> {
    let now = hub.clock.now();
    let host = nix::unistd::gethostname().ok().and_then(|h| h.into_string().ok()).unwrap_or_default();
    let pid = i32::try_from(std::process::id()).unwrap_or(0);
    store::worker::heartbeat(hub.store.engine(), worker, &host, pid, now).await?;
    store::worker::delete_stale(hub.store.engine(), now - chrono::TimeDelta::minutes(5), None).await?;
    Ok(false)
}
