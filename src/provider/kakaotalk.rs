//! KakaoTalk as seed 001 has it: `POST /kakaotalk-messages`, Basic (S1-21 to S1-23).

use std::sync::Arc;

use crate::model::channel::Channel;

use super::adapter::Adapter;
use super::basic::{Basic, Shape};

pub const ADAPTER: Adapter = Adapter {
    name: "kakaotalk",
    about: "the KakaoTalk API of seed 001: POST /kakaotalk-messages, Basic",
    options: &[
        ("base-url", "where it is (http://localhost:8081)"),
        ("username", "(autoever)"),
        ("password", "(1234)"),
        ("channels", "KAKAO_ALIMTALK (the default), KAKAO_BRAND_MESSAGE, or both with + between"),
    ],
    make: |options, common| Ok(Arc::new(Basic::new(&SHAPE, options, common)?)),
};

const SHAPE: Shape = Shape {
    base_url: "http://localhost:8081",
    path: "/kakaotalk-messages",
    to: "recipient",
    text: "message",
    username: "autoever",
    password: "1234",
    per_minute: 100,
    channel: Channel::KakaoAlimtalk,
    able: &[Channel::KakaoAlimtalk, Channel::KakaoBrandMessage],
};

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::simulator::testing::BUDGET;
    use super::super::vendor::testing::made;
    use super::*;
    use crate::model::limit::RateLimit;

    /// S1-21, S1-22, S1-23, S1-27: the request is the seed's, and its statuses are told apart.
    #[tokio::test]
    async fn the_seeds_kakaotalk() {
        let sent = json!({ "recipient": "010-1234-5678", "message": "메시지 내용" });
        // printf autoever:1234 | base64
        let basic = "Basic YXV0b2V2ZXI6MTIzNA==";
        super::super::basic::tests::behaves(&ADAPTER, sent, "POST /kakaotalk-messages", basic).await;
    }

    /// S1-12, S1-33, S1-34, S1-35: without settings it is at localhost:8081 and takes 100 a minute, in any minute.
    #[test]
    fn the_seeds_settings() {
        assert_eq!((SHAPE.base_url, SHAPE.username, SHAPE.password), ("http://localhost:8081", "autoever", "1234"));
        let provider = made(&ADAPTER, &[], BUDGET);
        assert_eq!(provider.default_limit(), Some(RateLimit::per_minute(100)));
        let channels = |options| made(&ADAPTER, options, BUDGET).capabilities().iter().map(|c| c.channel).collect();
        let default: Vec<Channel> = channels(&[]);
        assert_eq!(default, [Channel::KakaoAlimtalk]);
        let both: Vec<Channel> = channels(&[("channels", "KAKAO_ALIMTALK+KAKAO_BRAND_MESSAGE")]);
        assert_eq!(both, [Channel::KakaoAlimtalk, Channel::KakaoBrandMessage]);
    }
}
