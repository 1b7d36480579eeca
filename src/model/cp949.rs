//! CP949 (windows-949, unified Hangul code): the code page in which Korean carriers accept texts and count bytes. ASCII
//! has one byte, every other character two. It has all 11,172 modern syllables, Hanja, kana and many symbols, but no
//! emoji, no long dashes, no won sign except the full-width one, and no decomposed Hangul.
//!
//! `EUC_KR` of the Encoding Standard is this code page. A test compares it with Python's codec on every code point and
//! finds no difference, so no table of exceptions is needed.

use encoding_rs::{EUC_KR, EncoderResult};

/// The length of a text in CP949 bytes.
///
/// # Errors
/// The characters that CP949 does not have, each once, in their order; at most 64.
pub fn length(text: &str) -> Result<usize, Vec<char>> {
    if text.is_ascii() {
        return Ok(text.len());
    }
    let mut encoder = EUC_KR.new_encoder();
    let mut buffer = [0; 4096];
    let (mut rest, mut length, mut unmappable) = (text, 0, Vec::new());
    loop {
        let (result, read, written) = encoder.encode_from_utf8_without_replacement(rest, &mut buffer, true);
        length += written;
        rest = rest.get(read..).unwrap_or_default();
        match result {
            EncoderResult::InputEmpty => break,
            EncoderResult::OutputFull => (),
            // The list is for an error message; 64 are enough.
            EncoderResult::Unmappable(c) if unmappable.len() < 64 && !unmappable.contains(&c) => unmappable.push(c),
            EncoderResult::Unmappable(_) => (),
        }
    }
    if unmappable.is_empty() { Ok(length) } else { Err(unmappable) }
}
