//! Users: their own profile, others' profiles, blocks and devices. Response shapes and handlers.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse as _;
use serde::Serialize;
use utoipa::ToSchema;

use super::envelope::{Envelope, Items, enveloped, page};
use super::form::forms;
use crate::error::{Code, Error, Refusal};
use crate::flow;
use crate::flow::user::profile::ProfileChange;
use crate::flow::user::sign_in::check_password;
use crate::http::answer::{Answer, Time};
use crate::http::caller::User;
use crate::http::page::Page;
use crate::http::problem::EnvelopedProblem;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::http::words::words;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::password::PASSWORD_CHARS;
use crate::model::access::user::Door;
use crate::model::device::{APP_CHARS, PLATFORMS, Platform, TOKEN_BYTES};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::intake::is_mailbox;
use crate::model::json::{self, Faults, TextRule};
use crate::model::user::{self, PRESENCES, Presence, UserState, is_image_url};
use crate::model::{access::user::UserCaller, phone};
use crate::store::device::DeviceRow;
use crate::store::{self, user_block};

words! {
    PresenceWord, "whether a user is there, as others see it", PRESENCES.map(Presence::as_str);
    PlatformWord, "the platform over which pushes reach a device", PLATFORMS.map(Platform::as_str);
}

/// A user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub struct UserShape {
    id: String,
    /// The same as `id`.
    user_id: String,
    /// The name to sign in with; null: the user never signed up.
    username: Option<String>,
    /// The service's own id of the user; null: the user signed up.
    external_id: Option<String>,
    /// Empty if the user is deleted.
    nickname: String,
    #[schema(value_type = PresenceWord)]
    status: &'static str,
    profile_image_url: Option<String>,
    background_image_url: Option<String>,
    bio: Option<String>,
    last_seen_at: Option<Time>,
    /// True if the user withdrew or was erased: only its id is left.
    is_deleted: bool,
    /// By which others find the user. Only to the user itself, as the following.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    email: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    phone: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    locale: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, required = false)]
    time_zone: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Time>,
}

/// A user as others see it.
pub fn public(user: &user::User) -> UserShape {
    UserShape {
        id: user.user_id.to_string(),
        user_id: user.user_id.to_string(),
        username: user.username.clone(),
        external_id: user.external_id.clone(),
        nickname: user.nickname.clone(),
        status: user.presence().as_str(),
        profile_image_url: user.profile_image_url.clone(),
        background_image_url: user.background_image_url.clone(),
        bio: user.bio.clone(),
        last_seen_at: user.last_seen_at.map(Time),
        is_deleted: user.state == UserState::Deleted,
        user_code: None,
        email: None,
        phone: None,
        locale: None,
        time_zone: None,
        created_at: None,
    }
}

/// A user as it sees itself.
pub fn private(user: &user::User) -> UserShape {
    UserShape {
        user_code: Some(user.user_code.clone()),
        email: Some(user.email.clone()),
        phone: Some(user.phone.clone()),
        locale: Some(user.locale.clone()),
        time_zone: Some(user.time_zone.clone()),
        created_at: Some(Time(user.created_at)),
        ..public(user)
    }
}

/// The same with the user's presence as it is now. A user sees of itself what it chose.
async fn live(hub: &Hub, user: &user::User, shape: UserShape) -> crate::error::Result<UserShape> {
    if shape.user_code.is_some() && user.shown_as.is_some() {
        return Ok(shape);
    }
    let connected = flow::presence::connected(hub, &[(user.shard, user.user_id)]).await?;
    let status = user.presence_with(connected.get(&user.user_id).copied(), hub.clock.now()).as_str();
    Ok(UserShape { status, ..shape })
}

/// The reading rule of a password.
pub const PASSWORD: TextRule = TextRule::line(*PASSWORD_CHARS.end());
/// The reading rule of what a user says of itself.
pub const BIO: TextRule = TextRule::block(limits::USER_BIO_BYTES);
const URL: TextRule = TextRule::address(user::URL_BYTES);

/// Fields of a profile that its user, and its partner, may change.
pub const EMAIL: Field = Field::optional("email", Kind::Plain(TextRule::address(limits::EMAIL_BYTES)), "");
pub const PHONE: Field = Field::optional("phone", Kind::Plain(TextRule::line(limits::PHONE_CHARS)), "");
pub const LOCALE: Field =
    Field::optional("locale", Kind::Text(TextRule::line(user::LOCALE_CHARS)), "A language tag.").with_example("ko-KR");
