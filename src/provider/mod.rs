//! Providers: accounts at vendors that deliver messages, each an adapter behind the trait [`Provider`]. `simulator/`
//! holds a simulator of each vendor: a real server on loopback that an adapter cannot distinguish from the vendor.
//!
//! An adapter makes **one** request per call, on one socket, without redirects or retries of its own, and returns an
//! `Outcome`:
//!
//! - `Accepted`: the vendor confirmed that it accepted the message.
//! - `Rejected`: the vendor certainly did not take it (DNS, refused connection, TLS, an answer that refuses). Its
//!   `ErrorClass` decides whether the delivery is retried.
//! - `Unknown`: the request was written, and the connection was cut or stayed silent. The vendor may have accepted it.
//!
//! In doubt an adapter returns `Unknown`: a wrong `Rejected` sends a message twice.

pub mod adapter;
mod basic;
mod gateway;
pub mod guard;
pub mod http;
pub mod inapp;
mod kakaotalk;
pub mod mock;
mod nhn;
mod nhn_alimtalk;
mod nhn_rcs;
mod nhn_sms;
pub mod registry;
pub mod simulator;
pub mod slack;
mod sms;
pub mod smtp;
mod smtp_connection;
mod smtp_mail;
mod smtp_session;
mod solapi;
mod talktalk;
mod tls;
mod vendor;
pub mod webhook;
mod window;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::HeaderMap;

use crate::config;
use crate::error::{Error, Result};
use crate::id::Tsid;
use crate::model::capability::{Capability, Terms};
use crate::model::channel::{Channel, LengthLimit, OnUnknown};
use crate::model::delivery::{DeliveryKey, Outcome};
use crate::model::limit::RateLimit;
use crate::model::message::Content;
use crate::model::pace::LimitScope;
use crate::model::receipt::{AttemptReference, Receipt};
use crate::model::retry::Profile;

/// One attempt of one delivery, as a provider gets it.
#[derive(Clone)]
pub struct SendRequest<'a> {
    pub key: DeliveryKey,
    /// The number of this attempt, from 1: the fencing token of the delivery.
    pub attempt: i16,
    pub channel: Channel,
    /// The partner's own name for this type of message, such as `ORDER_COMPLETED`. Only logged.
    pub kind: &'a str,
    /// The recipient: an e-mail address, a phone number in E.164, a vendor's user key, the name of a Slack destination,
    /// or the id of a webhook endpoint.
    pub to: &'a str,
    pub content: &'a Content,
    /// When the partner posted the message. Look-ups search from here.
    pub created_at: DateTime<Utc>,
    pub extra: Extra<'a>,
}

impl SendRequest<'_> {
    /// Returns the reference that the vendor is asked to carry and to repeat in its receipts: delivery and attempt.
    pub fn reference(&self) -> AttemptReference {
        AttemptReference { key: self.key, attempt: self.attempt }
    }
}

/// Data that only one channel needs.
#[derive(Clone, Copy)]
pub enum Extra<'a> {
    Nothing,
    Webhook(&'a WebhookRequest),
}

/// One webhook, ready to be signed and sent. The adapter signs last, over the exact bytes it sends.
#[derive(Clone)]
pub struct WebhookRequest {
    pub partner_id: Tsid,
    pub url: String,
    /// The header `webhook-id`: the same in each retry.
    pub event_id: String,
    pub body: Vec<u8>,
    /// Headers that the endpoint's owner configured. The adapter's own headers override them.
    pub headers: BTreeMap<String, String>,
    pub secret: String,
    /// The previous secret, during a rotation: the request carries a signature with each.
    pub former_secret: Option<String>,
    /// The signed timestamp, in seconds since 1970.
    pub timestamp: i64,
}

/// A boxed future, so that the trait [`Provider`] can be used as an object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a provider answers when it is asked for an earlier attempt with an unknown outcome (`OnUnknown::Lookup`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookupResult {
    /// The vendor has the message: the earlier attempt was accepted.
    Found { provider_ref: Option<String> },
    /// The vendor does not have the message, and would list it by now: it may be sent again.
    NotFound,
    /// The vendor cannot say, or not yet: the outcome stays unknown.
    Inconclusive,
}

/// A request that a vendor made at `/v1/receipts/{provider}`, unread.
#[derive(Debug, Clone, Copy)]
pub struct Callback<'a> {
    pub headers: &'a HeaderMap,
    /// The query string, without the question mark.
    pub query: &'a str,
    pub body: &'a [u8],
    pub now: DateTime<Utc>,
}

