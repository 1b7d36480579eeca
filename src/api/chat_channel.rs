//! Rooms in the words of seed 002: a *channel* is a room, and its type is the room's visibility.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::chat_message::{
    AttachmentShape, CHANNEL_MESSAGE, ChatKindWord, ChatReceiptWord, MessagePage, MessageShape, NewChannelMessageBody,
    read_page, read_sent, replayed, sent,
};
use super::envelope::{Envelope, Items, enveloped, page};
use super::form::forms;
use super::room::{RoomShape, VisibilityWord, list_page, read_visibility, visibility_words};
use super::room_form::{RoleWord, USER_ID, read_metadata, read_user_ids, room_id};
use super::shape::metadata;
use super::user::{or_null, read_form};
use crate::flow;
use crate::flow::room::change::RoomChange;
use crate::flow::room::make::NewRoom;
use crate::http::answer::{Answer, Time};
use crate::http::caller::User;
use crate::http::page::Page;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::form::{Field, Form, Kind};
use crate::model::room::{RoomKind, RoomSettings, TITLE, Visibility};

/// A channel: a room, with its visibility as `type`.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatChannel)]
#[serde(rename_all = "camelCase")]
pub struct ChannelShape {
    id: String,
    /// The same as `id`.
    channel_id: String,
    name: Option<String>,
    #[serde(rename = "type")]
    #[schema(value_type = VisibilityWord)]
    kind: &'static str,
    /// OPEN or CLOSED: no member may write any more.
    #[schema(example = "OPEN")]
    state: &'static str,
    participant_count: i32,
    max_participants: i32,
    last_message_id: Option<String>,
    last_active_at: Time,
    /// 0 for one who is not a member.
    unread_count: i64,
    /// Null for one who is not a member.
    #[schema(value_type = Option<RoleWord>)]
    role: Option<&'static str>,
    #[schema(schema_with = metadata)]
    metadata: Map<String, Value>,
    created_at: Time,
    updated_at: Time,
}

impl ChannelShape {
    fn of(room: RoomShape) -> ChannelShape {
        ChannelShape {
            id: room.id,
            channel_id: room.channel_id,
            name: room.name,
            kind: room.visibility,
            state: room.state,
            participant_count: room.participant_count,
            max_participants: room.max_participants,
            last_message_id: room.last_message_id,
            last_active_at: room.last_active_at,
            unread_count: room.unread_count,
            role: room.role,
            metadata: room.metadata,
            created_at: room.created_at,
            updated_at: room.updated_at,
        }
    }
}

/// A message of a channel: its content is the text.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatChannelMessage)]
#[serde(rename_all = "camelCase")]
pub struct ChannelMessageShape {
    message_id: String,
    channel_id: String,
    sender_id: String,
    /// The text; empty if it was deleted.
    content: String,
    #[serde(rename = "type")]
    #[schema(value_type = ChatKindWord)]
    kind: &'static str,
    #[schema(value_type = Option<ChatReceiptWord>)]
    status: Option<&'static str>,
    attachments: Vec<AttachmentShape>,
    /// To the sender alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    temp_id: Option<String>,
    /// Its number in the room's stream.
    seq: i64,
    version: i16,
    is_edited: bool,
    is_deleted: bool,
    #[schema(schema_with = metadata)]
    metadata: Map<String, Value>,
    created_at: Time,
}

impl ChannelMessageShape {
    fn of(message: MessageShape) -> ChannelMessageShape {
        let content = message.content;
        ChannelMessageShape {
            message_id: message.message_id,
            channel_id: message.channel_id,
            sender_id: message.sender_id,
            content: content.text,
            kind: content.kind,
            status: message.receipt,
            attachments: content.attachments,
            temp_id: message.temp_id,
            seq: message.seq,
            version: message.version,
            is_edited: content.is_edited,
            is_deleted: content.is_deleted,
            metadata: message.metadata,
            created_at: message.created_at,
        }
    }
}

