//! The HTTP client that all adapters use. Every call has a limit on its whole time, on the time to connect, and on the
//! bytes read of the response. It follows no redirects, uses no proxy from the environment, and never sends a request
//! twice.
//!
//! Its errors separate *definite* failures from *unknown* outcomes. Before the connection is established (name
//! resolution, TCP, TLS) the server cannot have read a byte of the request. After that, a missing response means that
//! the server may have processed the request.
//!
//! A URL can be a credential (Slack's webhook URLs are), so no error here shows one.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Datelike as _, Months, NaiveDateTime, Utc};
use reqwest::header::{CONNECTION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Certificate, Client, ClientBuilder, RequestBuilder, Response, Url};
use tokio::time::{Instant, timeout_at};

use crate::clock::Clock;
use crate::config::Settings;
use crate::error::{Error, Result, excerpt};
use crate::model::channel::OnUnknown;
use crate::model::delivery::Outcome;
use crate::model::retry::ErrorClass;

use super::guard::{AddressNotAllowed, GuardedResolver};

/// The code of a failure where a name resolved to an address that may not be called (`guard`).
pub(super) const NOT_ALLOWED: &str = "not_allowed";

/// The most bytes read of a response. Vendors' answers are short; anything longer is an error page.
pub(super) const RESPONSE_BYTES: usize = 64 * 1024;
/// The most bytes read of a response that lists something: the results of a thousand messages, or a page of messages
/// with their texts.
pub(super) const LIST_BYTES: usize = 4 << 20;

/// How long an idle connection is kept. Servers close idle ones after 75 s (nginx), 60 s (AWS's load balancers), 5 s
/// (Node, Apache) or 2 s (gunicorn). A request written while the server closes has an unknown outcome, so this is
/// shorter.
const IDLE_TIMEOUT: Duration = Duration::from_secs(1);

/// A longer `Retry-After` counts as this one. The retry policy's own ceiling is lower.
const MAX_RETRY_AFTER_SECONDS: f64 = 86_400.0;

/// What every HTTP client is built from.
#[derive(Clone)]
pub struct ClientSettings {
    /// The time limit of a call, from name resolution to the last byte read.
    pub call_budget: Duration,
    /// The part of it for name resolution, TCP and TLS, over all addresses of a host together.
    pub connect_budget: Duration,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The hub's clock, which follows the database's. Signatures and time ranges use it, so that they are right on a
    /// host whose own clock is off.
    pub clock: Clock,
}

impl ClientSettings {
    /// Takes budgets and CA file from the settings.
    pub fn from_settings(settings: &Settings, clock: &Clock) -> ClientSettings {
        ClientSettings {
            call_budget: settings.timing.call_budget(),
            connect_budget: settings.timing.connect_budget(),
            ca_file: settings.email.ca_file.clone(),
            clock: clock.clone(),
        }
    }

    /// Uses the system's clock and certificates; connecting may take half of `call_budget`.
    pub fn with_budget(call_budget: Duration) -> ClientSettings {
        ClientSettings { call_budget, connect_budget: call_budget / 2, ca_file: None, clock: Clock::system() }
    }
}

/// Whether a connection carries more than one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionPolicy {
    /// An idle connection is kept for a second and used again. If the server closes it while a request is on its way,
    /// the outcome is unknown; so this is for channels that send again after an unknown outcome.
    KeepAlive,
    /// One request for each connection: for channels that never send a message twice.
    Close,
}

impl ConnectionPolicy {
    /// Keeps connections only if a message with an unknown outcome is sent again.
    pub fn for_on_unknown(on_unknown: OnUnknown) -> ConnectionPolicy {
        if on_unknown == OnUnknown::Retry { ConnectionPolicy::KeepAlive } else { ConnectionPolicy::Close }
    }
}

/// Which part of a response says whether the vendor accepted the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DecidedBy {
    /// The status. The body is kept as far as it arrived, even if it was cut or too long.
    Status,
    /// The body, except for a status of 4xx, which refuses by itself. Without the whole body the outcome is unknown.
    Body,
}

/// An HTTP client with the limits of the module's head. Calls may run concurrently.
pub struct HttpClient {
    client: Client,
    clock: Clock,
    call_budget: Duration,
}

