//! Parses a request's query strictly.

use std::collections::BTreeMap;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::problem::Problem;
use crate::error::{Refusal, excerpt};
use crate::hub::Hub;
use crate::limits;

/// The query parameters of a request, each given at most once. Handlers take the parameters they know and then
/// [`close`] it, which refuses the others.
///
/// [`close`]: Query::close
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
    /// Takes a parameter as text; none if it was not given.
    pub fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// Takes a parameter and parses it with `read`; none if it was not given. `what` describes the expected form in the
    /// error, for example "a partner's id".
    ///
    /// # Errors
    /// `query_invalid` if `read` returns none.
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

    /// Takes `limit`: items on a page.
    ///
    /// # Errors
    /// `query_invalid` unless it is a number from 1 to [`limits::PAGE_MAX`].
    pub fn limit(&mut self) -> Result<i64, Refusal> {
        let limit = self.parse("limit", &format!("a number from 1 to {}", limits::PAGE_MAX), |text| {
            text.parse().ok().filter(|n| (1..=limits::PAGE_MAX).contains(n))
        })?;
        Ok(limit.unwrap_or(limits::PAGE_DEFAULT))
    }

    /// Ends the reading. Parameters that were not taken are unknown.
    ///
    /// # Errors
    /// `query_unknown`, with the name of an unknown parameter.
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
