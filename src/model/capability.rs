//! What a provider can do and on which terms it is used, as data, so that no code outside an adapter depends on a
//! vendor.

use std::time::Duration;

use super::channel::{Channel, OnUnknown};
use super::limit::RateLimit;
use super::retry::Profile;

/// What a provider can do on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    pub channel: Channel,
    /// The longest body it accepts, in the unit of the channel's limit, if shorter than the channel's.
    pub body: Option<usize>,
    pub batch: Batch,
    /// What to do when the outcome of a call is unknown.
    pub on_unknown: OnUnknown,
    /// Time after acceptance within which a receipt comes, if one comes at all. `None`: the provider sends no receipts,
    /// so its answer is final.
    pub receipt_within: Option<Duration>,
    /// Whether its receipts repeat our attempt reference. False: they carry the provider's own id alone, which is then
    /// stored.
    pub repeats_reference: bool,
}

impl Capability {
    /// One message at a time, no receipts, the channel's own behaviour after unknown outcomes.
    pub fn of(channel: Channel) -> Capability {
        Capability {
            channel,
            body: None,
            batch: Batch::One,
            on_unknown: channel.on_unknown(),
            receipt_within: None,
            repeats_reference: true,
        }
    }
}

/// How many messages one request may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    /// One message.
    One,
    /// Up to this many recipients of the same content.
    SameContent(usize),
    /// Up to this many messages with any content.
    Any(usize),
}

/// The operator's settings for a provider account.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Its share of the channel's traffic relative to other accounts; 0: only if no other account can be used.
    pub weight: u32,
    /// Its rate limit, for all processes together.
    pub limit: Option<RateLimit>,
    pub profile: Option<Profile>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { weight: 1, limit: None, profile: None }
    }
}
