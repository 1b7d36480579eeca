//! Rooms: response shapes and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::chat_message::{EventShape, UNTIL_TEXT, text_of};
use super::envelope::{Envelope, Items, enveloped, page};
use super::form::forms;
use super::room_form::{RoleWord, USER_ID, parse_user_id, read_metadata, read_user_ids, room_id};
use super::shape::metadata;
use super::user::{or_null, read_form};
use crate::error::{Code, Refusal};
use crate::flow;
use crate::flow::room::change::RoomChange;
use crate::flow::room::history::RoomShown;
use crate::flow::room::make::NewRoom;
use crate::http::answer::{Answer, Time};
use crate::http::caller::User;
use crate::http::page::Page;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::http::words::words;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind, Preset};
use crate::model::json::{self, Faults};
use crate::model::room::{
    JOIN_POLICIES, JoinPolicy, MEMBERS, MENTION_ALLS, MemberRole, MentionAll, NOTIFIES, Notify, ROOM_KINDS, RoomKind,
    RoomSettings, SLOW_MODE_MOST_S, SettingsChange, TITLE, VISIBILITIES, Visibility,
};

words! {
    RoomKindWord, "INDIVIDUAL: the one room of two users", ROOM_KINDS.map(RoomKind::as_str);
    VisibilityWord, "PUBLIC: every user of the service may find and enter it", VISIBILITIES.map(Visibility::as_str);
    NotifyWord, "which messages a member is notified of", NOTIFIES.map(Notify::as_str);
}

/// A room.
#[derive(Serialize, ToSchema)]
#[schema(as = Room)]
#[serde(rename_all = "camelCase")]
pub struct RoomShape {
    pub(super) id: String,
    /// The same as `id`.
    pub(super) room_id: String,
    /// The same as `id`.
    pub(super) channel_id: String,
    /// Of a room of two without a title: the other's nickname.
    pub(super) title: Option<String>,
    /// The same as `title`.
    pub(super) name: Option<String>,
    #[serde(rename = "type")]
    #[schema(value_type = RoomKindWord)]
    pub(super) kind: &'static str,
    #[schema(value_type = VisibilityWord)]
    pub(super) visibility: &'static str,
    /// OPEN or CLOSED: no member may write any more.
    #[schema(example = "OPEN")]
    pub(super) state: &'static str,
    /// The userIds of the first 100.
    pub(super) participants: Vec<String>,
    pub(super) participant_count: i32,
    pub(super) max_participants: i32,
    pub(super) last_message_id: Option<String>,
    /// At most 100 characters. Null if there is none, or it was deleted.
    pub(super) last_message_text: Option<String>,
    pub(super) last_active_at: Time,
    /// 0 for one who is not a member.
    pub(super) unread_count: i64,
    /// Null for one who is not a member.
    #[schema(value_type = Option<RoleWord>)]
    pub(super) role: Option<&'static str>,
    #[schema(value_type = Option<NotifyWord>)]
    pub(super) notify: Option<&'static str>,
    pub(super) muted_until: Option<Time>,
    #[schema(value_type = RoomSettingsShape)]
    pub(super) settings: Value,
    #[schema(schema_with = metadata)]
    pub(super) metadata: Map<String, Value>,
    /// Days after which messages are deleted; null: as the service has it.
    pub(super) retention_days: Option<i16>,
    pub(super) encrypted: bool,
    pub(super) created_at: Time,
    pub(super) updated_at: Time,
}

/// What the owner and admins of a room decide.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomSettings)]
#[serde(rename_all = "camelCase")]
pub struct RoomSettingsShape {
    alarm: bool,
    typing: bool,
    receipts: bool,
    presence: bool,
    slow_mode_seconds: i32,
    #[schema(value_type = RoleWord)]
    send_role: String,
    #[schema(example = "ADMIN")]
    mention_all: String,
    history_for_new: bool,
    #[schema(example = "OPEN")]
    join_policy: String,
}

