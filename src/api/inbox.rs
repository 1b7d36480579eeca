//! The inbox of a user: response shapes and handlers. A caller is a user: by its own token, or by its partner's with
//! the header `X-User`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::envelope::{Envelope, enveloped};
use super::form::forms;
use super::shape::{InboxFilterWord, ItemChangeWord, ResetWord, SeverityWord, metadata};
use crate::error::{Error, Refusal, Result};
use crate::flow;
use crate::http::answer::{Answer, Success, Time, respond};
use crate::http::caller::{LiveUser, User};
use crate::http::page::{Page, encode_cursor};
use crate::http::query::Query;
use crate::http::request::{JsonBody, PathId};
use crate::http::sse::{self, Frames};
use crate::hub::Hub;
use crate::hub::connections::OpenConnection;
use crate::hub::streams::Listener;
use crate::limits;
use crate::model::delivery::parse_public_id;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::inbox::{COUNTED, INBOX_FILTERS, InboxCounts, InboxItem, ItemChange};
use crate::model::json::{self, Faults, TextRule};
use crate::model::stream::{EventBody, StreamEvent, StreamNews};
use crate::store::inbox::ItemQuery;

/// An item of an inbox.
#[derive(Serialize, ToSchema)]
#[schema(as = InboxItem)]
#[serde(rename_all = "camelCase")]
pub struct ItemShape {
    /// `{messageId}-{no}`, as the delivery's.
    id: String,
    /// The message's type.
    #[serde(rename = "type")]
    kind: String,
    title: Option<String>,
    /// Empty if the message was erased.
    body: String,
    action_url: Option<String>,
    image_url: Option<String>,
    category: Option<String>,
    #[schema(value_type = Option<SeverityWord>)]
    severity: Option<String>,
    /// The message's `metadata`.
    #[schema(schema_with = metadata)]
    data: Map<String, Value>,
    /// It arrived before the user last looked at the inbox (`POST /v1/inbox/seen`).
    seen: bool,
    read: bool,
    read_at: Option<Time>,
    archived_at: Option<Time>,
    /// It is hidden until then; at that time it arrives again, unread and unseen.
    snoozed_until: Option<Time>,
    /// When the message was posted.
    created_at: Time,
    arrived_at: Time,
    /// It is no longer listed from then on.
    expires_at: Option<Time>,
    /// The number of its last arrival in the user's stream.
    seq: i64,
}

