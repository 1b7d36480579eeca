//! Erasure from one message: of the deliveries to a person, and of the texts that are that person's.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::error::Result;
use crate::flow::delivery::settle::end_waiting;
use crate::flow::intake::prepare::key_hash;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::delivery::{DeliveryKey, Outcome, Status};
use crate::model::message::{Content, Detail, ERASED};
use crate::model::person::{PersonAddress, TextUse};
use crate::store::{self, delivery, message};

use super::result::Erased;

/// Whose data is erased.
pub enum Subject<'a> {
    /// The deliveries to an address, and every text that contains it.
    Address(&'a PersonAddress),
    /// The in-app deliveries to a user, by its names.
    User(&'a [String]),
}

impl Subject<'_> {
    /// Whether a delivery is to the subject.
    fn owns(&self, d: &delivery::DeliveryRecipient) -> bool {
        let mut recipients = [Some(&d.recipient), d.recipient_as_given.as_ref()].into_iter().flatten();
        match self {
            Subject::Address(person) => recipients.any(|recipient| person.equals(recipient)),
            Subject::User(names) => {
                d.lane.channel() == Channel::Inapp && recipients.any(|recipient| names.contains(recipient))
            }
        }
    }

    fn is_in_text(&self, text: &str, used: TextUse) -> bool {
        matches!(self, Subject::Address(person) if person.is_in_text(text, used))
    }

    fn is_in_json(&self, value: &Value, name: &str, used: TextUse) -> bool {
        matches!(self, Subject::Address(person) if person.is_in_json(value, name, used))
    }
}

/// Erases a subject from one message. The provider answers of the deliveries `answered` hold the address.
///
/// # Errors
/// `Error::Unavailable` if the database fails; deliveries may be canceled. Repeat it then.
pub async fn erase_from_message(
    hub: &Hub,
    shard: i16,
    message_id: Tsid,
    subject: &Subject<'_>,
    answered: &BTreeSet<i16>,
    erased: &mut Erased,
) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    tx.rollback().await?;
    // Deliveries that wait are canceled.
    let all = delivery::recipients(hub.store.api(), shard, message_id).await?;
    let mine = |no: i16| all.iter().any(|d| d.no == no && subject.owns(d));
    let unsettled = delivery::unsettled(hub.store.api(), row.partner_id, shard, message_id).await?;
    let waiting: Vec<_> =
        unsettled.into_iter().filter(|w| w.head.status != Status::Processing && mine(w.key.no)).collect();
    erased.canceled += end_waiting(hub, waiting, &Outcome::Canceled).await? as u64;

    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    // Lock receipts before deliveries, in the order in which receipts are applied.
    store::receipt::lock_of_messages(&mut tx, shard, &[message_id]).await?;
    let all = all_held(&mut tx, shard, message_id).await?;
    let (settled, held): (Vec<_>, Vec<_>) = all.iter().filter(|d| subject.owns(d)).partition(|d| d.status.is_settled());
    erased.in_flight += held.len() as u64;
    let nos: Vec<i16> = settled.iter().map(|d| d.no).collect();
    let gone = |d: &delivery::DeliveryRecipient| d.recipient == ERASED || nos.contains(&d.no);
    let mut detail = message::decode_detail(&hub.keyring, message_id, &row.detail)?;
    // A content that only this person gets is theirs; one that others get, too, is theirs only if it names them.
    let only_theirs: Vec<bool> = (0..detail.contents.len())
        .map(|n| {
            let mut of = all.iter().filter(|d| may_say(&detail, d.content, n)).peekable();
            of.peek().is_some() && of.all(gone)
        })
        .collect();
    // A content that is still to be sent is left as it is: otherwise an empty message would be sent.
    let still_needed: Vec<bool> = (0..detail.contents.len())
        .map(|n| all.iter().any(|d| !d.status.is_settled() && may_say(&detail, d.content, n)))
        .collect();
    let before = detail.clone();
    let kept = blank(&mut detail, &only_theirs, &still_needed, all.iter().all(gone), subject);
    erased.in_flight += kept;
    delivery::redact_recipients(&mut *tx, shard, message_id, &nos).await?;
    // The provider's id of a delivery that is being sent is still needed.
    let is_done = |no: &i16| all.iter().any(|d| d.no == *no && d.status.is_settled());
    let answered: Vec<i16> = nos.iter().chain(answered).copied().filter(is_done).collect();
    delivery::redact_answers(&mut *tx, shard, message_id, &answered).await?;
    // The client's id of a message to the person counts as their data, whatever it contains.
    if let Some(key) = &row.client_msg_id
        && (!nos.is_empty() || !held.is_empty() || subject.is_in_text(key, TextUse::Identifier))
    {
        store::idempotency::erase_key(&mut *tx, shard, message_id, key_hash(hub, row.partner_id, key)).await?;
    }
    if !nos.is_empty() || detail != before {
        detail.erased = true;
        let text = message::encode_detail(&hub.keyring, message_id, &detail, message::is_sealed(&row.detail))?;
        message::update_detail(&mut *tx, shard, message_id, &text).await?;
    }
    tx.commit().await?;
    erased.deliveries += nos.len() as u64;
    erased.messages += 1;
    Ok(())
}

/// Locks all deliveries of a message and returns them. No fallback that is not among them can be made until the
/// transaction ends.
async fn all_held(tx: &mut store::Conn, shard: i16, message_id: Tsid) -> Result<Vec<delivery::DeliveryRecipient>> {
    let mut held = 0;
    loop {
        let all = delivery::recipients(&mut *tx, shard, message_id).await?;
        if all.len() == held {
            return Ok(all);
        }
        held = all.len();
        let keys: Vec<DeliveryKey> = all.iter().map(|d| DeliveryKey { shard, message_id, no: d.no }).collect();
        delivery::lock(tx, &keys).await?;
    }
}

/// Whether a delivery with content number `content`, or one of its fallbacks, sends content number `other`.
fn may_say(detail: &Detail, content: i16, other: usize) -> bool {
    let of = |content: i16| usize::try_from(content).ok().and_then(|n| detail.contents.get(n));
    let next = |content: &i16| of(*content)?.fallback.as_ref().map(|f| f.content);
    let all = std::iter::successors(Some(content), next).take(detail.contents.len());
    all.into_iter().any(|content| usize::try_from(content) == Ok(other))
}

/// Blanks the person's contents, title and metadata; returns how many contents stay because they are still to be sent.
fn blank(detail: &mut Detail, only_theirs: &[bool], still_needed: &[bool], whole: bool, subject: &Subject<'_>) -> u64 {
    let mut left = 0;
    for ((content, theirs), still_needed) in detail.contents.iter_mut().zip(only_theirs).zip(still_needed) {
        let names_them =
            serde_json::to_value(&*content).is_ok_and(|content| subject.is_in_json(&content, "", TextUse::Prose));
        match (*theirs || names_them, *still_needed) {
            (true, true) => left += 1,
            (true, false) => *content = Content::default(),
            (false, _) => (),
        }
    }
    if whole || detail.title.as_ref().is_some_and(|title| subject.is_in_text(title, TextUse::Prose)) {
        detail.title = None;
    }
    let names_them = |name: &str, value: &_| {
        subject.is_in_text(name, TextUse::Identifier) || subject.is_in_json(value, "metadata", TextUse::Identifier)
    };
    detail.metadata.retain(|name, value| !whole && !names_them(name, value));
    left
}