pub const TIME_ZONE: Field =
    Field::optional("timeZone", Kind::Text(TextRule::line(limits::NAME_CHARS)), "").with_example("Asia/Seoul");

static PROFILE: Form = Form {
    name: "ProfileChange",
    description: "Changes to a user. Fields that are left out stay as they are; null clears one, except the nickname.",
    kind: Kind::Object(&[
        Field::optional("nickname", Kind::Text(user::NICKNAME), "The name that others see."),
        Field::optional("bio", Kind::Text(BIO), ""),
        EMAIL,
        PHONE,
        LOCALE,
        TIME_ZONE,
    ]),
    examples: &[],
};

static PROFILE_IMAGE: Form = Form {
    name: "ProfileImage",
    description: "The address of the image, in one of the two fields; null: none.",
    kind: Kind::Object(&[
        Field::optional("imageUrl", Kind::Plain(URL), "An https address."),
        Field::optional("profileImageUrl", Kind::Plain(URL), "The same."),
    ]),
    examples: &[],
};

static BACKGROUND_IMAGE: Form = Form {
    name: "BackgroundImage",
    description: "The address of the image, in one of the two fields; null: none.",
    kind: Kind::Object(&[
        Field::optional("imageUrl", Kind::Plain(URL), "An https address."),
        Field::optional("backgroundImageUrl", Kind::Plain(URL), "The same."),
    ]),
    examples: &[],
};

static PASSWORD_CHANGE: Form = Form {
    name: "PasswordChange",
    description: "",
    kind: Kind::Object(&[
        Field::required("password", Kind::Plain(TextRule::line(limits::SECRET_CHARS)), "The present password.")
            .with_length(None, Some(limits::SECRET_CHARS)),
        Field::required("newPassword", Kind::Text(PASSWORD), ""),
    ]),
    examples: &[],
};

static WITHDRAWAL: Form = Form {
    name: "Withdrawal",
    description: "",
    kind: Kind::Object(&[Field::optional(
        "password",
        Kind::Plain(TextRule::line(limits::SECRET_CHARS)),
        "Required of a user that has one, unless its service acts on its behalf.",
    )
    .with_length(None, Some(limits::SECRET_CHARS))]),
    examples: &[],
};

static STATUS: Form = Form {
    name: "PresenceChange",
    description: "",
    kind: Kind::Object(&[Field::optional(
        "status",
        Kind::Words(presence_words),
        "As the user wants to be shown; null: as it is.",
    )]),
    examples: &[],
};

static DEVICE: Form = Form {
    name: "NewDevice",
    description: "",
    kind: Kind::Object(&[
        Field::required("platform", Kind::Words(platform_words), ""),
        Field::required(
            "token",
            Kind::Plain(TextRule::block(TOKEN_BYTES).as_posted()),
            "The token of the device at its platform; of WEBPUSH the JSON of the PushSubscription.",
        )
        .with_length(Some(1), Some(TOKEN_BYTES)),
        Field::optional("app", Kind::Text(TextRule::line(APP_CHARS)), "Which app, where the service has several."),
    ]),
    examples: &[],
};

fn presence_words() -> Vec<&'static str> {
    PRESENCES.map(Presence::as_str).to_vec()
}

fn platform_words() -> Vec<&'static str> {
    PLATFORMS.map(Platform::as_str).to_vec()
}

forms! {
    ProfileChangeBody = PROFILE;
    ProfileImageBody = PROFILE_IMAGE;
    BackgroundImageBody = BACKGROUND_IMAGE;
    PasswordChangeBody = PASSWORD_CHANGE;
    WithdrawalBody = WITHDRAWAL;
    PresenceChangeBody = STATUS;
    NewDeviceBody = DEVICE;
}

/// Reads a body by its form. Collects all faults.
///
/// # Errors
/// A `Refusal` with every fault, or if the body cannot be read.
pub fn read_form<T>(
    form: &'static Form,
    body: &[u8],
    read: impl FnOnce(&mut Fields<'_>, &Faults) -> T,
) -> Result<T, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Fields::open(form, value, "", &faults).map(|mut fields| {
        let read = read(&mut fields, &faults);
        fields.close();
        read
    });
    faults.into_result(read)
}

