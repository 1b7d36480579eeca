//! A channel is how a delivery reaches its recipient.

use std::fmt;
use std::str::FromStr;

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

    /// Whether a delivery over this channel counts towards its message's overall status.
    pub fn counts(self) -> bool {
        self != Channel::Webhook
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnUnknown {
    /// Try again: a second copy does no harm.
    Retry,
    /// Do not send twice: UNDETERMINED until a receipt says more.
    Hold,
}

impl FromStr for OnUnknown {
    type Err = String;
    fn from_str(text: &str) -> Result<OnUnknown, String> {
        match text {
            "retry" => Ok(OnUnknown::Retry),
            "hold" => Ok(OnUnknown::Hold),
            other => Err(format!("'{other}' is neither retry nor hold")),
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

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
