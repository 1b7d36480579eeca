//! Finds where each request on a connection begins and ends, by the strict rules of RFC 9112 (2.2, 6.1, 6.3, 7.1).
//!
//! The HTTP library accepts requests that these rules forbid or leave open: a line that ends with LF alone,
//! Content-Length together with Transfer-Encoding, two equal lengths, codings before `chunked`. A proxy in front may
//! read such a request differently, and a second request can hide inside the first (request smuggling). [`Framing`]
//! sees every byte before the library does and accepts only requests with a single reading: lines end with CRLF; a body
//! has one length in digits without leading zeros, or the single transfer coding `chunked`, or there is no body. The
//! library checks everything else.

/// The number of bytes kept of each line. The lines that decide the framing (lengths, codings, chunk sizes) are
/// shorter.
const KEPT: usize = 128;

/// Follows the bytes of one connection from request to request. It is no longer used after a switch of protocols.
#[derive(Debug, Default)]
pub struct Framing {
    at: Position,
    line: LineBuffer,
    body: Option<BodyFraming>,
}

/// A violation of the rules. The bytes from the index `at` on must not be passed on.
#[derive(Debug, PartialEq, Eq)]
pub struct FramingFault {
    pub at: usize,
    /// True if the fault is in a request's head, whose end the library has not seen; false if it is in a body that the
    /// library is reading.
    pub in_head: bool,
    pub why: &'static str,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// Before a request line. Empty lines may come first.
    #[default]
    Start,
    Headers,
    /// This many bytes of the body are still to come.
    Length(u64),
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers,
}

/// How the length of the body is given.
#[derive(Debug, Clone, Copy)]
enum BodyFraming {
    Length(u64),
    Chunked,
}

#[derive(Debug)]
struct LineBuffer {
    kept: [u8; KEPT],
    length: usize,
    last: u8,
}

impl Default for LineBuffer {
    fn default() -> LineBuffer {
        LineBuffer { kept: [0; KEPT], length: 0, last: 0 }
    }
}

impl LineBuffer {
    fn add(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.last() else { return };
        if self.length < KEPT {
            let most = bytes.len().min(KEPT - self.length);
            self.kept[self.length..self.length + most].copy_from_slice(&bytes[..most]);
        }
        self.length += bytes.len();
        self.last = *last;
    }

    /// The kept part of the line without its CR, and whether that is the whole line.
    fn content(&self) -> (&[u8], bool) {
        let length = self.length.saturating_sub(1);
        (&self.kept[..length.min(KEPT)], length <= KEPT)
    }
}

impl Framing {
    /// Follows the next bytes of the connection; they may end anywhere.
    ///
    /// # Errors
    /// The first violation. The connection must not be used after it.
    pub fn read(&mut self, bytes: &[u8]) -> Result<(), FramingFault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let fault = |why, rest: &[u8], at: Position| {
                let in_head = matches!(at, Position::Start | Position::Headers);
                Err(FramingFault { at: bytes.len() - rest.len(), in_head, why })
            };
            match self.at {
                Position::Length(left) | Position::Chunk(left) => {
                    let passed = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    let left = left - passed as u64;
                    self.at = match (self.at, left) {
                        (Position::Length(_), 0) => Position::Start,
                        (Position::Length(_), _) => Position::Length(left),
                        (_, 0) => Position::ChunkEnd,
                        _ => Position::Chunk(left),
                    };
                    rest = &rest[passed..];
                }
                _ => {
                    let Some(end) = rest.iter().position(|byte| *byte == b'\n') else {
                        self.line.add(rest);
                        return Ok(());
                    };
                    self.line.add(&rest[..end]);
                    rest = &rest[end..];
                    if self.line.last != b'\r' {
                        return fault("a line ends with LF alone", rest, self.at);
                    }
                    match self.line_ended() {
                        Ok(next) => self.at = next,
                        Err(why) => return fault(why, rest, self.at),
                    }
                    (self.line.length, self.line.last) = (0, 0);
                    rest = &rest[1..];
                }
            }
        }
        Ok(())
    }

    /// The position after the line that has just ended.
    fn line_ended(&mut self) -> Result<Position, &'static str> {
        let (line, is_whole) = self.line.content();
        match self.at {
            Position::Start if line.is_empty() => Ok(Position::Start),
            Position::Start => Ok(Position::Headers),
            Position::Headers if line.is_empty() => Ok(match self.body.take() {
                None | Some(BodyFraming::Length(0)) => Position::Start,
                Some(BodyFraming::Length(length)) => Position::Length(length),
                Some(BodyFraming::Chunked) => Position::ChunkSize,
            }),
            Position::Headers => {
                if let Some(body) = body_framing(line, is_whole)? {
                    match (self.body.replace(body), body) {
                        (None, _) => (),
                        (Some(BodyFraming::Length(_)), BodyFraming::Length(_)) => {
                            return Err("Content-Length is given twice");
                        }
                        (Some(BodyFraming::Chunked), BodyFraming::Chunked) => {
                            return Err("Transfer-Encoding is given twice");
                        }
                        _ => return Err("Content-Length and Transfer-Encoding are given together"),
                    }
                }
                Ok(Position::Headers)
            }
            Position::ChunkSize => match chunk_size(line).ok_or("a chunk's size is not a hexadecimal number")? {
                0 => Ok(Position::Trailers),
                size => Ok(Position::Chunk(size)),
            },
            Position::ChunkEnd if line.is_empty() => Ok(Position::ChunkSize),
            Position::ChunkEnd => Err("a chunk is longer than its size"),
            Position::Trailers if line.is_empty() => Ok(Position::Start),
            Position::Trailers => Ok(Position::Trailers),
            at @ (Position::Length(_) | Position::Chunk(_)) => Ok(at),
        }
    }
}

