//! Connections and transactions as `flow` passes them on, and how stored words are read.

use std::str::FromStr;

use crate::error::{Error, Result};

pub use sqlx::PgConnection as Conn;
pub use sqlx::PgExecutor as Db;
pub type Tx = sqlx::Transaction<'static, sqlx::Postgres>;

/// A part of a transaction that can fail alone.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached; the transaction is lost then.
pub async fn savepoint(tx: &mut Tx) -> Result<sqlx::Transaction<'_, sqlx::Postgres>> {
    use sqlx::Connection as _;
    Ok(tx.begin().await?)
}

/// Reads a stored word. `what`: the noun it stands for, for the error.
///
/// # Errors
/// `Error::Internal` for a word that the model does not know: the schema is newer than this program.
pub(crate) fn word<T: FromStr>(text: &str, what: &'static str) -> Result<T> {
    text.parse().map_err(|_| Error::Internal(format!("unknown {what} '{text}' in the database")))
}
