//! Reads JSON as hostile input. Every fault is reported at once with its place, and nothing passes that PostgreSQL
//! cannot store (`\u0000`) or that two parsers would read differently (duplicate keys).

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use chrono::{DateTime, Utc};
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::text;
use crate::error::{Code, Fault, Refusal, excerpt};
use crate::limits;

/// Collects the faults of a request, at most `limits::FAULTS`.
#[derive(Default)]
pub struct Faults {
    found: RefCell<Vec<Fault>>,
    /// At least one is a fault at any time, for any caller and on any installation.
    always: Cell<bool>,
}

impl Faults {
    /// Adds a fault with code E001. `pointer`: JSON pointer into the body. `reason`: a word of `error::REASONS`.
    /// `detail`: a sentence about the value without its subject.
    pub fn add(&self, pointer: impl Into<String>, reason: &'static str, detail: impl Into<Cow<'static, str>>) {
        self.add_code(Code::E001, pointer, reason, detail);
    }

    /// Adds a fault with another code.
    pub fn add_code(
        &self,
        code: Code,
        pointer: impl Into<String>,
        reason: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        self.always.set(true);
        self.add_if_new(code, pointer, reason, detail);
    }

    /// Adds a fault that depends on the time, the caller's rights or the served channels. It does not matter to a
    /// repeated request that was stored when they were different.
    pub fn add_if_new(
        &self,
        code: Code,
        pointer: impl Into<String>,
        reason: &'static str,
        detail: impl Into<Cow<'static, str>>,
    ) {
        let mut found = self.found.borrow_mut();
        if found.len() < limits::FAULTS {
            found.push(Fault { pointer: pointer.into(), reason, detail: detail.into(), code });
        }
    }

    /// A copy of the faults.
    pub fn found(&self) -> Vec<Fault> {
        self.found.borrow().clone()
    }

    /// Whether there is no fault.
    pub fn is_empty(&self) -> bool {
        self.found.borrow().is_empty()
    }

    /// Moves these faults to `others`, each with its pointer mapped by `place`.
    pub fn move_to(self, others: &Faults, place: impl Fn(&str) -> String) {
        for Fault { pointer, reason, detail, code } in self.found.into_inner() {
            others.add_if_new(code, place(&pointer), reason, detail);
        }
        others.always.set(others.always.get() || self.always.get());
    }

    /// The value, if there is no fault at all.
    ///
    /// # Errors
    /// A `Refusal` with every fault, or if there is no value.
    pub fn into_result<T>(self, value: Option<T>) -> Result<T, Refusal> {
        match self.into_result_if_new(value)? {
            (value, faults) if faults.is_empty() => Ok(value),
            (_, faults) => Err(Refusal::from_faults(faults)),
        }
    }

    /// The value with the faults that matter only if the request is new.
    ///
    /// # Errors
    /// A `Refusal` with every fault, if one of them always matters or there is no value.
    pub fn into_result_if_new<T>(self, value: Option<T>) -> Result<(T, Vec<Fault>), Refusal> {
        let faults = self.found.into_inner();
        match value {
            Some(value) if !self.always.get() => Ok((value, faults)),
            _ => Err(Refusal::from_faults(faults)),
        }
    }
}

