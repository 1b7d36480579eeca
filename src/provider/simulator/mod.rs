//! Simulators of vendors: real servers on loopback that check an adapter's requests as the vendor would, record the
//! accepted messages, and fail on demand as vendors fail. Their state is in memory only.
//!
//! Each has a [`Control`]: the accepted messages, and a script of behaviours for the next ones. Code in the same
//! process uses it through the simulator; other programs use HTTP: `GET /_records` returns a JSON array in order of
//! arrival, `POST /_script` `{"do": "fail", "status": 503, "text": "…", "times": 3}` appends to the script, `DELETE
//! /_script` empties it.

pub mod gateway;
pub mod kakaotalk;
pub mod magic;
pub mod nhn;
pub mod slack;
pub mod sms;
pub mod smtp;
pub mod solapi;
pub mod talktalk;
pub mod vendor;

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::shutdown::Shutdown;

/// The oldest records are dropped beyond this many, or beyond this many bytes of text.
const MAX_RECORDS: usize = 200_000;
const RECORDED_BYTES: usize = 256 << 20;
const BODY_BYTES: usize = 1 << 20;
const MAX_CONNECTIONS: usize = 1024;
const MAX_SCRIPT_ENTRIES: usize = 1000;

/// How a simulator treats a valid request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Accept it.
    Ok,
    /// Refuse it with an HTTP status or an SMTP reply code, and the vendor's error word.
    Fail { status: u16, text: String },
    /// Accept it and never answer.
    Hang,
    /// Refuse it as too fast: to be repeated after this many seconds.
    Limit { retry_after: u32 },
    /// Accept it and close the connection instead of answering.
    Cut,
    /// Close the connection without accepting it.
    CutBefore,
    /// Do not accept it, and answer with an unreadable body.
    Garbage,
}

/// The records and the script of one simulator. Clones share them.
pub(super) struct Control<R>(Arc<Mutex<ControlState<R>>>);

struct ControlState<R> {
    /// Each with the bytes of its text.
    records: VecDeque<(usize, R)>,
    bytes: usize,
    /// Behaviours, and how many times each applies.
    script: VecDeque<(Behaviour, u32)>,
}

impl<R> Clone for Control<R> {
    fn clone(&self) -> Control<R> {
        Control(self.0.clone())
    }
}

impl<R: Clone> Control<R> {
    fn new() -> Control<R> {
        Control(Arc::new(Mutex::new(ControlState { records: VecDeque::new(), bytes: 0, script: VecDeque::new() })))
    }

    fn state(&self) -> MutexGuard<'_, ControlState<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, record: R, bytes: usize) {
        let mut state = self.state();
        state.bytes += bytes;
        state.records.push_back((bytes, record));
        while state.records.len() > MAX_RECORDS || state.bytes > RECORDED_BYTES {
            let Some((dropped_bytes, _)) = state.records.pop_front() else { break };
            state.bytes -= dropped_bytes;
        }
    }

    fn record_count(&self) -> u64 {
        self.state().records.len() as u64
    }

    fn records(&self) -> Vec<R> {
        self.state().records.iter().map(|(_, record)| record.clone()).collect()
    }

    fn push_script(&self, behaviour: Behaviour, times: u32) {
        let mut state = self.state();
        if times > 0 && state.script.len() < MAX_SCRIPT_ENTRIES {
            state.script.push_back((behaviour, times));
        }
    }

    fn clear_script(&self) {
        self.state().script.clear();
    }

    fn next_behaviour(&self) -> Behaviour {
        let mut state = self.state();
        let Some((behaviour, times_left)) = state.script.front_mut() else { return Behaviour::Ok };
        let behaviour = behaviour.clone();
        *times_left -= 1;
        if *times_left == 0 {
            state.script.pop_front();
        }
        behaviour
    }
}

