-- A page of the event record. An entry of the stream holds the events of one operation (1,000 at most), under
-- the number of its last one.
--
-- ARGV     after, events at most, entries at most
-- Reply    { oldest kept, last given out, entries (id, fields), 1 when there are more }

local after, events_max, entries_max = number(), number(), number()
local meta = call('HMGET', KEYS[1], 'events_floor', 'last_event')
local entries, from, more = {}, after, 0
-- A few at a time: an entry holds one event or a thousand.
local STEP = 8
while true do
  local found = call('XRANGE', P .. 'events', format('%.0f-0', from + 1), '+', 'COUNT', STEP)
  for _, entry in ipairs(found) do entries[#entries + 1] = entry end
  if #found < STEP then break end
  from = tonumber(string.match(entries[#entries][1], '^%d+'))
  if from - after >= events_max or #entries >= entries_max then
    more = 1
    break
  end
end
return { max(tonumber(meta[1] or 1), 1), tonumber(meta[2] or 0), entries, more }
