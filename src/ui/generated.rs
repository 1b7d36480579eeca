//! The parts of the documents that are generated from the code when they are shown. Limits, statuses and settings in
//! these parts cannot differ from the program's.

use std::time::Duration;

use crate::config::reference::{Setting, defaults, reference};
use crate::docs::{self, Topic};
use crate::error::{CODES, DELIVERY_REASONS, REASONS};
use crate::model::channel::{AddressKind, CHANNELS, Channel, OnUnknown};
use crate::model::delivery::{STATUSES, TRANSITIONS};
use crate::model::retry::{RETRY_RULES, RetryAction};
use crate::provider::adapter::COMMON_OPTIONS;
use crate::provider::registry::ADAPTERS;
use crate::provider::simulator::magic;
use crate::telemetry::Metrics;

type Generator = fn() -> String;

/// The generators by name. A line `{{name}}` of a document is replaced by the generated text.
const PARTS: [(&str, Generator); 14] = [
    ("adapters", adapters),
    ("channel-limits", channel_limits),
    ("codes", codes),
    ("commands", commands),
    ("delivery-reasons", delivery_reasons),
    ("magic-recipients", magic_recipients),
    ("metrics", metrics),
    ("provider-errors", provider_errors),
    ("reasons", reasons),
    ("retries", retries),
    ("settings", settings),
    ("state-diagram", state_diagram),
    ("topics", topics),
    ("transitions", transitions),
];

/// The Markdown of a document with its generated parts.
pub fn text(topic: &Topic) -> String {
    let mut whole = String::with_capacity(topic.source.len());
    for line in topic.source.lines() {
        let name = line.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}"));
        match PARTS.iter().find(|(part, _)| name == Some(part)) {
            Some((_, made)) => whole.push_str(made().trim_end()),
            None => whole.push_str(line),
        }
        whole.push('\n');
    }
    whole
}

/// A Markdown table. Bars in cells are escaped.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let line = |cells: [String; N]| format!("| {} |\n", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    let mut made = line(head.map(str::to_owned));
    made.push_str(&"|---".repeat(N));
    made.push_str("|\n");
    rows.into_iter().for_each(|row| made.push_str(&line(row)));
    made
}

fn code(text: impl std::fmt::Display) -> String {
    format!("`{text}`")
}

/// A text of `--help` with its full stop, which clap removes.
pub fn sentence(help: &str) -> String {
    let help = help.trim();
    let ends = help.ends_with(['.', ':', '!', '?', ']']);
    if ends || help.is_empty() { help.to_owned() } else { format!("{help}.") }
}

/// A number with a comma before its last three digits: `65,536`.
fn number(n: usize) -> String {
    let digits = n.to_string();
    let (head, tail) = digits.split_at(digits.len().saturating_sub(3));
    if head.is_empty() { tail.to_owned() } else { format!("{head},{tail}") }
}

fn topics() -> String {
    let mut made = String::new();
    for group in &docs::GROUPS {
        made += &format!("## {}\n\n", group.title);
        for topic in group.topics {
            made += &format!("- [{}]({}.md): {}\n", topic.title(), topic.name, topic.summary());
        }
        made.push('\n');
    }
    made
}

fn codes() -> String {
    table(["code", "meaning"], CODES.map(|(_, word, meaning)| [code(word), meaning.to_owned()]))
}

fn reasons() -> String {
    let mut made = String::new();
    for reason in REASONS {
        let (word, status, code) = (reason.word, reason.status, reason.code.as_str());
        made += &format!("- `{word}` ({status}, {code}): {}. Remedy: {}.\n", reason.cause, reason.remedy);
    }
    made
}

fn delivery_reasons() -> String {
    let line = |(word, meaning): &(&str, &str)| format!("- `{word}`: {meaning}.\n");
    DELIVERY_REASONS.iter().map(line).collect()
}

fn transitions() -> String {
    let rows = TRANSITIONS.map(|(from, to, why)| [code(from), code(to), why.to_owned()]);
    table(["from", "to", "why"], rows)
}

/// The state diagram of deliveries in Mermaid.
fn state_diagram() -> String {
    let mut made = "```mermaid\nstateDiagram-v2\n  [*] --> SCHEDULED\n  [*] --> PENDING\n".to_owned();
    for (from, to, _) in TRANSITIONS {
        made += &format!("  {from} --> {to}\n");
    }
    for status in STATUSES.into_iter().filter(|status| status.is_settled()) {
        made += &format!("  {status} --> [*]\n");
    }
    made + "```\n"
}

