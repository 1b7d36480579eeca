//! An HTTP/1.1 server for untrusted callers. It disconnects slow senders and slow readers, limits connections in total
//! and by network, refuses ambiguous requests (see `framing`), and on a stop lets requests finish and ends streams.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::Method;
use axum::response::Response;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tower::Layer as _;

use super::stream::{ConnectionBudgets, ConnectionSlot};
use super::wire::CallerStream;
use crate::error::Error;
use crate::limits;
use crate::model::network;
use crate::shutdown::Shutdown;

/// The limits of one server.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections from one network without a sign-in. None: no limit, for servers behind a proxy, whose address all
    /// callers share.
    pub unauthenticated_per_network: Option<usize>,
    /// Connections that carry requests; further ones wait.
    pub connections: usize,
    /// Connections that carry a stream; further streams are refused.
    pub streams: usize,
    /// How long a caller may read nothing before its connection is cut.
    pub write_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> ServerLimits {
        ServerLimits {
            unauthenticated_per_network: Some(limits::STRANGERS_OF_ADDRESS),
            connections: limits::CONNECTIONS,
            streams: usize::try_from(limits::STREAMS).unwrap_or(usize::MAX),
            write_timeout: limits::WRITE_TIMEOUT,
        }
    }
}

/// The caller's side of a connection. Each request of the connection carries it as an extension.
#[derive(Clone)]
pub struct Peer {
    pub address: IpAddr,
    unauthenticated: Option<Arc<UnauthenticatedConnection>>,
    place: Arc<ConnectionSlot>,
}

impl Peer {
    /// Passes an answer on as [`ConnectionSlot::admit`] does. A stream has to pass through here: otherwise it keeps a
    /// request's slot and does not end when the process stops, and a switched protocol is cut off by the time-outs of
    /// requests.
    ///
    /// # Errors
    /// [`Error::Busy`]: the answer is a stream, and there are as many as there may be.
    pub fn admit(&self, method: &Method, response: Response) -> Result<Response, Error> {
        self.place.admit(method, response)
    }

    /// Notes a sign-in on this connection: it no longer counts against its network's limit.
    pub fn signed_in(&self) {
        if let Some(stranger) = &self.unauthenticated {
            stranger.leave();
        }
    }
}

/// The number of connections without a sign-in, by network.
#[derive(Default)]
struct UnauthenticatedConnections(Mutex<HashMap<IpAddr, usize>>);

/// One connection that is counted until a sign-in on it, or until it ends.
struct UnauthenticatedConnection {
    all: Arc<UnauthenticatedConnections>,
    network: IpAddr,
    counted: AtomicBool,
}

impl UnauthenticatedConnections {
    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a connection. None if its network already has `most`.
    fn enter(
        self: &Arc<UnauthenticatedConnections>,
        address: IpAddr,
        most: usize,
    ) -> Option<UnauthenticatedConnection> {
        let network = network::of(address);
        let mut counts = self.counts();
        let count = counts.entry(network).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(UnauthenticatedConnection { all: self.clone(), network, counted: AtomicBool::new(true) })
    }
}

impl UnauthenticatedConnection {
    fn leave(&self) {
        // Called for every signed-in request; the load avoids a write in all but the first.
        if !self.counted.load(Ordering::Relaxed) || !self.counted.swap(false, Ordering::Relaxed) {
            return;
        }
        let mut counts = self.all.counts();
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

impl Drop for UnauthenticatedConnection {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Serves `router` on `listener` with the default limits, in a task of `shutdown`. On a stop it accepts no more
/// connections and ends when the last request is answered.
pub fn start(listener: TcpListener, router: Router, shutdown: &Shutdown) {
    start_with(ServerLimits::default(), listener, router, shutdown);
}

/// Serves like [`start`], with the given limits.
pub fn start_with(allowance: ServerLimits, listener: TcpListener, router: Router, shutdown: &Shutdown) {
    let accept = serve(listener, router, allowance, shutdown.clone());
    shutdown.spawn(accept);
}

async fn serve(listener: TcpListener, router: Router, allowance: ServerLimits, shutdown: Shutdown) {
    let budgets = ConnectionBudgets::new(allowance.connections, allowance.streams, &shutdown);
    let strangers = Arc::new(UnauthenticatedConnections::default());
    loop {
        let Some(place) = budgets.acquire().await else { return };
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => (stream, from.ip().to_canonical()),
                Err(e) => {
                    // Out of file descriptors, or the peer disconnected: neither ends the server.
                    tracing::debug!(error = %e, "a connection could not be accepted");
                    shutdown.sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.stopping() => return,
        };
        let stranger = match allowance.unauthenticated_per_network {
            None => None,
            Some(most) => match strangers.enter(from, most) {
                Some(stranger) => Some(Arc::new(stranger)),
                None => {
                    refuse_connection(&stream, from, most);
                    continue;
                }
            },
        };
        // Answers are small and must not wait for further data (Nagle).
        let _best_effort = stream.set_nodelay(true);
        let place = Arc::new(place);
        let peer = Peer { address: from, unauthenticated: stranger, place: place.clone() };
        let service = TowerToHyperService::new(Extension(peer).layer(router.clone()));
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let wire = CallerStream::new(stream, place, allowance.write_timeout, stopping.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEAD_TIMEOUT)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(wire), service)
                .with_upgrades();
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopping.stopping() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(e) = ended {
                tracing::trace!(error = %e, "a connection ended early");
            }
        });
    }
}

/// Writes a 429 into the empty send buffer of a new connection, without waiting for the caller.
fn refuse_connection(stream: &TcpStream, from: IpAddr, most: usize) {
    let why = format!("{most} connections from this address wait for a sign-in; close some, or send a token on them\n");
    let head = "HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nRetry-After: 10\r\nContent-Type: text/plain\r\n";
    let answer = format!("{head}Content-Length: {}\r\n\r\n{why}", why.len());
    let _best_effort = stream.try_write(answer.as_bytes());
    tracing::debug!(%from, most, "a connection was refused: too many from its network have no sign-in");
}
