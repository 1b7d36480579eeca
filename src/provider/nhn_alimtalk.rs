//! NHN Cloud KakaoTalk Bizmessage v2.3, AlimTalk: the full text of an approved template (`raw-messages`), with NHN's
//! own fallback to SMS switched off.
//!
//! A request carries an idempotency key that NHN refuses to accept twice within ten minutes. The key is made of the
//! deliveries in the request, not of the attempt. So if an earlier attempt with an unknown outcome was accepted, its
//! repetition is refused: the repetition was certainly not sent, and the earlier attempt is looked up. After a
//! temporary refusal by NHN itself the next attempt has another key; with the same key it would have to wait ten
//! minutes.

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
use super::http::ClientSettings;
use super::nhn::{self, NhnService, ResultList, SentList, hours, recipient_outcomes};
use super::vendor::{ErrorCodes, ResultCodes, digits, rejected};
use super::{BoxFuture, Callback, CallbackError, LookupResult, Provider, ReceiptPage, Receipts, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-alimtalk",
    description: "NHN Cloud KakaoTalk Bizmessage v2.3: AlimTalk",
    options: &[
        ("app-key", "the app key of the project's KakaoTalk Bizmessage service; needed"),
        ("secret-key", "the secret key of the same service; needed"),
        ("sender-key", "the sender key of the KakaoTalk channel, 40 characters; needed"),
        (
            "webhook-signature",
            "the text that webhooks show, as set at NHN; without it webhooks are refused and results are only polled",
        ),
        ("base-url", "the URL of the API (https://kakaotalk-bizmessage.api.nhncloudservice.com)"),
    ],
    build: |options, common| Ok(Arc::new(NhnAlimtalk::new(options, common)?)),
};

const IDEMPOTENCY_KEY: &str = "x-nc-api-idempotency-key";
/// The code for a key that was used within `KEY_LIFETIME`.
const KEY_REUSED: &str = "-1005";
const KEY_LIFETIME: Duration = Duration::from_secs(600);
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M";

/// Codes of whole requests and of single recipients.
const CODES: ErrorCodes = ErrorCodes(&[
    (ErrorClass::Credentials, &["-1000", "-1001"]),
    (ErrorClass::Sender, &["-1006", "-1027", "-2017"]),
    (ErrorClass::Template, &["-1028", "-3003", "-3004", "-3005", "-3010"]),
    (ErrorClass::Address, &["-5000"]),
    (ErrorClass::OptedOut, &["-6001"]),
    (ErrorClass::Quota, &["-2052", "-2053"]),
    (ErrorClass::ProviderInternal, &["-7000", "-9999"]),
    (ErrorClass::Throttled, &[KEY_REUSED]),
    (ErrorClass::Content, &["4", "-2*", "-3*"]),
]);

