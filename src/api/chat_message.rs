//! Chat messages: response shapes and handlers, and the shape of what happens in rooms.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::envelope::{Envelope, enveloped};
use super::form::forms;
use super::room_form::{USER_ID, read_metadata, room_id};
use super::shape::metadata;
use super::user::read_form;
use crate::error::{Code, Error, Fault, Refusal, Result};
use crate::flow;
use crate::flow::room::access::forbidden_for_another;
use crate::flow::room::history::Span;
use crate::flow::room::send::Draft;
use crate::http::answer::{Answer, Time};
use crate::http::caller::User;
use crate::http::page::{Page, encode_cursor};
use crate::http::problem::EnvelopedProblem;
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::http::words::words;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::user::UserCaller;
use crate::model::chat_message::{
    ATTACHMENTS, Attachment, CHAT_KINDS, CHAT_RECEIPTS, ChatContent, ChatId, ChatKind, ChatMessage, ChatReceipt,
    TEMP_ID, TEXT, TEXT_CHARS,
};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, Faults, TextRule};
use crate::model::stream::{EventBody, RoomEvent, StreamEvent};
use crate::model::user::{URL_BYTES, is_image_url};
use crate::store::member::Marks;

words! {
    ChatKindWord, "what a chat message is", CHAT_KINDS.map(ChatKind::as_str);
    ChatReceiptWord, "SENT, until every other member was handed it (DELIVERED) or has read it (READ)",
        CHAT_RECEIPTS.map(ChatReceipt::as_str);
}

/// How many characters of a text a list shows.
pub const UNTIL_TEXT: usize = 100;

/// A message of a room.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatMessage)]
#[serde(rename_all = "camelCase")]
pub struct MessageShape {
    /// `{roomId}-{seq}`.
    pub(super) id: String,
    /// The same as `id`.
    pub(super) message_id: String,
    pub(super) room_id: String,
    /// The same as `roomId`.
    pub(super) channel_id: String,
    /// Its number in the room's stream.
    pub(super) seq: i64,
    /// Its number among the room's messages.
    pub(super) no: i64,
    pub(super) sender_id: String,
    /// The sender's own id of it. To the sender alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) temp_id: Option<String>,
    pub(super) content: ContentShape,
    /// SAVED.
    #[schema(example = "SAVED")]
    pub(super) status: &'static str,
    /// Left out in events of changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<ChatReceiptWord>)]
    pub(super) receipt: Option<&'static str>,
    /// The other members that have read it: `{userId: true}`. Empty in rooms of more than 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_by: Option<BTreeMap<String, bool>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) read_count: Option<usize>,
    #[schema(schema_with = metadata)]
    pub(super) metadata: Map<String, Value>,
    pub(super) version: i16,
    pub(super) created_at: Time,
    pub(super) updated_at: Option<Time>,
    pub(super) is_deleted: bool,
}

/// What a message holds.
#[derive(Serialize, ToSchema)]
#[schema(as = ChatContent)]
#[serde(rename_all = "camelCase")]
pub struct ContentShape {
    /// Empty if it was deleted.
    pub(super) text: String,
    #[serde(rename = "type")]
    #[schema(value_type = ChatKindWord)]
    pub(super) kind: &'static str,
    pub(super) attachments: Vec<AttachmentShape>,
    pub(super) is_edited: bool,
    pub(super) is_deleted: bool,
}

/// A file that a message refers to. The hub keeps no files.
#[derive(Serialize, ToSchema)]
#[schema(as = Attachment)]
#[serde(rename_all = "camelCase")]
pub struct AttachmentShape {
    url: String,
    filename: Option<String>,
    content_type: Option<String>,
    /// Bytes.
    size: Option<i64>,
    thumbnail_url: Option<String>,
}

