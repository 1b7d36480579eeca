//! E-mail over SMTP: one mail to one recipient per transaction, so that one refused recipient is one refused delivery.
//!
//! The library composes the mail and speaks the protocol; the steps are taken one by one here, because what a failure
//! means depends on the step. Until the content is on its way, a broken connection is definite: a server takes a mail
//! with the final dot, not before. From then on, only the server's own reply is an answer; anything else is unknown.
//!
//! Every attempt at a delivery carries the same Message-ID, so that a mailbox that drops repetitions can.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MultiPart, SinglePart};
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{
    AsyncSmtpConnection, AsyncTokioStream, Certificate, TlsParameters, TlsParametersBuilder,
};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt, Rset};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::{Address, Message};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::error::{Error, Result, excerpt};
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::message::Content;
use crate::model::retry::ErrorClass;

use super::http::{cause, connect_budget, is_loopback, is_tls, read_ca, sources};
use super::{Letter, Pending, Provider};

/// Connections kept for the next mail, and for how long. Servers allow us few, and close idle ones after minutes.
const IDLE_CONNECTIONS: usize = 8;
const IDLE: Duration = Duration::from_secs(30);
/// How long a kept connection may take to show that it lives.
const REVIVE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain first, then encrypted; a server that does not offer it gets no mail (usually port 587).
    Starttls,
    /// Encrypted from the first byte (usually port 465).
    Implicit,
    /// Never: to this machine, or where `allow_plaintext` says so.
    None,
}

#[derive(Clone)]
pub struct SmtpSettings {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub username: Option<String>,
    pub password: Option<String>,
    /// `Name <address>` or an address.
    pub from: String,
    pub call_budget: Duration,
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What we call ourselves in EHLO; the host's name if none.
    pub helo: Option<String>,
    /// Lets mails and password cross a network in the clear.
    pub allow_plaintext: bool,
    /// How long to stay away after a 4.7.x: too many, or greylisted. Servers that greylist want some five minutes.
    pub throttled_pause: Duration,
}

impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither user nor password; from, host and port tell which account it is.
        f.debug_struct("SmtpSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("from", &self.from)
            .field("call_budget", &self.call_budget)
            .finish_non_exhaustive()
    }
}

pub struct Smtp {
    settings: SmtpSettings,
    from: Mailbox,
    cover: Cover,
    credentials: Option<Credentials>,
    hello: ClientId,
    /// A stack: the one used last is used next, so that those too many grow old and are dropped.
    idle: Mutex<Vec<(Instant, AsyncSmtpConnection)>>,
}

/// How a connection is encrypted; with no way to end up in the clear where the settings ask for more.
enum Cover {
    Starttls(TlsParameters),
    Implicit(TlsParameters),
    None,
}

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Connect,
    Auth,
    Sender,
    Recipient,
    Data,
    /// The content is being written, or written with its final dot: it may have been taken.
    Content,
}

