-- Ends a token at once.
--
-- ARGV     token
-- Reply    { 'ok', token, fields of its record } or { 'none' }

local id = arg()
local token = token_get(id)
if not token then return done({ 'none' }) end
if token[K.revoked_at] < 0 then
  token[K.revoked_at] = m.now
  keep_token(id, token)
end
return done(token_reply(id, token))
