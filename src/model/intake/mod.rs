//! Intake: parses the bytes of a posted message into a [`PostedMessage`] or reports every fault. All ways in use it.
//!
//! A message is read as posted, its fingerprint is taken, and then the installation's fallback rules apply as far as
//! the message stays within its limits (`draft`). Each part of a message has a file with its form and its reader.

mod batch;
mod channel;
mod channel_form;
mod content;
mod draft;
mod entry;
mod fallback;
mod message;
mod policy;
mod reader;
mod recipient;
mod short_form;

pub use batch::BATCH;
pub use channel_form::SEVERITIES;
pub use message::MESSAGE;
pub use policy::{Installation, IntakePolicy};
pub use recipient::is_mailbox;
pub use short_form::NOTIFICATION;

use crate::error::Refusal;
use crate::model::json::{self, Faults};
use crate::model::message::PostedMessage;
use draft::Draft;
use reader::Reader;

/// Parses one message, `POST /v1/messages`.
///
/// # Errors
/// Every fault that does not depend on the time, the partner's rights or the served channels.
pub fn message(body: &[u8], policy: &IntakePolicy) -> Result<PostedMessage, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Reader { policy, faults: &faults }.message(value, "");
    posted(read, faults)
}

/// Parses a batch, `{"messages": […]}`.
///
/// # Errors
/// Every such fault of any of its messages; no message is returned then.
pub fn batch(body: &[u8], policy: &IntakePolicy) -> Result<Vec<PostedMessage>, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let read = Reader { policy, faults: &faults }.batch(value);
    // Each message carries its remaining faults.
    let (drafts, _) = faults.into_result_if_new(read)?;
    Ok(drafts.into_iter().map(|(draft, faults_if_new)| draft.finish(faults_if_new)).collect())
}

/// Parses a notification of seed 003: its short form, or a message in the full form. A body whose `channels` are
/// objects is in the full form.
///
/// # Errors
/// As [`message`], with pointers into the short form.
pub fn notification(body: &[u8], policy: &IntakePolicy) -> Result<PostedMessage, Refusal> {
    let faults = Faults::default();
    let value = json::parse(body, &faults)?;
    let reader = Reader { policy, faults: &faults };
    let read = if short_form::is_full(&value) {
        reader.message(value, "")
    } else {
        reader.in_full(value).and_then(|value| {
            let in_full = Faults::default();
            let read = Reader { faults: &in_full, ..reader }.message(value, "");
            in_full.move_to(&faults, short_form::in_short);
            read
        })
    };
    posted(read, faults)
}

fn posted(read: Option<Draft>, faults: Faults) -> Result<PostedMessage, Refusal> {
    let (draft, faults_if_new) = faults.into_result_if_new(read)?;
    Ok(draft.finish(faults_if_new))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use sha2::Digest as _;

    use super::*;
    use crate::id::Tsid;
    use crate::model::channel::Channel;
    use crate::model::partner::Partner;

    /// KAKAO_ALIMTALK has SMS stand by.
    fn policy() -> IntakePolicy {
        let channels = [Channel::Email, Channel::Sms, Channel::KakaoAlimtalk].into();
        let fallbacks = [(Channel::KakaoAlimtalk, Channel::Sms)].into();
        let installation = Installation { channels, fallbacks, ..Installation::default() };
        IntakePolicy {
            installation: Arc::new(installation),
            partner: Arc::new(Partner::new(Tsid(1), "p".into(), 0)),
            now: chrono::DateTime::UNIX_EPOCH,
        }
    }

    /// Fingerprints are stored and compared for as long as a key is kept: these bytes are hashed, whatever the
    /// installation's rules add.
    #[test]
    fn fingerprint_ignores_fallback_rules() {
        let body = r#"{"type": "T", "body": "one", "channels": [
            {"channel": "KAKAO_ALIMTALK", "to": "010-1234-5678"},
            {"channel": "EMAIL", "to": "Kim@Example.com", "subject": "s"}
        ]}"#;
        let hashed = [
            r#"{"kind":"T","priority":"NORMAL","detail":{"contents":[{"body":"one"},{"subject":"s","body":"one"}]},"#,
            r#""deliveries":[{"channel":"KAKAO_ALIMTALK","to":"+821012345678","content":0},"#,
            r#"{"channel":"EMAIL","to":"kim@example.com","content":1}],"scheduled_at":null,"expires_at":null}"#,
        ]
        .concat();
        let posted = message(body.as_bytes(), &policy()).unwrap();
        assert_eq!(posted.fingerprint, <[u8; 32]>::from(sha2::Sha256::digest(hashed)));

        let stored = serde_json::to_string(&posted.message.detail.contents).unwrap();
        let ruled = r#"{"body":"one","fallback":{"channel":"SMS","content":0,"step":2}}"#;
        assert_eq!(stored, format!(r#"[{{"body":"one"}},{ruled},{{"subject":"s","body":"one"}}]"#));
        assert_eq!(posted.message.deliveries.iter().map(|d| d.content).collect::<Vec<_>>(), [1, 2]);
    }

    /// A rule of the installation refuses nothing: where a message would have too many deliveries with it, it has none.
    #[test]
    fn fallback_rule_that_exceeds_a_limit_is_not_applied() {
        let numbers: Vec<String> = (0..5_001).map(|n| format!("010-1234-{n:04}")).collect();
        for (count, has_fallback) in [(5_000, true), (5_001, false)] {
            let entry = serde_json::json!({"channel": "KAKAO_ALIMTALK", "to": numbers[..count]});
            let body = serde_json::json!({"type": "T", "body": "one", "channels": [entry]}).to_string();
            let posted = message(body.as_bytes(), &policy()).unwrap();
            assert!(posted.faults_if_new.is_empty(), "{count}");
            assert!(posted.message.deliveries.iter().all(|d| d.has_fallback == has_fallback), "{count}");
        }
    }
}
