//! The audit log. The hub's role can only append to it.

use chrono::{DateTime, Utc};
use serde_json::Value;

use super::Db;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::access::principal::{Actor, Origin};
use crate::model::access::user::{USER_ROLE, UserCaller};

/// An action and the object it was done to.
#[derive(Debug, Clone, Default)]
pub struct AuditEntry {
    /// Stable word.
    pub action: String,
    /// `kind:id`.
    pub object: Option<String>,
    pub partner_id: Option<Tsid>,
    /// The object's relevant fields before and after the action.
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// Adds an entry. `id` is new and of the time `now`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert(db: impl Db<'_>, id: Tsid, now: DateTime<Utc>, actor: &Actor, deed: &AuditEntry) -> Result<()> {
    write(db, id, now, (&actor.name, actor.principal.role().as_str(), &actor.origin), deed).await
}

/// As `insert`, for an action of a user.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn insert_of_user(
    db: impl Db<'_>,
    id: Tsid,
    now: DateTime<Utc>,
    user: &UserCaller,
    deed: &AuditEntry,
) -> Result<()> {
    write(db, id, now, (&user.audit_name(), USER_ROLE, &user.origin), deed).await
}

async fn write(
    db: impl Db<'_>,
    id: Tsid,
    now: DateTime<Utc>,
    (name, role, origin): (&str, &str, &Origin),
    deed: &AuditEntry,
) -> Result<()> {
    sqlx::query_file!(
        "sql/audit/insert.sql",
        id.0,
        now,
        name,
        role,
        deed.action,
        deed.object,
        deed.partner_id.map(|id| id.0),
        origin.address,
        origin.request_id,
        deed.before,
        deed.after,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Records that the actor looked at `object`, unless the actor has such an entry since `since`. Concurrent calls may
/// add one entry each.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn record_view(
    db: impl Db<'_>,
    id: Tsid,
    now: DateTime<Utc>,
    actor: &Actor,
    object: &str,
    since: DateTime<Utc>,
) -> Result<()> {
    sqlx::query_file!(
        "sql/audit/record_view.sql",
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

/// An entry as it is listed.
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

/// Which entries to list; None does not filter.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    pub partner_id: Option<Tsid>,
    pub actor: Option<String>,
    pub action: Option<String>,
}

/// Up to `rows` entries with ids below `below` and from `from` on, newest first.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn list(db: impl Db<'_>, filter: &AuditFilter, below: Tsid, from: Tsid, rows: i64) -> Result<Vec<AuditRow>> {
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
