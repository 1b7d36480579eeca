//! Inboxes of users: the hub is its own provider. An item is a row of the hub's database, which this layer does not
//! reach, so `flow::channel` puts it there in place of a call. This account gives the channel what every channel has:
//! a name in attempts and metrics, a batch size, a limit, and a pause by an operator.

use crate::model::capability::{Batch, Capability};
use crate::model::channel::Channel;
use crate::model::delivery::Outcome;

use super::{BoxFuture, Provider, SendRequest};

/// Most items in one statement.
const BATCH: usize = 500;

/// The account of the channel INAPP.
#[derive(Debug, Default)]
pub struct Inapp;

impl Provider for Inapp {
    fn name(&self) -> &'static str {
        "inapp"
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability { batch: Batch::Any(BATCH), ..Capability::of(Channel::Inapp) }]
    }

    /// Never called: `flow::channel` puts the items.
    fn send<'a>(&'a self, _request: SendRequest<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(std::future::ready(Outcome::Postponed))
    }

    fn check(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(std::future::ready(Ok("items are put into the hub's own database".to_owned())))
    }
}
