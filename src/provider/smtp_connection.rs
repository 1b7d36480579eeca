//! The pool of connections to a mail server. A new connection tries every address of the server's name in turn (RFC
//! 5321, 5.1). An idle connection is kept for the next mail for `IDLE_TIMEOUT`, and closed with QUIT.
//!
//! A caller holds a [`Connection`] for one mail at a time. [`ConnectionPool::release`] takes it back for the next mail;
//! a connection that is dropped instead is closed without QUIT, which is right for a broken one.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::commands::Rset;
use lettre::transport::smtp::extension::ClientId;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::shutdown::Shutdown;

use super::guard::NameResolver;
use super::http::root_cause;
use super::smtp_session::{SERVICE_CLOSING, SmtpFailure, SmtpSession, TlsTarget};

/// The most idle connections. Servers allow a client few.
const MAX_IDLE: usize = 8;
/// How long an idle connection is kept. Servers close idle ones after a minute or more (Postfix after five).
pub(super) const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The time limit for the RSET that checks an idle connection.
const RSET_TIMEOUT: Duration = Duration::from_secs(2);
/// The time limit for the reply to QUIT.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The step of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Connect,
    Auth,
    Sender,
    Recipient,
    Data,
    /// The content was written with its final dot: the server may have accepted the mail.
    Content,
}

/// The server, and how to connect to it.
pub(super) struct Server {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    pub credentials: Option<Credentials>,
    pub ehlo_name: ClientId,
    pub connect_budget: Duration,
    pub resolver: Arc<dyn NameResolver>,
}

/// How connections are encrypted. There is no fallback to plain text.
pub(super) enum Encryption {
    Starttls(TlsTarget),
    Implicit(TlsTarget),
    None,
}

/// A connection in use for one mail.
pub(super) struct Connection {
    pub session: SmtpSession,
    /// The connection carried another mail before.
    pub reused: bool,
    in_use: InUseGuard,
}

/// Counts a connection as being opened until it is dropped.
struct OpeningGuard<'a>(&'a AtomicUsize);

impl OpeningGuard<'_> {
    fn new(opening: &AtomicUsize) -> OpeningGuard<'_> {
        opening.fetch_add(1, Ordering::Relaxed);
        OpeningGuard(opening)
    }
}

impl Drop for OpeningGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as in use until it is dropped.
struct InUseGuard(Arc<Shared>);

impl InUseGuard {
    fn new(shared: &Arc<Shared>) -> InUseGuard {
        shared.in_use.fetch_add(1, Ordering::Relaxed);
        InUseGuard(shared.clone())
    }
}

impl Drop for InUseGuard {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

/// The pool. Its methods may be called concurrently.
pub(super) struct ConnectionPool(Arc<Shared>);

struct Shared {
    server: Server,
    shutdown: Shutdown,
    idle_timeout: Duration,
    idle: Mutex<IdleConnections>,
    /// Connections that carry a mail now, or are being closed.
    in_use: AtomicUsize,
    /// Connections that are being opened.
    opening: AtomicUsize,
    /// Wakes one call that waits for a connection, each time one is released or closed.
    freed: Notify,
}

#[derive(Default)]
struct IdleConnections {
    /// A stack: the connection used last is reused first, so that surplus ones reach their timeout.
    stack: Vec<IdleConnection>,
    /// The task `close_old` runs. It ends when there are no idle connections.
    has_closer: bool,
}

struct IdleConnection {
    since: Instant,
    session: SmtpSession,
}

impl ConnectionPool {
    /// Makes an empty pool. Idle connections are closed after `idle_timeout`, and when `shutdown` stops.
    pub fn new(server: Server, idle_timeout: Duration, shutdown: Shutdown) -> ConnectionPool {
        let (in_use, opening) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (idle, freed) = (Mutex::default(), Notify::new());
        ConnectionPool(Arc::new(Shared { server, shutdown, idle_timeout, idle, in_use, opening, freed }))
    }

