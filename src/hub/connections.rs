//! Live connections of users at this process, and what is not recorded yet: those that opened and closed, and when
//! users last did something.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use super::lock::lock;
use crate::id::Tsid;
use crate::limits;
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
    /// WebSockets by their user, the oldest first, each with what tells it that it is one too many.
    sockets: HashMap<Tsid, VecDeque<(Tsid, oneshot::Sender<()>)>>,
    /// Users that did something, whose time is not recorded yet.
    active: HashMap<(i16, Tsid), DateTime<Utc>>,
    /// The time of each user that was taken to be recorded last.
    recorded: HashMap<Tsid, DateTime<Utc>>,
    /// Rooms whose members may have to see that a user is gone, the oldest first.
    left: VecDeque<LeftRooms>,
}

/// Keeps a connection open; it is closed when this is dropped.
pub struct OpenConnection {
    connections: Arc<Connections>,
    id: Tsid,
    user_id: Tsid,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = lock(&self.connections.0);
        state.open.remove(&self.id);
        if let Some(sockets) = state.sockets.get_mut(&self.user_id) {
            sockets.retain(|(id, _)| *id != self.id);
            if sockets.is_empty() {
                state.sockets.remove(&self.user_id);
            }
        }
        // One that opened and closed between two records is not recorded at all.
        if state.opened.remove(&self.id).is_none() {
            state.closed.push(self.id);
        }
    }
}

/// The rooms that a connection showed when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftRooms {
    pub user: (i16, Tsid),
    pub room_ids: Vec<Tsid>,
    /// When the connection ended.
    pub at: Instant,
}

/// What is to be recorded.
#[derive(Debug, Default)]
pub struct ConnectionChanges {
    pub opened: Vec<Connection>,
    pub closed: Vec<Tsid>,
    /// When users last did something.
    pub active: Vec<((i16, Tsid), DateTime<Utc>)>,
    /// This process has connections.
    pub is_live: bool,
}

impl Connections {
    /// Counts a connection.
    pub fn open(self: &Arc<Connections>, connection: Connection) -> OpenConnection {
        let (mut state, id, user_id) = (lock(&self.0), connection.connection_id, connection.user_id);
        state.open.insert(id);
        state.opened.insert(id, connection);
        OpenConnection { connections: self.clone(), id, user_id }
    }

    /// Counts a WebSocket. If its user has `limits::SOCKETS_OF_USER` here already, the oldest one has to end. The
    /// receiver gets a value when this one has to.
    pub fn open_socket(self: &Arc<Connections>, connection: Connection) -> (OpenConnection, oneshot::Receiver<()>) {
        let (told, ends) = oneshot::channel();
        let open = self.open(connection);
        let mut state = lock(&self.0);
        let sockets = state.sockets.entry(open.user_id).or_default();
        sockets.push_back((open.id, told));
        if sockets.len() > limits::SOCKETS_OF_USER
            && let Some((_, oldest)) = sockets.pop_front()
        {
            let _gone = oldest.send(());
        }
        drop(state);
        (open, ends)
    }

    /// Notes that a user did something. Recorded once in `limits::ACTIVE_EVERY`.
    pub fn touch(&self, user: (i16, Tsid), now: DateTime<Utc>) {
        let mut state = lock(&self.0);
        if state.recorded.get(&user.1).is_some_and(|last| now < *last + limits::ACTIVE_EVERY && now >= *last) {
            return;
        }
        if state.recorded.len() >= limits::ROOMS_KNOWN {
            state.recorded.clear();
        }
        state.recorded.insert(user.1, now);
        state.active.insert(user, now);
    }

    /// Whether a user has a WebSocket here.
    pub fn has_socket(&self, user_id: Tsid) -> bool {
        lock(&self.0).sockets.contains_key(&user_id)
    }

    /// Notes the rooms that a connection showed when it ended. If too many wait, the oldest are forgotten.
    pub fn left(&self, rooms: LeftRooms) {
        let mut state = lock(&self.0);
        if state.left.len() >= limits::ROOMS_KNOWN {
            state.left.pop_front();
        }
        state.left.push_back(rooms);
    }

    /// Takes up to `most` of those that ended until `until`.
    pub fn take_left(&self, until: Instant, most: usize) -> Vec<LeftRooms> {
        let mut state = lock(&self.0);
        let due = state.left.iter().take(most).take_while(|left| left.at <= until).count();
        state.left.drain(..due).collect()
    }

    /// How many connections there are: all, and of them WebSockets.
    pub fn count(&self) -> (usize, usize) {
        let state = lock(&self.0);
        (state.open.len(), state.sockets.values().map(VecDeque::len).sum())
    }

    /// Takes what was not recorded yet.
    pub fn take(&self) -> ConnectionChanges {
        let mut state = lock(&self.0);
        ConnectionChanges {
            opened: state.opened.drain().map(|(_, connection)| connection).collect(),
            closed: std::mem::take(&mut state.closed),
            active: state.active.drain().collect(),
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
        for (user, at) in changes.active {
            state.active.entry(user).or_insert(at);
        }
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
