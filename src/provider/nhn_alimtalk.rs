//! NHN Cloud AlimTalk v2.3: the full text of an approved template (`raw-messages`), with NHN's own fallback to SMS off.
//!
//! A request carries a key that NHN refuses to take twice within ten minutes. It is made of the deliveries in the request and
//! not of the attempt, so that a repetition of what was taken without our knowing is refused: this time it was certainly not
//! taken, and the doubt about the earlier time stays and is looked up. Where NHN itself said no, and another try is due, the
//! next has another key, or it would have to wait those ten minutes for nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use data_encoding::HEXLOWER;
use reqwest::header::{HeaderName, HeaderValue};
use serde_json::{Value, json};

use crate::crypt;
use crate::error::Result;
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::delivery::{DeliveryKey, Outcome};
use crate::model::pace::LimitScope;
use crate::model::retry::{ErrorClass, RetryAction};

use super::adapter::{Adapter, Options};
use super::http::Common;
use super::nhn::{self, List, Nhn, Sent, hours, verdicts};
use super::vendor::{Codes, Results, digits, rejected};
use super::{Callback, Looked, Pending, Polled, Provider, Receipts, Refused, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-alimtalk",
    about: "NHN Cloud KakaoTalk Bizmessage v2.3: AlimTalk",
    options: &[
        ("app-key", "of the project's KakaoTalk Bizmessage service; needed"),
        ("secret-key", "of the same; needed"),
        ("sender-key", "of the KakaoTalk channel, 40 characters; needed"),
        (
            "webhook-signature",
            "what webhooks show, as written at NHN; without it none is taken, and results are polled",
        ),
        ("base-url", "where it is (https://kakaotalk-bizmessage.api.nhncloudservice.com)"),
    ],
    make: |options, common| Ok(Arc::new(NhnAlimtalk::new(options, common)?)),
};

const IDEMPOTENCY_KEY: &str = "x-nc-api-idempotency-key";
/// The same key was used before …
const REPEATED: &str = "-1005";
/// … less than so long ago.
const REMEMBERED: Duration = Duration::from_secs(600);
const TIME: &str = "%Y-%m-%d %H:%M";

/// Codes of requests, and of recipients in them.
const CODES: Codes = Codes(&[
    (ErrorClass::Credentials, &["-1000", "-1001"]),
    (ErrorClass::Sender, &["-1006", "-1027", "-2017"]),
    (ErrorClass::Template, &["-1028", "-3003", "-3004", "-3005", "-3010"]),
    (ErrorClass::Address, &["-5000"]),
    (ErrorClass::OptedOut, &["-6001"]),
    (ErrorClass::Quota, &["-2052", "-2053"]),
    (ErrorClass::ProviderInternal, &["-7000", "-9999"]),
    (ErrorClass::Throttled, &[REPEATED]),
    (ErrorClass::Content, &["4", "-2*", "-3*"]),
]);

/// Kakao's own codes.
const RESULTS: Results = Results {
    delivered: &["1000"],
    // 3005: sent, not confirmed; it may be received within three days. The others: not known, or not yet.
    pending: &["3005", "4000", "4001", "4131", "4161"],
    expired: &["4143"],
    failed: Codes(&[
        (
            ErrorClass::Sender,
            &[
                "1002", "1003", "1006", "1007", "1011", "1013", "1014", "1016", "1021", "1022", "1023", "1024", "1025",
                "1027", "4103", "4104",
            ],
        ),
        (ErrorClass::Address, &["1012", "1015", "1020", "3008"]),
        (
            ErrorClass::ProviderInternal,
            &["2001", "2005", "3000", "3006", "3010", "3012", "4137", "4139", "4140", "4141", "4142", "9998", "9999"],
        ),
        (
            ErrorClass::Template,
            &[
                "3015", "3016", "3025", "3026", "3027", "3028", "3030", "3031", "3033", "3036", "3038", "3042", "3043",
                "4102", "4132", "4133", "4134",
            ],
        ),
        (ErrorClass::NotReachable, &["2003", "3018", "3019", "3020", "3021"]),
        (ErrorClass::OutsideHours, &["3022"]),
        (ErrorClass::Quota, &["4138", "4156"]),
        (
            ErrorClass::Content,
            &[
                "1001", "1004", "1030", "3011", "3013", "3014", "3023", "3024", "3029", "3032", "3034", "3035", "3037",
                "3039", "3040", "4144",
            ],
        ),
    ]),
};

