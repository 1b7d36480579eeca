//! What callers post, as the document tells it. These are never made: the strict reader in `model::intake` reads bodies,
//! finds every fault at once, and knows rules that a schema cannot tell (a subject that only e-mail needs, destinations
//! that an operator configured). Lengths that the reader counts in bytes are told in characters, the most there can be.

#![expect(dead_code, reason = "only described, never made")]

use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};

use super::shape::{ChannelWord, PriorityWord, metadata};

/// The header that means the same as `clientMsgId`.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub struct Key {
    /// The same as `clientMsgId`, for clients that have no place for it in the body.
    #[param(rename = "Idempotency-Key", min_length = 1, max_length = 128, pattern = r"^[!-~]+$")]
    key: Option<String>,
}

/// A message: what, to whom, over which channels, when.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schema(examples(
    json!({
        "clientMsgId": "order-2026-1234-paid", "type": "ORDER_COMPLETED", "title": "Paid", "body": "Thank you.",
        "channels": [
            {"channel": "EMAIL", "to": "kim@example.com", "html": "<p>Thank you.</p>"},
            {"channel": "SLACK", "to": "ops", "body": "Order 1234 is paid."},
        ],
        "metadata": {"orderId": "1234"},
    }),
    json!({
        "type": "NEWS", "priority": "BULK", "title": "News", "body": "There is news.",
        "recipients": [{"id": "u-1", "email": "kim@example.com"}, {"id": "u-2", "email": "lee@example.com"}],
        "channels": [{"channel": "EMAIL"}],
    }),
    json!({
        "type": "SHIPPED", "body": "Your parcel is on its way.",
        "channels": [
            {"channel": "KAKAO_ALIMTALK", "to": "010-1234-5678", "templateCode": "SHIP_01", "fallback": [{"channel": "SMS"}]},
        ],
    }),
))]
pub struct NewMessage {
    /// The partner's own key, compared as it is posted. The same key with the same message is stored once; with another message it is refused.
    #[schema(min_length = 1, max_length = 128)]
    client_msg_id: Option<String>,
    /// The partner's own word for this kind of message.
    #[serde(rename = "type")]
    #[schema(max_length = 64, pattern = r"^[A-Za-z0-9_.:-]+$", examples("ORDER_COMPLETED"))]
    kind: String,
    /// NORMAL when not given.
    priority: Option<PriorityWord>,
    /// The subject of e-mails that have none of their own. One line.
    #[schema(min_length = 1, max_length = 250)]
    title: Option<String>,
    /// The text for channels that have none of their own; at most 64 KiB. Kept, counted and sent in Unicode's composed form
    /// (NFC), with LF at the end of lines. Only e-mails take one that is empty (`""`) or blank: their subject says all.
    #[schema(min_length = 0, max_length = 65536)]
    body: Option<String>,
    /// Each entry is a way out; at most 10,000 deliveries in all.
    #[schema(min_items = 1, max_items = 50)]
    channels: Vec<NewChannel>,
    /// Whom channels without `to` reach.
    recipients: Option<Vec<NewRecipient>>,
    /// Not before this time, at most 60 days ahead; RFC 3339 with offset.
    #[schema(format = DateTime)]
    scheduled_at: Option<String>,
    /// Worthless from this time on; RFC 3339 with offset, after `scheduledAt`.
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(schema_with = metadata, required = false)]
    metadata: Map<String, Value>,
}

/// A way out: the channel, and what it needs.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum NewChannel {
    Email(NewEmail),
    Slack(NewSlackPost),
    Text(NewText),
    TitledText(NewTitledText),
    Kakao(NewKakao),
    NaverTalk(NewNaverTalk),
}

