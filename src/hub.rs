//! What a flow works with: settings, store, providers, clock, metrics, and the hints that wake workers.

pub mod paces;
pub mod provider_state;
pub mod provider_states;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, Semaphore, mpsc};

use crate::clock::Clock;
use crate::config::Settings;
use crate::crypt::{self, Keyring};
use crate::error::{Error, Result};
use crate::flow::intake::{Intake, Request};
use crate::id::{Tsid, Tsids};
use crate::limits;
use crate::model::alert::Cause;
use crate::model::fairness::Fairness;
use crate::model::gate::Gates;
use crate::model::intake::{Installation, IntakePolicy};
use crate::model::lane::Lane;
use crate::model::partner::{Account, Partner};
use crate::model::rate::Lease;
use crate::model::strikes::Strikes;
use crate::model::token::TokenKeys;
use crate::model::watermark::{Place, Ready};
use crate::provider::Providers;
use crate::shutdown::Shutdown;
use crate::store::endpoint::HeardBack;
use crate::store::{self, Store};
use crate::telemetry::Metrics;

use paces::Paces;
use provider_states::ProviderStates;

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
    pub wake: Wake,
    fairness: Mutex<Fairness>,
    pub intake: Intake,
    ids: Tsids,
    /// This process, as its hints name it.
    pub process: Tsid,
    /// Signs list cursors; the same in every process of this installation.
    pub cursor_key: Vec<u8>,
    /// Seals and opens secrets at rest.
    pub keyring: Keyring,
    /// Under which secrets are hashed.
    pub pepper: Vec<u8>,
    token_keys: RwLock<Arc<TokenKeys>>,
    token_keys_read: Mutex<DateTime<Utc>>,
    pub reading_keys: tokio::sync::Mutex<()>,
    accounts: Mutex<Accounts>,
    rates: Mutex<HashMap<Tsid, Arc<Rate>>>,
    strikes: Mutex<Strikes>,
    /// Counts that go over many rows, on a worker's connection: one at a time.
    pub counting: Semaphore,
    /// Bodies of providers, each perhaps of thousands of results: so many at the same time.
    pub receiving: Semaphore,
    /// When the log last told of a refused callback of a provider.
    refused: Mutex<HashMap<String, DateTime<Utc>>>,
    gates: Mutex<Gates>,
    /// What operators are to be told of, since it was last looked at: how often, and in which words.
    causes: Mutex<HashMap<Cause, (u64, String)>>,
    /// What may be asked of which provider now.
    pub provider_states: Arc<ProviderStates>,
    /// What single destinations take.
    pub paces: Paces,
    /// What endpoints answered since it was last written.
    heard_back: Mutex<HashMap<Tsid, HeardBack>>,
}

/// Accounts read of late. Forgotten as a whole when anything about any of them changed, which is rare.
#[derive(Default)]
struct Accounts {
    by_client: HashMap<String, (DateTime<Utc>, Arc<Account>)>,
    /// Counts the times of forgetting: what was read before one is not remembered after it.
    generation: u64,
}

/// What this process has in hand of a partner's request limit, and whose turn it is to ask for more.
pub struct Rate {
    lease: Mutex<Lease>,
    pub asking: tokio::sync::Mutex<()>,
    /// Its batches that are read and written at the same time.
    pub batches: Semaphore,
}

impl Default for Rate {
    fn default() -> Rate {
        Rate {
            lease: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
            batches: Semaphore::new(limits::BATCHES_OF_ONE),
        }
    }
}

impl Rate {
    /// Held briefly, never over an await.
    pub fn lease(&self) -> MutexGuard<'_, Lease> {
        held(&self.lease)
    }
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

