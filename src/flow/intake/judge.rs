//! Judge: answers messages whose idempotency key was taken, by the message that holds the key (`model::idempotency`).

use std::collections::HashMap;

use super::prepare::key_hash;
use crate::error::{Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::idempotency::{Accepted, answer_key_taken, answer_new, answer_replay};
use crate::model::message::PostedMessage;
use crate::model::partner::Partner;
use crate::store;
use crate::store::idempotency::{self, IdempotencyKey};
use crate::store::message::{InsertedMessage, NewMessageRow};

/// Answers the messages given to `store::message::insert`, in their order; `inserted` is what that returned. Queries
/// the database only for the holders of keys that were taken. A refused message has its error in its own place.
///
/// # Errors
/// `Error::Unavailable` if the database fails; the messages in `inserted` are written if `db` committed.
pub async fn answers(
    db: impl store::Db<'_>,
    inserts: &[&NewMessageRow],
    inserted: &[InsertedMessage],
) -> Result<Vec<Result<Accepted>>> {
    let inserted: HashMap<Tsid, bool> = inserted.iter().map(|w| (w.message_id, w.has_subscribers)).collect();
    let key = |i: &&&NewMessageRow| IdempotencyKey {
        shard: i.shard,
        partner_id: i.partner_id,
        client_msg_id: i.message.client_msg_id.clone().unwrap_or_default(),
        hash: i.key_hash.unwrap_or_default(),
    };
    let left_out: Vec<_> = inserts.iter().filter(|i| !inserted.contains_key(&i.message_id)).map(|i| key(&i)).collect();
    let holders = if left_out.is_empty() { Vec::new() } else { idempotency::find_holders(db, &left_out).await? };
    let mut holders = holders.into_iter();
    let answer = |i: &&NewMessageRow| match inserted.get(&i.message_id) {
        Some(has_subscribers) => Ok(answer_new(&i.message, i.message_id, i.created_at, *has_subscribers)),
        None => answer_key_taken(&i.message, &i.fingerprint, holders.next().flatten().as_ref()),
    };
    Ok(inserts.iter().map(answer).collect())
}

/// Answers messages that have faults, in their order: with the answer of the stored message if they repeat one that was
/// accepted before, otherwise with the refusal in their own place. Only for messages with faults, so that others cost
/// no further statement.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn stored_before(
    hub: &Hub,
    db: impl store::Db<'_>,
    refused_if_new: &[(&Partner, &PostedMessage)],
) -> Result<Vec<Result<Accepted>>> {
    let keyed = |(partner, posted): &(&Partner, &PostedMessage)| {
        let client_msg_id = posted.message.client_msg_id.clone()?;
        let hash = key_hash(hub, partner.partner_id, &client_msg_id);
        Some(IdempotencyKey { shard: partner.shard, partner_id: partner.partner_id, client_msg_id, hash })
    };
    let keys: Vec<_> = refused_if_new.iter().filter_map(keyed).collect();
    let holders = if keys.is_empty() { Vec::new() } else { idempotency::find_holders(db, &keys).await? };
    let mut holders = holders.into_iter();
    let answer = |(_, posted): &(&Partner, &PostedMessage)| match posted
        .message
        .client_msg_id
        .as_ref()
        .and_then(|_| holders.next().flatten())
    {
        Some(holder) => answer_replay(&posted.message, &posted.fingerprint, &holder),
        None => Err(Refusal::from_faults(posted.faults_if_new.clone()).into()),
    };
    Ok(refused_if_new.iter().map(answer).collect())
}
