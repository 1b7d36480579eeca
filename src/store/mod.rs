//! The database. One function is one statement: no decision, plain structs back, an error that says what the caller can
//! do. What commits together is put together in `flow`, with a `Tx` from here.

pub mod alert;
pub mod attempt;
pub mod audit;
pub mod bench;
mod db;
pub mod delivery;
pub mod endpoint;
mod error;
pub mod event;
pub mod fsck;
pub mod hub;
pub mod idempotency;
pub mod key;
mod keys;
pub mod lane;
pub mod listen;
pub mod message;
mod migrate;
pub mod pace;
pub mod partition;
pub mod partner;
mod pool;
pub mod provider;
pub mod provider_cursor;
pub mod provider_ref;
pub mod rate;
pub mod receipt;
pub mod redrive;
pub mod refresh_token;
pub mod role;
pub mod search;
pub mod session;
pub mod sign_in_failure;
pub mod signing_key;
pub mod sql_intake;
pub mod stats;
pub mod suspect;
pub mod worker;

pub(crate) use db::word;
pub use db::{Conn, Db, Tx, savepoint};
pub use pool::{PoolSizes, Store};
