//! E-mail over SMTP (RFC 5321): one mail to one recipient per transaction, so that one refused recipient is one refused
//! delivery.
//!
//! The library lettre composes the mail and formats the commands. The steps are taken one by one here, because the
//! meaning of a failure depends on the step. Until the final dot is written, a broken connection is a definite failure:
//! a server accepts a mail with the final dot, not before. After that only the server's reply decides; without one the
//! outcome is unknown.
//!
//! `smtp_connection` has the connection pool, `smtp_session` commands and replies, `smtp_mail` the mail's text.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lettre::Address;
use lettre::message::Mailbox;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::{ClientId, Extension, MailBodyParameter, MailParameter};
use lettre::transport::smtp::response::Severity;
use rustls::pki_types::ServerName;
use tokio::time::timeout;

use crate::clock::Clock;
use crate::error::{Error, Result, excerpt};
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::retry::ErrorClass;
use crate::shutdown::Shutdown;

use super::guard::{NameResolver, SystemResolver};
use super::http::is_loopback;
use super::smtp_connection::{Connection, ConnectionPool, Encryption, IDLE_TIMEOUT, Server, Stage, quit};
use super::smtp_mail::{ComposedMail, compose};
use super::smtp_session::SmtpFailure;
use super::{BoxFuture, Provider, SendRequest, smtp_session, tls};

/// How connections to the mail server are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// Plain text until STARTTLS (usually port 587). A server that does not offer STARTTLS gets no mail.
    Starttls,
    /// Encrypted from the first byte (usually port 465).
    Implicit,
    /// Not encrypted: only to this machine, or with `allow_plaintext`.
    None,
}

/// What the SMTP provider is built from.
#[derive(Clone)]
pub struct SmtpSettings {
    pub host: String,
    pub port: u16,
    pub tls: Tls,
    pub username: Option<String>,
    pub password: Option<String>,
    /// `Name <address>` or an address.
    pub from: String,
    /// The time limit from name resolution to the reply 354 to DATA.
    pub call_budget: Duration,
    /// The part of it for name resolution and TCP, over all addresses of the server together.
    pub connect_budget: Duration,
    /// The time limit for the reply to the content.
    pub data_timeout: Duration,
    /// A PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The name in EHLO; `None` is this host's name.
    pub helo: Option<String>,
    /// Allows mails and password to cross a network unencrypted.
    pub allow_plaintext: bool,
    /// How long the account pauses after a 4.7.x reply about the account, not about one mail (too many mails, no
    /// reputation).
    pub throttled_pause: Duration,
    /// The clock of the header Date.
    pub clock: Clock,
    /// Idle connections are closed when the process stops.
    pub shutdown: Shutdown,
}

impl fmt::Debug for SmtpSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without user name and password; sender, host and port identify the account.
        f.debug_struct("SmtpSettings")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("tls", &self.tls)
            .field("from", &self.from)
            .field("call_budget", &self.call_budget)
            .finish_non_exhaustive()
    }
}

/// The provider of the channel EMAIL.
pub struct Smtp {
    settings: SmtpSettings,
    from: Mailbox,
    pool: ConnectionPool,
}

impl Smtp {
    /// Builds the provider, with the system's name resolution. Does not connect.
    ///
    /// # Errors
    /// `Error::Usage` if the sender is no address, if mails would cross a network unencrypted without
    /// `allow_plaintext`, if only one of user name and password is set, or if the CA file cannot be read.
    /// `Error::Setup` if the EHLO name is no host name, or the system has no certificates.
    pub fn new(settings: SmtpSettings) -> Result<Smtp> {
        Smtp::with_resolver(settings, Arc::new(SystemResolver))
    }

    /// Builds the provider with another name resolver, for tests.
    ///
    /// # Errors
    /// As [`Smtp::new`].
    pub fn with_resolver(settings: SmtpSettings, resolver: Arc<dyn NameResolver>) -> Result<Smtp> {
        Smtp::with_idle_timeout(IDLE_TIMEOUT, settings, resolver)
    }

