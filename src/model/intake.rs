//! The shape of a posted message: from bytes to a `NewMessage`, or to everything that is wrong with it. The same for
//! every way in.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value};

use super::channel::{AddressKind, CHANNELS, Channel, Limit, Measure, distinct};
use super::json::{self, Faults, Fields, Text};
use super::lane::{PRIORITIES, Priority};
use super::message::{Content, Detail, Fallback, NewDelivery, NewMessage, Posted, drop_rules};
use super::mrkdwn;
use super::phone;
use super::text::is_blank;
use crate::error::{Code, Refusal, excerpt};
use crate::limits;

/// What this hub can do, as far as reading a message depends on it.
#[derive(Debug, Clone)]
pub struct Rules {
    pub now: DateTime<Utc>,
    /// Channels with a provider somewhere in this installation.
    pub channels: BTreeSet<Channel>,
    /// Of these, too, but not for this partner.
    pub forbidden: BTreeSet<Channel>,
    /// This partner may post for later.
    pub may_schedule: bool,
    /// Names of Slack destinations.
    pub slack: BTreeSet<String>,
    /// Where a phone number without a country is from.
    pub region: String,
    /// Of channels whose provider takes less than the channel's own limit.
    pub limits: BTreeMap<Channel, Limit>,
    /// Of these, those on which somebody tells later what became of what was sent.
    pub receipts: BTreeSet<Channel>,
    /// What stands by for a channel where the message does not say, if its body fits there.
    pub fallbacks: BTreeMap<Channel, Channel>,
}

impl Rules {
    pub fn limit(&self, channel: Channel) -> Option<Limit> {
        self.limits.get(&channel).copied().or(channel.limit())
    }
}

/// Fields of the contract that come with later parts of the hub.
const NOT_SERVED: [&str; 3] = ["template", "locale", "variables"];

/// One message: `POST /v1/messages`.
pub fn message(body: &[u8], rules: &Rules) -> Result<Posted, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = read_message(value, "", rules, &faults);
    posted(read, faults)
}

fn posted(read: Option<NewMessage>, faults: Faults) -> Result<Posted, Refusal> {
    let (message, faults_if_new) = faults.into_result_if_new(read)?;
    Ok(Posted { message, faults_if_new })
}

/// `{"messages": […]}`: all of them, or none.
pub fn batch(body: &[u8], rules: &Rules) -> Result<Vec<Posted>, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = read_batch(value, rules, &faults);
    // Each message has its own of the faults that are left.
    Ok(faults.into_result_if_new(read)?.0)
}

fn read_batch(value: Value, rules: &Rules, faults: &Faults) -> Option<Vec<Posted>> {
    let mut fields = Fields::open(value, "", faults)?;
    let list = fields.require("messages").and_then(|v| json::list(v, "/messages", faults));
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
        let read = read_message(item, &pointer, rules, &own);
        let key = read.as_ref().and_then(|message| message.client_msg_id.clone());
        if key.is_some_and(|key| !keys.insert(key)) {
            own.add(format!("{pointer}/clientMsgId"), "duplicate_in_batch", "is used by an earlier message here");
        }
        let faults_if_new = own.found();
        own.retell(faults, str::to_owned);
        messages.extend(read.map(|message| Posted { message, faults_if_new }));
    }
    Some(messages)
}

/// Seed 003's own words: `{type, title, message, recipient, channels: ["EMAIL", "SLACK"]}`. A body whose channels are
/// objects is the full form.
pub fn notification(body: &[u8], rules: &Rules, slack_default: Option<&str>) -> Result<Posted, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let full = value.get("channels").and_then(Value::as_array).is_some_and(|c| c.iter().any(Value::is_object));
    let read = if full {
        read_message(value, "", rules, &faults)
    } else {
        short_form(value, slack_default, &faults).and_then(|value| {
            let in_full = Faults::default();
            let read = read_message(value, "", rules, &in_full);
            in_full.retell(&faults, in_short);
            read
        })
    };
    posted(read, faults)
}

