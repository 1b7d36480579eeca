//! Erase: a person's data is removed from everything that holds it, and every table is searched afterwards for what might
//! be left.

use std::collections::BTreeSet;

use crate::error::Result;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::delivery::{Outcome, Status};
use crate::model::message::{Content, Detail};
use crate::model::role::Administering;
use crate::store::{self, audit::Deed, delivery, message};

use super::sweep::end;

/// What stands in the place of an address that was erased.
pub const ERASED: &str = "erased";

#[derive(Debug, Default)]
pub struct Erased {
    pub deliveries: u64,
    pub messages: u64,
    /// Of the deliveries, those that had not been sent yet.
    pub canceled: u64,
    /// Being sent just now, and so left as they are.
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
    let mut erased = Erased::default();
    let mut conn = hub.store.auditing().await?;
    let mut held: BTreeSet<(i16, Tsid)> =
        message::holding(&mut conn, partner, &forms, &patterns(&forms)).await?.into_iter().collect();
    held.extend(sealed_holding(hub, partner, &forms).await?);
    for (n, (shard, message_id)) in held.into_iter().enumerate() {
        erase_from(hub, shard, message_id, &forms, &mut erased).await?;
        if n % 1_000 == 999 {
            progress(erased.deliveries);
        }
    }
    // Only of the partner asked for is it promised; what others hold is theirs.
    erased.left = match partner {
        None => store::fsck::traces(&mut conn, &patterns(&forms)).await?,
        Some(_) => {
            let left = message::holding(&mut conn, partner, &forms, &patterns(&forms)).await?.len() as u64;
            vec![("messages".to_owned(), left)]
        }
    };
    let sealed = sealed_holding(hub, partner, &forms).await?.len() as u64;
    if sealed > 0 {
        erased.left.push(("messages, sealed".into(), sealed));
    }
    // The log says that somebody was erased, and not who.
    let told =
        serde_json::json!({"deliveries": erased.deliveries, "messages": erased.messages, "inFlight": erased.in_flight});
    let deed = Deed { action: "partner.erase".into(), partner_id: partner, after: Some(told), ..Deed::default() };
    store::audit::insert(hub.store.api(), hub.next_id(), hub.clock.now(), permit.actor(), &deed).await?;
    Ok(erased)
}

/// The address in every form in which it may stand somewhere.
fn forms(recipient: &str) -> Vec<String> {
    vec![recipient.to_owned()]
}

/// As patterns for `like`: anywhere in a text, taken literally.
fn patterns(forms: &[String]) -> Vec<String> {
    let literal = |form: &String| form.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    forms.iter().map(|form| format!("%{}%", literal(form))).collect()
}

fn holds(text: &str, forms: &[String]) -> bool {
    let text = text.to_lowercase();
    forms.iter().any(|form| text.contains(&form.to_lowercase()))
}

/// Sealed content can only be searched by whoever opens it.
async fn sealed_holding(hub: &Hub, partner: Option<Tsid>, forms: &[String]) -> Result<Vec<(i16, Tsid)>> {
    let (mut found, mut after) = (Vec::new(), Tsid(0));
    loop {
        let rows = message::sealed(hub.store.api(), partner, after, limits::HOUSEKEEPING_BATCH).await?;
        let Some(last) = rows.last() else { return Ok(found) };
        after = last.message_id;
        for row in rows {
            let detail = message::read_detail(&hub.keyring, row.message_id, &row.detail)?;
            if holds(&serde_json::to_string(&detail).unwrap_or_default(), forms) {
                found.push((row.shard, row.message_id));
            }
        }
    }
}

async fn erase_from(hub: &Hub, shard: i16, message_id: Tsid, forms: &[String], erased: &mut Erased) -> Result<()> {
    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    tx.rollback().await?;
    // What waits is not sent any more.
    let mine = |no: i16, all: &[delivery::Addressed]| all.iter().any(|d| d.no == no && is_theirs(&d.recipient, forms));
    let all = delivery::contents(hub.store.api(), shard, message_id).await?;
    let open = delivery::open(hub.store.api(), row.partner_id, shard, message_id).await?;
    let waiting: Vec<_> =
        open.into_iter().filter(|w| w.head.status != Status::Processing && mine(w.key.no, &all)).collect();
    erased.canceled += end(hub, waiting, &Outcome::Canceled).await? as u64;

    let mut tx = hub.store.begin().await?;
    let Some(row) = message::lock(&mut tx, shard, message_id).await? else { return Ok(()) };
    let all = delivery::contents(&mut *tx, shard, message_id).await?;
    let (settled, held): (Vec<_>, Vec<_>) =
        all.iter().filter(|d| is_theirs(&d.recipient, forms)).partition(|d| d.status.is_settled());
    erased.in_flight += held.len() as u64;
    let nos: Vec<i16> = settled.iter().map(|d| d.no).collect();
    let gone = |d: &delivery::Addressed| d.recipient == ERASED || nos.contains(&d.no);
    let mut detail = message::read_detail(&hub.keyring, message_id, &row.detail)?;
    // A content that nobody else gets is about them; one that others get too is not, unless it names them.
    let only_theirs: Vec<bool> = (0..detail.contents.len())
        .map(|n| {
            let mut of = all.iter().filter(|d| usize::try_from(d.content) == Ok(n)).peekable();
            of.peek().is_some() && of.all(gone)
        })
        .collect();
    blank(&mut detail, &only_theirs, all.iter().all(gone), forms);
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

fn is_theirs(recipient: &str, forms: &[String]) -> bool {
    forms.iter().any(|form| form.eq_ignore_ascii_case(recipient))
}

fn blank(detail: &mut Detail, only_theirs: &[bool], whole: bool, forms: &[String]) {
    for (content, theirs) in detail.contents.iter_mut().zip(only_theirs) {
        let names_them = serde_json::to_string(content).is_ok_and(|text| holds(&text, forms));
        if *theirs || names_them {
            *content = Content::default();
        }
    }
    if whole || detail.title.as_ref().is_some_and(|title| holds(title, forms)) {
        detail.title = None;
    }
    detail.metadata.retain(|name, value| !whole && !holds(name, forms) && !holds(&value.to_string(), forms));
    detail.erased = true;
}
