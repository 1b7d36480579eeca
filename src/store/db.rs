//! Types of connections and transactions that `flow` passes on, and the parser of stored words.

use std::str::FromStr;

use crate::error::{Error, Result};

pub use sqlx::PgConnection as Conn;
pub use sqlx::PgExecutor as Db;
/// A transaction. Rolled back when dropped without `commit`.
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// Begins a part of a transaction that can be rolled back alone. Released by `commit`, rolled back when dropped.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the whole transaction is lost then.
pub async fn savepoint(tx: &mut Tx) -> Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    use sqlx::Connection as _;
    Ok(tx.begin().await?)
}

/// Parses a stored word. `what` names the kind of word in the error.
///
/// # Errors
/// `Error::Internal` for a word that the model does not know: the schema is newer than this program.
pub(crate) fn parse_word<T: FromStr>(text: &str, what: &'static str) -> Result<T> {
    text.parse().map_err(|_| Error::Internal(format!("unknown {what} '{text}' in the database")))
}
