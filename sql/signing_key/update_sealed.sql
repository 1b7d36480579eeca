-- Replaces the sealed value of a signing key.
-- $1 kid, $2 sealed.
update signing_keys set sealed = $2 where kid = $1
