//! A connection that is spoken by hand.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::app::App;

/// A connection spoken by hand.
pub struct Wire(pub BufStream<TcpStream>, pub String);

/// Only a server that never answers takes so long; nothing is measured by it.
pub const PATIENCE: Duration = Duration::from_secs(20);

impl Wire {
    pub async fn open(app: &App) -> Wire {
        Wire::to(app, app.address).await
    }

    /// To another server of the same app.
    pub async fn to(app: &App, address: SocketAddr) -> Wire {
        let signed = format!("Host: hub\r\nAuthorization: Bearer {}\r\n", app.token);
        Wire(BufStream::new(TcpStream::connect(address).await.expect("a connection")), signed)
    }

    /// Every request is signed after its host, unless it brings a header of its own. A server that hangs up while we
    /// write is found out by what we read next.
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

    pub async fn read(&mut self, with_body: bool) -> Option<Reply> {
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

pub const JSON: (&str, &str) = ("Content-Type", "application/json");

pub fn post(body: &Value) -> Vec<u8> {
    request("POST", "/v1/messages", &[JSON], body.to_string().as_bytes())
}
