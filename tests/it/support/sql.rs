//! Statements run by hand, and their plans.

use std::collections::BTreeMap;

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::support::app::App;

/// One of the engine's statements, prepared as the engine prepares it and explained with these arguments.
pub struct Plan {
    pub name: &'static str,
    pub nodes: Vec<Node>,
    pub buffers: i64,
    pub rows: i64,
}

#[derive(Debug)]
pub struct Node {
    pub kind: String,
    /// The index or table that it reads; empty where it reads none.
    pub reads: String,
    /// Rows that it read and threw away.
    pub thrown: i64,
    /// Rows that it returned, over all loops.
    pub rows: f64,
}

pub async fn explain(conn: &mut PgConnection, name: &'static str, args: &str) -> Plan {
    let file = format!("{}/sql/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut tx = conn.begin().await.unwrap();
    let prepare = format!("prepare explained as {text}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(prepare)).execute(&mut *tx).await.unwrap();
    let explain = format!("explain (analyze, buffers, costs off, format json) execute explained({args})");
    let plan: Value = sqlx::query_scalar(sqlx::AssertSqlSafe(explain)).fetch_one(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    sqlx::raw_sql("deallocate explained").execute(conn).await.unwrap();
    let top = &plan[0]["Plan"];
    let blocks = |name: &str| top[name].as_i64().unwrap();
    let mut nodes = Vec::new();
    walk(top, &mut nodes);
    Plan {
        name,
        nodes,
        buffers: blocks("Shared Hit Blocks") + blocks("Shared Read Blocks"),
        rows: top["Actual Rows"].as_i64().unwrap(),
    }
}

fn walk(node: &Value, nodes: &mut Vec<Node>) {
    let text = |name: &str| node[name].as_str().map(str::to_owned);
    let reads = text("Index Name").or(text("Relation Name")).unwrap_or_default();
    let thrown = ["Rows Removed by Filter", "Rows Removed by Index Recheck", "Rows Removed by Join Filter"];
    let thrown = thrown.iter().map(|name| node[*name].as_i64().unwrap_or(0)).sum();
    let rows = node["Actual Rows"].as_f64().unwrap_or(0.0) * node["Actual Loops"].as_f64().unwrap_or(0.0);
    nodes.push(Node { kind: text("Node Type").unwrap(), reads, thrown, rows });
    node["Plans"].as_array().into_iter().flatten().for_each(|child| walk(child, nodes));
}

impl Plan {
    /// Reads tables only through these indexes (as the parent tables name them), throws almost nothing away, and
    /// touches at most so many blocks.
    #[track_caller]
    pub fn reads_only(&self, indexes: &BTreeMap<String, String>, allowed: &[&str], buffers_max: i64) {
        let Plan { name, nodes, buffers, .. } = self;
        let mut used = 0;
        for Node { kind, reads, thrown, .. } in nodes {
            assert!(!kind.contains("Seq Scan"), "{name} reads all of {reads}: {nodes:#?}");
            assert!(!kind.contains("Hash Join") && !kind.contains("Merge Join"), "{name} joins by {kind}: {nodes:#?}");
            assert!(reads.is_empty() || *thrown <= 5, "{name} throws away {thrown} rows of {reads}: {nodes:#?}");
            if kind.starts_with("Index") || kind.starts_with("Bitmap Index") {
                // One of a table without partitions is its own.
                let parent = indexes.get(reads).unwrap_or(reads);
                assert!(allowed.contains(&parent.as_str()), "{name} reads {parent} instead of {allowed:?}");
                used += 1;
            }
        }
        assert!(used > 0, "{name} reads no index: {nodes:#?}");
        assert!(*buffers <= buffers_max, "{name} touched {buffers} blocks for {} rows: {nodes:#?}", self.rows);
    }

    /// The same of a statement that joins lists of its own by hash, and may look at the first row of a table, or read
    /// small tables and indexes in full.
    #[track_caller]
    pub fn finds_by(&self, indexes: &BTreeMap<String, String>, allowed: &[&str], small: &[&str], buffers_max: i64) {
        let Plan { name, nodes, buffers, .. } = self;
        for Node { kind, reads, thrown, rows } in nodes {
            let is_small = small.contains(&indexes.get(reads).unwrap_or(reads).as_str());
            if kind.contains("Seq Scan") {
                let few = rows + *thrown as f64 <= 1.0;
                assert!(few || is_small, "{name} reads all of {reads}: {nodes:#?}");
            }
            assert!(
                reads.is_empty() || is_small || *thrown <= 5,
                "{name} throws away {thrown} rows of {reads}: {nodes:#?}"
            );
            if kind.starts_with("Index") || kind.starts_with("Bitmap Index") {
                let parent = indexes.get(reads).unwrap_or(reads);
                assert!(allowed.contains(&parent.as_str()), "{name} reads {parent} instead of {allowed:?}: {nodes:#?}");
            }
        }
        assert!(*buffers <= buffers_max, "{name} touched {buffers} blocks for {} rows: {nodes:#?}", self.rows);
    }
}

/// What the planner believes of the tables: as they were before they were filled, as they are, nothing.
pub const STATISTICS: [&str; 3] = ["of empty tables", "of full tables", "none"];

pub async fn make_statistics(db: &sqlx::PgPool, statistics: &str) {
    let sql = match statistics {
        "of full tables" => "analyze",
        "none" => {
            "delete from pg_statistic; update pg_class set reltuples = -1, relpages = 0 \
             where relkind in ('r', 'i', 'p', 'I') and relnamespace = 'public'::regnamespace"
        }
        _ => "",
    };
    sqlx::raw_sql(sql).execute(db).await.unwrap();
}

/// Which index of the parent table each partition's index belongs to.
pub async fn indexes(db: &sqlx::PgPool) -> BTreeMap<String, String> {
    let rows: Vec<(String, String)> = sqlx::query_as(
        "select c.relname::text, p.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         join pg_class p on p.oid = i.inhparent where p.relkind = 'I'",
    )
    .fetch_all(db)
    .await
    .unwrap();
    rows.into_iter().collect()
}

pub async fn run_sql(conn: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(conn).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
}

/// The rows of every table, as texts in order.
pub async fn rows_by_table(app: &App) -> BTreeMap<String, Vec<String>> {
    let db = app.db().await;
    let tables: Vec<String> = sqlx::query_scalar(
        "select format('%I.%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind in ('r', 'p') and not c.relispartition and n.nspname in ('public', 'notihub')",
    )
    .fetch_all(&db)
    .await
    .unwrap();
    let mut all = BTreeMap::new();
    for table in tables {
        let rows = sqlx::AssertSqlSafe(format!("select t::text from {table} t order by 1"));
        let rows: Vec<String> = sqlx::query_scalar(rows).fetch_all(&db).await.unwrap();
        all.insert(table, rows);
    }
    all
}

/// Runs a statement as superuser.
pub async fn execute(app: &App, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&app.db().await).await.unwrap();
}

/// Moves the records of sends out of the own rows of the oldest `deliveries`, as the hub does before one changes.
pub async fn move_send_records(conn: &mut PgConnection, deliveries: i64) {
    let keys = "select array_agg(shard), array_agg(message_id), array_agg(no), min(message_id), max(message_id) \
                from (select * from deliveries where sent_called_at is not null order by message_id limit $1) d";
    let keys: (Vec<i16>, Vec<i64>, Vec<i16>, i64, i64) =
        sqlx::query_as(keys).bind(deliveries).fetch_one(&mut *conn).await.unwrap();
    let text = include_str!("../../../sql/delivery/move_send_records.sql");
    let statement = sqlx::query(text).bind(keys.0).bind(keys.1).bind(keys.2).bind(keys.3).bind(keys.4);
    assert!(statement.execute(conn).await.unwrap().rows_affected() > 0);
}
