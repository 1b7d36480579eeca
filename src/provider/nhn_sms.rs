//! NHN Cloud SMS v3.0: SMS, LMS, and MMS without pictures, which is sent as LMS.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::error::Result;
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::cp949;
use crate::model::delivery::Outcome;
use crate::model::message::Content;
use crate::model::pace::LimitScope;
use crate::model::phone::{self, KOREA};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Options};
use super::http::ClientSettings;
use super::nhn::{self, NhnService, ResultList, SentList, hours, recipient_outcomes};
use super::vendor::{self, ErrorCodes, ResultCodes};
use super::{BoxFuture, Callback, CallbackError, LookupResult, Provider, ReceiptPage, Receipts, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-sms",
    description: "NHN Cloud SMS v3.0: SMS, LMS, MMS without pictures",
    options: &[
        ("app-key", "the app key of the project's SMS service; needed"),
        ("secret-key", "the secret key of the same service; needed"),
        ("from", "the sender's number, registered at NHN; needed"),
        (
            "webhook-signature",
            "the text that webhooks show, as set at NHN; without it webhooks are refused and results are only polled",
        ),
        ("base-url", "the URL of the API (https://sms.api.nhncloudservice.com)"),
        ("channels", "SMS, LMS and MMS (the default), or fewer"),
    ],
    build: |options, common| Ok(Arc::new(NhnSms::new(options, common)?)),
};

const CHANNELS: [Channel; 3] = [Channel::Sms, Channel::Lms, Channel::Mms];
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";
/// The most bytes of a title, in the carriers' code page CP949.
const TITLE_BYTES: usize = 40;

/// Codes of whole requests and of single recipients.
const CODES: ErrorCodes = ErrorCodes(&[
    (ErrorClass::Credentials, &["-1000", "-1001", "-1002", "-1003", "-1004", "-1007", "-1008"]),
    (ErrorClass::ProviderInternal, &["-2021", "-7000", "-9999"]),
    (ErrorClass::Quota, &["-2047", "-2052", "-2053"]),
    (ErrorClass::Sender, &["-2312", "-2313", "-6000", "-6004"]),
    (ErrorClass::Address, &["-2018", "-2019"]),
    (ErrorClass::OptedOut, &["-6001"]),
    (ErrorClass::NotReachable, &["-2024", "-2044", "-2045", "-2046", "-2051"]),
    (
        ErrorClass::Content,
        &[
            "4", "-2000", "-2001", "-2014", "-2015", "-2016", "-2022", "-2023", "-2048", "-6003", "-9995", "-9996",
            "-9997",
        ],
    ),
]);

/// The carriers' result codes.
const RESULTS: ResultCodes = ResultCodes {
    delivered: &["1000"],
    // NHN treated the message as a duplicate of another one; the code does not say which of the two was delivered.
    pending: &["E915"],
    expired: &["1019", "2000"],
    failed: ErrorCodes(&[
        (ErrorClass::ProviderInternal, &["1001", "3011", "3014", "4007", "4009", "E900", "E999"]),
        (ErrorClass::Address, &["1002", "3001", "3003", "4003", "4005"]),
        (ErrorClass::Sender, &["1003", "3017", "3018", "3019", "4001", "4002"]),
        (
            ErrorClass::HandsetUnreachable,
            &["2001", "2002", "2003", "2004", "2005", "2006", "2007", "3004", "3005", "3008", "4004", "4006"],
        ),
        (ErrorClass::NotReachable, &["3000", "3002", "3007", "3010", "3015"]),
        (ErrorClass::OptedOut, &["3006", "3013"]),
        (ErrorClass::Spam, &["3012", "4008", "4010"]),
        (ErrorClass::Content, &["3009", "3016", "E911", "E913"]),
        (ErrorClass::OutsideHours, &["E919"]),
    ]),
};

struct NhnSms {
    service: NhnService,
    from: String,
    channels: Vec<Channel>,
}

impl NhnSms {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<NhnSms> {
        Ok(NhnSms {
            from: vendor::sender_number(options, "from")?,
            channels: options.channels_or(&CHANNELS, &CHANNELS)?,
            service: NhnService::new(options, "https://sms.api.nhncloudservice.com", common)?.with_webhooks(options)?,
        })
    }

