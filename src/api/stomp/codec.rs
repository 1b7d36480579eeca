//! Frames of STOMP 1.0, 1.1 and 1.2, as bytes: a decoder of what clients send, an encoder of what the server sends.
//! What a frame means, and which headers it must have, is decided elsewhere.
//!
//! Where the specifications leave room:
//! * Escapes are decoded in headers of 1.1 and 1.2, not in CONNECT, and not in STOMP, which servers must handle in the
//!   same manner as CONNECT (1.2, "CONNECT or STOMP Frame"). An undefined escape is fatal (1.1, 1.2, "Value Encoding");
//!   `\r` is undefined in 1.1.
//! * A value may contain colons: the grammar of 1.0 allows them, and clients of 1.1 exist that do not escape.
//! * Blanks around names and values are kept in 1.1 and 1.2, which forbid to trim, and removed in 1.0: its own examples
//!   pad values, "and many servers and clients were implemented to trim" (1.1, "Value Encoding"). CONNECT belongs to
//!   the version that its `accept-version` leads to.
//! * Lines end with LF or CR LF in every version. A CR elsewhere in a header is refused in 1.2, whose grammar excludes
//!   it, and kept before.
//! * `content-length` counts on every frame (1.2). The body of a frame other than SEND is read and dropped (1.0: "the
//!   body of the SUBSCRIBE command is ignored").
//! * A NUL byte in a header is refused, although the grammar of 1.1 allows it: nearly always the blank line before it
//!   was forgotten.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

/// Every version, as the `version` header of an ERROR frame lists them.
pub const VERSIONS: &str = "1.0,1.1,1.2";
/// What is sent, and received, where there is no frame to send.
pub const HEART_BEAT: &str = "\n";

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 1.0
    V10,
    /// 1.1
    V11,
    /// 1.2
    V12,
}

impl Version {
    /// The word in headers: `1.0`, `1.1` or `1.2`.
    pub fn as_str(self) -> &'static str {
        match self {
            Version::V10 => "1.0",
            Version::V11 => "1.1",
            Version::V12 => "1.2",
        }
    }

    /// Reads `1.0`, `1.1` or `1.2`.
    pub fn parse(text: &str) -> Option<Version> {
        [Version::V10, Version::V11, Version::V12].into_iter().find(|version| version.as_str() == text)
    }

    /// The highest version that client and server have in common. `accept_version`: the header of CONNECT, versions
    /// separated by commas; a client without one speaks 1.0.
    pub fn negotiate(accept_version: Option<&str>) -> Option<Version> {
        match accept_version {
            Some(list) => list.split(',').filter_map(|text| Version::parse(text.trim())).max(),
            None => Some(Version::V10),
        }
    }
}

/// A command of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Command {
    /// Begins a session.
    Connect,
    /// The same as CONNECT.
    Stomp,
    /// Sends a message.
    Send,
    /// Begins a subscription.
    Subscribe,
    /// Ends a subscription.
    Unsubscribe,
    /// Acknowledges a message.
    Ack,
    /// Refuses a message.
    Nack,
    /// Begins a transaction.
    Begin,
    /// Commits a transaction.
    Commit,
    /// Aborts a transaction.
    Abort,
    /// Ends the session.
    Disconnect,
}

/// Every command of a client.
pub const COMMANDS: [Command; 11] = [
    Command::Connect,
    Command::Stomp,
    Command::Send,
    Command::Subscribe,
    Command::Unsubscribe,
    Command::Ack,
    Command::Nack,
    Command::Begin,
    Command::Commit,
    Command::Abort,
    Command::Disconnect,
];

/// Bytes of the longest command's line: UNSUBSCRIBE and CR LF.
const COMMAND_LINE_BYTES: usize = 13;

impl Command {
    /// The word in frames, in capital letters.
    pub fn as_str(self) -> &'static str {
        match self {
            Command::Connect => "CONNECT",
            Command::Stomp => "STOMP",
            Command::Send => "SEND",
            Command::Subscribe => "SUBSCRIBE",
            Command::Unsubscribe => "UNSUBSCRIBE",
            Command::Ack => "ACK",
            Command::Nack => "NACK",
            Command::Begin => "BEGIN",
            Command::Commit => "COMMIT",
            Command::Abort => "ABORT",
            Command::Disconnect => "DISCONNECT",
        }
    }

    /// Whether this is CONNECT or STOMP.
    pub fn is_connect(self) -> bool {
        matches!(self, Command::Connect | Command::Stomp)
    }
}

/// A frame of a client.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the client wants.
    pub command: Command,
    headers: Vec<(String, String)>,
    /// Empty unless the command is SEND.
    pub body: Vec<u8>,
}

impl Frame {
    /// The value of a header; of a repeated one, the first. Names are case-sensitive.
    pub fn header(&self, name: &str) -> Option<&str> {
        first(&self.headers, name)
    }
}

/// Without values: they contain tokens and texts of users.
impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        write!(f, "{} {names:?} and {} bytes", self.command.as_str(), self.body.len())
    }
}

fn first<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

/// What a decoder finds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A whole frame.
    Frame(Frame),
    /// One line end or more between frames. Line ends that follow a frame at once count, too.
    HeartBeat,
}

/// Limits of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Headers, repeated ones included.
    pub headers: usize,
    /// Bytes of the command and the headers, with all line ends.
    pub header_bytes: usize,
    /// Bytes of the frame from its command to its NUL byte.
    pub frame_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { headers: 64, header_bytes: 8 << 10, frame_bytes: 64 << 10 }
    }
}

