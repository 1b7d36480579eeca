//! No way inside, and what goes out: webhooks against hostile URLs, names and endpoints. Loopback has addresses enough
//! to play both parts: 127.0.0.2 is a partner's server, which the settings allow; on 127.0.0.1, which they do not,
//! stands a canary, and whatever reaches it is a hole.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as Canary};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use notihub::id::Tsid;
use notihub::model::delivery::{DeliveryKey, Outcome};
use notihub::model::egress::{self, EgressRules};
use notihub::model::message::Content;
use notihub::model::retry::ErrorClass;
use notihub::model::signature;
use notihub::provider::guard::NameResolver;
use notihub::provider::http::{ClientSettings, ConnectionPolicy};
use notihub::provider::webhook::{Webhook, WebhookSettings};
use notihub::provider::{BoxFuture, Extra, Provider as _, SendRequest, WebhookRequest};
use notihub::shutdown::Shutdown;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::app::App;
use crate::webhook::SECRET;

const BUDGET: Duration = Duration::from_secs(10);

/// For what is to run out of time: long enough to come as far as it should on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);

const PARTNERS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// What a name leads to, in turns.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Names {
    fn of(answers: &[&[&str]]) -> Arc<Names> {
        let answers = answers.iter().map(|all| all.iter().map(|ip| ip.parse().unwrap()).collect()).collect();
        Arc::new(Names { answers, asked: AtomicUsize::new(0) })
    }
}

impl NameResolver for Names {
    fn resolve(&self, _name: &str) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed) % self.answers.len();
        let answer = self.answers[turn].clone();
        let none = || io::Error::new(io::ErrorKind::NotFound, "no such name: SECRET-CAUSE");
        Box::pin(async move { if answer.is_empty() { Err(none()) } else { Ok(answer) } })
    }
}

fn partners_only() -> EgressRules {
    EgressRules { allow: vec![IpAddr::V4(PARTNERS).into()], allow_http: true, ..EgressRules::default() }
}

fn settings(rules: EgressRules, common: ClientSettings) -> WebhookSettings {
    WebhookSettings { rules, connections: ConnectionPolicy::KeepAlive, common }
}

fn webhook(lookup: Arc<Names>, call_budget: Duration) -> Webhook {
    let _already = rustls::crypto::ring::default_provider().install_default();
    Webhook::with_resolver(settings(partners_only(), ClientSettings::with_budget(call_budget)), lookup).unwrap()
}

fn request(url: &str) -> WebhookRequest {
    WebhookRequest {
        partner_id: Tsid(1),
        url: url.to_owned(),
        event_id: "0000000000002-1-1".to_owned(),
        body: br#"{"eventId":"0000000000002-1-1"}"#.to_vec(),
        headers: BTreeMap::new(),
        secret: SECRET.to_owned(),
        former_secret: None,
        timestamp: 1_800_000_000,
    }
}

async fn send(webhook: &Webhook, request: &WebhookRequest) -> Outcome {
    let content = Content::default();
    let letter = SendRequest {
        channel: notihub::model::channel::Channel::Webhook,
        key: DeliveryKey { shard: 0, message_id: Tsid(2), no: 1 },
        attempt: 1,
        kind: "delivery.sent",
        to: "0000000000009",
        content: &content,
        created_at: chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        extra: Extra::Webhook(request),
    };
    webhook.send(letter).await
}

/// One request as it came, its head in small letters.
#[derive(Debug, Clone)]
struct Seen {
    head: String,
    body: Vec<u8>,
}

impl Seen {
    /// The header's only value.
    #[track_caller]
    fn header(&self, name: &str) -> &str {
        let named = self.head.lines().filter_map(|line| line.split_once(": ")).filter(|(n, _)| *n == name);
        let values: Vec<&str> = named.map(|(_, value)| value).collect();
        assert_eq!(values.len(), 1, "{name} in {}", self.head);
        values[0]
    }
}

/// A partner's server, which answers every request with the same bytes.
struct Peer {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
    shutdown: Shutdown,
}

