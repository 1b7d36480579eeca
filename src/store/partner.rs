//! Partners.

use chrono::{DateTime, Utc};

use super::{Db, word};
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
            status: r.status.parse().map_err(|()| crate::error::Error::Internal("unknown partner status".into()))?,
            rate_limit_tps: r.rate_limit_tps,
            lookup_days: r.lookup_days,
            retention_days: r.retention_days,
            time_zone: r.time_zone,
            region: r.region,
            channels: channels.transpose()?,
            may_schedule: r.may_schedule,
            may_cancel: r.may_cancel,
            encrypt_content: r.encrypt_content,
        })
    }};
}

pub async fn find(db: impl Db<'_>, name: &str) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/find.sql", name).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

pub async fn get(db: impl Db<'_>, partner_id: Tsid) -> Result<Option<Partner>> {
    sqlx::query_file!("sql/partner/get.sql", partner_id.0).fetch_optional(db).await?.map(|r| partner!(r)).transpose()
}

/// False when the name is taken.
pub async fn insert(db: impl Db<'_>, p: &Partner, now: DateTime<Utc>) -> Result<bool> {
    let channels: Option<Vec<String>> =
        p.channels.as_ref().map(|all| all.iter().map(|c| c.as_str().to_owned()).collect());
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
    )
    .fetch_optional(db)
    .await?;
    Ok(written.is_some())
}

/// The shards that anything lives on.
pub async fn shards(db: impl Db<'_>) -> Result<Vec<i16>> {
    Ok(sqlx::query_file_scalar!("sql/partner/shards.sql").fetch_all(db).await?)
}
