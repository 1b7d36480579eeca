//! Descriptions of request bodies, each written once as data. The strict reader ([`super::fields::Fields`]) takes
//! fields by their description, and the OpenAPI document is generated from the same description, so the two cannot
//! differ.

use super::json::TextRule;

/// A named schema of a JSON value.
pub struct Form {
    /// Its name in the document's `components.schemas`.
    pub name: &'static str,
    /// Its description in the document; empty if the name is enough.
    pub description: &'static str,
    pub kind: Kind,
    /// Examples for the document, each as JSON.
    pub examples: &'static [&'static str],
}

/// A field of an object.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// Whether it may be neither missing nor null.
    pub is_required: bool,
    /// Its description in the document; empty if the name is enough.
    pub description: &'static str,
    /// `minLength` in the document, in characters, where it differs from the reading rule.
    pub min_length: Option<usize>,
    /// `maxLength` in the document, in characters, where it differs from the reading rule: a longer text is refused
    /// later, for another reason than its length.
    pub max_length: Option<usize>,
    /// `pattern` in the document.
    pub pattern: Option<&'static str>,
    /// `example` in the document, the name before OpenAPI 3.1.
    pub example: Option<&'static str>,
    pub examples: &'static [&'static str],
    /// `default` in the document: the value of a missing field.
    pub default: Option<Preset>,
}

/// The kind of a value.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text. The document shows the rule's lengths; a limit in bytes is shown as characters, of which there are never
    /// more.
    Text(TextRule),
    /// A text whose length the document does not show.
    Plain(TextRule),
    /// A word of a list that has this schema name in the document.
    Word(&'static str, TextRule),
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A whole number between these two, within 32 bits.
    Int32(i64, i64),
    /// A whole number between these two, within 64 bits.
    Int64(i64, i64),
    Flag,
    /// A time in RFC 3339 with offset.
    Time,
    /// A list of such values, with the least and greatest number of items.
    List(&'static Kind, Option<usize>, Option<usize>),
    Form(&'static Form),
    OneOf(fn() -> Vec<&'static Form>),
    /// An object of these fields and no others.
    Object(&'static [Field]),
    /// An object with these fields and any others.
    Open(&'static [Field]),
    /// The partner's own names with texts, numbers and booleans as values.
    Metadata,
    /// Names with texts of at most this many characters as values.
    Texts(usize),
}

/// A default value.
#[derive(Clone, Copy)]
pub enum Preset {
    Flag(bool),
    Whole(i64),
}

impl Form {
    /// The fields of an object; empty for any other kind.
    pub fn fields(&self) -> &'static [Field] {
        match self.kind {
            Kind::Object(fields) | Kind::Open(fields) => fields,
            _ => &[],
        }
    }

    /// The field with this name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }
}

impl Field {
    /// A field that may be missing or null. `description`: its text in the document; empty if the name is enough.
    pub const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Field {
        Field {
            name,
            kind,
            is_required: false,
            description: about,
            min_length: None,
            max_length: None,
            pattern: None,
            example: None,
            examples: &[],
            default: None,
        }
    }

    /// A field that may be neither missing nor null.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
        Field { is_required: true, ..Field::optional(name, kind, about) }
    }

    /// Sets `minLength` and `maxLength` of the document, in characters; `None`: those of the reading rule.
    pub const fn with_length(self, least: Option<usize>, most: Option<usize>) -> Field {
        Field { min_length: least, max_length: most, ..self }
    }

    /// Sets `pattern` of the document.
    pub const fn with_pattern(self, pattern: &'static str) -> Field {
        Field { pattern: Some(pattern), ..self }
    }

    /// Sets `example` of the document, the name before OpenAPI 3.1.
    pub const fn with_example(self, example: &'static str) -> Field {
        Field { example: Some(example), ..self }
    }

    /// Sets `examples` of the document.
    pub const fn with_examples(self, examples: &'static [&'static str]) -> Field {
        Field { examples, ..self }
    }

    /// Sets `default` of the document.
    pub const fn with_default(self, default: Preset) -> Field {
        Field { default: Some(default), ..self }
    }
}
