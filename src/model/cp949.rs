//! CP949, the code page (windows-949, unified Hangul code) in which Korean carriers take texts and count their bytes:
//! ASCII is one byte, everything else it has is two. It has all 11,172 modern syllables, Hanja, kana and many symbols; it
//! has no emoji, no long dashes, no won sign but the wide one, no Hangul taken apart.
//!
//! `EUC_KR` of the Encoding Standard is this code page. A test compares it with Python's codec on every code point: the
//! two agree on all of them, so there is no table of exceptions here.

use encoding_rs::{EUC_KR, EncoderResult};

/// Bytes of a text, or the characters that have none, each once, in their order.
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
            // More than are worth telling need not be remembered.
            EncoderResult::Unmappable(c) if unmappable.len() < 64 && !unmappable.contains(&c) => unmappable.push(c),
            EncoderResult::Unmappable(_) => (),
        }
    }
    if unmappable.is_empty() { Ok(length) } else { Err(unmappable) }
}
