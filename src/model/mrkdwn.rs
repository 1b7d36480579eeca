//! The text sent to Slack: the subject in bold above the body, with Slack's three special characters escaped. Slack's
//! limit counts this text, so intake measures it too.

/// The value of Slack's `text`: plain text as mrkdwn. Escaping keeps the partner's text from becoming a link or a
/// mention (`<!channel>`).
pub fn text(subject: Option<&str>, body: &str) -> String {
    let subject = subject.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    let body = escaped(body);
    // Bold ends at the end of its line and does not begin before a space, hence one line, trimmed.
    if subject.is_empty() { body } else { format!("*{}*\n{body}", escaped(&subject)) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
