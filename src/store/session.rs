//! Sessions with PostgreSQL: which server they are made with, which settings they have, and the proof that they can do
//! what the process needs. A session that cannot is closed, and the next one is made anew.
//!
//! Settings are set by statement after connecting, never by startup parameters: poolers such as PgBouncer refuse those.

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
    /// Reads alone, so that a hot standby will do.
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
                    "target_session_attrs in the database URL is none of any, read-write, read-only, primary, standby and \
                     prefer-standby"
                        .into(),
                ));
            }
        })
    }
}

/// How a server answered a new session.
#[derive(Debug, Clone, Copy)]
pub struct SessionCheck {
    /// A hot standby, or a server that recovers.
    pub in_recovery: bool,
    /// Transactions are read-only unless they ask otherwise: on a standby, and by `default_transaction_read_only`.
    pub read_only: bool,
}

/// The servers that a database URL names, in its order, and what a session with one of them must be good for.
#[derive(Debug, Clone)]
pub struct Servers {
    hosts: Vec<PgConnectOptions>,
    target: Target,
    purpose: Purpose,
    /// Longest that connecting to one server may take before the next is tried.
    pub connect_timeout: Duration,
}

impl Servers {
    /// Reads `postgres://user:password@host1:port1,host2:port2/database?parameters`, with libpq's lists of hosts and ports
    /// (also as parameters `host` and `port`), `target_session_attrs` and `connect_timeout`.
    ///
    /// # Errors
    /// `Error::Setup` without any part of the URL, which may hold a password.
    pub fn read(url: &str, purpose: Purpose) -> Result<Servers> {
        let unreadable = || {
            Error::Usage(
                "the database URL (database-url or migrate-database-url) cannot be read; write it as \
                 postgres://user:password@host:port/database, special characters %-encoded. Several servers are separated by commas: host1:port1,host2:port2"
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
            return Err(Error::Usage("the database URL lists hosts and ports of different numbers".into()));
        }
        named.resize(count, named.first().copied().unwrap_or_default());
        let read = |(n, at): (usize, &&str)| {
            let own = [of(&hosts, n), of(&ports, n)].into_iter().flatten();
            let query = kept.iter().cloned().chain(own).collect::<Vec<_>>().join("&");
            // Its own error may quote a part of the URL.
            let options = PgConnectOptions::from_str(&format!("{scheme}://{user}{at}{path}?{query}"));
            Ok(options.map_err(|_| unreadable())?.application_name("notihub").extra_float_digits(None))
        };
        let hosts = named.iter().enumerate().map(read).collect::<Result<Vec<_>>>()?;
        if purpose == Purpose::Write && matches!(target, Target::ReadOnly | Target::Standby) {
            return Err(Error::Usage(
                "target_session_attrs in the database URL asks for a server that takes no writes, and this command has to \
                 write: give read-write, or leave it out"
                    .into(),
            ));
        }
        Ok(Servers { hosts, target, purpose, connect_timeout })
    }

    /// The same with these options in every session.
    pub fn with(mut self, change: impl Fn(PgConnectOptions) -> PgConnectOptions) -> Servers {
        self.hosts = self.hosts.into_iter().map(change).collect();
        self
    }

    pub fn host(&self, n: usize) -> &PgConnectOptions {
        &self.hosts[n]
    }

    pub fn several(&self) -> bool {
        self.hosts.len() > 1
    }

    /// Connects to the first server, in the order of the URL, that answers within the connect time-out and is fit.
    ///
    /// # Errors
    /// `Error::Unavailable` names each server and why it will not do.
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
        // With one server its own error is the whole of it.
        if !self.several()
            && let Some((_, e)) = refused.pop()
        {
            return Err(e);
        }
        let refused = refused.into_iter().map(|(options, e)| match e {
            Error::Unavailable(why) => format!("{}: {why}", name(options)),
            e => format!("{}: {e}", name(options)),
        });
        let refused: Vec<String> = refused.collect();
        Err(Error::Unavailable(format!("no server of the database URL will do: {}", refused.join("; ")).into()))
    }

    async fn try_host(&self, options: &PgConnectOptions, target: Target) -> Result<Conn> {
        let connect = async {
            let mut conn = options.connect().await?;
            let standing = standing(&mut conn).await?;
            Ok::<_, sqlx::Error>((conn, standing))
        };
        let late = || Error::Unavailable(format!("no answer within {} s", self.connect_timeout.as_secs()).into());
        let (conn, standing) = tokio::time::timeout(self.connect_timeout, connect).await.map_err(|_| late())??;
        fit(self.purpose, target, standing).map_err(|why| Error::Unavailable(why.into()))?;
        Ok(conn)
    }

