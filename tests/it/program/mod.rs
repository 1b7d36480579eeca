//! The program as processes: started, configured, stopped and killed.

mod crash;
mod doctor;
mod health;
mod secrecy;
mod setting;
mod up;
mod worker;

use sqlx::{Connection as _, PgConnection};

use crate::support::process::{Folder, Notihub};

/// A program of its own on this database, which is the tests' and not durable.
fn on(folder: &Folder, url: &str, args: &[&str]) -> Notihub {
    Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", url).env("NOTIHUB_ACCEPT_LOSS", "true")
}

async fn count(url: &str, sql: &'static str) -> i64 {
    let mut conn = PgConnection::connect(url).await.expect("the database");
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.expect("a count")
}

const OPEN: &str = "select count(*) from deliveries where status in ('SCHEDULED', 'PENDING', 'PROCESSING')";
