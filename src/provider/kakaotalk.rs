//! The KakaoTalk API of seed 001: `POST /kakaotalk-messages` with HTTP Basic (S1-21 to S1-23).

use std::sync::Arc;

use crate::model::channel::Channel;

use super::adapter::Adapter;
use super::basic::{BasicApi, BasicProvider};

pub const ADAPTER: Adapter = Adapter {
    name: "kakaotalk",
    description: "the KakaoTalk API of seed 001: POST /kakaotalk-messages, Basic",
    options: &[
        ("base-url", "the URL of the API (http://localhost:8081)"),
        ("username", "(autoever)"),
        ("password", "(1234)"),
        ("channels", "KAKAO_ALIMTALK (the default), KAKAO_BRAND_MESSAGE, or both joined by +"),
    ],
    build: |options, common| Ok(Arc::new(BasicProvider::new(&API, options, common)?)),
};

const API: BasicApi = BasicApi {
    base_url: "http://localhost:8081",
    path: "/kakaotalk-messages",
    recipient_field: "recipient",
    text_field: "message",
    username: "autoever",
    password: "1234",
    per_minute: 100,
    default_channel: Channel::KakaoAlimtalk,
    supported: &[Channel::KakaoAlimtalk, Channel::KakaoBrandMessage],
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::simulator::testing::BUDGET;
    use super::super::vendor::testing::build;
    use super::*;
    use crate::model::limit::RateLimit;

    /// S1-21, S1-22, S1-23, S1-27: the request and the meaning of its statuses are the seed's.
    #[tokio::test]
    async fn the_seeds_kakaotalk() {
        let sent = json!({ "recipient": "010-1234-5678", "message": "메시지 내용" });
        // printf autoever:1234 | base64
        let basic = "Basic YXV0b2V2ZXI6MTIzNA==";
        super::super::basic::tests::check_seed_provider(&ADAPTER, sent, "POST /kakaotalk-messages", basic).await;
    }

    /// S1-12, S1-33, S1-34, S1-35: the defaults are localhost:8081 and 100 requests in any minute.
    #[test]
    fn the_seeds_settings() {
        assert_eq!((API.base_url, API.username, API.password), ("http://localhost:8081", "autoever", "1234"));
        let provider = build(&ADAPTER, &[], BUDGET);
        assert_eq!(provider.default_limit(), Some(RateLimit::per_minute(100)));
        let channels = |options| build(&ADAPTER, options, BUDGET).capabilities().iter().map(|c| c.channel).collect();
        let default: Vec<Channel> = channels(&[]);
        assert_eq!(default, [Channel::KakaoAlimtalk]);
        let both: Vec<Channel> = channels(&[("channels", "KAKAO_ALIMTALK+KAKAO_BRAND_MESSAGE")]);
        assert_eq!(both, [Channel::KakaoAlimtalk, Channel::KakaoBrandMessage]);
    }
}
