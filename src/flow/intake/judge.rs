//! Judge: asks for the holders of keys that were taken, and answers by them (`model::idempotency`).

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

/// Answers messages that `store::message::insert` was called for, in their order; `inserted` is what it returned. Asks
/// the database only for the holders of keys that were taken.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. A message that is refused has its error in its own place.
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

/// Answers messages that would be refused if they were new, in their order: with the first answer if they were stored
/// before. Asked of no others, so that an ordinary message costs no statement more.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached. A message that is refused has its error in its own place.
pub async fn stored_before(
    hub: &Hub,
    db: impl store::Db<'_>,
    asked: &[(&Partner, &PostedMessage)],
) -> Result<Vec<Result<Accepted>>> {
    let keyed = |(partner, posted): &(&Partner, &PostedMessage)| {
        let client_msg_id = posted.message.client_msg_id.clone()?;
        let hash = key_hash(hub, partner.partner_id, &client_msg_id);
        Some(IdempotencyKey { shard: partner.shard, partner_id: partner.partner_id, client_msg_id, hash })
    };
    let keys: Vec<_> = asked.iter().filter_map(keyed).collect();
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
    Ok(asked.iter().map(answer).collect())
}
