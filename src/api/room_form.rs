//! What the forms of rooms, members and messages share.

use serde_json::{Map, Value};

use crate::error::{Code, Error};
use crate::http::words::words;
use crate::id::Tsid;
use crate::limits;
use crate::model::fields::Fields;
use crate::model::form::Kind;
use crate::model::json::{self, Faults, TextRule};
use crate::model::room::{MEMBER_ROLES, METADATA_BYTES, MemberRole};

words! {
    RoleWord, "the role of a member", MEMBER_ROLES.map(MemberRole::as_str);
}

/// The reading rule of a userId.
pub const USER_ID: Kind = Kind::Text(TextRule::line(13));

/// A room's id in a path.
///
/// # Errors
/// `Error::NotFound` if it is none.
pub fn room_id(text: &str) -> Result<Tsid, Error> {
    text.parse().map_err(|_| Error::NotFound)
}

/// Reads a userId of a body.
pub fn parse_user_id(text: &str, pointer: &str, faults: &Faults) -> Option<Tsid> {
    let id = text.parse().ok();
    if id.is_none() {
        faults.add(pointer, "user_unknown", "is not a userId of 13 characters");
    }
    id
}

/// Takes a list of userIds.
pub fn read_user_ids(fields: &mut Fields<'_>, name: &str, faults: &Faults) -> Option<Vec<Tsid>> {
    let mut ids = Vec::new();
    for (pointer, value) in fields.list(name)? {
        let text = json::text(value, &pointer, TextRule::line(13), faults);
        ids.extend(text.and_then(|text| parse_user_id(&text, &pointer, faults)));
    }
    Some(ids)
}

/// Takes a small object of the caller's own names.
pub fn read_metadata(fields: &mut Fields<'_>, faults: &Faults) -> Option<Map<String, Value>> {
    let pointer = fields.pointer_to("metadata");
    match fields.take("metadata")? {
        Value::Object(metadata) => {
            if metadata.values().any(|value| value.is_object() || value.is_array()) {
                faults.add(
                    pointer.clone(),
                    "type_mismatch",
                    "may hold texts, numbers, booleans and null, no lists or objects",
                );
            }
            if metadata.keys().any(|name| name.is_empty() || name.chars().count() > limits::METADATA_KEY_CHARS) {
                let most = limits::METADATA_KEY_CHARS;
                let detail = format!("has a name that is empty or longer than {most} characters");
                faults.add(pointer.clone(), "metadata_invalid", detail);
            }
            if Value::Object(metadata.clone()).to_string().len() > METADATA_BYTES {
                faults.add_code(
                    Code::E006,
                    pointer,
                    "content_too_long",
                    format!("is longer than {METADATA_BYTES} bytes"),
                );
            }
            Some(metadata)
        }
        other => {
            json::mismatch(faults, &pointer, "an object", &other);
            None
        }
    }
}
