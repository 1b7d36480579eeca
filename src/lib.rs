//! notihub: a notification hub on PostgreSQL alone.
//!
//! # The map
//!
//! Arrows point only down, and a test (`tests/it/laws.rs`) keeps them.
//!
//! ```text
//! 5   main, cli
//! 4b  api   worker   ui              never each other; what two of them need sinks to http, flow or model
//! 4a  http                           server, request, caller, answer, problem: what every door that speaks HTTP shares
//! 3b  flow                           verbs; own the transaction; read in the order that flow/mod.rs lists them
//! 3a  hub                            settings, store, providers, clock, metrics, and what this process remembers
//! 2   store        provider          siblings; never each other
//! 1   model                          nouns and laws; pure: no await, no I/O, no clock, no randomness
//! 0   config error id clock limits crypt shutdown telemetry docs
//! ```
//!
//! (`config` stands at the bottom because everybody reads settings, though it knows a few words of `model`.)
//!
//! # One message's walk through the house
//!
//! A domain service signs in once a day ([`flow::sign_in`]) and POSTs to `/v1/messages`. [`http::server`] reads the
//! request, [`http::caller`] finds out who asks and counts it against the partner's limit ([`flow::rate`]), the handler
//! in `api/message.rs` hands its bytes to [`model::intake`], which finds everything that is wrong with it at once, or
//! makes a [`model::message::NewMessage`]. What may be posted is described once, as data ([`model::form`]): the strict
//! reader ([`model::fields`]) and the document (`api/form.rs`) go by the same description.
//!
//! [`flow::intake::prepare`] gives the message an id, [`hub::intake_queue`] passes it to
//! [`flow::intake::writer`], which puts all requests that arrived meanwhile into one statement,
//! `sql/message/insert.sql`: message, deliveries and key, durable together. A message whose key was taken gets the
//! first one's answer, or is refused ([`model::idempotency`]). Then, and only then, the caller reads 202, and
//! [`hub::wake`] hints the workers at the lane and shard that have something. A partner with more than its fair share
//! unfinished ([`model::fairness`]) waits in the overflow lanes, which have a claiming loop of their own.
//!
//! [`worker::deliver`] wakes, asks [`model::watermark`] where to look and from where on, and claims:
//! `sql/delivery/claim.sql` spends an attempt, whose number is the fence, and sets a lease, before any call can happen.
//! [`flow::delivery::load`] loads what is to be sent, and [`flow::delivery::call`] calls the channel's
//! [`provider::Provider`] with no connection held.
//! What came of it is an [`model::delivery::Outcome`]; [`model::delivery::next`] is the law that turns it into the one
//! next step; and `sql/delivery/settle.sql` writes steps in batches, each only if its fence still holds, with the attempt
//! and the event in the same statement.
//!
//! That statement also writes what the partner's endpoints want to hear of it: a message that tells of the other
//! (`messages.about`), with a delivery over the channel WEBHOOK for each of them. So a webhook goes the same way once more,
//! where [`flow::channel`] adds what to send and whose turn it is, and [`provider::webhook`] signs it and lets it out to
//! public addresses alone ([`model::egress`]). Everything else that is told goes through [`flow::publish`], the completion
//! of a message among it. Partners make their endpoints by [`flow::endpoint`]; [`model::concurrency`] keeps a slow one from holding
//! up others.
//!
//! What a channel needs beyond the call of a provider stands behind one seam ([`flow::channel`]): the engine and the
//! workers name no channel.
//!
//! Which provider a delivery goes to is decided when it is claimed ([`flow::delivery::route`]), by weight and by who may
//! be asked. All processes share rate limits ([`flow::delivery::limit`], [`model::limit`]) and circuit breakers
//! ([`flow::delivery::breaker`], [`model::breaker`]); [`hub::provider_state`] is what one process knows of them, and a
//! channel is claimed from no faster than its providers may be asked.
//! A destination that answered "too fast" is sent to at its own pace ([`flow::delivery::pace`]).
//!
//! What a provider tells later comes in at `api/receipt.rs`, proven by its adapter
//! ([`provider::Provider::parse_receipts`]), or is asked for ([`provider::Provider::poll_receipts`]);
//! [`flow::receipt`] keeps it first and applies it soon after, by a law in which order and
//! repetition do not matter ([`model::receipt::weigh`]). Where a message names another channel for the case that one does
//! not reach its recipient, [`flow::fallback`] makes the delivery that takes its place, in the transaction that finds that
//! out. What needs a person is told once by [`flow::alert`]. Vendors' adapters are one file and one line each
//! ([`provider::registry`]); beside each stands a simulator ([`provider::simulator`]) that refuses what its vendor refuses.
//!
//! A service that shares the database may instead enqueue in its own transaction (`notihub.enqueue`, made by
//! `migrations/0005_sql_intake.sql`): [`flow::relay`] reads such requests by the same law and writes them as
//! [`flow::intake`] does.
//!
//! What a lost worker leaves is found by [`flow::delivery::reap`] when its lease is over, and delivered by
//! [`flow::delivery::suspect`], one of a channel at a time; what waits for its time by [`flow::delivery::promote`];
//! what became worthless where nobody claims by [`flow::delivery::sweep`]. What failed is tried again when somebody
//! asks, one or a hundred thousand at a bounded rate, by [`flow::redrive`]. What each settle adds to the statistics
//! waits beside them until [`flow::rollup`] adds it to its day. What is over its time goes with [`flow::retain`], a person
//! with [`flow::erase`], which finds an address in whatever form it was kept ([`model::person`]). The loops that do so are one table, in [`worker`]. [`flow::story`] tells all of it to whoever asks,
//! and [`flow::fsck`] checks that it is true.
//!
//! An answer whose length is not known when it begins is a stream: it has a place of its own among the server's
//! connections and ends when the process stops ([`http::stream`]).
//!
//! The documents are Markdown in [`docs`]; [`ui::generated`] puts into them what comes from the code, [`ui::docs`] makes
//! pages of them, and `notihub docs` prints them.
//!
//! # Who may what
//!
//! A request runs on behalf of a principal, a partner or staff ([`model::access::principal`]), which every place
//! that depends on it matches without a rest. A partner sees its own: every statement that serves one names it.
//! What only operators or admins may takes a permit as its argument ([`model::access::permit`]), and writes its
//! line in the audit log. Secrets are hashed, or sealed by [`crypt`] and bound to their row. The program's database
//! role owns nothing ([`store::role`]), and a database session is used only once it is proven to be able to write
//! ([`store::session`]).
//!
//! # What is deliberately absent
//!
//! No queue beside the database, no stored status of a message (it is computed), no repository traits, no retry inside an
//! HTTP client, no foreign keys on hot tables, no clock but [`clock::Clock`], no task but [`shutdown::Shutdown::spawn`]'s.

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod crypt;
pub mod docs;
pub mod error;
pub mod flow;
pub mod http;
pub mod hub;
pub mod id;
pub mod limits;
pub mod model;
pub mod provider;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod ui;
pub mod worker;
