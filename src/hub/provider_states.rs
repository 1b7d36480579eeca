//! States of all providers: which one is next where several serve a channel, and how much may be claimed for a channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use super::provider_state::ProviderState;
use crate::model::channel::Channel;
use crate::provider::Providers;

/// The states of all provider accounts of this process.
pub struct ProviderStates {
    by_name: HashMap<String, Arc<ProviderState>>,
    by_channel: HashMap<Channel, Vec<Arc<ProviderState>>>,
    /// Per channel, the credit of each of its providers in the weighted round robin.
    credits: Mutex<HashMap<Channel, Vec<i64>>>,
    /// Per channel, how many deliveries running claims may bring.
    expected: Mutex<HashMap<Channel, i64>>,
}

impl ProviderStates {
    /// Makes the states of all accounts of the settings.
    pub fn new(providers: &Providers) -> ProviderStates {
        let state = |account: &Arc<_>| Arc::new(ProviderState::new(Arc::clone(account)));
        let by_name: HashMap<String, Arc<ProviderState>> =
            providers.iter().map(|account| (account.name().to_owned(), state(account))).collect();
        let of = |channel| {
            let states =
                providers.for_channel(channel).iter().filter_map(|account| by_name.get(account.name()).cloned());
            (channel, states.collect())
        };
        let by_channel = providers.channels().into_iter().map(of).collect();
        ProviderStates { by_name, by_channel, credits: Mutex::default(), expected: Mutex::default() }
    }

    /// Returns the providers that serve a channel, in the order of the settings.
    pub fn of(&self, channel: Channel) -> &[Arc<ProviderState>] {
        self.by_channel.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    /// Returns the provider of this name, if it is in the settings.
    pub fn named(&self, name: &str) -> Option<&Arc<ProviderState>> {
        self.by_name.get(name)
    }

    /// Returns all providers, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ProviderState>> {
        self.by_name.values()
    }

    /// Smooth weighted round robin: returns the index of the next provider among these (index, weight). Each comes as
    /// often as its weight says, evenly spread. None if `among` is empty.
    pub fn next_by_weight(&self, channel: Channel, among: &[(usize, u32)]) -> Option<usize> {
        if let [(only, _)] = among {
            return Some(*only);
        }
        let mut turns = lock(&self.credits);
        let credit = turns.entry(channel).or_insert_with(|| vec![0; self.of(channel).len()]);
        let weight = |weight: u32| i64::from(weight.max(1));
        among.iter().for_each(|(n, w)| credit[*n] += weight(*w));
        let next = among.iter().map(|(n, _)| *n).max_by_key(|n| (credit[*n], std::cmp::Reverse(*n)))?;
        credit[next] -= among.iter().map(|(_, w)| weight(*w)).sum::<i64>();
        Some(next)
    }

    /// Returns how many deliveries of a channel may be claimed at `now`, less those that running claims may bring.
    pub fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        let states = self.of(channel);
        if states.iter().any(|state| state.is_unrestricted()) {
            return i64::MAX;
        }
        let room = states.iter().fold(0i64, |room, state| room.saturating_add(state.room(channel, now)));
        let expected = lock(&self.expected);
        room.saturating_sub(expected.get(&channel).copied().unwrap_or(0)).max(0)
    }

    /// Counts a claim that may bring so many deliveries per channel, until the returned guard is dropped. Drop it after
    /// the claimed deliveries have their reservations.
    pub fn expect_claim(self: &Arc<ProviderStates>, takes: impl Iterator<Item = (Channel, i64)>) -> ExpectedClaim {
        let bounded = |channel: &Channel| !self.of(*channel).iter().any(|state| state.is_unrestricted());
        let takes: Vec<(Channel, i64)> = takes.filter(|(channel, _)| bounded(channel)).collect();
        if !takes.is_empty() {
            let mut expected = lock(&self.expected);
            takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() += n);
        }
        ExpectedClaim { states: self.clone(), takes }
    }

    /// Returns the next time when a provider that cannot be called now may be.
    pub fn next_retry_at(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.by_name.values().filter_map(|state| state.retry_at(now)).filter(|at| *at > now).min()
    }
}

/// Room that a running claim may need; freed when dropped.
pub struct ExpectedClaim {
    states: Arc<ProviderStates>,
    takes: Vec<(Channel, i64)>,
}

impl Drop for ExpectedClaim {
    fn drop(&mut self) {
        if self.takes.is_empty() {
            return;
        }
        let mut expected = lock(&self.states.expected);
        self.takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() -= n);
    }
}
