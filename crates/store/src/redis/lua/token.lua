-- The token with a secret, live or ended.
--
-- ARGV     hash of the secret
-- Reply    {} or { token, record (packed) }

local id = call('HGET', P .. 'tokens_by_hash', arg())
if not id then return {} end
return { id, call('HGET', P .. 'tokens', id) }
