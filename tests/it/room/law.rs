//! The laws of rooms: who may do what, walked through all roles, kinds and deeds.

use notihub::model::room::{
    DEEDS, Deed, MEMBER_ROLES, MemberRole, ROOM_KINDS, RoomKind, VISIBILITIES, Visibility, may,
};

/// S2-25, S2-85: what a role may do, it may do in every higher role, except that no one removes an owner; in a room of
/// two neither is above the other; a public room differs in invitations alone.
#[test]
fn higher_role_may_do_what_a_lower_one_may() {
    for kind in ROOM_KINDS {
        for visibility in VISIBILITIES {
            for deed in DEEDS {
                let allowed: Vec<bool> = MEMBER_ROLES.map(|role| may(role, kind, visibility, deed)).to_vec();
                assert!(
                    allowed.windows(2).all(|pair| pair[0] || !pair[1]),
                    "{kind:?} {visibility:?} {deed:?} {allowed:?}"
                );
                match (kind, deed) {
                    (_, Deed::TakePart) => assert_eq!(allowed, [true, true, true]),
                    (RoomKind::Individual, _) | (_, Deed::Remove(MemberRole::Owner)) => {
                        assert_eq!(allowed, [false, false, false], "{kind:?} {deed:?}");
                    }
                    (RoomKind::Group, Deed::Invite) => {
                        assert_eq!(allowed, [true, true, visibility == Visibility::Public]);
                    }
                    (
                        RoomKind::Group,
                        Deed::DeleteOthersMessage | Deed::Change | Deed::Silence | Deed::Remove(MemberRole::Member),
                    ) => {
                        assert_eq!(allowed, [true, true, false], "{deed:?}");
                    }
                    (
                        RoomKind::Group,
                        Deed::Remove(MemberRole::Admin) | Deed::SetRole | Deed::Close | Deed::SetRetention,
                    ) => {
                        assert_eq!(allowed, [true, false, false], "{deed:?}");
                    }
                }
            }
        }
    }
}
