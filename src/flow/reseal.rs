//! Reseal: seals everything at rest under the first master key, while the hub runs: both keys open values meanwhile.

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::AdminPermit;
use crate::store::{self, audit::AuditEntry, chat_message, device, endpoint, message, user_key};

use super::sign_in;

/// How much was sealed anew.
#[derive(Debug, Default)]
pub struct Resealed {
    /// Keys that sign access tokens.
    pub signing_keys: usize,
    /// Messages with sealed content.
    pub messages: usize,
    /// Endpoints with their secrets and headers.
    pub endpoints: usize,
    /// Partners with keys that sign tokens for their users.
    pub user_keys: usize,
    /// Devices of users.
    pub devices: usize,
    /// Messages of rooms, and the contents that edits and deletions replaced.
    pub chat_contents: usize,
    /// Messages, endpoints, user keys, devices and messages of rooms that do not open with the given master keys; they
    /// stay as they were.
    pub unopened: usize,
}

/// Seals anew everything that is not sealed under the first master key, and writes an entry in the audit log. Messages
/// are written one by one, endpoints in batches.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a part may be sealed anew. It can be repeated.
pub async fn reseal(hub: &Hub, permit: AdminPermit<'_>) -> Result<Resealed> {
    let mut done = Resealed { signing_keys: sign_in::reseal_keys(hub).await?, ..Resealed::default() };
    reseal_endpoints(hub, &mut done).await?;
    reseal_user_keys(hub, &mut done).await?;
    // A connection without a statement timeout: every message is looked at.
    let mut conn = hub.store.connect_for_scans().await?;
    for shard in store::partner::shards(hub.store.api()).await? {
        reseal_devices(hub, shard, &mut done).await?;
        reseal_rooms(hub, shard, &mut done).await?;
        let mut after = Tsid(0);
        loop {
            let sealed = message::list_sealed(&mut conn, shard, after, limits::HOUSEKEEPING_BATCH).await?;
            let Some(last) = sealed.last() else { break };
            after = last.message_id;
            for row in sealed.iter().filter(|row| !message::is_sealed_with_current_key(&hub.keyring, &row.detail)) {
                match reseal_one(hub, shard, row.message_id).await {
                    Ok(()) => done.messages += 1,
                    Err(e) => {
                        tracing::error!(error = %e, "a message could not be sealed anew; it stays as it was");
                        done.unopened += 1;
                    }
                }
            }
        }
    }
    let counts = serde_json::json!({"signingKeys": done.signing_keys, "messages": done.messages,
        "endpoints": done.endpoints, "userKeys": done.user_keys, "devices": done.devices,
        "chatContents": done.chat_contents, "unopened": done.unopened});
    let entry = AuditEntry { action: "key.reseal".into(), after: Some(counts), ..AuditEntry::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &entry).await?;
    Ok(done)
}

async fn reseal_endpoints(hub: &Hub, done: &mut Resealed) -> Result<()> {
    let mut after = 0;
    loop {
        let mut tx = hub.store.begin().await?;
        let sealed = endpoint::lock_secrets(&mut tx, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = sealed.last() else { return Ok(()) };
        after = last.endpoint_id;
        for row in &sealed {
            match row.resealed(&hub.keyring) {
                Ok(None) => (),
                Ok(Some(anew)) => {
                    endpoint::update_secrets(&mut *tx, &anew).await?;
                    done.endpoints += 1;
                }
                Err(e) => {
                    tracing::error!(error = %e, "an endpoint could not be sealed anew; it stays as it was");
                    done.unopened += 1;
                }
            }
        }
        tx.commit().await?;
    }
}

async fn reseal_user_keys(hub: &Hub, done: &mut Resealed) -> Result<()> {
    let mut after = Tsid(0);
    loop {
        let mut tx = hub.store.begin().await?;
        let sealed = user_key::lock(&mut tx, &hub.keyring, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some((last, ..)) = sealed.last() else { return Ok(()) };
        after = *last;
        for (partner_id, is_fresh, keys) in sealed {
            match keys {
                _ if is_fresh => (),
                Ok(keys) => {
                    user_key::set(&mut *tx, &hub.keyring, partner_id, &keys).await?;
                    done.user_keys += 1;
                }
                Err(e) => {
                    tracing::error!(error = %e, "a user key could not be sealed anew; it stays as it was");
                    done.unopened += 1;
                }
            }
        }
        tx.commit().await?;
    }
}

async fn reseal_devices(hub: &Hub, shard: i16, done: &mut Resealed) -> Result<()> {
    let mut after = Tsid(0);
    loop {
        let mut tx = hub.store.begin().await?;
        let sealed = device::lock_tokens(&mut tx, shard, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = sealed.last() else { return Ok(()) };
        after = last.device_id;
        for row in &sealed {
            match row.resealed(&hub.keyring) {
                Ok(None) => (),
                Ok(Some(token)) => {
                    device::set_token(&mut *tx, shard, row.device_id, &token).await?;
                    done.devices += 1;
                }
                Err(e) => {
                    tracing::error!(error = %e, "a device could not be sealed anew; it stays as it was");
                    done.unopened += 1;
                }
            }
        }
        tx.commit().await?;
    }
}

/// Seals the messages of rooms anew. No lock is needed: a content that was replaced meanwhile is left alone.
async fn reseal_rooms(hub: &Hub, shard: i16, done: &mut Resealed) -> Result<()> {
    let (db, mut after) = (hub.store.api(), Tsid(0));
    loop {
        let rooms = store::room::sealed(db, shard, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = rooms.last() else { return Ok(()) };
        after = *last;
        for room_id in rooms {
            reseal_room(hub, (shard, room_id), done).await?;
        }
    }
}

async fn reseal_room(hub: &Hub, room: (i16, Tsid), done: &mut Resealed) -> Result<()> {
    let (db, mut above) = (hub.store.api(), 0);
    loop {
        let contents = chat_message::contents(db, room, above, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = contents.last() else { return Ok(()) };
        above = last.seq;
        for content in &contents {
            match content.resealed(&hub.keyring, room.1) {
                Ok(None) => (),
                Ok(Some(text)) => {
                    chat_message::set_content(db, room, content, &text).await?;
                    done.chat_contents += 1;
                }
                Err(e) => {
                    tracing::error!(error = %e, "a message of a room could not be sealed anew; it stays as it was");
                    done.unopened += 1;
                }
            }
        }
    }
}

async fn reseal_one(hub: &Hub, shard: i16, message_id: Tsid) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(locked) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    let detail = message::decode_detail(&hub.keyring, message_id, &locked.detail)?;
    let text = message::encode_detail(&hub.keyring, message_id, &detail, true)?;
    message::update_detail(&mut *tx, shard, message_id, &text).await?;
    Ok(tx.commit().await?)
}
