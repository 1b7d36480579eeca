//! Users: a partner's own people.

use chrono::{DateTime, Utc};

use super::{Conn, Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::access::user::client_name;
use crate::model::user::{Presence, User, UserState, username_key};

/// A user from a row with all columns of its profile.
macro_rules! user {
    ($r:expr) => {{
        let r = $r;
        Ok::<_, crate::error::Error>(crate::model::user::User {
            shard: r.shard,
            user_id: crate::id::Tsid(r.user_id),
            partner_id: crate::id::Tsid(r.partner_id),
            external_id: r.external_id,
            username: r.username,
            nickname: r.nickname,
            user_code: r.user_code,
            shown_as: r.shown_as.map(|word| crate::store::parse_word(&word, "presence")).transpose()?,
            bio: r.bio,
            profile_image_url: r.profile_image_url,
            background_image_url: r.background_image_url,
            email: r.email,
            phone: r.phone,
            locale: r.locale,
            time_zone: r.time_zone,
            state: crate::store::parse_word(&r.state, "user state")?,
            tokens_after: r.tokens_after,
            last_seen_at: r.last_seen_at,
            created_at: r.created_at,
            updated_at: r.updated_at,
        })
    }};
}
pub(super) use user;

/// A user of this partner, and whether the sign-in `sid` still stands; without a `sid` it always does. None: there is
/// no such user of this partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn get(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    user_id: Tsid,
    sid: Option<Tsid>,
) -> Result<Option<(User, bool)>> {
    let (sid, client_id) = (sid.map(|sid| sid.0), client_name(user_id));
    let row = sqlx::query_file!("sql/user/get.sql", shard, partner_id.0, user_id.0, sid, client_id);
    row.fetch_optional(db).await?.map(|r| Ok((r.stands, user!(r)?))).transpose().map(|r| r.map(|(ok, u)| (u, ok)))
}

/// A user by the partner's own id of it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn find_external(db: impl Db<'_>, shard: i16, partner_id: Tsid, external_id: &str) -> Result<Option<User>> {
    let row = sqlx::query_file!("sql/user/find_external.sql", shard, partner_id.0, external_id);
    row.fetch_optional(db).await?.map(|r| user!(r)).transpose()
}

/// A user by its id alone, looked for in these shards.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn find_in_shards(db: impl Db<'_>, shards: &[i16], user_id: Tsid) -> Result<Option<User>> {
    let row = sqlx::query_file!("sql/user/find_in_shards.sql", shards, user_id.0).fetch_optional(db).await?;
    row.map(|r| user!(r)).transpose()
}

/// Locks a user of a partner until the transaction ends. None: there is no such user of this partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored word that this program does not know.
pub async fn lock(tx: &mut Conn, shard: i16, partner_id: Tsid, user_id: Tsid) -> Result<Option<User>> {
    let row = sqlx::query_file!("sql/user/lock.sql", shard, partner_id.0, user_id.0).fetch_optional(tx).await?;
    row.map(|r| user!(r)).transpose()
}

/// Up to `rows` users of a partner with ids below `below`, newest first; of one state, or all if that is None.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    below: Tsid,
    state: Option<UserState>,
    rows: i64,
) -> Result<Vec<User>> {
    let state = state.map(UserState::as_str);
    let found = sqlx::query_file!("sql/user/list.sql", shard, partner_id.0, below.0, state, rows).fetch_all(db);
    found.await?.into_iter().map(|r| user!(r)).collect()
}

/// A user with what its sign-in is checked by.
pub struct SignInUser {
    pub user: User,
    pub credential: Credential,
}

/// The hash of a user's password and its failed sign-ins.
#[derive(Clone)]
pub struct Credential {
    pub password_hash: String,
    /// Failed sign-ins in a row.
    pub failures: i16,
    /// Every sign-in is refused until then.
    pub wait_until: Option<DateTime<Utc>>,
}

/// A user by its username, in the form for comparison.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn find_for_sign_in(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    username_key: &str,
) -> Result<Option<SignInUser>> {
    let row = sqlx::query_file!("sql/user/find_for_sign_in.sql", shard, partner_id.0, username_key);
    let Some(r) = row.fetch_optional(db).await? else { return Ok(None) };
    let credential =
        Credential { password_hash: r.password_hash.clone(), failures: r.failures, wait_until: r.wait_until };
    Ok(Some(SignInUser { user: user!(r)?, credential }))
}

