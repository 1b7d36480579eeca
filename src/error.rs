//! What can go wrong, told once. Each door renders it for its own audience: `http::problem` as problem+json, `main` as
//! a sentence for a person, the worker as a log line.

use std::borrow::Cow;

use crate::limits;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller's doing. Nothing was written.
    #[error("{0}")]
    Refused(Refusal),
    /// It does not exist, or belongs to another partner: the two are told alike.
    #[error("not found")]
    NotFound,
    /// The database cannot be reached or did not answer in time. The outcome of a write is then unknown to the caller,
    /// who repeats it with the same `clientMsgId`.
    #[error("database not available: {0}")]
    Unavailable(Unavailable),
    /// This process is stopping, or holds as much work as it may: come back soon.
    #[error("{0}")]
    Busy(&'static str),
    /// More requests than the caller may make. Nothing was written.
    #[error("{detail}")]
    Limited { reason: &'static str, detail: String, retry_after_s: u32 },
    /// A setting or the call itself is wrong, whatever the surroundings: a sentence with its remedy. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The surroundings (database, files, ports) do not allow to start: a sentence with its remedy.
    #[error("{0}")]
    Setup(String),
    /// What a hub answered to one of our own commands: a sentence, and the problem as it came.
    #[error("{told}")]
    Answered { told: String, problem: serde_json::Value },
    /// Ours. Logged in full, told without detail.
    #[error("{0}")]
    Internal(String),
}

/// Why the database did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{why}")]
pub struct Unavailable {
    pub kind: UnavailableKind,
    /// In words, for the log.
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnavailableKind {
    /// Another transaction holds a row for longer than a statement waits for it. Other rows can be had.
    Locked,
    /// Anything else: no connection, no session that will do, a statement or transaction cut off.
    Other,
}

impl From<String> for Unavailable {
    fn from(why: String) -> Unavailable {
        Unavailable { kind: UnavailableKind::Other, why }
    }
}

impl From<&str> for Unavailable {
    fn from(why: &str) -> Unavailable {
        why.to_owned().into()
    }
}

/// The seed's closed list of codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    Success,
    E001,
    E002,
    E003,
    E004,
    E005,
    E006,
    E007,
    E008,
    E100,
    E101,
    E102,
}

/// (code, how it is written, what it means)
pub const CODES: [(Code, &str, &str); 12] = [
    (Code::Success, "0000", "success"),
    (Code::E001, "E001", "parameter error"),
    (Code::E002, "E002", "authentication failed, or not permitted"),
    (Code::E003, "E003", "the partner's request limit is exceeded"),
    (Code::E004, "E004", "the same clientMsgId or Idempotency-Key with a different request"),
    (Code::E005, "E005", "unknown message type or channel"),
    (Code::E006, "E006", "too long for its type"),
    (Code::E007, "E007", "no such partner"),
    (Code::E008, "E008", "the partner is inactive"),
    (Code::E100, "E100", "system error"),
    (Code::E101, "E101", "the queue is not available"),
    (Code::E102, "E102", "the database is not available"),
];

impl Code {
    pub fn as_str(self) -> &'static str {
        // The test below holds that every code is in its place.
        CODES[self as usize].1
    }
}

/// Why a request was refused: every fault found, not only the first.
#[derive(Debug)]
pub struct Refusal {
    pub code: Code,
    /// HTTP status the reason stands for: 400 cannot be read, 413 too large, 415 not our format, 422 read but not right.
    pub status: u16,
    pub reason: &'static str,
    pub detail: String,
    pub faults: Vec<Fault>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.code.as_str(), self.reason, self.detail)?;
        // A single fault is the detail.
        for fault in self.faults.iter().filter(|_| self.faults.len() > 1) {
            write!(f, "; {} {}: {}", fault.pointer, fault.reason, fault.detail)?;
        }
        Ok(())
    }
}

/// One thing wrong at one place of the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter or header.
    pub pointer: String,
    pub reason: &'static str,
    pub detail: Cow<'static, str>,
    pub code: Code,
}

impl PartialOrd for Code {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.as_str().cmp(other.as_str()))
    }
}

