-- $1 kid, $2 sealed.
update signing_keys set sealed = $2 where kid = $1
