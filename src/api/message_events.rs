//! The events of one message, live.

use std::collections::HashSet;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;

use super::event::ServerSentEvent;
use super::shape::message_id;
use crate::flow;
use crate::http::answer::Answer;
use crate::http::caller::Reader;
use crate::http::query::Query;
use crate::http::request::PathId;
use crate::http::sse::{self, Frames};
use crate::hub::Hub;
use crate::hub::watches::{MessageNews, Watch};
use crate::limits;
use crate::model::event::{EventPayload, EventSubject};

#[utoipa::path(get, path = "/v1/messages/{id}/events", operation_id = "streamMessageEvents", tag = "messages",
    security(("bearer" = [])),
    params(("id" = String, Path, description = "the messageId"),
        ("Last-Event-ID" = Option<String>, Header, description = "the `id` of the last event that the client has")),
    responses((status = 200, description = "Server-Sent Events: each event has the name and the body of the webhook \
        that reports it, and the `id` `{no}-{seq}`", content((ServerSentEvent = "text/event-stream")))))]
/// A message's events, live
///
/// The events of a message so far, and then each as it happens, until `message.completed`. With `Last-Event-ID` those
/// after it, and perhaps some of the five seconds before it again: skip repeats by `eventId`.
pub async fn stream(
    State(hub): State<Hub>,
    reader: Reader,
    query: Query,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Answer<Response> {
    query.close()?;
    let id = message_id(&id)?;
    let owner = reader.owner_of_message(&hub, id).await?;
    let opened = flow::watch::open(&hub, &owner, id).await?;
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let mut source = EventSource { subject: opened.subject, watch: opened.watch, sent: HashSet::new(), is_over: false };
    source.skip_to(last, &opened.news.events);
    let mut first = Frames::default();
    source.write(&mut first, &opened.news);
    Ok(sse::respond(first, source, None))
}

/// The events of a message, as frames.
struct EventSource {
    subject: EventSubject,
    watch: Watch,
    /// Number of the delivery and sequence number of the events that were sent.
    sent: HashSet<(i16, i16)>,
    is_over: bool,
}

fn id_of(event: &EventPayload) -> String {
    format!("{}-{}", event.no, event.seq)
}

impl EventSource {
    /// Skips the events that a client has: those before the one with this id, except the latest of them, which may have
    /// been committed after it.
    fn skip_to(&mut self, last: Option<&str>, events: &[EventPayload]) {
        let Some(known) = events.iter().find(|event| Some(id_of(event).as_str()) == last) else { return };
        let before = |event: &&EventPayload| event.occurred_at < known.occurred_at - limits::WATCH_AGAIN;
        self.sent.extend(events.iter().filter(before).map(|event| (event.no, event.seq)));
        self.sent.insert((known.no, known.seq));
    }

    fn write(&mut self, frames: &mut Frames, news: &MessageNews) {
        for event in news.events.iter() {
            if self.sent.insert((event.no, event.seq)) {
                let body = event.body(&self.subject);
                frames.json(&event.event, Some(&id_of(event)), &String::from_utf8_lossy(&body));
            }
        }
        self.is_over = news.is_over;
    }
}

impl sse::Source for EventSource {
    async fn next(&mut self) -> Option<Frames> {
        let mut frames = Frames::default();
        while frames.is_empty() {
            if self.is_over {
                return None;
            }
            let news = self.watch.next().await?;
            self.write(&mut frames, &news);
        }
        Some(frames)
    }
}
