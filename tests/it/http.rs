//! The door itself, over raw sockets: framing, keep-alive, callers that hang up, and what machines that watch are told.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hyper::body::Frame;
use hyper_util::rt::TokioIo;
use notihub::api;
use notihub::http::request::around;
use notihub::http::server::{self, Allowance};
use notihub::hub::Hub;
use notihub::worker::{self, Role};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream, Interest};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::support::{App, email};

/// A connection spoken by hand.
pub struct Wire(BufStream<TcpStream>, String);

/// Only a server that never answers takes so long; nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(20);

impl Wire {
    pub async fn open(app: &App) -> Wire {
        Wire::to(app, app.address).await
    }

    /// To another server of the same app.
    async fn to(app: &App, address: SocketAddr) -> Wire {
        let signed = format!("Host: hub\r\nAuthorization: Bearer {}\r\n", app.token);
        Wire(BufStream::new(TcpStream::connect(address).await.expect("a connection")), signed)
    }

    /// Every request is signed after its host, unless it brings a header of its own. A server that hangs up while we write
    /// is found out by what we read next.
    pub async fn send(&mut self, bytes: &[u8]) {
        const HOST: &[u8] = b"Host: hub\r\n";
        let brings_own = bytes.windows(14).any(|w| w.eq_ignore_ascii_case(b"authorization:"));
        let (mut signed, mut rest) = (Vec::with_capacity(bytes.len() + 500), bytes);
        while let Some(at) = rest.windows(HOST.len()).position(|w| w == HOST).filter(|_| !brings_own) {
            signed.extend(&rest[..at]);
            signed.extend(self.1.as_bytes());
            rest = &rest[at + HOST.len()..];
        }
        signed.extend(rest);
        let _hung_up = self.0.write_all(&signed).await;
        let _hung_up = self.0.flush().await;
    }

    /// The next answer; none when the server hangs up instead.
    pub async fn reply(&mut self) -> Option<Reply> {
        timeout(PATIENCE, self.read(true)).await.expect("an answer or an end")
    }

    /// The answer to a HEAD: it says how long a body would be, and has none.
    pub async fn reply_without_body(&mut self) -> Option<Reply> {
        timeout(PATIENCE, self.read(false)).await.expect("an answer or an end")
    }

    async fn read(&mut self, with_body: bool) -> Option<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.ok().filter(|n| *n > 0)?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.0.read_line(&mut line).await.ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut reply = Reply { status, headers, text: String::new(), body: Value::Null };
        let length: usize = reply.header("content-length").parse().unwrap_or(0);
        if with_body {
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).await.ok()?;
            reply.text = String::from_utf8(body).expect("answers are UTF-8");
            reply.body = serde_json::from_str(&reply.text).unwrap_or(Value::Null);
        }
        Some(reply)
    }

    /// Whether the server ends the connection, and says nothing before it does.
    pub async fn ends(&mut self) -> bool {
        let next = timeout(PATIENCE, self.0.read_u8()).await.expect("an end");
        next.is_err()
    }
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub text: String,
    pub body: Value,
}

impl Reply {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|h| h.0 == name).map_or("", |h| &h.1)
    }
}

/// A request as it goes over the wire, its length included.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: hub\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").into_bytes());
    }
    if !body.is_empty() || method == "POST" {
        bytes.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend(body);
    bytes
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn post(body: &Value) -> Vec<u8> {
    request("POST", "/v1/messages", &[JSON], body.to_string().as_bytes())
}

/// S3-27: one connection carries many requests, also such as do not wait for each other's answers.
#[tokio::test]
async fn a_connection_carries_many_requests() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    wire.send(&post(&email("kim@example.com"))).await;
    let id = wire.reply().await.unwrap().body["messageId"].as_str().unwrap().to_owned();
    wire.send(&request("GET", &format!("/v1/messages/{id}"), &[], b"")).await;
    assert_eq!(wire.reply().await.unwrap().body["messageId"], id);
    wire.send(&request("HEAD", &format!("/v1/messages/{id}"), &[], b"")).await;
    assert_eq!(wire.reply_without_body().await.unwrap().status, 200);
    let two = [post(&email("lee@example.com")), request("GET", "/v1/messages?limit=1", &[], b"")].concat();
    wire.send(&two).await;
    let second = wire.reply().await.unwrap();
    assert_eq!(second.status, 202);
    let listed = wire.reply().await.unwrap();
    assert_eq!(listed.body["items"][0]["messageId"], second.body["messageId"], "answered in order");
    wire.send(&request("GET", "/healthz", &[("Connection", "close")], b"")).await;
    assert_eq!(wire.reply().await.unwrap().status, 200);
    assert!(wire.ends().await);
    app.done().await;
}