/// Kakao's result codes.
const RESULTS: ResultCodes = ResultCodes {
    delivered: &["1000"],
    // 3005: sent but not confirmed; it may be received within three days. The others: unknown or in progress.
    pending: &["3005", "4000", "4001", "4131", "4161"],
    expired: &["4143"],
    failed: ErrorCodes(&[
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
    service: NhnService,
    sender_key: String,
    refusals: Mutex<Refusals>,
}

/// How often NHN temporarily refused each delivery, as far as this process knows. A process that does not know reuses
/// the key and has to wait `KEY_LIFETIME`, but sends nothing twice.
type Refusals = HashMap<DeliveryKey, u32>;
/// When this many are stored, all are dropped.
const MAX_REFUSALS: usize = 10_000;

impl NhnAlimtalk {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<NhnAlimtalk> {
        let sender_key = options.require("sender-key")?;
        let nhn = NhnService::new(options, "https://kakaotalk-bizmessage.api.nhncloudservice.com", common)?;
        Ok(NhnAlimtalk { service: nhn.with_webhooks(options)?, sender_key, refusals: Mutex::default() })
    }

    fn path(&self, end: &str) -> String {
        format!("/alimtalk/v2.3/appkeys/{}/{end}", self.service.app_key)
    }

    /// Sends one request. All requests have the same content.
    async fn post(&self, requests: Vec<SendRequest<'_>>) -> Vec<Outcome> {
        let Some(first) = requests.first() else { return Vec::new() };
        let Some(template) = &first.content.template_code else {
            let detail = "an AlimTalk needs the code of an approved template: set templateCode";
            return vec![rejected(ErrorClass::Template, "template_missing", detail); requests.len()];
        };
        let body = json!({
            "senderKey": self.sender_key, "templateCode": template,
            "recipientList": requests.iter().map(recipient).collect::<Vec<Value>>(),
        });
        let mut headers = self.service.headers();
        if let Ok(key) = HeaderValue::from_str(&idempotency_key(&requests, &self.refusals())) {
            headers.insert(HeaderName::from_static(IDEMPOTENCY_KEY), key);
        }
        match self.service.api.post(&self.path("raw-messages"), &body, headers, requests.len()).await {
            Ok(answer) => {
                let outcomes = recipient_outcomes(&requests, &answer, &CODES, "/message", "sendResults");
                let mut refusals = self.refusals();
                for (request, outcome) in requests.iter().zip(&outcomes) {
                    count_refusal(&mut refusals, request.key, outcome);
                }
                outcomes.into_iter().map(with_key_lifetime).collect()
            }
            Err(failure) => vec![failure.into_outcome(); requests.len()],
        }
    }

    fn refusals(&self) -> MutexGuard<'_, Refusals> {
        self.refusals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn find_earlier_attempt(&self, request: SendRequest<'_>) -> LookupResult {
        let rows_pointer = "/messageSearchResultResponse/messages";
        self.service
            .find_earlier_attempt(
                &SentList { path: self.path("messages"), format: TIME_FORMAT, rows_pointer },
                &digits(request.to),
                &request,
            )
            .await
    }
}

fn recipient(request: &SendRequest<'_>) -> Value {
    json!({
        "recipientNo": digits(request.to), "content": request.content.body,
        "resendParameter": { "isResend": false }, "recipientGroupingKey": request.reference().to_string(),
    })
}

/// Counts a temporary refusal by NHN, so that the next attempt has another key. An unknown outcome and a reused key
/// leave the count as it is; a final outcome removes it.
fn count_refusal(refusals: &mut Refusals, key: DeliveryKey, outcome: &Outcome) {
    match outcome {
        Outcome::Rejected { code, .. } if code == KEY_REUSED => (),
        Outcome::Rejected { class, .. } if class.action() != RetryAction::Permanent => {
            if refusals.len() >= MAX_REFUSALS {
                refusals.clear();
            }
            *refusals.entry(key).or_default() += 1;
        }
        Outcome::Unknown { .. } => (),
        _ => drop(refusals.remove(&key)),
    }
}

/// Makes the idempotency key: the same for the same deliveries in any attempt and order, as long as NHN refused none of
/// them temporarily in between.
fn idempotency_key(requests: &[SendRequest<'_>], refusals: &Refusals) -> String {
    let key = |request: &SendRequest<'_>| {
        let (key, refused) = (request.key, refusals.get(&request.key).copied().unwrap_or_default());
        format!("{}-{key}-{refused}", key.shard)
    };
    let mut keys: Vec<String> = requests.iter().map(key).collect();
    keys.sort_unstable();
    HEXLOWER.encode(&crypt::keyed_hash(b"notihub idempotency key", keys.join(" ").as_bytes()))
}

/// Sets the pause after a reused key: until NHN has forgotten it, no request with it is accepted.
fn with_key_lifetime(outcome: Outcome) -> Outcome {
    match outcome {
        Outcome::Rejected { class, code, detail, .. } if code == KEY_REUSED => {
            Outcome::Rejected { class, code, detail, retry_after: Some(KEY_LIFETIME) }
        }
        other => other,
    }
}

impl Provider for NhnAlimtalk {
    fn name(&self) -> &str {
        &self.service.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    /// Receipts come within 73 hours: a message that Kakao could not confirm may still arrive within three days.
    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability {
            batch: Batch::SameContent(nhn::MAX_RECIPIENTS),
            on_unknown: OnUnknown::Lookup,
            receipt_within: hours(73),
            repeats_reference: false,
            ..Capability::of(Channel::KakaoAlimtalk)
        }]
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { self.post(vec![request]).await.pop().unwrap_or(Outcome::Released) })
    }

    fn send_batch<'a>(&'a self, requests: Vec<SendRequest<'a>>) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(self.post(requests))
    }

    fn lookup<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, LookupResult> {
        Box::pin(self.find_earlier_attempt(request))
    }

    fn parse_receipts(&self, callback: &Callback<'_>) -> Result<Receipts, CallbackError> {
        self.service.parse_webhook(callback, &RESULTS)
    }

    /// The rows do not repeat our reference; they are matched by requestId and recipientSeq.
    fn poll_receipts<'a>(
        &'a self,
        cursor: Option<&'a str>,
        now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        Some(Box::pin(async move {
            let list = ResultList {
                path: self.path("message-results"),
                format: TIME_FORMAT,
                rows_pointers: &["/messages", "/message/messages"],
                codes: &RESULTS,
                repeats_reference: false,
            };
            self.service.poll_results(&list, cursor, now).await
        }))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.service.api.check())
    }
}

#[cfg(test)]
mod tests {
    use super::super::nhn::testing::{WEBHOOK_SECRET, call_webhook, check_forged_webhooks, check_refusals, refusal};
    use super::super::simulator::testing::{BUDGET, content, send_request};
    use super::super::vendor::testing::{ScriptedServer, build};
    use super::*;
    use crate::model::message::Content;
    use crate::model::receipt::ReceiptOutcome;

    const OPTIONS: [(&str, &str); 4] =
        [("app-key", "AK"), ("secret-key", "SK"), ("sender-key", "SENDER"), ("webhook-signature", WEBHOOK_SECRET)];

