//! NHN Cloud SMS v3.0: SMS, LMS, and MMS without pictures, which is an LMS.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

use crate::error::Result;
use crate::model::capability::{Batch, Capability};
use crate::model::channel::{Channel, OnUnknown};
use crate::model::cp949;
use crate::model::delivery::Outcome;
use crate::model::message::Content;
use crate::model::phone::{self, KOREA};
use crate::model::retry::ErrorClass;

use super::adapter::{Adapter, Common, Options};
use super::nhn::{self, List, Nhn, find_earlier, hours, verdicts};
use super::vendor::{self, Codes, Results};
use super::{Callback, Letter, Looked, Pending, Polled, Provider, Receipts, Refused};

pub const ADAPTER: Adapter = Adapter {
    name: "nhn-sms",
    about: "NHN Cloud SMS v3.0: SMS, LMS, MMS without pictures",
    options: &[
        ("app-key", "of the project's SMS service; needed"),
        ("secret-key", "of the same; needed"),
        ("from", "the sender's number, registered at NHN; needed"),
        (
            "webhook-signature",
            "what webhooks show, as written at NHN; without it none is taken, and results are polled",
        ),
        ("base-url", "where it is (https://sms.api.nhncloudservice.com)"),
        ("channels", "SMS, LMS and MMS (the default), or fewer"),
    ],
    make: |options, common| Ok(Arc::new(NhnSms::new(options, common)?)),
};

const CHANNELS: [Channel; 3] = [Channel::Sms, Channel::Lms, Channel::Mms];
const TIME: &str = "%Y-%m-%d %H:%M:%S";
/// Of a title, in the bytes of carriers.
const TITLE_BYTES: usize = 40;
/// What can be asked for at once.
const MONTH: TimeDelta = TimeDelta::days(29);

