//! Destinations of STOMP frames: topics, to which clients subscribe, and calls, which clients send. Whether the caller
//! may use a destination is decided elsewhere.

use crate::id::Tsid;

/// Every destination of SUBSCRIBE, for a text that names the remedy.
pub const TOPICS: &str = "/topic/messages/{roomId}, /topic/message/status/{roomId}, /topic/typing/{roomId}, \
    /topic/active/{roomId}, /topic/rooms/{roomId}, /exchange/chat.exchange/chat.channel.{roomId}.message, \
    /exchange/chat.exchange/chat.user.{userId}.notification, /user/queue/notifications, /user/queue/inbox, \
    /user/queue/errors, /user/queue/sync";

/// Every destination of SEND, for a text that names the remedy.
pub const APP_CALLS: &str =
    "/app/chat, /app/room/{roomId}/send, /app/read, /app/read-all, /app/typing, /app/active, /app/auth";

/// The subject of a subscription. Several destinations may lead to one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// The messages of a room, each whole at each of its changes.
    Messages(Tsid),
    /// The statuses of the caller's own messages in a room.
    Status(Tsid),
    /// The members of a room who are typing.
    Typing(Tsid),
    /// The members who look at a room.
    Active(Tsid),
    /// Every event of a room.
    Room(Tsid),
    /// The news of one user. If the destination names the user, it must be the caller.
    Notifications(Option<Tsid>),
    /// The caller's inbox.
    Inbox,
    /// Refusals of frames that the caller sent.
    Errors,
    /// Answers to the caller.
    Sync,
}

impl Topic {
    /// Parses a destination of SUBSCRIBE. Wildcards, other exchanges and texts that are no id lead nowhere: `None`.
    pub fn parse(destination: &str) -> Option<Topic> {
        let around_id = |before, after, topic: fn(Tsid) -> Topic| id_between(destination, before, after).map(topic);
        match destination {
            "/user/queue/notifications" => Some(Topic::Notifications(None)),
            "/user/queue/inbox" => Some(Topic::Inbox),
            "/user/queue/errors" => Some(Topic::Errors),
            "/user/queue/sync" => Some(Topic::Sync),
            _ => around_id("/topic/messages/", "", Topic::Messages)
                .or_else(|| around_id("/topic/message/status/", "", Topic::Status))
                .or_else(|| around_id("/topic/typing/", "", Topic::Typing))
                .or_else(|| around_id("/topic/active/", "", Topic::Active))
                .or_else(|| around_id("/topic/rooms/", "", Topic::Room))
                .or_else(|| around_id("/exchange/chat.exchange/chat.channel.", ".message", Topic::Room))
                .or_else(|| {
                    around_id("/exchange/chat.exchange/chat.user.", ".notification", |user_id| {
                        Topic::Notifications(Some(user_id))
                    })
                }),
        }
    }

    /// The room of which the caller must be a member.
    pub fn room_id(self) -> Option<Tsid> {
        match self {
            Topic::Messages(room_id)
            | Topic::Status(room_id)
            | Topic::Typing(room_id)
            | Topic::Active(room_id)
            | Topic::Room(room_id) => Some(room_id),
            Topic::Notifications(_) | Topic::Inbox | Topic::Errors | Topic::Sync => None,
        }
    }
}

/// A call that a client makes with SEND. What it is about, other than in `RoomSend`, is in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppCall {
    /// Sends a message.
    Chat,
    /// Sends a message to this room.
    RoomSend(Tsid),
    /// Marks a room as read up to a message.
    Read,
    /// Marks a room as read up to its last message.
    ReadAll,
    /// Begins or ends typing.
    Typing,
    /// Begins or ends looking at a room.
    Active,
    /// Replaces the token of the session.
    Auth,
}

impl AppCall {
    /// Parses a destination of SEND.
    pub fn parse(destination: &str) -> Option<AppCall> {
        match destination {
            "/app/chat" => Some(AppCall::Chat),
            "/app/read" => Some(AppCall::Read),
            "/app/read-all" => Some(AppCall::ReadAll),
            "/app/typing" => Some(AppCall::Typing),
            "/app/active" => Some(AppCall::Active),
            "/app/auth" => Some(AppCall::Auth),
            _ => id_between(destination, "/app/room/", "/send").map(AppCall::RoomSend),
        }
    }
}