/// Takes a field that null clears: the inner None.
pub fn or_null<T>(
    fields: &mut Fields<'_>,
    name: &str,
    read: impl FnOnce(&mut Fields<'_>) -> Option<T>,
) -> Option<Option<T>> {
    if fields.is_null(name) {
        read(fields);
        return Some(None);
    }
    read(fields).map(Some)
}

/// Adds a fault if a password is too short.
pub fn check_length(password: Option<&str>, pointer: &str, faults: &Faults) {
    let least = *PASSWORD_CHARS.start();
    if password.is_some_and(|password| password.chars().count() < least) {
        faults.add(pointer, "password_weak", format!("must have at least {least} characters"));
    }
}

/// Takes `email`, and adds a fault if it is no address.
pub fn check_email(fields: &mut Fields<'_>, faults: &Faults) -> Option<String> {
    let email = fields.text("email")?;
    if !is_mailbox(&email) {
        faults.add("/email", "recipient_invalid", "is not an e-mail address");
    }
    Some(email)
}

/// Takes the address of an image, and adds a fault if it is none.
pub fn check_image_url(fields: &mut Fields<'_>, name: &str, faults: &Faults) -> Option<String> {
    let pointer = fields.pointer_to(name);
    let url = fields.text(name)?;
    if !is_image_url(&url) {
        faults.add(pointer, "image_url_invalid", "is not an https address without user and password");
    }
    Some(url)
}

/// Takes the fields of a profile that its user and its partner may change. `region`: country of phone numbers without
/// one.
pub fn read_profile(fields: &mut Fields<'_>, region: &str, faults: &Faults) -> ProfileChange {
    let nickname = fields.text("nickname");
    ProfileChange {
        nickname,
        email: or_null(fields, "email", |fields| check_email(fields, faults)),
        phone: or_null(fields, "phone", |fields| {
            let number = phone::parse(&fields.text("phone")?, region);
            number.map_err(|why| faults.add("/phone", "phone_invalid", why)).ok()
        }),
        locale: or_null(fields, "locale", |fields| fields.text("locale")),
        time_zone: or_null(fields, "timeZone", |fields| fields.text("timeZone")),
        ..ProfileChange::default()
    }
}

/// The user's id in a path.
fn user_id(text: &str) -> Result<Tsid, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

#[utoipa::path(get, path = "/api/v1/users/me", operation_id = "getOwnUser", tag = "users",
    security(("bearer" = [])), responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Own profile
///
/// The user that the request runs for.
pub async fn me(State(hub): State<Hub>, User(caller): User, query: Query) -> Answer {
    query.close()?;
    let user = flow::user::profile::own(&hub, &caller).await?;
    Ok(enveloped(&hub, StatusCode::OK, live(&hub, &user, private(&user)).await?))
}

#[utoipa::path(put, path = "/api/v1/users/me", operation_id = "changeOwnUser", tag = "users",
    security(("bearer" = [])), request_body = ProfileChangeBody,
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Change one's own profile
///
/// Fields that are left out stay as they are.
pub async fn change_me(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let change = read_form(&PROFILE, &body, |fields, faults| {
        let bio = or_null(fields, "bio", |fields| fields.text("bio"));
        ProfileChange { bio, ..read_profile(fields, &caller.partner.region, faults) }
    })?;
    changed(&hub, &caller, change).await
}

async fn changed(hub: &Hub, caller: &UserCaller, change: ProfileChange) -> Answer {
    let user = flow::user::profile::update(hub, caller, change).await?;
    Ok(enveloped(hub, StatusCode::OK, live(hub, &user, private(&user)).await?))
}

#[utoipa::path(delete, path = "/api/v1/users/me", operation_id = "withdrawUser", tag = "users",
    security(("bearer" = [])), request_body = Option<WithdrawalBody>,
    responses((status = 204, description = "The user is deleted.")))]
