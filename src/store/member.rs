//! Members of rooms, and how far they have read.

use chrono::{DateTime, Utc};

use super::{Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::room::{Member, MemberRole, Notify};
use crate::model::user::{Presence, UserState};

/// A member from a row with all columns of it. `$room`: the room's id.
macro_rules! member {
    ($r:expr, $room:expr) => {{
        let r = &$r;
        Ok::<_, crate::error::Error>(crate::model::room::Member {
            room_id: crate::id::Tsid($room),
            user_id: crate::id::Tsid(r.member_id),
            role: crate::store::parse_word(&r.role, "role")?,
            joined_at: r.joined_at,
            from_no: r.from_no,
            read_no: r.read_no,
            delivered_no: r.delivered_no,
            read_at: r.read_at,
            left_at: r.left_at,
            left_seq: r.left_seq,
            banned_at: r.banned_at,
            notify: crate::store::parse_word(&r.notify, "notify")?,
            muted_until: r.muted_until,
            silenced_until: r.silenced_until,
        })
    }};
}
pub(super) use member;

/// The same from a row of an outer join.
macro_rules! maybe_member {
    ($r:expr, $room:expr) => {{
        let r = &$r;
        let word = r.role.as_deref().zip(r.notify.as_deref()).zip(r.joined_at);
        let of = r.member_id.zip(r.from_no).zip(r.read_no).zip(r.delivered_no);
        word.zip(of)
            .map(|(((role, notify), joined_at), (((member_id, from_no), read_no), delivered_no))| {
                Ok::<_, crate::error::Error>(crate::model::room::Member {
                    room_id: crate::id::Tsid($room),
                    user_id: crate::id::Tsid(member_id),
                    role: crate::store::parse_word(role, "role")?,
                    joined_at,
                    from_no,
                    read_no,
                    delivered_no,
                    read_at: r.read_at,
                    left_at: r.left_at,
                    left_seq: r.left_seq,
                    banned_at: r.banned_at,
                    notify: crate::store::parse_word(notify, "notify")?,
                    muted_until: r.muted_until,
                    silenced_until: r.silenced_until,
                })
            })
            .transpose()
    }};
}
pub(super) use maybe_member;

/// Puts users into a room with these roles; they see messages whose number is above `from_no`. Returns those who came:
/// not those who are in it, nor those who are banned.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    users: &[(Tsid, MemberRole)],
    from_no: i64,
    now: DateTime<Utc>,
) -> Result<Vec<Tsid>> {
    let ids: Vec<i64> = users.iter().map(|(user_id, _)| user_id.0).collect();
    let roles: Vec<String> = users.iter().map(|(_, role)| role.as_str().to_owned()).collect();
    let came = sqlx::query_file_scalar!("sql/member/insert.sql", shard, room_id.0, &ids, &roles, from_no, now);
    Ok(came.fetch_all(db).await?.into_iter().map(Tsid).collect())
}

/// A member with what others see of the user.
#[derive(Debug, Clone)]
pub struct MemberProfile {
    pub member: Member,
    pub nickname: String,
    pub profile_image_url: Option<String>,
    pub shown_as: Option<Presence>,
    pub last_seen_at: Option<DateTime<Utc>>,
    pub state: UserState,
}

/// A profile from a record of `list.sql` or `some.sql`, whose types differ only in name.
macro_rules! profile {
    ($r:expr, $room:expr) => {{
        let r = $r;
        let member = member!(r, $room.0)?;
        let shown_as = r.shown_as.map(|word| parse_word(&word, "presence")).transpose()?;
        let state = parse_word(&r.state, "user state")?;
        let (nickname, profile_image_url, last_seen_at) = (r.nickname, r.profile_image_url, r.last_seen_at);
        Ok(MemberProfile { member, nickname, profile_image_url, shown_as, last_seen_at, state })
    }};
}

/// Up to `rows` members of a room whose userId is above `above`, by userId.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(db: impl Db<'_>, shard: i16, room_id: Tsid, above: Tsid, rows: i64) -> Result<Vec<MemberProfile>> {
    let found = sqlx::query_file!("sql/member/list.sql", shard, room_id.0, above.0, rows).fetch_all(db).await?;
    found.into_iter().map(|r| profile!(r, room_id)).collect()
}

/// Those of these users that are members of a room, by userId.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn some(db: impl Db<'_>, shard: i16, room_id: Tsid, users: &[Tsid]) -> Result<Vec<MemberProfile>> {
    let ids: Vec<i64> = users.iter().map(|user_id| user_id.0).collect();
    let found = sqlx::query_file!("sql/member/some.sql", shard, room_id.0, &ids).fetch_all(db).await?;
    found.into_iter().map(|r| profile!(r, room_id)).collect()
}

/// Rows of these users in a room, also of those who left.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn get(db: impl Db<'_>, shard: i16, room_id: Tsid, users: &[Tsid]) -> Result<Vec<Member>> {
    let ids: Vec<i64> = users.iter().map(|user_id| user_id.0).collect();
    let found = sqlx::query_file!("sql/member/get.sql", shard, room_id.0, &ids).fetch_all(db).await?;
    found.into_iter().map(|r| member!(r, room_id.0)).collect()
}