    fn account(url: &str) -> Arc<dyn Provider> {
        build(&ADAPTER, &[&OPTIONS[..], &[("base-url", url)]].concat(), BUDGET)
    }

    fn template() -> Content {
        Content { template_code: Some("ORDER_01".to_owned()), ..content(None, "주문 완료") }
    }

    fn of<'a>(no: i16, to: &'a str, content: &'a Content) -> SendRequest<'a> {
        let request = send_request(to, content);
        SendRequest { channel: Channel::KakaoAlimtalk, key: DeliveryKey { no, ..request.key }, ..request }
    }

    /// The request is as documented, with NHN's own fallback switched off; each recipient has its own outcome.
    #[tokio::test]
    async fn each_recipient_has_its_outcome() {
        let content = template();
        let requests = vec![of(1, "+821012345678", &content), of(2, "+821011112222", &content)];
        let key = |n: usize| requests[n].reference().to_string();
        let results = json!([
            { "recipientSeq": 1, "recipientNo": "01012345678", "resultCode": 0, "recipientGroupingKey": key(0) },
            { "recipientSeq": 2, "recipientNo": "01011112222", "resultCode": -3010, "recipientGroupingKey": null },
        ]);
        let answer = json!({ "header": { "isSuccessful": true, "resultCode": 0 },
            "message": { "requestId": "R1", "sendResults": results } });
        let api = ScriptedServer::responding(&[(200, answer.to_string())]).await;
        let outcomes = account(&api.url).send_batch(requests.clone()).await;
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

    /// A second attempt has the first one's key, another delivery has another. If NHN knows the key, the attempt was
    /// certainly not accepted, and waits until NHN forgets the key.
    #[tokio::test]
    async fn repetition_has_the_same_idempotency_key() {
        let content = template();
        let api = ScriptedServer::responding(&[refusal(-1005), refusal(-1005), refusal(-1005)]).await;
        let alimtalk = account(&api.url);
        let first = of(1, "+821012345678", &content);
        for request in [first.clone(), SendRequest { attempt: 2, ..first }, of(2, "+821012345678", &content)] {
            let Outcome::Rejected { class, retry_after, .. } = alimtalk.send(request).await else {
                panic!("not rejected")
            };
            assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(KEY_LIFETIME)));
        }
        let asked = api.requests();
        let key = |n: usize| asked[n].header(IDEMPOTENCY_KEY).unwrap();
        assert_eq!(key(0), key(1));
        assert_ne!(key(0), key(2));
    }

    /// After a temporary refusal by NHN itself the next attempt has another key.
    #[tokio::test]
    async fn attempt_after_a_refusal_has_another_key() {
        let content = template();
        let api = ScriptedServer::responding(&[
            refusal(-7000),
            refusal(-1005),
            (200, String::new()),
            refusal(-5000),
            refusal(-5000),
        ])
        .await;
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
        check_refusals(&ADAPTER, &OPTIONS, Channel::KakaoAlimtalk, &codes).await;
        let content = content(None, "no template");
        let outcome = account("http://127.0.0.1:1").send(of(1, "+821012345678", &content)).await;
        assert!(matches!(outcome, Outcome::Rejected { class: ErrorClass::Template, .. }), "{outcome:?}");
    }

    /// S0-40, S0-42: a message that Kakao could not confirm does not count as failed.
    #[test]
    fn webhooks_are_read() {
        let alimtalk = account("https://kakao.example.com");
        check_forged_webhooks(&alimtalk);
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
            let read = call_webhook(&alimtalk, Some(WEBHOOK_SECRET), &body).unwrap().remove(0).unwrap();
            assert_eq!((read.outcome, read.class, read.occurred_at), (outcome, class, None), "{code}");
            assert_eq!((read.reference, read.event_key), (None, format!("R1/1:{code}")));
        }
    }

    #[tokio::test]
    async fn unknown_outcome_is_looked_up_and_results_are_polled() {
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
        let api = ScriptedServer::responding(&answers).await;
        let alimtalk = account(&api.url);
        let looked = alimtalk.lookup(present.clone()).await;
        assert_eq!(looked, LookupResult::Found { provider_ref: Some("R1/1".to_owned()) });
        assert_eq!(alimtalk.lookup(present).await, LookupResult::NotFound);
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        let polled = alimtalk.poll_receipts(None, now).unwrap().await.unwrap();
        assert_eq!(polled.receipts.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        assert_eq!(polled.receipts[0].as_ref().unwrap().provider_ref.as_deref(), Some("R1/1"));
        let lines: Vec<String> = api.requests().into_iter().map(|r| r.line).collect();
        assert!(lines[0].starts_with("GET /alimtalk/v2.3/appkeys/AK/messages?startRequestDate="), "{}", lines[0]);
        let path = "GET /alimtalk/v2.3/appkeys/AK/message-results?startUpdateDate=2027-01-14+18%3A00&";
        assert!(lines[2].starts_with(path), "{}", lines[2]);
    }
}