fn id_between(destination: &str, before: &str, after: &str) -> Option<Tsid> {
    destination.strip_prefix(before)?.strip_suffix(after)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Tsid = Tsid(698_765_432_109_876_543);

    /// Destinations from a list, with an id in place of each placeholder.
    fn listed(list: &str) -> Vec<String> {
        let id = ID.to_string();
        list.split(", ").map(|text| text.replace("{roomId}", &id).replace("{userId}", &id)).collect()
    }

    #[test]
    fn listed_topics_are_parsed() {
        use Topic::{Active, Errors, Inbox, Messages, Notifications, Room, Status, Sync, Typing};
        let parsed: Vec<_> = listed(TOPICS).iter().map(|text| Topic::parse(text)).collect();
        let expected = [
            Messages(ID),
            Status(ID),
            Typing(ID),
            Active(ID),
            Room(ID),
            Room(ID),
            Notifications(Some(ID)),
            Notifications(None),
            Inbox,
            Errors,
            Sync,
        ];
        assert_eq!(parsed, expected.map(Some));
        let of_rooms = expected.map(|topic| topic.room_id().is_some());
        assert_eq!(of_rooms, [true, true, true, true, true, true, false, false, false, false, false]);
    }

    /// ST-14: only the destinations under `/app` take SEND.
    #[test]
    fn listed_calls_are_parsed() {
        use AppCall::{Active, Auth, Chat, Read, ReadAll, RoomSend, Typing};
        let parsed: Vec<_> = listed(APP_CALLS).iter().map(|text| AppCall::parse(text)).collect();
        assert_eq!(parsed, [Chat, RoomSend(ID), Read, ReadAll, Typing, Active, Auth].map(Some));
    }

    #[test]
    fn other_destinations_lead_nowhere() {
        let id = ID.to_string();
        for text in [
            "",
            "/",
            "/topic",
            "/topic/messages",
            "/topic/messages/",
            "/topic/messages/{id}/",
            " /topic/messages/{id}",
            "/topic/messages/{id} ",
            "/topic//messages/{id}",
            "/Topic/messages/{id}",
            "/topic/messages/{id}/{id}",
            "/topic/messages/0{id}",
            "/topic/messages/00000000000é",
            "/topic/messages/8000000000000",
            "/topic/message/{id}",
            "/topic/status/{id}",
            "/topic/rooms/*",
            "/queue/messages/{id}",
            "/exchange/chat.exchange/chat.channel.*.message",
            "/exchange/chat.exchange/chat.channel.#",
            "/exchange/chat.exchange/chat.channel.{id}",
            "/exchange/chat.exchange/chat.channel.{id}.message.x",
            "/exchange/chat.exchange/chat.user.{id}.message",
            "/exchange/other/chat.channel.{id}.message",
            "/exchange/chat.exchange/chat.channel.message",
            "/user/{id}/queue/inbox",
            "/user/queue",
            "/user/queue/inbox/",
            "/app",
            "/app/",
            "/app/chat/",
            "/app/room/{id}",
            "/app/room//send",
            "/app/room/send",
            "/app/room/{id}/send/",
            "/app/readall",
        ] {
            let text = text.replace("{id}", &id);
            assert_eq!((Topic::parse(&text), AppCall::parse(&text)), (None, None), "{text}");
        }
        for text in listed(TOPICS) {
            assert_eq!(AppCall::parse(&text), None, "{text}");
        }
        for text in listed(APP_CALLS) {
            assert_eq!(Topic::parse(&text), None, "{text}");
        }
    }

    /// Ids are read in either case, as everywhere else.
    #[test]
    fn small_letters_are_the_same_id() {
        let id = ID.to_string();
        assert_eq!(Topic::parse(&format!("/topic/rooms/{}", id.to_lowercase())), Some(Topic::Room(ID)));
    }
}
