//! Live connections of users at this process, and those whose opening or closing is not recorded yet.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};

use super::lock::lock;
use crate::id::Tsid;
use crate::store::connection::Connection;

/// The connections of this process.
#[derive(Default)]
pub struct Connections(Mutex<State>);

#[derive(Default)]
struct State {
    open: HashSet<Tsid>,
    opened: HashMap<Tsid, Connection>,
    closed: Vec<Tsid>,
    beat_at: Option<DateTime<Utc>>,
}

/// Keeps a connection open; it is closed when this is dropped.
pub struct OpenConnection {
    connections: Arc<Connections>,
    id: Tsid,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = lock(&self.connections.0);
        state.open.remove(&self.id);
        // One that opened and closed between two records is not recorded at all.
        if state.opened.remove(&self.id).is_none() {
            state.closed.push(self.id);
        }
    }
}

/// What is to be recorded.
#[derive(Debug, Default)]
pub struct ConnectionChanges {
    pub opened: Vec<Connection>,
    pub closed: Vec<Tsid>,
    /// This process has connections.
    pub is_live: bool,
}

impl Connections {
    /// Counts a connection.
    pub fn open(self: &Arc<Connections>, connection: Connection) -> OpenConnection {
        let (mut state, id) = (lock(&self.0), connection.connection_id);
        state.open.insert(id);
        state.opened.insert(id, connection);
        OpenConnection { connections: self.clone(), id }
    }

    /// Takes what was not recorded yet.
    pub fn take(&self) -> ConnectionChanges {
        let mut state = lock(&self.0);
        ConnectionChanges {
            opened: state.opened.drain().map(|(_, connection)| connection).collect(),
            closed: std::mem::take(&mut state.closed),
            is_live: !state.open.is_empty(),
        }
    }

    /// Puts back what could not be recorded.
    pub fn put_back(&self, changes: ConnectionChanges) {
        let mut state = lock(&self.0);
        let (open, gone): (Vec<Connection>, Vec<Connection>) =
            changes.opened.into_iter().partition(|c| state.open.contains(&c.connection_id));
        state.opened.extend(open.into_iter().map(|c| (c.connection_id, c)));
        // Perhaps it was recorded all the same.
        state.closed.extend(gone.into_iter().map(|c| c.connection_id).chain(changes.closed));
    }

    /// Whether the sign of life is due, which is then noted as given at `now`.
    pub fn beat_is_due(&self, now: DateTime<Utc>, every: chrono::TimeDelta) -> bool {
        let mut state = lock(&self.0);
        let is_due = state.beat_at.is_none_or(|at| now >= at + every || now < at);
        if is_due {
            state.beat_at = Some(now);
        }
        is_due
    }
}
