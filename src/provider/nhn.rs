//! What NHN Cloud's messaging APIs (SMS v3.0, KakaoTalk Bizmessage v2.3, RCS Bizmessage v1.0) share: the JSON `header`
//! that says whether a request was accepted, a result for each recipient, webhooks authenticated by a fixed text, and
//! lists of results by time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::clock::Clock;
use crate::error::Result;
use crate::model::delivery::Outcome;
use crate::model::receipt::{Receipt, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::Options;
use super::http::ClientSettings;
use super::http::{Failure, HttpResponse};
use super::vendor::{
    self, ErrorCodes, ResultCodes, VendorApi, check_secret, from_kst, matching_request, outcome_by_status,
    outcomes_of_refusal, rejected, text_or_number, vendor_text,
};
use super::window::PollWindow;
use super::{Callback, CallbackError, LookupResult, ReceiptPage, Receipts, SendRequest};

/// The most recipients of one request.
pub const MAX_RECIPIENTS: usize = 1000;
/// Results of one page: with all their texts they stay below `http::LIST_BYTES`.
pub const RESULTS_PAGE: usize = 100;
/// The most messages of one number that a look-up reads.
pub const LOOKUP_ROWS: usize = 500;
/// The longest time range of a search: NHN allows a month.
const MAX_LOOKUP_SPAN: TimeDelta = TimeDelta::days(29);
const SIGNATURE_HEADER: &str = "x-toast-webhook-signature";
const HOUR: u64 = 3600;

/// One messaging service of one NHN Cloud project.
pub struct NhnService {
    /// The account's name.
    pub name: String,
    pub api: VendorApi,
    pub clock: Clock,
    /// The project's app key: part of the path, or of a header (RCS).
    pub app_key: String,
    secret_header: (HeaderName, HeaderValue),
    webhook_signature: Option<String>,
}

impl NhnService {
    /// Builds a service from the options `app-key`, `secret-key` and `base-url`, whose default is `default`.
    ///
    /// # Errors
    /// `Error::Usage` if an option is missing or wrong; those of `HttpClient::new`.
    pub fn new(options: &mut Options, default: &str, common: &ClientSettings) -> Result<NhnService> {
        let (app_key, secret) = (options.require("app-key")?, options.require("secret-key")?);
        if app_key.is_empty() || !app_key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_')) {
            return Err(options.usage_error("the option app-key has other characters than letters, digits, - and _"));
        }
        Ok(NhnService {
            name: options.name().to_owned(),
            clock: common.clock.clone(),
            app_key,
            secret_header: vendor::secret_header(
                options,
                "secret-key",
                HeaderName::from_static("x-secret-key"),
                &secret,
            )?,
            webhook_signature: None,
            api: VendorApi::from_options(options, default, common)?,
        })
    }

    /// Adds the option `webhook-signature`, for a service that sends webhooks. Without it webhooks are refused.
    ///
    /// # Errors
    /// `Error::Usage` if it is too short.
    pub fn with_webhooks(self, options: &mut Options) -> Result<NhnService> {
        Ok(NhnService { webhook_signature: vendor::callback_secret(options, "webhook-signature")?, ..self })
    }

    /// Returns the headers of every request: the secret key.
    pub fn headers(&self) -> HeaderMap {
        HeaderMap::from_iter([self.secret_header.clone()])
    }

    /// Gets a list, and returns its JSON.
    ///
    /// # Errors
    /// A text for the log: there was no whole response, or its header refused.
    pub async fn get_list(&self, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<Value, String> {
        let answer = self.api.get(path, query, headers).await.map_err(|failure: Failure| failure.to_string())?;
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        if (200..=299).contains(&answer.status) && body["header"]["isSuccessful"] == true {
            return Ok(body);
        }
        let header = &body["header"];
        let code = text_or_number(&header["resultCode"]).unwrap_or_default();
        Err(format!("answered {} {code} {}", answer.status, vendor_text(&header["resultMessage"])))
    }

    /// Reads one page of the results that were updated in the window of `cursor`.
    ///
    /// # Errors
    /// A text for the log if the list cannot be read; the cursor does not move.
    pub async fn poll_results(
        &self,
        list: &ResultList<'_>,
        cursor: Option<&str>,
        now: DateTime<Utc>,
    ) -> Result<ReceiptPage, String> {
        let window = PollWindow::from_cursor(cursor, now);
        let (start, end) = (vendor::to_kst(window.from, list.format), vendor::to_kst(window.until, list.format));
        let page: usize = window.position.as_deref().and_then(|place| place.parse().ok()).unwrap_or(1);
        let (number, size) = (page.to_string(), RESULTS_PAGE.to_string());
        let query =
            [("startUpdateDate", start.as_str()), ("endUpdateDate", &end), ("pageNum", &number), ("pageSize", &size)];
        let body = self.get_list(&list.path, &query, self.headers()).await?;
        let rows = list.rows(&body).ok_or("the list has no rows")?;
        let receipts =
            rows.iter().filter(|row| list.is_final_and_ours(row)).map(|row| receipt(row, list.codes)).collect();
        let next = if rows.len() >= RESULTS_PAGE { Some((page + 1).to_string()) } else { None };
        let (cursor, more) = window.next_cursor(next.as_deref(), now);
        Ok(ReceiptPage { receipts, cursor, has_more: more })
    }

    /// Searches for an earlier attempt of a delivery among all messages to its number since it was posted.
    ///
    /// `to`: the number as requests have it. Returns `NotFound` only if the list was read to its end.
    pub async fn find_earlier_attempt(&self, list: &SentList<'_>, to: &str, request: &SendRequest<'_>) -> LookupResult {
        let end = self.clock.now().max(request.created_at) + TimeDelta::hours(1);
        let start = (request.created_at - TimeDelta::hours(1)).max(end - MAX_LOOKUP_SPAN);
        let (start, end) = (vendor::to_kst(start, list.format), vendor::to_kst(end, list.format));
        let size = LOOKUP_ROWS.to_string();
        let query =
            [("startRequestDate", start.as_str()), ("endRequestDate", &end), ("recipientNo", to), ("pageSize", &size)];
        let listed = self.get_list(&list.path, &query, self.headers()).await;
        let Some(rows) = listed.ok().and_then(|body| body.pointer(list.rows_pointer)?.as_array().cloned()) else {
            return LookupResult::Inconclusive;
        };
        let is_earlier = |row: &&Value| grouping_key(row).is_some_and(|key| vendor::is_earlier_attempt(key, request));
        match rows.iter().find(is_earlier).map(recipient_ref) {
            Some(provider_ref) => LookupResult::Found { provider_ref },
            None if rows.len() < LOOKUP_ROWS => LookupResult::NotFound,
            None => LookupResult::Inconclusive,
        }
    }

    /// Reads the receipts of a webhook. Its other events (opt-outs, templates) are skipped.
    ///
    /// # Errors
    /// `NotSupported` without the option `webhook-signature`, `NotAuthentic` if the header does not show it,
    /// `Unreadable` if the body is not JSON with `hooks`.
    pub fn parse_webhook(&self, callback: &Callback<'_>, results: &ResultCodes) -> Result<Receipts, CallbackError> {
        let signature = callback.headers.get(SIGNATURE_HEADER).map(HeaderValue::as_bytes);
        check_secret(self.webhook_signature.as_deref(), signature)?;
        let unreadable = || CallbackError::Unreadable("the body is not a JSON object with \"hooks\"".to_owned());
        let body: Value = serde_json::from_slice(callback.body).map_err(|_| unreadable())?;
        let hooks = body["hooks"].as_array().ok_or_else(unreadable)?;
        // Opt-outs and template changes are hooks as well.
        let is_other = |hook: &&Value| hook["unsubscribeNo"].is_string() || hook["kakaoTemplateCode"].is_string();
        Ok(hooks.iter().filter(|hook| !is_other(hook)).map(|hook| receipt(hook, results)).collect())
    }
}

/// Where and how a service lists sent messages.
pub struct SentList<'a> {
    pub path: String,
    pub format: &'a str,
    /// The JSON pointer of the rows.
    pub rows_pointer: &'a str,
}