/// Rewrites the short form as the full one: the recipient is the e-mail's, Slack goes to the ops destination.
fn short_form(value: Value, slack_default: Option<&str>, faults: &Faults) -> Option<Value> {
    let mut fields = Fields::open(value, "", faults)?;
    let recipient = fields.text("recipient", Text::line(limits::EMAIL_BYTES));
    let message = fields.require_text("message", Text::block(limits::TEXT_BYTES).or_empty());
    let channels = fields.require("channels").and_then(|v| json::list(v, "/channels", faults));
    let mut full = Map::new();
    for name in ["type", "title", "clientMsgId", "priority", "scheduledAt", "expiresAt", "metadata"] {
        if let Some(value) = fields.take(name) {
            full.insert(name.into(), value);
        }
    }
    fields.close();
    let mut routed = Vec::new();
    for (pointer, word) in channels? {
        let to = match word.as_str() {
            Some("EMAIL") => recipient.clone().or_else(|| {
                faults.add("/recipient", "required", "is required for the channel EMAIL");
                None
            }),
            Some("SLACK") => slack_default.map(str::to_owned).or_else(|| {
                faults.add(&pointer, "channel_unavailable", "no Slack destination is configured");
                None
            }),
            Some(other) => {
                let detail = format!("'{}' is none of EMAIL, SLACK; other channels take the full form", excerpt(other));
                faults.add_code(Code::E005, &pointer, "enum", detail);
                None
            }
            None => {
                json::mismatch(faults, &pointer, "a channel's name", &word);
                None
            }
        };
        if let Some(to) = to {
            routed.push(serde_json::json!({"channel": word, "to": to}));
        }
    }
    full.insert("body".into(), message?.into());
    full.insert("channels".into(), routed.into());
    faults.is_empty().then_some(Value::Object(full))
}

/// Where the short form has what the full form has at this place.
fn in_short(pointer: &str) -> String {
    let field = pointer.strip_prefix("/channels/").and_then(|rest| rest.split_once('/')).map_or(pointer, |(_, f)| f);
    match field {
        "to" => "/recipient".to_owned(),
        "subject" => "/title".to_owned(),
        "body" | "/body" => "/message".to_owned(),
        _ => pointer.to_owned(),
    }
}

fn read_message(value: Value, pointer: &str, rules: &Rules, faults: &Faults) -> Option<NewMessage> {
    let mut fields = Fields::open(value, pointer, faults)?;
    let client_msg_id = fields.text("clientMsgId", Text::line(limits::CLIENT_MSG_ID_CHARS).as_posted());
    let kind = read_kind(&mut fields, faults);
    let priority = read_priority(&mut fields, faults);
    let title = fields.text("title", Text::line(limits::TITLE_CHARS));
    let body = fields.text("body", Text::block(limits::TEXT_BYTES).or_empty());
    let (scheduled_at, expires_at) = read_times(&mut fields, rules, faults);
    let metadata = read_metadata(&mut fields, faults);
    let recipients = read_recipients(&mut fields, faults);
    fields.not_served(&NOT_SERVED);
    fields.not_served(&["fallback"]);
    let mut routes = Routes {
        title: title.clone(),
        body,
        recipients,
        contents: Vec::new(),
        deliveries: Vec::new(),
        seen: BTreeSet::new(),
    };
    let channels_at = fields.at("channels");
    let channels = fields.require("channels").and_then(|v| json::list(v, &channels_at, faults));
    fields.close();
    let channels = channels?;
    if channels.is_empty() {
        faults.add(&channels_at, "empty", "names no channel");
    }
    if channels.len() > limits::CHANNELS {
        let detail = format!(
            "has {} entries; the limit is {}: give one entry several recipients",
            channels.len(),
            limits::CHANNELS
        );
        faults.add(&channels_at, "too_many_items", detail);
        return None;
    }
    for (pointer, item) in channels {
        routes.read(item, &pointer, rules, faults);
    }
    routes.number();
    let (mut bytes, mut most) = routes.size();
    if bytes > limits::CONTENT_BYTES || most > limits::DELIVERIES {
        // A rule of the installation refuses nothing that would be taken without it.
        drop_rules(&mut routes.contents, &mut routes.deliveries);
        (bytes, most) = routes.size();
    }
    if bytes > limits::CONTENT_BYTES {
        let detail = format!("holds {bytes} bytes of content in all; the limit is {} bytes", limits::CONTENT_BYTES);
        faults.add_code(Code::E006, &channels_at, "content_too_long", detail);
    }
    if most > limits::DELIVERIES {
        let detail = format!("makes {most} deliveries; the limit is {}", limits::DELIVERIES);
        faults.add(&channels_at, "too_many_recipients", detail);
    }
    Some(NewMessage {
        client_msg_id,
        kind: kind?,
        priority: priority?,
        detail: Detail { title, contents: routes.contents, metadata, erased: false },
        deliveries: routes.deliveries,
        scheduled_at,
        expires_at,
    })
}

