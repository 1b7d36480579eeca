//! Rooms over Server-Sent Events: what is unread, the list of rooms, and who has read a message. Values are absolute:
//! a client replaces what it has, so nothing is lost with a connection.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::chat_message::chat_id;
use super::inbox::StreamParams;
use super::room::RoomShape;
use super::room_form::room_id;
use super::user_rooms::{ChangedRoom, UserRooms};
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::room::access::forbidden_for_another;
use crate::http::answer::Answer;
use crate::http::caller::LiveUser;
use crate::http::query::Query;
use crate::http::request::PathId;
use crate::http::sse::{self, Frames};
use crate::hub::Hub;
use crate::hub::connections::OpenConnection;
use crate::hub::live_notes::NoteListener;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::chat_message::ChatId;
use crate::model::live::LiveNote;

/// What is unread, first.
#[derive(Serialize, ToSchema)]
pub struct UnreadSnapshot {
    /// In all rooms.
    total: i64,
    /// By room.
    rooms: BTreeMap<String, i64>,
}

/// What is unread in a room, when it changes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadEvent {
    room_id: String,
    /// By user: the caller's alone.
    unread_counts: BTreeMap<String, i64>,
    unread_count: i64,
    /// In all rooms.
    total: i64,
    /// The beginning of the last message's text; empty if there is none.
    last_message: String,
}

/// The caller's rooms, first.
#[derive(Serialize, ToSchema)]
pub struct RoomsSnapshot {
    /// At most 200, last active first.
    rooms: Vec<RoomShape>,
}

/// A room of the list, when it changes.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomUpdate {
    room_id: String,
    unread_count: i64,
    /// The beginning of the last message's text; empty if there is none.
    last_message: String,
    /// The caller is no longer in it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    is_gone: bool,
}

/// How many members have read a message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadCount {
    room_id: String,
    message_id: String,
    /// Besides its sender.
    read_count: usize,
    /// Besides its sender.
    member_count: usize,
}

/// Which of the two lists of rooms a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unread,
    Updates,
}

/// The caller, whose own id the path has to name.
fn own(caller: &UserCaller, user_id: &str) -> Result<()> {
    if caller.user_id().to_string() == user_id { Ok(()) } else { Err(forbidden_for_another()) }
}

fn until(hub: &Hub, caller: &UserCaller) -> Option<Duration> {
    caller.until.map(|until| (until - hub.clock.now()).to_std().unwrap_or_default())
}

#[utoipa::path(get, path = "/api/v1/sse/unread/{userId}", operation_id = "streamUnread", tag = "rooms",
    security(("bearer" = [])), params(("userId" = String, Path, description = "the caller's own id"), StreamParams),
    responses((status = 200, description = "Server-Sent Events: `snapshot` (UnreadSnapshot) first, then a message \
        (UnreadEvent) for each change", content((UnreadSnapshot = "text/event-stream"),
        (UnreadEvent = "text/event-stream")))))]
/// Unread counts, live
///
/// How many messages the caller has not read, of each of its rooms, whichever device reads them.
pub async fn unread(
    State(hub): State<Hub>,
    LiveUser(caller): LiveUser,
    mut query: Query,
    PathId(user_id): PathId,
) -> Answer<Response> {
    LiveUser::take_parameters(&mut query);
    query.close()?;
    own(&caller, &user_id)?;
    let source = RoomSource::open(&hub, &caller, Kind::Unread).await?;
    let mut first = Frames::default();
    let rooms: BTreeMap<String, i64> =
        source.rooms.unread().map(|(room_id, unread)| (room_id.to_string(), unread)).collect();
    first.event("snapshot", None, &UnreadSnapshot { total: rooms.values().sum(), rooms });
    Ok(sse::respond(first, source, until(&hub, &caller)))
}

#[utoipa::path(get, path = "/api/v1/sse/updates/{userId}", operation_id = "streamRooms", tag = "rooms",
    security(("bearer" = [])), params(("userId" = String, Path, description = "the caller's own id"), StreamParams),
    responses((status = 200, description = "Server-Sent Events: `snapshot` (RoomsSnapshot) first, then a message \
        (RoomUpdate) for each change", content((RoomsSnapshot = "text/event-stream"),
        (RoomUpdate = "text/event-stream")))))]
/// The list of rooms, live
///
/// The caller's rooms, and each that has a new message, another unread count, or is new or gone.
pub async fn updates(
    State(hub): State<Hub>,
    LiveUser(caller): LiveUser,
    mut query: Query,
    PathId(user_id): PathId,
) -> Answer<Response> {
    LiveUser::take_parameters(&mut query);
    query.close()?;
    own(&caller, &user_id)?;
    let source = RoomSource::open(&hub, &caller, Kind::Updates).await?;
    let rooms = flow::room::history::rooms(&hub, &caller, Tsid(i64::MAX), None, limits::ROOMS_LIVE).await?;
    let mut first = Frames::default();
    first.event("snapshot", None, &RoomsSnapshot { rooms: rooms.into_iter().map(RoomShape::of).collect() });
    Ok(sse::respond(first, source, until(&hub, &caller)))
}