impl ItemShape {
    fn of(item: InboxItem) -> ItemShape {
        let text = item.text;
        ItemShape {
            id: format!("{}-{}", item.message_id, item.no),
            kind: text.kind,
            title: text.title,
            body: text.body,
            action_url: text.action_url,
            image_url: text.image_url,
            category: text.category,
            severity: text.severity,
            data: text.metadata,
            seen: item.is_seen,
            read: item.read_at.is_some(),
            read_at: item.read_at.map(Time),
            archived_at: item.archived_at.map(Time),
            snoozed_until: item.snoozed_until.map(Time),
            created_at: Time(text.created_at),
            arrived_at: Time(item.arrived_at),
            expires_at: item.expires_at.map(Time),
            seq: item.seq,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct ItemFound {
    code: Success,
    #[serde(flatten)]
    item: ItemShape,
}

/// A page of items, the newest arrivals first.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ItemPage {
    code: Success,
    items: Vec<ItemShape>,
    next_cursor: Option<String>,
}

/// Numbers of an inbox. They are absolute: replace what you have.
#[derive(Serialize, ToSchema)]
#[schema(as = InboxCounts)]
#[serde(rename_all = "camelCase")]
pub struct CountsShape {
    /// Items that arrived since the user last looked, at most 100.
    unseen: i64,
    unseen_is_more: bool,
    /// Items that are not read, at most 100.
    unread: i64,
    unread_is_more: bool,
    /// The number of the last change of the user's stream.
    seq: i64,
    /// Numbers of another epoch are not comparable: the database was restored from a backup.
    epoch: String,
}

impl CountsShape {
    fn of(counts: InboxCounts, epoch: &str) -> CountsShape {
        CountsShape {
            unseen: counts.unseen.min(COUNTED),
            unseen_is_more: counts.unseen > COUNTED,
            unread: counts.unread.min(COUNTED),
            unread_is_more: counts.unread > COUNTED,
            seq: counts.seq,
            epoch: epoch.to_owned(),
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct CountsFound {
    code: Success,
    #[serde(flatten)]
    counts: CountsShape,
}

/// The query parameters of an inbox.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; the handler reads them from the query")]
pub struct InboxParams {
    /// Which items. ALL, the default: those that are neither archived, nor snoozed, nor expired; UNREAD: of these the
    /// unread ones.
    #[param(value_type = Option<InboxFilterWord>, inline)]
    filter: Option<String>,
    /// Only items whose message has this type.
    #[param(rename = "type")]
    kind: Option<String>,
    /// The number of items on a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// The `nextCursor` of the previous page, unchanged.
    #[param(pattern = "^[A-Za-z0-9_-]{35}$")]
    cursor: Option<String>,
}

#[utoipa::path(get, path = "/v1/inbox", operation_id = "listInbox", tag = "inbox",
    security(("bearer" = [])), params(InboxParams),
    responses((status = 200, description = "a page", body = ItemPage)))]
/// Items
///
/// A page of the user's inbox, the newest arrivals first.
pub async fn list(State(hub): State<Hub>, User(caller): User, mut query: Query) -> Answer {
    let words = INBOX_FILTERS.map(|filter| filter.as_str()).join(", ");
    let filter = query.parse("filter", &format!("one of {words}"), |text| {
        INBOX_FILTERS.into_iter().find(|filter| filter.as_str() == text)
    })?;
    let kind = query.take("type");
    let Page { limit, after, .. } = Page::cursor_only(&mut query, &hub, "inbox", caller.user_id())?;
    query.close()?;
    let below = after.map(|(seq, _)| seq.0);
    let wanted = ItemQuery { filter: filter.unwrap_or_default(), kind, below, limit: limit + 1 };
    let mut found = flow::inbox::list(&hub, caller.key(), &wanted).await?;
    let more = found.len() as i64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(0));
    let cursor = |last: &InboxItem| encode_cursor(&hub, "inbox", caller.user_id(), (crate::id::Tsid(last.seq), 0));
    let next_cursor = found.last().filter(|_| more).map(cursor);
    let items = found.into_iter().map(ItemShape::of).collect();
    Ok(respond(StatusCode::OK, &ItemPage { code: Success::Success, items, next_cursor }))
}

#[utoipa::path(get, path = "/v1/inbox/counts", operation_id = "countInbox", tag = "inbox",
    security(("bearer" = [])), responses((status = 200, description = "the counts", body = CountsFound)))]
/// Counts
///
/// How many items are unread, and how many are unseen.
pub async fn counts(State(hub): State<Hub>, User(caller): User, query: Query) -> Answer {
    query.close()?;
    let counts = flow::inbox::counts(&hub, caller.key()).await?;
    answer_counts(&hub, counts).await
}

async fn answer_counts(hub: &Hub, counts: InboxCounts) -> Answer {
    let counts = CountsShape::of(counts, &flow::stream::epoch(hub).await?);
    Ok(respond(StatusCode::OK, &CountsFound { code: Success::Success, counts }))
}

static INBOX_SEEN: Form = Form {
    name: "InboxSeen",
    description: "Up to where the user has seen its inbox.",
    kind: Kind::Object(&[Field::optional(
        "upTo",
        Kind::Int64(0, i64::MAX),
        "The `seq` of the newest item that was shown. Default: everything.",
    )]),
    examples: &[],
};

static INBOX_READ: Form = Form {
    name: "InboxRead",
    description: "Which items the user has read.",
    kind: Kind::Object(&[Field::optional(
        "type",
        Kind::Text(TextRule::line(limits::KIND_CHARS)),
        "Only items whose message has this type. Default: all.",
    )]),
    examples: &[],
};