fn read_kind(fields: &mut Fields<'_>, faults: &Faults) -> Option<String> {
    let kind = fields.require_text("type", Text::line(limits::KIND_CHARS))?;
    let plain = kind.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'));
    if plain {
        return Some(kind);
    }
    let detail = format!("'{}' has other characters than letters, digits and _ - . :", excerpt(&kind));
    faults.add_code(Code::E005, fields.at("type"), "type_invalid", detail);
    None
}

fn read_priority(fields: &mut Fields<'_>, faults: &Faults) -> Option<Priority> {
    if !fields.has("priority") {
        fields.take("priority");
        return Some(Priority::default());
    }
    let word = fields.text("priority", Text::line(32))?;
    json::one_of(&word, &fields.at("priority"), &PRIORITIES.map(Priority::as_str), faults, Code::E001)
}

type Times = (Option<DateTime<Utc>>, Option<DateTime<Utc>>);

fn read_times(fields: &mut Fields<'_>, rules: &Rules, faults: &Faults) -> Times {
    let ahead = |limit: std::time::Duration| rules.now + TimeDelta::from_std(limit).unwrap_or_default();
    let scheduled = fields.time("scheduledAt");
    let expires = fields.time("expiresAt");
    let if_new = |field: &str, reason, detail: String| faults.add_if_new(Code::E001, fields.at(field), reason, detail);
    if let Some(at) = scheduled {
        if at < rules.now - TimeDelta::from_std(limits::SCHEDULE_GRACE).unwrap_or_default() {
            if_new("scheduledAt", "time_range", "is past".into());
        } else if at > rules.now && !rules.may_schedule {
            if_new("scheduledAt", "not_allowed", "is not allowed to this partner: it may only post for now".into());
        } else if at > ahead(limits::SCHEDULE_AHEAD) {
            let days = limits::SCHEDULE_AHEAD.as_secs() / 86_400;
            if_new("scheduledAt", "time_range", format!("is more than {days} days ahead"));
        }
    }
    if let Some(at) = expires {
        if at <= rules.now {
            if_new("expiresAt", "time_range", "is past".into());
        } else if at > ahead(limits::SCHEDULE_AHEAD * 2) {
            let days = limits::SCHEDULE_AHEAD.as_secs() * 2 / 86_400;
            if_new("expiresAt", "time_range", format!("is more than {days} days ahead"));
        } else if scheduled.is_some_and(|scheduled| at <= scheduled) {
            faults.add(fields.at("expiresAt"), "time_range", "is not after scheduledAt");
        }
    }
    (scheduled, expires)
}

fn read_metadata(fields: &mut Fields<'_>, faults: &Faults) -> Map<String, Value> {
    let pointer = fields.at("metadata");
    let metadata = match fields.take("metadata") {
        None => return Map::new(),
        Some(Value::Object(map)) => map,
        Some(other) => {
            json::mismatch(faults, &pointer, "an object", &other);
            return Map::new();
        }
    };
    let size = serde_json::to_string(&metadata).map_or(usize::MAX, |text| text.len());
    if size > limits::METADATA_BYTES {
        let detail = format!("is {size} bytes as JSON; the limit is {} bytes", limits::METADATA_BYTES);
        faults.add(&pointer, "metadata_invalid", detail);
    }
    for (key, value) in &metadata {
        let reserved = matches!(key.as_str(), "__proto__" | "constructor" | "prototype");
        if key.is_empty() || key.chars().count() > limits::METADATA_KEY_CHARS || reserved {
            let detail = format!("'{}' is not a name for metadata", excerpt(key));
            faults.add(&pointer, "metadata_invalid", detail);
        } else if value.is_object() || value.is_array() {
            faults.add(json::at(&pointer, key), "metadata_invalid", "must be a text, a number or a truth value");
        }
    }
    metadata
}

struct Recipient {
    pointer: String,
    email: Option<String>,
    phone: Option<String>,
}

