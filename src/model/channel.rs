//! Channels: how a delivery reaches its recipient.

use std::fmt;
use std::str::FromStr;

use super::cp949;
use crate::limits;

/// A way to reach a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    Email,
    Slack,
    Sms,
    Lms,
    Mms,
    KakaoAlimtalk,
    KakaoBrandMessage,
    NaverTalk,
    Rcs,
    Push,
    Inapp,
    Webhook,
}

/// Every channel. The index is part of lane numbers stored in the database, so append only.
pub const CHANNELS: [Channel; 12] = [
    Channel::Email,
    Channel::Slack,
    Channel::Sms,
    Channel::Lms,
    Channel::Mms,
    Channel::KakaoAlimtalk,
    Channel::KakaoBrandMessage,
    Channel::NaverTalk,
    Channel::Rcs,
    Channel::Push,
    Channel::Inapp,
    Channel::Webhook,
];

impl Channel {
    /// The stable word in the database and the API, such as `EMAIL`.
    pub fn as_str(self) -> &'static str {
        match self {
            Channel::Email => "EMAIL",
            Channel::Slack => "SLACK",
            Channel::Sms => "SMS",
            Channel::Lms => "LMS",
            Channel::Mms => "MMS",
            Channel::KakaoAlimtalk => "KAKAO_ALIMTALK",
            Channel::KakaoBrandMessage => "KAKAO_BRAND_MESSAGE",
            Channel::NaverTalk => "NAVER_TALK",
            Channel::Rcs => "RCS",
            Channel::Push => "PUSH",
            Channel::Inapp => "INAPP",
            Channel::Webhook => "WEBHOOK",
        }
    }

    /// The longest body of this channel: the seed's figures (S0-16 to S0-22), and Slack's own. `None`: no limit of the
    /// channel. A provider may accept less.
    pub const fn body_limit(self) -> Option<LengthLimit> {
        let (max, measure) = match self {
            Channel::Sms => (90, Measure::Cp949Bytes),
            Channel::Lms => (4000, Measure::Cp949Bytes),
            Channel::Mms => (2000, Measure::Cp949Bytes),
            Channel::Rcs => (1300, Measure::Cp949Bytes),
            Channel::KakaoAlimtalk | Channel::NaverTalk => (1000, Measure::Characters),
            Channel::KakaoBrandMessage => (1400, Measure::Characters),
            Channel::Slack => (limits::SLACK_TEXT_CHARS, Measure::Characters),
            Channel::Email | Channel::Push | Channel::Inapp | Channel::Webhook => return None,
        };
        Some(LengthLimit { max, measure })
    }

    /// The kind of address that `to` holds.
    pub fn addressed_by(self) -> AddressKind {
        match self {
            Channel::Email => AddressKind::Mailbox,
            Channel::Slack => AddressKind::Destination,
            Channel::Sms
            | Channel::Lms
            | Channel::Mms
            | Channel::KakaoAlimtalk
            | Channel::KakaoBrandMessage
            | Channel::Rcs => AddressKind::Phone,
            Channel::NaverTalk => AddressKind::UserKey,
            Channel::Inapp => AddressKind::User,
            Channel::Push | Channel::Webhook => AddressKind::Unserved,
        }
    }

    /// What to do after an attempt of unknown outcome on this channel. A provider's settings may be stricter.
    pub fn on_unknown(self) -> OnUnknown {
        match self {
            Channel::Email | Channel::Slack | Channel::Push | Channel::Inapp | Channel::Webhook => OnUnknown::Retry,
            // Paid, or read as a code: a second copy costs money or trust.
            Channel::Sms
            | Channel::Lms
            | Channel::Mms
            | Channel::KakaoAlimtalk
            | Channel::KakaoBrandMessage
            | Channel::NaverTalk
            | Channel::Rcs => OnUnknown::Hold,
        }
    }

    /// Whether its deliveries go to servers that partners chose, not to a provider that an operator chose. They have
    /// their own connections, claim loops and settlers and open no breaker, so a partner's slow or broken server delays
    /// no other channel.
    pub fn calls_partner_servers(self) -> bool {
        self == Channel::Webhook
    }

    /// Whether the hub itself is the recipient's server: the deliveries go into inboxes in its database and need no
    /// account at a vendor.
    pub fn ends_in_hub(self) -> bool {
        self == Channel::Inapp
    }

    /// Whether a delivery over this channel counts towards its message's overall status and has events. Webhook
    /// deliveries, which carry the events, do not.
    pub fn counts_towards_message(self) -> bool {
        self != Channel::Webhook
    }
}