/// Why a transaction stopped.
enum Trouble {
    /// The server said so; of its text, the beginning.
    Reply { code: u16, text: String },
    /// No answer, or none that can be read.
    Broken { code: &'static str, detail: String },
    /// We did not go on.
    Ours { class: ErrorClass, code: &'static str, detail: String },
}

impl Smtp {
    pub fn new(settings: SmtpSettings) -> Result<Smtp> {
        let from = Some(&settings.from).filter(|from| !from.contains(char::is_control));
        let from: Mailbox = from.and_then(|from| from.parse().ok()).ok_or_else(|| {
            let given = excerpt(&settings.from);
            Error::Setup(format!("SMTP: '{given}' is no sender: write name@domain or Name <name@domain>"))
        })?;
        if settings.tls == Tls::None && !is_loopback(&settings.host) && !settings.allow_plaintext {
            return Err(Error::Setup(format!(
                "SMTP: mails to {} would cross the network in the clear: set TLS to starttls or implicit, \
                 or allow plain text",
                settings.host
            )));
        }
        let credentials = match (&settings.username, &settings.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(Error::Setup("SMTP: set user name and password, or neither".to_owned())),
        };
        let hello = match &settings.helo {
            Some(name) if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) => {
                return Err(Error::Setup("SMTP: the EHLO name must be a host name".to_owned()));
            }
            Some(name) => ClientId::Domain(name.clone()),
            None => ClientId::default(),
        };
        let cover = match settings.tls {
            Tls::Starttls => Cover::Starttls(tls_parameters(&settings)?),
            Tls::Implicit => Cover::Implicit(tls_parameters(&settings)?),
            Tls::None => Cover::None,
        };
        Ok(Smtp { settings, from, cover, credentials, hello, idle: Mutex::default() })
    }

    async fn transfer(&self, letter: Letter<'_>) -> Outcome {
        let mut stage = Stage::Connect;
        let posted = match compose(&self.from, &letter) {
            Ok(mail) => timeout(self.settings.call_budget, self.post(&mail, &mut stage)).await,
            Err(trouble) => Ok(Err(trouble)),
        };
        match posted {
            Ok(Ok(provider_ref)) => Outcome::Accepted { provider_ref },
            Ok(Err(trouble)) => self.verdict(stage, trouble),
            Err(_elapsed) => self.verdict(stage, Trouble::silence()),
        }
    }

    async fn post(&self, mail: &Composed, stage: &mut Stage) -> Result<Option<String>, Trouble> {
        let mut line = match self.kept().await {
            Some(line) => line,
            None => self.dial(stage).await?,
        };
        let said = transact(&mut line, &self.from.email, mail, stage).await;
        // 421 announces that the server hangs up; after any other reply the connection is as good as new.
        let done = match &said {
            Ok(_) | Err(Trouble::Ours { .. }) => true,
            Err(Trouble::Reply { code, .. }) => *code != 421,
            Err(Trouble::Broken { .. }) => false,
        };
        if done {
            self.keep(line);
        }
        said
    }

    /// A fresh connection: encrypted as the settings demand, and signed in.
    async fn dial(&self, stage: &mut Stage) -> Result<AsyncSmtpConnection, Trouble> {
        *stage = Stage::Connect;
        let mut line = match &self.cover {
            Cover::None => self.connect(false).await?,
            Cover::Implicit(tls) => {
                let (address, limit) = (self.address(), connect_budget(self.settings.call_budget));
                AsyncSmtpConnection::connect_tokio1(address, Some(limit), &self.hello, Some(tls.clone()), None).await?
            }
            Cover::Starttls(tls) => {
                let mut line = self.connect(true).await?;
                if !line.can_starttls() {
                    let detail = "the server does not offer STARTTLS".to_owned();
                    return Err(Trouble::Broken { code: "starttls_missing", detail });
                }
                line.starttls(tls.clone(), &self.hello).await?;
                line
            }
        };
        if let Some(credentials) = &self.credentials {
            *stage = Stage::Auth;
            line.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(line)
    }

    async fn connect(&self, before_tls: bool) -> Result<AsyncSmtpConnection, Trouble> {
        let connecting = TcpStream::connect(self.address());
        let stream =
            timeout(connect_budget(self.settings.call_budget), connecting).await.map_err(io::Error::from)??;
        stream.set_nodelay(true)?;
        let wire = Box::new(Wire { stream, before_tls });
        Ok(AsyncSmtpConnection::connect_with_transport(wire, &self.hello).await?)
    }

    fn address(&self) -> (&str, u16) {
        (&self.settings.host, self.settings.port)
    }

    /// A kept connection that still lives. RSET shows it, and clears what a refused mail may have left behind.
    async fn kept(&self) -> Option<AsyncSmtpConnection> {
        let (since, mut line) = self.idle().pop()?;
        let young = since.elapsed() < IDLE;
        let limit = REVIVE.min(connect_budget(self.settings.call_budget));
        if young && matches!(timeout(limit, line.command(Rset)).await, Ok(Ok(_))) {
            return Some(line);
        }
        // The youngest is dead, so the others are: to ask each of them could cost the call's whole time.
        self.idle().clear();
        None
    }

    fn keep(&self, line: AsyncSmtpConnection) {
        let mut idle = self.idle();
        idle.retain(|(since, _)| since.elapsed() < IDLE);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push((Instant::now(), line));
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, AsyncSmtpConnection)>> {
        // Nothing that could panic is done under the lock.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn verdict(&self, stage: Stage, trouble: Trouble) -> Outcome {
        let (class, code, detail) = match trouble {
            Trouble::Broken { code, detail } | Trouble::Ours { code, detail, .. } if stage == Stage::Content => {
                return Outcome::Unknown { code, detail };
            }
            Trouble::Broken { code, detail } if stage == Stage::Connect => {
                let code = if code == "answer_cut" { "connect_failed" } else { code };
                (ErrorClass::Unreachable, code.to_owned(), detail)
            }
            Trouble::Broken { code, detail } => (ErrorClass::ProviderInternal, code.to_owned(), detail),
            Trouble::Ours { class, code, detail } => (class, code.to_owned(), detail),
            Trouble::Reply { code, text } => (class_of(stage, code, enhanced(&text)), format!("smtp_{code}"), text),
        };
        let retry_after = (class == ErrorClass::Throttled).then_some(self.settings.throttled_pause);
        Outcome::Rejected { class, code, detail, retry_after }
    }

    async fn greet(&self) -> Result<String, String> {
        let (host, port) = self.address();
        let mut stage = Stage::Connect;
        let trouble = match timeout(self.settings.call_budget, self.dial(&mut stage)).await {
            Ok(Ok(line)) => {
                let secure = if line.is_encrypted() { "encrypted" } else { "in the clear" };
                let known = if self.credentials.is_some() { ", and takes our credentials" } else { "" };
                self.keep(line);
                return Ok(format!("{host}:{port} answers, {secure}{known}"));
            }
            Ok(Err(trouble)) => trouble,
            Err(_elapsed) => Trouble::silence(),
        };
        Err(match trouble {
            Trouble::Reply { code, text } => format!("{host}:{port} refuses us ({stage:?}): {code} {text}"),
            Trouble::Broken { detail, .. } | Trouble::Ours { detail, .. } => {
                format!("{host}:{port} cannot be used ({stage:?}): {detail}")
            }
        })
    }
}

impl Provider for Smtp {
    fn name(&self) -> &'static str {
        "smtp"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::Email)]
    }

    fn at_once(&self) -> usize {
        // Mail servers commonly allow a client some tens of connections.
        32
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.transfer(letter))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.greet())
    }
}

