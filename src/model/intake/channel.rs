//! The `channel` of an entry, and whether the partner may use it here.

use super::reader::Reader;
use crate::error::Code;
use crate::model::channel::{AddressKind, CHANNELS, Channel};
use crate::model::fields::Fields;
use crate::model::json;

impl Reader<'_> {
    /// The channel of an entry of `channels` or of a fallback. `None`: the rest of the entry cannot be read without it.
    pub fn channel(self, fields: &mut Fields<'_>) -> Option<Channel> {
        let word = fields.text("channel")?;
        let pointer = fields.pointer_to("channel");
        let words = CHANNELS.map(Channel::as_str);
        let channel: Channel = json::one_of(&word, &pointer, &words, self.faults, Code::E005)?;
        if self.policy.serves(channel) {
            return Some(channel);
        }
        if self.policy.forbids(channel) {
            let detail = format!(
                "this partner may not send over {channel}; use another channel or ask the operator for the right"
            );
            self.faults.add_if_new(Code::E005, pointer, "channel_not_allowed", detail);
            return Some(channel);
        }
        let served: Vec<&str> = self.policy.served().map(Channel::as_str).collect();
        let detail = format!("no provider serves {channel} here; served channels: {}", served.join(", "));
        if channel.addressed_by() == AddressKind::Unserved {
            self.faults.add_code(Code::E005, pointer, "channel_unavailable", detail);
            return None;
        }
        self.faults.add_if_new(Code::E005, pointer, "channel_unavailable", detail);
        Some(channel)
    }
}
