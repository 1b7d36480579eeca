//! Events.

use chrono::{DateTime, Utc};

use super::Db;
use crate::error::Result;
use crate::id::Tsid;

#[derive(Debug, Clone)]
pub struct Row {
    pub no: i16,
    pub seq: i16,
    pub attempt: i16,
    pub event: String,
    pub reason: Option<String>,
    pub occurred_at: DateTime<Utc>,
}

pub async fn of_message(db: impl Db<'_>, partner_id: Tsid, shard: i16, message_id: Tsid) -> Result<Vec<Row>> {
    let rows = sqlx::query_file_as!(Row, "sql/event/of_message.sql", partner_id.0, shard, message_id.0);
    Ok(rows.fetch_all(db).await?)
}