    fn with_idle_timeout(
        idle_timeout: Duration,
        settings: SmtpSettings,
        resolver: Arc<dyn NameResolver>,
    ) -> Result<Smtp> {
        let from = Some(&settings.from).filter(|from| !from.contains(char::is_control));
        let from: Mailbox = from.and_then(|from| from.parse().ok()).ok_or_else(|| {
            let given = excerpt(&settings.from);
            Error::Usage(format!("SMTP: the sender '{given}' is not valid: write name@domain or Name <name@domain>"))
        })?;
        if settings.tls == Tls::None && !is_loopback(&settings.host) && !settings.allow_plaintext {
            return Err(Error::Usage(format!(
                "SMTP: mails to {} would cross the network unencrypted: set TLS to starttls or implicit, \
                 or allow plain text",
                settings.host
            )));
        }
        let credentials = match (&settings.username, &settings.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(Error::Usage("SMTP: set both user name and password, or neither".to_owned())),
        };
        let ehlo_name = match &settings.helo {
            Some(name) if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) => {
                return Err(Error::Setup("SMTP: the EHLO name must be a host name".to_owned()));
            }
            Some(name) => ClientId::Domain(name.clone()),
            None => ClientId::default(),
        };
        let encryption = match settings.tls {
            Tls::Starttls => Encryption::Starttls(tls_target(&settings)?),
            Tls::Implicit => Encryption::Implicit(tls_target(&settings)?),
            Tls::None => Encryption::None,
        };
        let server = Server {
            host: settings.host.clone(),
            port: settings.port,
            encryption,
            credentials,
            ehlo_name,
            connect_budget: settings.connect_budget.min(settings.call_budget),
            resolver,
        };
        let pool = ConnectionPool::new(server, idle_timeout, settings.shutdown.clone());
        Ok(Smtp { settings, from, pool })
    }

    async fn send_mail(&self, request: SendRequest<'_>) -> Outcome {
        let mut stage = Stage::Connect;
        let mail = match compose(&self.from, &request, self.settings.clock.now()) {
            Ok(mail) => mail,
            Err(failure) => return self.outcome_of(stage, failure),
        };
        let budget = self.settings.call_budget;
        let opened = timeout(budget, self.open_transaction(&mail, Instant::now() + budget, &mut stage)).await;
        match opened.unwrap_or_else(|_elapsed| Err(SmtpFailure::timed_out())) {
            Ok(connection) => self.write_content(connection, &mail).await,
            Err(failure) => self.outcome_of(stage, failure),
        }
    }

    /// Opens a transaction: returns a connection whose server waits for the content. If a reused connection is closed
    /// by the server before that, nothing was accepted, and the mail goes over a new connection at once. The other idle
    /// connections are closed as well, because they carried about as many mails or were idle for about as long.
    async fn open_transaction(
        &self,
        mail: &ComposedMail,
        deadline: Instant,
        stage: &mut Stage,
    ) -> Result<Connection, SmtpFailure> {
        let mut new_connection = false;
        loop {
            let mut connection = self.pool.get(new_connection, deadline, stage).await?;
            match send_envelope(&mut connection, &self.from.email, mail, stage).await {
                Ok(()) => return Ok(connection),
                Err(failure) if !failure.ends_connection() => {
                    self.pool.release(connection);
                    return Err(failure);
                }
                Err(failure) if !connection.reused => return Err(failure),
                Err(_) => {
                    self.pool.close_idle();
                    new_connection = true;
                }
            }
        }
    }

    /// Writes the content with its final dot, and waits up to `data_timeout` for the reply: a server may scan the mail
    /// first.
    async fn write_content(&self, mut connection: Connection, mail: &ComposedMail) -> Outcome {
        let written_before = connection.session.bytes_written();
        // Content and final dot go in one write: a second write would wait for the first one's acknowledgement (Nagle).
        let reply = connection.session.command(mail.wire.as_str());
        let answer = match timeout(self.settings.data_timeout, reply).await {
            Ok(Ok(answer)) if answer.code().severity == Severity::PositiveCompletion => {
                Ok(answer.first_line().map(excerpt).filter(|text| !text.is_empty()))
            }
            Ok(Ok(_)) => {
                let detail = "the server's reply to the content was not 2xx".to_owned();
                Err(SmtpFailure::Broken { code: "answer_cut", detail })
            }
            Ok(Err(failure)) => Err(failure),
            Err(_elapsed) => Err(SmtpFailure::timed_out()),
        };
        // TLS adds bytes and never removes any: if fewer bytes were written than the mail has, the final dot was not.
        let dot_not_written = connection.session.bytes_written() - written_before < mail.wire.len() as u64;
        match answer {
            Ok(provider_ref) => {
                self.pool.release(connection);
                Outcome::Accepted { provider_ref }
            }
            Err(failure) => {
                if !failure.ends_connection() {
                    self.pool.release(connection);
                }
                self.outcome_of(if dot_not_written { Stage::Data } else { Stage::Content }, failure)
            }
        }
    }

    fn outcome_of(&self, stage: Stage, failure: SmtpFailure) -> Outcome {
        let (class, code, detail) = match failure {
            SmtpFailure::Broken { code, detail } | SmtpFailure::Local { code, detail, .. }
                if stage == Stage::Content =>
            {
                return Outcome::Unknown { code, detail };
            }
            SmtpFailure::Broken { code, detail } if stage == Stage::Connect => {
                let code = if code == "answer_cut" { "connect_failed" } else { code };
                (ErrorClass::Unreachable, code.to_owned(), detail)
            }
            SmtpFailure::Broken { code, detail } => (ErrorClass::ProviderInternal, code.to_owned(), detail),
            SmtpFailure::Local { class, code, detail } => (class, code.to_owned(), detail),
            SmtpFailure::ErrorReply { code, text } => {
                (class_of_reply(stage, code, enhanced_code(&text)), format!("smtp_{code}"), text)
            }
        };
        let retry_after = (class == ErrorClass::Throttled).then_some(self.settings.throttled_pause);
        Outcome::Rejected { class, code, detail, retry_after }
    }

    async fn check_server(&self) -> Result<String, String> {
        let (host, port) = (&self.settings.host, self.settings.port);
        let mut stage = Stage::Connect;
        let budget = self.settings.call_budget;
        let failure = match timeout(budget, self.pool.get(true, Instant::now() + budget, &mut stage)).await {
            Ok(Ok(connection)) => {
                let encryption = if connection.session.is_encrypted() { "encrypted" } else { "unencrypted" };
                let credentials = if self.settings.username.is_some() { ", and accepts the credentials" } else { "" };
                quit(connection.session).await;
                return Ok(format!("{host}:{port} answers, {encryption}{credentials}"));
            }
            Ok(Err(failure)) => failure,
            Err(_elapsed) => SmtpFailure::timed_out(),
        };
        Err(match failure {
            SmtpFailure::ErrorReply { code, text } => {
                format!("{host}:{port} refuses the connection ({stage:?}): {code} {text}")
            }
            SmtpFailure::Broken { detail, .. } | SmtpFailure::Local { detail, .. } => {
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

    /// A server that refuses because of the account refuses all of its mails.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn max_concurrent_calls(&self) -> usize {
        // Mail servers commonly allow a client a few dozen connections.
        32
    }

    fn extra_time(&self) -> Duration {
        self.settings.data_timeout
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.send_mail(request))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.check_server())
    }
}

