//! Erasure of a person by an address, from every place that holds it; then every table is searched for what is left.
//! `model::person` decides what counts as the person's data; the tables come from the database's catalogue.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::AdminPermit;
use crate::model::message::ERASED;
use crate::model::partner::DEFAULT_REGION;
use crate::model::person::{PersonAddress, TextUse, is_identifier_field};
use crate::store::search::{self, Column, ColumnKind, SearchRow, Table};
use crate::store::{self, audit::AuditEntry, endpoint};

use super::message::{Subject, erase_from_message};
use super::result::{Erased, Progress};
use super::user::erase_user;

/// Erases a person from the rows of one partner, or from all if `partner` is None. `recipient` is an address of the
/// person. Each message is its own transaction; then everything is searched again. Two entries in the audit log say
/// that a person was erased, not who.
///
/// # Errors
/// `Error::Usage` if the address is too short to be distinguished from other text; nothing was written.
/// `Error::Unavailable` if the database fails; the person may be erased from a part of the rows. Repeat it then.
pub async fn erase(
    hub: &Hub,
    permit: AdminPermit<'_>,
    recipient: &str,
    partner: Option<Tsid>,
    mut progress: impl FnMut(Progress<'_>),
) -> Result<Erased> {
    let region = match partner {
        Some(id) => store::partner::get(hub.store.api(), id).await?.map(|partner| partner.region),
        None => None,
    };
    let person = PersonAddress::parse(recipient, region.as_deref().unwrap_or(DEFAULT_REGION));
    let person = person.map_err(|why| Error::Usage(why.into()))?;
    // The beginning is logged first, so that the log has it however it ends.
    let begun = AuditEntry { action: "partner.erase.begin".into(), partner_id: partner, ..AuditEntry::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &begun).await?;
    let mut erased = Erased::default();
    let mut conn = hub.store.connect_for_scans().await?;
    let found = search(hub, &mut conn, &person, partner, &mut progress).await?;
    for hit in &found.elsewhere {
        match hit.table.name.as_str() {
            "users" => erase_from_users(hub, permit, &mut conn, hit, &mut erased).await?,
            _ => erase_elsewhere(&mut conn, hit).await?,
        }
    }
    for (n, ((shard, message_id), nos)) in found.messages.into_iter().enumerate() {
        erase_from_message(hub, shard, message_id, &Subject::Address(&person), &nos, &mut erased).await?;
        if n % 1_000 == 999 {
            progress(Progress::Erased(erased.messages));
        }
    }
    let left = search(hub, &mut conn, &person, partner, &mut progress).await?;
    (erased.left, erased.unopened) = (left.places, left.unopened);
    (erased.unsearched, erased.searched) = (left.unsearched, left.searched);
    // The entry says that a person was erased, not who.
    let counts =
        serde_json::json!({"deliveries": erased.deliveries, "messages": erased.messages, "inFlight": erased.in_flight});
    let entry = AuditEntry {
        action: "partner.erase".into(),
        partner_id: partner,
        after: Some(counts),
        ..AuditEntry::default()
    };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &entry).await?;
    Ok(erased)
}

/// Result of one search.
#[derive(Default)]
struct ErasureMatches {
    /// Messages that hold the address, each with the deliveries whose provider answers hold it.
    messages: BTreeMap<(i16, Tsid), BTreeSet<i16>>,
    /// Rows that belong to no message.
    elsewhere: Vec<Hit>,
    /// Number of rows that hold it, by "table.column".
    places: BTreeMap<String, u64>,
    unopened: u64,
    unsearched: Vec<String>,
    searched: u64,
}

/// A row that holds the address in these columns.
struct Hit {
    table: Table,
    columns: Vec<Column>,
    row: SearchRow,
}

