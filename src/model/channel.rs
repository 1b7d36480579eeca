//! A channel is how a delivery reaches its recipient.

use std::fmt;
use std::str::FromStr;

use super::cp949;
use crate::limits;

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

/// In the order of their numbers: a channel's index here is part of its lanes' numbers, so append only.
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

    /// The most that a body may hold: the seed's figures (S0-16 to S0-22), and Slack's own. The provider may take less.
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

    /// Who is meant by `to`.
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
            Channel::Push | Channel::Inapp | Channel::Webhook => AddressKind::Unserved,
        }
    }

    /// What to do when we asked a provider of this channel and cannot know whether it took the message. A provider's
    /// settings may be stricter.
    pub fn on_unknown(self) -> OnUnknown {
        match self {
            Channel::Email | Channel::Slack | Channel::Push | Channel::Inapp | Channel::Webhook => OnUnknown::Retry,
            // Paid, or read by a person as a code: a second copy costs money or trust.
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
    /// connections, claiming loops and settlers of their own, and open no breaker: a stranger's server that is slow or
    /// broken holds up no other channel.
    pub fn calls_partner_servers(self) -> bool {
        self == Channel::Webhook
    }

    /// Whether a delivery over this channel counts towards its message's overall status, and has events. Those that carry
    /// events do not.
    pub fn counts_towards_message(self) -> bool {
        self != Channel::Webhook
    }
}

/// The seven types of seed 000: texts to people's phones and messengers.
pub const TEXT_CHANNELS: [Channel; 7] = [
    Channel::Sms,
    Channel::Lms,
    Channel::Mms,
    Channel::KakaoAlimtalk,
    Channel::KakaoBrandMessage,
    Channel::NaverTalk,
    Channel::Rcs,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    Mailbox,
    /// The name of a configured destination.
    Destination,
    Phone,
    /// What a messenger calls its user towards one business: opaque.
    UserKey,
    /// Nothing serves the channel yet, or nothing that is posted goes over it.
    Unserved,
}

/// An address by which two recipients of a channel are told apart. A mailbox is one in whatever letters it is written.
pub fn canonical_address(channel: Channel, to: &str) -> String {
    if channel.addressed_by() == AddressKind::Mailbox { canonical_mailbox(to) } else { to.to_owned() }
}

/// An e-mail address to compare. RFC 5321 2.4: domains are the same in any letters. Local parts may be different by it, but
/// no server that serves people tells them apart.
pub fn canonical_mailbox(mailbox: &str) -> String {
    mailbox.to_ascii_lowercase()
}

/// How long a text may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LengthLimit {
    pub max: usize,
    pub measure: Measure,
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    Cp949Bytes,
    /// Code points of Unicode: what a person sees as one emoji may be several.
    Characters,
}

impl Measure {
    /// The length of a text, or the characters that cannot be sent at all.
    pub fn length_of(self, text: &str) -> Result<usize, Vec<char>> {
        match self {
            Measure::Cp949Bytes => cp949::length(text),
            Measure::Characters => Ok(text.chars().count()),
        }
    }

    pub fn unit(self) -> &'static str {
        match self {
            Measure::Cp949Bytes => "bytes",
            Measure::Characters => "characters",
        }
    }
}

/// From the least careful to the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum OnUnknown {
    /// Try again: a second copy does no harm.
    Retry,
    /// Ask the provider whether it has it, and try again only if it says no.
    Lookup,
    /// Do not send twice: UNDETERMINED until a receipt says more.
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