/// The body framing that a header line declares; none if it is another header.
fn body_framing(line: &[u8], is_whole: bool) -> Result<Option<BodyFraming>, &'static str> {
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return Ok(None) };
    let (name, value) = (&line[..colon], trimmed(&line[colon + 1..]));
    if name.eq_ignore_ascii_case(b"content-length") {
        let length = decimal(value).filter(|_| is_whole);
        return length
            .map(|n| Some(BodyFraming::Length(n)))
            .ok_or("Content-Length is not one number without leading zeros");
    }
    if name.eq_ignore_ascii_case(b"transfer-encoding") {
        let is_chunked = is_whole && value.eq_ignore_ascii_case(b"chunked");
        return if is_chunked {
            Ok(Some(BodyFraming::Chunked))
        } else {
            Err("the only Transfer-Encoding taken is chunked")
        };
    }
    Ok(None)
}

/// `value` without surrounding blanks and tabs.
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn decimal(digits: &[u8]) -> Option<u64> {
    match digits {
        [b'0'] => Some(0),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            std::str::from_utf8(digits).ok()?.parse().ok()
        }
        _ => None,
    }
}

/// The chunk size at the beginning of a chunk's first line. An extension may follow it.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (digits, rest) = line.split_at(digits);
    if digits.len() == KEPT || !matches!(trimmed(rest), [] | [b';', ..]) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the whole text, read in every pair of pieces, is found faulty.
    #[track_caller]
    fn read(text: &str) -> Result<Position, (usize, bool)> {
        let whole = |cuts: &[usize]| {
            let (mut framing, mut from) = (Framing::default(), 0);
            for to in cuts.iter().copied().chain([text.len()]) {
                framing.read(&text.as_bytes()[from..to]).map_err(|fault| (from + fault.at, fault.in_head))?;
                from = to;
            }
            Ok(framing.at)
        };
        let found = whole(&[]);
        for cut in 0..text.len() {
            assert_eq!(whole(&[cut]), found, "cut at {cut}: {text:?}");
        }
        assert_eq!(whole(&(0..text.len()).collect::<Vec<_>>()), found, "byte by byte: {text:?}");
        found
    }

    #[test]
    fn requests_in_one_reading_are_followed_to_their_ends() {
        for whole in [
            "GET / HTTP/1.1\r\nHost: hub\r\n\r\n",
            "\r\n\r\nGET / HTTP/1.1\r\nHost: hub\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n\n\n\n",
            "POST / HTTP/1.1\r\ncontent-LENGTH:\t3 \r\n\r\na\nb\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n0a ; x=\"y\"\r\n\n\n34567890\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\ntransfer-encoding:chunked\r\n\r\n1\r\na\r\nF;x\r\n123456789012345\r\n00\r\nX: \
                y\r\n\r\n",
        ] {
            assert_eq!(read(whole), Ok(Position::Start), "{whole:?}");
            assert_eq!(read(&whole.repeat(2)), Ok(Position::Start), "{whole:?}, twice");
        }
        let long = format!("GET /{} HTTP/1.1\r\nCookie: {}\r\n\r\n", "x".repeat(300), "Content-Length: 9".repeat(20));
        assert_eq!(read(&long), Ok(Position::Start));
        assert_eq!(read("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\n12"), Ok(Position::Length(1)));
    }

    #[test]
    fn requests_of_two_readings_are_faulty() {
        let post = |headers: &str| format!("POST / HTTP/1.1\r\n{headers}\r\n\r\n");
        for headers in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Content-Length: 1, 1",
            "Content-Length: 01",
            "Content-Length: 00",
            "Content-Length:",
            "Content-Length: +1",
            "Content-Length: 1 1",
            "Content-Length: 18446744073709551616",
            "Transfer-Encoding:",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: identity, chunked",
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked, ",
            "Transfer-Encoding: \u{b}chunked",
            &format!("Content-Length: {}1", " ".repeat(KEPT)),
            &format!("Content-Length: 1{}2", " ".repeat(KEPT)),
            &format!("Transfer-Encoding: chunked{}, gzip", " ".repeat(KEPT)),
        ] {
            let text = post(headers);
            let at = text.len() - "\n\r\n".len();
            assert_eq!(read(&text), Err((at, true)), "{headers}: the line's end is kept back");
        }
        for (text, at) in [
            ("GET / HTTP/1.1\nHost: hub\r\n\r\n", "GET / HTTP/1.1"),
            ("GET / HTTP/1.1\r\nHost: hub\n\r\n", "GET / HTTP/1.1\r\nHost: hub"),
            ("GET / HTTP/1.1\r\nHost: hub\r\n\n", "GET / HTTP/1.1\r\nHost: hub\r\n"),
            ("\nGET / HTTP/1.1\r\n\r\n", ""),
            ("GET / HTTP/1.1\r\n\r\n\r\n\n", "GET / HTTP/1.1\r\n\r\n\r\n"),
        ] {
            assert_eq!(read(text), Err((at.len(), true)), "{text:?}");
        }
        for chunks in [
            "5\nhello\r\n0\r\n\r\n",
            "5;x\nhello\r\n0\r\n\r\n",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello!\r\n0\r\n\r\n",
            "5\r\nhello\r\n0\r\n\n",
            "5\r\nhello\r\n0\r\nX: y\n\r\n",
            "x\r\n",
            "\r\n",
            "+5\r\n",
            "0x5\r\n",
            "5 5\r\n",
            "fffffffffffffffff\r\n",
            &format!("{}5\r\n", "0".repeat(KEPT)),
        ] {
            let text = post("Transfer-Encoding: chunked") + chunks;
            assert!(matches!(read(&text), Err((_, false))), "{chunks:?}");
        }
    }
}
