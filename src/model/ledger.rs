//! The ledger: what was accepted, and how it ended, to the message.

use super::channel::Channel;
use super::delivery::Status;
use super::message::OverallStatus;

/// One delivery of a message, as far as its ending is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ending {
    /// The delivery for which a fallback was made, if any.
    pub chain: Option<i16>,
    pub status: Status,
    /// Whether an attempt was made.
    pub is_tried: bool,
}

/// The status of a message with these deliveries over channels other than WEBHOOK.
pub fn message_status(deliveries: &[Ending]) -> OverallStatus {
    // The channel only tells webhooks, of which there are none here.
    OverallStatus::of(deliveries.iter().map(|d| (d.chain, Channel::Email, d.status, i16::from(d.is_tried))))
}

/// Messages by their status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MessageCounts {
    /// PENDING or PROCESSING.
    pub in_flight: u64,
    pub completed: u64,
    pub partial: u64,
    pub failed: u64,
    pub canceled: u64,
}

impl MessageCounts {
    /// Counts messages of a status.
    pub fn add(&mut self, status: OverallStatus, messages: u64) {
        *match status {
            OverallStatus::Pending | OverallStatus::Processing => &mut self.in_flight,
            OverallStatus::Completed => &mut self.completed,
            OverallStatus::Partial => &mut self.partial,
            OverallStatus::Failed => &mut self.failed,
            OverallStatus::Canceled => &mut self.canceled,
        } += messages;
    }

    /// All messages.
    pub fn sum(&self) -> u64 {
        self.in_flight + self.completed + self.partial + self.failed + self.canceled
    }
}

/// Deliveries by their status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeliveryCounts {
    /// SCHEDULED, PENDING or PROCESSING.
    pub in_flight: u64,
    pub sent: u64,
    pub delivered: u64,
    pub failed: u64,
    pub expired: u64,
    pub canceled: u64,
    pub undetermined: u64,
}

impl DeliveryCounts {
    /// Counts deliveries of a status.
    pub fn add(&mut self, status: Status, deliveries: u64) {
        *match status {
            Status::Scheduled | Status::Pending | Status::Processing => &mut self.in_flight,
            Status::Sent => &mut self.sent,
            Status::Delivered => &mut self.delivered,
            Status::Failed => &mut self.failed,
            Status::Expired => &mut self.expired,
            Status::Canceled => &mut self.canceled,
            Status::Undetermined => &mut self.undetermined,
        } += deliveries;
    }

    /// All deliveries.
    pub fn sum(&self) -> u64 {
        self.in_flight + self.sent + self.delivered + self.failed + self.expired + self.canceled + self.undetermined
    }
}

/// The balance of a partner and day. Messages and deliveries are counted each from its own rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Messages that were accepted.
    pub accepted: u64,
    /// Messages by the status that their deliveries give; those without deliveries have none.
    pub messages: MessageCounts,
    pub deliveries: DeliveryCounts,
    /// Accepted messages that have no deliveries: lost.
    pub without_deliveries: u64,
    /// Messages that have deliveries, but were not accepted, or by another partner.
    pub without_message: u64,
}

impl Balance {
    /// Counts messages with the same deliveries. `is_accepted`: there are rows of the messages; `deliveries`: rows of
    /// their deliveries, none where there are none.
    pub fn add(&mut self, is_accepted: bool, deliveries: &[Ending], messages: u64) {
        if is_accepted {
            self.accepted += messages;
        } else {
            self.without_message += messages;
        }
        if deliveries.is_empty() {
            self.without_deliveries += messages;
            return;
        }
        self.messages.add(message_status(deliveries), messages);
        for delivery in deliveries {
            self.deliveries.add(delivery.status, messages);
        }
    }

    /// Whether every accepted message has an ending or is in flight, and nothing else has.
    pub fn is_balanced(&self) -> bool {
        self.without_deliveries == 0 && self.without_message == 0 && self.accepted == self.messages.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ending(status: Status) -> Ending {
        Ending { chain: None, status, is_tried: true }
    }

    #[test]
    fn balance_holds_until_a_side_is_missing() {
        let mut balance = Balance::default();
        balance.add(true, &[ending(Status::Sent), ending(Status::Failed)], 3);
        balance.add(true, &[ending(Status::Pending)], 2);
        assert!(balance.is_balanced());
        assert_eq!((balance.accepted, balance.messages.partial, balance.messages.in_flight), (5, 3, 2));
        assert_eq!((balance.deliveries.sum(), balance.deliveries.failed), (8, 3));
        let (mut lost, mut stray) = (balance, balance);
        lost.add(true, &[], 1);
        stray.add(false, &[ending(Status::Sent)], 1);
        assert!(!lost.is_balanced() && !stray.is_balanced());
        // One of each: the sums agree, and it is not balanced.
        lost.add(false, &[ending(Status::Sent)], 1);
        assert_eq!(lost.accepted, lost.messages.sum());
        assert!(!lost.is_balanced());
    }
}
