-- The servers of the cell, and which of them holds a worker's stream.
--
-- ARGV     worker or ''
-- Reply    the session and nonce of its stream ('' for none), then flat: session, address

local worker = arg()
local raw = worker ~= '' and call('HGET', P .. 'workers', worker)
local record = raw and unpacked(raw)
local reply = { record and record[21] or '', record and record[22] or '' }
for _, session in ipairs(call('ZRANGE', P .. 'sessions', 0, -1)) do
  local n = #reply
  reply[n + 1], reply[n + 2] = session, call('HGET', P .. 'session:' .. session, 'address') or ''
end
return reply
