//! An SMTP server (RFC 5321) that accepts mail for every recipient and delivers none. Some local parts are magic, at
//! any domain, to try out failures:
//!
//! - `bounce@…`   550 5.1.1, the recipient does not exist
//! - `full@…`     452 4.2.2, the mailbox is full
//! - `greylist@…` 450 4.2.0 the first time each address is tried, then accepted
//! - `greylist-N@…` the same with reply N of `GREYLISTED`
//! - `cut@…`      accepts the first mail to each address and closes the connection without a reply, then answers

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Behaviour, Control};
use crate::error::Result;
use crate::shutdown::Shutdown;

const MAIL_BYTES: usize = 10 << 20;
const LINE_BYTES: u64 = 4096;
const RECIPIENTS: usize = 100;
/// RFC 5321, 4.5.3.2.7.
const COMMAND_TIMEOUT: Duration = Duration::from_mins(5);
/// The most magic addresses remembered as tried; then all are forgotten.
const MAX_TRIED: usize = 10_000;
/// Replies of real servers that greylist: `greylist-N@…` is refused once with reply N, from 0.
pub const GREYLISTED: [&str; 6] = [
    "450 4.2.0 recipient address rejected: greylisted, try again in 300 seconds",
    "450 recipient address rejected: greylisted",
    "451 try again later",
    "452 4.5.3 too many recipients for now",
    "450 4.2.1 the mailbox is busy, try again later",
    "451 4.7.1 greylisted, try again in 5 minutes",
];
const REFUSAL: (u16, &str) = (451, "4.3.0 scripted trouble");

/// An accepted mail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// The header Message-ID, by which duplicates can be found.
    pub message_id: Option<String>,
    /// Headers and body, dots unstuffed.
    pub data: String,
}

/// The running simulator. Clones share its state.
#[derive(Clone)]
pub struct SmtpSimulator {
    address: SocketAddr,
    control: SocketAddr,
    shared: Shared,
}

/// What all sessions share.
#[derive(Clone)]
struct Shared {
    control: Control<Mail>,
    tried_addresses: Arc<Mutex<HashSet<String>>>,
}

impl SmtpSimulator {
    /// Starts the simulator on 127.0.0.1: SMTP on `port`, `/_records` and `/_script` over HTTP on `control_port`. Port
    /// 0 takes any free one.
    ///
    /// # Errors
    /// `Error::Setup` if it cannot listen on a port.
    pub async fn start(port: u16, control_port: u16, shutdown: &Shutdown) -> Result<SmtpSimulator> {
        let (listener, control_listener) = (super::listen(port).await?, super::listen(control_port).await?);
        let (address, control) = (super::bound_address(&listener)?, super::bound_address(&control_listener)?);
        let shared = Shared { control: Control::new(), tried_addresses: Arc::default() };
        let smtp = {
            let (shared, shutdown) = (shared.clone(), shutdown.clone());
            move |stream| run_session(stream, shutdown.clone(), shared.clone())
        };
        let control_http = {
            let (control_http, shutdown) = (shared.control.clone(), shutdown.clone());
            move |stream| {
                let control_http = control_http.clone();
                let respond = move |request| {
                    let control_http = control_http.clone();
                    async move { Ok(super::serve_control(&control_http, REFUSAL, request).await) }
                };
                super::serve_http(stream, shutdown.clone(), respond)
            }
        };
        shutdown.spawn(super::accept_connections(listener, shutdown.clone(), smtp));
        shutdown.spawn(super::accept_connections(control_listener, shutdown.clone(), control_http));
        Ok(SmtpSimulator { address, control, shared })
    }

    /// The address of SMTP.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of `/_records` and `/_script`.
    pub fn control_address(&self) -> SocketAddr {
        self.control
    }

    /// The number of accepted mails that are recorded.
    pub fn accepted_count(&self) -> u64 {
        self.shared.control.record_count()
    }

    /// Returns the accepted mails, in order of arrival.
    pub fn records(&self) -> Vec<Mail> {
        self.shared.control.records()
    }

    /// Sets the behaviour after the final dot of the next `times` mails, after those scripted before.
    pub fn script(&self, behaviour: Behaviour, times: u32) {
        self.shared.control.push_script(behaviour, times);
    }
}

impl Shared {
    fn first_time(&self, address: &str) -> bool {
        let mut tried = self.tried_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if tried.len() >= MAX_TRIED {
            tried.clear();
        }
        tried.insert(address.to_owned())
    }

