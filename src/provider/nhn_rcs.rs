//! NHN Cloud RCS Bizmessage v1.0: texts, one recipient in each request. The API carries no reference of ours and sends
//! no webhooks: results are polled, and matched by the message id in the response. Without a response a message cannot
//! be looked up, so an unknown outcome stays unknown.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::error::Result;
use crate::model::capability::Capability;
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Options};
use super::http::ClientSettings;
use super::http::HttpResponse;
use super::nhn::{self, NhnService, hours};
use super::vendor::{self, ErrorCodes, digits, from_kst, text_or_number};
use super::window::PollWindow;
use super::{BoxFuture, Provider, ReceiptPage, Receipts, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-rcs",
    description: "NHN Cloud RCS Bizmessage v1.0: RCS texts",
    options: &[
        ("app-key", "the app key of the project's RCS Bizmessage service; needed"),
        ("secret-key", "the secret key of the same service; needed"),
        ("brand-id", "the RCS brand; needed"),
        ("chatbot-id", "the sender's number, registered with the brand; needed"),
        ("base-url", "the URL of the API (https://rcs-bizmessage.api.nhncloudservice.com)"),
    ],
    build: |options, common| Ok(Arc::new(NhnRcs::new(options, common)?)),
};

/// The most characters of a short message (`sms`); a longer one is sent as `lms`.
const SHORT_CHARS: usize = 100;
const TITLE_CHARS: usize = 30;
const KINDS: [&str; 2] = ["sms", "lms"];
const TIME_FORMAT: &str = "%Y-%m-%d %H:%M:%S";
/// Rows of one page.
const PAGE_ROWS: usize = 100;
/// The most failed messages of one poll. The code of each costs a request of at most `FAILURE_LOOKUP_TIMEOUT`, so that
/// a poll with many failures ends within the time of a call; the next poll continues after them.
const MAX_FAILURE_LOOKUPS: usize = 10;
const FAILURE_LOOKUP_TIMEOUT: Duration = Duration::from_secs(1);

/// Codes that refuse a request.
const CODES: ErrorCodes = ErrorCodes(&[
    (ErrorClass::Credentials, &["-1000", "-1001", "-1002", "-1003", "-1004", "-1008"]),
    (ErrorClass::Sender, &["-3001", "-4000", "-4001", "-4010", "-4011", "-4040", "-4041", "-4050"]),
    (ErrorClass::Template, &["-4020", "-4021", "-4022", "-4023", "-4024"]),
    (ErrorClass::OptedOut, &["-4042", "-6001"]),
    (ErrorClass::Quota, &["-2052", "-2053"]),
    (ErrorClass::OutsideHours, &["-9000"]),
    (ErrorClass::ProviderInternal, &["500", "-5000", "-5001", "-5002", "-6000", "-7000", "-8000", "-9999"]),
    (ErrorClass::Content, &["400", "-30*", "-403*", "-4060"]),
]);

/// Result codes of messages that were not delivered.
const RESULT_ERRORS: ErrorCodes = ErrorCodes(&[
    (
        ErrorClass::Credentials,
        &["50001", "50002", "50003", "50004", "50005", "50006", "50007", "50008", "50009", "4000*", "5110*"],
    ),
    (ErrorClass::Throttled, &["50201", "41003", "42601"]),
    (ErrorClass::Quota, &["50202"]),
    (ErrorClass::ProviderInternal, &["41000", "41001", "41004", "41005", "45*", "54004", "59*", "519*"]),
    (ErrorClass::Address, &["52001", "54001", "55817"]),
    (ErrorClass::NotReachable, &["54002", "54003", "412*", "41101"]),
    (ErrorClass::HandsetUnreachable, &["52016", "56007", "41006", "41008", "41100", "55821"]),
    (ErrorClass::Spam, &["42602"]),
    (ErrorClass::Sender, &["552*", "553*", "55807", "55808", "55809", "55819"]),
    (ErrorClass::Template, &["52023", "555*", "556*", "55814", "55818"]),
    (ErrorClass::Content, &["557*", "558*", "55900", "42*", "53*"]),
]);

