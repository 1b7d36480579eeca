//! Erase: a person's data is removed from everything that holds it, and every table is searched afterwards for what might
//! be left. What counts as holding it is `model::person`'s; which tables there are, the database's catalogue's.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::access::permit::AdminPermit;
use crate::model::delivery::{DeliveryKey, Outcome, Status};
use crate::model::message::{Content, Detail, ERASED};
use crate::model::partner::DEFAULT_REGION;
use crate::model::person::{PersonAddress, TextUse, is_identifier_field};
use crate::store::search::{self, Column, ColumnKind, SearchRow, Table};
use crate::store::{self, audit::AuditEntry, delivery, endpoint, message};

use super::delivery::settle::end_waiting;
use super::intake::prepare::key_hash;

#[derive(Debug, Default)]
pub struct Erased {
    pub deliveries: u64,
    pub messages: u64,
    /// Of the deliveries, those that had not been sent yet.
    pub canceled: u64,
    /// Being sent just now, or to be sent yet to others: left as they are.
    pub in_flight: u64,
    /// Rows that hold the address yet, by table and column.
    pub left: BTreeMap<String, u64>,
    /// Messages and headers of endpoints whose master key is not here: what they hold is not known.
    pub unopened: u64,
    /// Tables that were not searched: the hub may not read them, or cannot tell the partner's rows in them.
    pub unsearched: Vec<String>,
    /// How many rows were searched for what is left.
    pub searched: u64,
}

/// How far it has come.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Rows that were searched, and the table they are in.
    Searched(u64, &'a str),
    /// Messages that are done.
    Erased(u64),
}

/// Erases a person, at one partner or everywhere.
///
/// # Errors
/// `Error::Usage` when the address is too short to be told from other text.
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
    // What begins is in the log, however it ends.
    let begun = AuditEntry { action: "partner.erase.begin".into(), partner_id: partner, ..AuditEntry::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &begun).await?;
    let mut erased = Erased::default();
    let mut conn = hub.store.connect_for_scans().await?;
    let found = search(hub, &mut conn, &person, partner, &mut progress).await?;
    for hit in &found.elsewhere {
        erase_elsewhere(&mut conn, hit).await?;
    }
    for (n, ((shard, message_id), nos)) in found.messages.into_iter().enumerate() {
        erase_from_message(hub, shard, message_id, &person, &nos, &mut erased).await?;
        if n % 1_000 == 999 {
            progress(Progress::Erased(erased.messages));
        }
    }
    let left = search(hub, &mut conn, &person, partner, &mut progress).await?;
    (erased.left, erased.unopened) = (left.places, left.unopened);
    (erased.unsearched, erased.searched) = (left.unsearched, left.searched);
    // The log says that somebody was erased, and not who.
    let told =
        serde_json::json!({"deliveries": erased.deliveries, "messages": erased.messages, "inFlight": erased.in_flight});
    let deed =
        AuditEntry { action: "partner.erase".into(), partner_id: partner, after: Some(told), ..AuditEntry::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &deed).await?;
    Ok(erased)
}

/// What a search found.
#[derive(Default)]
struct ErasureMatches {
    /// Messages that hold the address, with the deliveries of which providers said it.
    messages: BTreeMap<(i16, Tsid), BTreeSet<i16>>,
    /// Rows that are of no message.
    elsewhere: Vec<Hit>,
    /// How many rows hold it, by table and column.
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

/// Reads every row of every table, as they are at one moment.
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
            if SAID_BY_PROVIDERS.contains(&table.name.as_str()) {
                nos.extend(row.no);
            }
        }
        None => found.elsewhere.push(Hit { table: table.clone(), columns, row }),
    }
}

/// Tables of what providers said of deliveries.
const SAID_BY_PROVIDERS: [&str; 3] = ["attempts", "provider_refs", "receipts"];