    /// Returns a connection that is ready for MAIL: an idle one, unless `fresh`, or else a new one. `stage` is set to
    /// the step that was reached.
    ///
    /// If the server greets with 421 while other connections of this pool are in use, it may have too many of them:
    /// then the call waits for one to become free, for half of the time left until `until`.
    ///
    /// # Errors
    /// [`SmtpFailure`]: no connection could be opened. No mail was sent.
    pub async fn get(&self, mut fresh: bool, until: Instant, stage: &mut Stage) -> Result<Connection, SmtpFailure> {
        let waiting_until = Instant::now() + time_left(until) / 2;
        let in_use = || self.0.in_use.load(Ordering::Relaxed) + self.0.opening.load(Ordering::Relaxed) > 0;
        loop {
            let in_use_before = in_use();
            if !std::mem::take(&mut fresh)
                && let Some(connection) = self.0.reuse_idle().await
            {
                return Ok(connection);
            }
            let refusal = match self.0.connect(until, stage).await {
                Err(SmtpFailure::ErrorReply { code: SERVICE_CLOSING, text }) if *stage == Stage::Connect => text,
                connected => return connected,
            };
            let refusal = SmtpFailure::ErrorReply { code: SERVICE_CLOSING, text: refusal };
            let has_idle = !self.0.idle().stack.is_empty();
            let try_again = match time_left(waiting_until) {
                Duration::ZERO => false,
                // A connection became idle meanwhile.
                _ if has_idle => true,
                time_left if in_use() => timeout(time_left, self.0.freed.notified()).await.is_ok(),
                _ => in_use_before,
            };
            if !try_again {
                return Err(refusal);
            }
        }
    }

    /// Keeps a connection idle for the next mail. If there are `MAX_IDLE` already, or the process stops, closes it with
    /// QUIT.
    pub fn release(&self, connection: Connection) {
        let Connection { session, in_use, .. } = connection;
        let shared = &self.0;
        let idle_connection = IdleConnection { since: Instant::now(), session };
        let (surplus_connection, start_closer) = {
            let mut idle = shared.idle();
            if shared.shutdown.is_stopping() || idle.stack.len() >= MAX_IDLE {
                (Some(idle_connection), false)
            } else {
                idle.stack.push(idle_connection);
                (None, !std::mem::replace(&mut idle.has_closer, true))
            }
        };
        drop(in_use);
        if let Some(idle_connection) = surplus_connection {
            shared.close(vec![idle_connection]);
        }
        if start_closer {
            shared.shutdown.spawn(shared.clone().close_old());
        }
    }

    /// Closes all idle connections. Call it when one was closed by the server: the others are about to reach the same
    /// limit.
    pub fn close_idle(&self) {
        self.0.close_idle();
    }

