//! An API that takes one number and one text, asks who we are by HTTP's Basic scheme, and says yes or no by its status: the
//! two of seed 001.

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use crate::error::Result;
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::limit::RateLimit;
use crate::model::pace::LimitScope;
use crate::model::phone;
use crate::model::retry::Profile;

use super::adapter::Options;
use super::http::Common;
use super::vendor::{self, Vendor, by_status_alone};
use super::{Pending, Provider, SendRequest};

/// What tells one such API from another.
pub struct Shape {
    pub base_url: &'static str,
    pub path: &'static str,
    /// As it calls the recipient and the text.
    pub to: &'static str,
    pub text: &'static str,
    pub username: &'static str,
    pub password: &'static str,
    pub per_minute: u32,
    /// Served when nobody says which.
    pub channel: Channel,
    pub able: &'static [Channel],
}

pub struct Basic {
    name: String,
    vendor: Vendor,
    authorization: (HeaderName, HeaderValue),
    channels: Vec<Channel>,
    shape: &'static Shape,
}

impl Basic {
    pub fn new(shape: &'static Shape, options: &mut Options, common: &Common) -> Result<Basic> {
        let username = options.text("username").unwrap_or_else(|| shape.username.to_owned());
        let password = options.text("password").unwrap_or_else(|| shape.password.to_owned());
        Ok(Basic {
            name: options.name().to_owned(),
            authorization: vendor::basic(options, &username, &password)?,
            channels: options.channels_of(&[shape.channel], shape.able)?,
            vendor: Vendor::at(options, shape.base_url, common)?,
            shape,
        })
    }

    async fn post(&self, letter: SendRequest<'_>) -> Outcome {
        let body = json!({ self.shape.to: phone::hyphenated(letter.to), self.shape.text: letter.content.body });
        let headers = HeaderMap::from_iter([self.authorization.clone()]);
        match self.vendor.post_for_status(self.shape.path, body.to_string().into_bytes(), headers).await {
            Ok(answer) => by_status_alone(&answer, &["messageId", "id"]),
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Provider for Basic {
    fn name(&self) -> &str {
        &self.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn capabilities(&self) -> Vec<Capability> {
        self.channels.iter().copied().map(Capability::of).collect()
    }

    fn default_limit(&self) -> Option<RateLimit> {
        Some(RateLimit::per_minute(self.shape.per_minute))
    }

    /// The error handling of seed 001 is that of a service of one's own.
    fn default_profile(&self) -> Option<Profile> {
        Some(Profile::Internal)
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.vendor.check())
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::Value;

    use super::super::adapter::Adapter;
    use super::super::simulator::testing::{BUDGET, SHORT, closed_port, content, letter, rejected, unknown};
    use super::super::vendor::testing::{self, Answers};
    use super::*;
    use crate::model::retry::ErrorClass;

    /// What both of the seed's APIs must do.
    pub async fn behaves(adapter: &Adapter, sent: Value, head: &str, authorization: &str) {
        let api = Answers::with(&[
            (200, r#"{"messageId":"m-1","status":"OK"}"#),
            (202, r#"{"id":7}"#),
            (204, ""),
            (200, "<html>"),
            (401, "{}"),
            (403, ""),
            (429, ""),
            (400, r#"{"error":"SECRET"}"#),
            (422, ""),
            (404, ""),
            (503, ""),
            (500, ""),
            (502, "<html>"),
        ])
        .await;
        let provider = testing::made(adapter, &[("base-url", &api.url)], BUDGET);
        assert_eq!(provider.name(), "test");
        let content = content(Some("subject"), "메시지 내용");
        let send = || provider.send(letter("+821012345678", &content));
        for id in [Some("m-1"), Some("7"), None, None] {
            assert_eq!(send().await, Outcome::Accepted { provider_ref: id.map(str::to_owned) });
        }
        for (class, code) in [
            (ErrorClass::Credentials, "http_401"),
            (ErrorClass::ProviderInternal, "http_403"),
            (ErrorClass::Throttled, "http_429"),
            (ErrorClass::Content, "http_400"),
            (ErrorClass::Content, "http_422"),
            (ErrorClass::Sender, "http_404"),
            (ErrorClass::ProviderInternal, "http_503"),
        ] {
            let outcome = send().await;
            assert!(!format!("{outcome:?}").contains("SECRET"), "{outcome:?}");
            assert_eq!(rejected(outcome), (class, code.to_owned()));
        }
        assert_eq!([unknown(send().await), unknown(send().await)], ["http_5xx", "http_5xx"]);
        let first = api.requests().remove(0);
        assert_eq!(first.body, sent);
        assert_eq!((first.line.as_str(), first.header("authorization")), (head, Some(authorization)));
        assert_eq!(api.requests().len(), 13, "one request per call");

        let cut = Answers::cutting().await;
        let provider = testing::made(adapter, &[("base-url", &cut.url)], BUDGET);
        assert_eq!(unknown(provider.send(letter("+821012345678", &content)).await), "answer_cut");
        let silent = Answers::silent().await;
        let provider = testing::made(adapter, &[("base-url", &silent.url)], SHORT);
        assert_eq!(unknown(provider.send(letter("+821012345678", &content)).await), "no_answer");
        let nobody = format!("http://{}", closed_port().await);
        let provider = testing::made(adapter, &[("base-url", &nobody)], BUDGET);
        let refused = rejected(provider.send(letter("+821012345678", &content)).await);
        assert_eq!(refused, (ErrorClass::Unreachable, "connect_failed".to_owned()));
        assert!(provider.check().await.unwrap_err().contains("127.0.0.1 cannot be reached"));
    }
}
