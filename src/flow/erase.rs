//! Erase: a person's data is removed from everything that holds it, and every table is searched afterwards for what might
//! be left.

use std::collections::BTreeSet;

use crate::error::{Error, Result};
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{Key, Outcome, Status};
use crate::model::message::{Content, Detail};
use crate::model::partner::DEFAULT_REGION;
use crate::model::phone;
use crate::model::role::Administering;
use crate::store::{self, audit::Deed, delivery, endpoint, message, sql_intake};

use super::sweep::end;

/// What stands in the place of an address that was erased.
pub const ERASED: &str = "erased";

#[derive(Debug, Default)]
pub struct Erased {
    pub deliveries: u64,
    pub messages: u64,
    /// Of the deliveries, those that had not been sent yet.
    pub canceled: u64,
    /// Being sent just now, or to be sent yet to others: left as they are.
    pub in_flight: u64,
    /// Rows that hold the address yet, by table.
    pub left: Vec<(String, u64)>,
}

/// Erases a person, at one partner or everywhere. `progress` hears how many deliveries are done.
pub async fn erase(
    hub: &Hub,
    permit: Administering<'_>,
    recipient: &str,
    partner: Option<Tsid>,
    mut progress: impl FnMut(u64),
) -> Result<Erased> {
    let forms = forms(recipient);
    if recipient.trim().chars().count() < 6 {
        let why = "an address of at least six characters is needed: anything shorter is in everybody's texts";
        return Err(Error::Setup(why.into()));
    }
    // What begins is in the log, however it ends.
    let begun = Deed { action: "partner.erase.begin".into(), partner_id: partner, ..Deed::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &begun).await?;
    let mut erased = Erased::default();
    let mut conn = hub.store.auditing().await?;
    let mut held: BTreeSet<(i16, Tsid)> =
        message::holding(&mut conn, partner, &forms, &patterns(&forms)).await?.into_iter().collect();
    held.extend(sealed_holding(hub, partner, &forms).await?.messages);
    sql_intake::erase(&mut conn, partner, &patterns(&forms)).await?;
    endpoint::erase(&mut conn, partner, &patterns(&forms)).await?;
    for (n, (shard, message_id)) in held.into_iter().enumerate() {
        erase_from(hub, shard, message_id, &forms, &mut erased).await?;
        if n % 1_000 == 999 {
            progress(erased.deliveries);
        }
    }
    erased.left = store::fsck::traces(&mut conn, &patterns(&forms), partner).await?;
    let sealed = sealed_holding(hub, partner, &forms).await?;
    erased.left.push(("messages, sealed".into(), sealed.messages.len() as u64));
    erased.left.push(("messages that do not open (--master-key)".into(), sealed.unopened));
    // The log says that somebody was erased, and not who.
    let told =
        serde_json::json!({"deliveries": erased.deliveries, "messages": erased.messages, "inFlight": erased.in_flight});
    let deed = Deed { action: "partner.erase".into(), partner_id: partner, after: Some(told), ..Deed::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &deed).await?;
    Ok(erased)
}

/// The address in every form in which it may stand somewhere: a phone number is kept as E.164, and written in many ways.
fn forms(recipient: &str) -> Vec<String> {
    let recipient = recipient.trim();
    let mut forms = vec![recipient.to_owned()];
    if let Ok(number) = phone::parse(recipient, DEFAULT_REGION) {
        if let Some(national) = number.strip_prefix("+82").map(|rest| format!("0{rest}")) {
            let (head, tail) = national.split_at(3);
            let (middle, end) = tail.split_at(tail.len().saturating_sub(4));
            forms.extend([" ", "-", "."].map(|between| [head, middle, end].join(between)));
            forms.extend([" ", "-"].map(|between| ["+82", &head[1..], middle, end].join(between)));
            forms.push(national);
        }
        forms.push(number.trim_start_matches('+').to_owned());
        forms.push(number);
    }
    forms.iter_mut().for_each(|form| *form = form.to_lowercase());
    forms.sort();
    forms.dedup();
    forms
}

/// As regular expressions of PostgreSQL: the form itself, not as a part of a longer address; in JSON a line break before it
/// is written \\n.
fn patterns(forms: &[String]) -> Vec<String> {
    let literal = |c: char| if c.is_ascii_alphanumeric() { c.to_string() } else { format!("\\{c}") };
    let pattern = |form: &String| {
        let form: String = form.chars().map(literal).collect();
        format!(r"((?<![A-Za-z0-9._%+-])|(?<=\\[nrtbf])){form}(?![A-Za-z0-9-]|\.[A-Za-z0-9])")
    };
    forms.iter().map(pattern).collect()
}

/// The same of a text in memory.
fn holds(text: &str, forms: &[String]) -> bool {
    let text = text.to_lowercase();
    let alone = |at: usize, form: &str| {
        let (before, after) = (&text[..at], &text[at + form.len()..]);
        let escaped = before.ends_with(['n', 'r', 't', 'b', 'f']) && before[..before.len() - 1].ends_with('\\');
        let joined = before.ends_with(|c: char| c.is_ascii_alphanumeric() || "._%+-".contains(c));
        let goes_on = after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-')
            || after.strip_prefix('.').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric()));
        (escaped || !joined) && !goes_on
    };
    forms.iter().map(|form| form.to_lowercase()).any(|form| text.match_indices(&form).any(|(at, _)| alone(at, &form)))
}