/// Why bytes are not a frame, with the remedy: a text for the `message` header of an ERROR frame. It is one line that
/// needs no escapes in any version, and contains no value of a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The first line of a frame, its beginning if it is long.
    UnknownCommand(String),
    /// More headers than this.
    TooManyHeaders(usize),
    /// Command and headers take more bytes than this.
    HeaderTooLarge(usize),
    /// The frame takes more bytes than this.
    FrameTooLarge(usize),
    /// The header with this number, counted from 1, is not UTF-8.
    NotUtf8(usize),
    /// The header with this number is a line without a colon.
    NoColon(usize),
    /// The header with this number begins with a colon.
    NoName(usize),
    /// The header with this name has a backslash before this character, or at the end of its name or value.
    UnknownEscape(String, Option<char>),
    /// The header with this name has a carriage return that does not end its line.
    CarriageReturn(String),
    /// A NUL byte before the blank line.
    NulInHeader,
    /// `content-length` is not a number.
    ContentLength,
    /// After this number of bytes, as `content-length` says, the body goes on.
    NoNul(usize),
    /// `heart-beat` is not two numbers.
    HeartBeat,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::UnknownCommand(line) => {
                write!(f, "'{line}' is not a command; begin a frame with one of ")?;
                let words = COMMANDS.map(Command::as_str).join(", ");
                write!(f, "{words}, on a line of its own")
            }
            Fault::TooManyHeaders(most) => write!(f, "the frame has more than {most} headers; send fewer"),
            Fault::HeaderTooLarge(most) => write!(
                f,
                "command and headers take more than {most} bytes; shorten the headers, and end them with a blank line"
            ),
            Fault::FrameTooLarge(most) => {
                write!(f, "the frame takes more than {most} bytes; shorten its body, and end it with a NUL byte")
            }
            Fault::NotUtf8(number) => write!(f, "header {number} is not UTF-8; encode headers in UTF-8"),
            Fault::NoColon(number) => write!(
                f,
                "header {number} has no colon; write each header as name, colon and value on a line of its own, and a \
                blank line before the body"
            ),
            Fault::NoName(number) => write!(f, "header {number} has no name; write a name before the colon"),
            Fault::UnknownEscape(name, Some(escape)) => write!(
                f,
                "header '{name}' has a backslash before '{}'; write a backslash in a header as two backslashes",
                plain(&escape.to_string())
            ),
            Fault::UnknownEscape(name, None) => {
                write!(f, "header '{name}' ends in a backslash; write a backslash in a header as two backslashes")
            }
            Fault::CarriageReturn(name) => write!(
                f,
                "header '{name}' has a carriage return that does not end its line; write it as a backslash and the \
                letter r"
            ),
            Fault::NulInHeader => f.write_str(
                "a NUL byte comes before the blank line that ends the headers; write a blank line after the headers, \
                then the body, then one NUL byte",
            ),
            Fault::ContentLength => f.write_str(
                "content-length is not a number; write the bytes of the body in decimal digits, or leave it out",
            ),
            Fault::NoNul(length) => write!(
                f,
                "no NUL byte follows the {length} bytes of body that content-length announces; count bytes, not \
                characters, and end the frame with a NUL byte"
            ),
            Fault::HeartBeat => {
                f.write_str("heart-beat is not two numbers; write two numbers of milliseconds as 10000,10000")
            }
        }
    }
}

impl std::error::Error for Fault {}

/// The beginning of a text of the client, without characters that a header escapes or a terminal obeys.
fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || c == ' ' || c.is_ascii_punctuation() && c != ':' && c != '\\';
    text.chars().take(40).map(|c| if is_plain(c) { c } else { '?' }).collect()
}

/// Memory that a decoder keeps while it waits for the next frame, in bytes.
const IDLE_BYTES: usize = 1 << 10;

/// Reads frames from bytes that arrive in any pieces. The frames and faults found do not depend on the pieces.
///
/// Usage: `push` what arrived, then `next_input` until it returns `None`. The decoder then holds less than
/// `Limits::frame_bytes`; while it is read, that and one chunk.
///
/// A frame is read only when it is asked for. So `set_version` after CONNECT applies to all frames after it, even to
/// those that were pushed together with it.
///
/// Has no `Debug`: what it holds contains tokens and texts of users.
pub struct Decoder {
    limits: Limits,
    version: Version,
    buffer: Vec<u8>,
    /// Where the current frame begins in `buffer`. The following places are counted from there.
    start: usize,
    /// Where the current line begins.
    line: usize,
    /// Where the search for the next LF or NUL goes on: no byte is searched twice.
    searched: usize,
    part: Part,
    headers: Vec<(String, String)>,
    fault: Option<Fault>,
}

/// The part of a frame that is read next.
#[derive(Debug, Clone, Copy)]
enum Part {
    Command,
    Headers(Command),
    /// A body begins at `from`, and is as long as `content-length` says, if it is given.
    Body {
        command: Command,
        from: usize,
        length: Option<usize>,
    },
}

impl Decoder {
    /// A decoder of a new connection. It reads 1.0 until the version is set.
    pub fn new(limits: Limits) -> Decoder {
        Decoder {
            limits: Limits { header_bytes: limits.header_bytes.min(limits.frame_bytes), ..limits },
            version: Version::V10,
            buffer: Vec::new(),
            start: 0,
            line: 0,
            searched: 0,
            part: Part::Command,
            headers: Vec::new(),
            fault: None,
        }
    }

    /// Sets the version of the frames after the last one that was returned.
    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Adds the next bytes of the connection. After a fault they are ignored.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.fault.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Bytes that were pushed and belong to no input that was returned.
    pub fn buffered(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next frame or heart-beat; `None` if more bytes are needed for it.
    ///
    /// # Errors
    /// Why the next bytes are not a frame. The place of the next frame is unknown then: every later call returns the
    /// same fault.
    pub fn next_input(&mut self) -> Result<Option<Input>, Fault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let read = self.read();
        match &read {
            Ok(Some(_)) => {}
            Ok(None) => self.release(),
            Err(fault) => {
                self.fault = Some(fault.clone());
                (self.buffer, self.start, self.headers) = (Vec::new(), 0, Vec::new());
            }
        }
        read
    }

    fn read(&mut self) -> Result<Option<Input>, Fault> {
        if self.skip_line_ends() {
            return Ok(Some(Input::HeartBeat));
        }
        // A lone CR may become a line end.
        if matches!(self.frame(), [] | [b'\r']) {
            return Ok(None);
        }
        loop {
            match self.part {
                Part::Command => {
                    let Some(line) = self.next_line()? else { return Ok(None) };
                    let line = &self.frame()[line];
                    let command = COMMANDS.into_iter().find(|command| command.as_str().as_bytes() == line);
                    self.part = Part::Headers(command.ok_or_else(|| unknown_command(line))?);
                }
                Part::Headers(command) => {
                    let Some(line) = self.next_line()? else { return Ok(None) };
                    if line.is_empty() {
                        self.part = self.end_headers(command)?;
                    } else {
                        let header = self.header(command, line)?;
                        self.headers.push(header);
                    }
                }
                Part::Body { command, from, length } => {
                    let Some(end) = self.body_end(from, length)? else { return Ok(None) };
                    return Ok(Some(Input::Frame(self.end_frame(command, from..end))));
                }
            }
        }
    }