impl MessageShape {
    /// A message as `viewer` sees it. `marks`: of the room's members; None: receipts are left out.
    pub fn of(message: ChatMessage, viewer: Tsid, marks: Option<&[Marks]>) -> MessageShape {
        let room_id = message.id.room_id.to_string();
        let (deleted, edited) = (message.deleted_at.is_some(), message.edited_at.is_some());
        let others: Option<Vec<&Marks>> =
            marks.map(|marks| marks.iter().filter(|mark| mark.user_id != message.sender_id).collect());
        let read_by: Option<BTreeMap<String, bool>> = others.as_ref().map(|others| {
            let readers = others.iter().filter(|mark| mark.read_no >= message.no);
            readers.map(|mark| (mark.user_id.to_string(), true)).collect()
        });
        let attachments = message.content.attachments.into_iter().map(|a| AttachmentShape {
            url: a.url,
            filename: a.filename,
            content_type: a.content_type,
            size: a.size,
            thumbnail_url: a.thumbnail_url,
        });
        MessageShape {
            id: message.id.to_string(),
            message_id: message.id.to_string(),
            channel_id: room_id.clone(),
            room_id,
            seq: message.id.seq,
            no: message.no,
            sender_id: message.sender_id.to_string(),
            temp_id: message.temp_id.filter(|_| viewer == message.sender_id),
            content: ContentShape {
                text: message.content.text,
                kind: message.kind.as_str(),
                attachments: attachments.collect(),
                is_edited: edited,
                is_deleted: deleted,
            },
            status: "SAVED",
            receipt: others.map(|others| receipt(&others, message.no).as_str()),
            read_count: read_by.as_ref().map(BTreeMap::len),
            read_by,
            metadata: message.content.metadata,
            version: message.version,
            created_at: Time(message.created_at),
            updated_at: message.deleted_at.or(message.edited_at).map(Time),
            is_deleted: deleted,
        }
    }
}

fn receipt(others: &[&Marks], no: i64) -> ChatReceipt {
    match others {
        [] => ChatReceipt::Sent,
        _ if others.iter().all(|mark| mark.read_no >= no) => ChatReceipt::Read,
        _ if others.iter().all(|mark| mark.delivered_no >= no) => ChatReceipt::Delivered,
        _ => ChatReceipt::Sent,
    }
}

/// The beginning of a message's text.
pub fn text_of(message: &ChatMessage, chars: usize) -> String {
    message.content.text.chars().take(chars).collect()
}

/// Something that happened in a room.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomEvent)]
#[serde(rename_all = "camelCase")]
pub struct EventShape {
    /// MESSAGE_CREATED, MESSAGE_EDITED, MESSAGE_DELETED, MEMBER_JOINED, MEMBER_LEFT, MEMBER_REMOVED, MEMBER_CHANGED,
    /// ROOM_CREATED, ROOM_CHANGED or ROOM_CLOSED.
    #[schema(example = "MESSAGE_CREATED")]
    event_type: &'static str,
    /// The version of this form: 1.
    v: u8,
    /// `room:{roomId}:{seq}`.
    id: String,
    /// `room:{roomId}`.
    stream: String,
    seq: i64,
    epoch: String,
    timestamp: Time,
    data: EventData,
}

/// What an event is about.
#[derive(Serialize, ToSchema)]
#[schema(as = RoomEventData)]
#[serde(rename_all = "camelCase")]
pub struct EventData {
    channel_id: String,
    /// Who did it.
    actor_id: Option<String>,
    /// Of a member's event.
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    /// Of a message's event, as the following.
    #[serde(skip_serializing_if = "Option::is_none")]
    message_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender_id: Option<String>,
    /// The message's text.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    created_at: Option<Time>,
    /// The message as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<MessageShape>,
}

