//! Databases of tests: each test has its own, copied from one migrated template.

use std::sync::atomic::{AtomicU32, Ordering};

use chrono::DateTime;
use notihub::store::{PoolSizes, Store, partition};
use sqlx::{Connection as _, PgConnection};
use tokio::sync::OnceCell;

use crate::support::app::start_time;

/// The server `bin/test` started, as superuser; each test makes its database there.
pub fn server_url() -> String {
    std::env::var("NOTIHUB_MIGRATE_DATABASE_URL").expect("no database: run the tests with bin/test")
}

/// The same database as the hub's role: what the hub may not do, a test finds out. A URL of another server, which a
/// test started itself, stays as it is.
pub fn as_hub(url: &str) -> String {
    with_login_of(&std::env::var("NOTIHUB_DATABASE_URL").expect("no database: run the tests with bin/test"), url)
}

/// The same database as superuser.
pub fn as_superuser(url: &str) -> String {
    with_login_of(&server_url(), url)
}

pub fn with_login_of(login: &str, url: &str) -> String {
    // Host and port stand behind the login, a socket's folder behind the database's name.
    let place = |url: &str| {
        let (_, rest) = url.split_once('@')?;
        let (host, rest) = rest.split_once('/')?;
        Some((host.to_owned(), rest.split_once('?').map(|(_, query)| query.to_owned())))
    };
    match url.split_once('@') {
        Some((_, rest)) if place(url) == place(login) => {
            format!("{}@{rest}", login.split('@').next().unwrap_or_default())
        }
        _ => url.to_owned(),
    }
}

/// The server's URL with another database.
pub fn database_url(name: &str) -> String {
    let url = server_url();
    let (before, query) = url.split_once('?').unwrap_or((&url, ""));
    let (base, _) = before.rsplit_once('/').expect("a database in the URL");
    format!("{base}/{name}?{query}")
}

/// An empty, migrated database of this test's own; its URL is that of the hub's role.
pub async fn fresh_database() -> String {
    as_hub(&copy(migrated().await).await)
}

/// The same with the partitions of the weeks and months from the start of the tests' clocks on, as a hub makes them
/// when it starts. To copy them is quicker than to make them.
pub async fn fresh_database_with_weeks() -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let template = TEMPLATE
        .get_or_init(|| async {
            let url = copy(migrated().await).await;
            let store = store_of(&url, PoolSizes { api: 1, intake: 1, engine: 1, webhooks: 1 });
            partition::maintain(&store, start_time(), DateTime::UNIX_EPOCH).await.expect("partitions");
            store.close().await;
            name_of(&url)
        })
        .await;
    as_hub(&copy(template).await)
}

/// The name of the migrated database that others are copies of.
async fn migrated() -> &'static str {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let make = || async {
        let name = format!("template_{}", std::process::id());
        create(&name, "").await;
        migrate(&database_url(&name)).await;
        name
    };
    TEMPLATE.get_or_init(make).await
}

/// The URL of a copy.
async fn copy(template: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    create(&name, &format!(" template {template} strategy file_copy")).await;
    database_url(&name)
}

async fn create(name: &str, how: &str) {
    let mut conn = PgConnection::connect(&server_url()).await.expect("the test server");
    let ddl = format!("create database {name}{how}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(ddl)).execute(&mut conn).await.expect("a database");
}

/// Takes sessions with a database, or ends those that there are and takes none.
pub async fn allow_sessions(url: &str, allowed: bool) {
    let mut conn = PgConnection::connect(&server_url()).await.expect("the test server");
    let name = name_of(url);
    let allow = format!("alter database {name} allow_connections {allowed}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(allow)).execute(&mut conn).await.expect("a superuser");
    if !allowed {
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
        sqlx::query(end).bind(name).execute(&mut conn).await.expect("a superuser");
    }
}

fn name_of(url: &str) -> String {
    let (before, _) = url.split_once('?').unwrap_or((url, ""));
    before.rsplit('/').next().expect("a database in the URL").to_owned()
}

/// As `notihub migrate` does, by a superuser.
pub async fn migrate(url: &str) {
    let store =
        Store::new(&as_superuser(url), PoolSizes { api: 1, intake: 1, engine: 1, webhooks: 1 }).expect("a store");
    store.migrate().await.expect("migrations");
    store.close().await;
}

/// A store of the hub's role.
pub fn store(url: &str) -> Store {
    store_of(url, PoolSizes { api: 6, intake: 6, engine: 6, webhooks: 6 })
}

pub fn store_of(url: &str, sizes: PoolSizes) -> Store {
    Store::new(&as_hub(url), sizes).expect("a store")
}
