//! One test binary: every test goes through the front door, against a real PostgreSQL (`bin/test` starts one). Each
//! test's doc line names the items of `src/docs/requirements.md` that it proves.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test ends where its expectation does")]

mod support;

mod adapters;
mod alerts;
mod audit;
mod bodies;
mod crash;
mod docs;
mod egress;
mod email;
mod engine;
mod erase;
mod fallback;
mod fsck;
mod http;
mod intake;
mod laws;
mod lists;
mod messages;
mod notifications;
mod openapi;
mod outgoing;
mod partners;
mod processes;
mod program;
mod property;
mod protocol;
mod rate;
mod receipts;
mod receiver;
mod redrive;
mod replays;
mod requirements;
mod retries;
mod roles;
mod schema;
mod seed_001;
mod sessions;
mod sign_in;
mod smtp_peer;
mod sql_intake;
mod sql_words;
mod standard_webhooks;
mod stats;
mod traffic;
mod types;
mod vendor_clients;
mod webhook_cli;
mod webhook_crash;
mod webhook_order;
mod webhook_runs;
mod webhook_samples;
mod webhooks;
