//! Simulates the SMS service of seed 001: `POST /sms`. Its response is final; it has no receipts.

use super::vendor::{SeedService, SimulatorSetup, VendorProfile, VendorSimulator, refuse_by_status};
use crate::error::Result;
use crate::model::cp949;
use crate::shutdown::Shutdown;

/// The port in the seed.
pub const PORT: u16 = 8082;
/// The one path takes long texts as well; the service decides how to send them.
const TEXT_BYTES: usize = 2000;

const SERVICE: SeedService = SeedService {
    path: "/sms",
    username: "autoever",
    password: "5678",
    recipient_field: "phoneNumber",
    text_field: "content",
    text_error: |text| match cp949::length(text) {
        Ok(bytes) => (bytes > TEXT_BYTES).then_some("text_too_long"),
        Err(_) => Some("text_not_in_cp949"),
    },
    id_prefix: "sms",
    reaches_everyone: true,
};

const PROFILE: VendorProfile = VendorProfile {
    name: "sms",
    refusal: (503, "unavailable"),
    respond: |vendor, call| Box::pin(SERVICE.respond(vendor, call)),
    refuse: refuse_by_status,
    needs_app_user: |_| false,
    callbacks: None,
};

/// Starts the simulator.
///
/// # Errors
/// Those of `VendorSimulator::start`.
pub async fn start(setup: SimulatorSetup, shutdown: &Shutdown) -> Result<VendorSimulator> {
    VendorSimulator::start(&PROFILE, setup, shutdown).await
}

#[cfg(test)]
mod tests {
    use hyper::Method;
    use serde_json::{Value, json};

    use super::super::kakaotalk;
    use super::super::vendor::testing::Caller;
    use super::*;

    const JSON: (&str, &str) = ("content-type", "application/json");
    /// autoever:5678 and autoever:1234.
    const OF_SMS: (&str, &str) = ("authorization", "Basic YXV0b2V2ZXI6NTY3OA==");
    const OF_KAKAO: (&str, &str) = ("authorization", "Basic YXV0b2V2ZXI6MTIzNA==");

    /// S1-21, S1-22, S1-23, S1-24, S1-25, S1-26, S1-27: each service accepts the seed's requests, and no others.
    #[tokio::test]
    async fn seed_services_accept_the_seeds_requests_only() {
        let sms = Caller::at(|setup, shutdown| async move { start(setup, &shutdown).await }).await;
        let kakao = Caller::at(|setup, shutdown| async move { kakaotalk::start(setup, &shutdown).await }).await;
        let to_sms = |to: &str, text: &str| json!({ "phoneNumber": to, "content": text });
        let to_kakao = |to: &str, text: &str| json!({ "recipient": to, "message": text });
        type Make<'m> = &'m dyn Fn(&str, &str) -> Value;
        let doors: [(&Caller, &str, _, _, Make<'_>); 2] =
            [(&sms, "/sms", OF_SMS, OF_KAKAO, &to_sms), (&kakao, "/kakaotalk-messages", OF_KAKAO, OF_SMS, &to_kakao)];
        for (caller, path, mine, theirs, body) in doors {
            let ask = async |method: Method, path: &str, headers: &[(&str, &str)], body: &Value| {
                caller.ask(method, path, headers, &body.to_string()).await.unwrap().0
            };
            let good = body("010-1234-5678", "안녕");
            assert_eq!(ask(Method::POST, path, &[mine, JSON], &good).await, 200);
            for (headers, status) in [(&[theirs, JSON][..], 401), (&[JSON], 401), (&[mine], 415)] {
                assert_eq!(ask(Method::POST, path, headers, &good).await, status, "{path}");
            }
            assert_eq!(ask(Method::PUT, path, &[mine, JSON], &good).await, 405);
            assert_eq!(ask(Method::POST, "/other", &[mine, JSON], &good).await, 404);
            for wrong in
                ["01012345678", "+821012345678", "010-1234-567", "02-123-4567", "010-1234-56a8", "010 1234 5678", ""]
            {
                assert_eq!(ask(Method::POST, path, &[mine, JSON], &body(wrong, "x")).await, 400, "{wrong}");
            }
            for wrong in [json!([]), body("010-1234-5678", ""), body("010-1234-5678", &"x".repeat(2001)), json!({})] {
                assert_eq!(ask(Method::POST, path, &[mine, JSON], &wrong).await, 400, "{wrong}");
            }
            for (to, status) in
                [("010-0000-0001", 404), ("010-0000-0002", 503), ("010-0000-0012", 401), ("0507-1234-5678", 200)]
            {
                assert_eq!(ask(Method::POST, path, &[mine, JSON], &body(to, "x")).await, status, "{to}");
            }
            let taken: Vec<String> = caller.vendor.records().into_iter().map(|taken| taken.to).collect();
            assert_eq!(taken, ["010-1234-5678", "0507-1234-5678"]);
        }
        // A number without KakaoTalk receives texts.
        let nobody = "010-0000-0009";
        let ask = async |caller: &Caller, path: &str, mine, body: Value| {
            caller.ask(Method::POST, path, &[mine, JSON], &body.to_string()).await.unwrap().0
        };
        assert_eq!(ask(&kakao, "/kakaotalk-messages", OF_KAKAO, to_kakao(nobody, "x")).await, 404);
        assert_eq!(ask(&sms, "/sms", OF_SMS, to_sms(nobody, "x")).await, 200);
        assert_eq!(ask(&sms, "/sms", OF_SMS, to_sms("010-1234-5678", "이모지 🎉")).await, 400);
    }
}