impl Refusal {
    pub fn new(status: u16, reason: &'static str, detail: impl Into<String>) -> Refusal {
        Refusal { code: Code::E001, status, reason, detail: detail.into(), faults: Vec::new() }
    }

    pub fn with_code(mut self, code: Code) -> Refusal {
        self.code = code;
        self
    }

    /// From all the faults of one request. The first fault speaks for the whole: its code and reason head the answer.
    pub fn of(faults: Vec<Fault>) -> Refusal {
        let (code, reason, detail) = match faults.as_slice() {
            [only] => (only.code, only.reason, format!("{} {}", at(&only.pointer), only.detail)),
            [first, ..] => {
                let (count, least) = (faults.len(), if faults.len() < limits::FAULTS { "" } else { "at least " });
                (first.code, first.reason, format!("{least}{count} things are wrong; see errors"))
            }
            [] => (Code::E001, "invalid", "the request is not right".to_owned()),
        };
        let status = if code == Code::E005 { 400 } else { 422 };
        Refusal { code, status, reason, detail, faults }
    }
}

fn at(pointer: &str) -> &str {
    if pointer.is_empty() { "the body" } else { pointer }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        Error::Refused(refusal)
    }
}

/// At most 64 characters of the caller's input are ever echoed, control characters escaped.
pub fn excerpt(input: &str) -> String {
    let mut out: String = input.chars().take(64).flat_map(char::escape_debug).collect();
    if input.chars().nth(64).is_some() {
        out.push('…');
    }
    out
}

/// Why a request is refused, in a stable word, with what the caller can do about it.
#[derive(Debug, Clone, Copy)]
pub struct Reason {
    pub word: &'static str,
    pub code: Code,
    /// HTTP status of an answer that this reason heads.
    pub status: u16,
    pub cause: &'static str,
    pub remedy: &'static str,
}

const fn why(word: &'static str, code: Code, status: u16, cause: &'static str, remedy: &'static str) -> Reason {
    Reason { word, code, status, cause, remedy }
}