impl EventShape {
    /// An event as `viewer` sees it. None for one that tells nothing.
    pub fn of(epoch: &str, room_id: Tsid, viewer: Tsid, event: &StreamEvent) -> Option<EventShape> {
        let EventBody::Room(happened) = &event.body else { return None };
        let RoomEvent { kind, at, actor, about, message } = happened.as_ref();
        let is_of_message = kind.as_str().starts_with("MESSAGE_");
        let message_id = about.filter(|_| is_of_message).map(|seq| ChatId { room_id, seq }.to_string());
        let user_id = about.filter(|_| !is_of_message).map(|id| Tsid(id).to_string());
        Some(EventShape {
            event_type: kind.as_str(),
            v: 1,
            id: format!("room:{room_id}:{}", event.seq),
            stream: format!("room:{room_id}"),
            seq: event.seq,
            epoch: epoch.to_owned(),
            timestamp: Time(*at),
            data: EventData {
                channel_id: room_id.to_string(),
                actor_id: actor.map(|id| id.to_string()),
                user_id,
                message_id,
                sender_id: message.as_ref().map(|m| m.sender_id.to_string()),
                content: message.as_ref().map(|m| m.content.text.clone()),
                created_at: message.as_ref().map(|m| Time(m.created_at)),
                message: message.as_ref().map(|m| MessageShape::of(m.clone(), viewer, None)),
            },
        })
    }
}

impl EventShape {
    /// The event in this version of its form: 1 has its parts in `data`, 2 has them flat, with the message as
    /// `payload`.
    pub fn in_version(self, version: u8) -> Value {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        let data = value.as_object_mut().filter(|_| version == 2).and_then(|fields| fields.remove("data"));
        let Some(Value::Object(mut data)) = data else { return value };
        data.remove("content");
        data.remove("createdAt");
        let payload = data.remove("message");
        if let Some(fields) = value.as_object_mut() {
            fields.insert("v".to_owned(), Value::from(2));
            fields.extend(data);
            fields.extend(payload.map(|payload| ("payload".to_owned(), payload)));
        }
        value
    }
}

static ATTACHMENT: Form = Form {
    name: "NewAttachment",
    description: "A file that the message refers to.",
    kind: Kind::Object(&[
        Field::required("url", Kind::Plain(TextRule::address(URL_BYTES)), "An https address."),
        Field::optional("filename", Kind::Text(TextRule::line(limits::NAME_CHARS)), ""),
        Field::optional("contentType", Kind::Text(TextRule::line(limits::NAME_CHARS)), ""),
        Field::optional("size", Kind::Int64(0, i64::MAX), "Bytes."),
        Field::optional("thumbnailUrl", Kind::Plain(TextRule::address(URL_BYTES)), "An https address."),
    ]),
    examples: &[],
};

static CONTENT: Form = Form {
    name: "NewChatContent",
    description: "What a message holds: a text, or files, or both.",
    kind: Kind::Object(&[
        Field::optional("text", Kind::Text(TEXT), "At most 4,000 characters. May be left out beside attachments.")
            .with_length(None, Some(TEXT_CHARS)),
        Field::optional("type", Kind::Words(kind_words), "Default: TEXT."),
        Field::optional("attachments", Kind::List(&Kind::Form(&ATTACHMENT), None, Some(ATTACHMENTS)), ""),
    ]),
    examples: &[],
};

static PLAIN_CONTENT: Form =
    Form { name: "ChatText", description: "The text alone.", kind: Kind::Text(TEXT), examples: &[] };

const CONTENT_KIND: Kind = Kind::OneOf(content_forms);

fn content_forms() -> Vec<&'static Form> {
    vec![&PLAIN_CONTENT, &CONTENT]
}

/// The kinds that a user may send.
fn kind_words() -> Vec<&'static str> {
    CHAT_KINDS.map(ChatKind::as_str).into_iter().filter(|word| *word != ChatKind::System.as_str()).collect()
}

const TEMP_ID_FIELD: Field = Field::optional(
    "tempId",
    Kind::Text(TEMP_ID),
    "The sender's own id of the message: sent again with the same content, it is written once.",
);
const METADATA: Field =
    Field::optional("metadata", Kind::Metadata, "The sender's own names with texts, numbers and booleans; 2 KiB.");
