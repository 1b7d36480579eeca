//! Several hubs on one database, and the steps of a worker called one by one.

use std::net::SocketAddr;
use std::time::Duration;

use chrono::DateTime;
use notihub::clock::Clock;
use notihub::flow::delivery::claim::claim;
use notihub::flow::delivery::load::{HeldDelivery, load};
use notihub::flow::delivery::promote::{Promoter, promote};
use notihub::flow::delivery::reap::{Reaper, reap};
use notihub::hub::{Hub, Parts};
use notihub::model::channel::OnUnknown;
use notihub::model::delivery::DeliveryKey;
use notihub::model::lane::Lane;
use notihub::model::watermark::PlannedClaim;
use notihub::shutdown::Shutdown;
use notihub::store::delivery::ClaimRequest;
use notihub::store::listen::Topic;
use notihub::store::{self, PoolSizes};
use notihub::worker::{hints, streams};
use serde_json::{Value, json};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use crate::support::app::{App, MASTER_KEY};

/// Another process on the same database: connections, ids and hints of its own; the same providers and clock.
pub async fn another(app: &App) -> Hub {
    another_with(app, PoolSizes { api: 4, intake: 4, engine: 4, webhooks: 4 }, app.hub.clock.clone()).await
}

pub async fn another_with(app: &App, sizes: PoolSizes, clock: Clock) -> Hub {
    let store = crate::support::database::store_of(&app.url, sizes);
    let (settings, providers) = (app.hub.settings.clone(), app.hub.providers.clone());
    notihub::flow::start(Parts {
        settings,
        store,
        providers,
        clock,
        shutdown: Shutdown::new(),
        master_keys: vec![MASTER_KEY],
    })
    .await
    .unwrap()
}

pub async fn stop(hub: Hub) {
    hub.shutdown.stop();
    assert!(hub.shutdown.drained(Duration::from_secs(20)).await, "tasks are left behind");
    hub.store.close().await;
}

/// All lanes from their beginning.
pub async fn asks(hub: &Hub, take: i64) -> Vec<ClaimRequest> {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let lanes = Lane::all_of(&hub.providers.channels());
    let places = lanes.iter().flat_map(|&lane| shards.iter().map(move |&shard| (shard, lane)));
    places
        .map(|(shard, lane)| {
            let begins_recorded =
                hub.settings.retry.on_unknown(lane.channel()).unwrap_or(lane.channel().on_unknown()) > OnUnknown::Retry;
            ClaimRequest { shard, lane, watermark: DateTime::UNIX_EPOCH, limit: take, begins_recorded }
        })
        .collect()
}

/// A worker's claim, as far as the call.
pub async fn take(hub: &Hub, most: i64) -> Vec<HeldDelivery> {
    let asks = asks(hub, most).await;
    let looks: Vec<PlannedClaim> = asks
        .iter()
        .map(|a| PlannedClaim { place: (a.shard, a.lane), from_ready_at: a.watermark, rows: a.limit })
        .collect();
    load(hub, claim(hub, hub.next_id(), &looks, most).await.unwrap()).await.held
}

pub async fn take_one(hub: &Hub) -> HeldDelivery {
    let [held] =
        <[HeldDelivery; 1]>::try_from(take(hub, 10).await).unwrap_or_else(|held| panic!("claimed {}", held.len()));
    held
}

/// Claims only: what a worker that is lost at once leaves behind.
pub async fn grab(hub: &Hub, most: i64) -> Vec<DeliveryKey> {
    let (asks, lease) = (asks(hub, most).await, hub.settings.timing.lease());
    let mut conn = connection(hub).await;
    let claimed = store::delivery::claim(&mut *conn, &asks, most, hub.next_id(), lease).await.unwrap();
    claimed.into_iter().map(|c| c.key).collect()
}

/// One of the engine's, however busy the machine is.
pub async fn connection(hub: &Hub) -> PoolConnection<Postgres> {
    loop {
        if let Ok(conn) = hub.store.engine().acquire().await {
            return conn;
        }
    }
}

/// The lease of all that is held is over, and the reaper comes by; returns how many it took back.
pub async fn lose(app: &App) -> usize {
    let over =
        "update deliveries set lease_until = clock_timestamp() - interval '1 second' where status = 'PROCESSING'";
    sqlx::query(over).execute(&app.db().await).await.unwrap();
    reap_all(&app.hub).await
}

pub async fn reap_all(hub: &Hub) -> usize {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    reap(hub, &mut Reaper::default(), &shards).await.unwrap()
}

pub async fn promote_all(hub: &Hub) -> usize {
    let shards = store::partner::shards(hub.store.engine()).await.unwrap();
    let (mut promoter, mut all) = (Promoter::default(), 0);
    loop {
        match promote(hub, &mut promoter, &shards).await.unwrap() {
            0 => return all,
            n => all += n,
        }
    }
}

impl App {
    /// Posts one message, again if the machine is too busy to take it; its id.
    pub async fn accept(&self, mut body: Value) -> String {
        body["clientMsgId"] = json!(self.hub.next_id().to_string());
        loop {
            let answer = self.post("/v1/messages", body.clone()).await;
            if answer.status < 300 {
                return answer.id();
            }
            answer.refused(503, "database_unavailable");
        }
    }

    /// Posts many messages at once; their ids.
    pub async fn accept_all(&self, bodies: Vec<Value>) -> Vec<String> {
        let mut ids = Vec::new();
        for some in bodies.chunks(1000) {
            let answer = self.post("/v1/messages/batch", json!({ "messages": some })).await.expect(202);
            let of = |message: &Value| message["messageId"].as_str().unwrap().to_owned();
            ids.extend(answer.body["messages"].as_array().unwrap().iter().map(of));
        }
        ids
    }

    /// A message's only delivery.
    pub async fn delivery(&self, id: &str) -> Value {
        self.message(id).await["deliveries"][0].clone()
    }

    /// Its status and why.
    pub async fn stands(&self, id: &str) -> (String, Option<String>) {
        let delivery = self.delivery(id).await;
        let text = |name: &str| delivery[name].as_str().map(str::to_owned);
        (text("status").unwrap(), text("reason"))
    }

    /// What its attempts came to.
    pub async fn outcomes(&self, id: &str) -> Vec<String> {
        let delivery = self.delivery(id).await;
        let attempt = |a: &Value| {
            let late = if a["late"] == true { " late" } else { "" };
            format!("{}{late}", a["outcome"].as_str().unwrap())
        };
        delivery["attempts"].as_array().unwrap().iter().map(attempt).collect()
    }

    /// The events of its timeline, in order.
    pub async fn events(&self, id: &str) -> Vec<String> {
        let timeline = self.get(&format!("/v1/messages/{id}/timeline")).await.expect(200);
        let items = timeline.body["items"].as_array().unwrap().iter().filter(|e| e["what"] == "event");
        items.map(|e| e["detail"].as_str().unwrap().to_owned()).collect()
    }
}

/// Starts the loops of a process with live connections.
pub fn start_live(hub: &Hub) {
    streams::start_hints(hub);
    streams::start_reading(hub);
    streams::start_live_notes(hub);
    hints::start_listening(hub, vec![Topic::Streams, Topic::Live, Topic::Users, Topic::Echo]);
}

/// A second process that serves live connections, as the first one then does, too. Returns its hub and address.
pub async fn two_live(app: &App) -> (Hub, SocketAddr) {
    let other = another(app).await;
    let there = crate::inbox::serve(&other).await;
    start_live(&app.hub);
    start_live(&other);
    (other, there)
}
