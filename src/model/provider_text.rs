//! What is kept of a provider's words.

use crate::limits;

/// Enough to understand it, and nothing that a database or a terminal does not take. None: nothing is left.
pub fn clean(text: String) -> Option<String> {
    let kept = text.chars().filter(|c| !c.is_control() || *c == '\n').take(limits::PROVIDER_DETAIL_CHARS);
    Some(kept.collect::<String>()).filter(|t| !t.is_empty())
}
