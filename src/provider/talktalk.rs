//! Naver TalkTalk's chatbot API: a text to a user, by the key that this business knows the user by. The answer is the last
//! word (S0-41): there are no receipts, and nothing to look up.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::error::Result;
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Options};
use super::http::Answer;
use super::http::Common;
use super::vendor::{self, Codes, Vendor, by_status, said, word};
use super::{Pending, Provider, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "talktalk",
    about: "Naver TalkTalk's chatbot API: NAVER_TALK, by user key",
    options: &[
        ("token", "the Authorization value of the TalkTalk account, ct_…; needed"),
        ("base-url", "where it is (https://gw.talk.naver.com)"),
    ],
    make: |options, common| Ok(Arc::new(TalkTalk::new(options, common)?)),
};

const SEND: &str = "/chatbot/v1/event";
const TAKEN: &str = "00";

const CODES: Codes = Codes(&[
    (ErrorClass::Credentials, &["01"]),
    (ErrorClass::Content, &["02", "IMG-01", "IMG-03"]),
    // Its download of a picture took too long.
    (ErrorClass::ProviderInternal, &["IMG-02"]),
    // Everything else, told only in words: usually a user who left, or never wrote.
    (ErrorClass::NotReachable, &["99"]),
]);

struct TalkTalk {
    name: String,
    vendor: Vendor,
    authorization: (HeaderName, HeaderValue),
}

impl TalkTalk {
    fn new(options: &mut Options, common: &Common) -> Result<TalkTalk> {
        let token = options.require("token")?;
        Ok(TalkTalk {
            name: options.name().to_owned(),
            authorization: vendor::secret_header(options, "token", AUTHORIZATION, &token)?,
            vendor: Vendor::at(options, "https://gw.talk.naver.com", common)?,
        })
    }

    async fn post(&self, letter: SendRequest<'_>) -> Outcome {
        let body = json!({
            "event": "send", "user": letter.to,
            "textContent": { "text": letter.content.body },
            "options": { "notification": true },
        });
        let headers = HeaderMap::from_iter([self.authorization.clone()]);
        match self.vendor.post(SEND, &body, headers, 1).await {
            Ok(answer) => verdict(&answer),
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Provider for TalkTalk {
    fn name(&self) -> &str {
        &self.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(Channel::NaverTalk)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.vendor.check())
    }
}

/// A 200 is acceptance only if it says so.
fn verdict(answer: &Answer) -> Outcome {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (body["success"].as_bool(), word(&body["resultCode"])) {
        (Some(true), code) if answer.status == 200 && code.as_deref().is_none_or(|code| code == TAKEN) => {
            Outcome::Accepted { provider_ref: None }
        }
        (Some(false), Some(code)) => {
            let class = CODES.class(&code).unwrap_or(ErrorClass::Content);
            let detail = said(&body["resultMessage"]);
            Outcome::Rejected { class, code, detail, retry_after: answer.retry_after }
        }
        _ => by_status(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{BUDGET, SHORT, content, letter, rejected, unknown};
    use super::super::vendor::testing::{Answers, made};
    use super::*;

    const TOKEN: (&str, &str) = ("token", "ct_test");

    /// S0-41: the answer decides at once, and a 200 that says no is a no.
    #[tokio::test]
    async fn talktalks_word_decides() {
        let no = |code: &str| (200, format!(r#"{{"success":false,"resultCode":"{code}","resultMessage":"왜"}}"#));
        let api = Answers::with(&[
            (200, r#"{"success":true,"resultCode":"00"}"#.to_owned()),
            no("01"),
            no("02"),
            no("99"),
            no("IMG-01"),
            no("IMG-02"),
            no("77"),
            (401, String::new()),
            (500, String::new()),
            (200, "ok".to_owned()),
            (200, r#"{"success":true,"resultCode":"99"}"#.to_owned()),
        ])
        .await;
        let provider = made(&ADAPTER, &[TOKEN, ("base-url", &api.url)], BUDGET);
        let content = content(None, "hello");
        let send = || provider.send(letter("al-2eGuGr5WQOnco1_V-FQ", &content));
        assert_eq!(send().await, Outcome::Accepted { provider_ref: None });
        for (class, code) in [
            (ErrorClass::Credentials, "01"),
            (ErrorClass::Content, "02"),
            (ErrorClass::NotReachable, "99"),
            (ErrorClass::Content, "IMG-01"),
            (ErrorClass::ProviderInternal, "IMG-02"),
            (ErrorClass::Content, "77"),
            (ErrorClass::Credentials, "http_401"),
        ] {
            assert_eq!(rejected(send().await), (class, code.to_owned()));
        }
        assert_eq!(unknown(send().await), "http_5xx");
        assert_eq!(unknown(send().await), "answer_unreadable");
        assert_eq!(unknown(send().await), "answer_unreadable", "yes and no at once is neither");
        let first = api.requests().remove(0);
        assert_eq!((first.line.as_str(), first.header("authorization")), ("POST /chatbot/v1/event", Some("ct_test")));
        let sent = json!({"event":"send","user":"al-2eGuGr5WQOnco1_V-FQ","textContent":{"text":"hello"},
            "options":{"notification":true}});
        assert_eq!(first.body, sent);
    }

    #[tokio::test]
    async fn no_answer_is_unknown() {
        let content = content(None, "hello");
        for (api, code) in [(Answers::cutting().await, "answer_cut"), (Answers::silent().await, "no_answer")] {
            let provider = made(&ADAPTER, &[TOKEN, ("base-url", &api.url)], SHORT);
            assert_eq!(unknown(provider.send(letter("user", &content)).await), code);
        }
    }
}
