//! Providers: accounts at vendors that take our messages, each an adapter behind one trait. A simulator of each vendor
//! stands in `simulator/`: a real server on loopback that adapters cannot tell from the vendor.
//!
//! An adapter makes **one** request per call, on one socket, without redirects or retries of its own, and answers with an
//! `Outcome`. It must know which failures are *definite* (nothing can have been taken: DNS, refused connection, TLS, an
//! answer that says no) and which are *unknown* (cut or silent after the request was written). When in doubt: unknown.

pub mod guard;
pub mod http;
pub mod mock;
pub mod simulator;
pub mod slack;
pub mod smtp;
pub mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::id::Tsid;
use crate::model::channel::{Channel, Limit, OnUnknown};
use crate::model::delivery::{Key, Outcome};
use crate::model::message::Content;

/// What is handed to a provider: one delivery's content and destination.
#[derive(Clone)]
pub struct Letter<'a> {
    pub key: Key,
    pub attempt: i16,
    pub kind: &'a str,
    pub to: &'a str,
    pub content: &'a Content,
    pub created_at: DateTime<Utc>,
    /// For webhooks: what to send where.
    pub parcel: Option<&'a Parcel>,
}

/// One webhook, ready to be signed and sent: signing is the last thing done, over the exact bytes.
#[derive(Clone)]
pub struct Parcel {
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

pub trait Provider: Send + Sync + 'static {
    /// As the settings, the attempts and the metrics name it.
    fn name(&self) -> &str;

    fn channel(&self) -> Channel;

    /// What to do when the outcome of a call is unknown.
    fn on_unknown(&self) -> OnUnknown {
        self.channel().on_unknown()
    }

    /// The longest body it takes, in the unit of its channel's limit, where that is less than the channel's.
    fn body_limit(&self) -> Option<usize> {
        None
    }

    /// How many calls it takes at a time, from one process.
    fn at_once(&self) -> usize {
        usize::MAX
    }

    /// One attempt. Ends within the call budget it was built with, always: the worker's own limit behind it is a net.
    fn send<'a>(&'a self, letter: Letter<'a>) -> Pending<'a, Outcome>;

    /// For `doctor`: can it be reached, without sending anything? A sentence either way; never a secret in it.
    fn check(&self) -> Pending<'_, Result<String, String>>;
}

/// The providers of this process, by channel.
#[derive(Clone, Default)]
pub struct Providers {
    by_channel: HashMap<Channel, Arc<dyn Provider>>,
}

impl Providers {
    pub fn new(providers: impl IntoIterator<Item = Arc<dyn Provider>>) -> Providers {
        Providers { by_channel: providers.into_iter().map(|p| (p.channel(), p)).collect() }
    }

    pub fn of(&self, channel: Channel) -> Option<&Arc<dyn Provider>> {
        self.by_channel.get(&channel)
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

    /// What bodies may hold where a provider takes less than its channel.
    pub fn limits(&self) -> BTreeMap<Channel, Limit> {
        let limit = |(channel, provider): (&Channel, &Arc<dyn Provider>)| {
            let limit = channel.limit()?;
            let max = provider.body_limit().filter(|max| *max < limit.max)?;
            Some((*channel, Limit { max, ..limit }))
        };
        self.by_channel.iter().filter_map(limit).collect()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<dyn Provider>> {
        self.by_channel.values()
    }
}
