//! What the adapters of vendors' JSON APIs share: where the API is, what an answer means that has no word of the vendor's
//! in it, tables of the vendor's codes, Korean time, and secrets that callers show.

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
use super::http::{Answer, Common, Connections, DecidedBy, Failure, Http, is_loopback};
use super::{Refused, SendRequest};

/// The API of one account.
pub struct Vendor {
    http: Http,
    base: Url,
}

impl Vendor {
    /// Vendors' channels hold what has an unknown outcome, so that connections are never used again.
    pub fn new(base: Url, common: &Common) -> Result<Vendor> {
        let http = Http::new(common, Connections::Fresh, base.scheme() == "https")?;
        Ok(Vendor { http, base })
    }

    /// At the option `base-url`, or where the vendor has it.
    pub fn at(options: &mut Options, default: &str, common: &Common) -> Result<Vendor> {
        let base = options.text("base-url").unwrap_or_else(|| default.to_owned());
        Vendor::new(url(options, "base-url", &base)?, common)
    }

    /// `path` begins with a slash and follows the path of the base.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        url
    }

    /// `letters`: how many the answer's body has a verdict on.
    pub async fn post(&self, path: &str, body: &Value, headers: HeaderMap, letters: usize) -> Result<Answer, Failure> {
        let (url, body) = (self.url(path), body.to_string().into_bytes());
        if letters > 1 {
            return self.http.post_for_list(&url, body, headers).await;
        }
        self.http.post_json(&url, body, headers, DecidedBy::Body).await
    }

    /// To an API that says yes or no by its status (`by_status_alone`).
    pub async fn post_for_status(&self, path: &str, body: Vec<u8>, headers: HeaderMap) -> Result<Answer, Failure> {
        let url = if path.is_empty() { self.base.clone() } else { self.url(path) };
        self.http.post_json(&url, body, headers, DecidedBy::Status).await
    }

    pub async fn get(&self, path: &str, query: &[(&str, &str)], headers: HeaderMap) -> Result<Answer, Failure> {
        let mut url = self.url(path);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        self.http.get(&url, headers).await
    }

    /// Whether it answers, without sending anything or showing a credential.
    pub async fn check(&self) -> Result<String, String> {
        let host = self.base.host_str().unwrap_or_default();
        match self.http.reach(&self.base).await {
            Ok(_) => Ok(format!("{host} answers")),
            Err(failure) => Err(format!("{host} cannot be reached: {failure}")),
        }
    }
}

/// An option that is a URL. Not shown when it is wrong: it may hold a secret.
pub fn url(options: &Options, option: &str, text: &str) -> Result<Url> {
    let wrong = |what: &str| Err(Error::Usage(format!("provider '{}': the option {option} {what}", options.name())));
    let Ok(url) = Url::parse(text) else { return wrong("is not a URL; write https://host or https://host/path") };
    let host = url.host_str().unwrap_or_default();
    match url.scheme() {
        _ if host.is_empty() => wrong("names no host"),
        _ if !url.username().is_empty() || url.password().is_some() => {
            wrong("has a user or a password in it; there are options for them")
        }
        "https" => Ok(url),
        "http" if is_loopback(host) => Ok(url),
        _ => wrong("must be https; plain http goes to this machine alone"),
    }
}

