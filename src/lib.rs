//! notihub: a notification hub on PostgreSQL alone.
//!
//! # The map
//!
//! Arrows point only down; a test (`tests/it/laws.rs`) enforces it.
//!
//! ```text
//! 5   main, cli
//! 4b  api   worker   ui              never each other; what two of them need sinks to http, flow or model
//! 4a  http                           server, request, caller, answer, problem: shared by every room that speaks HTTP
//! 3b  flow                           actions; own the transaction; read in the order that flow/mod.rs lists them
//! 3a  hub                            settings, store, providers, clock, metrics, and the in-memory state of a process
//! 2   store        provider          siblings; never each other
//! 1   model                          nouns and laws; pure: no await, no I/O, no clock, no randomness
//! 0   config error id clock limits crypt shutdown telemetry docs
//! ```
//!
//! (`config` is at the bottom because every layer reads settings, though it uses a few words of `model`.)
//!
//! # The path of a message
//!
//! **Accept.** A domain service signs in once a day ([`flow::sign_in`]) and POSTs to `/v1/messages`. [`http::server`]
//! reads the request, [`http::caller`] authenticates the caller and counts the request against the partner's limit
//! ([`flow::rate`]). The handler in `api/message.rs` passes the body to [`model::intake`], which returns all faults at
//! once or a [`model::message::NewMessage`]. The accepted fields are described once, as data ([`model::form`]): the
//! strict parser ([`model::fields`]) and the OpenAPI document (`api/form.rs`) both use this description.
//!
//! [`flow::intake::prepare`] gives the message an id. [`hub::intake_queue`] passes it to [`flow::intake::writer`],
//! which writes all requests that arrived meanwhile in one statement: message, deliveries and idempotency key become
//! durable together. [`flow::intake::insert`] chooses the statement: `sql/message/insert.sql`, or `insert_plain.sql`
//! where no partner has endpoints. A message whose key was taken gets the answer of the first one, or is refused
//! ([`model::idempotency`]). Only then is the caller answered 202, and [`hub::wake`] hints the workers at the lane and
//! shard. A partner with more than its fair share of unfinished messages ([`model::fairness`]) waits in the
//! overflow lanes, which have a claiming loop of their own.
//!
//! **Deliver.** [`worker::deliver`] wakes, asks [`model::watermark`] where deliveries may wait, and claims them:
//! `sql/delivery/claim.sql` increments the attempt number, which is the fence, and sets a lease, before any call can
//! happen. [`flow::delivery::load`] loads the contents, and [`flow::delivery::call`] calls the channel's
//! [`provider::Provider`] with no connection held. The result is a [`model::delivery::Outcome`];
//! [`model::delivery::next_transition`] decides the next step from it; and `sql/delivery/settle.sql` writes steps in
//! batches, each only if its fence still holds, with the attempt and the event in the same statement.
//!
//! **Webhooks.** The same statement writes the events for the partner's endpoints: an event is a message about another
//! one (`messages.about`), with a delivery over the channel WEBHOOK for each endpoint. So a webhook takes the same
//! path. [`flow::channel`] adds body and order, and [`provider::webhook`] signs it and calls public addresses only
//! ([`model::egress`]). All other events, the completion of a message among them, are written by [`flow::publish`].
//! Partners manage their endpoints by [`flow::endpoint`]; [`model::concurrency`] keeps a slow endpoint from delaying
//! others. Needs of a channel beyond the call of a provider are behind one interface ([`flow::channel`]): the engine
//! and the workers name no channel.
//!
//! **Route and limit.** The provider of a delivery is chosen when it is claimed ([`flow::delivery::route`]), by weight
//! and availability. All processes share rate limits ([`flow::delivery::limit`], [`model::limit`]) and circuit breakers
//! ([`flow::delivery::breaker`], [`model::breaker`]); [`hub::provider_state`] is one process's copy. Deliveries of a
//! channel are claimed no faster than its providers can be called. A destination that answered "too fast" is called at
//! its own pace ([`flow::delivery::pace`]).
//!
//! **Receipts and fallbacks.** A provider's later report arrives at `api/receipt.rs`, authenticated by its adapter
//! ([`provider::Provider::parse_receipts`]), or is polled ([`provider::Provider::poll_receipts`]). [`flow::receipt`]
//! stores it first and applies it soon after; order and repetition do not matter ([`model::receipt`]). If a message
//! names another channel for the case that one fails, [`flow::fallback`] creates that delivery in the transaction that
//! finds the failure. Conditions that need a person cause one alert ([`flow::alert`]). A vendor's adapter is one file
//! and one line ([`provider::registry`]), with a simulator beside it ([`provider::simulator`]) that refuses the same
//! requests as the vendor.
//!
//! **Inboxes.** A delivery over INAPP ends in the hub: [`flow::channel`] calls [`flow::inbox::put`] in place of a
//! provider, which puts the item into the user's inbox and takes the next number of the user's stream in one statement.
//! [`hub::streams`] knows the live connections of a process; [`flow::stream`] brings them every event once and in
//! order, or a reset; [`http::sse`] frames them. [`flow::watch`] does so for the events of one message.
//!
//! **Rooms.** A message of a room comes over HTTP (`api/chat_message.rs`) or STOMP (`api/stomp`: `handshake` and
//! `socket` have the connection, `session` and `codec` the protocol, `driver` joins them with the flows).
//! [`flow::room::send`] seals it if the room is sealed and queues it ([`hub::chat_queue`]); a room always goes to the
//! same writer of a process, which writes all that waits in one statement (`sql/chat_message/send.sql`): it locks the
//! rooms' gates, checks the members, and numbers the messages after the last ones (the view `room_heads`). A tempId
//! that was sent before ([`hub::recent_sends`]) is looked for first; one that is not known here is refused by its key.
//! After the commit the number is noted ([`hub::streams`]), and connections at every process get the event by the same
//! reader as an inbox's ([`flow::room::tail`]). Marks wait in [`hub::marks`] and are written four times a second; who
//! types or looks at a room goes through [`hub::live_notes`] and is stored nowhere.
//!
//! **SQL intake.** A service that shares the database may enqueue in its own transaction (`notihub.enqueue`, made by
//! `migrations/0005_sql_intake.sql`): [`flow::relay`] reads such requests by the same rules and writes them as
//! [`flow::intake`] does.
//!
//! **Housekeeping.** [`flow::delivery::reap`] takes back deliveries of a lost worker when their lease is over, and
//! [`flow::delivery::suspect`] delivers them one at a time; [`flow::delivery::promote`] makes deliveries PENDING that
//! are due; [`flow::delivery::sweep`] ends those that expired where no worker claims. [`flow::redrive`] sends dead
//! letters again on request, one or a hundred thousand at a bounded rate. Each settle inserts statistics, which
//! [`flow::rollup`] adds to their days. [`flow::retain`] removes rows whose retention is over; [`flow::erase`] removes
//! a person, in whatever form an address was stored ([`model::person`]). These loops are one table, in [`worker`].
//! [`flow::story`] computes the timeline of a message, and [`flow::fsck`] checks the invariants.
//!
//! **Users.** A partner's own people. [`http::caller::User`] identifies one by a token of this hub, a token that the
//! partner's server signed, or the partner's own token with `X-User` ([`flow::user::access`]); [`hub::users`] remembers
//! it for seconds, and a notification of any change makes every process forget it. `api/auth.rs` and `api/user.rs`
//! answer below `/api/v1` in the envelope of the seeds of chats, `api/partner_user.rs` answers the partner.
//!
//! An answer whose length is unknown when it begins is a stream: it has a budget of its own among the server's
//! connections and ends when the process stops ([`http::stream`]).
//!
//! The documents are Markdown in [`docs`]; [`ui::generated`] inserts the parts that come from the code, [`ui::docs`]
//! renders them as pages, and `notihub docs` prints them. [`ui::inbox`] serves the custom element `<notihub-inbox>`,
//! [`ui::chat`] a page where two users write to each other.
//!
//! # Permissions
//!
//! A request has a principal, a partner or staff ([`model::access::principal`]), and code that depends on it matches
//! exhaustively. A partner sees only its own rows: every statement that serves a partner names it. An action that only
//! operators or admins may do takes a permit as its argument ([`model::access::permit`]) and writes an entry in the
//! audit log. Secrets are hashed, or sealed by [`crypt`] and bound to their row. The program's database role owns
//! nothing ([`store::role`]), and a database session is used only after it has proved that it can write
//! ([`store::session`]).
//!
//! # What is deliberately absent
//!
//! No queue beside the database, no stored status of a message (it is computed), no repository traits, no retry inside
//! an HTTP client, no foreign keys on hot tables, no clock but [`clock::Clock`], no task but those of
//! [`shutdown::Shutdown::spawn`].

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
