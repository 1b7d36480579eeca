//! Recipients: the entries of `recipients`, and the addresses that each channel accepts.

use serde_json::Value;

use super::reader::{KEY, Reader, Recipient, Shared};
use crate::error::{Code, excerpt};
use crate::limits;
use crate::model::channel::{AddressKind, Channel};
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, TextRule};
use crate::model::phone;

/// An entry of `recipients`.
pub static RECIPIENT: Form = Form {
    name: "NewRecipient",
    description: "A person, with the addresses that channels need.",
    kind: Kind::Object(&[
        Field::optional(
            "id",
            Kind::Text(KEY),
            "The partner's own id of the person: the user whose inbox gets an INAPP message. Not stored for other \
             channels.",
        ),
        Field::optional("email", Kind::Text(ADDRESS_TEXT), ""),
        // A longer one is reported as `phone_invalid`, not as too long.
        Field::optional("phone", Kind::Text(ADDRESS_TEXT), PHONE).with_length(None, Some(limits::PHONE_CHARS)),
    ]),
    examples: &[],
};

/// The `to` of an entry of `channels`.
pub static TO: Form = Form {
    name: "To",
    description: "One recipient or several.",
    kind: Kind::OneOf(|| vec![&ADDRESS, &ADDRESSES]),
    examples: &[],
};

/// One address.
pub static ADDRESS: Form = Form { name: "Address", description: "", kind: Kind::Text(ADDRESS_TEXT), examples: &[] };

static ADDRESSES: Form = Form {
    name: "Addresses",
    description: "",
    kind: Kind::List(&Kind::Form(&ADDRESS), Some(1), Some(limits::DELIVERIES)),
    examples: &[],
};

const PHONE: &str = "A phone number, in E.164 or in the notation of the partner's region.";

/// An address of any channel, before the channel is known.
const ADDRESS_TEXT: TextRule = TextRule::address(limits::EMAIL_BYTES);

/// An address of a channel. A user's id is compared as posted, with the `sub` of tokens.
fn address_text(channel: Channel) -> TextRule {
    if channel.addressed_by() == AddressKind::User { KEY } else { ADDRESS_TEXT }
}

/// (Address as the provider takes it, address as the partner wrote it if that differs).
pub(super) type Address = (String, Option<String>);

impl Reader<'_> {
    /// The entries of `recipients`.
    pub fn recipients(self, fields: &mut Fields<'_>) -> Vec<Recipient> {
        let Some(list) = fields.list("recipients") else { return Vec::new() };
        let mut recipients = Vec::with_capacity(list.len().min(limits::DELIVERIES));
        for (pointer, item) in list {
            let Some(mut fields) = Fields::open(&RECIPIENT, item, &pointer, self.faults) else { continue };
            let (id, email, phone) = (fields.text("id"), fields.text("email"), fields.text("phone"));
            fields.not_served(&["variables"]);
            fields.close();
            recipients.push(Recipient { pointer, id, email, phone });
        }
        recipients
    }

    /// The addresses of an entry of `channels`: its own `to`, or else those of the message's recipients that the
    /// channel can use.
    pub fn to(self, channel: Channel, fields: &mut Fields<'_>, shared: &Shared) -> Vec<Address> {
        let pointer = fields.pointer_to("to");
        let named: Vec<(String, Value)> = match fields.take("to") {
            Some(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(n, item)| (format!("{pointer}/{n}"), item)).collect()
            }
            Some(one) => vec![(pointer.clone(), one)],
            None => {
                let own = |r: &Recipient| match channel.addressed_by() {
                    AddressKind::Mailbox => r.email.clone().map(|e| (format!("{}/email", r.pointer), Value::String(e))),
                    AddressKind::Phone => r.phone.clone().map(|p| (format!("{}/phone", r.pointer), Value::String(p))),
                    AddressKind::User => r.id.clone().map(|id| (format!("{}/id", r.pointer), Value::String(id))),
                    AddressKind::Destination | AddressKind::UserKey | AddressKind::Unserved => None,
                };
                shared.recipients.iter().filter_map(own).collect()
            }
        };
        if named.is_empty() {
            self.faults.add(&pointer, "required", "has no recipient; name one here or in recipients");
        }
        let mut to = Vec::with_capacity(named.len());
        for (pointer, value) in named {
            let Some(text) = json::text(value, &pointer, address_text(channel), self.faults) else { continue };
            to.extend(self.address(channel, text, &pointer));
        }
        to
    }

    /// A fallback's own address; `None`: the recipient of the delivery that it replaces. `first`: the channel of the
    /// entry that has the fallback.
    pub fn other_to(self, first: Channel, channel: Channel, fields: &mut Fields<'_>) -> Option<String> {
        let pointer = fields.pointer_to("to");
        if !fields.has("to") && channel.addressed_by() != first.addressed_by() {
            let detail = format!("is required: {channel} and {first} use different kinds of addresses");
            self.faults.add(&pointer, "required", detail);
        }
        let value = fields.take("to")?;
        let text = json::text(value, &pointer, address_text(channel), self.faults)?;
        self.address(channel, text, &pointer).map(|(to, _)| to)
    }

    /// `None`, with a fault reported: not an address of this channel.
    fn address(self, channel: Channel, text: String, pointer: &str) -> Option<Address> {
        let refuse = |reason, why: &str| {
            self.faults.add(pointer, reason, format!("'{}' {why}", excerpt(&text)));
            None
        };
        match channel.addressed_by() {
            AddressKind::Mailbox if !is_mailbox(&text) => {
                return refuse("recipient_invalid", "is not an e-mail address");
            }
            AddressKind::UserKey if !is_user_key(&text) => {
                let most = limits::USER_KEY_CHARS;
                let why = format!("is not a user key of {channel}: at most {most} letters, digits, - and _");
                return refuse("recipient_invalid", &why);
            }
            AddressKind::Phone => match phone::parse(&text, &self.policy.partner.region) {
                Ok(number) if number == text => (),
                Ok(number) => return Some((number, Some(text))),
                Err(why) => return refuse("phone_invalid", why),
            },
            AddressKind::Destination if !self.policy.installation.slack.contains(&text) => {
                let detail = format!("'{}' is not a configured Slack destination", excerpt(&text));
                self.faults.add_if_new(Code::E001, pointer, "destination_unknown", detail);
            }
            _ => (),
        }
        Some((text, None))
    }
}

/// User keys are opaque; all known ones use these characters.
fn is_user_key(text: &str) -> bool {
    text.len() <= limits::USER_KEY_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// Whether a text is a plain mailbox, `local@domain.tld`: no quotes, comments, literals or display name, ASCII, a
/// dotted domain that is not a network address.
pub fn is_mailbox(text: &str) -> bool {
    let options = email_address::Options::default().with_required_tld().without_domain_literal().without_display_text();
    text.is_ascii()
        && !text.contains('"')
        && !text.ends_with('.')
        && text.split_once('@').is_some_and(|(_, domain)| domain.split('.').all(is_label))
        && text.rsplit('.').next().is_some_and(|top| !top.bytes().all(|b| b.is_ascii_digit()))
        && email_address::EmailAddress::parse_with_options(text, options).is_ok()
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}