fn read_recipients(fields: &mut Fields<'_>, faults: &Faults) -> Vec<Recipient> {
    let Some(list) = fields.list("recipients") else { return Vec::new() };
    let mut recipients = Vec::with_capacity(list.len().min(limits::DELIVERIES));
    for (pointer, item) in list {
        let Some(mut fields) = Fields::open(item, &pointer, faults) else { continue };
        // An id is the partner's own name for the person: kept out of the books, which need only the address.
        fields.text("id", Text::line(limits::CLIENT_MSG_ID_CHARS).as_posted());
        let email = fields.text("email", Text::address(limits::EMAIL_BYTES));
        let phone = fields.text("phone", Text::address(limits::EMAIL_BYTES));
        fields.not_served(&["variables"]);
        fields.close();
        recipients.push(Recipient { pointer, email, phone });
    }
    recipients
}

/// Gathers what goes where.
struct Routes {
    title: Option<String>,
    body: Option<String>,
    recipients: Vec<Recipient>,
    contents: Vec<Content>,
    deliveries: Vec<NewDelivery>,
    seen: BTreeSet<(Channel, String, i16)>,
}

impl Routes {
    fn read(&mut self, item: Value, pointer: &str, rules: &Rules, faults: &Faults) {
        let Some(mut fields) = Fields::open(item, pointer, faults) else { return };
        let Some(channel) = read_channel(&mut fields, rules, faults) else { return };
        let to = self.read_to(channel, &mut fields, rules, faults);
        let content = self.read_content(channel, &mut fields, rules, faults);
        let asked = fields.has("fallback");
        let stand_by = fields.list("fallback");
        fields.not_served(&NOT_SERVED);
        let stand_by_at = fields.at("fallback");
        fields.close();
        let stand_by = self.read_fallbacks(channel, stand_by.unwrap_or_default(), &stand_by_at, rules, faults);
        let Some(mut content) = content else { return };
        let attempts = stand_by.first().and_then(|s| s.after_attempts);
        content.fallback = if asked { self.link(stand_by) } else { self.by_rule(channel, &content, rules) };
        let has_fallback = content.fallback.is_some();
        let content = self.keep(content);
        for (to, written) in to {
            // The same to the same recipient twice is told once.
            if self.seen.insert((channel, distinct(channel, &to), content)) {
                self.deliveries.push(NewDelivery { channel, to, written, content, has_fallback, attempts });
            }
        }
    }

    /// The content's index.
    fn keep(&mut self, content: Content) -> i16 {
        let index = self.contents.iter().position(|c| *c == content).unwrap_or_else(|| {
            self.contents.push(content);
            self.contents.len() - 1
        });
        // At most three times as many contents as channels in one body, which is far below.
        i16::try_from(index).unwrap_or(i16::MAX)
    }