struct NhnAlimtalk {
    nhn: Nhn,
    sender_key: String,
    refusals: Mutex<Refusals>,
}

/// How often each delivery was refused for now, as far as this process knows. Who does not know waits, and sends nothing twice.
type Refusals = HashMap<DeliveryKey, u32>;
/// Beyond so many all are forgotten.
const REFUSALS: usize = 10_000;

impl NhnAlimtalk {
    fn new(options: &mut Options, common: &Common) -> Result<NhnAlimtalk> {
        let sender_key = options.require("sender-key")?;
        let nhn = Nhn::new(options, "https://kakaotalk-bizmessage.api.nhncloudservice.com", common)?;
        Ok(NhnAlimtalk { nhn: nhn.with_webhooks(options)?, sender_key, refusals: Mutex::default() })
    }

    fn path(&self, end: &str) -> String {
        format!("/alimtalk/v2.3/appkeys/{}/{end}", self.nhn.app_key)
    }

    /// All of one content.
    async fn post(&self, letters: Vec<SendRequest<'_>>) -> Vec<Outcome> {
        let Some(first) = letters.first() else { return Vec::new() };
        let Some(template) = &first.content.template_code else {
            let detail = "an AlimTalk names its approved template: templateCode";
            return vec![rejected(ErrorClass::Template, "template_missing", detail); letters.len()];
        };
        let body = json!({
            "senderKey": self.sender_key, "templateCode": template,
            "recipientList": letters.iter().map(recipient).collect::<Vec<Value>>(),
        });
        let mut headers = self.nhn.headers();
        if let Ok(key) = HeaderValue::from_str(&idempotency_key(&letters, &self.refusals())) {
            headers.insert(HeaderName::from_static(IDEMPOTENCY_KEY), key);
        }
        match self.nhn.vendor.post(&self.path("raw-messages"), &body, headers, letters.len()).await {
            Ok(answer) => {
                let outcomes = verdicts(&letters, &answer, &CODES, "/message", "sendResults");
                let mut refusals = self.refusals();
                for (letter, outcome) in letters.iter().zip(&outcomes) {
                    count(&mut refusals, letter.key, outcome);
                }
                outcomes.into_iter().map(not_again).collect()
            }
            Err(failure) => vec![failure.into_outcome(); letters.len()],
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find(&self, letter: SendRequest<'_>) -> Looked {
        let place = "/messageSearchResultResponse/messages";
        self.nhn.find(&Sent { path: self.path("messages"), format: TIME, place }, &digits(letter.to), &letter).await
    }
}

fn recipient(letter: &SendRequest<'_>) -> Value {
    json!({
        "recipientNo": digits(letter.to), "content": letter.content.body,
        "resendParameter": { "isResend": false }, "recipientGroupingKey": letter.reference().to_string(),
    })
}

/// NHN's own no, after which another try is due; anything else leaves the key as it is.
fn count(refusals: &mut Refusals, key: DeliveryKey, outcome: &Outcome) {
    match outcome {
        Outcome::Rejected { code, .. } if code == REPEATED => (),
        Outcome::Rejected { class, .. } if class.action() != RetryAction::Permanent => {
            if refusals.len() >= REFUSALS {
                refusals.clear();
            }
            *refusals.entry(key).or_default() += 1;
        }
        Outcome::Unknown { .. } => (),
        _ => drop(refusals.remove(&key)),
    }
}

/// The same for the same deliveries, whichever attempt it is.
fn idempotency_key(letters: &[SendRequest<'_>], refusals: &Refusals) -> String {
    let key = |letter: &SendRequest<'_>| {
        let (key, refused) = (letter.key, refusals.get(&letter.key).copied().unwrap_or_default());
        format!("{}-{key}-{refused}", key.shard)
    };
    let mut keys: Vec<String> = letters.iter().map(key).collect();
    keys.sort_unstable();
    HEXLOWER.encode(&crypt::keyed_hash(b"notihub idempotency key", keys.join(" ").as_bytes()))
}

/// A key that was used is free again by and by, and until then nothing is taken.
fn not_again(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected { class, code, detail, .. } if code == REPEATED => {
            Outcome::Rejected { class, code, detail, retry_after: Some(REMEMBERED) }
        }
        other => other,
    }
}

impl Provider for NhnAlimtalk {
    fn name(&self) -> &str {
        &self.nhn.name
    }

