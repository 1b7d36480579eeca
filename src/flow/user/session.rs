//! Session: the sign-ins of users. A sign-in is a family of refresh tokens, of which each is good for one use; access
//! tokens name the family and end with it.

use crate::crypt;
use crate::error::{Error, Result};
use crate::flow::alert;
use crate::flow::sign_in::{
    REFRESH_PREFIX, is_reuse, may_try, network_of, partner_is_active, revoke_family, signed, unauthenticated,
};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::access::permit::OwnerPermit;
use crate::model::access::principal::Origin;
use crate::model::access::token::{REFRESH_TTL, USER_ACCESS_TTL, UserClaims};
use crate::model::access::user::{Door, UserCaller, blocked, client_name, user_of_client};
use crate::model::partner::Partner;
use crate::model::user::{User, UserState};
use crate::store::audit::AuditEntry;
use crate::store::refresh_token::{self, SignInSession, TokenRow};
use crate::store::user::WantedUser;
use crate::store::{self, Conn};

use super::{change, make};

/// The tokens of a user's sign-in.
pub struct UserTokens {
    pub user_id: Tsid,
    pub access: String,
    /// Good for one use.
    pub refresh: String,
    /// Seconds until the access token expires.
    pub expires_in_s: i64,
}

/// Users' tokens have no epoch: `tokens_after` and the family decide.
const NO_EPOCH: i32 = 0;

/// Begins a sign-in of a user and returns its first tokens.
///
/// # Errors
/// `Error::Unavailable` if the database fails; a refresh token that the caller does not know may have been written.
pub async fn begin(hub: &Hub, user: &User, from: &Origin) -> Result<UserTokens> {
    let now = hub.clock.now();
    let session = SignInSession { family: hub.next_id(), client_id: client_name(user.user_id), epoch: NO_EPOCH };
    let refresh = crypt::secret(REFRESH_PREFIX);
    let (hash, network) = (hashed(hub, &refresh), network_of(from));
    refresh_token::insert(hub.store.api(), &hash, &session, now, now + REFRESH_TTL, network.as_deref()).await?;
    tokens(hub, user, session.family, refresh).await
}

async fn tokens(hub: &Hub, user: &User, sid: Tsid, refresh: String) -> Result<UserTokens> {
    let access = access_token(hub, user, Some(sid)).await?;
    Ok(UserTokens { user_id: user.user_id, access, refresh, expires_in_s: USER_ACCESS_TTL.num_seconds() })
}

/// Signs an access token of a user. `sid`: the sign-in that it belongs to, if there is one.
///
/// # Errors
/// `Error::Unavailable` if a signing key has to be made and the database fails.
pub async fn access_token(hub: &Hub, user: &User, sid: Option<Tsid>) -> Result<String> {
    let now = hub.clock.now();
    let claims = UserClaims::new(user, sid, now);
    signed(hub, |keys| keys.sign_user(&claims, now)).await
}

/// Makes an access token for a user of a partner, which asks for it. Makes the user if it does not exist.
///
/// # Errors
/// `Error::NotFound` if the name cannot be one of a user, or the user is deleted; `user_blocked`. `Error::Unavailable`
/// if the database fails.
pub async fn token_for(hub: &Hub, permit: OwnerPermit<'_>, name: &str) -> Result<(User, String)> {
    let partner = permit.partner();
    let wanted = WantedUser { shard: partner.shard, partner_id: partner.partner_id, name: name.to_owned() };
    let found = make::find_or_create(hub, &[wanted]).await?.pop().flatten().ok_or(Error::NotFound)?;
    let found = store::user::get(hub.store.api(), partner.shard, partner.partner_id, found.user_id, None).await?;
    let (user, _) = found.ok_or(Error::NotFound)?;
    match user.state {
        UserState::Active => {
            let token = access_token(hub, &user, None).await?;
            Ok((user, token))
        }
        UserState::Blocked => Err(blocked()),
        UserState::Deleted => Err(Error::NotFound),
    }
}

fn hashed(hub: &Hub, token: &str) -> [u8; 32] {
    crypt::keyed_hash(&hub.pepper, token.as_bytes())
}

fn refused() -> Error {
    unauthenticated("the refresh token is no longer valid; sign in")
}

/// Exchanges a user's refresh token for new tokens; it is used up. If it was used before, it or its successor was
/// stolen: the sign-in ends.
///
/// # Errors
/// `Error::Refused` if the token is not a valid one of a user, the user is blocked or the partner is inactive.
/// `Error::Limited` after too many failures. `Error::Unavailable` if the database fails; the token may be used up.
pub async fn refresh(hub: &Hub, token: &str, from: &Origin) -> Result<UserTokens> {
    let network = may_try(hub, from, LIMITED)?;
    let (now, hash) = (hub.clock.now(), hashed(hub, token));
    let Some((used_token, user, partner)) = find(hub, token).await? else {
        hub.sign_in_throttle().address_failed(network.as_deref(), now);
        return Err(refused());
    };
    partner_is_active(&partner)?;
    match user.state {
        UserState::Active => (),
        UserState::Blocked => return Err(blocked()),
        UserState::Deleted => return Err(refused()),
    }
    let next = crypt::secret(REFRESH_PREFIX);
    let mut tx = hub.store.begin().await?;
    let Some(session) = refresh_token::consume(&mut *tx, &hash, now).await? else {
        tx.rollback().await?;
        end_if_reused(hub, &hash, &user, &partner, from).await?;
        return Err(refused());
    };
    refresh_token::insert(&mut *tx, &hashed(hub, &next), &session, now, now + REFRESH_TTL, network.as_deref()).await?;
    tx.commit().await?;
    debug_assert_eq!(session.family, used_token.family);
    tokens(hub, &user, session.family, next).await
}

