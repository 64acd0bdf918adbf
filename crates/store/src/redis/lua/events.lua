-- A page of the event record. An entry of the stream holds the events of one operation (1,000 at most), under
-- the number of its last one.
--
-- ARGV     after, entries at most
-- Reply    { oldest kept, last given out, entries (id, fields) }

local after, count = number(), number()
local meta = call('HMGET', KEYS[1], 'events_floor', 'last_event')
local entries = call('XRANGE', P .. 'events', format('%.0f-0', after + 1), '+', 'COUNT', count)
return { max(tonumber(meta[1] or 1), 1), tonumber(meta[2] or 0), entries }