/// The body of `POST /_script`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScriptRequest {
    r#do: ScriptAction,
    status: Option<u16>,
    text: Option<String>,
    retry_after: Option<u32>,
    times: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ScriptAction {
    Ok,
    Fail,
    Hang,
    Limit,
    Cut,
    CutBefore,
    Garbage,
}

impl ScriptRequest {
    /// Converts to a behaviour. `refusal`: the vendor's usual status and error word, where the request names none.
    fn into_behaviour(self, refusal: (u16, &str)) -> Result<Behaviour, &'static str> {
        Ok(match self.r#do {
            ScriptAction::Ok => Behaviour::Ok,
            ScriptAction::Hang => Behaviour::Hang,
            ScriptAction::Cut => Behaviour::Cut,
            ScriptAction::CutBefore => Behaviour::CutBefore,
            ScriptAction::Garbage => Behaviour::Garbage,
            ScriptAction::Limit => Behaviour::Limit { retry_after: self.retry_after.unwrap_or(1) },
            ScriptAction::Fail => {
                let status = self.status.unwrap_or(refusal.0);
                if !(300..=599).contains(&status) {
                    return Err("status must be between 300 and 599");
                }
                let text = self.text.unwrap_or_else(|| refusal.1.to_owned());
                if text.contains(char::is_control) {
                    return Err("text must be one line");
                }
                Behaviour::Fail { status, text }
            }
        })
    }
}

/// The error of a service that closes the connection without a response.
#[derive(Debug)]
struct ConnectionCut;

impl fmt::Display for ConnectionCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("connection closed on purpose")
    }
}

impl std::error::Error for ConnectionCut {}

type ServiceResult = Result<Response<Full<Bytes>>, ConnectionCut>;

/// Answers `/_records` and `/_script`.
async fn serve_control<R: Clone + Serialize>(
    control: &Control<R>,
    refusal: (u16, &str),
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/_records") => match serde_json::to_vec(&control.records()) {
            Ok(list) => response(StatusCode::OK, "application/json", list),
            Err(error) => text_response(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        (&Method::DELETE, "/_script") => {
            control.clear_script();
            text_response(StatusCode::OK, "ok")
        }
        (&Method::POST, "/_script") => match parse_script(request, refusal).await {
            Ok((behaviour, times)) => {
                control.push_script(behaviour, times);
                text_response(StatusCode::OK, "ok")
            }
            Err(reason) => text_response(StatusCode::BAD_REQUEST, &reason),
        },
        (_, "/_records" | "/_script") => {
            let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "method not allowed");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET /_records, POST and DELETE /_script"));
            response
        }
        _ => text_response(StatusCode::NOT_FOUND, "not found; there are /_records and /_script"),
    }
}

async fn parse_script(request: Request<Incoming>, refusal: (u16, &str)) -> Result<(Behaviour, u32), String> {
    let body = read_body(request).await.ok_or("the body is too large or incomplete")?;
    let script: ScriptRequest = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let times = script.times.unwrap_or(1);
    Ok((script.into_behaviour(refusal)?, times))
}

async fn read_body(request: Request<Incoming>) -> Option<Bytes> {
    Some(Limited::new(request.into_body(), BODY_BYTES).collect().await.ok()?.to_bytes())
}

fn text_response(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    response(status, "text/plain; charset=utf-8", text.to_owned().into_bytes())
}

fn response(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

async fn listen(port: u16) -> Result<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.map_err(|error| {
        Error::Setup(format!("a simulator cannot listen on 127.0.0.1:{port}: {error}; name another port, or 0 for any"))
    })
}

fn bound_address(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::Internal(format!("a listener has no address: {error}")))
}

/// Accepts connections until the process stops. Each runs as a task that `shutdown` waits for.
async fn accept_connections<F, S>(listener: TcpListener, shutdown: Shutdown, session: F)
where
    F: Fn(TcpStream) -> S + Send,
    S: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let slot = slots.clone().acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! { next = next => next, () = shutdown.stopping() => return };
        match accepted {
            Ok((stream, _)) => {
                let session = session(stream);
                shutdown.spawn(async move {
                    session.await;
                    drop(slot);
                });
            }
            // Most likely out of file descriptors, which come back as connections end.
            Err(_) => drop(shutdown.sleep(Duration::from_millis(50)).await),
        }
    }
}