const SENDER: Field = Field::optional("senderId", USER_ID, "Must be the caller.");

pub(super) static NEW_MESSAGE: Form = Form {
    name: "NewChatMessage",
    description: "A message to send into a room.",
    kind: Kind::Object(&[
        Field::required("roomId", Kind::Text(TextRule::line(13)), ""),
        Field::required("content", CONTENT_KIND, ""),
        TEMP_ID_FIELD,
        SENDER,
        METADATA,
    ]),
    examples: &[r#"{"roomId": "0TB9C87800007", "tempId": "a-1", "content": {"text": "Hello", "type": "TEXT"}}"#],
};

/// A message into a room that the path names, in the words of seed 002.
pub(super) static CHANNEL_MESSAGE: Form = Form {
    name: "NewChatChannelMessage",
    description: "A message to send into a channel.",
    kind: Kind::Object(&[
        Field::required("content", CONTENT_KIND, ""),
        Field::optional("type", Kind::Words(kind_words), "Default: TEXT."),
        TEMP_ID_FIELD,
        SENDER,
        METADATA,
    ]),
    examples: &[r#"{"content": "Hello", "type": "TEXT"}"#],
};

static MESSAGE_EDIT: Form = Form {
    name: "ChatMessageEdit",
    description: "The new text.",
    kind: Kind::Object(&[Field::required("content", CONTENT_KIND, "")]),
    examples: &[],
};

static READ_MARK: Form = Form {
    name: "ReadMark",
    description: "Up to where the caller has read. Each field may be a query parameter instead.",
    kind: Kind::Object(&[
        Field::optional("roomId", Kind::Text(TextRule::line(13)), ""),
        Field::optional("messageId", Kind::Text(TextRule::line(40)), "Up to this message. Default: all."),
        Field::optional("userId", USER_ID, "Must be the caller."),
        Field::optional(
            "requestId",
            Kind::Text(TextRule::line(limits::NAME_CHARS)),
            "Not needed: a repeated mark changes nothing.",
        ),
    ]),
    examples: &[],
};

forms! {
    NewChatMessageBody = NEW_MESSAGE;
    NewChannelMessageBody = CHANNEL_MESSAGE;
    ChatMessageEditBody = MESSAGE_EDIT;
    ReadMarkBody = READ_MARK;
}

fn read_kind(fields: &mut Fields<'_>, faults: &Faults) -> Option<ChatKind> {
    let pointer = fields.pointer_to("type");
    let word = fields.text("type")?;
    json::one_of::<ChatKind>(&word, &pointer, &kind_words(), faults, Code::E001)
}

fn https(fields: &mut Fields<'_>, name: &str, faults: &Faults) -> Option<String> {
    let pointer = fields.pointer_to(name);
    let url = fields.text(name)?;
    if !is_image_url(&url) {
        faults.add(pointer, "image_url_invalid", "is not an https address without user and password");
    }
    Some(url)
}

fn read_attachments(fields: &mut Fields<'_>, faults: &Faults) -> Vec<Attachment> {
    let pointer = fields.pointer_to("attachments");
    let Some(list) = fields.list("attachments") else { return Vec::new() };
    if list.len() > ATTACHMENTS {
        let detail = format!("has {} entries; at most {ATTACHMENTS} attachments are allowed", list.len());
        faults.add(pointer, "too_many_items", detail);
        return Vec::new();
    }
    let mut attachments = Vec::new();
    for (pointer, value) in list {
        let Some(mut fields) = Fields::open(&ATTACHMENT, value, &pointer, faults) else { continue };
        let url = https(&mut fields, "url", faults);
        if url.is_none() && faults.is_empty() {
            faults.add(fields.pointer_to("url"), "required", "is required");
        }
        let attachment = Attachment {
            url: url.unwrap_or_default(),
            filename: fields.text("filename"),
            content_type: fields.text("contentType"),
            size: fields.number("size"),
            thumbnail_url: https(&mut fields, "thumbnailUrl", faults),
        };
        fields.close();
        attachments.push(attachment);
    }
    attachments
}

/// Takes a content: a text, or an object. White space at the end of a text is cut.
fn read_content(fields: &mut Fields<'_>, faults: &Faults) -> Option<(ChatKind, ChatContent)> {
    let pointer = fields.pointer_to("content");
    let Some(value) = fields.take("content") else {
        faults.add(pointer, "required", "is required");
        return None;
    };
    let (kind, text, attachments) = match value {
        Value::String(_) => (None, json::text(value, &pointer, TEXT, faults), Vec::new()),
        value => {
            let mut fields = Fields::open(&CONTENT, value, &pointer, faults)?;
            let read = (read_kind(&mut fields, faults), fields.text("text"), read_attachments(&mut fields, faults));
            fields.close();
            read
        }
    };
    let text = text.unwrap_or_default().trim_end().to_owned();
    if text.chars().count() > TEXT_CHARS {
        let detail = format!("has more than {TEXT_CHARS} characters");
        faults.add_code(Code::E006, pointer.clone(), "content_too_long", detail);
    }
    if text.is_empty() && attachments.is_empty() && faults.is_empty() {
        faults.add(pointer, "empty", "has neither a text nor attachments");
    }
    Some((kind.unwrap_or(ChatKind::Text), ChatContent { text, attachments, metadata: Map::new() }))
}

/// A message as a body gives it.
pub(super) struct SentBody {
    pub room_id: Option<Tsid>,
    pub sender_id: Option<String>,
    pub draft: Draft,
}

/// A message as clients over STOMP send it: they have fields of their own besides.
static APP_MESSAGE: Form = Form {
    name: "AppMessage",
    description: "A message to send into a room, over STOMP.",
    kind: Kind::Open(&[
        Field::optional("roomId", Kind::Text(TextRule::line(13)), ""),
        Field::required("content", CONTENT_KIND, ""),
        Field::optional("type", Kind::Words(kind_words), "Default: TEXT."),
        TEMP_ID_FIELD,
        SENDER,
        METADATA,
    ]),
    examples: &[],
};

/// Reads a message that came over STOMP. `names_room`: the body names the room.
///
/// # Errors
/// A refusal with every fault.
pub(super) fn read_app_message(names_room: bool, body: &[u8]) -> Result<SentBody, Refusal> {
    let sent = read_sent(&APP_MESSAGE, body)?;
    if names_room && sent.room_id.is_none() {
        let detail = "send the room's id in roomId".into();
        let fault = Fault { pointer: "/roomId".into(), reason: "required", detail, code: Code::E001 };
        return Err(Refusal::from_faults(vec![fault]));
    }
    Ok(sent)
}

/// Reads a message to send. `form`: `NEW_MESSAGE`, or `CHANNEL_MESSAGE` without the room.
pub(super) fn read_sent(form: &'static Form, body: &[u8]) -> Result<SentBody, Refusal> {
    let read = read_form(form, body, |fields, faults| {
        let room = if form.field("roomId").is_some() { fields.text("roomId") } else { None };
        let kind = if form.field("type").is_some() { read_kind(fields, faults) } else { None };
        let content = read_content(fields, faults);
        let (temp_id, sender_id) = (fields.text("tempId"), fields.text("senderId"));
        let metadata = read_metadata(fields, faults).unwrap_or_default();
        let (own_kind, content) = content.unwrap_or((ChatKind::Text, ChatContent::default()));
        let draft = Draft { temp_id, kind: kind.unwrap_or(own_kind), content: ChatContent { metadata, ..content } };
        (room, sender_id, draft)
    })?;
    let (room, sender_id, draft) = read;
    Ok(SentBody { room_id: room.and_then(|id| id.parse().ok()), sender_id, draft })
}

/// Sends what a body says, and answers with the message.
pub(super) async fn sent(
    hub: &Hub,
    caller: &UserCaller,
    room_id: Tsid,
    sent: SentBody,
) -> Result<(StatusCode, MessageShape)> {
    if sent.sender_id.is_some_and(|id| id != caller.user_id().to_string()) {
        return Err(forbidden_for_another());
    }
    let (message, was_there) = flow::room::send::send(hub, caller, room_id, sent.draft).await?;
    let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, MessageShape::of(message, caller.user_id(), Some(&[]))))
}

