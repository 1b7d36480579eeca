//! Fallback channels: those that the message asks for and those of the installation's rules.

use serde_json::Value;

use super::channel_form::FALLBACK;
use super::content::body_fault;
use super::reader::{NOT_SERVED, Reader, Shared};
use crate::error::Code;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::fields::Fields;
use crate::model::message::Content;

/// A fallback as the message asks for it.
pub(super) struct RequestedFallback {
    pub channel: Channel,
    pub to: Option<String>,
    pub content: Content,
    /// Attempts over the previous channel.
    pub after_attempts: Option<i16>,
    pub no_receipt_s: Option<u32>,
    pub on_unknown: bool,
}

impl Reader<'_> {
    /// The channels that stand by for `first`, in turn: each is read as a channel of its own. `pointer`: that of the
    /// list.
    pub fn fallbacks(
        self,
        first: Channel,
        list: Vec<(String, Value)>,
        pointer: &str,
        shared: &Shared,
    ) -> Vec<RequestedFallback> {
        if list.len() > limits::FALLBACKS {
            let detail = format!("has {} entries; at most {} fallbacks are allowed", list.len(), limits::FALLBACKS);
            self.faults.add(pointer, "too_many_items", detail);
            return Vec::new();
        }
        let (mut before, mut stand_by) = (vec![first], Vec::new());
        for (pointer, item) in list {
            let Some(mut fields) = Fields::open(&FALLBACK, item, &pointer, self.faults) else { continue };
            let Some(channel) = self.channel(&mut fields) else { continue };
            if before.contains(&channel) {
                let detail = format!("{channel} was already tried before this fallback; name another channel");
                self.faults.add(fields.pointer_to("channel"), "fallback_same_channel", detail);
            }
            let to = self.other_to(first, channel, &mut fields);
            let content = self.content(channel, &mut fields, shared);
            let attempts = fields.number("afterAttempts");
            let no_receipt = fields.number("noReceiptSeconds");
            let has_receipts = before.last().is_none_or(|waited| self.policy.installation.receipts.contains(waited));
            if no_receipt.is_some() && !has_receipts {
                let detail =
                    "the previous channel has no delivery receipts, so noReceiptSeconds never applies; remove it";
                self.faults.add_if_new(Code::E001, fields.pointer_to("noReceiptSeconds"), "no_receipts", detail);
            }
            let on_unknown = fields.flag("onUnknown").unwrap_or(false);
            fields.not_served(&NOT_SERVED);
            fields.close();
            before.push(channel);
            let Some(content) = content else { continue };
            stand_by.push(RequestedFallback {
                channel,
                to,
                content,
                after_attempts: attempts.and_then(|n| n.try_into().ok()),
                no_receipt_s: no_receipt.and_then(|n| n.try_into().ok()),
                on_unknown,
            });
        }
        stand_by
    }

    /// The fallback channel that the installation's rules give this content, if that channel can carry the same body to
    /// the same address.
    pub fn rule(self, channel: Channel, content: &Content) -> Option<Channel> {
        let installation = &self.policy.installation;
        let other = *installation.fallbacks.get(&channel)?;
        let is_alike = other.addressed_by() == channel.addressed_by() && self.policy.serves(other);
        (is_alike && body_fault(other, None, &content.body, installation).is_none()).then_some(other)
    }
}
