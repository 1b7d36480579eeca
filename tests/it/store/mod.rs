//! The database: schema, roles, sessions, and the words in its statements.

mod role;
mod schema;
mod session;
mod sql_words;
mod upgrade;
