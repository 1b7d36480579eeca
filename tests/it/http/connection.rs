//! Connections: framing, bounds, refusals before the body, and callers that hang up.

use std::net::SocketAddr;
use std::time::Duration;

use notihub::api;
use notihub::http::server::{self, ServerLimits};
use serde_json::json;
use tokio::io::{AsyncWriteExt as _, BufStream, Interest};
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::timeout;

use crate::support::app::{App, email};
use crate::support::wire::{PATIENCE, Wire, post, request};

/// S3-27: one connection carries many requests, also such as do not wait for each other's answers.
#[tokio::test]
async fn connection_carries_many_requests() {
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
async fn request_of_two_readings_is_refused_and_its_connection_closed() {
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

/// Fault B4 (RFC 9112 2.2, 6.1, 6.3): a request that the HTTP library would read in its own way is answered 400, behind
/// the answer to the right request before it, and nothing after it is read.
#[tokio::test]
async fn request_that_the_library_would_forgive_is_refused_in_order() {
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
async fn body_too_large_is_answered_before_the_connection_closes() {
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
async fn serve(app: &App, allowance: ServerLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    server::start_with(allowance, listener, api::router(&app.hub), &app.hub.shutdown);
    address
}

/// Fault B1: a caller that asks and reads nothing is cut off once the socket has taken nothing for the allowed time,
/// with all that is held for it, signed in or not.
#[tokio::test]
async fn caller_that_reads_nothing_is_disconnected() {
    let app = App::new().await;
    assert_eq!(ServerLimits::default().write_timeout, Duration::from_secs(30));
    let address =
        serve(&app, ServerLimits { write_timeout: Duration::from_millis(200), ..ServerLimits::default() }).await;
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

/// Fault B1: an address has a bound of connections that are not signed in; a further one is turned away at once.
/// Signing in makes room, and other addresses have room of their own.
#[tokio::test]
async fn address_has_a_bound_of_unauthenticated_connections() {
    let app = App::new().await;
    assert_eq!(ServerLimits::default().unauthenticated_per_network, Some(256));
    let address = serve(&app, ServerLimits { unauthenticated_per_network: Some(3), ..ServerLimits::default() }).await;
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
async fn body_in_chunks_is_read() {
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

/// A caller that asks before it sends a body has its refusal before it sent it.
#[tokio::test]
async fn refusal_does_not_wait_for_the_body() {
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

/// A caller that hangs up in the middle of its request leaves nothing behind, and disturbs no other.
#[tokio::test]
async fn request_cut_in_the_middle_leaves_nothing() {
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
async fn message_whose_caller_hung_up_is_stored_once() {
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

/// The answer to a wrong method names the right ones, in the same shape as every refusal.
#[tokio::test]
async fn method_that_is_wrong_is_answered_405_with_the_right_ones() {
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
        let output =
            (reply.status, reply.body["reason"].as_str().unwrap_or_default(), reply.header("allow").to_owned());
        assert_eq!(output, (405, "method_not_allowed", allow.to_owned()), "{method} {path}");
        assert_eq!(reply.header("content-type"), "application/problem+json", "{method} {path}");
    }
    let mut wire = Wire::open(&app).await;
    wire.send(&request("CONNECT", "example.com:443", &[], b"")).await;
    assert!(matches!(wire.reply().await.map_or(404, |r| r.status), 404 | 405), "no tunnel to anywhere");
    app.done().await;
}

/// Every answer names its request, and is not to be cached.
#[tokio::test]
async fn answer_names_its_request_and_is_not_cached() {
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
