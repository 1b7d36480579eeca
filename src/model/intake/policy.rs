//! The policy by which a message is read: what this installation can do, what the partner may do, and the time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::model::channel::{Channel, LengthLimit};
use crate::model::partner::Partner;

/// The capabilities of this installation that matter to intake. Built once: settings and providers of a process do not
/// change.
#[derive(Debug, Clone, Default)]
pub struct Installation {
    /// Channels with a provider to which messages may be posted.
    pub channels: BTreeSet<Channel>,
    /// Names of Slack destinations.
    pub slack: BTreeSet<String>,
    /// The Slack destination of notifications that name only the channel.
    pub slack_default: Option<String>,
    /// Body limits of channels whose provider accepts less than the channel's own limit.
    pub limits: BTreeMap<Channel, LengthLimit>,
    /// Channels with a provider that sends receipts.
    pub receipts: BTreeSet<Channel>,
    /// Default fallback channel, by channel, for messages that do not name one; used if the body fits there.
    pub fallbacks: BTreeMap<Channel, Channel>,
}

/// The policy for one message.
#[derive(Debug, Clone)]
pub struct IntakePolicy {
    pub installation: Arc<Installation>,
    /// The partner that posts.
    pub partner: Arc<Partner>,
    /// When the message was posted.
    pub now: DateTime<Utc>,
}

impl Installation {
    /// The longest body of a channel here; `None`: no limit.
    pub fn body_limit(&self, channel: Channel) -> Option<LengthLimit> {
        self.limits.get(&channel).copied().or(channel.body_limit())
    }
}

impl IntakePolicy {
    /// Whether a provider serves the channel and the partner may use it.
    pub fn serves(&self, channel: Channel) -> bool {
        self.installation.channels.contains(&channel) && self.partner.may_use(channel)
    }

    /// Whether a provider serves a channel that the partner may not use.
    pub fn forbids(&self, channel: Channel) -> bool {
        self.installation.channels.contains(&channel) && !self.partner.may_use(channel)
    }

    /// The channels that are served and that the partner may use, in the order of `Channel`.
    pub fn served(&self) -> impl Iterator<Item = Channel> {
        self.installation.channels.iter().copied().filter(|channel| self.partner.may_use(*channel))
    }
}
