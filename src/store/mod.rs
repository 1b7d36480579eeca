//! The database. One function is one statement: no decision, plain structs back, an error that says what the caller can
//! do. What commits together is put together in `flow`, with a `Tx` from here.

pub mod alert;
pub mod attempt;
pub mod audit;
pub mod bench;
pub mod delivery;
pub mod endpoint;
pub mod event;
pub mod fsck;
pub mod hub;
pub mod idempotency;
pub mod key;
pub mod lane;
pub mod listen;
pub mod message;
pub mod partition;
pub mod partner;
pub mod provider;
pub mod provider_cursor;
pub mod provider_ref;
pub mod rate;
pub mod receipt;
pub mod redrive;
pub mod refresh_token;
pub mod role;
pub mod signing_key;
pub mod sql_intake;
pub mod stats;
pub mod worker;

use std::str::FromStr;
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions as _, PgPool};

use crate::error::{Code, Error, Refusal, Result};
use crate::limits;

pub use sqlx::PgConnection as Conn;
pub use sqlx::PgExecutor as Db;
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!();

#[derive(Clone)]
pub struct Store {
    /// For people's questions.
    pool: PgPool,
    /// For writing what is accepted.
    intake: PgPool,
    /// For the engine's few, always equal statements. Kept apart so that a storm of requests cannot take the workers'
    /// connections, and because it plans differently (see `engine_options`).
    engine: PgPool,
    /// For listening: each listener keeps a connection for as long as it lives.
    listen: PgPool,
    options: PgConnectOptions,
}

#[derive(Debug, Clone, Copy)]
pub struct PoolSizes {
    pub api: u32,
    pub intake: u32,
    pub engine: u32,
}

impl Store {
    /// Does not connect yet.
    pub fn new(database_url: &str, sizes: PoolSizes) -> Result<Store> {
        let options = PgConnectOptions::from_str(database_url)
            // Its own error may quote a part of the URL.
            .map_err(|_| {
                let form = "postgres://user:password@host:port/database";
                Error::Setup(format!(
                    "the database URL cannot be read; write it as {form}, special characters %-encoded"
                ))
            })?
            .application_name("notihub")
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2))
            .options([
                ("statement_timeout", format!("{}s", limits::STATEMENT_TIMEOUT.as_secs())),
                ("lock_timeout", "2s".to_owned()),
                ("idle_in_transaction_session_timeout", "5s".to_owned()),
                ("tcp_user_timeout", "10s".to_owned()),
                ("jit", "off".to_owned()),
                ("timezone", "UTC".to_owned()),
                // Without the schema of the user's own name: for a user called notihub that is the one of SQL intake.
                ("search_path", "public".to_owned()),
            ]);
        Ok(Store {
            pool: pool(sizes.api, limits::POOL_ACQUIRE).connect_lazy_with(options.clone()),
            intake: pool(sizes.intake, limits::POOL_ACQUIRE).connect_lazy_with(intake_options(options.clone())),
            engine: pool(sizes.engine, limits::POOL_ACQUIRE_ENGINE).connect_lazy_with(engine_options(options.clone())),
            listen: pool(2, limits::POOL_ACQUIRE_ENGINE).connect_lazy_with(options.clone()),
            options,
        })
    }

    pub fn listen(&self) -> &PgPool {
        &self.listen
    }

    pub fn api(&self) -> &PgPool {
        &self.pool
    }

    pub fn intake(&self) -> &PgPool {
        &self.intake
    }

    pub fn engine(&self) -> &PgPool {
        &self.engine
    }

    pub async fn begin(&self) -> Result<Tx> {
        Ok(self.pool.begin().await?)
    }

    pub async fn begin_intake(&self) -> Result<Tx> {
        Ok(self.intake.begin().await?)
    }

    pub async fn begin_engine(&self) -> Result<Tx> {
        Ok(self.engine.begin().await?)
    }

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

    /// How many migrations the schema lacks, or an error when it is newer than this program.
    pub async fn migrations_missing(&self) -> Result<usize> {
        use sqlx::migrate::Migrate as _;
        let mut conn = self.unhurried().await?;
        let begun: bool =
            sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut conn).await?;
        if !begun {
            return Ok(MIGRATIONS.iter().count());
        }
        let applied = conn.list_applied_migrations("_sqlx_migrations").await.map_err(migration_fault)?;
        if let Some(newer) = applied.iter().find(|a| !MIGRATIONS.version_exists(a.version)) {
            return Err(Error::Setup(format!(
                "the database's schema has migration {}, which this program does not know: run the newer notihub, or give \
                 another --database-url",
                newer.version
            )));
        }
        Ok(MIGRATIONS.iter().count().saturating_sub(applied.len()))
    }

    /// The same, asked of a pool that has room, for questions that anybody may ask often. (A runtime query: the table is
    /// sqlx's own.)
    pub async fn migrations_seen(&self) -> Result<usize> {
        let applied: Vec<i64> =
            sqlx::query_scalar("select version from _sqlx_migrations where success").fetch_all(&self.pool).await?;
        Ok(MIGRATIONS.iter().filter(|known| !applied.contains(&known.version)).count())
    }

    /// A connection without the statement time-out, for migrations.
    pub async fn unhurried(&self) -> Result<Conn> {
        let options = self.options.clone().options([("statement_timeout", "0"), ("lock_timeout", "30s")]);
        Ok(options.connect().await?)
    }

    /// A connection for questions about everything there is. While statistics are stale a nested loop over millions of
    /// rows looks cheap, and never ends.
    pub async fn auditing(&self) -> Result<Conn> {
        let options = [("statement_timeout", "0"), ("enable_nestloop", "off"), ("work_mem", "64MB")];
        Ok(self.options.clone().options(options).connect().await?)
    }

    /// A connection for `fsck::check`. Reads tables in full and joins by hash, and nothing else: the time grows with the
    /// rows, whatever the statistics say. (With stale ones the planner takes a table of millions for an empty one, and
    /// reads it once for each row of another.) Runs beside the hub's own work, so without parallel workers. The server
    /// gives a statement up when its client has gone.
    pub async fn checking(&self) -> Result<Conn> {
        let options = [
            ("statement_timeout", "0"),
            ("client_connection_check_interval", "1s"),
            ("plan_cache_mode", "force_custom_plan"),
            ("work_mem", "64MB"),
            ("max_parallel_workers_per_gather", "0"),
            ("enable_nestloop", "off"),
            ("enable_mergejoin", "off"),
            ("enable_indexscan", "off"),
            ("enable_indexonlyscan", "off"),
            ("enable_bitmapscan", "off"),
        ];
        Ok(self.options.clone().options(options).connect().await?)
    }

    pub async fn close(&self) {
        self.pool.close().await;
        self.intake.close().await;
        self.engine.close().await;
        self.listen.close().await;
    }
}

