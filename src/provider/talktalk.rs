//! Naver TalkTalk's chatbot API v1 (`POST /chatbot/v1/event`): a text to a user, addressed by the key that Naver gives
//! this business for the user. The response is final (S0-41): the API has no receipts and no list to look up.

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
use super::http::ClientSettings;
use super::http::HttpResponse;
use super::vendor::{self, ErrorCodes, VendorApi, outcome_by_status, text_or_number, vendor_text};
use super::{BoxFuture, Provider, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "talktalk",
    description: "Naver TalkTalk's chatbot API: NAVER_TALK, by user key",
    options: &[
        ("token", "the Authorization value of the TalkTalk account, ct_…; needed"),
        ("base-url", "the URL of the API (https://gw.talk.naver.com)"),
    ],
    build: |options, common| Ok(Arc::new(TalkTalk::new(options, common)?)),
};

const SEND: &str = "/chatbot/v1/event";
const ACCEPTED: &str = "00";

const ERRORS: ErrorCodes = ErrorCodes(&[
    (ErrorClass::Credentials, &["01"]),
    (ErrorClass::Content, &["02", "IMG-01", "IMG-03"]),
    // TalkTalk's download of a picture took too long.
    (ErrorClass::ProviderInternal, &["IMG-02"]),
    // All other failures, described only in text: usually a user who left the chat or never wrote.
    (ErrorClass::NotReachable, &["99"]),
]);

struct TalkTalk {
    name: String,
    api: VendorApi,
    authorization: (HeaderName, HeaderValue),
}

impl TalkTalk {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<TalkTalk> {
        let token = options.require("token")?;
        Ok(TalkTalk {
            name: options.name().to_owned(),
            authorization: vendor::secret_header(options, "token", AUTHORIZATION, &token)?,
            api: VendorApi::from_options(options, "https://gw.talk.naver.com", common)?,
        })
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let body = json!({
            "event": "send", "user": request.to,
            "textContent": { "text": request.content.body },
            "options": { "notification": true },
        });
        let headers = HeaderMap::from_iter([self.authorization.clone()]);
        match self.api.post(SEND, &body, headers, 1).await {
            Ok(answer) => outcome_of(&answer),
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

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.api.check())
    }
}

/// Returns the outcome of a response. A 200 is acceptance only if its body says so.
fn outcome_of(answer: &HttpResponse) -> Outcome {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match (body["success"].as_bool(), text_or_number(&body["resultCode"])) {
        (Some(true), code) if answer.status == 200 && code.as_deref().is_none_or(|code| code == ACCEPTED) => {
            Outcome::Accepted { provider_ref: None }
        }
        (Some(false), Some(code)) => {
            let class = ERRORS.class(&code).unwrap_or(ErrorClass::Content);
            let detail = vendor_text(&body["resultMessage"]);
            Outcome::Rejected { class, code, detail, retry_after: answer.retry_after }
        }
        _ => outcome_by_status(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{BUDGET, SHORT, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{ScriptedServer, build};
    use super::*;

    const TOKEN: (&str, &str) = ("token", "ct_test");

    /// S0-41: the response is final, and a 200 whose body refuses is a refusal.
    #[tokio::test]
    async fn result_code_decides() {
        let no = |code: &str| (200, format!(r#"{{"success":false,"resultCode":"{code}","resultMessage":"왜"}}"#));
        let api = ScriptedServer::responding(&[
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
        let provider = build(&ADAPTER, &[TOKEN, ("base-url", &api.url)], BUDGET);
        let content = content(None, "hello");
        let send = || provider.send(send_request("al-2eGuGr5WQOnco1_V-FQ", &content));
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
        for (api, code) in
            [(ScriptedServer::closing().await, "answer_cut"), (ScriptedServer::silent().await, "no_answer")]
        {
            let provider = build(&ADAPTER, &[TOKEN, ("base-url", &api.url)], SHORT);
            assert_eq!(unknown(provider.send(send_request("user", &content)).await), code);
        }
    }
}
