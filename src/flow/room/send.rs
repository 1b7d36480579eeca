//! Send: writes messages into rooms in groups. A room always goes to the same writer of a process, so that its messages
//! are numbered in the order in which they came; messages that arrive during a commit are written together in the next.

use crate::error::{Error, Refusal, Result};
use crate::hub::Hub;
use crate::hub::chat_queue::{ChatRequest, ChatRequests};
use crate::hub::rooms::RoomFacts;
use crate::id::Tsid;
use crate::model::access::user::UserCaller;
use crate::model::chat_message::{ChatContent, ChatId, ChatKind, ChatMessage};
use crate::model::room::may_send;
use crate::model::stream::StreamKey;
use crate::shutdown::may_die_at;
use crate::store::chat_message;
use crate::store::chat_message::{NewChatMessage, Sent};
use crate::store::room::RoomOfUser;

use super::access::{room_refused, send_refused};

/// A message as its sender gives it.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The sender's own id of it: repeated, it is written once.
    pub temp_id: Option<String>,
    pub kind: ChatKind,
    pub content: ChatContent,
}

/// Writes a message into a room. Returns it, and whether it was there already: the same `temp_id` with the same
/// content.
///
/// # Errors
/// `Error::NotFound` if there is no such room for the caller; `not_a_member`, `banned`, `blocked`, `silenced`,
/// `room_closed`, `temp_id_reused`; `Error::Limited` over a limit or in slow mode; `Error::Busy` if too much waits.
/// Nothing was written then. `Error::Unavailable` if the database fails; send it again with the same `temp_id`.
pub async fn send(hub: &Hub, caller: &UserCaller, room_id: Tsid, draft: Draft) -> Result<(ChatMessage, bool)> {
    let now = hub.clock.now();
    // What is refused, a member's or not, does not count in the room: others could not write.
    if !hub.chat_limits.by_user.take(caller.user_id(), now) || !hub.chat_limits.by_room.is_free(room_id, now) {
        let detail = "too many messages; write more slowly".to_owned();
        return Err(Error::Limited { reason: "rate_limited", detail, retry_after_s: 1 });
    }
    let facts = facts(hub, caller, room_id).await?;
    let chat_id = hub.next_id();
    let message = NewChatMessage {
        shard: caller.shard(),
        room_id,
        sender_id: caller.user_id(),
        temp_id: draft.temp_id.clone(),
        chat_id,
        kind: draft.kind,
        content: chat_message::encode(&hub.keyring, room_id, chat_id, &draft.content, facts.encrypted)?,
    };
    match hub.chat.write(message).await? {
        Some(sent) => {
            hub.chat_limits.by_room.take(room_id, now);
            Ok((made(caller, room_id, draft, sent), false))
        }
        None => existing(hub, caller, room_id, &draft).await.map(|message| (message, true)),
    }
}

fn made(caller: &UserCaller, room_id: Tsid, draft: Draft, sent: Sent) -> ChatMessage {
    ChatMessage {
        id: ChatId { room_id, seq: sent.seq },
        no: sent.no,
        sender_id: caller.user_id(),
        temp_id: draft.temp_id,
        kind: draft.kind,
        content: draft.content,
        version: 1,
        created_at: sent.chat_id.time(),
        edited_at: None,
        deleted_at: None,
    }
}

/// What never changes of a room, from memory if it was asked for before.
async fn facts(hub: &Hub, caller: &UserCaller, room_id: Tsid) -> Result<RoomFacts> {
    if let Some(facts) = hub.rooms.get(room_id) {
        return if facts.partner_id == caller.partner_id() { Ok(facts) } else { Err(Error::NotFound) };
    }
    let found = super::access::visible(hub, caller, room_id).await?;
    let facts = RoomFacts { partner_id: found.room.partner_id, encrypted: found.room.encrypted };
    hub.rooms.insert(room_id, facts);
    Ok(facts)
}

