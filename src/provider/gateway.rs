//! A gateway of the operator's own, for any channel: a signed JSON POST for each delivery, and signed JSON back as receipts.
//! Both are signed as our webhooks are, with one secret, so that libraries of Standard Webhooks serve on the other side. The
//! id of a request is the delivery's and stays the same when it is repeated: whoever keeps it takes nothing twice.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::clock::Clock;
use crate::error::{Result, excerpt};
use crate::model::capability::Capability;
use crate::model::channel::{Channel, TEXT_CHANNELS};
use crate::model::delivery::Outcome;
use crate::model::pace::LimitScope;
use crate::model::receipt::{AttemptReference, Receipt, ReceiptOutcome};
use crate::model::signature;

use super::adapter::{Adapter, Options};
use super::http::Common;
use super::vendor::{self, Vendor, by_status_alone};
use super::{Callback, Pending, Provider, Receipts, Refused, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "gateway",
    about: "a gateway of your own: signed JSON (Standard Webhooks) to a URL, signed receipts back",
    options: &[
        ("url", "where each delivery is POSTed; needed"),
        ("secret", "whsec_…, for both directions; needed"),
        ("channels", "which it serves: SMS+LMS+…; needed"),
        ("receipt-hours", "how long after it took something a receipt comes; without it its answer is its last word"),
    ],
    make: |options, common| Ok(Arc::new(Gateway::new(options, common)?)),
};

/// Longer than any vendor's.
const MOST_HOURS: u32 = 24 * 14;

struct Gateway {
    name: String,
    vendor: Vendor,
    secret: String,
    clock: Clock,
    channels: Vec<Channel>,
    receipt_within: Option<Duration>,
}

impl Gateway {
    fn new(options: &mut Options, common: &Common) -> Result<Gateway> {
        let url = options.require("url")?;
        let url = vendor::url(options, "url", &url)?;
        let secret = options.require("secret")?;
        if signature::decode_secret(&secret).is_none() {
            return Err(options.wrong("the option secret is not whsec_ and the base64 of 24 to 64 bytes"));
        }
        let hours = options.number("receipt-hours")?;
        if hours.is_some_and(|hours| hours == 0 || hours > MOST_HOURS) {
            return Err(
                options.wrong(&format!("the option receipt-hours must be a whole number from 1 to {MOST_HOURS}"))
            );
        }
        Ok(Gateway {
            name: options.name().to_owned(),
            vendor: Vendor::new(url, common)?,
            secret,
            clock: common.clock.clone(),
            channels: options.some_of(&TEXT_CHANNELS)?,
            receipt_within: hours.map(|hours| Duration::from_secs(u64::from(hours) * 3600)),
        })
    }

