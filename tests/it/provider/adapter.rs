//! The adapters against the vendors' simulators, which were made from the vendors' words and know nothing of the
//! adapters: each message is accepted, each magic recipient comes to its outcome, a message that was accepted without
//! our knowledge is found, and the receipts are read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use notihub::clock::Clock;
use notihub::config::ProviderSettings;
use notihub::id::Tsid;
use notihub::model::channel::{Channel, OnUnknown};
use notihub::model::delivery::{DeliveryKey, Outcome};
use notihub::model::message::Content;
use notihub::model::receipt::{Receipt, ReceiptOutcome};
use notihub::model::retry::ErrorClass;
use notihub::provider::http::ClientSettings;
use notihub::provider::registry::build_account;
use notihub::provider::simulator::vendor::{SimulatorSetup, VendorSimulator};
use notihub::provider::simulator::{gateway, kakaotalk, nhn, sms, solapi, talktalk};
use notihub::provider::{Account, Callback, CallbackError, Extra, LookupResult, SendRequest};
use notihub::shutdown::Shutdown;
use reqwest::header::{HeaderMap, HeaderName};

use crate::support::receiver::{Receiver, Recorded};

const SENDER: &str = "0212345678";

const RECEIPT_KEY: &str = "0123456789abcdef";

/// Of calls that are to run out of time.
const BUDGET: Duration = Duration::from_secs(2);

/// An adapter with the simulator of its vendor.
struct Pair {
    account: Account,
    vendor: VendorSimulator,
    channels: Vec<Channel>,
}