impl Peer {
    async fn answering(answer: impl Into<Vec<u8>>) -> Peer {
        let (answer, endless) = (answer.into(), b"");
        Peer::start(answer, endless).await
    }

    /// Answers, and then goes on with that for as long as it is listened to.
    async fn start(answer: Vec<u8>, endless: &'static [u8]) -> Peer {
        let listener = TcpListener::bind((PARTNERS, 0)).await.unwrap();
        let peer = Peer {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
            shutdown: Shutdown::new(),
        };
        let (seen, connections, shutdown) = (peer.seen.clone(), peer.connections.clone(), peer.shutdown.clone());
        peer.shutdown.spawn(async move {
            loop {
                let accepted = tokio::select! { a = listener.accept() => a, () = shutdown.stopping() => return };
                let (mut stream, _) = accepted.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                let (seen, answer) = (seen.clone(), answer.clone());
                let stopping = shutdown.clone();
                shutdown.spawn(async move {
                    let serve = async {
                        while let Some(request) = read(&mut stream).await {
                            seen.lock().unwrap().push(request);
                            if stream.write_all(&answer).await.is_err() {
                                return;
                            }
                            while !endless.is_empty() && stream.write_all(endless).await.is_ok() {
                                // Drips, or floods: as fast as it is read.
                                if endless.len() == 1 {
                                    tokio::time::sleep(Duration::from_millis(10)).await;
                                }
                            }
                            if String::from_utf8_lossy(&answer).to_ascii_lowercase().contains("connection: close") {
                                return;
                            }
                        }
                    };
                    tokio::select! { () = serve => (), () = stopping.stopping() => () }
                });
            }
        });
        peer
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/hook", self.address.port())
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// On the same port, at an address that no request may reach.
    fn canary(&self) -> Canary {
        canary(self.address.port())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}

fn canary(port: u16) -> Canary {
    let canary = Canary::bind((INSIDE, port)).unwrap();
    canary.set_nonblocking(true).unwrap();
    canary
}

/// The kernel makes connections whether they are accepted or not: none is waiting, so none was made.
#[track_caller]
fn unharmed(canary: &Canary) {
    assert_eq!(canary.accept().map(|(_, from)| from).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map(str::parse::<usize>);
            let length = length.unwrap_or(Ok(0)).unwrap();
            if bytes.len() >= end + 4 + length {
                return Some(Seen { head, body: bytes.split_off(end + 4) });
            }
        }
        if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
            return None;
        }
    }
}

