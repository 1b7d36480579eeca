//! Streams (answers without a known end), and the two budgets for a server's connections.
//!
//! A connection begins in the budget for requests and moves to the budget for streams once it carries a stream, so that
//! streams that last for hours do not keep requests out.
//!
//! Handlers do not declare streams. An answer is a stream if its length is unknown when it begins: it switches
//! protocols (101), or its body has no exact size. The connection ends with its stream. When the process stops, a body
//! ends at once; a connection with another protocol has [`limits::LINGER_STOPPING`] to close in order and is then cut,
//! as is a body that its caller does not read. The task that serves the other protocol is spawned with
//! [`Shutdown::spawn`], and the process waits for it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use hyper::body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;

use crate::error::Error;
use crate::limits;
use crate::shutdown::Shutdown;

/// The budgets of a server: connections with requests, and connections with a stream.
#[derive(Clone)]
pub struct ConnectionBudgets {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// A connection's slot in one of the budgets. Dropping it frees the slot.
pub struct ConnectionSlot {
    permit: Mutex<OwnedSemaphorePermit>,
    stream: OnceLock<Stream>,
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// The kind of stream that a connection carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// A response body without a known length.
    Body,
    /// A protocol other than HTTP.
    Switched,
}

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ConnectionBudgets {
    /// Budgets for `requests` connections with requests and `streams` connections with a stream. Streams end when
    /// `shutdown` stops.
    pub fn new(requests: usize, streams: usize, shutdown: &Shutdown) -> ConnectionBudgets {
        ConnectionBudgets {
            requests: Arc::new(Semaphore::new(requests)),
            streams: Arc::new(Semaphore::new(streams)),
            shutdown: shutdown.clone(),
        }
    }

    /// Waits for a free slot among the connections with requests. None if the budgets are closed, which does not
    /// happen.
    pub async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = self.requests.clone().acquire_owned().await.ok()?;
        let (streams, shutdown) = (self.streams.clone(), self.shutdown.clone());
        Some(ConnectionSlot { permit: Mutex::new(permit), stream: OnceLock::new(), streams, shutdown })
    }
}

impl ConnectionSlot {
    /// The stream that the connection carries; none while it carries requests.
    pub fn stream(&self) -> Option<Stream> {
        self.stream.get().copied()
    }

    /// Admits the answer to a request with this method. If it is a stream, the connection moves to the budget for
    /// streams, the answer ends when the process stops, and the connection closes after it.
    ///
    /// # Errors
    /// [`Error::Busy`] if the answer is a stream and the budget for streams is used up.
    pub fn admit(&self, method: &Method, response: Response) -> Result<Response, Error> {
        let stream = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Stream::Switched,
            _ if *method == Method::HEAD || response.body().size_hint().exact().is_some() => return Ok(response),
            _ => Stream::Body,
        };
        let Ok(permit) = self.streams.clone().try_acquire_owned() else {
            return Err(Error::Busy(
                "this process has reached its limit of streams (`--live-connections`); try again later",
            ));
        };
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
        let _once = self.stream.set(stream);
        if stream == Stream::Switched {
            return Ok(response);
        }
        let shutdown = self.shutdown.clone();
        let stopped: Stopped = Box::pin(async move { shutdown.stopping().await });
        let mut response = response.map(|body| Body::new(UntilStop { body, stopped }));
        // A further request on this connection would use the slot of a stream.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(response)
    }

    /// Resolves when a stream must have ended: [`limits::LINGER_STOPPING`] after the process began to stop.
    pub fn stream_deadline(&self) -> Stopped {
        let shutdown = self.shutdown.clone();
        let within = match self.stream() {
            // It ends by itself, with a close that names the reason.
            Some(Stream::Switched) => limits::SOCKETS_END_OVER + limits::LINGER_STOPPING,
            _ => limits::LINGER_STOPPING,
        };
        Box::pin(async move {
            shutdown.stopping().await;
            sleep(within).await;
        })
    }
}

/// A body that ends when the process stops.
struct UntilStop {
    body: Body,
    stopped: Stopped,
}

impl HttpBody for UntilStop {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        // A body is not polled again after its end.
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }
}
