//! Idempotency: a repeated request gets the answer of the first one, and a different request under the same key is
//! refused.

use chrono::{DateTime, Utc};

use super::channel::Channel;
use super::delivery::Status;
use super::message::NewMessage;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::id::Tsid;
use crate::limits;

/// The answer to an accepted message.
#[derive(Debug, Clone)]
pub struct Accepted {
    pub message_id: Tsid,
    pub client_msg_id: Option<String>,
    pub created_at: DateTime<Utc>,
    /// The same request was accepted before; this is its answer.
    pub replayed: bool,
    /// Whether an endpoint is subscribed to `message.accepted`.
    pub has_subscribers: bool,
    /// SCHEDULED or PENDING, as the deliveries began.
    pub status: Status,
    /// (Channel, recipient as this request wrote it) of each posted delivery, in their order.
    pub deliveries: Vec<(Channel, String)>,
}

/// The stored message that holds an idempotency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHolder {
    pub message_id: Tsid,
    pub fingerprint: Vec<u8>,
    pub created_at: DateTime<Utc>,
}

/// The answer to a message that was stored now.
pub fn answer_new(
    message: &NewMessage,
    message_id: Tsid,
    created_at: DateTime<Utc>,
    has_subscribers: bool,
) -> Accepted {
    Accepted { has_subscribers, ..answer(message, message_id, created_at, false) }
}

/// The answer to a message that was not stored because its key was taken: that of the first message, if both are the
/// same. `fingerprint`: of the message as posted. `holder`: the message that has the key.
///
/// # Errors
/// `Error::Refused` if the holder is a different message. `Error::Busy` if there is no holder any more: between the two
/// statements its transaction was rolled back or its message was deleted.
pub fn answer_key_taken(message: &NewMessage, fingerprint: &[u8; 32], holder: Option<&KeyHolder>) -> Result<Accepted> {
    match holder {
        Some(holder) => answer_replay(message, fingerprint, holder),
        None => Err(Error::Busy("the same clientMsgId is being written by another request")),
    }
}

/// The answer of the first message again, if both are the same.
///
/// # Errors
/// `Error::Refused` (409, `idempotency_key_reused`) if the holder of the key is a different message.
pub fn answer_replay(message: &NewMessage, fingerprint: &[u8; 32], holder: &KeyHolder) -> Result<Accepted> {
    if holder.fingerprint == fingerprint {
        return Ok(answer(message, holder.message_id, holder.created_at, true));
    }
    let detail =
        "this clientMsgId was used for a different message; use a new one, or send the first message unchanged";
    Err(Refusal::new(409, "idempotency_key_reused", detail).with_code(Code::E004).into())
}

fn answer(message: &NewMessage, message_id: Tsid, created_at: DateTime<Utc>, replayed: bool) -> Accepted {
    let waits = message.scheduled_at.is_some_and(|at| at > created_at);
    Accepted {
        message_id,
        client_msg_id: message.client_msg_id.clone(),
        created_at,
        replayed,
        has_subscribers: false,
        status: if waits { Status::Scheduled } else { Status::Pending },
        deliveries: message.deliveries.iter().map(|d| (d.channel, d.displayed_recipient().to_owned())).collect(),
    }
}

/// Combines the answers of a batch: all of them, or one refusal. `places`: the index in the request of each answer.
///
/// # Errors
/// `Error::Refused` with the faults of every refused message; any other error of a message as it is.
pub fn combine_batch(places: &[usize], answers: Vec<Result<Accepted>>) -> Result<Vec<Accepted>> {
    let (mut accepted, mut refused) = (Vec::with_capacity(answers.len()), Vec::new());
    for (place, answer) in places.iter().zip(answers) {
        match answer {
            Ok(answer) => accepted.push(answer),
            Err(Error::Refused(refusal)) => refused.push((*place, refusal)),
            Err(e) => return Err(e),
        }
    }
    if refused.is_empty() {
        return Ok(accepted);
    }
    refused.sort_by_key(|(place, _)| *place);
    let key_taken = |place: usize| Fault {
        pointer: format!("/messages/{place}/clientMsgId"),
        reason: "idempotency_key_reused",
        detail: "was used for a different message; use a new one".into(),
        code: Code::E004,
    };
    let mut faults = Vec::new();
    for (place, refusal) in refused {
        // A fault of the batch as a whole comes with each of its messages and is listed once.
        let own = if refusal.faults.is_empty() { vec![key_taken(place)] } else { refusal.faults };
        faults.extend(own.into_iter().filter(|fault| !faults.contains(fault)).collect::<Vec<_>>());
    }
    faults.truncate(limits::FAULTS);
    let all_taken = faults.iter().all(|fault| fault.code == Code::E004);
    let refusal = Refusal::from_faults(faults);
    Err(if all_taken { Refusal { status: 409, ..refusal } } else { refusal }.into())
}