    /// What stands by for a channel: each as a channel of its own.
    fn read_fallbacks(
        &self,
        first: Channel,
        list: Vec<(String, Value)>,
        pointer: &str,
        rules: &Rules,
        faults: &Faults,
    ) -> Vec<StandBy> {
        if list.len() > limits::FALLBACKS {
            let detail = format!("names {} channels; at most {} may stand by", list.len(), limits::FALLBACKS);
            faults.add(pointer, "too_many_items", detail);
            return Vec::new();
        }
        let (mut before, mut stand_by) = (vec![first], Vec::new());
        for (pointer, item) in list {
            let Some(mut fields) = Fields::open(item, &pointer, faults) else { continue };
            let Some(channel) = read_channel(&mut fields, rules, faults) else { continue };
            if before.contains(&channel) {
                let detail = format!("was tried over {channel} by then; name another channel");
                faults.add(fields.at("channel"), "fallback_same_channel", detail);
            }
            let to = read_other_to(first, channel, &mut fields, rules, faults);
            let content = self.read_content(channel, &mut fields, rules, faults);
            let attempts = fields.number("afterAttempts", 1..=limits::AFTER_ATTEMPTS);
            let no_receipt = fields.number("noReceiptSeconds", limits::NO_RECEIPT_SECONDS);
            let tells = before.last().is_none_or(|waited| rules.receipts.contains(waited));
            if no_receipt.is_some() && !tells {
                let detail = "nobody tells what becomes of what is sent over the channel before it: leave it out";
                faults.add_if_new(Code::E001, fields.at("noReceiptSeconds"), "no_receipts", detail);
            }
            let on_unknown = fields.flag("onUnknown").unwrap_or(false);
            fields.not_served(&NOT_SERVED);
            fields.close();
            before.push(channel);
            let Some(content) = content else { continue };
            stand_by.push(StandBy {
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

    /// The first of these, which leads to the others.
    fn link(&mut self, stand_by: Vec<StandBy>) -> Option<Box<Fallback>> {
        let (mut next, mut attempts) = (None, None);
        for mut one in stand_by.into_iter().rev() {
            one.content.fallback = next.take();
            let content = self.keep(one.content);
            let (channel, to, no_receipt_s, on_unknown) = (one.channel, one.to, one.no_receipt_s, one.on_unknown);
            // The step is known when all deliveries are.
            let by_rule = false;
            next =
                Some(Box::new(Fallback { channel, content, to, step: 0, no_receipt_s, attempts, on_unknown, by_rule }));
            attempts = one.after_attempts;
        }
        next
    }

    /// What stands by where the message says nothing and the installation does, if it can say the same to the same.
    fn by_rule(&mut self, channel: Channel, content: &Content, rules: &Rules) -> Option<Box<Fallback>> {
        let other = *rules.fallbacks.get(&channel)?;
        let alike = other.addressed_by() == channel.addressed_by() && rules.channels.contains(&other);
        if !alike || body_fault(other, None, &content.body, rules.limit(other), rules).is_some() {
            return None;
        }
        let content = Content { body: content.body.clone(), ..Content::default() };
        let content = self.keep(content);
        Some(Box::new(Fallback {
            channel: other,
            content,
            to: None,
            step: 0,
            no_receipt_s: None,
            attempts: None,
            on_unknown: false,
            by_rule: true,
        }))
    }

    /// Whoever takes a delivery's place has its number and as many as were posted: each a number of its own.
    fn number(&mut self) {
        let step = i16::try_from(self.deliveries.len()).unwrap_or(i16::MAX);
        self.contents.iter_mut().filter_map(|c| c.fallback.as_mut()).for_each(|f| f.step = step);
    }

    /// How many bytes it says, and how many deliveries may come of it.
    fn size(&self) -> (usize, usize) {
        let most = self.deliveries.iter().map(|d| self.chain(d.content)).sum();
        (self.contents.iter().map(Content::bytes).sum(), most)
    }

    /// How many deliveries may come of one with this content.
    fn chain(&self, content: i16) -> usize {
        let of = |content: i16| usize::try_from(content).ok().and_then(|n| self.contents.get(n));
        let next = |content: &i16| of(*content)?.fallback.as_ref().map(|f| f.content);
        std::iter::successors(Some(content), next).take(limits::FALLBACKS + 1).count()
    }

    /// The channel's own `to`, one or several; without it every recipient's address for this channel. Each as it is kept,
    /// and as it was written where that differs.
    fn read_to(
        &self,
        channel: Channel,
        fields: &mut Fields<'_>,
        rules: &Rules,
        faults: &Faults,
    ) -> Vec<(String, Option<String>)> {
        let pointer = fields.at("to");
        let named: Vec<(String, Value)> = match fields.take("to") {
            Some(Value::Array(items)) => {
                items.into_iter().enumerate().map(|(n, item)| (format!("{pointer}/{n}"), item)).collect()
            }
            Some(one) => vec![(pointer.clone(), one)],
            None => {
                let own = |r: &Recipient| match channel.addressed_by() {
                    AddressKind::Mailbox => r.email.clone().map(|e| (format!("{}/email", r.pointer), Value::String(e))),
                    AddressKind::Phone => r.phone.clone().map(|p| (format!("{}/phone", r.pointer), Value::String(p))),
                    AddressKind::Destination | AddressKind::UserKey | AddressKind::Unserved => None,
                };
                self.recipients.iter().filter_map(own).collect()
            }
        };
        if named.is_empty() {
            faults.add(&pointer, "required", "names nobody to send to");
        }
        let mut to = Vec::with_capacity(named.len());
        for (pointer, value) in named {
            let rule = Text::address(limits::EMAIL_BYTES);
            let Some(text) = json::text(value, &pointer, rule, faults) else { continue };
            to.extend(address(channel, text, &pointer, rules, faults));
        }
        to
    }

    fn read_content(
        &self,
        channel: Channel,
        fields: &mut Fields<'_>,
        rules: &Rules,
        faults: &Faults,
    ) -> Option<Content> {
        let has_body = fields.has("body");
        // What cannot hold this much anyway tells its own limit.
        let short = !matches!(channel, Channel::Email | Channel::Slack);
        let most = if short { limits::BODY_BYTES } else { limits::TEXT_BYTES };
        let own = fields.text("body", Text::block(most).or_empty());
        let mut content = Content::default();
        match channel {
            Channel::Email | Channel::Slack => content.subject = self.read_subject(fields),
            Channel::Lms | Channel::Mms => {
                content.subject = self.read_subject(fields);
                let limit = Limit { max: limits::MOBILE_SUBJECT_BYTES, measure: Measure::Cp949Bytes };
                let what = format!("the subject of {channel}");
                let fault = content.subject.as_ref().and_then(|s| length_fault(s, limit, &what));
                if let Some((code, reason, detail)) = fault {
                    faults.add_code(code, fields.at("subject"), reason, detail);
                }
            }
            Channel::KakaoAlimtalk | Channel::KakaoBrandMessage => {
                content.template_code =
                    fields.text("templateCode", Text::line(limits::TEMPLATE_CODE_CHARS).as_posted());
            }
            _ => (),
        }
        match channel {
            Channel::Email => content.html = fields.text("html", Text::block(limits::HTML_BYTES).as_posted()),
            Channel::Slack => content.blocks = read_blocks(fields, faults),
            _ => (),
        }
        let body = if has_body { own } else { self.body.clone() };
        let Some(body) = body else {
            if !has_body {
                faults.add(fields.at("body"), "required", "neither the channel nor the message has a body");
            }
            return None;
        };
        if channel == Channel::Email && content.subject.is_none() {
            faults.add(fields.at("subject"), "required", "an e-mail needs a subject, or the message a title");
        } else if channel != Channel::Email && is_blank(&body) {
            let detail = format!("is empty; only an e-mail may say all in its subject: give {channel} a text");
            faults.add(fields.at("body"), "empty", detail);
            return None;
        }
        let subject = content.subject.as_deref();
        if let Some((code, reason, detail)) = body_fault(channel, subject, &body, rules.limit(channel), rules) {
            // Another provider may have taken it.
            match body_fault(channel, subject, &body, channel.limit(), rules) {
                None => faults.add_if_new(code, fields.at("body"), reason, detail),
                Some(_) => faults.add_code(code, fields.at("body"), reason, detail),
            }
        }
        Some(Content { body, ..content })
    }

    fn read_subject(&self, fields: &mut Fields<'_>) -> Option<String> {
        fields.text("subject", Text::line(limits::SUBJECT_CHARS)).or_else(|| self.title.clone())
    }
}

/// A channel that stands by, as it was asked for.
struct StandBy {
    channel: Channel,
    to: Option<String>,
    content: Content,
    after_attempts: Option<i16>,
    no_receipt_s: Option<u32>,
    on_unknown: bool,
}

/// To whom what stands by goes, where that is not the same as before.
fn read_other_to(
    first: Channel,
    channel: Channel,
    fields: &mut Fields<'_>,
    rules: &Rules,
    faults: &Faults,
) -> Option<String> {
    let pointer = fields.at("to");
    let rule = Text::address(limits::EMAIL_BYTES);
    if !fields.has("to") && channel.addressed_by() != first.addressed_by() {
        faults.add(&pointer, "required", format!("is needed: {channel} is addressed in another way than {first}"));
    }
    let text = fields.text("to", rule)?;
    address(channel, text, &pointer, rules, faults).map(|(to, _)| to)
}

/// A recipient as the channel's provider takes it, and as it was written where that differs. None if it is no address.
fn address(
    channel: Channel,
    text: String,
    pointer: &str,
    rules: &Rules,
    faults: &Faults,
) -> Option<(String, Option<String>)> {
    let refuse = |reason, why: &str| {
        faults.add(pointer, reason, format!("'{}' {why}", excerpt(&text)));
        None
    };
    match channel.addressed_by() {
        AddressKind::Mailbox if !is_mailbox(&text) => return refuse("recipient_invalid", "is not an e-mail address"),
        AddressKind::UserKey if !is_user_key(&text) => {
            let most = limits::USER_KEY_CHARS;
            let why = format!("is not a user key of {channel}: at most {most} letters, digits, - and _");
            return refuse("recipient_invalid", &why);
        }
        AddressKind::Phone => match phone::parse(&text, &rules.region) {
            Ok(number) if number == text => (),
            Ok(number) => return Some((number, Some(text))),
            Err(why) => return refuse("phone_invalid", why),
        },
        AddressKind::Destination if !rules.slack.contains(&text) => {
            let detail = format!("'{}' is not a configured Slack destination", excerpt(&text));
            faults.add_if_new(Code::E001, pointer, "destination_unknown", detail);
        }
        _ => (),
    }
    Some((text, None))
}

/// Opaque, but in the characters of all that are given out.
fn is_user_key(text: &str) -> bool {
    text.len() <= limits::USER_KEY_CHARS && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

type LengthFault = (Code, &'static str, String);

/// Whether a body is too long for its channel, measured as it is sent.
fn body_fault(
    channel: Channel,
    subject: Option<&str>,
    body: &str,
    limit: Option<Limit>,
    rules: &Rules,
) -> Option<LengthFault> {
    let limit = limit?;
    if channel == Channel::Slack {
        let what = "SLACK, which counts the subject and &amp; &lt; &gt; for & < >,";
        return length_fault(&mrkdwn::text(subject, body), limit, what);
    }
    let (code, reason, detail) = length_fault(body, limit, channel.as_str())?;
    let lms = rules.limit(Channel::Lms).filter(|_| channel == Channel::Sms && code == Code::E006);
    let detail = match lms.filter(|lms| length_fault(body, *lms, "").is_none()) {
        Some(lms) => format!("{detail}; as LMS ({} {}) it would fit", lms.max, lms.measure.unit()),
        None => detail,
    };
    Some((code, reason, detail))
}

/// Whether a text is too long, or has characters that do not exist where it is to go.
fn length_fault(text: &str, Limit { max, measure }: Limit, what: &str) -> Option<LengthFault> {
    let unit = measure.unit();
    let encoding = if measure == Measure::Cp949Bytes { " as CP949" } else { "" };
    match measure.of(text) {
        Ok(length) if length <= max => None,
        Ok(length) => {
            let detail = format!("is {length} {unit} long{encoding}; the limit of {what} is {max} {unit}");
            Some((Code::E006, "content_too_long", detail))
        }
        Err(unmappable) => {
            let told = unmappable.iter().take(5).map(|c| format!("'{}' U+{:04X}", c.escape_debug(), u32::from(*c)));
            let told = told.collect::<Vec<_>>().join(", ");
            let more = if unmappable.len() > 5 { " and others" } else { "" };
            let detail = format!("has characters that {what} cannot carry, for they are not in CP949: {told}{more}");
            Some((Code::E001, "unmappable_character", detail))
        }
    }
}

fn read_blocks(fields: &mut Fields<'_>, faults: &Faults) -> Option<Value> {
    let pointer = fields.at("blocks");
    let items = fields.list("blocks")?;
    if items.len() > limits::SLACK_BLOCKS {
        faults.add(&pointer, "too_many_items", format!("Slack takes at most {} blocks", limits::SLACK_BLOCKS));
    }
    for (pointer, block) in &items {
        if block.get("type").and_then(Value::as_str).is_none() {
            faults.add(pointer, "blocks_invalid", "a block is an object with a type");
        }
    }
    let blocks: Vec<Value> = items.into_iter().map(|(_, block)| block).collect();
    (!blocks.is_empty()).then_some(Value::Array(blocks))
}

fn read_channel(fields: &mut Fields<'_>, rules: &Rules, faults: &Faults) -> Option<Channel> {
    let word = fields.require_text("channel", Text::line(64))?;
    let pointer = fields.at("channel");
    let channel: Channel = json::one_of(&word, &pointer, &CHANNELS.map(Channel::as_str), faults, Code::E005)?;
    if rules.channels.contains(&channel) {
        return Some(channel);
    }
    if rules.forbidden.contains(&channel) {
        let detail = format!("this partner may not send over {channel}");
        faults.add_if_new(Code::E005, pointer, "channel_not_allowed", detail);
        return Some(channel);
    }
    let served: Vec<&str> = rules.channels.iter().map(|c| c.as_str()).collect();
    let detail = format!("no provider serves {channel} here; there are {}", served.join(", "));
    if channel.addressed_by() == AddressKind::Unserved {
        faults.add_code(Code::E005, pointer, "channel_unavailable", detail);
        return None;
    }
    faults.add_if_new(Code::E005, pointer, "channel_unavailable", detail);
    Some(channel)
}

/// A plain mailbox, `local@domain.tld`: no quotes, comments, literals or display name, ASCII, a dotted domain that is not
/// a network address.
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
