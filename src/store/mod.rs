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
pub mod pace;
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
pub mod search;
pub mod session;
pub mod sign_in_failure;
pub mod signing_key;
pub mod sql_intake;
pub mod stats;
pub mod suspect;
pub mod worker;

use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::{ConnectOptions as _, PgPool};
use tokio::sync::Mutex;

use crate::error::{Code, Error, Refusal, Result};
use crate::limits;
use crate::model::channel::Channel;

use session::{Purpose, Servers};

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
    /// connections, and because it plans differently (see `ENGINE`).
    engine: PgPool,
    /// For claiming, reading and settling webhooks, whose endpoints are strangers', as `engine` is for all other channels:
    /// neither waits for a connection of the other.
    webhooks: PgPool,
    /// For listening: each listener keeps a connection for as long as it lives.
    listen: PgPool,
    servers: Arc<Servers>,
    /// With several servers: a session with the chosen one, which tells when another has to be chosen.
    pilot: Arc<Mutex<Option<Conn>>>,
    proof: Arc<Mutex<WriteProof>>,
}

#[derive(Debug, Clone, Copy)]
pub struct PoolSizes {
    pub api: u32,
    pub intake: u32,
    pub engine: u32,
    pub webhooks: u32,
}

/// The last commit that proved that the database takes writes, and the one under way.
#[derive(Default)]
struct WriteProof {
    proven_at: Option<Instant>,
    /// Since when, and the commit itself.
    under_way: Option<(Instant, Commit)>,
}

