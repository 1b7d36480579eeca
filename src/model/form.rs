//! Forms of what callers post: each described once, as data. The strict reader ([`super::fields::Fields`]) takes fields
//! by their description here, and the API's document is written from the same description, so a field that only one of
//! the two knows does not exist.

use super::json::TextRule;

/// A form of JSON value that the document names.
pub struct Form {
    /// Its name in the document.
    pub name: &'static str,
    /// What it is, for the document; empty: its name says it.
    pub description: &'static str,
    pub kind: Kind,
    /// Examples for the document, each as JSON.
    pub examples: &'static [&'static str],
}

/// A field of an object.
pub struct Field {
    pub name: &'static str,
    pub kind: Kind,
    /// Neither left out nor null.
    pub is_required: bool,
    /// What it is, for the document; empty: its name says it.
    pub description: &'static str,
    /// Fewest characters of a text, as the document has them, where the rule of reading is another.
    pub min_length: Option<usize>,
    /// Most characters of a text, as the document has them, where the rule of reading is another: what is longer is
    /// refused later, for another reason than its length.
    pub max_length: Option<usize>,
    /// A regular expression, for the document.
    pub pattern: Option<&'static str>,
    /// An example, under the name that OpenAPI had for it before 3.1.
    pub example: Option<&'static str>,
    pub examples: &'static [&'static str],
    /// The value that stands for one not given.
    pub default: Option<Preset>,
}

/// What a value may be.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A text. The document has the lengths of its rule; of one that counts bytes, as characters: there are no more.
    Text(TextRule),
    /// A text whose pattern, example or description says in the document what its lengths would.
    Plain(TextRule),
    /// A word of a list that has this name in the document.
    Word(&'static str, TextRule),
    /// One of these words.
    Words(fn() -> Vec<&'static str>),
    /// A whole number from the one to the other, which fits 32 bits.
    Int32(i64, i64),
    /// As `Int32`, in 64 bits.
    Int64(i64, i64),
    Flag,
    /// RFC 3339 with offset.
    Time,
    /// A list of such values, with the fewest and the most that it may have.
    List(&'static Kind, Option<usize>, Option<usize>),
    Form(&'static Form),
    OneOf(fn() -> Vec<&'static Form>),
    /// An object of these fields and no others.
    Object(&'static [Field]),
    /// An object with these fields and whatever others.
    Open(&'static [Field]),
    /// Names and plain values, in the partner's own words.
    Metadata,
    /// Names and texts of at most so many characters.
    Texts(usize),
}

/// A default value.
#[derive(Clone, Copy)]
pub enum Preset {
    Flag(bool),
    Whole(i64),
}

impl Form {
    /// The fields of an object; none of any other value.
    pub fn fields(&self) -> &'static [Field] {
        match self.kind {
            Kind::Object(fields) | Kind::Open(fields) => fields,
            _ => &[],
        }
    }

    /// A field by its name.
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields().iter().find(|field| field.name == name)
    }
}

impl Field {
    /// A field that may be left out or null. `about`: what it is, for the document; empty where its name says it.
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

    /// A field that may be neither left out nor null.
    pub const fn required(name: &'static str, kind: Kind, about: &'static str) -> Field {
        Field { is_required: true, ..Field::optional(name, kind, about) }
    }

    /// With these lengths in the document, in characters; none: those of the rule by which it is read.
    pub const fn with_length(self, least: Option<usize>, most: Option<usize>) -> Field {
        Field { min_length: least, max_length: most, ..self }
    }

    /// With this regular expression in the document.
    pub const fn with_pattern(self, pattern: &'static str) -> Field {
        Field { pattern: Some(pattern), ..self }
    }

    /// With an example under the name that OpenAPI had for it before 3.1.
    pub const fn with_example(self, example: &'static str) -> Field {
        Field { example: Some(example), ..self }
    }

    /// With these examples in the document.
    pub const fn with_examples(self, examples: &'static [&'static str]) -> Field {
        Field { examples, ..self }
    }

    /// With the value that stands for one not given.
    pub const fn with_default(self, default: Preset) -> Field {
        Field { default: Some(default), ..self }
    }
}