fn plain(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Said\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

#[track_caller]
fn rejected(outcome: Outcome) -> (ErrorClass, String, String, Option<Duration>) {
    match outcome {
        Outcome::Rejected { class, code, detail, retry_after } => (class, code, detail, retry_after),
        other => panic!("expected a rejection, got {other:?}"),
    }
}

fn nowhere() -> Arc<Names> {
    Names::of(&[&[]])
}

/// S0-44: every way to write an address inside, and every way to make a URL read as two.
#[test]
fn egress_url_of_an_inside_address_is_refused_in_any_spelling() {
    let table = [
        (
            "url_host_not_allowed",
            "https://127.0.0.1/ https://2130706433/ https://0177.0.0.1/ https://0177.1/ https://0x7f.1/ \
                https://0x7f000001/ \
             https://017700000001/ https://127.1/ https://127.0.1/ https://0/ https://0.0.0.0/ https://127.0.0.1./ \
             https://１２７.０.０.１/ https://①②⑦.⓪.⓪.①/ https://127。0。0。1/ https://127．0．0．1/ https://127｡0｡0｡1/ \
             https://%31%32%37.0.0.1/ https://12%37.0.0.1/ https://169.254.169.254/latest/meta-data/ \
             https://2852039166/ https://0xa9fea9fe/ https://0251.0376.0251.0376/ https://169.254.43518/ \
             https://100.100.100.200/ https://168.63.129.16/ https://10.0.0.1/ https://192.168.1.1/ \
                 https://172.31.0.1/ \
             https://[::1]/ https://[::]/ https://[0:0:0:0:0:0:0:1]/ https://[::127.0.0.1]/ \
                 https://[::ffff:127.0.0.1]/ \
             https://[::ffff:7f00:1]/ https://[::ffff:a9fe:a9fe]/ https://[::FFFF:169.254.169.254]/ \
                 https://[::ffff:0:7f00:1]/ \
             https://[64:ff9b::a9fe:a9fe]/ https://[64:ff9b:1::10.0.0.1]/ https://[2002:7f00:1::]/ \
                 https://[2002:a9fe:a9fe::1]/ \
             https://[2001:0:7f00:1::]/ https://[fe80::1]/ https://[fec0::1]/ https://[fc00::1]/ \
                 https://[fd00:ec2::254]/ \
             https://[ff02::1]/ https://[100::1]/ https://[2001:db8::1]/ https://[2606:4700::5efe:10.0.0.1]/ \
             https://localhost/ https://LOCALHOST/ https://ＬＯＣＡＬＨＯＳＴ/ https://localhost./ https://a.localhost/ \
             https://ip6-localhost/ https://metadata.google.internal/ https://metadata/ https://printer.local/ \
             https://router.home.arpa/ https://example.com./ https://intranet/",
        ),
        (
            "url_userinfo",
            "https://good.example@169.254.169.254/ https://user:password@example.com/ https://@example.com/ \
             https://:@example.com/ https://example.com:443@127.0.0.1/ https://a@b@127.0.0.1/ https://%40@example.com/",
        ),
        (
            "url_invalid",
            "https://[fe80::1%25eth0]/ https://[fe80::1%eth0]/ https://[::1 https://1.2.3.4.5/ https://256.0.0.1/ \
             https://0x100000000/ https://127.0.0.1%00.example.com/ https://exa%0Ample.com/ https:example.com \
             https:/example.com/ https:///example.com/ example.com //example.com/ / https:// https://exa<mple.com/ \
             https://example.com:99999/ https://example.com:https/ https://example.com\\@127.0.0.1/ \
                 https:\\\\example.com/ \
             https://127.0.0.1\\.example.com/ https://example.com/%zz",
        ),
        (
            "url_scheme",
            "http://example.com/ ftp://example.com/ file:///etc/passwd gopher://127.0.0.1:6379/_x ws://example.com/ \
             javascript:alert(1) data:text/plain,x unix:/run/x.sock jar:https://example.com/!/ HTTP://127.0.0.1/",
        ),
        ("url_fragment", "https://example.com/# https://example.com/#@127.0.0.1/ https://example.com#/"),
        (
            "url_port",
            "https://example.com:22/ https://example.com:0/ https://example.com:25/ https://example.com:1023/ \
             https://example.com:6/",
        ),
    ];
    for (reason, urls) in table {
        for url in urls.split_whitespace() {
            let why = egress::parse_url(url, &EgressRules::default()).expect_err(url);
            assert_eq!(why.reason, reason, "{url}: {}", why.detail);
            for secret in ["127.0.0.1", "169.254", "10.0.0", "loopback", "metadata"] {
                assert!(!why.detail.contains(secret), "{url}: {}", why.detail);
            }
        }
    }
    let spaced =
        ["https://exa\tmple.com/", "https://example.com/\n", " https://example.com/", "https://127.0.0.1\r\n/"];
    let blank =
        ["https://example.com/a b", "https://exa mple.com/", "https://example.com\u{200b}@x/ ", "\u{0}https://a.b/"];
    for url in spaced.into_iter().chain(blank) {
        assert_eq!(egress::parse_url(url, &EgressRules::default()).expect_err(url).reason, "url_invalid", "{url:?}");
    }
    let long = format!("https://example.com/{}", "a".repeat(egress::URL_BYTES));
    let long_when_encoded = format!("https://example.com/{}", "é".repeat(500));
    for url in [long, long_when_encoded] {
        assert_eq!(egress::parse_url(&url, &EgressRules::default()).unwrap_err().reason, "url_invalid");
    }
}

/// S0-44: webhooks are served, and still nothing can be posted there.
#[tokio::test]
async fn message_over_webhook_is_refused() {
    let app = App::new().await;
    let message = json!({"type": "T", "body": "b", "channels": [{"channel": "WEBHOOK", "to": "https://example.com/"}]});
    assert_eq!(app.post("/v1/messages", message).await.refused(400, "channel_unavailable").body["code"], "E005");
    let about = app.get("/about").await.expect(200);
    assert!(!about.text.contains("WEBHOOK"), "{}", about.text);
    app.done().await;
}

/// S0-44: a name that changes its mind between the look and the leap, or says both at once, ten thousand times.
#[tokio::test]
async fn egress_name_that_resolves_inside_now_and_then_is_never_called_there() {
    let peer = Peer::answering(plain(204, "Connection: close\r\n", "")).await;
    let canary = peer.canary();
    let answers: &[&[&str]] = &[
        &["127.0.0.2"],
        &["127.0.0.1"],
        &["127.0.0.2", "127.0.0.1"],
        &["127.0.0.1", "127.0.0.2"],
        &["::ffff:127.0.0.1"],
        &["127.0.0.2", "::1"],
        &["::127.0.0.1", "127.0.0.2"],
        &["::ffff:127.0.0.2"],
        &["64:ff9b::127.0.0.1"],
        &["0.0.0.0"],
        &["169.254.169.254", "127.0.0.2"],
    ];
    let names = Names::of(answers);
    let webhook = webhook(names.clone(), BUDGET);
    let (rebinding, mut taken) = (request(&peer.url("rebind.example.com")), 0);
    for turn in 0..10_000 {
        let outcome = send(&webhook, &rebinding).await;
        let good = [0, 7].contains(&(turn % answers.len()));
        if good {
            assert_eq!(outcome, Outcome::Accepted { provider_ref: Some("HTTP 204".to_owned()) }, "{turn}");
            taken += 1;
        } else {
            assert_eq!(rejected(outcome).0, ErrorClass::EndpointForbidden, "{turn}");
        }
    }
    assert_eq!(names.asked.load(Ordering::Relaxed), 10_000, "each connection asks, and asks once");
    assert_eq!((peer.seen().len(), peer.connections.load(Ordering::SeqCst)), (taken, taken));
    unharmed(&canary);
}

/// S0-44: a refusal is the same word whatever stands behind the address: a service, a closed port, nothing.
#[tokio::test]
async fn egress_to_an_inside_address_is_refused_in_one_word() {
    let peer = Peer::answering(plain(204, "", "")).await;
    let canary = peer.canary();
    let (open, closed) = (peer.address.port(), 9);
    let inside = webhook(Names::of(&[&["127.0.0.1"]]), BUDGET);
    let mut outcomes = Vec::new();
    for port in [open, closed + 1024] {
        for host in
            ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "127.1", "0.0.0.0", "localhost", "10.1.2.3"]
        {
            outcomes.push(send(&inside, &request(&format!("http://{host}:{port}/"))).await);
        }
        outcomes.push(send(&inside, &request(&format!("http://inside.example.com:{port}/"))).await);
    }
    let (class, code, detail, _) = rejected(outcomes[0].clone());
    assert_eq!((class, code.as_str()), (ErrorClass::EndpointForbidden, "endpoint_not_allowed"));
    assert_eq!(detail, "the endpoint's URL leads to an address that is not allowed");
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?}");
    // The operator took back http since the endpoint was made.
    let strict = settings(EgressRules { allow_http: false, ..partners_only() }, ClientSettings::with_budget(BUDGET));
    let strict = Webhook::with_resolver(strict, Names::of(&[&["127.0.0.2"]])).unwrap();
    assert_eq!(send(&strict, &request(&peer.url("127.0.0.2"))).await, outcomes[0]);
    unharmed(&canary);
    assert_eq!(peer.connections.load(Ordering::SeqCst), 0);
}

