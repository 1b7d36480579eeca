//! Nouns and laws: what is true with the network unplugged. No await, no I/O, no clock, no randomness in here; time and
//! chance come in as arguments.

pub mod access;
pub mod alert;
pub mod breaker;
pub mod capability;
pub mod channel;
pub mod cp949;
pub mod crontab;
pub mod delivery;
pub mod egress;
pub mod endpoint;
pub mod event;
pub mod fairness;
pub mod gate;
pub mod idempotency;
pub mod intake;
pub mod json;
pub mod lane;
pub mod limit;
pub mod message;
pub mod mrkdwn;
pub mod network;
pub mod pace;
pub mod partner;
pub mod person;
pub mod phone;
pub mod provider_text;
pub mod rate;
pub mod receipt;
pub mod redrive;
pub mod retry;
pub mod signature;
pub mod stats;
pub mod text;
pub mod watermark;
