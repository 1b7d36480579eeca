//! Migrations: forward only.

use std::time::Duration;

use super::{Conn, Store, role};
use crate::error::{Error, Result};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

impl Store {
    /// Applies missing migrations as the schema's owner, then creates missing roles and repairs their grants. Safe to
    /// run from several processes at once.
    ///
    /// # Errors
    /// `Error::Setup` if this login may not migrate, or a lock that a migration needs is not free in time.
    /// `Error::Unavailable` if the database cannot be reached. Migrations applied before stay applied.
    pub async fn migrate(&self) -> Result<role::GrantRepair> {
        let mut conn = self.connect_without_timeout().await?;
        if self.migrations_missing().await? > 0 {
            role::become_owner(&mut conn).await?;
            apply_migrations(&mut conn).await?;
        }
        role::repair(&mut conn).await
    }

    /// Number of migrations that the schema lacks. Only reads. (Runtime queries: the table is sqlx's own.)
    ///
    /// # Errors
    /// `Error::Setup` if the schema is newer than this program. `Error::Unavailable` if the database cannot be reached.
    pub async fn migrations_missing(&self) -> Result<usize> {
        let mut conn = self.connect_without_timeout().await?;
        let begun: bool =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut conn).await?;
        let mut applied: Vec<i64> = Vec::new();
        if begun {
            let versions = sqlx::query_scalar("select version from _sqlx_migrations order by version");
            applied = versions.fetch_all(&mut conn).await?;
        }
        if let Some(newer) = applied.iter().find(|version| !MIGRATIONS.version_exists(**version)) {
            return Err(Error::Setup(format!(
                "the database's schema has migration {newer}, which this program does not know: run the newer \
                 notihub, or use another --database-url"
            )));
        }
        Ok(MIGRATIONS.iter().count().saturating_sub(applied.len()))
    }

    /// As `migrations_missing`, for a question that is asked often: on a connection of the API's pool, and without an
    /// error for a newer schema. (A runtime query: the table is sqlx's own.)
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached or does not answer in time.
    pub async fn migrations_pending(&self) -> Result<usize> {
        let applied: Vec<i64> =
            sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(self.api()).await?;
        Ok(MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count())
    }
}

/// How often a migration is tried whose locks are not free, each time for a second. If it waited longer, every session
/// that needs the table would queue behind it, because a service may hold its enqueueing transaction open.
const MIGRATION_TRIES: u32 = 60;

async fn apply_migrations(conn: &mut Conn) -> Result<()> {
    sqlx::raw_sql("set lock_timeout = '1s'").execute(&mut *conn).await?;
    let mut tries = 0;
    loop {
        match apply_next(conn).await {
            Ok(true) => tries = 0,
            Ok(false) => return Ok(()),
            Err(e) if tries < MIGRATION_TRIES && is_in_the_way(&e) => {
                tries += 1;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            Err(e) if is_in_the_way(&e) => {
                return Err(Error::Setup(format!(
                    "{}: a transaction holds a lock that the migration needs. End it, or the process that holds it; \
                     find it with: select pid, usename, xact_start, query from pg_stat_activity \
                     where xact_start is not null order by 3",
                    migration_fault(e)
                )));
            }
            Err(e) => return Err(migration_fault(e)),
        }
    }
}

/// Applies the next migration; false when none is left. Locks the migrations' own table: sqlx's advisory lock could be
/// held by any login of the database.
async fn apply_next(conn: &mut Conn) -> Result<bool, sqlx::migrate::MigrateError> {
    use sqlx::Connection as _;
    use sqlx::migrate::{Migrate as _, MigrateError};
    const TABLE: &str = "_sqlx_migrations";
    let begun: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *conn).await?;
    if !begun {
        conn.ensure_migrations_table(TABLE).await?;
    }
    let mut tx = conn.begin().await?;
    sqlx::raw_sql("lock table _sqlx_migrations in share row exclusive mode").execute(&mut *tx).await?;
    let applied = tx.list_applied_migrations(TABLE).await?;
    for done in &applied {
        let known = MIGRATIONS.iter().find(|known| known.version == done.version);
        let known = known.ok_or(MigrateError::VersionMissing(done.version))?;
        if known.checksum != done.checksum {
            return Err(MigrateError::VersionMismatch(done.version));
        }
    }
    let Some(next) = MIGRATIONS.iter().find(|known| applied.iter().all(|done| done.version != known.version)) else {
        tx.rollback().await?;
        return Ok(false);
    };
    if next.no_tx {
        tx.rollback().await?;
        conn.apply(TABLE, next).await?;
    } else {
        tx.apply(TABLE, next).await?;
        tx.commit().await?;
    }
    Ok(true)
}

/// A lock is not free, or another process creates the migrations' table at this moment.
fn is_in_the_way(e: &sqlx::migrate::MigrateError) -> bool {
    use sqlx::migrate::MigrateError;
    let (MigrateError::Execute(e) | MigrateError::ExecuteMigration(e, _)) = e else { return false };
    e.as_database_error().is_some_and(|e| match e.code().as_deref() {
        Some("55P03" | "42P07") => true,
        Some("23505") => e.table() == Some("pg_type") || e.table() == Some("pg_class"),
        _ => false,
    })
}

fn migration_fault(e: sqlx::migrate::MigrateError) -> Error {
    use sqlx::migrate::MigrateError;
    match e {
        MigrateError::Execute(e) => e.into(),
        MigrateError::VersionMissing(version) => Error::Setup(format!(
            "the database's schema has migration {version}, which this program does not know: run the newer notihub, \
             or use another --database-url"
        )),
        other => Error::Setup(format!("the schema cannot be migrated: {other}")),
    }
}
