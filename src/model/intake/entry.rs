//! The entries of `channels`: each becomes a content and one delivery for each recipient.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

use super::channel_form::{ANY, form};
use super::fallback::RequestedFallback;
use super::reader::{NOT_SERVED, Reader, Shared};
use crate::model::channel::{Channel, canonical_address};
use crate::model::fields::Fields;
use crate::model::message::{Content, Fallback, NewDelivery};

/// The contents and deliveries of the entries read so far.
#[derive(Default)]
pub(super) struct Entries {
    pub contents: Vec<Content>,
    pub deliveries: Vec<NewDelivery>,
    /// (Indices of deliveries, the channel that an installation rule adds as their fallback), in the order of the
    /// deliveries.
    pub by_rule: Vec<(Range<usize>, Channel)>,
    /// (Channel, canonical address, content, whether a rule of the installation applies).
    seen: BTreeSet<(Channel, String, i16, bool)>,
}

impl Entries {
    /// Reads one entry. `pointer`: its JSON pointer. `shared`: the parts that it may inherit from the message.
    pub fn read(&mut self, reader: Reader<'_>, item: Value, pointer: &str, shared: &Shared) {
        let Some(mut fields) = Fields::open(&ANY, item, pointer, reader.faults) else { return };
        let Some(channel) = reader.channel(&mut fields) else { return };
        fields.switch_form(form(channel));
        let to = reader.to(channel, &mut fields, shared);
        let content = reader.content(channel, &mut fields, shared);
        // An empty list means no fallback, whatever the installation's rules are.
        let has_own = fields.has("fallback");
        let stand_by = fields.list("fallback");
        fields.not_served(&NOT_SERVED);
        let stand_by_at = fields.pointer_to("fallback");
        fields.close();
        let stand_by = reader.fallbacks(channel, stand_by.unwrap_or_default(), &stand_by_at, shared);
        let Some(mut content) = content else { return };
        let attempts = stand_by.first().and_then(|s| s.after_attempts);
        let rule = if has_own { None } else { reader.rule(channel, &content) };
        content.fallback = self.link(stand_by);
        let has_fallback = content.fallback.is_some();
        let content = keep(&mut self.contents, content);
        let first = self.deliveries.len();
        for (to, written) in to {
            // The same content to the same recipient is sent once.
            if self.seen.insert((channel, canonical_address(channel, &to), content, rule.is_some())) {
                self.deliveries.push(NewDelivery {
                    channel,
                    to,
                    recipient_as_given: written,
                    content,
                    has_fallback,
                    max_attempts: attempts,
                });
            }
        }
        self.by_rule.extend(rule.map(|other| (first..self.deliveries.len(), other)));
    }

    /// Links the fallbacks into a chain and returns the first.
    fn link(&mut self, stand_by: Vec<RequestedFallback>) -> Option<Box<Fallback>> {
        let (mut next, mut attempts) = (None, None);
        for mut one in stand_by.into_iter().rev() {
            one.content.fallback = next.take();
            let content = keep(&mut self.contents, one.content);
            let (channel, to, no_receipt_s, on_unknown) = (one.channel, one.to, one.no_receipt_s, one.on_unknown);
            // Set by `number`, when the number of deliveries is known.
            next = Some(Box::new(Fallback {
                channel,
                content,
                to,
                step: 0,
                no_receipt_s,
                max_attempts: attempts,
                on_unknown,
            }));
            attempts = one.after_attempts;
        }
        next
    }

    /// Sets the step of every fallback to the number of posted deliveries, so that each fallback delivery has a number
    /// of its own.
    pub fn number(&mut self) {
        let step = i16::try_from(self.deliveries.len()).unwrap_or(i16::MAX);
        self.contents.iter_mut().filter_map(|c| c.fallback.as_mut()).for_each(|f| f.step = step);
    }
}

/// Adds a content unless an equal one exists, and returns its index.
pub(super) fn keep(contents: &mut Vec<Content>, content: Content) -> i16 {
    let index = contents.iter().position(|c| *c == content).unwrap_or_else(|| {
        contents.push(content);
        contents.len() - 1
    });
    // A body has at most three times as many contents as entries, which is far below.
    i16::try_from(index).unwrap_or(i16::MAX)
}
