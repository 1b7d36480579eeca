//! Connections to a mail server: every address of its name is tried in turn (RFC 5321, 5.1), a connection is kept for the
//! next mail for as long as servers usually keep theirs, and QUIT is said before one is closed.
//!
//! Callers hold a [`Connection`] for one mail at a time. [`Connections::keep`] takes it back for the next; a connection
//! that is dropped instead is closed without a word, which is right for one that is broken.

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

use super::guard::Lookup;
use super::http::cause;
use super::smtp_dialog::{CLOSING, Dialog, Tls, Trouble};

/// Connections kept for the next mail. Servers allow a client few.
const KEPT: usize = 8;
/// How long a connection is kept. Servers close idle ones after a minute or more (Postfix after five).
pub(super) const IDLE: Duration = Duration::from_secs(30);
/// How long a kept connection may take to show that it lives.
const REVIVE: Duration = Duration::from_secs(2);
/// How long the answer to QUIT is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Connect,
    Auth,
    Sender,
    Recipient,
    Data,
    /// The content is being written, or written with its final dot: it may have been taken.
    Content,
}

/// The server, and how it is spoken to.
pub(super) struct Server {
    pub host: String,
    pub port: u16,
    pub cover: Cover,
    pub credentials: Option<Credentials>,
    pub hello: ClientId,
    pub connect_budget: Duration,
    pub lookup: Arc<dyn Lookup>,
}

/// How a connection is encrypted; with no way to end up in the clear where the settings ask for more.
pub(super) enum Cover {
    Starttls(Tls),
    Implicit(Tls),
    None,
}

/// One connection, in use for one mail.
pub(super) struct Connection {
    pub smtp: Dialog,
    /// It carried another mail before.
    pub reused: bool,
    in_use: InUse,
}

/// Counts a connection as being opened for as long as it lives.
struct Opening<'a>(&'a AtomicUsize);

impl Opening<'_> {
    fn new(opening: &AtomicUsize) -> Opening<'_> {
        opening.fetch_add(1, Ordering::Relaxed);
        Opening(opening)
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts a connection as in use for as long as it lives.
struct InUse(Arc<Shared>);

impl InUse {
    fn new(shared: &Arc<Shared>) -> InUse {
        shared.in_use.fetch_add(1, Ordering::Relaxed);
        InUse(shared.clone())
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.in_use.fetch_sub(1, Ordering::Relaxed);
        self.0.freed.notify_one();
    }
}

pub(super) struct Connections(Arc<Shared>);

struct Shared {
    server: Server,
    shutdown: Shutdown,
    idle_for: Duration,
    idle: Mutex<Idle>,
    /// Connections that carry a mail now, or are being closed.
    in_use: AtomicUsize,
    /// Those that are being opened.
    opening: AtomicUsize,
    /// Wakes one call that waits for a connection, each time one is kept or closed.
    freed: Notify,
}

#[derive(Default)]
struct Idle {
    /// A stack: the connection used last is used next, so that surplus ones grow old and are closed.
    kept: Vec<IdleConnection>,
    /// A task closes those that grow old. It runs while there are any.
    watched: bool,
}

struct IdleConnection {
    since: Instant,
    smtp: Dialog,
}

impl Connections {
    /// Connections that are kept for `idle_for`, and closed when `shutdown` stops.
    pub fn new(server: Server, idle_for: Duration, shutdown: Shutdown) -> Connections {
        let (in_use, opening) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let (idle, freed) = (Mutex::default(), Notify::new());
        Connections(Arc::new(Shared { server, shutdown, idle_for, idle, in_use, opening, freed }))
    }

    /// A connection that takes a mail: a kept one, unless `fresh`, or a new one. `stage` says how far it came.
    ///
    /// A server that greets with 421 while others of our connections are in use may have too many of them: then the call
    /// waits for one of these, for half of the time left until `until`.
    pub async fn get(&self, mut fresh: bool, until: Instant, stage: &mut Stage) -> Result<Connection, Trouble> {
        let patience = Instant::now() + left(until) / 2;
        let in_use = || self.0.in_use.load(Ordering::Relaxed) + self.0.opening.load(Ordering::Relaxed) > 0;
        loop {
            let others = in_use();
            if !std::mem::take(&mut fresh)
                && let Some(connection) = self.0.kept().await
            {
                return Ok(connection);
            }
            let full = match self.0.dial(until, stage).await {
                Err(Trouble::Reply { code: CLOSING, text }) if *stage == Stage::Connect => text,
                dialled => return dialled,
            };
            let full = Trouble::Reply { code: CLOSING, text: full };
            let kept = !self.0.idle().kept.is_empty();
            let goes_on = match left(patience) {
                Duration::ZERO => false,
                // One became free meanwhile.
                _ if kept => true,
                patience if in_use() => timeout(patience, self.0.freed.notified()).await.is_ok(),
                _ => others,
            };
            if !goes_on {
                return Err(full);
            }
        }
    }

    /// Keeps a connection for the next mail. One too many, and any while the process stops, is closed with QUIT instead.
    pub fn keep(&self, connection: Connection) {
        let Connection { smtp, in_use, .. } = connection;
        let shared = &self.0;
        let kept = IdleConnection { since: Instant::now(), smtp };
        let (surplus, watch) = {
            let mut idle = shared.idle();
            if shared.shutdown.is_stopping() || idle.kept.len() >= KEPT {
                (Some(kept), false)
            } else {
                idle.kept.push(kept);
                (None, !std::mem::replace(&mut idle.watched, true))
            }
        };
        drop(in_use);
        if let Some(kept) = surplus {
            shared.close(vec![kept]);
        }
        if watch {
            shared.shutdown.spawn(shared.clone().watch());
        }
    }

