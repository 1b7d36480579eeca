//! The delivery engine: claim, load, call, settle, and the loops that keep the queue moving. The claim increments the
//! attempt number before any call can happen; the call holds no connection; the settle is fenced by the attempt number.
//! Each phase takes the type that the phase before returns, so a delivery that was not claimed cannot be called, and
//! one that was neither called nor given back cannot be settled.
//!
//! Listed in groups, as in `flow`: a module names only modules of the groups above its own.

// Rate limits of providers and paces of destinations.
pub mod limit;
pub mod pace;

// Circuit breakers, shared by all processes.
pub mod breaker;

// The choice of the provider, and the permit to call it.
pub mod route;

// A worker takes deliveries.
pub mod claim;

// The settle that an outcome leads to.
pub mod step;

// Contents are loaded.
pub mod load;

// The provider is called.
pub mod call;

// The outcome is written.
pub mod settle;

// Housekeeping of the queue.
pub mod cancel;
pub mod promote;
pub mod reap;
pub mod suspect;
pub mod sweep;