/// Every reason there is: a refusal with another does not leave the house (`http::problem` and a test see to it). A
/// word that has two codes has two rows.
pub const REASONS: &[Reason] = &[
    // Who asks.
    why(
        "unauthenticated",
        Code::E002,
        401,
        "there is no access token, or it is not good (any more)",
        "sign in at POST /v1/auth/token and send Authorization: Bearer, once",
    ),
    why(
        "token_expired",
        Code::E002,
        401,
        "the access token is over",
        "refresh it at POST /v1/auth/refresh, or sign in",
    ),
    why(
        "forbidden",
        Code::E002,
        403,
        "who is signed in may not do this",
        "use a key with the role that the detail names",
    ),
    why("partner_inactive", Code::E008, 403, "the partner was made inactive", "ask who runs this hub"),
    why("partner_unknown", Code::E007, 404, "there is no such partner", "check the partner's id"),
    why(
        "rate_limited",
        Code::E003,
        429,
        "the partner made more requests in the last second than it may; a batch counts each of its messages",
        "wait for Retry-After, spread requests, or have the limit raised",
    ),
    why(
        "sign_in_limited",
        Code::E003,
        429,
        "too many sign-ins failed in the last minute",
        "check clientId and clientSecret, and wait for Retry-After",
    ),
    why("min", Code::E001, 422, "the number is too small", "use one that the detail allows"),
    why("max", Code::E001, 422, "the number is too large", "use one that the detail allows"),
    why("name_reserved", Code::E001, 422, "the hub's own partner has this name", "choose another"),
    why("name_taken", Code::E001, 422, "another partner has this name", "choose another"),
    why("tz_unknown", Code::E001, 422, "the server knows no such time zone", "use an IANA name such as Asia/Seoul"),
    why("region_invalid", Code::E001, 422, "it is not a country", "use two capital letters of ISO 3166, as KR"),
    why("not_changeable", Code::E001, 422, "it is fixed at creation", "make a new partner"),
    why("not_allowed", Code::E001, 422, "the partner does not have this right", "leave it out, or have it granted"),
    why(
        "channel_not_allowed",
        Code::E005,
        400,
        "the partner may not send over this channel",
        "use another, or have it granted",
    ),
    why(
        "unmappable_character",
        Code::E001,
        422,
        "the text has characters that the channel cannot carry: they are not in CP949",
        "leave out those that the detail names",
    ),
    why(
        "phone_invalid",
        Code::E001,
        422,
        "it is not a number that a message can reach",
        "write a mobile number in digits, as 010-1234-5678 or +821012345678",
    ),
    why("query_required", Code::E001, 400, "a query parameter is missing", "give the one that the detail names"),
    // The request as such.
    why(
        "uri_too_long",
        Code::E001,
        414,
        "the address with its query is longer than 8 KiB",
        "use fewer or shorter query parameters",
    ),
    why("host_invalid", Code::E001, 400, "the header Host is missing or given twice", "send Host once"),
    why("not_found", Code::E001, 404, "it does not exist, or is another partner's", "check the address and the id"),
    why(
        "method_not_allowed",
        Code::E001,
        405,
        "the address does not take this method",
        "use a method that Allow names",
    ),
    why(
        "query_invalid",
        Code::E001,
        400,
        "a query parameter is not UTF-8 text, or not in its form",
        "write the value as /openapi.json says, percent-encoded",
    ),
    why("query_duplicate", Code::E001, 400, "a query parameter is given twice", "give it once"),
    why(
        "query_unknown",
        Code::E001,
        400,
        "there is no such query parameter here",
        "leave it out, or check its spelling",
    ),
    why(
        "cursor_invalid",
        Code::E001,
        400,
        "the cursor is not one that this list gave to this partner",
        "begin without cursor, then send back nextCursor as it came",
    ),
    // The body, before it is understood.
    why("content_type_missing", Code::E001, 415, "a body without Content-Type", "send Content-Type: application/json"),
    why(
        "content_type_unsupported",
        Code::E001,
        415,
        "the body is not declared as JSON, or more than once",
        "send Content-Type: application/json, once",
    ),
    why(
        "charset_unsupported",
        Code::E001,
        415,
        "another charset than UTF-8",
        "send UTF-8, and no charset or charset=utf-8",
    ),
    why("content_encoding_unsupported", Code::E001, 415, "the body is compressed", "send the body as it is"),
    why(
        "body_too_large",
        Code::E001,
        413,
        "the body is larger than this address takes",
        "send less, or several requests",
    ),
    why("body_timeout", Code::E001, 408, "the body did not arrive within 30 s", "send it faster, or less; then repeat"),
    why("body_incomplete", Code::E001, 400, "the connection ended before the body did", "send the request again"),
    why("body_empty", Code::E001, 400, "there is no body", "send one JSON object"),
    why(
        "encoding_not_utf8",
        Code::E001,
        400,
        "the body is not UTF-8, or begins with a byte order mark",
        "send UTF-8 without byte order mark",
    ),
    why("json_syntax", Code::E001, 400, "the body is not JSON", "correct it at the line and column that detail names"),
    why("json_trailing", Code::E001, 400, "something follows the JSON document", "send one document per request"),
    why("json_too_deep", Code::E001, 400, "nested deeper than 127 levels", "send flatter JSON"),
    why("number_range", Code::E001, 400, "a number is out of range", "send a number that a 64-bit float can hold"),
    // The body's fields.
    why("invalid", Code::E001, 422, "the request is not right", "see detail"),
    why("duplicate_key", Code::E001, 422, "an object has the same key twice", "give each key once"),
    why(
        "unknown_field",
        Code::E001,
        422,
        "there is no such field in this object",
        "leave it out, or check its spelling",
    ),
    why("not_supported", Code::E001, 422, "a field of the contract that this hub does not serve yet", "leave it out"),
    why("required", Code::E001, 422, "a field is missing that this request needs", "give it"),
    why("null_not_allowed", Code::E001, 422, "a required field is null", "give it a value"),
    why("type_mismatch", Code::E001, 422, "a value is of another JSON type", "send the type that detail names"),
    why("empty", Code::E001, 422, "a text or list has nothing in it", "give it content, or leave the field out"),
    why("enum", Code::E001, 422, "a word is none of its closed list", "use a word that detail names"),
    why("enum", Code::E005, 400, "there is no such channel", "use a channel that detail names"),
    why(
        "no_receipts",
        Code::E001,
        422,
        "no receipt can be waited for: no provider of the channel gives any",
        "leave noReceiptSeconds out, or have a provider set up that gives receipts",
    ),
    why("control_character", Code::E001, 422, "a text has a character it may not have", "remove control characters"),
    why(
        "unsafe_character",
        Code::E001,
        422,
        "a single line has characters that turn the direction of writing",
        "remove them",
    ),
    why(
        "time_invalid",
        Code::E001,
        422,
        "not a time as RFC 3339 writes it, with offset",
        "write 2027-03-05T09:30:00+09:00",
    ),
    why("time_range", Code::E001, 422, "a time is past, too far ahead, or before another", "see detail for its bounds"),
    why(
        "too_many_items",
        Code::E001,
        422,
        "a list or the whole body has more values than it may",
        "send fewer, or several requests",
    ),
    why("too_many_recipients", Code::E001, 422, "the message makes too many deliveries", "send several messages"),
    why("batch_size", Code::E001, 422, "the batch is empty or has too many messages", "send 1 to 1,000 messages"),
    why(
        "duplicate_in_batch",
        Code::E001,
        422,
        "two messages of the batch have the same clientMsgId",
        "give each message its own",
    ),
    why(
        "metadata_invalid",
        Code::E001,
        422,
        "metadata is too large, has a name it may not have, or a value that is not plain",
        "send at most 4 KiB of texts, numbers and truth values",
    ),
    why(
        "idempotency_key_invalid",
        Code::E001,
        422,
        "Idempotency-Key is not 1 to 128 visible characters, given twice, or differs from clientMsgId",
        "send one key, or clientMsgId alone",
    ),
    why(
        "idempotency_key_reused",
        Code::E004,
        409,
        "the key was used for a different message",
        "use a new key, or send the first message unchanged",
    ),
    why(
        "type_invalid",
        Code::E005,
        400,
        "the message type has characters it may not have",
        "use letters, digits and _ - . :",
    ),
    why(
        "content_too_long",
        Code::E006,
        422,
        "a text is longer than its type allows",
        "shorten it to the limit in detail",
    ),
    why("blocks_invalid", Code::E001, 422, "a Slack block is not an object with a type", "send Slack's Block Kit"),
    why(
        "channel_unavailable",
        Code::E005,
        400,
        "no provider serves this channel here",
        "use a channel that GET /about names",
    ),
    why(
        "channel_unavailable",
        Code::E001,
        422,
        "no Slack destination is configured here",
        "leave SLACK out, or have the operator configure a destination",
    ),
    why(
        "destination_unknown",
        Code::E001,
        422,
        "no Slack destination has this name",
        "use a name that the operator configured, not a URL",
    ),
    why(
        "url_invalid",
        Code::E001,
        422,
        "it is not a URL, or too long, or written so that two readers may understand two things",
        "write https://host/path, percent-encoded, with at most 2,048 bytes",
    ),
    why("url_scheme", Code::E001, 422, "webhooks are sent over https", "use a URL that begins with https://"),
    why(
        "url_userinfo",
        Code::E001,
        422,
        "the URL names a user or a password",
        "leave it out; a header of the endpoint's own can carry a credential",
    ),
    why("url_fragment", Code::E001, 422, "the URL has a fragment, which no request carries", "leave out # and after"),
    why(
        "url_host_not_allowed",
        Code::E001,
        422,
        "the URL leads to an address or a name that is not public",
        "use a public name; for services inside, ask who runs this hub to allow their network",
    ),
    why(
        "url_port",
        Code::E001,
        422,
        "the port is one of those that other services have",
        "use 443, 80, or a port from 1024 on",
    ),
    why(
        "header_invalid",
        Code::E001,
        422,
        "it is not a header that HTTP can carry",
        "use a token as its name, and up to 1,024 visible ASCII characters as its value",
    ),
    why(
        "header_reserved",
        Code::E001,
        422,
        "the header frames the request, or belongs to its signature",
        "leave it out, or use another name",
    ),
    why(
        "endpoint_limit",
        Code::E001,
        422,
        "the partner has as many endpoints as it may",
        "delete one that is not used, or have one endpoint take several events",
    ),
    why(
        "endpoint_not_active",
        Code::E001,
        422,
        "the endpoint is paused or disabled, so nothing is sent to it",
        "make it ACTIVE first: PATCH it with {\"status\": \"ACTIVE\"}",
    ),
    why(
        "recipient_invalid",
        Code::E001,
        422,
        "the recipient is not an address of the kind that the channel takes",
        "EMAIL and contact addresses: a plain address, name@example.com; NAVER_TALK: the user key that Naver Talk gave, \
         at most 64 letters, digits, - and _. A phone number that cannot be read is phone_invalid",
    ),
    why(
        "rejected_by_database",
        Code::E001,
        422,
        "the database does not take this input though it was found right",
        "tell the operator the requestId: this is our fault",
    ),
    // Receipts.
    why(
        "receipt_forged",
        Code::E002,
        401,
        "the callback is not known to come from the provider",
        "check the secret that the provider signs with, and this host's clock",
    ),
    why(
        "receipt_unreadable",
        Code::E001,
        400,
        "the callback comes from the provider, and cannot be read",
        "check which form of callback is set at the provider",
    ),
    // Fallback.
    why(
        "fallback_same_channel",
        Code::E001,
        422,
        "what stands by goes over a channel that was tried by then",
        "name another channel",
    ),
    // Dead letters.
    why(
        "replaced",
        Code::E001,
        422,
        "another delivery took its place, over another channel",
        "look at that one: its fallbackOf names this",
    ),
    why(
        "not_a_dead_letter",
        Code::E001,
        422,
        "the delivery is not FAILED or UNDETERMINED",
        "leave it; or cancel it, or wait for its end",
    ),
    why(
        "outcome_held",
        Code::E001,
        422,
        "whether it was sent is unknown, and on its channel nothing is sent twice",
        "ask the provider or the recipient; if it did not arrive, post a new message",
    ),
    why("attempts_used_up", Code::E001, 422, "the delivery was tried thousands of times", "post a new message"),
    why(
        "content_erased",
        Code::E001,
        422,
        "what the message said, or to whom, was erased or cannot be read",
        "post a new message",
    ),
    why("id_invalid", Code::E001, 422, "it is not an id", "write the 13 characters as they were told"),
    why(
        "endpoint_disabled",
        Code::E001,
        422,
        "the endpoint is disabled, so nothing would be sent there",
        "make it active first",
    ),
    why(
        "too_many_redrives",
        Code::E001,
        422,
        "as many of the partner's jobs are running as may at the same time",
        "wait for one to end, or cancel it",
    ),
    // Ours.
    why(
        "system_error",
        Code::E100,
        500,
        "something is wrong on our side",
        "repeat with the same clientMsgId; tell the operator the requestId",
    ),
    why(
        "queue_unavailable",
        Code::E101,
        503,
        "this process is stopping, or holds as much work as it may",
        "repeat with the same clientMsgId after Retry-After",
    ),
    why(
        "database_unavailable",
        Code::E102,
        503,
        "the database is not available; whether a message was stored is unknown",
        "repeat with the same clientMsgId after Retry-After",
    ),
];

