//! Sessions with PostgreSQL: the choice of a server, the settings, and the proof that sessions can do what the process
//! needs. An unsuitable session is closed and another one is opened.
//!
//! Settings are made by statement after connecting, never by startup parameters: poolers such as PgBouncer refuse
//! those.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{ConnectOptions as _, Row as _};

use super::Conn;
use crate::error::{Error, Result};
use crate::limits;

/// What a process needs its sessions for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Write,
    /// Reads only, so that a hot standby is suitable.
    Read,
}

/// libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target> {
        Ok(match text {
            "any" => Target::Any,
            "read-write" => Target::ReadWrite,
            "read-only" => Target::ReadOnly,
            "primary" => Target::Primary,
            "standby" => Target::Standby,
            "prefer-standby" => Target::PreferStandby,
            _ => {
                return Err(Error::Usage(
                    "target_session_attrs in the database URL is unknown; use any, read-write, read-only, primary, \
                     standby or prefer-standby"
                        .into(),
                ));
            }
        })
    }
}

/// State of a server, as a new session sees it.
#[derive(Debug, Clone, Copy)]
pub struct SessionCheck {
    /// A hot standby, or a server that recovers.
    pub in_recovery: bool,
    /// Transactions are read-only unless they ask otherwise: on a standby, and with `default_transaction_read_only`.
    pub read_only: bool,
}

/// The servers of a database URL, in its order, and what a session with one of them must be suitable for.
#[derive(Debug, Clone)]
pub struct Servers {
    hosts: Vec<PgConnectOptions>,
    target: Target,
    purpose: Purpose,
    /// Longest time for connecting to one server before the next is tried.
    pub connect_timeout: Duration,
}