    /// The bytes from the current frame on.
    fn frame(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Skips line ends before a frame. In a frame there are none: its first byte stays where it is until its end.
    fn skip_line_ends(&mut self) -> bool {
        let before = self.start;
        loop {
            self.start += match self.frame() {
                [b'\n', ..] => 1,
                [b'\r', b'\n', ..] => 2,
                _ => return self.start > before,
            }
        }
    }

    /// The next line of the command and headers without its line end; `None` if its end is not there yet.
    fn next_line(&mut self) -> Result<Option<Range<usize>>, Fault> {
        let limit = match self.part {
            Part::Command => COMMAND_LINE_BYTES.min(self.limits.header_bytes),
            _ => self.limits.header_bytes,
        };
        let frame = self.frame();
        let until = frame.len().min(limit);
        match frame[self.searched..until].iter().position(|byte| matches!(byte, b'\n' | 0)) {
            Some(at) => {
                let end = self.searched + at;
                if frame[end] == 0 {
                    return Err(Fault::NulInHeader);
                }
                let line = &frame[self.line..end];
                let line = self.line..self.line + line.strip_suffix(b"\r").unwrap_or(line).len();
                (self.line, self.searched) = (end + 1, end + 1);
                Ok(Some(line))
            }
            None if until < limit => {
                self.searched = until;
                Ok(None)
            }
            None if limit < self.limits.header_bytes => Err(unknown_command(&frame[..until])),
            None => Err(Fault::HeaderTooLarge(limit)),
        }
    }

    /// The name and value of a header's line. Blanks are as they are.
    fn header(&self, command: Command, line: Range<usize>) -> Result<(String, String), Fault> {
        if self.headers.len() == self.limits.headers {
            return Err(Fault::TooManyHeaders(self.limits.headers));
        }
        let number = self.headers.len() + 1;
        let line = str::from_utf8(&self.frame()[line]).map_err(|_| Fault::NotUtf8(number))?;
        let (name, value) = line.split_once(':').ok_or(Fault::NoColon(number))?;
        if name.is_empty() {
            return Err(Fault::NoName(number));
        }
        let Some(version) = escaping(self.version, command.is_connect()) else {
            return Ok((name.to_owned(), value.to_owned()));
        };
        if version == Version::V12 && line.contains('\r') {
            return Err(Fault::CarriageReturn(plain(name)));
        }
        let decoded = |text| unescape(text, version).map_err(|escape| Fault::UnknownEscape(plain(name), escape));
        Ok((decoded(name)?, decoded(value)?))
    }

    /// Ends the headers: what is left is the body, which begins where the search stopped.
    fn end_headers(&mut self, command: Command) -> Result<Part, Fault> {
        let version = match command.is_connect() {
            true => Version::negotiate(first(&self.headers, "accept-version")),
            false => Some(self.version),
        };
        if version == Some(Version::V10) {
            for (number, (name, value)) in (1..).zip(&mut self.headers) {
                (*name, *value) = (trim(name).to_owned(), trim(value).to_owned());
                if name.is_empty() {
                    return Err(Fault::NoName(number));
                }
            }
        }
        let (from, most) = (self.searched, self.limits.frame_bytes);
        let length = first(&self.headers, "content-length").map(|text| number(text).ok_or(Fault::ContentLength));
        let length = length.transpose()?;
        if length.is_some_and(|length| length >= most - from) {
            return Err(Fault::FrameTooLarge(most));
        }
        Ok(Part::Body { command, from, length })
    }

    /// Where the NUL byte after the body is; `None` if it is not there yet.
    fn body_end(&mut self, from: usize, length: Option<usize>) -> Result<Option<usize>, Fault> {
        let frame = self.frame();
        if let Some(length) = length {
            return match frame.get(from + length) {
                None => Ok(None),
                Some(0) => Ok(Some(from + length)),
                Some(_) => Err(Fault::NoNul(length)),
            };
        }
        let most = self.limits.frame_bytes;
        let until = frame.len().min(most);
        match frame[self.searched..until].iter().position(|&byte| byte == 0) {
            Some(at) => Ok(Some(self.searched + at)),
            None if until == most => Err(Fault::FrameTooLarge(most)),
            None => {
                self.searched = until;
                Ok(None)
            }
        }
    }

    /// Takes the frame whose body is here, and its NUL byte.
    fn end_frame(&mut self, command: Command, body: Range<usize>) -> Frame {
        let next = self.start + body.end + 1;
        let body = if command == Command::Send { self.frame()[body].to_vec() } else { Vec::new() };
        (self.start, self.line, self.searched, self.part) = (next, 0, 0, Part::Command);
        Frame { command, headers: std::mem::take(&mut self.headers), body }
    }

    /// Gives memory back. The bytes that are moved belong to a frame that has just begun: none is moved twice.
    fn release(&mut self) {
        self.buffer.drain(..self.start);
        self.start = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BYTES {
            self.buffer = Vec::new();
        }
    }
}

fn unknown_command(line: &[u8]) -> Fault {
    Fault::UnknownCommand(plain(&String::from_utf8_lossy(line)))
}

/// The version whose escapes a frame's headers have, if they have any. `is_handshake`: of CONNECT, STOMP or CONNECTED.
fn escaping(version: Version, is_handshake: bool) -> Option<Version> {
    (version > Version::V10 && !is_handshake).then_some(version)
}

/// Decodes the escapes of 1.1 or 1.2.
///
/// # Errors
/// The character after the first backslash that is no escape, if there is one.
fn unescape(text: &str, version: Version) -> Result<String, Option<char>> {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        decoded.push_str(before);
        let mut characters = after.chars();
        decoded.push(match characters.next() {
            Some('n') => '\n',
            Some('c') => ':',
            Some('\\') => '\\',
            Some('r') if version == Version::V12 => '\r',
            other => return Err(other),
        });
        rest = characters.as_str();
    }
    decoded.push_str(rest);
    Ok(decoded)
}

/// A text without the blanks around it.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// Decimal digits with blanks around them; the largest number, if it is larger than that.
fn number(text: &str) -> Option<usize> {
    let digits = trim(text);
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(usize::MAX))
}

/// Reads a `heart-beat` header: how often the sender can send, and how often it wants to receive, in milliseconds;
/// 0 is never, and so is a missing header. Numbers above `u32::MAX` count as that.
///
/// # Errors
/// `Fault::HeartBeat` if it is not two numbers with a comma between them.
pub fn parse_heart_beat(header: Option<&str>) -> Result<(u32, u32), Fault> {
    let Some(text) = header else { return Ok((0, 0)) };
    let (can, wants) = text.split_once(',').ok_or(Fault::HeartBeat)?;
    let ms = |text| number(text).map(|ms| u32::try_from(ms).unwrap_or(u32::MAX)).ok_or(Fault::HeartBeat);
    Ok((ms(can)?, ms(wants)?))
}

/// The heart-beats of a connection, seen from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartBeats {
    /// How often the server must send something; `None`: it need not.
    pub send_every: Option<Duration>,
    /// How often the client must send something; `None`: it need not.
    pub expect_every: Option<Duration>,
}

impl HeartBeats {
    /// The heart-beats that follow from the `heart-beat` headers of both sides: (can send, wants to receive), in
    /// milliseconds. In each direction the slower of the two counts; 0 on either side turns it off.
    pub fn negotiate(client: (u32, u32), server: (u32, u32)) -> HeartBeats {
        let every = |can: u32, wants: u32| {
            let ms = if can == 0 || wants == 0 { 0 } else { can.max(wants) };
            (ms > 0).then(|| Duration::from_millis(ms.into()))
        };
        HeartBeats { send_every: every(server.0, client.1), expect_every: every(client.0, server.1) }
    }
}