/// Whether a cell holds the address.
///
/// # Errors
/// It is sealed, and does not open here.
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
            return Ok(person.is_in_detail(&message::decode_detail(&hub.keyring, message_id, cell)?));
        }
        ("endpoints", "headers", _) => {
            let endpoint_id = row.key.last().and_then(|id| id.parse().ok()).map(Tsid).unwrap_or(Tsid(0));
            let headers = endpoint::open_headers(&hub.keyring, endpoint_id, &search::decode_bytes(cell))?;
            return Ok(person.is_in_text(&headers, TextUse::Prose));
        }
        _ => (),
    }
    let used = if is_identifier_field(&column.name) { TextUse::Identifier } else { TextUse::Prose };
    // A request enqueued in SQL is JSON as text.
    let json =
        if column.kind == ColumnKind::Json || column.name == "body" { serde_json::from_str(cell).ok() } else { None };
    Ok(match json {
        Some(value) => person.is_in_json(&value, &column.name, used),
        None => person.is_in_text(cell, used),
    })
}

/// Where else than in messages a person is erased, and how. What is not named here is told as left.
async fn erase_elsewhere(conn: &mut store::Conn, hit: &Hit) -> Result<()> {
    let Hit { table, row, .. } = hit;
    let of = |names: &[&str]| -> Vec<&Column> {
        hit.columns.iter().filter(|column| names.contains(&column.name.as_str())).collect()
    };
    let (columns, with) = match table.name.as_str() {
        // What was refused is forgotten as a whole, and so is how fast an address may be sent to. What waits becomes a
        // message first.
        "notihub.refusals" | "destination_paces" => return search::delete(conn, table, row).await,
        "receipts" => {
            let [provider, event_key] = row.key.as_slice() else { return Ok(()) };
            return store::receipt::redact(conn, provider, event_key).await;
        }
        "endpoints" => (of(&["contact_email", "description"]), None),
        "provider_holds" => (of(&["detail"]), None),
        "alerts" => (of(&["detail"]), Some(ERASED)),
        _ => return Ok(()),
    };
    if columns.is_empty() { Ok(()) } else { search::overwrite_columns(conn, table, row, &columns, with).await }
}

/// Erases a person from one message. Of the deliveries `said`, providers said the address.
async fn erase_from_message(
    hub: &Hub,
    shard: i16,
    message_id: Tsid,
    person: &PersonAddress,
    said: &BTreeSet<i16>,
    erased: &mut Erased,
) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    tx.rollback().await?;
    // What waits is not sent any more.
    let mine = |no: i16, all: &[delivery::DeliveryRecipient]| all.iter().any(|d| d.no == no && is_theirs(d, person));
    let all = delivery::recipients(hub.store.api(), shard, message_id).await?;
    let open = delivery::unsettled(hub.store.api(), row.partner_id, shard, message_id).await?;
    let waiting: Vec<_> =
        open.into_iter().filter(|w| w.head.status != Status::Processing && mine(w.key.no, &all)).collect();
    erased.canceled += end_waiting(hub, waiting, &Outcome::Canceled).await? as u64;

    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    // As whoever applies receipts: these before deliveries.
    store::receipt::lock_of_messages(&mut tx, shard, &[message_id]).await?;
    let all = all_held(&mut tx, shard, message_id).await?;
    let (settled, held): (Vec<_>, Vec<_>) =
        all.iter().filter(|d| is_theirs(d, person)).partition(|d| d.status.is_settled());
    erased.in_flight += held.len() as u64;
    let nos: Vec<i16> = settled.iter().map(|d| d.no).collect();
    let gone = |d: &delivery::DeliveryRecipient| d.recipient == ERASED || nos.contains(&d.no);
    let mut detail = message::decode_detail(&hub.keyring, message_id, &row.detail)?;
    // A content that nobody else gets is about them; one that others get too is not, unless it names them.
    let only_theirs: Vec<bool> = (0..detail.contents.len())
        .map(|n| {
            let mut of = all.iter().filter(|d| may_say(&detail, d.content, n)).peekable();
            of.peek().is_some() && of.all(gone)
        })
        .collect();
    // What is to be sent yet is left as it is: nobody gets an empty message.
    let needed: Vec<bool> = (0..detail.contents.len())
        .map(|n| all.iter().any(|d| !d.status.is_settled() && may_say(&detail, d.content, n)))
        .collect();
    let before = detail.clone();
    let open = blank(&mut detail, &only_theirs, &needed, all.iter().all(gone), person);
    erased.in_flight += open;
    delivery::redact_recipients(&mut *tx, shard, message_id, &nos).await?;
    // A provider's id of what is being sent is needed yet.
    let is_done = |no: &i16| all.iter().any(|d| d.no == *no && d.status.is_settled());
    let said: Vec<i16> = nos.iter().chain(said).copied().filter(is_done).collect();
    delivery::redact_answers(&mut *tx, shard, message_id, &said).await?;
    // The key of a message to them is about them, whatever it says.
    if let Some(key) = &row.client_msg_id
        && (!nos.is_empty() || !held.is_empty() || person.is_in_text(key, TextUse::Identifier))
    {
        store::idempotency::erase_key(&mut *tx, shard, message_id, key_hash(hub, row.partner_id, key)).await?;
    }
    if !nos.is_empty() || detail != before {
        detail.erased = true;
        let text = message::encode_detail(&hub.keyring, message_id, &detail, message::is_sealed(&row.detail))?;
        message::update_detail(&mut *tx, shard, message_id, &text).await?;
    }
    tx.commit().await?;
    erased.deliveries += nos.len() as u64;
    erased.messages += 1;
    Ok(())
}

