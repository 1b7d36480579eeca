//! Providers: accounts at vendors that take our messages, each an adapter behind one trait. A simulator of each vendor
//! stands in `simulator/`: a real server on loopback that adapters cannot tell from the vendor.
//!
//! An adapter makes **one** request per call, on one socket, without redirects or retries of its own, and answers with an
//! `Outcome`. It must know which failures are *definite* (nothing can have been taken: DNS, refused connection, TLS, an
//! answer that says no) and which are *unknown* (cut or silent after the request was written). When in doubt: unknown.

pub mod adapter;
mod basic;
mod gateway;
pub mod guard;
pub mod http;
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
mod smtp_dialog;
mod smtp_mail;
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

/// What is handed to a provider: one delivery's content and destination.
#[derive(Clone)]
pub struct SendRequest<'a> {
    pub key: DeliveryKey,
    pub attempt: i16,
    pub channel: Channel,
    pub kind: &'a str,
    pub to: &'a str,
    pub content: &'a Content,
    pub created_at: DateTime<Utc>,
    pub extra: Extra<'a>,
}

impl SendRequest<'_> {
    /// What the vendor is asked to carry and to repeat in its receipts.
    pub fn reference(&self) -> AttemptReference {
        AttemptReference { key: self.key, attempt: self.attempt }
    }
}

/// What a channel adds to its letters.
#[derive(Clone, Copy)]
pub enum Extra<'a> {
    Nothing,
    Webhook(&'a WebhookRequest),
}

/// One webhook, ready to be signed and sent: signing is the last thing done, over the exact bytes.
#[derive(Clone)]
pub struct WebhookRequest {
    pub partner_id: Tsid,
    pub url: String,
    /// Stable over retries: `webhook-id`.
    pub event_id: String,
    pub body: Vec<u8>,
    /// The owner's own headers, beside ours.
    pub headers: BTreeMap<String, String>,
    pub secret: String,
    /// During a rotation, the secret before.
    pub former_secret: Option<String>,
    /// Unix seconds, as signed.
    pub timestamp: i64,
}

pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a provider says of something that we do not know whether it took (`OnUnknown::Lookup`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Looked {
    /// It has it: the former attempt was accepted after all.
    Taken { provider_ref: Option<String> },
    /// It does not have it, and would by now: it may be sent again.
    NotTaken,
    /// It cannot say, or not yet.
    CannotTell,
}

/// A request at `/v1/receipts/{provider}`, as it came.
#[derive(Debug, Clone, Copy)]
pub struct Callback<'a> {
    pub headers: &'a HeaderMap,
    /// Without the question mark.
    pub query: &'a str,
    pub body: &'a [u8],
    pub now: DateTime<Utc>,
}

/// What a provider told: each piece by itself, for one that cannot be read must not lose the others.
pub type Receipts = Vec<Result<Receipt, String>>;

/// Why nothing was taken from a callback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// This provider calls nobody back.
    NotExpected,
    /// It does not come from the provider, as far as can be seen. What is wrong is for our log, not for the caller.
    Forged(String),
    /// It does, but cannot be read.
    Unreadable(String),
}

/// A slice of a provider's list of results.
#[derive(Debug, Default)]
pub struct Polled {
    pub receipts: Receipts,
    /// From where on to ask next. Kept in the database, together with what was told.
    pub cursor: String,
    /// There is more right now.
    pub more: bool,
}

/// One account at a vendor. Adding a vendor is a file with one of these, and its line in `ADAPTERS`.
pub trait Provider: Send + Sync + 'static {
    /// As the settings, the attempts and the metrics name it.
    fn name(&self) -> &str;

    /// What it can do, a line for each channel. Asked once.
    fn capabilities(&self) -> Vec<Capability>;

    /// How many calls it takes at a time, from one process.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// To what its "too fast" (429) applies.
    fn limited_by(&self) -> LimitScope {
        LimitScope::Message
    }

    /// What its vendor allows, where the settings say nothing.
    fn default_limit(&self) -> Option<RateLimit> {
        None
    }

    /// How carefully it is asked again, where the settings say nothing.
    fn default_profile(&self) -> Option<Profile> {
        None
    }

    /// How much longer than the call budget a call may take, where the protocol lets the other side answer late though it
    /// has everything. The lease is extended meanwhile.
    fn extra_time(&self) -> Duration {
        Duration::ZERO
    }

    /// One attempt. Ends within the call budget it was built with and its extra time, always: the worker's own limit
    /// behind it is a net.
    fn send<'a>(&'a self, letter: SendRequest<'a>) -> Pending<'a, Outcome>;

    /// Attempts of several deliveries in one request; as many outcomes, in their order. Only of channels whose capability has
    /// a batch, and no more than that.
    fn send_batch<'a>(&'a self, letters: Vec<SendRequest<'a>>) -> Pending<'a, Vec<Outcome>> {
        Box::pin(async move {
            let mut outcomes = Vec::with_capacity(letters.len());
            for letter in letters {
                outcomes.push(self.send(letter).await);
            }
            outcomes
        })
    }

    /// Asks whether it has what an earlier attempt (`letter.attempt` is the present one) may have brought it.
    fn lookup<'a>(&'a self, _letter: SendRequest<'a>) -> Pending<'a, Looked> {
        Box::pin(std::future::ready(Looked::CannotTell))
    }

    /// Reads what it calls back with, after finding out that it is the caller: before anything of the body is believed.
    fn receipts(&self, _callback: &Callback<'_>) -> Result<Receipts, Refused> {
        Err(Refused::NotExpected)
    }

    /// The next slice of its list of results; None: it has none to ask for. Asked by one process at a time.
    fn poll<'a>(
        &'a self,
        _cursor: Option<&'a str>,
        _now: DateTime<Utc>,
    ) -> Option<Pending<'a, Result<Polled, String>>> {
        None
    }

    /// For `doctor`: can it be reached, without sending anything? A sentence either way; never a secret in it.
    fn check(&self) -> Pending<'_, Result<String, String>>;
}

