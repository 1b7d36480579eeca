//! E-mail over SMTP: one mail to one recipient per transaction, so that one refused recipient is one refused delivery.
//!
//! The library composes the mail and speaks the protocol; the steps are taken one by one here, because what a failure
//! means depends on the step. Until the content is on its way, a broken connection is definite: a server takes a mail
//! with the final dot, not before. From then on, only the server's own reply is an answer; anything else is unknown.
//!
//! `smtp_connection` has the connections and how they are kept, `smtp_dialog` commands and replies, `smtp_mail` what is
//! written.

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

use super::guard::{Lookup, SystemLookup};
use super::http::is_loopback;
use super::smtp_connection::{Connection, Connections, Cover, IDLE, Server, Stage, farewell};
use super::smtp_dialog::Trouble;
use super::smtp_mail::{Composed, compose};
use super::{Pending, Provider, SendRequest, smtp_dialog, tls};

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
    /// From the first look-up to the server's word that it waits for the content.
    pub call_budget: Duration,
    /// What of it may pass before a connection stands.
    pub connect_budget: Duration,
    /// How long the answer to the content is waited for.
    pub data_timeout: Duration,
    /// PEM file with certificates to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// What we call ourselves in EHLO; the host's name if none.
    pub helo: Option<String>,
    /// Lets mails and password cross a network in the clear.
    pub allow_plaintext: bool,
    /// How long the account sends nothing after a 4.7.x that is about it, not about one mail (too many, not trusted yet).
    pub throttled_pause: Duration,
    /// Mails are dated by it.
    pub clock: Clock,
    /// Closes kept connections when it stops.
    pub shutdown: Shutdown,
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
    connections: Connections,
}

