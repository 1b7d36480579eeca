//! Scenario: the effect of one partner's flood on the waits of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::floor;
use super::load::Load;
use super::report::{Goal, number};
use super::run::{Run, load_of, together};
use super::testbed::{self, Testbed};
use crate::error::{Error, Result};
use crate::flow::intake::accept::accept;
use crate::hub::Hub;
use crate::model::delivery::Status;
use crate::model::partner::Partner;
use crate::store::{bench, partner};
use crate::worker::{self, Role};
/// The number of other partners, each of which posts one message a second.
const OTHERS: usize = 100;

/// Measures the waits of a hundred partners that post little, with and without one partner that floods.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn flood(run: &mut Run<'_>) -> Result<()> {
    run.name = "flood";
    let bed = Testbed::start(run.settings, run.ground).await?;
    let mut others = Vec::new();
    for n in 0..OTHERS {
        let shard = i16::try_from(n).unwrap_or(0) % run.settings.database.shards.max(1);
        let partner = Partner::new(bed.hub.next_id(), format!("other-{n}"), shard);
        partner::insert(bed.hub.store.api(), &partner, bed.hub.clock.now()).await?;
        others.push(partner);
    }
    worker::start(&bed.hub, Role::Both);
    let others = Arc::new(others);
    // Warm up caches, pools and plans before measuring.
    post_for(&bed, &others, Duration::from_secs(2)).await?;
    bed.take_waits();
    let seconds = run.sizes.seconds;
    run.say(&format!("{OTHERS} partners alone, 1 message a second each, for {seconds} s"));
    let accepted_alone = post_for(&bed, &others, Duration::from_secs(seconds)).await?;
    let alone = bed.take_waits();
    let ms = |waits: &hdrhistogram::Histogram<u64>, q| waits.value_at_quantile(q) as f64 / 1000.0;
    run.figure("others alone, accepted → called p50", ms(&alone, 0.5), "ms");
    run.figure("others alone, accepted → called p99", ms(&alone, 0.99), "ms");

    let messages = run.sizes.flood;
    run.say(&format!("the same beside a flood of {} from one partner", number(messages as f64)));
    let load = Load { batch: 500, messages, kind: testbed::FLOOD.into(), ..load_of(&bed, 4, 600) };
    let before = bed.cost().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let began = Instant::now();
    let posting = bed.hub.shutdown.spawn(post_until(bed.hub.clone(), others.clone(), stop.clone()));
    let (report, _) = together(run, &bed, &load, 600).await?;
    let taken = began.elapsed().as_secs_f64();
    // The other partners continue until the flood is delivered.
    while bench::count_with_status(bed.hub.store.api(), Status::Pending).await? > OTHERS as i64 {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let took = began.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    let accepted_beside = posting.await.map_err(|e| Error::Internal(e.to_string()))??;
    let after = bed.cost().await?;
    let beside = bed.take_waits();
    run.figure("the flood accepted", report.accepted as f64 / taken, "/s");
    run.figure("the flood accepted and delivered", report.accepted as f64 / took, "/s");
    run.figure("of all, waited in overflow", bench::overflow_share(bed.hub.store.api()).await? * 100.0, "%");
    let at = |took: &[u64], q: f64| took[((took.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
    run.figure("others alone, asked → accepted p99", at(&accepted_alone, 0.99), "ms");
    run.figure("others beside it, asked → accepted p50", at(&accepted_beside, 0.5), "ms");
    run.figure("others beside it, asked → accepted p99", at(&accepted_beside, 0.99), "ms");
    run.figure("others beside it, accepted → called p50", ms(&beside, 0.5), "ms");
    run.figure("others beside it, accepted → called p99", ms(&beside, 0.99), "ms");
    run.goal("p99 beside the flood, of alone", ms(&beside, 0.99) / ms(&alone, 0.99), "×", Goal::AtMost(2.0));
    run.cost(&before, &after, report.accepted as f64);
    run.clear(bed).await
}

async fn post_for(bed: &Testbed, others: &Arc<Vec<Partner>>, during: Duration) -> Result<Vec<u64>> {
    let stop = Arc::new(AtomicBool::new(false));
    let posting = bed.hub.shutdown.spawn(post_until(bed.hub.clone(), others.clone(), stop.clone()));
    tokio::time::sleep(during).await;
    stop.store(true, Ordering::Relaxed);
    posting.await.map_err(|e| Error::Internal(e.to_string()))?
}

/// Posts one message a second for each partner, evenly spread, without waiting for answers. Returns the time until each
/// was accepted, in microseconds.
async fn post_until(hub: Hub, others: Arc<Vec<Partner>>, stop: Arc<AtomicBool>) -> Result<Vec<u64>> {
    let mut tick = tokio::time::interval(Duration::from_secs(1) / u32::try_from(OTHERS).unwrap_or(1));
    let mut posted = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        tick.tick().await;
        let (hub, others, n) = (hub.clone(), others.clone(), posted.len() % others.len());
        posted.push(hub.clone().shutdown.spawn(async move {
            let began = Instant::now();
            accept(&hub, &others[n], floor::example()).await?;
            Ok::<u64, Error>(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
        }));
    }
    let mut took = Vec::with_capacity(posted.len());
    for post in posted {
        took.push(post.await.map_err(|e| Error::Internal(e.to_string()))??);
    }
    took.sort_unstable();
    Ok(took)
}
