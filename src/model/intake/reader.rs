//! The reader of one message. Each part of a message has a file of its own, with the methods that read that part.

use super::policy::IntakePolicy;
use crate::limits;
use crate::model::json::{Faults, TextRule};

/// Reads a message by a policy and notes everything that is wrong with it.
#[derive(Clone, Copy)]
pub(super) struct Reader<'r> {
    pub policy: &'r IntakePolicy,
    pub faults: &'r Faults,
}

/// Parts of a message that its channels share: an entry of `channels` that lacks one of its own has this one.
pub(super) struct Shared {
    pub title: Option<String>,
    pub body: Option<String>,
    pub recipients: Vec<Recipient>,
}

/// An entry of `recipients`: its place, and the addresses by which channels reach the person.
pub(super) struct Recipient {
    pub pointer: String,
    pub email: Option<String>,
    pub phone: Option<String>,
}

/// Names that the contract has for messages, entries of `channels` and fallbacks, and that this hub does not serve yet.
pub(super) const NOT_SERVED: [&str; 3] = ["template", "locale", "variables"];

/// A key or a name of the partner's own: compared as it is posted.
pub(super) const KEY: TextRule = TextRule::line(limits::CLIENT_MSG_ID_CHARS).as_posted();
