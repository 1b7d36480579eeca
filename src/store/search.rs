//! A search of everything the hub's tables hold. Tables and columns are taken from the catalogue, so that those of a later
//! migration are searched without a word here. Each table is streamed row by row: the time grows with the rows, the memory
//! does not. (Runtime queries: the name of a table is no parameter; every name and type is the catalogue's and quoted.)

use data_encoding::BASE64;
use futures_util::TryStreamExt as _;
use sqlx::FromRow as _;

use super::Conn;
use crate::error::Result;
use crate::id::Tsid;

/// A table and its columns that may hold text.
#[derive(Debug, Clone)]
pub struct Table {
    /// With its schema, unless that is `public`.
    pub name: String,
    /// The hub's role may read it.
    pub readable: bool,
    pub columns: Vec<Column>,
    all_columns: Vec<String>,
    /// Columns of the primary key, with their types.
    key: Vec<(String, String)>,
    quoted: String,
}

#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Text,
    Json,
    /// Read as base64.
    Bytes,
}

/// A row, with what its columns hold.
#[derive(Debug)]
pub struct SearchRow {
    /// The message it is of, where its table says so …
    pub message: Option<(i16, Tsid)>,
    /// … and its delivery.
    pub no: Option<i16>,
    /// Its primary key, as text.
    pub key: Vec<String>,
    /// One for each of the table's columns.
    pub cells: Vec<Option<String>>,
}

impl Table {
    fn has(&self, column: &str) -> bool {
        self.all_columns.iter().any(|name| name == column)
    }

    fn is_of_messages(&self) -> bool {
        self.has("shard") && self.has("message_id")
    }

    /// Its rows can be told apart by partner.
    pub fn knows_partners(&self) -> bool {
        self.has("partner_id") || self.is_of_messages()
    }

    fn select(&self, partner: Option<Tsid>) -> String {
        let is_of = |column: &str| if self.is_of_messages() { format!("t.{column}") } else { "null".to_owned() };
        let no = if self.is_of_messages() && self.has("no") { "t.no" } else { "null" };
        let list = |of: Vec<String>| format!("array[{}]::text[]", of.join(", "));
        let key = list(self.key.iter().map(|(name, _)| format!("t.{}::text", quoted(name))).collect());
        let cell = |c: &Column| match c.kind {
            Kind::Bytes => format!("encode(t.{}, 'base64')", quoted(&c.name)),
            Kind::Text | Kind::Json => format!("t.{}::text", quoted(&c.name)),
        };
        let cells = list(self.columns.iter().map(cell).collect());
        let only = match partner {
            None => String::new(),
            Some(id) if self.has("partner_id") => format!(" where t.partner_id = {}", id.0),
            Some(id) => format!(
                " where exists (select from messages m where m.shard = t.shard and m.message_id = t.message_id \
                 and m.partner_id = {})",
                id.0
            ),
        };
        format!(
            "select {}::smallint, {}::bigint, {no}::smallint, {key}, {cells} from {} t{only}",
            is_of("shard"),
            is_of("message_id"),
            self.quoted
        )
    }

    /// The condition that finds a row by its key, whose values are parameters from `first` on.
    fn by_key(&self, first: usize) -> String {
        let one = |(n, (name, kind)): (usize, &(String, String))| format!("{} = ${n}::text::{kind}", quoted(name));
        (first..).zip(&self.key).map(one).collect::<Vec<_>>().join(" and ")
    }
}

/// The hub's tables that hold text, in the order in which they are to be searched.
///
/// # Errors
/// `Unavailable` if the database cannot be reached.
pub async fn tables(conn: &mut Conn) -> Result<Vec<Table>> {
    let rows = sqlx::query_file!("sql/search/tables.sql").fetch_all(conn).await?;
    let kind = |kind: &str| match kind {
        "json" | "jsonb" => Kind::Json,
        "bytea" => Kind::Bytes,
        _ => Kind::Text,
    };
    let table = rows.into_iter().map(|r| Table {
        name: if r.schema == "public" { r.name.clone() } else { format!("{}.{}", r.schema, r.name) },
        readable: r.readable,
        columns: r.columns.into_iter().zip(&r.types).map(|(name, of)| Column { name, kind: kind(of) }).collect(),
        all_columns: r.all_columns,
        key: r.key.into_iter().zip(r.key_types).collect(),
        quoted: format!("{}.{}", quoted(&r.schema), quoted(&r.name)),
    });
    Ok(table.filter(|table| !table.columns.is_empty()).collect())
}

/// What follows on this connection sees the database as it is at its first statement, until `end`.
pub async fn begin(conn: &mut Conn) -> Result<()> {
    sqlx::raw_sql("begin isolation level repeatable read read only").execute(conn).await?;
    Ok(())
}

pub async fn end(conn: &mut Conn) -> Result<()> {
    sqlx::raw_sql("commit").execute(conn).await?;
    Ok(())
}

/// Every row of a table, or of one partner's in it.
pub async fn each(conn: &mut Conn, table: &Table, partner: Option<Tsid>, mut row: impl FnMut(SearchRow)) -> Result<()> {
    let select = table.select(partner);
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(select)).fetch(conn);
    while let Some(found) = rows.try_next().await? {
        let (shard, message_id, no, key, cells) =
            <(Option<i16>, Option<i64>, Option<i16>, Vec<String>, Vec<Option<String>>)>::from_row(&found)?;
        let message = shard.zip(message_id).map(|(shard, id)| (shard, Tsid(id)));
        row(SearchRow { message, no, key, cells });
    }
    Ok(())
}

/// Deletes a row.
pub async fn delete(conn: &mut Conn, table: &Table, row: &SearchRow) -> Result<()> {
    let sql = format!("delete from {} where {}", table.quoted, table.by_key(1));
    execute(conn, sql, row).await
}

/// Empties columns of a row, or has them say something else.
pub async fn blank(
    conn: &mut Conn,
    table: &Table,
    row: &SearchRow,
    columns: &[&Column],
    with: Option<&str>,
) -> Result<()> {
    let with = with.map_or("null".to_owned(), |text| format!("'{}'", text.replace('\'', "''")));
    let set = columns.iter().map(|c| format!("{} = {with}", quoted(&c.name))).collect::<Vec<_>>().join(", ");
    let sql = format!("update {} set {set} where {}", table.quoted, table.by_key(1));
    execute(conn, sql, row).await
}

async fn execute(conn: &mut Conn, sql: String, row: &SearchRow) -> Result<()> {
    let mut query = sqlx::query(sqlx::AssertSqlSafe(sql));
    for value in &row.key {
        query = query.bind(value);
    }
    query.execute(conn).await?;
    Ok(())
}

/// What a cell of bytes holds.
pub fn bytes(cell: &str) -> Vec<u8> {
    BASE64.decode(cell.replace('\n', "").as_bytes()).unwrap_or_default()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
