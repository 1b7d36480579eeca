//! Providers that do what the test says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use notihub::model::capability::Capability;
use notihub::model::channel::Channel;
use notihub::model::delivery::Outcome;
use notihub::provider::{BoxFuture, Provider, SendRequest};
use tokio::sync::Semaphore;

/// A provider that does what the test says.
pub struct Stub<F> {
    pub channel: Channel,
    pub act: F,
}

impl<F: Fn(&SendRequest<'_>) -> BoxFuture<'static, Outcome> + Send + Sync + 'static> Provider for Stub<F> {
    fn name(&self) -> &'static str {
        "stub"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::of(self.channel)]
    }

    fn send<'a>(&'a self, letter: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        (self.act)(&letter)
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("a stub".to_owned()) })
    }
}

pub fn stub<F>(channel: Channel, act: F) -> Arc<dyn Provider>
where
    F: Fn(&SendRequest<'_>) -> BoxFuture<'static, Outcome> + Send + Sync + 'static,
{
    Arc::new(Stub { channel, act })
}

/// Calls wait at the gate until the test opens it; how many have come is counted.
#[derive(Clone)]
pub struct Gate {
    pub open: Arc<Semaphore>,
    pub came: Arc<AtomicUsize>,
}

impl Gate {
    pub fn new() -> Gate {
        Gate { open: Arc::new(Semaphore::new(0)), came: Arc::default() }
    }

    pub fn provider(&self, channel: Channel) -> Arc<dyn Provider> {
        let gate = self.clone();
        stub(channel, move |_| {
            let gate = gate.clone();
            Box::pin(async move {
                gate.came.fetch_add(1, Ordering::SeqCst);
                gate.open.acquire().await.unwrap().forget();
                Outcome::Accepted { provider_ref: None }
            })
        })
    }

    pub fn came(&self) -> usize {
        self.came.load(Ordering::SeqCst)
    }

    pub fn open(&self) {
        self.open.add_permits(1_000_000);
    }
}
