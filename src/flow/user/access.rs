//! Access: identifies the user on whose behalf a request runs, by one of three doors, and checks that the user, its
//! sign-in and its partner may still use the hub. What was read is used for `limits::USER_KEPT` at most, and less if a
//! notification of a change arrives.

use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::error::{Error, Result};
use crate::flow::sign_in::{partner_is_active, token_refused, unauthenticated, verified};
use crate::hub::Hub;
use crate::hub::accounts::UserDoor;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::forbidden;
use crate::model::access::principal::{Actor, Origin};
use crate::model::access::token::{TokenRefusal, subscriber_key_of, verify_subscriber};
use crate::model::access::user::{Door, UserCaller, blocked};
use crate::model::partner::Partner;
use crate::model::user::{self, Presence, User, UserState, is_external_id, is_image_url};
use crate::store;
use crate::store::ticket::TicketUser;
use crate::store::user::{TokenProfile, WantedUser};

use super::{change, make};

/// Identifies the user of a bearer token: a token of this hub, or one that the partner's server signed. A user that the
/// partner's server names for the first time is made.
///
/// # Errors
/// `Error::Refused` with 401 if the token is invalid, expired or void; with 403 if it is a client's, the user is
/// blocked or the partner is inactive. `Error::Unavailable` if the database has to be read and fails.
pub async fn by_token(hub: &Hub, token: &str, origin: Origin) -> Result<UserCaller> {
    let caller = match subscriber_key_of(token) {
        Some((partner_id, number)) => by_subscriber_token(hub, token, partner_id, number, origin).await?,
        None => by_own_token(hub, token, origin).await?,
    };
    seen(hub, &caller.user).await;
    Ok(caller)
}

async fn by_own_token(hub: &Hub, token: &str, origin: Origin) -> Result<UserCaller> {
    let now = hub.clock.now();
    let claims = match verified(hub, |keys| keys.verify_user(token, now)).await? {
        Err(TokenRefusal::Invalid) if hub.token_keys.get().verify(token, now).is_ok() => {
            return Err(forbidden("a user's access token, or the header X-User with the user's id"));
        }
        verified => verified.map_err(token_refused)?,
    };
    let ids = (claims.pid.parse::<Tsid>(), claims.sub.parse::<Tsid>(), claims.sid.map(|sid| sid.parse()).transpose());
    let (Ok(partner_id), Ok(user_id), Ok(sid)) = ids else { return Err(token_refused(TokenRefusal::Invalid)) };
    let door = user_door(hub, partner_id).await?.ok_or_else(gone)?;
    let (user, stands) = read(hub, &door.partner, user_id, sid).await?.ok_or_else(gone)?;
    check(&door.partner, &user, claims.iat)?;
    match stands {
        true => {
            let until = DateTime::from_timestamp(claims.exp, 0);
            Ok(UserCaller { partner: door.partner.clone(), user, door: Door::Token { sid }, until, origin })
        }
        false => Err(unauthenticated("the sign-in of this access token has ended; sign in")),
    }
}

async fn by_subscriber_token(
    hub: &Hub,
    token: &str,
    partner_id: Tsid,
    number: i16,
    origin: Origin,
) -> Result<UserCaller> {
    let now = hub.clock.now();
    let wrong = || {
        unauthenticated(
            "the token is not signed with a valid user key of the partner that it names, or a claim is wrong: iss is \
             the partner's id, aud is notihub/user, iat is not in the future, exp is at most 24 hours after iat",
        )
    };
    let door = user_door(hub, partner_id).await?.ok_or_else(wrong)?;
    let is_open = |until: &Option<DateTime<Utc>>| until.is_none_or(|until| now < until);
    let key = door.keys.iter().find(|(of, _, until)| *of == number && is_open(until));
    let (_, key, _) = key.ok_or_else(wrong)?;
    let claims = verify_subscriber(token, partner_id, key, now).map_err(|refused| match refused {
        TokenRefusal::Expired => token_refused(refused),
        TokenRefusal::Invalid | TokenRefusal::UnknownKey => wrong(),
    })?;
    partner_is_active(&door.partner)?;
    if !is_external_id(&claims.sub) {
        return Err(unauthenticated("the token's sub is not 1 to 128 printable characters"));
    }
    let until = DateTime::from_timestamp(claims.expires_at(), 0);
    let issued_at = claims.issued_at();
    let user = external(hub, &door.partner, &claims.sub, issued_at).await?;
    check(&door.partner, &user, issued_at)?;
    let profile = TokenProfile {
        nickname: claims.nickname.filter(|name| is_line(name, user::NICKNAME_CHARS)),
        profile_image_url: claims.picture.filter(|url| is_image_url(url)),
        locale: claims.locale.filter(|locale| is_line(locale, user::LOCALE_CHARS)),
    };
    // Of two tokens the newer one counts, and what the user changed since is kept.
    let is_newer = user.updated_at == user.created_at || issued_at >= user.updated_at.timestamp();
    let user = if is_newer { take_over(hub, user, profile).await? } else { user };
    Ok(UserCaller { partner: door.partner.clone(), user, door: Door::Subscriber, until, origin })
}

