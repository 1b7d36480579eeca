//! Partners.

use chrono::{DateTime, Utc};

use super::{Conn, Db, word};
use crate::error::Result;
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::partner::Partner;

macro_rules! partner {
    ($r:expr) => {{
        let r = $r;
        let channels = r.channels.map(|all| all.iter().map(|c| word(c, "channel")).collect::<Result<Vec<Channel>>>());
        Ok(Partner {
            partner_id: Tsid(r.partner_id),
            name: r.name,
            shard: r.shard,
            status: word(&r.status, "partner status")?,
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
        })
    }};
}

pub async fn find(db: impl Db<'_>, name: &str) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/find.sql", name).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

pub async fn get(db: impl Db<'_>, partner_id: Tsid) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/get.sql", partner_id.0).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

/// As `get`, held still until the transaction ends.
pub async fn lock(tx: &mut Conn, partner_id: Tsid) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/lock.sql", partner_id.0).fetch_optional(tx).await?.map(|r| partner!(r)).transpose()
}

/// By name.
pub async fn list(db: impl Db<'_>, after: Option<&str>, rows: i64) -> Result<Vec<Partner>> {
    let found = sqlx::query_file!("sql/partner/list.sql", after, rows).fetch_all(db).await?;
    found.into_iter().map(|r| partner!(r)).collect()
}

/// Writes what may be changed.
/// False when another partner has its name.
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

pub async fn is_time_zone(db: impl Db<'_>, name: &str) -> Result<bool> {
    Ok(sqlx::query_file_scalar!("sql/partner/is_time_zone.sql", name).fetch_one(db).await?)
}

/// Whose message that is.
pub async fn of_message(db: impl Db<'_>, shards: &[i16], message_id: Tsid) -> Result<Option<Tsid>> {
    let row = sqlx::query_file_scalar!("sql/partner/of_message.sql", shards, message_id.0).fetch_optional(db).await?;
    Ok(row.map(Tsid))
}

/// False when the name is taken.
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
    )
    .fetch_optional(db)
    .await?;
    Ok(written.is_some())
}

/// A partner whose content is erased before its partition goes.
pub struct Retained {
    pub partner_id: Tsid,
    pub shard: i16,
    pub retention_days: i16,
    /// Below this it is done.
    pub erased_below: Tsid,
}

pub async fn with_retention(db: impl Db<'_>) -> Result<Vec<Retained>> {
    let rows = sqlx::query_file!("sql/partner/with_retention.sql").fetch_all(db).await?.into_iter();
    let row = rows.map(|r| Retained {
        partner_id: Tsid(r.partner_id),
        shard: r.shard,
        retention_days: r.retention_days,
        erased_below: Tsid(r.erased_below),
    });
    Ok(row.collect())
}

/// Everything below is erased.
pub async fn erased(db: impl Db<'_>, partner_id: Tsid, below: Tsid) -> Result<()> {
    sqlx::query_file!("sql/partner/erased.sql", partner_id.0, below.0).execute(db).await?;
    Ok(())
}

/// All partners, and where they live.
pub async fn owners(db: impl Db<'_>) -> Result<Vec<(Tsid, i16)>> {
    let rows = sqlx::query_file!("sql/partner/owners.sql").fetch_all(db).await?;
    Ok(rows.into_iter().map(|r| (Tsid(r.partner_id), r.shard)).collect())
}

/// The shards that anything lives on.
pub async fn shards(db: impl Db<'_>) -> Result<Vec<i16>> {
    Ok(sqlx::query_file_scalar!("sql/partner/shards.sql").fetch_all(db).await?)
}
