-- A page of tokens in order of id.
--
-- ARGV     after ('' from the first), at most
-- Reply    flat: token, record (packed)

local after, reply = arg(), {}
local from = after == '' and '-' or '(' .. after
for _, id in ipairs(call('ZRANGE', P .. 'token_ids', from, '+', 'BYLEX', 'LIMIT', 0, number())) do
  reply[#reply + 1] = id
  reply[#reply + 1] = call('HGET', P .. 'tokens', id)
end
return reply