/// A response whose status arrived.
#[derive(Debug)]
pub struct HttpResponse {
    pub status: u16,
    /// The body, up to the limit of the call.
    pub body: Vec<u8>,
    /// The pause that `Retry-After` asks for, at most a day.
    pub retry_after: Option<Duration>,
}

/// A call without a response that decides. `code` is a stable word, `detail` a text for people.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The request cannot have reached the server.
    Definite { code: &'static str, detail: String },
    /// The server may have processed the request.
    Unknown { code: &'static str, detail: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Failure::Definite { code, detail } | Failure::Unknown { code, detail }) = self;
        write!(f, "{code}: {detail}")
    }
}

impl Failure {
    /// Converts to an outcome: `Rejected` with the class `Unreachable`, or `Unknown`.
    pub fn into_outcome(self) -> Outcome {
        match self {
            Failure::Definite { code, detail } => {
                Outcome::Rejected { class: ErrorClass::Unreachable, code: code.to_owned(), detail, retry_after: None }
            }
            Failure::Unknown { code, detail } => Outcome::Unknown { code, detail },
        }
    }
}

impl HttpClient {
    /// Builds a client. The process must have installed a default rustls provider.
    ///
    /// `tls`: whether any https URL will be called. If not, the system's certificates are not loaded, so that a machine
    /// without them can still use simulators.
    ///
    /// # Errors
    /// `Error::Usage` if the CA file cannot be read or holds no certificate; `Error::Setup` if the system has no
    /// certificates.
    pub fn new(common: &ClientSettings, connections: ConnectionPolicy, tls: bool) -> Result<HttpClient> {
        let client = with_certificates(client_builder(common, connections), common.ca_file.as_deref(), tls)?
            .build()
            .map_err(|error| {
                let why = root_cause(&error);
                Error::Setup(format!("no HTTP client: {why}; install the package ca-certificates, or name a CA file"))
            })?;
        Ok(HttpClient { client, clock: common.clock.clone(), call_budget: common.call_budget })
    }

    /// Builds a client for URLs that partners chose: `guard` resolves every name. Cheap, because the certificates in
    /// `tls` are loaded already.
    ///
    /// # Errors
    /// `Error::Internal` if the client cannot be built.
    pub(super) fn with_guard(
        common: &ClientSettings,
        connections: ConnectionPolicy,
        tls: rustls::ClientConfig,
        guard: Arc<GuardedResolver>,
    ) -> Result<HttpClient> {
        let builder = client_builder(common, connections).dns_resolver(guard).tls_backend_preconfigured(tls);
        let client =
            builder.build().map_err(|error| Error::Internal(format!("no HTTP client: {}", root_cause(&error))))?;
        Ok(HttpClient { client, clock: common.clock.clone(), call_budget: common.call_budget })
    }

    /// Sends one POST with a JSON body, and reads at most `RESPONSE_BYTES` of the response.
    ///
    /// # Errors
    /// `Failure::Definite`: the request was not sent. `Failure::Unknown`: it was sent, and no response arrived that
    /// decides (see [`DecidedBy`]).
    pub(super) async fn post_json(
        &self,
        url: &Url,
        body: Vec<u8>,
        headers: HeaderMap,
        decided_by: DecidedBy,
    ) -> Result<HttpResponse, Failure> {
        self.execute(self.post(url, body, headers), RESPONSE_BYTES, decided_by).await
    }

    /// Like `post_json` decided by the body, for a response with one result for each message: reads up to `LIST_BYTES`.
    ///
    /// # Errors
    /// As `post_json`.
    pub(super) async fn post_json_for_list(
        &self,
        url: &Url,
        body: Vec<u8>,
        headers: HeaderMap,
    ) -> Result<HttpResponse, Failure> {
        self.execute(self.post(url, body, headers), LIST_BYTES, DecidedBy::Body).await
    }

    fn post(&self, url: &Url, body: Vec<u8>, headers: HeaderMap) -> RequestBuilder {
        let request = self.client.post(url.clone()).headers(headers);
        request.header(CONTENT_TYPE, HeaderValue::from_static("application/json")).body(body)
    }

