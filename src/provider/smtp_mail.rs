//! Composes a mail as it goes over the wire (RFC 5322, MIME). Message-ID is the delivery's, the same in every attempt,
//! so that a mailbox can drop duplicates. Date is the time of the attempt, also for a mail that was scheduled or tried
//! again.

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use email_encoding::headers::{rfc2047, writer::EmailWriter};
use lettre::address::Envelope;
use lettre::message::header::{HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder, MultiPart, SinglePart};
use lettre::{Address, Message};

use crate::model::message::Content;
use crate::model::retry::ErrorClass;

use super::SendRequest;
use super::smtp_session::SmtpFailure;

/// A longer word is encoded, because a header line is folded between words only and may have 998 characters.
const WORD_CHARS: usize = 60;

/// A mail as it goes over the wire.
pub(super) struct ComposedMail {
    pub to: Address,
    /// Headers and body, dot-stuffed, with the final dot.
    pub wire: String,
}

/// Composes a mail that is sent at `now`.
///
/// # Errors
/// `SmtpFailure::Local` with the class `Address` or `Content` if the mail cannot be composed.
pub(super) fn compose(
    from: &Mailbox,
    request: &SendRequest<'_>,
    now: DateTime<Utc>,
) -> Result<ComposedMail, SmtpFailure> {
    let failure = |class, code, detail| SmtpFailure::Local { class, code, detail };
    let to = Some(request.to).filter(|to| !to.contains(char::is_control)).and_then(|to| to.parse::<Address>().ok());
    let to = to.ok_or_else(|| failure(ErrorClass::Address, "address_invalid", "not an e-mail address".to_owned()))?;
    let content = request.content;
    let envelope = Envelope::new(Some(from.email.clone()), vec![to.clone()]);
    let envelope = envelope.map_err(|error| failure(ErrorClass::Address, "address_invalid", error.to_string()))?;
    let mut mail = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to.clone()))
        .date(SystemTime::from(now))
        .envelope(envelope)
        .message_id(Some(format!("<{}@{}>", request.key, from.email.domain())))
        // RFC 3834: asks for no out-of-office replies.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    if let Some(subject) = &content.subject {
        let (name, subject) = (HeaderName::new_from_ascii_str("Subject"), one_line(subject));
        let plain = !must_be_encoded(&subject);
        mail = mail.raw_header(if plain { HeaderValue::new(name, subject) } else { encoded_header(name, &subject) });
    }
    let composed = with_body(mail, content);
    let composed = composed.map_err(|error| failure(ErrorClass::Content, "not_composable", error.to_string()))?;
    Ok(ComposedMail { to, wire: dot_stuffed(&composed.formatted()) })
}

fn with_body(mail: MessageBuilder, content: &Content) -> Result<Message, lettre::error::Error> {
    match &content.html {
        Some(html) => mail.multipart(MultiPart::alternative_plain_html(with_crlf(&content.body), with_crlf(html))),
        None => mail.singlepart(SinglePart::plain(with_crlf(&content.body))),
    }
}

/// Returns whether a header's text would change on its way unless it is encoded: blanks at its ends and several in a
/// row get lost, a long word cannot be folded, and a text that looks like an encoded word (RFC 2047) would be decoded.
fn must_be_encoded(text: &str) -> bool {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let blanks = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    !printable || blanks || text.contains("=?") || text.split(' ').any(|word| word.len() > WORD_CHARS)
}

/// Makes a header whose text is encoded as a whole, because blanks between two encoded words are dropped.
fn encoded_header(name: HeaderName, text: &str) -> HeaderValue {
    let mut value = String::new();
    {
        let mut writer = EmailWriter::new(&mut value, name.len() + ": ".len(), 0, false);
        // Writing to a String cannot fail.
        let _written = rfc2047::encode(text, &mut writer);
    }
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), value)
}

/// Replaces line breaks and other control characters except tabs by blanks: a line break would begin another header,
/// also after decoding.
fn one_line(text: &str) -> String {
    text.replace("\r\n", "\n").replace(|c: char| c.is_control() && c != '\t', " ")
}

/// Converts every line break to CR LF, so that servers agree where the mail ends (SMTP smuggling), and removes NUL,
/// which SMTP forbids. lettre would convert them as well, but moves the rest of the text for each: seconds for a body
/// of line breaks.
fn with_crlf(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "").replace('\n', "\r\n")
}

/// Adds transparency dots (RFC 5321, 4.5.2) and the final dot.
fn dot_stuffed(mail: &[u8]) -> String {
    let text = String::from_utf8_lossy(mail);
    let text = text.strip_suffix("\r\n").unwrap_or(&text);
    format!("{}\r\n.\r\n", text.replace("\r\n.", "\r\n.."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_text_cannot_end_the_mail_or_begin_a_header() {
        assert_eq!(one_line("a\r\nBcc: x@y.z\n\tb\0"), "a Bcc: x@y.z \tb ");
        assert_eq!(with_crlf("a\rb\r\nc\n.\r.\r\n\0"), "a\r\nb\r\nc\r\n.\r\n.\r\n");
        assert_eq!(dot_stuffed(b"S: x\r\n\r\n.\r\n..a\r\nb.\r\n"), "S: x\r\n\r\n..\r\n...a\r\nb.\r\n.\r\n");
    }
}