impl RoomShape {
    /// A room as a user sees it.
    pub fn of(shown: RoomShown) -> RoomShape {
        let RoomShown { room, member, participants, other_nickname, last } = shown;
        let (id, title) = (room.room_id.to_string(), room.title.clone().or(other_nickname));
        let shown_last = last.as_ref().filter(|last| last.deleted_at.is_none());
        RoomShape {
            room_id: id.clone(),
            channel_id: id.clone(),
            id,
            name: title.clone(),
            title,
            kind: room.kind.as_str(),
            visibility: room.visibility.as_str(),
            state: if room.closed_at.is_some() { "CLOSED" } else { "OPEN" },
            participants: participants.iter().map(Tsid::to_string).collect(),
            participant_count: room.head.members,
            max_participants: room.head.most_members,
            last_message_id: last.as_ref().map(|last| last.id.to_string()),
            last_message_text: shown_last.map(|last| text_of(last, UNTIL_TEXT)),
            last_active_at: Time(room.head.last_id.time()),
            unread_count: member.as_ref().map_or(0, |member| member.unread(&room.head)),
            role: member.as_ref().map(|member| member.role.as_str()),
            notify: member.as_ref().map(|member| member.notify.as_str()),
            muted_until: member.as_ref().and_then(|member| member.muted_until).map(Time),
            settings: room.settings.to_json(),
            metadata: room.metadata,
            retention_days: room.retention_days,
            encrypted: room.encrypted,
            created_at: Time(room.created_at),
            updated_at: Time(room.updated_at),
        }
    }
}

const MEMBERS_MOST: Kind = Kind::Int32(*MEMBERS.start(), *MEMBERS.end());

static SETTINGS: Form = Form {
    name: "RoomSettingsChange",
    description: "What is left out is as by default.",
    kind: Kind::Object(&[
        Field::optional("alarm", Kind::Flag, "Absent members are notified.").with_default(Preset::Flag(true)),
        Field::optional("typing", Kind::Flag, "Members see who is typing.").with_default(Preset::Flag(true)),
        Field::optional("receipts", Kind::Flag, "Members see who has read a message.").with_default(Preset::Flag(true)),
        Field::optional("presence", Kind::Flag, "Members see who is there.").with_default(Preset::Flag(true)),
        Field::optional("slowModeSeconds", Kind::Int32(0, SLOW_MODE_MOST_S), "Least time between two messages of one.")
            .with_default(Preset::Whole(0)),
        Field::optional("sendRole", Kind::Words(send_roles), "Who may write. Default: MEMBER."),
        Field::optional("mentionAll", Kind::Words(mention_alls), "Who may mention all. Default: ADMIN."),
        Field::optional("historyForNew", Kind::Flag, "A new member sees what was written before.")
            .with_default(Preset::Flag(false)),
        Field::optional(
            "joinPolicy",
            Kind::Words(join_policies),
            "Of a PUBLIC room: whether users enter it by themselves. Default: OPEN.",
        ),
    ]),
    examples: &[],
};

fn send_roles() -> Vec<&'static str> {
    vec![MemberRole::Member.as_str(), MemberRole::Admin.as_str()]
}

fn mention_alls() -> Vec<&'static str> {
    MENTION_ALLS.map(MentionAll::as_str).to_vec()
}

fn join_policies() -> Vec<&'static str> {
    JOIN_POLICIES.map(JoinPolicy::as_str).to_vec()
}

fn kind_words() -> Vec<&'static str> {
    ROOM_KINDS.map(RoomKind::as_str).to_vec()
}

pub(super) fn visibility_words() -> Vec<&'static str> {
    VISIBILITIES.map(Visibility::as_str).to_vec()
}

fn notify_words() -> Vec<&'static str> {
    NOTIFIES.map(Notify::as_str).to_vec()
}

const SETTINGS_FIELD: Field = Field::optional("settings", Kind::Form(&SETTINGS), "");
const METADATA: Field =
    Field::optional("metadata", Kind::Metadata, "Your own names with texts, numbers and booleans; at most 2 KiB.");

