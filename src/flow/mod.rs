//! Verbs: effects in order. A flow owns the transaction, takes the hub, and returns values, not responses.

pub mod accept;
pub mod cancel;
pub mod deliver;
pub mod fsck;
pub mod intake;
pub mod promote;
pub mod reap;
pub mod retain;
pub mod rollup;
pub mod story;
pub mod sweep;
