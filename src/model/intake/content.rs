//! The content of one channel: its text, further parts such as subject or blocks, and whether it fits.

use serde_json::Value;

use super::channel_form::{SEVERITIES, form};
use super::policy::Installation;
use super::reader::{Reader, Shared};
use crate::error::{Code, excerpt};
use crate::limits;
use crate::model::channel::{Channel, LengthLimit, Measure};
use crate::model::fields::Fields;
use crate::model::json;
use crate::model::message::Content;
use crate::model::mrkdwn;
use crate::model::text::is_blank;

/// A word of `SEVERITIES`.
struct Severity(&'static str);

impl std::str::FromStr for Severity {
    type Err = ();
    fn from_str(text: &str) -> Result<Severity, ()> {
        SEVERITIES.into_iter().find(|word| *word == text).map(Severity).ok_or(())
    }
}

impl Reader<'_> {
    /// Reads the content of an entry of `channels` or of a fallback.
    pub fn content(self, channel: Channel, fields: &mut Fields<'_>, shared: &Shared) -> Option<Content> {
        let form = form(channel);
        let has_body = fields.has("body");
        let own = fields.text_of(form, "body");
        let mut content = Content::default();
        if form.field("subject").is_some() {
            content.subject = fields.text_of(form, "subject").or_else(|| shared.title.clone());
        }
        if matches!(channel, Channel::Lms | Channel::Mms) {
            let limit = LengthLimit { max: limits::MOBILE_SUBJECT_BYTES, measure: Measure::Cp949Bytes };
            let what = format!("the subject of {channel}");
            let fault = content.subject.as_ref().and_then(|s| length_fault(s, limit, &what));
            if let Some((code, reason, detail)) = fault {
                self.faults.add_code(code, fields.pointer_to("subject"), reason, detail);
            }
        }
        content.template_code = fields.text_of(form, "templateCode");
        content.html = fields.text_of(form, "html");
        if channel == Channel::Inapp {
            self.item(&mut content, fields);
        }
        if form.field("blocks").is_some() {
            content.blocks = self.blocks(fields);
        }
        let body = if has_body { own } else { shared.body.clone() };
        let Some(body) = body else {
            if !has_body {
                self.faults.add(
                    fields.pointer_to("body"),
                    "required",
                    "is required: neither this channel nor the message has a body",
                );
            }
            return None;
        };
        if channel == Channel::Email && content.subject.is_none() {
            self.faults.add(
                fields.pointer_to("subject"),
                "required",
                "is required: an e-mail needs a subject here or a title in the message",
            );
        } else if channel != Channel::Email && is_blank(&body) {
            let detail = format!("is empty; only an e-mail may have an empty body, so give {channel} a text");
            self.faults.add(fields.pointer_to("body"), "empty", detail);
            return None;
        }
        let subject = content.subject.as_deref();
        let installation = &self.policy.installation;
        if let Some((code, reason, detail)) = body_fault(channel, subject, &body, installation) {
            // Longer than this installation's provider accepts, but not longer than the channel's own limit.
            let always = channel.body_limit().and_then(|limit| too_long(channel, subject, &body, limit));
            match always {
                None => self.faults.add_if_new(code, fields.pointer_to("body"), reason, detail),
                Some(_) => self.faults.add_code(code, fields.pointer_to("body"), reason, detail),
            }
        }
        Some(Content { body, ..content })
    }

    /// Reads what only an item of an inbox has.
    fn item(self, content: &mut Content, fields: &mut Fields<'_>) {
        let mut link = |name: &str, schemes: &[&str]| {
            let link = fields.text(name)?;
            let is_link = url::Url::parse(&link).is_ok_and(|url| schemes.contains(&url.scheme()) && url.has_host());
            if !is_link {
                let detail = format!("'{}' is not a URL with {}", excerpt(&link), schemes.join(" or "));
                self.faults.add(fields.pointer_to(name), "url_invalid", detail);
            }
            Some(link)
        };
        content.action_url = link("actionUrl", &["https", "http"]);
        content.image_url = link("imageUrl", &["https"]);
        content.category = fields.text("category");
        if let Some(word) = fields.text("severity") {
            let pointer = fields.pointer_to("severity");
            let severity: Option<Severity> = json::one_of(&word, &pointer, &SEVERITIES, self.faults, Code::E001);
            content.severity = severity.map(|severity| severity.0.to_owned());
        }
    }

    fn blocks(self, fields: &mut Fields<'_>) -> Option<Value> {
        let pointer = fields.pointer_to("blocks");
        let items = fields.list("blocks")?;
        if items.len() > limits::SLACK_BLOCKS {
            let detail = format!("has too many blocks; Slack accepts at most {}", limits::SLACK_BLOCKS);
            self.faults.add(&pointer, "too_many_items", detail);
        }
        for (pointer, block) in &items {
            if block.get("type").and_then(Value::as_str).is_none() {
                self.faults.add(pointer, "blocks_invalid", "is not a block: each block must be an object with a type");
            }
        }
        let blocks: Vec<Value> = items.into_iter().map(|(_, block)| block).collect();
        (!blocks.is_empty()).then_some(Value::Array(blocks))
    }
}

/// A fault of a text: code, reason and detail.
type LengthFault = (Code, &'static str, String);

/// The fault of a body that is too long for its channel in this installation, measured as it is sent.
pub(super) fn body_fault(
    channel: Channel,
    subject: Option<&str>,
    body: &str,
    installation: &Installation,
) -> Option<LengthFault> {
    let (code, reason, detail) = too_long(channel, subject, body, installation.body_limit(channel)?)?;
    let lms = installation.body_limit(Channel::Lms).filter(|_| channel == Channel::Sms && code == Code::E006);
    let detail = match lms.filter(|lms| length_fault(body, *lms, "").is_none()) {
        Some(lms) => format!("{detail}; it would fit as LMS ({} {})", lms.max, lms.measure.unit()),
        None => detail,
    };
    Some((code, reason, detail))
}

fn too_long(channel: Channel, subject: Option<&str>, body: &str, limit: LengthLimit) -> Option<LengthFault> {
    if channel == Channel::Slack {
        let what = "SLACK, which counts the subject and &amp; &lt; &gt; for & < >,";
        return length_fault(&mrkdwn::text(subject, body), limit, what);
    }
    length_fault(body, limit, channel.as_str())
}

/// The fault of a text that is too long or has characters that its encoding does not have. `what`: the subject of the
/// limit.
fn length_fault(text: &str, LengthLimit { max, measure }: LengthLimit, what: &str) -> Option<LengthFault> {
    let unit = measure.unit();
    let encoding = if measure == Measure::Cp949Bytes { " as CP949" } else { "" };
    match measure.length_of(text) {
        Ok(length) if length <= max => None,
        Ok(length) => {
            let detail = format!("is {length} {unit} long{encoding}; the limit of {what} is {max} {unit}");
            Some((Code::E006, "content_too_long", detail))
        }
        Err(unmappable) => {
            let told = unmappable.iter().take(5).map(|c| format!("'{}' U+{:04X}", c.escape_debug(), u32::from(*c)));
            let told = told.collect::<Vec<_>>().join(", ");
            let more = if unmappable.len() > 5 { " and others" } else { "" };
            let detail = format!("has characters that {what} cannot carry because CP949 lacks them: {told}{more}");
            Some((Code::E001, "unmappable_character", detail))
        }
    }
}
