//! What we tell about a delivery. Every promised transition has exactly one event, numbered 1.. per delivery.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    Sent,
    Delivered,
    Failed,
    Expired,
    Canceled,
    Undetermined,
}

impl EventKind {
    pub fn as_str(self) -> &'static str {
        match self {
            EventKind::Sent => "delivery.sent",
            EventKind::Delivered => "delivery.delivered",
            EventKind::Failed => "delivery.failed",
            EventKind::Expired => "delivery.expired",
            EventKind::Canceled => "delivery.canceled",
            EventKind::Undetermined => "delivery.undetermined",
        }
    }
}
