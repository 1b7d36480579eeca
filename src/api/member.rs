//! Members of rooms: response shapes and handlers.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::envelope::{Envelope, Items, enveloped, page};
use super::form::forms;
use super::room_form::{RoleWord, USER_ID, read_user_ids, room_id};
use super::user::{or_null, read_form};
use crate::error::{Code, Error};
use crate::flow;
use crate::flow::room::member::{MemberChange, ShownMembers};
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
use crate::model::json;
use crate::model::room::{MEMBER_ROLES, MemberRole};
use crate::store::member::MemberProfile;

/// A member of a room.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomMember)]
#[serde(rename_all = "camelCase")]
pub struct MemberShape {
    /// `{roomId}-{userId}`.
    id: String,
    room_id: String,
    /// The same as `roomId`.
    channel_id: String,
    user_id: String,
    /// Empty if the user is deleted.
    nickname: String,
    profile_image_url: Option<String>,
    #[schema(value_type = RoleWord)]
    role: &'static str,
    joined_at: Time,
    /// The number among the room's messages up to which it has read.
    /// Null for others where the room's setting receipts is off.
    read_no: Option<i64>,
    read_at: Option<Time>,
    silenced_until: Option<Time>,
}

impl MemberShape {
    /// `viewer`: who sees it. `receipts`: whether the room shows who has read.
    fn of(profile: &MemberProfile, viewer: Tsid, receipts: bool) -> MemberShape {
        let member = &profile.member;
        let shows_marks = receipts || member.user_id == viewer;
        let room_id = member.room_id.to_string();
        MemberShape {
            id: format!("{room_id}-{}", member.user_id),
            channel_id: room_id.clone(),
            room_id,
            user_id: member.user_id.to_string(),
            nickname: profile.nickname.clone(),
            profile_image_url: profile.profile_image_url.clone(),
            role: member.role.as_str(),
            joined_at: Time(member.joined_at),
            read_no: shows_marks.then_some(member.read_no),
            read_at: member.read_at.filter(|_| shows_marks).map(Time),
            silenced_until: member.silenced_until.map(Time),
        }
    }
}

static INVITATION: Form = Form {
    name: "Invitation",
    description: "Users to bring into a room: all, or none.",
    kind: Kind::Object(&[Field::required(
        "userIds",
        Kind::List(&USER_ID, Some(1), Some(limits::PARTICIPANTS)),
        "userIds.",
    )]),
    examples: &[],
};

static MEMBER_CHANGE: Form = Form {
    name: "MemberChange",
    description: "Fields that are left out stay as they are.",
    kind: Kind::Object(&[
        Field::optional("role", Kind::Words(role_words), "OWNER hands over: the caller becomes an ADMIN."),
        Field::optional("silencedUntil", Kind::Time, "It may not write until then; null: it may."),
    ]),
    examples: &[],
};

fn role_words() -> Vec<&'static str> {
    MEMBER_ROLES.map(MemberRole::as_str).to_vec()
}

forms! {
    InvitationBody = INVITATION;
    MemberChangeBody = MEMBER_CHANGE;
}

#[utoipa::path(get, path = "/api/v1/chatrooms/{roomId}/participants", operation_id = "listMembers", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("limit" = Option<i64>, Query, description = "items on a page", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "the `nextCursor` of the previous page, unchanged")),
    responses((status = 200, description = "a page", body = Envelope<Items<MemberShape>>)))]
/// Members of a room
///
/// A page of those who are in the room, by userId.
pub async fn list(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    list_page(&hub, &caller, query, room_id(&id)?).await
}

/// Answers with a page of a room's members.
pub(super) async fn list_page(hub: &Hub, caller: &UserCaller, mut query: Query, room_id: Tsid) -> Answer {
    let Page { limit, after, .. } = Page::cursor_only(&mut query, hub, "members", room_id)?;
    query.close()?;
    let above = after.map_or(Tsid(0), |(user_id, _)| user_id);
    let ShownMembers { profiles, shows_marks } =
        flow::room::member::list(hub, caller, room_id, above, limit + 1).await?;
    let id = |profile: &MemberProfile| profile.member.user_id;
    let shape = |profile: MemberProfile| MemberShape::of(&profile, caller.user_id(), shows_marks);
    let found = page(hub, "members", room_id, profiles, limit, id, shape);
    Ok(enveloped(hub, StatusCode::OK, found))
}

