//! Partners: tenants with their rights, limits and settings.

use chrono::{DateTime, Utc};

use super::{Conn, Db, parse_word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::partner::Partner;

macro_rules! partner {
    ($r:expr) => {{
        let r = $r;
        let channels =
            r.channels.map(|all| all.iter().map(|c| parse_word(c, "channel")).collect::<Result<Vec<Channel>>>());
        Ok(Partner {
            partner_id: Tsid(r.partner_id),
            name: r.name,
            shard: r.shard,
            status: parse_word(&r.status, "partner status")?,
            rate_limit_tps: r.rate_limit_tps,
            lookup_days: r.lookup_days,
            retention_days: r.retention_days,
            time_zone: r.time_zone,
            region: r.region,
            channels: channels.transpose()?,
            may_schedule: r.may_schedule,
            may_cancel: r.may_cancel,
            encrypt_content: r.encrypt_content,
            may_receive_content: r.may_receive_content,
            sign_up: r.sign_up,
        })
    }};
}

/// A partner by name.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn find_by_name(db: impl Db<'_>, name: &str) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/find_by_name.sql", name).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

/// A partner by id.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn get(db: impl Db<'_>, partner_id: Tsid) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/get.sql", partner_id.0).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

/// Up to two active partners whose sign-up is on.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn with_sign_up(db: impl Db<'_>) -> Result<Vec<Partner>> {
    let found = sqlx::query_file!("sql/partner/with_sign_up.sql").fetch_all(db).await?;
    found.into_iter().map(|r| partner!(r)).collect()
}

/// As `get`, and locks the row until the transaction ends.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached, or another transaction holds a row for longer than the lock
/// time-out; the transaction is lost then. `Error::Internal` for a stored word that this program does not know.
pub async fn lock(tx: &mut Conn, partner_id: Tsid) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/lock.sql", partner_id.0).fetch_optional(tx).await?.map(|r| partner!(r)).transpose()
}

/// Up to `rows` partners with names after `after`, by name.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. `Error::Internal` for a stored
/// word that this program does not know.
pub async fn list(db: impl Db<'_>, after: Option<&str>, rows: i64) -> Result<Vec<Partner>> {
    let found = sqlx::query_file!("sql/partner/list.sql", after, rows).fetch_all(db).await?;
    found.into_iter().map(|r| partner!(r)).collect()
}

/// Writes the settings of a partner that may change. False if another partner has its name, or it does not exist. A
/// name that is taken aborts a surrounding transaction.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn update(db: impl Db<'_>, p: &Partner) -> Result<bool> {
    let channels = words(p);
    let done = sqlx::query_file!(
        "sql/partner/update.sql",
        p.partner_id.0,
        p.name,
        p.status.as_str(),
        p.rate_limit_tps,
        p.lookup_days,
        p.retention_days,
        p.region,
        channels.as_deref(),
        p.may_schedule,
        p.may_cancel,
        p.encrypt_content,
        p.may_receive_content,
        p.sign_up,
    )
    .execute(db)
    .await;
    match done {
        Err(sqlx::Error::Database(told)) if told.constraint() == Some("uk_partner_name") => Ok(false),
        done => Ok(done?.rows_affected() == 1),
    }
}

fn words(p: &Partner) -> Option<Vec<String>> {
    p.channels.as_ref().map(|all| all.iter().map(|c| c.as_str().to_owned()).collect())
}

/// Whether the server knows a time zone of that name.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn is_time_zone(db: impl Db<'_>, name: &str) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/partner/is_time_zone.sql", name).fetch_one(db).await?)
}

/// The partner of a message, looked for in these shards.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn of_message(db: impl Db<'_>, shards: &[i16], message_id: Tsid) -> Result<Option<Tsid>> {
    let row = sqlx::query_file_scalar!("sql/partner/of_message.sql", shards, message_id.0).fetch_optional(db).await?;
    Ok(row.map(Tsid))
}

/// Inserts a partner. False if the name is taken.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, p: &Partner, now: DateTime<Utc>) -> Result<bool> {
    let channels = words(p);
    let written = sqlx::query_file_scalar!(
        "sql/partner/insert.sql",
        p.partner_id.0,
        p.name,
        p.shard,
        now,
        p.status.as_str(),
        p.rate_limit_tps,
        p.lookup_days,
        p.retention_days,
        p.time_zone,
        p.region,
        channels.as_deref(),
        p.may_schedule,
        p.may_cancel,
        p.encrypt_content,
        p.may_receive_content,
        p.sign_up,
    )
    .fetch_optional(db)
    .await?;
    Ok(written.is_some())
}

/// A partner whose content is erased before its partition is dropped.
pub struct RetentionProgress {
    pub partner_id: Tsid,
    pub shard: i16,
    pub retention_days: i16,
    /// Messages below this id are erased.
    pub erased_below: Tsid,
}

/// Partners whose content is erased before its partition is dropped.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn with_retention(db: impl Db<'_>) -> Result<Vec<RetentionProgress>> {
    let rows = sqlx::query_file!("sql/partner/with_retention.sql").fetch_all(db).await?.into_iter();
    let row = rows.map(|r| RetentionProgress {
        partner_id: Tsid(r.partner_id),
        shard: r.shard,
        retention_days: r.retention_days,
        erased_below: Tsid(r.erased_below),
    });
    Ok(row.collect())
}

/// Records that every message of a partner below this id is erased. Never lowers it.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn set_erased_below(db: impl Db<'_>, partner_id: Tsid, below: Tsid) -> Result<()> {
    sqlx::query_file!("sql/partner/set_erased_below.sql", partner_id.0, below.0).execute(db).await?;
    Ok(())
}

/// Id and shard of every partner.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn ids_and_shards(db: impl Db<'_>) -> Result<Vec<(Tsid, i16)>> {
    let rows = sqlx::query_file!("sql/partner/ids_and_shards.sql").fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (Tsid(r.partner_id), r.shard)).collect())
}

/// The shards that have a partner, ascending.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn shards(db: impl Db<'_>) -> Result<Vec<i16>> {
    Ok(sqlx::query_file_scalar!("sql/partner/shards.sql").fetch_all(db).await?)
}