fn tls_parameters(settings: &SmtpSettings) -> Result<TlsParameters> {
    let mut builder: TlsParametersBuilder = TlsParameters::builder(settings.host.clone());
    if let Some(file) = &settings.ca_file {
        let ca = Certificate::from_pem(&read_ca(file)?)
            .map_err(|error| Error::Setup(format!("SMTP: the CA file {}: {}", file.display(), cause(&error))))?;
        builder = builder.add_root_certificate(ca);
    }
    builder.build().map_err(|error| {
        Error::Setup(format!("SMTP: no TLS: {error}; install the package ca-certificates, or name a CA file"))
    })
}

/// A mail as it goes over the wire, final dot and all.
struct Composed {
    to: Address,
    wire: String,
}

fn compose(from: &Mailbox, letter: &Letter<'_>) -> Result<Composed, Trouble> {
    let ours = |class, code, detail| Trouble::Ours { class, code, detail };
    let to = Some(letter.to).filter(|to| !to.contains(char::is_control)).and_then(|to| to.parse::<Address>().ok());
    let to = to.ok_or_else(|| ours(ErrorClass::Address, "address_invalid", "not an e-mail address".to_owned()))?;
    let content = letter.content;
    let mut mail = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to.clone()))
        .date(SystemTime::from(letter.created_at))
        .message_id(Some(format!("<{}@{}>", letter.key, from.email.domain())))
        // RFC 3834: no out-of-office replies to a program.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    if let Some(subject) = &content.subject {
        mail = mail.subject(one_line(subject));
    }
    let composed = parts(mail, content);
    let composed = composed.map_err(|error| ours(ErrorClass::Content, "not_composable", error.to_string()))?;
    Ok(Composed { to, wire: dotted(&composed.formatted()) })
}

fn parts(mail: lettre::message::MessageBuilder, content: &Content) -> Result<Message, lettre::error::Error> {
    match &content.html {
        Some(html) => mail.multipart(MultiPart::alternative_plain_html(plain(&content.body), plain(html))),
        None => mail.singlepart(SinglePart::plain(plain(&content.body))),
    }
}

/// A header is one line: a line break in it would begin another header.
fn one_line(text: &str) -> String {
    text.split(char::is_control).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Only whole line breaks, so that no two servers can disagree about where a mail ends; and no NUL, which SMTP forbids.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "")
}

/// Transparency (RFC 5321, 4.5.2) and the final dot.
fn dotted(mail: &[u8]) -> String {
    let text = String::from_utf8_lossy(mail);
    let text = text.strip_suffix("\r\n").unwrap_or(&text);
    format!("{}\r\n.\r\n", text.replace("\r\n.", "\r\n.."))
}

/// Gives the server's word for what it took.
async fn transact(
    line: &mut AsyncSmtpConnection,
    from: &Address,
    mail: &Composed,
    stage: &mut Stage,
) -> Result<Option<String>, Trouble> {
    *stage = Stage::Sender;
    let mut options = Vec::new();
    if !mail.wire.is_ascii() {
        // Everything but addresses is encoded, so it is one of them that needs more than ASCII.
        if !line.server_info().supports_feature(Extension::SmtpUtfEight) {
            let detail = "the server takes only ASCII addresses".to_owned();
            return Err(Trouble::Ours { class: ErrorClass::Address, code: "smtputf8_missing", detail });
        }
        options = vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)];
    }
    line.command(Mail::new(Some(from.clone()), options)).await?;
    *stage = Stage::Recipient;
    line.command(Rcpt::new(mail.to.clone(), Vec::new())).await?;
    *stage = Stage::Data;
    if !line.command(Data).await?.has_code(354) {
        return Err(Trouble::Broken { code: "answer_cut", detail: "DATA was not answered with 354".to_owned() });
    }
    *stage = Stage::Content;
    // Content and final dot in one write: in two, the second waits for the first one's acknowledgement (Nagle).
    let said = line.command(mail.wire.as_str()).await?;
    if said.code().severity != lettre::transport::smtp::response::Severity::PositiveCompletion {
        return Err(Trouble::Broken { code: "answer_cut", detail: "the content was not answered with 2xx".to_owned() });
    }
    Ok(said.first_line().map(excerpt))
}