/// Identifies the user of a ticket that was issued at `iat`.
///
/// # Errors
/// As `by_token`.
pub async fn by_ticket(hub: &Hub, ticket: &TicketUser, iat: i64, origin: Origin) -> Result<UserCaller> {
    let door = user_door(hub, ticket.partner_id).await?.ok_or_else(gone)?;
    let (user, stands) = read(hub, &door.partner, ticket.user_id, ticket.sid).await?.ok_or_else(gone)?;
    check(&door.partner, &user, iat)?;
    if !stands {
        return Err(unauthenticated("the sign-in of this ticket has ended; sign in"));
    }
    let (partner, until, door) = (door.partner.clone(), ticket.token_until, Door::Token { sid: ticket.sid });
    Ok(UserCaller { partner, user, door, until, origin })
}

/// Identifies the user that a partner's own key acts on behalf of. `name`: the partner's own id of the user, or the
/// user's id. A user that the partner names for the first time is made.
///
/// # Errors
/// `Error::Refused` with 403 if the user is blocked; `Error::NotFound` if the name cannot be one of a user, or the user
/// is deleted. `Error::Unavailable` if the database has to be read and fails.
pub async fn on_behalf(hub: &Hub, actor: Actor, partner: Arc<Partner>, name: &str) -> Result<UserCaller> {
    let since = hub.clock.now() - limits::USER_KEPT;
    let origin = actor.origin.clone();
    let remembered = hub.users.get_external(partner.partner_id, name, since);
    let user = match remembered {
        Some(user) => user,
        None => {
            let wanted = WantedUser { shard: partner.shard, partner_id: partner.partner_id, name: name.to_owned() };
            let found = make::find_or_create(hub, &[wanted]).await?.pop().flatten().ok_or(Error::NotFound)?;
            read(hub, &partner, found.user_id, None).await?.ok_or(Error::NotFound)?.0
        }
    };
    match user.state {
        UserState::Active => {
            Ok(UserCaller { partner, user, door: Door::OnBehalf(Box::new(actor)), until: None, origin })
        }
        UserState::Blocked => Err(blocked()),
        UserState::Deleted => Err(Error::NotFound),
    }
}

/// Identifies a user again that was identified before, for a connection that goes on. Call it once the user's stream is
/// open: a change that came before is seen here, and one that comes after ends the stream.
///
/// # Errors
/// As `by_token`, if the user, its sign-in or its partner may not use the hub any more. `Error::Unavailable` if the
/// database has to be read and fails.
pub async fn again(hub: &Hub, caller: &UserCaller) -> Result<UserCaller> {
    let partner = user_door(hub, caller.partner_id()).await?.ok_or_else(gone)?.partner.clone();
    let sid = match &caller.door {
        Door::Token { sid } => *sid,
        Door::Subscriber | Door::OnBehalf(_) => None,
    };
    let (user, stands) = read(hub, &partner, caller.user_id(), sid).await?.ok_or_else(gone)?;
    partner_is_active(&partner)?;
    match user.state {
        UserState::Blocked => Err(blocked()),
        UserState::Deleted => Err(gone()),
        UserState::Active if stands && user.tokens_after == caller.user.tokens_after => {
            Ok(UserCaller { partner, user, ..caller.clone() })
        }
        UserState::Active => Err(unauthenticated("the access token was revoked; sign in")),
    }
}

fn gone() -> Error {
    unauthenticated("the user of this access token does not exist any more; sign in")
}

/// Checks that user and partner may use the hub, and that a token issued at `iat` is not void.
fn check(partner: &Partner, user: &User, iat: i64) -> Result<()> {
    partner_is_active(partner)?;
    match user.state {
        UserState::Active if user.accepts_token_of(iat) => Ok(()),
        UserState::Active => Err(unauthenticated("the access token was revoked; sign in")),
        UserState::Blocked => Err(blocked()),
        UserState::Deleted => Err(gone()),
    }
}