/// The first `most` members of each of these rooms, by userId: (room, user, nickname).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_rooms(db: impl Db<'_>, rooms: &[(i16, Tsid)], most: i64) -> Result<Vec<(Tsid, Tsid, String)>> {
    let (shards, ids): (Vec<i16>, Vec<i64>) = rooms.iter().map(|(shard, room_id)| (*shard, room_id.0)).unzip();
    let found = sqlx::query_file!("sql/member/of_rooms.sql", &shards, &ids, most).fetch_all(db).await?;
    Ok(found.into_iter().map(|r| (Tsid(r.room_id), Tsid(r.user_id), r.nickname)).collect())
}

/// How far a member has read, and was handed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    pub user_id: Tsid,
    pub read_no: i64,
    pub delivered_no: i64,
}

/// The marks of all members of a room.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn marks(db: impl Db<'_>, shard: i16, room_id: Tsid) -> Result<Vec<Marks>> {
    let found = sqlx::query_file!("sql/member/marks.sql", shard, room_id.0).fetch_all(db).await?;
    let marks = |user_id, read_no, delivered_no| Marks { user_id: Tsid(user_id), read_no, delivered_no };
    Ok(found.into_iter().map(|r| marks(r.user_id, r.read_no, r.delivered_no)).collect())
}

/// The member that takes over a room whose last owner has left: the oldest admin, else the oldest member. None while
/// another owner is left, or no member.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn successor(db: impl Db<'_>, shard: i16, room_id: Tsid) -> Result<Option<Tsid>> {
    let found = sqlx::query_file_scalar!("sql/member/successor.sql", shard, room_id.0).fetch_optional(db).await?;
    Ok(found.map(Tsid))
}

/// Gives a member a role.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_role(db: impl Db<'_>, shard: i16, room_id: Tsid, user_id: Tsid, role: MemberRole) -> Result<()> {
    sqlx::query_file!("sql/member/set_role.sql", shard, room_id.0, user_id.0, role.as_str()).execute(db).await?;
    Ok(())
}

/// Lets a member write no more until a time; None: it may.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn silence(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    user_id: Tsid,
    until: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query_file!("sql/member/silence.sql", shard, room_id.0, user_id.0, until).execute(db).await?;
    Ok(())
}

/// Takes a member out of a room with the event number `seq`; for good if it is banned.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn leave(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    user_id: Tsid,
    now: DateTime<Utc>,
    seq: i64,
    ban: bool,
) -> Result<()> {
    sqlx::query_file!("sql/member/leave.sql", shard, room_id.0, user_id.0, now, seq, ban).execute(db).await?;
    Ok(())
}

/// Clears a room of two for one of them up to message number `no`, and hides it until something is written.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn hide(db: impl Db<'_>, shard: i16, room_id: Tsid, user_id: Tsid, no: i64) -> Result<()> {
    sqlx::query_file!("sql/member/hide.sql", shard, room_id.0, user_id.0, no).execute(db).await?;
    Ok(())
}

/// Sets what a member wants to be notified of.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_notify(
    db: impl Db<'_>,
    shard: i16,
    room_id: Tsid,
    user_id: Tsid,
    notify: Notify,
    muted_until: Option<DateTime<Utc>>,
) -> Result<()> {
    let notify = notify.as_str();
    sqlx::query_file!("sql/member/set_notify.sql", shard, room_id.0, user_id.0, notify, muted_until)
        .execute(db)
        .await?;
    Ok(())
}

/// A mark to move: up to where a member has read, and was handed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NewMark {
    pub shard: i16,
    pub room_id: Tsid,
    pub user_id: Tsid,
    pub read_no: i64,
    pub delivered_no: i64,
}

/// Moves marks forward, never back. They are numbers of messages that there are. Keeps when it was read, if `keep`.
/// Returns those whose read mark moved: (shard, room, user, read up to).
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; outside a transaction, the statement may have committed.
pub async fn mark(
    db: impl Db<'_>,
    marks: &[NewMark],
    now: DateTime<Utc>,
    keep: bool,
) -> Result<Vec<(i16, Tsid, Tsid, i64)>> {
    let of = |column: fn(&NewMark) -> i64| marks.iter().map(column).collect::<Vec<i64>>();
    let moved = sqlx::query_file!(
        "sql/member/mark.sql",
        &marks.iter().map(|mark| mark.shard).collect::<Vec<_>>(),
        &of(|mark| mark.room_id.0),
        &of(|mark| mark.user_id.0),
        &of(|mark| mark.read_no),
        &of(|mark| mark.delivered_no),
        now,
        keep,
    );
    let moved = moved.fetch_all(db).await?;
    Ok(moved.into_iter().map(|r| (r.shard, Tsid(r.room_id), Tsid(r.user_id), r.read_no)).collect())
}

/// Deletes up to `rows` marks of readers from before `before`. Returns how many.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete_old_marks(db: impl Db<'_>, before: DateTime<Utc>, rows: i64) -> Result<u64> {
    Ok(sqlx::query_file!("sql/member/delete_old_marks.sql", before, rows).execute(db).await?.rows_affected())
}

/// Lets a user that was removed for good come back. False: it was not banned.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn lift_ban(db: impl Db<'_>, shard: i16, room_id: Tsid, user_id: Tsid) -> Result<bool> {
    let lifted = sqlx::query_file!("sql/member/lift_ban.sql", shard, room_id.0, user_id.0).execute(db).await?;
    Ok(lifted.rows_affected() > 0)
}
