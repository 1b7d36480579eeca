//! A mail as it goes over the wire. Message-ID belongs to the delivery: every copy carries the same, so that a mailbox can
//! drop repetitions. Date belongs to the sending: a mail that was scheduled or tried again is as old as its sending.

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
use super::smtp_dialog::Trouble;

/// A longer word is encoded: a line is folded between words only, and may have 998 characters.
const WORD_CHARS: usize = 60;

/// A mail as it goes over the wire, final dot and all.
pub(super) struct Composed {
    pub to: Address,
    pub wire: String,
}

/// Composes a mail that is sent at `now`.
pub(super) fn compose(from: &Mailbox, letter: &SendRequest<'_>, now: DateTime<Utc>) -> Result<Composed, Trouble> {
    let ours = |class, code, detail| Trouble::Ours { class, code, detail };
    let to = Some(letter.to).filter(|to| !to.contains(char::is_control)).and_then(|to| to.parse::<Address>().ok());
    let to = to.ok_or_else(|| ours(ErrorClass::Address, "address_invalid", "not an e-mail address".to_owned()))?;
    let content = letter.content;
    let envelope = Envelope::new(Some(from.email.clone()), vec![to.clone()]);
    let envelope = envelope.map_err(|error| ours(ErrorClass::Address, "address_invalid", error.to_string()))?;
    let mut mail = Message::builder()
        .from(from.clone())
        .to(Mailbox::new(None, to.clone()))
        .date(SystemTime::from(now))
        .envelope(envelope)
        .message_id(Some(format!("<{}@{}>", letter.key, from.email.domain())))
        // RFC 3834: no out-of-office replies to a program.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()));
    if let Some(subject) = &content.subject {
        let (name, subject) = (HeaderName::new_from_ascii_str("Subject"), one_line(subject));
        let plain = !must_be_encoded(&subject);
        mail = mail.raw_header(if plain { HeaderValue::new(name, subject) } else { encoded(name, &subject) });
    }
    let composed = parts(mail, content);
    let composed = composed.map_err(|error| ours(ErrorClass::Content, "not_composable", error.to_string()))?;
    Ok(Composed { to, wire: dotted(&composed.formatted()) })
}

fn parts(mail: MessageBuilder, content: &Content) -> Result<Message, lettre::error::Error> {
    match &content.html {
        Some(html) => mail.multipart(MultiPart::alternative_plain_html(plain(&content.body), plain(html))),
        None => mail.singlepart(SinglePart::plain(plain(&content.body))),
    }
}

/// Whether a header's text arrives changed if it is written as it is: blanks at its ends and several in a row get lost,
/// a long word cannot be folded, and a text that looks like an encoded word (RFC 2047) would be decoded.
fn must_be_encoded(text: &str) -> bool {
    let printable = text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let blanks = text.starts_with(' ') || text.ends_with(' ') || text.contains("  ");
    !printable || blanks || text.contains("=?") || text.split(' ').any(|word| word.len() > WORD_CHARS)
}

/// A header whose text is encoded as a whole: between encoded words of one text, blanks mean nothing.
fn encoded(name: HeaderName, text: &str) -> HeaderValue {
    let mut value = String::new();
    {
        let mut writer = EmailWriter::new(&mut value, name.len() + ": ".len(), 0, false);
        // Writing to a String does not fail.
        let _written = rfc2047::encode(text, &mut writer);
    }
    HeaderValue::dangerous_new_pre_encoded(name, text.to_owned(), value)
}

/// A header is one line: a line break in it would begin another header, also once it is decoded. Tabs stay.
fn one_line(text: &str) -> String {
    text.replace("\r\n", "\n").replace(|c: char| c.is_control() && c != '\t', " ")
}

/// Only whole line breaks, so that no two servers can disagree about where a mail ends; and no NUL, which SMTP forbids.
/// The library would make them whole as well, but moves the rest of the text for each: seconds for a body of line breaks.
fn plain(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "").replace('\n', "\r\n")
}

/// Transparency (RFC 5321, 4.5.2) and the final dot.
fn dotted(mail: &[u8]) -> String {
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
        assert_eq!(plain("a\rb\r\nc\n.\r.\r\n\0"), "a\r\nb\r\nc\r\n.\r\n.\r\n");
        assert_eq!(dotted(b"S: x\r\n\r\n.\r\n..a\r\nb.\r\n"), "S: x\r\n\r\n..\r\n...a\r\nb.\r\n.\r\n");
    }
}
