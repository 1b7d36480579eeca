//! What a flow works with: settings, store, providers, clock, metrics, and what this process remembers. State alone,
//! each kind of it a type with a lock of its own in a file of its own; no file here names a flow. `flow::start` makes a
//! hub that serves.

pub mod accounts;
pub mod causes;
pub mod endpoint_answers;
pub mod intake_queue;
mod lock;
pub mod paces;
pub mod provider_state;
pub mod provider_states;
pub mod rates;
pub mod refused_callbacks;
pub mod token_keys;
pub mod wake;

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::Settings;
use crate::crypt::{self, Keyring};
use crate::error::Result;
use crate::id::{Tsid, Tsids};
use crate::limits;
use crate::model::access::sign_in_throttle::SignInThrottle;
use crate::model::fairness::Fairness;
use crate::model::gate::Gates;
use crate::model::intake::{Installation, IntakePolicy};
use crate::model::partner::Partner;
use crate::provider::Providers;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::telemetry::Metrics;

use accounts::Accounts;
use causes::Causes;
use endpoint_answers::EndpointAnswers;
use intake_queue::{IntakeQueue, Requests};
use lock::lock;
use paces::Paces;
use provider_states::ProviderStates;
use rates::Rates;
use refused_callbacks::RefusedCallbacks;
use token_keys::KnownKeys;
use wake::Wake;

#[derive(Clone)]
pub struct Hub(Arc<Inner>);

pub struct Inner {
    pub settings: Settings,
    pub store: Store,
    pub providers: Providers,
    /// What messages are read by, as far as it is the same for all partners.
    installation: Arc<Installation>,
    pub clock: Clock,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    ids: Tsids,
    /// This process, as its hints name it.
    pub process: Tsid,
    /// Signs list cursors; the same in every process of this installation.
    pub cursor_key: Vec<u8>,
    /// Seals and opens secrets at rest.
    pub keyring: Keyring,
    /// Under which secrets are hashed.
    pub pepper: Vec<u8>,
    pub wake: Wake,
    pub intake: IntakeQueue,
    pub accounts: Accounts,
    pub token_keys: KnownKeys,
    pub rates: Rates,
    pub causes: Causes,
    pub endpoint_answers: EndpointAnswers,
    pub refused_callbacks: RefusedCallbacks,
    /// What may be asked of which provider now.
    pub provider_states: Arc<ProviderStates>,
    /// What single destinations take.
    pub paces: Paces,
    fairness: Mutex<Fairness>,
    strikes: Mutex<SignInThrottle>,
    gates: Mutex<Gates>,
    /// Counts that go over many rows, on a worker's connection: one at a time.
    pub counting: Semaphore,
    /// Bodies of providers, each perhaps of thousands of results: so many at the same time.
    pub receiving: Semaphore,
}

impl std::ops::Deref for Hub {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// What a hub is made from; all of it can be replaced by a test.
pub struct Parts {
    pub settings: Settings,
    pub store: Store,
    pub providers: Providers,
    pub clock: Clock,
    pub shutdown: Shutdown,
    /// The first seals; the installation's own, which it keeps in the database, stands behind them.
    pub master_keys: Vec<[u8; crypt::KEY_BYTES]>,
}

/// What the database says of this process and its installation.
pub struct Identity {
    /// Makes the ids of this process, unlike those of any other.
    pub ids: Tsids,
    pub cursor_key: Vec<u8>,
    pub pepper: Vec<u8>,
    /// The installation's own master key.
    pub master_key: [u8; crypt::KEY_BYTES],
}

impl Hub {
    /// A hub that remembers nothing yet, and the queue that its intake's writers take from. `parts.clock` is in step
    /// with the database's already: the first id is made here.
    ///
    /// # Errors
    /// `Error::Internal` if the metrics cannot be registered.
    pub fn new(parts: Parts, identity: Identity) -> Result<(Hub, Requests)> {
        let Parts { settings, store, providers, clock, shutdown, master_keys } = parts;
        let Identity { ids, cursor_key, pepper, master_key } = identity;
        let (intake, requests) = IntakeQueue::new();
        let hub = Inner {
            process: ids.next(clock.unix_millis()),
            ids,
            cursor_key,
            keyring: Keyring::new(master_keys.into_iter().chain([master_key])),
            pepper,
            metrics: Metrics::new()?,
            wake: Wake::default(),
            intake,
            accounts: Accounts::default(),
            token_keys: KnownKeys::default(),
            rates: Rates::default(),
            causes: Causes::default(),
            endpoint_answers: EndpointAnswers::default(),
            refused_callbacks: RefusedCallbacks::default(),
            provider_states: Arc::new(ProviderStates::new(&providers)),
            installation: Arc::new(installation(&settings, &providers)),
            paces: Paces::default(),
            fairness: Mutex::new(Fairness::new(settings.api.fair_unfinished)),
            strikes: Mutex::default(),
            gates: Mutex::default(),
            counting: Semaphore::new(1),
            receiving: Semaphore::new(limits::RECEIPT_BODIES),
            settings,
            store,
            providers,
            clock,
            shutdown,
        };
        Ok((Hub(Arc::new(hub)), requests))
    }

    /// A new id, greater than all that this process made before.
    pub fn next_id(&self) -> Tsid {
        self.ids.next(self.clock.unix_millis())
    }

    /// Which partner has how much unfinished. Held briefly, never over an await.
    pub fn fairness(&self) -> MutexGuard<'_, Fairness> {
        lock(&self.fairness)
    }

    /// Failed sign-ins of late. Held briefly, never over an await.
    pub fn strikes(&self) -> MutexGuard<'_, SignInThrottle> {
        lock(&self.strikes)
    }

    /// How many webhooks are on their way where. Held briefly, never over an await.
    pub fn gates(&self) -> MutexGuard<'_, Gates> {
        lock(&self.gates)
    }

    /// By what a message that this partner posts now is read.
    pub fn intake_policy(&self, partner: &Arc<Partner>) -> IntakePolicy {
        IntakePolicy { installation: self.installation.clone(), partner: partner.clone(), now: self.clock.now() }
    }
}

/// What an installation can do, by its settings and providers.
fn installation(settings: &Settings, providers: &Providers) -> Installation {
    Installation {
        channels: providers.postable().into_iter().collect(),
        slack: settings.slack.names(),
        slack_default: settings.slack.default_name(),
        limits: providers.limits(),
        receipts: providers.with_receipts(),
        fallbacks: settings.channels.fallbacks.iter().copied().collect(),
    }
}