impl Hub {
    /// Connects to a migrated database. Starts the intake's writers, nothing else.
    pub async fn start(parts: Parts) -> Result<Hub> {
        let Parts { settings, store, providers, clock, shutdown, master_keys } = parts;
        let ids = Tsids::new(store::hub::node(store.api()).await?);
        calibrate(&store, &clock).await?;
        let started = clock.unix_millis();
        let cursor_key = store::hub::key(store.api(), "cursor", &crypt::random()).await?;
        let pepper = store::hub::key(store.api(), "pepper", &crypt::random()).await?;
        let own = store::hub::key(store.api(), "master", &crypt::random()).await?;
        let own = own.try_into().map_err(|_| Error::Internal("the database's master key is not one".into()))?;
        let keyring = Keyring::new(master_keys.into_iter().chain([own]));
        let (intake, requests) = mpsc::channel::<Request>(limits::INTAKE_QUEUE);
        let (writers, fair) = (settings.api.intake_writers, settings.api.fair_unfinished);
        let provider_states = Arc::new(ProviderStates::new(&providers));
        let installation = Arc::new(installation(&settings, &providers));
        let hub = Hub(Arc::new(Inner {
            settings,
            store,
            providers,
            installation,
            clock,
            metrics: Metrics::new()?,
            shutdown,
            wake: Wake::default(),
            fairness: Mutex::new(Fairness::new(fair)),
            intake: Intake::new(intake),
            process: ids.next(started),
            ids,
            cursor_key,
            keyring,
            pepper,
            token_keys: RwLock::default(),
            token_keys_read: Mutex::new(DateTime::UNIX_EPOCH),
            reading_keys: tokio::sync::Mutex::default(),
            accounts: Mutex::default(),
            rates: Mutex::default(),
            strikes: Mutex::default(),
            counting: Semaphore::new(1),
            receiving: Semaphore::new(limits::RECEIPT_BODIES),
            refused: Mutex::default(),
            gates: Mutex::default(),
            causes: Mutex::default(),
            provider_states,
            paces: Paces::default(),
            heard_back: Mutex::default(),
        }));
        crate::flow::sign_in::read_keys(&hub).await?;
        crate::flow::intake::start_writers(&hub, requests, writers);
        Ok(hub)
    }

    pub fn next_id(&self) -> Tsid {
        self.ids.next(self.clock.unix_millis())
    }

