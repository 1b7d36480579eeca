//! Phone numbers: which are accepted, and in which form they are kept.

use notihub::model::channel::Channel;
use notihub::model::phone;
use serde_json::{Value, json};

use crate::intake::{KIM, MOCKED, Strict, sms_to};
use crate::support::app::App;

/// S1-27: numbers that can be texted to are accepted, and others are refused before they cost anything.
#[tokio::test]
async fn phone_number_that_cannot_be_texted_is_refused() {
    let app = App::with(&[MOCKED]).await;
    for (given, kept) in [
        ("010-1234-5678", "+821012345678"),
        ("01012345678", "+821012345678"),
        ("+82 10-1234-5678", "+821012345678"),
        ("+8201012345678", "+821012345678"),
        ("821012345678", "+821012345678"),
        ("(010) 1234.5678", "+821012345678"),
        ("001-82-10-1234-5678", "+821012345678"),
        ("011-234-5678", "+82112345678"),
        ("0507-1234-5678", "+8250712345678"),
        ("+81 90-1234-5678", "+819012345678"),
        ("+1 212-555-0173", "+12125550173"),
        ("+44 7911 123456", "+447911123456"),
    ] {
        let dry = app.post("/v1/messages?dryRun=true", sms_to(json!(given))).await.expect(200);
        let delivery = &dry.body["deliveries"][0];
        assert_eq!((&delivery["to"], &delivery["recipient"]), (&json!(given), &json!(kept)));
    }
    for (given, why) in [
        ("010-KIM-5678", "characters other than"),
        ("１２３", "characters other than"),
        ("０１０-1234-5678", "characters other than"),
        ("010-1234-5678 ext. 5", "characters other than"),
        ("010-1234-5678x5", "characters other than"),
        ("010-1234-5678;ext=5", "characters other than"),
        ("tel:010-1234-5678", "characters other than"),
        ("010+1234+5678", "characters other than"),
        ("++821012345678", "characters other than"),
        ("010–1234–5678", "characters other than"),
        ("٠١٠١٢٣٤٥٦٧٨", "characters other than"),
        ("kim@example.com", "characters other than"),
        ("+0821012345678", "not a phone number"),
        ("+0", "not a phone number"),
        ("+", "not a phone number"),
        ("-", "not a phone number"),
        ("1", "not a phone number"),
        ("+999 1234567", "not a phone number"),
        ("+82", "not a phone number"),
        ("1234567890123456", "more digits"),
        ("+8210123456789012", "more digits"),
        ("0-1-0-1-2-3-4-5-6-7-8------------", "more digits"),
        ("110", "its country"),
        ("112", "its country"),
        ("1234567", "its country"),
        ("010-1234-56789", "its country"),
        ("030-1234-5678", "its country"),
        ("060-700-1234", "neither a mobile"),
        ("+1 900 234 5678", "neither a mobile"),
        ("+979 123 456 789", "neither a mobile"),
        ("1588-1234", "neither a mobile"),
        ("080-123-4567", "neither a mobile"),
        ("02-1234-5678", "neither a mobile"),
        ("070-1234-5678", "neither a mobile"),
        ("012-3456-7890", "for machines"),
    ] {
        let refused = app.post("/v1/messages", sms_to(json!([KIM, given]))).await.refused(422, "phone_invalid");
        assert_eq!(refused.body["errors"][0]["pointer"], "/channels/0/to/1", "{given}");
        let detail = refused.body["errors"][0]["detail"].as_str().unwrap();
        assert!(detail.starts_with(&format!("'{given}' ")) && detail.contains(why), "{detail}");
    }
    for (given, reason) in [
        (json!(""), "empty"),
        (json!(821_012_345_678_u64), "type_mismatch"),
        (json!("010\u{202e}"), "unsafe_character"),
    ] {
        app.post("/v1/messages", sms_to(given)).await.refused(422, reason);
    }
    for channel in ["LMS", "MMS", "RCS", "KAKAO_ALIMTALK", "KAKAO_BRAND_MESSAGE"] {
        let body = json!({"type": "T", "body": "b", "channels": [{"channel": channel, "to": "110"}]});
        app.post("/v1/messages", body).await.refused(422, "phone_invalid");
    }
    for (key, status) in [("al-2eGuGr5WQOnco1_V-FQ", 202), ("al 2e", 422), ("사용자", 422), (&"a".repeat(65), 422)] {
        let body = json!({"type": "T", "body": "b", "channels": [{"channel": "NAVER_TALK", "to": key}]});
        let answer = app.post("/v1/messages", body).await.expect(status);
        assert!(status == 202 || answer.body["reason"] == "recipient_invalid", "{}", answer.text);
    }
    app.settle_all().await;
    app.done().await;
}