/// Marks an answer as one to a repeated request.
pub(super) fn replayed(status: StatusCode, mut response: Response) -> Response {
    if status == StatusCode::OK {
        response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
    }
    response
}

#[utoipa::path(post, path = "/api/v1/messages", operation_id = "sendChatMessage", tag = "rooms",
    security(("bearer" = [])), request_body = NewChatMessageBody, responses(
        (status = 201, description = "the message", body = Envelope<MessageShape>),
        (status = 200, description = "the message that was there already (`Idempotent-Replayed`)",
            body = Envelope<MessageShape>)))]
/// Send a message into a room
///
/// Stored when it is answered. Send it again with the same `tempId` whenever the answer is lost.
pub async fn send(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    JsonBody(body): JsonBody<{ limits::CHAT_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let body = read_sent(&NEW_MESSAGE, &body)?;
    let room_id = body.room_id.ok_or(Error::NotFound)?;
    let (status, message) = sent(&hub, &caller, room_id, body).await?;
    Ok(replayed(status, enveloped(&hub, status, message)))
}

/// A page of a room's messages.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MessagePage<T: ToSchema> {
    items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
    /// The number of the room's last event when the page was read, or before: what is above it comes by the stream.
    as_of: i64,
}

/// One message, or a page of a room's messages.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum MessageOrPage {
    Message(Box<MessageShape>),
    Page(MessagePage<MessageShape>),
}