impl Servers {
    /// Reads `postgres://user:password@host1:port1,host2:port2/database?parameters`, with libpq's lists of hosts and
    /// ports (also as parameters `host` and `port`), `target_session_attrs` and `connect_timeout`.
    ///
    /// # Errors
    /// `Error::Usage`, without any part of the URL, which may hold a password.
    pub fn read(url: &str, purpose: Purpose) -> Result<Servers> {
        let unreadable = || {
            Error::Usage(
                "the database URL (database-url or migrate-database-url) cannot be read; write it as \
                 postgres://user:password@host:port/database, special characters %-encoded. Separate several servers \
                 by commas: host1:port1,host2:port2"
                    .to_owned(),
            )
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(unreadable)?;
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = tail.split_once('?').unwrap_or((tail, ""));
        let (user, named) = authority.rsplit_once('@').map_or(("", authority), |(user, named)| (user, named));
        let user = if user.is_empty() { String::new() } else { format!("{user}@") };
        let mut named: Vec<&str> = named.split(',').collect();
        let (mut target, mut connect_timeout) = (Target::Any, limits::CONNECT_TIMEOUT);
        let (mut hosts, mut ports, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        let list = |value: &str| value.replace("%2C", ",").replace("%2c", ",");
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match key {
                "target_session_attrs" => target = value.parse()?,
                // As in libpq, 0 and less are no limit, and less than 2 s is not tried.
                "connect_timeout" => match value.parse::<i64>().map_err(|_| unreadable())? {
                    ..=0 => (),
                    seconds => connect_timeout = Duration::from_secs(seconds.max(2).unsigned_abs()),
                },
                "host" | "hostaddr" => hosts = list(value).split(',').map(|host| format!("{key}={host}")).collect(),
                "port" => ports = list(value).split(',').map(|port| format!("{key}={port}")).collect(),
                _ => kept.push(pair.to_owned()),
            }
        }
        let count = hosts.len().max(named.len()).max(ports.len());
        // Each list names every server, or one value for all of them.
        let of = |values: &[String], n: usize| values.get(n).or(values.first()).cloned();
        let fits = |length: usize| length <= 1 || length == count;
        if !(fits(hosts.len()) && fits(named.len()) && fits(ports.len())) {
            return Err(Error::Usage(
                "the database URL lists hosts and ports in different numbers; give one port, or one per host".into(),
            ));
        }
        named.resize(count, named.first().copied().unwrap_or_default());
        let read = |(n, at): (usize, &&str)| {
            let own = [of(&hosts, n), of(&ports, n)].into_iter().flatten();
            let query = kept.iter().cloned().chain(own).collect::<Vec<_>>().join("&");
            // The parser's error may quote a part of the URL.
            let options = PgConnectOptions::from_str(&format!("{scheme}://{user}{at}{path}?{query}"));
            Ok(options.map_err(|_| unreadable())?.application_name("notihub").extra_float_digits(None))
        };
        let hosts = named.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
        if purpose == Purpose::Write && matches!(target, Target::ReadOnly | Target::Standby) {
            return Err(Error::Usage(
                "target_session_attrs in the database URL asks for a read-only server, but this command has to write: \
                 use read-write, or leave it out"
                    .into(),
            ));
        }
        Ok(Servers { hosts, target, purpose, connect_timeout })
    }

    /// The same servers with changed options of every session.
    pub fn with(mut self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Servers {
        self.hosts = self.hosts.into_iter().map(change).collect();
        self
    }

    /// Options of the `n`th server. Panics if there is none.
    pub fn host(&self, n: usize) -> &PgConnectOptions {
        &self.hosts[n]
    }

    /// Whether the URL names more than one server.
    pub fn has_several(&self) -> bool {
        self.hosts.len() > 1
    }

    /// Connects to the first server, in the order of the URL, that answers within the connect time-out and is suitable.
    /// Returns its index and the connection.
    ///
    /// # Errors
    /// `Error::Unavailable` names each server and why it is not suitable.
    pub async fn choose(&self) -> Result<(usize, Conn)> {
        let targets: &[Target] = match (self.purpose, self.target) {
            (Purpose::Read, Target::PreferStandby) => &[Target::Standby, Target::Any],
            (_, target) => &[target],
        };
        let mut refused = Vec::new();
        for target in targets {
            for (n, options) in self.hosts.iter().enumerate() {
                match self.try_host(options, *target).await {
                    Ok(conn) => return Ok((n, conn)),
                    Err(e) => refused.push((options, e)),
                }
            }
        }
        // With one server its own error says everything.
        if !self.has_several()
            && let Some((_, e)) = refused.pop()
        {
            return Err(e);
        }
        let refused = refused.into_iter().map(|(options, e)| match e {
            Error::Unavailable(why) => format!("{}: {why}", name(options)),
            e => format!("{}: {e}", name(options)),
        });
        let refused: Vec<String> = refused.collect();
        Err(Error::Unavailable(format!("no server of the database URL is suitable: {}", refused.join("; ")).into()))
    }

    async fn try_host(&self, options: &PgConnectOptions, target: Target) -> Result<Conn> {
        let connect = async {
            let mut conn = options.connect().await?;
            let standing = check_session(&mut conn).await?;
            Ok::<_, sqlx::Error>((conn, standing))
        };
        let late = || Error::Unavailable(format!("no answer within {} s", self.connect_timeout.as_secs()).into());
        let (conn, standing) = tokio::time::timeout(self.connect_timeout, connect).await.map_err(|_| late())??;
        fit(self.purpose, target, standing).map_err(|why| Error::Unavailable(why.into()))?;
        Ok(conn)
    }

    /// Checks whether a session is suitable; the error says why it is not. Which of several servers is preferred was
    /// decided when one was chosen.
    ///
    /// # Errors
    /// The reason, as a sentence without a full stop.
    pub fn check(&self, standing: SessionCheck) -> Result<(), &'static str> {
        // Which of several servers is preferred was decided when one was chosen.
        fit(self.purpose, self.target, standing)
    }
}

fn fit(purpose: Purpose, target: Target, standing: SessionCheck) -> Result<(), &'static str> {
    let SessionCheck { in_recovery, read_only } = standing;
    let writes = purpose == Purpose::Write || matches!(target, Target::ReadWrite);
    match target {
        _ if writes && in_recovery => Err("the server is a hot standby, which takes no writes"),
        _ if writes && read_only => Err("the server takes no writes (default_transaction_read_only is on)"),
        Target::Primary if in_recovery => Err("the server is a standby, and target_session_attrs asks for a primary"),
        Target::Standby if !in_recovery => Err("the server is a primary, and target_session_attrs asks for a standby"),
        Target::ReadOnly if !read_only => Err("the server takes writes, and target_session_attrs asks for read-only"),
        _ => Ok(()),
    }
}

/// `host:port`, or the directory of its socket.
fn name(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or(options.get_host().to_owned(), |folder| folder.display().to_string());
    format!("{host}:{}", options.get_port())
}

const STANDING: &str = "select pg_is_in_recovery(), current_setting('transaction_read_only')::bool";

fn read_standing(row: &sqlx::postgres::PgRow) -> sqlx::Result<SessionCheck> {
    Ok(SessionCheck { in_recovery: row.try_get(0)?, read_only: row.try_get(1)? })
}

/// Reads the server's state in one round trip.
///
/// # Errors
/// The error of the query: the session is lost.
pub async fn check_session(conn: &mut Conn) -> sqlx::Result<SessionCheck> {
    read_standing(&sqlx::raw_sql(STANDING).fetch_one(conn).await?)
}

/// Makes a new session's settings and reads the server's state, in one round trip.
///
/// # Errors
/// The error of the statements: the session is not usable.
pub async fn prepare(conn: &mut Conn, statements: &str) -> sqlx::Result<SessionCheck> {
    let sql = sqlx::AssertSqlSafe(format!("{statements}{STANDING}"));
    read_standing(&sqlx::raw_sql(sql).fetch_one(conn).await?)
}