/// S0-44: a refused connection, an unknown name, a server without TLS and a foreign certificate are reported alike, so
/// that a network cannot be mapped through the hub.
#[tokio::test]
async fn egress_failure_to_connect_is_one_word() {
    let plain_text = Peer::answering(plain(400, "", "no TLS here")).await;
    let closed = TcpListener::bind((PARTNERS, 0)).await.unwrap().local_addr().unwrap().port();
    let silent = TcpListener::bind((PARTNERS, 0)).await.unwrap();
    let (webhook, nobody) = (webhook(Names::of(&[&["127.0.0.2"]]), SHORT), webhook(nowhere(), SHORT));
    let (tls, hangs) = (plain_text.address.port(), silent.local_addr().unwrap().port());
    let outcomes = [
        send(&webhook, &request(&format!("http://127.0.0.2:{closed}/"))).await,
        send(&webhook, &request(&format!("https://hooks.example.com:{closed}/"))).await,
        send(&nobody, &request("https://no.such.name.example.com/")).await,
        send(&webhook, &request(&format!("https://hooks.example.com:{tls}/"))).await,
        send(&webhook, &request(&format!("https://127.0.0.2:{tls}/"))).await,
        send(&webhook, &request(&format!("https://hooks.example.com:{hangs}/"))).await,
    ];
    let (class, code, detail, _) = rejected(outcomes[0].clone());
    assert_eq!((class, code.as_str()), (ErrorClass::Unreachable, "endpoint_unreachable"));
    assert_eq!(detail, "the endpoint could not be reached: check its name, its port and its certificate");
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?}");
}

