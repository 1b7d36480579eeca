//! Migrations: the schema is brought up to this program, never back.

use std::time::Duration;

use super::{Conn, Store, role};
use crate::error::{Error, Result};

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

impl Store {
    /// Applies what the schema lacks, as the schema's owner, then makes the roles that are missing and repairs their
    /// grants. Safe to run from several processes at once.
    ///
    /// # Errors
    /// `Error::Setup` when this login may not migrate, or a lock that a migration needs is not free.
    pub async fn migrate(&self) -> Result<role::Repaired> {
        let mut conn = self.unhurried().await?;
        if self.migrations_missing().await? > 0 {
            role::become_owner(&mut conn).await?;
            apply_migrations(&mut conn).await?;
        }
        role::repair(&mut conn).await
    }

    /// How many migrations the schema lacks. Only reads. (Runtime queries: the table is sqlx's own.)
    ///
    /// # Errors
    /// `Error::Setup` when the schema is newer than this program. `Error::Unavailable` if the database cannot be
    /// reached.
    pub async fn migrations_missing(&self) -> Result<usize> {
        let mut conn = self.unhurried().await?;
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
                 notihub, or give another --database-url"
            )));
        }
        Ok(MIGRATIONS.iter().count().saturating_sub(applied.len()))
    }

    /// The same for a question that anyone may ask often: on a connection of the API's pool, and without an error for a
    /// newer schema. (A runtime query: the table is sqlx's own.)
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached.
    pub async fn migrations_seen(&self) -> Result<usize> {
        let applied: Vec<i64> =
            sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(self.api()).await?;
        Ok(MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count())
    }
}

/// How often a migration is tried whose locks are not free, each time for a second. Behind one that waits for longer,
/// everybody who wants the table would wait, too: a service may hold a transaction open in which it enqueued.
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
                    "{}: a transaction holds a lock that the migration needs. End it, or the process that holds it \
                     open: \
                     select pid, usename, xact_start, query from pg_stat_activity \
                     where xact_start is not null order by 3",
                    migration_fault(e)
                )));
            }
            Err(e) => return Err(migration_fault(e)),
        }
    }
}

/// False when nothing is left to do. The lock is one on the migrations' own table: sqlx's is an advisory lock, which
/// any login of the database could hold.
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

/// A lock that is not free, or the migrations' table made by another process at this moment.
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
             or give another --database-url"
        )),
        other => Error::Setup(format!("the schema cannot be migrated: {other}")),
    }
}
