-- What workers' streams have not been handed yet, as many of them as one call may; the rest is asked for again.
--
-- ARGV     number of workers, for each: worker, stream, after, messages at most
-- Reply    { for each that was looked at: flat number, container, record (packed); specs (flat: hash, body) }

local asked = {}
for i = 1, number() do asked[i] = { arg(), arg(), arg(), number() } end
local taken, work, of_group = {}, 0, {}
for i, from in ipairs(asked) do
  if work >= OPT.script_items_max then break end
  local worker, stream, after, count = unpack(from)
  local deliveries = {}
  local found = call('ZRANGE', P .. 'outbox:' .. worker, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, count, 'WITHSCORES')
  -- Most of those that are asked for have nothing: whose stream it is matters only where there is something.
  local raw = found[1] and call('HGET', P .. 'workers', worker)
  local record = raw and unpacked(raw)
  if record and record[21] ~= '' and record[22] == stream then
    for j = 1, #found, 2 do
      local cid, n = found[j], #deliveries
      deliveries[n + 1], deliveries[n + 2], deliveries[n + 3] = tonumber(found[j + 1]), cid, ''
      local group = group_of(cid)
      of_group[group] = of_group[group] or { {}, {} }
      local fields, places = unpack(of_group[group])
      fields[#fields + 1] = sub(cid, 15)
      places[#places + 1] = { deliveries, n + 3 }
    end
    work = work + #found / 2
  end
  work = work + 1
  taken[i] = deliveries
end
for group, wanted in pairs(of_group) do
  local fields, places = unpack(wanted)
  for from = 1, #fields, 1000 do
    local to = min(from + 999, #fields)
    local found = call('HMGET', P .. 'live:' .. group, unpack(fields, from, to))
    for i = from, to do
      local live = found[i - from + 1]
      places[i][1][places[i][2]] = live
      local bound = unpacked(live)
      if bound[14] == '' then name_spec(bound[3]) end
    end
  end
end
return { taken, specs }
