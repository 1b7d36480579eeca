//! What a provider can do, and on which terms it is used: data, so that the rest of the hub asks a table and not a vendor.

use std::time::Duration;

use super::channel::{Channel, OnUnknown};
use super::limit::RateLimit;
use super::retry::Profile;

/// What a provider can do on one channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability {
    pub channel: Channel,
    /// The longest body it takes, in the unit of the channel's limit, where that is less than the channel's.
    pub body: Option<usize>,
    pub batch: Batch,
    /// What to do when the outcome of a call is unknown.
    pub on_unknown: OnUnknown,
    /// How long after it took something a receipt comes, if one comes at all: after that nobody knows what became of it.
    /// None: its answer is its last word.
    pub receipt_within: Option<Duration>,
    /// All that it tells later names the attempt as we did; else by its own id alone, which is kept for that.
    pub repeats_reference: bool,
}

impl Capability {
    /// One at a time, with the answer as the last word.
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

/// What may go in one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Batch {
    One,
    /// So many recipients of the same content.
    SameContent(usize),
    /// So many, whatever they say.
    Any(usize),
}

/// On which terms a provider is used here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Its share of a channel's traffic beside other providers' of that channel; 0: only when no other can.
    pub weight: u32,
    /// What it may be asked in a time, by all processes together.
    pub limit: Option<RateLimit>,
    pub profile: Option<Profile>,
}

impl Default for Terms {
    fn default() -> Terms {
        Terms { weight: 1, limit: None, profile: None }
    }
}
