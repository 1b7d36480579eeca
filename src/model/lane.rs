//! A lane is the unit that a worker claims from: channel × priority × (prompt, overflow), as one small number.

use std::str::FromStr;

use super::channel::{CHANNELS, Channel};

/// The priority class of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    Urgent,
    #[default]
    Normal,
    Bulk,
}

/// Every priority, the most urgent first. The index is part of lane numbers stored in the database.
pub const PRIORITIES: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::Bulk];

impl Priority {
    /// The stable word in the API: `URGENT`, `NORMAL` or `BULK`.
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Urgent => "URGENT",
            Priority::Normal => "NORMAL",
            Priority::Bulk => "BULK",
        }
    }

    /// The percentage of claimed deliveries that belong to this class while every class has enough. A class that has
    /// less leaves the rest to the others.
    pub fn share_percent(self) -> u32 {
        match self {
            Priority::Urgent => 60,
            Priority::Normal => 30,
            Priority::Bulk => 10,
        }
    }
}

impl FromStr for Priority {
    type Err = ();
    fn from_str(text: &str) -> Result<Priority, ()> {
        PRIORITIES.into_iter().find(|p| p.as_str() == text).ok_or(())
    }
}

/// A lane's number: channel index × 6 + priority index × 2 + (1 for overflow).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Lane(pub i16);

impl Lane {
    /// The lane of a channel and priority; `overflow`: the second lane of the pair (see `model::fairness`).
    pub fn new(channel: Channel, priority: Priority, overflow: bool) -> Lane {
        // Both indices are small enough.
        let channel = CHANNELS.iter().position(|&c| c == channel).unwrap_or(0) as i16;
        let priority = PRIORITIES.iter().position(|&p| p == priority).unwrap_or(0) as i16;
        Lane(channel * 6 + priority * 2 + i16::from(overflow))
    }

    /// The channel of the lane. A number unknown to this program belongs to a newer program's channel and counts as
    /// EMAIL: as posted, not as a webhook.
    pub fn channel(self) -> Channel {
        CHANNELS.get(usize::from(self.0.unsigned_abs()) / 6).copied().unwrap_or(Channel::Email)
    }

    /// The priority of the lane.
    pub fn priority(self) -> Priority {
        PRIORITIES[(usize::from(self.0.unsigned_abs()) % 6) / 2]
    }

    /// The prompt lane of the same channel and priority.
    pub fn prompt(self) -> Lane {
        Lane(self.0 & !1)
    }

    /// The overflow lane of the same channel and priority.
    pub fn overflow(self) -> Lane {
        Lane(self.0 | 1)
    }

    /// Whether this is an overflow lane.
    pub fn is_overflow(self) -> bool {
        self.0 % 2 == 1
    }

    /// The WEBHOOK lane of an event about a message of this priority and overflow.
    pub fn of_events(priority: Priority, overflow: bool) -> Lane {
        Lane::new(Channel::Webhook, priority, overflow)
    }

    /// The first and the last lane of a channel.
    pub fn range_of(channel: Channel) -> (i16, i16) {
        (Lane::new(channel, Priority::Urgent, false).0, Lane::new(channel, Priority::Bulk, true).0)
    }

    /// All lanes of these channels, in the order a claim visits them: urgent first, prompt before overflow.
    pub fn all_of(channels: &[Channel]) -> Vec<Lane> {
        let mut lanes = Vec::new();
        for overflow in [false, true] {
            for priority in PRIORITIES {
                lanes.extend(channels.iter().map(|&c| Lane::new(c, priority, overflow)));
            }
        }
        lanes
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = if self.is_overflow() { "OVERFLOW" } else { "PROMPT" };
        write!(f, "{}.{}.{kind}", self.channel(), self.priority().as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_a_channel_are_contiguous() {
        for channel in CHANNELS {
            let lanes = Lane::all_of(&[channel]);
            let ends = (lanes.iter().min().unwrap().0, lanes.iter().max().unwrap().0);
            assert_eq!(Lane::range_of(channel), ends);
        }
        assert_eq!(Lane::range_of(Channel::Webhook), (66, 71), "as indexes and statements have it");
    }

    #[test]
    fn lane_returns_its_channel_priority_and_overflow() {
        for channel in CHANNELS {
            for priority in PRIORITIES {
                for overflow in [false, true] {
                    let lane = Lane::new(channel, priority, overflow);
                    assert_eq!((lane.channel(), lane.priority(), lane.is_overflow()), (channel, priority, overflow));
                    assert_eq!(lane.prompt(), Lane::new(channel, priority, false));
                    assert_eq!(lane.overflow(), Lane::new(channel, priority, true));
                }
            }
        }
    }
}
