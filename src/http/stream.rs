//! Answers that do not end by themselves, and the two budgets of a server's connections.
//!
//! A connection has a place among the requests from its beginning, and moves to the streams for good once it carries
//! one: streams that last for hours never keep requests out.
//!
//! No handler declares a stream. An answer is one if its length is not known when it begins: it switches protocols
//! (101), or its body has no exact size. A connection ends with the stream it carries. When the process stops, a body
//! ends at once; a switched connection has [`limits::LINGER_STOPPING`] to say goodbye and is cut then, as is a body
//! that its caller does not read. The task that speaks the other protocol is one of [`Shutdown::spawn`]: the process
//! waits for it.

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

/// How many connections a server may have that carry requests, and how many that carry a stream.
#[derive(Clone)]
pub struct ConnectionBudgets {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// A connection's place in one of the budgets, for as long as anything of the connection lives.
pub struct ConnectionSlot {
    permit: Mutex<OwnedSemaphorePermit>,
    stream: OnceLock<Stream>,
    streams: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// What a connection carries in place of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Body,
    /// Another protocol than HTTP.
    Switched,
}

type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ConnectionBudgets {
    pub fn new(requests: usize, streams: usize, shutdown: &Shutdown) -> ConnectionBudgets {
        ConnectionBudgets {
            requests: Arc::new(Semaphore::new(requests)),
            streams: Arc::new(Semaphore::new(streams)),
            shutdown: shutdown.clone(),
        }
    }

    /// Waits for a place for a connection's requests. None once the budgets are closed, which nothing does.
    pub async fn acquire(&self) -> Option<ConnectionSlot> {
        let permit = self.requests.clone().acquire_owned().await.ok()?;
        let (streams, shutdown) = (self.streams.clone(), self.shutdown.clone());
        Some(ConnectionSlot { permit: Mutex::new(permit), stream: OnceLock::new(), streams, shutdown })
    }
}

impl ConnectionSlot {
    /// What the connection carries; none while it carries requests.
    pub fn stream(&self) -> Option<Stream> {
        self.stream.get().copied()
    }

    /// Passes on the answer to a request of this method. If it is a stream, the connection moves to the streams, and
    /// the answer ends when the process stops.
    ///
    /// # Errors
    /// [`Error::Busy`]: the answer is a stream, and there are as many as there may be.
    pub fn admit(&self, method: &Method, response: Response) -> Result<Response, Error> {
        let stream = match response.status() {
            StatusCode::SWITCHING_PROTOCOLS => Stream::Switched,
            _ if *method == Method::HEAD || response.body().size_hint().exact().is_some() => return Ok(response),
            _ => Stream::Body,
        };
        let Ok(permit) = self.streams.clone().try_acquire_owned() else {
            return Err(Error::Busy("there are as many streams as this process may have"));
        };
        *self.permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
        let _once = self.stream.set(stream);
        if stream == Stream::Switched {
            return Ok(response);
        }
        let shutdown = self.shutdown.clone();
        let stopped: Stopped = Box::pin(async move { shutdown.stopping().await });
        let mut response = response.map(|body| Body::new(UntilStop { body, stopped }));
        // Another request on this connection would have the place of a stream.
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        Ok(response)
    }

    /// Resolves when a stream has to be over.
    pub fn stream_deadline(&self) -> Stopped {
        let shutdown = self.shutdown.clone();
        Box::pin(async move {
            shutdown.stopping().await;
            sleep(limits::LINGER_STOPPING).await;
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
        // Not asked again after its end.
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.body).poll_frame(cx)
    }
}