impl Trouble {
    fn silence() -> Trouble {
        Trouble::Broken { code: "no_answer", detail: "no answer within the call's time".to_owned() }
    }
}

impl From<lettre::transport::smtp::Error> for Trouble {
    fn from(error: lettre::transport::smtp::Error) -> Trouble {
        let detail = cause(&error);
        if let Some(code) = error.status() {
            // The cause of a reply is its text.
            return Trouble::Reply { code: code.into(), text: detail };
        }
        if error.is_client() {
            // It had nothing against us: we found no way to sign in that it offers.
            return Trouble::Ours { class: ErrorClass::Credentials, code: "auth_unsupported", detail };
        }
        let code = match () {
            () if error.is_timeout() => "connect_timeout",
            () if sources(&error).any(is_tls) => "tls_failed",
            () => "answer_cut",
        };
        Trouble::Broken { code, detail }
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Trouble {
        let code = if error.kind() == io::ErrorKind::TimedOut { "connect_timeout" } else { "connect_failed" };
        Trouble::Broken { code, detail: cause(&error) }
    }
}

/// The enhanced status code (RFC 3463) a reply's text begins with.
fn enhanced(text: &str) -> Option<(u16, u16, u16)> {
    let mut numbers = text.split_whitespace().next()?.split('.').map(str::parse::<u16>);
    match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(class), Ok(subject), Ok(detail), None) => Some((class, subject, detail)),
        _ => None,
    }
}