/// A provider in use, and on which terms.
pub struct Account {
    pub provider: Arc<dyn Provider>,
    pub capabilities: Vec<Capability>,
    pub terms: Terms,
}

impl Account {
    pub fn new(provider: Arc<dyn Provider>, terms: Terms) -> Account {
        let (limit, profile) = (terms.limit.or(provider.default_limit()), terms.profile.or(provider.default_profile()));
        let terms = Terms { limit, profile, ..terms };
        Account { capabilities: provider.capabilities(), provider, terms }
    }

    pub fn name(&self) -> &str {
        self.provider.name()
    }

    pub fn of(&self, channel: Channel) -> Option<&Capability> {
        self.capabilities.iter().find(|c| c.channel == channel)
    }

    /// What to do when an outcome on this channel is unknown: the more careful of what the provider and the settings say.
    pub fn on_unknown(&self, channel: Channel, retry: &config::Retry) -> OnUnknown {
        let own = match self.terms.profile {
            Some(Profile::Internal) => OnUnknown::Retry,
            Some(Profile::Gateway) | None => self.of(channel).map_or(channel.on_unknown(), |c| c.on_unknown),
        };
        retry.on_unknown(channel).map_or(own, |set| own.max(set))
    }
}

impl From<Arc<dyn Provider>> for Account {
    fn from(provider: Arc<dyn Provider>) -> Account {
        Account::new(provider, Terms::default())
    }
}

/// The providers of this process, by name and by channel.
#[derive(Clone, Default)]
pub struct Providers {
    by_name: BTreeMap<String, Arc<Account>>,
    by_channel: HashMap<Channel, Vec<Arc<Account>>>,
}

impl Providers {
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

    pub fn named(&self, name: &str) -> Option<&Arc<Account>> {
        self.by_name.get(name)
    }

    /// Those that serve a channel, in the order of the settings.
    pub fn of(&self, channel: Channel) -> &[Arc<Account>] {
        self.by_channel.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    /// What to do when an outcome on this channel is unknown, whichever of its providers was asked: the most careful of
    /// all.
    pub fn on_unknown(&self, channel: Channel, retry: &config::Retry) -> OnUnknown {
        let all = self.of(channel).iter().map(|account| account.on_unknown(channel, retry));
        all.max().unwrap_or(channel.on_unknown())
    }

    /// The channels that something here serves, in the channels' own order.
    pub fn channels(&self) -> Vec<Channel> {
        let mut channels: Vec<Channel> = self.by_channel.keys().copied().collect();
        channels.sort();
        channels
    }

    /// Those of them that messages are posted to: over WEBHOOK goes only what the hub itself tells.
    pub fn postable(&self) -> Vec<Channel> {
        let mut channels = self.channels();
        channels.retain(|channel| *channel != Channel::Webhook);
        channels
    }

    /// Channels on which at least one provider tells later what became of what it took.
    pub fn with_receipts(&self) -> BTreeSet<Channel> {
        let tells = |channel: &Channel| {
            self.of(*channel).iter().any(|a| a.of(*channel).is_some_and(|of| of.receipt_within.is_some()))
        };
        self.postable().into_iter().filter(tells).collect()
    }

    /// What bodies may hold where a provider takes less than its channel: the least of them, for any may have to take it.
    pub fn limits(&self) -> BTreeMap<Channel, LengthLimit> {
        let limit = |(channel, accounts): (&Channel, &Vec<Arc<Account>>)| {
            let limit = channel.body_limit()?;
            let max = accounts.iter().filter_map(|a| a.of(*channel)?.body).min().filter(|max| *max < limit.max)?;
            Some((*channel, LengthLimit { max, ..limit }))
        };
        self.by_channel.iter().filter_map(limit).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_name.values()
    }
}
