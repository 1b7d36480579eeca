//! The reader of one message. Each part of a message has a file of its own with the methods that read it.

use super::policy::IntakePolicy;
use crate::limits;
use crate::model::json::{Faults, TextRule};

/// Reads a message by a policy and collects its faults.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub policy: &'r IntakePolicy,
    pub faults: &'r Faults,
}

/// The parts of a message that its channels share: an entry of `channels` that lacks one uses this.
pub(super) struct Shared {
    pub title: Option<String>,
    pub body: Option<String>,
    pub recipients: Vec<Recipient>,
}

/// An entry of `recipients`: its JSON pointer, and the person's own id and addresses.
pub(super) struct Recipient {
    pub pointer: String,
    /// The partner's own id of the person.
    pub id: Option<String>,
    pub email: Option<String>,
    pub phone: Option<String>,
}

/// Fields of messages, entries of `channels` and fallbacks that the contract has and this hub does not serve yet.
pub(super) const NOT_SERVED: [&str; 3] = ["template", "locale", "variables"];

/// A key or a name of the partner's own: compared as posted.
pub(super) const KEY: TextRule = TextRule::line(limits::CLIENT_MSG_ID_CHARS).as_posted();
