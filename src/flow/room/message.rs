//! Edit and delete: a message changes, its number does not; the change is an event of its own.

use chrono::TimeDelta;

use crate::error::{Error, Result};
use crate::flow::user::session::audit;
use crate::hub::Hub;
use crate::model::access::user::UserCaller;
use crate::model::chat_message::{ChatContent, ChatId, ChatKind, ChatMessage};
use crate::model::room::{Deed, may_send};
use crate::model::stream::RoomEventKind;
use crate::store::audit::AuditEntry;
use crate::store::chat_message::{self, ChatRow};
use crate::store::{self, Conn};

use super::access::{self, InRoom, room_refused, send_refused};
use super::change::room_object;
use super::event::Taken;
use super::tail::open;

/// Replaces the content of one's own message. `version`: the one that the caller has; None: whichever it is.
///
/// # Errors
/// As `access::as_member`; `Error::NotFound` if there is no such message; `forbidden` if it is another's or no
/// text; `edit_window_over`, `already_deleted`, `version_mismatch`; those of `send` if the caller may not write.
/// `Error::Unavailable` if the database fails; it may be changed.
pub async fn edit(
    hub: &Hub,
    caller: &UserCaller,
    id: ChatId,
    text: String,
    version: Option<i64>,
) -> Result<ChatMessage> {
    let found = access::as_member(hub, caller, id.room_id).await?;
    let blocked = access::is_blocked(hub, caller, &found.room).await?;
    let (mut tx, row) = locked(hub, &found, id).await?;
    let window = TimeDelta::hours(i64::from(hub.settings.rooms.edit_window_hours));
    if row.sender_id != caller.user_id() || row.kind != ChatKind::Text.as_str() {
        return Err(room_refused(403, "forbidden", "only your own messages without files can be edited"));
    }
    if row.deleted_at.is_some() {
        return Err(room_refused(409, "already_deleted", "the message is deleted; write another one"));
    }
    if let Some(why) = may_send(&found.room, Some(&found.member), blocked, None, hub.clock.now()).into_iter().next() {
        return Err(send_refused(why));
    }
    if hub.clock.now() > row.chat_id.time() + window {
        let detail = format!("a message can be edited for {} hours; write another one", window.num_hours());
        return Err(room_refused(409, "edit_window_over", detail));
    }
    if version.is_some_and(|version| version != i64::from(row.version)) {
        let detail = format!("the message has version {} by now; read it again", row.version);
        return Err(room_refused(412, "version_mismatch", detail));
    }
    let content = ChatContent { text, ..row.content(&hub.keyring)? };
    let sealed = chat_message::encode(&hub.keyring, id.room_id, row.chat_id, &content, found.room.encrypted)?;
    let taken = replace(hub, &mut tx, caller, &found, &row, &sealed, RoomEventKind::MessageEdited).await?;
    tx.commit().await?;
    taken.note(hub);
    again(hub, &found, id).await
}

/// Deletes a message: one's own, or another's as an admin of the room. Again is the same.
///
/// # Errors
/// As `access::as_member`; `Error::NotFound` if there is no such message; `forbidden` if it is another's.
/// `Error::Unavailable` if the database fails; it may be deleted.
pub async fn delete(hub: &Hub, caller: &UserCaller, id: ChatId) -> Result<ChatMessage> {
    let found = access::as_member(hub, caller, id.room_id).await?;
    let (mut tx, row) = locked(hub, &found, id).await?;
    let is_own = row.sender_id == caller.user_id();
    if !is_own {
        access::check(caller, &found, Deed::DeleteOthersMessage)?;
    }
    if row.deleted_at.is_some() {
        return Ok(open(hub, row));
    }
    let taken = replace(hub, &mut tx, caller, &found, &row, chat_message::EMPTY, RoomEventKind::MessageDeleted).await?;
    if !is_own {
        let entry = AuditEntry {
            action: "chat_message.delete".into(),
            partner_id: Some(caller.partner_id()),
            object: Some(room_object(id.room_id)),
            after: Some(serde_json::json!({"messageId": id.to_string()})),
            ..AuditEntry::default()
        };
        audit(hub, &mut tx, caller, &entry).await?;
    }
    tx.commit().await?;
    taken.note(hub);
    again(hub, &found, id).await
}

/// Begins a transaction that holds the locks of a room's gate and of a message that the member sees.
async fn locked(hub: &Hub, found: &InRoom, id: ChatId) -> Result<(store::Tx, ChatRow)> {
    let mut tx = hub.store.begin().await?;
    store::room::lock(&mut tx, found.room.shard, id.room_id).await?;
    let row = chat_message::lock(&mut *tx, found.room.shard, id).await?;
    let row = row.filter(|row| row.no > found.member.from_no).ok_or(Error::NotFound)?;
    Ok((tx, row))
}

async fn replace(
    hub: &Hub,
    tx: &mut Conn,
    caller: &UserCaller,
    found: &InRoom,
    row: &ChatRow,
    content: &str,
    kind: RoomEventKind,
) -> Result<Taken> {
    let (id, now) = (ChatId { room_id: row.room_id, seq: row.seq }, hub.clock.now());
    let delete = kind == RoomEventKind::MessageDeleted;
    chat_message::replace(&mut *tx, row.shard, id, content, now, caller.user_id(), delete).await?;
    let mut taken = Taken::default();
    let place = (found.room.shard, row.room_id);
    taken.room_event(hub, tx, place, kind, caller.user_id(), Some(row.seq)).await?;
    Ok(taken)
}

async fn again(hub: &Hub, found: &InRoom, id: ChatId) -> Result<ChatMessage> {
    let row = chat_message::get(hub.store.api(), found.room.shard, id).await?.ok_or(Error::NotFound)?;
    Ok(open(hub, row))
}
