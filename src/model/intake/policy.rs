//! The policy by which a message is read: what this installation can do, what its partner may, and as of when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::model::channel::{Channel, LengthLimit};
use crate::model::partner::Partner;

/// What this installation can do, as far as reading a message depends on it. Made once: the settings and the providers
/// of a process do not change.
#[derive(Debug, Clone, Default)]
pub struct Installation {
    /// Channels with a provider that messages may be posted to.
    pub channels: BTreeSet<Channel>,
    /// Names of Slack destinations.
    pub slack: BTreeSet<String>,
    /// The Slack destination of messages that name only the channel.
    pub slack_default: Option<String>,
    /// Limits of channels whose provider takes less than the channel's own limit.
    pub limits: BTreeMap<Channel, LengthLimit>,
    /// Channels with a provider that sends receipts.
    pub receipts: BTreeSet<Channel>,
    /// The channel that stands by for a channel where the message does not say, if the body fits there.
    pub fallbacks: BTreeMap<Channel, Channel>,
}

/// By what one message is read.
#[derive(Debug, Clone)]
pub struct IntakePolicy {
    pub installation: Arc<Installation>,
    /// Who posts.
    pub partner: Arc<Partner>,
    /// When the message was posted.
    pub now: DateTime<Utc>,
}

impl Installation {
    /// The longest body that a channel takes here; none: the channel has no limit.
    pub fn body_limit(&self, channel: Channel) -> Option<LengthLimit> {
        self.limits.get(&channel).copied().or(channel.body_limit())
    }
}

impl IntakePolicy {
    /// Whether the partner may post over a channel, and a provider serves it.
    pub fn serves(&self, channel: Channel) -> bool {
        self.installation.channels.contains(&channel) && self.partner.may_use(channel)
    }

    /// Whether a provider serves a channel that the partner may not use.
    pub fn forbids(&self, channel: Channel) -> bool {
        self.installation.channels.contains(&channel) && !self.partner.may_use(channel)
    }

    /// The channels that the partner may post over, in the channels' own order.
    pub fn served(&self) -> impl Iterator<Item = Channel> {
        self.installation.channels.iter().copied().filter(|channel| self.partner.may_use(*channel))
    }
}
