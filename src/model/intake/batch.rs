//! Batches, `POST /v1/messages/batch`: `{"messages": […]}`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::draft::Draft;
use super::message::MESSAGE;
use super::reader::Reader;
use crate::error::Fault;
use crate::limits;
use crate::model::fields::Fields;
use crate::model::form::{Field, Form, Kind};
use crate::model::json::Faults;

/// The body of `POST /v1/messages/batch`.
pub static BATCH: Form = Form {
    name: "NewBatch",
    description: "Messages that are stored together: all or none.",
    kind: Kind::Object(&[Field::required(
        "messages",
        Kind::List(&Kind::Form(&MESSAGE), Some(1), Some(limits::BATCH_MESSAGES)),
        "",
    )]),
    examples: &[r#"{"messages": [
        {"clientMsgId": "a-1", "type": "A", "body": "one", "channels": [{"channel": "SLACK", "to": "ops"}]},
        {"clientMsgId": "a-2", "type": "A", "body": "two", "channels": [{"channel": "SLACK", "to": ["ops"]}]}
    ]}"#],
};

impl Reader<'_> {
    /// The messages, each with those of its faults that matter only to a new message. All faults are added to the
    /// reader's as well.
    pub fn batch(self, value: Value) -> Option<Vec<(Draft, Vec<Fault>)>> {
        let faults = self.faults;
        let mut fields = Fields::open(&BATCH, value, "", faults)?;
        let list = fields.list("messages");
        fields.close();
        let list = list?;
        if list.is_empty() || list.len() > limits::BATCH_MESSAGES {
            let detail = format!("has {} messages; between 1 and {} are allowed", list.len(), limits::BATCH_MESSAGES);
            faults.add("/messages", "batch_size", detail);
            return None;
        }
        let mut messages = Vec::with_capacity(list.len());
        let mut keys = BTreeSet::new();
        for (pointer, item) in list {
            let own = Faults::default();
            let read = Reader { faults: &own, ..self }.message(item, &pointer);
            let key = read.as_ref().and_then(|draft| draft.message.client_msg_id.clone());
            if key.is_some_and(|key| !keys.insert(key)) {
                own.add(format!("{pointer}/clientMsgId"), "duplicate_in_batch", "is used by an earlier message here");
            }
            let faults_if_new = own.found();
            own.move_to(faults, str::to_owned);
            messages.extend(read.map(|draft| (draft, faults_if_new)));
        }
        Some(messages)
    }
}
