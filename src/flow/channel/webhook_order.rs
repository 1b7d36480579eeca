//! Order: the sequence of the webhooks about one message to one endpoint that asks for order, and the release of those
//! that wait behind one that ended.

use std::collections::{BTreeMap, HashMap};

use tokio::sync::oneshot;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{DeliveryKey, Outcome, READY_WHEN_PREDECESSOR_ENDS};
use crate::model::endpoint::Endpoint;
use crate::store;
use crate::store::delivery::{ClaimedDelivery, OpenWebhook, Sequence, SequencePosition, Settle};
use crate::store::message::StoredMessage;

/// Place of a webhook among those of its sequence that were claimed together: waits for `after`, and signals `before`.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) after: Option<oneshot::Receiver<()>>,
    pub(super) before: Option<oneshot::Sender<()>>,
}

/// The message that the event is about.
pub(super) fn about(claimed: &ClaimedDelivery, contents: &StoredMessage) -> Tsid {
    contents.about.unwrap_or(claimed.key.message_id)
}

/// Returns the turns of claimed webhooks to endpoints that ask for order; others have no entry. Webhooks of one
/// sequence that were claimed together go one after the other, up to the first open one that was not claimed: those
/// after it wait until its end releases them (`release_next`). Reads no more webhooks than were claimed.
pub(super) async fn order(
    hub: &Hub,
    claimed: &[(&ClaimedDelivery, &StoredMessage)],
    endpoints: &HashMap<String, Endpoint>,
) -> Result<HashMap<DeliveryKey, std::result::Result<Turn, Outcome>>> {
    let ordered = claimed.iter().filter(|(c, _)| endpoints.get(&c.recipient).is_some_and(|e| e.ordered));
    let ordered: Vec<(&ClaimedDelivery, Sequence)> = ordered.map(|(c, contents)| (*c, sequence(c, contents))).collect();
    // Until its turn is known, each waits behind another.
    let mut turns: HashMap<DeliveryKey, std::result::Result<Turn, Outcome>> =
        ordered.iter().map(|(c, _)| (c.key, Err(behind()))).collect();
    let Some(last) = ordered.iter().map(|(c, _)| c.key.message_id).max() else { return Ok(turns) };
    let mut wanted: BTreeMap<Sequence, i64> = BTreeMap::new();
    let mut mine: HashMap<(Tsid, &str), (DeliveryKey, Tsid)> = HashMap::new();
    for (claimed, sequence) in &ordered {
        *wanted.entry(sequence.clone()).or_default() += 1;
        mine.insert((claimed.key.message_id, claimed.recipient.as_str()), (claimed.key, sequence.about));
    }
    let wanted: Vec<(Sequence, i64)> = wanted.into_iter().collect();
    let open = store::delivery::sequences(hub.store.webhooks(), &wanted, last).await?;
    for sequence in open.chunk_by(|a, b| (a.about, &a.recipient) == (b.about, &b.recipient)) {
        let mut before: Option<DeliveryKey> = None;
        // A webhook of an older version without `about` appears in other sequences, too; there it is not ours.
        let own = |webhook: &OpenWebhook| {
            let (key, about) = mine.get(&(webhook.message_id, webhook.recipient.as_str()))?;
            (*about == webhook.about).then_some(*key)
        };
        for key in sequence.iter().map_while(own) {
            let mut turn = Turn::default();
            if let Some(Ok(previous)) = before.and_then(|key| turns.get_mut(&key)) {
                let (done, ready) = oneshot::channel();
                (previous.before, turn.after) = (Some(done), Some(ready));
            }
            turns.insert(key, Ok(turn));
            before = Some(key);
        }
    }
    Ok(turns)
}

fn sequence(claimed: &ClaimedDelivery, contents: &StoredMessage) -> Sequence {
    let recipient = claimed.recipient.clone();
    Sequence { shard: claimed.key.shard, about: about(claimed, contents), recipient }
}

/// Outcome of a webhook behind another event of the same message, whose end makes this one PENDING again.
pub(super) fn behind() -> Outcome {
    Outcome::deferred(READY_WHEN_PREDECESSOR_ENDS, "waits_for_its_turn")
}

/// How many webhooks of its sequence become PENDING when this one ends: as many as its endpoint takes, one after the
/// other, in half the time within which a call has to begin.
pub(super) fn followers(hub: &Hub, claimed: &ClaimedDelivery) -> i64 {
    let within = hub.settings.timing.begin_within() / 2;
    claimed.recipient.parse().map_or(1, |endpoint_id| hub.gates().calls_within(endpoint_id, within, hub.clock.now()))
}

/// Makes the webhooks PENDING that are next in the sequences of those that ended, or of those that were just deferred
/// behind one that ended meanwhile. Call it after the commit of these settles: both sides commit before they look, so
/// one of them sees the other. If a worker is lost in between, `restart_stalled` finds the sequence.
pub async fn release_next(hub: &Hub, settles: &[&Settle]) {
    let ends = |s: &&&Settle| {
        s.release_limit > 0
            && (s.step.status.is_settled()
                || s.step.possibly_sent
                || s.step.ready_at == Some(READY_WHEN_PREDECESSOR_ENDS))
    };
    let ended: Vec<(DeliveryKey, i64)> = settles.iter().filter(ends).map(|s| (s.key, s.release_limit)).collect();
    if let Err(e) = release(hub, &ended).await {
        let webhooks = ended.len();
        tracing::warn!(
            error = %e, webhooks,
            "webhooks that wait behind delivered ones could not be released; they are released within seconds"
        );
    }
}

async fn release(hub: &Hub, ended: &[(DeliveryKey, i64)]) -> Result<()> {
    if ended.is_empty() {
        return Ok(());
    }
    let now = hub.clock.now();
    let places = store::delivery::release_next(hub.store.webhooks(), ended, now).await?;
    hub.wake.notify(places.into_iter().map(|place| (place, now)));
    Ok(())
}

/// Position of the walk over open sequences.
#[derive(Debug, Default)]
pub struct StalledCursor {
    behind: Option<SequencePosition>,
}

/// Looks at a slice of the open sequences, and releases those whose first webhook waits behind nothing because a worker
/// was lost. Webhooks written by an older version get their `about` first. Returns whether there is more to do at once.
///
/// # Errors
/// `Error::Unavailable` if the database fails; if the release failed, the slice is looked at again after a full round.
pub async fn restart_stalled(hub: &Hub, stalled: &mut StalledCursor) -> Result<bool> {
    let (db, rows) = (hub.store.webhooks(), limits::HOUSEKEEPING_BATCH);
    let shards = store::partner::shards(db).await?;
    if store::delivery::backfill_about(db, &shards, rows).await? > 0 {
        return Ok(true);
    }
    let behind = stalled.behind.unwrap_or((i16::MIN, Tsid(i64::MIN)));
    let (found, next) = store::delivery::stalled(db, behind, limits::SEQUENCES_LOOK).await?;
    stalled.behind = next;
    if !found.is_empty() {
        tracing::info!(released = found.len(), "stalled webhooks were released: the ones ahead had ended");
    }
    release(hub, &found.into_iter().map(|key| (key, 1)).collect::<Vec<_>>()).await?;
    Ok(false)
}
