//! The hub: settings, store, providers, clock, metrics, and the in-memory state of this process. Every flow takes it.
//! Each kind of state is a type with its own lock in its own file; no file here names a flow. `flow::start` makes a hub
//! that serves.

pub mod accounts;
pub mod bulk;
pub mod causes;
pub mod chat_limits;
pub mod chat_queue;
pub mod connections;
pub mod endpoint_answers;
pub mod full_writes;
pub mod intake_queue;
pub mod live_notes;
mod lock;
pub mod marks;
pub mod paces;
pub mod provider_state;
pub mod provider_states;
pub mod rates;
pub mod recent_sends;
pub mod refused_callbacks;
pub mod rooms;
pub mod streams;
pub mod tail;
pub mod token_keys;
pub mod users;
pub mod wake;
pub mod watches;

use std::sync::{Arc, Mutex, MutexGuard};

use chrono::{DateTime, Utc};
use tokio::sync::Semaphore;

use crate::clock::Clock;
use crate::config::Settings;
use crate::crypt::{self, Keyring};
use crate::error::Result;
use crate::id::{Tsid, Tsids};
use crate::limits;
use crate::model::access::sign_in_throttle::SignInThrottle;
use crate::model::access::sign_up_throttle::SignUpThrottle;
use crate::model::bucket::Buckets;
use crate::model::concurrency::EndpointConcurrency;
use crate::model::fairness::Fairness;
use crate::model::intake::{Installation, IntakePolicy};
use crate::model::partner::Partner;
use crate::provider::Providers;
use crate::shutdown::Shutdown;
use crate::store::Store;
use crate::telemetry::Metrics;

use accounts::Accounts;
use bulk::Bulk;
use causes::Causes;
use chat_limits::ChatLimits;
use chat_queue::{ChatQueue, ChatRequests};
use connections::Connections;
use endpoint_answers::EndpointAnswers;
use full_writes::FullWrites;
use intake_queue::{IntakeQueue, Requests};
use live_notes::LiveNotes;
use lock::lock;
use marks::MarkQueue;
use paces::Paces;
use provider_states::ProviderStates;
use rates::Rates;
use recent_sends::RecentSends;
use refused_callbacks::RefusedCallbacks;
use rooms::Rooms;
use streams::Streams;
use tail::Tail;
use token_keys::KnownTokenKeys;
use users::Users;
use wake::Wake;
use watches::Watches;

/// Shared handle to the state of this process; cloning it is cheap.
#[derive(Clone)]
pub struct Hub(Arc<Inner>);

/// Where this process begins to read small queue tables.
#[derive(Default)]
pub struct Tails {
    /// Marks of ended messages, by block.
    pub endings: Tail<i64>,
    /// Changes of the statistics, by block.
    pub stat_deltas: Tail<i64>,
    /// Receipts that wait, by the time from which they are due.
    pub receipts: Tail<DateTime<Utc>>,
}

