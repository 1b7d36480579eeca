//! What an erasure did, and how far it has come.

use std::collections::BTreeMap;

/// Result of an erasure.
#[derive(Debug, Default)]
pub struct Erased {
    /// Deliveries whose recipient was erased.
    pub deliveries: u64,
    /// Messages that were changed.
    pub messages: u64,
    /// Deliveries to the person that had not been sent and were canceled.
    pub canceled: u64,
    /// Deliveries being sent, and contents still to be sent to others: left as they are.
    pub in_flight: u64,
    /// Number of rows that still hold the address, by "table.column".
    pub left: BTreeMap<String, u64>,
    /// Sealed messages and endpoint headers whose master key is not here: it is unknown what they hold.
    pub unopened: u64,
    /// Tables that were not searched: the hub may not read them, or they do not say which rows are the partner's.
    pub unsearched: Vec<String>,
    /// Number of rows searched for what is left.
    pub searched: u64,
}

impl Erased {
    /// Adds the result of another erasure.
    pub fn add(&mut self, other: Erased) {
        self.deliveries += other.deliveries;
        self.messages += other.messages;
        self.canceled += other.canceled;
        self.in_flight += other.in_flight;
        self.unopened += other.unopened;
        self.searched += other.searched;
        for (place, rows) in other.left {
            *self.left.entry(place).or_default() += rows;
        }
        for table in other.unsearched {
            if !self.unsearched.contains(&table) {
                self.unsearched.push(table);
            }
        }
    }
}

/// Progress of an erasure.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Number of rows searched so far, and the table being searched.
    Searched(u64, &'a str),
    /// Number of messages erased so far.
    Erased(u64),
}