/// Where and how a service lists the results that were updated in a time range.
pub struct ResultList<'a> {
    pub path: String,
    pub format: &'static str,
    /// The JSON pointers of the rows: the first that is an array counts.
    pub rows_pointers: &'static [&'static str],
    pub codes: &'a ResultCodes,
    /// The rows repeat our reference, so a row without one is not ours.
    pub repeats_reference: bool,
}

impl ResultList<'_> {
    /// Returns the rows. `None` is an error and not an empty page: the cursor must not move past results that were not
    /// read.
    fn rows<'v>(&self, body: &'v Value) -> Option<&'v Vec<Value>> {
        self.rows_pointers.iter().find_map(|place| body.pointer(place)?.as_array())
    }

    /// Returns whether a row is the final result of one of our messages.
    fn is_final_and_ours(&self, row: &Value) -> bool {
        let is_ours = !self.repeats_reference || grouping_key(row).is_some_and(|key| key.starts_with("nh-"));
        let code = text_or_number(&row["resultCode"]);
        is_ours && code.is_some_and(|code| self.codes.interpret(&code).0 != ReceiptOutcome::Accepted)
    }
}

/// Makes a capability's `receipt_within`.
pub fn hours(hours: u64) -> Option<Duration> {
    Some(Duration::from_secs(hours * HOUR))
}