/// Withdraw
///
/// Removes all that is personal of the user: profile, password, devices and blocks. Its tokens are void, and its
/// username is free again. Its id stays, so that what it wrote has an author.
pub async fn withdraw(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
) -> Answer {
    query.close()?;
    let password = match body {
        Some(JsonBody(body)) => read_form(&WITHDRAWAL, &body, |fields, _| fields.text("password"))?,
        None => None,
    };
    let asks = match &caller.door {
        // The service may erase its user anyway.
        Door::OnBehalf(_) => false,
        Door::Token { .. } | Door::Subscriber => caller.user.username.is_some(),
    };
    if asks {
        let missing = || Refusal::new(401, "credentials_wrong", "send the user's password").with_code(Code::E002);
        check_password(&hub, &caller, password.ok_or_else(missing)?).await?;
    }
    flow::user::leave::withdraw(&hub, &caller).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Reads the address of an image from `imageUrl` or the field `name`.
fn read_image(form: &'static Form, name: &str, body: &[u8]) -> Result<Option<String>, Refusal> {
    read_form(form, body, |fields, faults| {
        let is_null = fields.is_null("imageUrl") || fields.is_null(name);
        let urls = ["imageUrl", name].map(|name| check_image_url(fields, name, faults));
        let url = urls.into_iter().flatten().next();
        if url.is_none() && !is_null && faults.is_empty() {
            faults.add("/imageUrl", "required", "is required");
        }
        url
    })
}

#[utoipa::path(put, path = "/api/v1/users/me/profile-image", operation_id = "setProfileImage", tag = "users",
    security(("bearer" = [])), request_body = ProfileImageBody,
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Set the profile image
///
/// The hub keeps the address, not the image.
pub async fn set_profile_image(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let url = read_image(&PROFILE_IMAGE, "profileImageUrl", &body)?;
    changed(&hub, &caller, ProfileChange { profile_image_url: Some(url), ..ProfileChange::default() }).await
}

#[utoipa::path(put, path = "/api/v1/users/me/background-image", operation_id = "setBackgroundImage", tag = "users",
    security(("bearer" = [])), request_body = BackgroundImageBody,
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Set the background image
///
/// The hub keeps the address, not the image.
pub async fn set_background_image(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let url = read_image(&BACKGROUND_IMAGE, "backgroundImageUrl", &body)?;
    changed(&hub, &caller, ProfileChange { background_image_url: Some(url), ..ProfileChange::default() }).await
}

#[utoipa::path(put, path = "/api/v1/users/me/password", operation_id = "changePassword", tag = "users",
    security(("bearer" = [])), request_body = PasswordChangeBody,
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Change the password
///
/// All sign-ins of the user end, this one too: sign in with the new password.
pub async fn change_password(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let (password, new) = read_form(&PASSWORD_CHANGE, &body, |fields, faults| {
        let texts = (fields.text("password"), fields.text("newPassword"));
        check_length(texts.1.as_deref(), "/newPassword", faults);
        (texts.0.unwrap_or_default(), texts.1.unwrap_or_default())
    })?;
    let checked = check_password(&hub, &caller, password).await?;
    let user = flow::user::profile::set_password(&hub, &caller, &checked, new).await?;
    Ok(enveloped(&hub, StatusCode::OK, live(&hub, &user, private(&user)).await?))
}

#[utoipa::path(put, path = "/api/v1/users/status", operation_id = "setPresence", tag = "users",
    security(("bearer" = [])), request_body = PresenceChangeBody,
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// Set the status
///
/// How the user is shown to others. As OFFLINE it is invisible: `lastSeenAt` stands still.
pub async fn set_presence(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let shown_as = read_form(&STATUS, &body, |fields, faults| {
        let shown_as = or_null(fields, "status", |fields| {
            json::one_of(&fields.text("status")?, "/status", &presence_words(), faults, Code::E001)
        });
        if shown_as.is_none() && faults.is_empty() {
            faults.add("/status", "required", "is required");
        }
        shown_as
    })?;
    changed(&hub, &caller, ProfileChange { shown_as, ..ProfileChange::default() }).await
}

#[utoipa::path(get, path = "/api/v1/users/{userId}", operation_id = "getUser", tag = "users",
    security(("bearer" = [])), params(("userId" = String, Path, description = "the user's id")),
    responses((status = 200, description = "the user", body = Envelope<UserShape>)))]
/// A user
///
/// A user of the same service. A user that withdrew has `isDeleted` and nothing else.
pub async fn get(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let id = user_id(&id)?;
    let user = flow::user::profile::other(&hub, &caller, id).await?;
    let shape = if id == caller.user_id() { private(&user) } else { public(&user) };
    let shape = live(&hub, &user, shape).await?;
    Ok(enveloped(&hub, StatusCode::OK, shape))
}

#[utoipa::path(post, path = "/api/v1/users/{userId}/block", operation_id = "blockUser", tag = "users",
    security(("bearer" = [])), params(("userId" = String, Path, description = "the user's id")),
    responses((status = 204, description = "The user is blocked."),
        (status = 409, description = "too many users are blocked", body = EnvelopedProblem,
            content_type = "application/problem+json"),
        (status = 422, description = "the user itself", body = EnvelopedProblem,
            content_type = "application/problem+json")))]
/// Block a user
///
/// The blocked user sees this one as OFFLINE. Again is the same.
pub async fn block(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    flow::user::block::block(&hub, &caller, user_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

#[utoipa::path(delete, path = "/api/v1/users/{userId}/block", operation_id = "unblockUser", tag = "users",
    security(("bearer" = [])), params(("userId" = String, Path, description = "the user's id")),
    responses((status = 204, description = "The user is not blocked.")))]
