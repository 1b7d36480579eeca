//! The SMS API of seed 001: `POST /sms` with HTTP Basic (S1-24 to S1-26).

use std::sync::Arc;

use crate::model::channel::Channel;

use super::adapter::Adapter;
use super::basic::{BasicApi, BasicProvider};

pub const ADAPTER: Adapter = Adapter {
    name: "sms",
    description: "the SMS API of seed 001: POST /sms, Basic",
    options: &[
        ("base-url", "the URL of the API (http://localhost:8082)"),
        ("username", "(autoever)"),
        ("password", "(5678)"),
        ("channels", "SMS (the default), LMS, MMS, or several joined by +"),
    ],
    build: |options, common| Ok(Arc::new(BasicProvider::new(&API, options, common)?)),
};

const API: BasicApi = BasicApi {
    base_url: "http://localhost:8082",
    path: "/sms",
    recipient_field: "phoneNumber",
    text_field: "content",
    username: "autoever",
    password: "5678",
    per_minute: 500,
    default_channel: Channel::Sms,
    supported: &[Channel::Sms, Channel::Lms, Channel::Mms],
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::simulator::testing::BUDGET;
    use super::super::vendor::testing::build;
    use super::*;
    use crate::model::limit::RateLimit;

    /// S1-24, S1-25, S1-26, S1-27: the request and the meaning of its statuses are the seed's.
    #[tokio::test]
    async fn the_seeds_sms() {
        let sent = json!({ "phoneNumber": "010-1234-5678", "content": "메시지 내용" });
        // printf autoever:5678 | base64
        super::super::basic::tests::check_seed_provider(&ADAPTER, sent, "POST /sms", "Basic YXV0b2V2ZXI6NTY3OA==")
            .await;
    }

    /// S1-13, S1-33, S1-34, S1-35: the defaults are localhost:8082 and 500 requests in any minute.
    #[test]
    fn the_seeds_settings() {
        assert_eq!((API.base_url, API.username, API.password), ("http://localhost:8082", "autoever", "5678"));
        let provider = build(&ADAPTER, &[("channels", "SMS+LMS+MMS")], BUDGET);
        assert_eq!(provider.default_limit(), Some(RateLimit::per_minute(500)));
        assert_eq!(provider.capabilities().len(), 3);
    }
}