static NEW_CHANNEL: Form = Form {
    name: "NewChatChannel",
    description: "A channel to make. The caller owns it.",
    kind: Kind::Object(&[
        Field::required("name", Kind::Text(TITLE), ""),
        Field::optional("type", Kind::Words(visibility_words), "Default: PRIVATE."),
        Field::optional("metadata", Kind::Metadata, "Your own names with texts, numbers and booleans; 2 KiB."),
        Field::optional("members", Kind::List(&USER_ID, None, Some(limits::PARTICIPANTS)), "userIds."),
    ]),
    examples: &[r#"{"name": "general", "type": "PUBLIC"}"#],
};

static CHANNEL_CHANGE: Form = Form {
    name: "ChatChannelChange",
    description: "Fields that are left out stay as they are.",
    kind: Kind::Object(&[
        Field::optional("name", Kind::Text(TITLE), ""),
        Field::optional("type", Kind::Words(visibility_words), ""),
        Field::optional("metadata", Kind::Metadata, ""),
    ]),
    examples: &[],
};

forms! {
    NewChannelBody = NEW_CHANNEL;
    ChannelChangeBody = CHANNEL_CHANGE;
}

async fn answer(hub: &Hub, caller: &UserCaller, room_id: Tsid, status: StatusCode) -> Answer {
    let shown = flow::room::history::room(hub, caller, room_id).await?;
    Ok(enveloped(hub, status, ChannelShape::of(RoomShape::of(shown))))
}

#[utoipa::path(post, path = "/api/channels", operation_id = "makeChannel", tag = "channels",
    security(("bearer" = [])), request_body = NewChannelBody,
    responses((status = 201, description = "the channel", body = Envelope<ChannelShape>)))]
/// Make a channel
///
/// Makes a channel with the caller as its owner.
pub async fn make(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let new = read_form(&NEW_CHANNEL, &body, |fields, faults| NewRoom {
        kind: RoomKind::Group,
        title: fields.text("name"),
        participants: read_user_ids(fields, "members", faults).unwrap_or_default(),
        visibility: read_visibility(fields, "type", faults).unwrap_or(Visibility::Private),
        most_members: None,
        settings: RoomSettings::default(),
        metadata: read_metadata(fields, faults).unwrap_or_default(),
        encrypted: false,
    })?;
    let (room_id, _) = flow::room::make::make(&hub, &caller, new).await?;
    answer(&hub, &caller, room_id, StatusCode::CREATED).await
}

#[utoipa::path(get, path = "/api/channels", operation_id = "listChannels", tag = "channels",
    security(("bearer" = [])), params(
        ("type" = Option<String>, Query, description = "PUBLIC: all open public channels, entered or not"),
        ("limit" = Option<i64>, Query, description = "items on a page", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "the `nextCursor` of the previous page, unchanged")),
    responses((status = 200, description = "a page", body = Envelope<Items<ChannelShape>>)))]
/// Channels
///
/// The channels that the caller is in, last active first; with `?type=PUBLIC` the open public ones, newest first.
pub async fn list(State(hub): State<Hub>, User(caller): User, mut query: Query) -> Answer {
    let public = query.parse("type", "PUBLIC", |text| (text == "PUBLIC").then_some(()))?;
    if public.is_none() {
        return list_page(&hub, &caller, query, None, ChannelShape::of).await;
    }
    let Page { limit, after, .. } = Page::cursor_only(&mut query, &hub, "public rooms", caller.partner_id())?;
    query.close()?;
    let below = after.map_or(Tsid(i64::MAX), |(room_id, _)| room_id);
    let rooms = flow::room::history::public_rooms(&hub, &caller, below, limit + 1).await?;
    let whose = caller.partner_id();
    let shape = |shown| ChannelShape::of(RoomShape::of(shown));
    let found = page(&hub, "public rooms", whose, rooms, limit, |shown| shown.room.room_id, shape);
    Ok(enveloped(&hub, StatusCode::OK, found))
}