/// Everything that flows work with. Reached through `Hub`, which dereferences to it.
pub struct Inner {
    pub settings: Settings,
    pub store: Store,
    pub providers: Providers,
    /// The part of the intake policy that is the same for all partners.
    installation: Arc<Installation>,
    pub clock: Clock,
    pub metrics: Metrics,
    pub shutdown: Shutdown,
    ids: Tsids,
    /// The id of this process; notifications to other processes carry it.
    pub process: Tsid,
    /// Key that signs list cursors; the same in every process of this installation.
    pub cursor_key: Vec<u8>,
    /// Keys that seal and open secrets at rest.
    pub keyring: Keyring,
    /// Key under which client secrets, refresh tokens and client message ids are hashed.
    pub pepper: Vec<u8>,
    pub wake: Wake,
    pub intake: IntakeQueue,
    pub accounts: Accounts,
    pub users: Users,
    pub token_keys: KnownTokenKeys,
    pub rates: Rates,
    pub causes: Causes,
    pub full_writes: FullWrites,
    pub tails: Tails,
    pub bulk: Bulk,
    pub endpoint_answers: EndpointAnswers,
    pub refused_callbacks: RefusedCallbacks,
    /// Streams with live connections here.
    pub streams: Arc<Streams>,
    /// Live connections of users here.
    pub connections: Arc<Connections>,
    /// Messages that wait to be written into rooms.
    pub chat: ChatQueue,
    pub chat_limits: ChatLimits,
    /// Messages that were written into rooms lately.
    pub recent_sends: RecentSends,
    pub rooms: Rooms,
    /// What happens in rooms and is stored nowhere.
    pub live_notes: Arc<LiveNotes>,
    /// Marks of rooms' members that wait to be written.
    pub marks: MarkQueue,
    /// Messages whose events callers watch.
    pub watches: Arc<Watches>,
    /// Breaker, limit and reservations of each provider, as this process knows them.
    pub provider_states: Arc<ProviderStates>,
    /// Destinations that take only so many messages.
    pub paces: Paces,
    fairness: Mutex<Fairness>,
    sign_in_throttle: Mutex<SignInThrottle>,
    sign_up_throttle: Mutex<SignUpThrottle>,
    user_requests: Mutex<Buckets>,
    room_makers: Mutex<Buckets>,
    gates: Mutex<EndpointConcurrency>,
    /// One permit: a count over many rows keeps an engine connection busy, so one runs at a time.
    pub count_turn: Semaphore,
    /// `limits::LEDGERS_AT_ONCE` permits: a request for the ledger reads all messages of a day.
    pub ledger_turns: Semaphore,
    /// `limits::REPLAYS_AT_ONCE` permits: what a client missed may be hundreds of long messages.
    pub replay_turns: Semaphore,
    /// `limits::PASSWORDS_AT_ONCE` permits: hashing a password takes a core for a quarter of a second.
    pub password_turns: Semaphore,
    /// As many permits, and `limits::PASSWORDS_WAITING` more for those that wait.
    pub password_places: Semaphore,
    /// `limits::RECEIPT_BODIES` permits: a provider's callback may carry thousands of results, so few are read at once.
    pub receipt_body_slots: Semaphore,
}

impl std::ops::Deref for Hub {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The parts that a hub is made from; a test can replace each.
pub struct Parts {
    pub settings: Settings,
    pub store: Store,
    pub providers: Providers,
    pub clock: Clock,
    pub shutdown: Shutdown,
    /// Master keys from the settings. The first one seals; the installation's own key from the database is added last.
    pub master_keys: Vec<[u8; crypt::KEY_BYTES]>,
}

/// Identity of this process and keys of its installation, as read from the database.
pub struct Identity {
    /// Generator of ids that no other living process makes.
    pub ids: Tsids,
    pub cursor_key: Vec<u8>,
    pub pepper: Vec<u8>,
    /// The installation's own master key, kept in the database.
    pub master_key: [u8; crypt::KEY_BYTES],
}

/// The writers' ends of the queues.
pub struct Queues {
    pub intake: Requests,
    pub chat: Vec<ChatRequests>,
}

impl Hub {
    /// Makes a hub with empty state, and the queues from which its writers take. The caller has brought
    /// `parts.clock` in step with the database's clock: the first id is made here.
    ///
    /// # Errors
    /// `Error::Internal` if the metrics cannot be registered.
    pub fn new(parts: Parts, identity: Identity) -> Result<(Hub, Queues)> {
        let Parts { settings, store, providers, clock, shutdown, master_keys } = parts;
        let Identity { ids, cursor_key, pepper, master_key } = identity;
        let (intake, requests) = IntakeQueue::new();
        let (chat, chat_requests) = ChatQueue::new(settings.rooms.chat_writers);
        let chat_limits = ChatLimits::new(settings.rooms.user_sends, settings.rooms.room_sends);
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
            users: Users::default(),
            token_keys: KnownTokenKeys::default(),
            rates: Rates::default(),
            causes: Causes::default(),
            full_writes: FullWrites::default(),
            tails: Tails::default(),
            bulk: Bulk::default(),
            endpoint_answers: EndpointAnswers::default(),
            refused_callbacks: RefusedCallbacks::default(),
            streams: Arc::default(),
            connections: Arc::default(),
            chat,
            chat_limits,
            recent_sends: RecentSends::default(),
            rooms: Rooms::default(),
            live_notes: Arc::default(),
            marks: MarkQueue::default(),
            watches: Arc::default(),
            provider_states: Arc::new(ProviderStates::new(&providers)),
            installation: Arc::new(installation(&settings, &providers)),
            paces: Paces::default(),
            fairness: Mutex::new(Fairness::new(settings.api.fair_unfinished)),
            sign_in_throttle: Mutex::default(),
            sign_up_throttle: Mutex::default(),
            user_requests: Mutex::new(Buckets::new(limits::USER_REQUESTS, limits::USER_REQUESTS_BURST)),
            room_makers: Mutex::new(Buckets::hourly(limits::ROOMS_MADE)),
            gates: Mutex::default(),
            count_turn: Semaphore::new(1),
            ledger_turns: Semaphore::new(limits::LEDGERS_AT_ONCE),
            replay_turns: Semaphore::new(limits::REPLAYS_AT_ONCE),
            password_turns: Semaphore::new(limits::PASSWORDS_AT_ONCE),
            password_places: Semaphore::new(limits::PASSWORDS_AT_ONCE + limits::PASSWORDS_WAITING),
            receipt_body_slots: Semaphore::new(limits::RECEIPT_BODIES),
            settings,
            store,
            providers,
            clock,
            shutdown,
        };
        Ok((Hub(Arc::new(hub)), Queues { intake: requests, chat: chat_requests }))
    }