    /// Returns the reply to RCPT.
    fn recipient_reply(&self, address: &str) -> &'static str {
        match address.split('@').next() {
            Some("bounce") => "550 5.1.1 no such recipient",
            Some("full") => "452 4.2.2 mailbox full",
            Some("greylist") if self.first_time(address) => "450 4.2.0 greylisted, try again later",
            Some(local) => match local.strip_prefix("greylist-").and_then(|n| GREYLISTED.get(n.parse::<usize>().ok()?))
            {
                Some(words) if self.first_time(address) => words,
                _ => "250 2.1.5 ok",
            },
            None => "250 2.1.5 ok",
        }
    }

    fn behaviour(&self, to: &[String]) -> Behaviour {
        let cut = to.iter().any(|address| address.starts_with("cut@") && self.first_time(address));
        if cut { Behaviour::Cut } else { self.control.next_behaviour() }
    }
}

async fn run_session(stream: TcpStream, shutdown: Shutdown, shared: Shared) {
    let mut session = Session { stream: BufStream::new(stream), shared, from: None, to: Vec::new() };
    // An error is the client's, or a connection that was closed on purpose.
    let _ended = session.run(&shutdown).await;
}

struct Session {
    stream: BufStream<TcpStream>,
    shared: Shared,
    from: Option<String>,
    to: Vec<String>,
}

impl Session {
    async fn run(&mut self, shutdown: &Shutdown) -> io::Result<()> {
        self.send_reply("220 simulator ESMTP").await?;
        loop {
            let command = tokio::select! {
                command = self.read_command() => command?,
                () = shutdown.stopping() => return self.send_reply("421 4.3.2 stopping").await,
            };
            let (verb, arguments) = command.split_once(' ').unwrap_or((&command, ""));
            match verb.to_ascii_uppercase().as_str() {
                "QUIT" => return self.send_reply("221 2.0.0 bye").await,
                "DATA" if self.to.is_empty() => self.send_reply("503 5.5.1 no recipient yet").await?,
                "DATA" => {
                    if !self.receive_mail(shutdown).await? {
                        return Ok(());
                    }
                }
                "AUTH" => self.authenticate(arguments).await?,
                verb => {
                    let reply = self.reply(verb, arguments);
                    self.send_reply(reply).await?;
                }
            }
        }
    }

