//! A client of STOMP over WebSocket. The framing is written by hand, because a client library would use more CPU than
//! the hub: text messages of the server are read in place, and those of the client are masked with zeros.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Bytes that are read at once.
const READ_BYTES: usize = 8 * 1_024;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;

/// A connection that has signed in.
pub struct Stomp {
    stream: TcpStream,
    /// Bytes that were read: whole messages are taken from the front.
    input: Vec<u8>,
    output: Vec<u8>,
}

/// A frame from the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    pub command: &'a str,
    headers: &'a str,
    pub body: &'a str,
}

impl<'a> Frame<'a> {
    /// Reads a frame without the NUL at its end. None for a heart-beat.
    fn parse(text: &'a str) -> Option<Frame<'a>> {
        let text = text.trim_start_matches('\n');
        if text.is_empty() {
            return None;
        }
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (command, headers) = head.split_once('\n').unwrap_or((head, ""));
        Some(Frame { command, headers, body })
    }

    /// A header's value; empty if there is none. Values of the headers that are asked for contain no escapes.
    pub fn header(&self, name: &str) -> &'a str {
        let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':');
        self.headers.split('\n').find_map(value).unwrap_or_default()
    }
}

/// A message of WebSocket at the front of some bytes.
struct Message<'a> {
    opcode: u8,
    payload: &'a [u8],
    /// Its bytes, its head included.
    length: usize,
}

impl<'a> Message<'a> {
    /// The first message, which the server does not mask. None while bytes of it are missing.
    fn first(bytes: &'a [u8]) -> Option<Message<'a>> {
        let (opcode, short) = (bytes.first()? & 0x0F, usize::from(bytes.get(1)? & 0x7F));
        let (head, length) = match short {
            126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
            127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
            short => (2, short),
        };
        let payload = bytes.get(head..head + length)?;
        Some(Message { opcode, payload, length: head + length })
    }
}

/// Appends a message of a client, masked with zeros: its text is not changed.
fn append_message(output: &mut Vec<u8>, text: &str) {
    const MASKED: u8 = 0x80;
    output.push(0x80 | TEXT);
    let length = text.len();
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => output.push(MASKED | short),
        (_, Ok(longer)) => {
            output.push(MASKED | 126);
            output.extend(longer.to_be_bytes());
        }
        _ => {
            output.push(MASKED | 127);
            output.extend((length as u64).to_be_bytes());
        }
    }
    output.extend([0; 4]);
    output.extend(text.as_bytes());
}