    #[cfg(test)]
    /// Returns the number of idle connections.
    pub fn idle_count(&self) -> usize {
        self.0.idle().stack.len()
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, IdleConnections> {
        // No code that can panic runs under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_idle(self: &Arc<Shared>) {
        let idle_connections = std::mem::take(&mut self.idle().stack);
        self.close(idle_connections);
    }

    /// Closes connections with QUIT, in tasks of their own. Until then they count as in use, as they do for the server.
    fn close(self: &Arc<Shared>, connections: Vec<IdleConnection>) {
        for IdleConnection { session, .. } in connections {
            let in_use = InUseGuard::new(self);
            self.shutdown.spawn(async move {
                quit(session).await;
                drop(in_use);
            });
        }
    }

    /// Returns an idle connection that still works. RSET checks that, and clears the rest of a refused mail.
    async fn reuse_idle(self: &Arc<Shared>) -> Option<Connection> {
        let IdleConnection { since, mut session } = self.idle().stack.pop()?;
        let in_use = InUseGuard::new(self);
        let limit = RSET_TIMEOUT.min(self.server.connect_budget);
        if since.elapsed() < self.idle_timeout && matches!(timeout(limit, session.command(Rset)).await, Ok(Ok(_))) {
            return Some(Connection { session, reused: true, in_use });
        }
        // This was the youngest, so the others are dead as well; checking each could take the call's whole time.
        self.close_idle();
        None
    }

    /// Closes connections that were idle for too long, and all of them when the process stops.
    async fn close_old(self: Arc<Shared>) {
        loop {
            let oldest = {
                let mut idle = self.idle();
                idle.has_closer = !idle.stack.is_empty();
                idle.stack.iter().map(|idle_connection| idle_connection.since).min()
            };
            let Some(oldest) = oldest else { return };
            self.shutdown.sleep(time_left(oldest + self.idle_timeout)).await;
            let stopping = self.shutdown.is_stopping();
            let is_old =
                |idle_connection: &mut IdleConnection| stopping || idle_connection.since.elapsed() >= self.idle_timeout;
            let old: Vec<IdleConnection> = self.idle().stack.extract_if(.., is_old).collect();
            self.close(old);
        }
    }

    /// Opens a new connection to the first address that accepts one, encrypted and authenticated as the settings say.
    /// Each address gets its share of the time left.
    async fn connect(self: &Arc<Shared>, until: Instant, stage: &mut Stage) -> Result<Connection, SmtpFailure> {
        *stage = Stage::Connect;
        let _opening = OpeningGuard::new(&self.opening);
        let mut connecting = self.server.connect_budget.min(time_left(until));
        let addresses = self.addresses(&mut connecting).await?;
        let mut reported_failure = None;
        for (n, address) in addresses.iter().enumerate() {
            let addresses_left = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let began = Instant::now();
            let limit = connecting / addresses_left;
            let result = timeout(time_left(until) / addresses_left, self.open_session(*address, limit)).await;
            connecting = connecting.saturating_sub(began.elapsed().min(limit));
            match result.unwrap_or_else(|_elapsed| Err(SmtpFailure::timed_out())) {
                Ok(mut session) => {
                    if let Some(credentials) = &self.server.credentials {
                        *stage = Stage::Auth;
                        session.authenticate(credentials).await?;
                    }
                    return Ok(Connection { session, reused: false, in_use: InUseGuard::new(self) });
                }
                // A server's reply says more than a failure to connect to another address.
                Err(failure) if matches!(reported_failure, Some(SmtpFailure::ErrorReply { .. })) => drop(failure),
                Err(failure) => reported_failure = Some(failure),
            }
        }
        Err(reported_failure.unwrap_or_else(|| SmtpFailure::Broken {
            code: "connect_failed",
            detail: "the server's name has no address".to_owned(),
        }))
    }

    async fn addresses(&self, connecting: &mut Duration) -> Result<Vec<SocketAddr>, SmtpFailure> {
        let Server { host, port, resolver, .. } = &self.server;
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, *port)]);
        }
        let began = Instant::now();
        let found = timeout(*connecting, resolver.resolve(host)).await.map_err(|_elapsed| {
            let detail = format!("the server's name was not resolved within {} ms", connecting.as_millis());
            SmtpFailure::Broken { code: "connect_timeout", detail }
        })??;
        *connecting = connecting.saturating_sub(began.elapsed());
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
    }

    /// Connects to one address within `limit`, and starts the session up to EHLO, with TLS as the settings say.
    async fn open_session(&self, address: SocketAddr, limit: Duration) -> Result<SmtpSession, SmtpFailure> {
        let connecting = timeout(limit, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_elapsed| connect_timeout(address, limit))??;
        stream.set_nodelay(true)?;
        let ehlo_name = &self.server.ehlo_name;
        match &self.server.encryption {
            Encryption::None => SmtpSession::open(stream, None, ehlo_name).await,
            Encryption::Implicit(tls) => SmtpSession::open(stream, Some(tls), ehlo_name).await,
            Encryption::Starttls(tls) => {
                SmtpSession::open(stream, None, ehlo_name).await?.starttls(tls, ehlo_name).await
            }
        }
    }
}

fn connect_timeout(address: SocketAddr, limit: Duration) -> SmtpFailure {
    let detail = format!("{address} accepted no connection within {} ms", limit.as_millis());
    SmtpFailure::Broken { code: "connect_timeout", detail }
}

fn time_left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Sends QUIT and waits for the reply, so that the server logs no lost connection; then closes the connection.
pub(super) async fn quit(mut session: SmtpSession) {
    // A missing reply does not matter.
    let _answered = timeout(QUIT_TIMEOUT, session.quit()).await;
}

impl From<io::Error> for SmtpFailure {
    fn from(error: io::Error) -> SmtpFailure {
        let code = if error.kind() == io::ErrorKind::TimedOut { "connect_timeout" } else { "connect_failed" };
        SmtpFailure::Broken { code, detail: root_cause(&error) }
    }
}
