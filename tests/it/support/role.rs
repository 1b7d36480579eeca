//! Logins and roles of the database, and the program run as one of them.

use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::support::database::as_superuser;
use crate::support::process::{Folder, Notihub};
use crate::support::sql::run_sql;

/// A name that no other test's role has: roles belong to the server.
pub fn fresh_name(kind: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{kind}_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A connection of a new login with this clause: `in role notihub_enqueue`, or nothing.
pub async fn login(url: &str, clause: &str) -> (String, PgConnection) {
    let name = fresh_name("service");
    let mut conn = PgConnection::connect(&as_superuser(url)).await.unwrap();
    run_sql(&mut conn, &format!("create role {name} login {clause}; set session authorization {name}")).await;
    (name, conn)
}

pub fn enqueue(partner: &str, message: &Value) -> String {
    format!("select notihub.enqueue('{partner}', '{message}')")
}

pub fn program(folder: &Folder, args: &[&str], hub: &str, owner: Option<&str>) -> Notihub {
    let program = Notihub::new(folder, args).env("NOTIHUB_DATABASE_URL", hub).env("NOTIHUB_ACCEPT_LOSS", "true");
    match owner {
        Some(owner) => program.env("NOTIHUB_MIGRATE_DATABASE_URL", owner),
        None => program,
    }
}

pub async fn doctor(folder: &Folder, url: &str, key: Option<&str>) -> Value {
    let mut doctor = program(folder, &["doctor", "--output=json"], url, None);
    if let Some(key) = key {
        doctor = doctor.env("NOTIHUB_MASTER_KEY", key);
    }
    doctor.run().await.json()
}

/// The grade of a check, and how it stands.
pub fn graded(doctor: &Value, check: &str) -> (String, String) {
    let found = doctor["findings"].as_array().unwrap().iter().find(|f| f["check"] == check);
    let found = found.unwrap_or_else(|| panic!("{check}: {doctor}"));
    (found["grade"].as_str().unwrap().to_owned(), found["stands"].as_str().unwrap().to_owned())
}
