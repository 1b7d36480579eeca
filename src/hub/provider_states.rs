//! All providers of this process: whose turn it is where several serve a channel, and how much may be claimed for one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use super::provider_state::ProviderState;
use crate::model::channel::Channel;
use crate::provider::Providers;

pub struct ProviderStates {
    by_name: HashMap<String, Arc<ProviderState>>,
    by_channel: HashMap<Channel, Vec<Arc<ProviderState>>>,
    /// Whose turn it is, where several serve a channel.
    turns: Mutex<HashMap<Channel, Vec<i64>>>,
    /// What claims under way may bring.
    expected: Mutex<HashMap<Channel, i64>>,
}

impl ProviderStates {
    pub fn new(providers: &Providers) -> ProviderStates {
        let state = |account: &Arc<_>| Arc::new(ProviderState::new(Arc::clone(account)));
        let by_name: HashMap<String, Arc<ProviderState>> =
            providers.iter().map(|account| (account.name().to_owned(), state(account))).collect();
        let of = |channel| {
            let states = providers.of(channel).iter().filter_map(|account| by_name.get(account.name()).cloned());
            (channel, states.collect())
        };
        let by_channel = providers.channels().into_iter().map(of).collect();
        ProviderStates { by_name, by_channel, turns: Mutex::default(), expected: Mutex::default() }
    }

    /// Those that serve a channel, in the order of the settings.
    pub fn of(&self, channel: Channel) -> &[Arc<ProviderState>] {
        self.by_channel.get(&channel).map(Vec::as_slice).unwrap_or_default()
    }

    pub fn named(&self, name: &str) -> Option<&Arc<ProviderState>> {
        self.by_name.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<ProviderState>> {
        self.by_name.values()
    }

    /// Who is next among these (index, weight): each as often as its weight says, and evenly in between.
    pub fn turn(&self, channel: Channel, among: &[(usize, u32)]) -> Option<usize> {
        if let [(only, _)] = among {
            return Some(*only);
        }
        let mut turns = lock(&self.turns);
        let credit = turns.entry(channel).or_insert_with(|| vec![0; self.of(channel).len()]);
        let weight = |weight: u32| i64::from(weight.max(1));
        among.iter().for_each(|(n, w)| credit[*n] += weight(*w));
        let next = among.iter().map(|(n, _)| *n).max_by_key(|n| (credit[*n], std::cmp::Reverse(*n)))?;
        credit[next] -= among.iter().map(|(_, w)| weight(*w)).sum::<i64>();
        Some(next)
    }

    /// How many deliveries of a channel may be claimed now.
    pub fn room(&self, channel: Channel, now: DateTime<Utc>) -> i64 {
        let states = self.of(channel);
        if states.iter().any(|state| state.is_plain()) {
            return i64::MAX;
        }
        let room = states.iter().fold(0i64, |room, state| room.saturating_add(state.room(channel, now)));
        let expected = lock(&self.expected);
        room.saturating_sub(expected.get(&channel).copied().unwrap_or(0)).max(0)
    }

    /// A claim is under way that may bring so many; until it has.
    pub fn expect(self: &Arc<ProviderStates>, takes: impl Iterator<Item = (Channel, i64)>) -> Expected {
        let bounded = |channel: &Channel| !self.of(*channel).iter().any(|state| state.is_plain());
        let takes: Vec<(Channel, i64)> = takes.filter(|(channel, _)| bounded(channel)).collect();
        if !takes.is_empty() {
            let mut expected = lock(&self.expected);
            takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() += n);
        }
        Expected { states: self.clone(), takes }
    }

    /// When the next provider may be asked that may not be now.
    pub fn due(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.by_name.values().filter_map(|state| state.due(now)).filter(|at| *at > now).min()
    }
}

/// Room that a claim under way may need.
pub struct Expected {
    states: Arc<ProviderStates>,
    takes: Vec<(Channel, i64)>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        if self.takes.is_empty() {
            return;
        }
        let mut expected = lock(&self.states.expected);
        self.takes.iter().for_each(|(channel, n)| *expected.entry(*channel).or_default() -= n);
    }
}