/// A request that two readers could read as two different ones is refused, and the connection with it, because what
/// follows on it cannot be trusted. The message hidden in each would be right: it is never stored.
#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_hung_up_on() {
    let app = App::new().await;
    let hidden = post(&email("hidden@example.com"));
    let hidden = String::from_utf8(hidden).unwrap();
    let body = email("hidden@example.com").to_string();
    let length = body.len();
    let chunked = |size: &str| {
        let head = "POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n";
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{size}\r\n{body}\r\n0\r\n\r\n")
    };
    let with = |headers: &str, tail: &str| {
        format!("POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{tail}")
    };
    let full = format!("Content-Length: {length}");
    let table: Vec<(&str, String)> = vec![
        ("length and chunked", with(&format!("{full}\r\nTransfer-Encoding: chunked"), &format!("0\r\n\r\n{hidden}"))),
        ("chunked and length", with(&format!("Transfer-Encoding: chunked\r\n{full}"), &format!("0\r\n\r\n{hidden}"))),
        ("two lengths", with(&format!("{full}\r\nContent-Length: 0"), &body)),
        ("two lengths, the first 0", with(&format!("Content-Length: 0\r\n{full}"), &hidden)),
        ("a list of lengths", with(&format!("Content-Length: {length}, {length}"), &body)),
        ("a length with a sign", with(&format!("Content-Length: +{length}"), &body)),
        ("a length below nothing", with("Content-Length: -1", &body)),
        ("a length in hexadecimal", with("Content-Length: 0x10", &body)),
        ("a length beyond all numbers", with("Content-Length: 18446744073709551616", &body)),
        ("a length that is a word", with("Content-Length: all", &body)),
        ("an encoding nobody knows", with("Transfer-Encoding: xchunked", &format!("0\r\n\r\n{hidden}"))),
        ("chunked is not the last", with("Transfer-Encoding: chunked, identity", &format!("0\r\n\r\n{hidden}"))),
        ("identity", with("Transfer-Encoding: identity", &hidden)),
        ("a control character hides the encoding", with("Transfer-Encoding: \u{b}chunked", &hidden)),
        ("a space before the colon", with(&format!("Content-Length : {length}"), &body)),
        ("a space before the encoding's colon", with("Transfer-Encoding : chunked", &format!("0\r\n\r\n{hidden}"))),
        ("a folded line", with(&format!("X-Long: a\r\n b\r\n{full}"), &body)),
        ("a header without a name", with(&format!(": x\r\n{full}"), &body)),
        ("a header with NUL", with(&format!("X-Odd: a\0b\r\n{full}"), &body)),
        ("a header with CR alone", with(&format!("X-Odd: a\rb\r\n{full}"), &body)),
        ("a chunk size of letters", chunked("zz")),
        ("an empty chunk size", chunked("")),
        ("a chunk size with a sign", chunked("+5")),
        ("a chunk size with 0x", chunked(&format!("0x{length:x}"))),
        ("a chunk size beyond all numbers", chunked("fffffffffffffffff")),
        ("a chunk that is longer than its size", chunked(&format!("{:x}", length - 1))),
        ("a chunk line that ends with LF alone", chunked(&format!("{length:x}\n")).replacen("\n\r\n", "\n", 1)),
        ("a chunk extension of a megabyte", chunked(&format!("{length:x};x={}", "y".repeat(1 << 20)))),
        ("chunked in HTTP/1.0", chunked(&format!("{length:x}")).replace("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/1.2", with(&full, &body).replace("HTTP/1.1", "HTTP/1.2")),
        ("HTTP/2 without asking", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned()),
        ("no version", format!("GET /v1/messages\r\n\r\n{hidden}")),
        ("two spaces in the request line", with(&full, &body).replacen(' ', "  ", 1)),
        ("TLS", "\u{16}\u{3}\u{1}\0\u{5}hello\r\n\r\n".to_owned()),
        ("no host", with(&full, &body).replace("Host: hub\r\n", "")),
        ("two hosts", with(&format!("Host: other\r\n{full}"), &body)),
    ];
    for (name, bytes) in table {
        let mut wire = Wire::open(&app).await;
        wire.send(bytes.as_bytes()).await;
        if let Some(reply) = wire.reply().await {
            assert_eq!(reply.status, 400, "{name}: {reply:?}");
            assert!(wire.ends().await, "{name}: the connection lives on");
        }
        assert_eq!(app.count("select count(*) from messages").await, 0, "{name}");
    }
    app.done().await;
}

