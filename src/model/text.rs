//! The normal form in which a text is counted, checked against a channel's alphabet, compared, stored and sent.
//!
//! * Unicode's composed form (NFC). macOS writes decomposed Hangul, which counts three times as long and which no
//!   carrier accepts. Three characters stay as they are, because CP949 has them and not their NFC forms.
//! * Lines end with LF.
//!
//! Nothing else changes: no-break spaces and zero-width characters are kept, or refused by name where a channel cannot
//! carry them. Data is not text: keys, metadata, Slack blocks and HTML stay as posted.

use unicode_normalization::{IsNormalized, UnicodeNormalization as _, is_nfc_quick};

/// The Ångström sign and two Hanja.
const KEPT: [char; 3] = ['\u{212b}', '\u{f92c}', '\u{f9b8}'];

/// The text in composed form.
pub fn composed(text: String) -> String {
    // True for nearly all texts posted here, which are then returned without a copy.
    let is_composed = |c: char| c < '\u{300}' || ('\u{ac00}'..='\u{d7a3}').contains(&c);
    if text.is_ascii() || text.chars().all(is_composed) || is_nfc_quick(text.chars()) == IsNormalized::Yes {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    for piece in text.split_inclusive(KEPT) {
        let end = piece.char_indices().next_back().filter(|(_, c)| KEPT.contains(c)).map_or(piece.len(), |(at, _)| at);
        let (before, kept) = piece.split_at(end);
        out.extend(before.nfc());
        out.push_str(kept);
    }
    out
}

/// The normal form of a text that may have several lines.
pub fn block(text: String) -> String {
    let text = composed(text);
    if text.contains('\r') { text.replace("\r\n", "\n").replace('\r', "\n") } else { text }
}

/// Whether a text shows nothing: only blanks and zero-width characters.
pub fn is_blank(text: &str) -> bool {
    let is_unseen = |c: char| matches!(c, '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' | '\u{3164}');
    text.chars().all(|c| c.is_whitespace() || is_unseen(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cp949;

    /// F4: characters of CP949 stay unchanged, and the normal form is idempotent.
    #[test]
    fn composing_keeps_cp949_characters() {
        for c in (char::MIN..=char::MAX).filter(|c| cp949::length(&c.to_string()).is_ok()) {
            let form = composed(c.to_string());
            assert!(cp949::length(&form).is_ok(), "{c:?} U+{:04X} became {form:?}", u32::from(c));
            assert_eq!(composed(form.clone()), form);
        }
    }

    #[test]
    fn composed_texts_are_stable() {
        for (posted, form) in [
            ("", ""),
            ("plain", "plain"),
            ("한글", "한글"),
            ("\u{1112}\u{1161}\u{11ab}\u{1100}\u{1173}\u{11af}", "한글"),
            ("cafe\u{301} \u{212b}e\u{301}\u{212b}", "caf\u{e9} \u{212b}\u{e9}\u{212b}"),
            ("\u{f914}", "\u{6a02}"),
            ("a\u{a0}\u{200b}b\u{feff}", "a\u{a0}\u{200b}b\u{feff}"),
        ] {
            assert_eq!(composed(posted.to_owned()), form);
        }
        assert_eq!(block("a\r\nb\rc\n\r\n".into()), "a\nb\nc\n\n");
        assert!(is_blank(" \n\u{a0}\u{3000}\u{200b}\u{feff}") && is_blank("") && !is_blank(" . "));
    }
}
