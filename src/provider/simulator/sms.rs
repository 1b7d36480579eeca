//! The seed's SMS service: `POST /sms`. Its answer is its verdict; it tells nothing later.

use super::vendor::{Door, Setup, Trade, Vendor, refuse_by_status};
use crate::error::Result;
use crate::model::cp949;
use crate::shutdown::Shutdown;

/// Where the seed has it.
pub const PORT: u16 = 8082;
/// Its one door takes long texts, too: how the text goes on is the service's business.
const TEXT_BYTES: usize = 2000;

const DOOR: Door = Door {
    path: "/sms",
    username: "autoever",
    password: "5678",
    to: "phoneNumber",
    text: "content",
    wrong: |text| match cp949::length(text) {
        Ok(bytes) => (bytes > TEXT_BYTES).then_some("text_too_long"),
        Err(_) => Some("text_not_in_cp949"),
    },
    prefix: "sms",
    everybody: true,
};

const TRADE: Trade = Trade {
    name: "sms",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(DOOR.open(vendor, call)),
    refuse: refuse_by_status,
    by_users: |_| false,
    receipts: None,
};

pub async fn start(setup: Setup, shutdown: &Shutdown) -> Result<Vendor> {
    Vendor::start(&TRADE, setup, shutdown).await
}