#[utoipa::path(post, path = "/api/v1/chatrooms/{roomId}/participants", operation_id = "inviteMembers", tag = "rooms",
    security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id")),
    request_body = InvitationBody,
    responses((status = 200, description = "those who came", body = Envelope<Vec<MemberShape>>)))]
/// Bring users into a room
///
/// All of them, or none. For owners and admins of the room; in a PUBLIC room for every member. New members see what is
/// written from then on, or everything with `settings.historyForNew`.
pub async fn invite(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let id = room_id(&id)?;
    let users = read_form(&INVITATION, &body, |fields, faults| read_user_ids(fields, "userIds", faults))?;
    let came = flow::room::member::invite(&hub, &caller, id, &users.unwrap_or_default()).await?;
    let ShownMembers { profiles, shows_marks } = flow::room::member::some(&hub, &caller, id, &came).await?;
    let shape = |profile: &MemberProfile| MemberShape::of(profile, caller.user_id(), shows_marks);
    Ok(enveloped(&hub, StatusCode::OK, profiles.iter().map(shape).collect::<Vec<_>>()))
}

/// The ids of a room and of a user in a path.
fn ids((room, user): &(String, String)) -> Result<(Tsid, Tsid), Error> {
    Ok((room_id(room)?, user.parse().map_err(|_| Error::NotFound)?))
}

#[utoipa::path(put, path = "/api/v1/chatrooms/{roomId}/participants/{userId}", operation_id = "changeMember",
    tag = "rooms", security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("userId" = String, Path, description = "the member's userId")), request_body = MemberChangeBody,
    responses((status = 200, description = "the member", body = Envelope<MemberShape>)))]
/// Change a member
///
/// Roles are given by owners, members are silenced by owners and admins.
pub async fn change(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    Path(path): Path<(String, String)>,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let (room_id, user_id) = ids(&path)?;
    let change = read_form(&MEMBER_CHANGE, &body, |fields, faults| {
        let role = fields
            .text("role")
            .and_then(|word| json::one_of::<MemberRole>(&word, "/role", &role_words(), faults, Code::E001));
        MemberChange { role, silenced_until: or_null(fields, "silencedUntil", |fields| fields.time("silencedUntil")) }
    })?;
    flow::room::member::change(&hub, &caller, room_id, user_id, change).await?;
    let ShownMembers { profiles, shows_marks } = flow::room::member::some(&hub, &caller, room_id, &[user_id]).await?;
    let shape = |profile: &MemberProfile| MemberShape::of(profile, caller.user_id(), shows_marks);
    let profile = profiles.first().map(shape).ok_or(Error::NotFound)?;
    Ok(enveloped(&hub, StatusCode::OK, profile))
}

#[utoipa::path(delete, path = "/api/v1/chatrooms/{roomId}/participants/{userId}", operation_id = "removeMember",
    tag = "rooms", security(("bearer" = [])), params(("roomId" = String, Path, description = "the room's id"),
        ("userId" = String, Path, description = "the member's userId"),
        ("ban" = Option<bool>, Query, description = "true: it cannot come back; false: one removed so can")),
    responses((status = 204, description = "The member is removed, or its ban is lifted.")))]
/// Remove a member
///
/// For owners and admins; an admin is removed by an owner. Oneself: as leaving.
pub async fn remove(
    State(hub): State<Hub>,
    User(caller): User,
    mut query: Query,
    Path(path): Path<(String, String)>,
) -> Answer {
    let ban = query.parse("ban", "true or false", |text| text.parse::<bool>().ok())?;
    query.close()?;
    let (room_id, user_id) = ids(&path)?;
    flow::room::member::remove(&hub, &caller, room_id, user_id, ban).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
