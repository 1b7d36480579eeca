//! Scenarios of delivery: alone, next to settled or scheduled deliveries, and from a large backlog.

use super::drainer;
use super::floor;
use super::report::{Goal, number};
use super::run::{Rate, Run, drained, fill};
use super::testbed::Testbed;
use crate::error::Result;
use crate::model::delivery::Status;
/// Measures the delivery of pending messages, by one worker and by several processes.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn drain(run: &mut Run<'_>) -> Result<()> {
    run.name = "drain";
    let floor = floor_of_drain(run).await?;
    let drained = plain_drain(run).await?;
    run.figure("of the floor", drained.0 / floor, "×");
    run.rate("drained", drained, Some(Goal::AtLeast(40_000.0)));
    let bed = Testbed::start(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let two = drainer::drain(&bed, 2, run.sizes.deliveries.unsigned_abs()).await?;
    run.figure("drained by two processes", two, "/s");
    run.clear(bed).await
}

async fn floor_of_drain(run: &mut Run<'_>) -> Result<f64> {
    let bed = Testbed::start(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let floor = floor::claim_and_settle(&bed, run.sizes.deliveries).await?;
    run.figure("floor: bare claim and settle, 2 clients", floor, "/s");
    run.clear(bed).await?;
    Ok(floor)
}

async fn plain_drain(run: &mut Run<'_>) -> Result<Rate> {
    let bed = Testbed::start(run.settings, run.ground).await?;
    fill(run, &bed, Status::Pending, run.sizes.deliveries).await?;
    let rate = drained(run, &bed, run.sizes.deliveries).await?;
    run.clear(bed).await?;
    Ok(rate)
}

/// Measures `drain` on a database that also contains `default_rows` deliveries with this status.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn beside(run: &mut Run<'_>, name: &'static str, status: Status, default_rows: i64) -> Result<()> {
    let rows = run.sizes.rows.unwrap_or(default_rows);
    let deliveries = run.sizes.deliveries;
    against_alone(run, name, format!("drained beside {} {status}", number(rows as f64)), async |run, bed| {
        fill(run, bed, status, rows).await?;
        fill(run, bed, Status::Pending, deliveries).await?;
        Ok(deliveries)
    })
    .await
}

/// Measures `drain` from a large backlog of pending deliveries.
///
/// # Errors
/// Any error of the testbed or the load. Figures that were added before stay.
pub async fn backlog(run: &mut Run<'_>) -> Result<()> {
    let rows = run.sizes.rows.unwrap_or(2_000_000);
    against_alone(run, "backlog", format!("drained out of {}", number(rows as f64)), async |run, bed| {
        fill(run, bed, Status::Pending, rows).await?;
        Ok(rows)
    })
    .await
}

/// Compares a drain on a prepared testbed with plain drains before and after it, so that other load on the machine
/// affects both.
async fn against_alone(
    run: &mut Run<'_>,
    name: &'static str,
    what: String,
    prepare: impl AsyncFnOnce(&mut Run<'_>, &Testbed) -> Result<i64>,
) -> Result<()> {
    run.name = name;
    let before = plain_drain(run).await?;
    let bed = Testbed::start(run.settings, run.ground).await?;
    let pending = prepare(run, &bed).await?;
    let rate = drained(run, &bed, pending).await?;
    run.clear(bed).await?;
    let after = plain_drain(run).await?;
    let alone = f64::midpoint(before.0, after.0);
    run.goal("of drain alone", rate.0 / alone * 100.0, "%", Goal::AtLeast(95.0));
    run.rate("drained alone, before", before, None);
    run.rate(what, rate, None);
    run.rate("drained alone, after", after, None);
    Ok(())
}
