-- Stops containers: one, or those of a group from an index on, as many as one call may.
--
-- ARGV     group, tenant ('' for any), force, index of the one container or -1 for all, first index of this call
-- Reply    { 'none' } or { 'ok', finished, stopping, had finished, index to go on with or -1 }

local group, tenant, force, only, from = arg(), arg(), arg() == '1', number(), number()
local key = P .. 'group:' .. group
local owner = call('HMGET', key, 'tenant', 'count', 'runs', 'finished')
if not owner[1] or (tenant ~= '' and owner[1] ~= tenant) or only >= tonumber(owner[2]) then return done({ 'none' }) end
local count, runs = tonumber(owner[2]), tonumber(owner[3])
local finished, stopping, had_finished = 0, 0, 0

-- The run that holds an index: the last that starts at or before it.
local function run_of(index)
  local low, high = 0, runs - 1
  while low < high do
    local middle = math.ceil((low + high) / 2)
    if run_get(run_id(group, middle))[R.start] <= index then low = middle else high = middle - 1 end
  end
  return low
end

local function stop_live(cid, record)
  if record[L.state] == BOUND then
    ask_stop(cid, record, 'client', force and 0 or rules_get(record[L.spec])[S.grace])
    stopping = stopping + 1
  else
    finish(cid, record, outcome_stopped('client'), false)
    finished = finished + 1
  end
end

if only >= 0 then
  local run = run_of(only)
  local record = run_get(run_id(group, run))
  if only >= record[R.next] then take_range(group, run, only + 1) end
  local cid = container(group, only)
  local live = live_get(cid)
  if live then stop_live(cid, live) else had_finished = 1 end
  return done({ 'ok', finished, stopping, had_finished, -1 })
end

local past = min(count, from + OPT.script_items_max)
if from == 0 then had_finished = tonumber(owner[4]) end
for run = run_of(from), runs - 1 do
  local record = run_get(run_id(group, run))
  if record[R.start] >= past then break end
  take_range(group, run, min(past, record[R.start] + record[R.count]))
end
for index = from, past - 1 do
  local cid = container(group, index)
  local live = live_get(cid)
  if live then stop_live(cid, live) end
end
return done({ 'ok', finished, stopping, had_finished, past < count and past or -1 })