static NEW_ROOM: Form = Form {
    name: "NewRoom",
    description: "A room to make. The caller is in it anyway.",
    kind: Kind::Object(&[
        Field::optional("type", Kind::Words(kind_words), "Default: GROUP."),
        Field::optional("title", Kind::Text(TITLE), "Of a GROUP."),
        Field::optional(
            "participantIds",
            Kind::List(&USER_ID, None, Some(limits::PARTICIPANTS)),
            "userIds. Of INDIVIDUAL: one, with whom the room is.",
        ),
        Field::optional("userId", USER_ID, "Of INDIVIDUAL: the same as `participantIds` with one."),
        Field::optional("visibility", Kind::Words(visibility_words), "Of a GROUP. Default: PRIVATE."),
        Field::optional("maxParticipants", MEMBERS_MOST, "Of a GROUP.").with_default(Preset::Whole(500)),
        SETTINGS_FIELD,
        METADATA,
        Field::optional("encrypted", Kind::Flag, "Seal its messages at rest; fixed once the room is made.")
            .with_default(Preset::Flag(false)),
    ]),
    examples: &[r#"{"type": "GROUP", "title": "Lunch", "participantIds": ["0TB9C87800007"]}"#],
};

static ROOM_CHANGE: Form = Form {
    name: "RoomChange",
    description: "Fields that are left out stay as they are; null clears title and retentionDays.",
    kind: Kind::Object(&[
        Field::optional("title", Kind::Text(TITLE), ""),
        Field::optional("visibility", Kind::Words(visibility_words), ""),
        Field::optional("maxParticipants", MEMBERS_MOST, ""),
        SETTINGS_FIELD,
        METADATA,
        Field::optional("retentionDays", Kind::Int32(1, 3_650), "Days after which messages are deleted."),
    ]),
    examples: &[],
};

static OWN_ROOM: Form = Form {
    name: "OwnRoomChange",
    description: "What the caller wants to be notified of. Fields that are left out stay as they are.",
    kind: Kind::Object(&[
        Field::optional("notify", Kind::Words(notify_words), ""),
        Field::optional("mutedUntil", Kind::Time, "Null: not muted."),
    ]),
    examples: &[],
};

forms! {
    NewRoomBody = NEW_ROOM;
    RoomChangeBody = ROOM_CHANGE;
    OwnRoomChangeBody = OWN_ROOM;
}

/// Takes a word of a closed list.
fn word<T: std::str::FromStr>(fields: &mut Fields<'_>, name: &str, words: &[&str], faults: &Faults) -> Option<T> {
    let pointer = fields.pointer_to(name);
    let text = fields.text(name)?;
    json::one_of::<T>(&text, &pointer, words, faults, Code::E001)
}

pub(super) fn read_visibility(fields: &mut Fields<'_>, name: &str, faults: &Faults) -> Option<Visibility> {
    word(fields, name, &visibility_words(), faults)
}

fn read_settings(fields: &mut Fields<'_>, faults: &Faults) -> Option<SettingsChange> {
    let pointer = fields.pointer_to("settings");
    let value = fields.take("settings")?;
    let mut fields = Fields::open(&SETTINGS, value, &pointer, faults)?;
    let change = SettingsChange {
        alarm: fields.flag("alarm"),
        typing: fields.flag("typing"),
        receipts: fields.flag("receipts"),
        presence: fields.flag("presence"),
        slow_mode_s: fields.number("slowModeSeconds").and_then(|s| i32::try_from(s).ok()),
        send_role: word(&mut fields, "sendRole", &send_roles(), faults),
        mention_all: word(&mut fields, "mentionAll", &mention_alls(), faults),
        history_for_new: fields.flag("historyForNew"),
        join_policy: word(&mut fields, "joinPolicy", &join_policies(), faults),
    };
    fields.close();
    Some(change)
}

fn most_members(fields: &mut Fields<'_>) -> Option<i32> {
    fields.number("maxParticipants").and_then(|n| i32::try_from(n).ok())
}

fn read_new(fields: &mut Fields<'_>, faults: &Faults) -> NewRoom {
    let kind = word(fields, "type", &kind_words(), faults);
    let mut participants = read_user_ids(fields, "participantIds", faults).unwrap_or_default();
    let pointer = fields.pointer_to("userId");
    let user = fields.text("userId").and_then(|id| parse_user_id(&id, &pointer, faults));
    participants.extend(user);
    NewRoom {
        kind: kind.unwrap_or(RoomKind::Group),
        title: fields.text("title"),
        participants,
        visibility: read_visibility(fields, "visibility", faults).unwrap_or(Visibility::Private),
        most_members: most_members(fields),
        settings: read_settings(fields, faults).unwrap_or_default().apply(RoomSettings::default()),
        metadata: read_metadata(fields, faults).unwrap_or_default(),
        encrypted: fields.flag("encrypted").unwrap_or(false),
    }
}

/// Answers with a room as the caller sees it.
pub(super) async fn answer_room(hub: &Hub, caller: &UserCaller, room_id: Tsid, status: StatusCode) -> Answer {
    let shown = flow::room::history::room(hub, caller, room_id).await?;
    Ok(enveloped(hub, status, RoomShape::of(shown)))
}

#[utoipa::path(post, path = "/api/v1/chatrooms", operation_id = "makeRoom", tag = "rooms",
    security(("bearer" = [])), request_body = NewRoomBody, responses(
        (status = 201, description = "the new room", body = Envelope<RoomShape>),
        (status = 200, description = "the room of the two, which they had", body = Envelope<RoomShape>)))]
