//! Accept: stores posted messages and answers them. A caller is answered only after the commit.

use super::announce::{announce, count_replayed};
use super::insert::insert;
use super::judge::{answers, stored_before};
use super::prepare::prepare;
use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::limits;
use crate::model::idempotency::{Accepted, combine_batch};
use crate::model::message::PostedMessage;
use crate::model::partner::Partner;
use crate::shutdown::may_die_at;
use crate::store::message::NewMessageRow;

/// Accepts one message, in one commit with others that arrive meanwhile. A message that repeats a stored one (same
/// partner and `clientMsgId`, same content) gets the first answer again.
///
/// # Errors
/// `Error::Refused` if it has faults, or its `clientMsgId` belongs to another message; `Error::Busy` if too many wait,
/// or the same `clientMsgId` is being written. Nothing was written then. `Error::Unavailable` if the database fails;
/// the message may have been written, and posting it again with its `clientMsgId` answers so.
pub async fn accept(hub: &Hub, partner: &Partner, posted: impl Into<PostedMessage>) -> Result<Accepted> {
    let posted = posted.into();
    if posted.faults_if_new.is_empty() {
        return hub.intake.write(prepare(hub, partner, posted)?).await;
    }
    let answer = stored_before(hub, hub.store.intake(), &[(partner, &posted)]).await?.pop();
    let accepted = answer.ok_or_else(|| Error::Internal("a message has no answer".into()))??;
    count_replayed(hub, 1);
    Ok(accepted)
}

/// Accepts all messages of a batch, or none, in one transaction. The caller holds its turn (`IntakeQueue::batch_turn`).
/// Returns the answers in the order of the batch.
///
/// # Errors
/// `Error::Refused` with the faults of all messages; otherwise as `accept`.
pub async fn accept_all(hub: &Hub, partner: &Partner, batch: Vec<PostedMessage>) -> Result<Vec<Accepted>> {
    let (valid, faulty): (Vec<_>, Vec<_>) =
        batch.into_iter().enumerate().partition(|(_, posted)| posted.faults_if_new.is_empty());
    let prepared = valid.into_iter().map(|(place, posted)| Ok((place, prepare(hub, partner, posted)?)));
    let mut prepared = prepared.collect::<Result<Vec<(usize, NewMessageRow)>>>()?;
    // Several statements of one transaction take the keys in the order in which one statement does, or two batches with
    // the same keys could deadlock.
    prepared.sort_by(|(_, a), (_, b)| a.message.client_msg_id.cmp(&b.message.client_msg_id));
    let (mut places, inserts): (Vec<usize>, Vec<NewMessageRow>) = prepared.into_iter().unzip();
    places.extend(faulty.iter().map(|(place, _)| *place));
    let refs: Vec<&NewMessageRow> = inserts.iter().collect();
    let now = hub.clock.now();
    let mut tx = hub.store.begin_intake().await?;
    let mut inserted = Vec::with_capacity(refs.len());
    for slice in refs.chunks(limits::BATCH_SLICE) {
        // Between two slices, single messages and the bulk work of others have their turn.
        let _turn = hub.bulk.turn().await;
        inserted.extend(insert(hub, &mut tx, slice, now).await?);
    }
    let mut answers = answers(&mut *tx, &refs, &inserted).await?;
    let refused_if_new: Vec<(&Partner, &PostedMessage)> = faulty.iter().map(|(_, posted)| (partner, posted)).collect();
    answers.extend(stored_before(hub, &mut *tx, &refused_if_new).await?);
    let accepted = match combine_batch(&places, answers) {
        Ok(accepted) => accepted,
        Err(e) => {
            tx.rollback().await?;
            return Err(e);
        }
    };
    may_die_at("accept_all.before_commit");
    tx.commit().await?;
    may_die_at("accept_all.after_commit");
    hub.metrics.intake_group.with_label_values::<&str>(&[]).observe(inserts.len() as f64);
    announce(hub, &refs.iter().copied().zip(&accepted).collect::<Vec<_>>(), now);
    count_replayed(hub, refused_if_new.len());
    let mut accepted: Vec<(usize, Accepted)> = places.into_iter().zip(accepted).collect();
    accepted.sort_by_key(|(place, _)| *place);
    Ok(accepted.into_iter().map(|(_, accepted)| accepted).collect())
}