/// Fault B4 (RFC 9112 2.2, 6.1, 6.3): what the HTTP library would read in its own way is answered 400, behind the
/// answer to the right request before it, and nothing after it is read.
#[tokio::test]
async fn a_request_that_the_library_would_forgive_is_refused_after_the_answers_before_it() {
    let app = App::new().await;
    let body = email("kim@example.com").to_string();
    let (length, chunks) = (body.len(), format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    let with = |headers: &str, tail: &str| {
        format!("POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{headers}\r\n\r\n{tail}")
    };
    let full = format!("Content-Length: {length}");
    let right = with(&full, &body);
    let table: Vec<(&str, String)> = vec![
        ("length and chunked", with(&format!("{full}\r\nTransfer-Encoding: chunked"), &chunks)),
        ("chunked and length", with(&format!("Transfer-Encoding: chunked\r\n{full}"), &chunks)),
        ("a coding before chunked", with("Transfer-Encoding: gzip, chunked", &chunks)),
        ("chunked twice", with("Transfer-Encoding: chunked, chunked", &chunks)),
        ("chunked on two lines", with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", &chunks)),
        ("identity before chunked", with("Transfer-Encoding: identity, chunked", &chunks)),
        (
            "identity on a line before chunked",
            with("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", &chunks),
        ),
        ("an empty coding", with("Transfer-Encoding: , chunked", &chunks)),
        ("two equal lengths", with(&format!("{full}\r\n{full}"), &body)),
        ("a length with a zero before it", with(&format!("Content-Length: 0{length}"), &body)),
        ("LF after the request line", right.replacen("\r\n", "\n", 1)),
        ("LF after a header", right.replacen("json\r\n", "json\n", 1)),
        ("LF at the end of the head", right.replacen("\r\n\r\n", "\r\n\n", 1)),
        ("LF alone everywhere", right.replace("\r\n", "\n")),
        ("LF before the request line", format!("\n{right}")),
        ("LF in a trailer", with("Transfer-Encoding: chunked", &chunks.replace("0\r\n", "0\r\nX: y\n"))),
    ];
    for (n, (name, bytes)) in table.iter().enumerate() {
        let mut wire = Wire::open(&app).await;
        wire.send(format!("{right}{bytes}{right}").as_bytes()).await;
        assert_eq!(wire.reply().await.map(|r| r.status), Some(202), "{name}: the request before it is right");
        assert_eq!(wire.reply().await.map(|r| r.status), Some(400), "{name}");
        assert!(wire.ends().await, "{name}: the connection lives on");
        assert_eq!(app.count("select count(*) from messages").await, n as i64 + 1, "{name}");
    }
    // Right ones stay right however they are cut: one connection carries them all.
    let mut wire = Wire::open(&app).await;
    let in_chunks = with("Transfer-Encoding: chunked", &format!("{:x};a=b\r\n{body}\r\n0\r\nX: y\r\n\r\n", body.len()));
    let all = format!(
        "\r\n{right}{in_chunks}\r\n{}{right}",
        String::from_utf8(request("GET", "/healthz", &[], b"")).unwrap()
    );
    let host = format!("Host: hub\r\nAuthorization: Bearer {}\r\n", app.token);
    for piece in all.replace("Host: hub\r\n", &host).as_bytes().chunks(7) {
        wire.send(piece).await;
    }
    for status in [202, 202, 200, 202] {
        assert_eq!(wire.reply().await.map(|r| r.status), Some(status));
    }
    app.done().await;
}

/// Fault B5: a body that is too large is answered 413, and the caller gets the answer whether it reads before it has
/// sent the whole body or after.
#[tokio::test]
async fn a_body_that_is_too_large_is_answered_so_that_the_caller_can_read_it() {
    let app = App::new().await;
    let head = |headers: &str| {
        format!("POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n{headers}\r\n\r\n")
    };
    let (size, megabyte) = (20 << 20, "x".repeat(1 << 20));
    let refused = async |name: &str, wire: &mut Wire| {
        let reply = wire.reply().await.unwrap_or_else(|| panic!("{name}: no answer"));
        assert_eq!((reply.status, reply.body["reason"].as_str()), (413, Some("body_too_large")), "{name}");
        assert_eq!(reply.header("connection"), "close", "{name}");
        assert!(wire.ends().await, "{name}");
    };
    let mut wire = Wire::open(&app).await;
    wire.send(format!("{}{}", head(&format!("Content-Length: {size}")), megabyte.repeat(20)).as_bytes()).await;
    refused("20 MB, all sent before the answer is read", &mut wire).await;

    let chunks = format!("100000\r\n{megabyte}\r\n").repeat(20);
    let mut wire = Wire::open(&app).await;
    wire.send(format!("{}{chunks}0\r\n\r\n", head("Transfer-Encoding: chunked")).as_bytes()).await;
    refused("20 MB in chunks", &mut wire).await;

    let mut wire = Wire::open(&app).await;
    wire.send(head("Content-Length: 99999999999").as_bytes()).await;
    refused("a length of 100 GB, and nothing of it", &mut wire).await;

    // Other refusals that come before the body is read arrive as well.
    let mut wire = Wire::open(&app).await;
    let unsigned = head(&format!("Authorization: Bearer x\r\nContent-Length: {size}"));
    wire.send(format!("{unsigned}{}", megabyte.repeat(20)).as_bytes()).await;
    assert_eq!(wire.reply().await.map(|r| r.status), Some(401));
    assert!(wire.ends().await);
    app.done().await;
}

/// A listener of its own beside the test's, with another allowance.
async fn serve(app: &App, allowance: Allowance) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server::start_with(allowance, listener, api::router(&app.hub), &app.hub.shutdown);
    address
}

/// Fault B1: a caller that asks and reads nothing is cut off once the socket has taken nothing for the allowed time,
/// with all that is held for it; nobody has to sign in for that.
#[tokio::test]
async fn a_caller_that_reads_nothing_is_cut_off() {
    let app = App::new().await;
    assert_eq!(Allowance::default().write_timeout, Duration::from_secs(30));
    let address = serve(&app, Allowance { write_timeout: Duration::from_millis(200), ..Allowance::default() }).await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    // More answers than the kernel's buffers hold.
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: hub\r\n\r\n".repeat(300);
    stream.write_all(requests.as_bytes()).await.unwrap();
    let reset = timeout(PATIENCE, stream.ready(Interest::ERROR)).await.expect("it is cut off").unwrap();
    assert!(reset.is_error());
    app.done().await;
}

/// Fault B1: an address has so many connections on which nobody has signed in; a further one is turned away at once.
/// Signing in makes room, and other addresses have room of their own.
#[tokio::test]
async fn an_address_has_a_bound_of_connections_until_callers_sign_in() {
    let app = App::new().await;
    assert_eq!(Allowance::default().strangers, Some(256));
    let address = serve(&app, Allowance { strangers: Some(3), ..Allowance::default() }).await;
    let open = async |from: &str| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(format!("{from}:0").parse().unwrap()).unwrap();
        let stream = socket.connect(address).await.unwrap();
        Wire(BufStream::new(stream), format!("Host: hub\r\nAuthorization: Bearer {}\r\n", app.token))
    };
    let unsigned = b"GET /healthz HTTP/1.1\r\nHost: any\r\n\r\n";
    let ask = async |wire: &mut Wire, bytes: &[u8]| {
        wire.send(bytes).await;
        wire.reply().await.map(|reply| reply.status)
    };
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut wire = open("127.0.0.1").await;
        assert_eq!(ask(&mut wire, unsigned).await, Some(200));
        held.push(wire);
    }
    let mut fourth = open("127.0.0.1").await;
    let reply = fourth.reply().await.expect("an answer before anything is asked");
    assert_eq!((reply.status, reply.header("connection")), (429, "close"));
    assert!(fourth.ends().await);
    assert_eq!(ask(&mut open("127.0.0.2").await, unsigned).await, Some(200), "another address");
    assert_eq!(ask(&mut held[0], &request("GET", "/v1/messages", &[], b"")).await, Some(200));
    let mut fourth = open("127.0.0.1").await;
    assert_eq!(ask(&mut fourth, unsigned).await, Some(200), "one has signed in");
    assert_eq!(open("127.0.0.1").await.reply().await.map(|r| r.status), Some(429));
    // One that ends makes room as well; the server sees its end before it answers the next.
    assert_eq!(ask(&mut held[1], &request("GET", "/healthz", &[("Connection", "close")], b"")).await, Some(200));
    assert!(held[1].ends().await);
    drop(held.remove(1));
    timeout(PATIENCE, async { while ask(&mut open("127.0.0.1").await, unsigned).await != Some(200) {} })
        .await
        .expect("room for another");
    app.done().await;
}