/// Make a room
///
/// Makes a group with the caller as its owner; or finds or makes the one room of the caller and another user.
pub async fn make(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let new = read_form(&NEW_ROOM, &body, read_new)?;
    let (room_id, is_new) = flow::room::make::make(&hub, &caller, new).await?;
    answer_room(&hub, &caller, room_id, if is_new { StatusCode::CREATED } else { StatusCode::OK }).await
}

/// The query parameters of a list of rooms.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; the handler reads them from the query")]
pub struct RoomParams {
    /// Only rooms of this kind.
    #[param(value_type = Option<RoomKindWord>, inline)]
    kind: Option<String>,
    /// The number of items on a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page, unchanged.
    #[param(pattern = "^[A-Za-z0-9_-]{35}$")]
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/api/v1/chatrooms", operation_id = "listRooms", tag = "rooms",
    security(("bearer" = [])), params(RoomParams),
    responses((status = 200, description = "a page", body = Envelope<Items<RoomShape>>)))]
/// Rooms
///
/// The rooms that the caller is in, last active first.
pub async fn list(State(hub): State<Hub>, User(caller): User, mut query: Query) -> Answer {
    let words = kind_words().join(", ");
    let kind = query.parse("kind", &format!("one of {words}"), |text| text.parse::<RoomKind>().ok())?;
    list_page(&hub, &caller, query, kind, |room| room).await
}

/// Answers with a page of the caller's rooms.
pub(super) async fn list_page<T: Serialize + ToSchema>(
    hub: &Hub,
    caller: &UserCaller,
    mut query: Query,
    kind: Option<RoomKind>,
    shape: impl Fn(RoomShape) -> T,
) -> Answer {
    let Page { limit, after, .. } = Page::cursor_only(&mut query, hub, "rooms", caller.user_id())?;
    query.close()?;
    let below = after.map_or(Tsid(i64::MAX), |(last_id, _)| last_id);
    let rooms = flow::room::history::rooms(hub, caller, below, kind, limit + 1).await?;
    let last_id = |shown: &RoomShown| shown.room.head.last_id;
    let found = page(hub, "rooms", caller.user_id(), rooms, limit, last_id, |shown| shape(RoomShape::of(shown)));
    Ok(enveloped(hub, StatusCode::OK, found))
}

#[utoipa::path(get, path = "/api/v1/chatrooms/{roomId}", operation_id = "getRoom", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id")),
    responses((status = 200, description = "the room", body = Envelope<RoomShape>)))]
/// A room
///
/// A room that the caller is in, or a public one.
pub async fn get(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    answer_room(&hub, &caller, room_id(&id)?, StatusCode::OK).await
}

#[utoipa::path(put, path = "/api/v1/chatrooms/{roomId}", operation_id = "changeRoom", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id")),
    request_body = RoomChangeBody, responses((status = 200, description = "the room", body = Envelope<RoomShape>)))]
/// Change a room
///
/// For owners and admins of the room. Fields that are left out stay as they are.
pub async fn change(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    let change = read_form(&ROOM_CHANGE, &body, |fields, faults| RoomChange {
        title: or_null(fields, "title", |fields| fields.text("title")),
        visibility: read_visibility(fields, "visibility", faults),
        most_members: most_members(fields),
        settings: read_settings(fields, faults).unwrap_or_default(),
        metadata: read_metadata(fields, faults),
        retention_days: or_null(fields, "retentionDays", |fields| {
            fields.number("retentionDays").and_then(|days| i16::try_from(days).ok())
        }),
    })?;
    flow::room::change::change(&hub, &caller, id, change).await?;
    answer_room(&hub, &caller, id, StatusCode::OK).await
}

