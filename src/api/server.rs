//! Serves the router over HTTP/1.1: slow heads are cut off, connections are bounded, and a stop lets requests finish.

use std::sync::Arc;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::Layer as _;

use super::auth::Peer;
use crate::limits;
use crate::shutdown::Shutdown;

/// More connections than this wait to be accepted.
const CONNECTIONS: usize = 8_192;

/// Starts serving; ends when the shutdown says stop and the last request is answered.
pub fn start(listener: TcpListener, router: Router, shutdown: &Shutdown) {
    let accept = serve(listener, router, shutdown.clone());
    shutdown.spawn(accept);
}

async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let (stream, from) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => (stream, from),
                Err(e) => {
                    // Out of file descriptors, or the peer went away: neither ends the server.
                    tracing::debug!(error = %e, "a connection could not be accepted");
                    shutdown.sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = shutdown.stopping() => return,
        };
        // Answers are small and somebody waits for each.
        let _best_effort = stream.set_nodelay(true);
        let service = TowerToHyperService::new(Extension(Peer(from.ip())).layer(router.clone()));
        let stopping = shutdown.clone();
        shutdown.spawn(async move {
            let _permit = permit;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limits::HEAD_TIMEOUT)
                .max_buf_size(64 << 10)
                .serve_connection(TokioIo::new(stream), service);
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