/// A body that comes in chunks is a body like any other.
#[tokio::test]
async fn a_chunked_body_is_read() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let body = email("kim@example.com").to_string();
    let (one, two) = body.split_at(20);
    let head = "POST /v1/messages HTTP/1.1\r\nHost: hub\r\nContent-Type: application/json\r\n";
    let chunks = format!("{:x};ext=1\r\n{one}\r\n{:X}\r\n{two}\r\n0\r\nX-Trailer: x\r\n\r\n", one.len(), two.len());
    wire.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}").as_bytes()).await;
    assert_eq!(wire.reply().await.unwrap().status, 202);
    wire.send(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(wire.reply().await.unwrap().status, 200, "the connection is in step");
    app.done().await;
}

/// A caller that asks before it sends a body is told no before it sent it.
#[tokio::test]
async fn a_refusal_does_not_wait_for_the_body() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: hub\r\nExpect: 100-continue\r\nContent-Length: 1000\r\n";
    wire.send(format!("{head}Content-Type: text/plain\r\n\r\n").as_bytes()).await;
    assert_eq!(wire.reply().await.unwrap().status, 415);
    assert!(wire.ends().await);
    let mut wire = Wire::open(&app).await;
    wire.send(format!("{head}Content-Type: application/json\r\n\r\n").as_bytes()).await;
    assert_eq!(wire.reply_without_body().await.unwrap().status, 100);
    drop(wire);
    app.done().await;
}