/// Serves one HTTP connection. When the process stops, the request under way is still answered.
async fn serve_http<F, A>(stream: TcpStream, shutdown: Shutdown, respond: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = ServiceResult>,
{
    let service = hyper::service::service_fn(respond);
    let mut server = hyper::server::conn::http1::Builder::new();
    let mut connection = pin!(server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service));
    // An error is the client's, or a connection that was closed on purpose.
    tokio::select! {
        _ended = connection.as_mut() => (),
        () = shutdown.stopping() => {
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await;
        }
    }
}

/// What the adapters' tests share.
#[cfg(test)]
pub(in crate::provider) mod testing {
    use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufStream};

    use super::*;
    use crate::id::Tsid;
    use crate::model::delivery::{DeliveryKey, Outcome};
    use crate::model::message::Content;
    use crate::model::retry::ErrorClass;
    use crate::provider::{Extra, SendRequest};

    pub const BUDGET: Duration = Duration::from_secs(10);
    /// For calls that are to time out: long enough to reach the intended step on a busy machine.
    pub const SHORT: Duration = Duration::from_secs(1);

    /// Installs the default rustls provider, as `main` does.
    pub fn rustls_provider() {
        let _already = rustls::crypto::ring::default_provider().install_default();
    }

    pub fn content(subject: Option<&str>, body: &str) -> Content {
        Content { subject: subject.map(str::to_owned), body: body.to_owned(), ..Content::default() }
    }

    pub fn send_request<'a>(to: &'a str, content: &'a Content) -> SendRequest<'a> {
        SendRequest {
            key: DeliveryKey { shard: 0, message_id: Tsid(700_000_000_000_000_000), no: 2 },
            attempt: 1,
            channel: crate::model::channel::Channel::Sms,
            kind: "ORDER_COMPLETED",
            to,
            content,
            created_at: chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
            extra: Extra::Nothing,
        }
    }

    /// Returns class and code of a rejected outcome.
    #[track_caller]
    pub fn rejected(outcome: Outcome) -> (ErrorClass, String) {
        match outcome {
            Outcome::Rejected { class, code, .. } => (class, code),
            other => panic!("expected a rejection, got {other:?}"),
        }
    }

    #[track_caller]
    pub fn unknown(outcome: Outcome) -> &'static str {
        match outcome {
            Outcome::Unknown { code, .. } => code,
            other => panic!("expected an unknown outcome, got {other:?}"),
        }
    }

    /// A server that runs `session` for each connection.
    pub async fn peer<F, S>(shutdown: &Shutdown, session: F) -> SocketAddr
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = listen(0).await.unwrap();
        let address = bound_address(&listener).unwrap();
        shutdown.spawn(accept_connections(listener, shutdown.clone(), session));
        address
    }

    /// A server that answers each line with `reply`: `None` closes the connection, an empty text sends nothing.
    pub async fn line_server<F>(shutdown: &Shutdown, greeting: &'static str, reply: F) -> SocketAddr
    where
        F: Fn(&str) -> Option<String> + Clone + Send + Sync + 'static,
    {
        peer(shutdown, move |stream| {
            let reply = reply.clone();
            async move {
                let mut stream = BufStream::new(stream);
                let mut next = Some(greeting.to_owned());
                while let Some(text) = next {
                    let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
                    let written = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
                    let mut line = String::new();
                    if !written || stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    next = reply(line.trim_end());
                }
            }
        })
        .await
    }

    /// An address on which no program listens.
    pub async fn closed_port() -> SocketAddr {
        bound_address(&listen(0).await.unwrap()).unwrap()
    }
}