/// S1-27: a number without a country is of the partner's region; without a region it is refused.
#[test]
fn phone_number_without_a_country_is_of_the_partners_region() {
    assert_eq!(phone::parse("212-555-0173", "US").as_deref(), Ok("+12125550173"));
    assert_eq!(phone::parse("010-1234-5678", "KR").as_deref(), Ok("+821012345678"));
    for (number, region) in [("010-1234-5678", "US"), ("212-555-0173", "KR"), ("010-1234-5678", "XX"), (KIM, "")] {
        assert!(phone::parse(number, region).is_err(), "{number} in {region}");
    }
    assert_eq!(phone::parse("+82 10-1234-5678", "XX").as_deref(), Ok("+821012345678"));
}

/// S1-27: a number is kept and sent as E.164, shown as it was written, and found in any form.
#[tokio::test]
async fn phone_number_is_kept_as_e164_and_shown_as_written() {
    let provider = Strict::new(Channel::Sms, None);
    let app = App::with_provider(&[MOCKED], provider.clone()).await;
    let body = json!({"type": "TEST", "body": "b",
    "recipients": [{"id": "u-1", "phone": "010-1234-5678"}, {"email": "only@b.kr"}, {"phone": "+821099998888"}],
    "channels": [
        {"channel": "SMS"},
        {"channel": "SMS", "to": ["01012345678", "+82-10-1234-5678", "+821099998888", "010 9999 8888"]},
    ]});
    let accepted = app.post("/v1/messages", body).await.expect(202);
    let report: Vec<&str> =
        accepted.body["deliveries"].as_array().unwrap().iter().map(|d| d["to"].as_str().unwrap()).collect();
    assert_eq!(report, ["010-1234-5678", "+821099998888"], "in the partner's words, each person once");
    let id = accepted.id();
    app.work().await;
    let got: Vec<String> = provider.got.lock().unwrap().iter().map(|g| g.0.clone()).collect();
    assert_eq!(got.len(), 2);
    assert!(["+821012345678", "+821099998888"].iter().all(|to| got.iter().any(|g| g == to)), "{got:?}");

    let message = app.message(&id).await;
    let shown = |d: &Value| (d["to"].as_str().unwrap().to_owned(), d["recipient"].as_str().unwrap().to_owned());
    assert_eq!(shown(&message["deliveries"][0]), ("010-1234-5678".into(), "+821012345678".into()));
    assert_eq!(shown(&message["deliveries"][1]), ("+821099998888".into(), "+821099998888".into()));
    let notification = app.get(&format!("/notifications/{id}")).await.expect(200);
    assert_eq!(notification.body["deliveries"][0]["recipient"], "010-1234-5678");
    assert_eq!(app.count("select count(*) from deliveries where written is not null").await, 1);

    for (query, found) in [
        ("010-1234-5678", 1),
        ("01012345678", 1),
        ("+821012345678", 1),
        ("%2B82%2010%201234%205678", 1),
        ("010-9999-8888", 1),
        ("010-1234-5679", 0),
        ("1234", 0),
    ] {
        for path in ["/v1/messages?to=", "/v1/deliveries?to=", "/notifications?recipient="] {
            let list = app.get(&format!("{path}{query}")).await.expect(200);
            assert_eq!(list.body["items"].as_array().unwrap().len(), found, "{path}{query}");
        }
    }
    let nobody =
        json!({"type": "T", "body": "b", "recipients": [{"email": "a@b.kr"}], "channels": [{"channel": "SMS"}]});
    app.post("/v1/messages", nobody).await.refused(422, "required");
    let bad = json!({"type": "T", "body": "b", "recipients": [{"phone": "110"}], "channels": [{"channel": "SMS"}]});
    let bad = app.post("/v1/messages", bad).await.refused(422, "phone_invalid");
    assert_eq!(bad.body["errors"][0]["pointer"], "/recipients/0/phone");
    app.done().await;
}

/// S0-15: a number written in another way is the same request; another number, text or template is another.
#[tokio::test]
async fn phone_number_in_another_form_is_the_same_request() {
    let app = App::with(&[MOCKED]).await;
    let body = |to: &str, body: &str, template: &str| {
        json!({"clientMsgId": "k", "type": "TEST", "channels": [
            {"channel": "KAKAO_ALIMTALK", "to": to, "body": body, "templateCode": template}]})
    };
    let first = app.post("/v1/messages", body(KIM, "b", "T1")).await.expect(202);
    let again = app.post("/v1/messages", body("+82 10 1234 5678", "b", "T1")).await.expect(200);
    assert_eq!((again.header("idempotent-replayed"), again.id()), ("true", first.id()));
    for other in [body("010-1234-5679", "b", "T1"), body(KIM, "c", "T1"), body(KIM, "b", "T2")] {
        let refused = app.post("/v1/messages", other).await.refused(409, "idempotency_key_reused");
        assert_eq!(refused.body["code"], "E004");
    }
    app.work().await;
    let message = app.message(&first.id()).await;
    assert_eq!(message["deliveries"][0]["to"], KIM, "the books keep the first");
    app.done().await;
}
