//! The seed's e-mail provider (S3-16): it logs the mail and takes it. For trying out what failures look like, two local
//! parts are magic, at any domain: `fail@…` is refused for good, `temporary@…` is refused for now.

use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::retry::ErrorClass;

use super::{Letter, Pending, Provider};

#[derive(Debug, Default)]
pub struct MockEmail;

impl Provider for MockEmail {
    fn name(&self) -> &'static str {
        "mock"
    }

    fn channel(&self) -> Channel {
        Channel::Email
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let outcome = verdict(&letter);
            // Who and what are personal: a log tells that there was a mail, never whose or what it said.
            tracing::info!(
                delivery = %letter.key,
                attempt = letter.attempt,
                kind = letter.kind,
                to = masked(letter.to),
                subject_chars = letter.content.subject.as_deref().unwrap_or_default().chars().count(),
                body_bytes = letter.content.body.len(),
                outcome = outcome.kind().as_str(),
                "mock e-mail"
            );
            outcome
        })
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("the mock logs e-mails instead of sending them".to_owned()) })
    }
}

fn verdict(letter: &Letter<'_>) -> Outcome {
    let refused = |class: ErrorClass, code: &str| Outcome::Rejected {
        class,
        code: code.to_owned(),
        detail: "a magic recipient of the mock".to_owned(),
        retry_after: None,
    };
    match letter.to.split('@').next() {
        Some("fail") => refused(ErrorClass::Address, "mock_refused"),
        Some("temporary") => refused(ErrorClass::ProviderInternal, "mock_unavailable"),
        _ => Outcome::Accepted { provider_ref: Some(format!("mock-{}", letter.key)) },
    }
}

/// `kim@example.com` as `k***@example.com`.
fn masked(address: &str) -> String {
    let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
    let first: String = local.chars().take(1).collect();
    format!("{first}***@{domain}")
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::super::simulator::testing::{content, letter, rejected};
    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// S3-16: logged and taken; the log names nobody and quotes nothing.
    #[test]
    fn a_mail_is_logged_without_what_is_personal() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let content = content(Some("geheim: 주문"), "private body");
        let outcome = tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(MockEmail.send(letter("kim.minsu@example.com", &content)))
        });
        assert_eq!(outcome.kind().as_str(), "ACCEPTED");
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("k***@example.com") && said.contains("subject_chars=10"), "{said}");
        assert!(!said.contains("minsu") && !said.contains("geheim") && !said.contains("private"), "{said}");
    }

    #[tokio::test]
    async fn magic_recipients_fail() {
        let content = content(None, "x");
        let to = |to| MockEmail.send(letter(to, &content));
        assert_eq!(rejected(to("fail@example.com").await), (ErrorClass::Address, "mock_refused".to_owned()));
        let temporary = rejected(to("temporary@example.com").await);
        assert_eq!(temporary, (ErrorClass::ProviderInternal, "mock_unavailable".to_owned()));
    }

    #[test]
    fn addresses_are_masked() {
        for (address, masked_as) in
            [("kim@example.com", "k***@example.com"), ("김철수@x.kr", "김***@x.kr"), ("nobody", "n***@"), ("", "***@")]
        {
            assert_eq!(masked(address), masked_as);
        }
    }
}
