//! Finds a person's address in any text: inside other text, in another notation, or encoded.
//!
//! A text is searched as it stands and after decoding: percent-encoding, escapes of JSON and C, HTML entities,
//! quoted-printable, base64 and base64url at any offset, and hexadecimal, up to three nested. Characters are compared
//! in one form (NFKC, lower case, without invisible characters). Encrypted or compressed text, pictures and paraphrases
//! ("kim at example dot com") are not found.

use std::borrow::Cow;

use data_encoding::{BASE64_NOPAD, Encoding};
use serde_json::Value;
use unicode_normalization::UnicodeNormalization as _;

use super::message::Detail;
use super::phone;

/// Nested encodings that are decoded.
const DEPTH: u8 = 3;
/// Shortest address, in characters: a shorter text would match unrelated texts.
const SHORTEST: usize = 6;
/// Most separators between two digits of one phone number.
const BETWEEN_DIGITS: usize = 3;

/// The address to search for.
pub struct PersonAddress {
    /// In the comparison form (`folded`).
    address: String,
    number: Option<Number>,
}

/// A phone number: its digits without country and trunk prefix, and the prefixes that may stand directly before them.
struct Number {
    e164: String,
    digits: String,
    prefixes: Vec<String>,
}

/// The kind of text that is searched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextUse {
    /// Prose, or an address: `order-kim@example.com` is another person's address.
    Prose,
    /// An id, key or label: `order-kim@example.com` is derived from kim@example.com.
    Identifier,
}

impl PersonAddress {
    /// Prepares the search for an address. `region`: the country of a phone number without a country code, two letters
    /// of ISO 3166.
    ///
    /// # Errors
    /// The address is too short to be distinguished from other text.
    pub fn parse(address: &str, region: &str) -> Result<PersonAddress, &'static str> {
        let address = address.trim();
        if address.chars().count() < SHORTEST {
            return Err("an address needs at least six characters, because a shorter one would match unrelated texts");
        }
        Ok(PersonAddress { address: folded(address).into_owned(), number: Number::read(address, region) })
    }

    /// Whether `address` is this address and nothing more, in any notation of a phone number.
    pub fn equals(&self, address: &str) -> bool {
        let address = folded(address.trim());
        address == self.address || self.number.as_ref().is_some_and(|number| number.is(&address))
    }

    /// Whether a text contains the address.
    pub fn is_in_text(&self, text: &str, used: TextUse) -> bool {
        self.is_within(text, used, DEPTH)
    }

    /// Whether a JSON value contains the address, in its field names or values. `name`: the field that holds the value;
    /// empty for none.
    pub fn is_in_json(&self, value: &Value, name: &str, used: TextUse) -> bool {
        let used =
            if used == TextUse::Identifier || is_identifier_field(name) { TextUse::Identifier } else { TextUse::Prose };
        match value {
            Value::Null | Value::Bool(_) => false,
            Value::Number(number) => self.is_in_text(&number.to_string(), used),
            Value::String(text) => self.is_in_text(text, used),
            Value::Array(items) => items.iter().any(|item| self.is_in_json(item, name, used)),
            Value::Object(fields) => fields
                .iter()
                .any(|(name, value)| self.is_in_text(name, TextUse::Identifier) || self.is_in_json(value, name, used)),
        }
    }

    /// Whether a message's content or metadata contains the address. False also if the detail cannot be serialised.
    pub fn is_in_detail(&self, detail: &Detail) -> bool {
        serde_json::to_value(detail).is_ok_and(|detail| self.is_in_json(&detail, "", TextUse::Prose))
    }

    fn is_within(&self, text: &str, used: TextUse, depth: u8) -> bool {
        if text.len() < SHORTEST {
            return false;
        }
        self.stands_in(&folded(text), used)
            || depth > 0 && decoded(text).iter().any(|within| self.is_within(within, used, depth - 1))
    }

    /// Whether a text in comparison form contains the address as it stands.
    fn stands_in(&self, text: &str, used: TextUse) -> bool {
        text.match_indices(&self.address).any(|(at, found)| is_whole(&text[..at], &text[at + found.len()..], used))
            || self.number.as_ref().is_some_and(|number| number.stands_in(text))
    }
}