type Commit = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Store {
    /// Does not connect yet. Its sessions are good for writing.
    pub fn new(database_url: &str, sizes: PoolSizes) -> Result<Store> {
        Self::with_purpose(database_url, sizes, Purpose::Write)
    }

    /// Does not connect yet. Its sessions may be with a hot standby.
    pub fn reading(database_url: &str, sizes: PoolSizes) -> Result<Store> {
        Self::with_purpose(database_url, sizes, Purpose::Read)
    }

    fn with_purpose(database_url: &str, sizes: PoolSizes, purpose: Purpose) -> Result<Store> {
        let servers = Servers::read(database_url, purpose)?.with(|options| {
            options
                .log_statements(tracing::log::LevelFilter::Trace)
                .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(2))
        });
        let servers = Arc::new(servers);
        let pool = |size, acquire, settings| pool(&servers, size, acquire, settings);
        Ok(Store {
            pool: pool(sizes.api, limits::POOL_ACQUIRE, &[]),
            intake: pool(sizes.intake, limits::POOL_ACQUIRE, INTAKE),
            engine: pool(sizes.engine, limits::POOL_ACQUIRE_ENGINE, ENGINE),
            webhooks: pool(sizes.webhooks, limits::POOL_ACQUIRE_ENGINE, ENGINE),
            listen: pool(2, limits::POOL_ACQUIRE_ENGINE, &[]),
            servers,
            pilot: Arc::default(),
            proof: Arc::default(),
        })
    }

    /// Chooses the server, and proves that its sessions are sessions, before any session has settings of ours.
    ///
    /// # Errors
    /// `Error::Setup` where a pooler keeps no sessions. `Error::Unavailable` where no server will do.
    pub async fn prove(&self) -> Result<()> {
        let chosen = self.choose().await?;
        session::prove_own(self.servers.host(chosen)).await
    }

    /// Makes new sessions with the first server of the URL that will do. Returns its number.
    async fn choose(&self) -> Result<usize> {
        let (chosen, conn) = self.servers.choose().await?;
        if self.servers.several() {
            for pool in [&self.pool, &self.intake, &self.engine, &self.webhooks, &self.listen] {
                pool.set_connect_options(self.servers.host(chosen).clone());
            }
            session::give_up_all();
            *self.pilot.lock().await = Some(conn);
        }
        Ok(chosen)
    }

    /// With several servers: chooses again when the chosen one is lost or will not do any more. Call it often.
    ///
    /// # Errors
    /// `Error::Unavailable` while no server will do.
    pub async fn keep_server(&self) -> Result<()> {
        if !self.servers.several() {
            return Ok(());
        }
        if let Some(conn) = self.pilot.lock().await.as_mut() {
            let standing = tokio::time::timeout(self.servers.connect_timeout, session::standing(conn)).await;
            if standing.is_ok_and(|said| said.is_ok_and(|standing| self.servers.fit(standing).is_ok())) {
                return Ok(());
            }
        }
        self.pilot.lock().await.take();
        self.choose().await?;
        tracing::info!("another server of the database URL was chosen, or the same anew");
        Ok(())
    }

    /// Commits something small on a session for intake: proof that the database takes writes, on disk and on the
    /// standbys it waits for. A proof is good for a second; one that is under way is waited for, never begun twice.
    ///
    /// # Errors
    /// `Error::Unavailable` while writes are refused or commits are not confirmed.
    pub async fn prove_writes(&self) -> Result<()> {
        let mut proof = self.proof.lock().await;
        if proof.under_way.is_none() {
            if proof.proven_at.is_some_and(|at| at.elapsed() < limits::WRITE_PROOF_KEPT) {
                return Ok(());
            }
            let intake = self.intake.clone();
            let commit = async move {
                // A row nowhere: a transaction with nothing but a message in the log, which is committed as any other.
                sqlx::raw_sql("select pg_logical_emit_message(true, 'notihub', '')").execute(&intake).await?;
                Ok(())
            };
            proof.under_way = Some((Instant::now(), Box::pin(commit)));
        }
        let Some((began, commit)) = &mut proof.under_way else { return Ok(()) };
        match tokio::time::timeout(limits::WRITE_PROOF, commit).await {
            Ok(result) => {
                proof.under_way = None;
                proof.proven_at = result.is_ok().then(Instant::now);
                result
            }
            Err(_) => Err(Error::Unavailable(format!(
                "a commit is not confirmed after {} s; if synchronous_standby_names is set, the standby it names does not \
                 answer",
                began.elapsed().as_secs()
            ))),
        }
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

    pub fn webhooks(&self) -> &PgPool {
        &self.webhooks
    }

    /// Connections of those who claim and settle this channel's deliveries.
    pub fn serving(&self, channel: Channel) -> &PgPool {
        if channel.calls_strangers() { &self.webhooks } else { &self.engine }
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

    pub async fn begin_serving(&self, channel: Channel) -> Result<Tx> {
        Ok(self.serving(channel).begin().await?)
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

    /// How many migrations the schema lacks, or an error when it is newer than this program. Only reads. (Runtime
    /// queries: the table is sqlx's own.)
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
                "the database's schema has migration {newer}, which this program does not know: run the newer notihub, or \
                 give another --database-url"
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
        self.connect(&[("statement_timeout", "0"), ("lock_timeout", "30s")]).await
    }

    /// A connection for questions about everything there is. While statistics are stale a nested loop over millions of
    /// rows looks cheap, and never ends.
    pub async fn auditing(&self) -> Result<Conn> {
        self.connect(&[("statement_timeout", "0"), ("enable_nestloop", "off"), ("work_mem", "64MB")]).await
    }

    /// A connection outside the pools, with these settings besides the common ones.
    async fn connect(&self, settings: &[(&str, &str)]) -> Result<Conn> {
        let (_, mut conn) = self.servers.choose().await?;
        session::prepare(&mut conn, &statements(settings)).await?;
        Ok(conn)
    }

    /// A connection for `fsck::check`. Reads tables in full and joins by hash, and nothing else: the time grows with the
    /// rows, whatever the statistics say. (With stale ones the planner takes a table of millions for an empty one, and
    /// reads it once for each row of another.) Runs beside the hub's own work, so without parallel workers. The server
    /// gives a statement up when its client has gone.
    pub async fn checking(&self) -> Result<Conn> {
        self.connect(&[
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
        ])
        .await
    }

    pub async fn close(&self) {
        self.proof.lock().await.under_way = None;
        self.pool.close().await;
        self.intake.close().await;
        self.engine.close().await;
        self.webhooks.close().await;
        self.listen.close().await;
    }
}

/// A part of a transaction that can fail alone.
pub async fn savepoint(tx: &mut Tx) -> Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    use sqlx::Connection as _;
    Ok(tx.begin().await?)
}