    /// What Kakao could not confirm may arrive within three days.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability {
            batch: Batch::SameContent(nhn::BATCH),
            on_unknown: OnUnknown::Lookup,
            receipt_within: hours(73),
            repeats_reference: false,
            ..Capability::of(Channel::KakaoAlimtalk)
        }]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move { self.post(vec![letter]).await.pop().unwrap_or(Outcome::Released) })
    }

    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(self.post(letters))
    }

    fn lookup<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Looked> {
        Box::pin(self.find(letter))
    }

    fn receipts(&self, callback: &Callback<'_>) -> Result<Receipts, Refused> {
        self.nhn.hooks(callback, &RESULTS)
    }

    /// Its rows do not repeat our reference: they are known by request and recipient.
    fn poll<'a>(&'a self, cursor: Option<&'a str>, now: DateTime<Utc>) -> Option<Pending<'a, Result<Polled, String>>> {
        Some(Box::pin(async move {
            let list = List {
                path: self.path("message-results"),
                format: TIME,
                places: &["/messages", "/message/messages"],
                results: &RESULTS,
                with_reference: false,
            };
            self.nhn.results(&list, cursor, now).await
        }))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.nhn.vendor.check())
    }
}

#[cfg(test)]
mod tests {
    use super::super::nhn::testing::{SIGNED_BY, forgeries, hooked, no, refusals};
    use super::super::simulator::testing::{BUDGET, content, letter};
    use super::super::vendor::testing::{Answers, made};
    use super::*;
    use crate::model::message::Content;
    use crate::model::receipt::ReceiptOutcome;

    const OPTIONS: [(&str, &str); 4] =
        [("app-key", "AK"), ("secret-key", "SK"), ("sender-key", "SENDER"), ("webhook-signature", SIGNED_BY)];

    fn account(url: &str) -> Arc<dyn Provider> {
        made(&ADAPTER, &[&OPTIONS[..], &[("base-url", url)]].concat(), BUDGET)
    }

    fn template() -> Content {
        Content { template_code: Some("ORDER_01".to_owned()), ..content(None, "주문 완료") }
    }

    fn of<'a>(no: i16, to: &'a str, content: &'a Content) -> SendRequest<'a> {
        let letter = letter(to, content);
        SendRequest { channel: Channel::KakaoAlimtalk, key: DeliveryKey { no, ..letter.key }, ..letter }
    }

