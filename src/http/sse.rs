//! Server-Sent Events: the frames, and the answer that carries them. A comment goes out where nothing else does, so
//! that proxies keep the connection open and a peer that is gone is noticed. A reader that is too slow is ended by its
//! source.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::time::{Instant, sleep_until, timeout};

use crate::limits;

/// Frames of a stream of events.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Frames(String);

impl Frames {
    /// Adds an event. `id`: the position from which a client that has it resumes; without one the client keeps the one
    /// before. `data` is written as JSON, on one line.
    pub fn event(&mut self, name: &str, id: Option<&str>, data: &impl Serialize) {
        // Serialising shapes of texts and numbers cannot fail.
        self.json(name, id, &serde_json::to_string(data).unwrap_or_default());
    }

    /// Adds an event whose data is JSON already, on one line.
    pub fn json(&mut self, name: &str, id: Option<&str>, data: &str) {
        let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
        self.0 += &format!("event: {name}\n{id}data: {data}\n\n");
    }

    /// Whether there is no frame.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Where the frames of a stream come from.
pub trait Source: Send + 'static {
    /// Waits for the next frames. None: the stream ends. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Frames>> + Send;
}

/// An answer with `first` and then what `source` brings. It ends with the source; at `until`, if it is given, with the
/// event `expired`.
pub fn respond(first: Frames, source: impl Source, until: Option<Duration>) -> Response {
    // Clients that lost their connection together do not come back together.
    let retry = 3_000 + rand::random::<u32>() % 3_000;
    let first = Frames(format!("retry: {retry}\n\n{}", first.0));
    let until = until.map(|until| Instant::now() + until);
    let frames = stream::unfold((Some(first), Some(source), until), |(first, source, until)| async move {
        if let Some(first) = first {
            return Some((first, (None, source, until)));
        }
        let mut source = source?;
        let ended = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            next = timeout(limits::STREAM_HEARTBEAT, source.next()) => next,
            () = ended => {
                let mut last = Frames::default();
                last.event("expired", None, &serde_json::json!({}));
                return Some((last, (None, None, None)));
            }
        };
        match next {
            Ok(None) => None,
            Ok(Some(frames)) => Some((frames, (None, Some(source), until))),
            Err(_quiet) => Some((Frames(":\n\n".to_owned()), (None, Some(source), until))),
        }
    });
    let body =
        Body::from_stream(futures_util::StreamExt::map(frames, |Frames(text)| Ok::<_, Infallible>(Bytes::from(text))));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        // nginx collects answers otherwise.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    (headers, body).into_response()
}