/// Whether a user of the partner has this username, in the form for comparison.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn is_name_taken(db: impl Db<'_>, shard: i16, partner_id: Tsid, username_key: &str) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/user/name_taken.sql", shard, partner_id.0, username_key).fetch_one(db).await?)
}

/// Inserts a user that signs up. False if its username or its code is taken.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, user: &User) -> Result<bool> {
    let done = sqlx::query_file!(
        "sql/user/insert.sql",
        user.shard,
        user.user_id.0,
        user.partner_id.0,
        user.username,
        user.username.as_deref().map(username_key),
        user.nickname,
        user.user_code,
        user.bio,
        user.profile_image_url,
        user.email,
        user.created_at,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Writes the profile of a user. False if it does not exist.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update(db: impl Db<'_>, user: &User) -> Result<bool> {
    let done = sqlx::query_file!(
        "sql/user/update.sql",
        user.shard,
        user.user_id.0,
        user.nickname,
        user.shown_as.map(Presence::as_str),
        user.bio,
        user.profile_image_url,
        user.background_image_url,
        user.email,
        user.phone,
        user.locale,
        user.time_zone,
        user.updated_at,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Sets the state of a user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_state(db: impl Db<'_>, shard: i16, user_id: Tsid, state: UserState, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/user/set_state.sql", shard, user_id.0, state.as_str(), now).execute(db).await?;
    Ok(())
}

/// Sets the state of a user and voids all its access tokens. Its refresh tokens are revoked by
/// `refresh_token::revoke_of_client`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn void_tokens(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    state: UserState,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query_file!("sql/user/void_tokens.sql", shard, user_id.0, state.as_str(), now).execute(db).await?;
    Ok(())
}

/// Removes all that is personal from a user's row, and marks it as deleted. `external_hash`: keyed hash of its external
/// id; `user_code`: a new one, so that the former one finds no user. Its names stay for `to_erase`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    external_hash: Option<&[u8]>,
    user_code: &str,
    now: DateTime<Utc>,
) -> Result<()> {
    let state = UserState::Deleted.as_str();
    let name = user_id.to_string();
    sqlx::query_file!("sql/user/delete.sql", shard, user_id.0, state, external_hash, user_code, now, name)
        .execute(db)
        .await?;
    Ok(())
}

/// A deleted user whose messages are not erased yet.
pub struct UserToErase {
    pub shard: i16,
    pub partner_id: Tsid,
    pub user_id: Tsid,
    /// Its former external id, if any, and its userId: what deliveries are addressed to.
    pub names: Vec<String>,
    pub deleted_at: DateTime<Utc>,
}

/// Up to `rows` deleted users whose messages are not erased yet.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn to_erase(db: impl Db<'_>, rows: i64) -> Result<Vec<UserToErase>> {
    let rows = sqlx::query_file!("sql/user/to_erase.sql", rows).fetch_all(db).await?.into_iter();
    let user = |shard, partner_id, user_id, names, deleted_at| UserToErase {
        shard,
        partner_id: Tsid(partner_id),
        user_id: Tsid(user_id),
        names,
        deleted_at,
    };
    Ok(rows.map(|r| user(r.shard, r.partner_id, r.user_id, r.names, r.deleted_at)).collect())
}

/// Forgets the names of a deleted user: its messages are erased.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn erase_done(db: impl Db<'_>, shard: i16, user_id: Tsid) -> Result<()> {
    sqlx::query_file!("sql/user/erase_done.sql", shard, user_id.0).execute(db).await?;
    Ok(())
}

/// Forgets the former external ids of up to `rows` users that were deleted before `before`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn forget_external(db: impl Db<'_>, before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/user/forget_external.sql", before, rows).execute(db).await?.rows_affected())
}

/// When the last user with this external id was deleted, if that is remembered. `hash`: keyed hash of the external id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn deleted_external(
    db: impl Db<'_>,
    shard: i16,
    partner_id: Tsid,
    hash: &[u8],
) -> Result<Option<DateTime<Utc>>> {
    Ok(sqlx::query_file_scalar!("sql/user/deleted_external.sql", shard, partner_id.0, hash).fetch_one(db).await?)
}

/// A user that is wanted by the text by which its partner names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WantedUser {
    pub shard: i16,
    pub partner_id: Tsid,
    /// The partner's own id of the user, or the user's id.
    pub name: String,
}

