//! The forms of an entry of `channels`, by its channel, and of an entry of `fallback`.

use super::recipient::{ADDRESS, TO};
use crate::limits;
use crate::model::channel::{AddressKind, CHANNELS, Channel};
use crate::model::form::{Field, Form, Kind};
use crate::model::json::TextRule;

/// The form of an entry of this channel.
pub fn form(channel: Channel) -> &'static Form {
    match channel {
        Channel::Email => &EMAIL,
        Channel::Slack => &SLACK,
        Channel::Sms | Channel::Rcs => &TEXT,
        Channel::Lms | Channel::Mms => &TITLED_TEXT,
        Channel::KakaoAlimtalk | Channel::KakaoBrandMessage => &KAKAO,
        Channel::NaverTalk => &NAVER_TALK,
        Channel::Inapp => &IN_APP,
        Channel::Push | Channel::Webhook => &UNSERVED,
    }
}

/// An entry of `channels`.
pub static NEW_CHANNEL: Form = Form {
    name: "NewChannel",
    description: "A channel and what is sent over it.",
    kind: Kind::OneOf(served_forms),
    examples: &[],
};

/// The forms of the channels that messages can be posted to, each once, in the order of `CHANNELS`.
fn served_forms() -> Vec<&'static Form> {
    let mut forms: Vec<&'static Form> = Vec::new();
    for channel in CHANNELS.into_iter().filter(|c| c.addressed_by() != AddressKind::Unserved) {
        if !forms.iter().any(|known| std::ptr::eq(*known, form(channel))) {
            forms.push(form(channel));
        }
    }
    forms
}

/// The words of the channels with this form.
fn words_of(of: &'static Form) -> Vec<&'static str> {
    let own = CHANNELS.into_iter().filter(|channel| std::ptr::eq(form(*channel), of));
    own.map(Channel::as_str).collect()
}

/// The form of an entry until its channel is read.
pub(super) static ANY: Form = Form {
    name: "NewChannel",
    description: "",
    kind: Kind::Object(&[Field::required("channel", Kind::Words(|| CHANNELS.map(Channel::as_str).to_vec()), "")]),
    examples: &[],
};

static EMAIL: Form = Form {
    name: "NewEmail",
    description: "E-mail. It needs a subject, here or as the message's title, and a body, here or in the message; the \
                  body may be empty (`\"\"`).",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&EMAIL)), ""),
        Field::optional(
            "to",
            Kind::Form(&TO),
            "Addresses: `local@domain.tld`, ASCII, without a display name. Addresses that differ only in case are the \
             same recipient,\nwho gets one mail, at the first spelling. Default: the e-mail addresses of \
             `recipients`.",
        ),
        Field::optional("subject", SUBJECT, "One line."),
        Field::optional("body", LONG_BODY, ""),
        Field::optional("html", HTML, "HTML part beside the plain text, sent as posted; at most 256 KiB."),
        Field::optional("fallback", FALLBACKS, "Fallbacks, tried one after the other if it does not arrive."),
    ]),
    examples: &[],
};

static SLACK: Form = Form {
    name: "NewSlackPost",
    description: "A post to a Slack destination.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&SLACK)), ""),
        Field::required("to", Kind::Form(&TO), "Names of Slack destinations that the operator configured."),
        Field::optional("subject", SUBJECT, "Sent in bold above the body."),
        Field::optional("body", LONG_BODY, "").with_length(Some(1), longest(Channel::Slack)),
        Field::optional("blocks", BLOCKS, "Block Kit, sent as posted."),
        Field::optional("fallback", FALLBACKS, "Fallbacks, tried one after the other if it does not arrive."),
    ]),
    examples: &[],
};

static TEXT: Form = Form {
    name: "NewText",
    description: "A text message to a phone, without a subject. Limits of the body: SMS 90 bytes, RCS 1,300 bytes \
                  (CP949).",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&TEXT)), ""),
        TO_PHONES,
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::Rcs)),
        STANDING_BY,
    ]),
    examples: &[],
};

static TITLED_TEXT: Form = Form {
    name: "NewTitledText",
    description: "A text message to a phone, with a subject. Limits of the body: LMS 4,000 bytes, MMS 2,000 bytes \
                  (CP949).",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&TITLED_TEXT)), ""),
        TO_PHONES,
        Field::optional("subject", SUBJECT, "One line, at most 40 bytes in CP949. Default: the message's title.")
            .with_length(None, Some(limits::MOBILE_SUBJECT_BYTES)),
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::Lms)),
        STANDING_BY,
    ]),
    examples: &[],
};

static KAKAO: Form = Form {
    name: "NewKakao",
    description: "A message in KakaoTalk. Limits of the body: KAKAO_ALIMTALK 1,000 characters, KAKAO_BRAND_MESSAGE \
                  1,400 characters.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&KAKAO)), ""),
        TO_PHONES,
        Field::optional(
            "templateCode",
            TEMPLATE_CODE,
            "Code of the template approved by Kakao; the body must match the template.",
        ),
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::KakaoBrandMessage)),
        STANDING_BY,
    ]),
    examples: &[],
};

static NAVER_TALK: Form = Form {
    name: "NewNaverTalk",
    description: "A message in Naver Talk; at most 1,000 characters.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&NAVER_TALK)), ""),
        // Required: `recipients` has no address of this kind.
        Field::required("to", Kind::Form(&TO), "User keys that Naver Talk assigned for the business."),
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::NaverTalk)),
        STANDING_BY,
    ]),
    examples: &[],
};