fn tls_target(settings: &SmtpSettings) -> Result<smtp_session::TlsTarget> {
    let name = settings.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| {
        Error::Usage(format!("SMTP: TLS needs a host name or address, not '{}'", excerpt(&settings.host)))
    })?;
    let config = tls::client_config(&tls::ca_certificates(settings.ca_file.as_deref())?).map_err(|error| {
        Error::Setup(format!(
            "SMTP: TLS does not work: {error}; install the package ca-certificates, or name a CA file"
        ))
    })?;
    Ok((Arc::new(config), name))
}

/// Sends MAIL, RCPT and DATA, up to the reply 354. `stage` is where it stopped.
async fn send_envelope(
    connection: &mut Connection,
    from: &Address,
    mail: &ComposedMail,
    stage: &mut Stage,
) -> Result<(), SmtpFailure> {
    let smtp = &mut connection.session;
    *stage = Stage::Sender;
    let mut options = Vec::new();
    if !mail.wire.is_ascii() {
        // All other headers and the body are encoded, so one of the addresses is not ASCII (RFC 6531).
        if !smtp.server.supports_feature(Extension::SmtpUtfEight) {
            let detail = "the server accepts only ASCII addresses".to_owned();
            return Err(SmtpFailure::Local { class: ErrorClass::Address, code: "smtputf8_missing", detail });
        }
        options = vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)];
    }
    smtp.command(Mail::new(Some(from.clone()), options)).await?;
    *stage = Stage::Recipient;
    smtp.command(Rcpt::new(mail.to.clone(), Vec::new())).await?;
    *stage = Stage::Data;
    if !smtp.command(Data).await?.has_code(354) {
        return Err(SmtpFailure::Broken {
            code: "answer_cut",
            detail: "the server's reply to DATA was not 354".to_owned(),
        });
    }
    Ok(())
}

/// Parses the enhanced status code (RFC 3463) at the beginning of a reply's text: class, subject, detail.
fn enhanced_code(text: &str) -> Option<(u16, u16, u16)> {
    let mut numbers = text.split_whitespace().next()?.split('.').map(str::parse::<u16>);
    match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(class), Ok(subject), Ok(detail), None) => Some((class, subject, detail)),
        _ => None,
    }
}

