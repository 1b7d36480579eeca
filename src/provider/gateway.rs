//! A gateway that the operator runs, for any text channel: a signed JSON POST for each delivery, and signed JSON
//! callbacks as receipts. Both are signed as the hub's webhooks are, with one secret, so that libraries of Standard
//! Webhooks work on the other side. A request's id is the delivery's and the same in every attempt, so that the gateway
//! can detect duplicates.

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
use super::http::ClientSettings;
use super::vendor::{self, VendorApi, outcome_by_status_alone};
use super::{BoxFuture, Callback, CallbackError, Provider, Receipts, SendRequest};

pub const ADAPTER: Adapter = Adapter {
    name: "gateway",
    description: "a gateway of your own: signed JSON (Standard Webhooks) to a URL, signed receipts back",
    options: &[
        ("url", "the URL that each delivery is POSTed to; needed"),
        ("secret", "whsec_…, signs both directions; needed"),
        ("channels", "the channels it serves: SMS+LMS+…; needed"),
        (
            "receipt-hours",
            "how many hours after acceptance a receipt may come; without it the gateway's answer is final",
        ),
    ],
    build: |options, common| Ok(Arc::new(Gateway::new(options, common)?)),
};

/// The upper limit of `receipt-hours`: longer than any vendor takes.
const MOST_HOURS: u32 = 24 * 14;

struct Gateway {
    name: String,
    api: VendorApi,
    secret: String,
    clock: Clock,
    channels: Vec<Channel>,
    receipt_within: Option<Duration>,
}

impl Gateway {
    fn new(options: &mut Options, common: &ClientSettings) -> Result<Gateway> {
        let url = options.require("url")?;
        let url = vendor::parse_url(options, "url", &url)?;
        let secret = options.require("secret")?;
        if signature::decode_secret(&secret).is_none() {
            return Err(options.usage_error("the option secret is not whsec_ and the base64 of 24 to 64 bytes"));
        }
        let hours = options.optional_number("receipt-hours")?;
        if hours.is_some_and(|hours| hours == 0 || hours > MOST_HOURS) {
            return Err(
                options.usage_error(&format!("the option receipt-hours must be a whole number from 1 to {MOST_HOURS}"))
            );
        }
        Ok(Gateway {
            name: options.name().to_owned(),
            api: VendorApi::new(url, common)?,
            secret,
            clock: common.clock.clone(),
            channels: options.channels_among(&TEXT_CHANNELS)?,
            receipt_within: hours.map(|hours| Duration::from_secs(u64::from(hours) * 3600)),
        })
    }

