//! Simulators of vendors: real servers on loopback that take what an adapter sends, check it as the vendor would, record
//! it, and fail on demand the way vendors fail. They answer from memory and keep nothing.
//!
//! Each has a *desk*: what arrived, and what to do with what arrives next. In the process it is asked directly; from
//! outside, over HTTP: `GET /_records` gives a JSON array in order of arrival, `POST /_script`
//! `{"do": "fail", "status": 503, "text": "…", "times": 3}` says what to do next, `DELETE /_script` forgets it.

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

/// The oldest records go when there are more of them, or when they hold more text than this.
const RECORDS: usize = 200_000;
const RECORDED_BYTES: usize = 256 << 20;
const BODY_BYTES: usize = 1 << 20;
const CONNECTIONS: usize = 1024;
const SCRIPTED: usize = 1000;

/// What to do with a message that is in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// Take it.
    Ok,
    /// Refuse it: an HTTP status or an SMTP reply code, and the vendor's word.
    Fail { status: u16, text: String },
    /// Take it and never answer.
    Hang,
    /// Too fast: come back after so many seconds.
    Limit { retry_after: u32 },
    /// Take it and close the connection instead of answering.
    Cut,
    /// Close the connection without taking it.
    CutBefore,
    /// Do not take it, and answer nonsense.
    Garbage,
}

pub(super) struct Desk<R>(Arc<Mutex<DeskState<R>>>);

struct DeskState<R> {
    records: VecDeque<(usize, R)>,
    bytes: usize,
    script: VecDeque<(Behaviour, u32)>,
}

impl<R> Clone for Desk<R> {
    fn clone(&self) -> Desk<R> {
        Desk(self.0.clone())
    }
}

impl<R: Clone> Desk<R> {
    fn new() -> Desk<R> {
        Desk(Arc::new(Mutex::new(DeskState { records: VecDeque::new(), bytes: 0, script: VecDeque::new() })))
    }

    fn held(&self) -> MutexGuard<'_, DeskState<R>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn record(&self, record: R, bytes: usize) {
        let mut held = self.held();
        held.bytes += bytes;
        held.records.push_back((bytes, record));
        while held.records.len() > RECORDS || held.bytes > RECORDED_BYTES {
            let Some((gone, _)) = held.records.pop_front() else { break };
            held.bytes -= gone;
        }
    }

    fn taken(&self) -> u64 {
        self.held().records.len() as u64
    }

    fn records(&self) -> Vec<R> {
        self.held().records.iter().map(|(_, record)| record.clone()).collect()
    }

    fn script(&self, behaviour: Behaviour, times: u32) {
        let mut held = self.held();
        if times > 0 && held.script.len() < SCRIPTED {
            held.script.push_back((behaviour, times));
        }
    }

    fn forget_script(&self) {
        self.held().script.clear();
    }

    fn next(&self) -> Behaviour {
        let mut held = self.held();
        let Some((behaviour, left)) = held.script.front_mut() else { return Behaviour::Ok };
        let behaviour = behaviour.clone();
        *left -= 1;
        if *left == 0 {
            held.script.pop_front();
        }
        behaviour
    }
}

/// What `POST /_script` takes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Order {
    r#do: Instruction,
    status: Option<u16>,
    text: Option<String>,
    retry_after: Option<u32>,
    times: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Instruction {
    Ok,
    Fail,
    Hang,
    Limit,
    Cut,
    CutBefore,
    Garbage,
}

