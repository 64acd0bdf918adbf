-- All that a scale plan needs beside the fleet: what waits in blocked shapes, what was bought, how pools do.
--
-- ARGV     shapes at most, scores told apart of each at most
-- Reply    { now, fleet version, leader ('' for none), term, until,
--            demand (for each shape: hash, body (JSON), since, flat: score, count),
--            machines (flat: worker, record packed, worker's record packed or ''),
--            standings (flat: pool, record packed) }

local shapes_max, runs_max = number(), number()
local meta = call('HMGET', KEYS[1], 'now', 'version', 'lead_term', 'lead_until')
for i = 1, 4 do meta[i] = tonumber(meta[i] or 0) end
local leader = meta[4] > meta[1] and call('GET', P .. 'lead') or ''

local function since_of(member)
  if #member == 24 then
    return unpacked(call('HGET', P .. 'live:' .. group_of(member), sub(member, 15)))[6]
  end
  return tonumber(call('HGET', P .. 'group:' .. group_of(member), 'submitted_at'))
end

local function count_of(member)
  if #member == 24 then return 1 end
  local run = run_of_group(group_of(member), sub(member, 26))
  return run[4] + run[5] - index_of(member)
end

-- Entries of queues that are looked at in one call, those of the best shapes first; each shape's head always is.
local entries_left = OPT.script_items_max * 4
local ENTRIES = 250

-- Score and count, best first; the last one stands for all the rest when there are many.
local function runs_of(key, left)
  local runs, from = {}, 0
  while true do
    local entries = call('ZRANGE', key, from, from + ENTRIES - 1, 'WITHSCORES')
    for i = 1, #entries, 2 do
      entries_left = entries_left - 1
      local score, count = tonumber(entries[i + 1]), count_of(entries[i])
      local n = #runs
      if n > 0 and entries_left < 0 then
        runs[n] = runs[n] + left
        return runs
      elseif n > 0 and runs[n - 1] == score then
        runs[n] = runs[n] + count
      elseif n / 2 + 1 >= runs_max then
        runs[n + 1], runs[n + 2] = score, left
        return runs
      else
        runs[n + 1], runs[n + 2] = score, count
      end
      left = left - count
    end
    if #entries < ENTRIES * 2 then return runs end
    from = from + ENTRIES
  end
end

-- Of very many blocked shapes those that were looked at longest ago.
local blocked = {}
for _, shape in ipairs(call('ZRANGE', P .. 'recheck', 0, OPT.script_items_max * 4 - 1)) do
  local head = call('ZRANGE', P .. 'queue:' .. shape, 0, 0, 'WITHSCORES')
  if head[1] then blocked[#blocked + 1] = { tonumber(head[2]), shape, head[1] } end
end
table.sort(blocked, function(a, b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end)
local demand = {}
for i = 1, min(#blocked, shapes_max) do
  local shape = blocked[i][2]
  local waiting = unpacked(call('HGET', P .. 'shapes', shape))[1]
  demand[i] = { shape, call('HGET', P .. 'shape_bodies', shape), since_of(blocked[i][3]),
    runs_of(P .. 'queue:' .. shape, waiting) }
end
local machines, found = {}, call('HGETALL', P .. 'machines')
for i = 1, #found, 2 do
  local n = #machines
  machines[n + 1], machines[n + 2] = found[i], found[i + 1]
  machines[n + 3] = call('HGET', P .. 'workers', found[i]) or ''
end
return { meta[1], meta[2], leader, meta[3], meta[4], demand, machines, call('HGETALL', P .. 'standings') }