fn pair(vendor: &VendorSimulator, adapter: &str, options: &[(&str, &str)]) -> Pair {
    let base = [("base-url", vendor.url())];
    let base = if adapter == "gateway" { &[][..] } else { &base };
    let mut all: std::collections::BTreeMap<String, String> =
        base.iter().map(|(k, v)| ((*k).to_owned(), v.clone())).collect();
    all.extend(options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let settings = ProviderSettings { name: adapter.to_owned(), adapter: adapter.to_owned(), options: all };
    let account = build_account(&settings, &ClientSettings::with_budget(BUDGET)).unwrap();
    let channels = account.capabilities.iter().map(|c| c.channel).collect();
    Pair { account, vendor: vendor.clone(), channels }
}

/// One of each. `receipts`: where the vendors call back.
async fn pairs(receipts: &str, shutdown: &Shutdown) -> Vec<Pair> {
    let _already = rustls::crypto::ring::default_provider().install_default();
    let setup = || SimulatorSetup { callback: Some(receipts.to_owned()), rate: 0.0, ..SimulatorSetup::default() };
    let silent = || SimulatorSetup { rate: 0.0, ..SimulatorSetup::default() };
    let solapi_at = solapi::start(setup(), shutdown).await.unwrap();
    let nhn_at = nhn::start(setup(), shutdown).await.unwrap();
    nhn_at.set_callback("sms", receipts).unwrap();
    nhn_at.set_callback("alimtalk", receipts).unwrap();
    let gateway_at = gateway::start(setup(), shutdown).await.unwrap();
    let gateway_url = format!("{}{}", gateway_at.url(), gateway::PATH);
    let keys = [("app-key", nhn::APP_KEY), ("secret-key", nhn::SECRET_KEY)];
    let of_nhn = |adapter, more: &[(&str, &str)]| pair(&nhn_at, adapter, &[&keys[..], more].concat());
    let signature = ("webhook-signature", nhn::SIGNATURE);
    vec![
        pair(&kakaotalk::start(silent(), shutdown).await.unwrap(), "kakaotalk", &[]),
        pair(&sms::start(silent(), shutdown).await.unwrap(), "sms", &[]),
        pair(&talktalk::start(silent(), shutdown).await.unwrap(), "talktalk", &[("token", talktalk::AUTHORIZATION)]),
        pair(
            &solapi_at,
            "solapi",
            &[
                ("api-key", solapi::API_KEY),
                ("api-secret", solapi::API_SECRET),
                ("from", SENDER),
                ("pf-id", solapi::PF_ID),
                ("rcs-brand-id", solapi::RCS_BRAND_ID),
                ("receipt-key", RECEIPT_KEY),
            ],
        ),
        of_nhn("nhn-sms", &[("from", SENDER), signature]),
        of_nhn("nhn-alimtalk", &[("sender-key", nhn::SENDER_KEY), signature]),
        of_nhn("nhn-rcs", &[("brand-id", nhn::BRAND_ID), ("chatbot-id", SENDER)]),
        pair(
            &gateway_at,
            "gateway",
            &[("url", &gateway_url), ("secret", gateway::SECRET), ("channels", "SMS+KAKAO_ALIMTALK")],
        ),
    ]
}

/// A text of its own for each adapter: some are at the same vendor, where a magic recipient knows what it was sent
/// before.
fn content(adapter: &str) -> Content {
    let body = format!("주문이 완료되었습니다 ({adapter})");
    Content { body, template_code: Some("TEMPLATE01".to_owned()), ..Content::default() }
}

/// Channels that address recipients by a key take the word; the others have magic numbers.
fn to(channel: Channel, number: u8, word: &str) -> String {
    if channel == Channel::NaverTalk { word.to_owned() } else { format!("+8210000000{number:02}") }
}

/// A delivery of its own for each number.
fn letter<'a>(no: i16, channel: Channel, to: &'a str, content: &'a Content) -> SendRequest<'a> {
    SendRequest {
        key: DeliveryKey { shard: 3, message_id: Tsid(700_000_000_000_000_000), no },
        attempt: 1,
        channel,
        kind: "ORDER_COMPLETED",
        to,
        content,
        created_at: Clock::host_now(),
        extra: Extra::Nothing,
    }
}

fn class(outcome: &Outcome) -> Option<ErrorClass> {
    match outcome {
        Outcome::Rejected { class, .. } => Some(*class),
        _ => None,
    }
}

/// S0-1, S0-41, S1-21, S1-22, S1-23, S1-24, S1-25, S1-26, S1-27: over every channel of every adapter what is sent is
/// taken, as it was written, with its reference where the vendor carries one.
#[tokio::test]
async fn adapter_message_of_each_channel_is_accepted() {
    let shutdown = Shutdown::new();
    let mut sent = 0;
    for pair in pairs("http://127.0.0.1:9/", &shutdown).await {
        let content = content(pair.account.name());
        for channel in &pair.channels {
            let to = if *channel == Channel::NaverTalk { "al-2eGuGr5WQOnco1_V-FQ" } else { "+821012345678" };
            let letter = letter(1, *channel, to, &content);
            let outcome = pair.account.provider.send(letter.clone()).await;
            let name = pair.account.name();
            assert!(matches!(outcome, Outcome::Accepted { .. }), "{name} {channel}: {outcome:?}");
            let taken = pair.vendor.records().pop().unwrap();
            assert_eq!(taken.text, content.body, "{name} {channel}");
            let seeds = ["kakaotalk", "sms", "talktalk", "nhn-rcs"].contains(&name);
            let reference = (!seeds).then(|| letter.reference().to_string());
            assert_eq!(taken.reference, reference, "{name} {channel}");
            sent += 1;
        }
    }
    assert_eq!(sent, 16);
}

/// Each magic recipient has its error class, in whatever words the vendor refuses.
#[tokio::test]
async fn adapter_refusal_has_its_error_class() {
    use ErrorClass::{
        Address, Content as Refused, Credentials, NotReachable, OptedOut, ProviderInternal, Quota, Sender,
    };
    let shutdown = Shutdown::new();
    for pair in pairs("http://127.0.0.1:9/", &shutdown).await {
        let content = content(pair.account.name());
        let name = pair.account.name();
        // Statuses alone say less than codes; TalkTalk has one code for many things.
        let [address, opted_out, balance] = match name {
            "kakaotalk" | "sms" | "gateway" => [Sender, Refused, Quota],
            "talktalk" => [NotReachable, NotReachable, NotReachable],
            // Nothing in its codes is about the recipient but an opt-out: this one is a failure of its own.
            "nhn-rcs" => [ProviderInternal, OptedOut, Quota],
            _ => [Address, OptedOut, Quota],
        };
        let channel = pair.channels[0];
        for (number, word, expected) in [
            (1, "fail", address),
            (2, "temporary", ProviderInternal),
            (10, "opted-out", opted_out),
            (12, "credentials", Credentials),
            (13, "balance", balance),
        ] {
            let to = to(channel, number, word);
            let outcome = pair.account.provider.send(letter(i16::from(number), channel, &to, &content)).await;
            assert_eq!(class(&outcome), Some(expected), "{name} {word}: {outcome:?}");
        }
        let to = to(channel, 11, "throttled");
        let outcome = pair.account.provider.send(letter(11, channel, &to, &content)).await;
        let output = matches!(&outcome, Outcome::Rejected { class: ErrorClass::Throttled, retry_after: Some(_), .. });
        assert!(output, "{name}: {outcome:?}");
        assert_eq!(pair.vendor.records(), [], "{name}");
    }
}

/// In a batch each has its own verdict, whatever becomes of the others.
#[tokio::test]
async fn adapter_batch_has_an_outcome_for_each() {
    let shutdown = Shutdown::new();
    for pair in pairs("http://127.0.0.1:9/", &shutdown).await {
        let content = content(pair.account.name());
        let (channel, name) = (pair.channels[0], pair.account.name());
        if !["solapi", "nhn-sms", "nhn-alimtalk"].contains(&name) {
            continue;
        }
        let numbers = ["+821012345678", "+821000000001", "+821012345678", "+821000000010", "+821011112222"];
        let letters = (1..).zip(numbers).map(|(no, to)| letter(no, channel, to, &content)).collect();
        let outcomes = pair.account.provider.send_batch(letters).await;
        let classes: Vec<Option<ErrorClass>> = outcomes.iter().map(class).collect();
        let expected = [None, Some(ErrorClass::Address), None, Some(ErrorClass::OptedOut), None];
        assert_eq!(classes, expected, "{name}: {outcomes:?}");
        let refs: Vec<&Option<String>> = outcomes
            .iter()
            .filter_map(|o| if let Outcome::Accepted { provider_ref } = o { Some(provider_ref) } else { None })
            .collect();
        assert!(refs.len() == 3 && refs.iter().all(|r| r.is_some()), "{name}: {outcomes:?}");
        let taken = pair.vendor.records().into_iter().filter(|taken| taken.text == content.body).count();
        assert_eq!(taken, 3, "{name}");
    }
}

/// A lost answer is an unknown outcome; a lookup finds the accepted message, and does not find one that was not
/// accepted.
#[tokio::test]
async fn adapter_lookup_finds_what_was_accepted() {
    let shutdown = Shutdown::new();
    for pair in pairs("http://127.0.0.1:9/", &shutdown).await {
        let content = content(pair.account.name());
        let (channel, name) = (pair.channels[0], pair.account.name());
        let provider = &pair.account.provider;
        let can = pair.account.capability(channel).unwrap().on_unknown == OnUnknown::Lookup;
        for (number, word, taken) in [(5, "unknown", true), (6, "hang", true), (19, "cut", false)] {
            let to = to(channel, number, word);
            let first = letter(i16::from(number), channel, &to, &content);
            let before = pair.vendor.records().len();
            let outcome = provider.send(first.clone()).await;
            assert!(matches!(outcome, Outcome::Unknown { .. }), "{name} {word}: {outcome:?}");
            assert_eq!(pair.vendor.records().len() - before, usize::from(taken), "{name} {word}");
            let looked = provider.lookup(SendRequest { attempt: 2, ..first }).await;
            match (can, taken) {
                (true, true) => {
                    assert!(matches!(looked, LookupResult::Found { provider_ref: Some(_) }), "{name}: {looked:?}")
                }
                (true, false) => assert_eq!(looked, LookupResult::NotFound, "{name}"),
                (false, _) => assert_eq!(looked, LookupResult::Inconclusive, "{name}"),
            }
        }
    }
}

fn callback<'a>(recorded: &'a Recorded, headers: &'a HeaderMap, now: DateTime<Utc>) -> Callback<'a> {
    let query = recorded.path.split_once('?').map_or("", |(_, query)| query);
    Callback { headers, query, body: &recorded.body, now }
}

fn headers(recorded: &Recorded) -> HeaderMap {
    let pair = |(name, value): &(String, String)| {
        (name.parse::<HeaderName>().unwrap(), value.parse::<reqwest::header::HeaderValue>().unwrap())
    };
    recorded.headers.iter().map(pair).collect()
}

/// S0-40, S0-42, S0-43: callbacks of vendors are read as meant; changed on the way, or without their proof, they are
/// refused.
#[tokio::test]
async fn adapter_callback_is_read_and_forgeries_refused() {
    let (shutdown, hub) = (Shutdown::new(), Receiver::start().await);
    for pair in pairs(&format!("{}?key={RECEIPT_KEY}", hub.url), &shutdown).await {
        let content = content(pair.account.name());
        let (channel, name) = (pair.channels[0], pair.account.name());
        if !["solapi", "nhn-sms", "nhn-alimtalk", "gateway"].contains(&name) {
            continue;
        }
        let provider = &pair.account.provider;
        let numbers = ["+821012345678", "+821000000008", "+821000000007"];
        for (no, to) in (1..).zip(numbers) {
            provider.send(letter(no, channel, to, &content)).await;
        }
        let before = hub.records().len();
        pair.vendor.send_all_receipts().await;
        let heard = hub.records().split_off(before);
        assert!(!heard.is_empty(), "{name}");
        let mut answer: Vec<Receipt> = Vec::new();
        for recorded in &heard {
            let mut headers = headers(recorded);
            let now = Clock::host_now();
            answer.extend(
                provider.parse_receipts(&callback(recorded, &headers, now)).unwrap().into_iter().map(Result::unwrap),
            );
            for proof in ["x-toast-webhook-signature", "webhook-signature", "x-signature"] {
                headers.remove(proof);
            }
            let without = Callback { query: "", ..callback(recorded, &headers, now) };
            assert!(matches!(provider.parse_receipts(&without), Err(CallbackError::NotAuthentic(_))), "{name}");
        }
        for (no, expected) in (1..).zip([ReceiptOutcome::Delivered, ReceiptOutcome::Failed, ReceiptOutcome::Expired]) {
            let of = |r: &&Receipt| r.reference.is_some_and(|reference| reference.key.no == no);
            let last =
                answer.iter().filter(of).max_by_key(|r| r.outcome).unwrap_or_else(|| panic!("{name} {no}: {answer:?}"));
            assert_eq!(last.outcome, expected, "{name}: {answer:?}");
            assert!(last.occurred_at.is_some(), "{name}");
        }
    }
}

/// Results that no callback brought are polled, once.
#[tokio::test]
async fn adapter_poll_brings_each_result_once() {
    let shutdown = Shutdown::new();
    for pair in pairs("http://127.0.0.1:9/", &shutdown).await {
        let content = content(pair.account.name());
        let (channel, name) = (pair.channels[0], pair.account.name());
        let provider = &pair.account.provider;
        let now = Clock::host_now();
        if provider.poll_receipts(None, now).is_none() {
            continue;
        }
        let mut refs = Vec::new();
        for (no, to) in (1..).zip(["+821000000018", "+821000000008"]) {
            if let Outcome::Accepted { provider_ref } = provider.send(letter(no, channel, to, &content)).await {
                refs.push(provider_ref.unwrap());
            }
        }
        assert_eq!(refs.len(), 2, "{name}");
        // The vendor sends its receipts to a closed port, so only polling finds them.
        pair.vendor.send_all_receipts().await;
        let (mut cursor, mut found) = (None::<String>, Vec::new());
        for _ in 0..10 {
            let now = Clock::host_now() + chrono::TimeDelta::seconds(1);
            let polled = provider.poll_receipts(cursor.as_deref(), now).unwrap().await.unwrap();
            found.extend(polled.receipts.into_iter().map(Result::unwrap));
            cursor = Some(polled.cursor);
            if !polled.has_more {
                break;
            }
        }
        let of = |n: usize| {
            let receipt = found.iter().find(|r| r.provider_ref.as_ref() == Some(&refs[n]));
            receipt.unwrap_or_else(|| panic!("{name} {}: {found:?}", refs[n])).outcome
        };
        assert_eq!((of(0), of(1)), (ReceiptOutcome::Delivered, ReceiptOutcome::Failed), "{name}");
        assert_eq!(found.len(), 2, "{name}: {found:?}");
    }
}