    /// Closes all kept connections: where one has reached its server's limit, or died, the others are about to.
    pub fn discard(&self) {
        self.0.discard();
    }

    #[cfg(test)]
    pub fn kept(&self) -> usize {
        self.0.idle().kept.len()
    }
}

impl Shared {
    fn idle(&self) -> MutexGuard<'_, Idle> {
        // Nothing that could panic is done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn discard(self: &Arc<Shared>) {
        let kept = std::mem::take(&mut self.idle().kept);
        self.close(kept);
    }

    /// Closes connections with QUIT, beside what else happens. Until then they are in use: the server counts them.
    fn close(self: &Arc<Shared>, connections: Vec<IdleConnection>) {
        for IdleConnection { smtp, .. } in connections {
            let in_use = InUse::new(self);
            self.shutdown.spawn(async move {
                farewell(smtp).await;
                drop(in_use);
            });
        }
    }

    /// A kept connection that still lives. RSET shows it, and clears what a refused mail may have left behind.
    async fn kept(self: &Arc<Shared>) -> Option<Connection> {
        let IdleConnection { since, mut smtp } = self.idle().kept.pop()?;
        let in_use = InUse::new(self);
        let limit = REVIVE.min(self.server.connect_budget);
        if since.elapsed() < self.idle_for && matches!(timeout(limit, smtp.command(Rset)).await, Ok(Ok(_))) {
            return Some(Connection { smtp, reused: true, in_use });
        }
        // The youngest is dead, so the others are: to ask each of them could cost the call's whole time.
        self.discard();
        None
    }

    /// Closes connections that were idle for too long, and all when the process stops.
    async fn watch(self: Arc<Shared>) {
        loop {
            let oldest = {
                let mut idle = self.idle();
                idle.watched = !idle.kept.is_empty();
                idle.kept.iter().map(|kept| kept.since).min()
            };
            let Some(oldest) = oldest else { return };
            self.shutdown.sleep(left(oldest + self.idle_for)).await;
            let stopping = self.shutdown.is_stopping();
            let old = |kept: &mut IdleConnection| stopping || kept.since.elapsed() >= self.idle_for;
            let old: Vec<IdleConnection> = self.idle().kept.extract_if(.., old).collect();
            self.close(old);
        }
    }

    /// A fresh connection, encrypted as the settings demand and signed in: to the first address that takes one. An
    /// address that does not answer leaves the others their share of the time.
    async fn dial(self: &Arc<Shared>, until: Instant, stage: &mut Stage) -> Result<Connection, Trouble> {
        *stage = Stage::Connect;
        let _opening = Opening::new(&self.opening);
        let mut connecting = self.server.connect_budget.min(left(until));
        let addresses = self.addresses(&mut connecting).await?;
        let mut refused = None;
        for (n, address) in addresses.iter().enumerate() {
            let share = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
            let began = Instant::now();
            let limit = connecting / share;
            let opened = timeout(left(until) / share, self.open(*address, limit)).await;
            connecting = connecting.saturating_sub(began.elapsed().min(limit));
            match opened.unwrap_or_else(|_elapsed| Err(Trouble::silence())) {
                Ok(mut smtp) => {
                    if let Some(credentials) = &self.server.credentials {
                        *stage = Stage::Auth;
                        smtp.sign_in(credentials).await?;
                    }
                    return Ok(Connection { smtp, reused: false, in_use: InUse::new(self) });
                }
                // The reply of a server says more than an address that does not answer.
                Err(trouble) if matches!(refused, Some(Trouble::Reply { .. })) => drop(trouble),
                Err(trouble) => refused = Some(trouble),
            }
        }
        Err(refused.unwrap_or_else(|| Trouble::Broken {
            code: "connect_failed",
            detail: "the server's name has no address".to_owned(),
        }))
    }

    async fn addresses(&self, connecting: &mut Duration) -> Result<Vec<SocketAddr>, Trouble> {
        let Server { host, port, lookup, .. } = &self.server;
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, *port)]);
        }
        let began = Instant::now();
        let found = timeout(*connecting, lookup.lookup(host)).await.map_err(|_elapsed| {
            let detail = format!("the server's name was not found within {} ms", connecting.as_millis());
            Trouble::Broken { code: "connect_timeout", detail }
        })??;
        *connecting = connecting.saturating_sub(began.elapsed());
        Ok(found.into_iter().map(|ip| SocketAddr::new(ip, *port)).collect())
    }

    /// From the first packet to EHLO. The socket stands within `limit`, or not at all.
    async fn open(&self, address: SocketAddr, limit: Duration) -> Result<Dialog, Trouble> {
        let connecting = timeout(limit, TcpStream::connect(address)).await;
        let stream = connecting.map_err(|_elapsed| too_late(address, limit))??;
        stream.set_nodelay(true)?;
        let hello = &self.server.hello;
        match &self.server.cover {
            Cover::None => Dialog::begin(stream, None, hello).await,
            Cover::Implicit(tls) => Dialog::begin(stream, Some(tls), hello).await,
            Cover::Starttls(tls) => Dialog::begin(stream, None, hello).await?.starttls(tls, hello).await,
        }
    }
}

fn too_late(address: SocketAddr, limit: Duration) -> Trouble {
    let detail = format!("{address} took no connection within {} ms", limit.as_millis());
    Trouble::Broken { code: "connect_timeout", detail }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Says QUIT and hears the answer, so that the server finds no lost connection; then the connection is closed.
pub(super) async fn farewell(mut smtp: Dialog) {
    // A server that is gone cannot answer.
    let _answered = timeout(FAREWELL, smtp.quit()).await;
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        let code = if error.kind() == io::ErrorKind::TimedOut { "connect_timeout" } else { "connect_failed" };
        Trouble::Broken { code, detail: cause(&error) }
    }
}