static SNOOZE: Form = Form {
    name: "Snooze",
    description: "Until when an item is hidden.",
    kind: Kind::Object(&[Field::required("until", Kind::Time, "A time to come, at most 60 days ahead.")]),
    examples: &[r#"{"until": "2027-03-05T09:30:00+09:00"}"#],
};

forms! {
    InboxSeenForm = INBOX_SEEN;
    InboxReadForm = INBOX_READ;
    SnoozeForm = SNOOZE;
}

type SmallBody = JsonBody<{ limits::SMALL_BODY_BYTES }>;

/// Reads a small object by its form; None for a body that is left out.
fn read<T>(
    body: Option<SmallBody>,
    form: &'static Form,
    take: impl FnOnce(&mut Fields<'_>) -> T,
) -> Result<Option<T>, Refusal> {
    let Some(JsonBody(body)) = body else { return Ok(None) };
    let faults = Faults::default();
    let value = json::parse(&body, &faults)?;
    let read = Fields::open(form, value, "", &faults).map(|mut fields| {
        let taken = take(&mut fields);
        fields.close();
        taken
    });
    faults.into_result(read).map(Some)
}

#[utoipa::path(post, path = "/v1/inbox/seen", operation_id = "seeInbox", tag = "inbox",
    security(("bearer" = [])), request_body = Option<InboxSeenForm>,
    responses((status = 200, description = "the counts afterwards", body = CountsFound)))]
/// Seen
///
/// Records up to where the user has seen its inbox: everything, or all that arrived up to an item. Never goes
/// backwards.
pub async fn see(State(hub): State<Hub>, User(caller): User, query: Query, body: Option<SmallBody>) -> Answer {
    query.close()?;
    let up_to = read(body, &INBOX_SEEN, |fields| fields.number("upTo"))?.flatten();
    let counts = flow::inbox::see(&hub, caller.key(), up_to).await?;
    answer_counts(&hub, counts).await
}

#[utoipa::path(post, path = "/v1/inbox/read-all", operation_id = "readInbox", tag = "inbox",
    security(("bearer" = [])), request_body = Option<InboxReadForm>,
    responses((status = 200, description = "the counts afterwards", body = CountsFound)))]
/// Read all
///
/// Marks all listed items as read, of one type or of all.
pub async fn read_all(State(hub): State<Hub>, User(caller): User, query: Query, body: Option<SmallBody>) -> Answer {
    query.close()?;
    let kind = read(body, &INBOX_READ, |fields| fields.text("type"))?.flatten();
    let counts = flow::inbox::read_all(&hub, caller.key(), kind.as_deref()).await?;
    answer_counts(&hub, counts).await
}

async fn change(hub: &Hub, user: User, query: Query, id: &str, change: ItemChange) -> Answer {
    query.close()?;
    let id = parse_public_id(id).ok_or(Error::NotFound)?;
    let item = ItemShape::of(flow::inbox::change(hub, user.0.key(), id, change).await?);
    Ok(respond(StatusCode::OK, &ItemFound { code: Success::Success, item }))
}

#[utoipa::path(post, path = "/v1/inbox/{id}/read", operation_id = "readInboxItem", tag = "inbox",
    security(("bearer" = [])), params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the item", body = ItemFound)))]
/// Read an item
///
/// Marks an item as read; again is the same.
pub async fn read_item(State(hub): State<Hub>, user: User, query: Query, PathId(id): PathId) -> Answer {
    change(&hub, user, query, &id, ItemChange::Read).await
}

#[utoipa::path(post, path = "/v1/inbox/{id}/unread", operation_id = "unreadInboxItem", tag = "inbox",
    security(("bearer" = [])), params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the item", body = ItemFound)))]
/// Mark an item as unread
///
/// Marks an item as unread; again is the same.
pub async fn unread_item(State(hub): State<Hub>, user: User, query: Query, PathId(id): PathId) -> Answer {
    change(&hub, user, query, &id, ItemChange::Unread).await
}

#[utoipa::path(post, path = "/v1/inbox/{id}/archive", operation_id = "archiveInboxItem", tag = "inbox",
    security(("bearer" = [])), params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the item", body = ItemFound)))]
/// Archive an item
///
/// Takes an item off the list; `?filter=ARCHIVED` shows it.
pub async fn archive_item(State(hub): State<Hub>, user: User, query: Query, PathId(id): PathId) -> Answer {
    change(&hub, user, query, &id, ItemChange::Archive).await
}