/// Result codes of a message whose id the carrier had accepted before.
const DUPLICATES: [&str; 2] = ["55806", "42514"];

struct NhnRcs {
    service: NhnService,
    brand_id: String,
    chatbot_id: String,
    app_key: HeaderValue,
}

impl NhnRcs {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<NhnRcs> {
        let (brand_id, chatbot_id) = (options.require("brand-id")?, vendor::sender_number(options, "chatbot-id")?);
        let nhn = NhnService::new(options, "https://rcs-bizmessage.api.nhncloudservice.com", common)?;
        let (_, app_key) = vendor::secret_header(options, "app-key", APP_KEY, &nhn.app_key)?;
        Ok(NhnRcs { service: nhn, brand_id, chatbot_id, app_key })
    }

    fn headers(&self) -> HeaderMap {
        let mut headers = self.service.headers();
        headers.insert(APP_KEY, self.app_key.clone());
        headers
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let content = request.content;
        let mut body = json!({
            "brandId": self.brand_id, "chatbotId": self.chatbot_id, "recipientNumber": digits(request.to),
            "body": content.body, "isAd": false, "isFallback": false,
        });
        let short = content.body.chars().count() <= SHORT_CHARS && content.subject.is_none();
        let kind = if short { "sms" } else { "lms" };
        if let Some(subject) = &content.subject {
            body["title"] = Value::from(subject.chars().take(TITLE_CHARS).collect::<String>());
        }
        match self.service.api.post(&format!("/rcs/v1.0/messages/{kind}"), &body, self.headers(), 1).await {
            Ok(answer) => outcome_of(&answer),
            Err(failure) => failure.into_outcome(),
        }
    }

    /// Reads one page of one kind: first all short messages of a window, then all long ones.
    async fn poll_results(&self, cursor: Option<&str>, now: DateTime<Utc>) -> Result<ReceiptPage, String> {
        let window = PollWindow::from_cursor(cursor, now);
        let (kind, offset) = parse_position(window.position.as_deref());
        let Some(name) = KINDS.get(kind) else { return Err("the cursor names no kind of message".to_owned()) };
        let (start, end) = (vendor::to_kst(window.from, TIME_FORMAT), vendor::to_kst(window.until, TIME_FORMAT));
        let (offset_text, limit) = (offset.to_string(), PAGE_ROWS.to_string());
        let query = [
            ("startReceiveDateTime", start.as_str()),
            ("endReceiveDateTime", &end),
            ("limit", &limit),
            ("offset", &offset_text),
        ];
        let path = format!("/rcs/v1.0/messages/{name}");
        let body = self.service.get_list(&path, &query, self.headers()).await?;
        let rows = body["data"].as_array().ok_or("the list has no rows")?;
        let (receipts, read) = self.read_rows(&path, rows).await;
        let next = match (read < rows.len() || rows.len() >= PAGE_ROWS, kind + 1 < KINDS.len()) {
            (true, _) => Some(format!("{kind}.{}", offset + read)),
            (false, true) => Some(format!("{}.0", kind + 1)),
            (false, false) => None,
        };
        let (cursor, more) = window.next_cursor(next.as_deref(), now);
        Ok(ReceiptPage { receipts, cursor, has_more: more })
    }

    /// Returns the receipts of the rows, and how many rows were read: fewer than all after `MAX_FAILURE_LOOKUPS`
    /// failures.
    async fn read_rows(&self, path: &str, rows: &[Value]) -> (Receipts, usize) {
        let (mut receipts, mut failed) = (Vec::new(), 0);
        for (n, row) in rows.iter().enumerate() {
            match row["messageStatus"].as_str() {
                Some("DELIVERED") => receipts.push(receipt(row, None)),
                Some("FAILED" | "CANCELLED") if failed == MAX_FAILURE_LOOKUPS => return (receipts, n),
                Some("FAILED" | "CANCELLED") => {
                    failed += 1;
                    let code = timeout(FAILURE_LOOKUP_TIMEOUT, self.failure_code(path, row)).await.ok().flatten();
                    receipts.push(receipt(row, code.as_deref()));
                }
                _ => (),
            }
        }
        (receipts, rows.len())
    }