/// S0-44: redirects are failures, wherever they lead.
#[tokio::test]
async fn egress_redirect_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let decoy = TcpListener::bind((INSIDE, 0)).await.unwrap();
        let inside = decoy.local_addr().unwrap();
        drop(decoy);
        let canary = canary(inside.port());
        let peer = Peer::answering(plain(status, &format!("Location: http://{inside}/admin\r\n"), "see there")).await;
        let webhook = webhook(nowhere(), BUDGET);
        let (class, code, detail, _) = rejected(send(&webhook, &request(&peer.url("127.0.0.2"))).await);
        assert_eq!((class, code), (ErrorClass::EndpointRefused, format!("http_{status}")));
        assert!(detail.contains("redirects are not followed") && !detail.contains("127"), "{detail}");
        assert_eq!(peer.seen().len(), 1);
        unharmed(&canary);
    }
}

/// S0-44, S0-46: each answer of an endpoint has its outcome.
#[tokio::test]
async fn egress_answer_has_its_outcome() {
    for status in [200, 201, 202, 204, 206, 299] {
        let peer = Peer::answering(plain(status, "", "")).await;
        let outcome = send(&webhook(nowhere(), BUDGET), &request(&peer.url("127.0.0.2"))).await;
        assert_eq!(outcome, Outcome::Accepted { provider_ref: Some(format!("HTTP {status}")) });
    }
    let refused = ErrorClass::EndpointRefused;
    for (status, headers, class, pause) in [
        (400, "", refused, None),
        (401, "", refused, None),
        (404, "", refused, None),
        (410, "", ErrorClass::EndpointGone, None),
        (429, "Retry-After: 120\r\n", ErrorClass::Throttled, Some(120)),
        (500, "", refused, None),
        (503, "Retry-After: 999999999\r\n", refused, Some(86_400)),
        (503, "Retry-After: soon\r\n", refused, None),
    ] {
        let peer = Peer::answering(plain(status, headers, "why\u{0}\u{1b}[31m not\u{7f}\r\nreally")).await;
        let outcome = rejected(send(&webhook(nowhere(), BUDGET), &request(&peer.url("127.0.0.2"))).await);
        let pause = pause.map(Duration::from_secs);
        assert_eq!(outcome, (class, format!("http_{status}"), "why[31m not\nreally".to_owned(), pause));
    }
    let nothing = Peer::answering("").await;
    let webhook = webhook(nowhere(), SHORT);
    let outcome = send(&webhook, &request(&nothing.url("127.0.0.2"))).await;
    assert!(matches!(outcome, Outcome::Unknown { code: "no_answer", .. }), "{outcome:?}");
    let cut = Peer::answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\nok").await;
    let outcome = send(&webhook, &request(&cut.url("127.0.0.2"))).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "the status decides: {outcome:?}");
}