#[utoipa::path(get, path = "/api/channels/{channelId}", operation_id = "getChannel", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    responses((status = 200, description = "the channel", body = Envelope<ChannelShape>)))]
/// A channel
///
/// A channel that the caller is in, or a public one.
pub async fn get(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    answer(&hub, &caller, room_id(&id)?, StatusCode::OK).await
}

#[utoipa::path(put, path = "/api/channels/{channelId}", operation_id = "changeChannel", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    request_body = ChannelChangeBody,
    responses((status = 200, description = "the channel", body = Envelope<ChannelShape>)))]
/// Change a channel
///
/// For owners and admins of the channel. Fields that are left out stay as they are.
pub async fn change(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    let change = read_form(&CHANNEL_CHANGE, &body, |fields, faults| RoomChange {
        title: or_null(fields, "name", |fields| fields.text("name")),
        visibility: read_visibility(fields, "type", faults),
        metadata: read_metadata(fields, faults),
        ..RoomChange::default()
    })?;
    flow::room::change::change(&hub, &caller, id, change).await?;
    answer(&hub, &caller, id, StatusCode::OK).await
}

#[utoipa::path(delete, path = "/api/channels/{channelId}", operation_id = "closeChannel", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    responses((status = 204, description = "The channel is closed.")))]
/// Terminate a channel
///
/// Its owner closes it: no member may write any more.
pub async fn close(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    flow::room::change::close(&hub, &caller, room_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(post, path = "/api/channels/{channelId}/join", operation_id = "joinChannel", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    responses((status = 200, description = "the channel", body = Envelope<ChannelShape>)))]
/// Enter a public channel
///
/// Again is the same.
pub async fn join(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    flow::room::member::enter(&hub, &caller, id).await?;
    answer(&hub, &caller, id, StatusCode::OK).await
}

#[utoipa::path(post, path = "/api/channels/{channelId}/leave", operation_id = "leaveChannel", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    responses((status = 204, description = "The caller has left.")))]
/// Leave a channel
///
/// The last owner's rights go to the oldest admin, else to the oldest member.
pub async fn leave(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    flow::room::member::leave(&hub, &caller, room_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(get, path = "/api/channels/{channelId}/members", operation_id = "listChannelMembers", tag = "channels",
    security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id"),
        ("limit" = Option<i64>, Query, description = "items on a page", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "the `nextCursor` of the previous page, unchanged")),
    responses((status = 200, description = "a page", body = Envelope<Items<super::member::MemberShape>>)))]
/// Members of a channel
///
/// A page of those who are in the channel, by userId.
pub async fn members(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    super::member::list_page(&hub, &caller, query, room_id(&id)?).await
}

#[utoipa::path(get, path = "/api/channels/{channelId}/messages", operation_id = "listChannelMessages",
    tag = "channels", security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id"),
        super::chat_message::HistoryParams),
    responses((status = 200, description = "a page, newest first",
        body = Envelope<MessagePage<ChannelMessageShape>>)))]
/// Messages of a channel
///
/// A page of its history, newest first.
pub async fn messages(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    let found = read_page(&hub, &caller, query, room_id(&id)?, ChannelMessageShape::of).await?;
    Ok(enveloped(&hub, StatusCode::OK, found))
}

#[utoipa::path(post, path = "/api/channels/{channelId}/messages", operation_id = "sendChannelMessage",
    tag = "channels", security(("bearer" = [])), params(("channelId" = String, Path, description = "the channel's id")),
    request_body = NewChannelMessageBody, responses(
        (status = 201, description = "the message", body = Envelope<ChannelMessageShape>),
        (status = 200, description = "the message that was there already (`Idempotent-Replayed`)",
            body = Envelope<ChannelMessageShape>)))]
/// Send a message into a channel
///
/// Stored when it is answered. Send it again with the same `tempId` whenever the answer is lost.
pub async fn send(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::CHAT_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    let body = read_sent(&CHANNEL_MESSAGE, &body)?;
    let (status, message) = sent(&hub, &caller, id, body).await?;
    Ok(replayed(status, enveloped(&hub, status, ChannelMessageShape::of(message))))
}