    async fn post(&self, request: SendRequest<'_>) -> Outcome {
        let id = request.key.to_string();
        let body = json!({
            "id": id, "reference": request.reference().to_string(), "channel": request.channel, "to": request.to,
            "subject": request.content.subject, "body": request.content.body,
            "templateCode": request.content.template_code,
            "createdAt": request.created_at.to_rfc3339_opts(SecondsFormat::Millis, true),
        });
        let body = body.to_string().into_bytes();
        let mut headers = HeaderMap::new();
        for (name, value) in signature::headers(&self.secret, None, &id, self.clock.now().timestamp(), &body) {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        match self.api.post_for_status("", body, headers).await {
            Ok(answer) => outcome_by_status_alone(&answer, &["id"]),
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

    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(self.post(request))
    }

    fn parse_receipts(&self, callback: &Callback<'_>) -> Result<Receipts, CallbackError> {
        let headers: Vec<(&str, &[u8])> =
            callback.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let now = Some(callback.now.timestamp());
        let findings = signature::verify(&[&self.secret], &headers, callback.body, now);
        if !findings.all_valid() {
            let error = [findings.seed, findings.standard].into_iter().flatten().find_map(Result::err);
            let reason = error.map_or_else(|| "the callback is not signed".to_owned(), |error| error.to_string());
            return Err(CallbackError::NotAuthentic(reason));
        }
        let unreadable = || CallbackError::Unreadable("the body is not {\"receipts\": […]}".to_owned());
        let body: Value = serde_json::from_slice(callback.body).map_err(|_| unreadable())?;
        Ok(body["receipts"].as_array().ok_or_else(unreadable)?.iter().map(receipt).collect())
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(self.api.check())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatewayReceipt {
    event_id: String,
    /// The reference of the request, or the id that the gateway answered with.
    reference: String,
    status: String,
    code: Option<String>,
    detail: Option<String>,
    occurred_at: Option<DateTime<Utc>>,
}

fn receipt(value: &Value) -> Result<Receipt, String> {
    let parsed = GatewayReceipt::deserialize(value).map_err(|error| excerpt(&error.to_string()))?;
    let outcome: ReceiptOutcome = parsed.status.parse().map_err(|reason: String| excerpt(&reason))?;
    if parsed.event_id.is_empty() || parsed.reference.is_empty() {
        return Err("eventId and reference must not be empty".to_owned());
    }
    let reference = parsed.reference.parse::<AttemptReference>().ok();
    Ok(Receipt {
        event_key: parsed.event_id,
        provider_ref: if reference.is_some() { None } else { Some(parsed.reference) },
        reference,
        outcome,
        // The gateway's codes have no known classes.
        class: None,
        code: parsed.code,
        detail: parsed.detail.map(|text| excerpt(&text)),
        occurred_at: parsed.occurred_at,
    })
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderMap;

    use super::super::simulator::testing::{BUDGET, SHORT, content, rejected, send_request, unknown};
    use super::super::vendor::testing::{ScriptedServer, build, try_build};
    use super::*;
    use crate::model::retry::ErrorClass;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const NOW: i64 = 1_800_000_000;

    fn account(url: &str, budget: Duration) -> Arc<dyn Provider> {
        build(&ADAPTER, &[("url", url), ("secret", SECRET), ("channels", "SMS+LMS"), ("receipt-hours", "2")], budget)
    }

    #[tokio::test]
    async fn a_delivery_is_signed_json_and_the_status_decides() {
        let api = ScriptedServer::responding(&[
            (200, r#"{"id":"g-1"}"#),
            (204, ""),
            (401, ""),
            (422, ""),
            (429, ""),
            (500, ""),
        ])
        .await;
        let gateway = account(&format!("{}/in?token=1", api.url), BUDGET);
        let content = content(Some("s"), "b");
        let send = || gateway.send(send_request("+821012345678", &content));
        assert_eq!(send().await, Outcome::Accepted { provider_ref: Some("g-1".to_owned()) });
        assert_eq!(send().await, Outcome::Accepted { provider_ref: None });
        assert_eq!(rejected(send().await), (ErrorClass::Credentials, "http_401".to_owned()));
        assert_eq!(rejected(send().await), (ErrorClass::Content, "http_422".to_owned()));
        let Outcome::Rejected { class, retry_after, .. } = send().await else { panic!("not rejected") };
        assert_eq!((class, retry_after), (ErrorClass::Throttled, Some(Duration::from_secs(30))));
        assert_eq!(unknown(send().await), "http_5xx");

        let request = send_request("+821012345678", &content);
        let first = api.requests().remove(0);
        assert_eq!(first.line, "POST /in?token=1");
        let sent = json!({ "id": request.key.to_string(), "reference": request.reference().to_string(),
            "channel": "SMS", "to": "+821012345678", "subject": "s", "body": "b", "templateCode": null,
            "createdAt": "2027-01-15T08:00:00.000Z" });
        assert_eq!(first.body, sent);
        let names = ["x-signature", "x-timestamp", "webhook-id", "webhook-timestamp", "webhook-signature"];
        let headers: Vec<(&str, &[u8])> =
            names.iter().map(|name| (*name, first.header(name).unwrap().as_bytes())).collect();
        assert!(signature::verify(&[SECRET], &headers, sent.to_string().as_bytes(), None).all_valid());
        assert_eq!(first.header("webhook-id"), Some(request.key.to_string().as_str()), "stable over attempts");
    }

    #[tokio::test]
    async fn no_answer_is_unknown() {
        let content = content(None, "b");
        for (api, code) in
            [(ScriptedServer::closing().await, "answer_cut"), (ScriptedServer::silent().await, "no_answer")]
        {
            assert_eq!(unknown(account(&api.url, SHORT).send(send_request("+821012345678", &content)).await), code);
        }
    }

    fn signed(body: &[u8], secret: &str, at: i64) -> HeaderMap {
        let headers = signature::headers(secret, None, "r-1", at, body).into_iter();
        headers.map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn told(headers: &HeaderMap, body: &[u8]) -> Result<Receipts, CallbackError> {
        let now = DateTime::from_timestamp(NOW, 0).unwrap();
        account("https://gateway.example.com/in", BUDGET).parse_receipts(&Callback { headers, query: "", body, now })
    }

    #[test]
    fn receipts_are_read_and_an_invalid_one_does_not_lose_the_others() {
        let content = content(None, "b");
        let ours = send_request("+821012345678", &content).reference();
        let body = json!({ "receipts": [
            { "eventId": "e1", "reference": ours.to_string(), "status": "DELIVERED",
                "occurredAt": "2027-01-15T08:00:00Z" },
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
    fn unsigned_callbacks_are_refused() {
        let body = br#"{"receipts":[]}"#;
        assert_eq!(told(&signed(body, SECRET, NOW), body), Ok(Vec::new()));
        let stranger = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        for headers in [HeaderMap::new(), signed(body, stranger, NOW), signed(body, SECRET, NOW - 301)] {
            assert!(matches!(told(&headers, body), Err(CallbackError::NotAuthentic(_))), "{headers:?}");
        }
        assert!(matches!(told(&signed(b"{}", SECRET, NOW), body), Err(CallbackError::NotAuthentic(_))));
        for body in [&b"{}"[..], b"[]", b"x", b""] {
            assert!(matches!(told(&signed(body, SECRET, NOW), body), Err(CallbackError::Unreadable(_))));
        }
    }

    #[test]
    fn invalid_settings_are_refused_without_showing_them() {
        let error = |options: &[(&str, &str)]| try_build(&ADAPTER, options, BUDGET).err().unwrap().to_string();
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
