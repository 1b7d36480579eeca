//! The output of commands: text with colours on a terminal (anstream removes them elsewhere), or JSON.

use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::error::Error;

/// The form of the output: for people or for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

pub const GOOD: Style = AnsiColor::Green.on_default();
pub const WARN: Style = AnsiColor::Yellow.on_default();
pub const BAD: Style = AnsiColor::Red.on_default();
pub const DIM: Style = Style::new().dimmed();
pub const BOLD: Style = Style::new().bold();

/// Prints an error on standard error: a sentence for people, a line of JSON for programs. The JSON is the hub's problem
/// if the hub answered with one.
pub fn error(error: &Error, output: Output) {
    match (output, error) {
        (Output::Text, _) => anstream::eprintln!("{BAD}error{BAD:#} {}", printable(&error.to_string())),
        (Output::Json, Error::Answered { problem, .. }) => anstream::eprintln!("{}", escaped(&problem.to_string())),
        (Output::Json, _) => anstream::eprintln!("{}", escaped(&json!({"detail": error.to_string()}).to_string())),
    }
}

/// Prints a warning on standard error.
pub fn warning(text: &str, output: Output) {
    match output {
        Output::Text => anstream::eprintln!("{WARN}warning{WARN:#} {}", printable(text)),
        Output::Json => anstream::eprintln!("{}", escaped(&json!({"warning": text}).to_string())),
    }
}

/// Prints a line of JSON on standard output.
pub fn json(value: &Value) {
    anstream::println!("{value}");
}

