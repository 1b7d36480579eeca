//! Erase: removes a person's data from every place that holds it, and then searches every table for what is left.
//! `model::person` decides what counts as the person's data; the tables come from the database's catalogue.

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
use super::user::leave;

/// Result of an erasure.
#[derive(Debug, Default)]
pub struct Erased {
    /// Deliveries whose recipient was erased.
    pub deliveries: u64,
    /// Messages that were changed.
    pub messages: u64,
    /// Deliveries to the person that had not been sent and were canceled.
    pub canceled: u64,
    /// Deliveries being sent, and contents still to be sent to others: left as they are.
    pub in_flight: u64,
    /// Number of rows that still hold the address, by "table.column".
    pub left: BTreeMap<String, u64>,
    /// Sealed messages and endpoint headers whose master key is not here: it is unknown what they hold.
    pub unopened: u64,
    /// Tables that were not searched: the hub may not read them, or they do not say which rows are the partner's.
    pub unsearched: Vec<String>,
    /// Number of rows searched for what is left.
    pub searched: u64,
}

/// Progress of an erasure.
#[derive(Debug, Clone, Copy)]
pub enum Progress<'a> {
    /// Number of rows searched so far, and the table being searched.
    Searched(u64, &'a str),
    /// Number of messages erased so far.
    Erased(u64),
}

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
            "users" => erase_user(hub, permit, &mut conn, hit).await?,
            _ => erase_elsewhere(&mut conn, hit).await?,
        }
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
    // The body of a request enqueued in SQL is JSON stored as text.
    let json =
        if column.kind == ColumnKind::Json || column.name == "body" { serde_json::from_str(cell).ok() } else { None };
    Ok(match json {
        Some(value) => person.is_in_json(&value, &column.name, used),
        None => person.is_in_text(cell, used),
    })
}

/// Erases a user that the address belongs to, or the address from what a user says of itself.
async fn erase_user(hub: &Hub, permit: AdminPermit<'_>, conn: &mut store::Conn, hit: &Hit) -> Result<()> {
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
    match leave::erase(hub, permit.actor().owner_permit(&partner)?, &user).await {
        Err(Error::NotFound) => Ok(()),
        erased => erased,
    }
}

/// Erases a row that belongs to no message. Tables not named here stay as they are and are reported as left.
async fn erase_elsewhere(conn: &mut store::Conn, hit: &Hit) -> Result<()> {
    let Hit { table, row, .. } = hit;
    let of = |names: &[&str]| -> Vec<&Column> {
        hit.columns.iter().filter(|column| names.contains(&column.name.as_str())).collect()
    };
    let (columns, with) = match table.name.as_str() {
        // Refused requests and paces of a destination are deleted as a whole. A request that still waits becomes a
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

/// Erases a person from one message. The provider answers of the deliveries `answered` hold the address.
async fn erase_from_message(
    hub: &Hub,
    shard: i16,
    message_id: Tsid,
    person: &PersonAddress,
    answered: &BTreeSet<i16>,
    erased: &mut Erased,
) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    tx.rollback().await?;
    // Deliveries that wait are canceled.
    let mine = |no: i16, all: &[delivery::DeliveryRecipient]| all.iter().any(|d| d.no == no && is_theirs(d, person));
    let all = delivery::recipients(hub.store.api(), shard, message_id).await?;
    let unsettled = delivery::unsettled(hub.store.api(), row.partner_id, shard, message_id).await?;
    let waiting: Vec<_> =
        unsettled.into_iter().filter(|w| w.head.status != Status::Processing && mine(w.key.no, &all)).collect();
    erased.canceled += end_waiting(hub, waiting, &Outcome::Canceled).await? as u64;

    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    // Lock receipts before deliveries, in the order in which receipts are applied.
    store::receipt::lock_of_messages(&mut tx, shard, &[message_id]).await?;
    let all = all_held(&mut tx, shard, message_id).await?;
    let (settled, held): (Vec<_>, Vec<_>) =
        all.iter().filter(|d| is_theirs(d, person)).partition(|d| d.status.is_settled());
    erased.in_flight += held.len() as u64;
    let nos: Vec<i16> = settled.iter().map(|d| d.no).collect();
    let gone = |d: &delivery::DeliveryRecipient| d.recipient == ERASED || nos.contains(&d.no);
    let mut detail = message::decode_detail(&hub.keyring, message_id, &row.detail)?;
    // A content that only this person gets is theirs; one that others get, too, is theirs only if it names them.
    let only_theirs: Vec<bool> = (0..detail.contents.len())
        .map(|n| {
            let mut of = all.iter().filter(|d| may_say(&detail, d.content, n)).peekable();
            of.peek().is_some() && of.all(gone)
        })
        .collect();
    // A content that is still to be sent is left as it is: otherwise an empty message would be sent.
    let still_needed: Vec<bool> = (0..detail.contents.len())
        .map(|n| all.iter().any(|d| !d.status.is_settled() && may_say(&detail, d.content, n)))
        .collect();
    let before = detail.clone();
    let kept = blank(&mut detail, &only_theirs, &still_needed, all.iter().all(gone), person);
    erased.in_flight += kept;
    delivery::redact_recipients(&mut *tx, shard, message_id, &nos).await?;
    // The provider's id of a delivery that is being sent is still needed.
    let is_done = |no: &i16| all.iter().any(|d| d.no == *no && d.status.is_settled());
    let answered: Vec<i16> = nos.iter().chain(answered).copied().filter(is_done).collect();
    delivery::redact_answers(&mut *tx, shard, message_id, &answered).await?;
    // The client's id of a message to the person counts as their data, whatever it contains.
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

/// Locks all deliveries of a message and returns them. No fallback that is not among them can be made until the
/// transaction ends.
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

/// Whether a delivery with content number `content`, or one of its fallbacks, sends content number `other`.
fn may_say(detail: &Detail, content: i16, other: usize) -> bool {
    let of = |content: i16| usize::try_from(content).ok().and_then(|n| detail.contents.get(n));
    let next = |content: &i16| of(*content)?.fallback.as_ref().map(|f| f.content);
    let all = std::iter::successors(Some(content), next).take(detail.contents.len());
    all.into_iter().any(|content| usize::try_from(content) == Ok(other))
}

fn is_theirs(d: &delivery::DeliveryRecipient, person: &PersonAddress) -> bool {
    person.equals(&d.recipient) || d.recipient_as_given.as_deref().is_some_and(|written| person.equals(written))
}

/// Blanks the person's contents, title and metadata; returns how many contents stay because they are still to be sent.
fn blank(detail: &mut Detail, only_theirs: &[bool], still_needed: &[bool], whole: bool, person: &PersonAddress) -> u64 {
    let mut left = 0;
    for ((content, theirs), still_needed) in detail.contents.iter_mut().zip(only_theirs).zip(still_needed) {
        let names_them =
            serde_json::to_value(&*content).is_ok_and(|content| person.is_in_json(&content, "", TextUse::Prose));
        match (*theirs || names_them, *still_needed) {
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
