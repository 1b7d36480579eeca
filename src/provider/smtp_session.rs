//! A session with a mail server: commands and their replies.
//!
//! The library lettre formats the commands, and knows extensions and authentication. Replies are read here, because
//! only their three digits matter (RFC 5321, 4.2): the text may be missing, in any encoding and of any length, which
//! lettre's parser refuses.

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

use super::http::root_cause;

/// The bytes kept of a line of a reply; RFC 5321 (4.5.3.1.5) allows 512.
const LINE_BYTES: usize = 2_048;
/// The bytes kept of a reply.
const REPLY_BYTES: usize = 32_768;
/// The most challenges (334) of a server in one authentication.
const MAX_CHALLENGES: usize = 10;

/// The reply code of a server that closes the connection.
pub(super) const SERVICE_CLOSING: u16 = 421;

/// Why a transaction stopped.
pub(super) enum SmtpFailure {
    /// The server refused (4xx or 5xx). `text` is the beginning of its text.
    ErrorReply { code: u16, text: String },
    /// The connection failed, or the reply cannot be read.
    Broken { code: &'static str, detail: String },
    /// This side stopped: the server lacks something the mail needs, or the mail cannot be composed.
    Local { class: ErrorClass, code: &'static str, detail: String },
}

impl SmtpFailure {
    /// The failure of a call whose time is over.
    pub fn timed_out() -> SmtpFailure {
        SmtpFailure::Broken { code: "no_answer", detail: "the server did not answer within the call's time".to_owned() }
    }

    /// Returns whether the connection cannot be used further: the server closes it, or it is broken.
    pub fn ends_connection(&self) -> bool {
        match self {
            SmtpFailure::ErrorReply { code, .. } => *code == SERVICE_CLOSING,
            SmtpFailure::Broken { .. } => true,
            SmtpFailure::Local { .. } => false,
        }
    }
}

/// What a TLS handshake needs: the certificates to trust, and the server's name.
pub(super) type TlsTarget = (Arc<ClientConfig>, ServerName<'static>);

/// A connection whose server has sent its greeting and answered EHLO. Used by one task at a time.
pub(super) struct SmtpSession {
    stream: BufReader<Stream>,
    /// The server's name and extensions, from its reply to EHLO.
    pub server: ServerInfo,
    /// Bytes written to the socket, beneath TLS.
    written: Arc<AtomicU64>,
}

enum Stream {
    Plain(CountingStream),
    Encrypted(Box<TlsStream<CountingStream>>),
}

impl SmtpSession {
    /// Reads the greeting and sends EHLO, inside TLS from the first byte if `tls` is given.
    ///
    /// # Errors
    /// `SmtpFailure::ErrorReply` if the server refuses, `Broken` if the connection or the handshake fails.
    pub async fn open(
        stream: TcpStream,
        tls: Option<&TlsTarget>,
        ehlo_name: &ClientId,
    ) -> Result<SmtpSession, SmtpFailure> {
        let written = Arc::new(AtomicU64::new(0));
        let socket = CountingStream { stream, written: written.clone() };
        let stream = match tls {
            Some(tls) => encrypt(socket, tls).await?,
            None => Stream::Plain(socket),
        };
        let mut session = SmtpSession { stream: BufReader::new(stream), server: ServerInfo::default(), written };
        session.read_reply().await?;
        session.ehlo(ehlo_name).await?;
        Ok(session)
    }

    /// Sends STARTTLS (RFC 3207), and continues inside TLS with a new EHLO.
    ///
    /// # Errors
    /// `SmtpFailure::Broken` if the server does not offer STARTTLS, if the handshake fails, or if data arrived in plain
    /// text after the reply; `ErrorReply` if the server refuses.
    pub async fn starttls(mut self, tls: &TlsTarget, ehlo_name: &ClientId) -> Result<SmtpSession, SmtpFailure> {
        if !self.server.supports_feature(Extension::StartTls) {
            let detail = "the server does not offer STARTTLS".to_owned();
            return Err(SmtpFailure::Broken { code: "starttls_missing", detail });
        }
        self.command(Starttls).await?;
        let written = self.written;
        // An attacker on the network may have appended replies, which would count as the server's inside the TLS
        // session.
        let has_plain_text = !self.stream.buffer().is_empty();
        let Stream::Plain(socket) = self.stream.into_inner() else {
            return Err(tls_failed("the connection is encrypted already".to_owned()));
        };
        if has_plain_text {
            return Err(tls_failed("the server sent plain text after its reply to STARTTLS".to_owned()));
        }
        let stream = BufReader::new(encrypt(socket, tls).await?);
        let mut session = SmtpSession { stream, server: ServerInfo::default(), written };
        session.ehlo(ehlo_name).await?;
        Ok(session)
    }

    /// Authenticates (RFC 4954) with the best mechanism that server and lettre have in common.
    ///
    /// # Errors
    /// `SmtpFailure::Local` if there is no such mechanism or the server asks too often; `ErrorReply` if it refuses.
    pub async fn authenticate(&mut self, credentials: &Credentials) -> Result<(), SmtpFailure> {
        let failure =
            |detail: String| SmtpFailure::Local { class: ErrorClass::Credentials, code: "auth_unsupported", detail };
        let mechanism = self.server.get_auth_mechanism(DEFAULT_MECHANISMS);
        let mechanism =
            mechanism.ok_or_else(|| failure("the server offers no supported authentication mechanism".to_owned()))?;
        let auth = Auth::new(mechanism, credentials.clone(), None).map_err(|error| failure(root_cause(&error)))?;
        let mut reply = self.command(auth).await?;
        for _ in 0..MAX_CHALLENGES {
            if !reply.has_code(334) {
                return Ok(());
            }
            let answer = Auth::new_from_response(mechanism, credentials.clone(), &reply);
            reply = self.command(answer.map_err(|error| failure(root_cause(&error)))?).await?;
        }
        Err(failure("the server did not finish the authentication".to_owned()))
    }

    /// Writes a command and reads its reply, which is 2xx or 3xx.
    ///
    /// # Errors
    /// `SmtpFailure::ErrorReply` for 4xx and 5xx. `SmtpFailure::Broken` if no reply can be read; also if data arrived
    /// before the command, which could count as its reply: then nothing was written.
    pub async fn command(&mut self, command: impl Display) -> Result<Response, SmtpFailure> {
        match self.stream.fill_buf().now_or_never() {
            None => (),
            Some(Ok([])) => return Err(unreadable_reply("the server closed the connection")),
            Some(Ok(_)) => return Err(unreadable_reply("it came before its command")),
            Some(Err(error)) => return Err(io_failure(error)),
        }
        self.stream.write_all(command.to_string().as_bytes()).await.map_err(io_failure)?;
        self.stream.flush().await.map_err(io_failure)?;
        self.read_reply().await
    }

    /// Sends QUIT and reads the reply.
    ///
    /// # Errors
    /// As [`SmtpSession::command`].
    pub async fn quit(&mut self) -> Result<Response, SmtpFailure> {
        self.command(Quit).await
    }

    /// Returns whether the session runs inside TLS.
    pub fn is_encrypted(&self) -> bool {
        matches!(self.stream.get_ref(), Stream::Encrypted(_))
    }

    /// Returns the bytes written to the socket so far, including those of TLS.
    pub fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    async fn ehlo(&mut self, ehlo_name: &ClientId) -> Result<(), SmtpFailure> {
        let reply = match self.command(Ehlo::new(ehlo_name.clone())).await {
            // A server without extensions (RFC 5321, 4.1.1.1).
            Err(SmtpFailure::ErrorReply { code: 500 | 502, .. }) => {
                self.command(format!("HELO {ehlo_name}\r\n")).await?
            }
            answered => answered?,
        };
        self.server = ServerInfo::from_response(&reply).map_err(|error| unreadable_reply(&root_cause(&error)))?;
        Ok(())
    }

    async fn read_reply(&mut self) -> Result<Response, SmtpFailure> {
        let mut reply = String::new();
        loop {
            let line = self.read_line().await?;
            let (code, text) = line.split_at_checked(3).unwrap_or_default();
            let code = str::from_utf8(code).map_err(|_| unreadable_reply("it does not begin with three digits"))?;
            let (separator, text) = text.split_first().unwrap_or((&b' ', &[]));
            let last = *separator != b'-';
            if last || reply.len() < REPLY_BYTES {
                let separator = if last { ' ' } else { '-' };
                reply += &format!("{code}{separator}{}\r\n", String::from_utf8_lossy(text));
            }
            if last {
                break;
            }
        }
        let reply: Response =
            reply.parse().map_err(|_| unreadable_reply("its lines do not all begin with the same three digits"))?;
        if reply.is_positive() { Ok(reply) } else { Err(SmtpFailure::from_reply(&reply)) }
    }

    /// Reads one line without its end; of a long one only `LINE_BYTES`.
    async fn read_line(&mut self) -> Result<Vec<u8>, SmtpFailure> {
        let mut line = Vec::new();
        loop {
            let buffer = self.stream.fill_buf().await.map_err(io_failure)?;
            if buffer.is_empty() {
                return Err(unreadable_reply("the server closed the connection"));
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let part = &buffer[..end.unwrap_or(buffer.len())];
            line.extend(part.iter().take(LINE_BYTES.saturating_sub(line.len())));
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.stream.consume(used);
            if end.is_some() {
                let text = line.trim_ascii_end().len();
                line.truncate(text);
                return Ok(line);
            }
        }
    }
}

impl SmtpFailure {
    /// Makes the failure of a 4xx or 5xx reply. Several lines become one text, without the enhanced code that each of
    /// them repeats (RFC 2034).
    fn from_reply(reply: &Response) -> SmtpFailure {
        let mut lines = reply.message();
        let mut text = lines.next().unwrap_or_default().to_owned();
        let first = text.split_whitespace().next().filter(|word| word.contains('.')).unwrap_or("\0").to_owned();
        for line in lines {
            text = format!("{text} {}", line.strip_prefix(&first).unwrap_or(line).trim_start());
        }
        SmtpFailure::ErrorReply { code: reply.code().into(), text: crate::error::excerpt(text.trim()) }
    }
}

fn unreadable_reply(reason: &str) -> SmtpFailure {
    SmtpFailure::Broken { code: "answer_cut", detail: format!("the server's reply cannot be read: {reason}") }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn io_failure(error: io::Error) -> SmtpFailure {
    SmtpFailure::Broken { code: "answer_cut", detail: root_cause(&error) }
}

fn tls_failed(detail: String) -> SmtpFailure {
    SmtpFailure::Broken { code: "tls_failed", detail }
}

async fn encrypt(socket: CountingStream, (config, name): &TlsTarget) -> Result<Stream, SmtpFailure> {
    let encrypted = TlsConnector::from(config.clone()).connect(name.clone(), socket).await;
    Ok(Stream::Encrypted(Box::new(encrypted.map_err(|error| tls_failed(root_cause(&error)))?)))
}

/// A socket that counts the bytes written to it.
struct CountingStream {
    stream: TcpStream,
    written: Arc<AtomicU64>,
}

impl AsyncRead for CountingStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for CountingStream {
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