/// Parses one JSON document. Faults of readable JSON (a key given twice, U+0000) are added to `faults` and parsing goes
/// on.
///
/// # Errors
/// A `Refusal` if the body cannot be read as one JSON document within the limits.
pub fn parse(body: &[u8], faults: &Faults) -> Result<Value, Refusal> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(Refusal::new(400, "body_empty", "the body is empty; send one JSON object"));
    }
    let not_utf8 = || Refusal::new(400, "encoding_not_utf8", "the body is not UTF-8");
    let text = std::str::from_utf8(body).map_err(|_| not_utf8())?;
    if body.starts_with(b"\0") || body.get(1) == Some(&0) || text.starts_with('\u{feff}') {
        return Err(Refusal::new(400, "encoding_not_utf8", "the body is not UTF-8 without byte order mark"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let walk = Walk { pointer: RefCell::default(), faults, nodes: RefCell::default(), is_number: Cell::default() };
    let value = Seed(&walk).deserialize(&mut reader).map_err(|e| syntax(&e))?;
    reader.end().map_err(|_| {
        Refusal::new(400, "json_trailing", "something follows the JSON document; send one document per request")
    })?;
    Ok(value)
}

fn syntax(e: &serde_json::Error) -> Refusal {
    let text = e.to_string();
    let at = format!("line {}, column {}", e.line(), e.column());
    if text.starts_with(OUT_OF_RANGE) {
        let detail = format!("a number at {at} is out of the range of a double; send it as a text");
        Refusal::new(400, "number_range", detail)
    } else if text.starts_with(TOO_MANY) {
        Refusal::new(422, "too_many_items", format!("{TOO_MANY}: at most {}", limits::JSON_NODES))
    } else if text.starts_with("recursion limit") {
        Refusal::new(400, "json_too_deep", format!("nested deeper than 127 levels at {at}"))
    } else {
        Refusal::new(400, "json_syntax", format!("not JSON at {at}"))
    }
}

/// The beginning of `serde_json`'s message.
const OUT_OF_RANGE: &str = "number out of range";

/// The key under which `serde_json` passes a number beyond 64-bit integers, with all its digits.
const DIGITS: &str = "$serde_json::private::Number";

/// Prefix of field names that `serde_json` would misread when it parses the stored JSON.
const RESERVED: &str = "$serde_json::private::";

const TOO_MANY: &str = "too many values in one body";

struct Walk<'f> {
    pointer: RefCell<String>,
    faults: &'f Faults,
    nodes: RefCell<usize>,
    /// The last text was the digits of a number. Texts of the body arrive as `str`, so they cannot imitate it.
    is_number: Cell<bool>,
}

impl Walk<'_> {
    fn inside<T>(&self, step: &str, read: impl FnOnce() -> T) -> T {
        let length = self.pointer.borrow().len();
        push_step(&mut self.pointer.borrow_mut(), step);
        let value = read();
        self.pointer.borrow_mut().truncate(length);
        value
    }

    fn text(&self, text: &str) {
        if text.contains('\0') {
            let pointer = self.pointer.borrow().clone();
            self.faults.add(pointer, "control_character", "must not contain the character U+0000");
        }
    }

    /// The number as written, if it is within the range of a double.
    fn number<E: serde::de::Error>(digits: &str) -> Result<Value, E> {
        let (mantissa, _) = digits.split_once(['e', 'E']).unwrap_or((digits, ""));
        let is_zero = !mantissa.contains(|c: char| matches!(c, '1'..='9'));
        match digits.parse::<f64>() {
            Ok(size) if size.is_finite() && (size == 0.0) == is_zero => {
                digits.parse().map(Value::Number).map_err(E::custom)
            }
            _ => Err(E::custom(OUT_OF_RANGE)),
        }
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        let mut nodes = self.nodes.borrow_mut();
        *nodes += 1;
        if *nodes > limits::JSON_NODES { Err(E::custom(TOO_MANY)) } else { Ok(()) }
    }
}

/// Longest pointer. No path of our schema is longer, and deeper nesting of a caller is not worth repeating.
const POINTER_BYTES: usize = 96;

/// The pointer of a child: `pointer` and one more step, cut so that it echoes little of the input.
pub fn child_pointer(pointer: &str, step: &str) -> String {
    let mut child = String::with_capacity(pointer.len() + STEP_CHARS + 1);
    child.push_str(pointer);
    push_step(&mut child, step);
    child
}

/// Most characters of one step.
const STEP_CHARS: usize = 64;

fn push_step(pointer: &mut String, step: &str) {
    let room = POINTER_BYTES.saturating_sub(pointer.len()).min(STEP_CHARS);
    if room == 0 {
        return;
    }
    pointer.push('/');
    for c in step.chars().take(room).filter(|c| !c.is_control()) {
        match c {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            c => pointer.push(c),
        }
    }
}

/// The pointer of a field that is being read. It becomes a text only for a fault: most requests have none, and writing
/// the pointer of each field cost a tenth of the hub's work for a message.
#[derive(Debug, Clone, Copy)]
pub struct FieldPointer<'p> {
    /// The pointer of the object.
    pub object: &'p str,
    /// The name of the field.
    pub name: &'p str,
}

impl From<FieldPointer<'_>> for String {
    fn from(at: FieldPointer<'_>) -> String {
        child_pointer(at.object, at.name)
    }
}

struct Seed<'w, 'f>(&'w Walk<'f>);

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;
    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(v.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        self.0.text(v);
        Ok(Value::String(v.to_owned()))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        self.0.is_number.set(true);
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = self.0.inside(&items.len().to_string(), || seq.next_element_seed(Seed(self.0)))? {
            self.0.count::<A::Error>()?;
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.0.count::<A::Error>()?;
            if name.contains('\0') {
                self.0.inside(&name, || self.0.text(&name));
            }
            let value = self.0.inside(&name, || map.next_value_seed(Seed(self.0)))?;
            if self.0.is_number.take()
                && name == DIGITS
                && let Value::String(digits) = &value
            {
                return Walk::number(digits);
            }
            if name.starts_with(RESERVED) {
                let pointer = self.0.inside(&name, || self.0.pointer.borrow().clone());
                self.0.faults.add(pointer, "unknown_field", "is a reserved name; choose another");
            }
            if fields.contains_key(&name) {
                let pointer = self.0.inside(&name, || self.0.pointer.borrow().clone());
                self.0.faults.add(pointer, "duplicate_key", "is given twice");
            }
            fields.insert(name, value);
        }
        Ok(Value::Object(fields))
    }
}

