//! Outside forms that several nouns share: times, ids, the filters of lists.

use chrono::{DateTime, SecondsFormat, Utc};

use super::request::Query;
use crate::error::{Error, Refusal, Result};
use crate::id::Tsid;
use crate::model::channel::Channel;
use crate::model::lane::Lane;
use crate::model::message::{OVERALLS, Overall};
use crate::model::phone;
use crate::store::message::Filter;

pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub fn message_id(text: &str) -> Result<Tsid> {
    text.parse().map_err(|_| Error::NotFound)
}

/// The first and last lane of a channel.
pub fn lanes_of(channel: Channel) -> (i16, i16) {
    let lanes = Lane::all_of(&[channel]);
    let numbers = || lanes.iter().map(|l| l.0);
    (numbers().min().unwrap_or(0), numbers().max().unwrap_or(0))
}

pub fn channel_filter(query: &mut Query) -> std::result::Result<Option<(i16, i16)>, Refusal> {
    let channel: Option<Channel> = query.parse("channel", "a channel", |text| text.parse().ok())?;
    Ok(channel.map(lanes_of))
}

/// A recipient to look for: as given, and as E.164 if it is a phone number, which may be written in many ways. A + that
/// was not escaped arrives as a blank.
pub fn recipient_filter(query: &mut Query, name: &str, region: &str) -> (Option<String>, Option<String>) {
    let to = query.take(name);
    let phone = to.as_deref().and_then(|text| phone::parse(text, region).ok());
    (to, phone)
}

/// The filters of a list of messages: those the books keep, and the overall status, which is computed. `to` is the
/// recipient's name in the caller's words, `region` where its phone numbers are from.
pub fn message_filter(
    query: &mut Query,
    to: &str,
    region: &str,
) -> std::result::Result<(Filter, Option<Overall>), Refusal> {
    let overall = query.parse("status", &format!("one of {}", OVERALLS.map(Overall::as_str).join(", ")), |text| {
        OVERALLS.into_iter().find(|o| o.as_str() == text)
    })?;
    let (to, phone) = recipient_filter(query, to, region);
    let filter = Filter {
        kind: query.take("type"),
        client_msg_id: query.take("clientMsgId"),
        lanes: channel_filter(query)?,
        to,
        phone,
    };
    Ok((filter, overall))
}