/// A message's deliveries, held: until the transaction ends nothing takes the place of one of them that is not among them.
async fn all_held(tx: &mut store::Conn, shard: i16, message_id: Tsid) -> Result<Vec<delivery::DeliveryRecipient>> {
    let mut held = 0;
    loop {
        let all = delivery::recipients(&mut *tx, shard, message_id).await?;
        if all.len() == held {
            return Ok(all);
        }
        held = all.len();
        let keys: Vec<DeliveryKey> = all.iter().map(|d| DeliveryKey { shard, message_id, no: d.no }).collect();
        delivery::lock(tx, &keys).await?;
    }
}

/// Whether a delivery with the first of these contents says the other, or what takes its place may.
fn may_say(detail: &Detail, content: i16, other: usize) -> bool {
    let of = |content: i16| usize::try_from(content).ok().and_then(|n| detail.contents.get(n));
    let next = |content: &i16| of(*content)?.fallback.as_ref().map(|f| f.content);
    let all = std::iter::successors(Some(content), next).take(detail.contents.len());
    all.into_iter().any(|content| usize::try_from(content) == Ok(other))
}

fn is_theirs(d: &delivery::DeliveryRecipient, person: &PersonAddress) -> bool {
    person.equals(&d.recipient) || d.recipient_as_given.as_deref().is_some_and(|written| person.equals(written))
}

/// Takes out what is theirs; says how many contents had to be left because they are to be sent yet.
fn blank(detail: &mut Detail, only_theirs: &[bool], needed: &[bool], whole: bool, person: &PersonAddress) -> u64 {
    let mut left = 0;
    for ((content, theirs), needed) in detail.contents.iter_mut().zip(only_theirs).zip(needed) {
        let names_them =
            serde_json::to_value(&*content).is_ok_and(|content| person.is_in_json(&content, "", TextUse::Prose));
        match (*theirs || names_them, *needed) {
            (true, true) => left += 1,
            (true, false) => *content = Content::default(),
            (false, _) => (),
        }
    }
    if whole || detail.title.as_ref().is_some_and(|title| person.is_in_text(title, TextUse::Prose)) {
        detail.title = None;
    }
    let names_them = |name: &str, value: &_| {
        person.is_in_text(name, TextUse::Identifier) || person.is_in_json(value, "metadata", TextUse::Identifier)
    };
    detail.metadata.retain(|name, value| !whole && !names_them(name, value));
    left
}
