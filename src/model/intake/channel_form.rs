//! The forms of an entry of `channels`, by its channel, and of one of `fallback`.

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
        Channel::Push | Channel::Inapp | Channel::Webhook => &UNSERVED,
    }
}

/// An entry of `channels`.
pub static NEW_CHANNEL: Form = Form {
    name: "NewChannel",
    description: "A way out: the channel, and what it needs.",
    kind: Kind::OneOf(served_forms),
    examples: &[],
};

/// The forms of the channels that messages can be posted to, each once, in the channels' own order.
fn served_forms() -> Vec<&'static Form> {
    let mut forms: Vec<&'static Form> = Vec::new();
    for channel in CHANNELS.into_iter().filter(|c| c.addressed_by() != AddressKind::Unserved) {
        if !forms.iter().any(|known| std::ptr::eq(*known, form(channel))) {
            forms.push(form(channel));
        }
    }
    forms
}

/// The words of the channels that have this form.
fn words_of(of: &'static Form) -> Vec<&'static str> {
    let own = CHANNELS.into_iter().filter(|channel| std::ptr::eq(form(*channel), of));
    own.map(Channel::as_str).collect()
}

/// An entry of any channel, until its channel is known.
pub(super) static ANY: Form = Form {
    name: "NewChannel",
    description: "",
    kind: Kind::Object(&[Field::required("channel", Kind::Words(|| CHANNELS.map(Channel::as_str).to_vec()), "")]),
    examples: &[],
};

static EMAIL: Form = Form {
    name: "NewEmail",
    description: "E-mail. A subject is needed, here or as the message's title; a body, here or in the message, which may be \
            empty (`\"\"`).",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&EMAIL)), ""),
        Field::optional(
            "to",
            Kind::Form(&TO),
            "Addresses: `local@domain.tld`, ASCII, without a name. The same address in other letters is the same \
             recipient, and\ngets one mail, at the address as it is written first. Not given: the e-mail addresses of \
             `recipients`.",
        ),
        Field::optional("subject", SUBJECT, "One line."),
        Field::optional("body", LONG_BODY, ""),
        Field::optional("html", HTML, "Beside the plain text, as it is posted; at most 256 KiB."),
        Field::optional("fallback", FALLBACKS, "What takes its place if it does not arrive, the one after the other."),
    ]),
    examples: &[],
};

static SLACK: Form = Form {
    name: "NewSlackPost",
    description: "A post to a Slack destination.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&SLACK)), ""),
        Field::required("to", Kind::Form(&TO), "Names of destinations that the operator configured."),
        Field::optional("subject", SUBJECT, "Kept with the message; Slack has no subject."),
        Field::optional("body", LONG_BODY, "").with_length(Some(1), longest(Channel::Slack)),
        Field::optional("blocks", BLOCKS, "Block Kit, passed on as it is."),
        Field::optional("fallback", FALLBACKS, "What takes its place if it does not arrive, the one after the other."),
    ]),
    examples: &[],
};

static TEXT: Form = Form {
    name: "NewText",
    description: "A text message to a phone, without a subject. Limits of the body: SMS 90 and RCS 1,300 bytes of CP949.",
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
    description: "A text message to a phone, with a subject. Limits of the body: LMS 4,000 and MMS 2,000 bytes of CP949.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&TITLED_TEXT)), ""),
        TO_PHONES,
        Field::optional("subject", SUBJECT, "One line, at most 40 bytes of CP949. Not given: the message's title.")
            .with_length(None, Some(limits::MOBILE_SUBJECT_BYTES)),
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::Lms)),
        STANDING_BY,
    ]),
    examples: &[],
};

