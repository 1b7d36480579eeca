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
use crate::model::receipt::{Receipt, ReceiptOutcome, Reference};
use crate::model::signature;

use super::adapter::{Adapter, Common, Options};
use super::http::Answer;
use super::vendor::{self, Vendor, by_status, word};
use super::{Callback, Letter, Pending, Provider, Receipts, Refused};

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
const MOST_HOURS: u64 = 24 * 14;

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
        if signature::decode(&secret).is_none() {
            return Err(options.wrong("the option secret is not whsec_ and the base64 of 24 to 64 bytes"));
        }
        let hours: Option<u64> = options.parsed("receipt-hours")?;
        if hours.is_some_and(|hours| hours == 0 || hours > MOST_HOURS) {
            return Err(options.wrong(&format!("the option receipt-hours is not between 1 and {MOST_HOURS}")));
        }
        Ok(Gateway {
            name: options.name().to_owned(),
            vendor: Vendor::new(url, common)?,
            secret,
            clock: Clock::system(),
            channels: options.some_of(&TEXT_CHANNELS)?,
            receipt_within: hours.map(|hours| Duration::from_secs(hours * 3600)),
        })
    }

    async fn post(&self, letter: Letter<'_>) -> Outcome {
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
        match self.vendor.post_bytes(body, headers).await {
            Ok(answer) => verdict(&answer),
            Err(failure) => failure.into_outcome(),
        }
    }
}

impl Provider for Gateway {
    fn name(&self) -> &str {
        &self.name
    }

    fn capabilities(&self) -> Vec<Capability> {
        let capability =
            |channel: &Channel| Capability { receipt_within: self.receipt_within, ..Capability::of(*channel) };
        self.channels.iter().map(capability).collect()
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(self.post(letter))
    }

    fn receipts(&self, callback: &Callback<'_>) -> Result<Receipts, Refused> {
        let headers: Vec<(&str, &[u8])> =
            callback.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        let now = Some(callback.now.timestamp());
        let findings = signature::verify(&[&self.secret], &headers, callback.body, now);
        if !findings.hold() {
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

fn verdict(answer: &Answer) -> Outcome {
    if !(200..=299).contains(&answer.status) {
        return by_status(answer);
    }
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    Outcome::Accepted { provider_ref: word(&body["id"]) }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Told {
    event_id: String,
    /// Ours, or the id that the request was answered with.
    reference: String,
    status: String,
    code: Option<String>,
    detail: Option<String>,
    occurred_at: Option<DateTime<Utc>>,
}

fn receipt(value: &Value) -> Result<Receipt, String> {
    let told = Told::deserialize(value).map_err(|error| excerpt(&error.to_string()))?;
    let outcome: ReceiptOutcome = told.status.parse().map_err(|why: String| excerpt(&why))?;
    if told.event_id.is_empty() || told.reference.is_empty() {
        return Err("eventId and reference must not be empty".to_owned());
    }
    let reference = told.reference.parse::<Reference>().ok();
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
