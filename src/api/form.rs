//! The OpenAPI schemas of request bodies, made from the same [`Form`] that the parser reads by, so that the two cannot
//! differ.

use serde_json::Value;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, RefBuilder, SchemaFormat, SchemaType,
    Type,
};
use utoipa::openapi::{RefOr, Schema};

use super::shape::metadata_object;
use crate::model::form::{Field, Form, Kind, Preset};
use crate::model::intake::{BATCH, MESSAGE, NOTIFICATION};

/// Declares a type for each form that `request_body` of a route can name.
macro_rules! forms {
    ($($name:ident = $form:path;)*) => {$(
        pub enum $name {}

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                $crate::api::form::schema(&$form)
            }
        }

        impl utoipa::ToSchema for $name {
            fn name() -> std::borrow::Cow<'static, str> {
                $form.name.into()
            }

            fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
                $crate::api::form::collect_schemas($form.kind, schemas);
            }
        }
    )*};
}

pub(super) use forms;

forms! {
    NewMessage = MESSAGE;
    NewBatch = BATCH;
    NewNotification = NOTIFICATION;
}

/// The schema of a form.
pub fn schema(form: &Form) -> RefOr<Schema> {
    // An example that is not JSON is shown as a text.
    let example = |json: &&str| serde_json::from_str(json).unwrap_or_else(|_| Value::from(*json));
    let examples = form.examples.iter().map(example).collect();
    field_schema(&Field::required(form.name, form.kind, form.description), examples)
}

/// Adds to `schemas` the name and schema of each form that values of this kind refer to, directly or through other
/// forms.
pub fn collect_schemas(kind: Kind, schemas: &mut Vec<(String, RefOr<Schema>)>) {
    let mut add = |form: &Form| {
        schemas.push((form.name.to_owned(), schema(form)));
        collect_schemas(form.kind, schemas);
    };
    match kind {
        Kind::Form(form) => add(form),
        Kind::OneOf(forms) => forms().into_iter().for_each(add),
        Kind::List(items, ..) => collect_schemas(*items, schemas),
        Kind::Object(fields) | Kind::Open(fields) => {
            fields.iter().for_each(|field| collect_schemas(field.kind, schemas))
        }
        Kind::Text(_)
        | Kind::Plain(_)
        | Kind::Word(..)
        | Kind::Words(_)
        | Kind::Int32(..)
        | Kind::Int64(..)
        | Kind::Flag
        | Kind::Time
        | Kind::Metadata
        | Kind::Texts(_) => (),
    }
}

/// The schema of a field; that of a form is the schema of a required field of this kind.
#[expect(deprecated, reason = "callers know the examples of these fields as `example`")]
fn field_schema(field: &Field, examples: Vec<Value>) -> RefOr<Schema> {
    let about = Some(field.description).filter(|about| !about.is_empty());
    let plain = |of: Type| {
        ObjectBuilder::new()
            .schema_type(or_null(of, field))
            .description(about)
            .pattern(field.pattern)
            .example(field.example.map(Value::from))
            .default(field.default.map(default_value))
    };
    match field.kind {
        Kind::Text(rule) => {
            let (least, most) = rule.lengths();
            let (least, most) = (field.min_length.unwrap_or(least), field.max_length.unwrap_or(most));
            plain(Type::String).min_length(Some(least)).max_length(Some(most)).into()
        }
        Kind::Plain(_) => plain(Type::String)
            .min_length(field.min_length)
            .max_length(field.max_length)
            .examples(field.examples.iter().copied())
            .into(),
        Kind::Words(words) => {
            // An optional field may be null.
            let null = (!field.is_required).then_some(Value::Null);
            plain(Type::String).enum_values(Some(words().into_iter().map(Value::from).chain(null))).into()
        }
        Kind::Int32(least, most) => integer(plain(Type::Integer), KnownFormat::Int32, least, most),
        Kind::Int64(least, most) => integer(plain(Type::Integer), KnownFormat::Int64, least, most),
        Kind::Flag => plain(Type::Boolean).into(),
        Kind::Time => plain(Type::String).format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))).into(),
        Kind::Texts(most) => {
            let text = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(most));
            plain(Type::Object).additional_properties(Some(Schema::from(text.build()))).into()
        }
        Kind::Metadata => {
            let object = metadata_object().schema_type(or_null(Type::Object, field));
            if about.is_some() { object.description(about) } else { object }.into()
        }
        Kind::Object(fields) => {
            let none = AdditionalProperties::FreeForm(false);
            properties(plain(Type::Object), fields).additional_properties(Some(none)).examples(examples).into()
        }
        Kind::Open(fields) => properties(plain(Type::Object), fields).examples(examples).into(),
        Kind::List(items, least, most) => ArrayBuilder::new()
            .schema_type(or_null(Type::Array, field))
            .items(field_schema(&Field::required("", *items, ""), Vec::new()))
            .min_items(least)
            .max_items(most)
            .description(about)
            .into(),
        Kind::OneOf(forms) => {
            let of = forms().into_iter().fold(OneOfBuilder::new(), |of, form| of.item(reference(form.name, None)));
            of.description(about).examples(examples).into()
        }
        Kind::Form(form) => one_or_null(form.name, about, field),
        Kind::Word(name, _) => one_or_null(name, about, field),
    }
}

fn one_or_null(name: &str, about: Option<&str>, field: &Field) -> RefOr<Schema> {
    let of = reference(name, about);
    if field.is_required {
        return of;
    }
    OneOfBuilder::new().item(of).item(ObjectBuilder::new().schema_type(Type::Null)).into()
}

/// An optional field also takes null, which means the same as leaving it out.
fn or_null(of: Type, field: &Field) -> SchemaType {
    if field.is_required { SchemaType::new(of) } else { SchemaType::Array(vec![of, Type::Null]) }
}

fn reference(name: &str, about: Option<&str>) -> RefOr<Schema> {
    RefBuilder::new().ref_location_from_schema_name(name).description(about).build().into()
}

fn integer(of: ObjectBuilder, format: KnownFormat, least: i64, most: i64) -> RefOr<Schema> {
    of.format(Some(SchemaFormat::KnownFormat(format))).minimum(Some(least)).maximum(Some(most)).into()
}

fn properties(of: ObjectBuilder, fields: &[Field]) -> ObjectBuilder {
    fields.iter().fold(of, |of, field| {
        let of = of.property(field.name, field_schema(field, Vec::new()));
        if field.is_required { of.required(field.name) } else { of }
    })
}

fn default_value(default: Preset) -> Value {
    match default {
        Preset::Flag(flag) => flag.into(),
        Preset::Whole(number) => number.into(),
    }
}
