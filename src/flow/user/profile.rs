//! Profile: what users say of themselves, what others see of them, and what their partner or an operator does to them.

use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::OwnerPermit;
use crate::model::access::user::UserCaller;
use crate::model::partner::Partner;
use crate::model::user::{Presence, User, UserState};
use crate::store::audit::AuditEntry;
use crate::store::user::WantedUser;
use crate::store::{self, credential, user, user_block};

use super::session::{audit, audit_entry, end_all};
use super::{change, make, password};

/// Changes to a profile. None leaves a field as it is; in a nested option the inner None clears it.
#[derive(Debug, Clone, Default)]
pub struct ProfileChange {
    pub nickname: Option<String>,
    pub shown_as: Option<Option<Presence>>,
    pub bio: Option<Option<String>>,
    pub profile_image_url: Option<Option<String>>,
    pub background_image_url: Option<Option<String>>,
    pub email: Option<Option<String>>,
    pub phone: Option<Option<String>>,
    pub locale: Option<Option<String>>,
    pub time_zone: Option<Option<String>>,
}

impl ProfileChange {
    fn apply(self, user: &mut User) {
        fn set<T>(place: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *place = value;
            }
        }
        set(&mut user.nickname, self.nickname);
        set(&mut user.shown_as, self.shown_as);
        set(&mut user.bio, self.bio);
        set(&mut user.profile_image_url, self.profile_image_url);
        set(&mut user.background_image_url, self.background_image_url);
        set(&mut user.email, self.email);
        set(&mut user.phone, self.phone);
        set(&mut user.locale, self.locale);
        set(&mut user.time_zone, self.time_zone);
    }
}

/// The caller's own user as it is now.
///
/// # Errors
/// `Error::NotFound` if it was deleted meanwhile; `Error::Unavailable` if the database fails.
pub async fn own(hub: &Hub, caller: &UserCaller) -> Result<User> {
    let found = user::get(hub.store.api(), caller.shard(), caller.partner_id(), caller.user_id(), None).await?;
    found.map(|(user, _)| user).filter(|user| user.state != UserState::Deleted).ok_or(Error::NotFound)
}

/// Another user of the caller's partner, as the caller sees it: a deleted one too. A user that has blocked the caller
/// is shown as OFFLINE.
///
/// # Errors
/// `Error::NotFound` if the partner has no such user; `Error::Unavailable` if the database fails.
pub async fn other(hub: &Hub, caller: &UserCaller, user_id: Tsid) -> Result<User> {
    let (db, shard) = (hub.store.api(), caller.shard());
    let found = user::get(db, shard, caller.partner_id(), user_id, None).await?;
    let (mut other, _) = found.ok_or(Error::NotFound)?;
    if user_id != caller.user_id() && user_block::exists(db, shard, user_id, caller.user_id()).await? {
        (other.shown_as, other.last_seen_at) = (Some(Presence::Offline), None);
    }
    Ok(other)
}

/// Changes the caller's own profile and returns it.
///
/// # Errors
/// `tz_unknown` for a time zone that does not exist; `Error::NotFound` if the user was deleted meanwhile. Nothing was
/// written then. `Error::Unavailable` if the database fails; nothing was written, unless it failed during the commit.
pub async fn update(hub: &Hub, caller: &UserCaller, profile: ProfileChange) -> Result<User> {
    change(hub, caller.shard(), caller.partner_id(), caller.user_id(), profile).await
}

async fn change(hub: &Hub, shard: i16, partner_id: Tsid, user_id: Tsid, profile: ProfileChange) -> Result<User> {
    if let Some(Some(zone)) = &profile.time_zone
        && !store::partner::is_time_zone(hub.store.api(), zone).await?
    {
        let detail = "is not a time zone such as Asia/Seoul".into();
        let fault = Fault { pointer: "/timeZone".into(), reason: "tz_unknown", detail, code: Code::E001 };
        return Err(Refusal::from_faults(vec![fault]).into());
    }
    let mut tx = hub.store.begin().await?;
    let found = user::lock(&mut tx, shard, partner_id, user_id).await?;
    let mut user = found.filter(|user| user.state != UserState::Deleted).ok_or(Error::NotFound)?;
    profile.apply(&mut user);
    user.updated_at = hub.clock.now();
    user::update(&mut *tx, &user).await?;
    tx.commit().await?;
    change::announce(hub, user_id).await;
    Ok(user)
}