    /// Looks up why a message failed: the list does not say, only the message itself. `None` if the look-up fails; the
    /// message counts as failed all the same.
    async fn failure_code(&self, path: &str, row: &Value) -> Option<String> {
        let id = text_or_number(&row["messageId"]).filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric()))?;
        let body = self.service.get_list(&format!("{path}/{id}"), &[], self.headers()).await.ok()?;
        text_or_number(&body["messageRecipient"]["resultCode"])
    }
}

const APP_KEY: HeaderName = HeaderName::from_static("x-tc-app-key");

/// Parses a position such as `1.200`: the index in `KINDS`, and how many rows of it were read. `(0, 0)` if it is none.
fn parse_position(text: Option<&str>) -> (usize, usize) {
    let parsed = |text: &str| {
        let (kind, offset) = text.split_once('.')?;
        Some((kind.parse().ok()?, offset.parse().ok()?))
    };
    text.and_then(parsed).unwrap_or_default()
}

fn outcome_of(answer: &HttpResponse) -> Outcome {
    match nhn::checked_body(answer, &CODES) {
        Ok(body) => Outcome::Accepted { provider_ref: text_or_number(&body["messageId"]) },
        Err(outcome) => outcome,
    }
}

fn receipt(row: &Value, code: Option<&str>) -> Result<Receipt, String> {
    let id = text_or_number(&row["messageId"]).ok_or("the result has no messageId")?;
    let status = row["messageStatus"].as_str().unwrap_or_default();
    let outcome = match (status, code) {
        ("DELIVERED", _) => ReceiptOutcome::Delivered,
        (_, Some(code)) if DUPLICATES.contains(&code) => ReceiptOutcome::Accepted,
        _ => ReceiptOutcome::Failed,
    };
    let class = code.filter(|_| outcome == ReceiptOutcome::Failed).and_then(|code| RESULT_ERRORS.class(code));
    Ok(Receipt {
        event_key: format!("{id}:{status}"),
        reference: None,
        provider_ref: Some(id),
        outcome,
        class,
        code: code.map(str::to_owned),
        detail: None,
        occurred_at: row["receiveDateTime"].as_str().and_then(from_kst),
    })
}

impl Provider for NhnRcs {
    fn name(&self) -> &str {
        &self.service.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { receipt_within: hours(73), repeats_reference: false, ..Capability::of(Channel::Rcs) }]
    }

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn poll_receipts<'a>(
        &'a self,
        cursor: Option<&'a str>,
        now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        Some(Box::pin(self.poll_results(cursor, now)))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.service.api.check())
    }
}

#[cfg(test)]
mod tests {
    use super::super::nhn::testing::check_refusals;
    use super::super::simulator::testing::{BUDGET, content, send_request};
    use super::super::vendor::testing::{ScriptedServer, build};
    use super::*;

    const OPTIONS: [(&str, &str); 4] =
        [("app-key", "AK"), ("secret-key", "SK"), ("brand-id", "BR.1"), ("chatbot-id", "1588-1234")];

    fn account(url: &str) -> Arc<dyn Provider> {
        build(&ADAPTER, &[&OPTIONS[..], &[("base-url", url)]].concat(), BUDGET)
    }

