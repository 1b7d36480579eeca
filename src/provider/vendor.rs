//! What the adapters of vendors' JSON APIs share: the API's address, the meaning of a response without one of the
//! vendor's codes, tables of the vendor's codes, Korean time, and the secrets of callbacks.

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use data_encoding::BASE64;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::crypt;
use crate::error::{Error, Result, excerpt};
use crate::model::delivery::Outcome;
use crate::model::phone::{self, KOREA};
use crate::model::receipt::{AttemptReference, ReceiptOutcome};
use crate::model::retry::ErrorClass;

use super::adapter::Options;
use super::http::{ClientSettings, ConnectionPolicy, DecidedBy, Failure, HttpClient, HttpResponse, is_loopback};
use super::{CallbackError, SendRequest};

/// The HTTP API of one account: a client and a base URL.
pub struct VendorApi {
    http: HttpClient,
    base_url: Url,
}

impl VendorApi {
    /// Builds the client of an account. Its connections are not reused: vendors' channels do not send again after an
    /// unknown outcome.
    ///
    /// # Errors
    /// Those of [`HttpClient::new`].
    pub fn new(base: Url, common: &ClientSettings) -> Result<VendorApi> {
        let http = HttpClient::new(common, ConnectionPolicy::Close, base.scheme() == "https")?;
        Ok(VendorApi { http, base_url: base })
    }

    /// Builds the client with the option `base-url`, or `default` if it is not set.
    ///
    /// # Errors
    /// `Error::Usage` if the option is not a URL that may be called; those of [`HttpClient::new`].
    pub fn from_options(options: &mut Options, default: &str, common: &ClientSettings) -> Result<VendorApi> {
        let base = options.optional("base-url").unwrap_or_else(|| default.to_owned());
        VendorApi::new(parse_url(options, "base-url", &base)?, common)
    }

    /// Appends `path`, which begins with a slash, to the path of the base URL.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base_url.clone();
        url.set_path(&format!("{}{path}", self.base_url.path().trim_end_matches('/')));
        url
    }

    /// Sends one POST to an API whose response body says what was accepted.
    ///
    /// `path` begins with a slash; `messages`: how many messages the response has a result for. With more than one it
    /// may be `LIST_BYTES` long.
    ///
    /// # Errors
    /// `Failure::Definite`: the request was not sent. `Failure::Unknown`: the vendor may have accepted it.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        headers: HeaderMap,
        requests: usize,
    ) -> Result<HttpResponse, Failure> {
        let (url, body) = (self.url(path), body.to_string().into_bytes());
        if requests > 1 {
            return self.http.post_json_for_list(&url, body, headers).await;
        }
        self.http.post_json(&url, body, headers, DecidedBy::Body).await
    }

    /// Sends one POST to an API whose status says what was accepted (see [`outcome_by_status_alone`]). With an empty
    /// `path` it goes to the base URL itself, with its query.
    ///
    /// # Errors
    /// As [`VendorApi::post`].
    pub async fn post_for_status(
        &self,
        path: &str,
        body: Vec<u8>,
        headers: HeaderMap,
    ) -> Result<HttpResponse, Failure> {
        let url = if path.is_empty() { self.base_url.clone() } else { self.url(path) };
        self.http.post_json(&url, body, headers, DecidedBy::Status).await
    }

    /// Sends one GET for a list.
    ///
    /// # Errors
    /// [`Failure`] if there is no whole response of less than `LIST_BYTES`.
    pub async fn get(&self, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<HttpResponse, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.get(&url, headers).await
    }

    /// Checks whether the vendor answers, without sending a message or showing a credential. For `doctor`.
    ///
    /// # Errors
    /// A sentence with the host and the failure.
    pub async fn check(&self) -> Result<String, String> {
        let host = self.base_url.host_str().unwrap_or_default();
        match self.http.probe(&self.base_url).await {
            Ok(_) => Ok(format!("{host} answers")),
            Err(failure) => Err(format!("{host} cannot be reached: {failure}")),
        }
    }
}