/// A credential in a header, which no log shows.
pub fn secret_header(
    options: &Options,
    option: &str,
    name: HeaderName,
    value: &str,
) -> Result<(HeaderName, HeaderValue)> {
    let wrong =
        |_| Error::Usage(format!("provider '{}': the option {option} cannot stand in a header", options.name()));
    let mut value = HeaderValue::from_str(value).map_err(wrong)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// `Authorization: Basic …`
pub fn basic(options: &Options, username: &str, password: &str) -> Result<(HeaderName, HeaderValue)> {
    let credentials = BASE64.encode(format!("{username}:{password}").as_bytes());
    secret_header(options, "password", AUTHORIZATION, &format!("Basic {credentials}"))
}

pub fn rejected(class: ErrorClass, code: impl Into<String>, detail: impl Into<String>) -> Outcome {
    Outcome::Rejected { class, code: code.into(), detail: detail.into(), retry_after: None }
}

pub fn unreadable(status: u16) -> Outcome {
    Outcome::Unknown { code: "answer_unreadable", detail: format!("answered {status} with what cannot be read") }
}

/// What an answer means that holds no word of the vendor's. A success without one is not acceptance.
pub fn by_status(answer: &Answer) -> Outcome {
    let status = answer.status;
    let class = match status {
        200..=299 => return unreadable(status),
        401 => ErrorClass::Credentials,
        402 => ErrorClass::Quota,
        429 => ErrorClass::Throttled,
        // A 403 is often a firewall's before the vendor, and about one request: many of them tell more than one.
        403 | 408 | 425 | 503 => ErrorClass::ProviderInternal,
        // Not the message's fault: there is nothing at this address, and redirects are not followed.
        300..=399 | 404 | 405 | 410 => ErrorClass::Sender,
        // It failed somewhere, and not by the vendor's own word: before or after sending, nobody can say.
        500.. => {
            let detail = format!("answered {status} without the vendor's word");
            return Outcome::Unknown { code: "http_5xx", detail };
        }
        _ => ErrorClass::Content,
    };
    let detail = format!("answered {status} without the vendor's word");
    Outcome::Rejected { class, code: format!("http_{status}"), detail, retry_after: answer.retry_after }
}

/// The same of an API that says yes or no by its status alone: any success is acceptance, with or without an id of its own,
/// which stands under the first of `names` that is there.
pub fn by_status_alone(answer: &Answer, names: &[&str]) -> Outcome {
    if !(200..=299).contains(&answer.status) {
        return by_status(answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Outcome::Accepted { provider_ref: names.iter().find_map(|name| word(&body[name])) }
}

/// A whole request was refused. Where it held several letters and the fault is one letter's, nobody said whose: they are
/// tried again, each alone, not all given up because of one. It says nothing of the provider.
pub fn of_all(outcome: Outcome, letters: &[SendRequest<'_>]) -> Vec<Outcome> {
    let alike = letters.windows(2).all(|pair| matches!(pair, [a, b] if a.content == b.content));
    let outcome = match outcome {
        Outcome::Rejected { class, code, detail, retry_after } if letters.len() > 1 && is_ones(class, alike) => {
            let detail = format!("one of {} in the request: {detail}", letters.len());
            Outcome::Rejected { class: ErrorClass::RefusedInBatch, code, detail, retry_after }
        }
        other => other,
    };
    vec![outcome; letters.len()]
}

/// Whether a fault is one letter's among several; what all of them say is the fault of all.
fn is_ones(class: ErrorClass, alike: bool) -> bool {
    match class {
        ErrorClass::Address | ErrorClass::OptedOut | ErrorClass::NotReachable | ErrorClass::HandsetUnreachable => true,
        ErrorClass::Content | ErrorClass::Template | ErrorClass::Spam => !alike,
        _ => false,
    }
}

/// Those of several letters that go out, sent together, with the outcomes of those that do not in their places.
pub async fn together<'a, T, F>(
    letters: Vec<SendRequest<'a>>,
    prepare: impl Fn(&SendRequest<'a>) -> Result<T, Outcome>,
    send: impl FnOnce(Vec<SendRequest<'a>>, Vec<T>) -> F,
) -> Vec<Outcome>
where
    F: Future<Output = Vec<Outcome>>,
{
    let (mut outcomes, mut good, mut prepared) = (Vec::with_capacity(letters.len()), Vec::new(), Vec::new());
    for letter in letters {
        match prepare(&letter) {
            Ok(ready) => {
                prepared.push(ready);
                good.push(letter);
                outcomes.push(None);
            }
            Err(outcome) => outcomes.push(Some(outcome)),
        }
    }
    let mut sent = if good.is_empty() { Vec::new() } else { send(good, prepared).await }.into_iter();
    let lost = || Outcome::Unknown { code: "answer_incomplete", detail: "nothing was said of it".to_owned() };
    outcomes.into_iter().map(|outcome| outcome.or_else(|| sent.next()).unwrap_or_else(lost)).collect()
}

/// A vendor's codes, by what they come down to. `412*` stands for all that begin so and are not named themselves.
pub struct Codes(pub &'static [(ErrorClass, &'static [&'static str])]);

impl Codes {
    pub fn class(&self, code: &str) -> Option<ErrorClass> {
        let find = |fits: &dyn Fn(&str) -> bool| self.0.iter().find(|(_, codes)| codes.iter().any(|c| fits(c)));
        let begins = |c: &str| c.strip_suffix('*').is_some_and(|beginning| code.starts_with(beginning));
        find(&|c| c == code).or_else(|| find(&begins)).map(|(class, _)| *class)
    }
}

/// A vendor's codes for what became of something it took.
pub struct Results {
    pub delivered: &'static [&'static str],
    /// Nothing final: it may arrive yet.
    pub pending: &'static [&'static str],
    /// Given up, not delivered in time.
    pub expired: &'static [&'static str],
    pub failed: Codes,
}

impl Results {
    /// Of a code nobody knows it is told that it failed, but not why.
    pub fn read(&self, code: &str) -> (ReceiptOutcome, Option<ErrorClass>) {
        match code {
            _ if self.delivered.contains(&code) => (ReceiptOutcome::Delivered, None),
            _ if self.pending.contains(&code) => (ReceiptOutcome::Accepted, None),
            _ if self.expired.contains(&code) => (ReceiptOutcome::Expired, None),
            _ => (ReceiptOutcome::Failed, self.failed.class(code)),
        }
    }
}

/// A text, or a number as text: vendors send the one or the other.
pub fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What a vendor says for people, short enough to keep.
pub fn said(value: &Value) -> String {
    excerpt(value.as_str().unwrap_or_default())
}

/// Which letter a piece of an answer is about: by the reference that it repeats, else by a number that only one letter of
/// the request goes to.
pub fn whose(letters: &[SendRequest<'_>], reference: Option<&str>, to: Option<&str>) -> Option<usize> {
    let reference = reference.and_then(|text| text.parse::<AttemptReference>().ok());
    if let Some(reference) = reference {
        return letters.iter().position(|letter| letter.reference() == reference);
    }
    let to = to?;
    let mut found = letters.iter().enumerate().filter(|(_, letter)| is_to(letter, to)).map(|(n, _)| n);
    let first = found.next();
    if found.next().is_none() { first } else { None }
}

/// Whether a number in an answer may be the letter's. A foreign one stands there with its country or, where that is told
/// beside it, without.
pub fn is_to(letter: &SendRequest<'_>, number: &str) -> bool {
    digits(letter.to) == number || phone::dialled(letter.to).is_some_and(|(_, digits)| digits == number)
}

/// An earlier attempt of the same delivery.
pub fn is_earlier(reference: &str, letter: &SendRequest<'_>) -> bool {
    reference.parse::<AttemptReference>().is_ok_and(|found| found.key == letter.key && found.attempt < letter.attempt)
}

/// A phone number as Korean vendors want it: digits, for a foreign one with the country in front.
pub fn digits(number: &str) -> String {
    match phone::dialled(number) {
        Some((KOREA, digits)) => digits,
        _ => number.trim_start_matches('+').to_owned(),
    }
}

/// A sender's number in the settings: hyphens are for people.
pub fn sender(options: &mut Options, option: &str) -> Result<String> {
    let digits = options.require(option)?.replace('-', "");
    if digits.is_empty() || digits.len() > 13 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        let name = options.name();
        return Err(Error::Usage(format!("provider '{name}': the option {option} is not a number of 1 to 13 digits")));
    }
    Ok(digits)
}

/// What callers back must show. A short one could be guessed.
pub fn receipt_secret(options: &mut Options, option: &str) -> Result<Option<String>> {
    const LEAST: usize = 16;
    let secret = options.text(option);
    if secret.as_ref().is_some_and(|s| s.len() < LEAST) {
        let name = options.name();
        let what = format!("provider '{name}': the option {option} must have {LEAST} characters or more");
        return Err(Error::Usage(what));
    }
    Ok(secret)
}

/// Whether the caller knows the secret; hashed first, so that how long it takes says nothing of it.
pub fn proven(secret: Option<&str>, shown: Option<&[u8]>) -> Result<(), Refused> {
    let Some(secret) = secret else { return Err(Refused::NotExpected) };
    let Some(shown) = shown else { return Err(Refused::Forged("it shows no secret".to_owned())) };
    let hash = |text: &[u8]| crypt::keyed_hash(secret.as_bytes(), text);
    if crypt::same(&hash(secret.as_bytes()), &hash(shown)) {
        Ok(())
    } else {
        Err(Refused::Forged("it shows another secret".to_owned()))
    }
}

/// Korea's time is ahead by so much, all year.
const KST: TimeDelta = TimeDelta::hours(9);

/// A time as Korean vendors write it.
pub fn to_kst(at: DateTime<Utc>, format: &str) -> String {
    (at + KST).format(format).to_string()
}

/// A time with its zone, or without: then it is Korea's.
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
    use super::super::simulator::testing::{content, letter};
    use super::*;

    fn answer(status: u16) -> Answer {
        Answer { status, body: Vec::new(), retry_after: None }
    }

    #[test]
    fn without_a_word_the_status_decides() {
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
            let Outcome::Rejected { class: found, code, .. } = by_status(&answer(status)) else { panic!("{status}") };
            assert_eq!((found, code), (class, format!("http_{status}")));
        }
        for status in [200, 204, 500, 502, 504] {
            assert!(matches!(by_status(&answer(status)), Outcome::Unknown { .. }), "{status}");
        }
    }

    #[test]
    fn one_letters_fault_does_not_end_the_others() {
        let (one, another) = (content(None, "x"), content(None, "y"));
        let alone = vec![letter("+821012345678", &one)];
        let alike = vec![letter("+821012345678", &one), letter("+821011112222", &one)];
        let mixed = vec![letter("+821012345678", &one), letter("+821011112222", &another)];
        let again = ErrorClass::RefusedInBatch;
        for (class, of_alike, of_mixed) in [
            (ErrorClass::Content, ErrorClass::Content, again),
            (ErrorClass::Template, ErrorClass::Template, again),
            (ErrorClass::Address, again, again),
            (ErrorClass::Sender, ErrorClass::Sender, ErrorClass::Sender),
            (ErrorClass::Throttled, ErrorClass::Throttled, ErrorClass::Throttled),
            (ErrorClass::Credentials, ErrorClass::Credentials, ErrorClass::Credentials),
        ] {
            for (letters, expected) in [(&alone, class), (&alike, of_alike), (&mixed, of_mixed)] {
                let outcomes = of_all(rejected(class, "x", "y"), letters);
                assert_eq!(outcomes.len(), letters.len());
                for outcome in outcomes {
                    assert!(matches!(outcome, Outcome::Rejected { class, .. } if class == expected), "{outcome:?}");
                }
            }
        }
    }

    #[test]
    fn codes_are_found_by_name_before_their_beginning() {
        let codes = Codes(&[(ErrorClass::Content, &["42*"]), (ErrorClass::Spam, &["42602"])]);
        assert_eq!(codes.class("42602"), Some(ErrorClass::Spam));
        assert_eq!(codes.class("42001"), Some(ErrorClass::Content));
        assert_eq!(codes.class("4"), None);
    }

    #[test]
    fn times_without_a_zone_are_koreas() {
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
    fn only_the_whole_secret_proves() {
        let secret = "0123456789abcdef";
        assert_eq!(proven(Some(secret), Some(secret.as_bytes())), Ok(()));
        assert_eq!(proven(None, Some(secret.as_bytes())), Err(Refused::NotExpected));
        for shown in [None, Some(""), Some("0123456789abcde"), Some("0123456789abcdeF"), Some("0123456789abcdef0")] {
            let refused = proven(Some(secret), shown.map(str::as_bytes));
            assert!(matches!(refused, Err(Refused::Forged(_))), "{shown:?}");
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

    /// An account named `test`, as the settings would make it.
    #[track_caller]
    pub fn made(adapter: &Adapter, options: &[(&str, &str)], call_budget: Duration) -> Arc<dyn Provider> {
        try_made(adapter, options, call_budget).unwrap()
    }

    pub fn try_made(adapter: &Adapter, options: &[(&str, &str)], budget: Duration) -> Result<Arc<dyn Provider>> {
        made_with(adapter, options, Common::within(budget))
    }

    pub fn made_with(adapter: &Adapter, options: &[(&str, &str)], common: Common) -> Result<Arc<dyn Provider>> {
        rustls_provider();
        let settings = ProviderSettings {
            name: "test".to_owned(),
            adapter: adapter.name.to_owned(),
            options: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        Ok(adapter.account(&settings, &common)?.provider)
    }

    #[derive(Debug, Clone)]
    pub struct Seen {
        /// `POST /path?query`
        pub line: String,
        headers: Vec<(String, String)>,
        pub body: Value,
    }

    impl Seen {
        pub fn header(&self, name: &str) -> Option<&str> {
            self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
        }
    }

    /// A server that answers one request after the other as told, and keeps what it was asked.
    pub struct Answers {
        pub url: String,
        seen: Arc<Mutex<Vec<Seen>>>,
        _shutdown: Shutdown,
    }

    impl Answers {
        pub async fn with<T: Into<String> + Clone>(answers: &[(u16, T)]) -> Answers {
            let answer = |(status, body): &(u16, T)| {
                let body: String = body.clone().into();
                let length = if *status == 204 { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
                format!("HTTP/1.1 {status} So\r\nConnection: close\r\nRetry-After: 30\r\n{length}\r\n{body}")
            };
            Answers::of(answers.iter().map(answer).collect()).await
        }

        /// Takes the request and hangs up.
        pub async fn cutting() -> Answers {
            Answers::of(vec![String::new()]).await
        }

        /// Takes the request and says nothing.
        pub async fn silent() -> Answers {
            Answers::of(Vec::new()).await
        }

        async fn of(mut answers: Vec<String>) -> Answers {
            answers.reverse();
            let (shutdown, seen) = (Shutdown::new(), Arc::new(Mutex::new(Vec::new())));
            let (answers, kept) = (Arc::new(Mutex::new(answers)), seen.clone());
            let address = peer(&shutdown, move |stream| session(stream, answers.clone(), kept.clone())).await;
            Answers { url: format!("http://{address}"), seen, _shutdown: shutdown }
        }

        pub fn requests(&self) -> Vec<Seen> {
            self.seen.lock().unwrap().clone()
        }
    }

    async fn session(mut stream: TcpStream, answers: Arc<Mutex<Vec<String>>>, seen: Arc<Mutex<Vec<Seen>>>) {
        let mut bytes = Vec::new();
        let request = loop {
            if stream.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                return;
            }
            if let Some(request) = whole(&bytes) {
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

    fn whole(bytes: &[u8]) -> Option<Seen> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let mut lines = head.lines();
        let line = lines.next()?.trim_end_matches(" HTTP/1.1").to_owned();
        let pair = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_ascii_lowercase(), v.to_owned()));
        let headers: Vec<(String, String)> = lines.filter_map(pair).collect();
        let length = headers.iter().find(|(n, _)| n == "content-length").map_or(0, |(_, v)| v.parse().unwrap());
        let body = body.get(..length)?;
        Some(Seen { line, headers, body: serde_json::from_str(body).unwrap_or_default() })
    }
}
