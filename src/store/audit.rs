//! The audit log: only ever added to.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::access::principal::Actor;

/// What was done, and to what.
#[derive(Debug, Clone, Default)]
pub struct AuditEntry {
    pub action: String,
    pub object: Option<String>,
    pub partner_id: Option<Tsid>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

pub async fn insert(db: impl Db<'_>, id: Tsid, now: DateTime<Utc>, actor: &Actor, deed: &AuditEntry) -> Result<()> {
    sqlx::query_file!(
        "sql/audit/insert.sql",
        id.0,
        now,
        actor.name,
        actor.principal.role().as_str(),
        deed.action,
        deed.object,
        deed.partner_id.map(|id| id.0),
        actor.origin.address,
        actor.origin.request_id,
        deed.before,
        deed.after,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down that the actor looked at an object, unless an entry since `since` says so.
pub async fn look(
    db: impl Db<'_>,
    id: Tsid,
    now: DateTime<Utc>,
    actor: &Actor,
    object: &str,
    since: DateTime<Utc>,
) -> Result<()> {
    sqlx::query_file!(
        "sql/audit/look.sql",
        id.0,
        now,
        actor.name,
        actor.principal.role().as_str(),
        object,
        actor.origin.address,
        actor.origin.request_id,
        Tsid::floor(since).0,
    )
    .execute(db)
    .await?;
    Ok(())
}

pub struct AuditRow {
    pub audit_id: Tsid,
    pub at: DateTime<Utc>,
    pub actor: String,
    pub role: String,
    pub action: String,
    pub object: Option<String>,
    pub partner_id: Option<Tsid>,
    pub address: Option<String>,
    pub request_id: Option<String>,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub partner_id: Option<Tsid>,
    pub actor: Option<String>,
    pub action: Option<String>,
}

pub async fn list(db: impl Db<'_>, filter: &Filter, below: Tsid, from: Tsid, rows: i64) -> Result<Vec<AuditRow>> {
    let found = sqlx::query_file!(
        "sql/audit/list.sql",
        below.0,
        from.0,
        filter.partner_id.map(|id| id.0),
        filter.actor,
        filter.action,
        rows
    );
    let found = found.fetch_all(db).await?.into_iter();
    Ok(found
        .map(|r| AuditRow {
            audit_id: Tsid(r.audit_id),
            at: r.at,
            actor: r.actor,
            role: r.role,
            action: r.action,
            object: r.object,
            partner_id: r.partner_id.map(Tsid),
            address: r.address,
            request_id: r.request_id,
            before: r.before,
            after: r.after,
        })
        .collect())
}
