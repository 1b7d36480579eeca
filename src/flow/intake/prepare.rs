//! Prepare: turns a parsed message into rows to write: ids, lanes, attempts, sealed content.

use crate::crypt;
use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::lane::Lane;
use crate::model::message::{NewDelivery, NewMessage, PostedMessage};
use crate::model::partner::Partner;
use crate::store;
use crate::store::message::NewMessageRow;

/// Gives a message of this partner its id, lanes and attempts, and seals its content if the partner asks for it. Counts
/// the message to the partner's share of its lanes, so prepare each message once.
///
/// # Errors
/// `Error::Internal` if the content cannot be sealed.
pub fn prepare(hub: &Hub, partner: &Partner, posted: PostedMessage) -> Result<NewMessageRow> {
    let PostedMessage { message, fingerprint, .. } = posted;
    let message_id = hub.next_id();
    let detail = store::message::encode_detail(&hub.keyring, message_id, &message.detail, partner.encrypt_content)?;
    let lanes = lanes(hub, partner, &message);
    // The event of its acceptance waits in the overflow lane if the message does.
    let overflow = lanes.first().is_some_and(|lane| lane.is_overflow());
    let attempts = |d: &NewDelivery| hub.settings.retry.policy(d.channel, d.has_fallback).max_attempts;
    let max_attempts = message.deliveries.iter().map(|d| d.max_attempts.unwrap_or_else(|| attempts(d))).collect();
    Ok(NewMessageRow {
        lanes,
        webhook_message_id: hub.next_id(),
        webhook_lane: Lane::of_events(message.priority, overflow),
        message_id,
        detail,
        partner_id: partner.partner_id,
        shard: partner.shard,
        fingerprint,
        key_hash: message.client_msg_id.as_ref().map(|key| key_hash(hub, partner.partner_id, key)),
        created_at: hub.clock.now(),
        max_attempts,
        message,
    })
}

/// Hash that replaces a `clientMsgId` when it is erased. Keyed with the installation's pepper, because ids are easy to
/// guess.
pub fn key_hash(hub: &Hub, partner_id: Tsid, key: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, format!("clientMsgId|{partner_id}|{key}").as_bytes())
}

/// The lane of each delivery: the prompt lane while the partner has no more than its fair share there, otherwise the
/// overflow lane.
fn lanes(hub: &Hub, partner: &Partner, message: &NewMessage) -> Vec<Lane> {
    let now = hub.clock.now();
    let ready_at = message.scheduled_at.unwrap_or(now).max(now);
    let mut fairness = hub.fairness();
    let lane = |channel: Channel| {
        let prompt = Lane::new(channel, message.priority, false);
        let fair = fairness.admit(partner.partner_id, (partner.shard, prompt), ready_at, now);
        if fair { prompt } else { Lane::new(channel, message.priority, true) }
    };
    message.deliveries.iter().map(|d| d.channel).map(lane).collect()
}
