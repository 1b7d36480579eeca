//! Parts of the API that several nouns share: closed lists of words, ids, and the filters of lists.

use chrono::NaiveDate;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use crate::error::{Error, Refusal};
use crate::flow::provider::{PROVIDER_HEALTHS, ProviderHealth};
use crate::http::query::Query;
use crate::http::words::words;
use crate::id::Tsid;
use crate::limits;
use crate::model::channel::canonical_mailbox;
use crate::model::channel::{CHANNELS, Channel};
use crate::model::delivery::{OutcomeKind, STATUSES, Status};
use crate::model::endpoint::EndpointStatus;
use crate::model::event::{EVENT_KINDS, EventKind};
use crate::model::inbox::{INBOX_FILTERS, InboxFilter};
use crate::model::intake::{SEVERITIES, is_mailbox};
use crate::model::lane::{Lane, PRIORITIES, Priority};
use crate::model::message::{OVERALL_STATUSES, OverallStatus};
use crate::model::phone;
use crate::model::receipt::{RECEIPT_OUTCOMES, ReceiptOutcome};
use crate::model::redrive::{REDRIVE_KINDS, REDRIVE_STATUSES, RedriveKind, RedriveStatus};
use crate::model::stream::ResetReason;
use crate::store::message::MessageFilter;

words! {
    ChannelWord, "the channel over which a delivery reaches its recipient", CHANNELS.map(Channel::as_str);
    PriorityWord, "the order in which deliveries are sent when many wait: URGENT first, BULK \
        last", PRIORITIES.map(Priority::as_str);
    DeliveryStatus, "the state of a delivery; SENT, DELIVERED, FAILED, EXPIRED, CANCELED and UNDETERMINED are final, \
        unless a later receipt changes them", STATUSES.map(Status::as_str);
    MessageStatus, "the overall status of a message, computed from its \
        deliveries", OVERALL_STATUSES.map(OverallStatus::as_str);
    OutcomeWord, "the outcome of an attempt", [OutcomeKind::InFlight, OutcomeKind::Accepted,
        OutcomeKind::Rejected, OutcomeKind::Unknown, OutcomeKind::NotCalled].map(OutcomeKind::as_str);
    ReceiptWord, "the outcome that a provider reports later, from the weakest to the strongest",
        RECEIPT_OUTCOMES.map(ReceiptOutcome::as_str);
    InboxFilterWord, "which items of an inbox", INBOX_FILTERS.map(InboxFilter::as_str);
    ItemChangeWord, "what happened to an item, or to the inbox", ["ARRIVED", "CHANGED", "SEEN", "READ_ALL"];
    ResetWord, "why a client begins anew: the numbers belong to another history of the database (epoch), some events \
        are no longer kept (gap), or too many were missed (too_far)", [ResetReason::Epoch, ResetReason::Gap,
        ResetReason::TooFar].map(ResetReason::as_str);
    SeverityWord, "how much an item of an inbox matters", SEVERITIES;
    RedriveKindWord, "what a job sends again: dead letters (redrive), those of one endpoint (recover), or events \
        (replay)", REDRIVE_KINDS.map(RedriveKind::as_str);
    RedriveStatusWord, "the state of a job", REDRIVE_STATUSES.map(RedriveStatus::as_str);
    ProviderWord, "whether a provider may be called, and what prevents it",
        PROVIDER_HEALTHS.map(ProviderHealth::as_str);
    NotificationStatus, "the status of a delivery, reduced to four \
        words", ["PENDING", "PROCESSING", "SUCCESS", "FAILED"];
    EventWord, "the kind of event; later versions may add kinds", EVENT_KINDS.map(EventKind::as_str);
    EndpointWord, "whether the hub sends events to an endpoint", [EndpointStatus::Active, EndpointStatus::Paused,
        EndpointStatus::Disabled].map(EndpointStatus::as_str);
}

/// The message id in a path.
///
/// # Errors
/// `Error::NotFound` for a text that is not an id: no message has it.
pub fn message_id(text: &str) -> Result<Tsid, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

/// Takes `?channel=` from a query, as the range of its lanes (first, last).
///
/// # Errors
/// `query_invalid` if it is not a channel.
pub fn channel_filter(query: &mut Query) -> Result<Option<(i16, i16)>, Refusal> {
    let channel: Option<Channel> = query.parse("channel", "a channel", |text| text.parse().ok())?;
    Ok(channel.map(Lane::range_of))
}

/// A recipient to search for, in each form in which it may be stored.
pub struct RecipientFilter {
    /// As given.
    pub to: Option<String>,
    /// In E.164, if it is a phone number.
    pub phone: Option<String>,
    /// In lower case, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// Takes the recipient `?name=` from a query. `region` is the country of phone numbers that are written without one. An
/// unescaped `+` arrives as a blank and is read as `+`: no address contains a blank, and no phone number begins with
/// one.
pub fn recipient_filter(query: &mut Query, name: &str, region: &str) -> RecipientFilter {
    let to = query.take(name);
    let Some(text) = &to else { return RecipientFilter { to, phone: None, mailbox: None } };
    let abroad = text.strip_prefix(' ').map(|rest| format!("+{rest}"));
    let phone = abroad.and_then(|text| phone::parse(&text, region).ok()).or_else(|| phone::parse(text, region).ok());
    let mailbox = Some(text.replace(' ', "+")).filter(|text| is_mailbox(text)).map(|text| canonical_mailbox(&text));
    RecipientFilter { to, phone, mailbox }
}

/// Takes the filters of a list of messages from a query: those that the database applies, and the overall status, which
/// is computed. `to`: the name of the parameter for the recipient. `region`: the country of phone numbers without one.
///
/// # Errors
/// `query_invalid` for a status or channel that does not exist.
pub fn message_filter(
    query: &mut Query,
    to: &str,
    region: &str,
) -> Result<(MessageFilter, Option<OverallStatus>), Refusal> {
    let overall = query.parse(
        "status",
        &format!("one of {}", OVERALL_STATUSES.map(OverallStatus::as_str).join(", ")),
        |text| OVERALL_STATUSES.into_iter().find(|o| o.as_str() == text),
    )?;
    let RecipientFilter { to, phone, mailbox } = recipient_filter(query, to, region);
    let filter = MessageFilter {
        kind: query.take("type"),
        client_msg_id: query.take("clientMsgId"),
        lanes: channel_filter(query)?,
        to,
        phone,
        mailbox,
    };
    Ok((filter, overall))
}

/// The schema of `metadata`: names with plain values, not nested.
pub fn metadata() -> Schema {
    metadata_object().into()
}

/// The same, to be changed.
pub fn metadata_object() -> ObjectBuilder {
    let plain = [Type::String, Type::Number, Type::Boolean, Type::Null];
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(limits::METADATA_KEY_CHARS))
        .build();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(
            "the partner's own data about the message, at most 4 KiB as JSON; numbers keep all digits and must \
             be within the range of a double",
        ))
        .property_names(Some(name))
        .additional_properties(Some(ObjectBuilder::new().schema_type(SchemaType::Array(plain.to_vec()))))
}

/// Reads a date in the form YYYY-MM-DD only.
pub fn date(text: &str) -> Option<NaiveDate> {
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|d| text.len() == 10 && d.to_string() == text)
}
