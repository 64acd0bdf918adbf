-- A slice of a list of containers: groups newest first, containers by index.
--
-- ARGV     cursor (group and index scanned last, or '' and -1), only this group or '', only this tenant or '',
--          labels wanted (number, then key and value each), states wanted (as ',queued,finished,' or ''),
--          rows at most, containers and groups scanned at most
-- Reply    { rows (container, kind, spec, record or '', reasons or ''), groups (flat: id, tenant, name, submitted at),
--            specs (flat: hash, body), scanned, last scanned or '', cursor (group, index), more, now }
--          kinds: 'r' never claimed, 'l' live, 'f' finished, 'p' pruned

local cursor_group, cursor_index, only, tenant = arg(), number(), arg(), arg()
local labels = {}
for i = 1, number() do labels[i] = { arg(), arg() } end
local states, rows_max, scan_max = arg(), number(), number()

local rows, groups, scanned, visited, last = {}, {}, 0, 0, ''
local function reply(more, group, index)
  return { rows, groups, specs, scanned, last, group, index, more,
    tonumber(call('HGET', KEYS[1], 'now') or 0) }
end

local function wanted(group, owner)
  if tenant ~= '' and owner[1] ~= tenant then return false end
  if #labels == 0 then return true end
  local has = cjson.decode(owner[4])
  for _, label in ipairs(labels) do
    if has[label[1]] ~= label[2] then return false end
  end
  return true
end

local function row(cid, run, live, finished)
  local kind, state, record, reasons = 'p', 'finished', '', ''
  if index_of(cid) >= run[6] then
    kind, state = 'r', 'queued'
  elseif live then
    kind, record = 'l', live
    state = state_of(unpacked(live))
  elseif finished then
    kind, record = 'f', finished
  end
  if states ~= '' and not string.find(states, ',' .. state .. ',', 1, true) then return end
  if state == 'queued' then reasons = reasons_of(run[2]) end
  name_spec(run[1])
  local n = #rows
  rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4], rows[n + 5] = cid, kind, run[1], record, reasons
end

-- Goes through a group from an index on; the index it stopped before when there is more of it.
local WINDOW = 100
local function scan(group, from, count, runs)
  local at, run_number = from, nil
  while at < count do
    local fields = {}
    for i = at, min(at + WINDOW, count) - 1 do fields[#fields + 1] = format('%010d', i) end
    local live = call('HMGET', P .. 'live:' .. group, unpack(fields))
    local finished = call('HMGET', P .. 'finished:' .. group, unpack(fields))
    for i = 1, #fields do
      if #rows / 5 >= rows_max or scanned >= scan_max then return at end
      run_number = run_number or run_at(group, runs, at)
      local run = run_of_group(group, run_number)
      if at >= run[4] + run[5] then
        run_number = run_number + 1
        run = run_of_group(group, run_number)
      end
      scanned = scanned + 1
      last = container(group, at)
      row(last, run, live[i], finished[i])
      at = at + 1
    end
  end
end

local from = '+inf'
if cursor_group ~= '' then
  local place = call('HMGET', P .. 'group:' .. cursor_group, 'arrival', 'tenant')
  local arrival = place[1]
  if tenant ~= '' and place[2] ~= tenant then arrival = nil end
  -- Its group is pruned, and its place in the order of arrival with it: what follows is as old.
  if not arrival then return reply(0, '', -1) end
  from = arrival
end
local found
if only ~= '' then
  found = { only }
else
  found = call('ZRANGE', P .. 'arrivals', from, '-inf', 'BYSCORE', 'REV', 'LIMIT', 0, scan_max)
end
for _, group in ipairs(found) do
  local owner = call('HMGET', P .. 'group:' .. group, 'tenant', 'name', 'submitted_at', 'labels', 'count', 'runs')
  visited = visited + 1
  if owner[1] and wanted(group, owner) then
    local n, count = #groups, tonumber(owner[5])
    groups[n + 1], groups[n + 2], groups[n + 3], groups[n + 4] = group, owner[1], owner[2], tonumber(owner[3])
    local first = group == cursor_group and cursor_index + 1 or 0
    local stopped = scan(group, first, count, tonumber(owner[6]))
    if stopped then return reply(1, group, stopped - 1) end
  end
end
if only == '' and #found == scan_max then
  local group = found[#found]
  return reply(1, group, tonumber(call('HGET', P .. 'group:' .. group, 'count')) - 1)
end
return reply(0, '', -1)
