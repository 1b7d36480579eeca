//! The program as processes: started, configured, stopped and killed.

mod crash;
mod doctor;
mod health;
mod secrecy;
mod setting;
mod up;
mod worker;

use sqlx::{Connection as _, PgConnection};

async fn count(url: &str, sql: &'static str) -> i64 {
    let mut conn = PgConnection::connect(url).await.expect("the database");
    sqlx::query_scalar(sql).fetch_one(&mut conn).await.expect("a count")
}

const OPEN: &str = "select count(*) from deliveries where status in ('SCHEDULED', 'PENDING', 'PROCESSING')";