    /// Who has how much unfinished. Held briefly, never over an await.
    pub fn fairness(&self) -> MutexGuard<'_, Fairness> {
        held(&self.fairness)
    }

    /// Who failed to sign in of late. Held briefly.
    pub fn strikes(&self) -> MutexGuard<'_, Strikes> {
        held(&self.strikes)
    }

    /// How many webhooks are on their way where. Held briefly.
    pub fn gates(&self) -> MutexGuard<'_, Gates> {
        held(&self.gates)
    }

    /// Whether the log is to tell of another refused callback of this provider, one of ours.
    pub fn tells_refused(&self, provider: &str) -> bool {
        let (now, mut refused) = (self.clock.now(), held(&self.refused));
        let tells = refused.get(provider).is_none_or(|told| now - *told >= limits::REFUSED_TOLD_EVERY);
        if tells {
            refused.insert(provider.to_owned(), now);
        }
        tells
    }

    /// Operators are to know of this. In memory: whoever looks next writes it.
    pub fn note_cause(&self, cause: Cause, detail: String) {
        let mut causes = held(&self.causes);
        let noted = causes.entry(cause).or_default();
        *noted = (noted.0 + 1, detail);
    }

    pub fn take_causes(&self) -> HashMap<Cause, (u64, String)> {
        std::mem::take(&mut *held(&self.causes))
    }

    /// They could not be written: whoever looks next does.
    pub fn keep_causes(&self, untold: HashMap<Cause, (u64, String)>) {
        let mut causes = held(&self.causes);
        for (cause, (times, detail)) in untold {
            let noted = causes.entry(cause).or_insert((0, detail));
            noted.0 += times;
        }
    }

    /// An endpoint answered.
    pub fn heard_back(&self, endpoint_id: Tsid, succeeded: bool, at: DateTime<Utc>) {
        let mut all = held(&self.heard_back);
        let heard = all.entry(endpoint_id).or_default();
        if succeeded {
            (heard.success_at, heard.failing_since) = (Some(at), None);
        } else {
            heard.failure_at = Some(at);
            heard.failing_since.get_or_insert(at);
        }
    }

    pub fn take_heard_back(&self) -> Vec<(Tsid, HeardBack)> {
        let mut heard: Vec<_> = std::mem::take(&mut *held(&self.heard_back)).into_iter().collect();
        // Two processes that write theirs never wait for each other in a ring.
        heard.sort_by_key(|(endpoint_id, _)| *endpoint_id);
        heard
    }

    /// What could not be written, before what came since.
    pub fn put_back_heard(&self, heard: Vec<(Tsid, HeardBack)>) {
        let mut all = held(&self.heard_back);
        for (endpoint_id, before) in heard {
            let since = all.entry(endpoint_id).or_default();
            // A success since then ended what failed before it.
            if since.success_at.is_none() {
                since.failing_since = before.failing_since.or(since.failing_since);
            }
            since.success_at = since.success_at.or(before.success_at);
            since.failure_at = since.failure_at.or(before.failure_at);
        }
    }

    pub fn rate_of(&self, partner_id: Tsid) -> Arc<Rate> {
        held(&self.rates).entry(partner_id).or_default().clone()
    }

    pub fn token_keys(&self) -> Arc<TokenKeys> {
        self.token_keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_token_keys(&self, keys: TokenKeys) {
        *self.token_keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Made-up key ids must not make us ask the database for each.
    pub fn may_read_keys_again(&self) -> bool {
        let (now, mut read) = (self.clock.now(), held(&self.token_keys_read));
        let may = now >= *read + limits::KEYS_READ_EVERY || *read > now;
        if may {
            *read = now;
        }
        may
    }

    /// An account as it was read since then.
    pub fn remembered(&self, client_id: &str, since: DateTime<Utc>) -> Option<Arc<Account>> {
        let accounts = held(&self.accounts);
        let (read_at, account) = accounts.by_client.get(client_id)?;
        (*read_at >= since).then(|| account.clone())
    }

    pub fn accounts_generation(&self) -> u64 {
        held(&self.accounts).generation
    }

    /// Remembers an account that was read in this generation, if nothing changed meanwhile.
    pub fn remember(&self, account: Arc<Account>, read_at: DateTime<Utc>, generation: u64) {
        let mut accounts = held(&self.accounts);
        if accounts.generation == generation {
            accounts.by_client.insert(account.client_id.clone(), (read_at, account));
        }
    }

    /// Something about a partner or a key changed.
    pub fn forget_accounts(&self) {
        let mut accounts = held(&self.accounts);
        accounts.generation += 1;
        accounts.by_client.clear();
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

/// Keeps this process's clock in step with the database's; returns how far this host's own is off.
pub async fn calibrate(store: &Store, clock: &Clock) -> Result<chrono::TimeDelta> {
    let asked = Clock::host_now();
    let said = store::hub::clock(store.api()).await?;
    Ok(clock.calibrate(asked, said, Clock::host_now()))
}

/// What just became ready, where, and since when. Hints for the workers of this process, and through the teller for all
/// others. The time matters: what was committed late lies behind a watermark, and the hint moves that back.
#[derive(Default)]
pub struct Wake {
    inboxes: [Inbox; SHARES.len()],
    elsewhere: Mutex<Ready>,
    pub elsewhere_notify: Notify,
}

impl Wake {
    /// Something became ready here: tell everybody. After the commit, never before.
    pub fn ready(&self, places: impl IntoIterator<Item = (Place, DateTime<Utc>)>) {
        let mut ready = Ready::default();
        places.into_iter().for_each(|(place, since)| ready.add(place, since));
        if ready.places.is_empty() {
            return;
        }
        held(&self.elsewhere).take_in(&ready);
        self.elsewhere_notify.notify_one();
        self.heard(&ready);
    }

    /// Another process says so.
    pub fn heard(&self, ready: &Ready) {
        for (share, inbox) in SHARES.iter().zip(&self.inboxes) {
            let mine = ready.places.iter().filter(|(place, _)| share.has(place.1));
            let mine = Ready { places: mine.map(|(p, at)| (*p, *at)).collect(), anywhere: ready.anywhere };
            if mine.anywhere || !mine.places.is_empty() {
                held(&inbox.ready).take_in(&mine);
                inbox.notify.notify_one();
            }
        }
    }

    /// What concerns the lanes of this claiming loop.
    pub fn inbox(&self, share: Share) -> &Inbox {
        &self.inboxes[usize::from(share.webhooks) * 2 + usize::from(share.overflow)]
    }

    /// Something that all claiming loops wait for may have changed.
    pub fn look_again(&self) {
        self.inboxes.iter().for_each(|inbox| inbox.notify.notify_one());
    }

    pub fn take_elsewhere(&self) -> Ready {
        std::mem::take(&mut *held(&self.elsewhere))
    }
}

/// The lanes that one claiming loop takes from: of webhooks or of all other channels, prompt or overflow. So a claim of
/// hundreds out of a flood holds up no claim of one, and strangers' endpoints hold up no channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub webhooks: bool,
    pub overflow: bool,
}

/// In the order of their inboxes.
const SHARES: [Share; 4] = [
    Share { webhooks: false, overflow: false },
    Share { webhooks: false, overflow: true },
    Share { webhooks: true, overflow: false },
    Share { webhooks: true, overflow: true },
];

impl Share {
    pub fn has(self, lane: Lane) -> bool {
        lane.is_webhook() == self.webhooks && lane.is_overflow() == self.overflow
    }
}

/// What one claiming loop has to know.
#[derive(Default)]
pub struct Inbox {
    ready: Mutex<Ready>,
    pub notify: Notify,
}

impl Inbox {
    pub fn take(&self) -> Ready {
        std::mem::take(&mut *held(&self.ready))
    }
}

/// What is kept in here has no state in between that a panic could leave behind.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