/// Unblock a user
///
/// Again is the same.
pub async fn unblock(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    user_block::delete(hub.store.api(), caller.shard(), caller.user_id(), user_id(&id)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

const BLOCKS: &str = "user-blocks";

#[utoipa::path(get, path = "/api/v1/users/blocks", operation_id = "listBlockedUsers", tag = "users",
    security(("bearer" = [])),
    params(("limit" = Option<i64>, Query, description = "items on a page", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "the `nextCursor` of the previous page")),
    responses((status = 200, description = "a page", body = Envelope<Items<UserShape>>)))]
/// Blocked users
///
/// The users that the caller has blocked.
pub async fn blocks(State(hub): State<Hub>, User(caller): User, mut query: Query) -> Answer {
    let position = Page::cursor_only(&mut query, &hub, BLOCKS, caller.user_id())?;
    query.close()?;
    let below = position.after.map_or(Tsid(i64::MAX), |after| after.0);
    let db = hub.store.api();
    let rows = user_block::list(db, caller.shard(), caller.user_id(), below, position.limit + 1).await?;
    let items = page(&hub, BLOCKS, caller.user_id(), rows, position.limit, |user| user.user_id, |user| public(&user));
    Ok(enveloped(&hub, StatusCode::OK, items))
}

/// A device, without its token.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
#[serde(rename_all = "camelCase")]
pub struct DeviceShape {
    device_id: String,
    #[schema(value_type = PlatformWord)]
    platform: &'static str,
    app: Option<String>,
    created_at: Time,
    /// When pushes to it were given up; null: they are sent.
    disabled_at: Option<Time>,
    /// Why, as its platform says.
    reason: Option<String>,
}

fn device(row: &DeviceRow) -> DeviceShape {
    DeviceShape {
        device_id: row.device_id.to_string(),
        platform: row.platform.as_str(),
        app: row.app.clone(),
        created_at: Time(row.created_at),
        disabled_at: row.disabled_at.map(Time),
        reason: row.reason.clone(),
    }
}

#[utoipa::path(post, path = "/api/v1/users/me/devices", operation_id = "registerDevice", tag = "users",
    security(("bearer" = [])), request_body = NewDeviceBody,
    responses((status = 201, description = "the device", body = Envelope<DeviceShape>)))]
/// Register a device
///
/// The same token again is the same device. A token that another user had moves to this one. Of more than twenty
/// devices the oldest is removed.
pub async fn register_device(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::SMALL_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let read = read_form(&DEVICE, &body, |fields, faults| {
        let platform = fields
            .text("platform")
            .and_then(|word| json::one_of::<Platform>(&word, "/platform", &platform_words(), faults, Code::E001));
        let (token, app) = (fields.text("token"), fields.text("app"));
        if let (Some(platform), Some(token)) = (platform, &token)
            && let Some(why) = platform.token_fault(token)
        {
            faults.add("/token", "device_token_invalid", why);
        }
        platform.zip(token).map(|(platform, token)| (platform, token, app))
    })?;
    let (platform, token, app) = read.ok_or_else(|| Refusal::from_faults(Vec::new()))?;
    let row = flow::user::device::register(&hub, &caller, platform, &token, app).await?;
    Ok(enveloped(&hub, StatusCode::CREATED, device(&row)))
}

#[utoipa::path(get, path = "/api/v1/users/me/devices", operation_id = "listDevices", tag = "users",
    security(("bearer" = [])),
    responses((status = 200, description = "the devices", body = Envelope<Vec<DeviceShape>>)))]
/// Devices
///
/// The user's own devices, newest first, without their tokens.
pub async fn devices(State(hub): State<Hub>, User(caller): User, query: Query) -> Answer {
    query.close()?;
    let rows = store::device::list(hub.store.api(), caller.shard(), caller.user_id()).await?;
    Ok(enveloped(&hub, StatusCode::OK, rows.iter().map(device).collect::<Vec<_>>()))
}

#[utoipa::path(delete, path = "/api/v1/users/me/devices/{deviceId}", operation_id = "deleteDevice", tag = "users",
    security(("bearer" = [])), params(("deviceId" = String, Path, description = "the device's id")),
    responses((status = 204, description = "The device is removed.")))]
/// Remove a device
///
/// No push is sent to it any more.
pub async fn delete_device(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    match store::device::delete(hub.store.api(), caller.shard(), caller.user_id(), user_id(&id)?).await? {
        true => Ok(StatusCode::NO_CONTENT.into_response()),
        false => Err(Error::NotFound.into()),
    }
}
