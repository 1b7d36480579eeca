//! The metrics, in Prometheus text format.

use std::cell::RefCell;
use std::time::Duration;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::error::{Error, Result};

/// The description of a metric, for the manual.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricDescription {
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    pub labels: Vec<String>,
    pub help: String,
}

/// All metrics of this process, in a registry of its own.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Description of every metric, in the order of `build`.
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
    pub user_sign_ins: IntCounterVec,
    pub connections: IntGaugeVec,
    pub connections_closed: IntCounterVec,
    pub chat_messages: IntCounter,
    pub live_events: IntCounter,
    pub stream_seconds: HistogramVec,
    pub streams_healed: IntCounter,
    pub slow_listeners: IntCounter,
}

/// Prefix of all metric names.
const PREFIX: &str = "notihub";
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0];
const ROWS: [f64; 9] = [0.0, 1.0, 5.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

impl Metrics {
    /// Creates and registers all metrics.
    ///
    /// # Errors
    /// `Error::Internal` if two metrics have the same name.
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
            claim_seconds: histogram("claim_seconds", "Duration of a claim in seconds.", &[], &SECONDS)?,
            claim_rows: histogram("claim_rows", "Deliveries claimed in one statement.", &[], &ROWS)?,
            call_seconds: histogram(
                "call_seconds",
                "Duration of a call to a provider in seconds.",
                &["provider"],
                &SECONDS,
            )?,
            outcomes: counter("outcomes_total", "Attempts by outcome.", &["provider", "outcome", "reason"])?,
            queue_wait_seconds: histogram(
                "queue_wait_seconds",
                "Seconds from ready to claimed.",
                &["priority"],
                &SECONDS,
            )?,
            settle_seconds: histogram("settle_seconds", "Duration of storing outcomes in seconds.", &[], &SECONDS)?,
            settled: counter("settled_total", "Deliveries by the status they reached.", &["channel", "status"])?,
            retries: counter("retries_total", "Attempts after which a retry was planned.", &["provider", "reason"])?,
            limit_free: gauge(
                "limit_free",
                "Free requests of a provider's rate limit, as of the last query.",
                &["provider"],
            )?,
            breaker_state: gauge("breaker_state", "0 closed, 1 half-open, 2 open.", &["provider"])?,
            breaker_openings: counter(
                "breaker_openings_total",
                "Times that a provider's breaker opened.",
                &["provider", "reason"],
            )?,
            provider_paused: gauge("provider_paused", "1 while an operator has paused the provider.", &["provider"])?,
            late_settles: single("late_settles_total", "Outcomes that arrived after their lease had ended.")?,
            reaped: single("reaped_total", "Deliveries taken back from lost workers.")?,
            promoted: single("promoted_total", "Scheduled deliveries and retries that became due.")?,
            in_flight: gauge("in_flight", "Deliveries that this process holds.", &["channel"])?,
            queue_depth: gauge("queue_depth", "Deliveries waiting, counted up to a limit.", &["lane"])?,
            oldest_pending_seconds: gauge(
                "oldest_pending_seconds",
                "Age in seconds of the oldest waiting delivery.",
                &["lane"],
            )?,
            requests: counter("http_requests_total", "Requests answered.", &["route", "status"])?,
            request_seconds: histogram(
                "http_request_seconds",
                "Duration of a request in seconds.",
                &["route"],
                &SECONDS,
            )?,
            rejected_input: single("db_rejected_input_total", "Inputs refused by the database; must stay 0.")?,
            intake_refused: counter("intake_refused_total", "Requests enqueued in SQL that were refused.", &["code"])?,
            sql_intake_waiting: gauge("sql_intake_waiting", "Requests enqueued in SQL, counted up to a limit.", &[])?,
            sql_intake_oldest_seconds: gauge(
                "sql_intake_oldest_seconds",
                "Age in seconds of the oldest request enqueued in SQL.",
                &[],
            )?,
            receipts: counter("receipts_total", "Receipts from providers, by effect.", &["provider", "effect"])?,
            receipts_unmatched: gauge(
                "receipts_unmatched",
                "Receipts that have matched no delivery for ten minutes, counted up to a limit.",
                &[],
            )?,
            fallbacks: counter("fallbacks_total", "Deliveries replaced by a fallback.", &["from", "to", "why"])?,
            user_sign_ins: counter("user_sign_ins_total", "Sign-ins and sign-ups of users, by result.", &["result"])?,
            connections: gauge("connections", "Live connections of users at this process.", &["kind"])?,
            connections_closed: counter("connections_closed_total", "WebSockets that the hub closed.", &["code"])?,
            chat_messages: single("chat_messages_total", "Messages written into rooms by this process.")?,
            live_events: single("live_events_total", "Events handed to live connections, once for each.")?,
            stream_seconds: histogram(
                "stream_seconds",
                "Seconds from an event of a room to its hand-over to the connections of this process.",
                &[],
                &SECONDS,
            )?,
            streams_healed: single("streams_healed_total", "Streams found behind by the sweep: their hint was lost.")?,
            slow_listeners: single("slow_listeners_total", "Connections given up because they took too little.")?,
            registry,
            described: described.take(),
        })
    }

    /// All metrics in Prometheus text format.
    ///
    /// # Errors
    /// `Error::Internal` if encoding fails.
    pub fn render(&self) -> Result<String> {
        let mut out = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut out)
            .map_err(|e| Error::Internal(format!("metrics: {e}")))?;
        String::from_utf8(out).map_err(|e| Error::Internal(format!("metrics: {e}")))
    }
}

/// Adds a duration, in seconds, to a histogram.
pub fn observe(histogram: &HistogramVec, labels: &[&str], took: Duration) {
    histogram.with_label_values(labels).observe(took.as_secs_f64());
}