    /// The request is as documented, with NHN's own fallback switched off; a longer text, or one with a title, goes as
    /// LMS.
    #[tokio::test]
    async fn kind_follows_from_length_and_title() {
        let long = "가".repeat(101);
        let contents = [content(None, "짧은 글"), content(None, &long), content(Some("제목"), "짧은 글")];
        let taken = r#"{"header":{"isSuccessful":true,"resultCode":0},"messageId":"20220914184500weq0u9pNu30"}"#;
        let api = ScriptedServer::responding(&[(200, taken); 3]).await;
        let rcs = account(&api.url);
        for content in &contents {
            let outcome = rcs.send(send_request("+821012345678", content)).await;
            assert_eq!(outcome, Outcome::Accepted { provider_ref: Some("20220914184500weq0u9pNu30".to_owned()) });
        }
        let asked = api.requests();
        let lines: Vec<&str> = asked.iter().map(|r| r.line.rsplit('/').next().unwrap()).collect();
        assert_eq!(lines, ["sms", "lms", "lms"]);
        assert_eq!((asked[0].header("x-tc-app-key"), asked[0].header("x-secret-key")), (Some("AK"), Some("SK")));
        let sent = json!({ "brandId": "BR.1", "chatbotId": "15881234", "recipientNumber": "01012345678",
            "body": "짧은 글", "isAd": false, "isFallback": false });
        assert_eq!(asked[0].body, sent);
        assert_eq!(asked[2].body["title"], "제목");
    }

    #[tokio::test]
    async fn codes_decide_about_a_request() {
        let codes = [
            (-4001, ErrorClass::Sender),
            (-4010, ErrorClass::Sender),
            (-4021, ErrorClass::Template),
            (-4042, ErrorClass::OptedOut),
            (-6001, ErrorClass::OptedOut),
            (-9000, ErrorClass::OutsideHours),
            (-9999, ErrorClass::ProviderInternal),
            (500, ErrorClass::ProviderInternal),
            (-3031, ErrorClass::Content),
            (-1, ErrorClass::Content),
        ];
        check_refusals(&ADAPTER, &OPTIONS, Channel::Rcs, &codes).await;
    }

