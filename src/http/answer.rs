//! What all answers share: the code of success, and the format of times and JSON.

use std::borrow::Cow;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Serialize, Serializer};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaFormat, Type};
use utoipa::openapi::{KnownFormat, RefOr};
use utoipa::{PartialSchema, ToSchema};

use super::problem::Problem;
use crate::error::Error;

/// The result of a handler. `?` turns any error of the hub into a problem.
pub type Answer<T = Response> = std::result::Result<T, Problem>;

/// An answer with a JSON body. The type of the body is the one that the OpenAPI document describes. A body that cannot
/// be serialised becomes a 500.
pub fn respond(status: StatusCode, body: &(impl Serialize + ToSchema)) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(e) => Problem::from(Error::Internal(format!("an answer cannot be written: {e}"))).into_response(),
    }
}

/// The code of every success.
#[derive(Serialize, ToSchema)]
pub enum Success {
    #[serde(rename = "0000")]
    Success,
}

/// A time in an answer: RFC 3339, in UTC, to the microsecond.
pub struct Time(pub DateTime<Utc>);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0.to_rfc3339_opts(SecondsFormat::Micros, true))
    }
}

impl PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("RFC 3339, in UTC, to the microsecond"))
            .into()
    }
}

impl ToSchema for Time {
    fn name() -> Cow<'static, str> {
        "Time".into()
    }
}