/// A command of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerCommand {
    /// Answers CONNECT.
    Connected,
    /// A message of a subscription.
    Message,
    /// Answers a frame with a `receipt` header.
    Receipt,
    /// Says why the connection is closed.
    Error,
}

impl ServerCommand {
    /// The word in frames.
    pub fn as_str(self) -> &'static str {
        match self {
            ServerCommand::Connected => "CONNECTED",
            ServerCommand::Message => "MESSAGE",
            ServerCommand::Receipt => "RECEIPT",
            ServerCommand::Error => "ERROR",
        }
    }

    /// Whether such frames may have a body.
    pub fn has_body(self) -> bool {
        matches!(self, ServerCommand::Message | ServerCommand::Error)
    }
}

/// A frame of the server, as text. `headers`: (name, value), in the order in which they are sent; `content-length` is
/// added, and one that is given is left out. `body`: sent with MESSAGE and ERROR; other frames have none.
///
/// No value adds a header or ends the frame. Characters that a version can write are escaped. The others (NUL; CR in
/// 1.1) are left out. CR, LF and NUL become spaces in CONNECTED and in 1.0, which have no escapes.
pub fn encode<'a>(
    version: Version,
    command: ServerCommand,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
) -> String {
    let mut out = String::new();
    encode_into(&mut out, version, command, headers, body);
    out
}

/// Appends a frame to `out`; see `encode`. Several frames in one WebSocket message are several calls.
pub fn encode_into<'a>(
    out: &mut String,
    version: Version,
    command: ServerCommand,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    body: &str,
) {
    // Room for the usual headers.
    out.reserve(body.len() + 256);
    out.push_str(command.as_str());
    out.push('\n');
    write_headers(out, version, command, headers);
    write_end(out, command, body);
}

/// A frame that several connections of one version get with different first headers: the rest is formatted once.
#[derive(Clone)]
pub struct SharedFrame {
    version: Version,
    command: ServerCommand,
    /// All that follows the headers of a connection.
    rest: String,
}

impl SharedFrame {
    /// Formats the headers and the body that are the same on all connections; see `encode`.
    pub fn new<'a>(
        version: Version,
        command: ServerCommand,
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
        body: &str,
    ) -> SharedFrame {
        let mut rest = String::with_capacity(body.len() + 256);
        write_headers(&mut rest, version, command, headers);
        write_end(&mut rest, command, body);
        SharedFrame { version, command, rest }
    }

    /// Appends the frame of one connection to `out`: its own headers, as `subscription`, then the shared ones.
    pub fn encode_into<'a>(&self, out: &mut String, headers: impl IntoIterator<Item = (&'a str, &'a str)>) {
        out.reserve(self.rest.len() + 64);
        out.push_str(self.command.as_str());
        out.push('\n');
        write_headers(out, self.version, self.command, headers);
        out.push_str(&self.rest);
    }
}

fn write_headers<'a>(
    out: &mut String,
    version: Version,
    command: ServerCommand,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
) {
    let escapes = escaping(version, command == ServerCommand::Connected);
    for (name, value) in headers {
        if name == "content-length" {
            continue;
        }
        write_escaped(out, escapes, name, true);
        out.push(':');
        write_escaped(out, escapes, value, false);
        out.push('\n');
    }
}

/// Writes a name or a value. `escapes`: the version whose escapes are used, if any.
fn write_escaped(out: &mut String, escapes: Option<Version>, text: &str, is_name: bool) {
    if !text.contains(['\\', ':', '\n', '\r', '\0']) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match (c, escapes) {
            ('\\', Some(_)) => out.push_str("\\\\"),
            (':', Some(_)) => out.push_str("\\c"),
            ('\n', Some(_)) => out.push_str("\\n"),
            ('\r', Some(Version::V12)) => out.push_str("\\r"),
            ('\r' | '\0', Some(_)) => {}
            ('\r' | '\n' | '\0', None) => out.push(' '),
            (':', None) if is_name => out.push(' '),
            (c, _) => out.push(c),
        }
    }
}

