//! The strict reading of a request's query.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;
use crate::error::{Refusal, excerpt};
use crate::hub::Hub;
use crate::limits;

/// Query parameters: each at most once, and none that nobody asks for.
pub struct Query(BTreeMap<String, String>);

impl FromRequestParts<Hub> for Query {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _hub: &Hub) -> Result<Query, Problem> {
        let mut given = BTreeMap::new();
        for (name, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if name.contains('\0') || value.contains(['\0', '\u{fffd}']) {
                let detail = format!("the query parameter '{}' is not UTF-8 text", excerpt(&name));
                return Err(Refusal::new(400, "query_invalid", detail).into());
            }
            if given.insert(name.to_string(), value.into_owned()).is_some() {
                let detail = format!("the query parameter '{}' is given twice", excerpt(&name));
                return Err(Refusal::new(400, "query_duplicate", detail).into());
            }
        }
        Ok(Query(given))
    }
}

impl Query {
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A parameter in its own form; `what` says what that is.
    pub fn parse<T>(&mut self, name: &str, what: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        match read(&text) {
            Some(value) => Ok(Some(value)),
            None => {
                let detail = format!("{name}='{}' is not {what}", excerpt(&text));
                Err(Refusal::new(400, "query_invalid", detail))
            }
        }
    }

    /// How many rows a page may have.
    pub fn limit(&mut self) -> Result<i64, Refusal> {
        let limit = self.parse("limit", &format!("a number from 1 to {}", limits::PAGE_MAX), |text| {
            text.parse().ok().filter(|n| (1..=limits::PAGE_MAX).contains(n))
        })?;
        Ok(limit.unwrap_or(limits::PAGE_DEFAULT))
    }

    /// Everything asked for was taken: the rest is unknown.
    pub fn close(self) -> Result<(), Refusal> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => {
                let detail = format!("there is no query parameter '{}' here", excerpt(&name));
                Err(Refusal::new(400, "query_unknown", detail))
            }
        }
    }
}