/// The seven message types of seed 000: texts to phones and messengers.
pub const TEXT_CHANNELS: [Channel; 7] = [
    Channel::Sms,
    Channel::Lms,
    Channel::Mms,
    Channel::KakaoAlimtalk,
    Channel::KakaoBrandMessage,
    Channel::NaverTalk,
    Channel::Rcs,
];

/// The kind of address that a channel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// An e-mail address.
    Mailbox,
    /// The name of a configured destination.
    Destination,
    /// A phone number in E.164.
    Phone,
    /// A messenger's id of its user towards one business: opaque.
    UserKey,
    /// A user of the partner: the partner's own id of the user, or the hub's.
    User,
    /// No message can be posted over the channel: no adapter exists, or it carries events only.
    Unserved,
}

/// The form of an address by which two recipients of a channel are compared. E-mail addresses ignore case.
pub fn canonical_address(channel: Channel, to: &str) -> String {
    if channel.addressed_by() == AddressKind::Mailbox { canonical_mailbox(to) } else { to.to_owned() }
}

/// The form of an e-mail address for comparison: lower case. By RFC 5321 2.4 domains ignore case and local parts may be
/// case sensitive, but no mail server for people treats them so.
pub fn canonical_mailbox(mailbox: &str) -> String {
    mailbox.to_ascii_lowercase()
}

/// A length limit of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    pub max: usize,
    pub measure: Measure,
}

/// The unit in which a text is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Cp949Bytes,
    /// Unicode code points: one visible emoji may be several.
    Characters,
}

impl Measure {
    /// The length of a text in this unit.
    ///
    /// # Errors
    /// The characters that the encoding does not have, each once.
    pub fn length_of(self, text: &str) -> Result<usize, Vec<char>> {
        match self {
            Measure::Cp949Bytes => cp949::length(text),
            Measure::Characters => Ok(text.chars().count()),
        }
    }

    /// The unit's name for messages to people.
    pub fn unit(self) -> &'static str {
        match self {
            Measure::Cp949Bytes => "bytes",
            Measure::Characters => "characters",
        }
    }
}

/// What to do after an attempt of unknown outcome, from the least careful to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnUnknown {
    /// Retry: a second copy does no harm.
    Retry,
    /// Ask the provider first and retry only if it does not have the message.
    Lookup,
    /// Do not send twice: the delivery ends UNDETERMINED until a receipt proves more.
    Hold,
}

impl FromStr for OnUnknown {
    type Err = String;
    fn from_str(text: &str) -> Result<OnUnknown, String> {
        match text {
            "retry" => Ok(OnUnknown::Retry),
            "lookup" => Ok(OnUnknown::Lookup),
            "hold" => Ok(OnUnknown::Hold),
            other => Err(format!("'{other}' is none of retry, lookup, hold")),
        }
    }
}

impl FromStr for Channel {
    type Err = String;
    fn from_str(text: &str) -> Result<Channel, String> {
        let found = CHANNELS.into_iter().find(|c| c.as_str() == text);
        found.ok_or_else(|| format!("no such channel; there are {}", CHANNELS.map(Channel::as_str).join(", ")))
    }
}

impl serde::Serialize for Channel {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for Channel {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Channel, D::Error> {
        let word = <std::borrow::Cow<'de, str> as serde::Deserialize>::deserialize(d)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
