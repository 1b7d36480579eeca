//! Webhooks of a partner whose endpoint works every other time, by workers that are killed: every event arrives.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use nix::sys::signal::Signal;
use notihub::shutdown::Shutdown;
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::support::app::email;
use crate::support::database::fresh_database;
use crate::support::process::{Folder, Notihub, fsck, http_to, post, timed};
use crate::support::receiver::{Answer, Receiver, Recorded};
use crate::support::wait::until;

const MESSAGES: usize = 1_500;

const BATCH: usize = 100;

const KILLS: usize = 6;

/// Of every other event: it is refused when it comes for the first time.
fn is_refused_at_first(event_id: &str) -> bool {
    event_id.bytes().map(u32::from).sum::<u32>().is_multiple_of(2)
}

/// S0-44, S0-46: the endpoint answers 500 to every other event at first, and workers are killed at random. Every event
/// arrives at least once, the ids are exactly those of the events, numbered without gaps for each delivery, and a
/// repeated event is the same bytes under the same id.
#[tokio::test]
async fn webhooks_while_workers_are_killed_all_arrive() {
    let (folder, ground, url) = (Folder::new(), Shutdown::new(), fresh_database().await);
    let endpoint = Receiver::start().await;
    endpoint.law({
        let mut came = HashSet::new();
        move |_, request| {
            let id = request.header("webhook-id");
            let is_first = came.insert(id.to_owned());
            Answer::status(if is_first && is_refused_at_first(id) { 500 } else { 200 })
        }
    });
    let start = |args: &[&str]| {
        let program = Notihub::new(&folder, &timed(args)).env("NOTIHUB_DATABASE_URL", &url);
        let program = program.env("NOTIHUB_ACCEPT_LOSS", "true").arg("--email=mock");
        program.arg("--webhook-allow-http").arg("--webhook-allow-network=127.0.0.0/8").start()
    };
    let mut serve = start(&["serve", "--listen=127.0.0.1:0"]);
    let (address, http) = (serve.address().await, http_to(&url).await);
    let (status, made) = post(&http, address, "/v1/webhooks", &json!({"url": endpoint.url})).await.expect("an answer");
    assert_eq!(status, 201, "{made}");

    let mut workers = vec![start(&["work"]), start(&["work"])];
    let posting = ground.spawn(async move {
        let mut ids = Vec::with_capacity(MESSAGES);
        for _ in 0..MESSAGES / BATCH {
            let messages = json!({"messages": vec![email("kim@example.com"); BATCH]});
            let (status, body) = post(&http, address, "/v1/messages/batch", &messages).await.expect("an answer");
            assert_eq!(status, 202, "{body}");
            let accepted = body["messages"].as_array().unwrap().iter();
            ids.extend(accepted.map(|message| message["messageId"].as_str().unwrap().to_owned()));
        }
        ids
    });
    // In the middle of things: each when so many requests have arrived.
    let mut moments: Vec<usize> = (0..KILLS).map(|_| rand::random_range(100..MESSAGES * 3)).collect();
    moments.sort_unstable();
    for moment in &moments {
        endpoint.arrived(*moment).await;
        let doomed = workers.swap_remove(rand::random_range(0..workers.len()));
        doomed.signal(Signal::SIGKILL);
        assert_eq!(doomed.ended().await.code, None);
        workers.push(start(&["work"]));
    }
    let ids = posting.await.unwrap();

    let db = PgPool::connect(&url).await.unwrap();
    until("all is told", async || {
        // Pauses run by the workers' clocks, which no test can move; an endpoint that fails twice would wait for five
        // minutes.
        sqlx::query("update deliveries set ready_at = clock_timestamp() where status = 'SCHEDULED'")
            .execute(&db)
            .await
            .unwrap();
        let open = "select (select count(*) from deliveries where status in ('SCHEDULED', 'PENDING', 'PROCESSING')) \
                    + (select count(*) from endings)";
        sqlx::query_scalar::<_, i64>(open).fetch_one(&db).await.unwrap() == 0
    })
    .await;

    let records = endpoint.records();
    let mut came: BTreeMap<&str, Vec<&Recorded>> = BTreeMap::new();
    for request in &records {
        came.entry(request.header("webhook-id")).or_default().push(request);
    }
    let events: Vec<Value> = came.values().map(|copies| copies[0].json()).collect();
    let expected: BTreeSet<String> =
        ids.iter().flat_map(|id| ["0-1", "1-1", "0-2"].map(|event| format!("{id}-{event}"))).collect();
    assert_eq!(expected.len(), MESSAGES * 3);
    assert_eq!(came.keys().map(|id| (*id).to_owned()).collect::<BTreeSet<_>>(), expected, "each event, and no other");
    let mut numbers: BTreeMap<(String, String), BTreeSet<u64>> = BTreeMap::new();
    for ((id, copies), event) in came.iter().zip(&events) {
        assert!(copies.iter().all(|copy| copy.body == copies[0].body), "{copies:?}");
        assert!(copies.len() > usize::from(is_refused_at_first(id)), "{id} was refused, and never came again");
        assert_eq!(event["eventId"], **id);
        let of = (event["messageId"].to_string(), event["deliveryId"].to_string());
        numbers.entry(of).or_default().insert(event["seq"].as_u64().unwrap());
    }
    assert_eq!(numbers.len(), MESSAGES * 2, "the message as a whole, and its delivery");
    assert!(numbers.values().all(|seqs| seqs.iter().copied().eq(1..=seqs.len() as u64)), "numbered without gaps");
    let shown: BTreeSet<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(shown, ["delivery.sent", "message.accepted", "message.completed"].into());

    let lost = "select count(*) from attempt_history a join deliveries d using (shard, message_id, no) \
                where a.reason = 'worker_lost' and d.lane >= 66";
    let lost: i64 = sqlx::query_scalar(lost).fetch_one(&db).await.unwrap();
    assert!(lost > 0, "no worker was killed with a webhook in its hands");
    let refused = expected.iter().filter(|id| is_refused_at_first(id)).count();
    println!(
        "{} requests for {} events: {refused} refused at first, {} copies beyond that; workers were killed after \
            {moments:?} \
         requests and held {lost} webhooks",
        records.len(),
        expected.len(),
        records.len() - expected.len() - refused,
    );
    db.close().await;
    for worker in workers {
        worker.stop().await.expect(0).logged_json();
    }
    serve.stop().await.expect(0).logged_json();
    fsck(&folder, &url).await;
}