/// A caller that hangs up in the middle of its request leaves nothing behind, and disturbs nobody.
#[tokio::test]
async fn half_a_request_is_no_request() {
    let app = App::new().await;
    let whole = post(&email("half@example.com"));
    for cut in [1, 20, whole.len() / 2, whole.len() - 1] {
        let mut wire = Wire::open(&app).await;
        wire.send(&whole[..cut]).await;
        drop(wire);
        app.post("/v1/messages", email("whole@example.com")).await.expect(202);
    }
    assert_eq!(app.count("select count(*) from messages").await, 4);
    assert_eq!(app.count("select count(*) from deliveries where recipient like 'half%'").await, 0);
    app.done().await;
}

/// A caller that hangs up before it hears the answer finds its message stored once when it asks again with its key.
#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_not_needed() {
    let app = App::new().await;
    let mut body = email("kim@example.com");
    body["clientMsgId"] = json!("once");
    for _ in 0..5 {
        let mut wire = Wire::open(&app).await;
        wire.send(&post(&body)).await;
        drop(wire);
    }
    let answer = app.post("/v1/messages", body).await;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text);
    assert_eq!(app.get("/v1/messages").await.expect(200).body["items"].as_array().unwrap().len(), 1);
    app.done().await;
}

/// The wrong method is told which would be right, in the same shape as every refusal.
#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let app = App::new().await;
    let none = "/v1/messages/0000000000000";
    let table = [
        ("/v1/messages", "POST,GET,HEAD", "DELETE"),
        ("/v1/messages", "POST,GET,HEAD", "PUT"),
        ("/v1/messages", "POST,GET,HEAD", "TRACE"),
        ("/v1/messages", "POST,GET,HEAD", "OPTIONS"),
        ("/v1/messages", "POST,GET,HEAD", "BREW"),
        ("/v1/messages/batch", "POST", "GET"),
        (none, "GET,HEAD", "DELETE"),
        ("/v1/messages/0000000000000/timeline", "GET,HEAD", "POST"),
        ("/v1/messages/0000000000000/cancel", "POST", "GET"),
        ("/v1/deliveries", "GET,HEAD", "POST"),
        ("/v1/deliveries/0000000000000-1", "GET,HEAD", "PATCH"),
        ("/notifications", "POST,GET,HEAD", "PUT"),
        ("/notifications/0000000000000", "GET,HEAD", "POST"),
        ("/healthz", "GET,HEAD", "POST"),
        ("/readyz", "GET,HEAD", "DELETE"),
        ("/metrics", "GET,HEAD", "POST"),
        ("/about", "GET,HEAD", "PUT"),
    ];
    for (path, allow, method) in table {
        let mut wire = Wire::open(&app).await;
        wire.send(&request(method, path, &[], b"")).await;
        let reply = wire.reply().await.unwrap();
        let said = (reply.status, reply.body["reason"].as_str().unwrap_or_default(), reply.header("allow").to_owned());
        assert_eq!(said, (405, "method_not_allowed", allow.to_owned()), "{method} {path}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{method} {path}");
    }
    let mut wire = Wire::open(&app).await;
    wire.send(&request("CONNECT", "example.com:443", &[], b"")).await;
    assert!(matches!(wire.reply().await.map_or(404, |r| r.status), 404 | 405), "no tunnel to anywhere");
    app.done().await;
}