impl Number {
    fn read(address: &str, region: &str) -> Option<Number> {
        let e164 = phone::parse(address, region).ok()?;
        let (country, home) = phone::dialled(&e164)?;
        let digits = e164.strip_prefix(&format!("+{country}"))?.to_owned();
        // 0 in Korea, empty in America.
        let trunk = home.strip_suffix(&digits).unwrap_or("0").to_owned();
        let mut prefixes = vec![String::new(), trunk.clone()];
        for exit in ["", "00", "011", "001"] {
            prefixes.extend([format!("{exit}{country}"), format!("{exit}{country}{trunk}")]);
        }
        Some(Number { e164, digits, prefixes })
    }

    fn is(&self, address: &str) -> bool {
        if address == self.e164 {
            return true;
        }
        let is_number = address.chars().all(|c| c.is_ascii_digit() || is_between_digits(c));
        let digits: String = address.chars().filter(char::is_ascii_digit).collect();
        is_number && digits.strip_suffix(&self.digits).is_some_and(|before| self.prefixes.iter().any(|p| p == before))
    }

    /// Whether the text contains the digits, however divided, and not as part of a longer number.
    fn stands_in(&self, text: &str) -> bool {
        // (digit, whether another stands directly before it, whether it belongs to the number before it)
        let mut digits: Vec<(u8, bool, bool)> = Vec::new();
        let mut between = usize::MAX;
        for c in text.chars() {
            match c {
                '0'..='9' => {
                    digits.push((c as u8, between == 0, between <= BETWEEN_DIGITS));
                    between = 0;
                }
                _ if is_between_digits(c) => between = between.saturating_add(1),
                _ => between = usize::MAX,
            }
        }
        let n = self.digits.len();
        let wanted = self.digits.as_bytes();
        (0..(digits.len() + 1).saturating_sub(n)).any(|at| {
            let window = &digits[at..at + n];
            let same = window.iter().map(|d| d.0).eq(wanted.iter().copied()) && window[1..].iter().all(|d| d.2);
            let goes_on = digits.get(at + n).is_some_and(|next| next.1);
            same && !goes_on && self.may_follow(&digits[..=at])
        })
    }

    /// Whether the digits directly before the last one may precede the number.
    fn may_follow(&self, digits: &[(u8, bool, bool)]) -> bool {
        let joined = digits.iter().rev().take_while(|d| d.1).count();
        let before = &digits[digits.len() - 1 - joined..digits.len() - 1];
        self.prefixes.iter().any(|prefix| prefix.bytes().eq(before.iter().map(|d| d.0)))
    }
}

fn is_between_digits(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '(' | ')' | '/' | '+' | '_' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '·')
}

/// Whether an address between these two texts is not part of a longer one.
fn is_whole(before: &str, after: &str, used: TextUse) -> bool {
    let is_joined = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if is_joined(before.chars().next_back()) || is_joined(after.chars().next()) {
        return false;
    }
    if used == TextUse::Identifier {
        return true;
    }
    // Punctuation before it, as in a list or around italics, does not begin a longer address.
    let local = |c: &char| c.is_ascii_alphanumeric() || "._%+-".contains(*c);
    let longer = before.chars().rev().take_while(local).any(|c| c.is_ascii_alphanumeric());
    let mut rest = after.chars();
    let goes_on = matches!(rest.next(), Some('.' | '-')) && is_joined(rest.next());
    !longer && !goes_on
}

/// Whether a field or column with this name holds ids, keys or labels.
pub fn is_identifier_field(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["id", "key", "ref", "label", "labels", "tag", "tags", "metadata", "object"].iter().any(|end| name.ends_with(end))
}

/// The comparison form of a text.
fn folded(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        let small = !text.bytes().any(|b| b.is_ascii_uppercase());
        return if small { Cow::Borrowed(text) } else { Cow::Owned(text.to_ascii_lowercase()) };
    }
    let is_seen = |c: &char| !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}');
    Cow::Owned(text.nfkc().filter(is_seen).flat_map(char::to_lowercase).collect())
}

