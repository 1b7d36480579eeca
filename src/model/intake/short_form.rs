//! The short form of seed 003, `POST /notifications`: `{type, title, message, recipient, channels: ["EMAIL",
//! "SLACK"]}`, rewritten as a message in the full form.

use serde_json::{Map, Value};

use super::message::{BODY, KIND, KIND_ABOUT, KIND_MOST, KIND_PATTERN, MESSAGE, PRIORITY, PRIORITY_ABOUT, TITLE};
use super::reader::{KEY, Reader};
use crate::error::{Code, excerpt};
use crate::limits;
use crate::model::channel::Channel;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::{self, TextRule};

/// The body of `POST /notifications`.
pub static NOTIFICATION: Form = Form {
    name: "NewNotification",
    description: "The short form of seed 003, or a message in full.",
    kind: Kind::OneOf(|| vec![&SHORT, &MESSAGE]),
    examples: &[r#"{
        "type": "ORDER_COMPLETED", "title": "Paid", "message": "Thank you.", "recipient": "kim@example.com",
        "channels": ["EMAIL", "SLACK"]
    }"#],
};

static SHORT: Form = Form {
    name: "ShortNotification",
    description: "A title and a text to one recipient, by e-mail, to the operators' Slack destination, or both.",
    kind: Kind::Object(&[
        Field::optional("clientMsgId", Kind::Text(KEY), "The partner's own key; see NewMessage."),
        Field::required("type", KIND, KIND_ABOUT).with_length(None, KIND_MOST).with_pattern(KIND_PATTERN),
        Field::optional("priority", PRIORITY, PRIORITY_ABOUT),
        Field::optional("title", TITLE, "One line; required for EMAIL."),
        Field::required("message", BODY, "May be empty only if EMAIL is the only channel."),
        Field::optional(
            "recipient",
            Kind::Text(TextRule::line(limits::EMAIL_BYTES)),
            "An e-mail address; required for EMAIL.",
        ),
        Field::required("channels", Kind::List(&Kind::Form(&SHORT_CHANNEL), Some(1), Some(limits::CHANNELS)), ""),
        Field::optional("scheduledAt", Kind::Time, ""),
        Field::optional("expiresAt", Kind::Time, ""),
        Field::optional("metadata", Kind::Metadata, ""),
    ]),
    examples: &[],
};

static SHORT_CHANNEL: Form = Form {
    name: "ShortChannel",
    description: "",
    kind: Kind::Words(|| [Channel::Email, Channel::Slack].map(Channel::as_str).to_vec()),
    examples: &[],
};

impl Reader<'_> {
    /// Rewrites the short form as the full form: the recipient is the e-mail's, and Slack goes to the operators'
    /// destination.
    pub fn in_full(self, value: Value) -> Option<Value> {
        let faults = self.faults;
        let mut fields = Fields::open(&SHORT, value, "", faults)?;
        let recipient = fields.text("recipient");
        let message = fields.text("message");
        let channels = fields.list("channels");
        let mut full = Map::new();
        for name in ["type", "title", "clientMsgId", "priority", "scheduledAt", "expiresAt", "metadata"] {
            if let Some(value) = fields.take(name) {
                full.insert(name.into(), value);
            }
        }
        fields.close();
        let mut entries = Vec::new();
        for (pointer, word) in channels? {
            let to = match word.as_str() {
                Some("EMAIL") => recipient.clone().or_else(|| {
                    faults.add("/recipient", "required", "is required for the channel EMAIL");
                    None
                }),
                Some("SLACK") => self.policy.installation.slack_default.clone().or_else(|| {
                    faults.add(
                        &pointer,
                        "channel_unavailable",
                        "no Slack destination is configured; leave SLACK out or ask the operator",
                    );
                    None
                }),
                Some(other) => {
                    let other = excerpt(other);
                    let detail = format!("'{other}' is none of EMAIL, SLACK; other channels need the full form");
                    faults.add_code(Code::E005, &pointer, "enum", detail);
                    None
                }
                None => {
                    json::mismatch(faults, &pointer, "a channel's name", &word);
                    None
                }
            };
            if let Some(to) = to {
                entries.push(serde_json::json!({"channel": word, "to": to}));
            }
        }
        full.insert("body".into(), message?.into());
        full.insert("channels".into(), entries.into());
        faults.is_empty().then_some(Value::Object(full))
    }
}

/// Whether a body is in the full form: its channels are objects.
pub(super) fn is_full(value: &Value) -> bool {
    value.get("channels").and_then(Value::as_array).is_some_and(|channels| channels.iter().any(Value::is_object))
}

/// The pointer in the short form for a pointer in the full form.
pub(super) fn in_short(pointer: &str) -> String {
    let field = pointer.strip_prefix("/channels/").and_then(|rest| rest.split_once('/')).map_or(pointer, |(_, f)| f);
    match field {
        "to" => "/recipient".to_owned(),
        "subject" => "/title".to_owned(),
        "body" | "/body" => "/message".to_owned(),
        _ => pointer.to_owned(),
    }
}
