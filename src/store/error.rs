//! Maps database errors to `Error`.

use super::session;
use crate::error::{Code, Error, Refusal, Unavailable, UnavailableKind};

/// SQLSTATE read_only_sql_transaction: the session accepts no writes and no LISTEN.
const READ_ONLY: &str = "25006";
/// SQLSTATE lock_not_available: the lock time-out has passed.
const LOCKED: &str = "55P03";

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Error {
        match &e {
            sqlx::Error::PoolTimedOut => {
                let why = session::recent_refusal().map(|why| format!("no session: {why}"));
                Error::Unavailable(why.unwrap_or_else(|| "no database connection was free in time".into()).into())
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Error::Unavailable(e.to_string().into()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Error::Unavailable(e.to_string().into())
            }
            sqlx::Error::Database(e) => {
                let state = e.code().unwrap_or_default().into_owned();
                let text = format!("{} (SQLSTATE {state})", e.message());
                if state == READ_ONLY {
                    session::discard_all();
                }
                if e.message().starts_with("unsupported startup parameter") {
                    return Error::Setup(format!(
                        "a pooler in front of PostgreSQL refuses the connection: {text}. Leave the parameter out of \
                         the database URL, or add it to PgBouncer's ignore_startup_parameters"
                    ));
                }
                match state.get(..2).unwrap_or_default() {
                    // Connection, transaction state, authorisation, resources, operator intervention, conflicts between
                    // transactions.
                    "08" | "25" | "28" | "3D" | "53" | "57" | "40" | "55" | "58" => {
                        let kind = if state == LOCKED { UnavailableKind::Locked } else { UnavailableKind::Other };
                        Error::Unavailable(Unavailable { kind, why: text })
                    }
                    // The server rejects the data. Validation should catch it first: counted, and a test keeps it at 0.
                    "22" | "54" => Error::Refused(
                        Refusal::new(422, "rejected_by_database", "the database rejects this input")
                            .with_code(Code::E001),
                    ),
                    _ if state == "42501" => Error::Internal(format!(
                        "{text}: run `notihub migrate`, which grants the hub's role the rights it needs"
                    )),
                    _ => Error::Internal(text),
                }
            }
            _ => Error::Internal(e.to_string()),
        }
    }
}