impl Order {
    /// `refusal`: how the vendor usually says no, where the order does not say how.
    fn behaviour(self, refusal: (u16, &str)) -> Result<Behaviour, &'static str> {
        Ok(match self.r#do {
            Instruction::Ok => Behaviour::Ok,
            Instruction::Hang => Behaviour::Hang,
            Instruction::Cut => Behaviour::Cut,
            Instruction::CutBefore => Behaviour::CutBefore,
            Instruction::Garbage => Behaviour::Garbage,
            Instruction::Limit => Behaviour::Limit { retry_after: self.retry_after.unwrap_or(1) },
            Instruction::Fail => {
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

/// In a service's stead: the connection is closed without an answer.
#[derive(Debug)]
struct Cut;

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cut on purpose")
    }
}

impl std::error::Error for Cut {}

type Answered = Result<Response<Full<Bytes>>, Cut>;

/// The desk's own doors.
async fn control<R: Clone + Serialize>(
    desk: &Desk<R>,
    refusal: (u16, &str),
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/_records") => match serde_json::to_vec(&desk.records()) {
            Ok(list) => answer(StatusCode::OK, "application/json", list),
            Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        (&Method::DELETE, "/_script") => {
            desk.forget_script();
            text(StatusCode::OK, "ok")
        }
        (&Method::POST, "/_script") => match ordered(request, refusal).await {
            Ok((behaviour, times)) => {
                desk.script(behaviour, times);
                text(StatusCode::OK, "ok")
            }
            Err(why) => text(StatusCode::BAD_REQUEST, &why),
        },
        (_, "/_records" | "/_script") => {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "not so");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET /_records, POST and DELETE /_script"));
            refused
        }
        _ => text(StatusCode::NOT_FOUND, "there are /_records and /_script"),
    }
}

async fn ordered(request: Request<Incoming>, refusal: (u16, &str)) -> Result<(Behaviour, u32), String> {
    let body = body(request).await.ok_or("the body is too large, or was cut")?;
    let order: Order = serde_json::from_slice(&body).map_err(|error| error.to_string())?;
    let times = order.times.unwrap_or(1);
    Ok((order.behaviour(refusal)?, times))
}

async fn body(request: Request<Incoming>) -> Option<Bytes> {
    Some(Limited::new(request.into_body(), BODY_BYTES).collect().await.ok()?.to_bytes())
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text.to_owned().into_bytes())
}

fn answer(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
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

fn bound(listener: &TcpListener) -> Result<SocketAddr> {
    listener.local_addr().map_err(|error| Error::Internal(format!("a listener has no address: {error}")))
}

/// Takes connections until the process stops; each is a task that is waited for.
async fn accept<F, S>(listener: TcpListener, shutdown: Shutdown, session: F)
where
    F: Fn(TcpStream) -> S + Send,
    S: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! { next = next => next, () = shutdown.stopping() => return };
        match accepted {
            Ok((stream, _)) => {
                let session = session(stream);
                shutdown.spawn(async move {
                    session.await;
                    drop(permit);
                });
            }
            // Out of file descriptors, most likely: they come back as connections end.
            Err(_) => drop(shutdown.sleep(Duration::from_millis(50)).await),
        }
    }
}

/// One HTTP connection. When the process stops, the request under way is answered still.
async fn serve<F, A>(stream: TcpStream, shutdown: Shutdown, respond: F)
where
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Answered>,
{
    let service = hyper::service::service_fn(respond);
    let mut server = hyper::server::conn::http1::Builder::new();
    let mut connection = pin!(server.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service));
    // How a connection ends is the client's business, or was cut on purpose.
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
    /// For calls that are to run out of time: long enough to come as far as they should on a busy machine.
    pub const SHORT: Duration = Duration::from_secs(1);

    /// What `main` does first.
    pub fn rustls_provider() {
        let _already = rustls::crypto::ring::default_provider().install_default();
    }

    pub fn content(subject: Option<&str>, body: &str) -> Content {
        Content { subject: subject.map(str::to_owned), body: body.to_owned(), ..Content::default() }
    }

    pub fn letter<'a>(to: &'a str, content: &'a Content) -> SendRequest<'a> {
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

    /// Class and code of a definite no.
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

    /// A server that does with each connection what a test wants.
    pub async fn peer<F, S>(shutdown: &Shutdown, session: F) -> SocketAddr
    where
        F: Fn(TcpStream) -> S + Send + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = listen(0).await.unwrap();
        let address = bound(&listener).unwrap();
        shutdown.spawn(accept(listener, shutdown.clone(), session));
        address
    }

    /// A server that answers each line as told: none hangs up, an empty text stays silent.
    pub async fn lines<F>(shutdown: &Shutdown, greeting: &'static str, reply: F) -> SocketAddr
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
                    let said = stream.write_all(&bytes).await.is_ok() && stream.flush().await.is_ok();
                    let mut line = String::new();
                    if !said || stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    next = reply(line.trim_end());
                }
            }
        })
        .await
    }

    /// A port nobody listens on.
    pub async fn closed_port() -> SocketAddr {
        bound(&listen(0).await.unwrap()).unwrap()
    }
}
