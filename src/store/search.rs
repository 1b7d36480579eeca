//! A search of everything the hub's tables hold. Tables and columns come from the catalogue, so that those of later
//! migrations are searched without a change here. Each table is streamed row by row: time grows with the rows, memory
//! does not. (Runtime queries: a table's name cannot be a parameter; every name and type is the catalogue's, quoted.)

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
    /// The session's role may read it.
    pub readable: bool,
    pub columns: Vec<Column>,
    all_columns: Vec<String>,
    /// Columns of the primary key, with their types.
    key: Vec<(String, String)>,
    quoted: String,
}

/// A column that may hold text.
#[derive(Debug, Clone)]
pub struct Column {
    pub name: String,
    pub kind: ColumnKind,
}

/// How the text of a column is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnKind {
    Text,
    Json,
    /// Read as base64.
    Bytes,
}

/// A row with the text of its columns.
#[derive(Debug)]
pub struct SearchRow {
    /// The message it belongs to (shard, id), if its table has these columns.
    pub message: Option<(i16, Tsid)>,
    /// The delivery it belongs to, if its table has that column.
    pub no: Option<i16>,
    /// The chat message it belongs to (room, id), if its table has these columns.
    pub chat: Option<(Tsid, Tsid)>,
    /// Its primary key, as text.
    pub key: Vec<String>,
    /// One per column of `Table::columns`.
    pub cells: Vec<Option<String>>,
}

impl Table {
    fn has(&self, column: &str) -> bool {
        self.all_columns.iter().any(|name| name == column)
    }

    fn is_of_messages(&self) -> bool {
        self.has("shard") && self.has("message_id")
    }

    fn is_of_rooms(&self) -> bool {
        self.has("shard") && self.has("room_id")
    }

    fn is_of_users(&self) -> bool {
        self.has("shard") && self.has("user_id")
    }

    /// Whether its rows can be told apart by partner.
    pub fn has_partner(&self) -> bool {
        self.has("partner_id") || self.is_of_messages() || self.is_of_users() || self.is_of_rooms()
    }

    fn select(&self, partner: Option<Tsid>) -> String {
        let is_of = |column: &str| if self.is_of_messages() { format!("t.{column}") } else { "null".to_owned() };
        let is_of_chat = self.has("room_id") && self.has("chat_id");
        let of_chat = |column: &str| if is_of_chat { format!("t.{column}") } else { "null".to_owned() };
        let no = if self.is_of_messages() && self.has("no") { "t.no" } else { "null" };
        let list = |of: Vec<String>| format!("array[{}]::text[]", of.join(", "));
        let key = list(self.key.iter().map(|(name, _)| format!("t.{}::text", quoted(name))).collect());
        let cell = |c: &Column| match c.kind {
            ColumnKind::Bytes => format!("encode(t.{}, 'base64')", quoted(&c.name)),
            ColumnKind::Text | ColumnKind::Json => format!("t.{}::text", quoted(&c.name)),
        };
        let cells = list(self.columns.iter().map(cell).collect());
        let only = match partner {
            None => String::new(),
            Some(id) if self.has("partner_id") => format!(" where t.partner_id = {}", id.0),
            Some(id) if self.is_of_users() && !self.is_of_messages() => format!(
                " where exists (select from users u where u.shard = t.shard and u.user_id = t.user_id \
                 and u.partner_id = {})",
                id.0
            ),
            Some(id) if self.is_of_rooms() => format!(
                " where exists (select from rooms r where r.shard = t.shard and r.room_id = t.room_id \
                 and r.partner_id = {})",
                id.0
            ),
            Some(id) => format!(
                " where exists (select from messages m where m.shard = t.shard and m.message_id = t.message_id \
                 and m.partner_id = {})",
                id.0
            ),
        };
        format!(
            "select {}::smallint, {}::bigint, {no}::smallint, {key}, {cells}, {}::bigint, {}::bigint from {} t{only}",
            is_of("shard"),
            is_of("message_id"),
            of_chat("room_id"),
            of_chat("chat_id"),
            self.quoted
        )
    }

    /// The condition that finds a row by its key, whose values are parameters from `$first` on.
    fn by_key(&self, first: usize) -> String {
        let one = |(n, (name, kind)): (usize, &(String, String))| format!("{} = ${n}::text::{kind}", quoted(name));
        (first..).zip(&self.key).map(one).collect::<Vec<_>>().join(" and ")
    }
}

/// The hub's tables that hold text, in the order in which they have to be searched.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn tables(conn: &mut Conn) -> Result<Vec<Table>> {
    let rows = sqlx::query_file!("sql/search/tables.sql").fetch_all(conn).await?;
    let kind = |kind: &str| match kind {
        "json" | "jsonb" => ColumnKind::Json,
        "bytea" => ColumnKind::Bytes,
        _ => ColumnKind::Text,
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

/// Begins a read-only transaction: all reads on this connection see the database as of the first one, until
/// `end_snapshot`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn begin_snapshot(conn: &mut Conn) -> Result<()> {
    sqlx::raw_sql("begin isolation level repeatable read read only").execute(conn).await?;
    Ok(())
}

/// Ends the transaction of `begin_snapshot`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time.
pub async fn end_snapshot(conn: &mut Conn) -> Result<()> {
    sqlx::raw_sql("commit").execute(conn).await?;
    Ok(())
}

/// The columns of `Table::select`.
type Columns = (Option<i16>, Option<i64>, Option<i16>, Vec<String>, Vec<Option<String>>, Option<i64>, Option<i64>);

/// Calls `row` for every row of a table, or for every row of one partner. With `partner` the table must have
/// `has_partner`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time. Rows read before were passed on.
pub async fn for_each_row(
    conn: &mut Conn,
    table: &Table,
    partner: Option<Tsid>,
    mut row: impl FnMut(SearchRow),
) -> Result<()> {
    let select = table.select(partner);
    let mut rows = sqlx::query(sqlx::AssertSqlSafe(select)).fetch(conn);
    while let Some(found) = rows.try_next().await? {
        let (shard, message_id, no, key, cells, room_id, chat_id) = Columns::from_row(&found)?;
        let message = shard.zip(message_id).map(|(shard, id)| (shard, Tsid(id)));
        let chat = room_id.zip(chat_id).map(|(room_id, chat_id)| (Tsid(room_id), Tsid(chat_id)));
        row(SearchRow { message, no, chat, key, cells });
    }
    Ok(())
}

/// Deletes a row.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn delete(conn: &mut Conn, table: &Table, row: &SearchRow) -> Result<()> {
    let sql = format!("delete from {} where {}", table.quoted, table.by_key(1));
    execute(conn, sql, row).await
}

/// Sets columns of a row to null, or to the text `with`.
///
/// # Errors
/// `Error::Unavailable` if the database cannot be reached or does not answer in time; outside a transaction, the
/// statement may have committed.
pub async fn overwrite_columns(
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

/// The bytes of a cell of a `ColumnKind::Bytes` column.
pub fn decode_bytes(cell: &str) -> Vec<u8> {
    BASE64.decode(cell.replace('\n', "").as_bytes()).unwrap_or_default()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