#[utoipa::path(post, path = "/v1/inbox/{id}/unarchive", operation_id = "unarchiveInboxItem", tag = "inbox",
    security(("bearer" = [])), params(("id" = String, Path, description = "`{messageId}-{no}`")),
    responses((status = 200, description = "the item", body = ItemFound)))]
/// Put an item back
///
/// Puts an archived item back on the list.
pub async fn unarchive_item(State(hub): State<Hub>, user: User, query: Query, PathId(id): PathId) -> Answer {
    change(&hub, user, query, &id, ItemChange::Unarchive).await
}

#[utoipa::path(post, path = "/v1/inbox/{id}/snooze", operation_id = "snoozeInboxItem", tag = "inbox",
    security(("bearer" = [])), params(("id" = String, Path, description = "`{messageId}-{no}`")),
    request_body = SnoozeForm, responses((status = 200, description = "the item", body = ItemFound)))]
/// Snooze an item
///
/// Hides an item until a time. Then it arrives again: unread, unseen, at the top.
pub async fn snooze_item(
    State(hub): State<Hub>,
    user: User,
    query: Query,
    PathId(id): PathId,
    body: SmallBody,
) -> Answer {
    let until = read(Some(body), &SNOOZE, |fields| fields.time("until"))?.flatten();
    // A missing time was a fault.
    let until = until.ok_or(Error::NotFound)?;
    change(&hub, user, query, &id, ItemChange::Snooze(until)).await
}

/// An item that arrived or changed, as the event `item` has it.
#[derive(Serialize, ToSchema)]
#[schema(as = InboxItemEvent)]
pub struct ItemEvent {
    #[schema(value_type = ItemChangeWord)]
    change: &'static str,
    #[serde(flatten)]
    item: ItemShape,
}

/// A change of the whole inbox, as the event `changed` has it.
#[derive(Serialize, ToSchema)]
#[schema(as = InboxChangedEvent)]
pub struct ChangedEvent {
    #[schema(value_type = ItemChangeWord)]
    change: &'static str,
    /// READ_ALL of one type: that type.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
}

/// The numbers do not go on, as the event `reset` has it: read the inbox again, and go on from here.
#[derive(Serialize, ToSchema)]
#[schema(as = StreamReset)]
pub struct ResetEvent {
    #[schema(value_type = ResetWord)]
    reason: &'static str,
}

/// An item with what happened to it, for STOMP.
pub fn item_text(event: &str, item: &InboxItem) -> Value {
    let mut value = serde_json::to_value(ItemShape::of(item.clone())).unwrap_or_default();
    value["eventType"] = Value::from(event);
    value
}

/// The counts, for STOMP.
pub fn counts_text(counts: InboxCounts, epoch: &str) -> Value {
    let mut value = serde_json::to_value(CountsShape::of(counts, epoch)).unwrap_or_default();
    value["eventType"] = Value::from("COUNTS");
    value
}

/// The query parameters of a stream, for clients that cannot set a header.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameters; the extractor reads them from the query")]
pub struct StreamParams {
    /// A ticket of `POST /api/v1/sse/ticket`: valid once.
    ticket: Option<String>,
    /// An access token. A ticket is better: addresses are kept in histories and logs.
    token: Option<String>,
}

#[utoipa::path(get, path = "/v1/inbox/stream", operation_id = "streamInbox", tag = "inbox",
    security(("bearer" = [])),
    params(StreamParams, ("Last-Event-ID" = Option<String>, Header,
        description = "the `id` of the last event that the client has: what came after it comes first")),
    responses((status = 200, description = "Server-Sent Events: `counts` (InboxCounts) first and after each change; \
        `item` (InboxItemEvent) and `changed` (InboxChangedEvent), each with an `id`; `reset` (StreamReset); `expired` \
        at the end of the token", content((ItemEvent = "text/event-stream"), (ChangedEvent = "text/event-stream"),
        (ResetEvent = "text/event-stream"), (CountsShape = "text/event-stream")))))]
