-- Makes a token, or gives the one that the same call made before.
--
-- ARGV     token, hash of its secret, tenant, role, note ('' or '=note'), life or -1
-- Reply    { 'ok', token, fields of its record } or { 'taken' } or { 'full' }

local id, hash, tenant, role, note, life = arg(), arg(), arg(), arg(), arg(), number()
local known = token_get(id)
if known then
  if known[K.hash] == hash and known[K.tenant] == tenant and known[K.role] == role then
    return done(token_reply(id, known))
  end
  return done({ 'taken' })
end
if call('HEXISTS', P .. 'tokens_by_hash', hash) == 1 then return done({ 'taken' }) end
if call('HLEN', P .. 'tokens') >= OPT.tokens_max then return done({ 'full' }) end
local token = { hash, tenant, role, note, m.now, life >= 0 and m.now + life or -1, -1 }
keep_token(id, token)
return done(token_reply(id, token))