/// Proves that sessions keep their state. A pooler that hands each transaction to another server connection
/// (PgBouncer's `pool_mode = transaction` or `statement`) loses settings and notifications. Two sessions on one backend
/// prove such a pooler; so does a session that does not receive its own notification. Changes no setting: it would stay
/// in a connection that belongs to others.
///
/// # Errors
/// `Error::Setup` with the remedy. `Error::Unavailable` if the database does not answer.
pub async fn prove_sessions(options: &PgConnectOptions) -> Result<()> {
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(limits::SESSION_PROOF);
    let pool = pool.connect_lazy_with(options.clone());
    let proven = tokio::time::timeout(3 * limits::SESSION_PROOF, own(&pool)).await;
    let late = || Error::Unavailable(format!("no answer within {} s", 3 * limits::SESSION_PROOF.as_secs()).into());
    let proven = proven.unwrap_or_else(|_| Err(late()));
    // Bounded: behind a pooler without free connections closing would wait for one.
    let _best_effort = tokio::time::timeout(Duration::from_secs(1), pool.close()).await;
    proven
}

async fn own(pool: &sqlx::PgPool) -> Result<()> {
    async fn backend(db: impl super::Db<'_>) -> sqlx::Result<(i32, bool)> {
        let row = sqlx::raw_sql("select pg_backend_pid(), pg_is_in_recovery()").fetch_one(db).await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }
    let mut listener = PgListener::connect_with(pool).await?;
    listener.ignore_pool_close_event(true);
    listener.eager_reconnect(false);
    let (first, standby) = backend(&mut listener).await?;
    let another = async {
        let mut other = pool.acquire().await?;
        let (second, _) = backend(&mut *other).await?;
        Ok::<_, sqlx::Error>((other, second))
    };
    let (mut other, second) = match tokio::time::timeout(limits::SESSION_PROOF, another).await {
        Ok(Err(sqlx::Error::PoolTimedOut)) | Err(_) => {
            return Err(Error::Setup(
                "the database has no free connection after the first one: raise max_connections, or a pooler's pool \
                 size, above the sum of the connections of all notihub processes"
                    .into(),
            ));
        }
        Ok(another) => another?,
    };
    let (again, _) = backend(&mut listener).await?;
    if first == second || first != again {
        return Err(shared());
    }
    if standby {
        // LISTEN does not work on a standby.
        return Ok(());
    }
    let channel = format!("notihub_proof_{first}");
    listener.listen(&channel).await?;
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("notify {channel}"))).execute(&mut *other).await?;
    match tokio::time::timeout(limits::SESSION_PROOF, listener.try_recv()).await {
        Ok(heard) => heard?.map(|_| ()).ok_or_else(|| Error::Unavailable("the connection was lost".into())),
        Err(_) => Err(shared()),
    }
}

fn shared() -> Error {
    Error::Setup(
        "a pooler between notihub and PostgreSQL gives each transaction another server connection (PgBouncer: \
         pool_mode = transaction or statement), so session settings and notifications are lost. Set pool_mode = \
         session for this database, with a pool as large as the sum of the connections of all notihub processes, or \
         use PostgreSQL's own address in --database-url"
            .into(),
    )
}

// ---- discarded sessions

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Microseconds after `START`: sessions opened before then are not used again. For the whole process, because an error
/// does not know its pool; a session that is replaced without need costs one connect.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
/// When and why a new session was last refused.
static UNFIT: Mutex<Option<(Instant, &'static str)>> = Mutex::new(None);
/// How long a refused session explains why no session is available.
const EXPLAINS: Duration = Duration::from_secs(15);

/// Discards every session opened so far: each is closed instead of being used again.
pub fn discard_all() {
    // At least 1: the first call may start the clock, and sessions opened before it are discarded as well.
    GIVEN_UP.store(micros(START.elapsed()).max(1), Ordering::Relaxed);
}

/// Whether a session of this age is discarded.
pub fn is_discarded(age: Duration) -> bool {
    let given_up = GIVEN_UP.load(Ordering::Relaxed);
    given_up > 0 && micros(START.elapsed().saturating_sub(age)) <= given_up
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Accepts or refuses a new session; remembers the reason and logs the first refusal of a series.
///
/// # Errors
/// `sqlx::Error::Configuration` with the reason.
pub fn accept_session(fit: Result<(), &'static str>) -> sqlx::Result<()> {
    let mut unfit = UNFIT.lock().unwrap_or_else(PoisonError::into_inner);
    let Err(why) = fit else {
        unfit.take();
        return Ok(());
    };
    if unfit.is_none_or(|(at, before)| at.elapsed() > EXPLAINS || before != why) {
        tracing::warn!(why, "a new database session was refused as unsuitable; connecting again until one is suitable");
    }
    *unfit = Some((Instant::now(), why));
    Err(sqlx::Error::Configuration(why.into()))
}

/// Why sessions were refused recently, if they were.
pub fn recent_refusal() -> Option<&'static str> {
    let unfit = UNFIT.lock().unwrap_or_else(PoisonError::into_inner);
    unfit.filter(|(at, _)| at.elapsed() < EXPLAINS).map(|(_, why)| why)
}