    /// Results are polled kind by kind; the code of a failure is looked up for each message.
    #[tokio::test]
    async fn results_are_polled() {
        let page =
            |rows: Value| json!({ "header": { "isSuccessful": true, "resultCode": 0 }, "data": rows }).to_string();
        let detail = |code: &str| {
            json!({ "header": { "isSuccessful": true }, "messageRecipient": { "resultCode": code } }).to_string()
        };
        let at = "2027-01-15T17:00:00.000+09:00";
        let row = |id: &str, status: &str| json!({ "messageId": id, "messageStatus": status, "receiveDateTime": at });
        let rows = json!([row("A", "DELIVERED"), row("B", "FAILED"), row("C", "READY"), row("D", "FAILED"),
            { "messageStatus": "DELIVERED" }]);
        let answers = [page(rows), detail("54002"), detail("42514"), page(json!([])), page(json!([]))];
        let api = ScriptedServer::responding(&answers.map(|answer| (200, answer))).await;
        let (rcs, now) = (account(&api.url), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let first = rcs.poll_receipts(None, now).unwrap().await.unwrap();
        let read: Vec<_> = first.receipts.iter().map(|r| r.as_ref().ok().map(|r| (r.outcome, r.class))).collect();
        let not_capable = (ReceiptOutcome::Failed, Some(ErrorClass::NotReachable));
        let twice = (ReceiptOutcome::Accepted, None);
        assert_eq!(read, [Some((ReceiptOutcome::Delivered, None)), Some(not_capable), Some(twice), None]);
        assert_eq!(first.receipts[0].as_ref().unwrap().occurred_at, Some(now));
        assert!(first.has_more, "the long ones are still to be read");
        let second = rcs.poll_receipts(Some(&first.cursor), now).unwrap().await.unwrap();
        assert!(!second.has_more && second.receipts.is_empty());
        rcs.poll_receipts(Some(&second.cursor), now).unwrap().await.unwrap();
        let lines: Vec<String> = api.requests().into_iter().map(|r| r.line).collect();
        assert!(lines[0].starts_with("GET /rcs/v1.0/messages/sms?startReceiveDateTime=2027-01-14+18%3A00%3A00&"));
        assert!(lines[0].ends_with("&limit=100&offset=0"), "{}", lines[0]);
        assert_eq!(lines[1], "GET /rcs/v1.0/messages/sms/B");
        assert!(lines[3].starts_with("GET /rcs/v1.0/messages/lms?startReceiveDateTime=2027-01-14"), "{}", lines[3]);
        assert!(lines[4].starts_with("GET /rcs/v1.0/messages/sms?startReceiveDateTime=2027-01-15+16%3A50%3A00&"));
    }

    /// A page full of failures is read in slices, each from the end of the previous one; a code that cannot be read
    /// stops nothing.
    #[tokio::test]
    async fn many_failures_do_not_hold_up_the_list() {
        let page =
            |rows: &[Value]| json!({ "header": { "isSuccessful": true, "resultCode": 0 }, "data": rows }).to_string();
        let row = |n: usize| json!({ "messageId": format!("M{n}"), "messageStatus": "FAILED" });
        let rows: Vec<Value> = (0..MAX_FAILURE_LOOKUPS + 2).map(row).collect();
        let mut answers = vec![(200, page(&rows))];
        answers.extend((0..MAX_FAILURE_LOOKUPS).map(|_| (500, String::new())));
        answers.extend([(200, page(&rows[MAX_FAILURE_LOOKUPS..])), (404, String::new()), (200, "{}".to_owned())]);
        let api = ScriptedServer::responding(&answers).await;
        let (rcs, now) = (account(&api.url), DateTime::from_timestamp(1_800_000_000, 0).unwrap());
        let (mut cursor, mut read) = (None, Vec::new());
        for count in [MAX_FAILURE_LOOKUPS, 2] {
            let polled = rcs.poll_receipts(cursor.as_deref(), now).unwrap().await.unwrap();
            assert_eq!((polled.receipts.len(), polled.has_more), (count, true));
            let failed = |r: &Result<Receipt, String>| r.as_ref().is_ok_and(|r| r.outcome == ReceiptOutcome::Failed);
            assert!(polled.receipts.iter().all(failed));
            read.extend(polled.receipts.into_iter().filter_map(|r| r.ok()?.provider_ref));
            cursor = Some(polled.cursor);
        }
        assert_eq!(read, (0..MAX_FAILURE_LOOKUPS + 2).map(|n| format!("M{n}")).collect::<Vec<_>>());
        let again = api.requests().remove(MAX_FAILURE_LOOKUPS + 1).line;
        assert!(again.ends_with("&limit=100&offset=10"), "{again}");
    }

    #[tokio::test]
    async fn list_without_rows_is_an_error() {
        let api =
            ScriptedServer::responding(&[(200, r#"{"header":{"isSuccessful":true},"data":{"messages":[]}}"#)]).await;
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        assert!(account(&api.url).poll_receipts(None, now).unwrap().await.is_err());
    }

    #[test]
    fn result_codes_have_classes() {
        for (code, class) in [
            ("50003", ErrorClass::Credentials),
            ("50201", ErrorClass::Throttled),
            ("50202", ErrorClass::Quota),
            ("41004", ErrorClass::ProviderInternal),
            ("45001", ErrorClass::ProviderInternal),
            ("59003", ErrorClass::ProviderInternal),
            ("54001", ErrorClass::Address),
            ("54002", ErrorClass::NotReachable),
            ("41221", ErrorClass::NotReachable),
            ("52016", ErrorClass::HandsetUnreachable),
            ("42602", ErrorClass::Spam),
            ("55502", ErrorClass::Template),
            ("55701", ErrorClass::Content),
            ("42015", ErrorClass::Content),
        ] {
            assert_eq!(RESULT_ERRORS.class(code), Some(class), "{code}");
        }
        assert_eq!(RESULT_ERRORS.class("99999"), None);
    }

    /// An unknown outcome cannot be looked up, because messages carry no reference of ours.
    #[test]
    fn unknown_outcome_is_not_looked_up() {
        let capability = account("https://rcs.example.com").capabilities().remove(0);
        assert_eq!(capability.on_unknown, Channel::Rcs.on_unknown());
        assert!(capability.receipt_within.is_some());
    }
}
