//! A message as it was posted, before the installation's rules apply to it. Its fingerprint is taken first, so a rule
//! changes no request: posted again under another rule, the message is still the same.

use std::collections::BTreeMap;
use std::ops::Range;

use super::entry::keep;
use crate::error::Fault;
use crate::limits;
use crate::model::channel::Channel;
use crate::model::message::{Content, Fallback, NewDelivery, NewMessage, PostedMessage};

/// A message that was read, with its contents and deliveries as the partner posted them.
pub(super) struct Draft {
    pub message: NewMessage,
    /// Deliveries, by their places, for which the installation has this channel stand by. In their order.
    pub by_rule: Vec<(Range<usize>, Channel)>,
}

impl Draft {
    /// The message with its fingerprint, and then with what the installation's rules add.
    pub fn finish(mut self, faults_if_new: Vec<Fault>) -> PostedMessage {
        let fingerprint = self.message.fingerprint();
        self.apply_rules();
        PostedMessage { message: self.message, fingerprint, faults_if_new }
    }

    /// Has the channels of the installation's rules stand by, unless the message grows too large: a rule refuses
    /// nothing that would be accepted without it.
    fn apply_rules(&mut self) {
        let Draft { message, by_rule } = self;
        let NewMessage { detail, deliveries, .. } = message;
        let ruled: usize = by_rule.iter().map(|(range, _)| range.len()).sum();
        // A delivery with a rule has no other fallback: one more may come of each.
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

/// The contents of a message with those that the rules add.
struct WithRules<'p> {
    posted: &'p [Content],
    step: i16,
    contents: Vec<Content>,
    /// Where a posted content is now: by itself, and with a channel that stands by by a rule.
    places: BTreeMap<(i16, Option<Channel>), i16>,
}

impl WithRules<'_> {
    /// The place of a posted content, whose fallbacks have theirs before it.
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
            // `places` knows it if it was kept before. One that the message itself asks for stays another.
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

/// A content and those that stand by for it, in turn.
fn chain(contents: &[Content], first: i16) -> impl Iterator<Item = i16> {
    let next = |content: &i16| at(contents, *content)?.fallback.as_ref().map(|f| f.content);
    std::iter::successors(Some(first), next).take(limits::FALLBACKS + 1)
}

/// How many deliveries may come of these, their fallbacks included.
pub(super) fn most_deliveries(contents: &[Content], deliveries: &[NewDelivery]) -> usize {
    deliveries.iter().map(|d| chain(contents, d.content).count()).sum()
}

/// How many bytes the contents hold.
pub(super) fn bytes(contents: &[Content]) -> usize {
    contents.iter().map(Content::size_bytes).sum()
}

/// How many bytes the contents hold that deliveries lead to.
pub(super) fn bytes_sent(contents: &[Content], deliveries: &[NewDelivery]) -> usize {
    let reached: std::collections::BTreeSet<i16> = deliveries.iter().flat_map(|d| chain(contents, d.content)).collect();
    reached.into_iter().filter_map(|index| at(contents, index)).map(Content::size_bytes).sum()
}
