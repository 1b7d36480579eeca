//! The metrics, in Prometheus' text format.

use std::cell::RefCell;
use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::{Error, Result};

/// A metric as the manual lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

/// Everything that is counted, in one registry of this hub's own.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Every metric, in the order of this page.
    pub described: Vec<MetricDescription>,
    pub accepted: IntCounterVec,
    pub intake_group: HistogramVec,
    pub claimed: IntCounterVec,
    pub claim_seconds: HistogramVec,
    pub claim_rows: HistogramVec,
    pub call_seconds: HistogramVec,
    pub outcomes: IntCounterVec,
    pub queue_wait_seconds: HistogramVec,
    pub settle_seconds: HistogramVec,
    pub settled: IntCounterVec,
    pub retries: IntCounterVec,
    pub limit_free: IntGaugeVec,
    pub breaker_state: IntGaugeVec,
    pub breaker_openings: IntCounterVec,
    pub provider_paused: IntGaugeVec,
    pub late_settles: IntCounter,
    pub reaped: IntCounter,
    pub promoted: IntCounter,
    pub in_flight: IntGaugeVec,
    pub queue_depth: IntGaugeVec,
    pub oldest_pending_seconds: IntGaugeVec,
    pub requests: IntCounterVec,
    pub request_seconds: HistogramVec,
    pub rejected_input: IntCounter,
    pub intake_refused: IntCounterVec,
    pub sql_intake_waiting: IntGaugeVec,
    pub sql_intake_oldest_seconds: IntGaugeVec,
    pub receipts: IntCounterVec,
    pub receipts_unmatched: IntGaugeVec,
    pub fallbacks: IntCounterVec,
}

/// What the names of all metrics begin with.
const PREFIX: &str = "notihub";
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
const ROWS: [f64; 9] = [0.0, 1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

impl Metrics {
    pub fn new() -> Result<Metrics> {
        Self::build().map_err(|e| Error::Internal(format!("metrics: {e}")))
    }

    fn build() -> prometheus::Result<Metrics> {
        let registry = Registry::new_custom(Some(PREFIX.into()), None)?;
        let described = RefCell::new(Vec::new());
        let describe = |name: &str, kind, labels: &[&str], help: &str| {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            let name = format!("{PREFIX}_{name}");
            described.borrow_mut().push(MetricDescription { name, kind, labels, help: help.to_owned() });
        };
        let counter = |name: &str, help: &str, labels: &[&str]| {
            describe(name, "counter", labels, help);
            let made = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let single = |name: &str, help: &str| {
            describe(name, "counter", &[], help);
            let made = IntCounter::new(name, help)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let gauge = |name: &str, help: &str, labels: &[&str]| {
            describe(name, "gauge", labels, help);
            let made = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        let histogram = |name: &str, help: &str, labels: &[&str], buckets: &[f64]| {
            describe(name, "histogram", labels, help);
            let made = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
            registry.register(Box::new(made.clone()))?;
            prometheus::Result::Ok(made)
        };
        Ok(Metrics {
            accepted: counter("accepted_total", "Messages accepted, by whether they were new.", &["kind"])?,
            intake_group: histogram("intake_group_messages", "Messages written in one commit.", &[], &ROWS)?,
            claimed: counter("claimed_total", "Deliveries claimed.", &["channel"])?,
            claim_seconds: histogram("claim_seconds", "Time of a claim.", &[], &SECONDS)?,
            claim_rows: histogram("claim_rows", "Deliveries a claim brought.", &[], &ROWS)?,
            call_seconds: histogram("call_seconds", "Time of a provider's answer.", &["provider"], &SECONDS)?,
            outcomes: counter("outcomes_total", "What attempts came to.", &["provider", "outcome", "reason"])?,
            queue_wait_seconds: histogram("queue_wait_seconds", "From ready to claimed.", &["priority"], &SECONDS)?,
            settle_seconds: histogram("settle_seconds", "Time of a settle.", &[], &SECONDS)?,
            settled: counter("settled_total", "Deliveries by the status they reached.", &["channel", "status"])?,
            retries: counter(
                "retries_total",
                "Attempts after which a further one was planned.",
                &["provider", "reason"],
            )?,
            limit_free: gauge("limit_free", "Requests free of a provider's limit, when last asked.", &["provider"])?,
            breaker_state: gauge("breaker_state", "0 closed, 1 half-open, 2 open.", &["provider"])?,
            breaker_openings: counter("breaker_openings_total", "Openings of a breaker.", &["provider", "reason"])?,
            provider_paused: gauge("provider_paused", "1 while somebody has it paused.", &["provider"])?,
            late_settles: single("late_settles_total", "Outcomes that came after their lease was over.")?,
            reaped: single("reaped_total", "Deliveries taken back from lost workers.")?,
            promoted: single("promoted_total", "Scheduled deliveries and retries that became due.")?,
            in_flight: gauge("in_flight", "Deliveries this process holds.", &["channel"])?,
            queue_depth: gauge("queue_depth", "Deliveries waiting, counted up to a limit.", &["lane"])?,
            oldest_pending_seconds: gauge("oldest_pending_seconds", "Age of the oldest waiting.", &["lane"])?,
            requests: counter("http_requests_total", "Requests answered.", &["route", "status"])?,
            request_seconds: histogram("http_request_seconds", "Time of an answer.", &["route"], &SECONDS)?,
            rejected_input: single("db_rejected_input_total", "Input the database refused; must stay 0.")?,
            intake_refused: counter("intake_refused_total", "Requests enqueued in SQL that were refused.", &["code"])?,
            sql_intake_waiting: gauge("sql_intake_waiting", "Requests enqueued in SQL, counted up to a limit.", &[])?,
            sql_intake_oldest_seconds: gauge("sql_intake_oldest_seconds", "Age of the oldest of those.", &[])?,
            receipts: counter("receipts_total", "What providers told, and what came of it.", &["provider", "effect"])?,
            receipts_unmatched: gauge(
                "receipts_unmatched",
                "Receipts that for ten minutes have been about nothing of ours, counted up to a limit.",
                &[],
            )?,
            fallbacks: counter("fallbacks_total", "Deliveries whose place another took.", &["from", "to", "why"])?,
            registry,
            described: described.take(),
        })
    }

    /// In Prometheus' text format.
    pub fn render(&self) -> Result<String> {
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(|e| Error::Internal(format!("metrics: {e}")))?;
        String::from_utf8(out).map_err(|e| Error::Internal(format!("metrics: {e}")))
    }
}

pub fn observe(histogram: &HistogramVec, labels: &[&str], took: Duration) {
    histogram.with_label_values(labels).observe(took.as_secs_f64());
}
