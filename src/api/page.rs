//! Lists: a page, a signed cursor to the next, a window of time.

use chrono::{DateTime, Utc};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use utoipa::IntoParams;

use super::request::Query;
use crate::error::Refusal;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::limits;
use crate::model::json::parse_time;
use crate::model::partner::Partner;

/// What every list takes, as the document tells it; `Page::read` reads it.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "only described, never made")]
pub struct Window {
    /// Rows on a page.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<i64>,
    /// `nextCursor` of the page before, as it came.
    #[param(pattern = "^[A-Za-z0-9_-]{35}$")]
    cursor: Option<String>,
    /// Created at this time or later; RFC 3339 with offset.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Created before this time; RFC 3339 with offset.
    #[param(format = DateTime)]
    until: Option<String>,
}

/// Where a page begins and how long it may be. `after` is the last row of the page before.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub limit: i64,
    pub after: Option<(Tsid, i16)>,
    /// Ids below this …
    pub below: Tsid,
    /// … and from this on: the time window.
    pub from: Tsid,
}

const SIGNATURE_BYTES: usize = 16;

/// A cursor is bound to its list and its partner: nobody can carry it elsewhere or make one up.
fn sign(hub: &Hub, list: &str, partner: &Partner, position: &[u8]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(&hub.cursor_key).expect("any key length");
    mac.update(list.as_bytes());
    mac.update(&partner.partner_id.0.to_be_bytes());
    mac.update(position);
    mac.finalize().into_bytes()[..SIGNATURE_BYTES].to_vec()
}

pub fn cursor(hub: &Hub, list: &str, partner: &Partner, last: (Tsid, i16)) -> String {
    let mut bytes = last.0.0.to_be_bytes().to_vec();
    bytes.extend(last.1.to_be_bytes());
    let signature = sign(hub, list, partner, &bytes);
    bytes.extend(signature);
    BASE64URL_NOPAD.encode(&bytes)
}

fn read_cursor(hub: &Hub, list: &str, partner: &Partner, text: &str) -> Option<(Tsid, i16)> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (position, signature) = bytes.split_at_checked(10)?;
    let expected = sign(hub, list, partner, position);
    // Compared in full whatever differs: a cursor is no secret, but forging one should teach nothing.
    let same = expected.len() == signature.len()
        && expected.iter().zip(signature).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0;
    let id = i64::from_be_bytes(position.get(..8)?.try_into().ok()?);
    let no = i16::from_be_bytes(position.get(8..)?.try_into().ok()?);
    same.then_some((Tsid(id), no))
}

impl Page {
    pub fn read(query: &mut Query, hub: &Hub, list: &str, partner: &Partner) -> Result<Page, Refusal> {
        let limit = query.parse("limit", &format!("a number from 1 to {}", limits::PAGE_MAX), |text| {
            text.parse().ok().filter(|n| (1..=limits::PAGE_MAX).contains(n))
        })?;
        let time = |text: &str| parse_time(text);
        let since: Option<DateTime<Utc>> = query.parse("since", "a time as RFC 3339 writes it, with offset", time)?;
        let until: Option<DateTime<Utc>> = query.parse("until", "a time as RFC 3339 writes it, with offset", time)?;
        let after = match query.take("cursor") {
            None => None,
            Some(text) => Some(read_cursor(hub, list, partner, &text).ok_or_else(|| {
                Refusal::new(400, "cursor_invalid", "the cursor is not one this list gave you; begin without it")
            })?),
        };
        Ok(Page {
            limit: limit.unwrap_or(limits::PAGE_DEFAULT),
            after,
            below: until.map_or(Tsid(i64::MAX), Tsid::floor),
            from: since.map_or(Tsid(0), Tsid::floor),
        })
    }
}