/// Whether a refusal for now is about the recipient alone (RFC 3463: 1 addressing, 2 mailbox, 3 the system, 4 the network).
fn of_recipient(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> bool {
    match enhanced {
        _ if code == 421 => false,
        Some((_, subject, _)) => stage == Stage::Recipient && matches!(subject, 1 | 2) || subject == 2,
        None => stage == Stage::Recipient && matches!(code, 450 | 452),
    }
}

/// What a refusal means. Where the enhanced code does not say, the step does at which it came.
fn class_of(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> ErrorClass {
    match (code, enhanced) {
        // Authentication: required, too weak, wrong; 454 is the server's trouble with it and goes the way of 4xx.
        (530 | 534 | 535 | 538, _) | (500.., Some((_, 7, 8 | 9 | 11))) => ErrorClass::Credentials,
        (400..=499, Some((_, 7, _))) if code != 454 => ErrorClass::Throttled,
        // Of one recipient: it says nothing of the server, unless that speaks of its own system or closes the line.
        (400..=499, _) if of_recipient(stage, code, enhanced) => ErrorClass::Busy,
        (400..=499, _) => ErrorClass::ProviderInternal,
        // Sender's address, and what its domain publishes about who may send for it (DKIM, SPF, DMARC).
        (_, Some((_, 1, 7 | 8) | (_, 7, 20..=29))) => ErrorClass::Sender,
        // A full mailbox or a server in trouble may recover; a mail does not get smaller.
        (_, Some((_, 2, 3) | (_, 3, 4) | (_, 6, _))) => ErrorClass::Content,
        (_, Some((_, 2, 2))) => ErrorClass::Busy,
        (_, Some((_, 3, _))) => ErrorClass::ProviderInternal,
        (_, Some((_, 1 | 2 | 4, _))) => ErrorClass::Address,
        (552, None) if stage == Stage::Recipient => ErrorClass::Busy,
        // Policy: towards a recipient it is relaying we are denied, of a content it is what it says.
        (_, Some((_, 7, _))) if stage == Stage::Recipient => ErrorClass::Sender,
        _ => match stage {
            Stage::Connect | Stage::Sender => ErrorClass::Sender,
            Stage::Auth => ErrorClass::Credentials,
            Stage::Recipient => ErrorClass::Address,
            Stage::Data | Stage::Content => ErrorClass::Content,
        },
    }
}

/// The socket under the library's connection. Before TLS it reads byte by byte, so that nothing beyond the reply to
/// STARTTLS can already lie in a buffer: what somebody on the way appended in the clear would otherwise be taken for
/// the server's answers inside the encrypted session.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    before_tls: bool,
}

/// The first byte of a TLS handshake; no SMTP command begins with it.
const HANDSHAKE: u8 = 22;

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.before_tls {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let mut byte = [0];
        let mut one = ReadBuf::new(&mut byte);
        ready!(Pin::new(&mut self.stream).poll_read(cx, &mut one))?;
        buffer.put_slice(one.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.before_tls &= bytes.first() != Some(&HANDSHAKE);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncTokioStream for Wire {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::simulator::Behaviour;
    use super::super::simulator::smtp::SmtpSimulator;
    use super::super::simulator::testing::{
        BUDGET, SHORT, closed_port, content, letter, lines, rejected, rustls_provider, unknown,
    };
    use super::*;
    use crate::shutdown::Shutdown;

    const TO: &str = "kim@example.com";
    const PAUSE: Duration = Duration::from_mins(5);

    fn settings(address: SocketAddr) -> SmtpSettings {
        SmtpSettings {
            host: address.ip().to_string(),
            port: address.port(),
            tls: Tls::None,
            username: None,
            password: None,
            from: "상점 <shop@example.net>".to_owned(),
            call_budget: BUDGET,
            ca_file: None,
            helo: Some("hub.example.net".to_owned()),
            allow_plaintext: false,
            throttled_pause: PAUSE,
        }
    }

    fn smtp(settings: SmtpSettings) -> Smtp {
        rustls_provider();
        Smtp::new(settings).unwrap()
    }

    async fn simulated() -> (SmtpSimulator, Smtp, Shutdown) {
        let shutdown = Shutdown::new();
        let simulator = SmtpSimulator::start(0, 0, &shutdown).await.unwrap();
        let smtp = smtp(settings(simulator.address()));
        (simulator, smtp, shutdown)
    }

    async fn send(smtp: &Smtp, to: &str) -> Outcome {
        smtp.send(letter(to, &content(Some("주문 완료"), "감사합니다"))).await
    }

    fn accepted(outcome: Outcome) -> String {
        match outcome {
            Outcome::Accepted { provider_ref: Some(reference) } => reference,
            other => panic!("expected acceptance, got {other:?}"),
        }
    }

    /// What a proper server says to a line, but for the line that begins with `word`: to that, `reply`.
    fn but(word: &'static str, reply: Option<&'static str>) -> impl Fn(&str) -> Option<String> + Clone + Send + Sync {
        move |line| match line {
            line if line.starts_with(word) => reply.map(str::to_owned),
            line if line.starts_with("EHLO") => Some("250-peer\r\n250 AUTH PLAIN LOGIN\r\n".to_owned()),
            "DATA" => Some("354 go on\r\n".to_owned()),
            "." => Some("250 2.0.0 taken\r\n".to_owned()),
            "QUIT" => None,
            line if ["MAIL", "RCPT", "AUTH", "RSET"].iter().any(|verb| line.starts_with(verb)) => {
                Some("235 2.0.0 ok\r\n".to_owned())
            }
            _ => Some(String::new()),
        }
    }

    /// What one mail comes to at a server that has that one peculiarity.
    async fn at(greeting: &'static str, word: &'static str, reply: Option<&'static str>, budget: Duration) -> Outcome {
        let shutdown = Shutdown::new();
        let address = lines(&shutdown, greeting, but(word, reply)).await;
        let (username, password) = (Some("hub".to_owned()), Some("SECRET".to_owned()));
        let outcome =
            send(&smtp(SmtpSettings { call_budget: budget, username, password, ..settings(address) }), TO).await;
        assert!(!format!("{outcome:?}").contains("SECRET"), "{outcome:?}");
        outcome
    }

    const READY: &str = "220 ready\r\n";

    #[tokio::test]
    async fn a_mail_arrives_and_every_attempt_carries_the_same_message_id() {
        let (simulator, smtp, _shutdown) = simulated().await;
        assert_eq!(accepted(send(&smtp, TO).await), "2.0.0 taken");
        accepted(send(&smtp, TO).await);
        let [first, second] = simulator.records().try_into().unwrap();
        assert_eq!((first.from.as_str(), first.to.as_slice()), ("shop@example.net", [TO.to_owned()].as_slice()));
        let id = format!("<{}@example.net>", letter(TO, &content(None, "")).key);
        assert_eq!(first.message_id, Some(id));
        assert_eq!(second, first, "the same delivery is the same mail, whenever it is sent");
        for header in ["Date: Fri, 15 Jan 2027 08:00:00 +0000\r\n", "Auto-Submitted: auto-generated\r\n"] {
            assert!(first.data.contains(header), "{}", first.data);
        }
    }

    #[tokio::test]
    async fn the_simulators_magic_recipients_do_what_they_say() {
        let (simulator, smtp, _shutdown) = simulated().await;
        let is = |class, code: &str| (class, code.to_owned());
        assert_eq!(rejected(send(&smtp, "bounce@example.com").await), is(ErrorClass::Address, "smtp_550"));
        assert_eq!(rejected(send(&smtp, "full@example.com").await), is(ErrorClass::Busy, "smtp_452"));
        let Outcome::Rejected { class, retry_after, .. } = send(&smtp, "greylist@example.com").await else {
            panic!("not rejected")
        };
        assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(PAUSE)));
        accepted(send(&smtp, "greylist@example.com").await);
        assert_eq!(unknown(send(&smtp, "cut@example.com").await), "answer_cut");
        accepted(send(&smtp, "cut@example.com").await);
        assert_eq!(simulator.records().len(), 3, "what was cut off had been taken");
    }

    #[tokio::test]
    async fn after_the_final_dot_only_a_reply_is_an_answer() {
        let (simulator, smtp, shutdown) = simulated().await;
        simulator.script(Behaviour::Fail { status: 554, text: "5.7.1 looks like spam".to_owned() }, 1);
        assert_eq!(rejected(send(&smtp, TO).await), (ErrorClass::Content, "smtp_554".to_owned()));
        simulator.script(Behaviour::Limit { retry_after: 5 }, 1);
        assert_eq!(rejected(send(&smtp, TO).await).0, ErrorClass::Throttled);
        assert_eq!(simulator.records(), []);
        for (behaviour, taken) in [(Behaviour::Cut, 1), (Behaviour::CutBefore, 1), (Behaviour::Garbage, 1)] {
            simulator.script(behaviour, 1);
            assert_eq!(unknown(send(&smtp, TO).await), "answer_cut");
            assert_eq!(simulator.records().len(), taken);
        }
        let hasty = self::smtp(SmtpSettings { call_budget: SHORT, ..settings(simulator.address()) });
        simulator.script(Behaviour::Hang, 1);
        assert_eq!(unknown(send(&hasty, TO).await), "no_answer");
        assert_eq!(simulator.records().len(), 2);
        shutdown.stop();
        assert!(shutdown.drained(BUDGET).await, "what hung has ended");

        assert_eq!(unknown(at(READY, ".", Some("354 more?\r\n"), BUDGET).await), "answer_cut");
        assert_eq!(
            rejected(at(READY, ".", Some("421 4.3.2 stopping\r\n"), BUDGET).await).0,
            ErrorClass::ProviderInternal
        );
    }

    #[tokio::test]
    async fn before_the_content_every_failure_is_definite() {
        let said = |class, code: &str| (class, code.to_owned());
        for (word, class, cut) in [
            ("EHLO", ErrorClass::Unreachable, "connect_failed"),
            ("AUTH", ErrorClass::ProviderInternal, "answer_cut"),
            ("MAIL", ErrorClass::ProviderInternal, "answer_cut"),
            ("RCPT", ErrorClass::ProviderInternal, "answer_cut"),
            ("DATA", ErrorClass::ProviderInternal, "answer_cut"),
        ] {
            assert_eq!(rejected(at(READY, word, None, BUDGET).await), said(class, cut), "{word}");
            assert_eq!(rejected(at(READY, word, Some("nonsense\r\n"), BUDGET).await), said(class, cut), "{word}");
        }
        let shutdown = Shutdown::new();
        let silent =
            ["EHLO", "AUTH", "MAIL", "RCPT", "DATA"].map(|word| shutdown.spawn(at(READY, word, Some(""), SHORT)));
        for outcome in silent {
            assert_eq!(rejected(outcome.await.unwrap()).1, "no_answer");
        }
        assert_eq!(rejected(at("", "EHLO", None, SHORT).await), said(ErrorClass::Unreachable, "no_answer"));
        assert_eq!(rejected(at("554 go away\r\n", "EHLO", None, BUDGET).await), said(ErrorClass::Sender, "smtp_554"));
        let not_354 = at(READY, "DATA", Some("250 what?\r\n"), BUDGET).await;
        assert_eq!(rejected(not_354), said(ErrorClass::ProviderInternal, "answer_cut"));
        let refused = at(READY, "AUTH", Some("535 5.7.8 wrong\r\n"), BUDGET).await;
        assert_eq!(rejected(refused), said(ErrorClass::Credentials, "smtp_535"));
        let no_auth = at(READY, "EHLO", Some("250 peer\r\n"), BUDGET).await;
        assert_eq!(rejected(no_auth), said(ErrorClass::Credentials, "auth_unsupported"));
        for tls in [Tls::None, Tls::Starttls, Tls::Implicit] {
            let nobody = smtp(SmtpSettings { tls, ..settings(closed_port().await) });
            assert_eq!(rejected(send(&nobody, TO).await), said(ErrorClass::Unreachable, "connect_failed"), "{tls:?}");
        }
    }

    #[tokio::test]
    async fn without_tls_nothing_is_said() {
        let shutdown = Shutdown::new();
        let plain = lines(&shutdown, READY, but("STARTTLS", None)).await;
        let with = |tls| smtp(SmtpSettings { tls, ..settings(plain) });
        assert_eq!(
            rejected(send(&with(Tls::Starttls), TO).await),
            (ErrorClass::Unreachable, "starttls_missing".to_owned())
        );
        assert_eq!(rejected(send(&with(Tls::Implicit), TO).await), (ErrorClass::Unreachable, "tls_failed".to_owned()));
    }

    /// Somebody on the way appends answers to the reply to STARTTLS, to be read as if they had come encrypted.
    #[tokio::test]
    async fn nothing_that_came_in_the_clear_is_read_as_encrypted() {
        let shutdown = Shutdown::new();
        let address = lines(&shutdown, READY, |line| match line {
            "STARTTLS" => Some("220 go\r\n250-forged\r\n250 AUTH PLAIN\r\n".to_owned()),
            line if line.starts_with("EHLO") => Some("250-peer\r\n250 STARTTLS\r\n".to_owned()),
            _ => None,
        });
        let smtp = smtp(SmtpSettings { tls: Tls::Starttls, ..settings(address.await) });
        let Outcome::Rejected { code, detail, .. } = send(&smtp, TO).await else { panic!("not rejected") };
        assert_eq!(code, "tls_failed");
        assert!(detail.contains("corrupt message"), "the forged text met the handshake, not the mail: {detail}");
    }

    #[tokio::test]
    async fn connections_are_kept_and_replaced_when_they_die() {
        let shutdown = Shutdown::new();
        let (greetings, resets) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen_greetings, seen_resets) = (greetings.clone(), resets.clone());
        let usual = but("never", None);
        let address = lines(&shutdown, READY, move |line| {
            seen_greetings.fetch_add(usize::from(line.starts_with("EHLO")), Ordering::SeqCst);
            // Each connection is good for three mails: the next RSET finds it closed.
            let reset = line == "RSET" && seen_resets.fetch_add(1, Ordering::SeqCst) % 3 == 2;
            if reset { None } else { usual(line) }
        });
        let smtp = smtp(settings(address.await));
        for _mail in 0..6 {
            accepted(send(&smtp, TO).await);
        }
        assert_eq!((greetings.load(Ordering::SeqCst), resets.load(Ordering::SeqCst)), (2, 5));
    }

    #[tokio::test]
    async fn a_refused_recipient_does_not_cost_the_connection() {
        let (simulator, smtp, _shutdown) = simulated().await;
        rejected(send(&smtp, "bounce@example.com").await);
        assert_eq!(smtp.idle().len(), 1);
        accepted(send(&smtp, TO).await);
        assert_eq!((smtp.idle().len(), simulator.records().len()), (1, 1));
        assert!(smtp.check().await.unwrap().ends_with("answers, in the clear"));
    }

    #[tokio::test]
    async fn addresses_that_are_none_or_need_more_are_refused_before_they_are_sent() {
        let (simulator, smtp, shutdown) = simulated().await;
        for to in ["", "kim", "kim@", "@example.com", "kim@example.com\r\nDATA", "a@b.c>\r\nRCPT TO:<x@y.z", "a b@c.d"]
        {
            let outcome = send(&smtp, to).await;
            assert_eq!(rejected(outcome), (ErrorClass::Address, "address_invalid".to_owned()), "{to:?}");
        }
        assert_eq!(simulator.records(), []);
        accepted(send(&smtp, "김@example.com").await);
        let old = self::smtp(settings(lines(&shutdown, READY, but("never", None)).await));
        assert_eq!(rejected(send(&old, "김@example.com").await).1, "smtputf8_missing");
        accepted(send(&old, TO).await);
    }

    #[test]
    fn replies_come_down_to_classes() {
        use ErrorClass::{Address, Busy, Content, Credentials, ProviderInternal, Sender, Throttled};
        for (stage, reply, class) in [
            (Stage::Connect, "421 4.7.0 too many connections", Throttled),
            (Stage::Connect, "421 busy", ProviderInternal),
            (Stage::Connect, "554 5.7.1 blocked", Sender),
            (Stage::Auth, "454 4.7.0 cannot check passwords now", ProviderInternal),
            (Stage::Auth, "530 5.7.0 first STARTTLS", Credentials),
            (Stage::Auth, "534 5.7.9 too weak", Credentials),
            (Stage::Auth, "535 5.7.8 wrong", Credentials),
            (Stage::Auth, "504 unknown mechanism", Credentials),
            (Stage::Sender, "530 5.7.0 sign in", Credentials),
            (Stage::Sender, "550 5.7.1 not your address", Sender),
            (Stage::Sender, "553 5.1.8 no such domain", Sender),
            (Stage::Recipient, "450 4.1.1 unknown for now", Busy),
            (Stage::Recipient, "451 4.7.1 greylisted", Throttled),
            (Stage::Recipient, "452 4.2.2 full", Busy),
            (Stage::Recipient, "450 4.2.0 busy", Busy),
            (Stage::Recipient, "450 busy", Busy),
            (Stage::Recipient, "451 4.3.0 later", ProviderInternal),
            (Stage::Recipient, "451 4.4.1 no way there", ProviderInternal),
            (Stage::Recipient, "451 later", ProviderInternal),
            (Stage::Recipient, "421 4.2.1 stopping", ProviderInternal),
            (Stage::Content, "452 4.2.2 full", Busy),
            (Stage::Recipient, "550 no such user", Address),
            (Stage::Recipient, "550 5.1.1 no such user", Address),
            (Stage::Recipient, "550 5.2.1 closed", Address),
            (Stage::Recipient, "550 5.4.1 not here", Address),
            (Stage::Recipient, "550 5.7.1 relaying denied", Sender),
            (Stage::Recipient, "551 moved", Address),
            (Stage::Recipient, "552 5.2.2 full", Busy),
            (Stage::Recipient, "552 full", Busy),
            (Stage::Recipient, "553 bad name", Address),
            (Stage::Recipient, "554 5.7.1 access denied", Sender),
            (Stage::Content, "451 4.3.0 later", ProviderInternal),
            (Stage::Content, "452 4.3.1 disk full", ProviderInternal),
            (Stage::Content, "550 5.1.1 after all not", Address),
            (Stage::Content, "550 5.7.26 DMARC", Sender),
            (Stage::Content, "552 5.2.2 full", Busy),
            (Stage::Content, "552 5.3.4 too large", Content),
            (Stage::Content, "552 too large", Content),
            (Stage::Content, "554 5.6.0 not readable", Content),
            (Stage::Content, "554 5.7.1 spam", Content),
            (Stage::Content, "554 no", Content),
        ] {
            let (code, text) = reply.split_once(' ').unwrap();
            assert_eq!(class_of(stage, code.parse().unwrap(), enhanced(text)), class, "{stage:?} {reply}");
        }
        for none in ["", "5.1", "5.1.1.1", "a.b.c", "hello 5.1.1", "5..1"] {
            assert_eq!(enhanced(none), None, "{none}");
        }
    }

    #[test]
    fn what_is_written_cannot_end_the_mail_or_begin_a_header() {
        assert_eq!(one_line("a\r\nBcc: x@y.z\n\tb\0"), "a Bcc: x@y.z b");
        assert_eq!(plain("a\rb\r\nc\n.\r.\r\n\0"), "a\nb\nc\n.\n.\n");
        assert_eq!(dotted(b"S: x\r\n\r\n.\r\n..a\r\nb.\r\n"), "S: x\r\n\r\n..\r\n...a\r\nb.\r\n.\r\n");
    }

    #[test]
    fn settings_that_would_leak_or_cannot_work_are_refused() {
        rustls_provider();
        let good = || SmtpSettings { host: "smtp.example.com".to_owned(), ..settings(([127, 0, 0, 1], 587).into()) };
        let refused = |settings: SmtpSettings| Smtp::new(settings).err().unwrap().to_string();
        assert!(refused(good()).contains("in the clear"), "plain text to another machine");
        assert!(Smtp::new(SmtpSettings { allow_plaintext: true, ..good() }).is_ok());
        let good = || SmtpSettings { allow_plaintext: true, ..good() };
        assert!(refused(SmtpSettings { username: Some("u".to_owned()), ..good() }).contains("or neither"));
        assert!(refused(SmtpSettings { from: "shop".to_owned(), ..good() }).contains("is no sender"));
        assert!(refused(SmtpSettings { from: "a@b.c\r\nBcc: x@y.z".to_owned(), ..good() }).contains("is no sender"));
        assert!(refused(SmtpSettings { helo: Some("a\r\nMAIL".to_owned()), ..good() }).contains("EHLO"));
        let ca_file = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        assert!(refused(SmtpSettings { tls: Tls::Starttls, ca_file, ..good() }).contains("no certificate"));
        let (username, password) = (Some("hub-user".to_owned()), Some("SECRET".to_owned()));
        let shown = format!("{:?}", SmtpSettings { username, password, ..good() });
        assert!(!shown.contains("SECRET") && !shown.contains("hub-user"), "{shown}");
    }
}
