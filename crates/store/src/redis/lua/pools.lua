-- All pools.
--
-- Reply    flat, in no order: version, record (JSON)

local reply = {}
for _, raw in ipairs(call('HVALS', P .. 'pools')) do
  local pool = unpacked(raw)
  reply[#reply + 1] = pool[1]
  reply[#reply + 1] = pool[2]
end
return reply