/// Whatever is asked, the answer names the request, is not to be cached, and is told apart from every other.
#[tokio::test]
async fn every_answer_names_its_request() {
    let app = App::new().await;
    let id = app.post("/v1/messages", email("kim@example.com")).await.expect(202).id();
    let mut seen = std::collections::HashSet::new();
    let paths = ["/healthz", "/readyz", "/metrics", "/about", "/nowhere", "/v1/messages", "/v1/messages?x=1"];
    for path in paths.into_iter().map(str::to_owned).chain([format!("/v1/messages/{id}"), "/".repeat(9000)]) {
        let mut wire = Wire::open(&app).await;
        wire.send(&request("GET", &path, &[("X-Request-Id", "mine")], b"")).await;
        let reply = wire.reply().await.unwrap();
        let request_id = reply.header("x-request-id").to_owned();
        assert_eq!(request_id.len(), 13, "{path}: {reply:?}");
        assert_eq!(reply.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(reply.header("cache-control"), "no-store", "{path}");
        assert!(seen.insert(request_id), "{path}");
    }
    app.done().await;
}

/// S3-28: what machines that watch are told: alive, ready or what is missing, counts, and which program on which
/// PostgreSQL.
#[tokio::test]
async fn machines_that_watch_are_told() {
    let app = App::new().await;
    assert_eq!(app.get("/healthz").await.expect(200).body, json!({"code": "0000", "status": "alive"}));

    let unready = app.get("/readyz").await.expect(200).body;
    assert_eq!(
        (&unready["code"], &unready["ready"], &unready["stopping"]),
        (&json!("0000"), &json!(true), &json!(false)),
        "messages are accepted also while nothing delivers"
    );
    let checks = |body: &Value| -> Vec<(String, bool)> {
        let one = |c: &Value| (c["check"].as_str().unwrap().to_owned(), c["ok"].as_bool().unwrap());
        body["checks"].as_array().unwrap().iter().map(one).collect()
    };
    let expected = |worker| {
        [("database", true), ("migrations", true), ("partitions", true), ("worker", worker)]
            .map(|c| (c.0.to_owned(), c.1))
    };
    assert_eq!(checks(&unready), expected(false), "nothing delivers");
    worker::start(&app.hub, Role::Worker);
    // The first heartbeat is on its way; asking is the only wait.
    let ready = timeout(PATIENCE, async {
        loop {
            let answer = app.get("/readyz").await;
            if checks(&answer.body) == expected(true) {
                return answer.body;
            }
        }
    });
    let ready = ready.await.expect("a worker that lives");
    assert_eq!((&ready["code"], &ready["ready"]), (&json!("0000"), &json!(true)));
    assert_eq!(checks(&ready), expected(true));

    let about = app.get("/about").await.expect(200).body;
    assert_eq!((&about["name"], &about["version"]), (&json!("notihub"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!((&about["migrationsMissing"], &about["channels"]), (&json!(0), &json!(["EMAIL", "SLACK"])));
    let mut settings: Vec<&String> = about["database"].as_object().unwrap().keys().collect();
    settings.sort();
    assert_eq!(settings, ["fsync", "full_page_writes", "server_version", "synchronous_commit"]);

    let metrics = app.metrics().await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        "# TYPE notihub_http_requests_total counter",
        "# TYPE notihub_http_request_seconds histogram",
        "notihub_http_requests_total{route=\"/healthz\",status=\"200\"} 1",
        "notihub_db_rejected_input_total 0",
    ] {
        assert!(metrics.text.lines().any(|l| l == line), "{line} is not in\n{}", metrics.text);
    }
    app.hub.shutdown.stop();
    app.done().await;
}

/// A body that tells its length as little as its end: pieces of this size, and a pause after so many.
struct Pieces {
    size: usize,
    left: usize,
}

impl HttpBody for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let pieces = self.get_mut();
        match pieces.left.checked_sub(1) {
            Some(left) => pieces.left = left,
            None => return Poll::Pending,
        }
        Poll::Ready(Some(Ok(Frame::data(vec![b'x'; pieces.size].into()))))
    }
}

/// Switches to a protocol that says everything again.
async fn echo(State(hub): State<Hub>, mut request: Request) -> Response {
    let switched = hyper::upgrade::on(&mut request);
    hub.shutdown.spawn(async move {
        let Ok(switched) = switched.await else { return };
        let (mut heard, mut said) = tokio::io::split(TokioIo::new(switched));
        let _hung_up = tokio::io::copy(&mut heard, &mut said).await;
    });
    (StatusCode::SWITCHING_PROTOCOLS, [("connection", "upgrade"), ("upgrade", "echo")]).into_response()
}

/// A server of streams with room for one connection that carries requests.
async fn serve_streams(app: &App, streams: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let body = |size, left| get(async move || Body::new(Pieces { size, left }));
    let router = Router::new()
        .route("/short", get(async || "short"))
        .route("/pause", body(5, 1))
        .route("/flood", body(1 << 20, usize::MAX))
        .route("/echo", get(echo))
        .layer(axum::middleware::from_fn_with_state(app.hub.clone(), around))
        .with_state(app.hub.clone());
    // Only the end of the process may cut off a caller that reads nothing.
    let write_timeout = Duration::from_secs(600);
    let allowance = Allowance { connections: 1, streams, write_timeout, ..Allowance::default() };
    server::start_with(allowance, listener, router, &app.hub.shutdown);
    address
}

const ECHO: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "echo")];