/// E-mail. A subject is needed, here or as the message's title; a body, here or in the message, which may be empty (`""`).
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewEmail {
    #[schema(inline)]
    channel: EmailWord,
    /// Addresses: `local@domain.tld`, ASCII, without a name. The same address in other letters is the same recipient, and
    /// gets one mail, at the address as it is written first. Not given: the e-mail addresses of `recipients`.
    to: Option<To>,
    /// One line.
    #[schema(min_length = 1, max_length = 250)]
    subject: Option<String>,
    #[schema(min_length = 0, max_length = 65536)]
    body: Option<String>,
    /// Beside the plain text, as it is posted; at most 256 KiB.
    #[schema(min_length = 1, max_length = 262144)]
    html: Option<String>,
    /// What takes its place if it does not arrive, the one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// A post to a Slack destination.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSlackPost {
    #[schema(inline)]
    channel: SlackWord,
    /// Names of destinations that the operator configured.
    to: To,
    /// Kept with the message; Slack has no subject.
    #[schema(min_length = 1, max_length = 250)]
    subject: Option<String>,
    #[schema(min_length = 1, max_length = 40000)]
    body: Option<String>,
    /// Block Kit, passed on as it is.
    #[schema(max_items = 50)]
    blocks: Option<Vec<Block>>,
    /// What takes its place if it does not arrive, the one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// A text message to a phone, without a subject. Limits of the body: SMS 90 and RCS 1,300 bytes of CP949.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewText {
    #[schema(inline)]
    channel: TextWord,
    /// Phone numbers, E.164 or as the partner's region writes them. Not given: the phones of `recipients`.
    to: Option<To>,
    #[schema(min_length = 1, max_length = 1300)]
    body: Option<String>,
    /// Channels that take its place if it does not arrive, one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// A text message to a phone, with a subject. Limits of the body: LMS 4,000 and MMS 2,000 bytes of CP949.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTitledText {
    #[schema(inline)]
    channel: TitledTextWord,
    /// Phone numbers, E.164 or as the partner's region writes them. Not given: the phones of `recipients`.
    to: Option<To>,
    /// One line, at most 40 bytes of CP949. Not given: the message's title.
    #[schema(min_length = 1, max_length = 40)]
    subject: Option<String>,
    #[schema(min_length = 1, max_length = 4000)]
    body: Option<String>,
    /// Channels that take its place if it does not arrive, one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// A message in KakaoTalk. Limits of the body: KAKAO_ALIMTALK 1,000 and KAKAO_BRAND_MESSAGE 1,400 characters.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKakao {
    #[schema(inline)]
    channel: KakaoWord,
    /// Phone numbers, E.164 or as the partner's region writes them. Not given: the phones of `recipients`.
    to: Option<To>,
    /// The template that Kakao approved; the body must say what the template says.
    #[schema(min_length = 1, max_length = 64)]
    template_code: Option<String>,
    #[schema(min_length = 1, max_length = 1400)]
    body: Option<String>,
    /// Channels that take its place if it does not arrive, one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// A message in Naver Talk; at most 1,000 characters.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNaverTalk {
    #[schema(inline)]
    channel: NaverTalkWord,
    /// User keys, as Naver Talk gave them to the business.
    to: To,
    #[schema(min_length = 1, max_length = 1000)]
    body: Option<String>,
    /// Channels that take its place if it does not arrive, one after the other.
    #[schema(max_items = 2)]
    fallback: Option<Vec<NewFallback>>,
}

/// Another channel that stands by, with what that channel needs.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewFallback {
    /// Another than those before it.
    channel: ChannelWord,
    /// To whom. Not needed where it is addressed as the channel before it.
    to: Option<Address>,
    /// One line, for channels that have a subject.
    #[schema(min_length = 1, max_length = 250)]
    subject: Option<String>,
    /// Not given: the message's. Only e-mails take an empty one.
    #[schema(min_length = 0, max_length = 65536)]
    body: Option<String>,
    /// Kakao's approved template.
    #[schema(min_length = 1, max_length = 64)]
    template_code: Option<String>,
    /// Attempts over the channel before it, after which this one takes over.
    #[schema(minimum = 1, maximum = 10)]
    after_attempts: Option<i64>,
    /// It also takes over when no receipt came for so long: what was sent may arrive twice.
    #[schema(minimum = 10, maximum = 259200)]
    no_receipt_seconds: Option<i64>,
    /// It also takes over when nobody knows whether it was sent: it may arrive twice.
    on_unknown: Option<bool>,
}

