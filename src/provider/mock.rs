//! A provider for any channel that logs each message instead of sending it, and accepts it (S0-5, S3-16). Some
//! recipients are magic, as they are for the simulators, to try out failures: `fail@…` at any domain, the user key
//! `fail` and the unassigned number +82 10-0000-0001 are refused permanently; `opted-out` and -0010 as opted out;
//! `temporary` and -0002 temporarily.

use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::phone;
use crate::model::retry::ErrorClass;

use super::adapter::Adapter;
use super::simulator::magic::{self, Effect, RefusalReason};
use super::{BoxFuture, Provider, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "mock",
    description: "logs each message instead of sending it; magic recipients fail",
    options: &[("channels", "the channels it serves: SMS+LMS+…")],
    build: |options, _| {
        let (name, channels) = (options.name().to_owned(), options.channels()?);
        Ok(std::sync::Arc::new(Mock { name, channels }))
    },
};

/// The mock provider.
#[derive(Debug)]
pub struct Mock {
    name: String,
    channels: Vec<Channel>,
}

impl Mock {
    /// Builds a mock named `mock` without an account in the settings.
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

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let outcome = outcome_of(&request);
            // Recipient and text are personal data: the log has a masked recipient, and only the sizes of the texts.
            tracing::info!(
                delivery = %request.key,
                attempt = request.attempt,
                kind = request.kind,
                to = masked(request.to),
                subject_chars = request.content.subject.as_deref().unwrap_or_default().chars().count(),
                body_bytes = request.content.body.len(),
                outcome = outcome.kind().as_str(),
                "mock"
            );
            outcome
        })
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("the mock logs messages instead of sending them".to_owned()) })
    }
}

fn outcome_of(request: &SendRequest<'_>) -> Outcome {
    let rejected = |class: ErrorClass, code: &str| Outcome::Rejected {
        class,
        code: code.to_owned(),
        detail: "a magic recipient of the mock".to_owned(),
        retry_after: None,
    };
    match request.to.split('@').next().and_then(magic::find).map(|magic| magic.effect) {
        Some(Effect::Refuse(reason @ (RefusalReason::Address | RefusalReason::OptedOut))) => {
            rejected(reason.class(), "mock_refused")
        }
        Some(Effect::Refuse(reason @ RefusalReason::Internal)) => rejected(reason.class(), "mock_unavailable"),
        // The other magic recipients need a vendor's responses or receipts.
        _ => Outcome::Accepted { provider_ref: Some(format!("mock-{}", request.key)) },
    }
}

/// Masks a recipient: `kim@example.com` as `k***@example.com`, `+821012345678` as `+82***78`, anything else as its
/// first letter.
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

    use super::super::simulator::testing::{content, rejected, send_request};
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

    /// S3-16: the message is logged and accepted; the log shows neither recipient nor text.
    #[test]
    fn mail_is_logged_without_personal_data() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
        let content = content(Some("geheim: 주문"), "private body");
        let outcome = tracing::subscriber::with_default(subscriber, || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(Mock::new(vec![Channel::Email]).send(send_request("kim.minsu@example.com", &content)))
        });
        assert_eq!(outcome.kind().as_str(), "ACCEPTED");
        let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(logged.contains("k***@example.com") && logged.contains("subject_chars=10"), "{logged}");
        assert!(!logged.contains("minsu") && !logged.contains("geheim") && !logged.contains("private"), "{logged}");
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
            let to = |to| mock.send(send_request(to, &content));
            assert_eq!(rejected(to(fail).await), (ErrorClass::Address, "mock_refused".to_owned()));
            let temporary = rejected(to(temporary).await);
            assert_eq!(temporary, (ErrorClass::ProviderInternal, "mock_unavailable".to_owned()));
            assert_eq!(to(good).await.kind().as_str(), "ACCEPTED");
        }
        for (channel, recipient) in [(Channel::Sms, "+821000000010"), (Channel::NaverTalk, "opted-out")] {
            let outcome = Mock::new(vec![channel]).send(send_request(recipient, &content)).await;
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