#[utoipa::path(delete, path = "/api/v1/chatrooms/{roomId}", operation_id = "leaveRoom", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("close" = Option<bool>, Query, description = "true: close it for all, as its owner")),
    responses((status = 204, description = "The caller has left, or the room is closed.")))]
/// Leave or close a room
///
/// The caller leaves. The last owner's rights go to the oldest admin, else to the oldest member; a room without members
/// is closed. A room of two is cleared and hidden for the caller until something is written. With `?close=true` no
/// member may write any more.
pub async fn leave(State(hub): State<Hub>, User(caller): User, mut query: Query, PathId(id): PathId) -> Answer {
    let close = query.parse("close", "true or false", |text| text.parse::<bool>().ok())?;
    query.close()?;
    let id = room_id(&id)?;
    match close {
        Some(true) => flow::room::change::close(&hub, &caller, id).await?,
        Some(false) | None => flow::room::member::leave(&hub, &caller, id).await?,
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(put, path = "/api/v1/chatrooms/{roomId}/me", operation_id = "changeOwnRoom", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id")),
    request_body = OwnRoomChangeBody, responses((status = 200, description = "the room", body = Envelope<RoomShape>)))]
/// What one wants to be notified of
///
/// Of which messages in a room the caller wants to be notified.
pub async fn change_own(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    let (notify, until) = read_form(&OWN_ROOM, &body, |fields, faults| {
        let notify: Option<Notify> = word(fields, "notify", &notify_words(), faults);
        (notify, or_null(fields, "mutedUntil", |fields| fields.time("mutedUntil")))
    })?;
    flow::room::member::set_notify(&hub, &caller, id, notify, until).await?;
    answer_room(&hub, &caller, id, StatusCode::OK).await
}

/// What happened in a room after a number.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomEvents {
    /// Numbers of another epoch are not comparable: the database was restored from a backup.
    epoch: String,
    /// The number of the room's last event.
    head: i64,
    items: Vec<EventShape>,
    /// Why the numbers do not go on: `epoch`, `gap` or `too_far`. Read the room again then.
    #[serde(skip_serializing_if = "Option::is_none")]
    reset: Option<&'static str>,
}

#[utoipa::path(get, path = "/api/v1/chatrooms/{roomId}/events", operation_id = "listRoomEvents", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("after" = i64, Query, minimum = 0, description = "the number of the last event that the client has"),
        ("epoch" = Option<String>, Query, description = "the epoch of that number"),
        ("limit" = Option<i64>, Query, minimum = 1, maximum = 200, description = "events at most; default 200")),
    responses((status = 200, description = "what came after it", body = Envelope<RoomEvents>)))]
/// What happened in a room
///
/// Everything that happened after a number, in order and without a gap. An event shows its message as it is now.
pub async fn events(State(hub): State<Hub>, User(caller): User, mut query: Query, PathId(id): PathId) -> Answer {
    let after = query.parse("after", "a number, 0 or more", |text| text.parse::<i64>().ok().filter(|n| *n >= 0))?;
    let limit = query.parse("limit", "a number from 1 to 200", |text| {
        text.parse::<i64>().ok().filter(|n| (1..=limits::PAGE_MAX).contains(n))
    })?;
    let given = query.take("epoch");
    query.close()?;
    let after =
        after.ok_or_else(|| Refusal::new(400, "query_required", "send ?after= with the last number you have"))?;
    let id = room_id(&id)?;
    let epoch = flow::stream::epoch(&hub).await?;
    let limit = usize::try_from(limit.unwrap_or(limits::PAGE_MAX)).unwrap_or(1);
    let (head, events) = flow::room::access::events(&hub, &caller, id, after, limit).await?;
    let events =
        if given.is_some_and(|given| *given != *epoch) { Err("epoch") } else { events.map_err(|r| r.as_str()) };
    let (items, reset) = match events {
        Ok(events) => {
            let shape = |event| EventShape::of(&epoch, id, caller.user_id(), event);
            (events.iter().filter_map(shape).collect(), None)
        }
        Err(reason) => (Vec::new(), Some(reason)),
    };
    Ok(enveloped(&hub, StatusCode::OK, RoomEvents { epoch: epoch.to_string(), head, items, reset }))
}
