//! What clients send to `/app/…`: how bodies are read, and what they are refused with.

use serde_json::{Value, json};

use crate::api::chat_message::{SentBody, chat_id, read_app_message};
use crate::error::{Error, Refusal, Result};
use crate::http::problem::Problem;
use crate::id::Tsid;
use crate::model::chat_message::ChatId;

/// A frame that was refused, as `/user/queue/errors` has it.
#[derive(Debug)]
pub struct Refused {
    pub code: &'static str,
    pub reason: &'static str,
    pub message: String,
    /// Sending the same again is safe, and may succeed.
    pub retryable: bool,
}

impl Refused {
    /// The refusal of an error.
    pub fn of(e: Error) -> Refused {
        let problem = Problem::from(e);
        let retryable = ["rate_limited", "database_unavailable", "queue_unavailable"].contains(&problem.reason());
        Refused { code: problem.code(), reason: problem.reason(), message: problem.detail().to_owned(), retryable }
    }

    /// Its body.
    pub fn body(&self, destination: &str, receipt: Option<&str>, temp_id: Option<&str>) -> Value {
        json!({"code": self.code, "reason": self.reason, "message": self.message, "destination": destination,
            "receiptId": receipt, "tempId": temp_id})
    }
}

/// Reads a message to send: its room, and what to send.
///
/// # Errors
/// A refusal with every fault.
pub fn message(room_id: Option<Tsid>, body: &[u8]) -> Result<(Tsid, SentBody)> {
    let read = read_app_message(room_id.is_none(), body)?;
    let room_id = room_id.or(read.room_id).ok_or(Error::NotFound)?;
    Ok((room_id, read))
}

/// The fields of a small body.
///
/// # Errors
/// `json_syntax` for a body that is no JSON object.
fn object(body: &[u8]) -> Result<Value> {
    let wrong = || Refusal::new(400, "json_syntax", "the body is not a JSON object");
    serde_json::from_slice(body).ok().filter(Value::is_object).ok_or_else(|| wrong().into())
}

fn text<'v>(body: &'v Value, name: &str) -> Option<&'v str> {
    body.get(name).and_then(Value::as_str)
}

/// The room and the tempId that a body names, however wrong the rest of it is.
pub fn whose(body: &[u8]) -> (Option<Tsid>, Option<String>) {
    let Ok(body) = object(body) else { return (None, None) };
    let room_id = text(&body, "roomId").and_then(|id| id.parse().ok());
    (room_id, text(&body, "tempId").map(str::to_owned))
}

/// Reads up to which message the caller has read.
///
/// # Errors
/// `Error::NotFound` if there is no such message.
pub fn read_mark(body: &[u8]) -> Result<ChatId> {
    chat_id(text(&object(body)?, "messageId").unwrap_or_default())
}

/// Reads the room that a body names.
///
/// # Errors
/// `Error::NotFound` if it names none.
pub fn room(body: &[u8]) -> Result<Tsid> {
    text(&object(body)?, "roomId").and_then(|id| id.parse().ok()).ok_or(Error::NotFound)
}

/// Reads a room and a flag.
///
/// # Errors
/// `Error::NotFound` if it names no room.
pub fn flag(body: &[u8], name: &str) -> Result<(Tsid, bool)> {
    let body = object(body)?;
    let room_id = text(&body, "roomId").and_then(|id| id.parse().ok()).ok_or(Error::NotFound)?;
    Ok((room_id, body.get(name).and_then(Value::as_bool).unwrap_or(true)))
}

/// Reads a new token.
///
/// # Errors
/// `json_syntax` for a body without one.
pub fn token(body: &[u8]) -> Result<String> {
    let missing = || Refusal::new(400, "json_syntax", "send {\"token\": …}");
    text(&object(body)?, "token").map(str::to_owned).ok_or_else(|| missing().into())
}
