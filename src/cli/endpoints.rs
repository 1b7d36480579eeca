//! Helpers of the commands about endpoints: events, query parameters, and lists over several pages.

use serde_json::Value;

use super::client::Client;
use crate::error::Result;
use crate::id::Tsid;
use crate::model::event::{EVENT_KINDS, EventKind};

/// Parses an event that endpoints can subscribe to.
///
/// # Errors
/// A text for clap that lists the events.
pub fn parse_requestable_event(text: &str) -> std::result::Result<EventKind, String> {
    let kinds: Vec<EventKind> = EVENT_KINDS.into_iter().filter(|kind| kind.is_subscribable()).collect();
    kinds.iter().find(|kind| kind.as_str() == text).copied().ok_or_else(|| no_such_event(&kinds))
}

/// The error text for an unknown event; it lists `kinds`.
pub fn no_such_event(kinds: &[EventKind]) -> String {
    let words: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
    format!("there is no such event; there are {}", words.join(", "))
}

/// The query parameter `partnerId` after `joint` (`?` or `&`); empty without a partner.
pub fn partner_query(joint: char, partner_id: Option<Tsid>) -> String {
    partner_id.map_or(String::new(), |id| format!("{joint}partnerId={id}"))
}

/// Reads all endpoints of a partner, or all that the caller may see.
///
/// # Errors
/// `Error::Answered` with the hub's problem if the hub refuses the request; `Error::Setup` if no hub answers.
pub async fn list_all(client: &Client, partner_id: Option<Tsid>) -> Result<Vec<Value>> {
    let (mut all, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/v1/webhooks?limit=200{}{cursor}", partner_query('&', partner_id))).await?;
        all.extend(page_items(&page).cloned());
        match page["nextCursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return Ok(all),
        }
    }
}

/// The items of a page of a list.
pub fn page_items(page: &Value) -> impl Iterator<Item = &Value> {
    page["items"].as_array().into_iter().flatten()
}
