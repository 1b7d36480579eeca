//! The envelope of answers below `/api/`: the one that the seeds of chats ask for. Errors there are problems with the
//! members of the envelope beside their own (`http::problem`).

use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use crate::http::answer::{Success, Time, respond};
use crate::http::page::encode_cursor;
use crate::hub::Hub;
use crate::id::Tsid;

/// A successful answer below `/api/`.
#[derive(Serialize, ToSchema)]
pub struct Envelope<T: ToSchema> {
    /// True.
    success: bool,
    code: Success,
    data: T,
    /// A sentence for people; null if there is nothing to say.
    message: Option<String>,
    timestamp: Time,
}

/// Answers with `data` in the envelope.
pub fn enveloped<T: Serialize + ToSchema>(hub: &Hub, status: StatusCode, data: T) -> Response {
    let timestamp = Time(hub.clock.now());
    respond(status, &Envelope { success: true, code: Success::Success, data, message: None, timestamp })
}

/// A page of a list below `/api/`.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Items<T: ToSchema> {
    items: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last page.
    next_cursor: Option<String>,
}

/// A page of at most `limit` items from `rows`, of which one more was read. `list`: the name of the list; `whose`: whom
/// it belongs to; `id`: the id of a row.
pub fn page<R, T: ToSchema>(
    hub: &Hub,
    list: &str,
    whose: Tsid,
    mut rows: Vec<R>,
    limit: i64,
    id: impl Fn(&R) -> Tsid,
    shape: impl Fn(R) -> T,
) -> Items<T> {
    let limit = usize::try_from(limit).unwrap_or(0);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| encode_cursor(hub, list, whose, (id(last), 0)));
    Items { items: rows.into_iter().map(shape).collect(), next_cursor }
}
