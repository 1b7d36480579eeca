//! Deliveries: claim, hold, call, settle, and what keeps the queue moving beside them. The attempt is spent
//! by the claim, before any call can happen; the call holds no connection; the settle is fenced by the attempt's number. A
//! phase's type is what the phase before gave, so nothing is called that was not claimed, and nothing settled that was
//! neither called nor given back.

// Whether a provider and a destination may be called.
pub mod breaker;
pub mod limit;
pub mod pace;
pub mod route;

// The phases.
pub mod call;
pub mod claim;
pub mod hold;
pub mod settle;
pub mod step;

// Beside them.
pub mod cancel;
pub mod promote;
pub mod reap;
pub mod suspect;
pub mod sweep;