fn write_end(out: &mut String, command: ServerCommand, body: &str) {
    if command.has_body() {
        out.push_str("content-length:");
        out.push_str(&body.len().to_string());
        out.push_str("\n\n");
        out.push_str(body);
    } else {
        out.push('\n');
    }
    out.push('\0');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVERY_VERSION: [Version; 3] = [Version::V10, Version::V11, Version::V12];

    /// What a decoder finds in bytes that arrive in pieces of these sizes, again and again, up to the first fault.
    /// Heart-beats that follow one another are one.
    fn decode(mut decoder: Decoder, bytes: &[u8], sizes: &[usize]) -> Vec<Result<Input, Fault>> {
        let frame_bytes = decoder.limits.frame_bytes;
        let (mut found, mut rest) = (Vec::new(), bytes);
        for &size in sizes.iter().cycle() {
            let (chunk, later) = rest.split_at(size.min(rest.len()));
            decoder.push(chunk);
            assert!(decoder.buffer.len() <= frame_bytes + chunk.len());
            loop {
                match decoder.next_input() {
                    Ok(None) => break,
                    Ok(Some(Input::HeartBeat)) if found.last() == Some(&Ok(Input::HeartBeat)) => {}
                    Ok(Some(input)) => found.push(Ok(input)),
                    Err(fault) => {
                        decoder.push(b"SEND\n\n\0");
                        assert_eq!((decoder.next_input(), decoder.buffered()), (Err(fault.clone()), 0));
                        found.push(Err(fault));
                        return found;
                    }
                }
            }
            assert!(decoder.buffered() < frame_bytes);
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        found
    }

    fn decoder(version: Version) -> Decoder {
        let mut decoder = Decoder::new(Limits::default());
        decoder.set_version(version);
        decoder
    }

    /// The one input in these bytes, which come whole and byte by byte.
    #[track_caller]
    fn only(version: Version, bytes: impl AsRef<[u8]>) -> Result<Frame, Fault> {
        let bytes = bytes.as_ref();
        let mut found = decode(decoder(version), bytes, &[bytes.len()]);
        assert_eq!(found, decode(decoder(version), bytes, &[1]));
        assert_eq!(found.len(), 1, "{found:?}");
        match found.remove(0) {
            Ok(Input::Frame(frame)) => Ok(frame),
            Ok(Input::HeartBeat) => panic!("a heart-beat"),
            Err(fault) => Err(fault),
        }
    }

    #[track_caller]
    fn check(version: Version, bytes: &str, command: Command, headers: &[(&str, &str)], body: &str) {
        let frame = only(version, bytes).expect(bytes);
        let given: Vec<_> = frame.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!((frame.command, given.as_slice(), str::from_utf8(&frame.body)), (command, headers, Ok(body)));
    }

    #[test]
    fn versions_are_negotiated() {
        use Version::{V10, V11, V12};
        for (header, version) in [
            (None, Some(V10)),
            (Some("1.0"), Some(V10)),
            (Some("1.2,1.1,1.0"), Some(V12)),
            (Some("1.0,1.1,2.0"), Some(V11)),
            (Some(" 1.1 , 1.2 "), Some(V12)),
            (Some("1.1,,1.10"), Some(V11)),
            (Some("2.0"), None),
            (Some(""), None),
            (Some("1"), None),
        ] {
            assert_eq!(Version::negotiate(header), version, "{header:?}");
        }
        assert_eq!(EVERY_VERSION.map(|version| Version::parse(version.as_str())), EVERY_VERSION.map(Some));
        assert_eq!(VERSIONS, EVERY_VERSION.map(Version::as_str).join(","));
    }

    /// ST-5..11.
    #[test]
    fn frames_are_read() {
        use Command::{Ack, Connect, Disconnect, Send, Stomp, Subscribe};
        use Version::{V10, V11, V12};
        let connect = [("accept-version", "1.2,1.1,1.0"), ("heart-beat", "10000,10000")];
        check(V10, "CONNECT\naccept-version:1.2,1.1,1.0\nheart-beat:10000,10000\n\n\0", Connect, &connect, "");
        let stomp = [("accept-version", "1.2"), ("host", "a"), ("passcode", " \\x\\n:")];
        check(V12, "STOMP\r\naccept-version:1.2\r\nhost:a\r\npasscode: \\x\\n:\r\n\r\n\0", Stomp, &stomp, "");
        check(V12, "CONNECT\nlogin: a\npasscode:\tb \n\n\0", Connect, &[("login", "a"), ("passcode", "b")], "");
        check(
            V12,
            "CONNECT\naccept-version:1.0\nlogin: a\n\n\0",
            Connect,
            &[("accept-version", "1.0"), ("login", "a")],
            "",
        );
        check(
            V10,
            "CONNECT\naccept-version:1.1\nlogin: a\n\n\0",
            Connect,
            &[("accept-version", "1.1"), ("login", " a")],
            "",
        );
        check(V12, "DISCONNECT\n\n\0", Disconnect, &[], "");
        check(V12, "SEND\na: b \nc:\n\n{}\0", Send, &[("a", " b "), ("c", "")], "{}");
        check(V10, "SEND\na : b \nc:\n\n{}\0", Send, &[("a", "b"), ("c", "")], "{}");
        let escaped = "SEND\n\\c\\n:a\\cb:c\\\\n\\\\\n\n\0";
        check(V12, escaped, Send, &[(":\n", "a:b:c\\n\\")], "");
        check(V11, escaped, Send, &[(":\n", "a:b:c\\n\\")], "");
        check(V10, escaped, Send, &[("\\c\\n", "a\\cb:c\\\\n\\\\")], "");
        check(V12, "SEND\r\na:\\r\\n\r\n\r\n\r\n\0", Send, &[("a", "\r\n")], "\r\n");
        check(V11, "SEND\r\na:b\rc\r\n\r\n\0", Send, &[("a", "b\rc")], "");
        check(V10, "SEND\na:\\r\\t\\\n\n\0", Send, &[("a", "\\r\\t\\")], "");
        check(V12, "SEND\n방:가\n\n안녕\0", Send, &[("방", "가")], "안녕");
        check(V12, "SEND\ncontent-length:4\n\n\0\n\0\n\0", Send, &[("content-length", "4")], "\0\n\0\n");
        check(V12, "SEND\ncontent-length: 0 \n\n\0", Send, &[("content-length", " 0 ")], "");
        check(V12, "SUBSCRIBE\nid:0\n\nignored\0", Subscribe, &[("id", "0")], "");
        check(V12, "ACK\ncontent-length:2\n\n\0\0\0", Ack, &[("content-length", "2")], "");
        for command in COMMANDS {
            check(V12, &format!("{}\n\n\0", command.as_str()), command, &[], "");
        }
        let repeated = only(V12, "SEND\na:1\nA:2\na:3\ncontent-length:1\ncontent-length:9\n\nb\0").unwrap();
        let values = ["a", "A", "b", "content-length"].map(|name| repeated.header(name));
        assert_eq!(values, [Some("1"), Some("2"), None, Some("1")]);
        assert_eq!(format!("{repeated:?}"), r#"SEND ["a", "A", "a", "content-length", "content-length"] and 1 bytes"#);
    }

    #[test]
    fn bytes_that_are_no_frame_are_faults() {
        use Version::{V10, V11, V12};
        let unknown = |line: &str| Fault::UnknownCommand(line.to_owned());
        let escape = |name: &str, escape| Fault::UnknownEscape(name.to_owned(), escape);
        for (version, bytes, fault) in [
            (V12, &b"HELLO\n\n\0"[..], unknown("HELLO")),
            (V12, b"send\n\n\0", unknown("send")),
            (V12, b"SEND \n\n\0", unknown("SEND ")),
            (V12, b"CONNECTED\n\n\0", unknown("CONNECTED")),
            (V12, b"\rSEND\n", unknown("?SEND")),
            (V12, b"SE\xff\xfeND\n", unknown("SE??ND")),
            (V12, b"GET / HTTP/1.1", unknown("GET / HTTP/1.")),
            (V12, b"{\"a\\b\":\"c\",\"d\"", unknown("{\"a?b\"?\"c\",\"d")),
            (V12, b"\0", Fault::NulInHeader),
            (V12, b"SEND\0", Fault::NulInHeader),
            (V11, b"SEND\na:b\0c\n\n\0", Fault::NulInHeader),
            (V12, b"SEND\na:b\nBearer x\n\n\0", Fault::NoColon(2)),
            (V12, b"SEND\na:b\n:c\n\n\0", Fault::NoName(2)),
            (V10, b"SEND\na:b\n :c\n\n\0", Fault::NoName(2)),
            (V12, b"SEND\na:b\nc:\xff\n\n\0", Fault::NotUtf8(2)),
            (V10, b"CONNECT\na:\xff\n\n\0", Fault::NotUtf8(1)),
            (V12, b"SEND\na:\\t\n\n\0", escape("a", Some('t'))),
            (V11, b"SEND\na:\\r\n\n\0", escape("a", Some('r'))),
            (V12, b"SEND\na\\\x1b:b\n\n\0", escape("a??", Some('\x1b'))),
            (V11, b"SEND\na:b\\\n\n\0", escape("a", None)),
            (V12, b"SEND\na:b\rc\n\n\0", Fault::CarriageReturn("a".to_owned())),
            (V12, b"SEND\na:b\r\r\n\n\0", Fault::CarriageReturn("a".to_owned())),
            (V12, b"SEND\ncontent-length:\n\n\0", Fault::ContentLength),
            (V12, b"SEND\ncontent-length:+1\n\n\0", Fault::ContentLength),
            (V12, b"SEND\ncontent-length:1e1\n\n\0", Fault::ContentLength),
            (V12, b"SUBSCRIBE\ncontent-length:-1\n\n\0", Fault::ContentLength),
            (V12, b"SEND\ncontent-length:2\n\nabc\0", Fault::NoNul(2)),
            (V12, b"SEND\ncontent-length:0\n\na\0", Fault::NoNul(0)),
            (V12, b"SEND\ncontent-length:99999999999999999999999\n\n", Fault::FrameTooLarge(65536)),
        ] {
            assert_eq!(only(version, bytes), Err(fault), "{}", bytes.escape_ascii());
        }
        assert_eq!(
            escape("a", Some(':')).to_string(),
            "header 'a' has a backslash before '?'; write a backslash in a header as two backslashes"
        );
        assert!(unknown("x").to_string().ends_with(", ABORT, DISCONNECT, on a line of its own"));
    }

    /// ST-22: each limit is met exactly, and one more is a fault as soon as it is known.
    #[test]
    fn limits_are_exact() {
        let limits = Limits { headers: 2, header_bytes: 20, frame_bytes: 30 };
        let ends = |bytes: &str| {
            let found = decode(Decoder::new(limits), bytes.as_bytes(), &[bytes.len()]);
            assert_eq!(found, decode(Decoder::new(limits), bytes.as_bytes(), &[1]), "{bytes}");
            found.into_iter().next().map(|input| input.map(|_| ()))
        };
        assert_eq!(ends("SEND\na:\nb:\n\n\0"), Some(Ok(())));
        assert_eq!(ends("SEND\na:\nb:\na:\n"), Some(Err(Fault::TooManyHeaders(2))));
        assert_eq!(ends("SEND\n12345:789012345\n\n\0").map(|found| found.is_ok()), Some(false), "21 bytes");
        assert_eq!(ends("SEND\n12345:7890123\n\n\0"), Some(Ok(())), "20 bytes");
        assert_eq!(ends("SEND\n12345:78901234"), None, "19 bytes");
        assert_eq!(ends("SEND\n12345:789012345"), Some(Err(Fault::HeaderTooLarge(20))), "20 bytes without an end");
        assert_eq!(ends("SEND\n\n78901234567890123456789\0"), Some(Ok(())), "30 bytes");
        assert_eq!(ends("SEND\n\n78901234567890123456789"), None, "29 bytes");
        assert_eq!(ends("SEND\n\n789012345678901234567890"), Some(Err(Fault::FrameTooLarge(30))), "30 without NUL");
        assert_eq!(ends("SEND\ncontent-length:0"), Some(Err(Fault::HeaderTooLarge(20))));
        let limits = Limits { header_bytes: 40, ..limits };
        let announced = |bytes: &str| decode(Decoder::new(limits), bytes.as_bytes(), &[7]);
        assert_eq!(announced("SEND\ncontent-length:6\n\n"), [], "23 + 6 + 1 bytes");
        assert_eq!(announced("SEND\ncontent-length:7\n\n"), [Err(Fault::FrameTooLarge(30))]);
        assert_eq!(announced("SEND\n12345:789012345678901234"), [], "29 bytes");
        assert_eq!(
            announced("SEND\n12345:7890123456789012345"),
            [Err(Fault::HeaderTooLarge(30))],
            "as large as a frame"
        );
        let frame = format!("SEND\n{}\n\0", "a:\n".repeat(64));
        assert!(only(Version::V12, frame).is_ok());
        assert_eq!(only(Version::V12, format!("SEND\n{}", "a:\n".repeat(65))), Err(Fault::TooManyHeaders(64)));
    }

    #[test]
    fn heart_beats_are_line_ends_between_frames() {
        let found = |bytes: &str, size: usize| -> Vec<bool> {
            let found = decode(decoder(Version::V12), bytes.as_bytes(), &[size]);
            found.into_iter().map(|input| input.unwrap() == Input::HeartBeat).collect()
        };
        for size in 1..9 {
            assert_eq!(found("\n", size), [true]);
            assert_eq!(found("\r\n\n\r\n", size), [true]);
            assert_eq!(found("\r", size), [false; 0]);
            assert_eq!(found("ACK\n\n\0\n\r\n\nACK\n\n\0ACK\n\n\0\n", size), [false, true, false, false, true]);
        }
    }

    /// The version that CONNECT leads to counts for the frames after it, even in one chunk.
    #[test]
    fn version_is_set_between_two_frames_of_one_chunk() {
        for (version, value) in [(Version::V10, "\\c"), (Version::V12, ":")] {
            let mut decoder = Decoder::new(Limits::default());
            decoder.push(b"CONNECT\naccept-version:1.2\n\n\0SEND\na:\\c\n\n\0");
            assert!(matches!(decoder.next_input(), Ok(Some(Input::Frame(frame))) if frame.command.is_connect()));
            decoder.set_version(version);
            let Ok(Some(Input::Frame(frame))) = decoder.next_input() else { panic!("no frame") };
            assert_eq!(frame.header("a"), Some(value));
            assert_eq!((decoder.next_input(), decoder.buffered()), (Ok(None), 0));
        }
    }

    /// However small the pieces, the search goes on where it stopped; and an idle connection holds next to nothing.
    #[test]
    fn no_byte_is_searched_twice() {
        let mut decoder = decoder(Version::V12);
        let (header, body) = (format!("SEND\na:{}\n\n", "b".repeat(8000)), "c".repeat(50_000));
        for byte in (header + &body).bytes() {
            decoder.push(&[byte]);
            assert_eq!(decoder.next_input(), Ok(None));
            assert_eq!((decoder.searched, decoder.start), (decoder.buffered(), 0));
        }
        decoder.push(b"\0SEND\n");
        assert!(matches!(decoder.next_input(), Ok(Some(Input::Frame(frame))) if frame.body.len() == 50_000));
        assert_eq!(decoder.next_input(), Ok(None));
        assert_eq!((decoder.searched, decoder.buffer.len()), (5, 5));
        decoder.push(b"\n\0");
        assert!(matches!(decoder.next_input(), Ok(Some(Input::Frame(_)))));
        assert_eq!(decoder.next_input(), Ok(None));
        assert!(decoder.buffer.capacity() <= IDLE_BYTES && decoder.headers.capacity() == 0);
    }

    #[test]
    fn heart_beats_are_negotiated() {
        for (header, pair) in [
            (None, (0, 0)),
            (Some("0,0"), (0, 0)),
            (Some("10000,20000"), (10_000, 20_000)),
            (Some(" 4000 , 4000 "), (4_000, 4_000)),
            (Some("007,99999999999999999999999"), (7, u32::MAX)),
        ] {
            assert_eq!(parse_heart_beat(header), Ok(pair), "{header:?}");
        }
        for bad in ["", ",", "1", "1,", ",1", "1,2,3", "-1,2", "1.5,2", "a,b", "1;2"] {
            assert_eq!(parse_heart_beat(Some(bad)), Err(Fault::HeartBeat), "{bad}");
        }
        let ms = |ms: u64| (ms > 0).then(|| Duration::from_millis(ms));
        for (client, server, send, expect) in [
            ((0, 0), (10_000, 10_000), 0, 0),
            ((5_000, 20_000), (10_000, 10_000), 20_000, 10_000),
            ((30_000, 1), (10_000, 10_000), 10_000, 30_000),
            ((10_000, 0), (10_000, 10_000), 0, 10_000),
            ((0, 10_000), (10_000, 10_000), 10_000, 0),
            ((1, 2), (0, 3), 0, 3),
            ((1, 2), (3, 0), 3, 0),
            ((u32::MAX, u32::MAX), (1, 1), u32::MAX.into(), u32::MAX.into()),
        ] {
            let expected = HeartBeats { send_every: ms(send), expect_every: ms(expect) };
            assert_eq!(HeartBeats::negotiate(client, server), expected, "{client:?} {server:?}");
        }
    }

    /// Reads one frame of the server as a client does: its command, its headers as they were meant, its body.
    fn read_as_client(version: Version, frame: &str) -> (&str, Vec<(String, String)>, &str) {
        let (head, rest) = frame.split_once("\n\n").unwrap();
        let mut lines = head.split('\n');
        let command = lines.next().unwrap();
        let meant = |text: &str| {
            if version == Version::V10 || command == "CONNECTED" {
                return text.to_owned();
            }
            assert_eq!(text.replace("\\\\", "").matches('\\').count(), {
                let text = text.replace("\\\\", "");
                let escapes = if version == Version::V12 { &["\\c", "\\n", "\\r"][..] } else { &["\\c", "\\n"] };
                escapes.iter().map(|escape| text.matches(escape).count()).sum::<usize>()
            });
            let parts: Vec<_> = text.split("\\\\").collect();
            let parts = parts.iter().map(|p| p.replace("\\c", ":").replace("\\n", "\n").replace("\\r", "\r"));
            parts.collect::<Vec<_>>().join("\\")
        };
        let headers = lines.map(|line| line.split_once(':').unwrap());
        let headers: Vec<_> = headers.map(|(name, value)| (meant(name), meant(value))).collect();
        let length = headers.iter().find(|(name, _)| name == "content-length").map(|(_, value)| value.parse().unwrap());
        let (body, end) = rest.split_at(length.unwrap_or(0));
        assert_eq!(end, "\0");
        (command, headers, body)
    }

    #[test]
    fn server_frames_are_written() {
        use ServerCommand::{Connected, Error, Message, Receipt};
        let connected = [("version", "1.2"), ("user-name", "a:b\\c"), ("x", "1\r\n2\0")];
        for version in EVERY_VERSION {
            assert_eq!(
                encode(version, Connected, connected, "no body"),
                "CONNECTED\nversion:1.2\nuser-name:a:b\\c\nx:1  2 \n\n\0"
            );
            assert_eq!(encode(version, Receipt, [("receipt-id", "7")], ""), "RECEIPT\nreceipt-id:7\n\n\0");
            assert_eq!(encode(version, Error, [], ""), "ERROR\ncontent-length:0\n\n\0");
        }
        let headers = [("message-id", "s:1"), ("content-length", "999"), ("a:b", "c\\\r\nd\0")];
        for (version, written) in [
            (Version::V10, "message-id:s:1\na b:c\\  d \n"),
            (Version::V11, "message-id:s\\c1\na\\cb:c\\\\\\nd\n"),
            (Version::V12, "message-id:s\\c1\na\\cb:c\\\\\\r\\nd\n"),
        ] {
            let expected = format!("MESSAGE\n{written}content-length:6\n\n안녕\0");
            assert_eq!(encode(version, Message, headers, "안녕"), expected);
            let shared = SharedFrame::new(version, Message, headers.into_iter().skip(1), "안녕");
            let mut out = HEART_BEAT.to_owned();
            shared.encode_into(&mut out, headers.into_iter().take(1));
            shared.encode_into(&mut out, []);
            let without = expected.replacen(written.split_inclusive('\n').next().unwrap(), "", 1);
            assert_eq!(out, format!("\n{expected}{without}"));
        }
    }

    /// A value that a client chose cannot add a header, end the headers or end the frame.
    #[test]
    fn headers_cannot_be_injected() {
        let attack = "1\nsubscription:2\r\nx:y\n\nbody\0MESSAGE\n\n\0";
        for version in EVERY_VERSION {
            for command in [ServerCommand::Connected, ServerCommand::Receipt, ServerCommand::Error] {
                let frame = encode(version, command, [("receipt-id", attack), ("a", "b")], "");
                let (word, headers, body) = read_as_client(version, &frame);
                let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
                let expected = &["receipt-id", "a", "content-length"][..2 + usize::from(command.has_body())];
                assert_eq!((word, names.as_slice(), body), (command.as_str(), expected, ""), "{frame}");
                assert_eq!(frame.matches('\0').count(), 1);
            }
        }
    }

    /// Texts with many of the characters that matter.
    fn texts() -> impl Strategy<Value = String> {
        let special = prop::sample::select(vec![':', '\\', '\n', '\r', 'n', 'c', 'r', 't', ' ', '\t', '한', '😀']);
        let character = prop_oneof![4 => special, 1 => any::<char>().prop_filter("NUL", |&c| c != '\0')];
        prop::collection::vec(character, 0..8).prop_map(String::from_iter)
    }

    fn headers() -> impl Strategy<Value = Vec<(String, String)>> {
        prop::collection::vec((texts().prop_map(|name| format!("x{name}")), texts()), 0..5)
    }

    /// The texts that a client can write in a frame: as `text`, without what the version has no form for.
    fn writable(version: Version, command: Command, text: &str, is_name: bool) -> String {
        let is_bare = version == Version::V10 || command.is_connect();
        let lost = |c: char| match c {
            '\r' => is_bare || version == Version::V11,
            '\n' => is_bare,
            ':' => is_bare && is_name,
            _ => false,
        };
        let text: String = text.chars().filter(|&c| !lost(c)).collect();
        if version == Version::V10 { trim(&text).to_owned() } else { text }
    }

    /// Writes a frame as a client does, with spare blanks in 1.0. `announced`: with `content-length`.
    fn write_as_client(version: Version, frame: &Frame, line_end: &str, announced: bool) -> Vec<u8> {
        let escaped = |text: &str| match version == Version::V10 || frame.command.is_connect() {
            true => text.to_owned(),
            false => {
                let text = text.replace('\\', "\\\\").replace(':', "\\c").replace('\n', "\\n");
                text.replace('\r', "\\r")
            }
        };
        let pad = if version == Version::V10 { " " } else { "" };
        let mut bytes = format!("{}{line_end}", frame.command.as_str());
        for (name, value) in &frame.headers {
            bytes += &format!("{}{pad}:{pad}{}{line_end}", escaped(name), escaped(value));
        }
        if announced {
            bytes += &format!("content-length:{}{line_end}", frame.body.len());
        }
        bytes += line_end;
        [bytes.as_bytes(), &frame.body, b"\0"].concat()
    }

    fn frames() -> impl Strategy<Value = Vec<(Frame, bool, bool, String)>> {
        let commands = prop_oneof![Just(Command::Send), prop::sample::select(COMMANDS.to_vec())];
        let body = prop::collection::vec(prop_oneof![3 => any::<u8>(), 1 => Just(0), 1 => Just(b'\n')], 0..40);
        let one = (commands, headers(), body, any::<bool>(), any::<bool>(), "(\r?\n){0,3}");
        let one = one.prop_map(|(command, headers, body, crlf, announced, between)| {
            (Frame { command, headers, body }, crlf, announced, between)
        });
        prop::collection::vec(one, 0..6)
    }

    /// Bytes that are a little like frames.
    fn soup() -> impl Strategy<Value = Vec<u8>> {
        let pieces = "SEND|SUBSCRIBE|CONNECT|\n|\n|\r\n|\r|\0|\0|\n\n|\0\n|content-length:|2|30|a:b|\
            accept-version:1.2|:|\\|\\n| |한|abcdefgh";
        let piece = prop::sample::select(pieces.split('|').map(|piece| piece.as_bytes().to_vec()).collect::<Vec<_>>());
        let any_bytes = prop::collection::vec(any::<u8>(), 0..3);
        prop::collection::vec(prop_oneof![9 => piece, 1 => any_bytes], 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        /// All that a client can write is read as it was meant, in every version and wherever it is cut.
        #[test]
        fn frames_of_clients_come_back(frames in frames(), sizes in prop::collection::vec(1..40usize, 1..8)) {
            for version in EVERY_VERSION {
                let (mut bytes, mut expected) = (Vec::new(), Vec::new());
                for (frame, crlf, announced, between) in &frames {
                    let Frame { command, headers, body } = frame;
                    let mut frame = Frame { command: *command, headers: Vec::new(), body: body.clone() };
                    if command.is_connect() {
                        frame.headers.push(("accept-version".to_owned(), version.as_str().to_owned()));
                    }
                    frame.headers.extend(headers.iter().map(|(name, value)| {
                        let part = |text, is_name| writable(version, *command, text, is_name);
                        (part(name, true), part(value, false))
                    }));
                    if !announced {
                        frame.body.retain(|&byte| byte != 0);
                    }
                    let line_end = if *crlf { "\r\n" } else { "\n" };
                    bytes.extend(write_as_client(version, &frame, line_end, *announced));
                    if *announced {
                        frame.headers.push(("content-length".to_owned(), frame.body.len().to_string()));
                    }
                    if *command != Command::Send {
                        frame.body.clear();
                    }
                    expected.push(Ok(Input::Frame(frame)));
                    if !between.is_empty() {
                        bytes.extend_from_slice(between.as_bytes());
                        expected.push(Ok(Input::HeartBeat));
                    }
                }
                let found = decode(decoder(version), &bytes, &sizes);
                prop_assert!(found == expected, "{version:?} {}\n{found:?}\n{expected:?}", bytes.escape_ascii());
            }
        }

        /// No bytes cause a panic or are kept beyond the limits, and no cut changes what is found (see `decode`). A
        /// fault is one line that is the same in every version.
        #[test]
        fn cuts_do_not_change_what_is_found(
            bytes in prop_oneof![4 => soup(), 1 => prop::collection::vec(any::<u8>(), 0..200)],
            sizes in prop::collection::vec(1..40usize, 1..8),
            header_bytes in 0..60usize,
            frame_bytes in 2..90usize,
        ) {
            for version in EVERY_VERSION {
                let mut decoder = Decoder::new(Limits { headers: 3, header_bytes, frame_bytes });
                decoder.set_version(version);
                let decoder = || Decoder { buffer: Vec::new(), headers: Vec::new(), fault: None, ..decoder };
                let found = decode(decoder(), &bytes, &[bytes.len().max(1)]);
                prop_assert_eq!(&found, &decode(decoder(), &bytes, &sizes));
                prop_assert_eq!(&found, &decode(decoder(), &bytes, &[1]));
                if let Some(Err(fault)) = found.last() {
                    let text = fault.to_string();
                    prop_assert!(!text.contains([':', '\\']) && !text.contains(char::is_control), "{text}");
                    prop_assert!(text.len() < 300, "{text}");
                }
            }
        }

        /// Clients read what the server meant: all of it in 1.2, and never one header more.
        #[test]
        fn server_frames_come_back(
            headers in headers(), ends in ".{0,2}", body in any::<String>(), shared in any::<prop::sample::Index>()
        ) {
            let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, value + &ends)).collect();
            let given: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let commands =
                [ServerCommand::Connected, ServerCommand::Message, ServerCommand::Receipt, ServerCommand::Error];
            for (version, command) in EVERY_VERSION.into_iter().flat_map(|v| commands.map(|command| (v, command))) {
                let meant = |text: &str, is_name: bool| match escaping(version, command == ServerCommand::Connected) {
                    Some(Version::V12) => text.replace('\0', ""),
                    Some(_) => text.replace(['\0', '\r'], ""),
                    None if is_name => text.replace(['\0', '\r', '\n', ':'], " "),
                    None => text.replace(['\0', '\r', '\n'], " "),
                };
                let mut expected: Vec<_> =
                    given.iter().map(|(name, value)| (meant(name, true), meant(value, false))).collect();
                if command.has_body() {
                    expected.push(("content-length".to_owned(), body.len().to_string()));
                }
                let body = if command.has_body() { body.as_str() } else { "" };
                let frame = encode(version, command, given.iter().copied(), body);
                let read = read_as_client(version, &frame);
                prop_assert_eq!(read, (command.as_str(), expected, body));
                let (own, rest) = given.split_at(shared.index(given.len() + 1));
                let mut out = String::new();
                let shared = SharedFrame::new(version, command, rest.iter().copied(), body);
                shared.encode_into(&mut out, own.iter().copied());
                prop_assert_eq!(out, frame);
            }
        }
    }
}