/// The rooms of a user, as frames when they change.
struct RoomSource {
    rooms: UserRooms,
    user_id: Tsid,
    kind: Kind,
    _open: OpenConnection,
}

impl RoomSource {
    async fn open(hub: &Hub, caller: &UserCaller, kind: Kind) -> Result<RoomSource> {
        let own = flow::stream::open(hub, caller.key(), None).await?.listener;
        let caller = flow::user::access::again(hub, caller).await?;
        let open = flow::presence::connect(hub, caller.key());
        let rooms = UserRooms::open(hub, caller.key(), own).await?;
        Ok(RoomSource { rooms, user_id: caller.user_id(), kind, _open: open })
    }

    fn write(&self, frames: &mut Frames, changed: Vec<ChangedRoom>) {
        let total = self.rooms.unread().map(|(_, unread)| unread).sum();
        for ChangedRoom { room_id, unread, last_message, is_gone } in changed {
            let room_id = room_id.to_string();
            match self.kind {
                Kind::Unread => {
                    let unread_counts = BTreeMap::from([(self.user_id.to_string(), unread)]);
                    let event = UnreadEvent { room_id, unread_counts, unread_count: unread, total, last_message };
                    frames.event("message", None, &event);
                }
                Kind::Updates => {
                    frames.event("message", None, &RoomUpdate { room_id, unread_count: unread, last_message, is_gone });
                }
            }
        }
    }
}

impl sse::Source for RoomSource {
    async fn next(&mut self) -> Option<Frames> {
        let mut frames = Frames::default();
        while frames.is_empty() {
            if !self.rooms.wait().await {
                return None;
            }
            let changed = self.rooms.changes().await.ok()?;
            self.write(&mut frames, changed);
        }
        Some(frames)
    }
}

#[utoipa::path(get, path = "/api/v1/sse/read-count/{roomId}/{messageId}", operation_id = "streamReadCount",
    tag = "rooms", security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("messageId" = String, Path, description = "the message's id"), StreamParams),
    responses((status = 200, description = "Server-Sent Events: a message (ReadCount) first and at each change",
        content((ReadCount = "text/event-stream")))))]
/// Who has read a message, live
///
/// How many members have read it. Ends when all have, or after an hour.
pub async fn read_count(
    State(hub): State<Hub>,
    LiveUser(caller): LiveUser,
    mut query: Query,
    Path((room, message)): Path<(String, String)>,
) -> Answer<Response> {
    LiveUser::take_parameters(&mut query);
    query.close()?;
    let (room_id, id) = (room_id(&room)?, chat_id(&message)?);
    if id.room_id != room_id {
        return Err(Error::NotFound.into());
    }
    let (note_sender, notes) = mpsc::channel(limits::LIVE_NOTES);
    let listening = hub.live_notes.listen(room_id, note_sender);
    let mut source =
        ReadSource { hub: hub.clone(), caller: caller.clone(), id, known: None, notes, _listening: listening };
    let mut first = Frames::default();
    source.read(&mut first).await?;
    let most = until(&hub, &caller).map_or(limits::READ_COUNT_MOST, |until| until.min(limits::READ_COUNT_MOST));
    Ok(sse::respond(first, source, Some(most)))
}

/// How many have read a message, as frames.
struct ReadSource {
    hub: Hub,
    caller: UserCaller,
    id: ChatId,
    /// Readers and members, besides the sender.
    known: Option<(usize, usize)>,
    notes: mpsc::Receiver<LiveNote>,
    _listening: NoteListener,
}

impl ReadSource {
    async fn read(&mut self, frames: &mut Frames) -> Result<()> {
        flow::user::access::again(&self.hub, &self.caller).await?;
        let (message, marks) = flow::room::history::message(&self.hub, &self.caller, self.id).await?;
        let others = marks.iter().filter(|mark| mark.user_id != message.sender_id);
        let members = others.clone().count();
        let readers = others.filter(|mark| mark.read_no >= message.no).count();
        if self.known.replace((readers, members)) != Some((readers, members)) {
            let (room_id, message_id) = (self.id.room_id.to_string(), self.id.to_string());
            let count = ReadCount { room_id, message_id, read_count: readers, member_count: members };
            frames.event("message", None, &count);
        }
        Ok(())
    }
}

impl sse::Source for ReadSource {
    async fn next(&mut self) -> Option<Frames> {
        let mut frames = Frames::default();
        while frames.is_empty() {
            if self.known.is_some_and(|(readers, members)| readers == members) {
                return None;
            }
            let _again = tokio::time::timeout(limits::UNREAD_AGAIN, self.notes.recv()).await;
            self.read(&mut frames).await.ok()?;
        }
        Some(frames)
    }
}