    fn path(&self, end: &str) -> String {
        format!("/sms/v3.0/appKeys/{}/{end}", self.service.app_key)
    }

    /// Sends one request. All requests have the same channel and content.
    async fn post(&self, requests: Vec<SendRequest<'_>>) -> Vec<Outcome> {
        let Some(first) = requests.first() else { return Vec::new() };
        let mut body = json!({
            "body": first.content.body, "sendNo": self.from,
            "recipientList": requests.iter().map(recipient).collect::<Vec<Value>>(),
        });
        if first.channel != Channel::Sms {
            body["title"] = Value::from(title(first.content));
        }
        let path = self.path(send_path(first.channel));
        match self.service.api.post(&path, &body, self.service.headers(), requests.len()).await {
            Ok(answer) => recipient_outcomes(&requests, &answer, &CODES, "/body/data", "sendResultList"),
            Err(failure) => vec![failure.into_outcome(); requests.len()],
        }
    }

    async fn find_earlier_attempt(&self, request: SendRequest<'_>) -> LookupResult {
        let list =
            SentList { path: self.path(send_path(request.channel)), format: TIME_FORMAT, rows_pointer: "/body/data" };
        self.service.find_earlier_attempt(&list, &country_and_number(request.to).1, &request).await
    }
}

fn send_path(channel: Channel) -> &'static str {
    if channel == Channel::Sms { "sender/sms" } else { "sender/mms" }
}

fn country_and_number(number: &str) -> (i32, String) {
    phone::dialled(number).unwrap_or((KOREA, number.to_owned()))
}

fn recipient(request: &SendRequest<'_>) -> Value {
    let (country, number) = country_and_number(request.to);
    json!({
        "recipientNo": number, "countryCode": country.to_string(),
        "recipientGroupingKey": request.reference().to_string(),
    })
}

/// Returns the title, which every LMS must have: the subject, or else the first line of the body, cut to `TITLE_BYTES`.
fn title(content: &Content) -> String {
    let text = content.subject.as_deref().filter(|s| !s.trim().is_empty()).unwrap_or(&content.body);
    let mut title = String::new();
    for c in text.trim().lines().next().unwrap_or_default().chars() {
        title.push(c);
        if cp949::length(&title).is_ok_and(|bytes| bytes > TITLE_BYTES) {
            title.pop();
            break;
        }
    }
    title
}

