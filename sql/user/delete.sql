-- Removes all that is personal from a user. The row stays, so that what the user wrote has an author.
-- Its names remain until its messages are erased.
-- $1 shard, $2 user_id, $3 state of a deleted user, $4 former_external_hash, $5 user_code, $6 now, $7 its userId as
-- text.
update users set external_id = null, former_external_hash = $4, username = null, username_key = null, nickname = '',
  user_code = $5, shown_as = null, bio = null, profile_image_url = null, background_image_url = null, email = null,
  phone = null, locale = null, time_zone = null, state = ($3::text)::user_state, tokens_after = $6,
  last_seen_at = null, erase_names = array_remove(array[external_id, $7::text], null), updated_at = $6,
  deleted_at = $6
where shard = $1 and user_id = $2
