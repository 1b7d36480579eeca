//! A provider for any channel that logs each message and takes it (S0-5, S3-16). For trying out what failures look like,
//! some recipients are magic, as they are for the simulators: `fail@…` at any domain, the user key `fail` and the number
//! +82 10-0000-0001, which nobody has, are refused for good, `opted-out` and -0010 as not wanting it; `temporary` and -0002
//! are refused for now.

use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::phone;
use crate::model::retry::ErrorClass;

use super::adapter::Adapter;
use super::simulator::magic::{self, Does, Why};
use super::{Pending, Provider, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "mock",
    about: "only logs what it is given; some recipients fail",
    options: &[("channels", "which it serves: SMS+LMS+…")],
    make: |options, _| {
        let (name, channels) = (options.name().to_owned(), options.channels()?);
        Ok(std::sync::Arc::new(Mock { name, channels }))
    },
};

#[derive(Debug)]
pub struct Mock {
    name: String,
    channels: Vec<Channel>,
}

impl Mock {
    /// The one that no account stands for.
    pub fn new(channels: Vec<Channel>) -> Mock {
        Mock { name: ADAPTER.name.to_owned(), channels }
    }
}

impl Provider for Mock {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.channels.iter().copied().map(Capability::of).collect()
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move {
            let outcome = verdict(&letter);
            // Who and what are personal: a log tells that there was a message, never whose or what it said.
            tracing::info!(
                delivery = %letter.key,
                attempt = letter.attempt,
                kind = letter.kind,
                to = masked(letter.to),
                subject_chars = letter.content.subject.as_deref().unwrap_or_default().chars().count(),
                body_bytes = letter.content.body.len(),
                outcome = outcome.kind().as_str(),
                "mock"
            );
            outcome
        })
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(async { Ok("the mock logs messages instead of sending them".to_owned()) })
    }
}

fn verdict(letter: &SendRequest<'_>) -> Outcome {
    let refused = |class: ErrorClass, code: &str| Outcome::Rejected {
        class,
        code: code.to_owned(),
        detail: "a magic recipient of the mock".to_owned(),
        retry_after: None,
    };
    match letter.to.split('@').next().and_then(magic::of).map(|magic| magic.does) {
        Some(Does::Refuse(why @ (Why::Address | Why::OptedOut))) => refused(why.class(), "mock_refused"),
        Some(Does::Refuse(why @ Why::Internal)) => refused(why.class(), "mock_unavailable"),
        // The rest takes a vendor: its answers, its receipts, its account with us.
        _ => Outcome::Accepted { provider_ref: Some(format!("mock-{}", letter.key)) },
    }
}

/// `kim@example.com` as `k***@example.com`, `+821012345678` as `+82***78`, anything else as its first letter.
fn masked(to: &str) -> String {
    if to.starts_with('+') {
        return phone::masked(to);
    }
    let (local, domain) = to.rsplit_once('@').unwrap_or((to, ""));
    let first: String = local.chars().take(1).collect();
    format!("{first}***{}{domain}", if domain.is_empty() { "" } else { "@" })
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
            runtime.block_on(Mock::new(vec![Channel::Email]).send(letter("kim.minsu@example.com", &content)))
        });
        assert_eq!(outcome.kind().as_str(), "ACCEPTED");
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("k***@example.com") && said.contains("subject_chars=10"), "{said}");
        assert!(!said.contains("minsu") && !said.contains("geheim") && !said.contains("private"), "{said}");
    }

    /// S0-5: each channel's mock can be made to fail.
    #[tokio::test]
    async fn magic_recipients_fail() {
        let content = content(None, "x");
        for (channel, fail, temporary, good) in [
            (Channel::Email, "fail@example.com", "temporary@example.com", "kim@example.com"),
            (Channel::Sms, "+821000000001", "+821000000002", "+821012345678"),
            (Channel::NaverTalk, "fail", "temporary", "al-2eGuGr5WQOnco1_V-FQ"),
        ] {
            let mock = Mock::new(vec![channel]);
            let to = |to| mock.send(letter(to, &content));
            assert_eq!(rejected(to(fail).await), (ErrorClass::Address, "mock_refused".to_owned()));
            let temporary = rejected(to(temporary).await);
            assert_eq!(temporary, (ErrorClass::ProviderInternal, "mock_unavailable".to_owned()));
            assert_eq!(to(good).await.kind().as_str(), "ACCEPTED");
        }
        for (channel, recipient) in [(Channel::Sms, "+821000000010"), (Channel::NaverTalk, "opted-out")] {
            let outcome = Mock::new(vec![channel]).send(letter(recipient, &content)).await;
            assert_eq!(rejected(outcome), (ErrorClass::OptedOut, "mock_refused".to_owned()));
        }
    }

    #[test]
    fn addresses_are_masked() {
        for (address, masked_as) in [
            ("kim@example.com", "k***@example.com"),
            ("김철수@x.kr", "김***@x.kr"),
            ("+821012345678", "+82***78"),
            ("al-2eGuGr5WQOnco1_V-FQ", "a***"),
            ("", "***"),
        ] {
            assert_eq!(masked(address), masked_as);
        }
    }
}