fn channel_limits() -> String {
    let row = |channel: Channel| {
        let to = match channel.addressed_by() {
            AddressKind::Mailbox => "e-mail address",
            AddressKind::Destination => "destination's name",
            AddressKind::Phone => "phone number",
            AddressKind::UserKey => "user key",
            AddressKind::User => "user's id",
            AddressKind::Unserved => return None,
        };
        let limit = match channel.body_limit() {
            Some(limit) => format!("{} {}", number(limit.max), limit.measure.unit()),
            None => format!("{} bytes of UTF-8", number(crate::limits::TEXT_BYTES)),
        };
        let unknown = match channel.on_unknown() {
            OnUnknown::Retry => "tried again",
            OnUnknown::Lookup => "looked up",
            OnUnknown::Hold => "not sent twice",
        };
        Some([code(channel), to.to_owned(), limit, unknown.to_owned()])
    };
    let rows = CHANNELS.into_iter().filter_map(row);
    table(["channel", "`to` is", "body at most", "unknown outcome"], rows)
}

fn provider_errors() -> String {
    let row = |row: crate::model::retry::RetryRule| {
        let action = match row.action {
            RetryAction::Retry => "tried again after a pause",
            RetryAction::RetryAfter => "tried again, after `Retry-After` if the provider sent one",
            RetryAction::RetryUncounted => "waits and uses no attempt, for as long as the channel's patience lasts",
            RetryAction::Permanent => "ends FAILED",
            RetryAction::BlockProvider => "waits and uses no attempt; the breaker opens",
        };
        let fallback = if row.falls_back { "yes" } else { "no" };
        [code(row.reason), fallback.to_owned(), action.to_owned()]
    };
    table(["reason", "fallback", "what follows"], RETRY_RULES.map(row))
}

/// 90 s as `90 s`, 300 s as `5 m`, a day as `24 h`: in the largest unit up to hours that leaves no rest.
fn pause(pause: Duration) -> String {
    let seconds = pause.as_secs();
    match seconds {
        _ if seconds > 0 && seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        _ if seconds > 0 && seconds.is_multiple_of(60) => format!("{} m", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// The default retry policies. Channels with the same policy share a row.
fn retries() -> String {
    let Some(settings) = defaults() else { return String::new() };
    let mut rows: Vec<[String; 4]> = Vec::new();
    for channel in CHANNELS {
        if channel.addressed_by() == AddressKind::Unserved && channel != Channel::Webhook {
            continue;
        }
        let policy = settings.retry.policy(channel, false);
        let pauses = match policy.schedule {
            Some(schedule) => schedule.iter().map(|each| pause(*each)).collect::<Vec<_>>().join(", "),
            None => format!(
                "up to {}, then {} times as long each; chance spreads them (full jitter)",
                pause(policy.base_backoff),
                policy.multiplier
            ),
        };
        let patience = match policy.throttle_patience.as_secs() / 86_400 {
            0 => "counts as a refusal".to_owned(),
            1 => "1 day".to_owned(),
            days => format!("{days} days"),
        };
        let row = [code(channel), policy.max_attempts.to_string(), patience, pauses];
        match rows.last_mut().filter(|last| last[1..] == row[1..]) {
            Some(last) => last[0] += &format!(" {}", row[0]),
            None => rows.push(row),
        }
    }
    table(["channel", "attempts", "a 429 uses none for", "pauses between them"], rows)
}

fn adapters() -> String {
    let list = |options: &[(&str, &str)]| -> String {
        options.iter().map(|(name, about)| format!("- `{name}`: {about}\n")).collect()
    };
    let mut made = String::new();
    for adapter in ADAPTERS {
        made += &format!("### {}\n\n{}.\n\n{}\n", adapter.name, adapter.description, list(adapter.options));
    }
    made += &format!("### Options of every adapter\n\n{}\n", list(COMMON_OPTIONS));
    made
}

fn magic_recipients() -> String {
    let row = |m: magic::MagicRecipient| [format!("`{:02}`", m.number), code(m.word), m.description.to_owned()];
    table(["NN", "word", "what happens"], magic::TABLE.map(row))
}

fn metrics() -> String {
    let described = Metrics::new().map(|metrics| metrics.described).unwrap_or_default();
    let mut made = String::new();
    for metric in described {
        let labels: Vec<String> = metric.labels.iter().map(code).collect();
        let labels = if labels.is_empty() { String::new() } else { format!(" by {}", labels.join(", ")) };
        made += &format!("- `{}` ({}{labels}): {}\n", metric.name, metric.kind, metric.help);
    }
    made
}

fn settings() -> String {
    let (mut made, mut heading) = (String::new(), String::new());
    for setting in reference() {
        let Setting { name, variable, value, default, words, line, text, .. } = setting;
        if heading != setting.heading {
            heading = setting.heading;
            made += &format!("## {heading}\n\n");
        }
        let value = value.map(|value| format!(" {value}")).unwrap_or_default();
        let default = default.map(|default| format!("; default `{default}`")).unwrap_or_default();
        made += &format!("### {name}\n\n`--{name}{value}`, `{variable}`, `{line}`{default}\n\n");
        if !text.is_empty() {
            made += &format!("{}\n\n", sentence(&text));
        }
        for (word, meaning) in &words {
            made += &format!("- `{word}`: {}\n", sentence(meaning));
        }
        if !words.is_empty() {
            made.push('\n');
        }
    }
    made
}

fn commands() -> String {
    docs::COMMANDS.to_owned()
}
