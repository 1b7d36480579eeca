//! A lane is what a worker may take from now: channel × priority × (prompt, overflow), as one small number.

use std::str::FromStr;

use super::channel::{CHANNELS, Channel};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Priority {
    Urgent,
    #[default]
    Normal,
    Bulk,
}

pub const PRIORITIES: [Priority; 3] = [Priority::Urgent, Priority::Normal, Priority::Bulk];

impl Priority {
    pub fn as_str(self) -> &'static str {
        match self {
            Priority::Urgent => "URGENT",
            Priority::Normal => "NORMAL",
            Priority::Bulk => "BULK",
        }
    }

    /// Of a hundred deliveries claimed while every class has more than enough, how many are of this one. What a class
    /// leaves goes to the others, so an idle class costs nothing and a busy one starves nobody.
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

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Lane(pub i16);

impl Lane {
    pub fn new(channel: Channel, priority: Priority, overflow: bool) -> Lane {
        // Both positions are small: they fit.
        let channel = CHANNELS.iter().position(|&c| c == channel).unwrap_or(0) as i16;
        let priority = PRIORITIES.iter().position(|&p| p == priority).unwrap_or(0) as i16;
        Lane(channel * 6 + priority * 2 + i16::from(overflow))
    }

    /// A lane without a channel here is that of a newer program's channel, and counts as posted, not as a webhook.
    pub fn channel(self) -> Channel {
        CHANNELS.get(usize::from(self.0.unsigned_abs()) / 6).copied().unwrap_or(Channel::Email)
    }

    pub fn priority(self) -> Priority {
        PRIORITIES[(usize::from(self.0.unsigned_abs()) % 6) / 2]
    }

    /// Of the pair of lanes that differ in nothing else, the prompt one.
    pub fn prompt(self) -> Lane {
        Lane(self.0 & !1)
    }

    /// … and the overflow.
    pub fn overflow(self) -> Lane {
        Lane(self.0 | 1)
    }

    pub fn is_overflow(self) -> bool {
        self.0 % 2 == 1
    }

    /// Where an event waits that is as urgent, and gives way, as a message of this priority and overflow.
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
    fn a_channels_lanes_lie_together() {
        for channel in CHANNELS {
            let lanes = Lane::all_of(&[channel]);
            let ends = (lanes.iter().min().unwrap().0, lanes.iter().max().unwrap().0);
            assert_eq!(Lane::range_of(channel), ends);
        }
        assert_eq!(Lane::range_of(Channel::Webhook), (66, 71), "as indexes and statements have it");
    }

    #[test]
    fn a_lane_says_what_it_was_made_of() {
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