/// Parses an option that is a URL: https, or http to this machine, without user and password.
///
/// # Errors
/// `Error::Usage`, which does not show the URL: it may hold a secret.
pub fn parse_url(options: &Options, option: &str, text: &str) -> Result<Url> {
    let error =
        |problem: &str| Err(Error::Usage(format!("provider '{}': the option {option} {problem}", options.name())));
    let Ok(url) = Url::parse(text) else { return error("is not a URL; write https://host or https://host/path") };
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        _ if host.is_empty() => error("names no host"),
        _ if !url.username().is_empty() || url.password().is_some() => {
            error("has a user or a password in it; use the options for them")
        }
        "https" => Ok(url),
        "http" if is_loopback(host) => Ok(url),
        _ => error("must be https; plain http is allowed only to this machine"),
    }
}

/// Makes a header that holds a credential, marked so that logs do not show it.
///
/// # Errors
/// `Error::Usage` if the value has characters that a header cannot hold. It names `option`, not the value.
pub fn secret_header(
    options: &Options,
    option: &str,
    name: HeaderName,
    value: &str,
) -> Result<(HeaderName, HeaderValue)> {
    let wrong = |_| {
        Error::Usage(format!(
            "provider '{}': the option {option} has characters that an HTTP header cannot hold",
            options.name()
        ))
    };
    let mut value = HeaderValue::from_str(value).map_err(wrong)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// Makes the header `Authorization: Basic …` (RFC 7617).
///
/// # Errors
/// Those of [`secret_header`].
pub fn basic_auth(options: &Options, username: &str, password: &str) -> Result<(HeaderName, HeaderValue)> {
    let credentials = BASE64.encode(format!("{username}:{password}").as_bytes());
    secret_header(options, "password", AUTHORIZATION, &format!("Basic {credentials}"))
}

/// Makes an outcome that is rejected, without a pause.
pub fn rejected(class: ErrorClass, code: impl Into<String>, detail: impl Into<String>) -> Outcome {
    Outcome::Rejected { class, code: code.into(), detail: detail.into(), retry_after: None }
}

/// Makes the unknown outcome of a response whose body cannot be read.
pub fn unreadable_response(status: u16) -> Outcome {
    Outcome::Unknown { code: "answer_unreadable", detail: format!("answered {status} with a body that cannot be read") }
}

/// Returns the outcome of a response without one of the vendor's codes.
///
/// - 2xx is `Unknown`: a success without the vendor's confirmation may come from a proxy.
/// - 5xx other than 503 is `Unknown`: the failure may have happened after the vendor sent the message.
/// - Everything else is `Rejected`, with the class that the status implies.
pub fn outcome_by_status(answer: &HttpResponse) -> Outcome {
    let status = answer.status;
    let class = match status {
        200..=299 => return unreadable_response(status),
        401 => ErrorClass::Credentials,
        402 => ErrorClass::Quota,
        429 => ErrorClass::Throttled,
        // A 403 often comes from a firewall in front of the vendor and is about this request alone. If it is about the
        // account, repeated failures open the circuit breaker.
        403 | 408 | 425 | 503 => ErrorClass::ProviderInternal,
        // The configured address is wrong, not the message; redirects are not followed.
        300..=399 | 404 | 405 | 410 => ErrorClass::Sender,
        500.. => {
            let detail = format!("answered {status} without a code of the vendor");
            return Outcome::Unknown { code: "http_5xx", detail };
        }
        _ => ErrorClass::Content,
    };
    let detail = format!("answered {status} without a code of the vendor");
    Outcome::Rejected { class, code: format!("http_{status}"), detail, retry_after: answer.retry_after }
}

/// Returns the outcome of a response of an API that accepts and refuses by its status alone. Any 2xx is `Accepted`; the
/// vendor's message id is the first of the JSON fields `names` that is present. Everything else is as in
/// [`outcome_by_status`].
pub fn outcome_by_status_alone(answer: &HttpResponse, names: &[&str]) -> Outcome {
    if !(200..=299).contains(&answer.status) {
        return outcome_by_status(answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Outcome::Accepted { provider_ref: names.iter().find_map(|name| text_or_number(&body[name])) }
}

/// Returns the outcomes of a request that was refused as a whole. If it held several messages and the class can be the
/// fault of one of them, the response does not say which one: all get the class `RefusedInBatch`, so that each is sent
/// again alone, and the refusal does not count against the provider.
pub fn outcomes_of_refusal(outcome: Outcome, requests: &[SendRequest<'_>]) -> Vec<Outcome> {
    let same_content = requests.windows(2).all(|pair| matches!(pair, [a, b] if a.content == b.content));
    let outcome = match outcome {
        Outcome::Rejected { class, code, detail, retry_after }
            if requests.len() > 1 && is_one_requests_fault(class, same_content) =>
        {
            let detail = format!("one of {} in the request: {detail}", requests.len());
            Outcome::Rejected { class: ErrorClass::RefusedInBatch, code, detail, retry_after }
        }
        other => other,
    };
    vec![outcome; requests.len()]
}

/// Returns whether a class can be the fault of one message among several. `same_content`: all have the same content, so
/// that a content at fault is the fault of all.
fn is_one_requests_fault(class: ErrorClass, same_content: bool) -> bool {
    match class {
        ErrorClass::Address | ErrorClass::OptedOut | ErrorClass::NotReachable | ErrorClass::HandsetUnreachable => true,
        ErrorClass::Content | ErrorClass::Template | ErrorClass::Spam => !same_content,
        _ => false,
    }
}

/// Prepares every request, sends those that can be prepared in one call, and returns one outcome for each of all
/// requests, in their order. A request that `prepare` refuses is not sent and does not keep the others back.
///
/// # Errors
/// Of `prepare`: the outcome of a request that cannot be sent.
pub async fn send_valid<'a, T, F>(
    requests: Vec<SendRequest<'a>>,
    prepare: impl Fn(&SendRequest<'a>) -> Result<T, Outcome>,
    send: impl FnOnce(Vec<SendRequest<'a>>, Vec<T>) -> F,
) -> Vec<Outcome>
where
    F: Future<Output = Vec<Outcome>>,
{
    let (mut outcomes, mut valid, mut prepared) = (Vec::with_capacity(requests.len()), Vec::new(), Vec::new());
    for request in requests {
        match prepare(&request) {
            Ok(ready) => {
                prepared.push(ready);
                valid.push(request);
                outcomes.push(None);
            }
            Err(outcome) => outcomes.push(Some(outcome)),
        }
    }
    let mut sent_outcomes = if valid.is_empty() { Vec::new() } else { send(valid, prepared).await }.into_iter();
    let not_mentioned = || Outcome::Unknown {
        code: "answer_incomplete",
        detail: "the answer does not mention this message".to_owned(),
    };
    outcomes.into_iter().map(|outcome| outcome.or_else(|| sent_outcomes.next()).unwrap_or_else(not_mentioned)).collect()
}

/// A vendor's error codes, by error class. `412*` means all codes that begin with 412 and are not listed themselves.
pub struct ErrorCodes(pub &'static [(ErrorClass, &'static [&'static str])]);

impl ErrorCodes {
    /// Returns the class of a code, or `None` if it is not listed.
    pub fn class(&self, code: &str) -> Option<ErrorClass> {
        let find = |fits: &dyn Fn(&str) -> bool| self.0.iter().find(|(_, codes)| codes.iter().any(|c| fits(c)));
        let begins = |c: &str| c.strip_suffix('*').is_some_and(|beginning| code.starts_with(beginning));
        find(&|c| c == code).or_else(|| find(&begins)).map(|(class, _)| *class)
    }
}

/// A vendor's codes for the result of an accepted message.
pub struct ResultCodes {
    pub delivered: &'static [&'static str],
    /// Not final: the message may still be delivered.
    pub pending: &'static [&'static str],
    /// Not delivered in time; the vendor stopped trying.
    pub expired: &'static [&'static str],
    pub failed: ErrorCodes,
}

impl ResultCodes {
    /// Returns the outcome and, of a failure, the class of its code. A code that is not listed is a failure without a
    /// class.
    pub fn interpret(&self, code: &str) -> (ReceiptOutcome, Option<ErrorClass>) {
        match code {
            _ if self.delivered.contains(&code) => (ReceiptOutcome::Delivered, None),
            _ if self.pending.contains(&code) => (ReceiptOutcome::Accepted, None),
            _ if self.expired.contains(&code) => (ReceiptOutcome::Expired, None),
            _ => (ReceiptOutcome::Failed, self.failed.class(code)),
        }
    }
}

/// Returns a JSON text or number as text: vendors send ids and codes as either. `None` for an empty text and other
/// types.
pub fn text_or_number(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Returns a vendor's text for people, cut to the length that is stored. Empty if the value is not a text.
pub fn vendor_text(value: &Value) -> String {
    excerpt(value.as_str().unwrap_or_default())
}

/// Returns the index of the message that one entry of a response is about: by the reference that it repeats, else by
/// its number `to`, if only one message of the request goes to that number. Never a guess: otherwise `None`.
pub fn matching_request(requests: &[SendRequest<'_>], reference: Option<&str>, to: Option<&str>) -> Option<usize> {
    let reference = reference.and_then(|text| text.parse::<AttemptReference>().ok());
    if let Some(reference) = reference {
        return requests.iter().position(|request| request.reference() == reference);
    }
    let to = to?;
    let mut found = requests.iter().enumerate().filter(|(_, request)| is_sent_to(request, to)).map(|(n, _)| n);
    let first = found.next();
    if found.next().is_none() { first } else { None }
}

/// Returns whether a number in a response can be the recipient of this request. A foreign number is written with its
/// country code or, where the response names the country separately, without.
pub fn is_sent_to(request: &SendRequest<'_>, number: &str) -> bool {
    digits(request.to) == number || phone::dialled(request.to).is_some_and(|(_, digits)| digits == number)
}

/// Returns whether a reference in a vendor's list belongs to an earlier attempt of the same delivery.
pub fn is_earlier_attempt(reference: &str, request: &SendRequest<'_>) -> bool {
    reference.parse::<AttemptReference>().is_ok_and(|found| found.key == request.key && found.attempt < request.attempt)
}

/// Formats a phone number in E.164 as Korean vendors want it: national digits (01012345678), or a foreign number's
/// digits with its country code.
pub fn digits(number: &str) -> String {
    match phone::dialled(number) {
        Some((KOREA, digits)) => digits,
        _ => number.trim_start_matches('+').to_owned(),
    }
}

/// Takes out an option that is a sender's number, and removes its hyphens.
///
/// # Errors
/// `Error::Usage` if the option is not set or not 1 to 13 digits.
pub fn sender_number(options: &mut Options, option: &str) -> Result<String> {
    let digits = options.require(option)?.replace('-', "");
    if digits.is_empty() || digits.len() > 13 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let name = options.name();
        return Err(Error::Usage(format!("provider '{name}': the option {option} is not a number of 1 to 13 digits")));
    }
    Ok(digits)
}

/// Takes out an option that is the secret of callbacks. `None` if it is not set: the account then takes no callbacks.
///
/// # Errors
/// `Error::Usage` if it is shorter than 16 characters, because a short one could be guessed.
pub fn callback_secret(options: &mut Options, option: &str) -> Result<Option<String>> {
    const LEAST: usize = 16;
    let secret = options.optional(option);
    if secret.as_ref().is_some_and(|s| s.len() < LEAST) {
        let name = options.name();
        let what = format!("provider '{name}': the option {option} must have {LEAST} characters or more");
        return Err(Error::Usage(what));
    }
    Ok(secret)
}

/// Checks the secret that a caller showed. Compares hashes, so that the duration does not reveal how much of it was
/// right.
///
/// # Errors
/// `NotSupported` if the account has no secret, `NotAuthentic` if the caller shows none or another.
pub fn check_secret(secret: Option<&str>, shown: Option<&[u8]>) -> Result<(), CallbackError> {
    let Some(secret) = secret else { return Err(CallbackError::NotSupported) };
    let Some(shown) = shown else { return Err(CallbackError::NotAuthentic("the caller shows no secret".to_owned())) };
    let hash = |text: &[u8]| crypt::keyed_hash(secret.as_bytes(), text);
    if crypt::same(&hash(secret.as_bytes()), &hash(shown)) {
        Ok(())
    } else {
        Err(CallbackError::NotAuthentic("the caller shows a wrong secret".to_owned()))
    }
}

/// Korea's offset from UTC, all year.
const KST: TimeDelta = TimeDelta::hours(9);

/// Formats a time as Korean vendors write it: Korea's local time in `format` (of chrono).
pub fn to_kst(at: DateTime<Utc>, format: &str) -> String {
    (at + KST).format(format).to_string()
}

/// Parses a time of a Korean vendor. Without a zone it is Korea's local time.
pub fn from_kst(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(at) = DateTime::parse_from_rfc3339(text) {
        return Some(at.to_utc());
    }
    let formats = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M"];
    let local = formats.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok())?;
    Some(local.and_utc() - KST)
}

#[cfg(test)]
mod tests {
    use super::super::simulator::testing::{content, send_request};
    use super::*;

    fn answer(status: u16) -> HttpResponse {
        HttpResponse { status, body: Vec::new(), retry_after: None }
    }

    #[test]
    fn status_decides_without_a_code() {
        for (status, class) in [
            (302, ErrorClass::Sender),
            (400, ErrorClass::Content),
            (401, ErrorClass::Credentials),
            (402, ErrorClass::Quota),
            (403, ErrorClass::ProviderInternal),
            (404, ErrorClass::Sender),
            (422, ErrorClass::Content),
            (429, ErrorClass::Throttled),
            (503, ErrorClass::ProviderInternal),
        ] {
            let Outcome::Rejected { class: found, code, .. } = outcome_by_status(&answer(status)) else {
                panic!("{status}")
            };
            assert_eq!((found, code), (class, format!("http_{status}")));
        }
        for status in [200, 204, 500, 502, 504] {
            assert!(matches!(outcome_by_status(&answer(status)), Outcome::Unknown { .. }), "{status}");
        }
    }

    #[test]
    fn fault_of_one_message_does_not_fail_the_others() {
        let (one, another) = (content(None, "x"), content(None, "y"));
        let alone = vec![send_request("+821012345678", &one)];
        let alike = vec![send_request("+821012345678", &one), send_request("+821011112222", &one)];
        let mixed = vec![send_request("+821012345678", &one), send_request("+821011112222", &another)];
        let again = ErrorClass::RefusedInBatch;
        for (class, of_alike, of_mixed) in [
            (ErrorClass::Content, ErrorClass::Content, again),
            (ErrorClass::Template, ErrorClass::Template, again),
            (ErrorClass::Address, again, again),
            (ErrorClass::Sender, ErrorClass::Sender, ErrorClass::Sender),
            (ErrorClass::Throttled, ErrorClass::Throttled, ErrorClass::Throttled),
            (ErrorClass::Credentials, ErrorClass::Credentials, ErrorClass::Credentials),
        ] {
            for (requests, expected) in [(&alone, class), (&alike, of_alike), (&mixed, of_mixed)] {
                let outcomes = outcomes_of_refusal(rejected(class, "x", "y"), requests);
                assert_eq!(outcomes.len(), requests.len());
                for outcome in outcomes {
                    assert!(matches!(outcome, Outcome::Rejected { class, .. } if class == expected), "{outcome:?}");
                }
            }
        }
    }

    #[test]
    fn exact_codes_come_before_prefixes() {
        let codes = ErrorCodes(&[(ErrorClass::Content, &["42*"]), (ErrorClass::Spam, &["42602"])]);
        assert_eq!(codes.class("42602"), Some(ErrorClass::Spam));
        assert_eq!(codes.class("42001"), Some(ErrorClass::Content));
        assert_eq!(codes.class("4"), None);
    }

    #[test]
    fn times_without_a_zone_are_korean() {
        let at = DateTime::from_timestamp(1_800_000_000, 0).unwrap();
        for text in [
            "2027-01-15T17:00:00",
            "2027-01-15 17:00:00",
            "2027-01-15 17:00:00.0",
            "2027-01-15 17:00",
            "2027-01-15T17:00:00.000+09:00",
            "2027-01-15T08:00:00Z",
        ] {
            assert_eq!(from_kst(text), Some(at), "{text}");
        }
        assert_eq!(to_kst(at, "%Y-%m-%d %H:%M:%S"), "2027-01-15 17:00:00");
        assert_eq!(from_kst("2023-06-01"), None);
        assert_eq!(from_kst("soon"), None);
    }

    #[test]
    fn only_the_whole_secret_is_accepted() {
        let secret = "0123456789abcdef";
        assert_eq!(check_secret(Some(secret), Some(secret.as_bytes())), Ok(()));
        assert_eq!(check_secret(None, Some(secret.as_bytes())), Err(CallbackError::NotSupported));
        for shown in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            let refused = check_secret(Some(secret), shown.map(str::as_bytes));
            assert!(matches!(refused, Err(CallbackError::NotAuthentic(_))), "{shown:?}");
        }
    }
}

/// What the tests of vendors' adapters share.
#[cfg(test)]
pub mod testing {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::super::Provider;
    use super::super::adapter::Adapter;
    use super::super::simulator::testing::{peer, rustls_provider};
    use super::*;
    use crate::config::ProviderSettings;
    use crate::shutdown::Shutdown;

    /// Builds an account named `test`, as the settings would.
    #[track_caller]
    pub fn build(adapter: &Adapter, options: &[(&str, &str)], call_budget: Duration) -> Arc<dyn Provider> {
        try_build(adapter, options, call_budget).unwrap()
    }

    pub fn try_build(adapter: &Adapter, options: &[(&str, &str)], budget: Duration) -> Result<Arc<dyn Provider>> {
        try_build_with(adapter, options, ClientSettings::with_budget(budget))
    }

    pub fn try_build_with(
        adapter: &Adapter,
        options: &[(&str, &str)],
        common: ClientSettings,
    ) -> Result<Arc<dyn Provider>> {
        rustls_provider();
        let settings = ProviderSettings {
            name: "test".to_owned(),
            adapter: adapter.name.to_owned(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        Ok(adapter.build_account(&settings, &common)?.provider)
    }

    /// A request that the server received.
    #[derive(Debug, Clone)]
    pub struct RecordedRequest {
        /// `POST /path?query`
        pub line: String,
        headers: Vec<(String, String)>,
        pub body: Value,
    }

    impl RecordedRequest {
        pub fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        }
    }

    /// A server that answers one request after the other with scripted responses, and records the requests.
    pub struct ScriptedServer {
        pub url: String,
        seen: Arc<Mutex<Vec<RecordedRequest>>>,
        _shutdown: Shutdown,
    }

    impl ScriptedServer {
        pub async fn responding<T: Into<String> + Clone>(answers: &[(u16, T)]) -> ScriptedServer {
            let answer = |(status, body): &(u16, T)| {
                let body: String = body.clone().into();
                let length = if *status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                format!("HTTP/1.1 {status} So\r\nConnection: close\r\nRetry-After: 30\r\n{length}\r\n{body}")
            };
            ScriptedServer::start(answers.iter().map(answer).collect()).await
        }

        /// Reads the request and closes the connection.
        pub async fn closing() -> ScriptedServer {
            ScriptedServer::start(vec![String::new()]).await
        }

        /// Reads the request and never answers.
        pub async fn silent() -> ScriptedServer {
            ScriptedServer::start(Vec::new()).await
        }

        async fn start(mut answers: Vec<String>) -> ScriptedServer {
            answers.reverse();
            let (shutdown, seen) = (Shutdown::new(), Arc::new(Mutex::new(Vec::new())));
            let (answers, kept) = (Arc::new(Mutex::new(answers)), seen.clone());
            let address = peer(&shutdown, move |stream| session(stream, answers.clone(), kept.clone())).await;
            ScriptedServer { url: format!("http://{address}"), seen, _shutdown: shutdown }
        }

        pub fn requests(&self) -> Vec<RecordedRequest> {
            self.seen.lock().unwrap().clone()
        }
    }

    async fn session(mut stream: TcpStream, answers: Arc<Mutex<Vec<String>>>, seen: Arc<Mutex<Vec<RecordedRequest>>>) {
        let mut bytes = Vec::new();
        let request = loop {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(request) = parse_request(&bytes) {
                break request;
            }
        };
        seen.lock().unwrap().push(request);
        let answer = answers.lock().unwrap().pop();
        match answer {
            Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
            None => drop(stream.read_buf(&mut bytes).await),
        }
    }

    fn parse_request(bytes: &[u8]) -> Option<RecordedRequest> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let pair = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(pair).collect();
        let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
        let body = body.get(..length)?;
        Some(RecordedRequest { line, headers, body: serde_json::from_str(body).unwrap_or_default() })
    }
}
