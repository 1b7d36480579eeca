//! The dialogue with a mail server: a command, and the reply to it.
//!
//! The library writes the commands, and knows extensions and how to sign in. Replies are read here, because their three
//! digits alone decide (RFC 5321, 4.2): what follows may be missing, in any encoding and of any length, and the library
//! takes none of these for a reply.

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use futures_util::FutureExt as _;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::commands::{Auth, Ehlo, Quit, Starttls};
use lettre::transport::smtp::extension::{ClientId, Extension, ServerInfo};
use lettre::transport::smtp::response::Response;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::model::retry::ErrorClass;

use super::http::cause;

/// What is kept of a line of a reply; RFC 5321 (4.5.3.1.5) allows 512 bytes.
const LINE: usize = 2_048;
/// What is kept of a reply.
const REPLY: usize = 32_768;
/// How often a server may ask for more until it takes a sign-in.
const CHALLENGES: usize = 10;

/// The reply of a server that is about to close the connection.
pub(super) const CLOSING: u16 = 421;

/// Why a transaction stopped.
pub(super) enum Trouble {
    /// The server refused; of its text, the beginning.
    Reply { code: u16, text: String },
    /// No answer, or none that can be read.
    Broken { code: &'static str, detail: String },
    /// We did not go on.
    Ours { class: ErrorClass, code: &'static str, detail: String },
}

impl Trouble {
    pub fn silence() -> Trouble {
        Trouble::Broken { code: "no_answer", detail: "no answer within the call's time".to_owned() }
    }

    /// Whether the connection is of no further use: the server closes it, or it is broken already.
    pub fn ends_connection(&self) -> bool {
        match self {
            Trouble::Reply { code, .. } => *code == CLOSING,
            Trouble::Broken { .. } => true,
            Trouble::Ours { .. } => false,
        }
    }
}

/// What TLS needs to know: whom to trust, and the server's name.
pub(super) type Tls = (Arc<ClientConfig>, ServerName<'static>);

/// A connection to a server that has greeted us and knows us.
pub(super) struct Dialog {
    stream: BufReader<Stream>,
    /// What the server said it can do.
    pub server: ServerInfo,
    /// Bytes written to the socket, beneath TLS.
    written: Arc<AtomicU64>,
}

enum Stream {
    Plain(Wire),
    Encrypted(Box<TlsStream<Wire>>),
}

impl Dialog {
    /// Hears the greeting and says EHLO, inside TLS from the first byte if `tls`.
    pub async fn begin(stream: TcpStream, tls: Option<&Tls>, hello: &ClientId) -> Result<Dialog, Trouble> {
        let written = Arc::new(AtomicU64::new(0));
        let wire = Wire { stream, written: written.clone() };
        let stream = match tls {
            Some(tls) => encrypt(wire, tls).await?,
            None => Stream::Plain(wire),
        };
        let mut dialog = Dialog { stream: BufReader::new(stream), server: ServerInfo::default(), written };
        dialog.reply().await?;
        dialog.hello(hello).await?;
        Ok(dialog)
    }

    /// Goes on inside TLS.
    pub async fn starttls(mut self, tls: &Tls, hello: &ClientId) -> Result<Dialog, Trouble> {
        if !self.server.supports_feature(Extension::StartTls) {
            let detail = "the server does not offer STARTTLS".to_owned();
            return Err(Trouble::Broken { code: "starttls_missing", detail });
        }
        self.command(Starttls).await?;
        let written = self.written;
        // Somebody on the way may have appended answers, to be taken for the server's own inside the encrypted session.
        let appended = !self.stream.buffer().is_empty();
        let Stream::Plain(wire) = self.stream.into_inner() else {
            return Err(tls_failed("it is encrypted already".to_owned()));
        };
        if appended {
            return Err(tls_failed("more than the reply to STARTTLS came in the clear".to_owned()));
        }
        let stream = BufReader::new(encrypt(wire, tls).await?);
        let mut dialog = Dialog { stream, server: ServerInfo::default(), written };
        dialog.hello(hello).await?;
        Ok(dialog)
    }

    pub async fn sign_in(&mut self, credentials: &Credentials) -> Result<(), Trouble> {
        let ours = |detail: String| Trouble::Ours { class: ErrorClass::Credentials, code: "auth_unsupported", detail };
        let mechanism = self.server.get_auth_mechanism(DEFAULT_MECHANISMS);
        let mechanism = mechanism.ok_or_else(|| ours("the server offers no way to sign in that we know".to_owned()))?;
        let auth = Auth::new(mechanism, credentials.clone(), None).map_err(|error| ours(cause(&error)))?;
        let mut reply = self.command(auth).await?;
        for _ in 0..CHALLENGES {
            if !reply.has_code(334) {
                return Ok(());
            }
            let answer = Auth::new_from_response(mechanism, credentials.clone(), &reply);
            reply = self.command(answer.map_err(|error| ours(cause(&error)))?).await?;
        }
        Err(ours("the server asks for more and more until it takes a sign-in".to_owned()))
    }

    /// Writes a command and reads the reply to it: 2xx or 3xx.
    ///
    /// # Errors
    /// `Trouble::Reply` for 4xx and 5xx; `Trouble::Broken` where there is no reply, or one came before the command: it could
    /// be taken for the reply to it. Then nothing was written.
    pub async fn command(&mut self, command: impl Display) -> Result<Response, Trouble> {
        match self.stream.fill_buf().now_or_never() {
            None => (),
            Some(Ok([])) => return Err(unreadable("the server closed the connection")),
            Some(Ok(_)) => return Err(unreadable("it came before the command that it would answer")),
            Some(Err(error)) => return Err(broken(error)),
        }
        self.stream.write_all(command.to_string().as_bytes()).await.map_err(broken)?;
        self.stream.flush().await.map_err(broken)?;
        self.reply().await
    }

    pub async fn quit(&mut self) -> Result<Response, Trouble> {
        self.command(Quit).await
    }

    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream.get_ref(), Stream::Encrypted(_))
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    async fn hello(&mut self, hello: &ClientId) -> Result<(), Trouble> {
        let reply = match self.command(Ehlo::new(hello.clone())).await {
            // One that knows no extensions (RFC 5321, 4.1.1.1).
            Err(Trouble::Reply { code: 500 | 502, .. }) => self.command(format!("HELO {hello}\r\n")).await?,
            answered => answered?,
        };
        self.server = ServerInfo::from_response(&reply).map_err(|error| unreadable(&cause(&error)))?;
        Ok(())
    }

    async fn reply(&mut self) -> Result<Response, Trouble> {
        let mut reply = String::new();
        loop {
            let line = self.line().await?;
            let (code, text) = line.split_at_checked(3).unwrap_or_default();
            let code = str::from_utf8(code).map_err(|_| unreadable("no reply begins so"))?;
            let (mark, text) = text.split_first().unwrap_or((&b' ', &[]));
            let last = *mark != b'-';
            if last || reply.len() < REPLY {
                let mark = if last { ' ' } else { '-' };
                reply += &format!("{code}{mark}{}\r\n", String::from_utf8_lossy(text));
            }
            if last {
                break;
            }
        }
        let reply: Response = reply.parse().map_err(|_| unreadable("no three digits, or not the same in each line"))?;
        if reply.is_positive() { Ok(reply) } else { Err(Trouble::of(&reply)) }
    }

    /// One line, without its end; of a long one, the beginning.
    async fn line(&mut self) -> Result<Vec<u8>, Trouble> {
        let mut line = Vec::new();
        loop {
            let came = self.stream.fill_buf().await.map_err(broken)?;
            if came.is_empty() {
                return Err(unreadable("the server closed the connection"));
            }
            let end = came.iter().position(|byte| *byte == b'\n');
            let part = &came[..end.unwrap_or(came.len())];
            line.extend(part.iter().take(LINE.saturating_sub(line.len())));
            let used = end.map_or(came.len(), |end| end + 1);
            self.stream.consume(used);
            if end.is_some() {
                let text = line.trim_ascii_end().len();
                line.truncate(text);
                return Ok(line);
            }
        }
    }
}

impl Trouble {
    /// The text of several lines is one text; the enhanced code that each of them repeats (RFC 2034) is told once.
    fn of(reply: &Response) -> Trouble {
        let mut lines = reply.message();
        let mut text = lines.next().unwrap_or_default().to_owned();
        let first = text.split_whitespace().next().filter(|word| word.contains('.')).unwrap_or("\0").to_owned();
        for line in lines {
            text = format!("{text} {}", line.strip_prefix(&first).unwrap_or(line).trim_start());
        }
        Trouble::Reply { code: reply.code().into(), text: crate::error::excerpt(text.trim()) }
    }
}

fn unreadable(why: &str) -> Trouble {
    Trouble::Broken { code: "answer_cut", detail: format!("no reply that can be read: {why}") }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn broken(error: io::Error) -> Trouble {
    Trouble::Broken { code: "answer_cut", detail: cause(&error) }
}

fn tls_failed(detail: String) -> Trouble {
    Trouble::Broken { code: "tls_failed", detail }
}

async fn encrypt(wire: Wire, (config, name): &Tls) -> Result<Stream, Trouble> {
    let encrypted = TlsConnector::from(config.clone()).connect(name.clone(), wire).await;
    Ok(Stream::Encrypted(Box::new(encrypted.map_err(|error| tls_failed(cause(&error)))?)))
}

/// A socket that counts what is written to it.
struct Wire {
    stream: TcpStream,
    written: Arc<AtomicU64>,
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written.fetch_add(written as u64, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(wire) => Pin::new(wire).poll_read(cx, buffer),
            Stream::Encrypted(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Plain(wire) => Pin::new(wire).poll_write(cx, bytes),
            Stream::Encrypted(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(wire) => Pin::new(wire).poll_flush(cx),
            Stream::Encrypted(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            Stream::Encrypted(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}
