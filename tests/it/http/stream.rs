//! Streams: a budget of their own, switched protocols, and an end when the process stops.

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
use notihub::http::request::wrap_request;
use notihub::http::server::{self, ServerLimits};
use notihub::hub::Hub;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::support::app::App;
use crate::support::wire::{PATIENCE, Wire, request};

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
        let (mut heard, mut output) = tokio::io::split(TokioIo::new(switched));
        let _hung_up = tokio::io::copy(&mut heard, &mut output).await;
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
        .layer(axum::middleware::from_fn_with_state(app.hub.clone(), wrap_request))
        .with_state(app.hub.clone());
    // Only the end of the process may cut off a caller that reads nothing.
    let write_timeout = Duration::from_secs(600);
    let allowance = ServerLimits { connections: 1, streams, write_timeout, ..ServerLimits::default() };
    server::start_with(allowance, listener, router, &app.hub.shutdown);
    address
}

const ECHO: [(&str, &str); 2] = [("Connection", "Upgrade"), ("Upgrade", "echo")];

/// An answer that is a stream gives its place among the requests to others, takes one of the streams for as long as it
/// lasts, and is refused when there is none; what is no stream goes on.
#[tokio::test]
async fn stream_has_a_budget_of_its_own() {
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
async fn stream_after_a_switch_of_protocols_is_passed_on() {
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
async fn stream_ends_when_the_process_stops() {
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