/// A text from outside with its control characters replaced, so that it cannot send commands to a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A text of several lines, or JSON, from outside with its control, invisible and direction characters written as
/// `\u001b`. The result is the same JSON.
pub fn escaped(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if c.is_control() && c != '\n' || invisible {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<String>();
            shown.push_str(&units);
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A text in this style. The style is removed where the output has no colours.
pub fn paint(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

/// A status in its colour. The word may be padded with blanks.
pub fn status(word: &str) -> String {
    let style = match word.trim_end() {
        "SENT" | "DELIVERED" | "SUCCESS" | "COMPLETED" | "ACCEPTED" => GOOD,
        "FAILED" | "EXPIRED" | "REJECTED" => BAD,
        "UNDETERMINED" | "UNKNOWN" | "PARTIAL" | "CANCELED" => WARN,
        _ => Style::new(),
    };
    paint(style, word)
}

/// Prints a message as `GET /v1/messages/{id}` returns it, with its timeline.
pub fn message_with_timeline(message: &Value, timeline: &Value) {
    let text = |v: &Value| printable(v.as_str().unwrap_or_default());
    anstream::println!(
        "{BOLD}{}{BOLD:#}  {}  {}  {}",
        text(&message["messageId"]),
        text(&message["type"]),
        status(message["status"].as_str().unwrap_or_default()),
        text(&message["title"]),
    );
    for delivery in message["deliveries"].as_array().into_iter().flatten() {
        anstream::println!(
            "  {}  {} → {}  {}",
            text(&delivery["deliveryId"]),
            text(&delivery["channel"]),
            text(&delivery["to"]),
            status(delivery["status"].as_str().unwrap_or_default()),
        );
    }
    for webhook in message["webhooks"].as_array().into_iter().flatten() {
        let next = webhook["nextAttemptAt"].as_str().map(|_| format!(", next try {}", text(&webhook["nextAttemptAt"])));
        anstream::println!(
            "  webhook  {} → {}  {}{}",
            text(&webhook["event"]),
            text(&webhook["endpointId"]),
            status(webhook["status"].as_str().unwrap_or_default()),
            next.unwrap_or_default(),
        );
    }
    if message["moreWebhooks"] == true {
        anstream::println!(
            "  webhook  … and more; `notihub webhook deliveries ENDPOINT` lists all webhooks of an endpoint"
        );
    }
    let entries = timeline["items"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(day) = entries.first().and_then(|entry| entry["at"].as_str()?.get(..10)) {
        anstream::println!("    {DIM}since {day}, in UTC{DIM:#}");
    }
    for entry in entries {
        let at = text(&entry["at"]);
        let at = at.get(11..23).unwrap_or(&at);
        if entry["endpointId"].is_string() {
            anstream::println!("    {DIM}{at}{DIM:#} {}", webhook_line(entry));
            continue;
        }
        let no = entry["deliveryId"].as_str().and_then(|id| id.rsplit('-').next()).map(|no| format!("-{no}"));
        let attempt = entry["attempt"].as_i64().map(|n| format!("#{n}")).unwrap_or_default();
        let what = text(&entry["what"]);
        anstream::println!(
            "    {DIM}{at}{DIM:#} {:<4}{attempt:<4}{what:<11}{}",
            no.unwrap_or_default(),
            text(&entry["detail"])
        );
    }
}

/// Prints a delivery as `GET /v1/deliveries/{id}` returns it, with each call and its response.
pub fn delivery(delivery: &Value) {
    let text = |v: &Value| printable(v.as_str().unwrap_or_default());
    anstream::println!(
        "{BOLD}{}{BOLD:#}  {} → {}  {}  {}",
        text(&delivery["deliveryId"]),
        text(&delivery["channel"]),
        text(&delivery["to"]),
        status(&text(&delivery["status"])),
        text(&delivery["reason"]),
    );
    if let Some(event) = delivery["event"].as_str() {
        let about = delivery["about"].as_str().map(|id| format!(" of message {id}")).unwrap_or_default();
        anstream::println!("  {}{}, eventId {}", printable(event), printable(&about), text(&delivery["eventId"]));
    }
    for attempt in delivery["attempts"].as_array().into_iter().flatten() {
        let at = ["calledAt", "claimedAt"].map(|name| text(&attempt[name])).into_iter().find(|at| !at.is_empty());
        let answered = ["errorReason", "errorCode", "errorDetail", "providerRef"].map(|name| text(&attempt[name]));
        let answered: Vec<String> = answered.into_iter().filter(|text| !text.is_empty()).collect();
        anstream::println!(
            "  {DIM}{}{DIM:#} #{:<3}{} {}",
            at.unwrap_or_default(),
            attempt["attempt"].as_i64().unwrap_or_default(),
            status(&format!("{:<10}", text(&attempt["outcome"]))),
            answered.join(" · ").replace('\n', " "),
        );
    }
    if let Some(at) = delivery["nextAt"].as_str() {
        anstream::println!("  next {}", printable(at));
    }
}

/// A webhook in a timeline as one line: the event, the endpoint, its response, and the time of the next attempt.
fn webhook_line(entry: &Value) -> String {
    let text = |name: &str| printable(entry[name].as_str().unwrap_or_default());
    let attempt = entry["attempt"].as_i64().map(|n| format!("#{n} ")).unwrap_or_default();
    let (at, next) = (text("at"), text("nextAttemptAt"));
    // The time of day alone if it is on the same day.
    let next = match (at.get(..10) == next.get(..10), next.get(11..19)) {
        (true, Some(time)) => format!(", next try {time}"),
        (false, Some(_)) => format!(", next try {}", next.get(..19).unwrap_or(&next)),
        (_, None) => String::new(),
    };
    format!("webhook  {} → {}  {attempt}{}{next}", text("event"), text("endpointId"), text("detail"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_webhook_is_one_line_that_says_whose_it_is() {
        let mut entry = serde_json::json!({"at": "2027-03-05T18:35:43.1Z", "what": "webhook",
            "deliveryId": "0SA1Y7SAC0001-1", "endpointId": "0SA1Y7SAC0000", "event": "message.completed",
            "attempt": 2, "detail": "http_500", "nextAttemptAt": "2027-03-05T18:35:48.2Z"});
        assert_eq!(webhook_line(&entry), "webhook  message.completed → 0SA1Y7SAC0000  #2 http_500, next try 18:35:48");
        entry["nextAttemptAt"] = "2027-03-06T00:00:01.2Z".into();
        assert!(webhook_line(&entry).ends_with("#2 http_500, next try 2027-03-06T00:00:01"));
    }

    #[test]
    fn nothing_written_by_others_steers_a_terminal() {
        let hostile = "a\u{1b}[2J\u{9b}31m\r\u{7}\u{7f}\u{202e}txt\u{2028}\u{200b}\u{e0041}\n가🎉";
        let shown = escaped(hostile);
        assert!(shown.starts_with("a\\u001b[2J\\u009b31m\\u000d\\u0007\\u007f\\u202etxt"), "{shown}");
        assert!(shown.ends_with("\n가🎉"), "{shown}");
        let json = serde_json::Value::from(hostile).to_string();
        assert_eq!(serde_json::from_str::<String>(&escaped(&json)).unwrap(), hostile, "still the same JSON");
    }
}