/// The results of decoding a text, one for each encoding found in it.
fn decoded(text: &str) -> Vec<String> {
    let mut found: Vec<String> =
        [percent(text), escapes(text), entities(text), quoted_printable(text)].into_iter().flatten().collect();
    for run in runs(text, |c| c.is_ascii_alphanumeric() || matches!(c, b'+' | b'/' | b'-' | b'_')) {
        found.extend(base64(&run));
    }
    for run in runs(text, |c| c.is_ascii_hexdigit()) {
        found.extend(hexadecimal(&run));
    }
    // Separated bytes: 6b:69:6d, 6b 69 6d.
    for run in runs(text, |c| c.is_ascii_hexdigit() || matches!(c, b':' | b' ' | b'-')) {
        let bytes: Vec<&[u8]> = run.split(|c| !c.is_ascii_hexdigit()).filter(|byte| byte.len() == 2).collect();
        if bytes.len() >= SHORTEST {
            found.extend(hexadecimal(&bytes.concat()));
        }
    }
    found
}

/// Decodes each `mark` together with the text after it, by `read` (length consumed, bytes). `None` if nothing was
/// decoded.
fn replaced(text: &str, mark: char, read: impl Fn(&str) -> Option<(usize, Vec<u8>)>) -> Option<String> {
    let (mut out, mut rest, mut any) = (Vec::with_capacity(text.len()), text, false);
    while let Some(at) = rest.find(mark) {
        out.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + mark.len_utf8()..];
        match read(rest) {
            Some((len, bytes)) => {
                out.extend(bytes);
                rest = &rest[len..];
                any = true;
            }
            None => out.extend_from_slice(mark.to_string().as_bytes()),
        }
    }
    out.extend_from_slice(rest.as_bytes());
    any.then(|| String::from_utf8_lossy(&out).into_owned())
}