impl Stomp {
    /// Connects to `host:port` as the user of `token`. `heart_beat_ms`: how often both sides send one; 0 is never.
    ///
    /// # Errors
    /// If the hub cannot be reached or refuses the connection.
    pub async fn connect(address: &str, token: &str, heart_beat_ms: u64) -> Result<Stomp> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /ws/chat HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nupgrade: websocket\r\n\
             connection: Upgrade\r\nsec-websocket-version: 13\r\nsec-websocket-key: bm90aWh1Yi1iZW5jaC0tLQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut stomp = Stomp { stream, input: Vec::new(), output: Vec::new() };
        let head = loop {
            if let Some(end) = stomp.input.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            stomp.fill().await?;
        };
        let answer = String::from_utf8_lossy(&stomp.input[..head]).into_owned();
        if !answer.starts_with("HTTP/1.1 101 ") {
            return Err(Error::other(format!("the WebSocket was refused: {answer}")));
        }
        stomp.input.drain(..head);
        let beats = format!("{heart_beat_ms},{heart_beat_ms}");
        stomp.write(&format!("CONNECT\naccept-version:1.2\nhost:bench\nheart-beat:{beats}\n\n\0")).await?;
        let mut is_connected = false;
        while !is_connected {
            stomp.read(|frame| is_connected |= frame.command == "CONNECTED").await?;
        }
        Ok(stomp)
    }

    /// Subscribes. Returns the number of the last event of the topic's stream; 0 for a topic without one.
    ///
    /// # Errors
    /// If the connection ends, as after a subscription that is refused.
    pub async fn subscribe(&mut self, id: &str, destination: &str) -> Result<i64> {
        self.write(&format!("SUBSCRIBE\nid:{id}\nreceipt:{id}\ndestination:{destination}\n\n\0")).await?;
        let mut head = None;
        while head.is_none() {
            let answered = |frame: &Frame<'_>| frame.command == "RECEIPT" && frame.header("receipt-id") == id;
            self.read(|frame| {
                if answered(frame) {
                    head = Some(frame.header("x-head").parse().unwrap_or(0));
                }
            })
            .await?;
        }
        Ok(head.unwrap_or(0))
    }

    /// Sends one frame, or a heart-beat.
    ///
    /// # Errors
    /// If the connection has ended.
    pub async fn write(&mut self, frame: &str) -> Result<()> {
        self.output.clear();
        append_message(&mut self.output, frame);
        self.stream.write_all(&self.output).await
    }

    /// Waits for bytes and calls `each` for every frame that is whole. Cancel-safe.
    ///
    /// # Errors
    /// If the connection has ended, or an ERROR came.
    pub async fn read(&mut self, mut each: impl FnMut(&Frame<'_>)) -> Result<()> {
        self.fill().await?;
        let mut read = 0;
        while let Some(message) = Message::first(&self.input[read..]) {
            match message.opcode {
                TEXT => frames(message.payload, &mut each)?,
                CLOSE => {
                    let reason = String::from_utf8_lossy(message.payload.get(2..).unwrap_or_default()).into_owned();
                    return Err(Error::new(ErrorKind::ConnectionAborted, format!("the hub closed: {reason}")));
                }
                // Pings: the hub expects no answer.
                _ => (),
            }
            read += message.length;
        }
        self.input.drain(..read);
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// Calls `each` for every frame in a text.
fn frames(text: &[u8], each: &mut impl FnMut(&Frame<'_>)) -> Result<()> {
    let text = std::str::from_utf8(text).map_err(Error::other)?;
    for frame in text.split('\0').filter_map(Frame::parse) {
        if frame.command == "ERROR" {
            return Err(Error::other(format!("{}: {}", frame.header("message"), frame.body)));
        }
        each(&frame);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message as a server sends it: not masked.
    fn from_server(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        append_message(&mut bytes, text);
        let head = bytes.len() - text.len() - 4;
        bytes.drain(head..head + 4);
        bytes[1] &= 0x7F;
        bytes
    }

    #[test]
    fn message_of_each_length_is_read_when_it_is_whole() {
        for length in [0, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let mut bytes = from_server(&text);
            let whole = bytes.len();
            bytes.extend(from_server("next"));
            for cut in [0, 1, whole - 1] {
                assert!(Message::first(&bytes[..cut]).is_none(), "{length} cut at {cut}");
            }
            let message = Message::first(&bytes).unwrap();
            assert_eq!((message.opcode, message.payload, message.length), (TEXT, text.as_bytes(), whole), "{length}");
            assert_eq!(Message::first(&bytes[whole..]).unwrap().payload, b"next", "{length}");
        }
    }

    #[test]
    fn text_holds_frames_and_heart_beats() {
        let mut read = Vec::new();
        let text = b"\nMESSAGE\nsubscription:m\nx-seq:7\n\n{\"a\":\n\n1}\0\nRECEIPT\nreceipt-id:3\n\n\0\n";
        frames(text, &mut |frame| {
            read.push((frame.command.to_owned(), frame.header("x-seq").to_owned(), frame.body.to_owned()));
        })
        .unwrap();
        let expected = [("MESSAGE", "7", "{\"a\":\n\n1}"), ("RECEIPT", "", "")];
        assert_eq!(read, expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c.to_owned())));
        assert!(frames(b"ERROR\nmessage:token_invalid\n\nsign in\0", &mut |_| ()).is_err());
    }
}
