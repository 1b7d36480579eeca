//! Simulates the KakaoTalk service of seed 001: `POST /kakaotalk-messages`. Its response is final; it has no receipts.

use super::vendor::{SeedService, SimulatorSetup, VendorProfile, VendorSimulator, refuse_by_status};
use crate::error::Result;
use crate::shutdown::Shutdown;

/// The port in the seed.
pub const PORT: u16 = 8081;
const TEXT_CHARS: usize = 1000;

const SERVICE: SeedService = SeedService {
    path: "/kakaotalk-messages",
    username: "autoever",
    password: "1234",
    recipient_field: "recipient",
    text_field: "message",
    text_error: |text| (text.chars().count() > TEXT_CHARS).then_some("text_too_long"),
    id_prefix: "kakao",
    reaches_everyone: false,
};

const PROFILE: VendorProfile = VendorProfile {
    name: "kakaotalk",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(SERVICE.respond(vendor, call)),
    refuse: refuse_by_status,
    needs_app_user: |_| true,
    callbacks: None,
};

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}