/// The receipts of one callback or page. Each is read by itself, so that an unreadable one (`Err` with the reason) does
/// not lose the others.
pub type Receipts = Vec<Result<Receipt, String>>;

/// Why a callback was refused as a whole. No receipt was read from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallbackError {
    /// This provider makes no callbacks, or its account has no callback secret.
    NotSupported,
    /// The caller did not prove to be the provider. The text is for the log; the caller must not learn it.
    NotAuthentic(String),
    /// The caller is the provider, but the body cannot be read. The text says why.
    Unreadable(String),
}

/// One page of a provider's list of results.
#[derive(Debug, Default)]
pub struct ReceiptPage {
    pub receipts: Receipts,
    /// Where the next poll continues. Stored in the same transaction as the receipts.
    pub cursor: String,
    /// More results can be read at once.
    pub has_more: bool,
}

/// One account at a vendor. A new vendor needs a file that implements this trait, and its line in `registry::ADAPTERS`.
///
/// Calls run concurrently, up to `max_concurrent_calls` in each process; implementations guard their own state. A call
/// that outlives its time limit is dropped by the worker, which is then an unknown outcome.
pub trait Provider: Send + Sync + 'static {
    /// The account's name in settings, attempts and metrics.
    fn name(&self) -> &str;

    /// Returns one capability for each channel that the account serves. Called once, when the account is created.
    fn capabilities(&self) -> Vec<Capability>;

    /// The most calls at a time from one process.
    fn max_concurrent_calls(&self) -> usize {
        usize::MAX
    }

    /// What a "too many requests" of this provider applies to: the account, one destination, or nothing else.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Message
    }

    /// The vendor's rate limit, used where the settings set none.
    fn default_limit(&self) -> Option<RateLimit> {
        None
    }

    /// The retry profile, used where the settings set none.
    fn default_profile(&self) -> Option<Profile> {
        None
    }

    /// How much longer than the call budget a call may take, where the protocol lets the server answer late although it
    /// has the whole message (SMTP after the final dot). The delivery's lease is extended accordingly.
    fn extra_time(&self) -> Duration {
        Duration::ZERO
    }

    /// Makes one attempt, in one request. Ends within the call budget that the provider was built with plus
    /// `extra_time`; the worker's own time limit is only a safety net.
    fn send<'a>(&'a self, request: SendRequest<'a>) -> BoxFuture<'a, Outcome>;

    /// Makes attempts of several deliveries in one request. Returns one outcome for each of `requests`, in their order.
    ///
    /// `requests`: of one channel whose capability has a batch, and at most as many as that batch allows. The default
    /// sends them one after the other.
    fn send_batch<'a>(&'a self, requests: Vec<SendRequest<'a>>) -> BoxFuture<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(requests.len());
            for request in requests {
                outcomes.push(self.send(request).await);
            }
            outcomes
        })
    }

    /// Asks the vendor whether it accepted an earlier attempt of this delivery. `request.attempt` is the present
    /// attempt, which is not sent yet; only lower numbers count as earlier.
    fn lookup<'a>(&'a self, _request: SendRequest<'a>) -> BoxFuture<'a, LookupResult> {
        Box::pin(std::future::ready(LookupResult::Inconclusive))
    }

    /// Reads the receipts in a callback. Authenticates the caller before it reads the body.
    ///
    /// # Errors
    /// [`CallbackError`]: nothing was read, and the caller is refused.
    fn parse_receipts(&self, _callback: &Callback<'_>) -> Result<Receipts, CallbackError> {
        Err(CallbackError::NotSupported)
    }

    /// Reads the next page of the vendor's list of results. Returns `None` if the vendor has no such list.
    ///
    /// `cursor`: that of the last page, or `None` for the first poll; a cursor that cannot be read counts as none.
    /// Called by one process at a time.
    ///
    /// The future returns `Err` with a text for the log if the page cannot be read; the cursor then stays where it is.
    fn poll_receipts<'a>(
        &'a self,
        _cursor: Option<&'a str>,
        _now: DateTime<Utc>,
    ) -> Option<BoxFuture<'a, Result<ReceiptPage, String>>> {
        None
    }

    /// Checks, for `doctor`, that the vendor can be reached, without sending a message. Returns a sentence either way,
    /// which holds no secret: `Ok` if it answers, `Err` with what is wrong.
    fn check(&self) -> BoxFuture<'_, Result<String, String>>;
}

/// A provider in use, with its capabilities and the operator's terms (weight, limit, profile).
pub struct Account {
    pub provider: Arc<dyn Provider>,
    pub capabilities: Vec<Capability>,
    pub terms: Terms,
}

