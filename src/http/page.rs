//! Lists: pages, signed cursors, and windows of time.

use chrono::{DateTime, Utc};
use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;
use utoipa::IntoParams;

use super::query::Query;
use crate::error::Refusal;
use crate::hub::Hub;
use crate::id::Tsid;
use crate::model::json::parse_time;
use crate::model::partner::PartnerScope;

/// The query parameters of every list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// The number of items on a page.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 200, default = 50)]
    limit: i64,
    /// The `nextCursor` of the previous page, unchanged.
    #[param(pattern = "^[A-Za-z0-9_-]{35}$")]
    cursor: Option<String>,
    /// Only items created at this time or later; RFC 3339 with offset.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<DateTime<Utc>>,
    /// Only items created before this time; RFC 3339 with offset.
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<DateTime<Utc>>,
}

impl ListParams {
    fn read(query: &mut Query) -> Result<ListParams, Refusal> {
        let limit = query.limit()?;
        // An unescaped + arrives as a blank, and no time contains a blank.
        let time = |text: &str| parse_time(&text.replace(' ', "+"));
        let since = query.parse("since", "a time as RFC 3339 writes it, with offset", time)?;
        let until = query.parse("until", "a time as RFC 3339 writes it, with offset", time)?;
        Ok(ListParams { limit, cursor: query.take("cursor"), since, until })
    }
}

/// The query parameter `partnerId`.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PartnerParam {
    /// Only items of this partner; for operators and admins.
    #[param(rename = "partnerId", value_type = Option<String>, pattern = "^[0-7][0-9A-HJKMNP-TV-Z]{12}$")]
    pub partner_id: Option<Tsid>,
}

impl PartnerParam {
    /// Takes `?partnerId=` from a query, if it is given.
    ///
    /// # Errors
    /// `query_invalid` if it is not an id.
    pub fn read(query: &mut Query) -> Result<PartnerParam, Refusal> {
        let partner_id = query.parse("partnerId", "a partner's id", |text| text.parse().ok())?;
        Ok(PartnerParam { partner_id })
    }
}

/// The position and size of a page. `limit`: items at most; `after`: the last row of the previous page, by its id and
/// its number within that id.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    pub limit: i64,
    pub after: Option<(Tsid, i16)>,
    /// The time window, as ids: only ids below this …
    pub below: Tsid,
    /// … and from this one on.
    pub from: Tsid,
}

const SIGNATURE_BYTES: usize = 16;

/// The signature of a cursor. It covers the list and its owner, so that a cursor is valid for that list only and cannot
/// be forged.
fn sign(hub: &Hub, list: &str, whose: Tsid, position: &[u8]) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mut mac = Hmac::<Sha256>::new_from_slice(&hub.cursor_key).expect("any key length");
    mac.update(list.as_bytes());
    mac.update(&whose.0.to_be_bytes());
    mac.update(position);
    mac.finalize().into_bytes()[..SIGNATURE_BYTES].to_vec()
}

/// The cursor for the page after the row `last`. `list`: the name of the list; `cursor_owner`: the partner whose list
/// it is, 0 for all partners.
pub fn encode_cursor(hub: &Hub, list: &str, whose: Tsid, last: (Tsid, i16)) -> String {
    let mut bytes = last.0.0.to_be_bytes().to_vec();
    bytes.extend(last.1.to_be_bytes());
    let signature = sign(hub, list, whose, &bytes);
    bytes.extend(signature);
    BASE64URL_NOPAD.encode(&bytes)
}

fn decode_cursor(hub: &Hub, list: &str, whose: Tsid, text: &str) -> Option<(Tsid, i16)> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    let (position, signature) = bytes.split_at_checked(10)?;
    let expected = sign(hub, list, whose, position);
    let same = crate::crypt::same(&expected, signature);
    let id = i64::from_be_bytes(position.get(..8)?.try_into().ok()?);
    let no = i16::from_be_bytes(position.get(8..)?.try_into().ok()?);
    same.then_some((Tsid(id), no))
}

fn read_cursor(cursor: Option<String>, hub: &Hub, list: &str, whose: Tsid) -> Result<Option<(Tsid, i16)>, Refusal> {
    let wrong = || Refusal::new(400, "cursor_invalid", "the cursor is not one this list gave you; begin without it");
    cursor.map(|text| decode_cursor(hub, list, whose, &text).ok_or_else(wrong)).transpose()
}

impl Page {
    /// Reads `limit`, `cursor`, `since` and `until` of a list of messages, and limits the page to the ids that the
    /// caller may see.
    ///
    /// # Errors
    /// `query_invalid` for a parameter that cannot be read; `cursor_invalid` for a cursor of another list.
    pub fn within_scope(query: &mut Query, hub: &Hub, list: &str, scope: &PartnerScope) -> Result<Page, Refusal> {
        let page = Page::read(query, hub, list, scope.cursor_owner)?;
        Ok(Page { from: page.from.max(scope.oldest_id), ..page })
    }

    /// Reads `limit` and `cursor` of the list named `list`, which has no window of time.
    ///
    /// # Errors
    /// `query_invalid` for a parameter that cannot be read; `cursor_invalid` for a cursor of another list.
    pub fn cursor_only(query: &mut Query, hub: &Hub, list: &str, whose: Tsid) -> Result<Page, Refusal> {
        let limit = query.limit()?;
        let after = read_cursor(query.take("cursor"), hub, list, whose)?;
        Ok(Page { limit, after, below: Tsid(i64::MAX), from: Tsid(0) })
    }

    /// Reads `limit`, `cursor`, `since` and `until` of the list named `list`.
    ///
    /// # Errors
    /// `query_invalid` for a parameter that cannot be read; `cursor_invalid` for a cursor of another list.
    pub fn read(query: &mut Query, hub: &Hub, list: &str, whose: Tsid) -> Result<Page, Refusal> {
        let ListParams { limit, cursor, since, until } = ListParams::read(query)?;
        Ok(Page {
            limit,
            after: read_cursor(cursor, hub, list, whose)?,
            below: until.map_or(Tsid(i64::MAX), Tsid::floor),
            from: since.map_or(Tsid(0), Tsid::floor),
        })
    }
}
