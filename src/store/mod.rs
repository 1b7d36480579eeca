//! The database layer. A function runs one statement, decides nothing, returns plain structs, and maps database errors
//! to `Error` (see `store::error`). Which statements share a transaction is decided in `flow`.
//!
//! Two conventions hold in every file. A parameter `db: impl Db<'_>` takes a pool, where each statement commits by
//! itself, or a connection inside a transaction, where the caller commits. A parameter `conn` or `tx` of type `&mut
//! Conn` requires a transaction, because the function takes locks that last until it ends.
//!
//! # Errors
//! Each function names `Error::Unavailable`, the error to expect, and what it leaves behind. Every statement may also
//! fail with `Error::Refused` (the server rejects a value: validation has a gap), `Error::Setup` (a pooler refuses the
//! connection) or `Error::Internal` (a right is missing, or the program and the schema do not fit). Then PostgreSQL
//! answered, so that nothing was written; inside a transaction the caller rolls back.

pub mod alert;
pub mod attempt;
pub mod audit;
pub mod bench;
pub mod chat_message;
pub mod connection;
pub mod credential;
mod db;
pub mod delivery;
pub mod device;
pub mod endpoint;
mod error;
pub mod event;
pub mod fsck;
pub mod hub;
pub mod idempotency;
pub mod inbox;
pub mod key;
mod keys;
pub mod lane;
pub mod ledger;
pub mod listen;
pub mod member;
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
pub mod room;
pub mod search;
pub mod session;
pub mod sign_in_failure;
pub mod signing_key;
pub mod sql_intake;
pub mod stats;
pub mod stream;
pub mod suspect;
pub mod ticket;
pub mod user;
pub mod user_block;
pub mod user_key;
pub mod worker;

pub(crate) use db::parse_word;
pub use db::{Conn, Db, Tx, savepoint};
pub use pool::{PoolSizes, Store};