    /// Sends one GET for a list. A list that is too long is an error, because an entry that is missing from its
    /// beginning may be in the rest.
    ///
    /// # Errors
    /// [`Failure`] if there is no whole response, or one of `LIST_BYTES` or more.
    pub(super) async fn get(&self, url: &Url, headers: HeaderMap) -> Result<HttpResponse, Failure> {
        let request = self.client.get(url.clone()).headers(headers);
        let answer = self.execute(request, LIST_BYTES, DecidedBy::Body).await?;
        if answer.body.len() < LIST_BYTES {
            return Ok(answer);
        }
        let detail = format!("a list of {LIST_BYTES} bytes or more is not read");
        Err(Failure::Unknown { code: "answer_cut", detail })
    }

    /// Checks whether the server of a URL answers: sends `HEAD /`, without the URL's path and query, which may be
    /// credentials. Returns the status, whatever it is.
    ///
    /// # Errors
    /// [`Failure`] if no response arrived.
    pub async fn probe(&self, url: &Url) -> Result<u16, Failure> {
        let mut root = url.clone();
        root.set_path("/");
        root.set_query(None);
        Ok(self.client.head(root).send().await.map_err(classify)?.status().as_u16())
    }

    async fn execute(
        &self,
        request: RequestBuilder,
        max_bytes: usize,
        decided_by: DecidedBy,
    ) -> Result<HttpResponse, Failure> {
        // Ends a little before the budget, so that a received status is not lost because its body is late.
        let deadline = Instant::now() + self.call_budget.mul_f64(0.95);
        let mut response = request.send().await.map_err(classify)?;
        let (status, retry_after) = (response.status().as_u16(), self.retry_after(response.headers()));
        let mut body = Vec::new();
        let read = match timeout_at(deadline, read_body(&mut response, &mut body, max_bytes)).await {
            Ok(read) => read.map_err(classify),
            Err(_late) => {
                Err(Failure::Unknown { code: "no_answer", detail: "the body did not end in time".to_owned() })
            }
        };
        match read {
            Err(failure) if decided_by == DecidedBy::Body && !(400..=499).contains(&status) => return Err(failure),
            Err(failure) => tracing::debug!(status, %failure, "a response body was cut or late; the status decides"),
            Ok(()) => (),
        }
        Ok(HttpResponse { status, body, retry_after })
    }

    fn retry_after(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = |name: HeaderName| headers.get(name)?.to_str().ok();
        let now = self.clock.now();
        // A pause is a difference of two times, so both are taken from the server's clock where it sends `Date`.
        let server_time = text(DATE).and_then(|date| http_date(date, now));
        retry_after(text(RETRY_AFTER)?, server_time.unwrap_or(now))
    }
}

/// Reads the response's body into `body`, up to `max_bytes`.
async fn read_body(response: &mut Response, body: &mut Vec<u8>, max_bytes: usize) -> reqwest::Result<()> {
    while let Some(chunk) = response.chunk().await? {
        let space = max_bytes - body.len();
        body.extend_from_slice(chunk.get(..space).unwrap_or(&chunk));
        if body.len() == max_bytes {
            break;
        }
    }
    Ok(())
}

fn client_builder(common: &ClientSettings, connections: ConnectionPolicy) -> ClientBuilder {
    let builder = Client::builder()
        .user_agent(concat!("notihub/", env!("CARGO_PKG_VERSION")))
        .timeout(common.call_budget)
        // Shorter than the whole, so that a connection that is never established is a definite failure, not an unknown
        // one.
        .connect_timeout(common.connect_budget)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .no_proxy();
    match connections {
        ConnectionPolicy::KeepAlive => builder,
        ConnectionPolicy::Close => {
            let close = HeaderMap::from_iter([(CONNECTION, HeaderValue::from_static("close"))]);
            builder.pool_max_idle_per_host(0).default_headers(close)
        }
    }
}

/// Returns the time to connect within a call's time: half of it, at most 10 s.
pub fn connect_budget(call_budget: Duration) -> Duration {
    (call_budget / 2).min(Duration::from_secs(10))
}