impl Account {
    /// Combines a provider with the operator's terms. Where `terms` set no limit or profile, the provider's default
    /// applies.
    pub fn new(provider: Arc<dyn Provider>, terms: Terms) -> Account {
        let (limit, profile) = (terms.limit.or(provider.default_limit()), terms.profile.or(provider.default_profile()));
        let terms = Terms { limit, profile, ..terms };
        Account { capabilities: provider.capabilities(), provider, terms }
    }

    /// The account's name in settings, attempts and metrics.
    pub fn name(&self) -> &str {
        self.provider.name()
    }

    /// Returns what the account can do on a channel, or `None` if it does not serve it.
    pub fn capability(&self, channel: Channel) -> Option<&Capability> {
        self.capabilities.iter().find(|c| c.channel == channel)
    }

    /// Returns what happens after an unknown outcome on this channel: the more careful of the provider's and the
    /// settings' policy. With the profile `internal` the provider's policy is to retry.
    pub fn on_unknown(&self, channel: Channel, retry: &config::Retry) -> OnUnknown {
        let policy = match self.terms.profile {
            Some(Profile::Internal) => OnUnknown::Retry,
            Some(Profile::Gateway) | None => self.capability(channel).map_or(channel.on_unknown(), |c| c.on_unknown),
        };
        retry.on_unknown(channel).map_or(policy, |set| policy.max(set))
    }
}

impl From<Arc<dyn Provider>> for Account {
    fn from(provider: Arc<dyn Provider>) -> Account {
        Account::new(provider, Terms::default())
    }
}

/// The provider accounts of this process, by name and by channel.
#[derive(Clone, Default)]
pub struct Providers {
    by_name: BTreeMap<String, Arc<Account>>,
    by_channel: HashMap<Channel, Vec<Arc<Account>>>,
}

impl Providers {
    /// Indexes the accounts. Within a channel they keep the order of `accounts`.
    ///
    /// # Errors
    /// `Error::Usage` if two accounts have the same name.
    pub fn new(accounts: impl IntoIterator<Item = Account>) -> Result<Providers> {
        let mut providers = Providers::default();
        for account in accounts {
            let account = Arc::new(account);
            for capability in &account.capabilities {
                providers.by_channel.entry(capability.channel).or_default().push(account.clone());
            }
            let name = account.name().to_owned();
            if providers.by_name.insert(name.clone(), account).is_some() {
                return Err(Error::Usage(format!("two providers are named '{name}'; give each its own name")));
            }
        }
        Ok(providers)
    }

    /// Returns the account of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// Returns the accounts that serve a channel, in the order of the settings. Empty if no account serves it.
    pub fn for_channel(&self, channel: Channel) -> &[Arc<Account>] {
        self.by_channel.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns what happens after an unknown outcome on this channel: the most careful policy of all its accounts.
    /// Without an account it is the channel's own policy.
    pub fn on_unknown(&self, channel: Channel, retry: &config::Retry) -> OnUnknown {
        let all = self.for_channel(channel).iter().map(|account| account.on_unknown(channel, retry));
        all.max().unwrap_or(channel.on_unknown())
    }

    /// Returns the channels that at least one account serves, sorted.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = self.by_channel.keys().copied().collect();
        channels.sort();
        channels
    }

    /// Returns the served channels that partners may post messages to: all but WEBHOOK, over which only the hub's own
    /// events go.
    pub fn postable_channels(&self) -> Vec<Channel> {
        let mut channels = self.channels();
        channels.retain(|channel| *channel != Channel::Webhook);
        channels
    }

    /// Returns the channels on which at least one account has delivery receipts.
    pub fn channels_with_receipts(&self) -> BTreeSet<Channel> {
        let has_receipts = |channel: &Channel| {
            self.for_channel(*channel)
                .iter()
                .any(|a| a.capability(*channel).is_some_and(|of| of.receipt_within.is_some()))
        };
        self.postable_channels().into_iter().filter(has_receipts).collect()
    }

    /// Returns the body limits of channels where an account takes less than the channel allows. The smallest limit
    /// counts, because any account of the channel may have to take the message.
    pub fn body_limits(&self) -> BTreeMap<Channel, LengthLimit> {
        let limit = |(channel, accounts): (&Channel, &Vec<Arc<Account>>)| {
            let limit = channel.body_limit()?;
            let max =
                accounts.iter().filter_map(|a| a.capability(*channel)?.body).min().filter(|max| *max < limit.max)?;
            Some((*channel, LengthLimit { max, ..limit }))
        };
        self.by_channel.iter().filter_map(limit).collect()
    }

    /// Iterates over the accounts by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_name.values()
    }
}