static IN_APP: Form = Form {
    name: "NewInApp",
    description: "An item in a user's inbox. Limit of the body: 65,536 bytes of UTF-8.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&IN_APP)), ""),
        Field::optional(
            "to",
            Kind::Form(&TO),
            "Users, each by the partner's own id or by the hub's. An own id that is not known yet makes the user.\n\
             Default: the ids of `recipients`.",
        ),
        Field::optional("subject", SUBJECT, "The item's title, one line. Default: the message's title."),
        Field::optional("body", LONG_BODY, "").with_length(Some(1), Some(limits::TEXT_BYTES)),
        Field::optional("actionUrl", LINK, ACTION_URL),
        Field::optional("imageUrl", LINK, IMAGE_URL),
        Field::optional("category", LABEL, CATEGORY),
        Field::optional("severity", Kind::Words(severities), SEVERITY),
        STANDING_BY,
    ]),
    examples: &[],
};

const ACTION_URL: &str = "INAPP only: where the item leads, an https or http URL.";
const IMAGE_URL: &str = "INAPP only: a picture beside the item, an https URL.";
const CATEGORY: &str = "INAPP only: the partner's own word, by which a client may sort items.";
const SEVERITY: &str = "INAPP only: how much the item matters.";
const LINK: Kind = Kind::Text(TextRule::line(limits::LINK_CHARS).as_posted());
const LABEL: Kind = Kind::Text(TextRule::line(limits::CATEGORY_CHARS).as_posted());

/// The words of an item's `severity`.
pub const SEVERITIES: [&str; 3] = ["INFO", "WARNING", "CRITICAL"];

fn severities() -> Vec<&'static str> {
    SEVERITIES.to_vec()
}

/// The form of channels that cannot be posted to yet. It is not in the document.
static UNSERVED: Form = Form {
    name: "NewUnserved",
    description: "",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&UNSERVED)), ""),
        Field::optional("to", Kind::Form(&TO), ""),
        Field::optional("body", SHORT_BODY, ""),
        STANDING_BY,
    ]),
    examples: &[],
};

/// An entry of `fallback`. Fields of the content are read by the form of its channel, which may have fewer.
pub static FALLBACK: Form = Form {
    name: "NewFallback",
    description: "A fallback: another channel and what is sent over it.",
    kind: Kind::Object(&[
        Field::required(
            "channel",
            Kind::Word("ChannelWord", TextRule::line(64)),
            "A channel that was not used before it.",
        ),
        Field::optional(
            "to",
            Kind::Form(&ADDRESS),
            "The recipient. Not needed if the channel has the same kind of address as the entry's channel.",
        ),
        Field::optional("subject", SUBJECT, "One line, for channels that have a subject."),
        Field::optional("body", LONG_BODY, "Default: the message's body. Only an e-mail may have an empty one."),
        Field::optional("html", HTML, "E-mail only: HTML part beside the plain text, sent as posted; at most 256 KiB."),
        Field::optional("blocks", BLOCKS, "Slack only: Block Kit, sent as posted."),
        Field::optional("templateCode", TEMPLATE_CODE, "Kakao only: code of the approved template."),
        Field::optional("actionUrl", LINK, ACTION_URL),
        Field::optional("imageUrl", LINK, IMAGE_URL),
        Field::optional("category", LABEL, CATEGORY),
        Field::optional("severity", Kind::Words(severities), SEVERITY),
        Field::optional(
            "afterAttempts",
            Kind::Int64(1, limits::AFTER_ATTEMPTS),
            "Attempts over the previous channel before this one is used.",
        ),
        Field::optional(
            "noReceiptSeconds",
            Kind::Int64(*limits::NO_RECEIPT_SECONDS.start(), *limits::NO_RECEIPT_SECONDS.end()),
            "Also use it when no receipt came within this many seconds. The message may then arrive twice.",
        ),
        Field::optional(
            "onUnknown",
            Kind::Flag,
            "Also use it when the outcome is unknown. The message may then arrive twice.",
        ),
    ]),
    examples: &[],
};

const TO_PHONES: Field = Field::optional(
    "to",
    Kind::Form(&TO),
    "Phone numbers, in E.164 or in the notation of the partner's region. Default: the phones of `recipients`.",
);

const STANDING_BY: Field =
    Field::optional("fallback", FALLBACKS, "Fallbacks, tried one after the other if it does not arrive.");

const SUBJECT: Kind = Kind::Text(TextRule::line(limits::SUBJECT_CHARS));
const LONG_BODY: Kind = Kind::Text(TextRule::block(limits::TEXT_BYTES).or_empty());
/// For channels whose limit is lower anyway: a longer text is refused with that limit.
const SHORT_BODY: Kind = Kind::Text(TextRule::block(limits::BODY_BYTES).or_empty());
const HTML: Kind = Kind::Text(TextRule::block(limits::HTML_BYTES).as_posted());
const TEMPLATE_CODE: Kind = Kind::Text(TextRule::line(limits::TEMPLATE_CODE_CHARS).as_posted());
const BLOCKS: Kind = Kind::List(&Kind::Form(&BLOCK), None, Some(limits::SLACK_BLOCKS));
const FALLBACKS: Kind = Kind::List(&Kind::Form(&FALLBACK), None, Some(limits::FALLBACKS));

static BLOCK: Form = Form {
    name: "Block",
    description: "A block of Slack's Block Kit; further fields depend on its type.",
    kind: Kind::Open(&[Field::required("type", Kind::Plain(TextRule::line(64)), "")]),
    examples: &[],
};

/// The longest body of the channel, for the document.
const fn longest(channel: Channel) -> Option<usize> {
    match channel.body_limit() {
        Some(limit) => Some(limit.max),
        None => None,
    }
}