/// Sealed content can only be searched by whoever opens it.
struct SealedHolding {
    messages: Vec<(i16, Tsid)>,
    /// Do not open here: nobody knows what they hold.
    unopened: u64,
}

async fn sealed_holding(hub: &Hub, partner: Option<Tsid>, forms: &[String]) -> Result<SealedHolding> {
    let mut found = SealedHolding { messages: Vec::new(), unopened: 0 };
    let mut conn = hub.store.auditing().await?;
    for shard in store::partner::shards(hub.store.api()).await? {
        let mut after = Tsid(0);
        loop {
            let rows = message::sealed(&mut conn, shard, partner, after, limits::HOUSEKEEPING_BATCH).await?;
            let Some(last) = rows.last() else { break };
            after = last.message_id;
            for row in rows {
                match message::read_detail(&hub.keyring, row.message_id, &row.detail) {
                    Ok(detail) if holds(&serde_json::to_string(&detail).unwrap_or_default(), forms) => {
                        found.messages.push((row.shard, row.message_id));
                    }
                    Ok(_) => (),
                    Err(_) => found.unopened += 1,
                }
            }
        }
    }
    Ok(found)
}

async fn erase_from(hub: &Hub, shard: i16, message_id: Tsid, forms: &[String], erased: &mut Erased) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    tx.rollback().await?;
    // What waits is not sent any more.
    let mine = |no: i16, all: &[delivery::Addressed]| all.iter().any(|d| d.no == no && is_theirs(d, forms));
    let all = delivery::contents(hub.store.api(), shard, message_id).await?;
    let open = delivery::open(hub.store.api(), row.partner_id, shard, message_id).await?;
    let waiting: Vec<_> =
        open.into_iter().filter(|w| w.head.status != Status::Processing && mine(w.key.no, &all)).collect();
    erased.canceled += end(hub, waiting, &Outcome::Canceled).await? as u64;

    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    // As whoever applies receipts: these before deliveries.
    store::receipt::hold(&mut tx, shard, &[message_id]).await?;
    let all = all_held(&mut tx, shard, message_id).await?;
    let (settled, held): (Vec<_>, Vec<_>) =
        all.iter().filter(|d| is_theirs(d, forms)).partition(|d| d.status.is_settled());
    erased.in_flight += held.len() as u64;
    let nos: Vec<i16> = settled.iter().map(|d| d.no).collect();
    let gone = |d: &delivery::Addressed| d.recipient == ERASED || nos.contains(&d.no);
    let mut detail = message::read_detail(&hub.keyring, message_id, &row.detail)?;
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
    let open = blank(&mut detail, &only_theirs, &needed, all.iter().all(gone), forms);
    erased.in_flight += open;
    let sealed = message::is_sealed(&row.detail);
    let text = message::write_detail(&hub.keyring, message_id, &detail, sealed)?;
    let key = row.client_msg_id.map(|key| if holds(&key, forms) { format!("{ERASED}-{message_id}") } else { key });
    delivery::hide(&mut *tx, shard, message_id, &nos).await?;
    message::rewrite(&mut *tx, shard, message_id, &text, key.as_deref()).await?;
    tx.commit().await?;
    erased.deliveries += nos.len() as u64;
    erased.messages += 1;
    Ok(())
}

/// A message's deliveries, held: until the transaction ends nothing takes the place of one of them that is not among them.
async fn all_held(tx: &mut store::Conn, shard: i16, message_id: Tsid) -> Result<Vec<delivery::Addressed>> {
    let mut held = 0;
    loop {
        let all = delivery::contents(&mut *tx, shard, message_id).await?;
        if all.len() == held {
            return Ok(all);
        }
        held = all.len();
        let keys: Vec<Key> = all.iter().map(|d| Key { shard, message_id, no: d.no }).collect();
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

fn is_theirs(d: &delivery::Addressed, forms: &[String]) -> bool {
    let is = |address: &str| forms.iter().any(|form| form.eq_ignore_ascii_case(address));
    is(&d.recipient) || d.written.as_deref().is_some_and(is)
}

/// Takes out what is theirs; says how many contents had to be left because they are to be sent yet.
fn blank(detail: &mut Detail, only_theirs: &[bool], needed: &[bool], whole: bool, forms: &[String]) -> u64 {
    let mut left = 0;
    for ((content, theirs), needed) in detail.contents.iter_mut().zip(only_theirs).zip(needed) {
        let names_them = serde_json::to_string(content).is_ok_and(|text| holds(&text, forms));
        match (*theirs || names_them, *needed) {
            (true, true) => left += 1,
            (true, false) => *content = Content::default(),
            (false, _) => (),
        }
    }
    if whole || detail.title.as_ref().is_some_and(|title| holds(title, forms)) {
        detail.title = None;
    }
    detail.metadata.retain(|name, value| !whole && !holds(name, forms) && !holds(&value.to_string(), forms));
    detail.erased = true;
    left
}
