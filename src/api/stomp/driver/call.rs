//! What a client sends.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::body::{self, Refused};
use super::super::destination::{AppCall, Topic};
use super::super::frame;
use super::super::session::{Action, Call};
use super::super::socket::Socket;
use super::{CLOSE_FLOOD, Done, Driver, REFUSED_MOST, is_away};
use crate::error::{Error, Result};
use crate::flow;
use crate::flow::room::access::forbidden_for_another;
use crate::flow::user::access;
use crate::id::Tsid;
use crate::model::access::user::UserCaller;

impl Driver {
    pub(super) async fn call(&mut self, call: &Call, socket: &mut Socket) -> Result<Done> {
        let caller = self.caller()?.clone();
        flow::presence::touch(&self.hub, caller.key());
        match call.call {
            AppCall::Chat => self.send(None, call, &caller, socket).await,
            AppCall::RoomSend(room_id) => self.send(Some(room_id), call, &caller, socket).await,
            AppCall::Read => {
                let id = body::read_mark(&call.body)?;
                flow::room::mark::read_up_to(&self.hub, &caller, id.room_id, Some(id.seq)).await?;
                Ok(Done::Executed)
            }
            AppCall::ReadAll => {
                let room_id = body::room(&call.body)?;
                flow::room::mark::read_up_to(&self.hub, &caller, room_id, None).await?;
                Ok(Done::Executed)
            }
            // Never an error, not even over the limit.
            AppCall::Typing | AppCall::Active => match self.show(call).await {
                Err(e) if !is_away(&e) => Ok(Done::Ignored),
                Ok(()) | Err(_) => Ok(Done::Executed),
            },
            AppCall::Auth => {
                let token = body::token(&call.body)?;
                let proven = access::by_token(&self.hub, &token, self.origin.clone()).await?;
                if proven.user_id() != caller.user_id() {
                    return Err(forbidden_for_another());
                }
                self.caller = Some(proven);
                Ok(Done::Executed)
            }
        }
    }

    /// Shows others that the user types, or looks at a room.
    async fn show(&mut self, call: &Call) -> Result<()> {
        if call.call == AppCall::Typing {
            let (room_id, on) = body::flag(&call.body, "isTyping")?;
            return self.type_in(room_id, on).await;
        }
        let (room_id, on) = body::flag(&call.body, "active")?;
        self.look_at(room_id, on).await
    }

    async fn send(
        &mut self,
        room_id: Option<Tsid>,
        call: &Call,
        caller: &UserCaller,
        socket: &mut Socket,
    ) -> Result<Done> {
        let (room_id, sent) = match body::message(room_id, &call.body) {
            Ok(read) => read,
            Err(e) => {
                let (named, temp_id) = body::whose(&call.body);
                let refused = Refused::of(e);
                if let (Some(room_id), Some(temp_id)) = (room_id.or(named), temp_id.as_deref()) {
                    self.status_failed(room_id, Some(temp_id), &refused);
                }
                self.report_refused(call, &refused, temp_id.as_deref());
                return Ok(Done::Refused);
            }
        };
        let temp_id = sent.draft.temp_id.clone();
        if sent.sender_id.as_ref().is_some_and(|id| *id != caller.user_id().to_string()) {
            let refused = Refused::of(forbidden_for_another());
            self.status_failed(room_id, temp_id.as_deref(), &refused);
            self.report_refused(call, &refused, temp_id.as_deref());
            return Ok(Done::Refused);
        }
        if let Some(temp_id) = &temp_id {
            self.write_status(room_id, &frame::status(temp_id, "SENDING"));
        }
        // The client sees at once that its frame was right.
        if !self.out.is_empty() {
            let _gone = socket.send(std::mem::take(&mut self.out)).await;
        }
        match flow::room::send::send(&self.hub, caller, room_id, sent.draft).await {
            Ok((message, was_there)) => {
                if let Some(temp_id) = &temp_id {
                    for status in frame::statuses_saved(temp_id, message.id) {
                        self.write_status(room_id, &status);
                    }
                    // Its event comes as well, which tells the user's other connections.
                    let feeds =
                        self.feeds.iter().filter(|feed| feed.subscription.topic == Topic::Status(room_id)).count();
                    if feeds > 0 && !was_there {
                        self.told.insert((room_id, message.id.seq), feeds);
                    }
                }
                Ok(Done::Executed)
            }
            Err(e) => {
                let refused = Refused::of(e);
                self.status_failed(room_id, temp_id.as_deref(), &refused);
                self.report_refused(call, &refused, temp_id.as_deref());
                Ok(Done::Refused)
            }
        }
    }

    /// Tells the sender how far its message is.
    fn write_status(&mut self, room_id: Tsid, body: &Value) {
        self.write_to(|topic| topic == Topic::Status(room_id), body);
    }

    fn status_failed(&mut self, room_id: Tsid, temp_id: Option<&str>, refused: &Refused) {
        let body = json!({"tempId": temp_id, "status": "FAILED", "errorMessage": refused.message, "code": refused.code,
            "reason": refused.reason, "retryable": refused.retryable});
        self.write_status(room_id, &body);
    }

    fn report_refused(&mut self, call: &Call, refused: &Refused, temp_id: Option<&str>) {
        let body = refused.body(&call.destination, call.receipt.as_deref(), temp_id);
        self.write_to(|topic| topic == Topic::Errors, &body);
    }

    /// Tells the client that a frame was refused.
    pub(super) fn refuse_call(&mut self, call: &Call, e: Error) -> Vec<Action> {
        let refused = Refused::of(e);
        self.report_refused(call, &refused, None);
        self.count_refused()
    }

    /// Counts a refused frame; ends the connection after many.
    pub(super) fn count_refused(&mut self) -> Vec<Action> {
        let now = Instant::now();
        if now.duration_since(self.refused.1) > Duration::from_secs(10) {
            self.refused = (0, now);
        }
        self.refused.0 += 1;
        if self.refused.0 < REFUSED_MOST {
            return Vec::new();
        }
        self.session.error_and_close(CLOSE_FLOOD, "too_many_refused", "too many frames were refused; mend the client")
    }
}