/// A partner with its user keys, from memory for `limits::USER_KEPT`.
async fn user_door(hub: &Hub, partner_id: Tsid) -> Result<Option<Arc<UserDoor>>> {
    let now = hub.clock.now();
    if let Some(door) = hub.accounts.user_door(partner_id, now - limits::USER_KEPT) {
        return Ok(door);
    }
    let (generation, db) = (hub.accounts.generation(), hub.store.api());
    let door = match store::partner::get(db, partner_id).await? {
        None => None,
        Some(partner) => {
            let keys = match store::user_key::get(db, &hub.keyring, partner_id).await {
                Ok(keys) => keys.unwrap_or_default(),
                // Tokens of this hub need no user key.
                Err(e @ (Error::Setup(_) | Error::Internal(_))) => {
                    tracing::error!(
                        error = %e, %partner_id,
                        "a partner's user key does not open: tokens signed with it are refused"
                    );
                    Default::default()
                }
                Err(e) => return Err(e),
            };
            let former = keys.former.map(|(key, until)| (keys.number - 1, key, Some(until)));
            let present = keys.key.map(|key| (keys.number, key, None));
            Some(Arc::new(UserDoor { partner: Arc::new(partner), keys: present.into_iter().chain(former).collect() }))
        }
    };
    hub.accounts.remember_user_door(partner_id, door.clone(), now, generation);
    Ok(door)
}

/// A user and whether its sign-in `sid` stands, from memory for `limits::USER_KEPT`.
async fn read(hub: &Hub, partner: &Partner, user_id: Tsid, sid: Option<Tsid>) -> Result<Option<(Arc<User>, bool)>> {
    let now = hub.clock.now();
    if let Some(known) = hub.users.get(partner.partner_id, user_id, sid, now - limits::USER_KEPT) {
        return Ok(Some(known));
    }
    let generation = hub.users.generation();
    let found = store::user::get(hub.store.api(), partner.shard, partner.partner_id, user_id, sid).await?;
    Ok(found.map(|(user, stands)| {
        let user = Arc::new(user);
        hub.users.remember(user.clone(), sid.map(|sid| (sid, stands)), now, generation);
        (user, stands)
    }))
}

/// The user that a partner's server named in a token issued at `iat`. Made if it does not exist, unless a user of that
/// name was deleted after the token was issued.
async fn external(hub: &Hub, partner: &Partner, external_id: &str, iat: i64) -> Result<Arc<User>> {
    let (now, partner_id) = (hub.clock.now(), partner.partner_id);
    if let Some(user) = hub.users.get_external(partner_id, external_id, now - limits::USER_KEPT) {
        return Ok(user);
    }
    let (generation, db) = (hub.users.generation(), hub.store.api());
    let mut found = store::user::find_external(db, partner.shard, partner_id, external_id).await?;
    if found.is_none() {
        let hash = make::external_hash(hub, partner_id, external_id);
        let deleted = store::user::deleted_external(db, partner.shard, partner_id, &hash).await?;
        if deleted.is_some_and(|at| iat <= at.timestamp()) {
            return Err(gone());
        }
        let wanted = WantedUser { shard: partner.shard, partner_id, name: external_id.to_owned() };
        make::find_or_create(hub, &[wanted]).await?;
        found = store::user::find_external(db, partner.shard, partner_id, external_id).await?;
    }
    let user = Arc::new(found.ok_or(Error::Busy("the user could not be made; repeat soon"))?);
    hub.users.remember(user.clone(), None, now, generation);
    Ok(user)
}

fn is_line(text: &str, most_chars: usize) -> bool {
    (1..=most_chars).contains(&text.chars().count()) && !text.chars().any(char::is_control) && !text.trim().is_empty()
}

/// Writes what a token says of its user where that differs from what is known.
async fn take_over(hub: &Hub, user: Arc<User>, mut profile: TokenProfile) -> Result<Arc<User>> {
    profile.nickname = profile.nickname.filter(|name| *name != user.nickname);
    profile.profile_image_url = profile.profile_image_url.filter(|url| Some(url) != user.profile_image_url.as_ref());
    profile.locale = profile.locale.filter(|locale| Some(locale) != user.locale.as_ref());
    if profile == TokenProfile::default() {
        return Ok(user);
    }
    let now = hub.clock.now();
    store::user::take_over(hub.store.api(), user.shard, user.user_id, &profile, now).await?;
    change::announce(hub, user.user_id).await;
    let mut user = User::clone(&user);
    user.nickname = profile.nickname.unwrap_or(user.nickname);
    user.profile_image_url = profile.profile_image_url.or(user.profile_image_url);
    user.locale = profile.locale.or(user.locale);
    Ok(Arc::new(user))
}

/// Records that a user was seen, unless that was recorded lately or the user wants to be shown as OFFLINE. A failure is
/// logged: the request goes on.
async fn seen(hub: &Hub, user: &User) {
    let now = hub.clock.now();
    let before = now - limits::USER_SEEN_EVERY;
    if user.shown_as == Some(Presence::Offline) || user.last_seen_at.is_some_and(|at| at >= before) {
        return;
    }
    hub.users.saw(user.user_id, now);
    if let Err(e) = store::user::touch(hub.store.api(), user.shard, user.user_id, now, before).await {
        tracing::debug!(error = %e, "it could not be recorded that a user was seen");
    }
}