/// The rule by which a text is read.
#[derive(Clone, Copy)]
pub struct TextRule {
    max: usize,
    unit: Unit,
    /// One line: no control characters, no line separators, no characters that change the writing direction.
    single_line: bool,
    /// Data: kept as posted, not converted to the normal form of texts.
    as_posted: bool,
    may_be_empty: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Unit {
    Chars,
    Bytes,
}

impl TextRule {
    /// One line of up to `max_chars` characters, not empty.
    pub const fn line(max_chars: usize) -> TextRule {
        TextRule { max: max_chars, unit: Unit::Chars, single_line: true, as_posted: false, may_be_empty: false }
    }

    /// One line counted in UTF-8 bytes, as protocols count it.
    pub const fn address(max_bytes: usize) -> TextRule {
        TextRule { unit: Unit::Bytes, ..TextRule::line(max_bytes) }
    }

    /// A text of several lines, up to `max_bytes` UTF-8 bytes, not empty.
    pub const fn block(max_bytes: usize) -> TextRule {
        TextRule { unit: Unit::Bytes, single_line: false, ..TextRule::line(max_bytes) }
    }

    /// This rule without conversion to the normal form.
    pub const fn as_posted(self) -> TextRule {
        TextRule { as_posted: true, ..self }
    }

    /// This rule with empty texts allowed.
    pub const fn or_empty(self) -> TextRule {
        TextRule { may_be_empty: true, ..self }
    }

    /// The least and greatest length, in the rule's own unit.
    pub const fn lengths(self) -> (usize, usize) {
        (if self.may_be_empty { 0 } else { 1 }, self.max)
    }
}

/// Parses RFC 3339 with offset, without leap seconds, to the microsecond. `None` for any other text.
pub fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let shaped = text.len() <= 40 && text.as_bytes().get(10).is_some_and(|c| matches!(c, b'T' | b't'));
    let leap = text.get(17..19) == Some("60");
    let parsed = DateTime::parse_from_rfc3339(text).ok().filter(|_| shaped && !leap)?;
    DateTime::from_timestamp_micros(parsed.timestamp_micros())
}

/// The items of a list, each with its pointer. `None`, with a fault added, if the value is not a list.
pub fn list(value: Value, pointer: &str, faults: &Faults) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Array(items) => {
            Some(items.into_iter().enumerate().map(|(n, item)| (format!("{pointer}/{n}"), item)).collect())
        }
        other => {
            mismatch(faults, pointer, "a list", &other);
            None
        }
    }
}

/// Reads a text by its rule, in normal form. `None`, with a fault added, if it breaks the rule.
pub fn text(value: Value, pointer: impl Into<String>, rule: TextRule, faults: &Faults) -> Option<String> {
    let text = match value {
        Value::String(text) if rule.as_posted => text,
        Value::String(text) if rule.single_line => text::composed(text),
        Value::String(text) => text::block(text),
        other => {
            mismatch(faults, pointer, "a text", &other);
            return None;
        }
    };
    let (length, unit) = match rule.unit {
        Unit::Chars => (text.chars().count(), "characters"),
        Unit::Bytes => (text.len(), "bytes"),
    };
    if !rule.may_be_empty && text::is_blank(&text) {
        faults.add(pointer, "empty", "must not be empty");
        return None;
    }
    if length > rule.max {
        let detail = format!("is {length} {unit} long; the limit is {} {unit}", rule.max);
        faults.add_code(Code::E006, pointer, "content_too_long", detail);
        return None;
    }
    if rule.single_line && text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')) {
        faults.add(pointer, "control_character", "must be a single line without control characters");
        return None;
    }
    if rule.single_line && text.chars().any(turns_direction) {
        faults.add(pointer, "unsafe_character", "must not contain characters that change the writing direction");
        return None;
    }
    Some(text)
}

fn turns_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{e0000}'..='\u{e007f}')
}

/// Adds the fault of a value with another JSON type. `wanted`: the expected type, with article.
pub fn mismatch(faults: &Faults, pointer: impl Into<String>, wanted: &str, found: &Value) {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    };
    faults.add(pointer, "type_mismatch", format!("must be {wanted}, not {found}"));
}

/// Parses one word of a closed list, exactly as written there. `None`, with a fault added, for any other text.
pub fn one_of<T: std::str::FromStr>(
    text: &str,
    pointer: impl Into<String>,
    words: &[&str],
    faults: &Faults,
    code: Code,
) -> Option<T> {
    let parsed = if words.contains(&text) { text.parse().ok() } else { None };
    if parsed.is_none() {
        let detail = format!("'{}' is none of {}", excerpt(text), words.join(", "));
        faults.add_code(code, pointer, "enum", detail);
    }
    parsed
}
