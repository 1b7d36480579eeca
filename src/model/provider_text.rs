//! Cleaning of texts that providers send.

use crate::limits;

/// The text without control characters (except LF), cut to `limits::PROVIDER_DETAIL_CHARS`. `None` if nothing is left.
pub fn clean(text: String) -> Option<String> {
    let kept = text.chars().filter(|c| !c.is_control() || *c == '\n').take(limits::PROVIDER_DETAIL_CHARS);
    Some(kept.collect::<String>()).filter(|t| !t.is_empty())
}
