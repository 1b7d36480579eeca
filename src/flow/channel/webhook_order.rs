//! Order: whose turn it is among the webhooks of one message to one endpoint that asks for order, and the release of
//! those that wait behind one that ended.

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

/// Whom it comes after, and whom before, among those claimed together, where its endpoint asks for order.
#[derive(Default)]
pub(super) struct Turn {
    pub(super) after: Option<oneshot::Receiver<()>>,
    pub(super) before: Option<oneshot::Sender<()>>,
}

/// The message whose event it carries.
pub(super) fn about(claimed: &ClaimedDelivery, contents: &StoredMessage) -> Tsid {
    contents.about.unwrap_or(claimed.key.message_id)
}

/// Whose turn it is, for endpoints that ask for order. Those claimed together go one after the other, up to the first
/// that is not among them: what follows that waits behind it, until its end releases them (`release_next`). Reads no
/// more webhooks than were claimed, however many the endpoint got before.
pub(super) async fn order(
    hub: &Hub,
    claimed: &[(&ClaimedDelivery, &StoredMessage)],
    endpoints: &HashMap<String, Endpoint>,
) -> Result<HashMap<DeliveryKey, std::result::Result<Turn, Outcome>>> {
    let ordered = claimed.iter().filter(|(c, _)| endpoints.get(&c.recipient).is_some_and(|e| e.ordered));
    let ordered: Vec<(&ClaimedDelivery, Sequence)> = ordered.map(|(c, contents)| (*c, sequence(c, contents))).collect();
    // Until its turn is known, each is behind another.
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
        // One that has no `about` yet stands in other sequences than its own, too: there it is a stranger.
        let own = |webhook: &OpenWebhook| {
            let (key, about) = mine.get(&(webhook.message_id, webhook.recipient.as_str()))?;
            (*about == webhook.about).then_some(*key)
        };
        for key in sequence.iter().map_while(own) {
            let mut turn = Turn::default();
            if let Some(Ok(ahead)) = before.and_then(|key| turns.get_mut(&key)) {
                let (done, ready) = oneshot::channel();
                (ahead.before, turn.after) = (Some(done), Some(ready));
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

/// Another event of the same message comes first. Its end makes this one PENDING again.
pub(super) fn behind() -> Outcome {
    Outcome::deferred(READY_WHEN_PREDECESSOR_ENDS, "waits_for_its_turn")
}

/// How many webhooks of its sequence may go at once when this one ends: as many as its endpoint takes, one after the
/// other, well before those claimed together are given back.
pub(super) fn followers(hub: &Hub, claimed: &ClaimedDelivery) -> i64 {
    let within = hub.settings.timing.begin_within() / 2;
    claimed.recipient.parse().map_or(1, |endpoint_id| hub.gates().calls_within(endpoint_id, within, hub.clock.now()))
}

/// After the commit of these: of webhooks that ended, those next in their sequences become PENDING. So do those just
/// put off behind one that ended meanwhile: each of the two commits before it looks, so one of them sees the other. If
/// a worker is lost in between, `restart_stalled` finds it.
pub async fn release_next(hub: &Hub, settles: &[Settle]) {
    let ends = |s: &&Settle| {
        s.release_limit > 0
            && (s.step.status.is_settled()
                || s.step.possibly_sent
                || s.step.ready_at == Some(READY_WHEN_PREDECESSOR_ENDS))
    };
    let ended: Vec<(DeliveryKey, i64)> = settles.iter().filter(ends).map(|s| (s.key, s.release_limit)).collect();
    if let Err(e) = release(hub, &ended).await {
        let webhooks = ended.len();
        tracing::warn!(error = %e, webhooks, "the webhooks behind these are not released yet; they are within seconds");
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

/// Where the walk over open sequences stands.
#[derive(Debug, Default)]
pub struct StalledCursor {
    behind: Option<SequencePosition>,
}

/// Looks at a slice of the open sequences, and releases what waits behind nothing, since a worker was lost. Webhooks
/// that an older program wrote get what tells their sequence first. Returns whether there is more.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached: the same slice is looked at again.
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
        tracing::info!(released = found.len(), "webhooks waited behind one that had ended");
    }
    release(hub, &found.into_iter().map(|key| (key, 1)).collect::<Vec<_>>()).await?;
    Ok(false)
}