/// Returns the reference that a row repeats. NHN's webhooks misspell the field's name.
pub fn grouping_key(row: &Value) -> Option<&str> {
    ["recipientGroupingKey", "recipientGropuingKey"].iter().find_map(|name| row[name].as_str())
}

/// Returns the id of one recipient's message, as receipts name it: `requestId/recipientSeq`.
fn recipient_ref(row: &Value) -> Option<String> {
    Some(format!("{}/{}", text_or_number(&row["requestId"])?, text_or_number(&row["recipientSeq"])?))
}

/// Reads a result of a webhook or list. The event key is the same in both, so that a result that came both ways counts
/// once.
fn receipt(row: &Value, results: &ResultCodes) -> Result<Receipt, String> {
    let id = recipient_ref(row).ok_or("the result has no requestId or no recipientSeq")?;
    let code = text_or_number(&row["resultCode"]).ok_or_else(|| format!("{id} has no resultCode"))?;
    let (outcome, class) = match (results.interpret(&code), row["messageStatus"].as_str()) {
        ((ReceiptOutcome::Failed, None), Some("FAILED_AD")) => (ReceiptOutcome::Failed, Some(ErrorClass::OutsideHours)),
        // NHN sent the message under another request.
        (_, Some("DUPLICATED")) => (ReceiptOutcome::Accepted, None),
        (read, _) => read,
    };
    let at = ["receiveDate", "resultDate", "updateDate"].iter().find_map(|name| from_kst(row[name].as_str()?));
    let detail =
        ["resultCodeName", "resultMessage"].iter().map(|name| vendor_text(&row[name])).find(|text| !text.is_empty());
    Ok(Receipt {
        event_key: format!("{id}:{code}"),
        reference: grouping_key(row).and_then(|key| key.parse().ok()),
        provider_ref: Some(id),
        outcome,
        class,
        code: Some(code),
        detail,
        occurred_at: at,
    })
}

/// Checks the JSON header of a response. Returns the body if the request was accepted.
///
/// # Errors
/// The outcome of the whole request: `Rejected` by the header's code, or as `outcome_by_status` if there is no header.
pub fn checked_body(answer: &HttpResponse, codes: &ErrorCodes) -> Result<Value, Outcome> {
    let Ok(body) = serde_json::from_slice::<Value>(&answer.body) else { return Err(outcome_by_status(answer)) };
    let header = &body["header"];
    match (header["isSuccessful"].as_bool(), text_or_number(&header["resultCode"])) {
        (Some(true), _) if (200..=299).contains(&answer.status) => Ok(body),
        (Some(false), Some(code)) => {
            let class = if answer.status == 429 { Some(ErrorClass::Throttled) } else { codes.class(&code) };
            let (class, detail) = (class.unwrap_or(ErrorClass::Content), vendor_text(&header["resultMessage"]));
            Err(Outcome::Rejected { class, code, detail, retry_after: answer.retry_after })
        }
        _ => Err(outcome_by_status(answer)),
    }
}

/// Returns the outcome of each of `requests`, in their order, from one response.
///
/// `group_pointer`: the JSON pointer of the object with `requestId`; `results_field`: its field with the recipients'
/// results. A request that the response does not mention has the outcome `Unknown`.
pub fn recipient_outcomes(
    requests: &[SendRequest<'_>],
    answer: &HttpResponse,
    codes: &ErrorCodes,
    group_pointer: &str,
    results_field: &str,
) -> Vec<Outcome> {
    let body = match checked_body(answer, codes) {
        Ok(body) => body,
        Err(outcome) => return outcomes_of_refusal(outcome, requests),
    };
    let group = body.pointer(group_pointer).unwrap_or(&Value::Null);
    let mut outcomes: Vec<Option<Outcome>> = vec![None; requests.len()];
    for entry in group[results_field].as_array().into_iter().flatten() {
        let index = matching_request(requests, grouping_key(entry), entry["recipientNo"].as_str());
        if let Some(outcome) = index.and_then(|n| outcomes.get_mut(n)) {
            *outcome = Some(recipient_outcome(entry, &group["requestId"], codes));
        }
    }
    let not_mentioned =
        || Outcome::Unknown { code: "answer_incomplete", detail: "the answer does not mention it".to_owned() };
    outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(not_mentioned)).collect()
}