const LIMITED: &str = "too many failed sign-ins; check username and password, then wait";

/// A user's refresh token with its user and partner. None if it is no such token.
async fn find(hub: &Hub, token: &str) -> Result<Option<(TokenRow, User, Partner)>> {
    let db = hub.store.api();
    if !token.starts_with(REFRESH_PREFIX) {
        return Ok(None);
    }
    let Some(row) = refresh_token::get(db, &hashed(hub, token)).await? else { return Ok(None) };
    let Some(user_id) = user_of_client(&row.client_id) else { return Ok(None) };
    let shards = store::partner::shards(db).await?;
    let Some(user) = store::user::find_in_shards(db, &shards, user_id).await? else { return Ok(None) };
    let partner = store::partner::get(db, user.partner_id).await?;
    Ok(partner.map(|partner| (row, user, partner)))
}

async fn end_if_reused(hub: &Hub, hash: &[u8], user: &User, partner: &Partner, from: &Origin) -> Result<()> {
    let now = hub.clock.now();
    let Some(used_token) = refresh_token::get(hub.store.api(), hash).await?.filter(|row| is_reuse(row, now)) else {
        return Ok(());
    };
    let mut tx = hub.store.begin().await?;
    revoke_family(&mut tx, used_token.family, now).await?;
    let entry = AuditEntry { action: "refresh_token.reused".into(), ..audit_entry(user) };
    audit(hub, &mut tx, &of_user(user, partner, from), &entry).await?;
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    hub.metrics.user_sign_ins.with_label_values(&["refresh_token_reused"]).inc();
    tracing::warn!(user = %user.user_id, "a user's refresh token was used twice; its sign-in was ended");
    alert::refresh_token_reused(hub, format!("User {} of partner {}", user.user_id, partner.name)).await;
    Ok(())
}

/// Ends the sign-in of a refresh token, or with `everywhere` all sign-ins of its user: no access token issued before is
/// valid then, also none that the partner's server signed.
///
/// # Errors
/// `Error::Refused` if the token is not one of a user. `Error::Limited` after too many failures. `Error::Unavailable`
/// if the database fails; the sign-in may have ended.
pub async fn end(hub: &Hub, token: &str, everywhere: bool, from: &Origin) -> Result<()> {
    let network = may_try(hub, from, LIMITED)?;
    let now = hub.clock.now();
    // A used or revoked token may end no more than its own sign-in, which is over or still the user's.
    let Some((row, user, partner)) = find(hub, token).await? else {
        hub.sign_in_throttle().address_failed(network.as_deref(), now);
        return Err(refused());
    };
    let is_valid = row.used_at.is_none() && row.revoked_at.is_none();
    if everywhere && !is_valid {
        return Err(refused());
    }
    let mut tx = hub.store.begin().await?;
    if everywhere {
        end_all(hub, &mut tx, &user, user.state).await?;
        let entry = AuditEntry { action: "user.signed_out".into(), ..audit_entry(&user) };
        audit(hub, &mut tx, &of_user(&user, &partner, from), &entry).await?;
    } else {
        revoke_family(&mut tx, row.family, now).await?;
    }
    tx.commit().await?;
    change::announce(hub, user.user_id).await;
    Ok(())
}

/// Ends all sign-ins of a user and voids all its access tokens, and sets its state. Call `change::announce` after the
/// commit.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn end_all(hub: &Hub, tx: &mut Conn, user: &User, state: UserState) -> Result<()> {
    let now = hub.clock.now();
    store::user::void_tokens(&mut *tx, user.shard, user.user_id, state, now).await?;
    // A successor that was written while the statement waited is visible only to the next one.
    while refresh_token::revoke_of_client(&mut *tx, &client_name(user.user_id), now).await? > 0 {}
    Ok(())
}

/// A user as the one who acts, for the audit log of requests that come with no access token.
pub fn of_user(user: &User, partner: &Partner, from: &Origin) -> UserCaller {
    UserCaller {
        partner: partner.clone().into(),
        user: user.clone().into(),
        door: Door::Token { sid: None },
        until: None,
        origin: from.clone(),
    }
}

/// An entry of the audit log about a user, without its action.
pub fn audit_entry(user: &User) -> AuditEntry {
    AuditEntry { object: Some(client_name(user.user_id)), partner_id: Some(user.partner_id), ..AuditEntry::default() }
}

/// Writes an entry of the audit log for an action of a user.
///
/// # Errors
/// `Error::Unavailable` if the database fails.
pub async fn audit(hub: &Hub, tx: &mut Conn, by: &UserCaller, entry: &AuditEntry) -> Result<()> {
    store::audit::insert_of_user(tx, hub.next_id(), hub.clock.now(), by, entry).await
}