/// Why a delivery or an attempt stands as it does: (stable word, meaning). The words for what providers say no to are
/// `model::retry`'s.
pub const DELIVERY_REASONS: &[(&str, &str)] = &[
    ("unreachable", "the provider could not be reached; nothing was sent"),
    ("throttled", "the provider takes no more at present"),
    ("provider_error", "the provider has trouble of its own"),
    ("credentials_refused", "the provider does not accept our credentials"),
    ("quota_used_up", "our balance or quota at the provider is used up"),
    ("sender_not_usable", "the sender, profile or hook we send from is not usable"),
    ("template_not_usable", "the approved template is missing or stopped, or says something else"),
    ("recipient_not_reachable", "there is such a person, but not on this channel"),
    ("handset_not_reached", "the recipient's device did not take it in time"),
    ("not_at_this_hour", "such messages are not taken at this hour; it is tried again later"),
    ("taken_for_spam", "the provider took it for spam"),
    ("recipient_not_ready", "the recipient's side takes nothing for now: its mailbox is full, say"),
    (
        "refused_with_others",
        "the provider refused what was sent with it and did not say which of them; it is tried alone",
    ),
    ("answer_incomplete", "the provider's answer did not speak of every message that was sent with it"),
    ("told_duplicate", "the provider took it for a repetition of another; it may have sent the one or the other"),
    ("lookup_failed", "it may have been sent, and the provider could not say whether it has it"),
    ("content_refused", "the provider does not take this content, or it cannot be read"),
    ("no_such_recipient", "the recipient does not exist"),
    ("recipient_opted_out", "the recipient does not want it"),
    ("no_provider", "no provider serves this channel here"),
    ("endpoint_refused", "the endpoint answered, and not with a 2xx"),
    ("endpoint_gone", "the endpoint answered 410: it is no more, and was disabled"),
    ("endpoint_disabled", "the endpoint is disabled; make it ACTIVE again, then recover what it missed"),
    (
        "endpoint_not_allowed",
        "the endpoint's name leads to an address where nothing may be sent; who runs this hub may allow its network \
         (--webhook-allow-network)",
    ),
    ("endpoint_unreadable", "the endpoint's secret does not open with the master keys of this worker"),
    ("endpoint_paused", "the endpoint is paused; what is for it waits until it is resumed"),
    ("endpoint_busy", "as much as may be is on its way to the endpoint; the rest waits for its turn"),
    ("waits_for_its_turn", "an earlier event of the same message is not through yet, and the endpoint asks for order"),
    ("no_answer", "the provider did not answer in time; it may have taken the message"),
    ("answer_cut", "the connection broke before the provider had answered; it may have taken the message"),
    ("answer_unreadable", "the provider's answer cannot be understood; it may have taken the message"),
    ("http_5xx", "something before the provider answered for it; it may have taken the message"),
    ("sender_panicked", "our own code failed while sending; the provider may have taken the message"),
    ("worker_lost", "the worker that held it stopped answering; another tries it, alone"),
    (
        "workers_lost",
        "every worker that held it stopped answering, also while it held nothing else: find out why, then redrive it",
    ),
    ("not_begun", "the call could not be begun in time; it is tried later"),
    ("limited", "the provider's rate limit is used up; it goes when something is free"),
    (
        "destination_failing",
        "the destination failed again and again of late; it is tried with one message at a time until it works",
    ),
    ("destination_paced", "the destination answered \"too fast\" (429) of late; what is for it goes one by one"),
    ("breaker_open", "the provider is in trouble and left alone for a while"),
    ("provider_paused", "an operator paused the provider"),
    ("never_begun", "the call could not be begun however often it was tried: nothing was sent"),
    ("canceled", "taken back before it was sent"),
    ("expired", "worthless before it could be sent"),
    ("expired_before_retry", "it would have become worthless before the next attempt"),
    ("redriven", "somebody asked to have it tried again"),
    ("receipt_accepted", "a receipt says that the provider took it, though no answer did"),
    ("receipt_failed", "a receipt says that it failed on its way; the provider does not say why"),
    ("receipt_expired", "a receipt says that it was given up: it could not be delivered in time"),
    ("no_receipt", "the provider took it, and never told what became of it"),
    ("channel_down", "nothing could be sent over its channel, or to its destination, and another took its place"),
    ("late_answer", "an answer that came after its attempt was given up: the provider had taken it"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// S0-64, S0-65, S0-66, S0-67, S0-68, S0-69, S0-70, S0-71, S0-72, S0-73, S0-74, S0-75: the seed's codes, each in its
    /// place and written as there.
    #[test]
    fn codes_are_the_seeds() {
        let words = CODES.map(|row| row.1);
        let seed = "0000 E001 E002 E003 E004 E005 E006 E007 E008 E100 E101 E102";
        assert_eq!(words.join(" "), seed);
        assert!(CODES.into_iter().all(|(code, word, _)| code.as_str() == word));
    }
}
