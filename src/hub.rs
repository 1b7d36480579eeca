//! What a flow works with: settings, store, providers, clock, metrics, and the hints that wake workers.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::{Notify, mpsc};

use crate::clock::Clock;
use crate::config::Settings;
use crate::error::Result;
use crate::flow::intake::{Intake, Request};
use crate::id::{Tsid, Tsids};
use crate::limits;
use crate::model::fairness::Fairness;
use crate::model::intake::Rules;
use crate::model::partner::Partner;
use crate::model::watermark::{Place, Ready};
use crate::provider::Providers;
use crate::shutdown::Shutdown;
use crate::store::{self, Store};
use crate::telemetry::Metrics;

#[derive(Clone)]
pub struct Hub(Arc<Inner>);

pub struct Inner {
    pub settings: Settings,
    pub store: Store,
    pub providers: Providers,
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
    /// The one partner there is, until partners sign in.
    pub partner: Partner,
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
}

impl Hub {
    /// Connects to a migrated database. Starts the intake's writers, nothing else.
    pub async fn start(parts: Parts) -> Result<Hub> {
        let Parts { settings, store, providers, clock, shutdown } = parts;
        let ids = Tsids::new(store::hub::node(store.api()).await?);
        let started = clock.unix_millis();
        let fresh: [u8; 32] = rand::random();
        let cursor_key = store::hub::key(store.api(), "cursor", &fresh).await?;
        let partner = the_partner(&store, &ids, &clock, settings.database.shards).await?;
        let (intake, requests) = mpsc::channel::<Request>(limits::INTAKE_QUEUE);
        let (writers, fair) = (settings.api.intake_writers, settings.api.fair_unfinished);
        let hub = Hub(Arc::new(Inner {
            settings,
            store,
            providers,
            clock,
            metrics: Metrics::new()?,
            shutdown,
            wake: Wake::default(),
            fairness: Mutex::new(Fairness::new(fair)),
            intake: Intake::new(intake),
            process: ids.next(started),
            ids,
            cursor_key,
            partner,
        }));
        crate::flow::intake::start_writers(&hub, requests, writers);
        Ok(hub)
    }

    pub fn next_id(&self) -> Tsid {
        self.ids.next(self.clock.unix_millis())
    }

    /// Who has how much unfinished. Held briefly, never over an await.
    pub fn fairness(&self) -> MutexGuard<'_, Fairness> {
        self.fairness.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What reading a message depends on, now.
    pub fn rules(&self) -> Rules {
        Rules {
            now: self.clock.now(),
            channels: self.providers.channels().into_iter().collect(),
            slack: self.settings.slack.names(),
            region: self.partner.region.clone(),
            limits: self.providers.limits(),
        }
    }
}

async fn the_partner(store: &Store, ids: &Tsids, clock: &Clock, shards: i16) -> Result<Partner> {
    const NAME: &str = "default";
    if let Some(partner) = store::partner::find(store.api(), NAME).await? {
        return Ok(partner);
    }
    let partner_id = ids.next(clock.unix_millis());
    let shard = i16::try_from(partner_id.0.rem_euclid(i64::from(shards.max(1)))).unwrap_or(0);
    let partner = Partner::new(partner_id, NAME.to_owned(), shard);
    store::partner::insert(store.api(), &partner, clock.now()).await?;
    // Another process may have been first; what the table says holds.
    Ok(store::partner::find(store.api(), NAME).await?.unwrap_or(partner))
}

/// What just became ready, where, and since when. Hints for the workers of this process, and through the teller for all
/// others. The time matters: what was committed late lies behind a watermark, and the hint moves that back.
#[derive(Default)]
pub struct Wake {
    prompt: Inbox,
    overflow: Inbox,
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
        lock(&self.elsewhere).take_in(&ready);
        self.elsewhere_notify.notify_one();
        self.heard(&ready);
    }

    /// Another process says so.
    pub fn heard(&self, ready: &Ready) {
        for overflow in [false, true] {
            let mine = ready.places.iter().filter(|(place, _)| place.1.is_overflow() == overflow);
            let mine = Ready { places: mine.map(|(p, at)| (*p, *at)).collect(), anywhere: ready.anywhere };
            if mine.anywhere || !mine.places.is_empty() {
                let inbox = self.inbox(overflow);
                lock(&inbox.ready).take_in(&mine);
                inbox.notify.notify_one();
            }
        }
    }

    /// What concerns prompt lanes, or overflow lanes: a claiming loop each.
    pub fn inbox(&self, overflow: bool) -> &Inbox {
        if overflow { &self.overflow } else { &self.prompt }
    }

    pub fn take_elsewhere(&self) -> Ready {
        std::mem::take(&mut *lock(&self.elsewhere))
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
        std::mem::take(&mut *lock(&self.ready))
    }
}

/// A set of places has no state in between that a panic could leave behind.
fn lock(mutex: &Mutex<Ready>) -> std::sync::MutexGuard<'_, Ready> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
