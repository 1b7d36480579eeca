//! Pools of database sessions, one per kind of work, and single connections outside them.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgPoolOptions;
use sqlx::{ConnectOptions as _, PgPool};
use tokio::sync::Mutex;

use super::session::{self, Purpose, Servers};
use super::{Conn, Tx};
use crate::error::{Error, Result};
use crate::limits;
use crate::model::channel::Channel;

/// The database as one process uses it.
#[derive(Clone)]
pub struct Store {
    /// For requests of people and programs.
    pool: PgPool,
    /// For writing accepted messages.
    intake: PgPool,
    /// For the engine's few, always equal statements. Separate, so that a burst of requests cannot take the workers'
    /// connections, and because its sessions plan differently (see `ENGINE`).
    engine: PgPool,
    /// As `engine`, for webhooks: partners' slow endpoints and the other channels cannot take connections from each
    /// other.
    webhooks: PgPool,
    /// For listeners: each keeps a connection as long as it lives.
    listen: PgPool,
    servers: Arc<Servers>,
    /// With several servers: a session with the chosen one, which shows when another has to be chosen.
    pilot: Arc<Mutex<Option<Conn>>>,
    proof: Arc<Mutex<WriteProof>>,
}

/// Most connections of each pool.
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
    /// When it began, and the commit itself.
    under_way: Option<(Instant, Commit)>,
}

type Commit = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

impl Store {
    /// Creates pools whose sessions can write. Does not connect yet.
    ///
    /// # Errors
    /// `Error::Usage` for a URL that cannot be read, or that asks for a read-only server.
    pub fn new(database_url: &str, sizes: PoolSizes) -> Result<Store> {
        Self::with_purpose(database_url, sizes, Purpose::Write)
    }

    /// Creates pools whose sessions may be on a hot standby. Does not connect yet.
    ///
    /// # Errors
    /// `Error::Usage` for a URL that cannot be read.
    pub fn new_read_only(database_url: &str, sizes: PoolSizes) -> Result<Store> {
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

    /// Chooses the server and proves that its sessions keep their state. Call it before any other use.
    ///
    /// # Errors
    /// `Error::Setup` behind a pooler that does not keep sessions. `Error::Unavailable` if no server is suitable.
    pub async fn prove_sessions(&self) -> Result<()> {
        let chosen = self.choose().await?;
        session::prove_sessions(self.servers.host(chosen)).await
    }

    /// Makes new sessions go to the first suitable server of the URL. Returns its index.
    async fn choose(&self) -> Result<usize> {
        let (chosen, conn) = self.servers.choose().await?;
        if self.servers.has_several() {
            for pool in [&self.pool, &self.intake, &self.engine, &self.webhooks, &self.listen] {
                pool.set_connect_options(self.servers.host(chosen).clone());
            }
            session::discard_all();
            *self.pilot.lock().await = Some(conn);
        }
        Ok(chosen)
    }

    /// With several servers: chooses again if the chosen one is lost or no longer suitable. Call it regularly.
    ///
    /// # Errors
    /// `Error::Unavailable` while no server is suitable.
    pub async fn keep_server(&self) -> Result<()> {
        if !self.servers.has_several() {
            return Ok(());
        }
        if let Some(conn) = self.pilot.lock().await.as_mut() {
            let standing = tokio::time::timeout(self.servers.connect_timeout, session::check_session(conn)).await;
            if standing.is_ok_and(|said| said.is_ok_and(|standing| self.servers.check(standing).is_ok())) {
                return Ok(());
            }
        }
        self.pilot.lock().await.take();
        self.choose().await?;
        tracing::info!("the server of the database URL was chosen again");
        Ok(())
    }

    /// Commits an empty change on an intake session: proof that the database takes writes, on disk and on the standbys
    /// that commits wait for. A proof is reused for a second; concurrent callers wait for the same commit.
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
                // Writes no row: only a message in the write-ahead log, which is committed like any other change.
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
            Err(_) => Err(Error::Unavailable(
                format!(
                    "a commit is not confirmed after {} s; if synchronous_standby_names is set, check the standby it \
                     names",
                    began.elapsed().as_secs()
                )
                .into(),
            )),
        }
    }

    /// Pool for listeners, each of which keeps a connection.
    pub fn listen(&self) -> &PgPool {
        &self.listen
    }

    /// Pool for requests of people and programs.
    pub fn api(&self) -> &PgPool {
        &self.pool
    }

    /// Pool for writing accepted messages.
    pub fn intake(&self) -> &PgPool {
        &self.intake
    }

    /// Pool for the engine's statements of all channels but WEBHOOK.
    pub fn engine(&self) -> &PgPool {
        &self.engine
    }

    /// Pool for the engine's statements of the channel WEBHOOK.
    pub fn webhooks(&self) -> &PgPool {
        &self.webhooks
    }

    /// Pool for claiming and settling deliveries of a channel.
    pub fn pool_for(&self, channel: Channel) -> &PgPool {
        if channel.calls_partner_servers() { &self.webhooks } else { &self.engine }
    }

    /// Begins a transaction on a connection of `api`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin(&self) -> Result<Tx> {
        Ok(self.pool.begin().await?)
    }

    /// Begins a transaction on a connection of `intake`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin_intake(&self) -> Result<Tx> {
        Ok(self.intake.begin().await?)
    }

    /// Begins a transaction on a connection of `engine`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin_engine(&self) -> Result<Tx> {
        Ok(self.engine.begin().await?)
    }

    /// Begins a transaction on a connection of `pool_for(channel)`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin_for(&self, channel: Channel) -> Result<Tx> {
        Ok(self.pool_for(channel).begin().await?)
    }

    /// Opens a connection without a statement time-out, for migrations and maintenance commands.
    ///
    /// # Errors
    /// `Error::Unavailable` if no server is suitable.
    pub async fn connect_without_timeout(&self) -> Result<Conn> {
        self.connect(&[("statement_timeout", "0"), ("lock_timeout", "30s")]).await
    }

    /// Opens a connection for queries over whole tables, without a statement time-out or nested loops: with stale
    /// statistics a nested loop over millions of rows looks cheap and does not end.
    ///
    /// # Errors
    /// `Error::Unavailable` if no server is suitable.
    pub async fn connect_for_scans(&self) -> Result<Conn> {
        self.connect(&[("statement_timeout", "0"), ("enable_nestloop", "off"), ("work_mem", "64MB")]).await
    }

    /// Opens a connection outside the pools with these settings besides the common ones.
    async fn connect(&self, settings: &[(&str, &str)]) -> Result<Conn> {
        let (_, mut conn) = self.servers.choose().await?;
        session::prepare(&mut conn, &statements(settings)).await?;
        Ok(conn)
    }

    /// Opens a connection for the statements of `fsck`, which cannot write and works on a hot standby. They read slices
    /// along primary keys and join them by hash or merge, so that the time grows with the rows, whatever the statistics
    /// are. (With stale ones the planner takes a table of millions of rows for empty, and reads it once per row of
    /// another.) Without parallel workers, because it runs beside the hub's own work. The server ends a statement whose
    /// client has gone.
    ///
    /// # Errors
    /// `Error::Unavailable` if no server is suitable.
    pub async fn connect_for_fsck(&self) -> Result<Conn> {
        let own = [
            ("statement_timeout", "0"),
            // A partition that is dropped meanwhile is waited for.
            ("lock_timeout", "30s"),
            ("default_transaction_read_only", "on"),
            ("client_connection_check_interval", "1s"),
        ];
        self.connect(&[&own[..], &SLICES].concat()).await
    }

    /// Begins a transaction on a connection of `api` whose statements read slices as those of `connect_for_fsck` do,
    /// with the statement time-out of the pool.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin_for_slices(&self) -> Result<Tx> {
        let mut tx = self.begin().await?;
        let settings = SLICES.map(|(name, value)| format!("set local {name} = '{value}'; ")).concat();
        sqlx::raw_sql(sqlx::AssertSqlSafe(settings)).execute(&mut *tx).await?;
        Ok(tx)
    }

    /// Closes every pool and waits until its connections are closed.
    pub async fn close(&self) {
        self.proof.lock().await.under_way = None;
        self.pool.close().await;
        self.intake.close().await;
        self.engine.close().await;
        self.webhooks.close().await;
        self.listen.close().await;
    }
}

