//! The inbox of a user: its items, and the changes that the user makes to them.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::message::Detail;
use crate::id::Tsid;

/// Unread and unseen items are counted up to this: a person does not tell higher numbers apart.
pub const COUNTED: i64 = 100;

/// Longest time for which an item may be hidden.
pub const SNOOZE_MOST: TimeDelta = TimeDelta::days(60);

/// An item as its user sees it: the row, and the text of its message.
#[derive(Debug, Clone, PartialEq)]
pub struct InboxItem {
    pub message_id: Tsid,
    pub no: i16,
    /// Number of its last arrival in the user's stream.
    pub seq: i64,
    pub arrived_at: DateTime<Utc>,
    pub read_at: Option<DateTime<Utc>>,
    pub archived_at: Option<DateTime<Utc>>,
    pub snoozed_until: Option<DateTime<Utc>>,
    pub expires_at: Option<DateTime<Utc>>,
    /// It arrived before the user last looked at the inbox.
    pub is_seen: bool,
    pub text: ItemText,
}

/// What the message says, and the time at which it was posted. Empty if it was erased or cannot be opened here.
#[derive(Debug, Clone, PartialEq)]
pub struct ItemText {
    pub kind: String,
    pub title: Option<String>,
    pub body: String,
    pub action_url: Option<String>,
    pub image_url: Option<String>,
    pub category: Option<String>,
    pub severity: Option<String>,
    pub metadata: Map<String, Value>,
    pub created_at: DateTime<Utc>,
}

impl ItemText {
    /// The text of one content of a message. `content`: the index of the content.
    pub fn of(kind: &str, detail: &Detail, content: i16, created_at: DateTime<Utc>) -> ItemText {
        let content = usize::try_from(content).ok().and_then(|n| detail.contents.get(n)).cloned().unwrap_or_default();
        ItemText {
            kind: kind.to_owned(),
            title: content.subject,
            body: content.body,
            action_url: content.action_url,
            image_url: content.image_url,
            category: content.category,
            severity: content.severity,
            metadata: detail.metadata.clone(),
            created_at,
        }
    }

    /// The text of an item whose message cannot be read.
    pub fn unreadable(created_at: DateTime<Utc>) -> ItemText {
        ItemText::of("", &Detail::default(), 0, created_at)
    }
}

/// Numbers of an inbox, absolute: a client replaces what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxCounts {
    /// Items that arrived since the user last looked, at most `COUNTED` + 1.
    pub unseen: i64,
    /// Items that are not read, at most `COUNTED` + 1.
    pub unread: i64,
    /// The number of the last change of the user's stream.
    pub seq: i64,
}

/// A change of one item by its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemChange {
    Read,
    Unread,
    Archive,
    Unarchive,
    /// Hidden until this time; then it arrives again, unread and unseen.
    Snooze(DateTime<Utc>),
}

/// The words of all changes.
pub const ITEM_CHANGES: [&str; 5] = ["READ", "UNREAD", "ARCHIVE", "UNARCHIVE", "SNOOZE"];

impl ItemChange {
    /// The word that the statement decides by.
    pub fn as_str(self) -> &'static str {
        match self {
            ItemChange::Read => "READ",
            ItemChange::Unread => "UNREAD",
            ItemChange::Archive => "ARCHIVE",
            ItemChange::Unarchive => "UNARCHIVE",
            ItemChange::Snooze(_) => "SNOOZE",
        }
    }

    /// Until when a snoozed item is hidden.
    pub fn until(self) -> Option<DateTime<Utc>> {
        if let ItemChange::Snooze(until) = self { Some(until) } else { None }
    }
}

/// Which items a list shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InboxFilter {
    /// Neither archived, nor snoozed, nor expired.
    #[default]
    All,
    /// Of these, the unread ones.
    Unread,
    Archived,
    Snoozed,
}

/// Every filter.
pub const INBOX_FILTERS: [InboxFilter; 4] =
    [InboxFilter::All, InboxFilter::Unread, InboxFilter::Archived, InboxFilter::Snoozed];

impl InboxFilter {
    /// The stable word in the API, such as `UNREAD`.
    pub fn as_str(self) -> &'static str {
        match self {
            InboxFilter::All => "ALL",
            InboxFilter::Unread => "UNREAD",
            InboxFilter::Archived => "ARCHIVED",
            InboxFilter::Snoozed => "SNOOZED",
        }
    }
}