/// Returns whether a host in a URL or a setting is this machine. Unencrypted connections are allowed only to it.
pub fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Reads a PEM file with certificates, unparsed: each TLS library has its own parser.
///
/// # Errors
/// `Error::Usage` if the file cannot be read or holds no certificate.
pub(super) fn read_ca_file(file: &Path) -> Result<Vec<u8>> {
    let invalid = |problem: &dyn fmt::Display| Error::Usage(format!("the CA file {}: {problem}", file.display()));
    let pem = std::fs::read(file).map_err(|error| invalid(&error))?;
    if !String::from_utf8_lossy(&pem).contains("-----BEGIN CERTIFICATE-----") {
        return Err(invalid(&"it holds no certificate in PEM"));
    }
    Ok(pem)
}

fn with_certificates(builder: ClientBuilder, ca_file: Option<&Path>, tls: bool) -> Result<ClientBuilder> {
    let mut extra = Vec::new();
    if let Some(file) = ca_file {
        extra = Certificate::from_pem_bundle(&read_ca_file(file)?)
            .map_err(|error| Error::Usage(format!("the CA file {}: {}", file.display(), root_cause(&error))))?;
    }
    Ok(if tls { builder.tls_certs_merge(extra) } else { builder.tls_certs_only(extra) })
}

fn classify(error: reqwest::Error) -> Failure {
    let error = error.without_url();
    let detail = root_cause(&error);
    if error.is_builder() {
        return Failure::Definite { code: "request_invalid", detail };
    }
    if !error.is_connect() {
        let code = if error.is_timeout() { "no_answer" } else { "answer_cut" };
        return Failure::Unknown { code, detail };
    }
    let code = match () {
        () if sources(&error).any(|source| source.is::<AddressNotAllowed>()) => NOT_ALLOWED,
        () if error.is_timeout() => "connect_timeout",
        () if error.is_dns() => "dns_failed",
        () if sources(&error).any(is_tls) => "tls_failed",
        () => "connect_failed",
    };
    Failure::Definite { code, detail }
}

/// Iterates over an error and its sources. An `io::Error` does not report the error it wraps as its source, so that is
/// looked up separately.
pub(super) fn sources<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| match error.downcast_ref::<std::io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as _),
        None => error.source(),
    })
}

pub(super) fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    // A handshake that is cut has no rustls error, only tokio-rustls's text.
    error.is::<rustls::Error>() || error.to_string().contains("tls handshake")
}

/// Returns the text of the innermost error, which is the most precise and shows no URL.
pub(super) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    sources(error).last().map(|root| excerpt(&root.to_string())).unwrap_or_default()
}

/// Parses `Retry-After` (RFC 9110, 10.2.3): seconds, also with a fraction, or a date seen from `now`. Returns `None` if
/// it is neither; at most a day.
pub fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse::<f64>() {
        let valid = seconds.is_finite() && seconds >= 0.0;
        return valid.then(|| Duration::from_secs_f64(seconds.min(MAX_RETRY_AFTER_SECONDS)));
    }
    let pause = http_date(value, now)? - now;
    // A date in the past is a pause of zero.
    Some(pause.to_std().unwrap_or_default().min(Duration::from_secs_f64(MAX_RETRY_AFTER_SECONDS)))
}