/// Settings of every session, then its own, which override them.
fn statements(own: &[(&str, &str)]) -> String {
    let statement_timeout = format!("{}s", limits::STATEMENT_TIMEOUT.as_secs());
    let common = [
        ("statement_timeout", statement_timeout.as_str()),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "5s"),
        ("tcp_user_timeout", "10s"),
        ("jit", "off"),
        ("timezone", "UTC"),
        // Without the schema named like the user: for a user called notihub that would be the schema of SQL intake.
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
        // An unsuitable session is refused: the pool tries again until the acquire time-out.
        .after_connect(move |conn, _| {
            let (servers, statements) = (at_first.clone(), statements.clone());
            Box::pin(async move {
                let standing = session::prepare(conn, &statements).await?;
                session::accept_session(servers.check(standing))
            })
        })
        // A connection used just now is not tested: that would add a round trip to every statement. An idle one is, and
        // the state of its server too, so that a restarted server fails no request.
        .test_before_acquire(false)
        .before_acquire(move |conn, meta| {
            let servers = later.clone();
            Box::pin(async move {
                if session::is_discarded(meta.age) {
                    return Ok(false);
                }
                if meta.idle_for < Duration::from_millis(500) {
                    return Ok(true);
                }
                Ok(session::check_session(conn).await.is_ok_and(|standing| servers.check(standing).is_ok()))
            })
        })
        .connect_lazy_with(servers.host(0).clone())
}

/// The engine's statements are few, fetch by key, and must never change their plan under load: one generic plan each
/// (planning over all partitions costs more than running), and always along the index made for it. With new partitions
/// the statistics are wrong, and a hash join over a shard is how the plan would degrade.
const ENGINE: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_material", "off"),
    // The pages that the engine reads are cached; with page costs of 0 a lookup by full key always beats a range scan.
    ("random_page_cost", "0"),
    ("seq_page_cost", "0"),
];

/// Statements over a range of ids of one shard: read along primary keys, joined by hash or merge, and planned for the
/// range, so that other partitions are left out.
const SLICES: [(&str, &str); 6] = [
    ("plan_cache_mode", "force_custom_plan"),
    ("work_mem", "64MB"),
    ("max_parallel_workers_per_gather", "0"),
    ("enable_nestloop", "off"),
    ("enable_seqscan", "off"),
    ("enable_bitmapscan", "off"),
];

/// One statement, always the same, over arrays of any length: planned once, and joined by hash whatever the planner
/// estimates for the arrays' length. Tables are read along their indexes, because a plan made while a table was empty
/// stays in use.
const INTAKE: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
];
