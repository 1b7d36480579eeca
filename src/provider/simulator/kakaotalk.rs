//! The seed's KakaoTalk service: `POST /kakaotalk-messages`. Its answer is its verdict; it tells nothing later.

use super::vendor::{Door, Setup, Trade, Vendor, refuse_by_status};
use crate::error::Result;
use crate::shutdown::Shutdown;

/// Where the seed has it.
pub const PORT: u16 = 8081;
const TEXT_CHARS: usize = 1000;

const DOOR: Door = Door {
    path: "/kakaotalk-messages",
    username: "autoever",
    password: "1234",
    to: "recipient",
    text: "message",
    wrong: |text| (text.chars().count() > TEXT_CHARS).then_some("text_too_long"),
    prefix: "kakao",
    everybody: false,
};

const TRADE: Trade = Trade {
    name: "kakaotalk",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(DOOR.open(vendor, call)),
    refuse: refuse_by_status,
    by_users: |_| true,
    receipts: None,
};

pub async fn start(setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
    Vendor::start(&TRADE, setup, shutdown).await
}
