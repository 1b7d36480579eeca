//! Who is asking. Until partners sign in there is one, and everybody who reaches the port is it.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use super::error::Problem;
use crate::hub::Hub;
use crate::model::partner::Partner;

pub struct Caller {
    pub partner: Partner,
}

impl FromRequestParts<Hub> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(_parts: &mut Parts, hub: &Hub) -> Result<Caller, Problem> {
        Ok(Caller { partner: hub.partner.clone() })
    }
}