fn recipient_outcome(entry: &Value, request_id: &Value, codes: &ErrorCodes) -> Outcome {
    match text_or_number(&entry["resultCode"]).as_deref() {
        Some("0") => {
            let (request_id, sequence) = (text_or_number(request_id), text_or_number(&entry["recipientSeq"]));
            let id = request_id.zip(sequence).map(|(request_id, sequence)| format!("{request_id}/{sequence}"));
            Outcome::Accepted { provider_ref: id }
        }
        Some(code) => {
            rejected(codes.class(code).unwrap_or(ErrorClass::Content), code, vendor_text(&entry["resultMessage"]))
        }
        None => Outcome::Unknown {
            code: "answer_incomplete",
            detail: "the recipient's result has no resultCode".to_owned(),
        },
    }
}

/// What the tests of NHN's services share.
#[cfg(test)]
pub mod testing {
    use super::super::Provider;
    use super::super::simulator::testing::{BUDGET, SHORT, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{ScriptedServer, build};
    use super::*;
    use crate::model::channel::Channel;
    use crate::provider::adapter::Adapter;
    use std::sync::Arc;

    pub const WEBHOOK_SECRET: &str = "0123456789abcdef";

    pub fn refusal(code: i64) -> (u16, String) {
        let header = format!(r#"{{"isSuccessful":false,"resultCode":{code},"resultMessage":"why"}}"#);
        (200, format!(r#"{{"header":{header}}}"#))
    }

    /// Checks the class of each code that refuses a whole request, and the outcomes of responses without a header.
    pub async fn check_refusals(
        adapter: &Adapter,
        options: &[(&str, &str)],
        channel: Channel,
        codes: &[(i64, ErrorClass)],
    ) {
        let template = crate::model::message::Content { template_code: Some("T".to_owned()), ..content(None, "x") };
        let to = |to| SendRequest { channel, ..send_request(to, &template) };
        let mut answers: Vec<(u16, String)> = codes.iter().map(|(code, _)| refusal(*code)).collect();
        for (status, body) in [(401, ""), (429, ""), (503, ""), (500, "<html>"), (200, "<html>"), (200, "{}")] {
            answers.push((status, body.to_owned()));
        }
        let api = ScriptedServer::responding(&answers).await;
        let provider = build(adapter, &[options, &[("base-url", api.url.as_str())]].concat(), BUDGET);
        for (code, class) in codes {
            assert_eq!(rejected(provider.send(to("+821012345678")).await), (*class, code.to_string()));
        }
        for class in [ErrorClass::Credentials, ErrorClass::Throttled, ErrorClass::ProviderInternal] {
            assert_eq!(rejected(provider.send(to("+821012345678")).await).0, class);
        }
        for code in ["http_5xx", "answer_unreadable", "answer_unreadable"] {
            assert_eq!(unknown(provider.send(to("+821012345678")).await), code);
        }
        for (api, code) in
            [(ScriptedServer::closing().await, "answer_cut"), (ScriptedServer::silent().await, "no_answer")]
        {
            let provider = build(adapter, &[options, &[("base-url", api.url.as_str())]].concat(), SHORT);
            for outcome in provider.send_batch(vec![to("+821012345678")]).await {
                assert_eq!(unknown(outcome), code);
            }
        }
    }

    pub fn call_webhook(
        provider: &Arc<dyn Provider>,
        signature: Option<&str>,
        body: &str,
    ) -> Result<Receipts, CallbackError> {
        let mut headers = HeaderMap::new();
        if let Some(signature) = signature {
            headers.insert("X-Toast-Webhook-Signature", signature.parse().unwrap());
        }
        let now = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        provider.parse_receipts(&Callback { headers: &headers, query: "", body: body.as_bytes(), now })
    }

    /// Checks that a caller that does not show the agreed text is refused before the body is read.
    pub fn check_forged_webhooks(provider: &Arc<dyn Provider>) {
        for shown in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            let refused = call_webhook(provider, shown, r#"{"hooks":[]}"#);
            assert!(matches!(refused, Err(CallbackError::NotAuthentic(_))), "{shown:?}: {refused:?}");
        }
        assert_eq!(call_webhook(provider, Some(WEBHOOK_SECRET), r#"{"hooks":[]}"#), Ok(Vec::new()));
        for body in ["", "[]", "{}", r#"{"hooks":7}"#] {
            assert!(
                matches!(call_webhook(provider, Some(WEBHOOK_SECRET), body), Err(CallbackError::Unreadable(_))),
                "{body}"
            );
        }
    }
}