/// The query parameters of a room's history.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; the handler reads them from the query")]
pub struct HistoryParams {
    /// Messages above this seq, oldest first. Of a room.
    #[param(minimum = 0)]
    after: Option<i64>,
    /// Messages around this one, newest first. Of a room.
    around: Option<String>,
    /// The number of items on a page. Of a room.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page, unchanged. Of a room.
    cursor: Option<String>,
}

/// Reads a page of a room's messages.
pub(super) async fn read_page<T: ToSchema>(
    hub: &Hub,
    caller: &UserCaller,
    mut query: Query,
    room_id: Tsid,
    shape: impl Fn(MessageShape) -> T,
) -> Answer<MessagePage<T>> {
    let above = query.parse("after", "a number, 0 or more", |text| text.parse::<i64>().ok().filter(|n| *n >= 0))?;
    let around = query.parse("around", "a message's id", |text| {
        text.parse::<ChatId>().ok().filter(|id| id.room_id == room_id).map(|id| id.seq)
    })?;
    let Page { limit, after, .. } = Page::cursor_only(&mut query, hub, "history", room_id)?;
    query.close()?;
    // A cursor's second number says in which direction it goes on.
    let span = match (after, above, around) {
        (Some((seq, 1)), ..) => Span::Above(seq.0),
        (Some((seq, _)), ..) => Span::Below(seq.0),
        (None, Some(seq), _) => Span::Above(seq),
        (None, None, Some(seq)) => Span::Around(seq),
        (None, None, None) => Span::Below(i64::MAX),
    };
    let found = flow::room::history::messages(hub, caller, room_id, span, limit).await?;
    let mut messages = found.messages;
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = messages.len() > limit;
    messages.truncate(limit);
    let direction = i16::from(matches!(span, Span::Above(_)));
    let cursor = |last: &ChatMessage| encode_cursor(hub, "history", room_id, (Tsid(last.id.seq), direction));
    let next_cursor = messages.last().filter(|_| more).map(cursor);
    let message = |message| shape(MessageShape::of(message, caller.user_id(), Some(&found.marks)));
    Ok(MessagePage { items: messages.into_iter().map(message).collect(), next_cursor, as_of: found.as_of })
}

