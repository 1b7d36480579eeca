//! Outside forms that several nouns share: words, ids, the filters of lists.

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
use crate::model::intake::is_mailbox;
use crate::model::lane::{Lane, PRIORITIES, Priority};
use crate::model::message::{OVERALL_STATUSES, OverallStatus};
use crate::model::phone;
use crate::model::receipt::{RECEIPT_OUTCOMES, ReceiptOutcome};
use crate::model::redrive::{REDRIVE_KINDS, REDRIVE_STATUSES, RedriveKind, RedriveStatus};
use crate::store::message::MessageFilter;

words! {
    ChannelWord, "how a delivery reaches its recipient", CHANNELS.map(Channel::as_str);
    PriorityWord, "who goes first when there is much to send", PRIORITIES.map(Priority::as_str);
    DeliveryStatus, "where a delivery stands; SENT, DELIVERED, FAILED, EXPIRED, CANCELED and UNDETERMINED are final but for \
        evidence that comes later", STATUSES.map(Status::as_str);
    MessageStatus, "computed from the deliveries", OVERALL_STATUSES.map(OverallStatus::as_str);
    OutcomeWord, "what an attempt came to", [OutcomeKind::InFlight, OutcomeKind::Accepted,
        OutcomeKind::Rejected, OutcomeKind::Unknown, OutcomeKind::NotCalled].map(OutcomeKind::as_str);
    ReceiptWord, "what a provider tells of what it took, from the least to the most", RECEIPT_OUTCOMES.map(ReceiptOutcome::as_str);
    RedriveKindWord, "dead letters, those of one endpoint, or events", REDRIVE_KINDS.map(RedriveKind::as_str);
    RedriveStatusWord, "how far a job is", REDRIVE_STATUSES.map(RedriveStatus::as_str);
    ProviderWord, "whether a provider may be asked, and what keeps it from being asked", PROVIDER_HEALTHS.map(ProviderHealth::as_str);
    NotificationStatus, "a delivery's status in four words", ["PENDING", "PROCESSING", "SUCCESS", "FAILED"];
    EventWord, "what happened; others may come", EVENT_KINDS.map(EventKind::as_str);
    EndpointWord, "whether an endpoint is sent events", [EndpointStatus::Active, EndpointStatus::Paused,
        EndpointStatus::Disabled].map(EndpointStatus::as_str);
}

pub fn message_id(text: &str) -> Result<Tsid, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

pub fn channel_filter(query: &mut Query) -> Result<Option<(i16, i16)>, Refusal> {
    let channel: Option<Channel> = query.parse("channel", "a channel", |text| text.parse().ok())?;
    Ok(channel.map(Lane::range_of))
}

/// A recipient to look for.
pub struct RecipientFilter {
    /// As given.
    pub to: Option<String>,
    /// As E.164, if it is a phone number, which may be written in many ways.
    pub phone: Option<String>,
    /// In small letters, if it is an e-mail address.
    pub mailbox: Option<String>,
}

/// A + that was not escaped arrives as a blank: no address holds one, and no phone number begins with one.
pub fn recipient_filter(query: &mut Query, name: &str, region: &str) -> RecipientFilter {
    let to = query.take(name);
    let Some(text) = &to else { return RecipientFilter { to, phone: None, mailbox: None } };
    let abroad = text.strip_prefix(' ').map(|rest| format!("+{rest}"));
    let phone = abroad.and_then(|text| phone::parse(&text, region).ok()).or_else(|| phone::parse(text, region).ok());
    let mailbox = Some(text.replace(' ', "+")).filter(|text| is_mailbox(text)).map(|text| canonical_mailbox(&text));
    RecipientFilter { to, phone, mailbox }
}

/// The filters of a list of messages: those the books keep, and the overall status, which is computed. `to` is the
/// recipient's name in the caller's words, `region` where its phone numbers are from.
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

/// Flat names and plain values.
pub fn metadata() -> Schema {
    let plain = [Type::String, Type::Number, Type::Boolean, Type::Null];
    let name = ObjectBuilder::new()
        .schema_type(Type::String)
        .min_length(Some(1))
        .max_length(Some(limits::METADATA_KEY_CHARS))
        .build();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("the partner's own words about the message, 4 KiB as JSON at most; numbers keep all their digits, and must be of a size that a double has"))
        .property_names(Some(name))
        .additional_properties(Some(ObjectBuilder::new().schema_type(SchemaType::Array(plain.to_vec()))))
        .into()
}