/// Live
///
/// The user's inbox, live. A client that lost the connection resumes with the header `Last-Event-ID`, at any process of
/// the hub, and gets exactly what it missed.
pub async fn stream(
    State(hub): State<Hub>,
    LiveUser(caller): LiveUser,
    mut query: Query,
    headers: HeaderMap,
) -> Answer<Response> {
    LiveUser::take_parameters(&mut query);
    query.close()?;
    let position = headers.get("last-event-id").map(|id| id.to_str().unwrap_or_default());
    let opened = flow::stream::open(&hub, caller.key(), position).await?;
    let caller = flow::user::access::again(&hub, &caller).await?;
    let mut first = Frames::default();
    let _open = flow::presence::connect(&hub, caller.key());
    let source = InboxSource { epoch: opened.epoch.clone(), listener: opened.listener, _open };
    match opened.missed {
        Some(missed) => source.write(&mut first, missed),
        None => {
            let id = format!("{}.{}", opened.epoch, opened.seq);
            first.event("counts", Some(&id), &CountsShape::of(opened.counts, &opened.epoch));
        }
    }
    let until = caller.until.map(|until| (until - hub.clock.now()).to_std().unwrap_or_default());
    Ok(sse::respond(first, source, until))
}

/// The news of a user's stream, as frames.
struct InboxSource {
    epoch: std::sync::Arc<str>,
    listener: Listener,
    _open: OpenConnection,
}

impl sse::Source for InboxSource {
    async fn next(&mut self) -> Option<Frames> {
        let mut frames = Frames::default();
        while frames.is_empty() {
            let news = self.listener.next().await?;
            self.write(&mut frames, news);
        }
        Some(frames)
    }
}

impl InboxSource {
    fn write(&self, frames: &mut Frames, news: StreamNews) {
        let counts = match news {
            StreamNews::Events { events, counts } => {
                events.iter().for_each(|event| self.write_event(frames, event));
                counts
            }
            StreamNews::Reset { reason, head, counts } => {
                frames.event("reset", Some(&self.id(head)), &ResetEvent { reason: reason.as_str() });
                counts
            }
        };
        if let Some(counts) = counts {
            frames.event("counts", None, &CountsShape::of(counts, &self.epoch));
        }
    }

    fn write_event(&self, frames: &mut Frames, event: &StreamEvent) {
        let id = self.id(event.seq);
        let item = |item: &InboxItem, change| ItemEvent { change, item: ItemShape::of(item.clone()) };
        match &event.body {
            EventBody::ItemArrived(arrived) => frames.event("item", Some(&id), &item(arrived, "ARRIVED")),
            EventBody::ItemChanged(changed) => frames.event("item", Some(&id), &item(changed, "CHANGED")),
            EventBody::Seen => frames.event("changed", Some(&id), &ChangedEvent { change: "SEEN", kind: None }),
            EventBody::AllRead { kind } => {
                frames.event("changed", Some(&id), &ChangedEvent { change: "READ_ALL", kind: kind.clone() });
            }
            EventBody::RoomEntered(_) | EventBody::RoomLeft(_) | EventBody::Room(_) | EventBody::Nothing => (),
        }
    }

    fn id(&self, seq: i64) -> String {
        format!("{}.{seq}", self.epoch)
    }
}

/// A ticket for a stream.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    ticket: String,
    /// Seconds.
    expires_in: i64,
}

#[utoipa::path(post, path = "/api/v1/sse/ticket", operation_id = "makeTicket", tag = "inbox",
    security(("bearer" = [])), responses((status = 200, description = "the ticket", body = Envelope<Ticket>)))]
/// Ask for a ticket
///
/// Makes a ticket that opens one stream within 30 seconds by `?ticket=`, where no header can be set: a browser's
/// EventSource.
pub async fn make_ticket(State(hub): State<Hub>, User(caller): User, query: Query) -> Answer {
    query.close()?;
    let ticket = flow::user::ticket::make(&hub, &caller).await?;
    let data = Ticket { ticket, expires_in: limits::TICKET_VALID.num_seconds() };
    Ok(enveloped(&hub, StatusCode::OK, data))
}
