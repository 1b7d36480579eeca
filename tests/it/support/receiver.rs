//! A partner's endpoint, for tests: an HTTP server on loopback that keeps every request as it came, in order of
//! arrival, and answers as told: at once, when it is let go (a tarpit), or by cutting the connection.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use notihub::shutdown::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(60);

/// A request as it came. Names of headers are in lower case, as hyper gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Recorded {
    /// A header that stands once.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let mut found = self.headers.iter().filter(|(n, _)| n == name);
        let (_, value) = found.next().unwrap_or_else(|| panic!("no {name} in {:?}", self.headers));
        assert!(found.next().is_none(), "{name} stands twice in {:?}", self.headers);
        value
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }
}

#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub gate: Option<CancellationToken>,
    pub cut: bool,
}

impl Answer {
    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new(), gate: None, cut: false }
    }

    /// Closes the connection instead of answering.
    pub fn cut() -> Answer {
        Answer { cut: true, ..Answer::status(0) }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Answer {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub fn body(mut self, body: &[u8]) -> Answer {
        self.body = body.to_vec();
        self
    }

    /// Not before the gate is opened (`gate.cancel()`), for good: a tarpit.
    pub fn behind(mut self, gate: &CancellationToken) -> Answer {
        self.gate = Some(gate.clone());
        self
    }
}

pub type Law = Box<dyn FnMut(usize, &Recorded) -> Answer + Send>;

pub struct Desk {
    pub records: Vec<Recorded>,
    pub queue: VecDeque<Answer>,
    pub law: Law,
    pub open: usize,
    pub most_open: usize,
}

pub struct Receiver {
    pub url: String,
    pub desk: Arc<Mutex<Desk>>,
    pub count: watch::Receiver<usize>,
    pub shutdown: Shutdown,
}

impl Receiver {
    /// Answers 200 to every request until a test sets other answers. Ends when it is dropped.
    pub async fn start() -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let law: Law = Box::new(|_, _| Answer::status(200));
        let desk = Desk { records: Vec::new(), queue: VecDeque::new(), law, open: 0, most_open: 0 };
        let desk = Arc::new(Mutex::new(desk));
        let (shown, count) = watch::channel(0);
        let shutdown = Shutdown::new();
        shutdown.spawn(accept(listener, desk.clone(), shown, shutdown.clone()));
        Receiver { url, desk, count, shutdown }
    }

    /// The next requests are answered so, one each, before the law rules again.
    pub fn queue(&self, answers: impl IntoIterator<Item = Answer>) {
        self.desk.lock().unwrap().queue.extend(answers);
    }

    /// How every request is answered: by its number, from 0, and by what it says.
    pub fn law(&self, law: impl FnMut(usize, &Recorded) -> Answer + Send + 'static) {
        self.desk.lock().unwrap().law = Box::new(law);
    }

    /// All that arrived, in order of arrival.
    pub fn records(&self) -> Vec<Recorded> {
        self.desk.lock().unwrap().records.clone()
    }

    /// Waits until so many arrived since the start.
    #[track_caller]
    pub fn arrived(&self, n: usize) -> impl Future<Output = Vec<Recorded>> {
        let (mut count, caller) = (self.count.clone(), std::panic::Location::caller());
        async move {
            let waited = tokio::time::timeout(PATIENCE, count.wait_for(|count| *count >= n)).await.map(|w| w.is_ok());
            assert_eq!(waited, Ok(true), "{n} requests never arrived, only {} ({caller})", self.records().len());
            self.records()
        }
    }

    /// The most requests that waited for their answers at the same time.
    pub fn most_open(&self) -> usize {
        self.desk.lock().unwrap().most_open
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

pub async fn accept(listener: TcpListener, desk: Arc<Mutex<Desk>>, shown: watch::Sender<usize>, shutdown: Shutdown) {
    let shown = Arc::new(shown);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.unwrap(),
            () = shutdown.stopping() => return,
        };
        let (desk, shown, stopping) = (desk.clone(), shown.clone(), shutdown.clone());
        let service = hyper::service::service_fn(move |request| respond(desk.clone(), shown.clone(), request));
        let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        shutdown.spawn(async move {
            tokio::select! { _ended = connection => (), () = stopping.stopping() => () }
        });
    }
}

/// A request that is being answered; dropped also when its sender hangs up.
pub struct Open(pub Arc<Mutex<Desk>>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.lock().unwrap().open -= 1;
    }
}

pub async fn respond(
    desk: Arc<Mutex<Desk>>,
    shown: Arc<watch::Sender<usize>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, String> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes().to_vec();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = head.headers.iter().map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect();
    let recorded = Recorded { method: head.method.to_string(), path: head.uri.to_string(), headers, body };
    let (answer, _open) = {
        let mut held = desk.lock().unwrap();
        let scripted = held.queue.pop_front();
        let n = held.records.len();
        let answer = scripted.unwrap_or_else(|| (held.law)(n, &recorded));
        held.records.push(recorded);
        held.open += 1;
        held.most_open = held.most_open.max(held.open);
        (answer, Open(desk.clone()))
    };
    shown.send_modify(|count| *count += 1);
    if let Some(gate) = answer.gate {
        gate.cancelled().await;
    }
    if answer.cut {
        return Err("cut on purpose".into());
    }
    let mut response = Response::builder().status(answer.status);
    for (name, value) in answer.headers {
        response = response.header(name, value);
    }
    response.body(Full::new(answer.body.into())).map_err(|e| e.to_string())
}

/// The receiver that other tests rely on: every byte is kept, and each request is answered as scripted.
#[tokio::test]
async fn a_receiver_keeps_what_arrives_and_answers_as_told() {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let receiver = Receiver::start().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let post = |body: &'static [u8]| http.post(&receiver.url).header("X-One", "a b").body(body).send();
    receiver.queue([Answer::status(503).header("retry-after", "7").body(b"later"), Answer::cut()]);
    let refused = post(b"\0 one\r\n").await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].as_bytes()), (503, b"7".as_slice()));
    assert_eq!(refused.text().await.unwrap(), "later");
    assert!(post(b"two").await.is_err(), "cut");

    let gate = CancellationToken::new();
    receiver.law({
        let gate = gate.clone();
        move |n, _| if n < 4 { Answer::status(200).behind(&gate) } else { Answer::status(204) }
    });
    let opened = async {
        receiver.arrived(4).await;
        assert_eq!(receiver.most_open(), 2);
        gate.cancel();
    };
    let (three, four, ()) = tokio::join!(post(b"{\"n\": 3}"), post(b"4"), opened);
    assert_eq!((three.unwrap().status().as_u16(), four.unwrap().status().as_u16()), (200, 200));
    assert_eq!(post(b"five").await.unwrap().status().as_u16(), 204);

    let records = receiver.arrived(5).await;
    assert_eq!((records.len(), records[0].body.as_slice()), (5, b"\0 one\r\n".as_slice()));
    assert_eq!((records[0].method.as_str(), records[0].path.as_str()), ("POST", "/hook"));
    assert_eq!(records[0].header("x-one"), "a b");
    assert!(records[2..4].iter().any(|r| r.json() == 4));
}
