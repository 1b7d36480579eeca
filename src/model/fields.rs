//! The strict reader of objects: it takes fields by their description, and everything else is a fault.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::form::{Field, Form, Kind};
use super::json::{self, Faults, TextRule, child_pointer, mismatch, one_of, parse_time};
use crate::error::{Code, excerpt};

/// An object being read, field by field. A field that its form does not describe cannot be read, and what was not read
/// is a fault in the end.
pub struct Fields<'f> {
    form: &'static Form,
    left: Map<String, Value>,
    pub pointer: String,
    faults: &'f Faults,
}

impl<'f> Fields<'f> {
    /// None, and a fault: the value is no object.
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

    /// Goes on by another form: one of several, of which a field that was read says which.
    pub fn switch_form(&mut self, form: &'static Form) {
        self.form = form;
    }

    /// The place of a field, as a JSON pointer.
    pub fn pointer_to(&self, name: &str) -> String {
        child_pointer(&self.pointer, name)
    }

    /// The description of a field. A reader that asks for one that its form does not have is wrong.
    fn described(&self, name: &str) -> Option<&'static Field> {
        let field = self.form.field(name);
        debug_assert!(field.is_some(), "{} does not describe the field {name}", self.form.name);
        field
    }

    /// The field's value as it is; null is the same as not given. A required field that is not given is no fault yet.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.described(name)?;
        self.left.remove(name).filter(|v| !v.is_null())
    }

    /// As `take`; a required field that is not given, or null, is a fault.
    fn given(&mut self, field: &Field) -> Option<Value> {
        if field.is_required { self.require(field.name) } else { self.left.remove(field.name).filter(|v| !v.is_null()) }
    }

    /// Whether the field is there and not null, without taking it.
    pub fn has(&self, name: &str) -> bool {
        self.described(name).is_some() && self.left.get(name).is_some_and(|v| !v.is_null())
    }

    /// Whether the field is there and null: to be emptied, where a field that is not there is to be left as it is.
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

    /// A text by the rule of its description.
    pub fn text(&mut self, name: &str) -> Option<String> {
        let field = self.described(name)?;
        let value = self.given(field)?;
        json::text(value, &self.pointer_to(name), rule(field), self.faults)
    }

    /// As `text`, of a field that is required here though its form is used where it is not.
    pub fn require_text(&mut self, name: &str) -> Option<String> {
        let field = self.described(name)?;
        let value = self.require(name)?;
        json::text(value, &self.pointer_to(name), rule(field), self.faults)
    }

    /// As `text`, by the rule that another form has for a field of this name. None, and no fault: that form has no such
    /// field.
    pub fn text_of(&mut self, form: &'static Form, name: &str) -> Option<String> {
        let theirs = form.field(name)?;
        let value = self.described(name).and_then(|field| self.given(field))?;
        json::text(value, &self.pointer_to(name), rule(theirs), self.faults)
    }

    /// A list and the pointer of each item.
    pub fn list(&mut self, name: &str) -> Option<Vec<(String, Value)>> {
        let field = self.described(name)?;
        let value = self.given(field)?;
        json::list(value, &self.pointer_to(name), self.faults)
    }

    /// A whole number in the range of its description.
    pub fn number(&mut self, name: &str) -> Option<i64> {
        let field = self.described(name)?;
        let (Kind::Int32(least, most) | Kind::Int64(least, most)) = field.kind else {
            debug_assert!(false, "{}: {name} is not described as a number", self.form.name);
            return None;
        };
        let pointer = self.pointer_to(name);
        let value = self.given(field)?;
        let Some(number) = value.as_i64() else {
            mismatch(self.faults, &pointer, "a whole number", &value);
            return None;
        };
        if number < least {
            self.faults.add(pointer, "min", format!("must be at least {least}"));
        } else if number > most {
            self.faults.add(pointer, "max", format!("must be at most {most}"));
        } else {
            return Some(number);
        }
        None
    }

    /// True or false.
    pub fn flag(&mut self, name: &str) -> Option<bool> {
        let field = self.described(name)?;
        let pointer = self.pointer_to(name);
        match self.given(field)? {
            Value::Bool(flag) => Some(flag),
            other => {
                mismatch(self.faults, &pointer, "true or false", &other);
                None
            }
        }
    }

    /// A list of words of a closed set.
    pub fn words<T: std::str::FromStr>(&mut self, name: &str, words: &[&str]) -> Option<Vec<T>> {
        let faults = self.faults;
        let items = self.list(name)?;
        let read = |(pointer, value): (String, Value)| {
            let word = json::text(value, &pointer, WORD, faults)?;
            one_of(&word, &pointer, words, faults, Code::E001)
        };
        Some(items.into_iter().filter_map(read).collect())
    }

    /// A time as RFC 3339 writes it, with offset, to the microsecond.
    pub fn time(&mut self, name: &str) -> Option<DateTime<Utc>> {
        let field = self.described(name)?;
        let pointer = self.pointer_to(name);
        match self.given(field)? {
            Value::String(text) => {
                let parsed = parse_time(&text);
                if parsed.is_none() {
                    self.faults.add(
                        pointer,
                        "time_invalid",
                        format!("'{}' is not a time as RFC 3339 writes it, with offset", excerpt(&text)),
                    );
                }
                parsed
            }
            other => {
                mismatch(self.faults, &pointer, "a time as RFC 3339 writes it, with offset", &other);
                None
            }
        }
    }

    /// Fields of the contract that this hub does not serve yet, and that no form describes: told apart from misspelt
    /// ones.
    pub fn not_served(&mut self, names: &[&str]) {
        for name in names {
            if self.left.remove(*name).is_some_and(|v| !v.is_null()) {
                self.faults.add(self.pointer_to(name), "not_supported", "is not supported by this hub yet");
            }
        }
    }

    /// Everything described was taken: the rest is unknown.
    pub fn close(self) {
        for name in self.left.keys() {
            self.faults.add(self.pointer_to(name), "unknown_field", "is not a field of this object");
        }
    }
}

/// The rule by which a text is read.
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