fn hex_byte(text: &str) -> Option<u8> {
    let text = text.get(..2).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

fn percent(text: &str) -> Option<String> {
    replaced(text, '%', |rest| Some((2, vec![hex_byte(rest)?])))
}

fn quoted_printable(text: &str) -> Option<String> {
    replaced(text, '=', |rest| {
        let line_end = ["\r\n", "\n"].iter().find(|end| rest.starts_with(**end));
        line_end.map(|end| (end.len(), Vec::new())).or_else(|| Some((2, vec![hex_byte(rest)?])))
    })
}

fn escapes(text: &str) -> Option<String> {
    let unit = |text: &str| {
        let text = text.strip_prefix('u')?.get(..4).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u16::from_str_radix(text, 16).ok()
    };
    let utf8 = |c: char| c.to_string().into_bytes();
    replaced(text, '\\', |rest| match rest.chars().next()? {
        'n' | 'r' | 't' | 'b' | 'f' | 'v' => Some((1, b"\n".to_vec())),
        c @ ('"' | '\'' | '\\' | '/') => Some((1, utf8(c))),
        'x' => Some((3, utf8(char::from(hex_byte(rest.get(1..)?)?)))),
        '0'..='3' => {
            let octal = rest.get(..3).filter(|text| text.bytes().all(|b| matches!(b, b'0'..=b'7')))?;
            Some((3, vec![u8::from_str_radix(octal, 8).ok()?]))
        }
        'u' if rest.starts_with("u{") => {
            let end = rest.bytes().take(9).position(|b| b == b'}')?;
            let c = char::from_u32(u32::from_str_radix(&rest[2..end], 16).ok()?)?;
            Some((end + 1, utf8(c)))
        }
        'u' => {
            let first = unit(rest)?;
            let second = rest.get(5..).and_then(|rest| unit(rest.strip_prefix('\\')?));
            match (char::from_u32(first.into()), second) {
                (Some(c), _) => Some((5, utf8(c))),
                (None, Some(second)) => {
                    let pair = char::decode_utf16([first, second]).next()?.ok()?;
                    Some((11, utf8(pair)))
                }
                (None, None) => None,
            }
        }
        _ => None,
    })
}

fn entities(text: &str) -> Option<String> {
    const NAMED: [(&str, &str); 16] = [
        ("lt", "<"),
        ("gt", ">"),
        ("amp", "&"),
        ("quot", "\""),
        ("apos", "'"),
        ("nbsp", " "),
        ("commat", "@"),
        ("period", "."),
        ("lowbar", "_"),
        ("hyphen", "-"),
        ("dash", "-"),
        ("plus", "+"),
        ("num", "#"),
        ("colon", ":"),
        ("sol", "/"),
        ("percnt", "%"),
    ];
    replaced(text, '&', |rest| {
        let end = rest.bytes().take(10).position(|b| b == b';')?;
        let name = &rest[..end];
        let said = match name.strip_prefix('#') {
            Some(number) => {
                let code = match number.strip_prefix(['x', 'X']) {
                    Some(hex) => u32::from_str_radix(hex, 16).ok()?,
                    None => number.parse().ok()?,
                };
                char::from_u32(code)?.to_string()
            }
            None => NAMED.iter().find(|known| known.0 == name)?.1.to_owned(),
        };
        Some((name.len() + 1, said.into_bytes()))
    })
}

/// Runs of such characters, long enough to contain an address; line breaks inside a run are skipped.
fn runs(text: &str, belongs: impl Fn(u8) -> bool) -> Vec<Vec<u8>> {
    let (mut all, mut run) = (Vec::new(), Vec::new());
    for byte in text.bytes().chain([0]) {
        if belongs(byte) {
            run.push(byte);
        } else if !matches!(byte, b'\r' | b'\n') {
            if run.len() >= SHORTEST {
                all.push(std::mem::take(&mut run));
            }
            run.clear();
        }
    }
    all
}

/// A run decoded as base64 from each of four offsets, because the first characters may belong to something else.
fn base64(run: &[u8]) -> Vec<String> {
    let standard: Vec<u8> = run
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    (0..4.min(standard.len())).filter_map(|offset| said(&lenient(&BASE64_NOPAD, &standard[offset..], 4))).collect()
}

fn hexadecimal(run: &[u8]) -> Vec<String> {
    (0..2).filter_map(|offset| said(&lenient(&data_encoding::HEXLOWER_PERMISSIVE, &run[offset..], 2))).collect()
}

/// Decodes all whole groups and the readable part of the last one.
fn lenient(encoding: &Encoding, text: &[u8], group: usize) -> Vec<u8> {
    let whole = text.len() - text.len() % group;
    let mut out = encoding.decode(&text[..whole]).unwrap_or_default();
    // Remaining bits need not be zero.
    if group == 4 && text.len() - whole >= 2 {
        let mut rest = text[whole..].to_vec();
        let bytes = rest.len() - 1;
        rest.resize(4, b'A');
        out.extend(encoding.decode(&rest).unwrap_or_default().into_iter().take(bytes));
    }
    out
}

/// The bytes as text, if most of them are readable.
fn said(bytes: &[u8]) -> Option<String> {
    if bytes.len() < SHORTEST {
        return None;
    }
    let text = String::from_utf8_lossy(bytes);
    let strange = text.chars().filter(|c| *c == char::REPLACEMENT_CHARACTER || (*c).is_control()).count();
    (strange <= 2 + text.len() / 4).then(|| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIM: &str = "kim@example.com";

    fn holds(address: &str, text: &str, used: TextUse) -> bool {
        PersonAddress::parse(address, "KR").unwrap().is_in_text(text, used)
    }

    /// C1: the address is found behind other characters and in every encoding, in encodings within each other as well.
    #[test]
    fn address_is_found_in_every_encoding() {
        for text in [
            "kim@example.com",
            "<kim@example.com>",
            "Kim <KIM@Example.COM>",
            "mailto:kim@example.com?subject=x",
            "- kim@example.com, lee@example.com",
            "-kim@example.com",
            "_kim@example.com_",
            "...kim@example.com.",
            "ask kim@example.com으로, 김kim@example.com",
            "kim@example.com- or",
            "ｋｉｍ＠ｅｘａｍｐｌｅ．ｃｏｍ",
            "kim\u{200b}@example.com",
            "%3Ckim%40example.com%3E",
            "%253Ckim%2540example.com%253E",
            "{\"to\":\"\\u006bim\\u0040example.com\"}",
            "line\\nkim@example.com",
            "\\\"kim@example.com\\\"",
            "\\x6bim@example.com",
            "&lt;kim&#64;example&#x2e;com&gt;",
            "&#107;&#105;&#109;&commat;example&period;com",
            "=6Bim=40example.com",
            "kim@exam=\r\nple.com",
            "=3Ckim@example.com=3E",
            "a2ltQGV4YW1wbGUuY29t",
            "S0lNQGV4YW1wbGUuY29t",
            "ref a2ltQGV4YW1wbGUuY29t.",
            "RGVhciBraW1AZXhhbXBsZS5jb20sIGhlbGxv",
            "Dear=VG86IGtpbUBleGFtcGxlLmNvbQ==",
            "order-PGtpbUBleGFtcGxlLmNvbT4",
            "a2ltQGV4\nYW1wbGUuY29t",
            "\\153\\151m\\100example.com",
            "\\u{6b}im\\u{40}example.com",
            "6b:69:6d:40:65:78:61:6d:70:6c:65:2e:63:6f:6d",
            "is 6b 69 6d 40 65 78 61 6d 70 6c 65 2e 63 6f 6d.",
            "6b696d406578616d706c652e636f6d",
            "0x6B696D406578616D706C652E636F6D",
            "JTNDa2ltJTQwZXhhbXBsZS5jb20lM0U",
        ] {
            assert!(holds(KIM, text, TextUse::Prose), "{text}");
        }
        assert!(holds("김@한국.kr", "\u{1100}\u{1175}\u{11b7}@\u{1112}\u{1161}\u{11ab}국.kr", TextUse::Prose), "NFD");
    }

    /// C1: in prose a longer address is another person's; an id or a key may be derived from an address.
    #[test]
    fn longer_address_does_not_match() {
        for text in ["jakim@example.com", "kim@example.com.org", "kim@example.community", "kim@example.comx", "kim at"]
        {
            assert!(!holds(KIM, text, TextUse::Prose), "{text}");
        }
        for text in ["order-kim@example.com", "a.kim@example.com", "to+kim@example.com", "kim@example.com-1"] {
            assert!(!holds(KIM, text, TextUse::Prose) && holds(KIM, text, TextUse::Identifier), "{text}");
        }
        for text in ["order-kim@example.com", "2027/kim@example.com/1", "kim@example.com.1", "o%2Dkim%40example.com"] {
            assert!(holds(KIM, text, TextUse::Identifier), "{text}");
        }
        assert!(!holds(KIM, "jakim@example.com", TextUse::Identifier));
        let json = serde_json::json!({"clientMsgId": "order-kim@example.com", "to": "min-kim@example.com"});
        let kim = PersonAddress::parse(KIM, "KR").unwrap();
        assert!(kim.is_in_json(&json, "", TextUse::Prose) && !kim.is_in_json(&json["to"], "to", TextUse::Prose));
        assert!(kim.equals("Kim@Example.com ") && !kim.equals("<kim@example.com>"));
    }

    /// C1: a phone number is found however it is written, and not within a longer one.
    #[test]
    fn phone_number_is_found_in_every_notation() {
        for address in ["010-1234-5678", "+821012345678", "01012345678"] {
            for text in [
                "01012345678",
                "010-1234-5678로",
                "010 1234 5678",
                "(010) 1234-5678",
                "010.1234.5678",
                "call +82 10 1234 5678.",
                "+82(0)10-1234-5678",
                "82-10-1234-5678",
                "008210 1234 5678",
                "10-1234-5678",
                "1) 010-1234-5678",
                "order-01012345678-1",
                "010%2D1234%2D5678",
                "0102026 010-1234-5678",
                "０１０－１２３４－５６７８",
                "MDEwLTEyMzQtNTY3OA",
                "{\"n\": 821012345678}",
            ] {
                assert!(holds(address, text, TextUse::Prose), "{address} in {text}");
            }
            for text in ["010123456789", "201012345678", "010-1234-5679", "1234-5678", "010 and 1234-5678"] {
                assert!(!holds(address, text, TextUse::Prose), "{address} in {text}");
            }
            let person = PersonAddress::parse(address, "KR").unwrap();
            assert!(["+821012345678", "010-1234-5678", "01012345678"].iter().all(|form| person.equals(form)));
        }
        assert!(holds("+14155552671", "(415) 555-2671", TextUse::Prose));
    }

    /// For all bytes the search ends and never panics.
    #[test]
    fn search_never_panics() {
        for text in [
            "%",
            "%k",
            "%%41",
            "=",
            "\\",
            "\\u12",
            "\\ud83d",
            "\\ud83d\\ude00",
            "&;",
            "&#;",
            "&#xffffff;",
            "%é1",
            "&é;é;",
        ] {
            let long = text.repeat(9);
            assert!(!holds(KIM, &long, TextUse::Prose), "{text}");
        }
    }
}