    async fn post(&self, letter: SendRequest<'_>) -> Outcome {
        let id = letter.key.to_string();
        let body = json!({
            "id": id, "reference": letter.reference().to_string(), "channel": letter.channel, "to": letter.to,
            "subject": letter.content.subject, "body": letter.content.body, "templateCode": letter.content.template_code,
            "createdAt": letter.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        let body = body.to_string().into_bytes();
        let mut headers = HeaderMap::new();
        for (name, value) in signature::headers(&self.secret, None, &id, self.clock.now().timestamp(), &body) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        match self.vendor.post_for_status("", body, headers).await {
            Ok(answer) => by_status_alone(&answer, &["id"]),
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Provider for Gateway {
    fn name(&self) -> &str {
        &self.name
    }

    fn limited_by(&self) -> LimitScope {
        LimitScope::Account
    }

    fn capabilities(&self) -> Vec<Capability> {
        let capability = |channel: &Channel| Capability {
            receipt_within: self.receipt_within,
            repeats_reference: false,
            ..Capability::of(*channel)
        };
        self.channels.iter().map(capability).collect()
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn receipts(&self, callback: &Callback<'_>) -> Result<Receipts, Refused> {
        let headers: Vec<(&str, &[u8])> =
            callback.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let now = Some(callback.now.timestamp());
        let findings = signature::verify(&[&self.secret], &headers, callback.body, now);
        if !findings.all_valid() {
            let fault = [findings.seed, findings.standard].into_iter().flatten().find_map(Result::err);
            let why = fault.map_or_else(|| "it is not signed".to_owned(), |fault| fault.to_string());
            return Err(Refused::Forged(why));
        }
        let unreadable = || Refused::Unreadable("the body is not {\"receipts\": […]}".to_owned());
        let body: Value = serde_json::from_slice(callback.body).map_err(|_| unreadable())?;
        Ok(body["receipts"].as_array().ok_or_else(unreadable)?.iter().map(receipt).collect())
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.vendor.check())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayReceipt {
    event_id: String,
    /// Ours, or the id that the request was answered with.
    reference: String,
    status: String,
    code: Option<String>,
    detail: Option<String>,
    occurred_at: Option<DateTime<Utc>>,
}

fn receipt(value: &Value) -> Result<Receipt, String> {
    let told = GatewayReceipt::deserialize(value).map_err(|error| excerpt(&error.to_string()))?;
    let outcome: ReceiptOutcome = told.status.parse().map_err(|why: String| excerpt(&why))?;
    if told.event_id.is_empty() || told.reference.is_empty() {
        return Err("eventId and reference must not be empty".to_owned());
    }
    let reference = told.reference.parse::<AttemptReference>().ok();
    Ok(Receipt {
        event_key: told.event_id,
        provider_ref: if reference.is_some() { None } else { Some(told.reference) },
        reference,
        outcome,
        // Its codes are its own, so what they come down to nobody here knows.
        class: None,
        code: told.code,
        detail: told.detail.map(|text| excerpt(&text)),
        occurred_at: told.occurred_at,
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::super::simulator::testing::{BUDGET, SHORT, content, letter, rejected, unknown};
    use super::super::vendor::testing::{Answers, made, try_made};
    use super::*;
    use crate::model::retry::ErrorClass;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_800_000_000;

    fn account(url: &str, budget: Duration) -> Arc<dyn Provider> {
        made(&ADAPTER, &[("url", url), ("secret", SECRET), ("channels", "SMS+LMS"), ("receipt-hours", "2")], budget)
    }

    #[tokio::test]
    async fn a_delivery_is_signed_json_and_the_status_decides() {
        let api =
            Answers::with(&[(200, r#"{"id":"g-1"}"#), (204, ""), (401, ""), (422, ""), (429, ""), (500, "")]).await;
        let gateway = account(&format!("{}/in?token=1", api.url), BUDGET);
        let content = content(Some("s"), "b");
        let send = || gateway.send(letter("+821012345678", &content));
        assert_eq!(send().await, Outcome::Accepted { provider_ref: Some("g-1".to_owned()) });
        assert_eq!(send().await, Outcome::Accepted { provider_ref: None });
        assert_eq!(rejected(send().await), (ErrorClass::Credentials, "http_401".to_owned()));
        assert_eq!(rejected(send().await), (ErrorClass::Content, "http_422".to_owned()));
        let Outcome::Rejected { class, retry_after, .. } = send().await else { panic!("not rejected") };
        assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(Duration::from_secs(30))));
        assert_eq!(unknown(send().await), "http_5xx");

        let letter = letter("+821012345678", &content);
        let first = api.requests().remove(0);
        assert_eq!(first.line, "POST /in?token=1");
        let sent = json!({ "id": letter.key.to_string(), "reference": letter.reference().to_string(), "channel": "SMS",
            "to": "+821012345678", "subject": "s", "body": "b", "templateCode": null,
            "createdAt": "2027-01-15T08:00:00.000Z" });
        assert_eq!(first.body, sent);
        let names = ["x-signature", "x-timestamp", "webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: Vec<(&str, &[u8])> =
            names.iter().map(|name| (*name, first.header(name).unwrap().as_bytes())).collect();
        assert!(signature::verify(&[SECRET], &headers, sent.to_string().as_bytes(), None).all_valid());
        assert_eq!(first.header("webhook-id"), Some(letter.key.to_string().as_str()), "stable over attempts");
    }

    #[tokio::test]
    async fn no_answer_is_unknown() {
        let content = content(None, "b");
        for (api, code) in [(Answers::cutting().await, "answer_cut"), (Answers::silent().await, "no_answer")] {
            assert_eq!(unknown(account(&api.url, SHORT).send(letter("+821012345678", &content)).await), code);
        }
    }

    fn signed(body: &[u8], secret: &str, at: i64) -> HeaderMap {
        let headers = signature::headers(secret, None, "r-1", at, body).into_iter();
        headers.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn told(headers: &HeaderMap, body: &[u8]) -> Result<Receipts, Refused> {
        let now = DateTime::from_timestamp(NOW, 0).unwrap();
        account("https://gateway.example.com/in", BUDGET).receipts(&Callback { headers, query: "", body, now })
    }

    #[test]
    fn receipts_are_read_and_one_that_is_wrong_loses_no_other() {
        let content = content(None, "b");
        let ours = letter("+821012345678", &content).reference();
        let body = json!({ "receipts": [
            { "eventId": "e1", "reference": ours.to_string(), "status": "DELIVERED", "occurredAt": "2027-01-15T08:00:00Z" },
            { "eventId": "e2", "reference": "g-1", "status": "FAILED", "code": "77", "detail": "why" },
            { "eventId": "e3", "reference": "g-1", "status": "LOST" },
            { "eventId": "", "reference": "g-1", "status": "EXPIRED" },
            { "reference": "g-1", "status": "EXPIRED" },
            "x",
            { "eventId": "e4", "reference": "g-1", "status": "EXPIRED" },
        ] })
        .to_string();
        let read = told(&signed(body.as_bytes(), SECRET, NOW), body.as_bytes()).unwrap();
        let good = [true, true, false, false, false, false, true];
        assert_eq!(read.iter().map(Result::is_ok).collect::<Vec<_>>(), good);
        let (first, second) = (read[0].as_ref().unwrap(), read[1].as_ref().unwrap());
        assert_eq!((first.reference, first.provider_ref.as_deref()), (Some(ours), None));
        assert_eq!((first.outcome, first.event_key.as_str()), (ReceiptOutcome::Delivered, "e1"));
        assert_eq!(first.occurred_at, DateTime::from_timestamp(NOW, 0));
        assert_eq!((second.reference, second.provider_ref.as_deref()), (None, Some("g-1")));
        assert_eq!((second.outcome, second.code.as_deref()), (ReceiptOutcome::Failed, Some("77")));
    }

    #[test]
    fn what_is_not_signed_is_not_believed() {
        let body = br#"{"receipts":[]}"#;
        assert_eq!(told(&signed(body, SECRET, NOW), body), Ok(Vec::new()));
        let stranger = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for headers in [HeaderMap::new(), signed(body, stranger, NOW), signed(body, SECRET, NOW - 301)] {
            assert!(matches!(told(&headers, body), Err(Refused::Forged(_))), "{headers:?}");
        }
        assert!(matches!(told(&signed(b"{}", SECRET, NOW), body), Err(Refused::Forged(_))));
        for body in [&b"{}"[..], b"[]", b"x", b""] {
            assert!(matches!(told(&signed(body, SECRET, NOW), body), Err(Refused::Unreadable(_))));
        }
    }

    #[test]
    fn settings_are_checked_and_kept_from_sight() {
        let error = |options: &[(&str, &str)]| try_made(&ADAPTER, options, BUDGET).err().unwrap().to_string();
        let (url, secret) = (("url", "https://example.com/SECRET"), ("secret", SECRET));
        let plain = error(&[("url", "http://example.com/SECRET"), secret, ("channels", "SMS")]);
        assert!(plain.contains("must be https") && !plain.contains("SECRET"), "{plain}");
        assert!(error(&[url, ("secret", "whsec_x"), ("channels", "SMS")]).contains("24 to 64 bytes"));
        assert!(error(&[url, secret]).contains("needs the option channels"));
        assert!(error(&[url, secret, ("channels", "EMAIL")]).contains("cannot serve EMAIL"));
        assert!(error(&[url, secret, ("channels", "SMS"), ("receipt-hours", "0")]).contains("from 1 to"));
        let within = account("https://example.com", BUDGET).capabilities()[0].receipt_within;
        assert_eq!(within, Some(Duration::from_secs(7200)));
    }
}
