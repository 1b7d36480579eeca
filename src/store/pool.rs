//! Pools of database sessions, each for its own kind of work, and connections beside them.

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

/// The database, as one process uses it.
#[derive(Clone)]
pub struct Store {
    /// For people's questions.
    pool: PgPool,
    /// For writing what is accepted.
    intake: PgPool,
    /// For the engine's few, always equal statements. Kept apart so that a storm of requests cannot take the workers'
    /// connections, and because it plans differently (see `ENGINE`).
    engine: PgPool,
    /// For claiming, reading and settling webhooks, whose endpoints are strangers', as `engine` is for all other
    /// channels: neither waits for a connection of the other.
    webhooks: PgPool,
    /// For listening: each listener keeps a connection for as long as it lives.
    listen: PgPool,
    servers: Arc<Servers>,
    /// With several servers: a session with the chosen one, which tells when another has to be chosen.
    pilot: Arc<Mutex<Option<Conn>>>,
    proof: Arc<Mutex<WriteProof>>,
}

/// How many connections each pool may have.
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
    /// Makes pools whose sessions are good for writing. Does not connect yet.
    ///
    /// # Errors
    /// `Error::Usage` for a URL that cannot be read, or that asks for a server without writes.
    pub fn new(database_url: &str, sizes: PoolSizes) -> Result<Store> {
        Self::with_purpose(database_url, sizes, Purpose::Write)
    }

    /// Makes pools whose sessions may be with a hot standby. Does not connect yet.
    ///
    /// # Errors
    /// `Error::Usage` for a URL that cannot be read.
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
            Err(_) => Err(Error::Unavailable(
                format!(
                    "a commit is not confirmed after {} s; if synchronous_standby_names is set, the standby it names \
                 does not answer",
                    began.elapsed().as_secs()
                )
                .into(),
            )),
        }
    }

    /// Connections for listeners, each of which keeps one.
    pub fn listen(&self) -> &PgPool {
        &self.listen
    }

    /// Connections for questions of people and programs.
    pub fn api(&self) -> &PgPool {
        &self.pool
    }

    /// Connections for writing accepted messages.
    pub fn intake(&self) -> &PgPool {
        &self.intake
    }

    /// Connections for the engine's statements, of all channels but WEBHOOK.
    pub fn engine(&self) -> &PgPool {
        &self.engine
    }

    /// Connections for the engine's statements of the channel WEBHOOK.
    pub fn webhooks(&self) -> &PgPool {
        &self.webhooks
    }

    /// Connections for claiming and settling this channel's deliveries.
    pub fn serving(&self, channel: Channel) -> &PgPool {
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

    /// Begins a transaction on a connection of `serving`.
    ///
    /// # Errors
    /// `Error::Unavailable` if the database cannot be reached, or no connection is free in time.
    pub async fn begin_serving(&self, channel: Channel) -> Result<Tx> {
        Ok(self.serving(channel).begin().await?)
    }

    /// A connection without the statement time-out, for migrations.
    ///
    /// # Errors
    /// `Error::Unavailable` where no server will do.
    pub async fn unhurried(&self) -> Result<Conn> {
        self.connect(&[("statement_timeout", "0"), ("lock_timeout", "30s")]).await
    }

    /// A connection for questions about everything there is. While statistics are stale a nested loop over millions of
    /// rows looks cheap, and never ends.
    ///
    /// # Errors
    /// `Error::Unavailable` where no server will do.
    pub async fn auditing(&self) -> Result<Conn> {
        self.connect(&[("statement_timeout", "0"), ("enable_nestloop", "off"), ("work_mem", "64MB")]).await
    }

    /// A connection outside the pools, with these settings besides the common ones.
    async fn connect(&self, settings: &[(&str, &str)]) -> Result<Conn> {
        let (_, mut conn) = self.servers.choose().await?;
        session::prepare(&mut conn, &statements(settings)).await?;
        Ok(conn)
    }

    /// A connection for `fsck::check`. Reads tables in full and joins by hash, and nothing else: the time grows with
    /// the rows, whatever the statistics say. (With stale ones the planner takes a table of millions for an empty one,
    /// and reads it once for each row of another.) Runs beside the hub's own work, so without parallel workers. The
    /// server gives a statement up when its client has gone.
    ///
    /// # Errors
    /// `Error::Unavailable` where no server will do.
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

    /// Closes every pool, and waits until its connections are closed.
    pub async fn close(&self) {
        self.proof.lock().await.under_way = None;
        self.pool.close().await;
        self.intake.close().await;
        self.engine.close().await;
        self.webhooks.close().await;
        self.listen.close().await;
    }
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
/// (planning over all partitions costs more than running), and always along the index made for it. With fresh
/// partitions the statistics lie, and a hash join over a shard is the way it goes wrong.
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
/// believes of the arrays' length. Tables are read along their indexes: a plan that was made while one was empty lives
/// on.
const INTAKE: &[(&str, &str)] = &[
    ("plan_cache_mode", "force_generic_plan"),
    ("enable_nestloop", "off"),
    ("enable_mergejoin", "off"),
    ("enable_seqscan", "off"),
];