#[utoipa::path(get, path = "/api/v1/messages/{id}", operation_id = "getChatMessages", tag = "rooms",
    security(("bearer" = [])), params(("id" = String, Path, description = "a room's id (13 characters): its history; \
        a message's (`{roomId}-{seq}`): that message"), HistoryParams),
    responses((status = 200, description = "the message, or a page of the room's messages, newest first",
        body = Envelope<MessageOrPage>)))]
/// Messages of a room, or one message
///
/// With a room's id a page of its history, newest first; with a message's id that message.
pub async fn get(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    let Ok(id) = id.parse::<ChatId>() else {
        let found = read_page(&hub, &caller, query, room_id(&id)?, |message| message).await?;
        return Ok(enveloped(&hub, StatusCode::OK, MessageOrPage::Page(found)));
    };
    query.close()?;
    let (message, marks) = flow::room::history::message(&hub, &caller, id).await?;
    let message = MessageShape::of(message, caller.user_id(), Some(&marks));
    Ok(enveloped(&hub, StatusCode::OK, MessageOrPage::Message(Box::new(message))))
}

/// The version in `If-Match`.
fn if_match(headers: &HeaderMap) -> Result<Option<i64>> {
    let Some(given) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = given.to_str().ok().and_then(|text| text.trim().trim_matches('"').parse().ok());
    let wrong = || Refusal::new(400, "header_unreadable", "send If-Match with the message's version, a number");
    version.map(Some).ok_or_else(|| wrong().into())
}

/// A message's id in a path or body.
///
/// # Errors
/// `Error::NotFound` if it is none.
pub(super) fn chat_id(text: &str) -> Result<ChatId> {
    text.parse().map_err(|()| Error::NotFound)
}

#[utoipa::path(put, path = "/api/v1/messages/{id}", operation_id = "editChatMessage", tag = "rooms",
    security(("bearer" = [])), params(("id" = String, Path, description = "the message's id"),
        ("If-Match" = Option<i64>, Header, description = "the version that the caller has")),
    request_body = ChatMessageEditBody, responses(
        (status = 200, description = "the message", body = Envelope<MessageShape>),
        (status = 412, description = "the message has another version by now", body = EnvelopedProblem,
            content_type = "application/problem+json")))]
/// Edit a message
///
/// For its sender, within the edit window. With `If-Match` a message that has another version by now stays as it is.
pub async fn edit(
    State(hub): State<Hub>,
    User(caller): User,
    query: Query,
    headers: HeaderMap,
    PathId(id): PathId,
    JsonBody(body): JsonBody<{ limits::CHAT_BODY_BYTES }>,
) -> Answer {
    query.close()?;
    let (id, version) = (chat_id(&id)?, if_match(&headers)?);
    let content = read_form(&MESSAGE_EDIT, &body, read_content)?;
    let (kind, content) = content.ok_or(Error::NotFound)?;
    if kind != ChatKind::Text || !content.attachments.is_empty() {
        let detail = "an edit changes the text alone; leave type and attachments out, or write another message";
        return Err(Refusal::new(422, "not_supported", detail).into());
    }
    let message = flow::room::message::edit(&hub, &caller, id, content.text, version).await?;
    Ok(enveloped(&hub, StatusCode::OK, MessageShape::of(message, caller.user_id(), None)))
}

#[utoipa::path(delete, path = "/api/v1/messages/{id}", operation_id = "deleteChatMessage", tag = "rooms",
    security(("bearer" = [])), params(("id" = String, Path, description = "the message's id")),
    responses((status = 200, description = "the message, without its content", body = Envelope<MessageShape>)))]
