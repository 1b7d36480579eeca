//! The strict reader of objects: it takes fields by their description and reports every other field as a fault.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::form::{Field, Form, Kind};
use super::json::{self, Faults, FieldPointer, TextRule, child_pointer, mismatch, one_of, parse_time};
use crate::error::{Code, excerpt};

/// An object being read field by field. Reading a field that its form does not describe is a bug; a field that was not
/// read is a fault at `close`.
pub struct Fields<'f> {
    form: &'static Form,
    left: Map<String, Value>,
    pub pointer: String,
    faults: &'f Faults,
}

impl<'f> Fields<'f> {
    /// Starts reading an object. `pointer`: its place in the body. `None`, with a fault added, if the value is not an
    /// object.
    pub fn open(
        form: &'static Form,
        value: Value,
        pointer: impl Into<String>,
        faults: &'f Faults,
    ) -> Option<Fields<'f>> {
        let pointer = pointer.into();
        match value {
            Value::Object(left) => Some(Fields { form, left, pointer, faults }),
            other => {
                mismatch(faults, &pointer, "an object", &other);
                None
            }
        }
    }

    /// Continues with another form, for objects in which one field decides the form of the others.
    pub fn switch_form(&mut self, form: &'static Form) {
        self.form = form;
    }

    /// The JSON pointer of a field.
    pub fn pointer_to(&self, name: &str) -> String {
        child_pointer(&self.pointer, name)
    }

    /// The same, written out only where it is needed.
    fn at<'n>(&'n self, name: &'n str) -> FieldPointer<'n> {
        FieldPointer { object: &self.pointer, name }
    }

    /// The description of a field. A missing one is a bug of the reader.
    fn described(&self, name: &str) -> Option<&'static Field> {
        let field = self.form.field(name);
        debug_assert!(field.is_some(), "{} does not describe the field {name}", self.form.name);
        field
    }

    /// Takes the raw value of a field; null counts as missing. A missing required field is not reported.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.described(name)?;
        self.left.remove(name).filter(|v| !v.is_null())
    }

    /// Takes the value of a field; a missing or null required field is reported.
    fn given(&mut self, field: &Field) -> Option<Value> {
        if field.is_required { self.require(field.name) } else { self.left.remove(field.name).filter(|v| !v.is_null()) }
    }

    /// Whether the field is present and not null. Does not take it.
    pub fn has(&self, name: &str) -> bool {
        self.described(name).is_some() && self.left.get(name).is_some_and(|v| !v.is_null())
    }

    /// Whether the field is present and null, which in an update means "clear" while a missing field means "keep".
    pub fn is_null(&self, name: &str) -> bool {
        self.described(name).is_some() && self.left.get(name).is_some_and(Value::is_null)
    }

    fn require(&mut self, name: &str) -> Option<Value> {
        match self.left.remove(name) {
            None => {
                self.faults.add(self.pointer_to(name), "required", "is required");
                None
            }
            Some(Value::Null) => {
                self.faults.add(self.pointer_to(name), "null_not_allowed", "must not be null");
                None
            }
            Some(value) => Some(value),
        }
    }

    /// Takes a text, read by the rule of its description. `None` if it is missing or has a fault, which is reported.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let field = self.described(name)?;
        let value = self.given(field)?;
        json::text(value, self.at(name), rule(field), self.faults)
    }

    /// As `text`, and reports the field as missing although its form does not require it.
    pub fn require_text(&mut self, name: &str) -> Option<String> {
        let field = self.described(name)?;
        let value = self.require(name)?;
        json::text(value, self.at(name), rule(field), self.faults)
    }

    /// As `text`, by the rule of the field with this name in another form. `None`, without a fault, if that form has no
    /// such field.
    pub fn text_of(&mut self, form: &'static Form, name: &str) -> Option<String> {
        let theirs = form.field(name)?;
        let value = self.described(name).and_then(|field| self.given(field))?;
        json::text(value, self.at(name), rule(theirs), self.faults)
    }

    /// Takes a list: each item with its pointer.
    pub fn list(&mut self, name: &str) -> Option<Vec<(String, Value)>> {
        let field = self.described(name)?;
        let value = self.given(field)?;
        json::list(value, &self.pointer_to(name), self.faults)
    }

    /// Takes a whole number within the range of its description.
    pub fn number(&mut self, name: &str) -> Option<i64> {
        let field = self.described(name)?;
        let (Kind::Int32(least, most) | Kind::Int64(least, most)) = field.kind else {
            debug_assert!(false, "{}: {name} is not described as a number", self.form.name);
            return None;
        };
        let value = self.given(field)?;
        let Some(number) = value.as_i64() else {
            mismatch(self.faults, self.at(name), "a whole number", &value);
            return None;
        };
        if number < least {
            self.faults.add(self.at(name), "min", format!("must be at least {least}"));
        } else if number > most {
            self.faults.add(self.at(name), "max", format!("must be at most {most}"));
        } else {
            return Some(number);
        }
        None
    }

    /// Takes a boolean.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let field = self.described(name)?;
        match self.given(field)? {
            Value::Bool(flag) => Some(flag),
            other => {
                mismatch(self.faults, self.at(name), "true or false", &other);
                None
            }
        }
    }

    /// Takes a list of words, each one of `words`.
    pub fn words<T: std::str::FromStr>(&mut self, name: &str, words: &[&str]) -> Option<Vec<T>> {
        let faults = self.faults;
        let items = self.list(name)?;
        let read = |(pointer, value): (String, Value)| {
            let word = json::text(value, &pointer, WORD, faults)?;
            one_of(&word, &pointer, words, faults, Code::E001)
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// Takes a time in RFC 3339 with offset, to the microsecond.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let field = self.described(name)?;
        match self.given(field)? {
            Value::String(text) => {
                let parsed = parse_time(&text);
                if parsed.is_none() {
                    self.faults.add(
                        self.at(name),
                        "time_invalid",
                        format!(
                            "'{}' is not a time in RFC 3339 with offset, such as 2027-03-05T09:30:00+09:00",
                            excerpt(&text)
                        ),
                    );
                }
                parsed
            }
            other => {
                mismatch(self.faults, self.at(name), "a time in RFC 3339 with offset", &other);
                None
            }
        }
    }

    /// Reports fields of the contract that this hub does not serve yet as `not_supported` instead of as unknown.
    pub fn not_served(&mut self, names: &[&str]) {
        for name in names {
            if self.left.remove(*name).is_some_and(|v| !v.is_null()) {
                self.faults.add(self.pointer_to(name), "not_supported", "is not supported by this hub yet");
            }
        }
    }

    /// Ends reading: every field that was not taken is reported as unknown, unless the form is open.
    pub fn close(self) {
        if matches!(self.form.kind, Kind::Open(_)) {
            return;
        }
        for name in self.left.keys() {
            self.faults.add(self.pointer_to(name), "unknown_field", "is not a field of this object");
        }
    }
}

/// The reading rule of a text field.
fn rule(field: &Field) -> TextRule {
    match field.kind {
        Kind::Text(rule) | Kind::Plain(rule) | Kind::Word(_, rule) => rule,
        _ => {
            debug_assert!(matches!(field.kind, Kind::Words(_)), "{} is not described as a text", field.name);
            WORD
        }
    }
}

/// A word of a short list.
const WORD: TextRule = TextRule::line(64);
