//! Partners.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

#[derive(Debug, Clone)]
pub struct Partner {
    pub partner_id: Tsid,
    pub name: String,
    pub shard: i16,
}

pub async fn find(db: impl Db<'_>, name: &str) -> Result<Option<Partner>> {
    let row = sqlx::query_file!("sql/partner/find.sql", name).fetch_optional(db).await?;
    Ok(row.map(|r| Partner { partner_id: Tsid(r.partner_id), name: r.name, shard: r.shard }))
}

/// Does nothing when the name is taken.
pub async fn insert(db: impl Db<'_>, partner: &Partner, now: DateTime<Utc>) -> Result<()> {
    sqlx::query_file!("sql/partner/insert.sql", partner.partner_id.0, partner.name, partner.shard, now)
        .execute(db)
        .await?;
    Ok(())
}

/// The shards that anything lives on.
pub async fn shards(db: impl Db<'_>) -> Result<Vec<i16>> {
    Ok(sqlx::query_file_scalar!("sql/partner/shards.sql").fetch_all(db).await?)
}
