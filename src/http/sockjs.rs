//! Frames of SockJS's websocket transport: each WebSocket text message carries one of them. The server sends `o` once,
//! `h` as heart-beat, `a["…"]` with messages and `c[code,"reason"]` before it closes; a client sends JSON alone.
//!
//! JSON's own escapes are enough. The further characters that sockjs-protocol has servers escape are changed by
//! browsers on transports over XHR, not in the messages of a WebSocket.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::Value;

/// The first frame of every session.
pub const OPEN: &str = "o";
/// The frame that keeps the connection alive. Clients do not answer it.
pub const HEART_BEAT: &str = "h";

/// The frame with one message: `a["…"]`.
pub fn message(text: &str) -> String {
    format!("a[{}]", Value::from(text))
}

/// The last frame: `c[code,"reason"]`. The close of the WebSocket that follows has the same code and reason.
pub fn close(code: u16, reason: &str) -> String {
    format!("c[{code},{}]", Value::from(reason))
}

/// The messages in a text from a client, in order: a JSON array of strings, or one JSON string. None in an empty text
/// or an empty array.
///
/// A lone surrogate, as JavaScript has where a pair was cut in two, becomes U+FFFD, as in a plain WebSocket message.
///
/// # Errors
/// `Broken` for any other text; sockjs-protocol closes the connection then.
pub fn read(text: &str) -> Result<Vec<String>, Broken> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    parse::<String>(text).or_else(|_| {
        // Read as bytes, strings may have control characters, which JSON forbids.
        let has_controls = text.contains(|c: char| c < ' ');
        let messages = if has_controls { None } else { parse::<Mended>(text).ok() };
        messages.map(|messages| messages.into_iter().map(|Mended(text)| text).collect()).ok_or(Broken)
    })
}

fn parse<'a, M: Deserialize<'a>>(text: &'a str) -> serde_json::Result<Vec<M>> {
    let is_array = text.trim_start().starts_with('[');
    if is_array { serde_json::from_str(text) } else { serde_json::from_str(text).map(|message| vec![message]) }
}

/// Whether these two parts of a path, `/{server}/{session}/websocket`, name a session: neither is empty or has a dot.
pub fn is_session_path(server: &str, session: &str) -> bool {
    [server, session].iter().all(|part| !part.is_empty() && !part.contains('.'))
}

/// The body of the answer to `/info`. `entropy`: a random number, another one for each answer; browsers without a good
/// source of their own take it as seed.
pub fn info(entropy: u32) -> String {
    format!(r#"{{"websocket":true,"cookie_needed":false,"origins":["*:*"],"entropy":{entropy}}}"#)
}

/// A text that is not a frame of a SockJS client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a frame of SockJS; send a JSON array of strings or one JSON string")
    }
}

impl std::error::Error for Broken {}

/// A string whose lone surrogates became U+FFFD. Read as bytes: with them it is no `str`.
struct Mended(String);

impl<'de> Deserialize<'de> for Mended {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Mended, D::Error> {
        deserializer.deserialize_bytes(MendedVisitor)
    }
}

struct MendedVisitor;

impl Visitor<'_> for MendedVisitor {
    type Value = Mended;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    /// `bytes`: UTF-8, but for lone surrogates in three bytes each (WTF-8), which is as long as U+FFFD is.
    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Mended, E> {
        let mut bytes = bytes.to_vec();
        for at in 0..bytes.len().saturating_sub(2) {
            if bytes[at] == 0xed && bytes[at + 1] >= 0xa0 {
                bytes[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
            }
        }
        String::from_utf8(bytes).map(Mended).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_are_as_clients_expect_them() {
        assert_eq!((OPEN, HEART_BEAT), ("o", "h"));
        assert_eq!(
            message("MESSAGE\nx:\"\\\"\n\n안녕\u{2028}\0"),
            "a[\"MESSAGE\\nx:\\\"\\\\\\\"\\n\\n안녕\u{2028}\\u0000\"]"
        );
        assert_eq!(close(3000, "Go away!"), r#"c[3000,"Go away!"]"#);
        assert_eq!(close(4400, "a \"b\"\n"), r#"c[4400,"a \"b\"\n"]"#);
        let value: Value = serde_json::from_str(&info(u32::MAX)).unwrap();
        let expected = r#"{"websocket":true,"cookie_needed":false,"origins":["*:*"],"entropy":4294967295}"#;
        assert_eq!(value, serde_json::from_str::<Value>(expected).unwrap());
        assert_eq!(info(u32::MAX), expected);
    }

    #[test]
    fn a_string_or_an_array_of_strings_is_read() {
        let ok = |text: &str| read(text).expect(text);
        let none: [&str; 0] = [];
        assert_eq!(ok(""), none);
        assert_eq!(ok("[]"), none);
        assert_eq!(ok(" [ ] "), none);
        assert_eq!(ok(r#""""#), [""]);
        assert_eq!(ok(r#""a""#), ["a"]);
        assert_eq!(ok(r#"["a"]"#), ["a"]);
        assert_eq!(ok(r#" ["CONNECT\n\n\u0000", "", "한\u00e9\ud83d\ude00"] "#), ["CONNECT\n\n\0", "", "한é😀"]);
        let broken =
            r#"["a|["a",|[1]|{"a":"b"}|1|null|true|a|[["a"]]|["a"]["b"]|"a" x|[null]|[| |o|h|c[1,""]|[[97]]|[97]"#;
        let more = ["\"a\tb\"", "\"\0\"", "\"a\n\\ud800\"", r#""\x""#, r#""\ud8""#, r#"["\ud800",1]"#, r#""\ud800"""#];
        for text in broken.split('|').chain(more) {
            assert_eq!(read(text), Err(Broken), "{text}");
        }
        assert!(Broken.to_string().contains("JSON"));
    }

    /// A client that cuts a text between the two halves of a character is not disconnected.
    #[test]
    fn lone_surrogates_become_replacement_characters() {
        assert_eq!(
            read(r#"["a\ud83d","\ude00b","\ud83d\ud83d\ude00","\ude00\ud83d"]"#).unwrap(),
            ["a\u{fffd}", "\u{fffd}b", "\u{fffd}😀", "\u{fffd}\u{fffd}"]
        );
        assert_eq!(read("\"\u{d7ff}\u{e000}\u{fffd}\"").unwrap(), ["\u{d7ff}\u{e000}\u{fffd}"]);
    }

    #[test]
    fn parts_of_a_session_path_are_not_empty_and_have_no_dot() {
        for (server, session) in [("000", "a1"), ("_", "_1"), ("abcdefgh_i-j%20", "abcdefg_i-j%20"), ("가", "나")] {
            assert!(is_session_path(server, session), "{server}/{session}");
        }
        for (server, session) in [("", ""), ("a", ""), ("", "a"), ("a.", "a"), ("a", "a."), (".", "."), ("..", "x")] {
            assert!(!is_session_path(server, session), "{server}/{session}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1024, failure_persistence: None, ..ProptestConfig::default() })]

        /// Every message comes back through JSON, and no text causes a panic.
        #[test]
        fn messages_come_back(text in any::<String>(), soup in "[\\[\\]\",a\\\\ud83d ]{0,24}") {
            let frame = message(&text);
            prop_assert_eq!(read(&frame[1..]), Ok(vec![text]));
            if let Ok(messages) = read(&soup) {
                let list = Value::from(messages.clone()).to_string();
                prop_assert_eq!(read(&list), Ok(messages));
            }
        }
    }
}