/// S0-44: an endpoint cannot hold us longer, or have us read more, than it should.
#[tokio::test]
async fn egress_answer_is_bounded_in_time_and_size() {
    let webhook = webhook(nowhere(), SHORT);
    let head = "HTTP/1.1 500 Oh\r\nContent-Length: 1000000000\r\n\r\n";
    let flood = Peer::start(head.into(), "é".repeat(4096).leak().as_bytes()).await;
    let (class, _, detail, _) = rejected(send(&webhook, &request(&flood.url("127.0.0.2"))).await);
    assert_eq!((class, detail.len(), detail.as_str()), (ErrorClass::EndpointRefused, 1024, "é".repeat(512).as_str()));

    let drip = Peer::start("HTTP/1.1 200 OK\r\nx-header: ".into(), b"x").await;
    let outcome = send(&webhook, &request(&drip.url("127.0.0.2"))).await;
    assert!(matches!(outcome, Outcome::Unknown { code: "no_answer", .. }), "no status: {outcome:?}");
    let drip = Peer::start("HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".into(), b"x").await;
    let outcome = send(&webhook, &request(&drip.url("127.0.0.2"))).await;
    assert!(matches!(outcome, Outcome::Accepted { .. }), "a status: {outcome:?}");

    // 180,000 bytes once inflated.
    let small = "H4sIAAAAAAACA+3GsQkAIAwAsFf6WqEWCuLk/3iHkEyZ0zvvqhgRERERERERERERERERERERERERERERERERERERERERERERERE\
        RERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERE\
            RERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERE\
                RERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERE\
                    RERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERERE\
                        RERERERH5IQ+PVV1sIL8CAA==";
    let small = data_encoding::BASE64.decode(small.as_bytes()).unwrap();
    let answer = format!("HTTP/1.1 500 Oh\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n", small.len());
    let bomb = Peer::answering([answer.into_bytes(), small].concat()).await;
    let (_, _, detail, _) = rejected(send(&webhook, &request(&bomb.url("127.0.0.2"))).await);
    assert!(!detail.contains("inflated inflated") && detail.len() <= 1024, "{detail}");
    assert!(!bomb.seen()[0].head.contains("accept-encoding"), "nothing compressed is asked for");
}