/// The settings of every session, and those of its own, which come later and win.
fn statements(own: &[(&str, &str)]) -> String {
    let statement_timeout = format!("{}s", limits::STATEMENT_TIMEOUT.as_secs());
    let common = [
        ("statement_timeout", statement_timeout.as_str()),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("tcp_user_timeout", "10s"),
        ("jit", "off"),
        ("timezone", "UTC"),
        // Without the schema of the user's own name: for a user called notihub that is the one of SQL intake.
        ("search_path", "public"),
    ];
    common.iter().chain(own).map(|(name, value)| format!("set {name} = '{value}'; ")).collect()
}

fn pool(servers: &Arc<Servers>, size: u32, acquire: Duration, settings: &[(&str, &str)]) -> PgPool {
    let statements: Arc<str> = statements(settings).into();
    let (at_first, later) = (servers.clone(), servers.clone());
    PgPoolOptions::new()
        .max_connections(size)
        .min_connections(0)
        .acquire_timeout(acquire)
        .max_lifetime(Duration::from_secs(30 * 60))
        .idle_timeout(Duration::from_secs(5 * 60))
        // A session that will not do is refused: the pool tries again until the acquire time-out.
        .after_connect(move |conn, _| {
            let (servers, statements) = (at_first.clone(), statements.clone());
            Box::pin(async move {
                let standing = session::prepare(conn, &statements).await?;
                session::accept(servers.fit(standing))
            })
        })
        // A connection that was used just now is not asked again whether it lives: that would be a round trip for every
        // statement. One that lay idle is, so that a restarted server costs no request; so is what its server is.
        .test_before_acquire(false)
        .before_acquire(move |conn, meta| {
            let servers = later.clone();
            Box::pin(async move {
                if session::is_given_up(meta.age) {
                    return Ok(false);
                }
                if meta.idle_for < Duration::from_millis(500) {
                    return Ok(true);
                }
                Ok(session::standing(conn).await.is_ok_and(|standing| servers.fit(standing).is_ok()))
            })
        })
        .connect_lazy_with(servers.host(0).clone())
}

/// The engine's statements are few, fetch by key, and must never change their plan under load: one generic plan each
/// (planning over all partitions costs more than running), and always along the index made for it. With fresh partitions
/// the statistics lie, and a hash join over a shard is the way it goes wrong.
const ENGINE: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    // What the engine touches is in memory; and with pages free, a probe by the full key always beats a range.
    ("random_page_cost", "0"),
    ("seq_page_cost", "0"),
];

/// One statement, always the same, over arrays of any length: planned once, and joined by hash whatever the planner
/// believes of the arrays' length. Tables are read along their indexes: a plan that was made while one was empty lives on.
const INTAKE: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
];

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

/// SQLSTATE read_only_sql_transaction: the server refuses to write, or to listen, in this session.
const READ_ONLY: &str = "25006";

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Error {
        match &e {
            sqlx::Error::PoolTimedOut => Error::Unavailable(
                session::why_none().map_or("no connection was free in time".into(), |why| format!("no session: {why}")),
            ),
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Error::Unavailable(e.to_string()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Error::Unavailable(e.to_string()),
            sqlx::Error::Database(told) => {
                let state = told.code().unwrap_or_default().into_owned();
                let text = format!("{} (SQLSTATE {state})", told.message());
                if state == READ_ONLY {
                    session::give_up_all();
                }
                if told.message().starts_with("unsupported startup parameter") {
                    return Error::Setup(format!(
                        "a pooler before PostgreSQL refuses the connection: {text}. Leave the parameter out of the database \
                         URL, or name it in PgBouncer's ignore_startup_parameters"
                    ));
                }
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
