//! Chat messages: what users write in rooms. (A *message* is what a partner posted.)

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::json::TextRule;
use crate::id::Tsid;

/// Characters and bytes of a text.
pub const TEXT_CHARS: usize = 4_000;
pub const TEXT_BYTES: usize = 16 * 1_024;
/// The reading rule of a text; white space at its end is cut.
pub const TEXT: TextRule = TextRule::block(TEXT_BYTES).as_posted().or_empty();
/// Characters of a sender's own id of a message.
pub const TEMP_ID_CHARS: usize = 64;
pub const TEMP_ID: TextRule = TextRule::line(TEMP_ID_CHARS).as_posted();
/// Most attachments of a message.
pub const ATTACHMENTS: usize = 10;

/// The id of a chat message: its room and its number in the room's stream. Public form: `{roomId}-{seq}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChatId {
    pub room_id: Tsid,
    pub seq: i64,
}

impl fmt::Display for ChatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.room_id, self.seq)
    }
}

impl FromStr for ChatId {
    type Err = ();
    fn from_str(text: &str) -> Result<ChatId, ()> {
        let (room_id, seq) = text.split_once('-').ok_or(())?;
        let seq = Some(seq).filter(|seq| !seq.starts_with(['0', '+', '-']));
        let seq: i64 = seq.and_then(|seq| seq.parse().ok()).ok_or(())?;
        Ok(ChatId { room_id: room_id.parse().map_err(|_| ())?, seq })
    }
}

/// The kind of a chat message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatKind {
    Text,
    Image,
    File,
    Video,
    Audio,
    /// Written by the hub, not by a user.
    System,
}

/// Every kind.
pub const CHAT_KINDS: [ChatKind; 6] =
    [ChatKind::Text, ChatKind::Image, ChatKind::File, ChatKind::Video, ChatKind::Audio, ChatKind::System];

impl ChatKind {
    /// The stable word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ChatKind::Text => "TEXT",
            ChatKind::Image => "IMAGE",
            ChatKind::File => "FILE",
            ChatKind::Video => "VIDEO",
            ChatKind::Audio => "AUDIO",
            ChatKind::System => "SYSTEM",
        }
    }
}

impl FromStr for ChatKind {
    type Err = ();
    fn from_str(text: &str) -> Result<ChatKind, ()> {
        CHAT_KINDS.into_iter().find(|kind| kind.as_str() == text).ok_or(())
    }
}

/// What a chat message holds, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatContent {
    pub text: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
    /// The sender's own names with texts, numbers and booleans.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

/// A file that a chat message refers to. The hub keeps no files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// https.
    pub url: String,
    pub filename: Option<String>,
    pub content_type: Option<String>,
    /// Bytes.
    pub size: Option<i64>,
    pub thumbnail_url: Option<String>,
}

/// A chat message.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatMessage {
    pub id: ChatId,
    /// Its number among the room's messages.
    pub no: i64,
    pub sender_id: Tsid,
    /// The sender's own id of it: to be shown to the sender alone.
    pub temp_id: Option<String>,
    pub kind: ChatKind,
    /// Empty if it was deleted, or cannot be opened.
    pub content: ChatContent,
    pub version: i16,
    pub created_at: DateTime<Utc>,
    pub edited_at: Option<DateTime<Utc>>,
    pub deleted_at: Option<DateTime<Utc>>,
}

/// How far a chat message has come to the other members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChatReceipt {
    Sent,
    /// Every other member was handed it.
    Delivered,
    /// Every other member has read it.
    Read,
}

/// Every receipt.
pub const CHAT_RECEIPTS: [ChatReceipt; 3] = [ChatReceipt::Sent, ChatReceipt::Delivered, ChatReceipt::Read];

impl ChatReceipt {
    /// The stable word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            ChatReceipt::Sent => "SENT",
            ChatReceipt::Delivered => "DELIVERED",
            ChatReceipt::Read => "READ",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// S2-41: an id names room and number, and nothing else is one.
    #[test]
    fn id_of_a_chat_message_is_read_as_it_is_written() {
        let id = ChatId { room_id: Tsid(77), seq: 12 };
        assert_eq!(id.to_string().parse(), Ok(id));
        let room = Tsid(77).to_string();
        for wrong in [
            room.clone(),
            format!("{room}-"),
            format!("{room}-0"),
            format!("{room}-01"),
            format!("{room}-+1"),
            format!("{room}--1"),
            format!("x{room}-1"),
            "-1".to_owned(),
        ] {
            assert_eq!(wrong.parse::<ChatId>(), Err(()), "{wrong}");
        }
    }
}
