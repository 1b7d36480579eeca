//! The two APIs of seed 001: one number and one text in a JSON POST, authenticated by HTTP Basic (RFC 7617). The status
//! of the response says whether the message was accepted.

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
use super::http::ClientSettings;
use super::vendor::{self, VendorApi, outcome_by_status_alone};
use super::{BoxFuture, Provider, SendRequest};

/// What distinguishes one such API from the other.
pub struct BasicApi {
    pub base_url: &'static str,
    pub path: &'static str,
    /// The JSON fields of the recipient and the text.
    pub recipient_field: &'static str,
    pub text_field: &'static str,
    /// The defaults of the options `username` and `password`.
    pub username: &'static str,
    pub password: &'static str,
    /// The default rate limit, in requests a minute.
    pub per_minute: u32,
    /// The channel served without the option `channels`.
    pub default_channel: Channel,
    pub supported: &'static [Channel],
}

/// An account at one of these APIs.
pub struct BasicProvider {
    name: String,
    api: VendorApi,
    authorization: (HeaderName, HeaderValue),
    channels: Vec<Channel>,
    definition: &'static BasicApi,
}

impl BasicProvider {
    /// Builds an account from the options `base-url`, `username`, `password` and `channels`.
    ///
    /// # Errors
    /// `Error::Usage` if an option is wrong; those of `HttpClient::new`.
    pub fn new(shape: &'static BasicApi, options: &mut Options, common: &ClientSettings) -> Result<BasicProvider> {
        let username = options.optional("username").unwrap_or_else(|| shape.username.to_owned());
        let password = options.optional("password").unwrap_or_else(|| shape.password.to_owned());
        Ok(BasicProvider {
            name: options.name().to_owned(),
            authorization: vendor::basic_auth(options, &username, &password)?,
            channels: options.channels_or(&[shape.default_channel], shape.supported)?,
            api: VendorApi::from_options(options, shape.base_url, common)?,
            definition: shape,
        })
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let BasicApi { recipient_field, text_field, .. } = self.definition;
        let body = json!({ *recipient_field: phone::hyphenated(request.to), *text_field: request.content.body });
        let headers = HeaderMap::from_iter([self.authorization.clone()]);
        match self.api.post_for_status(self.definition.path, body.to_string().into_bytes(), headers).await {
            Ok(answer) => outcome_by_status_alone(&answer, &["messageId", "id"]),
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Provider for BasicProvider {
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
        Some(RateLimit::per_minute(self.definition.per_minute))
    }

    /// Seed 001 describes the error handling of an internal service.
    fn default_profile(&self) -> Option<Profile> {
        Some(Profile::Internal)
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.api.check())
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::Value;

    use super::super::adapter::Adapter;
    use super::super::simulator::testing::{BUDGET, SHORT, closed_port, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{self, ScriptedServer};
    use super::*;
    use crate::model::retry::ErrorClass;

    /// Checks what both of the seed's APIs must do.
    pub async fn check_seed_provider(adapter: &Adapter, sent: Value, head: &str, authorization: &str) {
        let api = ScriptedServer::responding(&[
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
        let provider = testing::build(adapter, &[("base-url", &api.url)], BUDGET);
        assert_eq!(provider.name(), "test");
        let content = content(Some("subject"), "메시지 내용");
        let send = || provider.send(send_request("+821012345678", &content));
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

        let cut = ScriptedServer::closing().await;
        let provider = testing::build(adapter, &[("base-url", &cut.url)], BUDGET);
        assert_eq!(unknown(provider.send(send_request("+821012345678", &content)).await), "answer_cut");
        let silent = ScriptedServer::silent().await;
        let provider = testing::build(adapter, &[("base-url", &silent.url)], SHORT);
        assert_eq!(unknown(provider.send(send_request("+821012345678", &content)).await), "no_answer");
        let closed_url = format!("http://{}", closed_port().await);
        let provider = testing::build(adapter, &[("base-url", &closed_url)], BUDGET);
        let refused = rejected(provider.send(send_request("+821012345678", &content)).await);
        assert_eq!(refused, (ErrorClass::Unreachable, "connect_failed".to_owned()));
        assert!(provider.check().await.unwrap_err().contains("127.0.0.1 cannot be reached"));
    }
}