/// An answer that is a stream gives its place among the requests to others, takes one of the streams for as long as it
/// lasts, and is refused when there is none; what is no stream goes on.
#[tokio::test]
async fn streams_have_a_budget_of_their_own() {
    let app = App::new().await;
    let address = serve_streams(&app, 2).await;
    let ask = async |wire: &mut Wire, path: &str, headers: &[(&str, &str)]| {
        wire.send(&request("GET", path, headers, b"")).await;
        wire.reply().await.expect("an answer")
    };
    let mut body = Wire::to(&app, address).await;
    let begun = ask(&mut body, "/pause", &[]).await;
    assert_eq!((begun.status, begun.header("connection"), begun.header("content-length")), (200, "close", ""));
    // The one place for requests is free again: otherwise this one would not be served.
    let mut echo = Wire::to(&app, address).await;
    assert_eq!(ask(&mut echo, "/short", &[]).await.text, "short");
    assert_eq!(ask(&mut echo, "/echo", &ECHO).await.status, 101);
    let mut third = Wire::to(&app, address).await;
    for (path, headers) in [("/pause", &[][..]), ("/echo", &ECHO)] {
        let refused = ask(&mut third, path, headers).await;
        assert_eq!((refused.status, refused.body["reason"].as_str()), (503, Some("queue_unavailable")), "{path}");
        assert_eq!(refused.body["requestId"], refused.header("x-request-id"), "{path}");
    }
    third.send(&request("HEAD", "/pause", &[], b"")).await;
    assert_eq!(third.reply_without_body().await.unwrap().status, 200, "nothing of it is sent");
    assert_eq!(ask(&mut third, "/short", &[]).await.text, "short", "a refused stream does not end its connection");
    // A stream whose caller is gone makes room for another; asking is the only wait.
    drop(body);
    let again = timeout(PATIENCE, async { while ask(&mut third, "/pause", &[]).await.status != 200 {} });
    again.await.expect("a place");
    app.done().await;
}