    /// The request is the documented one, with NHN's own fallback off; each recipient has its own verdict.
    #[tokio::test]
    async fn each_recipient_has_its_verdict() {
        let content = template();
        let letters = vec![of(1, "+821012345678", &content), of(2, "+821011112222", &content)];
        let key = |n: usize| letters[n].reference().to_string();
        let results = json!([
            { "recipientSeq": 1, "recipientNo": "01012345678", "resultCode": 0, "recipientGroupingKey": key(0) },
            { "recipientSeq": 2, "recipientNo": "01011112222", "resultCode": -3010, "recipientGroupingKey": null },
        ]);
        let answer = json!({ "header": { "isSuccessful": true, "resultCode": 0 },
            "message": { "requestId": "R1", "sendResults": results } });
        let api = Answers::with(&[(200, answer.to_string())]).await;
        let outcomes = account(&api.url).send_batch(letters.clone()).await;
        assert_eq!(outcomes[0], Outcome::Accepted { provider_ref: Some("R1/1".to_owned()) });
        assert!(matches!(&outcomes[1], Outcome::Rejected { class: ErrorClass::Template, code, .. } if code == "-3010"));
        let asked = api.requests().remove(0);
        assert_eq!(asked.line, "POST /alimtalk/v2.3/appkeys/AK/raw-messages");
        assert_eq!(asked.header("x-secret-key"), Some("SK"));
        let one = |n: usize, number: &str| {
            json!({ "recipientNo": number, "content": "주문 완료", "resendParameter": { "isResend": false },
                "recipientGroupingKey": key(n) })
        };
        let recipients = json!([one(0, "01012345678"), one(1, "01011112222")]);
        let sent = json!({ "senderKey": "SENDER", "templateCode": "ORDER_01", "recipientList": recipients });
        assert_eq!(asked.body, sent);
    }