impl Smtp {
    pub fn new(settings: SmtpSettings) -> Result<Smtp> {
        Smtp::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// With another way to look the server's name up.
    pub fn with_lookup(settings: SmtpSettings, lookup: Arc<dyn Lookup>) -> Result<Smtp> {
        Smtp::keeping(IDLE, settings, lookup)
    }

    fn keeping(idle_for: Duration, settings: SmtpSettings, lookup: Arc<dyn Lookup>) -> Result<Smtp> {
        let from = Some(&settings.from).filter(|from| !from.contains(char::is_control));
        let from: Mailbox = from.and_then(|from| from.parse().ok()).ok_or_else(|| {
            let given = excerpt(&settings.from);
            Error::Usage(format!("SMTP: '{given}' is no sender: write name@domain or Name <name@domain>"))
        })?;
        if settings.tls == Tls::None && !is_loopback(&settings.host) && !settings.allow_plaintext {
            return Err(Error::Usage(format!(
                "SMTP: mails to {} would cross the network in the clear: set TLS to starttls or implicit, \
                 or allow plain text",
                settings.host
            )));
        }
        let credentials = match (&settings.username, &settings.password) {
            (Some(user), Some(password)) => Some(Credentials::new(user.clone(), password.clone())),
            (None, None) => None,
            _ => return Err(Error::Usage("SMTP: set user name and password, or neither".to_owned())),
        };
        let hello = match &settings.helo {
            Some(name) if name.is_empty() || name.contains(|c: char| c.is_control() || c.is_whitespace()) => {
                return Err(Error::Setup("SMTP: the EHLO name must be a host name".to_owned()));
            }
            Some(name) => ClientId::Domain(name.clone()),
            None => ClientId::default(),
        };
        let cover = match settings.tls {
            Tls::Starttls => Cover::Starttls(tls_of(&settings)?),
            Tls::Implicit => Cover::Implicit(tls_of(&settings)?),
            Tls::None => Cover::None,
        };
        let server = Server {
            host: settings.host.clone(),
            port: settings.port,
            cover,
            credentials,
            hello,
            connect_budget: settings.connect_budget.min(settings.call_budget),
            lookup,
        };
        let connections = Connections::new(server, idle_for, settings.shutdown.clone());
        Ok(Smtp { settings, from, connections })
    }

    async fn transfer(&self, letter: SendRequest<'_>) -> Outcome {
        let mut stage = Stage::Connect;
        let mail = match compose(&self.from, &letter, self.settings.clock.now()) {
            Ok(mail) => mail,
            Err(trouble) => return self.verdict(stage, trouble),
        };
        let budget = self.settings.call_budget;
        let opened = timeout(budget, self.open(&mail, Instant::now() + budget, &mut stage)).await;
        match opened.unwrap_or_else(|_elapsed| Err(Trouble::silence())) {
            Ok(connection) => self.write(connection, &mail).await,
            Err(trouble) => self.verdict(stage, trouble),
        }
    }

    /// A connection whose server waits for the content. A kept one that the server closes, or has closed, before that
    /// has taken nothing: the mail goes on a fresh one at once. The others that were kept are closed, too: they served as
    /// many mails, or wait for as long.
    async fn open(&self, mail: &Composed, until: Instant, stage: &mut Stage) -> Result<Connection, Trouble> {
        let mut fresh = false;
        loop {
            let mut connection = self.connections.get(fresh, until, stage).await?;
            match announce(&mut connection, &self.from.email, mail, stage).await {
                Ok(()) => return Ok(connection),
                Err(trouble) if !trouble.ends_connection() => {
                    self.connections.keep(connection);
                    return Err(trouble);
                }
                Err(trouble) if !connection.reused => return Err(trouble),
                Err(_) => {
                    self.connections.discard();
                    fresh = true;
                }
            }
        }
    }

    /// Writes the content with its final dot, and waits for as long as a server may take to look into it.
    async fn write(&self, mut connection: Connection, mail: &Composed) -> Outcome {
        let before = connection.smtp.written();
        // Content and final dot in one write: in two, the second waits for the first one's acknowledgement (Nagle).
        let writing = connection.smtp.command(mail.wire.as_str());
        let answer = match timeout(self.settings.data_timeout, writing).await {
            Ok(Ok(answer)) if answer.code().severity == Severity::PositiveCompletion => {
                Ok(answer.first_line().map(excerpt).filter(|text| !text.is_empty()))
            }
            Ok(Ok(_)) => {
                let detail = "the content was not answered with 2xx".to_owned();
                Err(Trouble::Broken { code: "answer_cut", detail })
            }
            Ok(Err(trouble)) => Err(trouble),
            Err(_elapsed) => Err(Trouble::silence()),
        };
        // Encryption makes it more, never less: with fewer bytes, the final dot has not left.
        let no_dot = connection.smtp.written() - before < mail.wire.len() as u64;
        match answer {
            Ok(provider_ref) => {
                self.connections.keep(connection);
                Outcome::Accepted { provider_ref }
            }
            Err(trouble) => {
                if !trouble.ends_connection() {
                    self.connections.keep(connection);
                }
                self.verdict(if no_dot { Stage::Data } else { Stage::Content }, trouble)
            }
        }
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
        let (host, port) = (&self.settings.host, self.settings.port);
        let mut stage = Stage::Connect;
        let budget = self.settings.call_budget;
        let trouble = match timeout(budget, self.connections.get(true, Instant::now() + budget, &mut stage)).await {
            Ok(Ok(connection)) => {
                let secure = if connection.smtp.is_encrypted() { "encrypted" } else { "in the clear" };
                let known = if self.settings.username.is_some() { ", and takes our credentials" } else { "" };
                farewell(connection.smtp).await;
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

    /// What a server refuses because of us, it refuses all of us.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn at_once(&self) -> usize {
        // Mail servers commonly allow a client some tens of connections.
        32
    }

    fn extra_time(&self) -> Duration {
        self.settings.data_timeout
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.transfer(letter))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.greet())
    }
}

fn tls_of(settings: &SmtpSettings) -> Result<smtp_dialog::Tls> {
    let name = settings.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(name).map_err(|_| {
        Error::Usage(format!("SMTP: TLS needs a server's name or address: '{}' is none", excerpt(&settings.host)))
    })?;
    let config = tls::config(&tls::roots(settings.ca_file.as_deref())?).map_err(|error| {
        Error::Setup(format!("SMTP: no TLS: {error}; install the package ca-certificates, or name a CA file"))
    })?;
    Ok((Arc::new(config), name))
}

/// From MAIL to the server's word that it waits for the content.
async fn announce(
    connection: &mut Connection,
    from: &Address,
    mail: &Composed,
    stage: &mut Stage,
) -> Result<(), Trouble> {
    let smtp = &mut connection.smtp;
    *stage = Stage::Sender;
    let mut options = Vec::new();
    if !mail.wire.is_ascii() {
        // Everything but addresses is encoded, so it is one of them that needs more than ASCII.
        if !smtp.server.supports_feature(Extension::SmtpUtfEight) {
            let detail = "the server takes only ASCII addresses".to_owned();
            return Err(Trouble::Ours { class: ErrorClass::Address, code: "smtputf8_missing", detail });
        }
        options = vec![MailParameter::SmtpUtfEight, MailParameter::Body(MailBodyParameter::EightBitMime)];
    }
    smtp.command(Mail::new(Some(from.clone()), options)).await?;
    *stage = Stage::Recipient;
    smtp.command(Rcpt::new(mail.to.clone(), Vec::new())).await?;
    *stage = Stage::Data;
    if !smtp.command(Data).await?.has_code(354) {
        return Err(Trouble::Broken { code: "answer_cut", detail: "DATA was not answered with 354".to_owned() });
    }
    Ok(())
}

/// The enhanced status code (RFC 3463) a reply's text begins with.
fn enhanced(text: &str) -> Option<(u16, u16, u16)> {
    let mut numbers = text.split_whitespace().next()?.split('.').map(str::parse::<u16>);
    match (numbers.next()?, numbers.next()?, numbers.next()?, numbers.next()) {
        (Ok(class), Ok(subject), Ok(detail), None) => Some((class, subject, detail)),
        _ => None,
    }
}

/// What a refusal for now (4xx) means. One that answers RCPT is about this recipient, whatever its words: greylisting, a
/// mailbox that is full or gets mail too fast, and look-ups that fail come with any code. 421 alone is about the
/// connection, unless it names the mailbox.
fn class_for_now(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> ErrorClass {
    let subject = enhanced.map(|(_, subject, _)| subject);
    // RFC 3463: 1 addressing, 2 mailbox, 7 policy.
    let of_mailbox = matches!(subject, Some(1 | 2));
    match stage {
        Stage::Recipient if code != 421 || of_mailbox => ErrorClass::RecipientBusy,
        // There is one recipient, so what is said of a mailbox is said of it; 450 is a policy's word (RFC 5321, 4.3.2), and
        // policies that look into a mail greylist it, too.
        Stage::Data | Stage::Content if of_mailbox || code == 450 || (subject == Some(7) && code != 421) => {
            ErrorClass::RecipientBusy
        }
        // 454 to AUTH is the server's trouble with it.
        _ if subject == Some(7) && code != 454 => ErrorClass::Throttled,
        _ => ErrorClass::ProviderInternal,
    }
}

/// What a refusal means. Where the enhanced code does not say, the step does at which it came.
fn class_of(stage: Stage, code: u16, enhanced: Option<(u16, u16, u16)>) -> ErrorClass {
    match (code, enhanced) {
        // Authentication: required, too weak, wrong.
        (530 | 534 | 535 | 538, _) | (500.., Some((_, 7, 8 | 9 | 11))) => ErrorClass::Credentials,
        (400..=499, _) => class_for_now(stage, code, enhanced),
        // Sender's address, and what its domain publishes about who may send for it (DKIM, SPF, DMARC).
        (_, Some((_, 1, 7 | 8) | (_, 7, 20..=29))) => ErrorClass::Sender,
        // An address beyond ASCII (RFC 6531).
        (_, Some((_, 6, 7))) => ErrorClass::Address,
        // A full mailbox or a server in trouble may recover; a mail does not get smaller.
        (_, Some((_, 2, 3) | (_, 3, 4) | (_, 6, _))) => ErrorClass::Content,
        (_, Some((_, 2, 2))) => ErrorClass::RecipientBusy,
        (_, Some((_, 3, _))) => ErrorClass::ProviderInternal,
        (_, Some((_, 1 | 2 | 4, _))) => ErrorClass::Address,
        (552, None) if stage == Stage::Recipient => ErrorClass::RecipientBusy,
        // Policy: towards a recipient it is relaying we are denied, of a content it is what it says.
        (_, Some((_, 7, _))) if stage == Stage::Recipient => ErrorClass::Sender,
        _ => match stage {
            // Before a mail is named, a no is about this host, as on a blocklist: it may be served again.
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
        BUDGET, SHORT, closed_port, content, letter, lines, rejected, rustls_provider, unknown,
    };
    use super::*;
    use crate::shutdown::Shutdown;

    const TO: &str = "kim@example.com";
    const PAUSE: Duration = Duration::from_mins(5);
    /// An hour after the posting.
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
        assert_eq!(second, first, "the same delivery sent at the same time is the same mail");
        for header in ["Date: Fri, 15 Jan 2027 09:00:00 +0000\r\n", "Auto-Submitted: auto-generated\r\n"] {
            assert!(first.data.contains(header), "{}", first.data);
        }
    }

    #[tokio::test]
    async fn the_simulators_magic_recipients_do_what_they_say() {
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
    async fn after_the_final_dot_only_a_reply_is_an_answer() {
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

    /// RFC 5321, 4.2: the digits of a reply decide. Its text may be missing, in any encoding (here EUC-KR and Latin-1), long,
    /// or several lines.
    #[tokio::test]
    async fn the_digits_of_a_reply_decide() {
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
        // A reply that nobody asked for is taken for no answer: nothing is written after it.
        let stray = at(READY, "DATA", Some("354 go on\r\n250 taken\r\n"), BUDGET).await;
        assert_eq!(rejected(stray).1, "answer_cut");
        let shutdown = Shutdown::new();
        let old = lines(&shutdown, READY, |line| match line {
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
        assert!(detail.contains("in the clear"), "{detail}");
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

    /// Leads every name to the same addresses.
    struct Names(Vec<std::net::Ipv4Addr>);

    impl Lookup for Names {
        fn lookup(&self, _name: &str) -> Pending<'static, std::io::Result<Vec<std::net::IpAddr>>> {
            let found = self.0.iter().map(|ip| (*ip).into()).collect();
            Box::pin(std::future::ready(Ok(found)))
        }
    }

    /// Fault F2 (RFC 5321, 5.1): the addresses of a server's name are tried in turn until one takes the mail's
    /// connection; that one answers is not enough.
    #[tokio::test]
    async fn an_address_that_refuses_or_is_silent_gives_way_to_the_next() {
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
            Smtp::with_lookup(settings, Arc::new(Names(addresses.to_vec()))).unwrap()
        };
        accepted(send(&at(&[nobody, refuses, silent, works]), TO).await);
        assert_eq!(simulator.records().len(), 1);
        let refused = (ErrorClass::ProviderInternal, "smtp_554".to_owned());
        assert_eq!(rejected(send(&at(&[refuses, nobody]), TO).await), refused, "a reply says more than silence");
        assert_eq!(rejected(send(&at(&[nobody]), TO).await).1, "connect_failed");
        assert_eq!(rejected(send(&at(&[]), TO).await).1, "connect_failed");
    }

    /// Fault E12: a server that answers no SYN is left when the connect budget is over, whatever the call budget.
    #[tokio::test]
    async fn a_server_that_takes_no_connection_is_left_after_the_connect_budget() {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        // The kernel drops further SYNs once nobody accepts what is queued.
        let mut queued = Vec::new();
        while let Ok(Ok(stream)) = timeout(SHORT, tokio::net::TcpStream::connect(address)).await {
            queued.push(stream);
        }
        for tls in [Tls::None, Tls::Starttls, Tls::Implicit] {
            let connect_budget = Duration::from_millis(250);
            let smtp = smtp(SmtpSettings { tls, connect_budget, ..settings(address) });
            let Outcome::Rejected { class, code, detail, .. } = send(&smtp, TO).await else { panic!("not rejected") };
            assert_eq!((class, code.as_str()), (ErrorClass::Unreachable, "connect_timeout"), "{tls:?}");
            assert!(detail.ends_with("took no connection within 250 ms"), "{tls:?}: {detail}");
        }
    }

    /// Fault F2: a connection that is not used any more, and any when the process stops, is closed with QUIT.
    #[tokio::test]
    async fn idle_connections_are_closed_with_quit() {
        let shutdown = Shutdown::new();
        let (quits, mut said) = tokio::sync::mpsc::unbounded_channel();
        let usual = but("never", None);
        let address = lines(&shutdown, READY, move |line| {
            if line == "QUIT" {
                quits.send(()).unwrap();
            }
            usual(line)
        });
        let address = address.await;
        rustls_provider();
        let aging = Smtp::keeping(Duration::from_millis(1), settings(address), Arc::new(SystemLookup)).unwrap();
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

    /// Fault F5: a server that closes before the final dot was sent has taken nothing.
    #[tokio::test]
    async fn a_content_that_is_cut_before_its_end_is_not_taken() {
        let shutdown = Shutdown::new();
        let address = lines(&shutdown, READY, but("Message-ID", None)).await;
        let smtp = smtp(settings(address));
        // More than the sockets in between hold.
        let body = format!("{}\n", "x".repeat(70)).repeat(300_000);
        let outcome = smtp.send(letter(TO, &content(Some("x"), &body))).await;
        assert_eq!(rejected(outcome), (ErrorClass::ProviderInternal, "answer_cut".to_owned()));
    }

    #[tokio::test]
    async fn a_refused_recipient_does_not_cost_the_connection() {
        let (simulator, smtp, _shutdown) = simulated().await;
        rejected(send(&smtp, "bounce@example.com").await);
        assert_eq!(smtp.connections.kept(), 1);
        accepted(send(&smtp, TO).await);
        assert_eq!((smtp.connections.kept(), simulator.records().len()), (1, 1));
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
            assert_eq!(class_of(stage, code.parse().unwrap(), enhanced(text)), class, "{stage:?} {reply}");
        }
        for none in ["", "5.1", "5.1.1.1", "a.b.c", "hello 5.1.1", "5..1"] {
            assert_eq!(enhanced(none), None, "{none}");
        }
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