/// After an answer of 101 the bytes are another protocol's: nothing is read as a request any more.
#[tokio::test]
async fn what_follows_a_switch_of_protocols_is_passed_on_as_it_is() {
    let app = App::new().await;
    let mut wire = Wire::to(&app, serve_streams(&app, 1).await).await;
    wire.send(&request("GET", "/echo", &ECHO, b"")).await;
    let switched = wire.reply().await.unwrap();
    assert_eq!((switched.status, switched.header("connection")), (101, "upgrade"));
    let odd = b"LF alone\n\0\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n\n\xff";
    wire.send(odd).await;
    let mut back = vec![0; odd.len()];
    timeout(PATIENCE, wire.0.read_exact(&mut back)).await.expect("an echo").unwrap();
    assert_eq!(back, odd);
    app.done().await;
}

/// Streams end when the process stops, whether they have anything to say or their callers read it: nothing is left
/// behind, and the program exits with 0 within its grace.
#[tokio::test]
async fn a_stop_ends_streams() {
    let app = App::new().await;
    let address = serve_streams(&app, 3).await;
    let mut wires = Vec::new();
    for (path, headers, status) in [("/pause", &[][..], 200), ("/echo", &ECHO, 101), ("/flood", &[], 200)] {
        let mut wire = Wire::to(&app, address).await;
        wire.send(&request("GET", path, headers, b"")).await;
        assert_eq!(wire.reply().await.unwrap().status, status, "{path}");
        wires.push(wire);
    }
    app.hub.shutdown.stop();
    let mut rest = String::new();
    timeout(PATIENCE, wires[0].0.read_to_string(&mut rest)).await.expect("an end").unwrap();
    assert_eq!(rest, "5\r\nxxxxx\r\n0\r\n\r\n", "a body has an end, too");
    assert!(wires[1].ends().await);
    // Waits until no task is left; the last caller is still there and reads nothing.
    app.done().await;
}

/// A body that never comes does not keep a process from stopping in time.
#[tokio::test]
async fn a_stop_does_not_wait_for_a_body_that_never_comes() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let whole = post(&email("kim@example.com"));
    let (first, _never) = whole.split_at(whole.len() - 5);
    wire.send(first).await;
    app.get("/healthz").await.expect(200);
    app.hub.shutdown.stop();
    assert_eq!(wire.reply().await.map_or(503, |r| r.status), 503);
    app.done().await;
}

/// What a hub that stops says of itself is for whoever sends it requests: not here any more.
#[tokio::test]
async fn a_hub_that_stops_is_not_ready_and_answers_what_it_began() {
    let app = App::new().await;
    let mut wire = Wire::open(&app).await;
    let whole = post(&email("kim@example.com"));
    let (first, rest) = whole.split_at(whole.len() - 5);
    wire.send(&request("GET", "/healthz", &[], b"")).await;
    assert_eq!(wire.reply().await.unwrap().status, 200);
    wire.send(first).await;
    // The request has begun for certain once another connection, opened later, was served.
    app.get("/healthz").await.expect(200);
    app.hub.shutdown.stop();
    wire.send(rest).await;
    let reply = wire.reply().await;
    let stored = app.count("select count(*) from messages").await;
    assert_eq!(reply.map(|r| r.status == 202), Some(stored == 1), "an answer says what was done");
    assert!(wire.ends().await);
    app.done().await;
}
