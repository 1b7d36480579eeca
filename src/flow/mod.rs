//! Verbs: effects in order. A flow owns the transaction, takes the hub, and returns values, not responses.

pub mod accept;
pub mod alert;
pub mod channel_down;
pub mod delivery;
pub mod endpoint;
pub mod erase;
pub mod fallback;
pub mod fsck;
pub mod intake;
pub mod partner;
pub mod provider;
pub mod publish;
pub mod rate;
pub mod receipt;
pub mod redrive;
pub mod relay;
pub mod reseal;
pub mod retain;
pub mod rollup;
pub mod sealed;
pub mod sign_in;
pub mod story;
pub mod webhook;