/// The message that is there already, or why none was written.
async fn existing(hub: &Hub, caller: &UserCaller, room_id: Tsid, draft: &Draft) -> Result<ChatMessage> {
    let (db, shard, sender) = (hub.store.api(), caller.shard(), caller.user_id());
    let RoomOfUser { room, member } = super::access::visible(hub, caller, room_id).await?;
    if let Some(temp_id) = &draft.temp_id
        && let Some(row) = chat_message::find_temp(db, shard, room_id, sender, temp_id).await?
    {
        let content = row.content(&hub.keyring)?;
        let first = row.with(content);
        let is_same = first.deleted_at.is_some()
            || first.edited_at.is_some()
            || (first.kind == draft.kind && first.content == draft.content);
        if is_same {
            return Ok(first);
        }
        let detail = format!("{} has another content; choose another tempId for it", first.id);
        return Err(room_refused(409, "temp_id_reused", detail));
    }
    let blocked = super::access::is_blocked(hub, caller, &room).await?;
    let last = match room.settings.slow_mode_s {
        0 => None,
        _ => chat_message::last_sent_at(db, shard, room_id, sender).await?,
    };
    match may_send(&room, member.as_ref(), blocked, last, hub.clock.now()).into_iter().next() {
        Some(why) => Err(send_refused(why)),
        // What refused it is over by now.
        None => Err(Error::Busy("the room changed at this moment; send the message again")),
    }
}

/// Starts the writers. They end when the process stops and their queues are empty.
pub fn start(hub: &Hub, writers: Vec<ChatRequests>) {
    for mut requests in writers {
        let hub = hub.clone();
        hub.clone().shutdown.spawn(async move {
            while let Some(group) = requests.next_group(&hub.shutdown).await {
                // Counted, because each is to be noted.
                let known = group.iter().filter(|request| hub.recent_sends.note(&request.message)).count();
                let group = if known > 0 { without_repeated(&hub, group).await } else { group };
                write_group(&hub, group).await;
            }
        });
    }
}

async fn write_group(hub: &Hub, group: Vec<ChatRequest>) {
    if group.is_empty() {
        return;
    }
    match write(hub, &group).await {
        Ok(Some(sent)) => {
            let answered = |request: &ChatRequest| sent.iter().find(|s| s.chat_id == request.message.chat_id).copied();
            for request in group {
                let answer = answered(&request);
                request.answer(Ok(answer));
            }
        }
        Err(Error::Unavailable(why)) => {
            group.into_iter().for_each(|request| request.answer(Err(Error::Unavailable(why.clone()))));
        }
        // Some are there already, or one is refused by the database. The others are written without them.
        Ok(None) | Err(_) if group.len() > 1 => {
            let n = group.len();
            let others = without_repeated(hub, group).await;
            if others.len() < n {
                return Box::pin(write_group(hub, others)).await;
            }
            for request in others {
                Box::pin(write_group(hub, vec![request])).await;
            }
        }
        // It is there already.
        Ok(None) => group.into_iter().for_each(|request| request.answer(Ok(None))),
        Err(e) => {
            if let Error::Refused(Refusal { detail, .. }) = &e {
                hub.metrics.rejected_input.inc();
                tracing::error!(detail, "the database refused a chat message that the parser accepted");
            }
            if let Some(request) = group.into_iter().next() {
                request.answer(Err(e));
            }
        }
    }
}

/// Answers the messages of a group that are there already. Returns the others.
async fn without_repeated(hub: &Hub, group: Vec<ChatRequest>) -> Vec<ChatRequest> {
    let messages: Vec<&NewChatMessage> = group.iter().map(|request| &request.message).collect();
    // If they cannot be read, none is known: the key of tempIds refuses them, and the caller then gets an answer.
    let places = chat_message::repeated(hub.store.engine(), &messages).await.unwrap_or_default();
    let (repeated, others): (Vec<_>, Vec<_>) =
        group.into_iter().enumerate().partition(|(place, _)| places.contains(place));
    repeated.into_iter().for_each(|(_, request)| request.answer(Ok(None)));
    others.into_iter().map(|(_, request)| request).collect()
}

async fn write(hub: &Hub, group: &[ChatRequest]) -> Result<Option<Vec<Sent>>> {
    let messages: Vec<&NewChatMessage> = group.iter().map(|request| &request.message).collect();
    may_die_at("chat.before_commit");
    let sent = chat_message::send(hub.store.engine(), &messages, hub.clock.now()).await?;
    may_die_at("chat.after_commit");
    let Some(sent) = sent else { return Ok(None) };
    hub.metrics.chat_messages.inc_by(sent.len() as u64);
    let by_id = |chat_id| messages.iter().find(|message| message.chat_id == chat_id);
    let written = sent.iter().filter_map(|s| Some((*by_id(s.chat_id)?, *s)));
    hub.streams.note(written.map(|(message, s)| (StreamKey::room(message.shard, message.room_id), s.seq)));
    Ok(Some(sent))
}