/// A part of a transaction that can fail alone.
pub async fn savepoint(tx: &mut Tx) -> Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    use sqlx::Connection as _;
    Ok(tx.begin().await?)
}

fn pool(size: u32, acquire: Duration) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(size)
        .min_connections(0)
        .acquire_timeout(acquire)
        .max_lifetime(Duration::from_secs(30 * 60))
        .idle_timeout(Duration::from_secs(5 * 60))
        // A connection that was used just now is not asked again whether it lives: that would be a round trip for every
        // statement. One that lay idle is, so that a restarted server costs no request.
        .test_before_acquire(false)
        .before_acquire(|conn, meta| {
            Box::pin(async move {
                use sqlx::Connection as _;
                Ok(meta.idle_for < Duration::from_millis(500) || conn.ping().await.is_ok())
            })
        })
}

/// The engine's statements are few, fetch by key, and must never change their plan under load: one generic plan each
/// (planning over all partitions costs more than running), and always along the index made for it. With fresh partitions
/// the statistics lie, and a hash join over a shard is the way it goes wrong.
fn engine_options(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_hashjoin", "off"),
        ("enable_mergejoin", "off"),
        ("enable_material", "off"),
        // What the engine touches is in memory; and with pages free, a probe by the full key always beats a range.
        ("random_page_cost", "0"),
        ("seq_page_cost", "0"),
    ])
}

/// One statement, always the same, over arrays of any length: planned once, and joined by hash whatever the planner
/// believes of the arrays' length.
fn intake_options(options: PgConnectOptions) -> PgConnectOptions {
    options.options([
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_nestloop", "off"),
        ("enable_mergejoin", "off"),
    ])
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
                    "{}: a transaction holds a lock that the migration needs. End it, or the process that holds it open: \
                     select pid, usename, xact_start, query from pg_stat_activity where xact_start is not null order by 3",
                    migration_fault(e)
                )));
            }
            Err(e) => return Err(migration_fault(e)),
        }
    }
}

/// False when nothing is left to do. The lock is one on the migrations' own table: sqlx's is an advisory lock, which any
/// login of the database could hold.
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
            "the database's schema has migration {version}, which this program does not know: run the newer notihub, or \
             give another --database-url"
        )),
        other => Error::Setup(format!("the schema cannot be migrated: {other}")),
    }
}

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Error {
        match &e {
            sqlx::Error::PoolTimedOut => Error::Unavailable("no connection was free in time".into()),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Error::Unavailable(e.to_string()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Error::Unavailable(e.to_string()),
            sqlx::Error::Database(told) => {
                let state = told.code().unwrap_or_default().into_owned();
                let text = format!("{} (SQLSTATE {state})", told.message());
                match state.get(..2).unwrap_or_default() {
                    // connection, transaction cut off, authorisation, resources, operator intervention, conflict between
                    // transactions
                    "08" | "25" | "28" | "3D" | "53" | "57" | "40" | "55" | "58" => Error::Unavailable(text),
                    // Data the server will not take. Parsing should have said so first: counted, and a test holds it at 0.
                    "22" | "54" => Error::Refused(
                        Refusal::new(422, "rejected_by_database", "the database does not take this input")
                            .with_code(Code::E001),
                    ),
                    _ if state == "42501" => {
                        Error::Internal(format!("{text}: `notihub migrate` gives the hub's role the rights it needs"))
                    }
                    _ => Error::Internal(text),
                }
            }
            _ => Error::Internal(e.to_string()),
        }
    }
}

/// A stored word that the model does not know: the schema is newer than this program.
pub(crate) fn word<T: FromStr>(text: &str, what: &'static str) -> Result<T> {
    text.parse().map_err(|_| Error::Internal(format!("unknown {what} '{text}' in the database")))
}