/// A user that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundUser {
    pub user_id: Tsid,
    pub state: UserState,
}

/// Finds users of many partners in one statement: each by the partner's own id of it, else by the user's id. Returns
/// one result for each of `wanted`, in order; None: there is no such user of this partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn find(db: impl Db<'_>, wanted: &[WantedUser]) -> Result<Vec<Option<FoundUser>>> {
    let shards: Vec<i16> = wanted.iter().map(|w| w.shard).collect();
    let partners: Vec<i64> = wanted.iter().map(|w| w.partner_id.0).collect();
    let names: Vec<String> = wanted.iter().map(|w| w.name.clone()).collect();
    let ids: Vec<Option<i64>> = wanted.iter().map(|w| w.name.parse().ok().map(|id: Tsid| id.0)).collect();
    let rows = sqlx::query_file!("sql/user/find.sql", &shards, &partners, &names, &ids as &[Option<i64>]);
    let mut found = vec![None; wanted.len()];
    for r in rows.fetch_all(db).await? {
        let place = usize::try_from(r.n - 1).ok().and_then(|n| found.get_mut(n));
        if let Some(place) = place {
            *place = Some(FoundUser { user_id: Tsid(r.user_id), state: parse_word(&r.state, "user state")? });
        }
    }
    Ok(found)
}

/// A user to be made by the partner's own id of it.
#[derive(Debug, Clone)]
pub struct NewExternalUser {
    pub shard: i16,
    pub partner_id: Tsid,
    pub external_id: String,
    pub user_id: Tsid,
    pub nickname: String,
    pub user_code: String,
    /// The keyed hash of `external_id`, by which a former user of that id is known.
    pub external_hash: [u8; 32],
}

/// Makes users by the partners' own ids, in one statement. Returns how many were made: one that another transaction
/// made, or whose code is taken, is left out.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert_external(db: impl Db<'_>, users: &[NewExternalUser], now: DateTime<Utc>) -> Result<u64> {
    let shards: Vec<i16> = users.iter().map(|u| u.shard).collect();
    let partners: Vec<i64> = users.iter().map(|u| u.partner_id.0).collect();
    let externals: Vec<String> = users.iter().map(|u| u.external_id.clone()).collect();
    let ids: Vec<i64> = users.iter().map(|u| u.user_id.0).collect();
    let nicknames: Vec<String> = users.iter().map(|u| u.nickname.clone()).collect();
    let codes: Vec<String> = users.iter().map(|u| u.user_code.clone()).collect();
    let hashes: Vec<Vec<u8>> = users.iter().map(|u| u.external_hash.to_vec()).collect();
    let made = sqlx::query_file!(
        "sql/user/insert_external.sql",
        &shards,
        &partners,
        &externals,
        &ids,
        &nicknames,
        &codes,
        now,
        &hashes,
    );
    Ok(made.execute(db).await?.rows_affected())
}

/// What a partner's token says of its user; None: nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenProfile {
    pub nickname: Option<String>,
    pub profile_image_url: Option<String>,
    pub locale: Option<String>,
}

/// Takes over what a partner's token says of its user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn take_over(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    profile: &TokenProfile,
    now: DateTime<Utc>,
) -> Result<()> {
    let TokenProfile { nickname, profile_image_url, locale } = profile;
    sqlx::query_file!(
        "sql/user/take_over.sql",
        shard,
        user_id.0,
        nickname.as_deref(),
        profile_image_url.as_deref(),
        locale.as_deref(),
        now
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Records that a user was seen at `now`, unless it was seen at `before` or later.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn touch(
    db: impl Db<'_>,
    shard: i16,
    user_id: Tsid,
    now: DateTime<Utc>,
    before: DateTime<Utc>,
) -> Result<()> {
    sqlx::query_file!("sql/user/touch.sql", shard, user_id.0, now, before).execute(db).await?;
    Ok(())
}

/// Those of these ids that are users of the partner and have not gone.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn existing(db: impl Db<'_>, shard: i16, partner_id: Tsid, ids: &[Tsid]) -> Result<Vec<Tsid>> {
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    let found = sqlx::query_file_scalar!("sql/user/existing.sql", shard, partner_id.0, &ids).fetch_all(db).await?;
    Ok(found.into_iter().map(Tsid).collect())
}
