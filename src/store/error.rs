//! What an error of the database means to a caller.

use super::session;
use crate::error::{Code, Error, Refusal, Unavailable, UnavailableKind};

/// SQLSTATE read_only_sql_transaction: the server refuses to write, or to listen, in this session.
const READ_ONLY: &str = "25006";
/// SQLSTATE lock_not_available: the lock time-out was over.
const LOCKED: &str = "55P03";

impl From<sqlx::Error> for Error {
    fn from(e: sqlx::Error) -> Error {
        match &e {
            sqlx::Error::PoolTimedOut => {
                let why = session::why_none().map(|why| format!("no session: {why}"));
                Error::Unavailable(why.unwrap_or_else(|| "no connection was free in time".into()).into())
            }
            sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => Error::Unavailable(e.to_string().into()),
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => {
                Error::Unavailable(e.to_string().into())
            }
            sqlx::Error::Database(told) => {
                let state = told.code().unwrap_or_default().into_owned();
                let text = format!("{} (SQLSTATE {state})", told.message());
                if state == READ_ONLY {
                    session::give_up_all();
                }
                if told.message().starts_with("unsupported startup parameter") {
                    return Error::Setup(format!(
                        "a pooler before PostgreSQL refuses the connection: {text}. Leave the parameter out of the \
                         database URL, or name it in PgBouncer's ignore_startup_parameters"
                    ));
                }
                match state.get(..2).unwrap_or_default() {
                    // connection, transaction cut off, authorisation, resources, operator intervention, conflict
                    // between transactions
                    "08" | "25" | "28" | "3D" | "53" | "57" | "40" | "55" | "58" => {
                        let kind = if state == LOCKED { UnavailableKind::Locked } else { UnavailableKind::Other };
                        Error::Unavailable(Unavailable { kind, why: text })
                    }
                    // Data the server will not take. Parsing should have said so first: counted, and a test holds it at
                    // 0.
                    "22" | "54" => Error::Refused(
                        Refusal::new(422, "rejected_by_database", "the database does not take this input")
                            .with_code(Code::E001),
                    ),
                    _ if state == "42501" => {
                        Error::Internal(format!("{text}: `notihub migrate` gives the hub's role the rights it needs"))
                    }
                    _ => Error::Internal(text),
                }
            }
            _ => Error::Internal(e.to_string()),
        }
    }
}