/// Reads every row of every table in one snapshot.
async fn search(
    hub: &Hub,
    conn: &mut store::Conn,
    person: &PersonAddress,
    partner: Option<Tsid>,
    progress: &mut impl FnMut(Progress<'_>),
) -> Result<ErasureMatches> {
    let mut found = ErasureMatches::default();
    search::begin_snapshot(conn).await?;
    for table in search::tables(conn).await? {
        if !table.readable || (partner.is_some() && !table.has_partner()) {
            found.unsearched.push(table.name);
            continue;
        }
        let each = |row: SearchRow| {
            found.searched += 1;
            if found.searched.is_multiple_of(limits::SEARCH_PROGRESS) {
                progress(Progress::Searched(found.searched, &table.name));
            }
            check_row(hub, person, &table, row, &mut found);
        };
        search::for_each_row(conn, &table, partner, each).await?;
    }
    search::end_snapshot(conn).await?;
    Ok(found)
}

fn check_row(hub: &Hub, person: &PersonAddress, table: &Table, row: SearchRow, found: &mut ErasureMatches) {
    let mut columns = Vec::new();
    for (column, cell) in table.columns.iter().zip(&row.cells) {
        let Some(cell) = cell else { continue };
        match contains_person(hub, person, table, column, &row, cell) {
            Ok(true) => columns.push(column.clone()),
            Ok(false) => (),
            Err(_) => found.unopened += 1,
        }
    }
    if columns.is_empty() {
        return;
    }
    for column in &columns {
        *found.places.entry(format!("{}.{}", table.name, column.name)).or_default() += 1;
    }
    match row.message {
        Some(message) => {
            let nos = found.messages.entry(message).or_default();
            let of_send = columns.iter().any(|column| column.name == "sent_ref");
            if of_send || PROVIDER_ANSWERS.contains(&table.name.as_str()) {
                nos.extend(row.no);
            }
        }
        None => found.elsewhere.push(Hit { table: table.clone(), columns, row }),
    }
}

/// Tables that hold answers of providers.
const PROVIDER_ANSWERS: [&str; 3] = ["attempts", "provider_refs", "receipts"];

/// Whether a cell holds the address. Fails if it is sealed and does not open here.
fn contains_person(
    hub: &Hub,
    person: &PersonAddress,
    table: &Table,
    column: &Column,
    row: &SearchRow,
    cell: &str,
) -> Result<bool> {
    match (table.name.as_str(), column.name.as_str(), row.message) {
        ("messages", "detail", Some((_, message_id))) => {
            return Ok(person.is_in_detail(&store::message::decode_detail(&hub.keyring, message_id, cell)?));
        }
        ("chat_messages" | "chat_versions", "content", _) => {
            let (room_id, chat_id) = row.chat.unwrap_or((Tsid(0), Tsid(0)));
            let content = store::chat_message::decode(&hub.keyring, room_id, chat_id, cell)?;
            let content = serde_json::to_value(content).unwrap_or_default();
            return Ok(person.is_in_json(&content, "", TextUse::Prose));
        }
        ("endpoints", "headers", _) => {
            let endpoint_id = row.key.last().and_then(|id| id.parse().ok()).map(Tsid).unwrap_or(Tsid(0));
            let headers = endpoint::open_headers(&hub.keyring, endpoint_id, &search::decode_bytes(cell))?;
            return Ok(person.is_in_text(&headers, TextUse::Prose));
        }
        _ => (),
    }
    let used = if is_identifier_field(&column.name) { TextUse::Identifier } else { TextUse::Prose };
    // The body of a request enqueued in SQL is JSON stored as text.
    let json =
        if column.kind == ColumnKind::Json || column.name == "body" { serde_json::from_str(cell).ok() } else { None };
    Ok(match json {
        Some(value) => person.is_in_json(&value, &column.name, used),
        None => person.is_in_text(cell, used),
    })
}

/// Erases a user that the address belongs to, or the address from what a user says of itself.
async fn erase_from_users(
    hub: &Hub,
    permit: AdminPermit<'_>,
    conn: &mut store::Conn,
    hit: &Hit,
    erased: &mut Erased,
) -> Result<()> {
    const WHO: [&str; 5] = ["email", "phone", "external_id", "username", "username_key"];
    if !hit.columns.iter().any(|column| WHO.contains(&column.name.as_str())) {
        let (nickname, others): (Vec<&Column>, Vec<&Column>) =
            hit.columns.iter().partition(|column| column.name == "nickname");
        for (columns, with) in [(nickname, Some(ERASED)), (others, None)] {
            if !columns.is_empty() {
                search::overwrite_columns(conn, &hit.table, &hit.row, &columns, with).await?;
            }
        }
        return Ok(());
    }
    let [shard, user_id] = hit.row.key.as_slice() else { return Ok(()) };
    let (Ok(shard), Ok(user_id)) = (shard.parse(), user_id.parse().map(Tsid)) else { return Ok(()) };
    let db = hub.store.api();
    let Some(user) = store::user::find_in_shards(db, &[shard], user_id).await? else { return Ok(()) };
    let Some(partner) = store::partner::get(db, user.partner_id).await? else { return Ok(()) };
    match erase_user(hub, permit.actor().owner_permit(&partner)?, &user, |_| ()).await {
        Err(Error::NotFound) => Ok(()),
        Ok(of_user) => {
            erased.add(of_user);
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// Erases a row that belongs to no message. Tables not named here stay as they are and are reported as left.
async fn erase_elsewhere(conn: &mut store::Conn, hit: &Hit) -> Result<()> {
    let Hit { table, row, .. } = hit;
    let of = |names: &[&str]| -> Vec<&Column> {
        hit.columns.iter().filter(|column| names.contains(&column.name.as_str())).collect()
    };
    let overwritten: [(Vec<&Column>, Option<&str>); 2] = match table.name.as_str() {
        // Refused requests and paces of a destination are deleted as a whole. A request that still waits becomes a
        // message first.
        "notihub.refusals" | "destination_paces" | "chat_versions" => return search::delete(conn, table, row).await,
        "receipts" => {
            let [provider, event_key] = row.key.as_slice() else { return Ok(()) };
            return store::receipt::redact(conn, provider, event_key).await;
        }
        // A text that names the person goes as a whole.
        "chat_messages" => [(of(&["content"]), Some(store::chat_message::EMPTY)), (of(&["temp_id"]), None)],
        "rooms" => [(of(&["metadata"]), Some("{}")), (of(&["title"]), None)],
        "endpoints" => [(of(&["contact_email", "description"]), None), (Vec::new(), None)],
        "provider_holds" => [(of(&["detail"]), None), (Vec::new(), None)],
        "alerts" => [(of(&["detail"]), Some(ERASED)), (Vec::new(), None)],
        _ => return Ok(()),
    };
    for (columns, with) in overwritten {
        if !columns.is_empty() {
            search::overwrite_columns(conn, table, row, &columns, with).await?;
        }
    }
    Ok(())
}