/// Returns the class of a temporary refusal (4xx). In reply to RCPT it is about this recipient, whatever its code:
/// greylisting, a full mailbox, a mailbox that gets mail too fast, and failed look-ups come with any code. Only 421 is
/// about the connection, unless its enhanced code is about the mailbox.
fn class_of_temporary_reply(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> ErrorClass {
    let subject = enhanced.map(|(_, subject, _)| subject);
    // RFC 3463: 1 addressing, 2 mailbox, 7 policy.
    let of_mailbox = matches!(subject, Some(1 | 2));
    match stage {
        Stage::Recipient if code != 421 || of_mailbox => ErrorClass::RecipientBusy,
        // The mail has one recipient, so a code about a mailbox is about that one. 450 comes from policies (RFC 5321,
        // 4.3.2), and policies that scan the content greylist as well.
        Stage::Data | Stage::Content if of_mailbox || code == 450 || (subject == Some(7) && code != 421) => {
            ErrorClass::RecipientBusy
        }
        // 454 to AUTH is a failure of the server.
        _ if subject == Some(7) && code != 454 => ErrorClass::Throttled,
        _ => ErrorClass::ProviderInternal,
    }
}

/// Returns the class of a refusal: by its codes, and where they do not say, by the step it came at.
fn class_of_reply(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> ErrorClass {
    match (code, enhanced) {
        // Authentication is required, too weak or wrong.
        (530 | 534 | 535 | 538, _) | (500.., Some((_, 7, 8 | 9 | 11))) => ErrorClass::Credentials,
        (400..=499, _) => class_of_temporary_reply(stage, code, enhanced),
        // The sender's address, or its domain's policy on who may send for it (DKIM, SPF, DMARC).
        (_, Some((_, 1, 7 | 8) | (_, 7, 20..=29))) => ErrorClass::Sender,
        // An address that is not ASCII (RFC 6531).
        (_, Some((_, 6, 7))) => ErrorClass::Address,
        // The mail is too large or cannot be converted, which no retry changes; a full mailbox or a failing server
        // recovers.
        (_, Some((_, 2, 3) | (_, 3, 4) | (_, 6, _))) => ErrorClass::Content,
        (_, Some((_, 2, 2))) => ErrorClass::RecipientBusy,
        (_, Some((_, 3, _))) => ErrorClass::ProviderInternal,
        (_, Some((_, 1 | 2 | 4, _))) => ErrorClass::Address,
        (552, None) if stage == Stage::Recipient => ErrorClass::RecipientBusy,
        // A policy refusal in reply to RCPT is about relaying for this sender; in reply to the content it is about the
        // content, which the step decides below.
        (_, Some((_, 7, _))) if stage == Stage::Recipient => ErrorClass::Sender,
        _ => match stage {
            // Before MAIL a refusal is about this host, as on a blocklist, and may end.
            Stage::Connect => ErrorClass::ProviderInternal,
            Stage::Sender => ErrorClass::Sender,
            Stage::Auth => ErrorClass::Credentials,
            Stage::Recipient => ErrorClass::Address,
            Stage::Data | Stage::Content => ErrorClass::Content,
        },
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use chrono::{DateTime, Utc};

    use super::super::simulator::Behaviour;
    use super::super::simulator::smtp::SmtpSimulator;
    use super::super::simulator::testing::{
        BUDGET, SHORT, closed_port, content, line_server, rejected, rustls_provider, send_request, unknown,
    };
    use super::*;
    use crate::shutdown::Shutdown;

    const TO: &str = "kim@example.com";
    const PAUSE: Duration = Duration::from_mins(5);
    /// The time of sending: an hour after the message was posted.
    const SENDING: DateTime<Utc> = DateTime::from_timestamp(1_800_003_600, 0).unwrap();

    fn settings(address: SocketAddr) -> SmtpSettings {
        SmtpSettings {
            host: address.ip().to_string(),
            port: address.port(),
            tls: Tls::None,
            username: None,
            password: None,
            from: "상점 <shop@example.net>".to_owned(),
            call_budget: BUDGET,
            connect_budget: BUDGET,
            data_timeout: BUDGET,
            ca_file: None,
            helo: Some("hub.example.net".to_owned()),
            allow_plaintext: false,
            throttled_pause: PAUSE,
            clock: Clock::manual(SENDING),
            shutdown: Shutdown::new(),
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
        smtp.send(send_request(to, &content(Some("주문 완료"), "감사합니다"))).await
    }

    fn accepted(outcome: Outcome) -> String {
        match outcome {
            Outcome::Accepted { provider_ref: Some(reference) } => reference,
            other => panic!("expected acceptance, got {other:?}"),
        }
    }

    /// Answers each line as a proper server does, except a line that begins with `word`, which gets `reply`.
    fn but(
        command: &'static str,
        reply: Option<&'static str>,
    ) -> impl Fn(&str) -> Option<String> + Clone + Send + Sync {
        move |line| match line {
            line if line.starts_with(command) => reply.map(str::to_owned),
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

    /// Returns the outcome of one mail at a server with this one peculiarity.
    async fn at(
        greeting: &'static str,
        command: &'static str,
        reply: Option<&'static str>,
        budget: Duration,
    ) -> Outcome {
        let shutdown = Shutdown::new();
        let address = line_server(&shutdown, greeting, but(command, reply)).await;
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
        let id = format!("<{}@example.net>", send_request(TO, &content(None, "")).key);
        assert_eq!(first.message_id, Some(id));
        assert_eq!(second, first, "the same delivery sent at the same time is the same mail");
        for header in ["Date: Fri, 15 Jan 2027 09:00:00 +0000\r\n", "Auto-Submitted: auto-generated\r\n"] {
            assert!(first.data.contains(header), "{}", first.data);
        }
    }

    #[tokio::test]
    async fn magic_recipients_have_their_effects() {
        let (simulator, smtp, _shutdown) = simulated().await;
        let is = |class, code: &str| (class, code.to_owned());
        assert_eq!(rejected(send(&smtp, "bounce@example.com").await), is(ErrorClass::Address, "smtp_550"));
        assert_eq!(rejected(send(&smtp, "full@example.com").await), is(ErrorClass::RecipientBusy, "smtp_452"));
        assert_eq!(rejected(send(&smtp, "greylist@example.com").await), is(ErrorClass::RecipientBusy, "smtp_450"));
        accepted(send(&smtp, "greylist@example.com").await);
        assert_eq!(unknown(send(&smtp, "cut@example.com").await), "answer_cut");
        accepted(send(&smtp, "cut@example.com").await);
        assert_eq!(simulator.records().len(), 3, "what was cut off had been taken");
    }

    #[tokio::test]
    async fn after_the_final_dot_only_a_reply_decides() {
        let (simulator, smtp, shutdown) = simulated().await;
        simulator.script(Behaviour::Fail { status: 554, text: "5.7.1 looks like spam".to_owned() }, 1);
        assert_eq!(rejected(send(&smtp, TO).await), (ErrorClass::Content, "smtp_554".to_owned()));
        simulator.script(Behaviour::Limit { retry_after: 5 }, 1);
        let Outcome::Rejected { class, retry_after, .. } = send(&smtp, TO).await else { panic!("not rejected") };
        assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(PAUSE)));
        assert_eq!(simulator.records(), []);
        for (behaviour, taken) in [(Behaviour::Cut, 1), (Behaviour::CutBefore, 1), (Behaviour::Garbage, 1)] {
            simulator.script(behaviour, 1);
            assert_eq!(unknown(send(&smtp, TO).await), "answer_cut");
            assert_eq!(simulator.records().len(), taken);
        }
        let hasty = self::smtp(SmtpSettings { data_timeout: SHORT, ..settings(simulator.address()) });
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
        assert_eq!(
            rejected(at("554 go away\r\n", "EHLO", None, BUDGET).await),
            said(ErrorClass::ProviderInternal, "smtp_554")
        );
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

    /// RFC 5321, 4.2: the digits of a reply decide. Its text may be missing, in any encoding (here EUC-KR and Latin-1),
    /// long, or several lines.
    #[tokio::test]
    async fn reply_is_read_by_its_digits() {
        for text in ["", " ", " \u{b9}\u{de}\u{c0}\u{bb}", " d\u{e9}j\u{e0}", &" x".repeat(50_000), "-a\r\n250 b"] {
            let said = |code: &str| Some(&*format!("{code}{text}\r\n").replace("250 b", &format!("{code} b")).leak());
            let taken = at(READY, ".", said("250"), BUDGET).await;
            assert!(matches!(taken, Outcome::Accepted { .. }), "{text:.9}: {taken:?}");
            for (word, code, class) in [
                ("RCPT", "550", ErrorClass::Address),
                ("RCPT", "450", ErrorClass::RecipientBusy),
                (".", "554", ErrorClass::Content),
            ] {
                let outcome = at(READY, word, said(code), BUDGET).await;
                assert_eq!(rejected(outcome), (class, format!("smtp_{code}")), "{word} {text:.9}");
            }
        }
        // A reply without a command breaks the session: nothing is written after it.
        let stray = at(READY, "DATA", Some("354 go on\r\n250 taken\r\n"), BUDGET).await;
        assert_eq!(rejected(stray).1, "answer_cut");
        let shutdown = Shutdown::new();
        let old = line_server(&shutdown, READY, |line| match line {
            line if line.starts_with("EHLO") => Some("502 not known\r\n".to_owned()),
            "HELO hub.example.net" => Some("250 peer\r\n".to_owned()),
            line => but("never", None)(line),
        });
        accepted(send(&smtp(settings(old.await)), TO).await);
        let bare_line_feed = at(READY, ".", Some("250 taken\n"), BUDGET).await;
        assert_eq!(accepted(bare_line_feed), "taken");
        let Outcome::Rejected { detail, .. } =
            at(READY, "RCPT", Some("550-5.1.1 no such\r\n550 5.1.1 person\r\n"), BUDGET).await
        else {
            panic!("not rejected")
        };
        assert_eq!(detail, "5.1.1 no such person");
        for nonsense in ["25\r\n", "250-taken\r\n550 or not\r\n", "\u{b9}\u{de}\u{c0} 250\r\n", "1250 x\r\n"] {
            assert_eq!(unknown(at(READY, ".", Some(nonsense), BUDGET).await), "answer_cut", "{nonsense}");
        }
    }

    #[tokio::test]
    async fn nothing_is_sent_without_tls() {
        let shutdown = Shutdown::new();
        let plain = line_server(&shutdown, READY, but("STARTTLS", None)).await;
        let with = |tls| smtp(SmtpSettings { tls, ..settings(plain) });
        assert_eq!(
            rejected(send(&with(Tls::Starttls), TO).await),
            (ErrorClass::Unreachable, "starttls_missing".to_owned())
        );
        assert_eq!(rejected(send(&with(Tls::Implicit), TO).await), (ErrorClass::Unreachable, "tls_failed".to_owned()));
    }

    /// An attacker on the network appends replies to the reply to STARTTLS, which would count as encrypted ones.
    #[tokio::test]
    async fn plain_text_after_starttls_is_refused() {
        let shutdown = Shutdown::new();
        let address = line_server(&shutdown, READY, |line| match line {
            "STARTTLS" => Some("220 go\r\n250-forged\r\n250 AUTH PLAIN\r\n".to_owned()),
            line if line.starts_with("EHLO") => Some("250-peer\r\n250 STARTTLS\r\n".to_owned()),
            _ => None,
        });
        let smtp = smtp(SmtpSettings { tls: Tls::Starttls, ..settings(address.await) });
        let Outcome::Rejected { code, detail, .. } = send(&smtp, TO).await else { panic!("not rejected") };
        assert_eq!(code, "tls_failed");
        assert!(detail.contains("plain text"), "{detail}");
    }

    #[tokio::test]
    async fn connections_are_reused_and_replaced_when_closed() {
        let shutdown = Shutdown::new();
        let (greetings, resets) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (seen_greetings, seen_resets) = (greetings.clone(), resets.clone());
        let usual = but("never", None);
        let address = line_server(&shutdown, READY, move |line| {
            seen_greetings.fetch_add(usize::from(line.starts_with("EHLO")), Ordering::SeqCst);
            // Each connection carries three mails; then RSET finds it closed.
            let reset = line == "RSET" && seen_resets.fetch_add(1, Ordering::SeqCst) % 3 == 2;
            if reset { None } else { usual(line) }
        });
        let smtp = smtp(settings(address.await));
        for _mail in 0..6 {
            accepted(send(&smtp, TO).await);
        }
        assert_eq!((greetings.load(Ordering::SeqCst), resets.load(Ordering::SeqCst)), (2, 5));
    }

    /// Resolves every name to the same addresses.
    struct Names(Vec<std::net::Ipv4Addr>);

    impl NameResolver for Names {
        fn resolve(&self, _name: &str) -> BoxFuture<'static, std::io::Result<Vec<std::net::IpAddr>>> {
            let found = self.0.iter().map(|ip| (*ip).into()).collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    /// Fault F2 (RFC 5321, 5.1): the addresses of a server's name are tried in turn until a session is established with
    /// one; a TCP connection is not enough.
    #[tokio::test]
    async fn next_address_is_tried_after_a_refusal_or_silence() {
        let (simulator, _, shutdown) = simulated().await;
        rustls_provider();
        let port = simulator.address().port();
        let nobody = [127, 0, 0, 4].into();
        for (ip, greeting) in [([127, 0, 0, 2], "554 not you\r\n"), ([127, 0, 0, 3], "")] {
            let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::from(ip), port)).await.unwrap();
            shutdown.spawn(async move {
                let mut taken = Vec::new();
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _sent = tokio::io::AsyncWriteExt::write_all(&mut stream, greeting.as_bytes()).await;
                    taken.push(stream);
                }
            });
        }
        let (refuses, silent, works) = ([127, 0, 0, 2].into(), [127, 0, 0, 3].into(), [127, 0, 0, 1].into());
        let at = |addresses: &[std::net::Ipv4Addr]| {
            let (host, allow_plaintext) = ("mail.example.net".to_owned(), true);
            let settings =
                SmtpSettings { host, allow_plaintext, call_budget: 4 * SHORT, ..settings(simulator.address()) };
            Smtp::with_resolver(settings, Arc::new(Names(addresses.to_vec()))).unwrap()
        };
        accepted(send(&at(&[nobody, refuses, silent, works]), TO).await);
        assert_eq!(simulator.records().len(), 1);
        let refused = (ErrorClass::ProviderInternal, "smtp_554".to_owned());
        assert_eq!(rejected(send(&at(&[refuses, nobody]), TO).await), refused, "a reply says more than silence");
        assert_eq!(rejected(send(&at(&[nobody]), TO).await).1, "connect_failed");
        assert_eq!(rejected(send(&at(&[]), TO).await).1, "connect_failed");
    }

    /// Fault E12: connecting to a server that answers no SYN ends with the connect budget, not the call budget.
    #[tokio::test]
    async fn connecting_ends_with_the_connect_budget() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel drops further SYNs once the accept queue is full.
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
            queued.push(stream);
        }
        for tls in [Tls::None, Tls::Starttls, Tls::Implicit] {
            let connect_budget = Duration::from_millis(250);
            let smtp = smtp(SmtpSettings { tls, connect_budget, ..settings(address) });
            let Outcome::Rejected { class, code, detail, .. } = send(&smtp, TO).await else { panic!("not rejected") };
            assert_eq!((class, code.as_str()), (ErrorClass::Unreachable, "connect_timeout"), "{tls:?}");
            assert!(detail.ends_with("accepted no connection within 250 ms"), "{tls:?}: {detail}");
        }
    }

    /// Fault F2: connections are closed with QUIT after their idle time, and all of them when the process stops.
    #[tokio::test]
    async fn idle_connections_are_closed_with_quit() {
        let shutdown = Shutdown::new();
        let (quits, mut said) = tokio::sync::mpsc::unbounded_channel();
        let usual = but("never", None);
        let address = line_server(&shutdown, READY, move |line| {
            if line == "QUIT" {
                quits.send(()).unwrap();
            }
            usual(line)
        });
        let address = address.await;
        rustls_provider();
        let aging =
            Smtp::with_idle_timeout(Duration::from_millis(1), settings(address), Arc::new(SystemResolver)).unwrap();
        accepted(send(&aging, TO).await);
        said.recv().await.unwrap();

        let stopping = Shutdown::new();
        let kept = smtp(SmtpSettings { shutdown: stopping.clone(), ..settings(address) });
        accepted(send(&kept, TO).await);
        assert!(said.try_recv().is_err(), "it is kept for the next mail");
        stopping.stop();
        assert!(stopping.drained(BUDGET).await);
        said.recv().await.unwrap();
        accepted(send(&kept, TO).await);
        said.recv().await.unwrap();
    }

    /// Fault F5: a server that closes before the final dot was sent has accepted nothing.
    #[tokio::test]
    async fn content_cut_before_the_final_dot_is_not_accepted() {
        let shutdown = Shutdown::new();
        let address = line_server(&shutdown, READY, but("Message-ID", None)).await;
        let smtp = smtp(settings(address));
        // More than the socket buffers hold.
        let body = format!("{}\n", "x".repeat(70)).repeat(300_000);
        let outcome = smtp.send(send_request(TO, &content(Some("x"), &body))).await;
        assert_eq!(rejected(outcome), (ErrorClass::ProviderInternal, "answer_cut".to_owned()));
    }

    #[tokio::test]
    async fn refused_recipient_keeps_the_connection() {
        let (simulator, smtp, _shutdown) = simulated().await;
        rejected(send(&smtp, "bounce@example.com").await);
        assert_eq!(smtp.pool.idle_count(), 1);
        accepted(send(&smtp, TO).await);
        assert_eq!((smtp.pool.idle_count(), simulator.records().len()), (1, 1));
        assert!(smtp.check().await.unwrap().ends_with("answers, unencrypted"));
    }

    #[tokio::test]
    async fn unusable_addresses_are_refused_before_sending() {
        let (simulator, smtp, shutdown) = simulated().await;
        for to in ["", "kim", "kim@", "@example.com", "kim@example.com\r\nDATA", "a@b.c>\r\nRCPT TO:<x@y.z", "a b@c.d"]
        {
            let outcome = send(&smtp, to).await;
            assert_eq!(rejected(outcome), (ErrorClass::Address, "address_invalid".to_owned()), "{to:?}");
        }
        assert_eq!(simulator.records(), []);
        accepted(send(&smtp, "김@example.com").await);
        let old = self::smtp(settings(line_server(&shutdown, READY, but("never", None)).await));
        assert_eq!(rejected(send(&old, "김@example.com").await).1, "smtputf8_missing");
        accepted(send(&old, TO).await);
    }

    #[test]
    fn replies_have_classes() {
        use ErrorClass::{Address, Content, Credentials, ProviderInternal, RecipientBusy, Sender, Throttled};
        for (stage, reply, class) in [
            (Stage::Connect, "421 4.7.0 too many connections", Throttled),
            (Stage::Connect, "421 busy", ProviderInternal),
            (Stage::Connect, "554 5.7.1 blocked", ProviderInternal),
            (Stage::Auth, "454 4.7.0 cannot check passwords now", ProviderInternal),
            (Stage::Auth, "530 5.7.0 first STARTTLS", Credentials),
            (Stage::Auth, "534 5.7.9 too weak", Credentials),
            (Stage::Auth, "535 5.7.8 wrong", Credentials),
            (Stage::Auth, "504 unknown mechanism", Credentials),
            (Stage::Sender, "530 5.7.0 sign in", Credentials),
            (Stage::Sender, "550 5.7.1 not your address", Sender),
            (Stage::Sender, "553 5.1.8 no such domain", Sender),
            (Stage::Sender, "450 4.1.8 sender's domain not found for now", ProviderInternal),
            (Stage::Sender, "450 4.7.1 too many from you", Throttled),
            (Stage::Sender, "451 4.3.0 later", ProviderInternal),
            (Stage::Sender, "452 4.3.1 disk full", ProviderInternal),
            (Stage::Sender, "421 4.7.0 too many from you", Throttled),
            (Stage::Sender, "421 4.3.2 stopping", ProviderInternal),
            (Stage::Recipient, "450 4.1.1 unknown for now", RecipientBusy),
            (Stage::Recipient, "450 4.2.0 greylisted", RecipientBusy),
            (Stage::Recipient, "450 4.2.1 gets mail too fast", RecipientBusy),
            (Stage::Recipient, "450 4.7.1 greylisted", RecipientBusy),
            (Stage::Recipient, "450 mailbox busy", RecipientBusy),
            (Stage::Recipient, "451 4.3.0 greylisted", RecipientBusy),
            (Stage::Recipient, "451 4.4.1 no way there", RecipientBusy),
            (Stage::Recipient, "451 4.7.1 greylisted", RecipientBusy),
            (Stage::Recipient, "451 greylisted", RecipientBusy),
            (Stage::Recipient, "452 4.2.2 full", RecipientBusy),
            (Stage::Recipient, "452 4.5.3 too many recipients", RecipientBusy),
            (Stage::Recipient, "452 full", RecipientBusy),
            (Stage::Recipient, "454 4.7.1 relay access denied for now", RecipientBusy),
            (Stage::Recipient, "421 4.2.1 gets mail too fast", RecipientBusy),
            (Stage::Recipient, "421 4.3.2 stopping", ProviderInternal),
            (Stage::Recipient, "421 4.7.0 too many from you", Throttled),
            (Stage::Content, "450 4.2.0 greylisted", RecipientBusy),
            (Stage::Content, "450 policy", RecipientBusy),
            (Stage::Content, "452 4.2.2 full", RecipientBusy),
            (Stage::Content, "451 4.7.1 greylisted", RecipientBusy),
            (Stage::Content, "421 4.7.0 too many from you", Throttled),
            (Stage::Recipient, "550 no such user", Address),
            (Stage::Recipient, "550 5.1.1 no such user", Address),
            (Stage::Recipient, "550 5.2.1 closed", Address),
            (Stage::Recipient, "550 5.4.1 not here", Address),
            (Stage::Recipient, "550 5.7.1 relaying denied", Sender),
            (Stage::Recipient, "551 moved", Address),
            (Stage::Recipient, "552 5.2.2 full", RecipientBusy),
            (Stage::Recipient, "552 full", RecipientBusy),
            (Stage::Recipient, "553 bad name", Address),
            (Stage::Recipient, "553 5.6.7 not beyond ASCII", Address),
            (Stage::Recipient, "556 5.1.10 takes no mail", Address),
            (Stage::Recipient, "554 5.7.1 access denied", Sender),
            (Stage::Content, "451 4.3.0 later", ProviderInternal),
            (Stage::Content, "452 4.3.1 disk full", ProviderInternal),
            (Stage::Content, "550 5.1.1 after all not", Address),
            (Stage::Content, "550 5.7.26 DMARC", Sender),
            (Stage::Content, "552 5.2.2 full", RecipientBusy),
            (Stage::Content, "552 5.3.4 too large", Content),
            (Stage::Content, "552 too large", Content),
            (Stage::Content, "554 5.6.0 not readable", Content),
            (Stage::Content, "554 5.7.1 spam", Content),
            (Stage::Content, "554 no", Content),
        ] {
            let (code, text) = reply.split_once(' ').unwrap();
            assert_eq!(class_of_reply(stage, code.parse().unwrap(), enhanced_code(text)), class, "{stage:?} {reply}");
        }
        for none in ["", "5.1", "5.1.1.1", "a.b.c", "hello 5.1.1", "5..1"] {
            assert_eq!(enhanced_code(none), None, "{none}");
        }
    }

    #[test]
    fn settings_that_would_leak_or_cannot_work_are_refused() {
        rustls_provider();
        let good = || SmtpSettings { host: "smtp.example.com".to_owned(), ..settings(([127, 0, 0, 1], 587).into()) };
        let refused = |settings: SmtpSettings| Smtp::new(settings).err().unwrap().to_string();
        assert!(refused(good()).contains("unencrypted"), "plain text to another machine");
        assert!(Smtp::new(SmtpSettings { allow_plaintext: true, ..good() }).is_ok());
        let good = || SmtpSettings { allow_plaintext: true, ..good() };
        assert!(refused(SmtpSettings { username: Some("u".to_owned()), ..good() }).contains("or neither"));
        assert!(refused(SmtpSettings { from: "shop".to_owned(), ..good() }).contains("is not valid"));
        assert!(refused(SmtpSettings { from: "a@b.c\r\nBcc: x@y.z".to_owned(), ..good() }).contains("is not valid"));
        assert!(refused(SmtpSettings { helo: Some("a\r\nMAIL".to_owned()), ..good() }).contains("EHLO"));
        let ca_file = Some(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml").into());
        assert!(refused(SmtpSettings { tls: Tls::Starttls, ca_file, ..good() }).contains("no certificate"));
        let (username, password) = (Some("hub-user".to_owned()), Some("SECRET".to_owned()));
        let shown = format!("{:?}", SmtpSettings { username, password, ..good() });
        assert!(!shown.contains("SECRET") && !shown.contains("hub-user"), "{shown}");
    }
}