    /// Returns a new id, greater than all that this process made before.
    pub fn next_id(&self) -> Tsid {
        self.ids.next(self.clock.unix_millis())
    }

    /// Locks the count of unfinished deliveries per partner and lane. Hold it briefly, never across an await.
    pub fn fairness(&self) -> MutexGuard<'_, Fairness> {
        lock(&self.fairness)
    }

    /// Locks the counts of recent failed sign-ins. Hold it briefly, never across an await.
    pub fn sign_in_throttle(&self) -> MutexGuard<'_, SignInThrottle> {
        lock(&self.sign_in_throttle)
    }

    /// Locks the counts of recent sign-ups. Hold it briefly, never across an await.
    pub fn sign_up_throttle(&self) -> MutexGuard<'_, SignUpThrottle> {
        lock(&self.sign_up_throttle)
    }

    /// Locks the counts of users' recent requests. Hold it briefly, never across an await.
    pub fn user_requests(&self) -> MutexGuard<'_, Buckets> {
        lock(&self.user_requests)
    }

    /// Locks the counts of rooms that users made lately. Hold it briefly, never across an await.
    pub fn room_makers(&self) -> MutexGuard<'_, Buckets> {
        lock(&self.room_makers)
    }

    /// Locks the counts of webhook calls in flight per endpoint. Hold it briefly, never across an await.
    pub fn gates(&self) -> MutexGuard<'_, EndpointConcurrency> {
        lock(&self.gates)
    }

    /// Returns the policy by which a message that this partner posts now is read.
    pub fn intake_policy(&self, partner: &Arc<Partner>) -> IntakePolicy {
        IntakePolicy { installation: self.installation.clone(), partner: partner.clone(), now: self.clock.now() }
    }
}

/// The part of the intake policy that follows from settings and providers.
fn installation(settings: &Settings, providers: &Providers) -> Installation {
    Installation {
        channels: providers.postable_channels().into_iter().collect(),
        slack: settings.slack.names(),
        slack_default: settings.slack.default_name(),
        limits: providers.body_limits(),
        receipts: providers.channels_with_receipts(),
        fallbacks: settings.channels.fallbacks.iter().copied().collect(),
    }
}