    /// A second attempt has the same key as the first, another delivery another; and where NHN knows the key this attempt was
    /// certainly not taken, until the key is forgotten.
    #[tokio::test]
    async fn a_repetition_is_known_by_its_key() {
        let content = template();
        let api = Answers::with(&[no(-1005), no(-1005), no(-1005)]).await;
        let alimtalk = account(&api.url);
        let first = of(1, "+821012345678", &content);
        for letter in [first.clone(), SendRequest { attempt: 2, ..first }, of(2, "+821012345678", &content)] {
            let Outcome::Rejected { class, retry_after, .. } = alimtalk.send(letter).await else {
                panic!("not rejected")
            };
            assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(REMEMBERED)));
        }
        let asked = api.requests();
        let key = |n: usize| asked[n].header(IDEMPOTENCY_KEY).unwrap();
        assert_eq!(key(0), key(1));
        assert_ne!(key(0), key(2));
    }

    /// What NHN itself refused for now may be tried again at once.
    #[tokio::test]
    async fn a_refusal_does_not_stand_in_its_own_way() {
        let content = template();
        let api = Answers::with(&[no(-7000), no(-1005), (200, String::new()), no(-5000), no(-5000)]).await;
        let alimtalk = account(&api.url);
        for attempt in 1..=5 {
            alimtalk.send(SendRequest { attempt, ..of(1, "+821012345678", &content) }).await;
        }
        let asked = api.requests();
        let key = |n: usize| asked[n].header(IDEMPOTENCY_KEY).unwrap();
        assert_ne!(key(0), key(1), "it was refused, so it is another");
        assert_eq!((key(1), key(2)), (key(2), key(3)), "refused as repeated, and unknown: still the same");
        assert_eq!(key(4), key(0), "what is refused for good is forgotten");
    }

    #[tokio::test]
    async fn codes_decide_about_a_request() {
        let codes = [
            (-1000, ErrorClass::Credentials),
            (-1001, ErrorClass::Credentials),
            (-1027, ErrorClass::Sender),
            (-2017, ErrorClass::Sender),
            (-1028, ErrorClass::Template),
            (-3003, ErrorClass::Template),
            (-3010, ErrorClass::Template),
            (-5000, ErrorClass::Address),
            (-7000, ErrorClass::ProviderInternal),
            (-2000, ErrorClass::Content),
            (-3026, ErrorClass::Content),
            (-1, ErrorClass::Content),
        ];
        refusals(&ADAPTER, &OPTIONS, Channel::KakaoAlimtalk, &codes).await;
        let content = content(None, "no template");
        let outcome = account("http://127.0.0.1:1").send(of(1, "+821012345678", &content)).await;
        assert!(matches!(outcome, Outcome::Rejected { class: ErrorClass::Template, .. }), "{outcome:?}");
    }

    /// S0-40, S0-42: what Kakao could not confirm is not called failed.
    #[test]
    fn webhooks_are_read() {
        let alimtalk = account("https://kakao.example.com");
        forgeries(&alimtalk);
        for (code, outcome, class) in [
            ("1000", ReceiptOutcome::Delivered, None),
            ("3005", ReceiptOutcome::Accepted, None),
            ("4161", ReceiptOutcome::Accepted, None),
            ("4143", ReceiptOutcome::Expired, None),
            ("1021", ReceiptOutcome::Failed, Some(ErrorClass::Sender)),
            ("3008", ReceiptOutcome::Failed, Some(ErrorClass::Address)),
            ("9999", ReceiptOutcome::Failed, Some(ErrorClass::ProviderInternal)),
            ("3016", ReceiptOutcome::Failed, Some(ErrorClass::Template)),
            ("3018", ReceiptOutcome::Failed, Some(ErrorClass::NotReachable)),
            ("3019", ReceiptOutcome::Failed, Some(ErrorClass::NotReachable)),
            ("3020", ReceiptOutcome::Failed, Some(ErrorClass::NotReachable)),
            ("3022", ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
            ("4156", ReceiptOutcome::Failed, Some(ErrorClass::Quota)),
            ("3014", ReceiptOutcome::Failed, Some(ErrorClass::Content)),
            ("5555", ReceiptOutcome::Failed, None),
        ] {
            let hook = json!({ "kakaoMessageType": "ALIMTALK_NORMAL", "requestId": "R1", "recipientSeq": 1,
                "receiveDate": "2023-06-01", "resultCode": code, "hookId": "h" });
            let changed = json!({ "hookId": "t", "templateCode": "T", "kakaoTemplateCode": "K", "status": "TSC03" });
            let body = json!({ "event": "MESSAGE_RESULT_UPDATE", "hooks": [changed, hook] }).to_string();
            let read = hooked(&alimtalk, Some(SIGNED_BY), &body).unwrap().remove(0).unwrap();
            assert_eq!((read.outcome, read.class, read.occurred_at), (outcome, class, None), "{code}");
            assert_eq!((read.reference, read.event_key), (None, format!("R1/1:{code}")));
        }
    }

    #[tokio::test]
    async fn what_may_have_been_taken_is_looked_up_and_results_are_polled() {
        let content = template();
        let present = SendRequest { attempt: 2, ..of(1, "+821012345678", &content) };
        let before = of(1, "+821012345678", &content).reference().to_string();
        let found = json!({ "header": { "isSuccessful": true }, "messageSearchResultResponse": { "messages": [
            { "requestId": "R1", "recipientSeq": 1, "recipientGroupingKey": before }], "totalCount": 1 } });
        let nothing = json!({ "header": { "isSuccessful": true }, "messageSearchResultResponse": { "messages": [] } });
        let results = json!({ "header": { "isSuccessful": true }, "messages": [
            { "requestId": "R1", "recipientSeq": 1, "resultCode": "1000", "resultCodeName": "성공" },
            { "requestId": "R1", "recipientSeq": 2, "resultCode": "3005" },
            { "requestId": "R1", "resultCode": "1000" },
        ] });
        let answers = [found, nothing, results].map(|answer| (200, answer.to_string()));
        let api = Answers::with(&answers).await;
        let alimtalk = account(&api.url);
        let looked = alimtalk.lookup(present.clone()).await;
        assert_eq!(looked, Looked::Taken { provider_ref: Some("R1/1".to_owned()) });
        assert_eq!(alimtalk.lookup(present).await, Looked::NotTaken);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let polled = alimtalk.poll(None, now).unwrap().await.unwrap();
        assert_eq!(polled.receipts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        assert_eq!(polled.receipts[0].as_ref().unwrap().provider_ref.as_deref(), Some("R1/1"));
        let lines: Vec<String> = api.requests().into_iter().map(|r| r.line).collect();
        assert!(lines[0].starts_with("GET /alimtalk/v2.3/appkeys/AK/messages?startRequestDate="), "{}", lines[0]);
        let path = "GET /alimtalk/v2.3/appkeys/AK/message-results?startUpdateDate=2027-01-14+18%3A00&";
        assert!(lines[2].starts_with(path), "{}", lines[2]);
    }
}
