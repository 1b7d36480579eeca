//! Deliveries: claim, hold, call, settle, and what keeps the queue moving beside them. The attempt is spent by the
//! claim, before any call can happen; the call holds no connection; the settle is fenced by the attempt's number. A
//! phase's type is what the phase before gave, so nothing is called that was not claimed, and nothing settled that was
//! neither called nor given back.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// What a provider's limit and a destination's pace let through.
pub mod limit;
pub mod pace;

// What all processes know of the providers' troubles.
pub mod breaker;

// Which provider a delivery goes to, and whether it may be asked now.
pub mod route;

// A worker takes deliveries.
pub mod claim;

// The settle that an outcome leads to.
pub mod step;

// What is to be sent is loaded.
pub mod load;

// The provider is called.
pub mod call;

// The outcome is written.
pub mod settle;

// What keeps the queue moving.
pub mod cancel;
pub mod promote;
pub mod reap;
pub mod suspect;
pub mod sweep;