/// Codes of requests, and of recipients in them.
const CODES: Codes = Codes(&[
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

/// What became of it at the carrier.
const RESULTS: Results = Results {
    delivered: &["1000"],
    // Another message of ours was taken for the same: which of the two arrived, this does not tell.
    pending: &["E915"],
    expired: &["1019", "2000"],
    failed: Codes(&[
        (ErrorClass::ProviderInternal, &["1001", "3011", "3014", "4007", "4009", "E900", "E999"]),
        (ErrorClass::Address, &["1002", "3001", "3003", "4003", "4005"]),
        (ErrorClass::Sender, &["1003", "3017", "3018", "3019", "4001", "4002"]),
        (
            ErrorClass::Handset,
            &["2001", "2002", "2003", "2004", "2005", "2006", "2007", "3004", "3005", "3008", "4004", "4006"],
        ),
        (ErrorClass::NotReachable, &["3000", "3002", "3007", "3010", "3015"]),
        (ErrorClass::OptedOut, &["3006", "3013"]),
        (ErrorClass::Spam, &["3012", "4008", "4010"]),
        (ErrorClass::Content, &["3009", "3016", "E911", "E913"]),
        (ErrorClass::Hours, &["E919"]),
    ]),
};

struct NhnSms {
    nhn: Nhn,
    from: String,
    channels: Vec<Channel>,
}

impl NhnSms {
    fn new(options: &mut Options, common: &Common) -> Result<NhnSms> {
        Ok(NhnSms {
            from: vendor::sender(options, "from")?,
            channels: options.channels_of(&CHANNELS, &CHANNELS)?,
            nhn: Nhn::new(options, "https://sms.api.nhncloudservice.com", common)?.with_webhooks(options)?,
        })
    }

    fn path(&self, end: &str) -> String {
        format!("/sms/v3.0/appKeys/{}/{end}", self.nhn.app_key)
    }

    /// All of one content.
    async fn post(&self, letters: Vec<Letter<'_>>) -> Vec<Outcome> {
        let Some(first) = letters.first() else { return Vec::new() };
        let mut body = json!({
            "body": first.content.body, "sendNo": self.from,
            "recipientList": letters.iter().map(recipient).collect::<Vec<Value>>(),
        });
        if first.channel != Channel::Sms {
            body["title"] = Value::from(title(first.content));
        }
        let path = self.path(sender(first.channel));
        match self.nhn.vendor.post(&path, &body, self.nhn.headers(), letters.len()).await {
            Ok(answer) => verdicts(&letters, &answer, &CODES, "/body/data", "sendResultList"),
            Err(failure) => vec![failure.into_outcome(); letters.len()],
        }
    }

    /// Among all that was sent to that number since the message was made.
    async fn find(&self, letter: Letter<'_>) -> Looked {
        let end = self.nhn.clock.now().max(letter.created_at) + TimeDelta::hours(1);
        let start = (letter.created_at - TimeDelta::hours(1)).max(end - MONTH);
        let (start, end) = (vendor::to_kst(start, TIME), vendor::to_kst(end, TIME));
        let (to, size) = (home(letter.to).1, nhn::PAGE.to_string());
        let query =
            [("startRequestDate", start.as_str()), ("endRequestDate", &end), ("recipientNo", &to), ("pageSize", &size)];
        let listed = self.nhn.list(&self.path(sender(letter.channel)), &query, self.nhn.headers()).await;
        let Some(rows) = listed.ok().and_then(|body| body["body"]["data"].as_array().cloned()) else {
            return Looked::CannotTell;
        };
        match find_earlier(&rows, &letter) {
            Some(provider_ref) => Looked::Taken { provider_ref },
            None if rows.len() < nhn::PAGE => Looked::NotTaken,
            None => Looked::CannotTell,
        }
    }
}

fn sender(channel: Channel) -> &'static str {
    if channel == Channel::Sms { "sender/sms" } else { "sender/mms" }
}

fn home(number: &str) -> (i32, String) {
    phone::dialled(number).unwrap_or((KOREA, number.to_owned()))
}

fn recipient(letter: &Letter<'_>) -> Value {
    let (country, number) = home(letter.to);
    json!({
        "recipientNo": number, "countryCode": country.to_string(), "recipientGroupingKey": letter.reference().to_string(),
    })
}

/// A long message must have a title. Where the message has none, or one that is too long, its beginning serves.
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
        &self.nhn.name
    }

    /// It keeps trying for 25 hours (SMS) and 80 hours (LMS), and tells a little later.
    fn capabilities(&self) -> Vec<Capability> {
        let capability = |channel: &Channel| Capability {
            // More is stored, and cut on its way.
            body: if *channel == Channel::Lms { Some(2000) } else { None },
            batch: Batch::SameContent(nhn::BATCH),
            on_unknown: OnUnknown::Lookup,
            receipt_within: hours(if *channel == Channel::Sms { 26 } else { 81 }),
            ..Capability::of(*channel)
        };
        self.channels.iter().map(capability).collect()
    }

    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome> {
        Box::pin(async move { self.post(vec![letter]).await.pop().unwrap_or(Outcome::Released) })
    }

    fn send_batch<'a>(&'a self, letters: Vec<Letter<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(self.post(letters))
    }

    fn lookup<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Looked> {
        Box::pin(self.find(letter))
    }

    fn receipts(&self, callback: &Callback<'_>) -> Result<Receipts, Refused> {
        self.nhn.hooks(callback, &RESULTS)
    }

    fn poll<'a>(&'a self, cursor: Option<&'a str>, now: DateTime<Utc>) -> Option<Pending<'a, Result<Polled, String>>> {
        Some(Box::pin(async move {
            let list = List {
                path: self.path("message-results"),
                format: TIME,
                places: &["/body/data/resultUpdateList", "/body/data"],
                results: &RESULTS,
                with_reference: true,
            };
            self.nhn.results(&list, cursor, now).await
        }))
    }

    fn check(&self) -> Pending<'_, Result<String, String>> {
        Box::pin(self.nhn.vendor.check())
    }
}