/// Parses a date in each form of RFC 9110, 5.6.7: IMF-fixdate, RFC 850 and asctime. The name of the day is ignored,
/// because the date says it already.
fn http_date(value: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let value = value.trim();
    let rest = value.split_once([',', ' '])?.1.trim_start();
    if let Ok(at) = DateTime::parse_from_rfc2822(rest) {
        return Some(at.to_utc());
    }
    if let Ok(at) = NaiveDateTime::parse_from_str(rest, "%b %e %H:%M:%S %Y") {
        return Some(at.and_utc());
    }
    // RFC 9110: the latest year with these last two digits that is at most 50 years ahead.
    let (day_and_month, time) = rest.rsplit_once('-')?;
    let (two_digits, time) = time.split_once(' ')?;
    let two_digits: i32 = two_digits.parse().ok().filter(|year| (0..=99).contains(year))?;
    let year = now.year() + 50 - (now.year() + 50 - two_digits).rem_euclid(100);
    let at = |year: i32| {
        let date = format!("{day_and_month}-{year} {time}");
        Some(NaiveDateTime::parse_from_str(&date, "%d-%b-%Y %H:%M:%S GMT").ok()?.and_utc())
    };
    let latest = now.checked_add_months(Months::new(50 * 12))?;
    at(year).filter(|at| *at <= latest).or_else(|| at(year - 100))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::super::simulator::testing::{BUDGET, SHORT, closed_port, peer, rustls_provider};
    use super::*;
    use crate::shutdown::Shutdown;

    fn http(call_budget: Duration) -> HttpClient {
        http_with(&ClientSettings::with_budget(call_budget))
    }

    fn http_with(common: &ClientSettings) -> HttpClient {
        rustls_provider();
        HttpClient::new(common, ConnectionPolicy::KeepAlive, false).unwrap()
    }

    async fn post(url: &str, call_budget: Duration) -> Result<HttpResponse, Failure> {
        let url = Url::parse(url).unwrap();
        http(call_budget).post_json(&url, b"{}".to_vec(), HeaderMap::new(), DecidedBy::Body).await
    }

    #[track_caller]
    fn definite(result: Result<HttpResponse, Failure>) -> &'static str {
        match result {
            Err(Failure::Definite { code, detail }) => {
                assert!(!detail.contains("SECRET"), "{detail}");
                code
            }
            other => panic!("expected a definite failure, got {other:?}"),
        }
    }

    #[track_caller]
    fn unknown(result: Result<HttpResponse, Failure>) -> &'static str {
        match result {
            Err(Failure::Unknown { code, detail }) => {
                assert!(!detail.contains("SECRET"), "{detail}");
                code
            }
            other => panic!("expected an unknown outcome, got {other:?}"),
        }
    }

    /// Reads the one small request a test sends.
    async fn request(stream: &mut TcpStream) -> usize {
        stream.read(&mut [0; 4096]).await.unwrap_or(0)
    }

    /// A server that reads a request, answers with these bytes and closes the connection.
    async fn answering(shutdown: &Shutdown, answer: &'static [u8]) -> String {
        let address = peer(shutdown, move |mut stream| async move {
            request(&mut stream).await;
            let _gone = stream.write_all(answer).await;
        });
        format!("http://{}/SECRET", address.await)
    }

    #[tokio::test]
    async fn failure_before_the_connection_is_definite() {
        let shutdown = Shutdown::new();
        let nobody = closed_port().await;
        assert_eq!(definite(post(&format!("http://{nobody}/SECRET"), BUDGET).await), "connect_failed");

        let no_name = definite(post("http://hub.invalid/SECRET", BUDGET).await);
        assert!(["dns_failed", "connect_timeout"].contains(&no_name), "a slow resolver may end it: {no_name}");

        let silent = peer(&shutdown, |stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        });
        let handshake_without_answer = post(&format!("https://{}/SECRET", silent.await), SHORT).await;
        assert_eq!(definite(handshake_without_answer), "connect_timeout");

        let cut = peer(&shutdown, |mut stream| async move {
            request(&mut stream).await;
        });
        let cut = cut.await;
        assert_eq!(definite(post(&format!("https://{cut}/SECRET"), BUDGET).await), "tls_failed");

        let plain = answering(&shutdown, b"HTTP/1.1 400 Bad Request\r\n\r\n").await.replace("http:", "https:");
        assert_eq!(definite(post(&plain, BUDGET).await), "tls_failed");
    }

    /// A truncated list is an error, not a short list.
    #[tokio::test]
    async fn list_that_is_too_long_is_an_error() {
        let shutdown = Shutdown::new();
        for (bytes, whole) in [(LIST_BYTES - 1, true), (LIST_BYTES + 1, false)] {
            let long = peer(&shutdown, move |mut stream| async move {
                request(&mut stream).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
                let _gone = stream.write_all(&[head.into_bytes(), vec![b' '; bytes]].concat()).await;
            });
            let url = Url::parse(&format!("http://{}/", long.await)).unwrap();
            let listed = http(BUDGET).get(&url, HeaderMap::new()).await;
            assert_eq!(listed.is_ok(), whole, "{bytes}");
        }
    }

    /// RFC 9110, 5.6.7: three forms of a date, and two digits of a year that is never more than 50 years ahead.
    #[test]
    fn dates_in_each_form_of_http_are_read() {
        let read = |value: &str, now: &str| http_date(value, now.parse().unwrap()).map(|at| at.to_rfc3339());
        let (now, same) = ("2027-03-05T00:30:00Z", Some("1994-11-06T08:49:37+00:00".to_owned()));
        for value in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "Tue, 06 Nov 1994 08:49:37 GMT",
        ] {
            assert_eq!(read(value, now), same, "{value}");
        }
        for (two_digits, now, year) in [
            ("27", "2027-03-05T00:30:00Z", "2027"),
            ("77", "2027-03-05T00:30:00Z", "2077"),
            ("77", "2027-03-05T00:29:59Z", "1977"),
            ("78", "2027-03-05T00:30:00Z", "1978"),
            ("05", "2099-01-01T00:00:00Z", "2105"),
        ] {
            let at = read(&format!("Friday, 05-Mar-{two_digits} 00:30:00 GMT"), now);
            assert_eq!(at, Some(format!("{year}-03-05T00:30:00+00:00")), "{two_digits} seen from {now}");
        }
        for nothing in ["", "Sun", "Sunday, 06-Nov-194 08:49:37 GMT", "Sunday, 31-Feb-94 08:49:37 GMT", "Sun Nov  6"] {
            assert_eq!(read(nothing, now), None, "{nothing}");
        }
    }

    /// Where the status decides, a body that is cut or too long does not matter; for a 4xx it never matters.
    #[tokio::test]
    async fn status_decides_although_the_body_is_cut() {
        let shutdown = Shutdown::new();
        let cases: [(&[u8], u16); 4] = [
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", 200),
            (b"HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 202),
            (b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz", 500),
            (b"HTTP/1.1 429 Slow\r\nContent-Length: 10\r\n\r\nok", 429),
        ];
        for (bytes, status) in cases {
            let url = Url::parse(&answering(&shutdown, bytes).await).unwrap();
            let http = http(BUDGET);
            let send = |by| http.post_json(&url, b"{}".to_vec(), HeaderMap::new(), by);
            let answer = send(DecidedBy::Status).await.unwrap();
            assert_eq!((answer.status, answer.body.as_slice()), (status, b"ok".as_slice()));
            assert_eq!(send(DecidedBy::Body).await.is_ok(), status == 429, "{status}");
        }
        let stalled = peer(&shutdown, |mut stream| async move {
            request(&mut stream).await;
            let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok").await;
            request(&mut stream).await;
        });
        let url = Url::parse(&format!("http://{}/", stalled.await)).unwrap();
        let answer = http(SHORT).post_json(&url, b"{}".to_vec(), HeaderMap::new(), DecidedBy::Status).await;
        assert_eq!(answer.unwrap().status, 200, "within the budget");
    }

    /// Connecting has its own budget, which the addresses of a host share.
    #[tokio::test]
    async fn connecting_ends_with_its_own_budget() {
        let shutdown = Shutdown::new();
        let silent = peer(&shutdown, |stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        });
        let url = Url::parse(&format!("https://{}/", silent.await)).unwrap();
        let within = |connect_budget| {
            let http = http_with(&ClientSettings { connect_budget, ..ClientSettings::with_budget(BUDGET) });
            let url = url.clone();
            async move { definite(http.post_json(&url, b"{}".to_vec(), HeaderMap::new(), DecidedBy::Body).await) }
        };
        let (hasty, patient) = (within(Duration::from_millis(50)), within(BUDGET));
        tokio::select! {
            biased;
            code = patient => panic!("{code} before the shorter budget was over"),
            code = hasty => assert_eq!(code, "connect_timeout"),
        }
    }

    #[tokio::test]
    async fn incomplete_response_is_unknown() {
        let shutdown = Shutdown::new();
        let cases: [&[u8]; 5] = [
            b"",
            b"HTTP/1.1 200 OK\r\nContent-Le",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
            b"nonsense\r\n\r\n",
        ];
        for answer in cases {
            let url = answering(&shutdown, answer).await;
            assert_eq!(unknown(post(&url, BUDGET).await), "answer_cut", "{}", answer.escape_ascii());
        }
        for beginning in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok"] {
            let stalled = peer(&shutdown, move |mut stream| async move {
                request(&mut stream).await;
                let _gone = stream.write_all(beginning.as_bytes()).await;
                request(&mut stream).await;
            });
            assert_eq!(unknown(post(&format!("http://{}/SECRET", stalled.await), SHORT).await), "no_answer");
        }
    }

    #[tokio::test]
    async fn endless_response_is_read_to_the_limit() {
        let shutdown = Shutdown::new();
        let endless = peer(&shutdown, |mut stream| async move {
            request(&mut stream).await;
            let _gone = stream.write_all(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000000000\r\n\r\n").await;
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
        });
        let answer = post(&format!("http://{}/", endless.await), BUDGET).await.unwrap();
        assert_eq!((answer.status, answer.body.len()), (500, RESPONSE_BYTES));
    }

    /// S1-51: a connection is reused; a request is not repeated when its connection closes.
    #[tokio::test]
    async fn redirects_are_not_followed_and_nothing_is_sent_twice() {
        let shutdown = Shutdown::new();
        let moved = answering(&shutdown, b"HTTP/1.1 307 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(post(&moved, BUDGET).await.unwrap().status, 307);

        // A kept connection that closes during the second request must not cause a retry.
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = seen.clone();
        let address = peer(&shutdown, move |mut stream| {
            let seen = counter.clone();
            async move {
                while request(&mut stream).await > 0 && seen.fetch_add(1, Ordering::SeqCst) == 0 {
                    let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            }
        });
        let (http, url) = (http(BUDGET), Url::parse(&format!("http://{}/", address.await)).unwrap());
        let send = || http.post_json(&url, b"{}".to_vec(), HeaderMap::new(), DecidedBy::Body);
        assert_eq!(send().await.unwrap().body, b"ok");
        assert_eq!(unknown(send().await), "answer_cut");
        assert_eq!(seen.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn retry_after_date_is_read_by_the_servers_clock() {
        let shutdown = Shutdown::new();
        let answer = b"HTTP/1.1 429 Slow\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
            Retry-After: Sun, 06 Nov 1994 08:50:07 GMT\r\nContent-Length: 0\r\n\r\n";
        let answer = post(&answering(&shutdown, answer).await, BUDGET).await.unwrap();
        assert_eq!(answer.retry_after, Some(Duration::from_secs(30)));
    }

    #[test]
    fn retry_after_in_seconds_and_dates() {
        let now = DateTime::from_timestamp(784_111_777, 0).unwrap();
        let said = |value: &str| retry_after(value, now).map(|pause| pause.as_millis());
        for (value, millis) in [("0", 0), ("120", 120_000), (" 1.5 ", 1500), ("99999999999999999999", 86_400_000)] {
            assert_eq!(said(value), Some(millis), "{value}");
        }
        assert_eq!(said("Sun, 06 Nov 1994 08:49:40 GMT"), Some(3000));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:30 GMT"), Some(0), "gone by");
        assert_eq!(said("Fri, 06 Nov 2054 08:49:30 GMT"), Some(86_400_000), "absurd");
        for nothing in ["", "-1", "soon", "NaN", "inf", "1e999", "-0.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(said(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn loopback_hosts_are_recognised() {
        for host in ["localhost", "LOCALHOST", "127.0.0.1", "127.8.9.1", "::1", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["", "localhost.example.com", "10.0.0.1", "127.0.0.1.example.com", "0.0.0.0", "[::]", "smtp"] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_ca_file_must_be_one() {
        rustls_provider();
        let with = |file: &str| {
            let common = ClientSettings { ca_file: Some(file.into()), ..ClientSettings::with_budget(BUDGET) };
            HttpClient::new(&common, ConnectionPolicy::KeepAlive, true).err().unwrap().to_string()
        };
        assert!(with("/nowhere/ca.pem").contains("the CA file /nowhere/ca.pem: No such file"));
        assert!(with(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).contains("holds no certificate"));
    }
}