/// Delete a message
///
/// For its sender, and for owners and admins of the room. Again is the same.
pub async fn delete(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let message = flow::room::message::delete(&hub, &caller, chat_id(&id)?).await?;
    Ok(enveloped(&hub, StatusCode::OK, MessageShape::of(message, caller.user_id(), None)))
}

/// A member that has read a message.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReaderShape {
    user_id: String,
    /// Null if it is no longer known.
    read_at: Option<Time>,
}

#[utoipa::path(get, path = "/api/v1/messages/{id}/reads", operation_id = "listReaders", tag = "rooms",
    security(("bearer" = [])), params(("id" = String, Path, description = "the message's id")),
    responses((status = 200, description = "the readers", body = Envelope<Vec<ReaderShape>>)))]
/// Who has read a message
///
/// The members besides its sender that have read it. Empty where the room shows no receipts.
pub async fn reads(State(hub): State<Hub>, User(caller): User, query: Query, PathId(id): PathId) -> Answer {
    query.close()?;
    let found = flow::room::history::reads(&hub, &caller, chat_id(&id)?).await?;
    let reader = |(user_id, at): (Tsid, _)| ReaderShape { user_id: user_id.to_string(), read_at: at };
    let readers: Vec<ReaderShape> = found.into_iter().map(|(id, at)| reader((id, at.map(Time)))).collect();
    Ok(enveloped(&hub, StatusCode::OK, readers))
}

/// How much a user has not read in a room.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnreadShape {
    room_id: String,
    unread_count: i64,
    /// The number among the room's messages up to which it has read.
    read_no: i64,
}

#[utoipa::path(post, path = "/api/v1/messages/mark-read", operation_id = "markRead", tag = "rooms",
    security(("bearer" = [])), request_body = Option<ReadMarkBody>,
    params(("roomId" = Option<String>, Query, description = "the room"),
        ("messageId" = Option<String>, Query, description = "up to this message; default: all"),
        ("userId" = Option<String>, Query, description = "must be the caller"),
        ("requestId" = Option<String>, Query, description = "not needed")),
    responses((status = 200, description = "what is unread now", body = Envelope<UnreadShape>)))]
/// Mark messages as read
///
/// Up to a message, or all of a room. Never goes back, so all devices of a user agree.
pub async fn mark_read(
    State(hub): State<Hub>,
    User(caller): User,
    mut query: Query,
    body: Option<JsonBody<{ limits::SMALL_BODY_BYTES }>>,
) -> Answer {
    let mut given = ["roomId", "messageId", "userId", "requestId"].map(|name| query.take(name));
    query.close()?;
    if let Some(JsonBody(body)) = body {
        let read = read_form(&READ_MARK, &body, |fields, _| {
            ["roomId", "messageId", "userId", "requestId"].map(|name| fields.text(name))
        })?;
        given = std::array::from_fn(|n| given[n].take().or_else(|| read[n].clone()));
    }
    let [room, message, user, _request] = given;
    if user.is_some_and(|id| id != caller.user_id().to_string()) {
        return Err(forbidden_for_another().into());
    }
    let message = message.map(|id| chat_id(&id)).transpose()?;
    let room = room.map(|id| room_id(&id)).transpose()?.or(message.map(|id| id.room_id));
    let missing = || Refusal::new(422, "required", "send roomId, or the messageId up to which the user has read");
    let room = room.ok_or_else(missing)?;
    if message.is_some_and(|id| id.room_id != room) {
        return Err(Error::NotFound.into());
    }
    let unread = flow::room::mark::read_up_to(&hub, &caller, room, message.map(|id| id.seq)).await?;
    let shape = UnreadShape { room_id: room.to_string(), unread_count: unread.unread, read_no: unread.read_no };
    Ok(enveloped(&hub, StatusCode::OK, shape))
}