impl Provider for NhnSms {
    fn name(&self) -> &str {
        &self.service.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    /// NHN tries for 25 hours (SMS) or 80 hours (LMS); receipts come a little later.
    fn capabilities(&self) -> Vec<Capability> {
        let capability = |channel: &Channel| Capability {
            // NHN accepts a longer text and cuts it when it sends.
            body: if *channel == Channel::Lms { Some(2000) } else { None },
            batch: Batch::SameContent(nhn::MAX_RECIPIENTS),
            on_unknown: OnUnknown::Lookup,
            receipt_within: hours(if *channel == Channel::Sms { 26 } else { 81 }),
            ..Capability::of(*channel)
        };
        self.channels.iter().map(capability).collect()
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

    fn poll_receipts<'a>(
        &'a self,
        cursor: Option<&'a str>,
        now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        Some(Box::pin(async move {
            let list = ResultList {
                path: self.path("message-results"),
                format: TIME_FORMAT,
                rows_pointers: &["/body/data/resultUpdateList", "/body/data"],
                codes: &RESULTS,
                repeats_reference: true,
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
    use super::super::nhn::testing::{WEBHOOK_SECRET, call_webhook, check_forged_webhooks, check_refusals};
    use super::super::simulator::testing::{BUDGET, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{ScriptedServer, build, try_build};
    use super::*;
    use crate::model::delivery::DeliveryKey;
    use crate::model::receipt::ReceiptOutcome;

    const OPTIONS: [(&str, &str); 4] =
        [("app-key", "AK"), ("secret-key", "SK"), ("from", "1544-6859"), ("webhook-signature", WEBHOOK_SECRET)];

    fn account(url: &str) -> Arc<dyn Provider> {
        build(&ADAPTER, &[&OPTIONS[..], &[("base-url", url)]].concat(), BUDGET)
    }

    fn numbered<'a>(channel: Channel, numbers: &[&'a str], content: &'a Content) -> Vec<SendRequest<'a>> {
        let one = |(n, to): (usize, &&'a str)| {
            let request = send_request(to, content);
            SendRequest { channel, key: DeliveryKey { no: i16::try_from(n).unwrap() + 1, ..request.key }, ..request }
        };
        numbers.iter().enumerate().map(one).collect()
    }

    fn taken(results: &Value) -> String {
        json!({ "header": { "isSuccessful": true, "resultCode": 0, "resultMessage": "SUCCESS" },
            "body": { "data": { "requestId": "R1", "statusCode": "2", "sendResultList": results } } })
        .to_string()
    }

    /// The request is as documented; in a successful response each recipient has its own outcome.
    #[tokio::test]
    async fn each_recipient_has_its_outcome() {
        let content = content(None, "본문");
        let requests =
            numbered(Channel::Sms, &["+821012345678", "+821012345678", "+12025550123", "+821099998888"], &content);
        let key = |n: usize| requests[n].reference().to_string();
        let results = json!([
            { "recipientNo": "01012345678", "resultCode": -6001, "recipientSeq": 2, "recipientGroupingKey": key(1) },
            { "recipientNo": "01012345678", "resultCode": 0, "recipientSeq": 1, "recipientGroupingKey": key(0) },
            { "recipientNo": "2025550123", "resultCode": "-2046", "recipientSeq": 3, "recipientGroupingKey": key(2) },
        ]);
        let api = ScriptedServer::responding(&[(200, taken(&results))]).await;
        let outcomes = account(&api.url).send_batch(requests.clone()).await;
        assert_eq!(outcomes[0], Outcome::Accepted { provider_ref: Some("R1/1".to_owned()) });
        assert_eq!(rejected(outcomes[1].clone()), (ErrorClass::OptedOut, "-6001".to_owned()));
        assert_eq!(rejected(outcomes[2].clone()), (ErrorClass::NotReachable, "-2046".to_owned()));
        assert_eq!(unknown(outcomes[3].clone()), "answer_incomplete", "the answer does not name it");
        let asked = api.requests().remove(0);
        assert_eq!(asked.line, "POST /sms/v3.0/appKeys/AK/sender/sms");
        assert_eq!(asked.header("x-secret-key"), Some("SK"));
        let one = |n: usize, number: &str, country: &str| {
            let reference = key(n);
            json!({ "recipientNo": number, "countryCode": country, "recipientGroupingKey": reference })
        };
        let recipients = json!([
            one(0, "01012345678", "82"),
            one(1, "01012345678", "82"),
            one(2, "2025550123", "1"),
            one(3, "01099998888", "82")
        ]);
        assert_eq!(asked.body, json!({ "body": "본문", "sendNo": "15446859", "recipientList": recipients }));
    }

    #[tokio::test]
    async fn long_message_has_a_title() {
        for (subject, body, title) in [
            (Some("제목"), "본문", "제목"),
            (None, "첫 줄\n둘째 줄", "첫 줄"),
            (None, "가나다라마바사아자차카타파하가나다라마바사", "가나다라마바사아자차카타파하가나다라마바"),
        ] {
            let content = content(subject, body);
            let api = ScriptedServer::responding(&[(200, taken(&json!([])))]).await;
            account(&api.url).send_batch(numbered(Channel::Lms, &["+821012345678"], &content)).await;
            let asked = api.requests().remove(0);
            assert_eq!(asked.line, "POST /sms/v3.0/appKeys/AK/sender/mms");
            assert_eq!(asked.body["title"], title);
        }
    }

    #[tokio::test]
    async fn codes_decide_about_a_request() {
        let codes = [
            (-1000, ErrorClass::Credentials),
            (-1004, ErrorClass::Credentials),
            (-2021, ErrorClass::ProviderInternal),
            (-9999, ErrorClass::ProviderInternal),
            (-2052, ErrorClass::Quota),
            (-2312, ErrorClass::Sender),
            (-2019, ErrorClass::Address),
            (-6001, ErrorClass::OptedOut),
            (-2044, ErrorClass::NotReachable),
            (-2015, ErrorClass::Content),
            (-2023, ErrorClass::Content),
            (-1, ErrorClass::Content),
        ];
        check_refusals(&ADAPTER, &OPTIONS, Channel::Sms, &codes).await;
    }

    /// S0-40, S0-42: webhooks are read, also with the vendor's misspelt field; an unreadable one does not lose the
    /// others.
    #[test]
    fn webhooks_are_read() {
        let sms = account("https://sms.example.com");
        check_forged_webhooks(&sms);
        let content = content(None, "x");
        let ours = send_request("+821012345678", &content).reference();
        let hook = |code: &str, status: &str, key: &str| {
            json!({ "hookId": "h", "requestId": "R1", "recipientSeq": 1, "receiveDate": "2027-01-15T17:00:00",
                "messageStatus": status, "resultCode": code, key: ours.to_string() })
        };
        let good = "recipientGroupingKey";
        for (code, status, outcome, class) in [
            ("1000", "COMPLETED", ReceiptOutcome::Delivered, None),
            ("2000", "FAILED", ReceiptOutcome::Expired, None),
            ("E915", "DUPLICATED", ReceiptOutcome::Accepted, None),
            ("9999", "FAILED_AD", ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
            ("9999", "FAILED", ReceiptOutcome::Failed, None),
            ("1001", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::ProviderInternal)),
            ("3001", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::Address)),
            ("3018", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::Sender)),
            ("2003", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::HandsetUnreachable)),
            ("3010", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::NotReachable)),
            ("3006", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::OptedOut)),
            ("3012", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::Spam)),
            ("E913", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::Content)),
            ("E919", "FAILED", ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
        ] {
            let body = json!({ "hooks": [hook(code, status, good)] }).to_string();
            let read = call_webhook(&sms, Some(WEBHOOK_SECRET), &body).unwrap().remove(0).unwrap();
            assert_eq!((read.outcome, read.class), (outcome, class), "{code} {status}");
            assert_eq!((read.reference, read.provider_ref.as_deref()), (Some(ours), Some("R1/1")));
            assert_eq!(read.occurred_at, DateTime::from_timestamp(1_800_000_000, 0));
        }
        let opted_out = json!({ "hookId": "h", "recipientNo": "01012341234", "unsubscribeNo": "08012341234" });
        let body = json!({ "hooks": [
            hook("1000", "COMPLETED", "recipientGropuingKey"), { "resultCode": "1000" }, opted_out, null,
            hook("1000", "COMPLETED", good),
        ] });
        let read = call_webhook(&sms, Some(WEBHOOK_SECRET), &body.to_string()).unwrap();
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, false, true]);
        assert_eq!(read[0].as_ref().unwrap().reference, Some(ours), "misspelt as they send it");
        assert_eq!(read[0], read[3]);
        let without = build(&ADAPTER, &OPTIONS[..3], BUDGET);
        assert_eq!(call_webhook(&without, Some(WEBHOOK_SECRET), "{}"), Err(CallbackError::NotSupported));
    }

    fn listed(data: &Value) -> (u16, String) {
        (200, json!({ "header": { "isSuccessful": true, "resultCode": 0 }, "body": { "data": data } }).to_string())
    }

    #[tokio::test]
    async fn unknown_outcome_is_looked_up() {
        let content = content(None, "x");
        let present = SendRequest { attempt: 2, ..send_request("+821012345678", &content) };
        let row = |request: &SendRequest<'_>| {
            let reference = request.reference().to_string();
            json!({ "requestId": "R1", "recipientSeq": 4, "recipientGroupingKey": reference })
        };
        let before = SendRequest { attempt: 1, ..present.clone() };
        let api = ScriptedServer::responding(&[
            listed(&json!([row(&present), row(&before)])),
            listed(&json!([row(&present), {}])),
            listed(&Value::Array(vec![json!({}); nhn::LOOKUP_ROWS])),
            (200, "{}".to_owned()),
        ])
        .await;
        let sms = account(&api.url);
        let taken = LookupResult::Found { provider_ref: Some("R1/4".to_owned()) };
        for expected in [taken, LookupResult::NotFound, LookupResult::Inconclusive, LookupResult::Inconclusive] {
            assert_eq!(sms.lookup(present.clone()).await, expected);
        }
        let line = api.requests().remove(0).line;
        assert!(line.starts_with("GET /sms/v3.0/appKeys/AK/sender/sms?startRequestDate="), "{line}");
        assert!(line.contains("&recipientNo=01012345678&"), "{line}");
    }

    /// Results are polled page by page from the cursor; other programs' messages on the account are skipped.
    #[tokio::test]
    async fn results_are_polled() {
        let content = content(None, "x");
        let ours = send_request("+821012345678", &content).reference().to_string();
        let row = |seq: usize, code: &str, key: &str| {
            json!({ "requestId": "R1", "recipientSeq": seq, "resultCode": code, "recipientGroupingKey": key,
                "updateDate": "2027-01-15 16:59:00.0" })
        };
        let mut full: Vec<Value> = (0..nhn::RESULTS_PAGE).map(|seq| row(seq, "1000", "theirs")).collect();
        full[7] = row(7, "1000", &ours);
        let api = ScriptedServer::responding(&[
            listed(&Value::Array(full)),
            listed(&json!({ "resultUpdateList": [row(1, "3001", &ours), row(2, "E915", &ours)] })),
            listed(&json!([])),
            super::super::nhn::testing::refusal(-9999),
            listed(&json!({ "items": [] })),
        ])
        .await;
        let (sms, now) = (account(&api.url), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let first = sms.poll_receipts(None, now).unwrap().await.unwrap();
        assert_eq!((first.receipts.len(), first.has_more), (1, true));
        assert_eq!(first.receipts[0].as_ref().unwrap().event_key, "R1/7:1000");
        let second = sms.poll_receipts(Some(&first.cursor), now).unwrap().await.unwrap();
        assert_eq!((second.receipts.len(), second.has_more), (1, false), "as the table has it, and only what is final");
        sms.poll_receipts(Some(&second.cursor), now).unwrap().await.unwrap();
        let lines: Vec<String> = api.requests().into_iter().map(|r| r.line).collect();
        let times = |from: &str| {
            format!(
                "GET /sms/v3.0/appKeys/AK/message-results?startUpdateDate={from}&endUpdateDate=2027-01-15+17%3A00%3A00"
            )
        };
        assert_eq!(lines[0], format!("{}&pageNum=1&pageSize=100", times("2027-01-14+18%3A00%3A00")));
        assert_eq!(lines[1], format!("{}&pageNum=2&pageSize=100", times("2027-01-14+18%3A00%3A00")));
        assert_eq!(lines[2], format!("{}&pageNum=1&pageSize=100", times("2027-01-15+16%3A50%3A00")));
        assert!(sms.poll_receipts(None, now).unwrap().await.unwrap_err().contains("-9999"));
        assert!(
            sms.poll_receipts(None, now).unwrap().await.unwrap_err().contains("no rows"),
            "not what is expected, not empty"
        );
    }

    #[test]
    fn settings_are_checked() {
        let error = |options: &[(&str, &str)]| try_build(&ADAPTER, options, BUDGET).err().unwrap().to_string();
        assert!(error(&OPTIONS[..2]).contains("needs the option from"));
        assert!(error(&[("app-key", "a/b"), OPTIONS[1], OPTIONS[2]]).contains("app-key"));
        assert!(error(&[OPTIONS[0], OPTIONS[1], ("from", "02x")]).contains("1 to 13 digits"));
        let secret = error(&[OPTIONS[0], ("secret-key", "SECRET\n"), OPTIONS[2]]);
        assert!(secret.contains("secret-key") && !secret.contains("SECRET"), "{secret}");
    }
}