    fn reply(&mut self, verb: &str, arguments: &str) -> &'static str {
        match verb {
            "EHLO" => {
                self.reset();
                "250-simulator\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-SIZE 10485760\r\n250-AUTH PLAIN LOGIN\r\n\
                 250 ENHANCEDSTATUSCODES"
            }
            "HELO" | "RSET" => {
                self.reset();
                "250 2.0.0 ok"
            }
            "NOOP" => "250 2.0.0 ok",
            "VRFY" => "252 2.5.0 send some mail, and see",
            "MAIL" if self.from.is_some() => "503 5.5.1 one sender is enough",
            "MAIL" => match address_in(arguments, "FROM:") {
                Some(from) => {
                    self.from = Some(from.to_owned());
                    "250 2.1.0 ok"
                }
                None => "501 5.5.4 MAIL FROM:<address>",
            },
            "RCPT" if self.from.is_none() => "503 5.5.1 no sender yet",
            "RCPT" if self.to.len() >= RECIPIENTS => "452 4.5.3 too many recipients",
            "RCPT" => match address_in(arguments, "TO:").filter(|to| to.contains('@')) {
                Some(to) => {
                    let reply = self.shared.recipient_reply(to);
                    if reply.starts_with('2') {
                        self.to.push(to.to_owned());
                    }
                    reply
                }
                None => "501 5.5.4 RCPT TO:<address>",
            },
            _ => "502 5.5.1 no such command",
        }
    }

    /// Accepts any credentials.
    async fn authenticate(&mut self, arguments: &str) -> io::Result<()> {
        let mut words = arguments.split(' ');
        let challenges: &[&str] = match (words.next().map(str::to_ascii_uppercase).as_deref(), words.next()) {
            (Some("PLAIN"), Some(_)) => &[],
            (Some("PLAIN"), None) => &["334 "],
            // "Username:", "Password:"
            (Some("LOGIN"), Some(_)) => &["334 UGFzc3dvcmQ6"],
            (Some("LOGIN"), None) => &["334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6"],
            _ => return self.send_reply("504 5.5.4 PLAIN or LOGIN").await,
        };
        for challenge in challenges {
            self.send_reply(challenge).await?;
            self.read_command().await?;
        }
        self.send_reply("235 2.7.0 welcome").await
    }

    /// Receives a mail, from DATA to the reply after the final dot. Returns false if the connection is to be closed.
    async fn receive_mail(&mut self, shutdown: &Shutdown) -> io::Result<bool> {
        self.send_reply("354 end with a dot on a line by itself").await?;
        let Some(data) = timeout(COMMAND_TIMEOUT, read_content(&mut self.stream)).await?? else {
            self.reset();
            self.send_reply("552 5.3.4 too large").await?;
            return Ok(true);
        };
        let (from, to) = (self.from.take().unwrap_or_default(), std::mem::take(&mut self.to));
        let behaviour = self.shared.behaviour(&to);
        if matches!(behaviour, Behaviour::Ok | Behaviour::Hang | Behaviour::Cut) {
            let bytes = data.len();
            let data = String::from_utf8_lossy(&data).into_owned();
            self.shared.control.record(Mail { from, to, message_id: message_id(&data), data }, bytes);
        }
        match behaviour {
            Behaviour::Ok => self.send_reply("250 2.0.0 taken").await?,
            Behaviour::Fail { status, text } => self.send_reply(&format!("{status} {text}")).await?,
            Behaviour::Limit { retry_after } => {
                self.send_reply(&format!("421 4.7.0 too many mails, try again in {retry_after} seconds")).await?;
                return Ok(false);
            }
            Behaviour::Garbage => self.stream.write_all(b"\x00\xff nonsense\r\n").await?,
            Behaviour::Cut | Behaviour::CutBefore => return Ok(false),
            Behaviour::Hang => {
                let closed = async { while self.read_command().await.is_ok() {} };
                tokio::select! { () = closed => (), () = shutdown.stopping() => () }
                return Ok(false);
            }
        }
        self.stream.flush().await?;
        Ok(true)
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn send_reply(&mut self, reply: &str) -> io::Result<()> {
        self.stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
        self.stream.flush().await
    }

    /// Reads the next line without its end. Fails if the client closed the connection or sent nothing for too long.
    async fn read_command(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        timeout(COMMAND_TIMEOUT, (&mut self.stream).take(LINE_BYTES).read_until(b'\n', &mut line)).await??;
        match line.strip_suffix(b"\r\n") {
            Some(command) => Ok(String::from_utf8_lossy(command).into_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Returns the address in `FROM:<address> …` or `TO:<address> …`.
fn address_in<'a>(arguments: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, tail) = arguments.split_at_checked(prefix.len())?;
    let address = tail.trim_start().strip_prefix('<')?.split_once('>')?.0;
    head.eq_ignore_ascii_case(prefix).then_some(address)
}

/// Reads a mail up to the final dot, and removes the transparency dots. `None` if the mail is too large. Only CR LF
/// ends a line, so that it is certain where the mail ends.
async fn read_content(stream: &mut BufStream<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let (mut data, mut line, mut at_line_start) = (Vec::new(), Vec::new(), true);
    let mut fits = true;
    loop {
        line.clear();
        if (&mut *stream).take(LINE_BYTES).read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if at_line_start && line == b".\r\n" {
            return Ok(fits.then_some(data));
        }
        let kept = if at_line_start { line.strip_prefix(b".").unwrap_or(&line) } else { &line };
        fits = fits && data.len() + kept.len() <= MAIL_BYTES;
        if fits {
            data.extend_from_slice(kept);
        }
        at_line_start = line.ends_with(b"\r\n");
    }
}

fn message_id(data: &str) -> Option<String> {
    let mut headers = data.split("\r\n").take_while(|line| !line.is_empty()).filter_map(|line| line.split_once(':'));
    headers.find(|(name, _)| name.eq_ignore_ascii_case("message-id")).map(|(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Client(BufStream<TcpStream>);

    impl Client {
        async fn new(simulator: &SmtpSimulator) -> Client {
            let mut client = Client(BufStream::new(TcpStream::connect(simulator.address()).await.unwrap()));
            assert!(client.reply().await.starts_with("220 "));
            client
        }

        /// The last line of the reply, or an empty text if the server closed the connection.
        async fn reply(&mut self) -> String {
            loop {
                let mut line = String::new();
                self.0.read_line(&mut line).await.unwrap();
                if line.as_bytes().get(3) != Some(&b'-') {
                    return line.trim_end().to_owned();
                }
            }
        }

        async fn say(&mut self, line: &str) -> String {
            self.0.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
            self.0.flush().await.unwrap();
            self.reply().await
        }

        async fn to(&mut self, recipient: &str) {
            for line in ["MAIL FROM:<a@example.net> BODY=8BITMIME", &format!("RCPT TO:<{recipient}>")] {
                assert!(self.say(line).await.starts_with("250 "), "{line}");
            }
            assert!(self.say("data").await.starts_with("354 "));
        }
    }

    async fn started() -> (SmtpSimulator, Client, Shutdown) {
        let shutdown = Shutdown::new();
        let simulator = SmtpSimulator::start(0, 0, &shutdown).await.unwrap();
        let mut client = Client::new(&simulator).await;
        assert!(client.say("EHLO test").await.starts_with("250 "));
        (simulator, client, shutdown)
    }

    #[tokio::test]
    async fn mail_ends_with_a_dot_between_cr_lf() {
        let (simulator, mut client, _shutdown) = started().await;
        client.to("b@example.com").await;
        let long = "x".repeat(3 * 4096);
        let mail = format!("Message-Id:  <1@x>\r\n\r\n..dot\r\n.\nRCPT\n.\rDATA\r.\r\n...\r\n{long}\r\n.");
        assert_eq!(client.say(&mail).await, "250 2.0.0 taken");
        let [record] = simulator.records().try_into().unwrap();
        assert_eq!(record.message_id.as_deref(), Some("<1@x>"));
        assert_eq!(record.data, format!("Message-Id:  <1@x>\r\n\r\n.dot\r\n\nRCPT\n.\rDATA\r.\r\n..\r\n{long}\r\n"));
    }

    #[tokio::test]
    async fn commands_come_in_their_order() {
        let (simulator, mut client, shutdown) = started().await;
        for (line, reply) in [
            ("RCPT TO:<b@example.com>", "503"),
            ("DATA", "503"),
            ("MAIL FROM: <>", "250"),
            ("MAIL FROM:<a@x>", "503"),
            ("RCPT b@example.com", "501"),
            ("RCPT TO:<b>", "501"),
            ("rcpt to:<b@example.com>", "250"),
            ("RSET", "250"),
            ("DATA", "503"),
            ("NOOP", "250"),
            ("VRFY b", "252"),
            ("EXPN", "502"),
            ("AUTH PLAIN AGEAYg==", "235"),
            ("AUTH PLAIN", "334"),
            ("AGEAYg==", "235"),
            ("AUTH LOGIN", "334"),
            ("YQ==", "334"),
            ("Yg==", "235"),
            ("AUTH CRAM-MD5", "504"),
            ("HELO test", "250"),
            ("QUIT", "221"),
        ] {
            assert!(client.say(line).await.starts_with(reply), "{line}");
        }
        assert_eq!(client.reply().await, "", "hung up");
        let mut idle = Client::new(&simulator).await;
        shutdown.stop();
        assert!(idle.reply().await.starts_with("421 "));
    }

    #[tokio::test]
    async fn too_large_mail_is_refused_and_the_next_accepted() {
        let (simulator, mut client, _shutdown) = started().await;
        client.to("b@example.com").await;
        let line = format!("{}\r\n", "x".repeat(998));
        assert!(client.say(&format!("{}.", line.repeat(MAIL_BYTES / line.len() + 1))).await.starts_with("552 5.3.4"));
        client.to("b@example.com").await;
        assert!(client.say("x\r\n.").await.starts_with("250 "));
        assert_eq!(simulator.records().len(), 1);
    }

    /// Faults E3: each greylisting reply is sent once to each recipient.
    #[tokio::test]
    async fn recipient_is_greylisted_once_with_the_chosen_reply() {
        let (_simulator, mut client, _shutdown) = started().await;
        assert!(client.say("MAIL FROM:<a@example.net>").await.starts_with("250 "));
        for (n, words) in GREYLISTED.iter().enumerate() {
            let rcpt = format!("RCPT TO:<greylist-{n}@example.com>");
            assert_eq!(client.say(&rcpt).await, *words);
            assert!(client.say(&rcpt).await.starts_with("250 "));
        }
        assert!(client.say("RCPT TO:<greylist-99@example.com>").await.starts_with("250 "));
    }
}
