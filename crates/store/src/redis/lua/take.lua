-- What workers' streams have not been handed yet, as many of them as one call may; the rest is asked for again.
--
-- ARGV     number of workers, for each: worker, stream, after, messages at most
-- Reply    { for each that was looked at: flat number, container, record (packed); specs (flat: hash, body) }

local taken, work = {}, 0
for i = 1, number() do
  if work >= OPT.script_items_max then break end
  local worker, stream, after, count = arg(), arg(), arg(), number()
  local raw = call('HGET', P .. 'workers', worker)
  local record, deliveries = raw and unpacked(raw), {}
  if record and record[21] ~= '' and record[22] == stream then
    local found = call('ZRANGE', P .. 'outbox:' .. worker, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, count,
      'WITHSCORES')
    for j = 1, #found, 2 do
      local live = call('HGET', P .. 'live:' .. group_of(found[j]), sub(found[j], 15))
      local n = #deliveries
      deliveries[n + 1], deliveries[n + 2], deliveries[n + 3] = tonumber(found[j + 1]), found[j], live
      local bound = unpacked(live)
      if bound[14] == '' then name_spec(bound[3]) end
    end
    work = work + #found / 2
  end
  work = work + 1
  taken[i] = deliveries
end
return { taken, specs }