    /// Why a session with this answer will not do.
    pub fn fit(&self, standing: SessionCheck) -> Result<(), &'static str> {
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

/// `host:port`, or the folder of its socket.
fn name(options: &PgConnectOptions) -> String {
    let host = options.get_socket().map_or(options.get_host().to_owned(), |folder| folder.display().to_string());
    format!("{host}:{}", options.get_port())
}

const STANDING: &str = "select pg_is_in_recovery(), current_setting('transaction_read_only')::bool";

fn read_standing(row: &sqlx::postgres::PgRow) -> sqlx::Result<SessionCheck> {
    Ok(SessionCheck { in_recovery: row.try_get(0)?, read_only: row.try_get(1)? })
}

/// Asks a session what its server is. One round trip.
pub async fn standing(conn: &mut Conn) -> sqlx::Result<SessionCheck> {
    read_standing(&sqlx::raw_sql(STANDING).fetch_one(conn).await?)
}

/// Gives a new session its settings, and asks what its server is. One round trip.
pub async fn prepare(conn: &mut Conn, statements: &str) -> sqlx::Result<SessionCheck> {
    let sql = sqlx::AssertSqlSafe(format!("{statements}{STANDING}"));
    read_standing(&sqlx::raw_sql(sql).fetch_one(conn).await?)
}

/// Whether sessions are sessions. A pooler that hands each transaction to another server connection (PgBouncer's
/// `pool_mode = transaction` or `statement`) loses settings and notices. Two sessions on one backend prove such a
/// pooler; so does a session that does not hear its own channel, which no such pooler can hide. Sets nothing: a setting would
/// stay behind in a connection that belongs to others.
///
/// # Errors
/// `Error::Setup` with the remedy. `Error::Unavailable` when the database does not answer.
pub async fn prove_own(options: &PgConnectOptions) -> Result<()> {
    let pool = PgPoolOptions::new().max_connections(2).acquire_timeout(limits::SESSION_PROOF);
    let pool = pool.connect_lazy_with(options.clone());
    let proven = tokio::time::timeout(3 * limits::SESSION_PROOF, own(&pool)).await;
    let late = || Error::Unavailable(format!("no answer within {} s", 3 * limits::SESSION_PROOF.as_secs()).into());
    let proven = proven.unwrap_or_else(|_| Err(late()));
    // Bounded: behind a pooler that is out of connections it would wait for one.
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
                "the database gives one session and then no second one: raise max_connections, or a pooler's pool size, \
                 above the connections of all notihub processes together"
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
        // A standby cannot be listened to.
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
        "between notihub and PostgreSQL stands a pooler that gives each transaction another server connection (PgBouncer: \
         pool_mode = transaction or statement), so session settings are lost and LISTEN hears nothing. Set pool_mode = \
         session for this database, with a pool as large as the connections of all notihub processes together, or name \
         PostgreSQL itself in --database-url"
            .into(),
    )
}

// ---- sessions that are to be given up

static START: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Microseconds after `START`: sessions made before then are not used again. For the whole process, because an error does
/// not know its pool; a session that is made anew without need costs one connect.
static GIVEN_UP: AtomicU64 = AtomicU64::new(0);
/// When and why a new session was last refused.
static UNFIT: Mutex<Option<(Instant, &'static str)>> = Mutex::new(None);
/// How long a refused session explains that there is none.
const EXPLAINS: Duration = Duration::from_secs(15);

/// Gives up every session made so far: each is closed instead of being used again.
pub fn give_up_all() {
    // At least 1: the first call may start the count, and sessions made before it are given up as well.
    GIVEN_UP.store(micros(START.elapsed()).max(1), Ordering::Relaxed);
}

/// Whether a session of this age was given up.
pub fn is_given_up(age: Duration) -> bool {
    let given_up = GIVEN_UP.load(Ordering::Relaxed);
    given_up > 0 && micros(START.elapsed().saturating_sub(age)) <= given_up
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Accepts a new session that is fit, or refuses it; remembers why, and logs the first refusal of a series.
pub fn accept(fit: Result<(), &'static str>) -> sqlx::Result<()> {
    let mut unfit = UNFIT.lock().unwrap_or_else(PoisonError::into_inner);
    let Err(why) = fit else {
        unfit.take();
        return Ok(());
    };
    if unfit.is_none_or(|(at, before)| at.elapsed() > EXPLAINS || before != why) {
        tracing::warn!(why, "a new database session will not do; others are tried until one will");
    }
    *unfit = Some((Instant::now(), why));
    Err(sqlx::Error::Configuration(why.into()))
}

/// Why no session could be had just now, when sessions were refused.
pub fn why_none() -> Option<&'static str> {
    let unfit = UNFIT.lock().unwrap_or_else(PoisonError::into_inner);
    unfit.filter(|(at, _)| at.elapsed() < EXPLAINS).map(|(_, why)| why)
}