#[derive(ToSchema)]
pub enum EmailWord {
    #[serde(rename = "EMAIL")]
    Email,
}

#[derive(ToSchema)]
pub enum SlackWord {
    #[serde(rename = "SLACK")]
    Slack,
}

#[derive(ToSchema)]
pub enum TextWord {
    #[serde(rename = "SMS")]
    Sms,
    #[serde(rename = "RCS")]
    Rcs,
}

#[derive(ToSchema)]
pub enum TitledTextWord {
    #[serde(rename = "LMS")]
    Lms,
    #[serde(rename = "MMS")]
    Mms,
}

#[derive(ToSchema)]
pub enum KakaoWord {
    #[serde(rename = "KAKAO_ALIMTALK")]
    Alimtalk,
    #[serde(rename = "KAKAO_BRAND_MESSAGE")]
    BrandMessage,
}

#[derive(ToSchema)]
pub enum NaverTalkWord {
    #[serde(rename = "NAVER_TALK")]
    NaverTalk,
}

/// One recipient, or several.
#[derive(ToSchema)]
#[serde(untagged)]
pub enum To {
    One(Address),
    Several(Addresses),
}

#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 254)]
pub struct Address(String);

#[derive(ToSchema)]
#[schema(min_items = 1, max_items = 10000)]
pub struct Addresses(Vec<Address>);

/// A block of Slack's Block Kit, with whatever else its type has.
#[derive(ToSchema)]
pub struct Block {
    #[serde(rename = "type")]
    kind: String,
}

/// A person, with the addresses channels may need.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewRecipient {
    /// The partner's own name for the person; not stored.
    #[schema(min_length = 1, max_length = 128)]
    id: Option<String>,
    #[schema(min_length = 1, max_length = 254)]
    email: Option<String>,
    /// A phone number, E.164 or as the partner's region writes it.
    #[schema(min_length = 1, max_length = 30)]
    phone: Option<String>,
}

/// Messages that are stored together.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({"messages": [
    {"clientMsgId": "a-1", "type": "A", "body": "one", "channels": [{"channel": "SLACK", "to": "ops"}]},
    {"clientMsgId": "a-2", "type": "A", "body": "two", "channels": [{"channel": "SLACK", "to": ["ops"]}]},
]})))]
pub struct NewBatch {
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<NewMessage>,
}

/// The short form of seed 003, or a message in full.
#[derive(ToSchema)]
#[serde(untagged)]
#[schema(examples(json!({
    "type": "ORDER_COMPLETED", "title": "Paid", "message": "Thank you.", "recipient": "kim@example.com",
    "channels": ["EMAIL", "SLACK"],
})))]
pub enum NewNotification {
    Short(ShortNotification),
    Full(NewMessage),
}

/// A title and a text to one recipient, by e-mail, to the operators' Slack destination, or both.
#[derive(ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ShortNotification {
    /// The partner's own key, as in a message.
    #[schema(min_length = 1, max_length = 128)]
    client_msg_id: Option<String>,
    /// The partner's own word for this kind of message.
    #[serde(rename = "type")]
    #[schema(max_length = 64, pattern = r"^[A-Za-z0-9_.:-]+$")]
    kind: String,
    /// NORMAL when not given.
    priority: Option<PriorityWord>,
    /// One line; e-mail needs it.
    #[schema(min_length = 1, max_length = 250)]
    title: Option<String>,
    /// Empty only where all goes by e-mail.
    #[schema(min_length = 0, max_length = 65536)]
    message: String,
    /// An e-mail address; e-mail needs it.
    #[schema(min_length = 1, max_length = 254)]
    recipient: Option<String>,
    #[schema(min_items = 1, max_items = 50)]
    channels: Vec<ShortChannel>,
    #[schema(format = DateTime)]
    scheduled_at: Option<String>,
    #[schema(format = DateTime)]
    expires_at: Option<String>,
    #[schema(schema_with = metadata, required = false)]
    metadata: Map<String, Value>,
}

#[derive(ToSchema)]
pub enum ShortChannel {
    #[serde(rename = "EMAIL")]
    Email,
    #[serde(rename = "SLACK")]
    Slack,
}