static KAKAO: Form = Form {
    name: "NewKakao",
    description: "A message in KakaoTalk. Limits of the body: KAKAO_ALIMTALK 1,000 and KAKAO_BRAND_MESSAGE 1,400 characters.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Words(|| words_of(&KAKAO)), ""),
        TO_PHONES,
        Field::optional(
            "templateCode",
            TEMPLATE_CODE,
            "The template that Kakao approved; the body must say what the template says.",
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
        // Not given, it would be none of the addresses that `recipients` can have.
        Field::required("to", Kind::Form(&TO), "User keys, as Naver Talk gave them to the business."),
        Field::optional("body", SHORT_BODY, "").with_length(Some(1), longest(Channel::NaverTalk)),
        STANDING_BY,
    ]),
    examples: &[],
};

/// Of channels that no provider serves yet. The document does not have it.
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

/// An entry of `fallback`. The fields of a content are read by the form of its channel, which may have fewer.
pub static FALLBACK: Form = Form {
    name: "NewFallback",
    description: "Another channel that stands by, with what that channel needs.",
    kind: Kind::Object(&[
        Field::required("channel", Kind::Word("ChannelWord", TextRule::line(64)), "Another than those before it."),
        Field::optional(
            "to",
            Kind::Form(&ADDRESS),
            "To whom. Not needed where it is addressed as the channel before it.",
        ),
        Field::optional("subject", SUBJECT, "One line, for channels that have a subject."),
        Field::optional("body", LONG_BODY, "Not given: the message's. Only e-mails take an empty one."),
        Field::optional("html", HTML, "Of an e-mail: beside the plain text, as it is posted; at most 256 KiB."),
        Field::optional("blocks", BLOCKS, "Of a post to Slack: Block Kit, passed on as it is."),
        Field::optional("templateCode", TEMPLATE_CODE, "Kakao's approved template."),
        Field::optional(
            "afterAttempts",
            Kind::Int64(1, limits::AFTER_ATTEMPTS),
            "Attempts over the channel before it, after which this one takes over.",
        ),
        Field::optional(
            "noReceiptSeconds",
            Kind::Int64(*limits::NO_RECEIPT_SECONDS.start(), *limits::NO_RECEIPT_SECONDS.end()),
            "It also takes over when no receipt came for so long: what was sent may arrive twice.",
        ),
        Field::optional(
            "onUnknown",
            Kind::Flag,
            "It also takes over when nobody knows whether it was sent: it may arrive twice.",
        ),
    ]),
    examples: &[],
};

const TO_PHONES: Field = Field::optional(
    "to",
    Kind::Form(&TO),
    "Phone numbers, E.164 or as the partner's region writes them. Not given: the phones of `recipients`.",
);

const STANDING_BY: Field =
    Field::optional("fallback", FALLBACKS, "Channels that take its place if it does not arrive, one after the other.");

const SUBJECT: Kind = Kind::Text(TextRule::line(limits::SUBJECT_CHARS));
const LONG_BODY: Kind = Kind::Text(TextRule::block(limits::TEXT_BYTES).or_empty());
/// Of channels that cannot hold as much anyway: what is longer than the channel's limit is refused with that limit.
const SHORT_BODY: Kind = Kind::Text(TextRule::block(limits::BODY_BYTES).or_empty());
const HTML: Kind = Kind::Text(TextRule::block(limits::HTML_BYTES).as_posted());
const TEMPLATE_CODE: Kind = Kind::Text(TextRule::line(limits::TEMPLATE_CODE_CHARS).as_posted());
const BLOCKS: Kind = Kind::List(&Kind::Form(&BLOCK), None, Some(limits::SLACK_BLOCKS));
const FALLBACKS: Kind = Kind::List(&Kind::Form(&FALLBACK), None, Some(limits::FALLBACKS));

static BLOCK: Form = Form {
    name: "Block",
    description: "A block of Slack's Block Kit, with whatever else its type has.",
    kind: Kind::Open(&[Field::required("type", Kind::Plain(TextRule::line(64)), "")]),
    examples: &[],
};

/// The longest body that one of the channels of a form takes.
const fn longest(channel: Channel) -> Option<usize> {
    match channel.body_limit() {
        Some(limit) => Some(limit.max),
        None => None,
    }
}
