//! Flows: the actions of the hub, each an ordered list of effects. A flow owns the transaction, takes the hub, and
//! returns values, not responses.
//!
//! Listed in groups: a flow names only flows of the groups above its own, so they can be read in this order. A test
//! (`tests/it/laws.rs`) enforces it.

// These name no other flow.
pub mod fsck;
pub mod intake;
pub mod ledger;
pub mod partner;
pub mod publish;
pub mod rate;
pub mod rollup;
pub mod story;

// Alerts are messages to operators.
pub mod alert;

// Clients sign in; what looks like abuse raises an alert.
pub mod sign_in;

// Users sign in by the flows above, and have inboxes and rooms.
pub mod user;

pub mod inbox;
pub mod room;

// These accept messages, publish events, open keys or read inboxes by the flows above; `start` makes the hub that all
// flows take.
pub mod channel;
pub mod endpoint;
pub mod fallback;
pub mod presence;
pub mod relay;
pub mod reseal;
pub mod sealed;
pub mod start;
pub mod stream;
pub mod watch;

// These fall back to other channels, or disable endpoints.
pub mod receipt;
pub mod redrive;
pub mod retain;

// The delivery engine: claim, load, call, settle.
pub mod delivery;

// These end waiting deliveries, or pause providers.
pub mod channel_down;
pub mod erase;
pub mod provider;

pub use start::start;