/// S0-45, S0-48, S0-49: a request carries the event's bytes and both signatures over them; what its owner adds
/// overrides none of ours, and begins no line of its own.
#[tokio::test]
async fn egress_request_is_signed_and_nothing_is_injected() {
    let peer = Peer::answering(plain(200, "", "ok")).await;
    let own = [
        ("Authorization", "Bearer partner's"),
        ("X-Tenant", "7"),
        ("Host", "inside.example.com"),
        ("X-Signature", "forged"),
        ("webhook-id", "forged"),
        ("Webhook-Signature", "v1,forged"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Type", "text/plain"),
        ("User-Agent", "forged"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Split", "a\r\nX-Injected: yes"),
        ("X-Bare", "a\nX-Injected: yes"),
        ("X-Name: x\r\nX-Injected", "yes"),
        ("X-Nul", "a\0b"),
    ];
    let headers = own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let request =
        WebhookRequest {
            headers, body: "{\"x\":\"알림 \\u0000\"}".into(), ..request(&peer.url("hooks.example.com"))
        };
    let webhook = webhook(Names::of(&[&["127.0.0.2"]]), BUDGET);
    assert!(matches!(send(&webhook, &request).await, Outcome::Accepted { .. }));
    let seen = peer.seen().pop().unwrap();
    assert_eq!(seen.body, request.body);
    assert_eq!(seen.header("host"), format!("hooks.example.com:{}", peer.address.port()), "the name, not its address");
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("content-length"), request.body.len().to_string());
    assert_eq!(seen.header("user-agent"), concat!("notihub/", env!("CARGO_PKG_VERSION")));
    assert_eq!((seen.header("authorization"), seen.header("x-tenant")), ("bearer partner's", "7"));
    assert_eq!((seen.header("webhook-id"), seen.header("webhook-timestamp")), ("0000000000002-1-1", "1800000000"));
    assert_eq!(seen.header("x-timestamp"), "1800000000");
    assert_eq!(seen.header("x-signature"), signature::seed_signature(SECRET, request.timestamp, &seen.body));
    let standard = signature::standard_signature(SECRET, &request.event_id, request.timestamp, &seen.body).unwrap();
    assert_eq!(seen.header("webhook-signature"), standard.to_lowercase());
    for absent in ["injected", "forged", "transfer-encoding", "x-forwarded-for", "x-nul", "accept-encoding", "referer"]
    {
        assert!(!seen.head.contains(absent), "{absent} in {}", seen.head);
    }
}

/// S0-44: connections are used again, and never for another partner.
#[tokio::test]
async fn egress_connection_is_not_shared_by_partners() {
    let peer = Peer::answering(plain(200, "", "ok")).await;
    let names = Names::of(&[&["127.0.0.2"]]);
    let webhook = webhook(names.clone(), BUDGET);
    for partner_id in [1, 1, 2, 2, 1].map(Tsid) {
        let request = WebhookRequest { partner_id, ..request(&peer.url("shared.example.com")) };
        assert!(matches!(send(&webhook, &request).await, Outcome::Accepted { .. }));
    }
    let (connections, asked) = (peer.connections.load(Ordering::SeqCst), names.asked.load(Ordering::Relaxed));
    assert_eq!((peer.seen().len(), connections, asked), (5, 2, 2));
}

/// S0-44: over TLS an endpoint proves the name in its URL, though we found its address ourselves.
#[tokio::test]
async fn egress_endpoint_proves_its_name_over_tls() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let _already = rustls::crypto::ring::default_provider().install_default();
    let mut authority = CertificateParams::new([]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca_file = std::env::temp_dir().join(format!("notihub-egress-{}.pem", std::process::id()));
    std::fs::write(&ca_file, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(["hooks.example.com".to_owned()]).unwrap();
    let server = server.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![server.der().clone()], key);
    let tls = Arc::new(tls.unwrap());
    let listener = std::net::TcpListener::bind((PARTNERS, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let mut asked = Vec::new();
        // Four come: each proves itself as it can.
        for stream in listener.incoming().take(4) {
            let session = rustls::ServerConnection::new(tls.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            let mut request = [0; 4096];
            if io::Read::read(&mut stream, &mut request).is_ok_and(|read| read > 0) {
                asked.push(stream.conn.server_name().map(str::to_owned));
                let answer = plain(200, "Connection: close\r\n", "ok");
                io::Write::write_all(&mut stream, answer.as_bytes()).unwrap();
                stream.conn.send_close_notify();
                let _gone = io::Write::flush(&mut stream);
            }
        }
        asked
    });
    let webhook = |ca_file| {
        let settings = settings(partners_only(), ClientSettings { ca_file, ..ClientSettings::with_budget(BUDGET) });
        Webhook::with_resolver(settings, Names::of(&[&["127.0.0.2"]])).unwrap()
    };
    let good = webhook(Some(ca_file.clone()));
    let url = |host: &str| request(&format!("https://{host}:{port}/"));
    assert!(matches!(send(&good, &url("hooks.example.com")).await, Outcome::Accepted { .. }));
    for (webhook, host) in [(&good, "other.example.com"), (&good, "127.0.0.2"), (&webhook(None), "hooks.example.com")] {
        assert_eq!(rejected(send(webhook, &url(host)).await).1, "endpoint_unreachable", "{host}");
    }
    assert_eq!(served.join().unwrap(), [Some("hooks.example.com".to_owned())]);
    std::fs::remove_file(ca_file).unwrap();
}