/// Gives the caller another password. All its sign-ins end, and no access token issued before is valid.
///
/// # Errors
/// `password_weak`; `credentials_wrong` if another request changed the password at the same moment. `Error::Busy` if
/// too many sign-ins wait. `Error::Unavailable` if the database fails; nothing was written, unless it failed during the
/// commit.
pub async fn set_password(
    hub: &Hub,
    caller: &UserCaller,
    checked: &store::user::Credential,
    new: String,
) -> Result<User> {
    password::check_new(&new, caller.user.username.as_deref().unwrap_or_default(), "/newPassword")?;
    let (shard, user_id) = (caller.shard(), caller.user_id());
    let hash = password::hash(hub, new).await?;
    let mut tx = hub.store.begin().await?;
    let user = user::lock(&mut tx, shard, caller.partner_id(), user_id).await?.ok_or(Error::NotFound)?;
    if !credential::set_hash(&mut *tx, shard, user_id, &checked.password_hash, &hash, hub.clock.now()).await? {
        tx.rollback().await?;
        return Err(password::credentials_wrong());
    }
    credential::set_failures(&mut *tx, shard, user_id, 0, None).await?;
    end_all(hub, &mut tx, &user, user.state).await?;
    let entry = AuditEntry { action: "user.password".into(), ..audit_entry(&user) };
    audit(hub, &mut tx, caller, &entry).await?;
    tx.commit().await?;
    change::announce(hub, user_id).await;
    Ok(user)
}

/// A user of a partner, by the partner's own id of it or its userId. Deleted users are found by their userId.
///
/// # Errors
/// `Error::NotFound` if the partner has no such user; `Error::Unavailable` if the database fails.
pub async fn find(hub: &Hub, partner: &Partner, name: &str) -> Result<User> {
    let db = hub.store.api();
    let wanted = WantedUser { shard: partner.shard, partner_id: partner.partner_id, name: name.to_owned() };
    let found = user::find(db, &[wanted]).await?.pop().flatten().ok_or(Error::NotFound)?;
    let found = user::get(db, partner.shard, partner.partner_id, found.user_id, None).await?;
    Ok(found.ok_or(Error::NotFound)?.0)
}

/// Makes a user of a partner or changes it, by the partner's own id of it or its userId, and returns it. With a state
/// it blocks or unblocks the user.
///
/// # Errors
/// `Error::NotFound` if the name cannot be one of a user, or the user is deleted; `tz_unknown`. `Error::Unavailable` if
/// the database fails; a part may be written.
pub async fn upsert(
    hub: &Hub,
    permit: OwnerPermit<'_>,
    name: &str,
    profile: ProfileChange,
    state: Option<UserState>,
) -> Result<User> {
    let partner = permit.partner();
    let wanted = WantedUser { shard: partner.shard, partner_id: partner.partner_id, name: name.to_owned() };
    let found = make::find_or_create(hub, &[wanted]).await?.pop().flatten().ok_or(Error::NotFound)?;
    let user = change(hub, partner.shard, partner.partner_id, found.user_id, profile).await?;
    match state {
        Some(state) if state != user.state => set_state(hub, permit, &user, state).await,
        _ => Ok(user),
    }
}

/// Blocks or unblocks a user. Blocking ends all its sign-ins and voids its access tokens.
///
/// # Errors
/// `Error::NotFound` if the user is deleted. `Error::Unavailable` if the database fails; nothing was written, unless it
/// failed during the commit.
pub async fn set_state(hub: &Hub, permit: OwnerPermit<'_>, user: &User, state: UserState) -> Result<User> {
    let action = match state {
        UserState::Active => "user.unblock",
        UserState::Blocked => "user.block",
        UserState::Deleted => return Err(Error::Internal("a user is deleted by erasing it".into())),
    };
    let mut tx = hub.store.begin().await?;
    let found = user::lock(&mut tx, user.shard, user.partner_id, user.user_id).await?;
    let mut user = found.filter(|user| user.state != UserState::Deleted).ok_or(Error::NotFound)?;
    match state {
        UserState::Blocked => end_all(hub, &mut tx, &user, state).await?,
        _ => user::set_state(&mut *tx, user.shard, user.user_id, state, hub.clock.now()).await?,
    }
    let entry = AuditEntry { action: action.into(), ..audit_entry(&user) };
    store::audit::insert(&mut *tx, hub.next_id(), hub.clock.now(), permit.actor(), &entry).await?;
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    user.state = state;
    Ok(user)
}

/// Ends all sign-ins of a user and voids its access tokens.
///
/// # Errors
/// `Error::NotFound` if the user is deleted. `Error::Unavailable` if the database fails; nothing was written, unless it
/// failed during the commit.
pub async fn sign_out(hub: &Hub, permit: OwnerPermit<'_>, user: &User) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let found = user::lock(&mut tx, user.shard, user.partner_id, user.user_id).await?;
    let user = found.filter(|user| user.state != UserState::Deleted).ok_or(Error::NotFound)?;
    end_all(hub, &mut tx, &user, user.state).await?;
    let entry = AuditEntry { action: "user.signed_out".into(), ..audit_entry(&user) };
    store::audit::insert(&mut *tx, hub.next_id(), hub.clock.now(), permit.actor(), &entry).await?;
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    Ok(())
}
