//! A message as posted, before the installation's rules apply. Its fingerprint is taken first, so a changed rule does
//! not make a repeated request a different message.

use std::collections::BTreeMap;
use std::ops::Range;

use super::entry::keep;
use crate::error::Fault;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::message::{Content, Fallback, NewDelivery, NewMessage, PostedMessage};

/// A parsed message with the contents and deliveries that the partner posted.
pub(super) struct Draft {
    pub message: NewMessage,
    /// (Indices of deliveries, the channel that an installation rule adds as their fallback), in the order of the
    /// deliveries.
    pub by_rule: Vec<(Range<usize>, Channel)>,
}

impl Draft {
    /// Takes the fingerprint and then adds the fallbacks of the installation's rules.
    pub fn finish(mut self, faults_if_new: Vec<Fault>) -> PostedMessage {
        let fingerprint = self.message.fingerprint();
        self.apply_rules();
        PostedMessage { message: self.message, fingerprint, faults_if_new }
    }

    /// Adds the fallbacks of the installation's rules, unless the message would grow too large: a rule never causes a
    /// refusal.
    fn apply_rules(&mut self) {
        let Draft { message, by_rule } = self;
        let NewMessage { detail, deliveries, .. } = message;
        let ruled: usize = by_rule.iter().map(|(range, _)| range.len()).sum();
        // A delivery with a rule has no other fallback, so the rule adds at most one delivery for it.
        if ruled == 0 || most_deliveries(&detail.contents, deliveries) + ruled > limits::DELIVERIES {
            return;
        }
        let mut rules = vec![None; deliveries.len()];
        by_rule.iter().for_each(|(range, other)| rules[range.clone()].fill(Some(*other)));
        let step = i16::try_from(deliveries.len()).unwrap_or(i16::MAX);
        let mut with = WithRules { posted: &detail.contents, step, contents: Vec::new(), places: BTreeMap::new() };
        let places: Vec<i16> = deliveries.iter().zip(&rules).map(|(d, rule)| with.place(d.content, *rule)).collect();
        if bytes(&with.contents) > limits::CONTENT_BYTES {
            return;
        }
        detail.contents = with.contents;
        for (delivery, (place, rule)) in deliveries.iter_mut().zip(places.into_iter().zip(rules)) {
            delivery.content = place;
            delivery.has_fallback |= rule.is_some();
        }
    }
}

/// The contents of a message while rule fallbacks are added.
struct WithRules<'p> {
    posted: &'p [Content],
    step: i16,
    contents: Vec<Content>,
    /// The new index of a posted content, by itself and with a rule's fallback channel.
    places: BTreeMap<(i16, Option<Channel>), i16>,
}

impl WithRules<'_> {
    /// The new index of a posted content. Its fallbacks are added before it.
    fn place(&mut self, posted: i16, rule: Option<Channel>) -> i16 {
        if let Some(place) = self.places.get(&(posted, rule)) {
            return *place;
        }
        let Some(mut content) = at(self.posted, posted).cloned() else { return posted };
        if let Some(channel) = rule {
            let same = Content { body: content.body.clone(), ..Content::default() };
            let content_of_rule = keep(&mut self.contents, same);
            content.fallback = Some(Box::new(Fallback::from_rule(channel, content_of_rule, self.step)));
        } else if let Some(fallback) = &mut content.fallback {
            fallback.content = self.place(fallback.content, None);
        }
        let place = if content.fallback.is_none() {
            keep(&mut self.contents, content)
        } else {
            // `places` knows it if it was added before. A content with a fallback of its own is not merged with
            // another.
            self.contents.push(content);
            i16::try_from(self.contents.len() - 1).unwrap_or(i16::MAX)
        };
        self.places.insert((posted, rule), place);
        place
    }
}

fn at(contents: &[Content], index: i16) -> Option<&Content> {
    contents.get(usize::try_from(index).ok()?)
}

/// The index of a content and of its fallbacks, in order.
fn chain(contents: &[Content], first: i16) -> impl Iterator<Item = i16> {
    let next = |content: &i16| at(contents, *content)?.fallback.as_ref().map(|f| f.content);
    std::iter::successors(Some(first), next).take(limits::FALLBACKS + 1)
}

/// The most deliveries that can result, fallbacks included.
pub(super) fn most_deliveries(contents: &[Content], deliveries: &[NewDelivery]) -> usize {
    deliveries.iter().map(|d| chain(contents, d.content).count()).sum()
}

/// Size of the contents in bytes.
pub(super) fn bytes(contents: &[Content]) -> usize {
    contents.iter().map(Content::size_bytes).sum()
}

/// Size in bytes of the contents that deliveries refer to.
pub(super) fn bytes_sent(contents: &[Content], deliveries: &[NewDelivery]) -> usize {
    let reached: std::collections::BTreeSet<i16> = deliveries.iter().flat_map(|d| chain(contents, d.content)).collect();
    reached.into_iter().filter_map(|index| at(contents, index)).map(Content::size_bytes).sum()
}
